//! What is decided about a request before anything is done: may this peer ask it, of this node,
//! now, and which bytes of the inode it needs for itself.
//!
//! Pure functions over the cluster map; [`super::connection`] asks when a request arrives, and
//! [`super::job`] again when its turn has come, since the map may have changed meanwhile.

use ministry_types::government::ClusterMap;
use ministry_types::limits::{
    BLOCK_BYTES, CHUNK_BYTES, DATA_FRAME_BYTES_MAX, FILE_BYTES_MAX, TRUNCATE_MARKS_MAX,
};
use ministry_types::placement::PlacementGroup;
use ministry_types::{ChunkNumber, Epoch, FsError, NodeId, TruncateMark};
use ministry_wire::data::{DataAction, DataError, DataRequest};
use ministry_wire::hello::PeerIdentity;

use super::ranges::Claim;

/// Whether this node may carry out the request under this map. Says which other in-sync members
/// must do the same: none for what a master sends.
pub(super) fn check_office(
    map: &ClusterMap,
    me: NodeId,
    peer: &PeerIdentity,
    request: &DataRequest,
) -> Result<Vec<NodeId>, DataError> {
    let Some(group) = map.pgs.get(request.pg) else {
        return Err(DataError::WrongEpoch { current: Epoch::default() });
    };
    let wrong = || DataError::WrongEpoch { current: group.epoch };
    if group.epoch != request.epoch {
        return Err(wrong());
    }
    if request.forwarded {
        let Some(sender) = peer.node() else {
            return Err(invalid("only nodes pass requests on"));
        };
        let is_slave = group.members.contains(&me) && group.master() != Some(me);
        if group.master() != Some(sender) || !is_slave {
            return Err(wrong());
        }
        return Ok(Vec::new());
    }
    // A master that lacks acknowledged writes must not serve; the next map names another.
    if group.master() != Some(me) || !group.in_sync.contains(&me) {
        return Err(wrong());
    }
    Ok(others_in_sync(group, me))
}

/// The in-sync members but `me`.
fn others_in_sync(group: &PlacementGroup, me: NodeId) -> Vec<NodeId> {
    group.in_sync.iter().copied().filter(|node| *node != me).collect()
}

/// Whether the request makes sense, whoever asks.
pub(super) fn check_sense(
    map: &ClusterMap,
    peer: &PeerIdentity,
    request: &DataRequest,
    payload: usize,
) -> Result<(), DataError> {
    check_marks(&request.truncates)?;
    if payload != 0 && !matches!(request.action, DataAction::Write { .. }) {
        return Err(invalid("only writes have a payload"));
    }
    match &request.action {
        DataAction::Write { offset, chunk, chunk_bytes, checksums } => {
            check_chunk(map, request, *chunk, *chunk_bytes)?;
            check_within(*offset, payload as u64, *chunk, *chunk_bytes)?;
            if checksums.len() != blocks_touched(*offset, payload as u64) {
                return Err(invalid("a write needs a checksum for each of its blocks"));
            }
            Ok(())
        }
        DataAction::Read { offset, length } => {
            let length = u64::from(*length);
            let fits = (1..=DATA_FRAME_BYTES_MAX as u64).contains(&length);
            if !fits || offset.checked_add(length).is_none() {
                return Err(invalid("a read is of one byte to one frame"));
            }
            Ok(())
        }
        DataAction::Sync => Ok(()),
        DataAction::Truncate { .. } | DataAction::Purge if peer.node().is_none() => {
            Err(invalid("only ministers have files cut and removed"))
        }
        DataAction::Truncate { chunk, chunk_bytes } => {
            check_chunk(map, request, *chunk, *chunk_bytes)
        }
        DataAction::Purge => Ok(()),
        DataAction::Space { offset, length, chunk, chunk_bytes, .. } => {
            check_chunk(map, request, *chunk, *chunk_bytes)?;
            check_within(*offset, *length, *chunk, *chunk_bytes)?;
            // What is not asked in one request is asked in several.
            if *length > CHUNK_BYTES {
                return Err(invalid("a change of space is of one chunk at most"));
            }
            Ok(())
        }
        DataAction::Seek { offset, end, chunk_bytes, .. } => {
            check_chunk_bytes(*chunk_bytes)?;
            if offset >= end || *end > FILE_BYTES_MAX {
                return Err(invalid("a search needs bytes of a file"));
            }
            Ok(())
        }
        DataAction::Copy { .. } if request.forwarded => {
            Err(invalid("a copy is passed on as a write"))
        }
        DataAction::Copy { offset, length, chunk, chunk_bytes, source } => {
            check_chunk(map, request, *chunk, *chunk_bytes)?;
            check_within(*offset, u64::from(*length), *chunk, *chunk_bytes)?;
            check_chunk_bytes(source.chunk_bytes)?;
            let chunk = source.offset / source.chunk_bytes;
            check_within(source.offset, u64::from(*length), chunk, source.chunk_bytes)?;
            if *length as usize > DATA_FRAME_BYTES_MAX {
                return Err(invalid("a copy is of one byte to one frame"));
            }
            check_marks(&source.truncates)
        }
    }
}

fn check_marks(marks: &[TruncateMark]) -> Result<(), DataError> {
    let rising = marks.windows(2).all(|pair| matches!(pair, [a, b] if a.sequence < b.sequence));
    if marks.len() > TRUNCATE_MARKS_MAX || !rising {
        return Err(invalid("the cuts are too many or out of order"));
    }
    Ok(())
}

/// Whether a range has bytes, and all of them in the chunk.
fn check_within(
    offset: u64,
    length: u64,
    chunk: ChunkNumber,
    chunk_bytes: u64,
) -> Result<(), DataError> {
    let last = offset.checked_add(length).filter(|end| *end <= FILE_BYTES_MAX);
    let last = last.filter(|_| length > 0).and_then(|end| end.checked_sub(1));
    let in_chunk = |byte: u64| byte / chunk_bytes == chunk;
    if !in_chunk(offset) || !last.is_some_and(in_chunk) {
        return Err(invalid("a change must lie within its chunk"));
    }
    Ok(())
}

fn check_chunk_bytes(chunk_bytes: u64) -> Result<(), DataError> {
    if !chunk_bytes.is_power_of_two() || chunk_bytes < BLOCK_BYTES as u64 {
        return Err(invalid("the size of a chunk is a power of two, from one block on"));
    }
    Ok(())
}

fn check_chunk(
    map: &ClusterMap,
    request: &DataRequest,
    chunk: ChunkNumber,
    chunk_bytes: u64,
) -> Result<(), DataError> {
    check_chunk_bytes(chunk_bytes)?;
    if map.pgs.group_of(request.inode, chunk) != Some(request.pg) {
        return Err(invalid("the chunk belongs to another placement group"));
    }
    Ok(())
}

fn blocks_touched(offset: u64, length: u64) -> usize {
    let block = BLOCK_BYTES as u64;
    ((offset + length).div_ceil(block) - offset / block) as usize
}

fn invalid(text: &str) -> DataError {
    DataError::Invalid(format!("{text} ({})", FsError::Invalid))
}

/// Which bytes the request needs for itself; `None`: it is in nobody's way.
pub(super) fn claim(request: &DataRequest, payload: usize) -> Option<Claim> {
    let cut = request.truncates.last().map_or(0, |mark| mark.sequence);
    let (bytes, shared) = match &request.action {
        DataAction::Write { offset, .. } => (*offset..offset + payload as u64, false),
        DataAction::Read { offset, length } => (*offset..offset + u64::from(*length), true),
        DataAction::Truncate { .. } | DataAction::Purge => (0..u64::MAX, false),
        DataAction::Space { offset, length, .. } => (*offset..offset + length, false),
        DataAction::Seek { offset, end, .. } => (*offset..*end, true),
        // It takes its place when it has its bytes, as the write that it is then: one that waited
        // for bytes with a place of its own could wait for another copy that waits for it.
        DataAction::Sync | DataAction::Copy { .. } => return None,
    };
    Some(Claim { bytes, shared, cut })
}
