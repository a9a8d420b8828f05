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
//! heard in it is served only after it was; nothing is heard that was meant for another reign, since
//! the client forgets what it has told the newest (both [`Refusal::ReclaimFirst`]).
//!
//! [`Refusal::ReclaimFirst`]: ministry_wire::minister::Refusal::ReclaimFirst

use std::collections::BTreeSet;
use std::time::Duration;

use ministry_types::SessionId;
use ministry_types::limits::RECLAIM_GRACE;
use ministry_wire::minister::{Refusal, ReignId, UnloggedWrite};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// How often a waiting minister looks whether it can be reached.
const GRACE_STEP: Duration = Duration::from_millis(100);

/// What a new minister still has to hear. Of one reign.
#[derive(Debug)]
pub(super) struct Reclaim {
    reign: ReignId,
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
    /// Waits for these sessions, at the beginning of `reign`.
    pub fn new(reign: ReignId, sessions: BTreeSet<SessionId>) -> Reclaim {
        let inner = Inner { unheard: sessions, writes: Vec::new(), collecting: true };
        Reclaim {
            reign,
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
    /// once. Refuses what is meant for another reign than this.
    pub fn hear(
        &self,
        reign: ReignId,
        session: SessionId,
        writes: Vec<UnloggedWrite>,
        more: bool,
    ) -> Result<Vec<UnloggedWrite>, Refusal> {
        if reign != self.reign {
            return Err(Refusal::ReclaimFirst { reign: self.reign });
        }
        let mut inner = self.inner.lock();
        if !more {
            inner.unheard.remove(&session);
        }
        if !inner.collecting {
            return Ok(writes);
        }
        inner.writes.extend(writes.into_iter().map(|write| (session, write)));
        if inner.unheard.is_empty() {
            self.heard_all.notify_one();
        }
        Ok(Vec::new())
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
    use ministry_types::{Caller, Epoch, InodeId, Timestamp};

    const ONE: SessionId = SessionId([1; 16]);
    const TWO: SessionId = SessionId([2; 16]);
    const EARLIER: ReignId = ReignId { epoch: Epoch(1), incarnation: 1 };
    const REIGN: ReignId = ReignId { epoch: Epoch(1), incarnation: 2 };

    fn write(time: i64) -> UnloggedWrite {
        UnloggedWrite {
            slot: 0,
            sequence: time as u64,
            caller: Caller::root(),
            time: Some(Timestamp(time)),
            operation: Operation::Settle { inode: InodeId(5) },
        }
    }

    /// How much of what is told has to be carried out at once.
    fn hears(reclaim: &Reclaim, from: SessionId, told: Vec<UnloggedWrite>, more: bool) -> usize {
        reclaim.hear(REIGN, from, told, more).expect("it is meant for this reign").len()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_meant_for_another_reign_is_refused_and_counts_for_nothing() {
        let reclaim = Reclaim::new(REIGN, [ONE].into());
        let refused = Refusal::ReclaimFirst { reign: REIGN };
        let told = reclaim.hear(EARLIER, ONE, vec![write(1)], false);
        assert_eq!(told.unwrap_err(), refused);
        assert!(!reclaim.was_heard(ONE), "it has to tell this reign");
        assert!(reclaim.collect(|| true).await.is_empty());
        let told = reclaim.hear(EARLIER, ONE, vec![write(1)], false);
        assert_eq!(told.unwrap_err(), refused, "also when the grace is over");
    }

    #[tokio::test(start_paused = true)]
    async fn writes_of_all_sessions_come_in_the_order_of_their_times() {
        let reclaim = Reclaim::new(REIGN, [ONE, TWO].into());
        let unanswered = UnloggedWrite { time: None, ..write(7) };
        assert!(hears(&reclaim, ONE, vec![write(1), write(4), unanswered], false) == 0);
        assert!(hears(&reclaim, TWO, vec![write(2)], true) == 0);
        assert!(!reclaim.was_heard(TWO));
        assert!(hears(&reclaim, TWO, vec![write(3)], false) == 0);
        let told = reclaim.collect(|| true).await;
        let times: Vec<_> = told.iter().map(|(_, of)| of.time.map(|time| time.0)).collect();
        assert_eq!(times, [Some(1), Some(2), Some(3), Some(4), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_session_is_waited_for_no_longer_than_the_grace() {
        let reclaim = Reclaim::new(REIGN, [ONE, TWO].into());
        hears(&reclaim, ONE, vec![write(1)], false);
        let begun = tokio::time::Instant::now();
        assert_eq!(reclaim.collect(|| true).await.len(), 1);
        assert_eq!(begun.elapsed(), RECLAIM_GRACE);
        assert!(!reclaim.was_heard(TWO));
        assert_eq!(hears(&reclaim, TWO, vec![write(2)], false), 1, "carried out at once");
        assert!(reclaim.was_heard(TWO));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_reaches_the_minister_does_not_count() {
        let reclaim = Reclaim::new(REIGN, [ONE].into());
        let begun = tokio::time::Instant::now();
        let cut_off = RECLAIM_GRACE * 3;
        let told = reclaim.collect(|| begun.elapsed() > cut_off);
        let tell = async {
            tokio::time::sleep(cut_off + RECLAIM_GRACE / 2).await;
            hears(&reclaim, ONE, vec![write(1)], false)
        };
        let (told, late) = tokio::join!(told, tell);
        assert_eq!((told.len(), late), (1, 0));
    }
}
