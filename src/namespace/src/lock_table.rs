//! The locks of one file: who holds what, who waits, and whose turn it is.
//!
//! [`crate::locks`] keeps one table for each inode on which anybody holds or wants a lock. Nothing
//! here reads or writes state.
//!
//! What must always hold: no two holders have locks that conflict. A request that waits is granted
//! as soon as no holder and no earlier request is in its way. Those of one kind never see those of
//! the other.
//!
//! Whose turn it is: requests are granted in the order of their arrival, where they conflict. A
//! request of a process that holds a lock on the file already goes before all that wait: they may
//! be waiting for that process, which must not wait for them. Two processes may depend on each
//! other in ways that nobody sees; so a request that only waits for its turn may insist
//! ([`LockTable::insist`]) after a time, and nobody waits for ever who would not do so on a local
//! file system.

use ministry_types::SessionId;
use ministry_types::locks::{HeldLock, LockKind, LockMode, LockOwner, LockRange};
use serde::{Deserialize, Serialize};

use crate::ranges::{self, Span};

/// Who holds or wants a lock, in the whole cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Holder {
    pub(crate) session: SessionId,
    pub(crate) owner: LockOwner,
}

/// A lock that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wanted {
    pub(crate) holder: Holder,
    pub(crate) pid: u32,
    pub(crate) span: Span,
}

/// A request that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Waiting {
    pub(crate) wanted: Wanted,
    /// Its number in the session.
    pub(crate) request: u64,
}

/// Names a request that waits: its session, and its number there.
pub(crate) type RequestName = (SessionId, u64);

impl Waiting {
    pub(crate) fn name(&self) -> RequestName {
        (self.wanted.holder.session, self.request)
    }
}

/// What is in the way of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// A lock that is held.
    Held,
    /// The turn of a request that came earlier.
    Turn,
}

/// The locks of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LockTable {
    /// Each lock is a [`Wanted`] that was granted; those of one holder lie in order.
    pub(crate) held: Vec<Wanted>,
    /// In the order of arrival.
    pub(crate) waiting: Vec<Waiting>,
}

fn conflict(one: &Wanted, other: &Wanted) -> bool {
    one.holder != other.holder
        && one.holder.owner.kind == other.holder.owner.kind
        && one.span.range.overlaps(other.span.range)
        && one.span.mode.conflicts(other.span.mode)
}

impl LockTable {
    /// Nobody holds or wants anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.waiting.is_empty()
    }

    /// Locks and requests.
    pub(crate) fn len(&self) -> usize {
        self.held.len() + self.waiting.len()
    }

    /// The holders that a request would have to wait for.
    pub(crate) fn blockers(&self, wanted: &Wanted) -> impl Iterator<Item = Holder> {
        self.held.iter().filter(|held| conflict(held, wanted)).map(|held| held.holder)
    }

    /// The lock with the lowest offset that is in the way of a request.
    pub(crate) fn first_in_the_way(&self, wanted: &Wanted) -> Option<HeldLock> {
        let in_the_way = self.held.iter().filter(|held| conflict(held, wanted));
        let first = in_the_way.min_by_key(|held| (held.span.range, held.holder))?;
        let Wanted { holder, pid, span } = *first;
        Some(HeldLock { session: holder.session, pid, mode: span.mode, range: span.range })
    }

    /// What is in the way of a request that arrives now.
    pub(crate) fn obstacle(&self, wanted: &Wanted) -> Option<Obstacle> {
        self.obstacle_before(wanted, self.waiting.len())
    }

    /// What is in the way of a request that does not wait: the locks that are held. Those that wait
    /// have nothing yet that it could take from them.
    pub(crate) fn obstacle_now(&self, wanted: &Wanted) -> Option<Obstacle> {
        self.obstacle_before(wanted, 0)
    }

    /// What is in the way of a request before which `earlier` requests wait.
    fn obstacle_before(&self, wanted: &Wanted, earlier: usize) -> Option<Obstacle> {
        if self.blockers(wanted).next().is_some() {
            return Some(Obstacle::Held);
        }
        let goes_first = self.held.iter().any(|held| {
            let (holder, other) = (&wanted.holder, &held.holder);
            // Processes of another name space of processes are all told as 0.
            let same_process =
                holder.session == other.session && wanted.pid == held.pid && wanted.pid != 0;
            holder.owner.kind == other.owner.kind && (same_process || holder == other)
        });
        let waits = self.waiting.iter().take(earlier).any(|one| conflict(&one.wanted, wanted));
        (waits && !goes_first).then_some(Obstacle::Turn)
    }

    /// Gives a lock to a holder, over whatever it has there.
    pub(crate) fn grant(&mut self, wanted: &Wanted) {
        assert!(self.blockers(wanted).next().is_none(), "a lock is granted to one alone");
        self.set(wanted.holder, wanted.span.range, Some((wanted.span.mode, wanted.pid)));
    }

    /// Takes a range from a holder.
    pub(crate) fn release(&mut self, holder: Holder, range: LockRange) {
        self.set(holder, range, None);
    }

    fn set(&mut self, holder: Holder, range: LockRange, to: Option<(LockMode, u32)>) {
        let own: Vec<Wanted> =
            self.held.iter().copied().filter(|held| held.holder == holder).collect();
        let spans: Vec<Span> = own.iter().map(|held| held.span).collect();
        let pid = to.map(|(_, pid)| pid).or(own.first().map(|held| held.pid));
        self.held.retain(|held| held.holder != holder);
        let Some(pid) = pid else { return };
        let spans = ranges::set(&spans, range, to.map(|(mode, _)| mode));
        self.held.extend(spans.into_iter().map(|span| Wanted { holder, pid, span }));
    }

    /// Whether the holder has exactly this.
    pub(crate) fn has(&self, wanted: &Wanted) -> bool {
        let mut own = self.held.iter().filter(|held| held.holder == wanted.holder);
        own.any(|held| held.span == wanted.span)
    }

    /// Whether the holder holds or wants anything.
    pub(crate) fn concerns(&self, holder: Holder) -> bool {
        self.held.iter().any(|held| held.holder == holder)
            || self.waiting.iter().any(|one| one.wanted.holder == holder)
    }

    /// Takes away a lock of an open file whose mode is to be changed: `flock` sets the new one only
    /// after the old one is gone. Whether there was one.
    pub(crate) fn give_up_flock(&mut self, wanted: &Wanted) -> bool {
        let changes = wanted.holder.owner.kind == LockKind::Flock
            && self
                .held
                .iter()
                .any(|held| held.holder == wanted.holder && held.span.mode != wanted.span.mode);
        if changes {
            self.release(wanted.holder, LockRange::WHOLE);
        }
        changes
    }

    /// A request waits no more. Whether it did.
    pub(crate) fn cancel(&mut self, name: RequestName) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|one| one.name() != name);
        self.waiting.len() < before
    }

    /// Grants what waits for nothing any more.
    pub(crate) fn promote(&mut self) {
        let mut at = 0;
        while let Some(next) = self.waiting.get(at).copied() {
            if self.obstacle_before(&next.wanted, at).is_some() {
                at += 1;
                continue;
            }
            self.waiting.remove(at);
            self.grant(&next.wanted);
            // It may have changed an exclusive lock of its holder into a shared one.
            at = 0;
        }
    }

    /// What is in the way of a request that waits.
    pub(crate) fn obstacle_of(&self, name: RequestName) -> Option<Obstacle> {
        let at = self.waiting.iter().position(|one| one.name() == name)?;
        let wanted = self.waiting.get(at)?.wanted;
        // What waits has an obstacle, else it would have been granted.
        Some(self.obstacle_before(&wanted, at).unwrap_or(Obstacle::Turn))
    }

    /// Grants a request that only waits for its turn. Whether it waits no more.
    pub(crate) fn insist(&mut self, name: RequestName) -> bool {
        let Some(at) = self.waiting.iter().position(|one| one.name() == name) else {
            return true;
        };
        let Some(wanted) = self.waiting.get(at).map(|one| one.wanted) else { return true };
        if self.blockers(&wanted).next().is_some() {
            return false;
        }
        self.waiting.remove(at);
        self.grant(&wanted);
        self.promote();
        true
    }

    /// Nothing of a session is left.
    pub(crate) fn end_session(&mut self, session: SessionId) {
        self.held.retain(|held| held.holder.session != session);
        self.waiting.retain(|one| one.wanted.holder.session != session);
        self.promote();
    }
}
