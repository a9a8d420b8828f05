//! Whose data folder this is.
//!
//! `ministryd` writes `ministry.toml` into its data folder when it joins a cluster, once, and
//! checks it at every start, so that a swapped, wiped or unmounted disk is noticed before anything
//! is read or written. A lock on the folder keeps a second process out.
//!
//! What must always hold: checking changes nothing in the folder; the marker appears whole or not
//! at all, and is never replaced. Each thing that can be wrong is an error of its own, which says
//! what, where, and what to do.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ministry_types::format::DATA_FOLDER_FORMAT;
use ministry_types::{ClusterId, NodeId};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

/// Name of the marker in the data folder.
pub const MARKER_FILE: &str = "ministry.toml";
/// Name of the file that is locked.
pub const LOCK_FILE: &str = "lock";

const NEW_MARKER_FILE: &str = "ministry.toml.new";

/// What the marker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Format of the folder.
    pub format: u32,
    /// The cluster that the node belongs to.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// Version of the program that made the folder.
    pub created_by: String,
}

/// The marker as text. Everything is checked after reading, so that each error can be told.
#[derive(Debug, Serialize, Deserialize)]
struct MarkerText {
    format: u32,
    cluster: String,
    node: String,
    created_by: String,
    /// CRC-32C of the above, in hexadecimal.
    checksum: String,
}

/// Only the format, which a newer marker has too, whatever else it has.
#[derive(Debug, Deserialize)]
struct FormatOnly {
    format: u32,
}

/// Why a data folder cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// No such folder.
    #[error(
        "the data folder {} does not exist: mount its disk, or make the folder if this node is new",
        folder.display()
    )]
    NoFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder has no marker and nothing else either.
    #[error(
        "the data folder {} is empty: if this node is new, join it to a cluster with a join token; \
         if it had data, its disk is not mounted or was wiped: mount it, or replace the node",
        folder.display()
    )]
    Empty {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder has no marker but something else.
    #[error(
        "the folder {} holds other things ({example} ...) but no {MARKER_FILE}: it is not a data \
         folder of Ministry; name another folder",
        folder.display()
    )]
    NotOurs {
        /// The folder.
        folder: PathBuf,
        /// A name in it.
        example: String,
    },
    /// The marker is of another cluster.
    #[error(
        "the data folder {} belongs to cluster {found}, but this node is of cluster {expected}: \
         the disks of two nodes were mixed up, or the settings name the wrong folder",
        folder.display()
    )]
    OtherCluster {
        /// The folder.
        folder: PathBuf,
        /// The cluster in the marker.
        found: ClusterId,
        /// The cluster of the node's certificate.
        expected: ClusterId,
    },
    /// The marker is of another node.
    #[error(
        "the data folder {} belongs to node {found}, but this node is {expected}: the disks of two \
         nodes were mixed up, or the node's key was replaced; a node with a new key joins as a new \
         node, with an empty folder",
        folder.display()
    )]
    OtherNode {
        /// The folder.
        folder: PathBuf,
        /// The node in the marker.
        found: NodeId,
        /// The node of the key.
        expected: NodeId,
    },
    /// The folder was made by a later version.
    #[error(
        "the data folder {} has format {found}; this version of ministryd knows formats up to \
         {DATA_FOLDER_FORMAT}: start the newer version again",
        folder.display()
    )]
    NewerFormat {
        /// The folder.
        folder: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The marker cannot be read.
    #[error(
        "{} is damaged ({reason}): check the disk; if it is sound, restore the file from a copy, \
         else replace the node",
        path.display()
    )]
    Corrupt {
        /// The marker.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is a marker already.
    #[error(
        "the data folder {} already belongs to a node: a node joins with an empty folder",
        folder.display()
    )]
    Taken {
        /// The folder.
        folder: PathBuf,
    },
    /// Another process has it.
    #[error(
        "the data folder {} is in use by another process: two nodes cannot share one",
        folder.display()
    )]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The disk refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { action, path, source }
}

impl Marker {
    /// The marker of a folder that this version makes.
    pub fn new(cluster: ClusterId, node: NodeId) -> Marker {
        Marker {
            format: DATA_FOLDER_FORMAT,
            cluster,
            node,
            created_by: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn checksum(&self) -> String {
        let text = format!("{} {} {} {}", self.format, self.cluster, self.node, self.created_by);
        format!("{:08x}", crc32c::crc32c(text.as_bytes()))
    }

    /// Writes the marker into an existing folder that has none; durable when it returns. The
    /// caller holds the folder's [`FolderLock`], so that nobody else makes one meanwhile.
    pub fn create(&self, folder: &Path) -> Result<(), FolderError> {
        if !folder.is_dir() {
            return Err(FolderError::NoFolder { folder: folder.to_owned() });
        }
        let path = folder.join(MARKER_FILE);
        if path.try_exists().map_err(io_error("look for", &path))? {
            return Err(FolderError::Taken { folder: folder.to_owned() });
        }
        let text = MarkerText {
            format: self.format,
            cluster: self.cluster.to_string(),
            node: self.node.to_string(),
            created_by: self.created_by.clone(),
            checksum: self.checksum(),
        };
        let new_path = folder.join(NEW_MARKER_FILE);
        let body = toml::to_string(&text).map_err(|error| FolderError::Io {
            action: "write",
            path: path.clone(),
            source: io::Error::other(error),
        })?;
        let comment = "# Whose data folder this is. Written once by ministryd; do not change it.\n";
        let mut file = File::create(&new_path).map_err(io_error("write", &new_path))?;
        file.write_all(format!("{comment}{body}").as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(io_error("write", &new_path))?;
        std::fs::rename(&new_path, &path).map_err(io_error("write", &path))?;
        File::open(folder).and_then(|dir| dir.sync_all()).map_err(io_error("sync", folder))
    }

    /// Reads the marker of a folder, whosoever it is.
    pub fn read(folder: &Path) -> Result<Marker, FolderError> {
        let path = folder.join(MARKER_FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing(folder)),
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        let corrupt = |reason: String| FolderError::Corrupt { path: path.clone(), reason };
        let text = String::from_utf8(text).map_err(|_| corrupt("it is not text".to_owned()))?;
        let reason = |error: toml::de::Error| corrupt(error.message().to_owned());
        let FormatOnly { format } = toml::from_str(&text).map_err(reason)?;
        if format > DATA_FOLDER_FORMAT {
            return Err(FolderError::NewerFormat { folder: folder.to_owned(), found: format });
        }
        let text: MarkerText = toml::from_str(&text).map_err(reason)?;
        let marker = Marker {
            format,
            cluster: text.cluster.parse().map_err(|error| corrupt(format!("{error}")))?,
            node: text.node.parse().map_err(|error| corrupt(format!("{error}")))?,
            created_by: text.created_by,
        };
        if marker.checksum() != text.checksum {
            return Err(corrupt("its checksum does not fit".to_owned()));
        }
        Ok(marker)
    }

    /// Reads the marker of a folder and checks that it is this node's.
    pub fn check(folder: &Path, cluster: ClusterId, node: NodeId) -> Result<Marker, FolderError> {
        let marker = Marker::read(folder)?;
        let folder = || folder.to_owned();
        if marker.cluster != cluster {
            let (found, expected) = (marker.cluster, cluster);
            return Err(FolderError::OtherCluster { folder: folder(), found, expected });
        }
        if marker.node != node {
            let (found, expected) = (marker.node, node);
            return Err(FolderError::OtherNode { folder: folder(), found, expected });
        }
        Ok(marker)
    }
}

/// Why there is no marker.
fn missing(folder: &Path) -> FolderError {
    let owned = folder.to_owned();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return FolderError::NoFolder { folder: owned };
        }
        Err(error) => return io_error("read", folder)(error),
    };
    // What a join that was cut short, a lock, or a new file system leaves is nothing.
    let nothing = [LOCK_FILE, NEW_MARKER_FILE, "lost+found"];
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    match names.filter(|name| !nothing.contains(&name.as_str())).min() {
        Some(example) => FolderError::NotOurs { folder: owned, example },
        None => FolderError::Empty { folder: owned },
    }
}

/// This process alone uses the folder, until the value is dropped or the process ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the lock without waiting.
    pub fn take(folder: &Path) -> Result<FolderLock, FolderError> {
        if !folder.is_dir() {
            return Err(FolderError::NoFolder { folder: folder.to_owned() });
        }
        let path = folder.join(LOCK_FILE);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io_error("open", &path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(FolderLock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(FolderError::InUse { folder: folder.to_owned() })
            }
            Err(error) => Err(io_error("lock", &path)(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker() -> Marker {
        Marker::new(ClusterId([1; 16]), NodeId([2; 32]))
    }

    fn made() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        marker().create(folder.path()).unwrap();
        folder
    }

    fn listing(folder: &Path) -> Vec<(String, Vec<u8>)> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let mut files: Vec<_> = entries
            .map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap()))
            .collect();
        files.sort();
        files
    }

    #[test]
    fn a_marker_reads_back_and_is_never_replaced() {
        let folder = made();
        let (cluster, node) = (marker().cluster, marker().node);
        assert_eq!(Marker::check(folder.path(), cluster, node).unwrap(), marker());
        let other = Marker::new(ClusterId([9; 16]), NodeId([9; 32]));
        assert!(matches!(other.create(folder.path()), Err(FolderError::Taken { .. })));
        assert_eq!(Marker::read(folder.path()).unwrap(), marker());
    }

    #[test]
    fn what_is_wrong_with_a_folder_is_told_apart_and_nothing_is_changed() {
        let ask = |folder: &Path| {
            let before = folder.is_dir().then(|| listing(folder));
            let error = Marker::check(folder, ClusterId([1; 16]), NodeId([2; 32])).unwrap_err();
            assert_eq!(before, folder.is_dir().then(|| listing(folder)));
            assert!(error.to_string().contains(folder.to_str().unwrap()), "{error}");
            error
        };
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(ask(empty.path()), FolderError::Empty { .. }));
        assert!(matches!(ask(&empty.path().join("x")), FolderError::NoFolder { .. }));
        std::fs::write(empty.path().join("thesis.tex"), "x").unwrap();
        assert!(matches!(ask(empty.path()), FolderError::NotOurs { example, .. }
            if example == "thesis.tex"));

        let other = tempfile::tempdir().unwrap();
        Marker::new(ClusterId([3; 16]), NodeId([2; 32])).create(other.path()).unwrap();
        assert!(matches!(ask(other.path()), FolderError::OtherCluster { found, .. }
            if found == ClusterId([3; 16])));
        let other = tempfile::tempdir().unwrap();
        Marker::new(ClusterId([1; 16]), NodeId([4; 32])).create(other.path()).unwrap();
        assert!(matches!(ask(other.path()), FolderError::OtherNode { .. }));
        let newer = tempfile::tempdir().unwrap();
        std::fs::write(newer.path().join(MARKER_FILE), "format = 99\nnew_thing = 1\n").unwrap();
        assert!(matches!(ask(newer.path()), FolderError::NewerFormat { found: 99, .. }));
    }

    #[test]
    fn every_flipped_bit_that_changes_what_a_marker_says_is_noticed() {
        let folder = made();
        let path = folder.path().join(MARKER_FILE);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 2;
            std::fs::write(&path, damaged).unwrap();
            match Marker::read(folder.path()) {
                Ok(read) => assert_eq!(read, marker(), "byte {at}"),
                Err(FolderError::Corrupt { .. } | FolderError::NewerFormat { .. }) => {}
                Err(other) => panic!("byte {at}: {other}"),
            }
        }
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(matches!(Marker::read(folder.path()), Err(FolderError::Corrupt { .. })));
    }

    #[test]
    fn a_second_process_is_kept_out() {
        let folder = tempfile::tempdir().unwrap();
        let lock = FolderLock::take(folder.path()).unwrap();
        // Locks of flock belong to the open file, so a second opening stands for a process.
        assert!(matches!(FolderLock::take(folder.path()), Err(FolderError::InUse { .. })));
        drop(lock);
        FolderLock::take(folder.path()).unwrap();
    }
}
