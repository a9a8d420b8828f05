//! Replay slots: what makes a change happen exactly once.
//!
//! A session has a fixed number of slots, each carries one change at a time. A change takes a free
//! slot and the next sequence number in it; every retry goes under the same (slot, sequence), so
//! the ministry answers a repeated one from memory. Used by [`crate::calls`].
//!
//! Questions have no replay, only a bound: [`Slots::ask`].
//!
//! What must always hold: a sequence number names one change for ever. A change that was given up,
//! by its deadline or because its caller went away, leaves its number used: the next change of the
//! slot has a larger one, and whatever still arrives of the old one after that is refused.

use std::sync::Arc;

use ministry_types::limits::{QUESTIONS_PER_SESSION, SLOTS_PER_SESSION};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// The slots of one session.
#[derive(Debug)]
pub(crate) struct Slots {
    free: Mutex<Vec<Slot>>,
    permits: Arc<Semaphore>,
    questions: Semaphore,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    number: u32,
    last_sequence: u64,
}

/// A slot that carries one change; freed when dropped.
#[derive(Debug)]
pub(crate) struct TakenSlot {
    slots: Arc<Slots>,
    slot: Slot,
    // Given back after the slot is: a permit promises a free slot.
    _permit: OwnedSemaphorePermit,
}

impl Slots {
    /// All slots, none used yet.
    pub fn new() -> Arc<Slots> {
        let slot = |number| Slot { number, last_sequence: 0 };
        Arc::new(Slots {
            // The lowest number on top, so that a quiet client uses few of them.
            free: Mutex::new((0..SLOTS_PER_SESSION).rev().map(slot).collect()),
            permits: Arc::new(Semaphore::new(SLOTS_PER_SESSION as usize)),
            questions: Semaphore::new(QUESTIONS_PER_SESSION),
        })
    }

    /// Waits for a place among the questions under way.
    ///
    /// Cancel safety: safe.
    pub async fn ask(&self) -> SemaphorePermit<'_> {
        self.questions.acquire().await.expect("the semaphore is never closed")
    }

    /// Waits for a free slot and takes it for one new change.
    ///
    /// Cancel safety: safe; a slot is taken only when this returns.
    pub async fn take(self: &Arc<Slots>) -> TakenSlot {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let mut slot = self.free.lock().pop().expect("a permit promises a free slot");
        slot.last_sequence += 1;
        TakenSlot { slots: Arc::clone(self), slot, _permit: permit }
    }
}

impl TakenSlot {
    /// Number of the slot.
    pub fn number(&self) -> u32 {
        self.slot.number
    }

    /// Number of the change within the slot.
    pub fn sequence(&self) -> u64 {
        self.slot.last_sequence
    }
}

impl Drop for TakenSlot {
    fn drop(&mut self) {
        self.slots.free.lock().push(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_slot_never_uses_a_sequence_twice_and_is_never_shared() {
        let slots = Slots::new();
        let mut taken = Vec::new();
        for _ in 0..SLOTS_PER_SESSION {
            taken.push(slots.take().await);
        }
        let mut numbers: Vec<_> = taken.iter().map(TakenSlot::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), SLOTS_PER_SESSION as usize);
        assert!(slots.take().now_or_never().is_none(), "every slot is in use");

        let given_up = taken.pop().unwrap();
        let (number, sequence) = (given_up.number(), given_up.sequence());
        drop(given_up);
        let next = slots.take().await;
        assert_eq!((next.number(), next.sequence()), (number, sequence + 1));
    }
}
