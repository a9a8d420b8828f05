//! Writes into files, as the minister answers them: in memory first, in the log a moment later.
//!
//! Part of [`Office`]; the state of it is [`super::soft`], [`super::turns`] and [`super::reclaim`].
//!
//! What must always hold: a write is answered only by a minister that is it for certain at that
//! moment. What is answered without the log is told so ([`SoftMark`]), and the client keeps it.
//!
//! [`SoftMark`]: ministry_wire::minister::SoftMark

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ministry_namespace::{Command, CommandReply, access_is_due};
use ministry_types::limits::{ACCESS_SETTLE_INTERVAL, ATTEMPT_TIMEOUT, SETTLE_INTERVAL};
use ministry_types::operations::{Answer, Operation, Outcome, Query, WriteAt};
use ministry_types::{ClientId, Epoch, FsError, InodeId, LogIndex, SessionId};
use ministry_wire::minister::{
    AppendTurn, ChangeReply, ChangeRequest, ReclaimRequest, Refusal, RequestId, UnloggedWrite,
};
use tokio::time::{Instant, sleep, timeout_at};

use super::office::{Memory, Office};
use super::soft::{Write, Wrote};

/// Bytes of what one entry of the log settles; well below the largest command.
const SETTLE_BYTES: usize = 256 << 10;

/// The turn to append that a change gives back.
pub(super) fn turn_of(operation: &Operation) -> Option<u64> {
    match operation {
        Operation::ReportWrite { turn, .. } if *turn != 0 => Some(*turn),
        _ => None,
    }
}

impl Office {
    /// Answers a change that needs no entry of the log. `None`: it needs one.
    pub(super) async fn without_log(
        &self,
        request: &ChangeRequest,
        memory: &Memory,
    ) -> Result<Option<ChangeReply>, Refusal> {
        let reign = memory.reign;
        let logged_until = memory.soft.logged_until();
        let answer = |index, result, soft| {
            Ok(Some(ChangeReply { index, result, reign, soft, logged_until }))
        };
        match memory.soft.answered(request.id) {
            None | Some(Wrote::MustBeLogged | Wrote::Occupied) => {}
            Some(Wrote::Stale) => return Err(Refusal::StaleRequest),
            Some(Wrote::Answered(result, mark)) => {
                return answer(self.linearize().await?, result, mark);
            }
        }
        if let Operation::Settle { inode } = request.operation
            && memory.soft.is_clean(inode)
        {
            let index = self.linearize().await?;
            let found = self.attributes(memory, inode)?;
            let result = found.map(Outcome::Attributes).ok_or(FsError::Stale);
            return answer(index, result, None);
        }
        if !request.operation.may_stay_unlogged() {
            return Ok(None);
        }
        // What another client has not heard of yet must not become a part of what this one hears:
        // both go into the log. Reports of writes to storage build on nothing.
        let builds_on_others = match request.operation {
            Operation::WriteInline { inode, .. } | Operation::SetAttributes { inode, .. } => {
                memory.soft.is_of_another(inode, request.id.session)
            }
            _ => false,
        };
        if builds_on_others {
            return Ok(None);
        }
        let write = Write {
            id: request.id,
            caller: &request.caller,
            operation: &request.operation,
            reign,
            now: self.surroundings.clock.now(),
            time: None,
        };
        let (index, wrote) = self.write_when_free(memory, &write, false).await?;
        match wrote {
            Wrote::Answered(result, mark) => {
                let inode = request.operation.routing_inode();
                let done = matches!(result, Ok(Outcome::Written { .. }));
                if let Some(turn) = turn_of(&request.operation).filter(|_| done) {
                    memory.turns.end(inode, request.id.session, turn, true);
                }
                answer(index, result, mark)
            }
            Wrote::Stale => Err(Refusal::StaleRequest),
            Wrote::MustBeLogged => Ok(None),
            Wrote::Occupied => Err(Refusal::Busy { retry_after: Duration::from_millis(20) }),
        }
    }

    /// Carries a write out in memory, as soon as no change of the file is under way. What was
    /// acknowledged `before` is not to be refused for want of room.
    async fn write_when_free(
        &self,
        memory: &Memory,
        write: &Write<'_>,
        before: bool,
    ) -> Result<(LogIndex, Wrote), Refusal> {
        let deadline = Instant::now() + ATTEMPT_TIMEOUT;
        loop {
            let freed = memory.soft.freed();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let index = self.linearize().await?;
            let without_room = !before && self.is_without_room(write.operation);
            if without_room && self.would_grow(memory, write.operation)? {
                return Ok((index, Wrote::MustBeLogged));
            }
            let namespace = *self.machine.namespace();
            let wrote = memory.soft.write(namespace, self.machine.reader(), write);
            let wrote = wrote.map_err(|error| self.unreadable(&error))?;
            if !matches!(wrote, Wrote::Occupied) || timeout_at(deadline, freed).await.is_err() {
                return Ok((index, wrote));
            }
        }
    }

    /// Whether a write would make the content longer that a file has in its inode.
    fn would_grow(&self, memory: &Memory, operation: &Operation) -> Result<bool, Refusal> {
        let Operation::WriteInline { inode, at, data } = operation else { return Ok(false) };
        let size = self.attributes(memory, *inode)?.map_or(0, |found| found.size);
        Ok(match at {
            WriteAt::Within(_) => false,
            WriteAt::End => !data.is_empty(),
            WriteAt::Offset(offset) => offset.saturating_add(data.len() as u64) > size,
        })
    }

    fn unreadable(&self, error: &ministry_types::kv::KvError) -> Refusal {
        tracing::error!(ministry = %self.ministry, %error, "the state cannot be read");
        Refusal::Unknown
    }

    fn attributes(
        &self,
        memory: &Memory,
        inode: InodeId,
    ) -> Result<Option<ministry_types::Attributes>, Refusal> {
        let namespace = self.machine.namespace();
        let found = self.look(memory, |view| namespace.attributes(view, inode));
        found.map_err(|error| self.unreadable(&error))
    }

    /// A question was answered that counts as an access: notes it where `relatime` wants that.
    pub(super) fn note_access(&self, memory: &Memory, query: &Query, answer: &Answer) {
        let now = self.surroundings.clock.now();
        let mut read = query.routing_inode();
        let due = match (query, answer) {
            (Query::Get { .. }, Answer::Content { attributes, .. }) => {
                read = attributes.inode;
                access_is_due(attributes, now)
            }
            (Query::Read { access: true, .. }, Answer::Content { attributes, .. }) => {
                access_is_due(attributes, now)
            }
            (Query::List { inode, after: 0, .. } | Query::ReadLink { inode }, _) => {
                let found = self.attributes(memory, *inode).ok().flatten();
                found.is_some_and(|attributes| access_is_due(&attributes, now))
            }
            _ => false,
        };
        if due {
            memory.soft.access(read, memory.soft.time(now));
        }
    }

    /// Brings what is unlogged into the log, for as long as it runs.
    ///
    /// Cancel safety: safe; what was not settled stays so.
    pub(super) async fn keep_settled(&self) {
        let mut accesses_due = Instant::now() + ACCESS_SETTLE_INTERVAL;
        loop {
            let memory = self.memory();
            tokio::select! {
                () = memory.soft.dirty() => {}
                // A new reign has another memory.
                () = sleep(10 * SETTLE_INTERVAL) => {}
            }
            sleep(SETTLE_INTERVAL).await;
            let (Some(epoch), memory) = (self.serves(), self.memory()) else { continue };
            let accesses = Instant::now() >= accesses_due;
            if accesses {
                accesses_due = Instant::now() + ACCESS_SETTLE_INTERVAL;
            }
            if let Err(refusal) = self.settle_round(epoch, &memory, accesses).await {
                tracing::debug!(ministry = %self.ministry, %refusal, "settling goes on later");
            }
            metrics::gauge!("ministry_minister_unlogged_files").set(memory.soft.files() as f64);
        }
    }

    async fn settle_round(
        &self,
        epoch: Epoch,
        memory: &Memory,
        accesses: bool,
    ) -> Result<(), Refusal> {
        let doubtful = memory.soft.take_doubtful();
        if !doubtful.is_empty() {
            let barrier = Command::Settle { epoch, unlogged: Vec::new(), then: None };
            let passed = self.command(&barrier).await;
            memory.soft.resolved(doubtful, passed.is_ok());
            passed?;
        }
        let (until, files) = memory.soft.to_settle(accesses);
        self.settle_files(epoch, memory, files).await?;
        memory.soft.settled(until);
        Ok(())
    }

    /// Brings what is unlogged of these files into the log.
    pub(super) async fn settle_files(
        &self,
        epoch: Epoch,
        memory: &Memory,
        files: impl IntoIterator<Item = InodeId>,
    ) -> Result<(), Refusal> {
        let mut files = files.into_iter().peekable();
        while files.peek().is_some() {
            let mut begun = Vec::new();
            let mut unlogged = Vec::new();
            let mut bytes = 0;
            while bytes < SETTLE_BYTES
                && let Some(inode) = files.next()
            {
                let one = memory.soft.begin(Some(inode));
                if let Some(state) = &one.unlogged {
                    bytes += state.bytes();
                    unlogged.push((**state).clone());
                }
                begun.push(one);
            }
            self.command(&Command::Settle { epoch, unlogged, then: None }).await?;
            begun.into_iter().for_each(super::soft::Begun::logged);
        }
        Ok(())
    }

    /// What a client had been promised by the minister before.
    pub async fn reclaim(&self, request: ReclaimRequest, client: ClientId) -> Result<(), Refusal> {
        let ReclaimRequest { session, reign, writes, more, .. } = request;
        let (epoch, memory) = self.known_session(session, client)?;
        let late = memory.reclaim.hear(reign, session, writes, more)?;
        let files: BTreeSet<InodeId> =
            late.iter().map(|write| write.operation.routing_inode()).collect();
        for write in late {
            self.write_again(epoch, &memory, session, write).await?;
        }
        // Their times are those of an earlier reign, and lie below what this one calls logged: the
        // client will forget them at the next answer.
        self.settle_files(epoch, &memory, files).await
    }

    /// Hears all sessions, carries out what they tell, and serves from then on.
    pub(super) async fn reclaim_all(&self, epoch: Epoch) -> Result<(), Refusal> {
        let memory = self.memory();
        let begun = Instant::now();
        let writes = memory
            .reclaim
            // Nobody waits for one that is minister no more.
            .collect(|| self.group.has_lease() || self.serves().is_none())
            .await;
        let count = writes.len();
        for (session, write) in writes {
            self.write_again(epoch, &memory, session, write).await?;
        }
        memory.reclaim.open();
        let millis = begun.elapsed().as_millis() as u64;
        tracing::info!(ministry = %self.ministry, %epoch, count, millis, "clients were heard");
        Ok(())
    }

    /// Carries out a write that an earlier minister acknowledged, or may have shown to others, unless
    /// it is in the log.
    async fn write_again(
        &self,
        epoch: Epoch,
        memory: &Memory,
        session: SessionId,
        write: UnloggedWrite,
    ) -> Result<(), Refusal> {
        let UnloggedWrite { slot, sequence, caller, time, operation } = write;
        if !operation.may_stay_unlogged() {
            return Ok(());
        }
        let (id, reign) = (RequestId { session, slot, sequence }, memory.reign);
        let now = self.surroundings.clock.now();
        let again = Write { id, caller: &caller, operation: &operation, reign, now, time };
        let (_, wrote) = self.write_when_free(memory, &again, true).await?;
        match wrote {
            Wrote::Answered(..) | Wrote::Stale => Ok(()),
            Wrote::Occupied => Err(Refusal::Busy { retry_after: Duration::from_millis(20) }),
            Wrote::MustBeLogged => {
                let begun = memory.soft.begin(Some(operation.routing_inode()));
                let unlogged = begun.unlogged.iter().map(|one| (**one).clone()).collect();
                let again = match time {
                    Some(time) => Command::WriteAgain { epoch, caller, time, operation },
                    None => {
                        let time = memory.soft.time(now);
                        Command::Change { epoch, session, slot, sequence, caller, time, operation }
                    }
                };
                let then = Some(Box::new(again));
                self.command(&Command::Settle { epoch, unlogged, then }).await?;
                begun.logged();
                Ok(())
            }
        }
    }

    /// Waits for the turn to append to a file.
    pub async fn append_turn(
        &self,
        session: SessionId,
        inode: InodeId,
        client: ClientId,
    ) -> Result<Result<AppendTurn, FsError>, Refusal> {
        let (epoch, memory) = self.serving_for(session, client).await?;
        self.check_ownership(inode)?;
        let deadline = Instant::now() + ATTEMPT_TIMEOUT / 2;
        let Some(given) = memory.turns.take(inode, session, deadline).await else {
            return Err(Refusal::Busy { retry_after: Duration::ZERO });
        };
        let mut turn = Turn { memory: &memory, inode, session, number: given.turn, kept: false };
        if given.fence {
            self.fence(epoch, &memory, inode).await?;
        }
        self.linearize().await?;
        let Some(attributes) = self.attributes(&memory, inode)? else {
            return Ok(Err(FsError::Stale));
        };
        if !attributes.layout.is_chunked() {
            return Ok(Ok(AppendTurn { turn: 0, attributes }));
        }
        turn.kept = true;
        Ok(Ok(AppendTurn { turn: given.turn, attributes }))
    }

    /// Has storage refuse what was sent to the file before now.
    async fn fence(&self, epoch: Epoch, memory: &Memory, inode: InodeId) -> Result<(), Refusal> {
        let begun = memory.soft.begin(Some(inode));
        let unlogged = begun.unlogged.iter().map(|unlogged| (**unlogged).clone()).collect();
        let then = Some(Box::new(Command::Fence { epoch, inode }));
        let (_, reply) = self.command(&Command::Settle { epoch, unlogged, then }).await?;
        begun.logged();
        match reply {
            CommandReply::Done => Ok(()),
            // Storage has to confirm earlier cuts first.
            _ => Err(Refusal::Busy { retry_after: Duration::from_millis(50) }),
        }
    }

    /// A turn that was not used to the end.
    pub async fn end_turn(
        &self,
        session: SessionId,
        inode: InodeId,
        turn: u64,
        client: ClientId,
    ) -> Result<(), Refusal> {
        let (_, memory) = self.serving_for(session, client).await?;
        memory.turns.end(inode, session, turn, false);
        Ok(())
    }
}

/// A turn that was given; taken back when the client does not get to hear of it.
struct Turn<'a> {
    memory: &'a Arc<Memory>,
    inode: InodeId,
    session: SessionId,
    number: u64,
    kept: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.memory.turns.end(self.inode, self.session, self.number, false);
        }
    }
}
