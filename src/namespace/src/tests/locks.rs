//! Locks through commands: who gets what, who waits, and what is left when sessions end.

use ministry_types::FsError;
use ministry_types::kv::{Batch, Kv, KvRead};
use ministry_types::limits::LOCKS_PER_SESSION_MAX;
use ministry_types::locks::{HeldLock, LockKind, LockMode, LockOwner, LockProgress, LockRange};
use ministry_types::operations::{Answer, ChangeResult, LockWait, Operation, Outcome, Query};
use ministry_types::{Caller, InodeId, SessionId};

use super::world::{ROOT, SESSION, World};
use crate::command::encode;
use crate::keys::Keys;
use crate::{Command, CommandReply, LockCount, Overlay};

use LockMode::{Exclusive, Shared};

const OTHER: SessionId = SessionId([2; 16]);
const THIRD: SessionId = SessionId([3; 16]);

/// Somebody who locks: a session, a number there, and the process.
#[derive(Debug, Clone, Copy)]
struct Who {
    session: SessionId,
    number: u64,
    kind: LockKind,
}

const fn posix(session: SessionId, number: u64) -> Who {
    Who { session, number, kind: LockKind::Posix }
}

const fn flock(session: SessionId, number: u64) -> Who {
    Who { session, number, kind: LockKind::Flock }
}

const A: Who = posix(SESSION, 1);
const B: Who = posix(OTHER, 1);
const C: Who = posix(THIRD, 1);

fn range(first: u64, last: u64) -> LockRange {
    LockRange { first, last }
}

/// A world with three sessions and a file.
struct Locks {
    world: World,
    file: InodeId,
    /// Requests that were settled, by the words of the overlay.
    settled: Vec<(SessionId, u64)>,
    sequence: u64,
}

impl Locks {
    fn new() -> Locks {
        let mut world = World::new();
        world.open_session(OTHER);
        world.open_session(THIRD);
        let file = world.file(ROOT, "f");
        Locks { world, file, settled: Vec::new(), sequence: 0 }
    }

    fn apply(&mut self, command: &Command) -> CommandReply {
        let view = self.world.kv.view();
        let mut overlay = Overlay::new(&*view);
        let reply = self.world.rules.apply(&mut overlay, command).unwrap();
        self.settled.extend_from_slice(overlay.settled());
        self.world.kv.write(overlay.into_batch()).unwrap();
        reply
    }

    fn change(&mut self, session: SessionId, operation: Operation) -> ChangeResult {
        self.sequence += 1;
        let command = Command::Change {
            epoch: self.world.epoch,
            session,
            slot: 1,
            sequence: self.sequence,
            caller: Caller::root(),
            time: self.world.time,
            operation,
        };
        match self.apply(&command) {
            CommandReply::Change(result) => result,
            other => panic!("{other:?}"),
        }
    }

    fn ask(&mut self, who: Who, range: LockRange, mode: LockMode, wait: LockWait) -> ChangeResult {
        let owner = LockOwner { number: who.number, kind: who.kind };
        let (inode, pid) = (self.file, 100 + u32::from(who.session.0[0]) * 10 + who.number as u32);
        self.change(who.session, Operation::Lock { inode, owner, pid, range, mode, wait })
    }

    fn take(&mut self, who: Who, range: LockRange, mode: LockMode) -> ChangeResult {
        self.ask(who, range, mode, LockWait::No)
    }

    fn wait(&mut self, who: Who, range: LockRange, mode: LockMode, request: u64) -> ChangeResult {
        let find_deadlock = who.kind == LockKind::Posix;
        self.ask(who, range, mode, LockWait::Yes { request, find_deadlock })
    }

    fn give(&mut self, who: Who, range: LockRange) -> bool {
        let owner = LockOwner { number: who.number, kind: who.kind };
        let unlock = Operation::Unlock { inode: self.file, owner, range, waiting_too: false };
        match self.change(who.session, unlock) {
            Ok(Outcome::Unlocked { left }) => left,
            other => panic!("{other:?}"),
        }
    }

    fn in_the_way(&self, who: Who, range: LockRange, mode: LockMode) -> Option<HeldLock> {
        let owner = LockOwner { number: who.number, kind: who.kind };
        let query = Query::TestLock { inode: self.file, session: who.session, owner, range, mode };
        match self.world.query(&Caller::root(), &query) {
            Ok(Answer::Lock(held)) => held,
            other => panic!("{other:?}"),
        }
    }

    fn progress(&self, session: SessionId, request: u64) -> LockProgress {
        let state = self.world.kv.view();
        self.world.rules.lock_progress(&*state, session, self.file, request).unwrap()
    }

    fn count(&self) -> (u64, u64) {
        let LockCount { held, waiting } = self.world.rules.lock_count(&self.world.kv).unwrap();
        (held, waiting)
    }

    fn end(&mut self, session: SessionId) {
        let command = Command::EndSession { epoch: self.world.epoch, session };
        assert_eq!(self.apply(&command), CommandReply::Done);
    }

    /// The keys of all records that are not about sessions.
    fn keys(&self) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        let (from, to) = self.world.rules.keyspace_range();
        self.world
            .kv
            .scan(&from, &to, &mut |key, _| {
                keys.push(key.to_vec());
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        keys
    }
}

const DONE: ChangeResult = Ok(Outcome::Done);
const DENIED: ChangeResult = Ok(Outcome::LockDenied);
const WAITS: ChangeResult = Ok(Outcome::LockWaiting);

#[test]
fn shared_locks_go_together_and_an_exclusive_one_stands_alone() {
    let mut locks = Locks::new();
    assert_eq!(locks.take(A, range(0, 9), Shared), DONE);
    assert_eq!(locks.take(B, range(5, 14), Shared), DONE);
    assert_eq!(locks.take(C, range(9, 9), Exclusive), DENIED);
    assert_eq!(locks.take(C, range(15, 20), Exclusive), DONE);
    assert_eq!(locks.take(A, range(15, 15), Shared), DENIED);
    assert!(!locks.give(A, LockRange::WHOLE));
    assert!(locks.give(B, range(5, 9)));
    assert_eq!(locks.take(C, range(0, 9), Exclusive), DONE);
    assert_eq!(locks.count(), (3, 0), "two of C do not touch, one of B lies between them");
}

#[test]
fn a_test_tells_the_first_lock_that_is_in_the_way() {
    let mut locks = Locks::new();
    locks.take(A, range(20, 29), Exclusive).unwrap();
    locks.take(A, range(5, 9), Shared).unwrap();
    assert_eq!(locks.in_the_way(A, LockRange::WHOLE, Exclusive), None, "its own");
    assert_eq!(locks.in_the_way(B, range(0, 10), Shared), None);
    let found = locks.in_the_way(B, LockRange::WHOLE, Exclusive);
    let held = HeldLock { session: SESSION, pid: 111, mode: Shared, range: range(5, 9) };
    assert_eq!(found, Some(held));
    assert_eq!(locks.in_the_way(flock(OTHER, 1), LockRange::WHOLE, Exclusive), None);
}

#[test]
fn the_two_kinds_do_not_see_each_other() {
    let mut locks = Locks::new();
    assert_eq!(locks.take(A, LockRange::WHOLE, Exclusive), DONE);
    assert_eq!(locks.take(flock(OTHER, 1), LockRange::WHOLE, Exclusive), DONE);
    assert_eq!(locks.take(flock(SESSION, 1), LockRange::WHOLE, Shared), DENIED);
    assert_eq!(locks.take(flock(SESSION, 1), range(0, 1), Shared), Err(FsError::Invalid));
}

#[test]
fn who_waits_is_granted_by_the_change_that_clears_the_way() {
    let mut locks = Locks::new();
    locks.take(A, range(0, 9), Exclusive).unwrap();
    assert_eq!(locks.wait(B, range(5, 14), Exclusive, 1), WAITS);
    assert_eq!(locks.progress(OTHER, 1), LockProgress::Waiting);
    assert!(locks.give(A, range(5, 7)));
    assert!(locks.settled.is_empty());
    locks.give(A, range(8, 9));
    assert_eq!(locks.settled, [(OTHER, 1)]);
    assert_eq!(locks.progress(OTHER, 1), LockProgress::Settled);
    assert_eq!(locks.take(C, range(14, 14), Shared), DENIED);
    assert_eq!(locks.take(C, range(0, 4), Shared), DENIED, "A has kept that");
    // A shared mode clears the way too.
    assert_eq!(locks.wait(C, range(0, 4), Shared, 1), WAITS);
    assert_eq!(locks.take(A, range(0, 4), Shared), DONE);
    assert_eq!(locks.settled, [(OTHER, 1), (THIRD, 1)]);
}

#[test]
fn a_later_request_does_not_pass_one_that_waits_for_longer() {
    let mut locks = Locks::new();
    locks.take(A, LockRange::WHOLE, Shared).unwrap();
    assert_eq!(locks.wait(B, range(0, 9), Exclusive, 1), WAITS);
    // It would go with A, but B would wait the longer for it.
    assert_eq!(locks.wait(C, range(9, 20), Shared, 1), WAITS);
    assert_eq!(locks.progress(THIRD, 1), LockProgress::WaitingForTurn);
    let fourth = posix(THIRD, 4);
    assert_eq!(locks.take(fourth, range(9, 20), Shared), DONE, "it does not wait in anybody's way");
    locks.give(fourth, LockRange::WHOLE);
    assert_eq!(locks.take(fourth, range(10, 20), Shared), DONE, "nobody waits for that part");
    locks.give(A, LockRange::WHOLE);
    assert_eq!(locks.settled, [(OTHER, 1)]);
    assert_eq!(locks.progress(THIRD, 1), LockProgress::Waiting);
    locks.give(B, LockRange::WHOLE);
    assert_eq!(locks.settled, [(OTHER, 1), (THIRD, 1)]);
}

#[test]
fn a_process_that_holds_a_lock_does_not_wait_for_those_that_wait_for_it() {
    let mut locks = Locks::new();
    locks.take(A, range(0, 9), Shared).unwrap();
    assert_eq!(locks.wait(B, LockRange::WHOLE, Exclusive, 1), WAITS);
    assert_eq!(locks.take(A, range(0, 20), Shared), DONE);
    assert_eq!(locks.take(A, range(0, 20), Exclusive), DONE);
    // The same with two open files of one process.
    let (one, two) = (flock(SESSION, 7), flock(SESSION, 7));
    locks.take(one, LockRange::WHOLE, Shared).unwrap();
    assert_eq!(locks.wait(flock(OTHER, 8), LockRange::WHOLE, Exclusive, 2), WAITS);
    assert_eq!(locks.take(two, LockRange::WHOLE, Shared), DONE);
}

#[test]
fn who_only_waits_for_its_turn_may_insist() {
    let mut locks = Locks::new();
    let insist = |locks: &mut Locks, session| {
        let inode = locks.file;
        locks.change(session, Operation::InsistLock { inode, request: 1 })
    };
    locks.take(A, LockRange::WHOLE, Shared).unwrap();
    locks.wait(B, LockRange::WHOLE, Exclusive, 1).unwrap();
    locks.wait(C, LockRange::WHOLE, Shared, 1).unwrap();
    assert_eq!(insist(&mut locks, OTHER), WAITS, "a holder is in its way");
    assert_eq!(insist(&mut locks, THIRD), DONE);
    assert_eq!(locks.settled, [(THIRD, 1)]);
    assert_eq!(insist(&mut locks, THIRD), DONE, "asked again");
    locks.give(A, LockRange::WHOLE);
    assert_eq!(locks.progress(OTHER, 1), LockProgress::Waiting);
    locks.give(C, LockRange::WHOLE);
    assert_eq!(locks.progress(OTHER, 1), LockProgress::Settled);
}

#[test]
fn a_cancelled_request_waits_no_more_and_lets_others_pass() {
    let mut locks = Locks::new();
    let cancel = |locks: &mut Locks, session| {
        let inode = locks.file;
        locks.change(session, Operation::CancelLock { inode, request: 1 })
    };
    locks.take(A, LockRange::WHOLE, Shared).unwrap();
    locks.wait(B, LockRange::WHOLE, Exclusive, 1).unwrap();
    locks.wait(C, LockRange::WHOLE, Shared, 1).unwrap();
    assert_eq!(cancel(&mut locks, OTHER), Ok(Outcome::LockCancelled));
    assert_eq!(locks.settled, [(OTHER, 1), (THIRD, 1)]);
    assert_eq!(cancel(&mut locks, OTHER), DONE);
    assert_eq!(cancel(&mut locks, THIRD), DONE, "it was granted");
    assert_eq!(locks.count(), (2, 0));
}

#[test]
fn a_circle_of_waiting_processes_is_found_over_files_and_sessions() {
    let mut locks = Locks::new();
    let first = locks.file;
    let second = locks.world.file(ROOT, "g");
    locks.take(A, LockRange::WHOLE, Exclusive).unwrap();
    locks.file = second;
    locks.take(B, range(0, 9), Exclusive).unwrap();
    locks.take(C, range(10, 19), Exclusive).unwrap();
    assert_eq!(locks.wait(B, range(15, 15), Exclusive, 1), WAITS);
    locks.file = first;
    assert_eq!(locks.wait(C, range(3, 3), Shared, 1), WAITS);
    // A -> B -> C -> A
    locks.file = second;
    assert_eq!(locks.wait(A, range(0, 0), Shared, 1), Err(FsError::Deadlock));
    assert_eq!(locks.take(A, range(0, 0), Shared), DENIED, "it does not wait");
    let no_search = LockWait::Yes { request: 2, find_deadlock: false };
    assert_eq!(locks.ask(A, range(0, 0), Shared, no_search), WAITS, "as for open files");
    assert_eq!(locks.count(), (3, 3));
}

#[test]
fn two_that_upgrade_at_once_are_a_deadlock() {
    let mut locks = Locks::new();
    locks.take(A, range(0, 9), Shared).unwrap();
    locks.take(B, range(0, 9), Shared).unwrap();
    assert_eq!(locks.wait(A, range(0, 9), Exclusive, 1), WAITS);
    assert_eq!(locks.wait(B, range(0, 9), Exclusive, 1), Err(FsError::Deadlock));
    locks.give(B, range(0, 9));
    assert_eq!(locks.progress(SESSION, 1), LockProgress::Settled);
}

#[test]
fn flock_gives_its_lock_up_before_it_takes_another_mode() {
    let mut locks = Locks::new();
    let (one, other) = (flock(SESSION, 1), flock(OTHER, 1));
    locks.take(one, LockRange::WHOLE, Shared).unwrap();
    assert_eq!(locks.take(one, LockRange::WHOLE, Exclusive), DONE, "nobody is in the way");
    locks.take(one, LockRange::WHOLE, Shared).unwrap();
    locks.take(other, LockRange::WHOLE, Shared).unwrap();
    assert_eq!(locks.take(one, LockRange::WHOLE, Exclusive), DENIED);
    assert_eq!(locks.count(), (1, 0), "the shared one is gone, as on Linux");
    locks.take(one, LockRange::WHOLE, Shared).unwrap();
    assert_eq!(locks.wait(one, LockRange::WHOLE, Exclusive, 1), WAITS);
    // Both at once: no deadlock, since the first has given up what the other waits for.
    assert_eq!(locks.wait(other, LockRange::WHOLE, Exclusive, 1), DONE);
    assert_eq!(locks.progress(SESSION, 1), LockProgress::Waiting);
    locks.give(other, LockRange::WHOLE);
    assert_eq!(locks.settled, [(SESSION, 1)]);
}

#[test]
fn the_end_of_a_session_frees_its_locks_and_grants_what_waited_for_them() {
    let mut locks = Locks::new();
    let before = locks.keys();
    let more = posix(OTHER, 9);
    locks.take(B, range(0, 9), Exclusive).unwrap();
    locks.take(more, range(20, 29), Exclusive).unwrap();
    locks.take(flock(OTHER, 3), LockRange::WHOLE, Exclusive).unwrap();
    assert_eq!(locks.wait(A, range(0, 29), Exclusive, 1), WAITS);
    assert_eq!(locks.wait(more, range(0, 0), Shared, 2), WAITS);
    assert_eq!(locks.wait(flock(THIRD, 1), LockRange::WHOLE, Shared, 1), WAITS);
    locks.end(OTHER);
    let mut settled = locks.settled.clone();
    settled.sort_unstable();
    assert_eq!(settled, [(SESSION, 1), (OTHER, 2), (THIRD, 1)]);
    assert_eq!(locks.count(), (2, 0));
    locks.end(THIRD);
    locks.give(A, LockRange::WHOLE);
    assert_eq!(locks.count(), (0, 0));
    let session = locks.world.rules.sessions(&locks.world.kv).unwrap();
    assert_eq!(session.len(), 1);
    let left = locks.keys().into_iter().filter(|key| !before.contains(key)).count();
    assert_eq!(left, 1, "the slot of this test, and nothing of locks");
}

#[test]
fn locks_go_with_their_file() {
    let mut locks = Locks::new();
    let inode = locks.file;
    locks.take(A, LockRange::WHOLE, Exclusive).unwrap();
    locks.wait(B, range(0, 1), Shared, 1).unwrap();
    locks.world.root(Operation::Unlink { parent: ROOT, name: b"f".to_vec() }).unwrap();
    assert_eq!(locks.count(), (1, 1), "it is open");
    let epoch = locks.world.epoch;
    for session in [SESSION, OTHER, THIRD] {
        let closed = Command::ConfirmClosed { epoch, session, inodes: vec![inode] };
        assert_eq!(locks.apply(&closed), CommandReply::Done);
    }
    assert_eq!(locks.count(), (0, 0));
    assert_eq!(locks.take(A, LockRange::WHOLE, Shared), Err(FsError::Stale));
    assert!(!locks.give(A, LockRange::WHOLE), "giving back is always possible");
}

#[test]
fn what_is_no_file_or_no_range_is_refused() {
    let mut locks = Locks::new();
    assert_eq!(locks.take(A, range(9, 8), Shared), Err(FsError::Invalid));
    assert_eq!(locks.take(A, range(0, u64::MAX), Shared), Err(FsError::Invalid));
    locks.file = ROOT;
    assert_eq!(locks.take(A, LockRange::WHOLE, Shared), Err(FsError::Invalid));
}

#[test]
fn the_locks_of_a_file_are_bounded() {
    let mut locks = Locks::new();
    let most = ministry_types::limits::LOCKS_PER_INODE_MAX as u64;
    for at in 0..most {
        assert_eq!(locks.take(A, range(2 * at, 2 * at), Shared), DONE);
    }
    assert_eq!(locks.take(A, range(2 * most, 2 * most), Shared), Err(FsError::NoLocks));
    assert_eq!(locks.wait(B, range(0, 0), Exclusive, 1), Err(FsError::NoLocks));
    assert_eq!(locks.take(A, LockRange::WHOLE, Shared), Err(FsError::NoLocks));
    assert!(!locks.give(A, LockRange::WHOLE));
    assert_eq!(locks.take(B, LockRange::WHOLE, Exclusive), DONE);
}

#[test]
fn the_locks_of_a_session_are_bounded_over_all_its_files() {
    let mut locks = Locks::new();
    assert_eq!(locks.take(A, range(0, 0), Exclusive), DONE);
    // As if the rest were in other files: a hundred thousand would take long.
    let key = Keys { keyspace: 1 }.lock_count(SESSION);
    let set = |locks: &Locks, count: u64| {
        let mut batch = Batch::default();
        batch.put(key.clone(), encode(&count));
        locks.world.kv.write(batch).unwrap();
    };
    set(&locks, LOCKS_PER_SESSION_MAX - 1);
    assert_eq!(locks.take(A, range(2, 2), Exclusive), DONE);
    assert_eq!(locks.take(A, range(4, 4), Exclusive), Err(FsError::NoLocks));
    assert_eq!(locks.wait(A, range(4, 4), Exclusive, 1), Err(FsError::NoLocks));
    assert_eq!(locks.take(B, range(4, 4), Exclusive), DONE, "another session has its own");
    assert!(locks.give(A, range(2, 2)), "it keeps another");
    assert_eq!(locks.take(A, range(6, 6), Exclusive), DONE);
}
