//! What the workers of a history do: calls on a few shared objects, each through its own mount.
//!
//! Few objects, so that calls meet; every value that is written is written once, so that what was
//! read tells which write it saw.

use std::collections::BTreeMap;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::fs::{self, AtFlags, CWD, Mode, OFlags, RawDir, RenameFlags, Timespec};
use rustix::io::Errno;

use crate::history::{Clock, History, Recorder};
use crate::models::{
    AttributesAnswer, AttributesCall, LOCK_BYTES, LocksAnswer, LocksCall, Name, NamesAnswer,
    NamesCall, RegisterAnswer, RegisterCall,
};

/// Workers on each mount.
pub const WORKERS: usize = 3;
/// Calls of a worker at most: more take long to check.
const CALLS_MAX: usize = 4_000;
/// Objects of a kind.
const OBJECTS: usize = 2;
/// Names in each folder.
const NAMES: Name = 4;
/// Mode and mtime of a file before the first change.
pub const ATTRIBUTES_FIRST: (u32, i64) = (0o600, 1_000_000);
/// Written and read as a whole in place.
const BLOCK: usize = 4096;
/// Blocks of the larger file; the smaller has half of one.
const BLOCKS: usize = 3;

/// When all are to stop, and whether all go on.
#[derive(Debug)]
pub struct Signs {
    clock: Clock,
    stop: AtomicBool,
    calls: Vec<AtomicU64>,
}

impl Signs {
    /// For so many workers.
    pub fn new(clock: Clock, workers: usize) -> Signs {
        let calls = (0..workers).map(|_| AtomicU64::new(0)).collect();
        Signs { clock, stop: AtomicBool::new(false), calls }
    }

    /// Asks all to stop.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Whether all are to stop.
    pub fn stops(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The clock of all.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// One more call of a worker has returned.
    pub fn count(&self, worker: usize) {
        self.calls[worker].fetch_add(1, Ordering::Relaxed);
    }

    /// A worker has made all its calls: nobody waits for more.
    fn has_had_enough(&self, worker: usize) {
        self.calls[worker].fetch_add(CALLS_MAX as u64, Ordering::Relaxed);
    }

    /// Whether each worker has made so many calls more than `before`, or all it is to make.
    pub fn go_on(&self, before: &[u64], calls: u64) -> bool {
        let more = |(now, before): (u64, &u64)| now >= before + calls || now >= CALLS_MAX as u64;
        self.calls().into_iter().zip(before).all(more)
    }

    /// Calls of each worker so far.
    pub fn calls(&self) -> Vec<u64> {
        self.calls.iter().map(|calls| calls.load(Ordering::Relaxed)).collect()
    }
}

/// A history about objects that have a number.
pub type Recorded<C, A> = (History<(usize, C), A>, Vec<String>);

/// One worker.
struct Worker<C, A> {
    number: usize,
    top: PathBuf,
    random: SmallRng,
    recorder: Recorder<(usize, C), A>,
}

/// Runs workers in `folder` of each mount until they are asked to stop.
fn work<C: std::fmt::Debug + Send, A: Clone + Send>(
    mounts: &[&Path],
    folder: &str,
    seed: u64,
    signs: &Signs,
    call: impl Fn(&mut Worker<C, A>) + Sync,
) -> Recorded<C, A> {
    work_and_end(mounts, folder, seed, signs, call, |_| ())
}

/// As [`work`]; each worker ends with `end`.
fn work_and_end<C: std::fmt::Debug + Send, A: Clone + Send>(
    mounts: &[&Path],
    folder: &str,
    seed: u64,
    signs: &Signs,
    call: impl Fn(&mut Worker<C, A>) + Sync,
    end: impl Fn(&mut Worker<C, A>) + Sync,
) -> Recorded<C, A> {
    let (mut all, mut strange) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..WORKERS * mounts.len())
            .map(|number| {
                let top = mounts[number % mounts.len()].join(folder);
                let random = SmallRng::seed_from_u64(seed.wrapping_mul(1_000) + number as u64);
                let recorder = Recorder::new(signs.clock(), number);
                let mut worker = Worker { number, top, random, recorder };
                let (call, end) = (&call, &end);
                scope.spawn(move || {
                    while !signs.stops() && worker.recorder.operations.len() < CALLS_MAX {
                        call(&mut worker);
                        signs.count(number);
                    }
                    end(&mut worker);
                    signs.has_had_enough(number);
                    worker.recorder
                })
            })
            .collect();
        for thread in threads {
            let recorder = thread.join().expect("a worker does not panic");
            all.extend(recorder.operations);
            strange.extend(recorder.strange);
        }
    });
    (all, strange)
}

/// Creates, removes, renames and looks at a few names.
pub fn names(mounts: &[&Path], seed: u64, signs: &Signs) -> Recorded<NamesCall, NamesAnswer> {
    for object in 0..OBJECTS {
        std::fs::create_dir_all(mounts[0].join(format!("names/{object}"))).expect("a folder");
    }
    work(mounts, "names", seed, signs, |worker: &mut Worker<NamesCall, NamesAnswer>| {
        let object = worker.random.random_range(0..OBJECTS);
        let one: Name = worker.random.random_range(0..NAMES);
        let other = (one + worker.random.random_range(1..NAMES)) % NAMES;
        let call = match worker.random.random_range(0..100) {
            0..25 => NamesCall::Create(one),
            25..37 => NamesCall::Unlink(one),
            37..52 => NamesCall::Rename(one, other),
            52..58 => NamesCall::RenameNoReplace(one, other),
            58..66 => NamesCall::Exchange(one, other),
            66..86 => NamesCall::Lookup(one),
            _ => NamesCall::List,
        };
        let folder = worker.top.join(object.to_string());
        worker.recorder.call((object, call.clone()), || call_names(&folder, &call));
    })
}

fn call_names(folder: &Path, call: &NamesCall) -> Result<NamesAnswer, Errno> {
    let at = |name: &Name| folder.join(format!("n{name}"));
    let rename = |from: &Name, to: &Name, flags| {
        fs::renameat_with(CWD, at(from), CWD, at(to), flags).map(|()| NamesAnswer::Done)
    };
    let result = match call {
        NamesCall::Create(name) => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            fs::open(at(name), flags, Mode::from_raw_mode(0o644))
                .and_then(fs::fstat)
                .map(|stat| NamesAnswer::Made(stat.st_ino))
        }
        NamesCall::Unlink(name) => fs::unlink(at(name)).map(|()| NamesAnswer::Done),
        NamesCall::Rename(from, to) => rename(from, to, RenameFlags::empty()),
        NamesCall::RenameNoReplace(from, to) => rename(from, to, RenameFlags::NOREPLACE),
        NamesCall::Exchange(one, other) => rename(one, other, RenameFlags::EXCHANGE),
        NamesCall::Lookup(name) => fs::lstat(at(name)).map(|stat| NamesAnswer::Found(stat.st_ino)),
        NamesCall::List => list(folder).map(NamesAnswer::Listed),
    };
    match result {
        Err(Errno::NOENT) => Ok(NamesAnswer::Missing),
        Err(Errno::EXIST) => Ok(NamesAnswer::Exists),
        other => other,
    }
}

/// All names by one call of the kernel: POSIX promises nothing for a listing in several.
fn list(folder: &Path) -> Result<BTreeMap<Name, u64>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = fs::open(folder, flags, Mode::empty())?;
    let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
    let mut listing = RawDir::new(folder, &mut buffer);
    let mut names = BTreeMap::new();
    while let Some(entry) = listing.next() {
        let entry = entry?;
        let name = entry.file_name().to_str().unwrap_or_default();
        if let Some(number) = name.strip_prefix('n').and_then(|number| number.parse().ok()) {
            names.insert(number, entry.ino());
        }
        if listing.is_buffer_empty() {
            break;
        }
    }
    Ok(names)
}

/// Sets mode and mtime of a few files, and looks at them.
pub fn attributes(
    mounts: &[&Path],
    seed: u64,
    signs: &Signs,
) -> Recorded<AttributesCall, AttributesAnswer> {
    let folder = mounts[0].join("attributes");
    std::fs::create_dir_all(&folder).expect("a folder");
    for object in 0..OBJECTS {
        let path = folder.join(object.to_string());
        File::create(&path).expect("a file");
        let (mode, mtime) = ATTRIBUTES_FIRST;
        fs::chmod(&path, Mode::from_raw_mode(mode)).expect("our file");
        set_mtime(&path, mtime).expect("our file");
    }
    let next = AtomicU64::new(2_000_000);
    work(mounts, "attributes", seed, signs, |worker: &mut Worker<AttributesCall, _>| {
        let object = worker.random.random_range(0..OBJECTS);
        let call = match worker.random.random_range(0..10) {
            0..3 => AttributesCall::SetMode(worker.random.random_range(0..0o1000)),
            3..5 => AttributesCall::SetMtime(next.fetch_add(1, Ordering::Relaxed) as i64),
            _ => AttributesCall::Stat,
        };
        let path = worker.top.join(object.to_string());
        worker.recorder.call((object, call.clone()), || match call {
            AttributesCall::SetMode(mode) => {
                fs::chmod(&path, Mode::from_raw_mode(mode))?;
                Ok(AttributesAnswer::Set)
            }
            AttributesCall::SetMtime(mtime) => {
                set_mtime(&path, mtime)?;
                Ok(AttributesAnswer::Set)
            }
            AttributesCall::Stat => {
                let stat = fs::lstat(&path)?;
                Ok(AttributesAnswer::Shows {
                    mode: stat.st_mode & 0o7777,
                    mtime: stat.st_mtime as i64,
                    ctime: stat.st_ctime as i64 * 1_000_000_000 + stat.st_ctime_nsec as i64,
                })
            }
        });
    })
}

fn set_mtime(path: &Path, seconds: i64) -> Result<(), Errno> {
    let last_access = Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT };
    let last_modification = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = fs::Timestamps { last_access, last_modification };
    fs::utimensat(CWD, path, &times, AtFlags::empty())
}

/// The bytes of a value: it again and again.
fn bytes_of(value: u64, length: usize) -> Vec<u8> {
    value.to_le_bytes().iter().copied().cycle().take(length).collect()
}

/// The value of bytes that were read.
fn value_of(bytes: &[u8], length: impl Fn(u64) -> usize) -> RegisterAnswer {
    let Some(head) = bytes.first_chunk::<8>() else {
        return RegisterAnswer::Torn(format!("{} bytes", bytes.len()));
    };
    let value = u64::from_le_bytes(*head);
    let whole = bytes_of(value, length(value));
    if bytes == whole {
        return RegisterAnswer::Value(value);
    }
    let other = bytes.iter().zip(&whole).position(|(is, was)| is != was);
    RegisterAnswer::Torn(format!("{value}, but other at {other:?} of {} bytes", bytes.len()))
}

/// Sizes of whole files: some live in the inode, some not.
fn whole_length(value: u64) -> usize {
    8 + (value as usize).wrapping_mul(7919) % 9_000
}

/// Replaces a few files as programs do, by renaming a new one over the old one, and reads them.
pub fn replaced(
    mounts: &[&Path],
    seed: u64,
    signs: &Signs,
) -> Recorded<RegisterCall, RegisterAnswer> {
    let folder = mounts[0].join("replaced");
    std::fs::create_dir_all(&folder).expect("a folder");
    for object in 0..OBJECTS {
        let path = folder.join(object.to_string());
        std::fs::write(path, bytes_of(0, whole_length(0))).expect("a file");
    }
    let next = AtomicU64::new(1);
    work(mounts, "replaced", seed, signs, |worker: &mut Worker<RegisterCall, RegisterAnswer>| {
        let object = worker.random.random_range(0..OBJECTS);
        let path = worker.top.join(object.to_string());
        if worker.random.random_range(0..10) < 6 {
            worker.recorder.call((object, RegisterCall::Read), || match std::fs::read(&path) {
                Ok(bytes) => Ok(value_of(&bytes, whole_length)),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    Ok(RegisterAnswer::Missing)
                }
                Err(error) => Err(errno(&error)),
            });
            return;
        }
        let value = next.fetch_add(1, Ordering::Relaxed);
        let new = worker.top.join(format!("new-{}-{value}", worker.number));
        if std::fs::write(&new, bytes_of(value, whole_length(value))).is_err() {
            // Nothing of it can have been seen.
            return;
        }
        worker.recorder.call((object, RegisterCall::Write(value)), || {
            fs::rename(&new, &path).map(|()| RegisterAnswer::Written)
        });
    })
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO))
}

/// How a reader of [`blocks`] lies, to show that it is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Not at all.
    None,
    /// Every so many reads it answers what it read of the block the time before.
    Stale(u64),
}

/// Writes and reads whole blocks in place: of a file that lives in its inode, and of one that lies
/// in chunks. Half of the workers keep their handles open.
pub fn blocks(
    mounts: &[&Path],
    seed: u64,
    signs: &Signs,
    lie: Lie,
) -> Recorded<RegisterCall, RegisterAnswer> {
    let folder = mounts[0].join("blocks");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("0"), bytes_of(0, BLOCK / 2)).expect("a file");
    std::fs::write(folder.join("1"), bytes_of(0, BLOCK * BLOCKS)).expect("a file");
    let next = AtomicU64::new(1);
    let kept: Vec<std::sync::Mutex<BTreeMap<usize, File>>> =
        (0..WORKERS * mounts.len()).map(|_| Default::default()).collect();
    let read_before: Vec<std::sync::Mutex<BTreeMap<usize, Vec<u8>>>> =
        (0..WORKERS * mounts.len()).map(|_| Default::default()).collect();
    work(mounts, "blocks", seed, signs, |worker: &mut Worker<RegisterCall, RegisterAnswer>| {
        let object = worker.random.random_range(0..=BLOCKS);
        let (file, offset, length) = match object {
            0 => (0, 0, BLOCK / 2),
            block => (1, (block - 1) * BLOCK, BLOCK),
        };
        let path = worker.top.join(file.to_string());
        let mut kept = kept[worker.number].lock().expect("no worker panics");
        if worker.number % 4 < 2 {
            kept.clear();
        }
        let mut before = read_before[worker.number].lock().expect("no worker panics");
        let reads = worker.random.random_range(0..10) < 6;
        let lies = match lie {
            Lie::None => false,
            Lie::Stale(every) => worker.random.random_range(0..every) == 0,
        };
        let call = match reads {
            true => RegisterCall::Read,
            false => RegisterCall::Write(next.fetch_add(1, Ordering::Relaxed)),
        };
        worker.recorder.call((object, call.clone()), || {
            if let std::collections::btree_map::Entry::Vacant(place) = kept.entry(file) {
                let mut options = File::options();
                let opened = options.read(true).write(true).custom_flags(libc::O_CLOEXEC);
                place.insert(opened.open(&path).map_err(|error| errno(&error))?);
            }
            let open = &kept[&file];
            if let RegisterCall::Write(value) = call {
                let done = open.write_all_at(&bytes_of(value, length), offset as u64);
                return done.map(|()| RegisterAnswer::Written).map_err(|error| errno(&error));
            }
            let mut bytes = vec![0; length];
            open.read_exact_at(&mut bytes, offset as u64).map_err(|error| errno(&error))?;
            if lies && let Some(old) = before.get(&object) {
                bytes.clone_from(old);
            }
            before.insert(object, bytes.clone());
            Ok(value_of(&bytes, |_| length))
        });
    })
}

/// Locks ranges of a few files, through handles that are owners of their own. A worker waits only
/// if it holds nothing, so that no two wait for each other.
pub fn locks(mounts: &[&Path], seed: u64, signs: &Signs) -> Recorded<LocksCall, LocksAnswer> {
    let folder = mounts[0].join("locks");
    std::fs::create_dir_all(&folder).expect("a folder");
    for object in 0..OBJECTS {
        std::fs::write(folder.join(object.to_string()), [0; LOCK_BYTES]).expect("a file");
    }
    let workers = WORKERS * mounts.len();
    let kept: Vec<Vec<File>> = (0..workers)
        .map(|worker| {
            let top = mounts[worker % mounts.len()].join("locks");
            let open = |object: usize| {
                File::options().read(true).write(true).open(top.join(object.to_string()))
            };
            (0..OBJECTS).map(|object| open(object).expect("our file")).collect()
        })
        .collect();
    let all = LocksCall::Unlock { begin: 0, end: LOCK_BYTES };
    let set = |worker: &mut Worker<LocksCall, LocksAnswer>, object: usize, call: LocksCall| {
        let file = &kept[worker.number][object];
        worker.recorder.call((object, call.clone()), || set_lock(file, &call));
    };
    let call = |worker: &mut Worker<LocksCall, LocksAnswer>| {
        let object = worker.random.random_range(0..OBJECTS);
        let begin = worker.random.random_range(0..LOCK_BYTES);
        let end = worker.random.random_range(begin + 1..=LOCK_BYTES);
        let exclusive = worker.random.random_range(0..2) == 0;
        match worker.random.random_range(0..10) {
            0..5 => set(worker, object, LocksCall::Lock { exclusive, wait: false, begin, end }),
            5..8 => set(worker, object, LocksCall::Unlock { begin, end }),
            _ => {
                // It holds nothing anywhere while it waits.
                (0..OBJECTS).for_each(|object| set(worker, object, all.clone()));
                set(worker, object, LocksCall::Lock { exclusive, wait: true, begin, end });
                set(worker, object, all.clone());
            }
        }
    };
    // Whoever waits for what a worker holds that has ended would wait for ever.
    let end = |worker: &mut Worker<_, _>| {
        (0..OBJECTS).for_each(|object| set(worker, object, all.clone()));
    };
    work_and_end(mounts, "locks", seed, signs, call, end)
}

fn set_lock(file: &File, call: &LocksCall) -> Result<LocksAnswer, Errno> {
    let (kind, command, begin, end) = match *call {
        LocksCall::Lock { exclusive, wait, begin, end } => {
            let kind = if exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
            let command = if wait { libc::F_OFD_SETLKW } else { libc::F_OFD_SETLK };
            (kind, command, begin, end)
        }
        LocksCall::Unlock { begin, end } => (libc::F_UNLCK, libc::F_OFD_SETLK, begin, end),
    };
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: begin as libc::off_t,
        l_len: (end - begin) as libc::off_t,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open, and the structure lives through the call.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw const lock) };
    if done == 0 {
        return Ok(LocksAnswer::Granted);
    }
    match errno(&std::io::Error::last_os_error()) {
        Errno::AGAIN | Errno::ACCESS => Ok(LocksAnswer::Refused),
        error => Err(error),
    }
}
