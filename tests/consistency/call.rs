//! One step of a sequence: a call, who makes it and on which mount.
//!
//! A step is plain data, complete in itself: it can be left out of a sequence, or run on any file
//! system, without the others changing their meaning. A call through a handle whose opening was
//! left out is skipped.

use std::fmt;

use rustix::fs::{FallocateFlags, OFlags, RenameFlags, XattrFlags};

/// How many handles are held at once.
pub const SLOTS: usize = 5;

/// Where a handle is kept.
pub type Slot = usize;

/// A time given to `utimensat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// `UTIME_OMIT`.
    Omit,
    /// `UTIME_NOW`.
    Now,
    /// Seconds and nanoseconds.
    At(i64, i64),
}

/// Bytes to be written, from a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// How many.
    pub length: usize,
    /// They depend on this alone.
    pub seed: u64,
}

impl Fill {
    /// The bytes.
    pub fn bytes(self) -> Vec<u8> {
        ministry_tests::tree::bytes(self.seed, self.length)
    }
}

/// From where `lseek` counts, or what it looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whence {
    /// `SEEK_CUR`.
    Current,
    /// `SEEK_END`.
    End,
    /// `SEEK_SET`.
    Start,
    /// `SEEK_DATA`.
    Data,
    /// `SEEK_HOLE`.
    Hole,
}

/// A call. Paths are relative to the top of the sequence's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    Open { path: String, flags: OFlags, mode: u32, slot: Slot },
    Close { slot: Slot },
    Write { slot: Slot, fill: Fill },
    Pwrite { slot: Slot, offset: u64, fill: Fill },
    Read { slot: Slot, length: usize },
    Pread { slot: Slot, offset: u64, length: usize },
    Seek { slot: Slot, offset: i64, whence: Whence },
    Ftruncate { slot: Slot, length: u64 },
    Fsync { slot: Slot, data_only: bool },
    Fstat { slot: Slot },
    Fchmod { slot: Slot, mode: u32 },
    Fallocate { slot: Slot, mode: FallocateFlags, offset: u64, length: u64 },
    CopyRange { from: Slot, from_offset: u64, to: Slot, to_offset: u64, length: usize },
    WriteWhole { path: String, fill: Fill },
    ReadWhole { path: String },
    Truncate { path: String, length: u64 },
    Stat { path: String },
    Lstat { path: String },
    List { path: String },
    Readlink { path: String },
    Access { path: String, mask: u32 },
    Mkdir { path: String, mode: u32 },
    Rmdir { path: String },
    Mknod { path: String, mode: u32 },
    Symlink { target: String, path: String },
    Link { from: String, to: String },
    Unlink { path: String },
    Rename { from: String, to: String, flags: RenameFlags },
    Chmod { path: String, mode: u32 },
    Chown { path: String, uid: Option<u32>, gid: Option<u32>, follow: bool },
    Utimens { path: String, atime: Time, mtime: Time, follow: bool },
    SetXattr { path: String, name: String, fill: Fill, flags: XattrFlags },
    GetXattr { path: String, name: String },
    ListXattr { path: String },
    RemoveXattr { path: String, name: String },
}

impl Call {
    /// The call's name: the first word of how it is shown.
    pub fn name(&self) -> String {
        let text = format!("{self:?}");
        text.split([' ', '{']).next().unwrap_or_default().to_owned()
    }

    /// The handle it works on.
    pub fn slot(&self) -> Option<Slot> {
        match self {
            Call::Close { slot }
            | Call::Write { slot, .. }
            | Call::Pwrite { slot, .. }
            | Call::Read { slot, .. }
            | Call::Pread { slot, .. }
            | Call::Seek { slot, .. }
            | Call::Ftruncate { slot, .. }
            | Call::Fsync { slot, .. }
            | Call::Fstat { slot }
            | Call::Fchmod { slot, .. }
            | Call::Fallocate { slot, .. } => Some(*slot),
            Call::CopyRange { to, .. } => Some(*to),
            _ => None,
        }
    }

    /// The paths that the call names.
    pub fn paths(&self) -> Vec<&str> {
        match self {
            Call::Open { path, .. }
            | Call::WriteWhole { path, .. }
            | Call::ReadWhole { path }
            | Call::Truncate { path, .. }
            | Call::Stat { path }
            | Call::Lstat { path }
            | Call::List { path }
            | Call::Readlink { path }
            | Call::Access { path, .. }
            | Call::Mkdir { path, .. }
            | Call::Rmdir { path }
            | Call::Mknod { path, .. }
            | Call::Symlink { path, .. }
            | Call::Unlink { path }
            | Call::Chmod { path, .. }
            | Call::Chown { path, .. }
            | Call::Utimens { path, .. }
            | Call::SetXattr { path, .. }
            | Call::GetXattr { path, .. }
            | Call::ListXattr { path }
            | Call::RemoveXattr { path, .. } => vec![path],
            Call::Link { from, to } | Call::Rename { from, to, .. } => vec![from, to],
            _ => Vec::new(),
        }
    }
}

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// The super-user.
    Root,
    /// An ordinary user, who is also in the team.
    First,
    /// An ordinary user.
    Second,
}

/// A group that the first user belongs to beside the own one.
pub const TEAM: u32 = 2000;

impl User {
    /// User and group number.
    pub fn id(self) -> u32 {
        match self {
            User::Root => 0,
            User::First => 1001,
            User::Second => 1002,
        }
    }

    /// Supplementary groups.
    pub fn groups(self) -> &'static [u32] {
        match self {
            User::First => &[TEAM],
            User::Root | User::Second => &[],
        }
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The mount of a call that names a path; a handle stays on the mount where it was opened.
    pub mount: usize,
    /// The mount through which the effect is looked at.
    pub look: usize,
    /// Whether what the call touches is looked at before it as well, to see which times change.
    /// Not always: looking makes the kernel learn.
    pub watch: bool,
    /// Who calls.
    pub user: User,
    /// The call.
    pub call: Call,
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let watch = if self.watch { ", watched" } else { "" };
        write!(
            out,
            "mount {} seen from {}{watch}, {:?}: {:?}",
            self.mount, self.look, self.user, self.call
        )
    }
}
