//! Turns to append to a chunked file.
//!
//! Where the end of a file is, is known when everybody's earlier append is in it. So a client that
//! appends asks for the turn first, writes where the file ends, and tells of the write, which gives
//! the turn back. Turns are memory of a reign; nothing of them is logged.
//!
//! What must always hold: one holder a file; turns are given in the order in which they were asked
//! for. What a former holder still sends after the turn was given to the next must not land over
//! the next one's bytes: where a turn did not end by its own report, and at the first turn of a
//! file under each minister, the file is *fenced* first
//! ([`Command::Fence`](ministry_namespace::Command::Fence)): storage then refuses the former
//! holder's bytes as soon as it has seen the next one's.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ministry_types::limits::APPEND_TURN_TIMEOUT;
use ministry_types::{InodeId, SessionId};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Files whose last turn is remembered; one that is forgotten is fenced once more.
const REMEMBERED_MAX: usize = 16_384;

/// The turns of one reign.
#[derive(Debug, Default)]
pub(super) struct Turns {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    files: BTreeMap<InodeId, File>,
    last: u64,
}

#[derive(Debug)]
struct File {
    holder: Option<Holder>,
    waiting: VecDeque<u64>,
    fence_due: bool,
}

#[derive(Debug, Clone, Copy)]
struct Holder {
    session: SessionId,
    turn: u64,
    until: Instant,
}

/// A turn that was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Given {
    /// Its number.
    pub turn: u64,
    /// Whether the file has to be fenced before it is used.
    pub fence: bool,
}

/// A place in the queue; left when dropped.
struct Place<'a> {
    turns: &'a Turns,
    inode: InodeId,
    ticket: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut inner = self.turns.inner.lock();
        if let Some(file) = inner.files.get_mut(&self.inode) {
            file.waiting.retain(|ticket| *ticket != self.ticket);
        }
        drop(inner);
        self.turns.changed.notify_waiters();
    }
}

impl Turns {
    /// Waits for the turn until `deadline`; `None`: it was not to be had.
    ///
    /// Cancel safety: safe; the place in the queue is lost.
    pub async fn take(
        self: &Arc<Turns>,
        inode: InodeId,
        session: SessionId,
        deadline: Instant,
    ) -> Option<Given> {
        let place = self.queue(inode);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let now = Instant::now();
            let until = match self.try_take(&place, session, now) {
                Ok(given) => return Some(given),
                Err(until) => until.unwrap_or(deadline),
            };
            if now >= deadline {
                return None;
            }
            // Woken by a change, or to look whether the holder's time is over.
            let _either = timeout_at(until.min(deadline), changed).await;
        }
    }

    fn queue(&self, inode: InodeId) -> Place<'_> {
        let mut inner = self.inner.lock();
        inner.last += 1;
        let ticket = inner.last;
        if inner.files.len() >= REMEMBERED_MAX && !inner.files.contains_key(&inode) {
            inner.files.retain(|_, file| file.holder.is_some() || !file.waiting.is_empty());
        }
        let new = || File { holder: None, waiting: VecDeque::new(), fence_due: true };
        inner.files.entry(inode).or_insert_with(new).waiting.push_back(ticket);
        Place { turns: self, inode, ticket }
    }

    /// The turn, or until when somebody else has it.
    fn try_take(
        &self,
        place: &Place<'_>,
        session: SessionId,
        now: Instant,
    ) -> Result<Given, Option<Instant>> {
        let mut inner = self.inner.lock();
        let Some(file) = inner.files.get_mut(&place.inode) else { return Err(None) };
        if let Some(holder) = file.holder {
            if now < holder.until {
                return Err(Some(holder.until));
            }
            file.holder = None;
            file.fence_due = true;
        }
        if file.waiting.front() != Some(&place.ticket) {
            return Err(None);
        }
        let (turn, until) = (place.ticket, now + APPEND_TURN_TIMEOUT);
        file.holder = Some(Holder { session, turn, until });
        Ok(Given { turn, fence: std::mem::take(&mut file.fence_due) })
    }

    /// The turn is over: `cleanly`, all that was sent under it has arrived.
    pub fn end(&self, inode: InodeId, session: SessionId, turn: u64, cleanly: bool) {
        let mut inner = self.inner.lock();
        if let Some(file) = inner.files.get_mut(&inode) {
            let its_own = |holder: &mut Holder| (holder.session, holder.turn) == (session, turn);
            if file.holder.take_if(its_own).is_some() {
                file.fence_due |= !cleanly;
            }
        }
        drop(inner);
        self.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const FILE: InodeId = InodeId(7);
    const ONE: SessionId = SessionId([1; 16]);
    const TWO: SessionId = SessionId([2; 16]);

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(100)
    }

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_and_in_order() {
        let turns = Arc::new(Turns::default());
        let first = turns.take(FILE, ONE, soon()).await.unwrap();
        assert!(first.fence, "the first turn of a reign");
        assert_eq!(turns.take(FILE, TWO, soon()).await, None);
        let (a, b) = (Arc::clone(&turns), Arc::clone(&turns));
        let waiting = tokio::spawn(async move { a.take(FILE, TWO, soon()).await });
        tokio::task::yield_now().await;
        let behind = tokio::spawn(async move { b.take(FILE, ONE, soon()).await });
        tokio::task::yield_now().await;
        turns.end(FILE, ONE, first.turn, true);
        let second = waiting.await.unwrap().unwrap();
        assert!(!second.fence);
        turns.end(FILE, TWO, second.turn, true);
        assert!(behind.await.unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_was_not_given_back_is_fenced_off() {
        let turns = Arc::new(Turns::default());
        let first = turns.take(FILE, ONE, soon()).await.unwrap();
        let late = Instant::now() + 2 * APPEND_TURN_TIMEOUT;
        let second = turns.take(FILE, TWO, late).await.unwrap();
        assert!(second.fence);
        turns.end(FILE, ONE, first.turn, true);
        assert_eq!(turns.take(FILE, ONE, soon()).await, None, "it is another's by now");
        turns.end(FILE, TWO, second.turn, false);
        assert!(turns.take(FILE, ONE, soon()).await.unwrap().fence);
    }
}
