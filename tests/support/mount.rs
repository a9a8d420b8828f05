//! One mount of a cluster: `ministryctl mount --foreground` as a child.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{Process, Spawner};
use crate::{sandbox, wait};

/// A mount. Taken away when dropped.
#[derive(Debug)]
pub struct Mount {
    path: PathBuf,
    process: Option<Process>,
}

impl Mount {
    /// Mounts at `path` with the credentials in `identity`.
    pub fn start(
        spawner: &Spawner,
        ministryctl: &Path,
        path: &Path,
        identity: &Path,
        log: &Path,
    ) -> Mount {
        std::fs::create_dir_all(path).expect("the mount point can be made");
        let mut command = Command::new(ministryctl);
        command.arg("mount").arg(path).arg("--foreground").arg("--identity").arg(identity);
        // As a disk of this machine is mounted; a mount gives neither unless it is asked for.
        command.args(["-o", "suid,dev"]);
        command.args(["--timeout", "30s"]);
        let mut process = spawner.start(command, log);
        wait::until_true(Duration::from_secs(30), "the mount is there", || {
            if let Some(status) = process.ended() {
                let log = std::fs::read_to_string(log).unwrap_or_default();
                panic!("ministryctl mount ended: {status}\n{log}");
            }
            sandbox::mounted_kind(path).as_deref() == Some("fuse.ministry")
        });
        Mount { path: path.to_owned(), process: Some(process) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The process that serves it.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the mount was not taken away")
    }

    /// Its resident memory in bytes.
    pub fn memory(&self) -> u64 {
        self.process.as_ref().map_or(0, Process::memory)
    }

    /// `kill -9` of the process; the dead mount is taken away.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
        self.detach();
    }

    fn detach(&self) {
        // A stack of mounts is not expected, but must not be left either.
        for _ in 0..4 {
            if sandbox::mounted_kind(&self.path).is_none() {
                return;
            }
            sandbox::detach(&self.path);
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // The process first: whoever still waits inside the mount gets an error and ends.
        self.kill();
    }
}
