//! Requests of other members, as openraft takes them.
//!
//! What must always hold: a member may speak only for itself (the vote it shows is its own), and a
//! node that was just started grants no vote before the lease it may have granted before has run
//! out: openraft does not remember leases over a restart.

use bytes::Bytes;
use ministry_types::{NodeId, format::SNAPSHOT_FORMAT, limits};
use ministry_wire::raft::{
    AppendOutcome, Applied, Body, Entry, RaftRefusal, RaftReply, RaftRequest, Vote,
};
use openraft::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::async_runtime::WatchReceiver;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use tokio::time::Instant;

use crate::convert;
use crate::group::Group;
use crate::machine::SnapshotData;
use crate::receiver::Receiver;
use crate::type_config::{Peer, TypeConfig};

type Answer = Result<RaftReply, RaftRefusal>;

fn not_allowed(reason: impl ToString) -> RaftRefusal {
    RaftRefusal::NotAllowed(reason.to_string())
}

fn stopped(error: impl ToString) -> RaftRefusal {
    RaftRefusal::Stopped(error.to_string())
}

/// Answers a request of `from` to `group`.
pub(crate) async fn handle(
    group: &Group,
    receiver: &Receiver,
    from: NodeId,
    request: RaftRequest,
) -> RaftReply {
    let answer = match request {
        RaftRequest::Append { vote, previous, committed, entries } => {
            let request = append_request(from, vote, previous, committed, entries);
            append(group, request).await
        }
        RaftRequest::Vote { vote, last, transfer } => {
            ask_vote(group, from, vote, last, Some(transfer)).await
        }
        RaftRequest::PreVote { vote, last } => ask_vote(group, from, vote, last, None).await,
        RaftRequest::TransferLeader { from: vote, to, last } => {
            transfer_leader(group, from, vote, to, last).await
        }
        RaftRequest::SnapshotBegin { vote, transfer, format, applied } => {
            begin(group, receiver, from, vote, transfer, format, applied).await
        }
        RaftRequest::SnapshotBlock { transfer, number, checksum, bytes } => {
            let taken = receiver.block(from, transfer, number, checksum, bytes).await;
            taken.map(|()| RaftReply::SnapshotTaken).map_err(RaftRefusal::SnapshotAgain)
        }
        RaftRequest::SnapshotFinish { vote, transfer, blocks, checksum } => {
            let received = receiver.finish(from, transfer, blocks, checksum).await;
            match received.map_err(RaftRefusal::SnapshotAgain) {
                Ok(received) => {
                    let data = SnapshotData::Received(received.finished);
                    install(group, from, vote, received.applied, data).await
                }
                Err(refusal) => Err(refusal),
            }
        }
    };
    answer.unwrap_or_else(RaftReply::Refused)
}

fn check_own(from: NodeId, vote: &Vote) -> Result<(), RaftRefusal> {
    if vote.node != from {
        return Err(not_allowed(format!("{} shows the vote of another", from.short())));
    }
    Ok(())
}

fn check_leader(from: NodeId, vote: &Vote) -> Result<(), RaftRefusal> {
    check_own(from, vote)?;
    if !vote.committed {
        return Err(not_allowed("only a leader may send this"));
    }
    Ok(())
}

/// Whether so many commands, of so many bytes, may lie in one entry.
fn is_bounded(commands: &[Bytes]) -> bool {
    commands.len() <= limits::ENTRY_COMMANDS_MAX
        && commands.iter().map(Bytes::len).sum::<usize>() <= limits::COMMAND_BYTES_MAX
}

fn append_request(
    from: NodeId,
    vote: Vote,
    previous: Option<ministry_types::LogPosition>,
    committed: Option<ministry_types::LogPosition>,
    entries: Vec<Entry>,
) -> Result<AppendEntriesRequest<TypeConfig>, RaftRefusal> {
    check_leader(from, &vote)?;
    let mut before = previous;
    let mut taken = Vec::with_capacity(entries.len());
    for entry in entries {
        let index = before.map_or(0, |before| before.index.0.saturating_add(1));
        if entry.position.index.0 != index || before.is_some_and(|b| b >= entry.position) {
            return Err(not_allowed(format!("entry {} out of place", entry.position)));
        }
        if matches!(&entry.body, Body::Commands(commands) if !is_bounded(commands)) {
            return Err(not_allowed(format!("entry {} too large", entry.position)));
        }
        before = Some(entry.position);
        taken.push(convert::raft_entry(entry).map_err(not_allowed)?);
    }
    Ok(AppendEntriesRequest {
        vote: convert::raft_vote(&vote),
        prev_log_id: previous.as_ref().map(convert::log_id),
        entries: taken,
        leader_commit: committed.as_ref().map(convert::log_id),
    })
}

async fn append(
    group: &Group,
    request: Result<AppendEntriesRequest<TypeConfig>, RaftRefusal>,
) -> Answer {
    let response = group.shared.raft.append_entries(request?).await.map_err(stopped)?;
    Ok(RaftReply::Append(match response {
        AppendEntriesResponse::Success => AppendOutcome::Done,
        AppendEntriesResponse::PartialSuccess(upto) => {
            AppendOutcome::Partly(upto.as_ref().map(convert::position))
        }
        AppendEntriesResponse::Conflict => AppendOutcome::Conflict,
        AppendEntriesResponse::HigherVote(vote) => AppendOutcome::HigherVote(convert::vote(&vote)),
    }))
}

/// `transfer` is none for a pre-vote.
async fn ask_vote(
    group: &Group,
    from: NodeId,
    vote: Vote,
    last: Option<ministry_types::LogPosition>,
    transfer: Option<bool>,
) -> Answer {
    check_own(from, &vote)?;
    if transfer != Some(true) && Instant::now() < group.shared.votes_from {
        return Err(RaftRefusal::JustStarted);
    }
    let mut request =
        VoteRequest::new(convert::raft_vote(&vote), last.as_ref().map(convert::log_id));
    let response: VoteResponse<TypeConfig> = match transfer {
        Some(transfer) => {
            request.leadership_transfer = transfer;
            group.shared.raft.vote(request).await
        }
        None => group.shared.raft.pre_vote(request).await,
    }
    .map_err(stopped)?;
    Ok(RaftReply::Vote {
        vote: convert::vote(&response.vote),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(convert::position),
    })
}

async fn transfer_leader(
    group: &Group,
    from: NodeId,
    vote: Vote,
    to: NodeId,
    last: Option<ministry_types::LogPosition>,
) -> Answer {
    check_leader(from, &vote)?;
    let request = TransferLeaderRequest::new(
        convert::raft_vote(&vote),
        Peer(to),
        last.as_ref().map(convert::log_id),
    );
    let response = group.shared.raft.handle_transfer_leader(request).await.map_err(stopped)?;
    Ok(match response {
        Ok(()) => RaftReply::TransferStarted,
        Err(error) => RaftReply::TransferRejected(error.to_string()),
    })
}

/// openraft ends the process on a snapshot from beyond its leader's term.
fn check_snapshot(vote: &Vote, applied: &Applied) -> Result<(), RaftRefusal> {
    let beyond = |position: &ministry_types::LogPosition| {
        (position.term, position.leader) > (vote.term, vote.node)
    };
    if applied.position.as_ref().is_none_or(beyond) {
        return Err(not_allowed("a snapshot that its leader cannot have"));
    }
    Ok(())
}

#[allow(clippy::too_many_arguments)]
async fn begin(
    group: &Group,
    receiver: &Receiver,
    from: NodeId,
    vote: Vote,
    transfer: u64,
    format: u8,
    applied: Applied,
) -> Answer {
    check_leader(from, &vote)?;
    check_snapshot(&vote, &applied)?;
    if format != SNAPSHOT_FORMAT {
        return Err(not_allowed(format!("snapshot format {format} is not known here")));
    }
    let (have, known) = {
        let metrics = group.shared.raft.metrics();
        let metrics = metrics.borrow_watched();
        (metrics.last_applied.as_ref().map(convert::position), convert::vote(&metrics.vote))
    };
    if have >= applied.position {
        return Ok(RaftReply::SnapshotInstalled { vote: known });
    }
    let begun = receiver.begin(from, transfer, vote, applied).await;
    begun.map(|()| RaftReply::SnapshotTaken).map_err(RaftRefusal::SnapshotAgain)
}

async fn install(
    group: &Group,
    from: NodeId,
    vote: Vote,
    applied: Applied,
    data: SnapshotData,
) -> Answer {
    check_leader(from, &vote)?;
    check_snapshot(&vote, &applied)?;
    let last_membership =
        convert::raft_stored_membership(&applied.membership).map_err(not_allowed)?;
    let last_log_id = applied.position.as_ref().map(convert::log_id);
    let meta = SnapshotMetaOf::<TypeConfig> { last_log_id, last_membership };
    let snapshot = SnapshotOf::<TypeConfig, SnapshotData> { meta, snapshot: data };
    let vote = convert::raft_vote(&vote);
    let response = group.shared.raft.install_full_snapshot(vote, snapshot).await;
    let response = response.map_err(stopped)?;
    Ok(RaftReply::SnapshotInstalled { vote: convert::vote(&response.vote) })
}
