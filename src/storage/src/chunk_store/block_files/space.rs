//! Room for blocks: kept, given back, looked for.
//!
//! A block with room that was never written has the checksum of zeros; one without has none
//! ([`HOLE`]). Both read as zeros, and so does the disk for either, because room that a file
//! system keeps reads as zeros until it is written. So a stop at any moment leaves blocks that fit
//! their checksums, whichever of the two files it hit; all it can cost is the room.
//!
//! What must always hold: as in the parent. A disk that is full takes nothing away from what was
//! there before, but for bytes that were to become zeros anyway.

use std::ops::Range;

use super::super::ChunkError;
use super::super::checksums::{BLOCK, HEADER_BYTES, HOLE, SUM_BYTES, sum_offset, zero_sum};
use super::{BlockFiles, COUNT_STEP};
use crate::disk::Disk;

impl BlockFiles {
    /// Keeps room for the blocks that these bytes touch. What has room stays as it is.
    pub(in super::super) fn allocate(
        &mut self,
        disk: &dyn Disk,
        bytes: Range<u64>,
    ) -> Result<(), ChunkError> {
        let (first, old) = self.sums_of(&bytes)?;
        let _room = self.find_room(disk, &old)?;
        self.allocate_among(first, &old)
    }

    /// Makes these bytes zeros that have their room, which is looked for before anything is given
    /// up: blocks that had room have it afterwards, also on a full disk.
    pub(in super::super) fn zero(
        &mut self,
        disk: &dyn Disk,
        bytes: Range<u64>,
    ) -> Result<(), ChunkError> {
        let (_, old) = self.sums_of(&bytes)?;
        let _room = self.find_room(disk, &old)?;
        self.punch(disk, bytes.clone())?;
        let (first, old) = self.sums_of(&bytes)?;
        self.allocate_among(first, &old)
    }

    /// The checksums of the blocks that these bytes touch, and which the first one is.
    fn sums_of(&self, bytes: &Range<u64>) -> Result<(u64, Vec<u32>), ChunkError> {
        let first = bytes.start / BLOCK;
        Ok((first, self.read_sums(first, bytes.end.div_ceil(BLOCK))?))
    }

    fn allocate_among(&mut self, first: u64, old: &[u32]) -> Result<(), ChunkError> {
        for run in runs(first, old, |sum| sum == HOLE) {
            self.allocate_holes(run)?;
        }
        Ok(())
    }

    fn allocate_holes(&mut self, blocks: Range<u64>) -> Result<(), ChunkError> {
        let (offset, bytes) = (blocks.start * BLOCK, (blocks.end - blocks.start) * BLOCK);
        let reserved = self.data.reserve(offset, bytes);
        self.data_bytes = self.data_size()?;
        if let Err(error) = reserved {
            // A part may have got room. Giving it back is a courtesy to the full disk.
            if let Err(error) = self.data.punch(offset, bytes) {
                tracing::warn!(%error, path = self.data_path(), "room that was kept is lost");
            }
            return Err(ChunkError::io("keep room in", &self.data_path(), &error));
        }
        let count = (blocks.end - blocks.start) as usize;
        if let Err(error) = self.write_sums(blocks.start, &vec![zero_sum(); count]) {
            // Those that were written fit as well as those that were not.
            self.counts.lock().blocks.clear();
            return Err(error);
        }
        self.count_new(blocks.start, &vec![HOLE; count]);
        Ok(())
    }

    /// Makes these bytes zeros, and gives the room of whole blocks back.
    pub(in super::super) fn punch(
        &mut self,
        disk: &dyn Disk,
        bytes: Range<u64>,
    ) -> Result<(), ChunkError> {
        let whole = bytes.start.div_ceil(BLOCK)..bytes.end / BLOCK;
        if whole.start > whole.end {
            // Within one block.
            return self.zero_part(disk, bytes);
        }
        self.zero_part(disk, bytes.start..whole.start * BLOCK)?;
        self.zero_part(disk, whole.end * BLOCK..bytes.end)?;
        let old = self.read_sums(whole.start, whole.end)?;
        for run in runs(whole.start, &old, |sum| sum != HOLE) {
            self.punch_blocks(run)?;
        }
        Ok(())
    }

    /// Zeros within one block; a hole stays one.
    fn zero_part(&mut self, disk: &dyn Disk, bytes: Range<u64>) -> Result<(), ChunkError> {
        let block = bytes.start / BLOCK;
        if bytes.is_empty() || self.read_sums(block, block + 1)? == [HOLE] {
            return Ok(());
        }
        let zeros = vec![0; (bytes.end - bytes.start) as usize];
        self.write(disk, bytes.start, &zeros, None).map(drop)
    }

    fn punch_blocks(&mut self, blocks: Range<u64>) -> Result<(), ChunkError> {
        let (offset, bytes) = (blocks.start * BLOCK, (blocks.end - blocks.start) * BLOCK);
        if let Err(error) = self.data.punch(offset, bytes) {
            // A part may be zeros by now.
            self.make_sums_anew(blocks.start, blocks.end, false).map_err(ChunkError::into_fatal)?;
            return Err(ChunkError::io("free room in", &self.data_path(), &error));
        }
        let count = (blocks.end - blocks.start) as usize;
        // They have their place: it needs no room.
        self.write_sums(blocks.start, &vec![HOLE; count]).map_err(ChunkError::into_fatal)?;
        let mut counts = self.counts.lock();
        let chunk_blocks = counts.chunk_bytes / BLOCK;
        for block in blocks {
            let chunk = block.checked_div(chunk_blocks);
            if let Some(count) = chunk.and_then(|chunk| counts.blocks.get_mut(&chunk)) {
                assert!(*count > 0, "a block with room was counted");
                *count -= 1;
            }
        }
        Ok(())
    }

    /// The first block of these that is a hole, or that has room.
    pub(in super::super) fn find(
        &self,
        blocks: Range<u64>,
        hole: bool,
    ) -> Result<Option<u64>, ChunkError> {
        let end = blocks.end.min(self.sums_end()?);
        let mut at = blocks.start;
        while at < end {
            let to = (at + COUNT_STEP).min(end);
            let sums = self.read_sums(at, to)?;
            if let Some(found) = sums.iter().position(|sum| (*sum == HOLE) == hole) {
                return Ok(Some(at + found as u64));
            }
            at = to;
        }
        // Behind the last checksum everything is a hole.
        Ok((hole && at < blocks.end).then_some(at))
    }

    /// The first block from `block` on that may have room: what lies before it is holes.
    pub(in super::super) fn next_room(&self, block: u64) -> Result<Option<u64>, ChunkError> {
        let next = self.sums.next_data(sum_offset(block)).map_err(self.sums_failed("search"))?;
        Ok(next.map(|offset| (offset.saturating_sub(HEADER_BYTES) / SUM_BYTES).max(block)))
    }
}

/// The runs of blocks whose checksums `wanted` takes; `sums` begin at the block `first`.
fn runs(
    first: u64,
    sums: &[u32],
    wanted: impl Fn(u32) -> bool + Copy,
) -> impl Iterator<Item = Range<u64>> {
    let mut at = first;
    sums.chunk_by(move |one, other| wanted(*one) == wanted(*other)).filter_map(move |run| {
        let blocks = at..at + run.len() as u64;
        at = blocks.end;
        run.first().is_some_and(|sum| wanted(*sum)).then_some(blocks)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_cut_where_the_checksums_change_their_kind() {
        let sums = [0, 0, 7, 9, 0, 8];
        let holes: Vec<_> = runs(10, &sums, |sum| sum == HOLE).collect();
        assert_eq!(holes, [10..12, 14..15]);
        let used: Vec<_> = runs(10, &sums, |sum| sum != HOLE).collect();
        assert_eq!(used, [12..14, 15..16]);
        assert_eq!(runs(0, &[], |_| true).count(), 0);
    }
}
