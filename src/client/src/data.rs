//! The data of files, to and from storage nodes.
//!
//! The client's files use [`DataPath`] for everything that does not lie inline in an inode. It
//! cuts what is asked into pieces that fit a frame and do not cross a chunk, asks the masters of
//! their placement groups for several at once, and tries each again until it is done or the
//! deadline has come ([`DataRouter`]).
//!
//! What must always hold: a write that returned is at every in-sync member of its placement
//! groups; nothing of a write that returned, done or not, takes effect after a later one of this
//! process. Checksums are made here once and verified on what comes back. Writes of the same bytes
//! that are under way at once end in one of them, the same everywhere; their order is the
//! caller's business.
//!
//! When it fails: a [`DataFailure`]. Of a failed write any of its pieces may be there.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
pub use ministry_transport::data_stream::router::DataFailure;
use ministry_transport::data_stream::router::{DataQuestion, DataRouter};
use ministry_types::limits::{BLOCK_BYTES, CHUNK_BYTES, DATA_FRAME_BYTES_MAX};
use ministry_types::{ChunkNumber, InodeId, PgId, SpaceChange, TruncateMark};
use ministry_wire::data::{CopySource, DataAction, DataOutcome, checksums};
use tokio::time::Instant;

/// Pieces of one call under way at once: enough to keep a network and some disks busy.
const PIECES_AT_ONCE: usize = 16;

/// Bytes of one piece of a write. Smaller than a frame: while one piece is on its way from the
/// master to the slaves the next is on its way to the master.
const WRITE_PIECE_BYTES: u64 = 256 << 10;

/// See the module. Clones share the connections.
#[derive(Debug, Clone)]
pub struct DataPath {
    router: DataRouter,
}

/// A part of a read or write, within a chunk and a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    offset: u64,
    length: usize,
    chunk: ChunkNumber,
}

/// Cuts bytes of a file into pieces that fit a frame.
fn pieces(offset: u64, length: u64, chunk_bytes: u64) -> impl Iterator<Item = Piece> {
    pieces_of(offset, length, chunk_bytes, DATA_FRAME_BYTES_MAX as u64)
}

/// Cuts bytes of a file into pieces. They end at blocks where they may, since a block that is
/// written in two parts is read once more by the storage node.
fn pieces_of(
    offset: u64,
    length: u64,
    chunk_bytes: u64,
    bytes_max: u64,
) -> impl Iterator<Item = Piece> {
    let (block, end) = (BLOCK_BYTES as u64, offset + length);
    let mut next = offset;
    std::iter::from_fn(move || {
        let offset = next;
        let chunk = offset / chunk_bytes;
        let most = offset + bytes_max;
        let aligned = if most < end { most / block * block } else { end };
        let piece_end = aligned.min((chunk + 1).saturating_mul(chunk_bytes));
        next = piece_end;
        let length = (piece_end - offset) as usize;
        (offset < end).then_some(Piece { offset, length, chunk })
    })
}

fn check(offset: u64, length: u64, chunk_bytes: u64) -> Result<(), DataFailure> {
    let is_chunk = chunk_bytes.is_power_of_two() && chunk_bytes >= BLOCK_BYTES as u64;
    if !is_chunk || offset.checked_add(length).is_none_or(|end| end > i64::MAX as u64) {
        return Err(DataFailure::Invalid("no such bytes can be in a file".to_owned()));
    }
    Ok(())
}

impl DataPath {
    /// A data path that finds storage nodes by this router.
    pub fn new(router: DataRouter) -> DataPath {
        DataPath { router }
    }

    /// Writes bytes. Returns how many bytes the chunks that were touched take now.
    ///
    /// Cancel safety: dropped, any piece may or may not be written, but not later than what is
    /// written after it.
    pub async fn write(
        &self,
        inode: InodeId,
        offset: u64,
        data: Bytes,
        chunk_bytes: u64,
        truncates: &[TruncateMark],
        deadline: Instant,
    ) -> Result<Vec<(ChunkNumber, u64)>, DataFailure> {
        check(offset, data.len() as u64, chunk_bytes)?;
        let write = |piece: Piece| {
            let start = (piece.offset - offset) as usize;
            let payload = data.slice(start..start + piece.length);
            let action = DataAction::Write {
                offset: piece.offset,
                chunk: piece.chunk,
                chunk_bytes,
                checksums: checksums(piece.offset, &payload),
            };
            (action, payload)
        };
        let pieces = pieces_of(offset, data.len() as u64, chunk_bytes, WRITE_PIECE_BYTES);
        self.change(inode, pieces, write, truncates, deadline).await
    }

    /// Changes the room of a range. Returns how many bytes the chunks that were touched take now.
    ///
    /// Cancel safety: as [`DataPath::write`].
    pub async fn space(
        &self,
        inode: InodeId,
        bytes: Range<u64>,
        change: SpaceChange,
        chunk_bytes: u64,
        truncates: &[TruncateMark],
        deadline: Instant,
    ) -> Result<Vec<(ChunkNumber, u64)>, DataFailure> {
        let length = bytes.end.saturating_sub(bytes.start);
        check(bytes.start, length, chunk_bytes)?;
        let action = |piece: Piece| {
            let (offset, length, chunk) = (piece.offset, piece.length as u64, piece.chunk);
            (DataAction::Space { offset, length, chunk, chunk_bytes, change }, Bytes::new())
        };
        let pieces = pieces_of(bytes.start, length, chunk_bytes, CHUNK_BYTES);
        self.change(inode, pieces, action, truncates, deadline).await
    }

    /// Has bytes of one file written into another by the storage nodes. Returns how many bytes the
    /// chunks that were touched take now.
    ///
    /// Cancel safety: as [`DataPath::write`].
    pub async fn copy(
        &self,
        inode: InodeId,
        bytes: Range<u64>,
        source: &CopySource,
        chunk_bytes: u64,
        truncates: &[TruncateMark],
        deadline: Instant,
    ) -> Result<Vec<(ChunkNumber, u64)>, DataFailure> {
        let length = bytes.end.saturating_sub(bytes.start);
        check(bytes.start, length, chunk_bytes)?;
        check(source.offset, length, source.chunk_bytes)?;
        // Pieces within the chunks of the source, cut again at those of the target.
        let delta = |piece: &Piece| piece.offset - source.offset;
        let parts = pieces(source.offset, length, source.chunk_bytes).flat_map(|piece| {
            let from = bytes.start + delta(&piece);
            pieces(from, piece.length as u64, chunk_bytes)
        });
        let action = |piece: Piece| {
            let from = source.offset + (piece.offset - bytes.start);
            let action = DataAction::Copy {
                offset: piece.offset,
                length: piece.length as u32,
                chunk: piece.chunk,
                chunk_bytes,
                source: CopySource { offset: from, ..source.clone() },
            };
            (action, Bytes::new())
        };
        self.change(inode, parts, action, truncates, deadline).await
    }

    /// Carries out a change piece by piece, several at once.
    async fn change(
        &self,
        inode: InodeId,
        pieces: impl Iterator<Item = Piece>,
        action: impl Fn(Piece) -> (DataAction, Bytes),
        truncates: &[TruncateMark],
        deadline: Instant,
    ) -> Result<Vec<(ChunkNumber, u64)>, DataFailure> {
        // Pieces that are under way are waited for: giving them up would break their connections.
        let failed = AtomicBool::new(false);
        let change = async |piece: Piece| {
            if failed.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let (action, payload) = action(piece);
            let outcome = self.ask(inode, piece.chunk, truncates, action, &payload, deadline);
            match outcome.await?.0 {
                DataOutcome::Written { allocated_bytes } => {
                    Ok(Some((piece.chunk, allocated_bytes)))
                }
                other => Err(unexpected(&other)),
            }
        };
        let mut written = stream::iter(pieces).map(change).buffer_unordered(PIECES_AT_ONCE);
        let mut allocated = BTreeMap::new();
        let mut failure = None;
        while let Some(result) = written.next().await {
            match result {
                Ok(None) => {}
                Ok(Some((chunk, bytes))) => {
                    // Answers come in any order; the largest is the latest: writes only add, and
                    // what takes room away is one piece a chunk.
                    let most = allocated.entry(chunk).or_insert(bytes);
                    *most = bytes.max(*most);
                }
                Err(error) => {
                    failed.store(true, Ordering::Relaxed);
                    failure.get_or_insert(error);
                }
            }
        }
        failure.map_or_else(|| Ok(allocated.into_iter().collect()), Err)
    }

    /// Reads `length` bytes; what was never written reads as zeros, also behind the end.
    pub async fn read(
        &self,
        inode: InodeId,
        offset: u64,
        length: u64,
        chunk_bytes: u64,
        truncates: &[TruncateMark],
        deadline: Instant,
    ) -> Result<Bytes, DataFailure> {
        check(offset, length, chunk_bytes)?;
        let read = async |piece: Piece| {
            let action = DataAction::Read { offset: piece.offset, length: piece.length as u32 };
            let nothing = Bytes::new();
            let answer = self.ask(inode, piece.chunk, truncates, action, &nothing, deadline);
            Ok::<Bytes, DataFailure>(answer.await?.1)
        };
        let mut pieces = pieces(offset, length, chunk_bytes);
        let (first, second) = (pieces.next(), pieces.next());
        match (first, second) {
            (None, _) => Ok(Bytes::new()),
            // The usual case, in which nothing is copied.
            (Some(only), None) => read(only).await,
            (Some(first), Some(second)) => {
                let all = stream::iter([first, second].into_iter().chain(pieces));
                let mut parts = all.map(read).buffered(PIECES_AT_ONCE);
                let mut whole = BytesMut::with_capacity(length as usize);
                while let Some(part) = parts.try_next().await? {
                    whole.extend_from_slice(&part);
                }
                Ok(whole.freeze())
            }
        }
    }

    /// Makes everything that was written to these chunks durable at every in-sync member.
    pub async fn sync(
        &self,
        inode: InodeId,
        chunks: Range<ChunkNumber>,
        truncates: &[TruncateMark],
        deadline: Instant,
    ) -> Result<(), DataFailure> {
        let Some(first) = chunks.clone().next() else { return Ok(()) };
        self.router.group_of(inode, first, deadline).await?;
        let groups: BTreeSet<PgId> = self.router.groups_of(inode, chunks);
        let sync = async |pg: PgId| {
            let truncates = truncates.to_vec();
            let question = DataQuestion { pg, inode, truncates, action: DataAction::Sync };
            self.router.ask(&question, &Bytes::new(), deadline).await.map(drop)
        };
        let mut synced = stream::iter(groups).map(sync).buffer_unordered(PIECES_AT_ONCE);
        while let Some(()) = synced.try_next().await? {}
        Ok(())
    }

    /// The first data, or the first hole, from the beginning of the range on; `None`: there is
    /// none in it.
    pub async fn seek(
        &self,
        inode: InodeId,
        bytes: Range<u64>,
        hole: bool,
        chunk_bytes: u64,
        truncates: &[TruncateMark],
        deadline: Instant,
    ) -> Result<Option<u64>, DataFailure> {
        check(bytes.start, bytes.end.saturating_sub(bytes.start), chunk_bytes)?;
        let search = async |pg: PgId, bytes: Range<u64>| {
            let (offset, end) = (bytes.start, bytes.end);
            let action = DataAction::Seek { offset, end, chunk_bytes, hole };
            let question = DataQuestion { pg, inode, truncates: truncates.to_vec(), action };
            match self.router.ask(&question, &Bytes::new(), deadline).await?.0 {
                DataOutcome::Searched { at, found } => Ok((at.min(end), found)),
                other => Err(unexpected(&other)),
            }
        };
        let mut at = bytes.start;
        let mut alone = true;
        while at < bytes.end {
            // The chunk where it begins mostly has the answer; only then all others are asked.
            let chunk = at / chunk_bytes;
            let end = if alone { (chunk + 1).saturating_mul(chunk_bytes) } else { bytes.end };
            let part = at..end.min(bytes.end);
            self.router.group_of(inode, chunk, deadline).await?;
            let groups = self.router.groups_of(inode, chunk..part.end.div_ceil(chunk_bytes));
            let answers = stream::iter(groups).map(|pg| search(pg, part.clone()));
            let answers: Vec<(u64, bool)> =
                answers.buffer_unordered(PIECES_AT_ONCE).try_collect().await?;
            // Each group speaks of its own chunks: before the smallest place there is nothing.
            let nearest = answers.into_iter().min_by_key(|(place, found)| (*place, !found));
            let (place, found) = nearest.unwrap_or((part.end, false));
            if found && place < part.end {
                return Ok(Some(place));
            }
            if place <= at {
                return Err(DataFailure::Invalid("a search does not get on".to_owned()));
            }
            alone = alone && place < part.end;
            at = place;
        }
        Ok(None)
    }

    async fn ask(
        &self,
        inode: InodeId,
        chunk: ChunkNumber,
        truncates: &[TruncateMark],
        action: DataAction,
        payload: &Bytes,
        deadline: Instant,
    ) -> Result<(DataOutcome, Bytes), DataFailure> {
        let pg = self.router.group_of(inode, chunk, deadline).await?;
        let question = DataQuestion { pg, inode, truncates: truncates.to_vec(), action };
        self.router.ask(&question, payload, deadline).await
    }
}

fn unexpected(outcome: &DataOutcome) -> DataFailure {
    DataFailure::Invalid(format!("a storage node gave an answer that makes no sense: {outcome:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: u64 = DATA_FRAME_BYTES_MAX as u64;

    fn cut(offset: u64, length: u64, chunk_bytes: u64) -> Vec<(u64, u64, u64)> {
        pieces(offset, length, chunk_bytes)
            .map(|piece| (piece.offset, piece.length as u64, piece.chunk))
            .collect()
    }

    #[test]
    fn a_piece_crosses_no_chunk_and_fits_a_frame() {
        assert_eq!(cut(5, 0, 1 << 20), []);
        assert_eq!(cut(5, FRAME, 1 << 26), [(5, FRAME, 0)]);
        assert_eq!(cut(4000, 200, 4096), [(4000, 96, 0), (4096, 104, 1)]);
        let pieces = cut(100, 3 * FRAME, 2 * FRAME);
        let whole: u64 = pieces.iter().map(|piece| piece.1).sum();
        assert_eq!(whole, 3 * FRAME);
        let mut next = 100;
        for (offset, length, chunk) in pieces {
            assert_eq!(offset, next);
            assert!(length <= FRAME && offset / (2 * FRAME) == chunk);
            assert_eq!((offset + length - 1) / (2 * FRAME), chunk);
            next += length;
        }
    }

    #[test]
    fn inner_borders_of_pieces_are_borders_of_blocks() {
        let pieces = cut(100, 5 * FRAME, 1 << 26);
        for (offset, _, _) in &pieces[1..] {
            assert_eq!(offset % BLOCK_BYTES as u64, 0);
        }
    }

    #[test]
    fn bytes_that_no_file_can_have_are_refused() {
        assert!(check(u64::MAX, 2, 4096).is_err());
        assert!(check(i64::MAX as u64, 1, 4096).is_err());
        assert!(check(0, 1, 5000).is_err());
        assert!(check(0, 1, 4096).is_ok());
    }
}
