//! What a group needs of its state: implemented by `roles` for the government and for ministries.
//!
//! Called by this crate alone, one call at a time but for [`StateMachine::snapshot`] and
//! [`StateMachine::flush`], which may run beside [`StateMachine::apply`].
//!
//! What must always hold: the state machine stores how far it has come ([`Applied`]) in the same
//! batch as the data, so that after a crash both are of one moment.
//!
//! When it fails: every [`StateError`] ends the process.

use bytes::Bytes;
use ministry_types::LogPosition;

use crate::errors::StateError;
use crate::{Applied, Body};

/// Blocks of a snapshot, each of at most [`ministry_types::limits::SNAPSHOT_BLOCK_BYTES`], read as
/// they are asked for.
pub type Blocks = Box<dyn Iterator<Item = Result<Bytes, StateError>> + Send>;

/// An entry that a majority has on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its place in the log.
    pub position: LogPosition,
    /// Its content.
    pub body: Body,
}

/// The state at one moment.
pub struct Snapshot {
    /// How far it had come.
    pub applied: Applied,
    /// Everything it holds; a view that later changes do not touch.
    pub blocks: Blocks,
}

/// The state of one group on one node.
///
/// The calls block; they are made on threads for blocking work, except in simulation, and but for
/// [`StateMachine::apply_at_once`].
pub trait StateMachine: Send + Sync + 'static {
    /// How far it has come, as stored with the data.
    fn applied(&self) -> Result<Applied, StateError>;

    /// Applies entries in order, stores the last position and membership in the same batch, and
    /// answers one reply a command, in order. [`Body::Blank`] and [`Body::Membership`] change
    /// nothing but [`Applied`] and have no reply.
    fn apply(&self, batch: Vec<Committed>) -> Result<Vec<Bytes>, StateError>;

    /// As [`StateMachine::apply`], but on a thread that must not wait. `None`: it would have to
    /// wait for the disk; nothing has changed.
    fn apply_at_once(&self, _batch: &[Committed]) -> Result<Option<Vec<Bytes>>, StateError> {
        Ok(None)
    }

    /// The state as it is now.
    fn snapshot(&self) -> Result<Snapshot, StateError>;

    /// Replaces everything of this group. If the process ends on the way, it is called again with
    /// the same blocks at the next start, before anything else: so it may remove first and write
    /// then, in as many batches as it likes.
    fn install(&self, applied: Applied, blocks: Blocks) -> Result<(), StateError>;

    /// Makes everything applied before this call durable. The log may be purged up to there
    /// afterwards.
    fn flush(&self) -> Result<(), StateError>;
}
