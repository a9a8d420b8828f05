//! One ministry on one node, as clients and the president meet it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use ministry_namespace::{Command, CommandReply, QueryRefusal, SoftView, Unlogged};
use ministry_raft::{Group, ProposeError, Proposed, ReadError};
use ministry_transport::data_stream::DataStreams;
use ministry_types::government::ClusterMap;
use ministry_types::kv::{KvError, KvRead};
use ministry_types::limits::{ATTEMPT_TIMEOUT, SESSION_TIMEOUT};
use ministry_types::operations::{Operation, Outcome};
use ministry_types::{
    ClientId, Epoch, FsError, InodeId, LogIndex, MapVersion, MinistryId, NodeId, SessionId,
};
use ministry_wire::minister::{
    ChangeReply, ChangeRequest, KeepAliveReply, KeepAliveRequest, QueryReply, QueryRequest,
    Refusal, ReignId,
};
use ministry_wire::node::{GroupReport, Handover, NodeRefusal};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::machine::NamespaceMachine;
use super::reclaim::Reclaim;
use super::sessions::Sessions;
use super::soft::SoftTable;
use super::turns::Turns;
use crate::clock::Clock;
use crate::room::DiskRoom;

/// Removed files named in one answer to a sign of life.
const ORPHANS_PER_KEEP_ALIVE: usize = 1024;

/// What an office needs of its node.
#[derive(Clone)]
pub struct Surroundings {
    /// This node.
    pub me: NodeId,
    /// The time of day, for the times of files.
    pub clock: Arc<dyn Clock>,
    /// The map, as known on this node.
    pub map: watch::Receiver<Arc<ClusterMap>>,
    /// The way to the storage nodes, for cuts and purges.
    pub data: Arc<DataStreams>,
    /// The room on this node's disk.
    pub disk: Arc<DiskRoom>,
}

/// One ministry on one node.
pub struct Office {
    pub(super) ministry: MinistryId,
    pub(super) group: Group,
    pub(super) machine: Arc<NamespaceMachine>,
    pub(super) surroundings: Surroundings,
    pub(super) sessions: Sessions,
    /// The epoch under which this node serves; 0: it does not.
    pub(super) serving: AtomicU64,
    /// The newest appointment that this node has heard of, whoever it names.
    pub(super) newest: watch::Sender<Epoch>,
    /// What the reign has in memory alone.
    memory: ArcSwap<Memory>,
}

/// What a minister has in memory alone: gone with the reign.
pub(super) struct Memory {
    /// Writes and times of access that are not logged.
    pub soft: Arc<SoftTable>,
    /// Turns to append.
    pub turns: Arc<Turns>,
    /// What the minister before had not logged.
    pub reclaim: Reclaim,
    /// Which reign.
    pub reign: ReignId,
}

impl Memory {
    /// The beginning of a reign in which these sessions have to be heard.
    pub fn new(reign: ReignId, sessions: BTreeSet<SessionId>) -> Arc<Memory> {
        Arc::new(Memory {
            reign,
            soft: Arc::default(),
            turns: Arc::default(),
            reclaim: Reclaim::new(reign, sessions),
        })
    }
}

impl Office {
    /// Opens the office over a group that runs.
    pub fn new(
        ministry: MinistryId,
        group: Group,
        machine: Arc<NamespaceMachine>,
        surroundings: Surroundings,
    ) -> Arc<Office> {
        Arc::new(Office {
            ministry,
            group,
            machine,
            surroundings,
            sessions: Sessions::default(),
            serving: AtomicU64::new(0),
            newest: watch::Sender::new(Epoch(0)),
            memory: ArcSwap::new(Memory::new(ReignId::default(), BTreeSet::new())),
        })
    }

    /// What this reign has in memory.
    pub(super) fn memory(&self) -> Arc<Memory> {
        self.memory.load_full()
    }

    /// A reign begins.
    pub(super) fn begin_memory(&self, memory: Arc<Memory>) {
        self.memory.store(memory);
    }

    /// Which ministry.
    pub fn id(&self) -> MinistryId {
        self.ministry
    }

    /// The epoch under which this node serves now, if it does: its reign is the newest applied,
    /// and it leads as far as it knows. A read asks the group in addition.
    pub fn serves(&self) -> Option<Epoch> {
        let epoch = Epoch(self.serving.load(Ordering::Acquire));
        let reigns = self.machine.reign() == Some((epoch, self.surroundings.me));
        (epoch > Epoch(0) && reigns && self.group.is_leader()).then_some(epoch)
    }

    /// The newest reign that was applied here, whoever's it is.
    pub fn reigned(&self) -> Epoch {
        self.machine.reign().map_or(Epoch(0), |(epoch, _)| epoch)
    }

    /// How the ministry stands here, for the president.
    pub fn report(&self) -> GroupReport {
        let status = self.group.status();
        let ranges = self.machine.namespace().ranges(self.machine.reader());
        let (known, left) = ranges.map_or((0, 0), |ranges| (ranges.known, ranges.left_unused));
        GroupReport {
            group: self.ministry.group(),
            last_log: status.last_log,
            applied: status.applied,
            term: status.term,
            serving: self.serves(),
            reign: self.reigned(),
            initialised: status.initialised,
            ranges_known: known,
            ranges_left: left,
            objects: self.machine.namespace().objects(self.machine.reader()).unwrap_or(0),
        }
    }

    /// How many clients have a session.
    pub fn session_count(&self) -> usize {
        if self.serves().is_some() { self.sessions.count() } else { 0 }
    }

    pub(super) fn not_minister(&self) -> Refusal {
        let map = self.surroundings.map.borrow();
        let entry = map.ministries.get(&self.ministry);
        let me = self.surroundings.me;
        Refusal::NotMinister {
            ministry: self.ministry,
            epoch: entry.map_or(Epoch(0), |entry| entry.epoch),
            hint: entry.and_then(|entry| entry.minister).filter(|node| *node != me),
        }
    }

    pub(super) fn elsewhere(&self, owner: MinistryId) -> Refusal {
        Refusal::WrongMinistry { owner, map_version: self.surroundings.map.borrow().version }
    }

    /// Refuses what another ministry owns, as far as the map of this node tells; the state itself
    /// has the last word, since the map may lag behind a handover.
    pub(super) fn check_ownership(&self, inode: InodeId) -> Result<(), Refusal> {
        let owner = self.surroundings.map.borrow().ownership.owner(inode);
        match owner {
            Some(owner) if owner != self.ministry => {
                let reader = self.machine.reader();
                match self.machine.namespace().exists(reader, inode) {
                    Ok(true) => Ok(()),
                    Ok(false) | Err(_) => Err(self.elsewhere(owner)),
                }
            }
            _ => Ok(()),
        }
    }

    /// The reign under which a session is served, and its memory.
    pub(super) async fn serving_for(
        &self,
        session: SessionId,
        client: ClientId,
    ) -> Result<(Epoch, Arc<Memory>), Refusal> {
        let (epoch, memory) = self.known_session(session, client)?;
        if !memory.reclaim.was_heard(session) {
            return Err(Refusal::ReclaimFirst { reign: memory.reign });
        }
        self.opened(&memory).await?;
        Ok((epoch, memory))
    }

    /// As [`Office::serving_for`], also before the minister has heard everybody.
    pub(super) fn known_session(
        &self,
        session: SessionId,
        client: ClientId,
    ) -> Result<(Epoch, Arc<Memory>), Refusal> {
        let epoch = self.serves().ok_or_else(|| self.not_minister())?;
        if !self.sessions.heard(session, client, Instant::now()) {
            return Err(Refusal::UnknownSession);
        }
        Ok((epoch, self.memory()))
    }

    /// Waits until the minister serves everybody.
    async fn opened(&self, memory: &Memory) -> Result<(), Refusal> {
        let opened = timeout(ATTEMPT_TIMEOUT, memory.reclaim.opened()).await;
        opened.map_err(|_| Refusal::Busy { retry_after: Duration::from_millis(20) })
    }

    /// Puts a command into the log and answers what `apply` said, within [`ATTEMPT_TIMEOUT`].
    ///
    /// Cancel safety: the command may be carried out all the same; ask again under the same
    /// identity.
    pub(super) async fn command(
        &self,
        command: &Command,
    ) -> Result<(LogIndex, CommandReply), Refusal> {
        let proposed = self.group.propose(Bytes::from(command.encode()));
        let proposed =
            timeout(ATTEMPT_TIMEOUT, proposed).await.unwrap_or(Err(ProposeError::Unknown));
        let Proposed { position, reply } = proposed.map_err(|error| match error {
            ProposeError::NotLeader { .. } => self.not_minister(),
            ProposeError::Busy => Refusal::Busy { retry_after: Duration::from_millis(20) },
            ProposeError::TooLarge(_) | ProposeError::Unknown | ProposeError::Fatal(_) => {
                Refusal::Unknown
            }
        })?;
        match CommandReply::decode(&reply) {
            Ok(CommandReply::StaleReign { .. }) => Err(self.not_minister()),
            Ok(CommandReply::UnknownSession) => Err(Refusal::UnknownSession),
            Ok(CommandReply::StaleSequence) => Err(Refusal::StaleRequest),
            Ok(CommandReply::Elsewhere { owner }) => Err(self.elsewhere(owner)),
            Ok(reply) => Ok((position.index, reply)),
            Err(error) => {
                tracing::error!(ministry = %self.ministry, %error, "a reply does not decode");
                Err(Refusal::Unknown)
            }
        }
    }

    /// Opens a session, or finds it open.
    pub async fn open_session(
        &self,
        session: SessionId,
        client: ClientId,
    ) -> Result<KeepAliveReply, Refusal> {
        let epoch = self.serves().ok_or_else(|| self.not_minister())?;
        if !self.sessions.has_room() {
            return Err(Refusal::Busy { retry_after: Duration::from_secs(1) });
        }
        let memory = self.memory();
        // A client that asks for it has written nothing in it, although the log may know it: the
        // answer of the minister before was lost.
        memory.reclaim.forget(session);
        self.opened(&memory).await?;
        // Before the log has it: if nobody hears what came of that, it ends as a silent one.
        self.sessions.add(session, client, Instant::now());
        let (_, reply) = self.command(&Command::OpenSession { epoch, session, client }).await?;
        if reply != CommandReply::Done {
            // The log has filled the last place since.
            self.sessions.remove(session);
            return Err(Refusal::Busy { retry_after: Duration::from_secs(1) });
        }
        self.alive(epoch, &memory, session)
    }

    /// Ends a session.
    pub async fn close_session(&self, session: SessionId, client: ClientId) -> Result<(), Refusal> {
        let (epoch, memory) = self.serving_for(session, client).await?;
        self.command(&Command::EndSession { epoch, session }).await?;
        self.sessions.remove(session);
        memory.soft.forget_session(session);
        Ok(())
    }

    /// Renews a session, and takes the client's word on removed files.
    pub async fn keep_alive(
        &self,
        request: KeepAliveRequest,
        client: ClientId,
    ) -> Result<KeepAliveReply, Refusal> {
        let session = request.session;
        let (epoch, memory) = self.serving_for(session, client).await?;
        if !request.closed.is_empty() {
            let inodes = request.closed;
            self.command(&Command::ConfirmClosed { epoch, session, inodes }).await?;
        }
        self.alive(epoch, &memory, session)
    }

    fn alive(
        &self,
        epoch: Epoch,
        memory: &Memory,
        session: SessionId,
    ) -> Result<KeepAliveReply, Refusal> {
        let logged_until = memory.soft.logged_until();
        let namespace = self.machine.namespace();
        let orphans = namespace
            .orphans_awaiting(self.machine.reader(), session, ORPHANS_PER_KEEP_ALIVE)
            .map_err(|_| Refusal::Unknown)?;
        let reign = memory.reign;
        Ok(KeepAliveReply { epoch, orphans, lives_for: SESSION_TIMEOUT, reign, logged_until })
    }

    /// Carries out a change.
    pub async fn change(
        &self,
        request: ChangeRequest,
        client: ClientId,
    ) -> Result<ChangeReply, Refusal> {
        let (epoch, memory) = self.serving_for(request.id.session, client).await?;
        self.check_ownership(request.operation.routing_inode())?;
        let started = Instant::now();
        let word = request.operation.word();
        let reply = match self.without_log(&request, &memory).await? {
            Some(reply) => reply,
            None => self.by_log(request, epoch, &memory).await?,
        };
        metrics::histogram!("ministry_minister_change_seconds", "operation" => word)
            .record(started.elapsed().as_secs_f64());
        Ok(reply)
    }

    /// Whether a change has to do without adding to the state, since the disk of this node is
    /// short. The log decides, so that a change that comes again hears what it heard before.
    pub(super) fn is_without_room(&self, operation: &Operation) -> bool {
        operation.may_add() && self.surroundings.disk.is_short()
    }

    /// Puts a change into the log, behind what is unlogged of the object that it changes.
    async fn by_log(
        &self,
        request: ChangeRequest,
        epoch: Epoch,
        memory: &Memory,
    ) -> Result<ChangeReply, Refusal> {
        let turn = super::writes::turn_of(&request.operation);
        let (inode, session) = (request.operation.routing_inode(), request.id.session);
        let begun = memory.soft.begin(request.operation.settles());
        let without_room = self.is_without_room(&request.operation);
        let mut change = Command::Change {
            epoch,
            session,
            slot: request.id.slot,
            sequence: request.id.sequence,
            caller: request.caller,
            time: memory.soft.time(self.surroundings.clock.now()),
            operation: request.operation,
        };
        if without_room {
            change = Command::WithoutRoom { epoch, change: Box::new(change) };
        }
        let command = match &begun.unlogged {
            None => change,
            Some(unlogged) => Command::Settle {
                epoch,
                unlogged: vec![(**unlogged).clone()],
                then: Some(Box::new(change)),
            },
        };
        let (index, reply) = self.command(&command).await?;
        begun.logged();
        match reply {
            CommandReply::Change(result) => {
                let done = matches!(result, Ok(Outcome::Written { .. }));
                if let Some(turn) = turn.filter(|_| done) {
                    memory.turns.end(inode, session, turn, true);
                }
                let logged_until = memory.soft.logged_until();
                let reign = memory.reign;
                Ok(ChangeReply { index, result, reign, soft: None, logged_until })
            }
            other => {
                tracing::error!(ministry = %self.ministry, ?other, "not the answer to a change");
                Err(Refusal::Unknown)
            }
        }
    }

    /// Answers a question: as of now, by the lease of the leader or a majority.
    pub async fn query(
        &self,
        request: QueryRequest,
        client: ClientId,
    ) -> Result<QueryReply, Refusal> {
        let (epoch, memory) = self.serving_for(request.session, client).await?;
        self.check_ownership(request.query.routing_inode())?;
        let started = Instant::now();
        let index = self.linearize().await?;
        let (answer, shown) = self.look_at_all(&memory, request.session, |view| {
            self.machine.namespace().query(view, &request.caller, &request.query)
        });
        // What one client has seen of another's writes is not to be lost with that one.
        if !shown.is_empty() {
            self.settle_files(epoch, &memory, shown).await?;
        }
        let result = match answer {
            Ok(Ok(answer)) => {
                self.note_access(&memory, &request.query, &answer);
                Ok(answer)
            }
            Ok(Err(QueryRefusal::Fs(error))) => Err(error),
            Ok(Err(QueryRefusal::Elsewhere { owner })) => return Err(self.elsewhere(owner)),
            Err(error) => {
                tracing::error!(ministry = %self.ministry, %error, "the state cannot be read");
                Err(FsError::Damaged)
            }
        };
        metrics::histogram!("ministry_minister_query_seconds", "query" => request.query.word())
            .record(started.elapsed().as_secs_f64());
        Ok(QueryReply { index, result })
    }

    /// Makes sure that this node is the minister and that a look at the state sees everything that
    /// was acknowledged before.
    pub(super) async fn linearize(&self) -> Result<LogIndex, Refusal> {
        let index = self.group.linearize(ATTEMPT_TIMEOUT).await.map_err(|error| match error {
            ReadError::TimedOut => Refusal::Busy { retry_after: Duration::from_millis(20) },
            ReadError::NotLeader { .. } | ReadError::Fatal(_) => self.not_minister(),
        })?;
        // The wait may have been long: a reign that ended meanwhile answers nothing.
        self.serves().ok_or_else(|| self.not_minister())?;
        Ok(index)
    }

    /// As [`Office::look`], on behalf of a session. Answers too which files it was shown as another
    /// session has written them, and the log does not have it.
    fn look_at_all<T>(
        &self,
        memory: &Memory,
        session: SessionId,
        ask: impl Fn(&dyn KvRead) -> Result<T, KvError>,
    ) -> (Result<T, KvError>, BTreeSet<InodeId>) {
        let shown = RefCell::new(BTreeSet::new());
        let note = |unlogged: &Unlogged| {
            if unlogged.is_of_another(session) {
                shown.borrow_mut().insert(unlogged.inode);
            }
        };
        let answer = self.look_noting(memory, &note, ask);
        (answer, shown.into_inner())
    }

    /// Looks at the state with everything unlogged laid over it.
    pub(super) fn look<T>(
        &self,
        memory: &Memory,
        ask: impl Fn(&dyn KvRead) -> Result<T, KvError>,
    ) -> Result<T, KvError> {
        self.look_noting(memory, &|_| {}, ask)
    }

    fn look_noting<T>(
        &self,
        memory: &Memory,
        note: &dyn Fn(&Unlogged),
        ask: impl Fn(&dyn KvRead) -> Result<T, KvError>,
    ) -> Result<T, KvError> {
        loop {
            let removals = memory.soft.removals();
            let base = self.machine.view();
            let look_up = |inode| memory.soft.look_up(inode).inspect(|unlogged| note(unlogged));
            let answer = ask(&SoftView::new(*self.machine.namespace(), &*base, &look_up))?;
            // What was taken away meanwhile may be neither in that state nor laid over it.
            if memory.soft.removals() == removals {
                return Ok(answer);
            }
        }
    }

    /// A step of a handover, from the president.
    pub async fn hand_over(&self, step: Handover) -> Result<Vec<u8>, NodeRefusal> {
        let not_serving = NodeRefusal::NotServing(self.ministry);
        let Some(epoch) = self.serves() else { return Err(not_serving) };
        let command = match step {
            Handover::Give { inode, to, generation, .. } => {
                Command::GiveAway { epoch, inode, to, generation }
            }
            Handover::Take { record, generation, .. } => {
                Command::Adopt { epoch, record, generation }
            }
        };
        match self.command(&command).await {
            Ok((_, CommandReply::GivenAway(Ok(record)))) => Ok(record),
            Ok((_, CommandReply::GivenAway(Err(error)))) => {
                Err(NodeRefusal::Failed(error.to_string()))
            }
            Ok((_, CommandReply::Done)) => Ok(Vec::new()),
            Ok((_, other)) => Err(NodeRefusal::Failed(format!("unexpected answer {other:?}"))),
            Err(_) => Err(not_serving),
        }
    }

    /// Version of the map known here.
    pub fn map_version(&self) -> MapVersion {
        self.surroundings.map.borrow().version
    }
}
