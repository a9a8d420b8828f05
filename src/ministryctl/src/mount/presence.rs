//! The sign that a mount is being served: a locked file, one for each mount.
//!
//! The process that serves a mount holds the lock from before it says "mounted" until it ends,
//! however it ends. So `ministryctl umount` can wait until the last write has reached the servers
//! and the sessions are closed, and is never misled by a process number that was given anew.
//!
//! When the folder cannot be had, mounting goes on without, and unmounting does not wait.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tokio::time::{Instant, sleep};

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Held by the process that serves a mount.
#[derive(Debug)]
pub struct Presence {
    path: PathBuf,
    _locked: File,
}

/// The folder for such files: gone at the next start of the machine, as the mounts are, where a
/// user has such a folder.
fn folder() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/run/ministry"));
    }
    let variable = |name| std::env::var_os(name).filter(|folder| !folder.is_empty());
    let run = variable("XDG_RUNTIME_DIR").map(PathBuf::from);
    let home = || variable("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    Some(run.or_else(home)?.join("ministry"))
}

fn path_of(device: &str) -> Option<PathBuf> {
    folder().map(|folder| folder.join(format!("mount-{device}")))
}

impl Presence {
    /// Takes the lock of the mount with this device number.
    pub fn announce(device: &str) -> Option<Presence> {
        let path = path_of(device)?;
        let taken = path
            .parent()
            .map_or(Ok(()), |folder| {
                std::fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)
            })
            .and_then(|()| OpenOptions::new().create(true).truncate(false).write(true).open(&path))
            .and_then(|file| {
                flock(&file, FlockOperation::NonBlockingLockExclusive)?;
                Ok(file)
            });
        match taken {
            Ok(locked) => Some(Presence { path, _locked: locked }),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "umount will not wait for this mount");
                None
            }
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // Whoever waits has the file open and sees the lock go.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A mount whose end is waited for.
#[derive(Debug)]
pub struct Watch(Option<File>);

impl Watch {
    /// To be called while the mount is there: its number may be given anew afterwards.
    pub fn begin(device: &str) -> Watch {
        Watch(path_of(device).and_then(|path| File::open(path).ok()))
    }

    /// Waits until the process that served the mount has ended. Returns whether it has.
    pub async fn ended(self, timeout: Duration) -> bool {
        let Some(file) = self.0 else { return true };
        let deadline = Instant::now() + timeout;
        while flock(&file, FlockOperation::NonBlockingLockShared).is_err() {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(POLL_INTERVAL).await;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_mount_is_seen_when_its_process_lets_go() {
        let device = format!("test:{}", std::process::id());
        let Some(presence) = Presence::announce(&device) else { return };
        let still = Watch::begin(&device).ended(Duration::from_millis(30)).await;
        assert!(!still, "it is being served");
        let watch = Watch::begin(&device);
        drop(presence);
        assert!(watch.ended(Duration::from_secs(5)).await);
        assert!(Watch::begin(&device).ended(Duration::ZERO).await, "nobody knows of it");
    }
}
