//! What is mounted: `CLUSTER:/PATH`.
//!
//! CLUSTER is the name of a folder with a client's credentials, below `~/.config/ministry` or
//! `/etc/ministry`; or a list of nodes, for which the folder `client` is taken. Where no source is
//! given, that folder and the root are meant.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::mount::options::inner_path;
use crate::mount::usage;

/// The folder of credentials that needs no name.
const DEFAULT_FOLDER: &str = "client";
/// Where the machine keeps its credentials.
const SYSTEM_FOLDER: &str = "/etc/ministry";

/// The part before the colon.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cluster {
    Default,
    Named(String),
    Nodes(Vec<SocketAddr>),
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    cluster: Cluster,
    /// The directory inside the file system, from its root on.
    pub path: String,
    /// As it was written, or would be.
    text: String,
}

impl Default for Source {
    fn default() -> Source {
        let (path, text) = ("/".to_owned(), "ministry:/".to_owned());
        Source { cluster: Cluster::Default, path, text }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Source {
    /// Reads `CLUSTER:/PATH` or `CLUSTER:`.
    pub fn parse(text: &str) -> Result<Source, Failure> {
        let (cluster, path) = match text.find(":/") {
            Some(colon) => (&text[..colon], &text[colon + 1..]),
            None => (text.strip_suffix(':').ok_or_else(|| no_colon(text))?, "/"),
        };
        let path = inner_path(path)?;
        Ok(Source { cluster: parse_cluster(cluster)?, path, text: text.to_owned() })
    }

    /// With another directory: the option `subdir`, for which the source must leave room.
    pub fn with_subdirectory(self, path: &str) -> Result<Source, Failure> {
        if self.path != "/" && self.path != path {
            return Err(usage(format!(
                "the source names the directory {} and the option subdir {path}: give one of them",
                self.path
            )));
        }
        let text = format!("{}:{path}", self.name());
        Ok(Source { path: path.to_owned(), text, ..self })
    }

    /// With another name for the cluster in `mount` and `df`: the option `name`.
    pub fn with_name(self, name: &str) -> Source {
        Source { text: format!("{name}:{}", self.path), ..self }
    }

    /// Nodes to ask, where the source lists them.
    pub fn nodes(&self) -> &[SocketAddr] {
        match &self.cluster {
            Cluster::Nodes(nodes) => nodes,
            _ => &[],
        }
    }

    /// The folder with the credentials: the user's own, where there is one, else the machine's.
    pub fn credentials(&self) -> PathBuf {
        let home = crate::credentials::admin_folder(None).ok();
        self.find_credentials(home.as_deref(), Path::new(SYSTEM_FOLDER))
    }

    fn find_credentials(&self, home: Option<&Path>, system: &Path) -> PathBuf {
        let name = match &self.cluster {
            Cluster::Named(name) => name,
            _ => DEFAULT_FOLDER,
        };
        let own = home.map(|home| home.join(name)).filter(|folder| folder.is_dir());
        own.unwrap_or_else(|| system.join(name))
    }

    fn name(&self) -> &str {
        let end = self.text.find(":/").unwrap_or(self.text.trim_end_matches(':').len());
        self.text.get(..end).unwrap_or_default()
    }
}

fn no_colon(text: &str) -> Failure {
    usage(format!(
        "'{text}' is not what can be mounted: write CLUSTER:/PATH, where CLUSTER is the name of a \
         folder below {SYSTEM_FOLDER} with a client's credentials, or IP:PORT of nodes"
    ))
}

fn parse_cluster(text: &str) -> Result<Cluster, Failure> {
    let nodes: Result<Vec<SocketAddr>, _> = text.split(',').map(str::parse).collect();
    if let Ok(nodes) = nodes {
        return Ok(Cluster::Nodes(nodes));
    }
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.starts_with('.') || !text.chars().all(plain) {
        return Err(usage(format!(
            "'{text}' is neither the name of a cluster (letters, digits, '-', '_', '.') nor a list \
             of nodes as IP:PORT,IP:PORT"
        )));
    }
    Ok(Cluster::Named(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_names_a_cluster_and_a_directory() {
        let source = Source::parse("home:/a//b/").unwrap();
        assert_eq!(source.cluster, Cluster::Named("home".to_owned()));
        assert_eq!((source.path.as_str(), source.to_string().as_str()), ("/a/b", "home:/a//b/"));
        assert_eq!(Source::parse("home:").unwrap().path, "/");
        assert_eq!(Source::parse("home:/x:/y").unwrap().path, "/x:/y");
    }

    #[test]
    fn a_source_may_list_nodes() {
        let source = Source::parse("10.0.0.1:7400,[fe80::1]:7401:/a").unwrap();
        assert_eq!(source.nodes().len(), 2);
        assert_eq!(source.path, "/a");
        let one = Source::parse("10.0.0.1:7400:").unwrap();
        assert_eq!((one.nodes().len(), one.path.as_str()), (1, "/"));
    }

    #[test]
    fn what_is_no_source_is_refused_with_how_to_write_it() {
        for text in ["", "home", "/dev/sda1", "home/x:/y", "a b:/", ":/x", "..:/", "home:/a/../b"] {
            let said = Source::parse(text).unwrap_err().to_string().to_lowercase();
            assert!(said.contains("cluster") || said.contains("path"), "{text}: {said}");
        }
    }

    #[test]
    fn a_directory_is_named_once() {
        let below = |text: &str, path: &str| Source::parse(text).unwrap().with_subdirectory(path);
        assert_eq!(below("home:", "/a").unwrap().to_string(), "home:/a");
        assert_eq!(below("home:/", "/a").unwrap().path, "/a");
        assert!(below("home:/b", "/a").unwrap_err().to_string().contains("/b"));
        let default = Source::default().with_subdirectory("/a").unwrap();
        assert_eq!(default.to_string(), "ministry:/a");
        assert_eq!(default.with_name("mine").to_string(), "mine:/a");
    }

    #[test]
    fn a_users_own_credentials_go_before_the_machines() {
        let home = tempfile::tempdir().unwrap();
        let system = Path::new("/etc/ministry");
        let source = Source::parse("home:/").unwrap();
        let found = source.find_credentials(Some(home.path()), system);
        assert_eq!(found, Path::new("/etc/ministry/home"));
        std::fs::create_dir(home.path().join("home")).unwrap();
        assert_eq!(source.find_credentials(Some(home.path()), system), home.path().join("home"));
        let nodes = Source::parse("10.0.0.1:7400:/").unwrap();
        assert_eq!(nodes.find_credentials(None, system), Path::new("/etc/ministry/client"));
    }
}
