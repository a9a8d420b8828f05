//! The data folder of a node: whose it is, and what lies where in it.
//!
//! ```text
//! ministry.toml    marker: cluster and node, written once          identity/   key, certificate
//! ministryd.toml   settings                                        addresses   other nodes
//! founding.toml    first node, first start only: the authority     lock        one process alone
//! log/ state/ chunks/ snapshots/   the stores; stores-made: they exist from then on
//! ```
//!
//! What must always hold: a folder that is not this node's is refused before anything in it is
//! changed; a node whose stores are gone never begins with empty ones, since it would then deny
//! what it acknowledged.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use ministry_roles::Founding;
use ministry_storage::{FolderError, FolderLock, Marker};
use ministry_transport::{Identity, Role};
use ministry_types::NodeId;
use ministry_types::settings::{
    ADDRESSES_FILE, FOUNDING_FILE, FoundingFile, NodeSettings, SETTINGS_FILE,
};

use crate::failure::Failure;
use crate::settings;

const IDENTITY_FOLDER: &str = "identity";
const STORES_MADE_FILE: &str = "stores-made";
const STORES: [&str; 3] = ["log", "state", "chunks"];

/// Names that a join which was not finished leaves behind.
const UNFINISHED: [&str; 4] = [IDENTITY_FOLDER, SETTINGS_FILE, ADDRESSES_FILE, "lock"];

/// A data folder that was looked at, and nothing more.
#[derive(Debug)]
pub struct Inspected {
    /// Who the node is.
    pub identity: Identity,
    /// Its id.
    pub node: NodeId,
    /// It begins a cluster, and this is before its first start.
    pub is_new: bool,
}

/// Checks that a folder is a node's, whole, and not another's. Changes nothing.
pub fn inspect(path: &Path) -> Result<Inspected, Failure> {
    let is_new = match Marker::read(path) {
        Ok(_) => false,
        // The first start of a cluster's first node.
        Err(FolderError::NotOurs { .. }) if path.join(FOUNDING_FILE).exists() => true,
        Err(FolderError::NotOurs { .. }) if is_unfinished(path) => {
            return Err(Failure::folder(anyhow!(
                "joining with the data folder {} was not finished: run `ministryd join` again \
                 with the same token and folder",
                path.display()
            )));
        }
        Err(error) => return Err(Failure::folder(error)),
    };
    let identity =
        Identity::load(&path.join(IDENTITY_FOLDER), Role::Node).map_err(Failure::folder)?;
    check_validity(&identity)?;
    let node = identity.node().ok_or_else(|| anyhow!("the certificate is not a node's"))?;
    if !is_new {
        Marker::check(path, identity.peer().cluster, node).map_err(Failure::folder)?;
    }
    check_stores(path)?;
    Ok(Inspected { identity, node, is_new })
}

/// A data folder that is this node's, held by this process alone.
#[derive(Debug)]
pub struct DataFolder {
    /// Where it is.
    pub path: PathBuf,
    /// Who the node is.
    pub identity: Identity,
    /// Its id.
    pub node: NodeId,
    _lock: FolderLock,
}

impl DataFolder {
    /// Opens the folder of a node that joined or founds a cluster.
    pub fn open(path: &Path) -> Result<DataFolder, Failure> {
        let Inspected { identity, node, is_new } = inspect(path)?;
        let lock = FolderLock::take(path).map_err(Failure::folder)?;
        if is_new {
            Marker::new(identity.peer().cluster, node).create(path).map_err(Failure::folder)?;
        }
        Ok(DataFolder { path: path.to_owned(), identity, node, _lock: lock })
    }

    /// The folder of a store.
    pub fn store(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes the folder of a store that opens into an existing folder.
    pub fn make_store(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.store(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// From now on the stores must be there at each start.
    pub fn stores_are_made(&self) -> anyhow::Result<()> {
        let path = self.path.join(STORES_MADE_FILE);
        if path.exists() {
            return Ok(());
        }
        write_file(&path, "The stores of this node were made; without them it does not start.\n")
    }

    /// The authority, where this node begins a cluster and the cluster log may not hold it yet.
    pub fn founding(&self) -> Result<Option<Founding>, Failure> {
        let path = self.path.join(FOUNDING_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(anyhow!("cannot read {}: {error}", path.display()).into()),
        };
        let file: FoundingFile = toml::from_str(&text).map_err(|error| {
            let reason = error.message().to_owned();
            Failure::folder(anyhow!(
                "{} is damaged ({reason}): make the cluster again with `ministryctl network create`",
                path.display()
            ))
        })?;
        Ok(Some(Founding {
            cluster: self.identity.peer().cluster,
            authority: file.authority,
            initial_nodes: file.initial_nodes,
        }))
    }

    /// The cluster log holds the authority: the file goes.
    pub fn forget_founding(&self) -> anyhow::Result<()> {
        let path = self.path.join(FOUNDING_FILE);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        fs::File::open(&self.path)
            .and_then(|folder| folder.sync_all())
            .with_context(|| format!("cannot sync {}", self.path.display()))
    }

    /// Nodes known at the last run. A list that cannot be read is no list: the map is in the log.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let text = fs::read_to_string(self.path.join(ADDRESSES_FILE)).unwrap_or_default();
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        lines.filter_map(|line| line.parse().ok()).collect()
    }
}

fn check_stores(path: &Path) -> Result<(), Failure> {
    if !path.join(STORES_MADE_FILE).exists() {
        return Ok(());
    }
    let missing = STORES.iter().find(|store| !path.join(store).is_dir());
    missing.map_or(Ok(()), |store| {
        Err(Failure::folder(anyhow!(
            "the data folder {} has lost its folder '{store}': restore it from where it went; if \
             it is gone for good, this node must be replaced by a new one, since starting without \
             it would deny what it acknowledged",
            path.display()
        )))
    })
}

fn check_validity(identity: &Identity) -> Result<(), Failure> {
    let (_, until) = identity.validity();
    if until > now_seconds() {
        return Ok(());
    }
    Err(Failure::folder(anyhow!(
        "the certificate of this node has ended: check the clock of this machine; if it is right, \
         the node must join anew with an empty data folder"
    )))
}

/// Whether the folder holds nothing but the beginnings of a join.
fn is_unfinished(path: &Path) -> bool {
    path.join(IDENTITY_FOLDER).is_dir() && only_beginnings(path).unwrap_or(false)
}

fn only_beginnings(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        if !UNFINISHED.iter().any(|known| name == *known) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A folder on its way to become a node's data folder.
#[derive(Debug)]
pub struct NewFolder {
    path: PathBuf,
    _lock: FolderLock,
}

impl NewFolder {
    /// Makes the folder, or takes one that is empty or holds a join that was not finished.
    pub fn begin(path: &Path) -> Result<NewFolder, Failure> {
        use std::os::unix::fs::DirBuilderExt;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.with_context(|| format!("cannot make the data folder {}", path.display()))?;
        let usable = only_beginnings(path)
            .with_context(|| format!("cannot look into the data folder {}", path.display()))?;
        if !usable {
            return Err(Failure::folder(anyhow!(
                "the folder {} is not empty: to start the node that it belongs to use `ministryd \
                 run`; else name another folder",
                path.display()
            )));
        }
        let lock = FolderLock::take(path).map_err(Failure::folder)?;
        Ok(NewFolder { path: path.to_owned(), _lock: lock })
    }

    /// Where the key and the certificate go.
    pub fn identity(&self) -> PathBuf {
        self.path.join(IDENTITY_FOLDER)
    }

    /// Writes everything; the marker last, so that the folder is a node's whole or not at all.
    pub fn finish(
        self,
        identity: &Identity,
        settings: &NodeSettings,
        addresses: &[SocketAddr],
    ) -> Result<(), Failure> {
        let node = identity.node().ok_or_else(|| anyhow!("the certificate is not a node's"))?;
        write_addresses(&self.path, addresses)?;
        write_file(&self.path.join(SETTINGS_FILE), &settings::write(settings)?)?;
        identity.save(&self.identity())?;
        Marker::new(identity.peer().cluster, node).create(&self.path).map_err(Failure::folder)
    }
}

/// Writes the list of other nodes.
pub fn write_addresses(folder: &Path, addresses: &[SocketAddr]) -> anyhow::Result<()> {
    let mut text =
        "# Nodes of the cluster, for the time before the cluster log is read.\n".to_owned();
    addresses.iter().for_each(|address| text.push_str(&format!("{address}\n")));
    write_file(&folder.join(ADDRESSES_FILE), &text)
}

/// Replaces a file as a whole, on disk when it returns.
fn write_file(path: &Path, text: &str) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = fs::File::create(&temporary)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Seconds since 1970.
pub fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ministry_transport::{Authority, PrivateKey};

    use super::*;
    use crate::failure::Kind;

    fn identity(folder: &NewFolder, authority: &Authority) -> Identity {
        let now = now_seconds();
        let key = PrivateKey::load_or_create(&folder.identity(), Role::Node).unwrap();
        let signed =
            authority.sign(key.public(), Role::Node, now, Duration::from_secs(3600)).unwrap();
        Identity::new(key, &signed.pem, &authority.certificate_pem()).unwrap()
    }

    fn joined(path: &Path, authority: &Authority) {
        let folder = NewFolder::begin(path).unwrap();
        let identity = identity(&folder, authority);
        let settings = NodeSettings::default();
        folder.finish(&identity, &settings, &[([10, 0, 0, 1], 7400).into()]).unwrap();
    }

    fn refused(path: &Path) -> String {
        let failure = DataFolder::open(path).unwrap_err();
        assert_eq!(failure.kind, Kind::Folder, "{failure}");
        failure.to_string()
    }

    #[test]
    fn a_joined_folder_opens_for_one_process_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("node");
        joined(&path, &Authority::create(now_seconds()).unwrap());
        let folder = DataFolder::open(&path).unwrap();
        assert_eq!(folder.addresses().len(), 1);
        assert!(folder.founding().unwrap().is_none());
        assert!(DataFolder::open(&path).is_err(), "a second process");
        drop(folder);
        DataFolder::open(&path).unwrap();
        assert!(NewFolder::begin(&path).is_err(), "a node is never joined twice");
    }

    #[test]
    fn a_join_that_was_cut_off_is_named_and_can_be_repeated_with_the_same_key() {
        let parent = tempfile::tempdir().unwrap();
        let authority = Authority::create(now_seconds()).unwrap();
        let first = NewFolder::begin(parent.path()).unwrap();
        let id = identity(&first, &authority).node();
        drop(first);
        assert!(refused(parent.path()).contains("was not finished"));
        let again = NewFolder::begin(parent.path()).unwrap();
        assert_eq!(identity(&again, &authority).node(), id);
    }

    #[test]
    fn a_folder_of_another_cluster_or_with_other_things_is_refused_unchanged() {
        let parent = tempfile::tempdir().unwrap();
        let (one, other) = (parent.path().join("one"), parent.path().join("other"));
        joined(&one, &Authority::create(now_seconds()).unwrap());
        joined(&other, &Authority::create(now_seconds()).unwrap());
        fs::copy(other.join("ministry.toml"), one.join("ministry.toml")).unwrap();
        assert!(refused(&one).contains("belongs to cluster"));

        let home = parent.path().join("home");
        fs::create_dir(&home).unwrap();
        fs::write(home.join("thesis.tex"), "text").unwrap();
        assert!(refused(&home).contains("thesis.tex"));
        assert!(NewFolder::begin(&home).is_err());
        assert_eq!(fs::read_dir(&home).unwrap().count(), 1, "nothing was written");
        assert!(refused(&parent.path().join("nowhere")).contains("does not exist"));
    }

    #[test]
    fn a_node_that_lost_its_stores_does_not_begin_anew() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("node");
        joined(&path, &Authority::create(now_seconds()).unwrap());
        let folder = DataFolder::open(&path).unwrap();
        STORES.iter().for_each(|store| drop(folder.make_store(store).unwrap()));
        folder.stores_are_made().unwrap();
        drop(folder);
        DataFolder::open(&path).unwrap();
        fs::remove_dir(path.join("log")).unwrap();
        assert!(refused(&path).contains("'log'"));
    }

    #[test]
    fn a_founding_folder_becomes_a_nodes_and_forgets_the_authority() {
        let parent = tempfile::tempdir().unwrap();
        let authority = Authority::create(now_seconds()).unwrap();
        let folder = NewFolder::begin(parent.path()).unwrap();
        identity(&folder, &authority).save(&folder.identity()).unwrap();
        drop(folder);
        let file = FoundingFile { initial_nodes: 5, authority: authority.to_pem() };
        let path = parent.path().join(FOUNDING_FILE);
        fs::write(&path, toml::to_string(&file).unwrap()).unwrap();
        let folder = DataFolder::open(parent.path()).unwrap();
        let founding = folder.founding().unwrap().unwrap();
        assert_eq!((founding.initial_nodes, founding.cluster), (5, authority.cluster()));
        drop(folder);
        let folder = DataFolder::open(parent.path()).unwrap();
        assert!(folder.founding().unwrap().is_some(), "kept until the log holds it");
        folder.forget_founding().unwrap();
        assert!(folder.founding().unwrap().is_none() && !path.exists());
        drop(folder);
        DataFolder::open(parent.path()).unwrap();
    }
}
