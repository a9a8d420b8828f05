//! A PostgreSQL server whose data folder lies on a mount.
//!
//! Called by `postgres.rs`. The server and its programs run as the user `postgres`; the socket
//! lies on the local disk. Ends with its processes, numbers taken from the kernel's table, when
//! dropped.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ministry_tests::process::{Process, Spawner};
use ministry_tests::{Program, wait};

use crate::postgres_client::Connection;
use crate::{MINUTE, text};

/// A server.
pub struct Server {
    programs: PathBuf,
    user: (u32, u32),
    data: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    spawner: Spawner,
    process: Option<Process>,
}

impl Server {
    /// Makes a data base with checksums of every page in `data`, which must not exist. Sockets and
    /// logs go to `scratch`. Default durability: `fsync` and `synchronous_commit` stay on.
    pub fn create(data: &Path, scratch: &Path) -> Server {
        let number = |flag| {
            let answer = Program::new("id").args([flag, "postgres"]).ok();
            answer.trim().parse().expect("id prints a number")
        };
        let user = (number("-u"), number("-g"));
        let socket = scratch.join("socket");
        for folder in [data, &socket] {
            std::fs::create_dir(folder).expect("a folder");
            std::os::unix::fs::chown(folder, Some(user.0), Some(user.1)).expect("root may");
        }
        let server = Server {
            programs: programs(),
            user,
            data: data.to_owned(),
            socket,
            log: scratch.join("postgres.log"),
            spawner: Spawner::new(),
            process: None,
        };
        server
            .program("initdb")
            .args(["--data-checksums", "--auth=trust", "--locale=C.UTF-8", "-D", text(data)])
            .within(10 * MINUTE)
            .ok();
        server
    }

    /// One of PostgreSQL's programs, as its user, with the way to the server in its environment.
    pub fn program(&self, name: &str) -> Program {
        Program::new(self.programs.join(name))
            .user(self.user.0, self.user.1, &[])
            .dir(&self.socket)
            .env("PGHOST", &self.socket)
            .env("PGDATABASE", "postgres")
            .env("PGUSER", "postgres")
    }

    /// Starts the server, and waits until it answers: it has then recovered.
    pub fn start(&mut self) {
        let mut command = Command::new(self.programs.join("postgres"));
        command.uid(self.user.0).gid(self.user.1).current_dir(&self.socket);
        command.args(["-D", text(&self.data), "-k", text(&self.socket), "-c", "listen_addresses="]);
        // Checkpoints, and with them many syncs, also within a run of a minute.
        command.args(["-c", "checkpoint_timeout=30s", "-c", "log_checkpoints=on"]);
        self.process = Some(self.spawner.start(command, &self.log));
        wait::until_true(5 * MINUTE, "PostgreSQL answers", || {
            let process = self.process.as_mut().expect("it was started");
            if let Some(status) = process.ended() {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                panic!("postgres ended: {status}\n{log}");
            }
            self.connect().is_ok()
        });
    }

    /// A connection.
    pub fn connect(&self) -> std::io::Result<Connection> {
        Connection::open(&self.socket.join(".s.PGSQL.5432"))
    }

    /// `kill -9` of the server and everything it started, all stopped first, so that none of them
    /// notices the end of another and tidies up.
    pub fn kill(&mut self) -> usize {
        let Some(mut process) = self.process.take() else {
            return 0;
        };
        process.signal(libc::SIGSTOP);
        let children = children(process.id());
        for signal in [libc::SIGSTOP, libc::SIGKILL] {
            for child in &children {
                // SAFETY: no memory is involved. The parent stands still, so that the numbers of
                // its children, dead or not, belong to nobody else.
                unsafe { libc::kill(*child, signal) };
            }
        }
        process.kill();
        for child in &children {
            let left = PathBuf::from(format!("/proc/{child}"));
            wait::until_true(MINUTE, "a killed server process is gone", || !left.exists());
        }
        children.len()
    }

    /// Stops it in order.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.signal(libc::SIGINT);
        let status = process.wait(2 * MINUTE).expect("PostgreSQL stops within two minutes");
        assert!(status.success(), "PostgreSQL: {status}");
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            println!("== {}", self.log.display());
            println!("{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
        // In order where it can: a killed server leaves shared memory behind.
        if let Some(process) = &mut self.process {
            process.signal(libc::SIGQUIT);
            process.wait(Duration::from_secs(5));
        }
        self.kill();
    }
}

/// The folder of the newest version that Debian has installed.
fn programs() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib/postgresql").expect("package postgresql").flatten();
    let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = folders.map(|entry| entry.path()).max_by_key(version);
    newest.expect("a version of postgresql").join("bin")
}

/// The children of a process.
fn children(parent: u32) -> Vec<libc::pid_t> {
    let processes = std::fs::read_dir("/proc").expect("/proc is there").flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers
        .filter(|number: &libc::pid_t| {
            let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
            // The name stands in brackets and may hold anything; state and parent follow it.
            let parents = stat.rsplit_once(')').and_then(|(_, rest)| rest.split(' ').nth(2));
            parents == Some(parent.to_string().as_str())
        })
        .collect()
}
