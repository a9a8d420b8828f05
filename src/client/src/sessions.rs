//! Sessions: this client's standing with each ministry it talks to.
//!
//! [`crate::calls`] asks for the session of a ministry; it is opened by the first call that needs
//! it. Each session has one task, its *keeper*, that renews it, and answers the minister's question
//! which removed files are not open here. Replay slots hang on the session ([`crate::slots`]).
//!
//! What must always hold: a session identity is used for one session only. When a minister does not
//! know it any more, what hung on it is gone: the next call opens a new one under a new identity,
//! and a change whose outcome was open then stays unknown.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ministry_types::limits::{
    ATTEMPT_TIMEOUT, KEEP_ALIVE_INTERVAL, OPERATION_TIMEOUT, SETTLE_INTERVAL,
};
use ministry_types::{InodeId, MinistryId, SessionId};
use ministry_wire::minister::{
    KeepAliveReply, KeepAliveRequest, ReclaimRequest, ReignId, UnloggedWrite,
};
use parking_lot::Mutex;
use rand::RngCore;
use rand::rngs::SmallRng;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::locks::LockBook;
use crate::open_files::OpenTable;
use crate::retry::{Attempt, Backoff, Refused};
use crate::routing::Ministries;
use crate::slots::Slots;
use crate::unlogged::UnloggedWrites;

/// How long a confirmation waits for others to go with it.
const CONFIRMATION_DELAY: Duration = Duration::from_millis(50);
/// Writes in one message to a new minister: of the largest ones, a few MiB.
const WRITES_PER_RECLAIM: usize = 512;
/// How many ministers in a row are told, when each is replaced on the way; the next refusal asks
/// again.
const REIGNS_PER_RECLAIM: u32 = 4;
/// Confirmations in one sign of life.
const CONFIRMATIONS_PER_CALL_MAX: usize = 1024;

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    /// With which ministry.
    pub ministry: MinistryId,
    /// Its identity.
    pub id: SessionId,
    /// Its replay slots.
    pub slots: Arc<Slots>,
    opened: OnceCell<AbortOnDropHandle<()>>,
    /// One at a time tells a new minister of unlogged writes.
    reclaiming: tokio::sync::Mutex<()>,
}

/// All sessions of this client.
pub(crate) struct Sessions {
    ministries: Arc<Ministries>,
    open_files: Arc<OpenTable>,
    locks: Arc<LockBook>,
    table: Mutex<BTreeMap<MinistryId, Arc<Session>>>,
    rng: Arc<Mutex<SmallRng>>,
    /// Writes that ministers have not logged yet.
    pub unlogged: UnloggedWrites,
}

impl Sessions {
    /// None is open yet.
    pub fn new(
        ministries: Arc<Ministries>,
        open_files: Arc<OpenTable>,
        locks: Arc<LockBook>,
        rng: Arc<Mutex<SmallRng>>,
    ) -> Arc<Sessions> {
        let unlogged = UnloggedWrites::default();
        let table = Mutex::default();
        Arc::new(Sessions { ministries, open_files, locks, table, rng, unlogged })
    }

    /// The session with a ministry, opened where it is not. Tries until it is dropped. `None`: the
    /// ministry is not there any more; the map says who owns its inodes now.
    ///
    /// Cancel safety: safe; an opening that was given up is taken over by the next caller.
    pub async fn get(self: &Arc<Sessions>, ministry: MinistryId) -> Option<Arc<Session>> {
        let mut backoff = Backoff::new();
        loop {
            let session = self.find_or_draw(ministry);
            let opened = session.opened.get_or_try_init(|| self.open(&session, &mut backoff)).await;
            match opened {
                Ok(_) => return Some(session),
                Err(refused) => {
                    self.lost(&session);
                    self.ministries.after_refusal(refused, &mut backoff).await;
                    if refused != Refused::UnknownSession {
                        return None;
                    }
                }
            }
        }
    }

    /// The minister does not know the session: what hung on it is gone.
    pub fn lost(&self, session: &Arc<Session>) {
        let mut table = self.table.lock();
        let current = table.get(&session.ministry);
        if current.is_some_and(|current| Arc::ptr_eq(current, session)) {
            table.remove(&session.ministry);
            self.locks.session_ended(session.id);
            metrics::counter!("ministry_client_sessions_lost_total").increment(1);
            tracing::warn!(ministry = %session.ministry, session = %session.id,
                "the session has ended; a new one will be opened");
        }
    }

    /// Waits until the log has every write of this client, at most [`OPERATION_TIMEOUT`].
    pub async fn settle_all(self: &Arc<Sessions>) {
        let settle = async {
            for ministry in self.unlogged.ministries() {
                // Under a new session, where the old one has ended.
                while let Some(session) = self.get(ministry).await {
                    self.refresh(&session).await;
                    if self.unlogged.is_empty(ministry) {
                        break;
                    }
                    tokio::time::sleep(SETTLE_INTERVAL / 2).await;
                }
            }
        };
        if timeout(OPERATION_TIMEOUT, settle).await.is_err() {
            tracing::warn!("some writes were never told to be logged");
        }
    }

    /// Ends all sessions, so that nobody waits for this client.
    pub async fn close_all(&self) {
        let sessions = std::mem::take(&mut *self.table.lock());
        let closing = sessions.into_values().map(|session| async move {
            let (ministry, id) = (session.ministry, session.id);
            let call = self.ministries.attempt(ministry, |client, context| async move {
                client.close_session(context, ministry, id).await
            });
            match timeout(ATTEMPT_TIMEOUT, call).await {
                Ok(Attempt::Done(())) => {}
                // It ends by itself when nothing is heard of this client.
                _ => tracing::debug!(%ministry, "session not closed"),
            }
        });
        futures::future::join_all(closing).await;
    }

    /// Tells a new minister what earlier ones had not logged of this client's writes: the one of
    /// `reign`, or whoever is in office now. What does not succeed is asked for again by the
    /// minister's next refusal.
    pub async fn reclaim(&self, session: &Session, reign: Option<ReignId>) {
        let (ministry, id) = (session.ministry, session.id);
        let _one = session.reclaiming.lock().await;
        let mut told = reign;
        for _ in 0..REIGNS_PER_RECLAIM {
            let refused = match told {
                Some(reign) if self.unlogged.was_told(ministry, id, reign) => return,
                Some(reign) => self.tell(ministry, id, reign).await,
                // No minister is of that reign: whoever is in office names its own.
                None => {
                    let nobody = ReignId::default();
                    self.tell_part(ministry, id, nobody, Vec::new(), false).await.err()
                }
            };
            match refused {
                None => return,
                Some(Attempt::NotDone(Refused::ReclaimFirst(reign))) => told = Some(reign),
                Some(other) => return tracing::debug!(%ministry, ?other, "not reclaimed yet"),
            }
        }
    }

    /// Tells one reign everything; answers what came in the way. One that was replaced is told
    /// nothing.
    async fn tell(
        &self,
        ministry: MinistryId,
        session: SessionId,
        reign: ReignId,
    ) -> Option<Attempt<()>> {
        let writes = self.unlogged.begin_reclaim(ministry, session, reign)?;
        let count = writes.len();
        let mut writes = writes.into_iter().peekable();
        loop {
            let part: Vec<_> = writes.by_ref().take(WRITES_PER_RECLAIM).collect();
            let more = writes.peek().is_some();
            if let Err(refused) = self.tell_part(ministry, session, reign, part, more).await {
                return Some(refused);
            }
            if !more {
                tracing::debug!(%ministry, count, ?reign, "reclaimed");
                self.unlogged.reclaimed(ministry, session, reign);
                return None;
            }
        }
    }

    async fn tell_part(
        &self,
        ministry: MinistryId,
        session: SessionId,
        reign: ReignId,
        writes: Vec<UnloggedWrite>,
        more: bool,
    ) -> Result<(), Attempt<()>> {
        let request = ReclaimRequest { ministry, session, reign, writes, more };
        let attempt = self.ministries.attempt(ministry, |client, context| async move {
            client.reclaim(context, request).await
        });
        match attempt.await {
            Attempt::Done(()) => Ok(()),
            other => Err(other),
        }
    }

    /// Gives one sign of life, to hear what is logged.
    pub async fn refresh(&self, session: &Arc<Session>) {
        let (ministry, id) = (session.ministry, session.id);
        let request = KeepAliveRequest { ministry, session: id, closed: Vec::new() };
        let attempt = self.ministries.attempt(ministry, |client, context| async move {
            client.keep_alive(context, request).await
        });
        match attempt.await {
            Attempt::Done(reply) => self.unlogged.logged(ministry, reply.reign, reply.logged_until),
            Attempt::NotDone(Refused::ReclaimFirst(reign)) => {
                self.reclaim(session, Some(reign)).await;
            }
            Attempt::NotDone(refused) if self.ministries.is_end(ministry, refused) => {
                self.lost(session);
            }
            other => tracing::debug!(%ministry, ?other, "no sign of life was taken"),
        }
    }

    fn find_or_draw(&self, ministry: MinistryId) -> Arc<Session> {
        let mut table = self.table.lock();
        let session = table.entry(ministry).or_insert_with(|| {
            let mut id = SessionId::default();
            self.rng.lock().fill_bytes(&mut id.0);
            Arc::new(Session {
                ministry,
                id,
                slots: Slots::new(),
                opened: OnceCell::new(),
                reclaiming: tokio::sync::Mutex::default(),
            })
        });
        Arc::clone(session)
    }

    async fn open(
        self: &Arc<Sessions>,
        session: &Arc<Session>,
        backoff: &mut Backoff,
    ) -> Result<AbortOnDropHandle<()>, Refused> {
        let (ministry, id) = (session.ministry, session.id);
        loop {
            let attempt = self.ministries.attempt(ministry, |client, context| async move {
                client.open_session(context, ministry, id).await
            });
            match attempt.await {
                Attempt::Done(reply) => {
                    tracing::debug!(%ministry, session = %id, "session opened");
                    let keeper = Keeper {
                        ministry,
                        sessions: Arc::downgrade(self),
                        session: Arc::downgrade(session),
                        ministries: Arc::clone(&self.ministries),
                        open_files: Arc::clone(&self.open_files),
                    };
                    keeper.heard(&reply);
                    if !self.unlogged.begin_session(ministry, id, reply.reign) {
                        // Of a session that has ended; the minister may never have heard of them.
                        self.reclaim(session, None).await;
                    }
                    return Ok(AbortOnDropHandle::new(tokio::spawn(keeper.run())));
                }
                Attempt::NotDone(refused) if self.ministries.is_end(ministry, refused) => {
                    return Err(refused);
                }
                Attempt::NotDone(refused) => self.ministries.after_refusal(refused, backoff).await,
                Attempt::Unknown(doubt) => self.ministries.after_doubt(doubt, backoff).await,
            }
        }
    }
}

/// The task that renews one session. It ends with the session.
struct Keeper {
    ministry: MinistryId,
    sessions: Weak<Sessions>,
    session: Weak<Session>,
    ministries: Arc<Ministries>,
    open_files: Arc<OpenTable>,
}

impl Keeper {
    async fn run(self) {
        let mut due = Instant::now() + KEEP_ALIVE_INTERVAL;
        let mut told = self.ministries.epoch(self.ministry);
        loop {
            let confirm = tokio::select! {
                confirm = timeout_at(due, self.open_files.something_to_confirm()) => confirm.is_ok(),
                epoch = self.ministries.newer_epoch(self.ministry, told) => {
                    let (Some(sessions), Some(session)) =
                        (self.sessions.upgrade(), self.session.upgrade()) else { return };
                    told = epoch;
                    sessions.reclaim(&session, None).await;
                    continue;
                }
            };
            if confirm {
                tokio::time::sleep(CONFIRMATION_DELAY).await;
                let Some(session) = self.session.upgrade() else { return };
                if Instant::now() < due && self.closed_here(session.ministry).is_empty() {
                    continue;
                }
            }
            let sent = Instant::now();
            if !self.renew().await {
                return;
            }
            due = sent + KEEP_ALIVE_INTERVAL;
        }
    }

    /// Gives one sign of life, as often as needed; `false` when the session has ended.
    async fn renew(&self) -> bool {
        let mut backoff = Backoff::new();
        loop {
            let Some(session) = self.session.upgrade() else { return false };
            let (ministry, id) = (session.ministry, session.id);
            drop(session);
            let closed = self.closed_here(ministry);
            let request = KeepAliveRequest { ministry, session: id, closed: closed.clone() };
            let attempt = self.ministries.attempt(ministry, |client, context| async move {
                client.keep_alive(context, request).await
            });
            match attempt.await {
                Attempt::Done(reply) => {
                    self.open_files.confirmed(&closed);
                    self.heard(&reply);
                    return true;
                }
                Attempt::NotDone(refused) if self.ministries.is_end(ministry, refused) => {
                    if let (Some(sessions), Some(session)) =
                        (self.sessions.upgrade(), self.session.upgrade())
                    {
                        sessions.lost(&session);
                    }
                    return false;
                }
                Attempt::NotDone(refused) => {
                    if let (Refused::ReclaimFirst(reign), Some(sessions), Some(session)) =
                        (refused, self.sessions.upgrade(), self.session.upgrade())
                    {
                        sessions.reclaim(&session, Some(reign)).await;
                    }
                    self.ministries.after_refusal(refused, &mut backoff).await;
                }
                Attempt::Unknown(doubt) => self.ministries.after_doubt(doubt, &mut backoff).await,
            }
        }
    }

    fn closed_here(&self, ministry: MinistryId) -> Vec<InodeId> {
        let map = self.ministries.maps.newest();
        self.open_files.confirmations(CONFIRMATIONS_PER_CALL_MAX, |inode| {
            map.ownership.owner(inode) == Some(ministry)
        })
    }

    /// The minister asks about removed files.
    fn heard(&self, reply: &KeepAliveReply) {
        for orphan in &reply.orphans {
            self.open_files.orphaned(*orphan);
        }
        if let Some(sessions) = self.sessions.upgrade() {
            sessions.unlogged.logged(self.ministry, reply.reign, reply.logged_until);
        }
    }
}
