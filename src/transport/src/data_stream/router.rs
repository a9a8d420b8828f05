//! Brings a data request to the master of its placement group, as often as that takes.
//!
//! The client's data path and the ministers (who have files cut and removed) use it. It finds the
//! master in the cluster map, asks, and asks again: with a newer map when the master is another
//! one, after a moment when a member does not answer, is overloaded or the connection broke.
//!
//! What must always hold: every data request may be carried out twice in a row with the same
//! effect as once, and a caller that has its answer (or its failure) never has an earlier copy of
//! the same request take effect later, because [`DataStreams`] and the receiver see to it. So a
//! caller that asks for one thing after the other has them done in that order.
//!
//! When it fails: a [`DataFailure`]; after [`DataFailure::TimedOut`] a change may or may not have
//! been made.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ministry_types::government::ClusterMap;
use ministry_types::placement::PlacementGroup;
use ministry_types::{ChunkNumber, FsError, InodeId, NodeId, PgId, TruncateMark};
use ministry_wire::data::{DataAction, DataError, DataOutcome, DataRequest, DataSource, checksums};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use super::{DataStreamError, DataStreams};

/// Waits between two tries, the last one again and again.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(2),
    Duration::from_millis(10),
    Duration::from_millis(30),
    Duration::from_millis(80),
    Duration::from_millis(150),
];
/// Answers to a read that do not fit their checksums before it is given up: once or twice it is
/// the network, not more often.
const DAMAGED_ANSWERS_MAX: u32 = 8;

/// A data request came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DataFailure {
    /// The file was cut since: take its attributes anew, then ask again.
    #[error("the file was cut since (cut {current})")]
    StaleTruncate {
        /// Newest cut that storage knows.
        current: u64,
    },
    /// The inode was removed.
    #[error("the file was removed")]
    Purged,
    /// The bytes are damaged, or their disk is.
    #[error("the data is damaged: {0}")]
    Damaged(String),
    /// A storage node has no room.
    #[error("no space left on a storage node")]
    NoSpace,
    /// The deadline passed.
    #[error("not done in time: {0}")]
    TimedOut(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
}

impl DataFailure {
    /// What the program that asked sees, if its library does not act on the failure.
    pub fn fs_error(&self) -> FsError {
        match self {
            DataFailure::StaleTruncate { .. } => FsError::Overloaded,
            DataFailure::Purged => FsError::Stale,
            DataFailure::Damaged(_) => FsError::Damaged,
            DataFailure::NoSpace => FsError::NoSpace,
            DataFailure::TimedOut(_) => FsError::TimedOut,
            DataFailure::Invalid(_) => FsError::Invalid,
        }
    }
}

impl From<DataFailure> for FsError {
    fn from(failure: DataFailure) -> FsError {
        failure.fs_error()
    }
}

/// What is asked, of whichever node is the master.
#[derive(Debug, Clone)]
pub struct DataQuestion {
    /// The placement group.
    pub pg: PgId,
    /// The inode.
    pub inode: InodeId,
    /// The cuts that storage has not confirmed, as the asker knows them.
    pub truncates: Vec<TruncateMark>,
    /// What to do.
    pub action: DataAction,
}

/// See the module. Clones share everything.
#[derive(Debug, Clone)]
pub struct DataRouter {
    streams: Arc<DataStreams>,
    map: watch::Receiver<Arc<ClusterMap>>,
    map_wanted: Arc<Notify>,
}

/// One try came to nothing, but a later one may not.
struct Passing {
    cause: String,
    /// A newer map may help.
    wants_map: bool,
}

impl Passing {
    fn later(cause: impl ToString) -> Passing {
        Passing { cause: cause.to_string(), wants_map: false }
    }

    fn with_map(cause: impl ToString) -> Passing {
        Passing { cause: cause.to_string(), wants_map: true }
    }
}

/// What a try gave: an answer, a final failure, or a reason to try again.
type Try = Result<Result<(DataOutcome, Bytes), DataFailure>, Passing>;

impl DataRouter {
    /// Asks over `streams` by the newest `map`. `map_wanted` is notified when that map seems to be
    /// out of date; whoever fills `map` should then look for a newer one.
    pub fn new(
        streams: Arc<DataStreams>,
        map: watch::Receiver<Arc<ClusterMap>>,
        map_wanted: Arc<Notify>,
    ) -> DataRouter {
        DataRouter { streams, map, map_wanted }
    }

    /// The placement group of a chunk, as soon as there are placement groups.
    pub async fn group_of(
        &self,
        inode: InodeId,
        chunk: ChunkNumber,
        deadline: Instant,
    ) -> Result<PgId, DataFailure> {
        let mut map = self.map.clone();
        loop {
            if let Some(pg) = map.borrow_and_update().pgs.group_of(inode, chunk) {
                return Ok(pg);
            }
            self.map_wanted.notify_one();
            let changed = timeout_at(deadline, map.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                let text = "the cluster has no placement groups yet: too few storage nodes";
                return Err(DataFailure::TimedOut(text.to_owned()));
            }
        }
    }

    /// The placement groups of some chunks, each once.
    pub fn groups_of(&self, inode: InodeId, chunks: Range<ChunkNumber>) -> BTreeSet<PgId> {
        let map = Arc::clone(&self.map.borrow());
        let mut groups = BTreeSet::new();
        for chunk in chunks {
            groups.extend(map.pgs.group_of(inode, chunk));
            // A large file has chunks in all of them: no need to look at every one.
            if groups.len() == map.pgs.groups.len() {
                break;
            }
        }
        groups
    }

    /// Asks until there is an answer or `deadline`. The payload of a read is verified.
    ///
    /// Cancel safety: a change that is dropped may or may not be made, but not later than anything
    /// that is asked after it.
    pub async fn ask(
        &self,
        question: &DataQuestion,
        payload: &Bytes,
        deadline: Instant,
    ) -> Result<(DataOutcome, Bytes), DataFailure> {
        let mut map = self.map.clone();
        let mut pauses = PAUSES.iter();
        let mut pause = PAUSES[0];
        let mut damaged = 0;
        loop {
            let current = Arc::clone(&map.borrow_and_update());
            let passing = match self.try_once(&current, question, payload, deadline).await {
                Ok(Ok((outcome, bytes))) => match verify(question, &outcome, &bytes) {
                    Ok(()) => return Ok((outcome, bytes)),
                    Err(reason) => {
                        damaged += 1;
                        if damaged >= DAMAGED_ANSWERS_MAX {
                            return Err(DataFailure::Damaged(reason.to_owned()));
                        }
                        Passing::later(reason)
                    }
                },
                Ok(Err(failure)) => return Err(failure),
                Err(passing) => passing,
            };
            tracing::debug!(inode = %question.inode, pg = %question.pg, cause = %passing.cause,
                action = question.action.word(), "trying again");
            pause = pauses.next().copied().unwrap_or(pause);
            let pause_ends = Instant::now() + pause;
            if pause_ends >= deadline {
                return Err(DataFailure::TimedOut(passing.cause));
            }
            if passing.wants_map {
                self.map_wanted.notify_one();
                // A map that never changes again (its owner ends) must not make this a busy loop.
                if !matches!(timeout_at(pause_ends, map.changed()).await, Ok(Ok(()))) {
                    tokio::time::sleep_until(pause_ends).await;
                }
            } else {
                tokio::time::sleep_until(pause_ends).await;
            }
        }
    }

    async fn try_once(
        &self,
        map: &ClusterMap,
        question: &DataQuestion,
        payload: &Bytes,
        deadline: Instant,
    ) -> Try {
        let Some(group) = map.pgs.get(question.pg) else {
            return Err(Passing::with_map("the placement group is not known"));
        };
        let Some((master, address)) = master_of(map, group) else {
            return Err(Passing::with_map("the master of the placement group is not known"));
        };
        let request = DataRequest {
            id: 0,
            source: DataSource::default(),
            pg: question.pg,
            epoch: group.epoch,
            inode: question.inode,
            truncates: question.truncates.clone(),
            forwarded: false,
            action: question.action.clone(),
        };
        let patience = deadline.saturating_duration_since(Instant::now());
        let asked = self.streams.request(master, address, request, payload.clone(), patience).await;
        match asked {
            Ok((reply, bytes)) => match reply.result {
                Ok(outcome) => Ok(Ok((outcome, bytes))),
                Err(error) => judge(error).map(Err),
            },
            Err(error @ DataStreamError::TimedOut { .. }) => {
                Ok(Err(DataFailure::TimedOut(error.to_string())))
            }
            Err(error @ DataStreamError::Unsendable(_)) => {
                Ok(Err(DataFailure::Invalid(error.to_string())))
            }
            Err(error) => Err(Passing::with_map(error)),
        }
    }
}

fn master_of(map: &ClusterMap, group: &PlacementGroup) -> Option<(NodeId, std::net::SocketAddr)> {
    let master = group.master()?;
    Some((master, map.address(master)?))
}

/// Whether a refusal is final.
fn judge(error: DataError) -> Result<DataFailure, Passing> {
    match error {
        DataError::WrongEpoch { .. } => Err(Passing::with_map(error)),
        DataError::ChecksumMismatch | DataError::Waiting(_) | DataError::Busy => {
            Err(Passing::later(error))
        }
        DataError::StaleTruncate { current } => Ok(DataFailure::StaleTruncate { current }),
        DataError::Purged => Ok(DataFailure::Purged),
        DataError::Damaged { .. } | DataError::Disk(_) => {
            Ok(DataFailure::Damaged(error.to_string()))
        }
        DataError::NoSpace => Ok(DataFailure::NoSpace),
        DataError::Invalid(text) => Ok(DataFailure::Invalid(text)),
    }
}

/// Whether the answer is one to the question, and whole.
fn verify(
    question: &DataQuestion,
    outcome: &DataOutcome,
    bytes: &Bytes,
) -> Result<(), &'static str> {
    match (&question.action, outcome) {
        (DataAction::Read { offset, length }, DataOutcome::Data { checksums: sent }) => {
            if bytes.len() != *length as usize || *sent != checksums(*offset, bytes) {
                return Err("the bytes do not fit their checksums: damaged on the way");
            }
            Ok(())
        }
        (DataAction::Seek { offset, .. }, DataOutcome::Searched { at, .. }) if at < offset => {
            Err("a search came back with a place before its beginning")
        }
        (
            DataAction::Write { .. }
            | DataAction::Truncate { .. }
            | DataAction::Space { .. }
            | DataAction::Copy { .. },
            DataOutcome::Written { .. },
        )
        | (DataAction::Sync | DataAction::Purge, DataOutcome::Done)
        | (DataAction::Seek { .. }, DataOutcome::Searched { .. }) => Ok(()),
        _ => Err("the answer is not one to the question"),
    }
}
