//! Who makes the calls: root and plain users, each in a thread of its own.
//!
//! Linux keeps credentials, umask, working folder and the table of open files for each thread; so
//! one thread is as good as a process of that user, and a call costs no fork. All actors but those
//! made by [`Actor::with_own_files`] share one table of open files, as if they had handed the files
//! to each other. The owner of a record lock is the table.
//!
//! What happens when it fails: a call that does not return within [`PATIENCE`] fails its case; the
//! thread is left behind, and later calls of that actor fail at once.

use std::ffi::CString;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::did::Did;
use crate::raw::{self, Call, Entry, Handle, Mapping, Stat};

/// What one call may take. The mount itself gives up after 60 s.
const PATIENCE: Duration = Duration::from_secs(75);
/// A call that has not returned after this long waits for something.
const WAITING: Duration = Duration::from_millis(200);

/// A user: number, group, further groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// How failures call it.
    pub name: &'static str,
    /// User number.
    pub id: u32,
    /// Group number.
    pub group: u32,
    /// Further groups.
    pub groups: &'static [u32],
}

/// A group that Ben is in besides his own and that is Cat's own.
pub const TEAM: u32 = 12_100;
/// The superuser.
pub const ROOT: User = User { name: "root", id: 0, group: 0, groups: &[] };
/// A user with a group of her own.
pub const ANN: User = User { name: "ann", id: 12_001, group: 12_001, groups: &[] };
/// A user with a group of his own, and the team.
pub const BEN: User = User { name: "ben", id: 12_002, group: 12_002, groups: &[TEAM] };
/// A user whose group is the team.
pub const CAT: User = User { name: "cat", id: 12_003, group: TEAM, groups: &[] };

/// Work for the thread of an actor, or its end.
type Job = Option<Box<dyn FnOnce() + Send>>;

/// Someone who makes calls.
#[derive(Debug, Clone)]
pub struct Actor {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    user: User,
    sender: Sender<Job>,
    thread: i32,
    own_files: bool,
    /// It does no more calls: it waits in one for ever, or it ended.
    stuck: AtomicBool,
}

impl Actor {
    /// A new thread of this user, in the mount namespace of the caller.
    pub fn new(user: User) -> Actor {
        Actor::start(user, false)
    }

    /// A new thread with open files of its own: another process as far as locks are concerned.
    pub fn with_own_files(user: User) -> Actor {
        Actor::start(user, true)
    }

    fn start(user: User, own_files: bool) -> Actor {
        let (sender, jobs) = channel::<Job>();
        let (ready, is_ready) = channel();
        std::thread::spawn(move || {
            let own = if own_files { libc::CLONE_FS | libc::CLONE_FILES } else { libc::CLONE_FS };
            raw::unshare(own).expect("root may have attributes of its own");
            raw::umask(0);
            if user.id != 0 {
                raw::become_user(user.id, user.group, user.groups).expect("root becomes anyone");
            }
            ready.send(raw::thread()).expect("the one who started this waits");
            while let Ok(Some(job)) = jobs.recv() {
                job();
            }
        });
        let thread = is_ready.recv().expect("the thread of an actor starts");
        Actor {
            inner: Arc::new(Inner {
                user,
                sender,
                thread,
                own_files,
                stuck: AtomicBool::new(false),
            }),
        }
    }

    /// Who it is.
    pub fn user(&self) -> User {
        self.inner.user
    }

    /// Begins a call and does not wait for its end.
    pub fn starts<T: Send + 'static>(
        &self,
        call: String,
        work: impl FnOnce() -> Call<T> + Send + 'static,
    ) -> Pending<T> {
        assert!(
            !self.inner.stuck.load(Ordering::Relaxed),
            "{} still waits in an earlier call, or ended",
            self.user().name
        );
        let (answer, result) = channel();
        // The case may have ended: then nobody wants the answer.
        let job = move || drop(answer.send(work()));
        self.inner.sender.send(Some(Box::new(job))).expect("the thread of an actor runs");
        Pending { actor: self.clone(), call, result }
    }

    fn call<T: Send + 'static>(
        &self,
        call: String,
        work: impl FnOnce() -> Call<T> + Send + 'static,
    ) -> Did<T> {
        self.starts(call, work).result_within(PATIENCE)
    }

    fn file(&self, number: Did<i32>) -> Did<File> {
        let actor = self.clone();
        number.map(|number| File { number, actor })
    }

    /// Ends its thread, and with it, if it has open files of its own, all that hangs on these: as
    /// when a process ends.
    pub fn exits(&self) {
        self.inner.stuck.store(true, Ordering::Relaxed);
        self.inner.sender.send(None).expect("the thread of an actor runs");
    }

    /// Sends the signal that interrupts a call.
    pub fn interrupt(&self) {
        raw::signal_thread(self.inner.thread, libc::SIGUSR1).expect("the thread runs");
    }
}

/// An open file of an actor. Closed when dropped.
#[derive(Debug)]
pub struct File {
    number: i32,
    actor: Actor,
}

impl File {
    /// The number of the descriptor.
    pub fn number(&self) -> i32 {
        self.number
    }

    /// close(2), for those who want to know what it says.
    pub fn close(self) -> Did<()> {
        let (number, actor) = (self.number, self.actor.clone());
        std::mem::forget(self);
        actor.call(format!("close({number})"), move || raw::close(number))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let number = self.number;
        if !self.actor.inner.own_files {
            let _ = raw::close(number);
        } else if !self.actor.inner.stuck.load(Ordering::Relaxed) {
            self.actor.call(String::from("close"), move || raw::close(number)).result().ok();
        }
    }
}

/// A call that may not have returned.
#[derive(Debug)]
pub struct Pending<T> {
    actor: Actor,
    call: String,
    result: Receiver<Call<T>>,
}

impl<T> Pending<T> {
    /// The call must wait for something.
    #[track_caller]
    pub fn waits(&self) {
        match self.result.recv_timeout(WAITING) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(result) => panic!(
                "{}: {}: expected it to wait, found {}",
                self.actor.user().name,
                self.call,
                if result.is_ok() { "success" } else { "an error" }
            ),
            Err(RecvTimeoutError::Disconnected) => panic!("the thread of an actor ended"),
        }
    }

    /// What the call gives; it must return soon.
    #[track_caller]
    pub fn ends(self) -> Did<T> {
        self.result_within(Duration::from_secs(60))
    }

    #[track_caller]
    fn result_within(self, patience: Duration) -> Did<T> {
        let who = self.actor.user().name;
        match self.result.recv_timeout(patience) {
            Ok(result) => Did::new(who, self.call, result),
            Err(_) => {
                self.actor.inner.stuck.store(true, Ordering::Relaxed);
                panic!("{who}: {}: did not return within {patience:?}", self.call)
            }
        }
    }
}

fn c(text: impl AsRef<[u8]>) -> CString {
    CString::new(text.as_ref()).expect("names of cases have no zero byte")
}

/// Names a call for a failure. Long names are cut.
fn shown(name: &str, texts: &[&CString], numbers: &[i64]) -> String {
    let mut call = format!("{name}(");
    for (place, text) in texts.iter().enumerate() {
        let text = text.to_string_lossy();
        let cut: String = text.chars().take(40).collect();
        let _ = write!(call, "{}{cut}", if place > 0 { ", " } else { "" });
    }
    for number in numbers {
        if name.contains("chmod") || name.starts_with("mk") {
            let _ = write!(call, ", {number:#o}");
        } else {
            let _ = write!(call, ", {number}");
        }
    }
    call + ")"
}

macro_rules! by_path {
    ($($name:ident($($number:ident: $kind:ty),*) $(-> $result:ty)?;)*) => {$(
        pub fn $name(&self, path: impl AsRef<[u8]> $(, $number: $kind)*)
            -> Did<by_path!(@ $($result)?)>
        {
            let path = c(path);
            let call = shown(stringify!($name), &[&path], &[$($number as i64),*]);
            self.call(call, move || raw::$name(&path $(, $number)*))
        }
    )*};
    (@) => { () };
    (@ $result:ty) => { $result };
}

macro_rules! by_two_paths {
    ($($name:ident($($number:ident: $kind:ty),*);)*) => {$(
        pub fn $name(&self, one: impl AsRef<[u8]>, two: impl AsRef<[u8]> $(, $number: $kind)*)
            -> Did<()>
        {
            let (one, two) = (c(one), c(two));
            let call = shown(stringify!($name), &[&one, &two], &[$($number as i64),*]);
            self.call(call, move || raw::$name(&one, &two $(, $number)*))
        }
    )*};
}

macro_rules! by_file {
    ($($name:ident($($number:ident: $kind:ty),*) $(-> $result:ty)?;)*) => {$(
        pub fn $name(&self, file: &File $(, $number: $kind)*) -> Did<by_path!(@ $($result)?)> {
            let file = file.number;
            let call = shown(stringify!($name), &[], &[i64::from(file), $($number as i64),*]);
            self.call(call, move || raw::$name(file $(, $number)*))
        }
    )*};
}

/// The calls, under their own names.
impl Actor {
    by_path! {
        mkdir(mode: u32);
        rmdir();
        unlink();
        mknod(mode: u32, device: u64);
        chmod(mode: u32);
        chown(user: u32, group: u32);
        lchown(user: u32, group: u32);
        truncate(size: i64);
        chdir();
        faccessat2(mode: i32, flags: i32);
        readlink(length: usize) -> Vec<u8>;
        stat() -> Stat;
        lstat() -> Stat;
        statx(flags: i32) -> libc::statx;
        statfs() -> libc::statfs64;
        list_xattrs(length: usize) -> Vec<u8>;
        name_to_handle() -> Handle;
    }
    by_two_paths! {
        link();
        symlink();
        rename();
        renameat2(flags: u32);
        remove_xattr();
    }
    by_file! {
        fchmod(mode: u32);
        fchown(user: u32, group: u32);
        ftruncate(size: i64);
        fsync();
        fdatasync();
        syncfs();
        fallocate(mode: i32, from: i64, length: i64);
        flock(operation: i32);
        set_flags(flags: i32);
        fstat() -> Stat;
        read(length: usize) -> Vec<u8>;
        pread(length: usize, at: i64) -> Vec<u8>;
        lseek(to: i64, whence: i32) -> i64;
        getdents(length: usize) -> Vec<Entry>;
        lock(command: i32, kind: i32, from: i64, length: i64) -> libc::flock64;
    }

    pub fn open(&self, path: impl AsRef<[u8]>, flags: i32, mode: u32) -> Did<File> {
        let path = c(path);
        let call = format!("open({}, {flags:#o}, {mode:#o})", path.to_string_lossy());
        self.file(self.call(call, move || raw::open(&path, flags, mode)))
    }

    pub fn openat(&self, folder: &File, path: impl AsRef<[u8]>, flags: i32) -> Did<File> {
        let (folder, path) = (folder.number, c(path));
        let call = format!("openat({folder}, {}, {flags:#o})", path.to_string_lossy());
        self.file(self.call(call, move || raw::openat(folder, &path, flags, 0)))
    }

    pub fn open_by_handle(&self, mount: &File, handle: &Handle, flags: i32) -> Did<File> {
        let (mount, handle) = (mount.number, handle.clone());
        let call = format!("open_by_handle_at({mount}, {flags:#o})");
        self.file(self.call(call, move || raw::open_by_handle(mount, &handle, flags)))
    }

    pub fn linkat(&self, folder: &File, from: &str, to: &str, flags: i32) -> Did<()> {
        let (folder, from, to) = (folder.number, c(from), c(to));
        let call = shown("linkat", &[&from, &to], &[i64::from(flags)]);
        self.call(call, move || raw::linkat(folder, &from, &to, flags))
    }

    pub fn umask(&self, mask: u32) {
        self.call(format!("umask({mask:#o})"), move || Ok(raw::umask(mask))).ok();
    }

    pub fn write(&self, file: &File, bytes: impl AsRef<[u8]>) -> Did<usize> {
        let (file, bytes) = (file.number, bytes.as_ref().to_vec());
        let call = format!("write({file}, {} bytes)", bytes.len());
        self.call(call, move || raw::write(file, &bytes))
    }

    pub fn writev(&self, file: &File, one: &'static [u8], two: &'static [u8]) -> Did<usize> {
        let file = file.number;
        self.call(format!("writev({file})"), move || raw::writev(file, one, two))
    }

    pub fn pwrite(&self, file: &File, bytes: impl AsRef<[u8]>, at: i64) -> Did<usize> {
        let (file, bytes) = (file.number, bytes.as_ref().to_vec());
        let call = format!("pwrite({file}, {} bytes, at {at})", bytes.len());
        self.call(call, move || raw::pwrite(file, &bytes, at))
    }

    pub fn direct(&self, file: &File, page: Option<u8>, at: i64) -> Did<Vec<u8>> {
        let file = file.number;
        self.call(format!("direct({file}, at {at})"), move || raw::direct(file, page, at))
    }

    pub fn copy_file_range(
        &self,
        (from, from_at): (&File, i64),
        (to, to_at): (&File, i64),
        length: usize,
    ) -> Did<usize> {
        let (from, to) = (from.number, to.number);
        let call = format!("copy_file_range({from} at {from_at}, {to} at {to_at}, {length})");
        self.call(call, move || raw::copy_file_range(from, from_at, to, to_at, length))
    }

    pub fn utimensat(
        &self,
        path: impl AsRef<[u8]>,
        times: Option<[(i64, i64); 2]>,
        flags: i32,
    ) -> Did<()> {
        let path = c(path);
        let call = format!("utimensat({}, {times:?}, {flags:#x})", path.to_string_lossy());
        self.call(call, move || raw::utimensat(&path, times, flags))
    }

    pub fn futimens(&self, file: &File, times: [(i64, i64); 2]) -> Did<()> {
        let file = file.number;
        self.call(format!("futimens({file}, {times:?})"), move || raw::futimens(file, times))
    }

    pub fn set_xattr(
        &self,
        path: impl AsRef<[u8]>,
        name: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        flags: i32,
    ) -> Did<()> {
        let (path, name, value) = (c(path), c(name), value.as_ref().to_vec());
        let call = shown("lsetxattr", &[&path, &name], &[value.len() as i64, flags.into()]);
        self.call(call, move || raw::set_xattr(&path, &name, &value, flags))
    }

    pub fn set_xattr_of(&self, file: &File, name: &str, value: impl AsRef<[u8]>) -> Did<()> {
        let (file, name, value) = (file.number, c(name), value.as_ref().to_vec());
        let call = shown("fsetxattr", &[&name], &[value.len() as i64]);
        self.call(call, move || raw::set_xattr_of(file, &name, &value, 0))
    }

    pub fn get_xattr(&self, path: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> Did<Vec<u8>> {
        self.get_xattr_into(path, name, 65_536)
    }

    pub fn get_xattr_into(
        &self,
        path: impl AsRef<[u8]>,
        name: impl AsRef<[u8]>,
        room: usize,
    ) -> Did<Vec<u8>> {
        let (path, name) = (c(path), c(name));
        let call = shown("lgetxattr", &[&path, &name], &[room as i64]);
        self.call(call, move || raw::get_xattr(&path, &name, room))
    }

    pub fn xattr_length(&self, path: &str, name: &str) -> Did<usize> {
        let (path, name) = (c(path), c(name));
        let call = shown("lgetxattr", &[&path, &name], &[0]);
        self.call(call, move || raw::xattr_length(&path, &name))
    }

    pub fn mmap(&self, file: &File, length: usize, protection: i32, flags: i32) -> Did<Mapping> {
        let file = file.number;
        let call = format!("mmap({file}, {length}, {protection}, {flags})");
        self.call(call, move || Mapping::new(file, length, protection, flags))
    }

    /// A lock call that is not waited for.
    pub fn starts_lock(
        &self,
        file: &File,
        command: i32,
        kind: i32,
        from: i64,
        length: i64,
    ) -> Pending<libc::flock64> {
        let file = file.number;
        let call = format!("fcntl({file}, {command}, {kind}, {from}, {length})");
        self.starts(call, move || raw::lock(file, command, kind, from, length))
    }

    /// A `flock` that is not waited for.
    pub fn starts_flock(&self, file: &File, operation: i32) -> Pending<()> {
        let file = file.number;
        self.starts(format!("flock({file}, {operation})"), move || raw::flock(file, operation))
    }
}

/// What cases do often, in one word.
impl Actor {
    /// Makes an empty file; it must not exist.
    #[track_caller]
    pub fn touch(&self, path: impl AsRef<[u8]>) {
        self.create(path, 0o644).ok();
    }

    /// Makes an empty file with this mode; it must not exist.
    pub fn create(&self, path: impl AsRef<[u8]>, mode: u32) -> Did<File> {
        self.open(path, libc::O_CREAT | libc::O_EXCL | libc::O_RDWR, mode)
    }

    /// Makes a file with this content, or gives one this content.
    #[track_caller]
    pub fn put(&self, path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) {
        let file = self.open(path, libc::O_CREAT | libc::O_TRUNC | libc::O_WRONLY, 0o644).ok();
        let content = content.as_ref();
        let mut written = 0;
        while written < content.len() {
            written += self.write(&file, &content[written..]).ok();
        }
    }

    /// The content of a file, 16 MiB at most.
    #[track_caller]
    pub fn get(&self, path: impl AsRef<[u8]>) -> Vec<u8> {
        let file = self.open(path, libc::O_RDONLY, 0).ok();
        let mut content = Vec::new();
        loop {
            let more = self.pread(&file, 1 << 20, content.len() as i64).ok();
            assert!(content.len() <= 16 << 20, "files of cases are small");
            if more.is_empty() {
                return content;
            }
            content.extend(more);
        }
    }

    /// Opens for reading.
    pub fn reader(&self, path: impl AsRef<[u8]>) -> Did<File> {
        self.open(path, libc::O_RDONLY, 0)
    }

    /// Opens for writing.
    pub fn writer(&self, path: impl AsRef<[u8]>) -> Did<File> {
        self.open(path, libc::O_WRONLY, 0)
    }

    /// Opens for both.
    pub fn both(&self, path: impl AsRef<[u8]>) -> Did<File> {
        self.open(path, libc::O_RDWR, 0)
    }

    /// All names of a folder, in the order of the listing, with `.` and `..`.
    #[track_caller]
    pub fn list(&self, path: impl AsRef<[u8]>) -> Vec<String> {
        let folder = self.open(path, libc::O_RDONLY | libc::O_DIRECTORY, 0).ok();
        let mut names = Vec::new();
        loop {
            let entries = self.getdents(&folder, 32 << 10).ok();
            if entries.is_empty() {
                return names;
            }
            names.extend(entries.iter().map(|entry| String::from_utf8_lossy(&entry.name).into()));
        }
    }

    /// The names of a folder but `.` and `..`, sorted.
    #[track_caller]
    pub fn names(&self, path: impl AsRef<[u8]>) -> Vec<String> {
        let mut names = self.list(path);
        names.retain(|name| name != "." && name != "..");
        names.sort();
        names
    }
}
