//! One group on this node: what `roles` works with.
//!
//! A [`Group`] is a handle, cheap to clone. It stays valid after the group has stopped; its calls
//! answer `Fatal` then.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ministry_types::{GroupId, LogIndex, LogPosition, NodeId, Term, limits};
use ministry_wire::raft::Vote;
use openraft::async_runtime::{Instant as _, WatchReceiver};
use openraft::errors::{
    ClientWriteError, InitializeError, LinearizableReadError, RaftError as Error,
};
use openraft::raft::VoteRequest;
use openraft::{EmptyNode, LinearizerOption};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::config::Settings;
use crate::convert;
use crate::errors::{ProposeError, RaftError, ReadError};
use crate::monitor::LastPosition;
use crate::proposer::{Answer, Proposal, Waiting};
use crate::status::{GroupStatus, status};
use crate::type_config::{Peer, Raft, TypeConfig};

/// A command's share of the memory for commands under way is counted in these bytes.
pub(crate) const ROOM_UNIT_BYTES: usize = 1024;

/// A command that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposed {
    /// The place of its entry in the log, which it may share with others.
    pub position: LogPosition,
    /// What the state machine answered.
    pub reply: Bytes,
}

/// A group that runs on this node.
#[derive(Clone)]
pub struct Group {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub id: GroupId,
    pub raft: Raft,
    pub proposals: mpsc::Sender<Proposal>,
    pub room: Arc<Semaphore>,
    pub status: watch::Receiver<GroupStatus>,
    pub last: LastPosition,
    pub settings: Settings,
    /// No votes and no candidacy before this moment.
    pub votes_from: Instant,
    /// The term in which this node began to hand its lead over; 0: none.
    pub handed_over: AtomicU64,
}

type MemberResult = Result<
    openraft::raft::ClientWriteResponse<TypeConfig>,
    Error<TypeConfig, ClientWriteError<TypeConfig>>,
>;

fn change_result(result: MemberResult) -> Result<(), RaftError> {
    match result {
        Ok(_) => Ok(()),
        Err(Error::Fatal(fatal)) => Err(RaftError::Fatal(fatal.to_string())),
        Err(Error::APIError(error)) => Err(match error {
            ClientWriteError::ForwardToLeader(hint) => {
                RaftError::NotLeader { leader: hint.leader_id.map(|peer| peer.0) }
            }
            ClientWriteError::LogEntryDiscarded(_) => RaftError::Unknown,
            ClientWriteError::ChangeMembershipError(error) => {
                RaftError::NotAllowed(error.to_string())
            }
            ClientWriteError::PreconditionFailed(error) => RaftError::NotAllowed(error.to_string()),
        }),
    }
}

async fn in_time<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, RaftError>>,
) -> Result<T, RaftError> {
    tokio::time::timeout(timeout, work).await.unwrap_or(Err(RaftError::TimedOut))
}

fn fatal(error: impl ToString) -> RaftError {
    RaftError::Fatal(error.to_string())
}

impl Group {
    /// Which group.
    pub fn id(&self) -> GroupId {
        self.shared.id
    }

    /// Gives the group its first members. On any one of them, once; on several, the same members.
    /// This node then stands for election once, which may come to nothing: an appointed group is
    /// given its leader by [`Group::elect`] in any case. Answers false if the group had members.
    pub async fn initialize(&self, members: BTreeSet<NodeId>) -> Result<bool, RaftError> {
        let members: BTreeMap<Peer, EmptyNode> =
            members.into_iter().map(|node| (Peer(node), EmptyNode {})).collect();
        match self.shared.raft.initialize(members).await {
            Ok(()) => Ok(true),
            Err(Error::APIError(InitializeError::NotAllowed(_))) => Ok(false),
            Err(Error::APIError(InitializeError::NotInMembers(error))) => {
                Err(RaftError::NotAllowed(error.to_string()))
            }
            Err(Error::Fatal(error)) => Err(fatal(error)),
        }
    }

    /// Proposes a command; answers when it was applied here.
    ///
    /// The command is queued by the call itself: commands lie in the log in the order of the
    /// calls, in whatever order the futures are polled, and also if they are dropped. Commands of
    /// many callers share entries (those of a ministry), appends and syncs. Whether a command was carried out is told by the
    /// error, see [`ProposeError`].
    pub fn propose(
        &self,
        command: Bytes,
    ) -> impl Future<Output = Result<Proposed, ProposeError>> + Send + 'static {
        let started = Instant::now();
        let queued = self.queue(command);
        let shared = Arc::clone(&self.shared);
        async move {
            let Ok(result) = queued?.await else { return Err(shared.lost()) };
            metrics::histogram!("ministry_raft_commit_seconds").record(started.elapsed());
            match result {
                Ok(done) => Ok(done),
                Err(ClientWriteError::ForwardToLeader(hint)) => {
                    Err(ProposeError::NotLeader { leader: hint.leader_id.map(|peer| peer.0) })
                }
                Err(
                    ClientWriteError::LogEntryDiscarded(_)
                    | ClientWriteError::ChangeMembershipError(_)
                    | ClientWriteError::PreconditionFailed(_),
                ) => Err(ProposeError::Unknown),
            }
        }
    }

    fn queue(&self, command: Bytes) -> Result<oneshot::Receiver<Answer>, ProposeError> {
        if command.len() > limits::COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge(command.len()));
        }
        let units = 1 + command.len() / ROOM_UNIT_BYTES;
        let room = Arc::clone(&self.shared.room).try_acquire_many_owned(units as u32);
        let room = room.map_err(|_| ProposeError::Busy)?;
        let (result, receiver) = oneshot::channel();
        let proposal = Proposal { command, waiting: Waiting { result, room } };
        self.shared.proposals.try_send(proposal).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeError::Busy,
            mpsc::error::TrySendError::Closed(_) => self.shared.lost(),
        })?;
        Ok(receiver)
    }

    /// Makes sure that a read of the state machine, begun after this, sees everything that was
    /// acknowledged before this call. Answers the index that was applied at least.
    ///
    /// Costs nothing while the leader's lease is fresh; otherwise a round of heartbeats. A quarter
    /// of the lease is left unused for clocks that do not run alike.
    pub async fn linearize(&self, timeout: Duration) -> Result<LogIndex, ReadError> {
        let raft = &self.shared.raft;
        let lease = self.read_lease();
        if let Some(applied) = self.applied_under_lease(lease) {
            return Ok(applied);
        }
        let option = LinearizerOption::new(Some(lease), true).with_wait_timeout(timeout);
        let read = async {
            let linearizer = raft.get_read_linearizer(option).await.map_err(read_error)?;
            let ready = linearizer.try_await_ready(raft, Some(timeout)).await;
            let ready = ready.map_err(|error| ReadError::Fatal(error.to_string()))?;
            let ready = ready.map_err(|_| ReadError::TimedOut)?;
            Ok(LogIndex(ready.read_log_id().index()))
        };
        tokio::time::timeout(timeout, read).await.unwrap_or(Err(ReadError::TimedOut))
    }

    /// While this node leads under a lease that is not over: how far the state is applied at least.
    /// Answers from what the group's task told last, and does not wait for it.
    ///
    /// That may be a moment old, which makes it neither wrong nor too generous. The lease runs from
    /// the moment that the majority's last acknowledged message was sent, and ends here before it
    /// ends at those who would have to elect another; an older word only ends it sooner. What was
    /// acknowledged to a proposer here was applied here first; what earlier leaders acknowledged is
    /// applied here once an entry of this term is. A lead that is being handed over has no lease: its
    /// successor does not wait for it.
    fn applied_under_lease(&self, lease: Duration) -> Option<LogIndex> {
        let metrics = self.shared.raft.metrics();
        let metrics = metrics.borrow_watched();
        let handed_over = self.shared.handed_over.load(Ordering::SeqCst);
        let applied = metrics.last_applied.as_ref()?;
        let acknowledged = metrics.last_quorum_acked?.into_inner();
        let leads = metrics.state.is_leader()
            && metrics.current_term > handed_over
            && applied.committed_leader_id().term == metrics.current_term;
        (leads && acknowledged.elapsed() < lease).then_some(LogIndex(applied.index))
    }

    /// How long a leader may answer from its state after a majority has acknowledged it.
    fn read_lease(&self) -> Duration {
        self.shared.settings.timings.election_max * 3 / 4
    }

    /// Whether this node leads and a majority has acknowledged it a moment ago: others can reach it,
    /// as far as it can know.
    pub fn has_lease(&self) -> bool {
        self.applied_under_lease(self.read_lease()).is_some()
    }

    /// As [`GroupStatus::is_leader`], for those who ask often.
    pub fn is_leader(&self) -> bool {
        self.shared.raft.metrics().borrow_watched().state.is_leader()
    }

    /// The condition now.
    pub fn status(&self) -> GroupStatus {
        let metrics = self.shared.raft.metrics();
        let metrics = metrics.borrow_watched();
        status(&metrics, (self.shared.last)())
    }

    /// The condition as it changes; it may be a moment behind [`Group::status`].
    pub fn watch(&self) -> watch::Receiver<GroupStatus> {
        self.shared.status.clone()
    }

    /// Has this node stand for election, with a first round that changes nothing if a majority
    /// would refuse (so a living leader is never deposed). Answers when it has begun; try again
    /// until [`GroupStatus::is_leader`]. It can win as soon as the lease of the leader before is
    /// over. Waits for the first lease after this node's own start.
    pub async fn elect(&self) -> Result<(), RaftError> {
        tokio::time::sleep_until(self.shared.votes_from).await;
        self.shared.raft.trigger().elect(true).await.map_err(fatal)
    }

    /// Hands the lead to another voter and waits until it leads. If it does not in time, nobody
    /// leads: the group needs an election.
    ///
    /// Cancel safety: not safe. Dropped on the way, this node may lead without being able to write
    /// until the lead is handed over again.
    pub async fn transfer_leader(&self, to: NodeId, timeout: Duration) -> Result<(), RaftError> {
        let now = self.status();
        if !now.is_leader {
            return Err(RaftError::NotLeader { leader: now.leader });
        }
        if !now.voters.contains(&to) {
            return Err(RaftError::NotAllowed(format!("{} has no vote", to.short())));
        }
        self.shared.handed_over.fetch_max(now.term.0, Ordering::SeqCst);
        self.shared.raft.trigger().transfer_leader(Peer(to)).await.map_err(fatal)?;
        let waited = self.wait_for(timeout, move |status| status.leader == Some(to)).await;
        if waited.is_err() {
            self.give_up_lead(to).await?;
        }
        waited
    }

    /// Steps down in favour of `to`, if this node still leads.
    ///
    /// From the beginning of a transfer on, openraft's leader takes no writes and sends no
    /// heartbeats, and it stays so when the transfer comes to nothing: it expects to be replaced by
    /// an election. In an appointed group nobody stands by himself, and a leader cannot stand
    /// again. So it votes for the one that was to have the lead, which ends its own.
    async fn give_up_lead(&self, to: NodeId) -> Result<(), RaftError> {
        let now = self.status();
        if !now.is_leader {
            return Ok(());
        }
        let vote = Vote { term: Term(now.term.0 + 1), node: to, committed: false };
        let last = (self.shared.last)().as_ref().map(convert::log_id);
        let mut request = VoteRequest::new(convert::raft_vote(&vote), last);
        request.leadership_transfer = true;
        let answer = self.shared.raft.vote(request).await.map_err(fatal)?;
        tracing::info!(group = %self.id(), to = %to.short(), given_up = answer.vote_granted,
            "the transfer of the lead came to nothing");
        Ok(())
    }

    /// Waits until the condition is as wanted.
    pub async fn wait_for(
        &self,
        timeout: Duration,
        wanted: impl FnMut(&GroupStatus) -> bool,
    ) -> Result<(), RaftError> {
        let mut changes = self.watch();
        let found = async {
            let found = changes.wait_for(wanted).await;
            found.map(drop).map_err(|_| fatal("the group has ended"))
        };
        in_time(timeout, found).await
    }

    /// Adds a member without a vote. With `caught_up`, answers only when its log is nearly as
    /// long as the leader's.
    pub async fn add_learner(
        &self,
        node: NodeId,
        caught_up: bool,
        timeout: Duration,
    ) -> Result<(), RaftError> {
        let added = self.shared.raft.add_learner(Peer(node), EmptyNode {}, caught_up);
        in_time(timeout, async { change_result(added.await) }).await
    }

    /// Sets who votes, each of whom must be a member already. Those who no longer vote stay as
    /// learners, or go. Done in two steps that the leader's successor does not finish by itself:
    /// if this fails with [`RaftError::Unknown`] or [`RaftError::TimedOut`], look at
    /// [`GroupStatus::changing`] and ask again.
    pub async fn change_members(
        &self,
        voters: BTreeSet<NodeId>,
        keep_removed_as_learners: bool,
        timeout: Duration,
    ) -> Result<(), RaftError> {
        let voters: BTreeSet<Peer> = voters.into_iter().map(Peer).collect();
        let changed = self.shared.raft.change_membership(voters, keep_removed_as_learners);
        in_time(timeout, async { change_result(changed.await) }).await
    }

    /// Removes members without a vote.
    pub async fn remove_learners(
        &self,
        nodes: BTreeSet<NodeId>,
        timeout: Duration,
    ) -> Result<(), RaftError> {
        let nodes = openraft::ChangeMembers::RemoveNodes(nodes.into_iter().map(Peer).collect());
        let changed = self.shared.raft.change_membership(nodes, true);
        in_time(timeout, async { change_result(changed.await) }).await
    }

    /// Flushes the state and shortens the log up to there, but for the entries that are kept for
    /// members a little behind. Also done from time to time without being asked. The log gets
    /// shorter a moment after this answers.
    pub async fn snapshot_and_purge(&self, timeout: Duration) -> Result<(), RaftError> {
        let applied = self.status().applied;
        self.shared.raft.trigger().snapshot().await.map_err(fatal)?;
        self.wait_for(timeout, |status| status.snapshot >= applied).await?;
        let keep = self.shared.settings.compaction.keep;
        match self.status().snapshot.0.checked_sub(keep) {
            Some(upto) => self.shared.raft.trigger().purge_log(upto).await.map_err(fatal),
            None => Ok(()),
        }
    }
}

impl Shared {
    /// What a proposal without an answer means.
    fn lost(&self) -> ProposeError {
        let metrics = self.raft.metrics();
        let stopped = metrics.borrow_watched().running_state.clone();
        match stopped {
            Ok(()) => ProposeError::Unknown,
            Err(error) => ProposeError::Fatal(error.to_string()),
        }
    }
}

fn read_error(error: Error<TypeConfig, LinearizableReadError<TypeConfig>>) -> ReadError {
    match error {
        Error::APIError(LinearizableReadError::ForwardToLeader(hint)) => {
            ReadError::NotLeader { leader: hint.leader_id.map(|peer| peer.0) }
        }
        Error::APIError(LinearizableReadError::QuorumNotEnough(_)) => ReadError::TimedOut,
        Error::Fatal(error) => ReadError::Fatal(error.to_string()),
    }
}
