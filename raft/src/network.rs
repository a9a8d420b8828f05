//! What a group needs of the network, and how openraft's calls become such requests.
//!
//! `roles` implements [`RaftNetwork`] over its connections, simulation in memory. This crate calls
//! it; the other end hands the request to [`crate::Groups::handle`].
//!
//! What must always hold: each call is one bounded request with one reply and a time limit, and
//! calls do not wait for one another, so that a heartbeat is never behind a large append or a
//! snapshot.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use ministry_types::{GroupId, NodeId, format::SNAPSHOT_FORMAT};
use ministry_wire::raft::{self as mirror, AppendOutcome, RaftReply, RaftRequest};
use openraft::alias::SnapshotOf;
use openraft::errors::{
    ErrorSource, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{
    RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential,
};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, StorageError};
use parking_lot::Mutex;

use crate::commit_news;
use crate::config::Timings;
use crate::convert;
use crate::errors::NetworkError;
use crate::machine::{SnapshotData, run_blocking};
use crate::state_machine::Blocks;
use crate::type_config::{Peer, TypeConfig, Vote};

/// Carries requests to other nodes.
pub trait RaftNetwork: Send + Sync + 'static {
    /// Sends one request and waits for its reply, at most for the time given. Dropping the future
    /// gives the call up.
    fn call(
        &self,
        to: NodeId,
        group: GroupId,
        request: RaftRequest,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<RaftReply, NetworkError>>;
}

/// Who did not answer the last time, as all callers of a group know: while a member is away there
/// are ten calls in a second, and one line in the log for each says nothing that the first did not.
#[derive(Debug, Default)]
pub(crate) struct Silent(Mutex<BTreeSet<NodeId>>);

impl Silent {
    /// It did not answer. Whether that is news.
    fn lost(&self, node: NodeId) -> bool {
        self.0.lock().insert(node)
    }

    /// It answered. Whether that is news.
    fn found(&self, node: NodeId) -> bool {
        self.0.lock().remove(&node)
    }
}

/// Makes the callers of one group.
pub(crate) struct Callers {
    pub node: NodeId,
    pub group: GroupId,
    pub network: Arc<dyn RaftNetwork>,
    pub timings: Timings,
    pub blocking_threads: bool,
    /// How long news of commits wait for something to go with ([`crate::commit_news`]).
    pub commit_patience: Duration,
    /// Numbers of snapshot transfers.
    pub transfers: Arc<AtomicU64>,
    /// Members that do not answer.
    pub silent: Arc<Silent>,
}

/// Calls one node for one group.
pub(crate) struct Caller {
    node: NodeId,
    to: NodeId,
    group: GroupId,
    network: Arc<dyn RaftNetwork>,
    timings: Timings,
    blocking_threads: bool,
    commit_patience: Duration,
    transfers: Arc<AtomicU64>,
    silent: Arc<Silent>,
}

impl RaftNetworkFactory<TypeConfig> for Callers {
    type Network = Caller;

    async fn new_client(&mut self, target: Peer, _node: &EmptyNode) -> Caller {
        Caller {
            node: self.node,
            to: target.0,
            group: self.group,
            network: Arc::clone(&self.network),
            timings: self.timings,
            blocking_threads: self.blocking_threads,
            commit_patience: self.commit_patience,
            transfers: Arc::clone(&self.transfers),
            silent: Arc::clone(&self.silent),
        }
    }
}

type CallError = RPCError<TypeConfig>;
type AppendAnswer = Result<StreamAppendResult<TypeConfig>, CallError>;
type AppendAnswers<'s> = BoxFuture<'s, Result<BoxStream<'s, AppendAnswer>, CallError>>;

fn unexpected(reply: &RaftReply) -> CallError {
    let what = match reply {
        RaftReply::Refused(refusal) => refusal.to_string(),
        _ => "an answer that does not belong to the request".to_owned(),
    };
    Unreachable::from_string(what).into()
}

impl Caller {
    async fn call(
        &self,
        action: RPCTypes,
        request: RaftRequest,
        timeout: Duration,
    ) -> Result<RaftReply, CallError> {
        let timed_out =
            || Timeout { action, id: Peer(self.node), target: Peer(self.to), timeout }.into();
        let call = self.network.call(self.to, self.group, request, timeout);
        let result =
            tokio::time::timeout(timeout, call).await.unwrap_or(Err(NetworkError::TimedOut));
        self.note(result.as_ref().err());
        match result {
            Ok(reply) => Ok(reply),
            Err(NetworkError::Unreachable(reason)) => Err(Unreachable::from_string(reason).into()),
            Err(NetworkError::Broken(reason)) => {
                Err(openraft::errors::NetworkError::from_string(reason).into())
            }
            Err(NetworkError::TimedOut) => Err(timed_out()),
        }
    }

    /// Says so when a member falls silent, and when it answers again.
    fn note(&self, error: Option<&NetworkError>) {
        let (group, member) = (self.group, self.to);
        match error {
            Some(error) if self.silent.lost(member) => {
                tracing::warn!(%group, member = %member.short(), %error, "a member does not answer");
            }
            None if self.silent.found(member) => {
                tracing::info!(%group, member = %member.short(), "the member answers again");
            }
            Some(_) | None => {}
        }
    }

    async fn ask_vote(
        &self,
        request: RaftRequest,
        timeout: Duration,
    ) -> Result<VoteResponse<TypeConfig>, CallError> {
        match self.call(RPCTypes::Vote, request, timeout).await? {
            RaftReply::Vote { vote, granted, last } => {
                let last = last.as_ref().map(convert::log_id);
                Ok(VoteResponse::new(convert::raft_vote(&vote), last, granted))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Sends a snapshot block by block. Answers the vote known at the receiver.
    async fn send_snapshot(
        &self,
        vote: mirror::Vote,
        applied: mirror::Applied,
        mut blocks: Blocks,
    ) -> Result<Vote, StreamingError<TypeConfig>> {
        let transfer = self.transfers.fetch_add(1, Ordering::Relaxed);
        let format = SNAPSHOT_FORMAT;
        let begin = RaftRequest::SnapshotBegin { vote, transfer, format, applied };
        let call = |request, timeout| self.call(RPCTypes::InstallSnapshot, request, timeout);
        match call(begin, self.timings.call).await? {
            RaftReply::SnapshotTaken => {}
            RaftReply::SnapshotInstalled { vote } => return Ok(convert::raft_vote(&vote)),
            other => return Err(unexpected(&other).into()),
        }
        let (mut number, mut whole) = (0, 0);
        loop {
            let next: Option<Bytes>;
            (blocks, next) = self.next_block(blocks).await?;
            let Some(bytes) = next else { break };
            if bytes.is_empty() {
                continue;
            }
            whole = crc32c::crc32c_append(whole, &bytes);
            let checksum = crc32c::crc32c(&bytes);
            let block = RaftRequest::SnapshotBlock { transfer, number, checksum, bytes };
            match call(block, self.timings.call * 4).await? {
                RaftReply::SnapshotTaken => number += 1,
                other => return Err(unexpected(&other).into()),
            }
        }
        let finish =
            RaftRequest::SnapshotFinish { vote, transfer, blocks: number, checksum: whole };
        match call(finish, self.timings.install).await? {
            RaftReply::SnapshotInstalled { vote } => Ok(convert::raft_vote(&vote)),
            other => Err(unexpected(&other).into()),
        }
    }

    async fn next_block(
        &self,
        mut blocks: Blocks,
    ) -> Result<(Blocks, Option<Bytes>), StreamingError<TypeConfig>> {
        let next = run_blocking(self.blocking_threads, move || {
            let next = blocks.next().transpose();
            (blocks, next)
        });
        let storage = |reason: String| {
            let reason = openraft::impls::BoxedErrorSource::from_string(reason);
            StreamingError::StorageError(StorageError::read_snapshot(None, reason))
        };
        let (blocks, next) = next.await.map_err(|error| storage(error.to_string()))?;
        Ok((blocks, next.map_err(|error| storage(error.to_string()))?))
    }
}

impl RaftNetworkV2<TypeConfig> for Caller {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, CallError> {
        let request = RaftRequest::Append {
            vote: convert::vote(&rpc.vote),
            previous: rpc.prev_log_id.as_ref().map(convert::position),
            committed: rpc.leader_commit.as_ref().map(convert::position),
            entries: rpc.entries.iter().map(convert::entry).collect(),
        };
        // openraft's own limit for this call is one heartbeat, too short for a large append with
        // its sync; heartbeats are cut to it by openraft itself.
        let reply = self.call(RPCTypes::AppendEntries, request, self.timings.call).await?;
        let RaftReply::Append(outcome) = reply else { return Err(unexpected(&reply)) };
        Ok(match outcome {
            AppendOutcome::Done => AppendEntriesResponse::Success,
            AppendOutcome::Partly(upto) => {
                AppendEntriesResponse::PartialSuccess(upto.as_ref().map(convert::log_id))
            }
            AppendOutcome::Conflict => AppendEntriesResponse::Conflict,
            AppendOutcome::HigherVote(vote) => {
                AppendEntriesResponse::HigherVote(convert::raft_vote(&vote))
            }
        })
    }

    fn stream_append<'s, S>(&'s mut self, input: S, option: RPCOption) -> AppendAnswers<'s>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let requests = commit_news::held_back(input, self.commit_patience);
        stream_append_sequential(self, requests, option)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, CallError> {
        let request = RaftRequest::Vote {
            vote: convert::vote(&rpc.vote),
            last: rpc.last_log_id.as_ref().map(convert::position),
            transfer: rpc.leadership_transfer,
        };
        self.ask_vote(request, option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, CallError> {
        let request = RaftRequest::PreVote {
            vote: convert::vote(&rpc.vote),
            last: rpc.last_log_id.as_ref().map(convert::position),
        };
        self.ask_vote(request, option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let SnapshotData::Own(blocks) = snapshot.snapshot else {
            let reason = "a received snapshot is installed, never sent".to_owned();
            return Err(StreamingError::Unreachable(Unreachable::from_string(reason)));
        };
        let applied = mirror::Applied {
            position: snapshot.meta.last_log_id.as_ref().map(convert::position),
            membership: convert::stored_membership(&snapshot.meta.last_membership),
        };
        let sending = self.send_snapshot(convert::vote(&vote), applied, blocks);
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = sending => Ok(SnapshotResponse::new(sent?)),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, CallError> {
        let last = req.last_log_id();
        let request = RaftRequest::TransferLeader {
            from: convert::vote(req.from_leader()),
            to: req.to_node_id().0,
            last: last.map(convert::position),
        };
        match self.call(RPCTypes::TransferLeader, request, option.hard_ttl()).await? {
            RaftReply::TransferStarted => Ok(Ok(())),
            RaftReply::TransferRejected(reason) => {
                tracing::info!(to = %self.to.short(), reason, "leader transfer rejected");
                Ok(Err(TransferLeaderError::LogNotFlushed {
                    expected: last.copied(),
                    actual: None,
                }))
            }
            other => Err(unexpected(&other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_falls_silent_is_news_once_and_again_after_it_has_answered() {
        let (silent, one, other) = (Silent::default(), NodeId([1; 32]), NodeId([2; 32]));
        assert!(!silent.found(one), "it was never away");
        assert!(silent.lost(one));
        assert!(!silent.lost(one));
        assert!(silent.lost(other));
        assert!(silent.found(one));
        assert!(!silent.found(one));
        assert!(silent.lost(one));
    }
}
