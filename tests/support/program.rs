//! Programs run to their end, with a deadline: a hang is a failure that says where.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::process::end_with_parent;

/// What a program may take unless it is told otherwise.
const DEADLINE: Duration = Duration::from_secs(120);

/// A program to run.
#[derive(Debug, Clone)]
pub struct Program {
    words: Vec<OsString>,
    folder: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    user: Option<(u32, u32, Vec<u32>)>,
    deadline: Duration,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    line: String,
}

impl Program {
    /// A program by name or path.
    pub fn new(name: impl AsRef<OsStr>) -> Program {
        Program {
            words: vec![name.as_ref().to_owned()],
            folder: None,
            environment: Vec::new(),
            user: None,
            deadline: DEADLINE,
        }
    }

    /// A line for `bash`, which stops at the first error.
    pub fn script(text: &str) -> Program {
        Program::new("bash").args(["-euo", "pipefail", "-c", text])
    }

    /// One more argument.
    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Program {
        self.words.push(word.as_ref().to_owned());
        self
    }

    /// More arguments.
    pub fn args<W: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = W>) -> Program {
        self.words.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// The working folder.
    pub fn dir(mut self, folder: &Path) -> Program {
        self.folder = Some(folder.to_owned());
        self
    }

    /// A variable of the environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Program {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Runs it as this user, with these further groups.
    pub fn user(mut self, user: u32, group: u32, groups: &[u32]) -> Program {
        self.user = Some((user, group, groups.to_vec()));
        self
    }

    /// How long it may take.
    pub fn within(mut self, deadline: Duration) -> Program {
        self.deadline = deadline;
        self
    }

    /// Runs it. Panics if it does not end in time.
    pub fn run(&self) -> Ended {
        let mut out = tempfile::tempfile().expect("a temporary file");
        let mut err = tempfile::tempfile().expect("a temporary file");
        let mut child = self
            .command(&out, &err)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", self.line()));
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("our child can be asked") {
                break status;
            }
            if began.elapsed() > self.deadline {
                let id = child.id();
                let place = waits_where(id);
                // SAFETY: no memory is involved; the group is the child's, which is not reaped.
                unsafe { libc::kill(-(id as libc::pid_t), libc::SIGKILL) };
                let (out, err) = (text(&mut out), text(&mut err));
                panic!(
                    "{} did not end within {:?}\nit waits:\n{place}\n{out}\n{err}",
                    self.line(),
                    self.deadline
                );
            }
            std::thread::sleep(Duration::from_millis(if began.elapsed().as_millis() < 100 {
                1
            } else {
                10
            }));
        };
        Ended { status, out: text(&mut out), err: text(&mut err), line: self.line() }
    }

    /// Runs it; it must end with success. Gives its standard output.
    pub fn ok(&self) -> String {
        let ended = self.run();
        assert!(ended.status.success(), "{ended}");
        ended.out
    }

    /// Runs it; it must not end with success.
    pub fn fails(&self) -> Ended {
        let ended = self.run();
        assert!(!ended.status.success(), "this had to fail: {ended}");
        ended
    }

    fn command(&self, out: &File, err: &File) -> Command {
        let mut words = self.words.iter();
        let mut command = Command::new(words.next().expect("a program has a name"));
        command.args(words).stdin(Stdio::null());
        command.env("LC_ALL", "C.UTF-8").envs(self.environment.iter().cloned());
        command.stdout(out.try_clone().expect("a descriptor can be copied"));
        command.stderr(err.try_clone().expect("a descriptor can be copied"));
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        if let Some((user, group, groups)) = self.user.clone() {
            // SAFETY: system calls only, on memory that was allocated before the fork.
            unsafe {
                command.pre_exec(move || become_user(user, group, &groups));
            }
        }
        end_with_parent(&mut command);
        command
    }

    fn line(&self) -> String {
        let words: Vec<_> = self.words.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }
}

fn become_user(user: u32, group: u32, groups: &[u32]) -> std::io::Result<()> {
    // SAFETY: the pointer and the length belong to one slice that lives through the call.
    let changed = unsafe {
        libc::setgroups(groups.len(), groups.as_ptr()) == 0
            && libc::setgid(group) == 0
            && libc::setuid(user) == 0
    };
    if changed { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().expect("a file seeks");
    file.read_to_end(&mut bytes).expect("a file reads");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Where the processes of a group wait in the kernel.
fn waits_where(group: u32) -> String {
    let list = "ps -eo pgid,pid,stat,wchan:32,args | awk -v group=\"$1\" '$1 == group'";
    match Command::new("sh").args(["-c", list, "sh", &group.to_string()]).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => error.to_string(),
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n{}\n-- output:\n{}-- error:\n{}", self.line, self.status, self.out, self.err)
    }
}
