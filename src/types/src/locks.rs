//! The words of advisory locks: `flock`, and the byte ranges of `fcntl`.
//!
//! They stand in the requests of [`crate::operations`] and in the records of `namespace`.
//!
//! What must always hold: the two kinds do not see each other, as on Linux. A holder is known by
//! its session and by the number that its kernel gave it; both belong to the identity, since two
//! mounts may well use the same number.

use serde::{Deserialize, Serialize};

use crate::ids::SessionId;

/// Which family a lock belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LockKind {
    /// `flock`: of an open file, always the whole of it.
    Flock,
    /// `fcntl`: of a process, or of an open file (`F_OFD_SETLK`), a range of bytes.
    Posix,
}

/// What a lock allows to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LockMode {
    /// Other shared locks (`F_RDLCK`, `LOCK_SH`).
    Shared,
    /// Nothing (`F_WRLCK`, `LOCK_EX`).
    Exclusive,
}

impl LockMode {
    /// Whether two locks of these modes cannot be held by two at once.
    pub fn conflicts(self, other: LockMode) -> bool {
        self == LockMode::Exclusive || other == LockMode::Exclusive
    }
}

/// Bytes of a file, the last one included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LockRange {
    /// First byte.
    pub first: u64,
    /// Last byte; [`LockRange::LAST`] stands for the end of the file, wherever that will be.
    pub last: u64,
}

impl LockRange {
    /// The largest offset of a file.
    pub const LAST: u64 = i64::MAX as u64;
    /// The whole file.
    pub const WHOLE: LockRange = LockRange { first: 0, last: LockRange::LAST };

    /// Whether it names bytes that a file can have.
    pub fn is_valid(self) -> bool {
        self.first <= self.last && self.last <= LockRange::LAST
    }

    /// Whether the two share a byte.
    pub fn overlaps(self, other: LockRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Who holds or wants a lock, within a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LockOwner {
    /// The kernel's number of the open file or of the process.
    pub number: u64,
    /// Of which family.
    pub kind: LockKind,
}

/// A lock that somebody holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldLock {
    /// Whose session.
    pub session: SessionId,
    /// Process, on the machine of that session.
    pub pid: u32,
    /// What it allows.
    pub mode: LockMode,
    /// Which bytes.
    pub range: LockRange,
}

/// How a request that waits for a lock stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockProgress {
    /// It waits for a holder.
    Waiting,
    /// No holder is in its way, only the turn of a request that waits for longer.
    WaitingForTurn,
    /// It waits no more: it was granted, unless its client has cancelled it.
    Settled,
}
