//! The room of an inode's blocks: kept, given back, looked for.
//!
//! The storekeeper calls it as it calls reads and writes. What must always hold, and what happens
//! when it fails: as for those, see the parent; one search does a bounded amount of work.

use std::ops::Range;

use ministry_types::limits::{CHUNK_BYTES, FILE_BYTES_MAX};
use ministry_types::{ChunkNumber, InodeId, SpaceChange, TruncateMark};

use super::block_files::BlockFiles;
use super::checksums::BLOCK;
use super::intents::Regions;
use super::{ChunkError, ChunkStore};

/// Bytes of one change of room: a chunk.
const SPACE_BYTES_MAX: u64 = CHUNK_BYTES;
/// Chunks in which one search looks at every checksum.
const SEARCH_CHUNKS_MAX: usize = 64;
/// Chunks that one search passes over.
const SEARCH_STEPS_MAX: usize = 8192;

/// How far a search came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Searched {
    /// It begins here; or none of it lies before this byte.
    pub at: u64,
    /// It begins here.
    pub found: bool,
}

impl ChunkStore {
    /// Changes the room of a range, after making the cuts that are due.
    pub fn change_space(
        &self,
        inode: InodeId,
        bytes: Range<u64>,
        change: SpaceChange,
        truncates: &[TruncateMark],
    ) -> Result<(), ChunkError> {
        self.watched(|| {
            if bytes.is_empty() || bytes.end > FILE_BYTES_MAX {
                return Err(ChunkError::Invalid("no file has such a range".to_owned()));
            }
            let length = bytes.end - bytes.start;
            if length > SPACE_BYTES_MAX {
                return Err(ChunkError::Invalid(format!("{length} bytes are too many at once")));
            }
            self.refuse_purged(inode)?;
            let object = self.objects.get(&*self.disk, inode)?;
            if change != SpaceChange::Punch {
                self.refuse_when_full(&object)?;
            }
            // As for a write: bytes and checksums change one after the other.
            let _intent = self.begin_write(inode, Regions::of_bytes(bytes.start, length))?;
            let mut state = object.state.write();
            self.load(&object, &mut state, change != SpaceChange::Punch)?;
            self.settle(&object, &mut state, truncates)?;
            let Some(files) = &mut state.files else { return Ok(()) };
            let disk = &*self.disk;
            let result = match change {
                SpaceChange::Allocate => files.allocate(disk, bytes),
                SpaceChange::Punch => files.punch(disk, bytes),
                SpaceChange::Zero => files.zero(disk, bytes),
            };
            // Also after a failure: a part may be done.
            object.changed();
            result
        })
    }

    /// Looks for the first data or the first hole from the beginning of the range on, in the
    /// chunks that `belongs` takes, after making the cuts that are due. The work is bounded.
    pub fn seek(
        &self,
        inode: InodeId,
        bytes: Range<u64>,
        hole: bool,
        chunk_bytes: u64,
        belongs: impl Fn(ChunkNumber) -> bool,
        truncates: &[TruncateMark],
    ) -> Result<Searched, ChunkError> {
        self.watched(|| {
            if !chunk_bytes.is_power_of_two() || chunk_bytes < BLOCK || bytes.end > FILE_BYTES_MAX {
                return Err(ChunkError::Invalid("no file has such a range".to_owned()));
            }
            self.refuse_purged(inode)?;
            let object = self.objects.get(&*self.disk, inode)?;
            let state = self.settled(&object, truncates)?;
            search(state.files.as_ref(), bytes, hole, chunk_bytes, belongs)
        })
    }
}

/// See [`ChunkStore::seek`].
fn search(
    files: Option<&BlockFiles>,
    bytes: Range<u64>,
    hole: bool,
    chunk_bytes: u64,
    belongs: impl Fn(ChunkNumber) -> bool,
) -> Result<Searched, ChunkError> {
    let nothing = Searched { at: bytes.end, found: false };
    let mut at = bytes.start;
    let (mut steps, mut chunks) = (0, 0);
    while at < bytes.end {
        if !hole {
            let next = files.map_or(Ok(None), |files| files.next_room(at / BLOCK))?;
            let Some(next) = next else { return Ok(nothing) };
            at = at.max(next * BLOCK);
        }
        steps += 1;
        if at >= bytes.end || steps > SEARCH_STEPS_MAX || chunks >= SEARCH_CHUNKS_MAX {
            return Ok(Searched { at: at.min(bytes.end), found: false });
        }
        let chunk = at / chunk_bytes;
        let chunk_end = (chunk + 1).saturating_mul(chunk_bytes).min(bytes.end);
        if belongs(chunk) {
            chunks += 1;
            let blocks = at / BLOCK..chunk_end.div_ceil(BLOCK);
            let found = match files {
                Some(files) => files.find(blocks, hole)?,
                None => hole.then_some(blocks.start),
            };
            if let Some(block) = found {
                return Ok(Searched { at: at.max(block * BLOCK), found: true });
            }
        }
        at = chunk_end;
    }
    Ok(nothing)
}
