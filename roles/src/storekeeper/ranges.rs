//! Who may work on which bytes of an inode now.
//!
//! Each request that reads or changes bytes takes a place in the queue of its placement group and
//! inode, and begins when no earlier place conflicts with it. A master keeps the place until every
//! in-sync member has the change, so that:
//! - overlapping writes are carried out one after the other, and so in the same order everywhere,
//!   whatever is sent again;
//! - a read never sees bytes that are not at every in-sync member (as in CRAQ, reads wait).
//!
//! A slave keeps the place while it works, so that a request that came twice is not carried out by
//! two threads at once. The key has the placement group in it, because two groups may have the
//! same two nodes with the roles exchanged, and would wait for each other.
//!
//! What must always hold: of two places that conflict the earlier one goes first. Dropping a
//! [`Place`] gives it back, granted or not.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use ministry_types::placement::mix;
use ministry_types::{InodeId, PgId};
use ministry_wire::data::DataError;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// So that unrelated inodes rarely meet at one lock.
const SHARDS: usize = 64;
/// Places in one queue: a release looks at each of them.
const PLACES_MAX: usize = 512;

/// Whose bytes.
pub(super) type Key = (PgId, InodeId);

/// What a request is about to do with an inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    /// Which bytes of the file.
    pub(super) bytes: Range<u64>,
    /// It leaves the bytes as they are.
    pub(super) shared: bool,
    /// The newest cut it knows. Requests of different cuts are never under way together: the
    /// first one of a new cut makes it, and what comes from before it must be through by then.
    pub(super) cut: u64,
}

impl Claim {
    fn conflicts(&self, other: &Claim) -> bool {
        let overlap = self.bytes.start < other.bytes.end && other.bytes.start < self.bytes.end;
        self.cut != other.cut || (overlap && !(self.shared && other.shared))
    }
}

/// The queues of all inodes that are in use.
pub(super) struct RangeQueues {
    shards: [Mutex<BTreeMap<Key, Queue>>; SHARDS],
}

#[derive(Default)]
struct Queue {
    next: u64,
    places: BTreeMap<u64, Entry>,
}

struct Entry {
    claim: Claim,
    /// `None` once granted.
    grant: Option<oneshot::Sender<()>>,
}

/// A place in a queue.
pub(super) struct Place {
    queues: Arc<RangeQueues>,
    key: Key,
    number: u64,
    /// `None` once granted.
    granted: Option<oneshot::Receiver<()>>,
}

impl RangeQueues {
    pub(super) fn new() -> Arc<RangeQueues> {
        Arc::new(RangeQueues { shards: std::array::from_fn(|_| Mutex::default()) })
    }

    /// Takes the next place; refuses as [`DataError::Busy`] when the queue is full.
    pub(super) fn enter(self: &Arc<Self>, key: Key, claim: Claim) -> Result<Place, DataError> {
        let mut queues = self.shard(key).lock();
        let queue = queues.entry(key).or_default();
        if queue.places.len() >= PLACES_MAX {
            return Err(DataError::Busy);
        }
        let number = queue.next;
        queue.next += 1;
        let (grant, granted) = if queue.is_free(number, &claim) {
            (None, None)
        } else {
            let (grant, granted) = oneshot::channel();
            (Some(grant), Some(granted))
        };
        queue.places.insert(number, Entry { claim, grant });
        Ok(Place { queues: Arc::clone(self), key, number, granted })
    }

    /// Places that are taken, for tests.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let places = |shard: &Mutex<BTreeMap<Key, Queue>>| -> usize {
            shard.lock().values().map(|queue| queue.places.len()).sum()
        };
        self.shards.iter().map(places).sum()
    }

    fn shard(&self, (pg, inode): Key) -> &Mutex<BTreeMap<Key, Queue>> {
        &self.shards[(mix(inode.0 ^ u64::from(pg.0)) % SHARDS as u64) as usize]
    }

    fn leave(&self, key: Key, number: u64) {
        let mut queues = self.shard(key).lock();
        let queue = queues.get_mut(&key).expect("a place keeps its queue");
        let left = queue.places.remove(&number).expect("a place is left once").claim;
        if queue.places.is_empty() {
            queues.remove(&key);
            return;
        }
        let waiting = queue.places.range(number..).filter(|(_, entry)| entry.grant.is_some());
        let free: Vec<u64> = waiting
            .filter(|(_, entry)| entry.claim.conflicts(&left))
            .filter(|(number, entry)| queue.is_free(**number, &entry.claim))
            .map(|(number, _)| *number)
            .collect();
        for number in free {
            if let Some(grant) = queue.places.get_mut(&number).and_then(|entry| entry.grant.take())
            {
                // The receiver may be about to drop its place; then it leaves in turn.
                let _ = grant.send(());
            }
        }
    }
}

impl Queue {
    fn is_free(&self, number: u64, claim: &Claim) -> bool {
        !self.places.range(..number).any(|(_, earlier)| earlier.claim.conflicts(claim))
    }
}

impl Place {
    /// Waits until nothing earlier is in the way.
    ///
    /// Cancel safety: safe; the place stays where it is in the queue.
    pub(super) async fn granted(&mut self) {
        if let Some(granted) = &mut self.granted {
            granted.await.expect("a queue grants before it forgets");
            self.granted = None;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queues.leave(self.key, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const KEY: Key = (PgId(1), InodeId(2));

    fn claim(bytes: Range<u64>, shared: bool, cut: u64) -> Claim {
        Claim { bytes, shared, cut }
    }

    fn is_granted(place: &mut Place) -> bool {
        place.granted().now_or_never().is_some()
    }

    #[test]
    fn overlapping_changes_go_one_after_the_other_in_the_order_they_came() {
        let queues = RangeQueues::new();
        let mut first = queues.enter(KEY, claim(0..10, false, 0)).unwrap();
        let mut second = queues.enter(KEY, claim(5..15, false, 0)).unwrap();
        let mut third = queues.enter(KEY, claim(12..20, false, 0)).unwrap();
        let mut apart = queues.enter(KEY, claim(20..30, false, 0)).unwrap();
        assert!(is_granted(&mut first) && is_granted(&mut apart));
        assert!(!is_granted(&mut second));
        assert!(!is_granted(&mut third), "the third waits for the second, which only waits");
        drop(second);
        assert!(is_granted(&mut third));
        drop((first, third, apart));
        assert_eq!(queues.len(), 0);
    }

    #[test]
    fn reads_share_bytes_with_reads_and_wait_for_changes() {
        let queues = RangeQueues::new();
        let mut read = queues.enter(KEY, claim(0..10, true, 0)).unwrap();
        let mut other = queues.enter(KEY, claim(0..10, true, 0)).unwrap();
        let mut write = queues.enter(KEY, claim(9..10, false, 0)).unwrap();
        let mut late = queues.enter(KEY, claim(0..10, true, 0)).unwrap();
        assert!(is_granted(&mut read) && is_granted(&mut other));
        assert!(!is_granted(&mut write) && !is_granted(&mut late));
        drop(read);
        assert!(!is_granted(&mut write));
        drop(other);
        assert!(is_granted(&mut write));
        drop(write);
        assert!(is_granted(&mut late));
    }

    #[test]
    fn requests_of_different_cuts_are_never_under_way_together() {
        let queues = RangeQueues::new();
        let mut old = queues.enter(KEY, claim(0..10, true, 5)).unwrap();
        let mut cut = queues.enter(KEY, claim(90..99, true, 6)).unwrap();
        let mut same = queues.enter(KEY, claim(50..60, false, 6)).unwrap();
        assert!(is_granted(&mut old) && !is_granted(&mut cut) && !is_granted(&mut same));
        drop(old);
        assert!(is_granted(&mut cut) && is_granted(&mut same));
    }

    #[test]
    fn a_queue_is_bounded_and_other_inodes_do_not_notice() {
        let queues = RangeQueues::new();
        let places: Vec<_> =
            (0..PLACES_MAX).map(|_| queues.enter(KEY, claim(0..1, true, 0)).unwrap()).collect();
        assert_eq!(queues.enter(KEY, claim(0..1, true, 0)).err(), Some(DataError::Busy));
        assert!(queues.enter((PgId(2), InodeId(2)), claim(0..1, false, 0)).is_ok());
        drop(places);
        assert_eq!(queues.len(), 0);
    }
}
