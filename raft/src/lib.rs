//! How openraft is used here, and the only crate that names it.
//!
//! A node runs many Raft groups: the cluster log and one for each ministry it is a member of. All
//! of them share one log on disk ([`RocksLog`]) with one writer, so that one sync serves every
//! group that waits. `roles` gives each group a [`StateMachine`] and a [`RaftNetwork`], starts it
//! through [`Groups`], and works with it through [`Group`].
//!
//! ```text
//!  roles ── propose, linearize, elect ──> Group ──> openraft ──> NodeLog  (one log a node)
//!    │                                      │          └──────> RaftNetwork ── other nodes
//!    └── incoming requests ──> Groups::handle            └────> StateMachine, SnapshotSpool
//! ```
//!
//! What must always hold:
//! - What is acknowledged was synced by a majority. The log calls back after the sync, not before.
//! - The log is purged only below what [`StateMachine::flush`] has made durable.
//! - A log that is shorter than what was acknowledged is not opened; it is never silently shorter.
//! - No type of openraft is on disk or on the wire; what is there is ours (`ministry_wire::raft`).
//! - A ministry (an *appointed* group) never elects by itself, and a restarted leader does not
//!   resume: only [`Group::elect`] makes a leader.
//!
//! What happens when it fails: an error of the log's or the state's storage is reported once by
//! [`Fatal`]; `ministryd` ends the process, because nothing that follows such an error can be
//! trusted (a failed sync may be reported once only).

mod commit_news;
mod config;
mod convert;
mod errors;
mod fatal;
mod group;
mod groups;
mod incoming;
mod log_record;
mod log_store;
mod log_store_memory;
mod log_tail;
mod log_writer;
mod machine;
mod monitor;
mod network;
mod proposer;
mod receiver;
mod spool;
mod state_machine;
mod status;
mod type_config;
mod watermark;

pub use config::{Compaction, GroupKind, Settings, Timings};
pub use errors::{LogError, NetworkError, ProposeError, RaftError, ReadError, StateError};
pub use fatal::Fatal;
pub use group::{Group, Proposed};
pub use groups::{Groups, NodeLog};
pub use log_store::RocksLog;
pub use log_store_memory::MemoryLog;
pub use ministry_wire::raft::{Applied, Body, Membership, StoredMembership};
pub use network::RaftNetwork;
pub use spool::{
    FileSpool, FinishedSpool, MemorySpool, SnapshotSpool, SpoolWriter, SpooledSnapshot,
};
pub use state_machine::{Blocks, Committed, Snapshot, StateMachine};
pub use status::GroupStatus;

/// For this crate's own tests with openraft's storage suite; not an interface.
#[doc(hidden)]
pub mod suite {
    pub use crate::log_store::RocksGroupLog;
    pub use crate::log_store_memory::MemoryGroupLog;
    pub use crate::machine::Machine;
    pub use crate::type_config::{Commands, TypeConfig};
}
