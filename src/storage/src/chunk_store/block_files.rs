//! The two files of one inode: its bytes, and the checksums of its blocks.
//!
//! Everything here is about one inode whose lock the caller holds, in a region whose intent the
//! caller declared. Nothing is synced but by [`BlockFiles::cut`] and through [`OpenFiles`].
//!
//! What must always hold while the process lives: every block fits its checksum, unless the disk
//! damaged it. A write that fails half-way leaves the old or the new bytes in each block, with the
//! checksum of what is there.

mod space;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ministry_types::limits::BLOCK_BYTES;
use parking_lot::Mutex;

use super::ChunkError;
use super::checksums::{
    BLOCK, HEADER_BYTES, HEADER_USED, HOLE, Header, HeaderError, SUM_BYTES, crc_padded,
    decode_sums, encode_sums, fits, is_zero, parts, sum_offset, written_down,
};
use super::intents::REGION_BYTES;
use crate::disk::{Disk, DiskFile, RoomClaim};

/// Chunks of one file whose allocation is remembered.
const COUNTED_CHUNKS_MAX: usize = 1024;
/// Bytes of a stream of writes that are written out together.
const WRITE_OUT_BYTES: u64 = 8 << 20;
/// Pieces of a stream come side by side: so far apart they still belong together.
const STREAM_GAP: u64 = 2 << 20;
/// Checksums that are counted at a time.
const COUNT_STEP: u64 = 16_384;

/// See the module.
#[derive(Debug)]
pub(super) struct BlockFiles {
    path: String,
    data: Arc<dyn DiskFile>,
    sums: Arc<dyn DiskFile>,
    /// Size of the data file.
    data_bytes: u64,
    header: Header,
    counts: Mutex<Counts>,
    /// Bytes that were written one after the other and not yet begun to be written out.
    stream: Range<u64>,
}

/// A part of a stream of writes that is worth beginning to write out.
#[derive(Debug)]
pub(super) struct ToWriteOut {
    data: Arc<dyn DiskFile>,
    bytes: Range<u64>,
}

impl ToWriteOut {
    /// Begins it. May take as long as a busy disk takes to accept it: not under a lock.
    pub(super) fn start(self) {
        self.data.start_writing_out(self.bytes.start, self.bytes.end - self.bytes.start);
    }
}

/// Handles to both files, to sync them.
#[derive(Debug)]
pub(super) struct OpenFiles {
    path: String,
    data: Arc<dyn DiskFile>,
    sums: Arc<dyn DiskFile>,
}

/// Blocks with data of the chunks that were asked for, for one chunk size at a time.
#[derive(Debug, Default)]
struct Counts {
    chunk_bytes: u64,
    blocks: BTreeMap<u64, u64>,
}

/// Bytes that were read, each block verified.
#[derive(Debug)]
pub(super) struct Verified {
    /// From the first byte of the first block, to the last of the last.
    pub(super) data: Vec<u8>,
    /// CRC-32C of each block.
    pub(super) crcs: Vec<u32>,
}

impl BlockFiles {
    /// Opens the files at `path` (without ending). `None` if there are none and `create` is not
    /// set. The second value says whether a file was made, whose name is not durable yet.
    pub(super) fn open(
        disk: &dyn Disk,
        path: &str,
        create: bool,
    ) -> Result<Option<(BlockFiles, bool)>, ChunkError> {
        let (data_path, sums_path) = (format!("{path}.data"), format!("{path}.sum"));
        let open =
            |path: &str, create| disk.open(path, create).map_err(ChunkError::from_io("open", path));
        let (data, sums) = (open(&data_path, false)?, open(&sums_path, false)?);
        let made = data.is_none() || sums.is_none();
        if data.is_none() && sums.is_none() && !create {
            return Ok(None);
        }
        let or_made = |file: Option<Arc<dyn DiskFile>>, path: &str| match file {
            Some(file) => Ok(file),
            None => {
                open(path, true)?.ok_or_else(|| ChunkError::Io(format!("{path} could not be made")))
            }
        };
        let (data, sums) = (or_made(data, &data_path)?, or_made(sums, &sums_path)?);
        let mut bytes = Vec::new();
        sums.read_into(&mut bytes, 0, HEADER_BYTES as usize)
            .map_err(ChunkError::from_io("read", &sums_path))?;
        let header = Header::decode(&bytes).map_err(|error| match error {
            HeaderError::Newer(_) => ChunkError::DamagedStore(format!("{sums_path}: {error}")),
            HeaderError::Damaged => ChunkError::Damaged { block: 0 },
        })?;
        let data_bytes = data.size().map_err(ChunkError::from_io("look at", &data_path))?;
        let path = path.to_owned();
        let counts = Mutex::default();
        let files = BlockFiles { path, data, sums, data_bytes, header, counts, stream: 0..0 };
        if bytes.is_empty() {
            files.write_header(header)?;
        }
        Ok(Some((files, made)))
    }

    /// Number of the newest cut that was made.
    pub(super) fn truncate_sequence(&self) -> u64 {
        self.header.truncate_sequence
    }

    /// Reads the blocks from `first` to `end` and verifies each.
    pub(super) fn read(&self, first: u64, end: u64) -> Result<Verified, ChunkError> {
        let sums = self.read_sums(first, end)?;
        let bytes = (sums.len() * BLOCK_BYTES) as u64;
        let mut data = Vec::with_capacity(sums.len() * BLOCK_BYTES);
        self.read_data(&mut data, first * BLOCK, bytes)?;
        let mut crcs = Vec::with_capacity(sums.len());
        for (at, sum) in sums.iter().enumerate() {
            let from = (at * BLOCK_BYTES).min(data.len());
            let to = (from + BLOCK_BYTES).min(data.len());
            let block = data.get(from..to).unwrap_or(&[]);
            match fits(block, *sum) {
                Some(crc) => crcs.push(crc),
                None => return Err(ChunkError::Damaged { block: first + at as u64 }),
            }
        }
        data.resize(sums.len() * BLOCK_BYTES, 0);
        Ok(Verified { data, crcs })
    }

    /// Writes `data` at `offset`, if the disk has room for what of it falls into holes. Returns how
    /// many blocks were holes before.
    ///
    /// The checksums are written first: where room runs out they do so before any byte of the file
    /// has changed.
    pub(super) fn write(
        &mut self,
        disk: &dyn Disk,
        offset: u64,
        data: &[u8],
        given: Option<&[u32]>,
    ) -> Result<u64, ChunkError> {
        let first = offset / BLOCK;
        let end = (offset + data.len() as u64).div_ceil(BLOCK);
        let old = self.read_sums(first, end)?;
        let _room = self.find_room(disk, &old)?;
        let new = self.sums_of_write(offset, data, given, &old)?;
        if let Err(error) = self.write_sums(first, &new) {
            // The sums that were there keep their place: writing them again needs no room.
            self.restore(first, &old)?;
            return Err(error);
        }
        if let Err(failure) = self.data.write_at(data, offset) {
            self.data_bytes = self.data_size()?;
            let reached = (offset + failure.written as u64) / BLOCK;
            let kept = usize::try_from(reached.saturating_sub(first)).unwrap_or(usize::MAX);
            self.restore(reached, old.get(kept..).unwrap_or(&[]))?;
            if failure.written > 0 {
                self.make_sums_anew(reached, reached + 1, false).map_err(ChunkError::into_fatal)?;
            }
            self.counts.lock().blocks.clear();
            return Err(ChunkError::io("write", &self.data_path(), &failure.error));
        }
        self.data_bytes = self.data_bytes.max(offset + data.len() as u64);
        Ok(self.count_new(first, &old))
    }

    /// Refuses what would take from the reserve of the disk. Blocks that have their room already
    /// need none.
    fn find_room(&self, disk: &dyn Disk, old: &[u32]) -> Result<Option<RoomClaim>, ChunkError> {
        let holes = old.iter().filter(|sum| **sum == HOLE).count() as u64;
        if holes == 0 {
            return Ok(None);
        }
        let found = disk.claim_room(holes * BLOCK).map_err(self.data_failed("find room for"))?;
        found.map_or(Err(ChunkError::NoSpace), |claim| Ok(Some(claim)))
    }

    /// Follows a stream of writes. Once a piece of it is long enough it is to be written out at
    /// once: the kernel would let gigabytes gather, for which the sync at the end then waits.
    pub(super) fn streamed(&mut self, offset: u64, length: u64) -> Option<ToWriteOut> {
        let end = offset + length;
        let (from, to) =
            (self.stream.start.saturating_sub(STREAM_GAP), self.stream.end + STREAM_GAP);
        let goes_on = offset <= to && end >= from;
        self.stream = if goes_on {
            self.stream.start.min(offset)..self.stream.end.max(end)
        } else {
            offset..end
        };
        if self.stream.end - self.stream.start < WRITE_OUT_BYTES {
            return None;
        }
        let bytes = std::mem::replace(&mut self.stream, end..end);
        Some(ToWriteOut { data: Arc::clone(&self.data), bytes })
    }

    /// The checksums that the blocks of a write will have, after checking those of the sender.
    fn sums_of_write(
        &self,
        offset: u64,
        data: &[u8],
        given: Option<&[u32]>,
        old: &[u32],
    ) -> Result<Vec<u32>, ChunkError> {
        let first = offset / BLOCK;
        let mut sums = Vec::with_capacity(old.len());
        for (at, (part, old)) in parts(offset, data).zip(old).enumerate() {
            let crc = crc32c::crc32c(part);
            if given.is_some_and(|given| given.get(at) != Some(&crc)) {
                return Err(ChunkError::ChecksumMismatch);
            }
            sums.push(written_down(if part.len() == BLOCK_BYTES {
                crc
            } else {
                let start = if at == 0 { (offset % BLOCK) as usize } else { 0 };
                self.crc_merged(first + at as u64, *old, start, part)?
            }));
        }
        assert_eq!(sums.len(), old.len(), "one checksum for each block that is touched");
        Ok(sums)
    }

    /// The CRC-32C of a block after `part` was written into it. What is there is verified first:
    /// a good checksum must never be put on damaged bytes.
    fn crc_merged(
        &self,
        block: u64,
        old: u32,
        start: usize,
        part: &[u8],
    ) -> Result<u32, ChunkError> {
        let mut bytes = Vec::with_capacity(BLOCK_BYTES);
        if block * BLOCK < self.data_bytes {
            self.read_data(&mut bytes, block * BLOCK, BLOCK)?;
        }
        if fits(&bytes, old).is_none() {
            return Err(ChunkError::Damaged { block });
        }
        if bytes.len() < start + part.len() {
            bytes.resize(start + part.len(), 0);
        }
        if let Some(place) = bytes.get_mut(start..start + part.len()) {
            place.copy_from_slice(part);
        }
        Ok(crc_padded(&bytes))
    }

    /// Puts checksums back after a failed write. If even that fails, only the recovery after a
    /// restart can make them right.
    fn restore(&self, first: u64, sums: &[u32]) -> Result<(), ChunkError> {
        // What has no place yet was never written down: leaving it out needs no room.
        let there = self.sums_end()?.saturating_sub(first).min(sums.len() as u64) as usize;
        match sums.get(..there) {
            Some(sums) if !sums.is_empty() => {
                self.write_sums(first, sums).map_err(ChunkError::into_fatal)
            }
            _ => Ok(()),
        }
    }

    /// Cuts at `size` and records `sequence`. The cut is durable when it returns, its number after
    /// the next sync of the checksums: never before the cut. The regions that are cut must be in
    /// the intent log, since the two files are cut one after the other.
    pub(super) fn cut(&mut self, size: u64, sequence: u64) -> Result<(), ChunkError> {
        if self.reaches_beyond(size)? {
            let tail = (size % BLOCK) as usize;
            let sum = if tail > 0 { self.sum_after_cut(size / BLOCK, tail)? } else { None };
            // Half a cut is not served: the recovery after a restart makes the sums right.
            self.cut_both(size, sum).map_err(ChunkError::into_fatal)?;
        }
        let header = Header { truncate_sequence: sequence };
        self.write_header(header)?;
        self.header = header;
        Ok(())
    }

    fn cut_both(&mut self, size: u64, boundary_sum: Option<u32>) -> Result<(), ChunkError> {
        if self.data_bytes > size {
            self.data.set_size(size).map_err(self.data_failed("cut"))?;
            self.data_bytes = size;
        }
        if self.sums_end()? > size.div_ceil(BLOCK) {
            let sums_bytes = sum_offset(size.div_ceil(BLOCK));
            self.sums.set_size(sums_bytes).map_err(self.sums_failed("cut"))?;
        }
        if let Some(sum) = boundary_sum {
            self.write_sums(size / BLOCK, &[sum])?;
        }
        *self.counts.lock() = Counts::default();
        // Before the header says that the cut was made.
        self.sync_data()
    }

    /// Whether there are bytes or checksums behind `size`.
    pub(super) fn reaches_beyond(&self, size: u64) -> Result<bool, ChunkError> {
        Ok(self.data_bytes > size || self.sums_end()? > size.div_ceil(BLOCK))
    }

    /// Behind the last byte that may have data or a checksum.
    pub(super) fn end(&self) -> Result<u64, ChunkError> {
        Ok(self.data_bytes.max(self.sums_end()?.saturating_mul(BLOCK)))
    }

    /// The checksum of the block at the cut, without its tail. `None`: it stays as it is, because
    /// the block is a hole or damaged; a damaged one must not get a good checksum.
    fn sum_after_cut(&self, block: u64, tail: usize) -> Result<Option<u32>, ChunkError> {
        let Some(old) = self.read_sums(block, block + 1)?.first().copied() else {
            return Ok(None);
        };
        let mut bytes = Vec::with_capacity(BLOCK_BYTES);
        self.read_data(&mut bytes, block * BLOCK, BLOCK)?;
        if old == HOLE || fits(&bytes, old).is_none() {
            return Ok(None);
        }
        bytes.truncate(tail);
        Ok(Some(written_down(crc_padded(&bytes))))
    }

    /// Makes the checksums of the blocks from `first` to `end` anew from the data, where they do
    /// not fit. Used where an unclean stop or a failed write left either. With `rewrite`, bytes and
    /// checksums are written again even where they fit: see the recovery module.
    pub(super) fn make_sums_anew(
        &self,
        first: u64,
        end: u64,
        rewrite: bool,
    ) -> Result<(), ChunkError> {
        let end = end.min(self.end()?.div_ceil(BLOCK));
        let step = REGION_BYTES / BLOCK;
        let mut at = first;
        while at < end {
            let Some(used) = self.next_used(at)? else { break };
            at = used.max(at);
            if at >= end {
                break;
            }
            let to = (at + step).min(end);
            let old = self.read_sums(at, to)?;
            let mut data = Vec::new();
            self.read_data(&mut data, at * BLOCK, (to - at) * BLOCK)?;
            let mut blocks = data.chunks(BLOCK_BYTES);
            let new: Vec<u32> = old
                .iter()
                .map(|old| {
                    let block = blocks.next().unwrap_or(&[]);
                    match fits(block, *old) {
                        Some(_) => *old,
                        None if is_zero(block) => HOLE,
                        None => written_down(crc_padded(block)),
                    }
                })
                .collect();
            if rewrite {
                let written = self.data.write_at(&data, at * BLOCK);
                written.map_err(|failure| self.data_failed("write")(failure.error))?;
            }
            if rewrite || new != old {
                self.write_sums(at, &new)?;
            }
            at = to;
        }
        *self.counts.lock() = Counts::default();
        Ok(())
    }

    /// The next block at or after `block` that has data or a checksum.
    fn next_used(&self, block: u64) -> Result<Option<u64>, ChunkError> {
        let data = self.data.next_data(block * BLOCK);
        let data = data.map_err(self.data_failed("search"))?;
        let sum = self.sums.next_data(sum_offset(block));
        let sum = sum.map_err(self.sums_failed("search"))?;
        let data = data.map(|offset| offset / BLOCK);
        let sum = sum.map(|offset| offset.saturating_sub(HEADER_BYTES) / SUM_BYTES);
        Ok(match (data, sum) {
            (Some(data), Some(sum)) => Some(data.min(sum)),
            (data, sum) => data.or(sum),
        })
    }

    /// Bytes in blocks of a chunk that have data.
    pub(super) fn allocated(&self, chunk: u64, chunk_bytes: u64) -> Result<u64, ChunkError> {
        let mut counts = self.counts.lock();
        if counts.chunk_bytes != chunk_bytes || counts.blocks.len() >= COUNTED_CHUNKS_MAX {
            *counts = Counts { chunk_bytes, blocks: BTreeMap::new() };
        }
        if let Some(blocks) = counts.blocks.get(&chunk) {
            return Ok(blocks * BLOCK);
        }
        let mut at = chunk.saturating_mul(chunk_bytes / BLOCK);
        let end = at.saturating_add(chunk_bytes / BLOCK).min(self.sums_end()?);
        let mut blocks = 0;
        while at < end {
            let to = (at + COUNT_STEP).min(end);
            blocks += self.read_sums(at, to)?.iter().filter(|sum| **sum != HOLE).count() as u64;
            at = to;
        }
        counts.blocks.insert(chunk, blocks);
        Ok(blocks * BLOCK)
    }

    /// Counts the blocks that were holes, and keeps the counts of their chunks.
    fn count_new(&self, first: u64, old: &[u32]) -> u64 {
        let mut counts = self.counts.lock();
        let Counts { chunk_bytes, blocks } = &mut *counts;
        let mut new = 0;
        for (block, _) in (first..).zip(old).filter(|(_, sum)| **sum == HOLE) {
            new += 1;
            let chunk = (block * BLOCK).checked_div(*chunk_bytes);
            if let Some(count) = chunk.and_then(|chunk| blocks.get_mut(&chunk)) {
                *count += 1;
            }
        }
        new
    }

    /// The open files, to sync them without holding the lock of the inode.
    pub(super) fn handles(&self) -> OpenFiles {
        OpenFiles {
            path: self.path.clone(),
            data: Arc::clone(&self.data),
            sums: Arc::clone(&self.sums),
        }
    }

    fn sync_data(&self) -> Result<(), ChunkError> {
        self.data.sync().map_err(|error| ChunkError::sync(&self.data_path(), &error))
    }

    fn write_header(&self, header: Header) -> Result<(), ChunkError> {
        self.sums
            .write_at(&header.encode(), 0)
            .map_err(|failure| ChunkError::io("write", &self.sums_path(), &failure.error))
    }

    fn read_data(&self, buffer: &mut Vec<u8>, offset: u64, bytes: u64) -> Result<(), ChunkError> {
        self.data.read_into(buffer, offset, bytes as usize).map_err(self.data_failed("read"))
    }

    fn read_sums(&self, first: u64, end: u64) -> Result<Vec<u32>, ChunkError> {
        assert!(first <= end, "blocks are named in order");
        let count = (end - first) as usize;
        let mut bytes = Vec::new();
        self.sums
            .read_into(&mut bytes, sum_offset(first), count * SUM_BYTES as usize)
            .map_err(self.sums_failed("read"))?;
        Ok(decode_sums(&bytes, count))
    }

    fn write_sums(&self, first: u64, sums: &[u32]) -> Result<(), ChunkError> {
        self.sums
            .write_at(&encode_sums(sums), sum_offset(first))
            .map_err(|failure| ChunkError::io("write", &self.sums_path(), &failure.error))
    }

    /// Behind the last block that has a place for its checksum.
    fn sums_end(&self) -> Result<u64, ChunkError> {
        let size = self.sums.size().map_err(self.sums_failed("look at"))?;
        Ok(size.saturating_sub(HEADER_BYTES) / SUM_BYTES)
    }

    fn data_size(&self) -> Result<u64, ChunkError> {
        self.data.size().map_err(self.data_failed("look at"))
    }

    /// Names are put together only when something fails.
    fn data_failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> ChunkError {
        move |error| ChunkError::io(action, &self.data_path(), &error)
    }

    fn sums_failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> ChunkError {
        move |error| ChunkError::io(action, &self.sums_path(), &error)
    }

    fn data_path(&self) -> String {
        format!("{}.data", self.path)
    }

    fn sums_path(&self) -> String {
        format!("{}.sum", self.path)
    }
}

impl OpenFiles {
    /// Syncs the bytes, not their checksums.
    pub(super) fn sync_data(&self) -> Result<(), ChunkError> {
        self.data.sync().map_err(|error| ChunkError::sync(&format!("{}.data", self.path), &error))
    }

    /// Writes the header again as it is. After a failed sync in an earlier process the kernel may
    /// show a header that is neither on the disk nor will be, unless it is written again. Called
    /// in the inode's turn, as every other change of the header is.
    pub(super) fn touch_header(&self) -> Result<(), ChunkError> {
        let path = || format!("{}.sum", self.path);
        let mut bytes = Vec::new();
        self.sums
            .read_into(&mut bytes, 0, HEADER_USED)
            .map_err(|error| ChunkError::io("read", &path(), &error))?;
        self.sums
            .write_at(&bytes, 0)
            .map_err(|failure| ChunkError::io("write", &path(), &failure.error))
    }

    /// Syncs the checksums with their header.
    pub(super) fn sync_sums(&self) -> Result<(), ChunkError> {
        self.sums.sync().map_err(|error| ChunkError::sync(&format!("{}.sum", self.path), &error))
    }
}

impl Verified {
    /// The bytes from `offset` on, with a CRC-32C for each part of them cut at multiples of a
    /// block. Nothing is copied.
    pub(super) fn part(self, offset: u64, length: usize) -> (Bytes, Vec<u32>) {
        let start = (offset % BLOCK) as usize;
        let mut crcs = self.crcs;
        let data = Bytes::from(self.data).slice(start..start + length);
        let last = crcs.len().saturating_sub(1);
        for (at, (part, crc)) in parts(offset, &data).zip(&mut crcs).enumerate() {
            if (at == 0 || at == last) && part.len() < BLOCK_BYTES {
                *crc = crc32c::crc32c(part);
            }
        }
        (data, crcs)
    }
}
