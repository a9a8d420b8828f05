//! Folders with credentials: key, certificate, authority, and the addresses of nodes.
//!
//! An operator has one (the admin folder), every client that mounts has one. They are made by
//! `network create` and by joining, and read by every other command. The file `addresses` lists
//! nodes, one IP:PORT a line; it is refreshed from the map whenever a node answers.
//!
//! When one cannot be used, the failure names the folder and says how to get another.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use ministry_transport::identity::IdentityFileError;
use ministry_transport::{Identity, Role};
use ministry_types::settings::ADDRESSES_FILE;

use crate::failure::{Failure, Kind};

/// What a folder of credentials holds.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The folder.
    pub folder: PathBuf,
    /// Key, certificate, authority.
    pub identity: Identity,
    /// Where nodes are reached; not empty.
    pub addresses: Vec<SocketAddr>,
}

impl Credentials {
    /// Loads the credentials of this role from the folder. `instead`: addresses that a person gave
    /// go before those of the folder.
    pub fn load(folder: &Path, role: Role, instead: &[SocketAddr]) -> Result<Credentials, Failure> {
        let identity =
            Identity::load(folder, role).map_err(|error| explain(folder, role, error))?;
        let (_, until) = identity.validity();
        if until <= now_seconds() {
            return Err(Failure::text(
                Kind::Credentials,
                format!(
                    "the certificate in {} has ended: join again with a new token \
                     (`ministryctl invite --{role}`)",
                    folder.display()
                ),
            ));
        }
        let addresses = if instead.is_empty() { read_addresses(folder)? } else { instead.to_vec() };
        Ok(Credentials { folder: folder.to_owned(), identity, addresses })
    }
}

fn explain(folder: &Path, role: Role, error: IdentityFileError) -> Failure {
    let text = match (&error, role) {
        (IdentityFileError::NotJoined { .. }, Role::Operator) => format!(
            "there are no operator credentials in {}: name their folder with --admin (or \
             MINISTRY_ADMIN), or make a cluster with `ministryctl network create`",
            folder.display()
        ),
        (IdentityFileError::NotJoined { .. }, _) => format!(
            "there are no {role} credentials in {}: make them with `ministryctl {role} join TOKEN \
             --identity {0}`",
            folder.display()
        ),
        (IdentityFileError::File { source, .. }, Role::Client)
            if source.kind() == io::ErrorKind::PermissionDenied =>
        {
            format!(
                "{error}: a client's credentials belong to one user; make your own with \
                 `ministryctl client join TOKEN --identity ~/.config/ministry/client`, or name \
                 their folder (option credentials)"
            )
        }
        _ => error.to_string(),
    };
    Failure::text(Kind::Credentials, text)
}

/// The admin folder: as given, or below the user's settings.
pub fn admin_folder(given: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(folder) = given {
        return Ok(folder.to_owned());
    }
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let settings = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".config")));
    settings.map(|settings| settings.join("ministry")).ok_or_else(|| {
        Failure::text(Kind::Usage, "HOME is not set: name the admin folder with --admin")
    })
}

fn read_addresses(folder: &Path) -> Result<Vec<SocketAddr>, Failure> {
    let path = folder.join(ADDRESSES_FILE);
    let text = fs::read_to_string(&path)
        .map_err(|error| anyhow!("{}: {error}; give a node with --address", path.display()))
        .map_err(|error| Failure::new(Kind::Credentials, error))?;
    let addresses = parse_addresses(&text)
        .with_context(|| format!("{} is damaged; give a node with --address", path.display()))
        .map_err(|error| Failure::new(Kind::Credentials, error))?;
    if addresses.is_empty() {
        let text = format!("{} names no node: give one with --address", path.display());
        return Err(Failure::text(Kind::Credentials, text));
    }
    Ok(addresses)
}

fn parse_addresses(text: &str) -> anyhow::Result<Vec<SocketAddr>> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines
        .filter(|line| !line.is_empty())
        .map(|line| line.parse().with_context(|| format!("'{line}' is not IP:PORT")))
        .collect()
}

/// Writes the list of addresses.
pub fn write_addresses(folder: &Path, addresses: &[SocketAddr]) -> anyhow::Result<()> {
    let mut text = "# Nodes of the cluster; refreshed whenever one answers.\n".to_owned();
    addresses.iter().for_each(|address| text.push_str(&format!("{address}\n")));
    write_file(&folder.join(ADDRESSES_FILE), &text, 0o644)
}

/// Brings the list of addresses up to date. That it cannot be written costs nothing now.
pub fn refresh_addresses(folder: &Path, addresses: &[SocketAddr]) {
    let kept = fs::read_to_string(folder.join(ADDRESSES_FILE)).unwrap_or_default();
    if !addresses.is_empty() && parse_addresses(&kept).ok().as_deref() != Some(addresses) {
        let _ = write_addresses(folder, addresses);
    }
}

/// Replaces a file as a whole, on disk when it returns.
pub fn write_file(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let temporary = path.with_extension(format!("new{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().inspect_err(|_| drop(fs::remove_file(&temporary))).with_context(|| {
        format!("cannot write {}: check the folder's rights and the disk", path.display())
    })
}

/// Refuses a folder that holds something already; makes it, open to its owner alone, if it is not
/// there.
pub fn make_empty_folder(folder: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    let cannot = |error: io::Error| anyhow!("cannot make the folder {}: {error}", folder.display());
    match fs::read_dir(folder) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(anyhow!(
                "the folder {} is not empty: choose another, or remove what is in it",
                folder.display()
            )
            .into()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            Ok(made.map_err(cannot)?)
        }
        Err(error) => Err(cannot(error).into()),
    }
}

/// Seconds since 1970. Wall clocks decide certificates and tokens, nothing else.
pub fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_and_are_refreshed() {
        let folder = tempfile::tempdir().unwrap();
        let first = vec![SocketAddr::from(([10, 0, 0, 1], 7400))];
        write_addresses(folder.path(), &first).unwrap();
        assert_eq!(read_addresses(folder.path()).unwrap(), first);
        let second = vec!["[::1]:7401".parse().unwrap(), "10.0.0.2:7400".parse().unwrap()];
        refresh_addresses(folder.path(), &second);
        assert_eq!(read_addresses(folder.path()).unwrap(), second);
        refresh_addresses(folder.path(), &[]);
        assert_eq!(read_addresses(folder.path()).unwrap(), second, "an empty map changes nothing");
    }

    #[test]
    fn a_damaged_list_is_refused_and_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["10.0.0.1\n", "\u{0}\n", "# nothing\n"] {
            fs::write(folder.path().join(ADDRESSES_FILE), text).unwrap();
            let failure = read_addresses(folder.path()).unwrap_err();
            assert!(failure.to_string().contains("--address"), "{failure}");
        }
    }

    #[test]
    fn missing_credentials_say_how_to_get_them() {
        let folder = tempfile::tempdir().unwrap();
        for (role, wanted) in [(Role::Operator, "network create"), (Role::Client, "client join")] {
            let failure = Credentials::load(folder.path(), role, &[]).unwrap_err();
            assert_eq!(failure.kind, Kind::Credentials);
            assert!(failure.to_string().contains(wanted), "{failure}");
        }
    }

    #[test]
    fn a_folder_with_something_in_it_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        make_empty_folder(folder.path()).unwrap();
        make_empty_folder(&folder.path().join("a/b")).unwrap();
        let failure = make_empty_folder(folder.path()).unwrap_err();
        assert!(failure.to_string().contains("not empty"), "{failure}");
    }
}
