//! Translations between the kernel's words and Ministry's, without any I/O.
//!
//! What must always hold: nothing here panics, whatever the kernel hands over.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, RenameFlags, TimeOrNow};
use ministry_client::NewMode;
use ministry_types::operations::{RenameMode, SetAttributes, SetTime, XattrMode};
use ministry_types::{Attributes, FileKind, FsError, InodeId, SpaceChange, Timestamp};
use ministry_wire::minister::FsUsage;

/// `st_blksize`. A hint for the size of a program's buffers: every `read` and `write` is a round
/// trip, so larger than a page; a multiple of 4 KiB, so that nothing that assumes pages breaks;
/// small enough that a program may hold one such buffer for each open file.
pub(crate) const PREFERRED_IO_BYTES: u32 = 64 << 10;

/// What `statfs` counts in: the block of storage. `f_bsize` and `f_frsize` are the same, because
/// many programs take one for the other.
pub(crate) const STATFS_BLOCK_BYTES: u32 = 4096;

/// Set in an open for execution (`__FMODE_EXEC`): the mode bits asked for are `x`, not `r`.
const OPEN_FOR_EXECUTION: i32 = 0x20;

const PERMISSION_BITS: u32 = 0o7777;

/// The number on the kernel's side: the same, but for the root ([`crate::view`]).
pub(crate) fn inode_number(inode: InodeId) -> INodeNo {
    INodeNo(inode.0)
}

/// The kernel's word for a kind.
pub(crate) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// A time as the kernel library wants it.
pub(crate) fn system_time(time: Timestamp) -> SystemTime {
    let distance = Duration::from_nanos(time.0.unsigned_abs());
    if time.0 >= 0 { UNIX_EPOCH + distance } else { UNIX_EPOCH - distance }
}

/// A time that a program sets.
///
/// The kernel says -1.5 s as (-2 s, +0.5 s). fuser 0.18 reads that as 2.5 s before 1970 (its
/// `system_time_from_time` subtracts the nanoseconds); the two numbers can be had back, so the
/// mistake is undone here. A test holds it.
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => {
            let seconds = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
            Timestamp::new(seconds, after.subsec_nanos())
        }
        Err(error) => {
            let before = error.duration();
            let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            Timestamp::new(-seconds, before.subsec_nanos())
        }
    }
}

fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(timestamp(time)),
    }
}

/// What `stat` shows.
pub(crate) fn file_attributes(attributes: &Attributes) -> FileAttr {
    FileAttr {
        ino: inode_number(attributes.inode),
        size: attributes.size,
        blocks: attributes.allocated_bytes.div_ceil(512),
        atime: system_time(attributes.atime),
        mtime: system_time(attributes.mtime),
        ctime: system_time(attributes.ctime),
        crtime: system_time(attributes.btime),
        kind: file_type(attributes.kind),
        perm: (attributes.permissions & PERMISSION_BITS) as u16,
        nlink: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: attributes.device as u32,
        blksize: PREFERRED_IO_BYTES,
        flags: 0,
    }
}

/// The fields of a `setattr` as they come.
#[derive(Debug, Default)]
pub(crate) struct SetFields {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) atime: Option<TimeOrNow>,
    pub(crate) mtime: Option<TimeOrNow>,
}

/// What to set. `writable_handle`: it came by a handle that is open for writing.
pub(crate) fn set_attributes(fields: SetFields, writable_handle: bool) -> SetAttributes {
    SetAttributes {
        permissions: fields.mode.map(|mode| mode & PERMISSION_BITS),
        uid: fields.uid,
        gid: fields.gid,
        size: fields.size,
        size_by_handle: fields.size.is_some() && writable_handle,
        atime: fields.atime.map(set_time),
        mtime: fields.mtime.map(set_time),
    }
}

/// The mode that a program asks for. The umask goes along: only the minister knows whether the
/// directory has a default access control list, which sets it aside.
pub(crate) fn new_mode(mode: u32, umask: u32) -> NewMode {
    NewMode { permissions: mode & PERMISSION_BITS, umask: umask & 0o777 }
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opening {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) execute: bool,
    pub(crate) append: bool,
    pub(crate) truncate: bool,
    pub(crate) no_access_time: bool,
    pub(crate) exclusive: bool,
    pub(crate) synchronous: bool,
}

/// Flags of an open file that come with each write: as they are now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StatusFlags {
    pub(crate) append: bool,
    pub(crate) synchronous: bool,
}

/// The flags that the kernel repeats with a write.
pub(crate) fn status_flags(flags: i32) -> StatusFlags {
    // `O_SYNC` contains `O_DSYNC`.
    StatusFlags { append: flags & libc::O_APPEND != 0, synchronous: flags & libc::O_DSYNC != 0 }
}

/// The flags of `open` and `create`.
pub(crate) fn opening(flags: i32) -> Opening {
    let access = flags & libc::O_ACCMODE;
    let execute = flags & OPEN_FOR_EXECUTION != 0;
    // Access mode 3 is Linux's "for ioctl only": it asks for both permissions.
    let write = access != libc::O_RDONLY;
    Opening {
        read: access != libc::O_WRONLY && !execute,
        write,
        execute,
        append: write && flags & libc::O_APPEND != 0,
        truncate: flags & libc::O_TRUNC != 0,
        no_access_time: flags & libc::O_NOATIME != 0,
        exclusive: flags & libc::O_EXCL != 0,
        synchronous: status_flags(flags).synchronous,
    }
}

/// The flags of `renameat2`.
pub(crate) fn rename_mode(flags: RenameFlags) -> Result<RenameMode, FsError> {
    if flags.is_empty() {
        Ok(RenameMode::Replace)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Ok(RenameMode::NoReplace)
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        Ok(RenameMode::Exchange)
    } else {
        // Whiteouts, which only overlay file systems need, and combinations that make no sense.
        Err(FsError::Invalid)
    }
}

/// The flags of `setxattr`.
pub(crate) fn xattr_mode(flags: i32) -> Result<XattrMode, FsError> {
    match flags {
        0 => Ok(XattrMode::Either),
        libc::XATTR_CREATE => Ok(XattrMode::Create),
        libc::XATTR_REPLACE => Ok(XattrMode::Replace),
        _ => Err(FsError::Invalid),
    }
}

/// Names of extended attributes as `listxattr` lists them: each with a closing zero.
pub(crate) fn xattr_list(names: &[Vec<u8>]) -> Vec<u8> {
    let mut list = Vec::with_capacity(names.iter().map(|name| name.len() + 1).sum());
    for name in names {
        list.extend_from_slice(name);
        list.push(0);
    }
    list
}

/// What the caller of `getxattr` or `listxattr` gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum XattrReply<T> {
    /// It asked how much room is needed.
    Size(u32),
    /// It gave enough room.
    Bytes(T),
}

/// Room of 0 bytes is the question how much is needed.
pub(crate) fn xattr_reply<T: AsRef<[u8]>>(value: T, room: u32) -> Result<XattrReply<T>, FsError> {
    let size = u32::try_from(value.as_ref().len()).map_err(|_| FsError::TooLarge)?;
    match room {
        0 => Ok(XattrReply::Size(size)),
        room if size <= room => Ok(XattrReply::Bytes(value)),
        _ => Err(FsError::Range),
    }
}

/// What `statfs` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) blocks: u64,
    pub(crate) free: u64,
    pub(crate) available: u64,
    pub(crate) files: u64,
    pub(crate) files_free: u64,
}

/// Inode numbers do not run out; how many more files there can be is a matter of room: a block
/// each is a cautious guess, since a small file lives in its inode.
pub(crate) fn room(usage: &FsUsage) -> Room {
    let block = u64::from(STATFS_BLOCK_BYTES);
    let files_free = usage.free_bytes / block;
    Room {
        blocks: usage.total_bytes / block,
        free: usage.free_bytes / block,
        available: usage.available_bytes / block,
        files: usage.inodes.saturating_add(files_free),
        files_free,
    }
}

/// What a `fallocate` of this mode does, and whether the size stays.
pub(crate) fn space_change(mode: i32) -> Result<(SpaceChange, bool), FsError> {
    let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
    match mode & !libc::FALLOC_FL_KEEP_SIZE {
        0 => Ok((SpaceChange::Allocate, keep_size)),
        libc::FALLOC_FL_ZERO_RANGE => Ok((SpaceChange::Zero, keep_size)),
        libc::FALLOC_FL_PUNCH_HOLE if keep_size => Ok((SpaceChange::Punch, true)),
        _ => Err(FsError::NotSupported),
    }
}

/// Whether `lseek` looks for a hole; else it looks for data.
pub(crate) fn seeks_hole(whence: i32) -> Result<bool, FsError> {
    match whence {
        libc::SEEK_HOLE => Ok(true),
        libc::SEEK_DATA => Ok(false),
        _ => Err(FsError::Invalid),
    }
}

#[cfg(test)]
mod tests {
    use ministry_types::Layout;

    use super::*;

    /// What fuser 0.18 makes of the kernel's two numbers.
    fn as_fuser_reads(seconds: i64, nanoseconds: u32) -> SystemTime {
        if seconds >= 0 {
            UNIX_EPOCH + Duration::new(seconds as u64, nanoseconds)
        } else {
            UNIX_EPOCH - Duration::new(seconds.unsigned_abs(), nanoseconds)
        }
    }

    fn attributes() -> Attributes {
        Attributes {
            inode: InodeId(77),
            kind: FileKind::Regular,
            permissions: 0o104_755,
            uid: 1,
            gid: 2,
            links: 3,
            size: 5000,
            allocated_bytes: 8192,
            atime: Timestamp(-1_500_000_000),
            mtime: Timestamp(1),
            ctime: Timestamp(i64::MAX),
            btime: Timestamp(i64::MIN),
            device: 0,
            layout: Layout::Inline,
        }
    }

    #[test]
    fn times_before_1970_survive_the_way_in() {
        for (seconds, nanoseconds) in [(-2, 500_000_000), (-1, 0), (-1, 1), (0, 0), (7, 9)] {
            let time = timestamp(as_fuser_reads(seconds, nanoseconds));
            assert_eq!(time, Timestamp::new(seconds, nanoseconds));
        }
    }

    #[test]
    fn times_that_cannot_be_held_are_cut_and_do_not_panic() {
        assert_eq!(timestamp(as_fuser_reads(i64::MAX, 0)), Timestamp(i64::MAX));
        assert_eq!(timestamp(as_fuser_reads(i64::MIN, 0)), Timestamp(i64::MIN));
    }

    #[test]
    fn stat_shows_blocks_of_512_bytes_and_times_to_the_nanosecond() {
        let shown = file_attributes(&attributes());
        assert_eq!((shown.ino.0, shown.blocks, shown.size), (77, 16, 5000));
        assert_eq!(shown.perm, 0o4755);
        assert_eq!(shown.atime, UNIX_EPOCH - Duration::from_millis(1500));
        assert_eq!(shown.mtime, UNIX_EPOCH + Duration::from_nanos(1));
        let inline = Attributes { allocated_bytes: 1, ..attributes() };
        assert_eq!(file_attributes(&inline).blocks, 1);
    }

    #[test]
    fn opening_for_execution_asks_for_x_and_not_for_r() {
        let execute = opening(libc::O_RDONLY | OPEN_FOR_EXECUTION);
        assert_eq!((execute.read, execute.write, execute.execute), (false, false, true));
        let append = opening(libc::O_WRONLY | libc::O_APPEND);
        assert_eq!((append.read, append.write, append.append), (false, true, true));
        assert!(
            !opening(libc::O_RDONLY | libc::O_APPEND).append,
            "nothing is appended by a reader"
        );
        let both = opening(libc::O_RDWR | libc::O_TRUNC | libc::O_EXCL);
        assert!(both.read && both.write && both.truncate && both.exclusive);
        let ioctl = opening(libc::O_ACCMODE);
        assert!(ioctl.read && ioctl.write);
    }

    #[test]
    fn both_flags_of_synchronous_files_count_and_appending_is_told_with_each_write() {
        let of = |flags| {
            let StatusFlags { append, synchronous } = status_flags(flags);
            (append, synchronous)
        };
        assert_eq!(of(libc::O_RDWR), (false, false));
        assert_eq!(of(libc::O_WRONLY | libc::O_APPEND), (true, false));
        assert_eq!(of(libc::O_SYNC), (false, true));
        assert_eq!(of(libc::O_DSYNC | libc::O_APPEND), (true, true));
        assert!(opening(libc::O_WRONLY | libc::O_DSYNC).synchronous);
    }

    #[test]
    fn truncation_by_a_handle_open_for_writing_does_not_ask_the_mode_bits() {
        let cut = || SetFields { size: Some(1), ..SetFields::default() };
        assert!(set_attributes(cut(), true).size_by_handle);
        assert!(!set_attributes(cut(), false).size_by_handle);
        let touch = SetFields { mtime: Some(TimeOrNow::Now), ..SetFields::default() };
        let set = set_attributes(touch, true);
        assert_eq!((set.mtime, set.atime, set.size_by_handle), (Some(SetTime::Now), None, false));
        let mode = SetFields { mode: Some(0o100_644), ..SetFields::default() };
        assert_eq!(set_attributes(mode, false).permissions, Some(0o644));
    }

    #[test]
    fn mode_and_umask_go_to_the_minister_apart() {
        let mode = |permissions, umask| NewMode { permissions, umask };
        assert_eq!(new_mode(0o100_666, 0o022), mode(0o666, 0o022));
        assert_eq!(new_mode(0o1777, 0), mode(0o1777, 0));
    }

    #[test]
    fn renames_that_are_not_known_are_refused() {
        assert_eq!(rename_mode(RenameFlags::empty()), Ok(RenameMode::Replace));
        assert_eq!(rename_mode(RenameFlags::RENAME_EXCHANGE), Ok(RenameMode::Exchange));
        assert_eq!(rename_mode(RenameFlags::RENAME_NOREPLACE), Ok(RenameMode::NoReplace));
        let whiteout = RenameFlags::RENAME_WHITEOUT | RenameFlags::RENAME_NOREPLACE;
        assert_eq!(rename_mode(whiteout), Err(FsError::Invalid));
        let both = RenameFlags::RENAME_EXCHANGE | RenameFlags::RENAME_NOREPLACE;
        assert_eq!(rename_mode(both), Err(FsError::Invalid));
    }

    #[test]
    fn an_extended_attribute_tells_its_size_and_never_overflows_the_room() {
        assert_eq!(xattr_reply(b"abc", 0), Ok(XattrReply::Size(3)));
        assert_eq!(xattr_reply(b"abc", 3), Ok(XattrReply::Bytes(b"abc")));
        assert_eq!(xattr_reply(b"abc", 2), Err(FsError::Range));
        assert_eq!(xattr_list(&[b"user.a".to_vec(), b"user.b".to_vec()]), b"user.a\0user.b\0");
        assert_eq!(xattr_mode(3), Err(FsError::Invalid));
    }

    #[test]
    fn room_is_shown_in_blocks() {
        let usage = FsUsage {
            total_bytes: 1 << 30,
            free_bytes: 1 << 20,
            available_bytes: 1 << 19,
            inodes: 10,
        };
        let room = room(&usage);
        assert_eq!((room.blocks, room.free, room.available), (1 << 18, 256, 128));
        assert_eq!((room.files, room.files_free), (266, 256));
    }

    #[test]
    fn modes_of_fallocate_that_nobody_offers_are_refused() {
        let (keep, punch) = (libc::FALLOC_FL_KEEP_SIZE, libc::FALLOC_FL_PUNCH_HOLE);
        assert_eq!(space_change(0), Ok((SpaceChange::Allocate, false)));
        assert_eq!(space_change(keep), Ok((SpaceChange::Allocate, true)));
        assert_eq!(space_change(punch | keep), Ok((SpaceChange::Punch, true)));
        let zero = libc::FALLOC_FL_ZERO_RANGE;
        assert_eq!(space_change(zero), Ok((SpaceChange::Zero, false)));
        assert_eq!(space_change(zero | keep), Ok((SpaceChange::Zero, true)));
        let others = [libc::FALLOC_FL_COLLAPSE_RANGE, libc::FALLOC_FL_INSERT_RANGE, punch];
        for mode in others.into_iter().chain([libc::FALLOC_FL_UNSHARE_RANGE, zero | punch]) {
            assert_eq!(space_change(mode), Err(FsError::NotSupported), "{mode}");
        }
        assert_eq!(seeks_hole(libc::SEEK_CUR), Err(FsError::Invalid));
    }
}
