//! Where the bytes of a file lie.
//!
//! A file of up to [`crate::limits::INLINE_BYTES_MAX`] bytes lives in its inode, in the ministry.
//! It is moved out to storage nodes once, when it grows, and never back. From then on chunk `n`
//! holds the bytes from `n × chunk size`, and belongs to the placement group that
//! [`crate::placement`] computes: nothing per file says where.

use serde::{Deserialize, Serialize};

/// The number of a chunk within its file, from 0.
pub type ChunkNumber = u64;

/// A cut that storage has not confirmed yet: everything from `size` on is gone as of `sequence`.
///
/// Every data operation carries the marks that its sender knows; a storage node cuts first, then
/// serves, and refuses a sender whose newest mark is older than one it has seen. So bytes from
/// before a cut never come back when the file grows again, whoever dies in between.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
pub struct TruncateMark {
    /// Number of the cut; grows with each cut of the inode.
    pub sequence: u64,
    /// Size in bytes after the cut.
    pub size: u64,
}

/// The cuts that a storage node at `seen` still has to make, as one: the smallest size of the
/// marks newer than what it has seen, with the newest number. `None`: it is up to date.
pub fn cut_due(seen: u64, marks: &[TruncateMark]) -> Option<TruncateMark> {
    let due = marks.iter().filter(|mark| mark.sequence > seen);
    let size = due.clone().map(|mark| mark.size).min()?;
    let sequence = due.map(|mark| mark.sequence).max()?;
    Some(TruncateMark { sequence, size })
}

/// What `fallocate` does to a range of a file, beside its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SpaceChange {
    /// Room is kept for the range; bytes that are there stay, holes go on reading as zeros.
    Allocate,
    /// The range reads as zeros and has room (`FALLOC_FL_ZERO_RANGE`).
    Zero,
    /// The range reads as zeros and gives its room back (`FALLOC_FL_PUNCH_HOLE`).
    Punch,
}

impl SpaceChange {
    /// The word that metrics and traces use.
    pub fn word(self) -> &'static str {
        match self {
            SpaceChange::Allocate => "allocate",
            SpaceChange::Zero => "zero",
            SpaceChange::Punch => "punch",
        }
    }
}

/// Where the bytes of an ordinary file lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// Nothing but attributes: every kind but an ordinary file.
    None,
    /// In the inode.
    Inline,
    /// In chunks on storage nodes.
    Chunked {
        /// Bytes of a chunk; a power of two.
        chunk_bytes: u64,
        /// The cuts that storage has not confirmed, in order, and always the newest one. Empty:
        /// the file was never cut. At most [`crate::limits::TRUNCATE_MARKS_MAX`].
        truncates: Vec<TruncateMark>,
    },
}

impl Layout {
    /// Whether the data lies on storage nodes.
    pub fn is_chunked(&self) -> bool {
        matches!(self, Layout::Chunked { .. })
    }

    /// Number of the newest cut, 0 if there was none.
    pub fn truncate_sequence(&self) -> u64 {
        match self {
            Layout::Chunked { truncates, .. } => truncates.last().map_or(0, |mark| mark.sequence),
            Layout::None | Layout::Inline => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_cuts_at_the_smallest_size_among_the_cuts_it_has_not_made() {
        let mark = |sequence, size| TruncateMark { sequence, size };
        let marks = [mark(1, 100), mark(2, 300), mark(3, 700)];
        assert_eq!(cut_due(0, &marks), Some(mark(3, 100)));
        assert_eq!(cut_due(1, &marks), Some(mark(3, 300)));
        assert_eq!(cut_due(3, &marks), None);
    }
}
