//! Background processes of a cluster: nodes and mounts.
//!
//! The kernel kills them when the thread that started them ends, so they are started by a thread
//! of the cluster's own that lives as long as the cluster: a test may restart a node from any
//! thread, and nothing is left when the test process is killed.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

type Order = (Command, mpsc::Sender<std::io::Result<Child>>);

/// Starts processes that end with it.
#[derive(Debug)]
pub struct Spawner {
    orders: mpsc::Sender<Order>,
}

impl Spawner {
    /// Call it in the mount namespace that the processes are to live in.
    pub fn new() -> Spawner {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::Builder::new()
            .name("spawner".into())
            .spawn(move || {
                for (mut command, answer) in inbox {
                    let _ = answer.send(command.spawn());
                }
            })
            .expect("a thread can be started");
        Spawner { orders }
    }

    /// Starts a process with its output appended to `log`.
    pub fn start(&self, mut command: Command, log: &Path) -> Process {
        let out = File::options().create(true).append(true).open(log).expect("the log opens");
        let err = out.try_clone().expect("a descriptor can be copied");
        let program = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        end_with_parent(&mut command);
        let (answer, started) = mpsc::channel();
        self.orders.send((command, answer)).expect("the spawner lives");
        let child = started.recv().expect("the spawner answers");
        let child = child.unwrap_or_else(|error| panic!("cannot start {program}: {error}"));
        Process { child, log: log.to_owned(), paused: false }
    }
}

impl Default for Spawner {
    fn default() -> Spawner {
        Spawner::new()
    }
}

/// Has the kernel kill the process when its parent's thread ends, and gives it a process group.
pub fn end_with_parent(command: &mut Command) {
    command.process_group(0);
    // SAFETY: prctl is safe to call between fork and exec, and touches no memory of ours.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}

/// A background process of ours. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    paused: bool,
}

impl Process {
    /// The process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sends a signal. The number is ours until the process is waited for.
    pub fn signal(&mut self, signal: libc::c_int) {
        if self.child.try_wait().ok().flatten().is_some() {
            return;
        }
        // SAFETY: no memory is involved, and the number belongs to our child.
        unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
        match signal {
            libc::SIGSTOP => self.paused = true,
            libc::SIGCONT => self.paused = false,
            _ => {}
        }
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our child can be asked")
    }

    /// Waits for the end.
    pub fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        let began = Instant::now();
        while began.elapsed() < within {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.ended()
    }

    /// `kill -9`, and the end of it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and the end of it; killed if it does not end.
    pub fn stop(&mut self, within: Duration) -> Option<ExitStatus> {
        if self.paused {
            self.signal(libc::SIGCONT);
        }
        self.signal(libc::SIGTERM);
        let status = self.wait(within);
        if status.is_none() {
            self.kill();
        }
        status
    }

    /// Resident memory in bytes; 0 if it has ended.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse().unwrap_or(0);
        kib * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
