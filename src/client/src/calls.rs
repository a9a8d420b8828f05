//! One change or one question, from the caller's words to the minister's answer.
//!
//! The file-system calls ([`crate::names`], [`crate::read`], [`crate::write`]) come here. A call
//! finds the owner and the session, and makes attempts until one is answered; who calls bounds the
//! time ([`Core::operation`]).
//!
//! What must always hold: all attempts of a change go under one identity until the outcome is known.
//! When the session ends while the outcome is open, a change that could do harm by happening twice
//! is not tried again: it ends as [`FsError::TimedOut`], which says *unknown*.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use ministry_transport::Peers;
use ministry_types::limits::{OPERATION_TIMEOUT, SETTLE_INTERVAL};
use ministry_types::operations::{Answer, Operation, Outcome, Query};
use ministry_types::{Attributes, Caller, FsError, InodeId, MinistryId, SessionId, Timestamp};
use ministry_wire::minister::{
    AppendTurn, ChangeReply, ChangeRequest, QueryRequest, RequestId, UnloggedWrite,
};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use tokio::time::{Instant, timeout_at};

use crate::file_data::FileData;
use crate::locks::LockBook;
use crate::open_files::OpenTable;
use crate::retry::{Attempt, Backoff, Refused};
use crate::routing::Ministries;
use crate::sessions::{Session, Sessions};
use crate::unlogged;

/// What all calls of one client share.
pub(crate) struct Core {
    /// The ministries and the map.
    pub ministries: Arc<Ministries>,
    /// The nodes.
    pub peers: Peers,
    /// Addresses beyond those of the map.
    pub seeds: Vec<SocketAddr>,
    /// The sessions.
    pub sessions: Arc<Sessions>,
    /// What is open.
    pub open_files: Arc<OpenTable>,
    /// The locks.
    pub locks: Arc<LockBook>,
    /// The chunks.
    pub data: Arc<dyn FileData>,
    /// The only source of chance.
    pub rng: Arc<Mutex<SmallRng>>,
}

/// What one identity of a change came to.
enum Tried {
    Answered(Result<Outcome, FsError>),
    /// Certainly not done: it may go under a new identity.
    NotDone,
    /// Perhaps done, and nobody will ever tell.
    Lost,
}

impl Core {
    /// Runs an operation of a program under its deadline, and measures it.
    pub async fn operation<T, F>(
        &self,
        word: &'static str,
        work: impl FnOnce(Instant) -> F,
    ) -> Result<T, FsError>
    where
        F: Future<Output = Result<T, FsError>>,
    {
        let began = Instant::now();
        let deadline = began + OPERATION_TIMEOUT;
        let result = timeout_at(deadline, work(deadline)).await.unwrap_or_else(|_| {
            tracing::warn!(operation = word, "given up: no answer in the time of an operation");
            Err(FsError::TimedOut)
        });
        metrics::histogram!("ministry_client_operation_seconds", "operation" => word)
            .record(began.elapsed().as_secs_f64());
        result
    }

    /// Carries out a change, exactly once. Tries until it is dropped.
    ///
    /// Cancel safety: dropping it leaves the outcome unknown, as every lost reply does.
    pub async fn change(&self, caller: &Caller, operation: Operation) -> Result<Outcome, FsError> {
        self.change_in(caller, operation).await.map(|(_, outcome)| outcome)
    }

    /// As [`Core::change`]; answers the session too under which it was done.
    pub async fn change_in(
        &self,
        caller: &Caller,
        operation: Operation,
    ) -> Result<(SessionId, Outcome), FsError> {
        let inode = operation.routing_inode();
        let mut backoff = Backoff::new();
        loop {
            let session = self.session_of(inode, &mut backoff).await;
            // Each time by the session of that moment: one that has ended gets no room any more.
            if operation.may_stay_unlogged() && self.sessions.unlogged.is_full(session.ministry) {
                tokio::time::sleep(SETTLE_INTERVAL / 2).await;
                self.sessions.refresh(&session).await;
                continue;
            }
            match self.change_once(caller, &operation, &session, &mut backoff).await {
                Tried::Answered(result) => return result.map(|outcome| (session.id, outcome)),
                Tried::NotDone => {}
                Tried::Lost if is_harmless_twice(&operation) => {}
                Tried::Lost => {
                    tracing::warn!(operation = operation.word(), %inode,
                        "the session ended before the outcome was known");
                    return Err(FsError::TimedOut);
                }
            }
        }
    }

    /// Makes attempts under one identity.
    async fn change_once(
        &self,
        caller: &Caller,
        operation: &Operation,
        session: &Arc<Session>,
        backoff: &mut Backoff,
    ) -> Tried {
        let ministry = session.ministry;
        let slot = session.slots.take().await;
        let id = RequestId { session: session.id, slot: slot.number(), sequence: slot.sequence() };
        let mut doubtful = false;
        let _under_way = operation.may_stay_unlogged().then(|| {
            let write = unlogged_write(id, caller, None, operation.clone());
            self.sessions.unlogged.begin(ministry, session.id, write)
        });
        loop {
            let request = ChangeRequest {
                ministry,
                id,
                caller: caller.clone(),
                operation: operation.clone(),
            };
            let attempt = self.ministries.attempt(ministry, |client, context| async move {
                client.change(context, request).await
            });
            match attempt.await {
                Attempt::Done(reply) => {
                    if self.acknowledged(ministry, id, caller, operation, &reply) {
                        return Tried::Answered(reply.result);
                    }
                    doubtful = true;
                    self.wait(backoff).await;
                }
                Attempt::Unknown(doubt) => {
                    doubtful = true;
                    self.ministries.after_doubt(doubt, backoff).await;
                }
                Attempt::NotDone(refused) => {
                    if refused == Refused::Stale {
                        tracing::error!(?id, "a slot has seen a later change than its own");
                        return Tried::Lost;
                    }
                    self.after_refusal(session, refused, backoff).await;
                    if self.ministries.is_end(ministry, refused) {
                        return if doubtful { Tried::Lost } else { Tried::NotDone };
                    }
                }
            }
        }
    }

    /// Takes note of an answer. `false`: it came from a minister that was replaced meanwhile, and
    /// its successor does not know of the change.
    fn acknowledged(
        &self,
        ministry: MinistryId,
        id: RequestId,
        caller: &Caller,
        operation: &Operation,
        reply: &ChangeReply,
    ) -> bool {
        if let (Some(mark), Ok(outcome)) = (reply.soft, &reply.result) {
            let placed = match outcome {
                Outcome::Written { offset, .. } => unlogged::placed(operation, *offset),
                _ => operation.clone(),
            };
            let write = unlogged_write(id, caller, Some(mark.time), placed);
            if !self.sessions.unlogged.keep(ministry, mark, write) {
                return false;
            }
        }
        self.ministries.saw(ministry, reply.index);
        self.sessions.unlogged.logged(ministry, reply.reign, reply.logged_until);
        true
    }

    /// Asks a question. Tries until it is dropped.
    ///
    /// Cancel safety: safe.
    pub async fn query(&self, caller: &Caller, query: Query) -> Result<Answer, FsError> {
        let inode = query.routing_inode();
        self.query_in(caller, inode, |_| query.clone()).await.map(|(_, answer)| answer)
    }

    /// As [`Core::query`], for a question that names the session under which it is asked.
    pub async fn query_in(
        &self,
        caller: &Caller,
        inode: InodeId,
        query: impl Fn(SessionId) -> Query,
    ) -> Result<(SessionId, Answer), FsError> {
        let mut backoff = Backoff::new();
        loop {
            let session = self.session_of(inode, &mut backoff).await;
            let ministry = session.ministry;
            // Kept during the wait after a refusal too: who comes again is as many as who asks.
            let _place = session.slots.ask().await;
            let request = QueryRequest {
                ministry,
                session: session.id,
                caller: caller.clone(),
                seen: self.ministries.seen(ministry),
                query: query(session.id),
            };
            let attempt = self.ministries.attempt(ministry, |client, context| async move {
                client.query(context, request).await
            });
            match attempt.await {
                Attempt::Done(reply) => {
                    self.ministries.saw(ministry, reply.index);
                    return reply.result.map(|answer| (session.id, answer));
                }
                Attempt::Unknown(doubt) => self.ministries.after_doubt(doubt, &mut backoff).await,
                Attempt::NotDone(refused) => {
                    self.after_refusal(&session, refused, &mut backoff).await;
                }
            }
        }
    }

    /// Waits for the turn to append to a file. Tries until it is dropped.
    ///
    /// Cancel safety: a turn that nobody takes delivery of ends by itself.
    pub async fn append_turn(&self, inode: InodeId) -> Result<AppendTurn, FsError> {
        let mut backoff = Backoff::new();
        loop {
            let session = self.session_of(inode, &mut backoff).await;
            let (ministry, id) = (session.ministry, session.id);
            let attempt = self.ministries.attempt(ministry, |client, context| async move {
                client.append_turn(context, ministry, id, inode).await
            });
            match attempt.await {
                Attempt::Done(turn) => return turn,
                Attempt::Unknown(doubt) => self.ministries.after_doubt(doubt, &mut backoff).await,
                Attempt::NotDone(refused) => {
                    self.after_refusal(&session, refused, &mut backoff).await;
                }
            }
        }
    }

    /// Gives back a turn that was not used to the end: best effort, it ends by itself.
    pub async fn end_turn(&self, inode: InodeId, turn: u64) {
        let session = self.session_of(inode, &mut Backoff::new()).await;
        let (ministry, id) = (session.ministry, session.id);
        let attempt = self.ministries.attempt(ministry, |client, context| async move {
            client.end_turn(context, ministry, id, inode, turn).await
        });
        if !matches!(attempt.await, Attempt::Done(())) {
            tracing::debug!(%inode, turn, "a turn to append was not given back");
        }
    }

    /// What every attempt does about a refusal.
    async fn after_refusal(&self, session: &Arc<Session>, refused: Refused, backoff: &mut Backoff) {
        match refused {
            Refused::UnknownSession => self.sessions.lost(session),
            Refused::ReclaimFirst(reign) => self.sessions.reclaim(session, Some(reign)).await,
            _ => {}
        }
        self.ministries.after_refusal(refused, backoff).await;
    }

    /// The session with the ministry that owns an inode.
    async fn session_of(&self, inode: InodeId, backoff: &mut Backoff) -> Arc<Session> {
        loop {
            match self.ministries.owner(inode) {
                Some(ministry) => {
                    if let Some(session) = self.sessions.get(ministry).await {
                        return session;
                    }
                }
                None => self.ministries.after_refusal(Refused::NobodyKnown, backoff).await,
            }
        }
    }

    /// The attributes of an inode, from its owner.
    pub async fn attributes(&self, caller: &Caller, inode: InodeId) -> Result<Attributes, FsError> {
        match self.query(caller, Query::GetAttributes { inode }).await? {
            Answer::Attributes(attributes) => Ok(self.learned(attributes)),
            other => Err(unexpected("getattr", &other)),
        }
    }

    /// An answer carried these attributes: whoever has the file open may use them.
    pub fn learned(&self, attributes: Attributes) -> Attributes {
        if let Some(file) = self.open_files.find(attributes.inode) {
            file.learn(&attributes);
        }
        attributes
    }

    /// A change took the last name of an inode.
    pub fn orphaned(&self, inode: InodeId) {
        self.open_files.orphaned(inode);
        self.open_files.confirm_soon();
    }

    /// Waits before a file-system call begins anew.
    pub async fn wait(&self, backoff: &mut Backoff) {
        metrics::counter!("ministry_client_retries_total", "reason" => "conflict").increment(1);
        tokio::time::sleep(backoff.wait(&self.rng)).await;
    }
}

fn unlogged_write(
    id: RequestId,
    caller: &Caller,
    time: Option<Timestamp>,
    operation: Operation,
) -> UnloggedWrite {
    let RequestId { slot, sequence, .. } = id;
    UnloggedWrite { slot, sequence, caller: caller.clone(), time, operation }
}

/// Whether a change leaves the same state when it happens a second time, whatever others did in
/// between.
fn is_harmless_twice(operation: &Operation) -> bool {
    match operation {
        // Locks end with the session under which the outcome was lost.
        Operation::Lock { .. }
        | Operation::Unlock { .. }
        | Operation::CancelLock { .. }
        | Operation::InsistLock { .. } => true,
        // They only ever raise the size; and a moved-out file refuses a second move.
        Operation::ReportWrite { .. }
        | Operation::Extend { .. }
        | Operation::MoveOut { .. }
        | Operation::Settle { .. } => true,
        _ => false,
    }
}

/// A minister answered another question than was asked: its program differs from ours.
pub(crate) fn unexpected(asked: &'static str, answer: &dyn std::fmt::Debug) -> FsError {
    tracing::error!(asked, ?answer, "an answer of the wrong kind");
    FsError::Damaged
}
