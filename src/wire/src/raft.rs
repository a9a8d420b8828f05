//! Service `RaftDoor`: what the members of one Raft group say to each other.
//!
//! `ministry-raft` sends and answers these messages; `roles` carries them over tarpc, simulation
//! carries them in memory. They mirror what the Raft library needs, so that a new version of the
//! library changes no byte on the wire.
//!
//! What must always hold: each request is bounded. Entries are at most
//! [`ministry_types::limits::APPEND_BYTES_MAX`] bytes an append (or one entry), a snapshot goes in
//! blocks of at most [`ministry_types::limits::SNAPSHOT_BLOCK_BYTES`]. Who sends is known from the
//! connection, never from the message.
//!
//! When it fails: a receiver that cannot take a request says so with [`RaftReply::Refused`];
//! sending again is always safe.

use std::collections::BTreeSet;

use bytes::Bytes;
use ministry_types::{GroupId, LogPosition, NodeId, Term};
use serde::{Deserialize, Serialize};

/// Who votes and who learns in a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Membership {
    /// The voters. Two sets while a change is under way: then a majority of each is needed.
    pub configs: Vec<BTreeSet<NodeId>>,
    /// Members that follow the log without a vote.
    pub learners: BTreeSet<NodeId>,
}

impl Membership {
    /// Everyone who votes, in any of the sets.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.configs.iter().flatten().copied().collect()
    }
}

/// A membership with the place of its entry in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct StoredMembership {
    /// The entry that set it; none before the group's first.
    pub position: Option<LogPosition>,
    /// The membership.
    pub membership: Membership,
}

/// How far a state machine has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Applied {
    /// The last entry applied; none before the first.
    pub position: Option<LogPosition>,
    /// The last membership applied.
    pub membership: StoredMembership,
}

/// The content of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Nothing: a new leader's first entry.
    Blank,
    /// Commands of the state machine, to be carried out in this order: one at least, and at most
    /// [`ministry_types::limits::ENTRY_COMMANDS_MAX`].
    Commands(Vec<Bytes>),
    /// A change of membership.
    Membership(Membership),
}

impl Body {
    /// How many commands it has.
    pub fn command_count(&self) -> usize {
        match self {
            Body::Commands(commands) => commands.len(),
            Body::Blank | Body::Membership(_) => 0,
        }
    }
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place.
    pub position: LogPosition,
    /// Its content.
    pub body: Body,
}

/// A vote: for a candidate, or for a leader once a majority has granted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The term.
    pub term: Term,
    /// The candidate or leader.
    pub node: NodeId,
    /// A majority has granted it.
    pub committed: bool,
}

/// What one member asks of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RaftRequest {
    /// From the leader: take these entries. Without entries, a heartbeat.
    Append {
        /// The leader's vote.
        vote: Vote,
        /// The entry before the first one sent.
        previous: Option<LogPosition>,
        /// What is committed, as the leader knows.
        committed: Option<LogPosition>,
        /// The entries, without gap.
        entries: Vec<Entry>,
    },
    /// From a candidate: vote for me.
    Vote {
        /// The candidate's vote.
        vote: Vote,
        /// The last entry of its log.
        last: Option<LogPosition>,
        /// The leader itself has asked for this election.
        transfer: bool,
    },
    /// From a node that may become a candidate: would you vote for me? Changes nothing.
    PreVote {
        /// The vote it would ask for.
        vote: Vote,
        /// The last entry of its log.
        last: Option<LogPosition>,
    },
    /// From the leader: let `to` lead.
    TransferLeader {
        /// The leader's vote.
        from: Vote,
        /// The next leader.
        to: NodeId,
        /// What the next leader must have.
        last: Option<LogPosition>,
    },
    /// From the leader: a snapshot follows.
    SnapshotBegin {
        /// The leader's vote.
        vote: Vote,
        /// Number of this transfer, drawn by the sender.
        transfer: u64,
        /// Format of the snapshot ([`ministry_types::format::SNAPSHOT_FORMAT`]).
        format: u8,
        /// What it holds.
        applied: Applied,
    },
    /// One block of the snapshot.
    SnapshotBlock {
        /// The transfer.
        transfer: u64,
        /// Number of the block, from 0.
        number: u64,
        /// CRC-32C of the bytes.
        checksum: u32,
        /// The bytes.
        bytes: Bytes,
    },
    /// All blocks were sent: verify and install.
    SnapshotFinish {
        /// The leader's vote.
        vote: Vote,
        /// The transfer.
        transfer: u64,
        /// How many blocks.
        blocks: u64,
        /// CRC-32C over all blocks, one after the other.
        checksum: u32,
    },
}

/// What became of an append.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppendOutcome {
    /// All entries are on this member's disk.
    Done,
    /// The entries up to this one are.
    Partly(Option<LogPosition>),
    /// The entry before the first is not in this log.
    Conflict,
    /// A higher vote is known here.
    HigherVote(Vote),
}

/// Why a member does not take a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RaftRefusal {
    /// The group does not run on this node.
    #[error("group {0} does not run here")]
    UnknownGroup(GroupId),
    /// The group has stopped here.
    #[error("the group has stopped: {0}")]
    Stopped(String),
    /// The node was started a moment ago and does not vote yet: before its restart it may have
    /// granted a lease that still runs.
    #[error("started a moment ago: no votes yet")]
    JustStarted,
    /// The request is not one that its sender may send.
    #[error("not allowed: {0}")]
    NotAllowed(String),
    /// The transfer of a snapshot must begin anew.
    #[error("the snapshot must be sent again: {0}")]
    SnapshotAgain(String),
}

/// The answer of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RaftReply {
    /// To [`RaftRequest::Append`].
    Append(AppendOutcome),
    /// To [`RaftRequest::Vote`] and [`RaftRequest::PreVote`].
    Vote {
        /// The vote known here after the request.
        vote: Vote,
        /// Whether it was granted.
        granted: bool,
        /// The last entry of this member's log.
        last: Option<LogPosition>,
    },
    /// To [`RaftRequest::TransferLeader`]: taken up.
    TransferStarted,
    /// To [`RaftRequest::TransferLeader`]: not now, for this reason.
    TransferRejected(String),
    /// To [`RaftRequest::SnapshotBegin`] and [`RaftRequest::SnapshotBlock`]: go on.
    SnapshotTaken,
    /// To [`RaftRequest::SnapshotBegin`]: everything in it was applied here already. To
    /// [`RaftRequest::SnapshotFinish`]: installed.
    SnapshotInstalled {
        /// The vote known here.
        vote: Vote,
    },
    /// Not taken.
    Refused(RaftRefusal),
}

/// What the members of Raft groups ask of each other. The sender is the node of the connection's
/// certificate.
#[tarpc::service]
pub trait RaftDoor {
    /// One request to one group.
    async fn call(group: GroupId, request: RaftRequest) -> RaftReply;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back_as_it_was_written() {
        let position =
            LogPosition { term: Term(3), leader: NodeId([7; 32]), index: Default::default() };
        let vote = Vote { term: Term(3), node: NodeId([7; 32]), committed: true };
        let request = RaftRequest::Append {
            vote,
            previous: None,
            committed: Some(position),
            entries: vec![Entry { position, body: Body::Commands(vec!["command".into()]) }],
        };
        let bytes = postcard::to_stdvec(&request).unwrap();
        assert_eq!(postcard::from_bytes::<RaftRequest>(&bytes).unwrap(), request);
    }
}
