//! System calls as they are: one function each, nothing added, the error number kept.
//!
//! The only place of this suite with unsafe code. The crates that wrap these calls hide what the
//! suite is about: they refuse odd flags, retry, or leave the error number out.

use std::ffi::CStr;
use std::time::Duration;

use crate::errno::Errno;

/// What a call gives.
pub type Call<T> = Result<T, Errno>;

fn number(result: i64) -> Call<i64> {
    if result < 0 { Err(Errno::last()) } else { Ok(result) }
}

fn nothing(result: i32) -> Call<()> {
    number(i64::from(result)).map(|_| ())
}

macro_rules! path_calls {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $kind:ty),*) = $call:expr;)*) => {$(
        $(#[$doc])*
        pub fn $name($($argument: $kind),*) -> Call<()> {
            // SAFETY: paths are C strings that live through the call; the rest are numbers.
            nothing(unsafe { $call })
        }
    )*};
}

path_calls! {
    /// mkdir(2)
    mkdir(path: &CStr, mode: u32) = libc::mkdir(path.as_ptr(), mode);
    /// rmdir(2)
    rmdir(path: &CStr) = libc::rmdir(path.as_ptr());
    /// unlink(2)
    unlink(path: &CStr) = libc::unlink(path.as_ptr());
    /// link(2), which does not follow a symbolic link
    link(from: &CStr, to: &CStr) = libc::link(from.as_ptr(), to.as_ptr());
    /// linkat(2)
    linkat(folder: i32, from: &CStr, to: &CStr, flags: i32) =
        libc::linkat(folder, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags);
    /// symlink(2)
    symlink(target: &CStr, path: &CStr) = libc::symlink(target.as_ptr(), path.as_ptr());
    /// rename(2)
    rename(from: &CStr, to: &CStr) = libc::rename(from.as_ptr(), to.as_ptr());
    /// renameat2(2)
    renameat2(from: &CStr, to: &CStr, flags: u32) =
        libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags);
    /// mknod(2)
    mknod(path: &CStr, mode: u32, device: u64) = libc::mknod(path.as_ptr(), mode, device);
    /// chmod(2)
    chmod(path: &CStr, mode: u32) = libc::chmod(path.as_ptr(), mode);
    /// fchmod(2)
    fchmod(file: i32, mode: u32) = libc::fchmod(file, mode);
    /// chown(2)
    chown(path: &CStr, user: u32, group: u32) = libc::chown(path.as_ptr(), user, group);
    /// lchown(2)
    lchown(path: &CStr, user: u32, group: u32) = libc::lchown(path.as_ptr(), user, group);
    /// fchown(2)
    fchown(file: i32, user: u32, group: u32) = libc::fchown(file, user, group);
    /// truncate(2)
    truncate(path: &CStr, size: i64) = libc::truncate64(path.as_ptr(), size);
    /// ftruncate(2)
    ftruncate(file: i32, size: i64) = libc::ftruncate64(file, size);
    /// fsync(2)
    fsync(file: i32) = libc::fsync(file);
    /// fdatasync(2)
    fdatasync(file: i32) = libc::fdatasync(file);
    /// syncfs(2)
    syncfs(file: i32) = libc::syncfs(file);
    /// fallocate(2)
    fallocate(file: i32, mode: i32, from: i64, length: i64) =
        libc::fallocate64(file, mode, from, length);
    /// flock(2)
    flock(file: i32, operation: i32) = libc::flock(file, operation);
    /// chdir(2)
    chdir(path: &CStr) = libc::chdir(path.as_ptr());
    /// close(2)
    close(file: i32) = libc::close(file);
    /// faccessat2(2): the C library does a part of it itself
    faccessat2(path: &CStr, mode: i32, flags: i32) =
        libc::syscall(libc::SYS_faccessat2, libc::AT_FDCWD, path.as_ptr(), mode, flags) as i32;
    /// fcntl(F_SETFL)
    set_flags(file: i32, flags: i32) = libc::fcntl(file, libc::F_SETFL, flags);
    /// unshare(2)
    unshare(flags: i32) = libc::unshare(flags);
    /// tgkill(2) of a thread of this process
    signal_thread(thread: i32, signal: i32) =
        libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) as i32;
}

/// open(2)
pub fn open(path: &CStr, flags: i32, mode: u32) -> Call<i32> {
    openat(libc::AT_FDCWD, path, flags, mode)
}

/// openat(2)
pub fn openat(folder: i32, path: &CStr, flags: i32, mode: u32) -> Call<i32> {
    let flags = flags | libc::O_CLOEXEC;
    // SAFETY: a C string that lives through the call.
    number(i64::from(unsafe { libc::openat(folder, path.as_ptr(), flags, mode) }))
        .map(|file| file as i32)
}

/// umask(2), of this thread when it has file system attributes of its own
pub fn umask(mask: u32) -> u32 {
    // SAFETY: no memory is involved.
    unsafe { libc::umask(mask) }
}

/// read(2)
pub fn read(file: i32, length: usize) -> Call<Vec<u8>> {
    filled(length, |bytes| {
        // SAFETY: the pointer and the length belong to one vector.
        unsafe { libc::read(file, bytes.as_mut_ptr().cast(), bytes.len()) }
    })
}

/// pread(2)
pub fn pread(file: i32, length: usize, at: i64) -> Call<Vec<u8>> {
    filled(length, |bytes| {
        // SAFETY: the pointer and the length belong to one vector.
        unsafe { libc::pread64(file, bytes.as_mut_ptr().cast(), bytes.len(), at) }
    })
}

fn filled(length: usize, call: impl FnOnce(&mut Vec<u8>) -> isize) -> Call<Vec<u8>> {
    let mut bytes = vec![0; length];
    let got = number(call(&mut bytes) as i64)?;
    bytes.truncate(got as usize);
    Ok(bytes)
}

/// write(2)
pub fn write(file: i32, bytes: &[u8]) -> Call<usize> {
    // SAFETY: the pointer and the length belong to one slice.
    let written = unsafe { libc::write(file, bytes.as_ptr().cast(), bytes.len()) };
    number(written as i64).map(|written| written as usize)
}

/// pwrite(2)
pub fn pwrite(file: i32, bytes: &[u8], at: i64) -> Call<usize> {
    // SAFETY: the pointer and the length belong to one slice.
    let written = unsafe { libc::pwrite64(file, bytes.as_ptr().cast(), bytes.len(), at) };
    number(written as i64).map(|written| written as usize)
}

/// writev(2) of two pieces
pub fn writev(file: i32, one: &[u8], two: &[u8]) -> Call<usize> {
    let pieces = [one, two].map(|piece| libc::iovec {
        iov_base: piece.as_ptr().cast_mut().cast(),
        iov_len: piece.len(),
    });
    // SAFETY: the pieces describe two slices that live through the call and are only read.
    let written = unsafe { libc::writev(file, pieces.as_ptr(), 2) };
    number(written as i64).map(|written| written as usize)
}

/// Reads or writes one page at `at` from memory that begins at a page, as `O_DIRECT` wants it.
pub fn direct(file: i32, page: Option<u8>, at: i64) -> Call<Vec<u8>> {
    const PAGE: usize = 4096;
    let mut room = vec![0u8; 2 * PAGE];
    let begin = room.as_ptr().align_offset(PAGE);
    let aligned = &mut room[begin..begin + PAGE];
    let moved = match page {
        Some(byte) => {
            aligned.fill(byte);
            // SAFETY: the pointer and the length belong to one slice.
            unsafe { libc::pwrite64(file, aligned.as_ptr().cast(), PAGE, at) }
        }
        // SAFETY: the pointer and the length belong to one slice.
        None => unsafe { libc::pread64(file, aligned.as_mut_ptr().cast(), PAGE, at) },
    };
    let moved = number(moved as i64)? as usize;
    Ok(aligned[..moved].to_vec())
}

/// lseek(2)
pub fn lseek(file: i32, to: i64, whence: i32) -> Call<i64> {
    // SAFETY: no memory is involved.
    number(unsafe { libc::lseek64(file, to, whence) })
}

/// copy_file_range(2)
pub fn copy_file_range(from: i32, from_at: i64, to: i32, to_at: i64, length: usize) -> Call<usize> {
    let (mut from_at, mut to_at) = (from_at, to_at);
    // SAFETY: both offsets live through the call.
    let copied = unsafe { libc::copy_file_range(from, &mut from_at, to, &mut to_at, length, 0) };
    number(copied as i64).map(|copied| copied as usize)
}

/// readlink(2)
pub fn readlink(path: &CStr, length: usize) -> Call<Vec<u8>> {
    filled(length, |bytes| {
        // SAFETY: the pointer and the length belong to one vector.
        unsafe { libc::readlink(path.as_ptr(), bytes.as_mut_ptr().cast(), bytes.len()) }
    })
}

/// What stat(2) and its sisters give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Device of the file system.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Kind and permissions.
    pub mode: u32,
    /// Names.
    pub links: u64,
    /// Owner.
    pub user: u32,
    /// Group.
    pub group: u32,
    /// The device that a device node stands for.
    pub node: u64,
    /// Bytes.
    pub size: i64,
    /// Preferred unit.
    pub unit: i64,
    /// Units of 512 bytes in use.
    pub blocks: i64,
    /// Last read, in nanoseconds since 1970.
    pub atime: i128,
    /// Last change of the content.
    pub mtime: i128,
    /// Last change of anything.
    pub ctime: i128,
}

impl Stat {
    /// The kind alone, such as `S_IFREG`.
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    /// The twelve bits of permissions.
    pub fn permissions(&self) -> u32 {
        self.mode & 0o7777
    }
}

/// Seconds and nanoseconds as one number.
pub fn time(seconds: i64, nanoseconds: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
}

fn stat_by(call: impl FnOnce(*mut libc::stat64) -> i32) -> Call<Stat> {
    // SAFETY: a structure of numbers, for which zero is a value.
    let mut found: libc::stat64 = unsafe { std::mem::zeroed() };
    nothing(call(&mut found))?;
    Ok(Stat {
        device: found.st_dev,
        inode: found.st_ino,
        mode: found.st_mode,
        links: found.st_nlink as u64,
        user: found.st_uid,
        group: found.st_gid,
        node: found.st_rdev,
        size: found.st_size,
        unit: found.st_blksize as i64,
        blocks: found.st_blocks,
        atime: time(found.st_atime, found.st_atime_nsec),
        mtime: time(found.st_mtime, found.st_mtime_nsec),
        ctime: time(found.st_ctime, found.st_ctime_nsec),
    })
}

/// lstat(2)
pub fn lstat(path: &CStr) -> Call<Stat> {
    // SAFETY: the path and the structure live through the call.
    stat_by(|found| unsafe { libc::lstat64(path.as_ptr(), found) })
}

/// stat(2)
pub fn stat(path: &CStr) -> Call<Stat> {
    // SAFETY: the path and the structure live through the call.
    stat_by(|found| unsafe { libc::stat64(path.as_ptr(), found) })
}

/// fstat(2)
pub fn fstat(file: i32) -> Call<Stat> {
    // SAFETY: the structure lives through the call.
    stat_by(|found| unsafe { libc::fstat64(file, found) })
}

/// statx(2) with everything asked for; gives the structure of the kernel.
pub fn statx(path: &CStr, flags: i32) -> Call<libc::statx> {
    let asked = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
    // SAFETY: a structure of numbers, for which zero is a value; all live through the call.
    unsafe {
        let mut found: libc::statx = std::mem::zeroed();
        nothing(libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, asked, &mut found))?;
        Ok(found)
    }
}

/// statfs(2)
pub fn statfs(path: &CStr) -> Call<libc::statfs64> {
    // SAFETY: a structure of numbers, for which zero is a value; all live through the call.
    unsafe {
        let mut found: libc::statfs64 = std::mem::zeroed();
        nothing(libc::statfs64(path.as_ptr(), &mut found))?;
        Ok(found)
    }
}

/// utimensat(2) with atime and mtime as (seconds, nanoseconds), or none for both now.
pub fn utimensat(path: &CStr, times: Option<[(i64, i64); 2]>, flags: i32) -> Call<()> {
    let times = times.map(spec);
    let pointer = times.as_ref().map_or(std::ptr::null(), |times| times.as_ptr());
    // SAFETY: the path and the times, if any, live through the call.
    nothing(unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), pointer, flags) })
}

/// futimens(3)
pub fn futimens(file: i32, times: [(i64, i64); 2]) -> Call<()> {
    let times = spec(times);
    // SAFETY: the times live through the call.
    nothing(unsafe { libc::futimens(file, times.as_ptr()) })
}

fn spec(times: [(i64, i64); 2]) -> [libc::timespec; 2] {
    times.map(|(seconds, nanoseconds)| libc::timespec { tv_sec: seconds, tv_nsec: nanoseconds })
}

/// lsetxattr(2)
pub fn set_xattr(path: &CStr, name: &CStr, value: &[u8], flags: i32) -> Call<()> {
    // SAFETY: both strings and the slice live through the call.
    nothing(unsafe {
        libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags)
    })
}

/// fsetxattr(2)
pub fn set_xattr_of(file: i32, name: &CStr, value: &[u8], flags: i32) -> Call<()> {
    // SAFETY: the string and the slice live through the call.
    nothing(unsafe {
        libc::fsetxattr(file, name.as_ptr(), value.as_ptr().cast(), value.len(), flags)
    })
}

/// lgetxattr(2) into room for `length` bytes
pub fn get_xattr(path: &CStr, name: &CStr, length: usize) -> Call<Vec<u8>> {
    filled(length, |bytes| {
        // SAFETY: both strings and the vector live through the call.
        unsafe {
            libc::lgetxattr(path.as_ptr(), name.as_ptr(), bytes.as_mut_ptr().cast(), bytes.len())
        }
    })
}

/// lgetxattr(2) without room: the length alone
pub fn xattr_length(path: &CStr, name: &CStr) -> Call<usize> {
    // SAFETY: both strings live through the call; nothing is written to no room.
    let length = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) };
    number(length as i64).map(|length| length as usize)
}

/// llistxattr(2) into room for `length` bytes: names, each with a zero behind it
pub fn list_xattrs(path: &CStr, length: usize) -> Call<Vec<u8>> {
    filled(length, |bytes| {
        // SAFETY: the string and the vector live through the call.
        unsafe { libc::llistxattr(path.as_ptr(), bytes.as_mut_ptr().cast(), bytes.len()) }
    })
}

/// lremovexattr(2)
pub fn remove_xattr(path: &CStr, name: &CStr) -> Call<()> {
    // SAFETY: both strings live through the call.
    nothing(unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) })
}

/// One record lock call: `F_SETLK`, `F_SETLKW`, `F_GETLK` or their `OFD` sisters. Gives the
/// structure as the kernel leaves it.
pub fn lock(file: i32, command: i32, kind: i32, from: i64, length: i64) -> Call<libc::flock64> {
    // SAFETY: a structure of numbers, for which zero is a value; it lives through the call.
    unsafe {
        let mut asked: libc::flock64 = std::mem::zeroed();
        asked.l_type = kind as i16;
        asked.l_whence = libc::SEEK_SET as i16;
        asked.l_start = from;
        asked.l_len = length;
        nothing(libc::fcntl(file, command, &mut asked))?;
        Ok(asked)
    }
}

/// One entry of getdents64(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: Vec<u8>,
    /// Inode number.
    pub inode: u64,
    /// Where the entry behind this one begins, for `lseek`.
    pub next: i64,
    /// Kind, such as `DT_REG`.
    pub kind: u8,
}

/// getdents64(2) into room for `length` bytes
pub fn getdents(folder: i32, length: usize) -> Call<Vec<Entry>> {
    let bytes = filled(length, |bytes| {
        // SAFETY: the pointer and the length belong to one vector.
        unsafe {
            libc::syscall(libc::SYS_getdents64, folder, bytes.as_mut_ptr(), bytes.len()) as isize
        }
    })?;
    let mut entries = Vec::new();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let eight = |at: usize| <[u8; 8]>::try_from(&rest[at..at + 8]).expect("eight bytes");
        let length = usize::from(u16::from_ne_bytes([rest[16], rest[17]]));
        let name = rest[19..length].split(|byte| *byte == 0).next().unwrap_or_default();
        entries.push(Entry {
            name: name.to_vec(),
            inode: u64::from_ne_bytes(eight(0)),
            next: i64::from_ne_bytes(eight(8)),
            kind: rest[18],
        });
        rest = &rest[length..];
    }
    Ok(entries)
}

/// A handle of name_to_handle_at(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handle {
    kind: i32,
    bytes: Vec<u8>,
}

const HANDLE_BYTES: usize = libc::MAX_HANDLE_SZ as usize;

#[repr(C)]
struct RawHandle {
    length: u32,
    kind: i32,
    bytes: [u8; HANDLE_BYTES],
}

/// name_to_handle_at(2)
pub fn name_to_handle(path: &CStr) -> Call<Handle> {
    let mut raw = RawHandle { length: HANDLE_BYTES as u32, kind: 0, bytes: [0; HANDLE_BYTES] };
    let mut mount = 0i32;
    // SAFETY: the structure has the kernel's form and room for as many bytes as it says.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            path.as_ptr(),
            &raw mut raw,
            &raw mut mount,
            0,
        )
    };
    number(result)?;
    Ok(Handle { kind: raw.kind, bytes: raw.bytes[..raw.length as usize].to_vec() })
}

/// open_by_handle_at(2); `mount` is any open file of the file system.
pub fn open_by_handle(mount: i32, handle: &Handle, flags: i32) -> Call<i32> {
    let mut raw = RawHandle {
        length: handle.bytes.len() as u32,
        kind: handle.kind,
        bytes: [0; HANDLE_BYTES],
    };
    raw.bytes[..handle.bytes.len()].copy_from_slice(&handle.bytes);
    // SAFETY: the structure has the kernel's form and as many bytes as it says.
    let file = unsafe { libc::syscall(libc::SYS_open_by_handle_at, mount, &raw mut raw, flags) };
    number(file).map(|file| file as i32)
}

/// A mapping of a file. Taken away when dropped.
#[derive(Debug)]
pub struct Mapping {
    begin: usize,
    length: usize,
}

impl Mapping {
    /// mmap(2) of the first `length` bytes.
    pub fn new(file: i32, length: usize, protection: i32, flags: i32) -> Call<Mapping> {
        // SAFETY: the kernel chooses the place.
        let begin = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, file, 0) };
        if begin == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(Mapping { begin: begin as usize, length })
    }

    /// The byte at `at`.
    pub fn byte(&self, at: usize) -> u8 {
        assert!(at < self.length, "inside of the mapping");
        // SAFETY: inside of the mapping, which is readable in every case of the suite. Volatile,
        // since others change it.
        unsafe { std::ptr::read_volatile((self.begin + at) as *const u8) }
    }

    /// Stores a byte. Only on a mapping made with `PROT_WRITE`.
    pub fn set(&self, at: usize, byte: u8) {
        assert!(at < self.length, "inside of the mapping");
        // SAFETY: inside of the mapping, which the caller made writable.
        unsafe { std::ptr::write_volatile((self.begin + at) as *mut u8, byte) }
    }

    /// msync(2) of all of it.
    pub fn sync(&self, flags: i32) -> Call<()> {
        // SAFETY: the mapping is there.
        nothing(unsafe { libc::msync(self.begin as *mut libc::c_void, self.length, flags) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nobody else has the addresses.
        unsafe { libc::munmap(self.begin as *mut libc::c_void, self.length) };
    }
}

/// The number of this thread.
pub fn thread() -> i32 {
    // SAFETY: no memory is involved.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// Makes this thread, and no other, that of a user: for good.
pub fn become_user(user: u32, group: u32, groups: &[u32]) -> Call<()> {
    // The C library's own functions would change all threads.
    // SAFETY: the pointer and the length belong to one slice; the rest are numbers.
    unsafe {
        nothing(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) as i32)?;
        nothing(libc::syscall(libc::SYS_setresgid, group, group, group) as i32)?;
        nothing(libc::syscall(libc::SYS_setresuid, user, user, user) as i32)
    }
}

/// Lets `SIGUSR1` interrupt calls and do nothing else.
pub fn signals_interrupt() {
    extern "C" fn ignore(_: i32) {}
    // SAFETY: the handler does nothing; the structure is numbers, for which zero is a value.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = ignore as *const () as usize;
        libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut());
    }
}

/// Waits for so long; the clock of files may be as coarse as a tick of the kernel.
pub fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}
