//! What the minister has in memory and not yet in the log: writes into files, times of access.
//!
//! The rules are `ministry_namespace::soft`'s; here is the order. The office ([`super::Office`])
//! carries writes out here ([`SoftTable::write`]), lets every question look through it, and brings
//! it into the log: before another change of the same file ([`SoftTable::begin`]), at `fsync`, and
//! in rounds ([`SETTLE_INTERVAL`](ministry_types::limits::SETTLE_INTERVAL)).
//!
//! What must always hold: while a change of a file is on its way through the log, no write into
//! that file is carried out here, since it would be carried out over a state that is about to
//! change. What is laid over the state is taken away only after the state has it. Times that are
//! given out grow strictly within a reign.
//!
//! When the minister dies, this is lost, and the clients tell it to the next ([`super::reclaim`]).

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use ministry_namespace::{Namespace, Replay, SoftView, SoftWrite, Softly, Unlogged};
use ministry_types::kv::{KvError, KvRead};
use ministry_types::limits::{UNLOGGED_BYTES_MAX, UNLOGGED_FILES_MAX};
use ministry_types::operations::{ChangeResult, Operation};
use ministry_types::{Caller, InodeId, SessionId, Timestamp};
use ministry_wire::minister::{ReignId, RequestId, SoftMark};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The soft state of one reign.
#[derive(Debug, Default)]
pub(super) struct SoftTable {
    inner: Mutex<Inner>,
    freed: Notify,
    dirty: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    files: BTreeMap<InodeId, File>,
    /// Writes that were answered and are not in the log: the newest of each slot.
    answers: BTreeMap<(SessionId, u32), Answer>,
    /// Changes whose outcome nobody waited for: their files stay closed to writes until a later
    /// entry of the log tells that these are behind it.
    doubtful: Vec<InodeId>,
    bytes: usize,
    removals: u64,
    last_time: Timestamp,
    logged_until: Timestamp,
}

#[derive(Debug, Default)]
struct File {
    unlogged: Option<Arc<Unlogged>>,
    /// Changes of this file on their way through the log.
    in_flight: u32,
}

#[derive(Debug)]
struct Answer {
    sequence: u64,
    reply: ChangeResult,
    mark: SoftMark,
}

/// What came of a write.
#[derive(Debug)]
pub(super) enum Wrote {
    /// Answered; with a mark, if the log does not have it.
    Answered(ChangeResult, Option<SoftMark>),
    /// A later request of its slot was answered before.
    Stale,
    /// It has to go through the log.
    MustBeLogged,
    /// A change of the file is under way: wait, and try again.
    Occupied,
}

/// A change of one file on its way through the log.
#[derive(Debug)]
pub(super) struct Begun {
    table: Arc<SoftTable>,
    inode: Option<InodeId>,
    /// What has to be in the log before it.
    pub unlogged: Option<Arc<Unlogged>>,
}

impl SoftTable {
    /// A time that is larger than every one given out before.
    pub fn time(&self, now: Timestamp) -> Timestamp {
        self.inner.lock().time(now)
    }

    /// What is unlogged of an inode.
    pub fn look_up(&self, inode: InodeId) -> Option<Arc<Unlogged>> {
        self.inner.lock().files.get(&inode)?.unlogged.clone()
    }

    /// Whether another session has written what is unlogged of an inode.
    pub fn is_of_another(&self, inode: InodeId, session: SessionId) -> bool {
        self.look_up(inode).is_some_and(|unlogged| unlogged.is_of_another(session))
    }

    /// How often something was taken away: a question that looked at the state before and here
    /// after a removal has seen neither.
    pub fn removals(&self) -> u64 {
        self.inner.lock().removals
    }

    /// Every write that got a time up to this is in the log.
    pub fn logged_until(&self) -> Timestamp {
        self.inner.lock().logged_until
    }

    /// Whether nothing of the file is unlogged or under way.
    pub fn is_clean(&self, inode: InodeId) -> bool {
        let inner = self.inner.lock();
        inner.files.get(&inode).is_none_or(|file| {
            file.in_flight == 0 && file.unlogged.as_ref().is_none_or(|one| !one.is_written())
        })
    }

    /// What is remembered of a request: an answer, or that its slot has seen a later one.
    pub fn answered(&self, id: RequestId) -> Option<Wrote> {
        self.inner.lock().answered(id)
    }

    /// Carries a write out over `state`. With `time` it is one that an earlier minister had
    /// acknowledged at that time; else it gets a new one, not before `now`.
    pub fn write(
        &self,
        namespace: Namespace,
        state: &dyn KvRead,
        write: &Write<'_>,
    ) -> Result<Wrote, KvError> {
        let Write { id, caller, operation, reign, .. } = *write;
        let inode = operation.routing_inode();
        let mut inner = self.inner.lock();
        // A write that is told again is known by its time: its slot may have gone on.
        let again = write.time.is_some();
        if let Some(known) = inner.answered(id).filter(|_| !again) {
            return Ok(known);
        }
        if inner.files.get(&inode).is_some_and(|file| file.in_flight > 0) {
            return Ok(Wrote::Occupied);
        }
        if inner.bytes > UNLOGGED_BYTES_MAX || inner.files.len() >= UNLOGGED_FILES_MAX {
            return Ok(Wrote::MustBeLogged);
        }
        match namespace.replayed(state, id.session, id.slot, id.sequence)?.filter(|_| !again) {
            Some(Replay::Answered(reply)) => return Ok(Wrote::Answered(reply, None)),
            Some(Replay::Stale) => return Ok(Wrote::Stale),
            None => {}
        }
        let time = write.time.unwrap_or_else(|| inner.time(write.now));
        inner.last_time = inner.last_time.max(time);
        let softly = {
            let look_up =
                |inode| inner.files.get(&inode).and_then(|file: &File| file.unlogged.clone());
            let view = SoftView::new(namespace, state, &look_up);
            if again && namespace.newest_write(&view, inode)? >= time {
                return Ok(Wrote::Stale);
            }
            let RequestId { session, slot, sequence } = id;
            let soft = SoftWrite { caller, time, session, slot, sequence, operation };
            namespace.write_softly(&view, &soft, look_up(inode).as_deref())?
        };
        Ok(match softly {
            Softly::Answer(reply) => Wrote::Answered(reply, None),
            Softly::MustBeLogged => Wrote::MustBeLogged,
            Softly::Written { outcome, unlogged } => {
                let time = unlogged.newest().unwrap_or(time);
                inner.last_time = inner.last_time.max(time);
                inner.put(inode, unlogged);
                let (reply, mark) = (Ok(outcome), SoftMark { reign, time });
                let answer = Answer { sequence: id.sequence, reply: reply.clone(), mark };
                let known = inner.answers.entry((id.session, id.slot));
                let known = known.or_insert(Answer { sequence: 0, reply: reply.clone(), mark });
                if known.sequence < id.sequence {
                    *known = answer;
                }
                drop(inner);
                self.dirty.notify_one();
                Wrote::Answered(reply, Some(mark))
            }
        })
    }

    /// Notes that an object was read. Where a change is under way it is left out: a time of access
    /// is not worth waiting for.
    pub fn access(&self, inode: InodeId, now: Timestamp) {
        let mut inner = self.inner.lock();
        if inner.files.len() >= UNLOGGED_FILES_MAX {
            return;
        }
        let file = inner.files.entry(inode).or_default();
        if file.in_flight > 0 {
            return;
        }
        let unlogged = match &file.unlogged {
            Some(unlogged) => (**unlogged).clone().read(now),
            None => Unlogged::access(inode, now),
        };
        inner.put(inode, unlogged);
        drop(inner);
        self.dirty.notify_one();
    }

    /// A change of `inode` is about to be proposed. `None`: of no file that can be written to.
    pub fn begin(self: &Arc<SoftTable>, inode: Option<InodeId>) -> Begun {
        let unlogged = inode.and_then(|inode| {
            let mut inner = self.inner.lock();
            let file = inner.files.entry(inode).or_default();
            file.in_flight += 1;
            file.unlogged.clone()
        });
        Begun { table: Arc::clone(self), inode, unlogged }
    }

    /// Ends when a file may have become free for writes. To be created before the look at the file.
    pub fn freed(&self) -> tokio::sync::futures::Notified<'_> {
        self.freed.notified()
    }

    /// Ends when there is something to settle.
    pub async fn dirty(&self) {
        self.dirty.notified().await;
    }

    /// Files to settle now: those that were written to, and with `accesses` all of them. And the
    /// time up to which all writes are in the log when they are.
    pub fn to_settle(&self, accesses: bool) -> (Timestamp, Vec<InodeId>) {
        let inner = self.inner.lock();
        let wanted = |file: &File| {
            file.unlogged.as_ref().is_some_and(|unlogged| accesses || unlogged.is_written())
        };
        let files = inner.files.iter().filter(|(_, file)| wanted(file)).map(|(inode, _)| *inode);
        (inner.last_time, files.collect())
    }

    /// Everything up to `time` is in the log.
    pub fn settled(&self, time: Timestamp) {
        let mut inner = self.inner.lock();
        inner.logged_until = inner.logged_until.max(time);
    }

    /// Changes that nobody waited for; given back with [`SoftTable::resolved`].
    pub fn take_doubtful(&self) -> Vec<InodeId> {
        std::mem::take(&mut self.inner.lock().doubtful)
    }

    /// These are behind an entry that was applied (`done`), or still in doubt.
    pub fn resolved(&self, inodes: Vec<InodeId>, done: bool) {
        let mut inner = self.inner.lock();
        for inode in inodes {
            if done {
                inner.end(inode);
            } else {
                inner.doubtful.push(inode);
            }
        }
        drop(inner);
        self.freed.notify_waiters();
    }

    /// The session has ended: nobody asks again.
    pub fn forget_session(&self, session: SessionId) {
        let mut inner = self.inner.lock();
        let of = (session, 0)..=(session, u32::MAX);
        let slots: Vec<_> = inner.answers.range(of).map(|(key, _)| *key).collect();
        for slot in slots {
            inner.answers.remove(&slot);
        }
    }

    /// Files of which something is unlogged.
    pub fn files(&self) -> usize {
        self.inner.lock().files.len()
    }
}

/// A write as the office hands it over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Write<'a> {
    /// Identity of the request.
    pub id: RequestId,
    /// On whose behalf.
    pub caller: &'a Caller,
    /// What to write.
    pub operation: &'a Operation,
    /// The reign.
    pub reign: ReignId,
    /// The time of day.
    pub now: Timestamp,
    /// Of a write that is told again: the time that it got.
    pub time: Option<Timestamp>,
}

impl Inner {
    fn answered(&self, id: RequestId) -> Option<Wrote> {
        let answer = self.answers.get(&(id.session, id.slot))?;
        match answer.sequence.cmp(&id.sequence) {
            Ordering::Less => None,
            Ordering::Equal => Some(Wrote::Answered(answer.reply.clone(), Some(answer.mark))),
            Ordering::Greater => Some(Wrote::Stale),
        }
    }

    fn time(&mut self, now: Timestamp) -> Timestamp {
        self.last_time = self.last_time.advance(now);
        self.last_time
    }

    fn put(&mut self, inode: InodeId, unlogged: Unlogged) {
        self.bytes += unlogged.bytes();
        let file = self.files.entry(inode).or_default();
        if let Some(before) = file.unlogged.replace(Arc::new(unlogged)) {
            self.bytes -= before.bytes();
        }
    }

    /// The state has what was unlogged of this file when its change began.
    fn remove(&mut self, inode: InodeId, logged: &Arc<Unlogged>) {
        let Some(file) = self.files.get_mut(&inode) else { return };
        if let Some(unlogged) = file.unlogged.take_if(|now| Arc::ptr_eq(now, logged)) {
            self.bytes -= unlogged.bytes();
            self.removals += 1;
        }
        for answered in &logged.answered {
            let slot = (answered.session, answered.slot);
            if self.answers.get(&slot).is_some_and(|known| known.sequence == answered.sequence) {
                self.answers.remove(&slot);
            }
        }
    }

    fn end(&mut self, inode: InodeId) {
        let Some(file) = self.files.get_mut(&inode) else { return };
        assert!(file.in_flight > 0, "a change ends once");
        file.in_flight -= 1;
        if file.in_flight == 0 && file.unlogged.is_none() {
            self.files.remove(&inode);
        }
    }
}

impl Begun {
    /// The change was applied, and what had to come before it.
    pub fn logged(mut self) {
        let Some(inode) = self.inode.take() else { return };
        let mut inner = self.table.inner.lock();
        if let Some(unlogged) = &self.unlogged {
            inner.remove(inode, unlogged);
        }
        inner.end(inode);
        drop(inner);
        self.table.freed.notify_waiters();
    }
}

impl Drop for Begun {
    /// Nobody knows what became of the change: it may still be applied.
    fn drop(&mut self) {
        if let Some(inode) = self.inode {
            self.table.inner.lock().doubtful.push(inode);
            self.table.dirty.notify_one();
        }
    }
}
