//! Bytes that the master of one placement group takes from the master of another.
//!
//! [`super::job`] calls [`fetch`] for a [`DataAction::Copy`] before the request takes its place in
//! the queue of the bytes that it writes. From then on it is a write like every other: ordered by
//! its place, asked once more whether its sender still stands by it, sent to the slaves with its
//! bytes. So a copy that its sender has given up never lands over something later.
//!
//! What must always hold: while bytes are fetched nothing is held that another request waits for,
//! so that copies in opposite directions do not block each other. Memory is bounded
//! ([`super::COPY_BYTES_MAX`]). What was fetched fits the checksums that its master sent.
//!
//! When it fails, or takes too long: an answer, and nothing was done.

use std::sync::Arc;

use bytes::Bytes;
use ministry_transport::data_stream::router::{DataFailure, DataQuestion};
use ministry_types::PgId;
use ministry_types::limits::BLOCK_BYTES;
use ministry_types::placement::PlacementGroup;
use ministry_wire::data::{
    CopySource, DataAction, DataError, DataOutcome, DataRequest, DataSource, checksums,
};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::Office;
use super::arrival::claim;

/// A copy whose bytes are here.
pub(super) struct Fetched {
    /// The write that it is now.
    pub(super) action: DataAction,
    pub(super) payload: Bytes,
    /// The memory of the payload.
    pub(super) room: OwnedSemaphorePermit,
}

/// Fetches what a request copies; `None`: it copies nothing.
pub(super) async fn fetch(
    office: &Office,
    request: &DataRequest,
    until: Instant,
) -> Result<Option<Fetched>, DataError> {
    let DataAction::Copy { offset, length, chunk, chunk_bytes, source } = &request.action else {
        return Ok(None);
    };
    let room = Arc::clone(&office.copy_room).acquire_many_owned(*length);
    let room = timeout_at(until, room).await.map_err(|_| DataError::Busy)?;
    let room = room.expect("the room stays open");
    let read = timeout_at(until, read(office, source, *length, until)).await;
    let text = "the bytes to copy do not come: their master, or a write to them, is slow";
    let (sums, payload) = read.map_err(|_| DataError::Waiting(text.to_owned()))??;
    let same_blocks = offset % BLOCK_BYTES as u64 == source.offset % BLOCK_BYTES as u64;
    let checksums = if same_blocks { sums } else { checksums(*offset, &payload) };
    let (offset, chunk, chunk_bytes) = (*offset, *chunk, *chunk_bytes);
    let action = DataAction::Write { offset, chunk, chunk_bytes, checksums };
    Ok(Some(Fetched { action, payload, room }))
}

/// Reads the bytes with their checksums, from the disk here or from another master.
async fn read(
    office: &Office,
    source: &CopySource,
    length: u32,
    until: Instant,
) -> Result<(Vec<u32>, Bytes), DataError> {
    let map = office.map();
    let pg = map.pgs.group_of(source.inode, source.offset / source.chunk_bytes);
    let known = pg.and_then(|pg| Some((pg, map.pgs.get(pg)?)));
    let Some((pg, group)) = known else {
        return Err(DataError::Waiting("there are no placement groups yet".to_owned()));
    };
    let action = DataAction::Read { offset: source.offset, length };
    let is_here = group.master() == Some(office.me) && group.in_sync.contains(&office.me);
    let (outcome, bytes) = if is_here {
        read_here(office, pg, group, source, action).await?
    } else {
        let truncates = source.truncates.clone();
        let question = DataQuestion { pg, inode: source.inode, truncates, action };
        let asked = office.router.ask(&question, &Bytes::new(), until).await;
        asked.map_err(as_error)?
    };
    match outcome {
        DataOutcome::Data { checksums } => Ok((checksums, bytes)),
        other => Err(DataError::Disk(format!("a read was answered by {other:?}"))),
    }
}

/// As the master would for somebody else: when no change of the bytes is under way.
async fn read_here(
    office: &Office,
    pg: PgId,
    group: &PlacementGroup,
    source: &CopySource,
    action: DataAction,
) -> Result<(DataOutcome, Bytes), DataError> {
    let request = DataRequest {
        id: 0,
        source: DataSource::default(),
        pg,
        epoch: group.epoch,
        inode: source.inode,
        truncates: source.truncates.clone(),
        forwarded: false,
        action,
    };
    let claim = claim(&request, 0).expect("a read has bytes to read");
    let mut place = office.ranges.enter((pg, source.inode), claim)?;
    place.granted().await;
    office.local.read(&request).await
}

/// What the sender of the copy is told of a read that failed elsewhere.
fn as_error(failure: DataFailure) -> DataError {
    match failure {
        DataFailure::StaleTruncate { current } => DataError::StaleTruncate { current },
        DataFailure::Purged => DataError::Purged,
        DataFailure::NoSpace => DataError::NoSpace,
        DataFailure::TimedOut(text) => DataError::Waiting(text),
        DataFailure::Invalid(text) => DataError::Invalid(text),
        failure @ DataFailure::Damaged(_) => DataError::Disk(failure.to_string()),
    }
}
