//! Advisory locks: `flock`, and the byte ranges of `fcntl`.
//!
//! Called by `apply`. Locks and the requests that wait for them are replicated: a new minister goes
//! on with all of them. Each inode with any has one record ([`LockTable`]); what is kept beside it
//! (which inodes a session has locks on, for whom an owner waits, how many there are) follows from
//! the difference that a change makes to that record, in one place (`store_locks`).
//!
//! What must always hold: a lock lives as long as its session and its inode at most. A request that
//! waits is granted by the change that takes the last obstacle away, and its name is noted in the
//! overlay, so that the minister can tell its client.
//!
//! Deadlocks are looked for when a process begins to wait for a holder, over all files of the
//! ministry. One that runs over two ministries is not found.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use ministry_types::kv::{KvError, KvRead};
use ministry_types::limits::{DEADLOCK_STEPS_MAX, LOCKS_PER_INODE_MAX, LOCKS_PER_SESSION_MAX};
use ministry_types::locks::{HeldLock, LockKind, LockOwner, LockProgress, LockRange};
use ministry_types::operations::{LockWait, Outcome};
use ministry_types::{FileKind, FsError, InodeId, SessionId};
use serde::{Deserialize, Serialize};

use crate::Namespace;
use crate::lock_table::{Holder, LockTable, Obstacle, Waiting, Wanted};
use crate::records::{Records, Ruled, Work, read_number, read_value};

/// How many locks there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockCount {
    /// Held by somebody.
    pub held: u64,
    /// Waited for.
    pub waiting: u64,
}

impl Records<'_> {
    fn locks(&self, inode: InodeId) -> Result<LockTable, KvError> {
        Ok(self.read(&self.keys.locks(inode))?.unwrap_or_default())
    }

    fn locks_of_session(&self, session: SessionId) -> Result<u64, KvError> {
        Ok(self.read(&self.keys.lock_count(session))?.unwrap_or(0))
    }

    fn lock_count(&self) -> Result<LockCount, KvError> {
        Ok(self.read(&self.keys.lock_total())?.unwrap_or_default())
    }

    /// A lock that is in the way of `wanted`.
    pub(crate) fn test_lock(&self, inode: InodeId, wanted: &Wanted) -> Ruled<Option<HeldLock>> {
        check_range(wanted.span.range)?;
        self.check_lockable(inode)?;
        Ok(self.locks(inode)?.first_in_the_way(wanted))
    }

    fn check_lockable(&self, inode: InodeId) -> Ruled<()> {
        // The kernel keeps the locks of everything else to itself.
        match self.inode(inode)?.attributes.kind {
            FileKind::Regular => Ok(()),
            _ => Err(FsError::Invalid.into()),
        }
    }

    /// The requests with which an owner waits: inode and number of each.
    fn waits_of(&self, holder: Holder) -> Result<Vec<(InodeId, u64)>, KvError> {
        let mut waits = Vec::new();
        let range = self.keys.lock_waits(holder.session, holder.owner.number);
        self.each(&range, |key, value| {
            waits.push((read_value(key, value)?, read_number(key)?));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(waits)
    }

    /// Whether waiting for these holders would be waiting for oneself.
    fn closes_circle(&self, waiter: Holder, table: &LockTable, wanted: &Wanted) -> Ruled<bool> {
        let mut to_visit: Vec<Holder> = table.blockers(wanted).collect();
        let mut visited = BTreeSet::new();
        while let Some(holder) = to_visit.pop() {
            if holder == waiter {
                return Ok(true);
            }
            if !visited.insert(holder) {
                continue;
            }
            if visited.len() > DEADLOCK_STEPS_MAX {
                return Ok(false);
            }
            for (inode, request) in self.waits_of(holder)? {
                let table = self.locks(inode)?;
                let name = (holder.session, request);
                let waits = table.waiting.iter().find(|one| one.name() == name);
                if let Some(waits) = waits {
                    to_visit.extend(table.blockers(&waits.wanted));
                }
            }
        }
        Ok(false)
    }
}

fn check_range(range: LockRange) -> Ruled<()> {
    if range.is_valid() { Ok(()) } else { Err(FsError::Invalid.into()) }
}

/// How many locks and requests of each session a table has.
fn per_session(table: &LockTable) -> BTreeMap<SessionId, i64> {
    let held = table.held.iter().map(|held| held.holder.session);
    let waiting = table.waiting.iter().map(|one| one.wanted.holder.session);
    let mut counts = BTreeMap::new();
    for session in held.chain(waiting) {
        *counts.entry(session).or_insert(0) += 1;
    }
    counts
}

fn length(list: &[impl Sized]) -> i64 {
    i64::try_from(list.len()).expect("a list in memory is shorter than that")
}

impl Work<'_> {
    /// Takes a lock, or waits for it.
    pub(crate) fn lock(
        &mut self,
        inode: InodeId,
        wanted: &Wanted,
        wait: LockWait,
    ) -> Ruled<Outcome> {
        check_range(wanted.span.range)?;
        let whole = wanted.span.range == LockRange::WHOLE;
        if wanted.holder.owner.kind == LockKind::Flock && !whole {
            return Err(FsError::Invalid.into());
        }
        self.records().check_lockable(inode)?;
        let before = self.records().locks(inode)?;
        if before.has(wanted) {
            return Ok(Outcome::Done);
        }
        let mut table = before.clone();
        // Whoever gives up a lock for another mode goes before those that wait, as one that holds.
        let obstacle = match wait {
            LockWait::No => table.obstacle_now(wanted),
            LockWait::Yes { .. } => table.obstacle(wanted),
        };
        let given_up = table.give_up_flock(wanted);
        let Some(obstacle) = obstacle else {
            self.check_room(&table, wanted.holder.session)?;
            table.grant(wanted);
            table.promote();
            self.store_locks(inode, &before, &table)?;
            return Ok(Outcome::Done);
        };
        let LockWait::Yes { request, find_deadlock } = wait else {
            if given_up {
                table.promote();
                self.store_locks(inode, &before, &table)?;
            }
            return Ok(Outcome::LockDenied);
        };
        if find_deadlock
            && obstacle == Obstacle::Held
            && self.records().closes_circle(wanted.holder, &table, wanted)?
        {
            return Err(FsError::Deadlock.into());
        }
        self.check_room(&table, wanted.holder.session)?;
        let waiting = Waiting { wanted: *wanted, request };
        if table.waiting.iter().any(|one| one.name() == waiting.name()) {
            return Err(FsError::Invalid.into());
        }
        table.waiting.push(waiting);
        if given_up {
            table.promote();
        }
        self.store_locks(inode, &before, &table)?;
        Ok(Outcome::LockWaiting)
    }

    fn check_room(&self, table: &LockTable, session: SessionId) -> Ruled<()> {
        let full = table.len() >= LOCKS_PER_INODE_MAX
            || self.records().locks_of_session(session)? >= LOCKS_PER_SESSION_MAX;
        if full { Err(FsError::NoLocks.into()) } else { Ok(()) }
    }

    /// Gives locks back.
    pub(crate) fn unlock(
        &mut self,
        inode: InodeId,
        session: SessionId,
        owner: LockOwner,
        range: LockRange,
        waiting_too: bool,
    ) -> Ruled<Outcome> {
        check_range(range)?;
        let holder = Holder { session, owner };
        let before = self.records().locks(inode)?;
        if !before.concerns(holder) {
            // Also where the inode is gone: its locks went with it.
            return Ok(Outcome::Unlocked { left: false });
        }
        let mut table = before.clone();
        if waiting_too {
            table.waiting.retain(|one| one.wanted.holder != holder);
        }
        table.release(holder, range);
        table.promote();
        self.store_locks(inode, &before, &table)?;
        Ok(Outcome::Unlocked { left: table.concerns(holder) })
    }

    /// Ends the wait of a request.
    pub(crate) fn cancel_lock(
        &mut self,
        inode: InodeId,
        session: SessionId,
        request: u64,
    ) -> Ruled<Outcome> {
        let before = self.records().locks(inode)?;
        let mut table = before.clone();
        if !table.cancel((session, request)) {
            return Ok(Outcome::Done);
        }
        table.promote();
        self.store_locks(inode, &before, &table)?;
        Ok(Outcome::LockCancelled)
    }

    /// A request has let others pass for long enough.
    pub(crate) fn insist_lock(
        &mut self,
        inode: InodeId,
        session: SessionId,
        request: u64,
    ) -> Ruled<Outcome> {
        let before = self.records().locks(inode)?;
        let mut table = before.clone();
        if !table.insist((session, request)) {
            return Ok(Outcome::LockWaiting);
        }
        self.store_locks(inode, &before, &table)?;
        Ok(Outcome::Done)
    }

    /// The locks and requests of a session end with it.
    pub(crate) fn end_locks(&mut self, session: SessionId) -> Ruled<()> {
        let mut inodes = Vec::new();
        self.records().each(&self.keys.locked_inodes(session), |key, _| {
            inodes.push(InodeId(read_number(key)?));
            Ok(ControlFlow::Continue(()))
        })?;
        for inode in inodes {
            let before = self.records().locks(inode)?;
            let mut table = before.clone();
            table.end_session(session);
            self.store_locks(inode, &before, &table)?;
        }
        Ok(())
    }

    /// The inode is gone, and its locks with it. Whoever still waits has what it wanted.
    pub(crate) fn remove_locks(&mut self, inode: InodeId) -> Ruled<()> {
        let before = self.records().locks(inode)?;
        if before.is_empty() {
            return Ok(());
        }
        self.store_locks(inode, &before, &LockTable::default())
    }

    /// Writes a table and everything that is kept beside it.
    fn store_locks(&mut self, inode: InodeId, before: &LockTable, after: &LockTable) -> Ruled<()> {
        if before == after {
            return Ok(());
        }
        if after.is_empty() {
            self.state.delete(self.keys.locks(inode));
        } else {
            self.write(self.keys.locks(inode), after);
        }
        let (old, new) = (per_session(before), per_session(after));
        for session in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
            let counts = [&old, &new].map(|counts| counts.get(session).copied().unwrap_or(0));
            self.count_session_locks(inode, *session, counts)?;
        }
        for gone in before.waiting.iter().filter(|one| !after.waiting.contains(one)) {
            self.state.delete(self.wait_key(gone));
            self.state.note_settled(gone.name());
        }
        for come in after.waiting.iter().filter(|one| !before.waiting.contains(one)) {
            self.write(self.wait_key(come), &inode);
        }
        let mut total = self.records().lock_count()?;
        let (held, waiting) = (
            length(&after.held) - length(&before.held),
            length(&after.waiting) - length(&before.waiting),
        );
        total.held = total.held.checked_add_signed(held).expect("locks are counted");
        total.waiting = total.waiting.checked_add_signed(waiting).expect("requests are counted");
        self.write_or_delete(self.keys.lock_total(), &total, total == LockCount::default());
        Ok(())
    }

    fn wait_key(&self, one: &Waiting) -> Vec<u8> {
        let Holder { session, owner } = one.wanted.holder;
        self.keys.lock_wait(session, owner.number, one.request)
    }

    fn count_session_locks(
        &mut self,
        inode: InodeId,
        session: SessionId,
        [old, new]: [i64; 2],
    ) -> Ruled<()> {
        let index = self.keys.locked_inode(session, inode);
        match (old, new) {
            (0, _) => self.state.put(index, Vec::new()),
            (_, 0) => self.state.delete(index),
            _ => {}
        }
        let count = self.records().locks_of_session(session)?;
        let count =
            count.checked_add_signed(new - old).expect("the locks of a session are counted");
        self.write_or_delete(self.keys.lock_count(session), &count, count == 0);
        Ok(())
    }

    fn write_or_delete<T: Serialize>(&mut self, key: Vec<u8>, record: &T, empty: bool) {
        if empty {
            self.state.delete(key);
        } else {
            self.write(key, record);
        }
    }
}

impl Namespace {
    /// How many locks there are.
    pub fn lock_count(&self, state: &dyn KvRead) -> Result<LockCount, KvError> {
        self.records(state).lock_count()
    }

    /// How a request for a lock stands that began to wait before this state.
    pub fn lock_progress(
        &self,
        state: &dyn KvRead,
        session: SessionId,
        inode: InodeId,
        request: u64,
    ) -> Result<LockProgress, KvError> {
        let obstacle = self.records(state).locks(inode)?.obstacle_of((session, request));
        Ok(match obstacle {
            Some(Obstacle::Held) => LockProgress::Waiting,
            Some(Obstacle::Turn) => LockProgress::WaitingForTurn,
            None => LockProgress::Settled,
        })
    }
}
