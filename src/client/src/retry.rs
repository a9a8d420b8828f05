//! Trying again: what one attempt of a call can come to, and how long to wait before the next.
//!
//! Used by every loop over attempts. Only three outcomes reach such a loop: done, not done,
//! unknown. After *not done* a change may be tried under a new identity; after *unknown* only
//! under the same one, for it may have been carried out and its reply lost.

use std::time::Duration;

use ministry_types::MapVersion;
use ministry_wire::minister::ReignId;
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;

/// What one attempt came to.
#[derive(Debug)]
pub(crate) enum Attempt<T> {
    /// Answered.
    Done(T),
    /// Certainly nothing was done by this attempt.
    NotDone(Refused),
    /// It may or may not have been done.
    Unknown(Doubt),
}

/// Why nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The map names nobody to ask.
    NobodyKnown,
    /// The node was not reached.
    Unreachable,
    /// The node is not the minister; it may have named another one.
    NotMinister {
        /// It named a node that was not asked yet.
        hint: bool,
    },
    /// Another ministry owns the inode, as the map of this version says.
    WrongMinistry(MapVersion),
    /// The session has ended.
    UnknownSession,
    /// The slot has seen a later change.
    Stale,
    /// Too much under way there.
    Busy(Duration),
    /// A new minister wants to hear of unlogged writes first.
    ReclaimFirst(ReignId),
}

/// Why the outcome is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// No answer in the time of an attempt.
    NoAnswer,
    /// The connection broke under the call.
    Broken,
    /// Another minister was appointed while the call was under way.
    Moved,
    /// The minister does not know itself.
    Unresolved,
}

impl Refused {
    /// The word for the metric of retries.
    pub fn word(self) -> &'static str {
        match self {
            Refused::NobodyKnown => "nobody_known",
            Refused::Unreachable => "unreachable",
            Refused::NotMinister { .. } => "not_minister",
            Refused::WrongMinistry(_) => "wrong_ministry",
            Refused::UnknownSession => "unknown_session",
            Refused::Stale => "stale",
            Refused::Busy(_) => "busy",
            Refused::ReclaimFirst(_) => "reclaim_first",
        }
    }
}

impl Doubt {
    /// The word for the metric of retries.
    pub fn word(self) -> &'static str {
        match self {
            Doubt::NoAnswer => "no_answer",
            Doubt::Broken => "broken",
            Doubt::Moved => "moved",
            Doubt::Unresolved => "unresolved",
        }
    }
}

/// Waits that grow: 10 ms doubling to 200 ms, each spread by a quarter so that many clients do not
/// come back at the same moment.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    hints_followed: u32,
}

const WAIT_MIN: Duration = Duration::from_millis(10);
const WAIT_MAX: Duration = Duration::from_millis(200);
/// Two nodes that name each other must not make a loop without a wait.
const HINTS_IN_A_ROW_MAX: u32 = 2;

impl Backoff {
    /// Before the first failure.
    pub fn new() -> Backoff {
        Backoff { next: WAIT_MIN, hints_followed: 0 }
    }

    /// How long to wait now.
    pub fn wait(&mut self, rng: &Mutex<SmallRng>) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(WAIT_MAX);
        self.hints_followed = 0;
        wait.mul_f64(rng.lock().random_range(0.75..1.25))
    }

    /// Whether a hint may be followed at once, without a wait.
    pub fn follow_hint(&mut self) -> bool {
        self.hints_followed += 1;
        self.hints_followed <= HINTS_IN_A_ROW_MAX
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_hints_do_not_make_a_loop() {
        let rng = Mutex::new(SmallRng::seed_from_u64(1));
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..10).map(|_| backoff.wait(&rng)).collect();
        assert!(waits[0] < Duration::from_millis(13), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= Duration::from_millis(250)), "{waits:?}");
        assert!(waits[9] >= Duration::from_millis(150), "{waits:?}");
        let followed: Vec<_> = (0..3).map(|_| backoff.follow_hint()).collect();
        assert_eq!(followed, [true, true, false]);
    }
}
