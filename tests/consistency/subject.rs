//! A file system that runs steps: the mounts of a cluster, or the local folder beside them.
//!
//! All that a program can learn from a call is in its [`Outcome`]. Calls are made by the thread
//! itself under the step's user, so that nothing is between the test and the kernel.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs::{self, Access, AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Uid};
use rustix::io::Errno;

use crate::call::{Call, Fill, SLOTS, Step, Time, User, Whence};
use crate::confinement::assert_confined;
use crate::snapshot::Attributes;

/// What a call answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// There was no such handle.
    Skipped,
    /// An error number.
    Failed(i32),
    /// It succeeded.
    Done(Value),
}

/// What a successful call gave.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    Nothing,
    Count(u64),
    Bytes(Vec<u8>),
    /// Names with their kind, in no order.
    Names(BTreeMap<Vec<u8>, FileType>),
    Attributes(Box<Attributes>),
}

impl std::fmt::Debug for Value {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Nothing => write!(out, "done"),
            Value::Count(count) => write!(out, "{count}"),
            Value::Bytes(bytes) => write!(out, "{}", brief(bytes)),
            Value::Names(names) => {
                let shown = names.iter().map(|(name, kind)| (String::from_utf8_lossy(name), kind));
                out.debug_map().entries(shown).finish()
            }
            Value::Attributes(attributes) => write!(out, "{attributes:?}"),
        }
    }
}

/// Bytes in a form that fits a line.
pub fn brief(bytes: &[u8]) -> String {
    let sum = bytes.iter().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte as u32));
    let head: Vec<u8> = bytes.iter().copied().take(8).collect();
    format!("{} bytes, sum {sum:08x}, {head:02x?}..", bytes.len())
}

#[derive(Debug)]
struct Open {
    file: OwnedFd,
    mount: usize,
}

/// One side of the comparison.
#[derive(Debug)]
pub struct Subject {
    /// The sequence's folder, by mount.
    tops: Vec<PathBuf>,
    slots: Vec<Option<Open>>,
}

impl Subject {
    /// Over the same folder as it is seen by each mount.
    pub fn new(tops: Vec<PathBuf>) -> Subject {
        Subject { tops, slots: (0..SLOTS).map(|_| None).collect() }
    }

    /// The folder as mount `mount` shows it.
    pub fn top(&self, mount: usize) -> &PathBuf {
        &self.tops[mount % self.tops.len()]
    }

    /// A path in the folder. Made by hand: a slash at the end has a meaning.
    pub fn path(&self, mount: usize, path: &str) -> CString {
        let top = self.top(mount).to_str().expect("the folders of tests have plain names");
        let whole = if path.is_empty() { top.to_owned() } else { format!("{top}/{path}") };
        CString::new(whole).expect("no zero byte in a path")
    }

    /// All that is in the file behind a handle, whatever the handle may do. `descriptors` is the
    /// folder of this process's.
    pub fn handle_content(&self, slot: usize, descriptors: &File) -> Option<Vec<u8>> {
        let open = self.slots[slot].as_ref()?;
        let name = open.file.as_raw_fd().to_string();
        let again = fs::openat(descriptors, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let (mut again, mut content) = (File::from(again.ok()?), Vec::new());
        again.read_to_end(&mut content).ok()?;
        Some(content)
    }

    /// Whether writes through a handle go to the end.
    pub fn appends(&self, slot: usize) -> bool {
        let open = self.slots[slot].as_ref();
        open.is_some_and(|open| {
            fs::fcntl_getfl(&open.file).is_ok_and(|flags| flags.contains(OFlags::APPEND))
        })
    }

    /// The place of a handle.
    pub fn place(&self, slot: usize) -> Option<u64> {
        let open = self.slots[slot].as_ref()?;
        match seek(&open.file, 0, Whence::Current) {
            Ok(Value::Count(place)) => Some(place),
            _ => None,
        }
    }

    /// Puts a handle to a place.
    pub fn set_place(&self, slot: usize, place: u64) {
        if let (Some(open), Ok(place)) = (&self.slots[slot], i64::try_from(place)) {
            let _ = seek(&open.file, place, Whence::Start);
        }
    }

    /// How many mounts there are.
    pub fn mounts(&self) -> usize {
        self.tops.len()
    }

    /// The attributes behind a handle.
    pub fn handle_attributes(&self, slot: usize) -> Option<Attributes> {
        let open = self.slots[slot].as_ref()?;
        fs::fstat(&open.file).ok().map(|stat| Attributes::of(&stat))
    }

    /// Closes all handles.
    pub fn close_all(&mut self) {
        self.slots.iter_mut().for_each(|slot| *slot = None);
    }

    /// Makes the call.
    pub fn run(&mut self, step: &Step) -> Outcome {
        assert_confined();
        if let Call::Close { slot } = step.call {
            return match self.slots[slot].take() {
                Some(_) => Outcome::Done(Value::Nothing),
                None => Outcome::Skipped,
            };
        }
        let result = as_user(step.user, || match step.call.slot() {
            Some(slot) => match &self.slots[slot] {
                Some(open) => self.through_handle(open, &step.call),
                None => Ok(None),
            },
            None => self.by_path(step.mount, &step.call).map(Some),
        });
        match result {
            Ok(Some(Made::Value(value))) => Outcome::Done(value),
            Ok(Some(Made::File(slot, file))) => {
                self.slots[slot] = Some(Open { file, mount: step.mount });
                Outcome::Done(Value::Nothing)
            }
            Ok(None) => Outcome::Skipped,
            Err(error) => Outcome::Failed(error.raw_os_error()),
        }
    }

    fn through_handle(&self, open: &Open, call: &Call) -> Result<Option<Made>, Errno> {
        let file = &open.file;
        let value = match call {
            Call::Write { fill, .. } => count(rustix::io::write(file, &fill.bytes())?),
            Call::Pwrite { offset, fill, .. } => {
                count(rustix::io::pwrite(file, &fill.bytes(), *offset)?)
            }
            Call::Read { length, .. } => {
                let mut buffer = vec![0; *length];
                let read = rustix::io::read(file, &mut buffer)?;
                buffer.truncate(read);
                Value::Bytes(buffer)
            }
            Call::Pread { offset, length, .. } => {
                let mut buffer = vec![0; *length];
                let read = rustix::io::pread(file, &mut buffer, *offset)?;
                buffer.truncate(read);
                Value::Bytes(buffer)
            }
            Call::Seek { offset, whence, .. } => seek(file, *offset, *whence)?,
            Call::Ftruncate { length, .. } => nothing(fs::ftruncate(file, *length)?),
            Call::Fsync { data_only: true, .. } => nothing(fs::fdatasync(file)?),
            Call::Fsync { data_only: false, .. } => nothing(fs::fsync(file)?),
            Call::Fstat { .. } => attributes(&fs::fstat(file)?),
            Call::Fchmod { mode, .. } => nothing(fs::fchmod(file, Mode::from_raw_mode(*mode))?),
            Call::Fallocate { mode, offset, length, .. } => {
                nothing(fs::fallocate(file, *mode, *offset, *length)?)
            }
            Call::CopyRange { from, from_offset, to_offset, length, .. } => {
                let Some(source) = &self.slots[*from] else { return Ok(None) };
                // Between mounts the kernel answers EXDEV, which tells nothing.
                if source.mount != open.mount {
                    return Ok(None);
                }
                let (mut begin, mut end) = (*from_offset, *to_offset);
                let (begin, end) = (Some(&mut begin), Some(&mut end));
                count(fs::copy_file_range(&source.file, begin, file, end, *length)?)
            }
            other => unreachable!("{other:?} does not name a handle"),
        };
        Ok(Some(Made::Value(value)))
    }

    fn by_path(&self, mount: usize, call: &Call) -> Result<Made, Errno> {
        let at = |path: &str| self.path(mount, path);
        let value = match call {
            Call::Open { path, flags, mode, slot } => {
                let flags = *flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
                let file = fs::open(at(path), flags, Mode::from_raw_mode(*mode))?;
                return Ok(Made::File(*slot, file));
            }
            Call::WriteWhole { path, fill } => write_whole(&at(path), *fill)?,
            Call::ReadWhole { path } => Value::Bytes(read_whole(&at(path))?),
            Call::Truncate { path, length } => nothing(truncate(&at(path), *length)?),
            Call::Stat { path } => attributes(&fs::stat(at(path))?),
            Call::Lstat { path } => attributes(&fs::lstat(at(path))?),
            Call::List { path } => Value::Names(list(&at(path))?),
            Call::Readlink { path } => {
                Value::Bytes(fs::readlink(at(path), Vec::new())?.into_bytes())
            }
            Call::Access { path, mask } => {
                nothing(fs::access(at(path), Access::from_bits_retain(*mask))?)
            }
            Call::Mkdir { path, mode } => nothing(fs::mkdir(at(path), Mode::from_raw_mode(*mode))?),
            Call::Rmdir { path } => nothing(fs::rmdir(at(path))?),
            Call::Mknod { path, mode } => {
                let (kind, mode) = (FileType::from_raw_mode(*mode), Mode::from_raw_mode(*mode));
                nothing(fs::mknodat(CWD, at(path), kind, mode, 0)?)
            }
            Call::Symlink { target, path } => nothing(fs::symlink(target.as_str(), at(path))?),
            Call::Link { from, to } => nothing(fs::link(at(from), at(to))?),
            Call::Unlink { path } => nothing(fs::unlink(at(path))?),
            Call::Rename { from, to, flags } => {
                nothing(fs::renameat_with(CWD, at(from), CWD, at(to), *flags)?)
            }
            other => self.attributes_by_path(mount, other)?,
        };
        Ok(Made::Value(value))
    }

    fn attributes_by_path(&self, mount: usize, call: &Call) -> Result<Value, Errno> {
        let at = |path: &str| self.path(mount, path);
        let value = match call {
            Call::Chmod { path, mode } => nothing(fs::chmod(at(path), Mode::from_raw_mode(*mode))?),
            Call::Chown { path, uid, gid, follow } => {
                let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
                nothing(fs::chownat(CWD, at(path), uid, gid, follow_flag(*follow))?)
            }
            Call::Utimens { path, atime, mtime, follow } => {
                let (last_access, last_modification) = (timespec(*atime), timespec(*mtime));
                let times = fs::Timestamps { last_access, last_modification };
                nothing(fs::utimensat(CWD, at(path), &times, follow_flag(*follow))?)
            }
            Call::SetXattr { path, name, fill, flags } => {
                nothing(fs::setxattr(at(path), name.as_str(), &fill.bytes(), *flags)?)
            }
            Call::GetXattr { path, name } => Value::Bytes(xattr(&at(path), name)?),
            Call::ListXattr { path } => {
                let names = xattr_names(&at(path))?;
                Value::Names(names.into_iter().map(|name| (name, FileType::Unknown)).collect())
            }
            Call::RemoveXattr { path, name } => nothing(fs::removexattr(at(path), name.as_str())?),
            other => unreachable!("{other:?} does not name a path"),
        };
        Ok(value)
    }
}

enum Made {
    Value(Value),
    File(usize, OwnedFd),
}

fn nothing((): ()) -> Value {
    Value::Nothing
}

fn count(count: usize) -> Value {
    Value::Count(count as u64)
}

fn attributes(stat: &fs::Stat) -> Value {
    Value::Attributes(Box::new(Attributes::of(stat)))
}

fn follow_flag(follow: bool) -> AtFlags {
    if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW }
}

fn timespec(time: Time) -> Timespec {
    let (tv_sec, tv_nsec) = match time {
        Time::Omit => (0, fs::UTIME_OMIT),
        Time::Now => (0, fs::UTIME_NOW),
        Time::At(seconds, nanos) => (seconds, nanos),
    };
    Timespec { tv_sec, tv_nsec }
}

fn last_error() -> Errno {
    let number = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    Errno::from_raw_os_error(number)
}

/// By hand: a negative place must reach the kernel.
fn seek(file: &OwnedFd, offset: i64, whence: Whence) -> Result<Value, Errno> {
    let whence = match whence {
        Whence::Start => libc::SEEK_SET,
        Whence::Current => libc::SEEK_CUR,
        Whence::End => libc::SEEK_END,
        Whence::Data => libc::SEEK_DATA,
        Whence::Hole => libc::SEEK_HOLE,
    };
    // SAFETY: no memory is involved, and the descriptor is open.
    let place = unsafe { libc::lseek(file.as_raw_fd(), offset, whence) };
    u64::try_from(place).map(Value::Count).map_err(|_| last_error())
}

fn truncate(path: &CString, length: u64) -> Result<(), Errno> {
    let length = i64::try_from(length).map_err(|_| Errno::INVAL)?;
    // SAFETY: a C string that lives through the call.
    let done = unsafe { libc::truncate(path.as_ptr(), length) };
    if done == 0 { Ok(()) } else { Err(last_error()) }
}

fn write_whole(path: &CString, fill: Fill) -> Result<Value, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let file = fs::open(path, flags | OFlags::NONBLOCK, Mode::from_raw_mode(0o666))?;
    Ok(count(rustix::io::write(&file, &fill.bytes())?))
}

/// All of a file.
pub fn read_whole(path: &CString) -> Result<Vec<u8>, Errno> {
    let file = fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        match rustix::io::read(&file, &mut buffer)? {
            0 => return Ok(bytes),
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

/// Names with their kind; a name that comes twice has a name that nothing has.
pub fn list(path: &CString) -> Result<BTreeMap<Vec<u8>, FileType>, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY;
    let directory = fs::open(path, flags, Mode::empty())?;
    let mut names = BTreeMap::new();
    for entry in fs::Dir::new(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes().to_vec();
        if names.insert(name.clone(), entry.file_type()).is_some() {
            names.insert([&name, b" (listed twice)".as_slice()].concat(), FileType::Unknown);
        }
    }
    Ok(names)
}

/// The value of an extended attribute.
pub fn xattr(path: &CString, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = [MaybeUninit::<u8>::uninit(); 4096];
    let (value, _) = fs::lgetxattr(path, name, &mut value)?;
    Ok(value.to_vec())
}

/// The names of extended attributes that the tests set; others belong to the machine.
pub fn xattr_names(path: &CString) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = [MaybeUninit::<u8>::uninit(); 4096];
    let (names, _) = fs::llistxattr(path, &mut names)?;
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let ours = |name: &&[u8]| name.starts_with(b"user.") || name.starts_with(b"trusted.");
    Ok(names.filter(ours).map(<[u8]>::to_vec).collect())
}

/// The target of a symbolic link.
pub fn target(path: &CString) -> Result<Vec<u8>, Errno> {
    Ok(std::ffi::OsString::from_vec(fs::readlink(path, Vec::new())?.into_bytes()).into_vec())
}

/// Runs as a user. The raw calls change this thread alone, not the process.
fn as_user<R>(user: User, work: impl FnOnce() -> R) -> R {
    if user == User::Root {
        return work();
    }
    become_user(user.id(), user.groups());
    let result = work();
    become_user(0, &[]);
    result
}

fn become_user(id: u32, groups: &[u32]) {
    let ids = |call| {
        // The saved number stays: by it the thread gets back.
        // SAFETY: no memory is involved.
        let done = unsafe { libc::syscall(call, id, id, 0) };
        assert_eq!(done, 0, "tests that change their user run as root: {}", last_error());
    };
    if id == 0 {
        ids(libc::SYS_setresuid);
    }
    // SAFETY: the pointer is to as many numbers as are told.
    let done = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    assert_eq!(done, 0, "groups: {}", last_error());
    ids(libc::SYS_setresgid);
    if id != 0 {
        ids(libc::SYS_setresuid);
    }
}
