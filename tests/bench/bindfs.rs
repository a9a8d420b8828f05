//! `bindfs`: a folder shown through FUSE and nothing else, the floor of what a mount costs.
//!
//! Its caches of names and attributes are off, as ours are, and it takes several requests at a
//! time. Called by every measure. Ended and taken away when dropped.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ministry_tests::process::{Process, Spawner};
use ministry_tests::{sandbox, wait};

/// A running bindfs.
pub struct Bindfs {
    path: PathBuf,
    process: Process,
}

impl Bindfs {
    /// Shows `below` at `path`.
    pub fn start(spawner: &Spawner, below: &Path, path: &Path, log: &Path) -> Bindfs {
        std::fs::create_dir_all(path).expect("a mount point");
        let mut command = Command::new("bindfs");
        command.args(["-f", "--multithreaded", "-o"]);
        command.arg("attr_timeout=0,entry_timeout=0,negative_timeout=0").arg(below).arg(path);
        let mut process = spawner.start(command, log);
        wait::until_true(Duration::from_secs(10), "bindfs is there", || {
            assert!(process.ended().is_none(), "bindfs ended, see {log:?}");
            sandbox::mounted_kind(path).is_some_and(|kind| kind.starts_with("fuse"))
        });
        Bindfs { path: path.to_owned(), process }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Bindfs {
    fn drop(&mut self) {
        self.process.kill();
        sandbox::detach(&self.path);
    }
}
