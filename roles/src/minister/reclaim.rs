//! The beginning of a reign: clients tell what the minister before had not logged.
//!
//! Writes that were acknowledged and not logged live in the memory of the minister and of the
//! client that made them. A new minister therefore hears every session that it knows before it
//! serves anybody, and carries the writes out in the order of the times that they had got. Of a
//! session that stays silent it waits no longer than
//! [`RECLAIM_GRACE`](ministry_types::limits::RECLAIM_GRACE): then client and minister have died
//! within the same moment, and what was not synced is lost, as on any machine.
//!
//! What must always hold: nothing is answered before the grace is over; a session that was not
//! heard in it is served only after it was ([`Refusal::ReclaimFirst`]).
//!
//! [`Refusal::ReclaimFirst`]: ministry_wire::minister::Refusal::ReclaimFirst

use std::collections::BTreeSet;
use std::time::Duration;

use ministry_types::SessionId;
use ministry_types::limits::RECLAIM_GRACE;
use ministry_wire::minister::UnloggedWrite;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// How often a waiting minister looks whether it can be reached.
const GRACE_STEP: Duration = Duration::from_millis(100);

/// What a new minister still has to hear. Of one reign.
#[derive(Debug)]
pub(super) struct Reclaim {
    inner: Mutex<Inner>,
    heard_all: Notify,
    open: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Inner {
    unheard: BTreeSet<SessionId>,
    writes: Vec<(SessionId, UnloggedWrite)>,
    collecting: bool,
}

impl Reclaim {
    /// Waits for these sessions.
    pub fn new(sessions: BTreeSet<SessionId>) -> Reclaim {
        let inner = Inner { unheard: sessions, writes: Vec::new(), collecting: true };
        Reclaim {
            inner: Mutex::new(inner),
            heard_all: Notify::new(),
            open: watch::Sender::new(false),
        }
    }

    /// Whether the session has been heard, or has nothing to tell.
    pub fn was_heard(&self, session: SessionId) -> bool {
        !self.inner.lock().unheard.contains(&session)
    }

    /// Takes down what a session tells. Gives it back when the grace is over: to be carried out at
    /// once.
    pub fn hear(
        &self,
        session: SessionId,
        writes: Vec<UnloggedWrite>,
        more: bool,
    ) -> Vec<UnloggedWrite> {
        let mut inner = self.inner.lock();
        if !more {
            inner.unheard.remove(&session);
        }
        if !inner.collecting {
            return writes;
        }
        inner.writes.extend(writes.into_iter().map(|write| (session, write)));
        if inner.unheard.is_empty() {
            self.heard_all.notify_one();
        }
        Vec::new()
    }

    /// The session has ended: nothing more will come of it.
    pub fn forget(&self, session: SessionId) {
        let mut inner = self.inner.lock();
        inner.unheard.remove(&session);
        if inner.unheard.is_empty() {
            self.heard_all.notify_one();
        }
    }

    /// Waits until every session was heard, or the grace is over. Answers the writes in order. Time
    /// in which the minister was out of `reach` does not count: clients cannot tell it anything then.
    pub async fn collect(&self, reach: impl Fn() -> bool) -> Vec<(SessionId, UnloggedWrite)> {
        let mut left = RECLAIM_GRACE;
        while !self.inner.lock().unheard.is_empty() && !left.is_zero() {
            let step = left.min(GRACE_STEP);
            if timeout(step, self.heard_all.notified()).await.is_err() && reach() {
                left -= step;
            }
        }
        let mut inner = self.inner.lock();
        inner.collecting = false;
        let mut writes = std::mem::take(&mut inner.writes);
        drop(inner);
        // Those that nobody has acknowledged come last, in the order in which they were told.
        writes.sort_by_key(|(_, write)| (write.time.is_none(), write.time));
        writes
    }

    /// From now on everybody is served.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until everybody is served.
    pub async fn opened(&self) {
        let mut open = self.open.subscribe();
        let _ended_with_its_reign = open.wait_for(|open| *open).await.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ministry_types::operations::Operation;
    use ministry_types::{Caller, InodeId, Timestamp};

    const ONE: SessionId = SessionId([1; 16]);
    const TWO: SessionId = SessionId([2; 16]);

    fn write(time: i64) -> UnloggedWrite {
        UnloggedWrite {
            slot: 0,
            sequence: time as u64,
            caller: Caller::root(),
            time: Some(Timestamp(time)),
            operation: Operation::Settle { inode: InodeId(5) },
        }
    }

    #[tokio::test(start_paused = true)]
    async fn writes_of_all_sessions_come_in_the_order_of_their_times() {
        let reclaim = Reclaim::new([ONE, TWO].into());
        let unanswered = UnloggedWrite { time: None, ..write(7) };
        assert!(reclaim.hear(ONE, vec![write(1), write(4), unanswered], false).is_empty());
        assert!(reclaim.hear(TWO, vec![write(2)], true).is_empty());
        assert!(!reclaim.was_heard(TWO));
        assert!(reclaim.hear(TWO, vec![write(3)], false).is_empty());
        let told = reclaim.collect(|| true).await;
        let times: Vec<_> = told.iter().map(|(_, of)| of.time.map(|time| time.0)).collect();
        assert_eq!(times, [Some(1), Some(2), Some(3), Some(4), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_session_is_waited_for_no_longer_than_the_grace() {
        let reclaim = Reclaim::new([ONE, TWO].into());
        reclaim.hear(ONE, vec![write(1)], false);
        let begun = tokio::time::Instant::now();
        assert_eq!(reclaim.collect(|| true).await.len(), 1);
        assert_eq!(begun.elapsed(), RECLAIM_GRACE);
        assert!(!reclaim.was_heard(TWO));
        assert_eq!(reclaim.hear(TWO, vec![write(2)], false).len(), 1, "carried out at once");
        assert!(reclaim.was_heard(TWO));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_reaches_the_minister_does_not_count() {
        let reclaim = Reclaim::new([ONE].into());
        let begun = tokio::time::Instant::now();
        let cut_off = RECLAIM_GRACE * 3;
        let told = reclaim.collect(|| begun.elapsed() > cut_off);
        let tell = async {
            tokio::time::sleep(cut_off + RECLAIM_GRACE / 2).await;
            reclaim.hear(ONE, vec![write(1)], false)
        };
        let (told, late) = tokio::join!(told, tell);
        assert_eq!((told.len(), late.len()), (1, 0));
    }
}
