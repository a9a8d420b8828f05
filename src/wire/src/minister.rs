//! Service `Ministry`: what clients ask of a ministry, and the map that tells them whom to ask.
//!
//! Any node answers [`Ministry::map`] from its copy of the cluster log. The other calls are
//! answered by the minister alone (until clerks answer reads under leases); every other node
//! refuses with [`Refusal::NotMinister`] and what it knows.

use std::time::Duration;

use ministry_types::government::ClusterMap;
use ministry_types::locks::LockProgress;
use ministry_types::operations::{Answer, Operation, Outcome, Query};
use ministry_types::{
    Attributes, Caller, Epoch, FsError, InodeId, LogIndex, MapVersion, MinistryId, NodeId,
    SessionId, Timestamp,
};
use serde::{Deserialize, Serialize};

/// Names one change for ever: a retry under the same identity gets the first reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// The client's standing with the ministry.
    pub session: SessionId,
    /// Which of the session's replay slots.
    pub slot: u32,
    /// Number within the slot; grows with each new change.
    pub sequence: u64,
}

/// A change of the name space.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangeRequest {
    /// The ministry that the client believes to own what is changed.
    pub ministry: MinistryId,
    /// Identity of the change.
    pub id: RequestId,
    /// On whose behalf.
    pub caller: Caller,
    /// What to do.
    pub operation: Operation,
}

/// The answer to a change that was carried out, now or at an earlier attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeReply {
    /// Index in the ministry's log at or before which the change was applied.
    pub index: LogIndex,
    /// What the file-system rules answered.
    pub result: Result<Outcome, FsError>,
    /// The reign of the minister that answers.
    pub reign: ReignId,
    /// The change is not in the log yet.
    pub soft: Option<SoftMark>,
    /// Of the writes under this reign, all up to this time are in the log: their client may
    /// forget them.
    pub logged_until: Timestamp,
}

/// One minister from the beginning of its service to its end. A node that restarts and goes on under
/// the same appointment has forgotten what was not logged: it begins another reign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ReignId {
    /// The appointment.
    pub epoch: Epoch,
    /// Tells one beginning from the next.
    pub incarnation: i64,
}

/// A write that the minister has in memory alone. The client keeps it until it is logged, and
/// tells it to the next minister.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoftMark {
    /// The reign of the minister that has it.
    pub reign: ReignId,
    /// The write's time, which no other write of the ministry has: its identity. Its `ctime` is this
    /// or a later one.
    pub time: Timestamp,
}

/// A write that this client does not know to be logged: acknowledged by an earlier minister, or under
/// way when that one was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnloggedWrite {
    /// Replay slot of the write.
    pub slot: u32,
    /// Its number within the slot.
    pub sequence: u64,
    /// On whose behalf.
    pub caller: Caller,
    /// The time that it got; none if nobody has acknowledged it. Told all the same, since others
    /// on this client's machine may have seen it.
    pub time: Option<Timestamp>,
    /// The write; its place is settled if it was acknowledged.
    pub operation: Operation,
}

/// What a client tells a new minister before anything else.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReclaimRequest {
    /// The ministry.
    pub ministry: MinistryId,
    /// The session.
    pub session: SessionId,
    /// Whom the client means to tell: another one refuses. So a client knows of a reign before that
    /// can have heard it, and never takes the word of an older one afterwards.
    pub reign: ReignId,
    /// Writes, in order of their times.
    pub writes: Vec<UnloggedWrite>,
    /// Further requests follow.
    pub more: bool,
}

/// A turn to append to a chunked file: nobody else has one until it is given back, by
/// [`Operation::ReportWrite`] or [`Ministry::end_turn`], or its holder's time is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendTurn {
    /// Its number; 0: the file is not chunked, and needs no turn.
    pub turn: u64,
    /// The file now: its size is where to write, its cuts are what the write has to carry.
    pub attributes: Attributes,
}

/// A question to the name space.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueryRequest {
    /// The ministry that the client believes to own what is asked about.
    pub ministry: MinistryId,
    /// The session, so that the minister knows who looks; also counts as a sign of life.
    pub session: SessionId,
    /// On whose behalf.
    pub caller: Caller,
    /// Highest log index of this ministry that the client has seen: the answer is not older.
    pub seen: LogIndex,
    /// What is asked.
    pub query: Query,
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryReply {
    /// The answer holds as of this index of the ministry's log, or later.
    pub index: LogIndex,
    /// What the file-system rules answered.
    pub result: Result<Answer, FsError>,
}

/// Why a node does not carry out a request. Nothing was done, unless [`Refusal::Unknown`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// This node does not serve the ministry now: ask `hint`, or take a new map.
    #[error("this node is not the minister of ministry {ministry} (epoch known: {epoch})")]
    NotMinister {
        /// The ministry asked for.
        ministry: MinistryId,
        /// Newest epoch known here.
        epoch: Epoch,
        /// The minister known here.
        hint: Option<NodeId>,
    },
    /// Another ministry owns the inode: take a map of at least this version and ask there.
    #[error("ministry {owner} owns this part of the name space")]
    WrongMinistry {
        /// Who owns it.
        owner: MinistryId,
        /// Version of the map that says so.
        map_version: MapVersion,
    },
    /// The session is not known, or has ended: open a new one. What hung on it is gone.
    #[error("the session has ended")]
    UnknownSession,
    /// The slot has already seen a later change: this one is out of date.
    #[error("the request is older than the last of its slot")]
    StaleRequest,
    /// Too much under way: try again after this time.
    #[error("too many requests under way")]
    Busy {
        /// How long to wait.
        retry_after: Duration,
    },
    /// The change may or may not have been done: ask again under the same identity.
    #[error("the outcome is not known yet")]
    Unknown,
    /// The minister is new: it has to hear first which writes of this session the one before had
    /// not logged ([`Ministry::reclaim`]). Also the answer to one who meant to tell another reign.
    #[error("a new minister (epoch {}) has to hear of unlogged writes first", reign.epoch)]
    ReclaimFirst {
        /// Its reign.
        reign: ReignId,
    },
}

/// A client's sign of life, and its word on removed files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeepAliveRequest {
    /// The ministry.
    pub ministry: MinistryId,
    /// The session.
    pub session: SessionId,
    /// Removed files that are not open at this client.
    pub closed: Vec<InodeId>,
}

/// The minister's answer to a sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepAliveReply {
    /// The minister's appointment.
    pub epoch: Epoch,
    /// Removed files of which this client has not said that they are closed; bounded, more come
    /// with the next answer.
    pub orphans: Vec<InodeId>,
    /// The session lives this long from the sending of the request.
    pub lives_for: Duration,
    /// The minister's reign.
    pub reign: ReignId,
    /// As [`ChangeReply::logged_until`].
    pub logged_until: Timestamp,
}

/// A question how a request for a lock stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AwaitLockRequest {
    /// The ministry that owns the file.
    pub ministry: MinistryId,
    /// The session of the request.
    pub session: SessionId,
    /// The file.
    pub inode: InodeId,
    /// The number of the request in the session. It was answered with
    /// [`Outcome::LockWaiting`] before.
    pub request: u64,
    /// How long the answer may wait for the request to be settled.
    pub wait: Duration,
}

/// How much room the file system has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct FsUsage {
    /// Bytes in all, for files as programs see them (replicas counted once).
    pub total_bytes: u64,
    /// Bytes not used.
    pub free_bytes: u64,
    /// Bytes that users may still write.
    pub available_bytes: u64,
    /// Objects that exist.
    pub inodes: u64,
}

/// What clients ask.
#[tarpc::service]
pub trait Ministry {
    /// The map, as soon as its version is above `known`; after `wait` whatever there is. `None`:
    /// there was nothing newer.
    async fn map(known: MapVersion, wait: Duration) -> Option<ClusterMap>;
    /// Opens a session, or finds it open.
    async fn open_session(
        ministry: MinistryId,
        session: SessionId,
    ) -> Result<KeepAliveReply, Refusal>;
    /// Ends a session: frees what hung on it.
    async fn close_session(ministry: MinistryId, session: SessionId) -> Result<(), Refusal>;
    /// Renews a session.
    async fn keep_alive(request: KeepAliveRequest) -> Result<KeepAliveReply, Refusal>;
    /// Carries out a change, exactly once.
    async fn change(request: ChangeRequest) -> Result<ChangeReply, Refusal>;
    /// Answers a question.
    async fn query(request: QueryRequest) -> Result<QueryReply, Refusal>;
    /// Room in the file system, from the reports of the storage nodes.
    async fn usage() -> Option<FsUsage>;
    /// Tells a new minister what the one before had not logged of this session's writes. Each
    /// session does so once under each minister, also if there is nothing to tell.
    async fn reclaim(request: ReclaimRequest) -> Result<(), Refusal>;
    /// Waits for the turn to append to a file, and takes it. Writers get theirs in the order in
    /// which they asked.
    async fn append_turn(
        ministry: MinistryId,
        session: SessionId,
        inode: InodeId,
    ) -> Result<Result<AppendTurn, FsError>, Refusal>;
    /// Gives a turn back that was not used to the end: what was sent under it is refused from now
    /// on.
    async fn end_turn(
        ministry: MinistryId,
        session: SessionId,
        inode: InodeId,
        turn: u64,
    ) -> Result<(), Refusal>;
    /// How a request for a lock stands that waits: as soon as it does so no more, else after the
    /// time that was asked for.
    async fn await_lock(request: AwaitLockRequest) -> Result<LockProgress, Refusal>;
}
