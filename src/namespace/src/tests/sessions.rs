//! Reigns, sessions, slots and the end of orphans.

use ministry_types::FsError::{self, *};
use ministry_types::kv::Kv;
use ministry_types::limits::SLOTS_PER_SESSION;
use ministry_types::operations::{Operation, Outcome, Query, SetAttributes, WriteAt};
use ministry_types::{Caller, ClientId, Epoch, FileKind, InodeId, NodeId, SessionId, Timestamp};

use super::world::{ROOT, SESSION, World, create};
use crate::command::encode;
use crate::{Command, CommandReply, Overlay, PendingPurge, QueryRefusal};

const OTHER: SessionId = SessionId([2; 16]);

fn unlink(world: &mut World, name: &str) -> InodeId {
    let unlink = Operation::Unlink { parent: ROOT, name: name.as_bytes().to_vec() };
    match world.root(unlink) {
        Ok(Outcome::Unlinked { inode, orphan: true }) => inode,
        other => panic!("{other:?}"),
    }
}

fn awaiting(world: &World, session: SessionId) -> Vec<InodeId> {
    world.rules.orphans_awaiting(&world.kv, session, 100).unwrap()
}

fn is_gone(world: &World, inode: InodeId) -> bool {
    let stat = world.query(&Caller::root(), &Query::GetAttributes { inode });
    let gone = stat == Err(QueryRefusal::Fs(Stale));
    assert_eq!(gone, !world.rules.exists(&world.kv, inode).unwrap());
    gone
}

#[test]
fn only_the_newest_reign_is_obeyed() {
    let mut world = World::new();
    let reign = |epoch, node| Command::Reign {
        epoch: Epoch(epoch),
        node: NodeId([node; 32]),
        time: Timestamp(0),
    };
    let stale = |epoch| CommandReply::StaleReign { current: Epoch(epoch) };
    assert_eq!(world.apply(&reign(1, 1)), stale(1));
    let late = world.command(&Caller::root(), create(ROOT, "a", FileKind::Regular, 0));
    assert_eq!(world.apply(&reign(7, 2)), CommandReply::Done);
    assert_eq!(world.rules.reign(&world.kv).unwrap(), Some((Epoch(7), NodeId([2; 32]))));
    assert_eq!(world.apply(&late), stale(7), "the old minister's changes come too late");
    assert_eq!(world.lookup(&Caller::root(), ROOT, "a"), Err(NotFound));
    assert_eq!(world.apply(&reign(6, 1)), stale(7));
    let early = Command::EndSession { epoch: Epoch(8), session: SESSION };
    assert_eq!(world.apply(&early), stale(7));
}

#[test]
fn a_session_opens_once_and_ends_once() {
    let mut world = World::new();
    let epoch = world.epoch;
    let open = |client| Command::OpenSession { epoch, session: OTHER, client };
    let before = world.dump();
    world.must(&open(ClientId([5; 16])));
    world.must(&open(ClientId([5; 16])));
    assert_eq!(world.apply(&open(ClientId([6; 16]))), CommandReply::UnknownSession);
    let sessions = world.rules.sessions(&world.kv).unwrap();
    assert_eq!(sessions, [(SESSION, ClientId([5; 16])), (OTHER, ClientId([5; 16]))]);
    world.must(&Command::EndSession { epoch, session: OTHER });
    world.must(&Command::EndSession { epoch, session: OTHER });
    assert_eq!(world.dump(), before, "an ended session leaves nothing behind");
}

#[test]
fn a_session_that_ended_changes_nothing_and_takes_its_slots_along() {
    let mut world = World::new();
    world.file(ROOT, "a");
    let epoch = world.epoch;
    world.must(&Command::EndSession { epoch, session: SESSION });
    let late = world.command(&Caller::root(), create(ROOT, "b", FileKind::Regular, 0));
    assert_eq!(world.apply(&late), CommandReply::UnknownSession);
    world.open_session(SESSION);
    world.sequence = 0;
    world.file(ROOT, "c");
}

#[test]
fn a_slot_that_does_not_exist_is_refused() {
    let mut world = World::new();
    let mut at = |new_slot: u32, new_sequence: u64| {
        let mut command = world.command(&Caller::root(), create(ROOT, "a", FileKind::Regular, 0));
        if let Command::Change { slot, sequence, .. } = &mut command {
            (*slot, *sequence) = (new_slot, new_sequence);
        }
        world.apply(&command)
    };
    assert_eq!(at(SLOTS_PER_SESSION, 1), CommandReply::StaleSequence);
    assert_eq!(at(3, 0), CommandReply::StaleSequence);
    assert!(matches!(at(3, 4), CommandReply::Change(Ok(_))));
    assert_eq!(at(3, 3), CommandReply::StaleSequence);
}

#[test]
fn an_orphan_lives_until_every_session_has_closed_it() {
    let mut world = World::new();
    world.open_session(OTHER);
    world.file(ROOT, "f");
    let inode = unlink(&mut world, "f");
    assert_eq!((awaiting(&world, SESSION), awaiting(&world, OTHER)), (vec![inode], vec![inode]));
    // Whoever has it open goes on with it.
    world.write(inode, WriteAt::End, b"still here").unwrap();
    assert_eq!(world.content(inode).unwrap(), b"still here");
    assert_eq!(world.stat(inode).links, 0);
    let set = SetAttributes { permissions: Some(0o600), ..Default::default() };
    world.set(inode, set).unwrap();

    let epoch = world.epoch;
    let third = SessionId([3; 16]);
    world.open_session(third);
    assert!(awaiting(&world, third).is_empty(), "it came too late to have it open");
    let closed = |session| Command::ConfirmClosed { epoch, session, inodes: vec![inode] };
    world.must(&closed(SESSION));
    world.must(&closed(SESSION));
    world.must(&closed(third));
    assert!(!is_gone(&world, inode));
    world.must(&closed(OTHER));
    assert!(is_gone(&world, inode));
    assert!(world.rules.pending_purges(&world.kv, 9).unwrap().is_empty(), "it was inline");
}

#[test]
fn the_end_of_a_session_closes_all_its_orphans() {
    let mut world = World::new();
    world.open_session(OTHER);
    for name in ["f", "g"] {
        world.file(ROOT, name);
    }
    world.directory(ROOT, "d");
    let (f, g) = (unlink(&mut world, "f"), unlink(&mut world, "g"));
    let rmdir = Operation::RemoveDirectory { parent: ROOT, name: b"d".to_vec() };
    let d = world.lookup(&Caller::root(), ROOT, "d").unwrap();
    world.root(rmdir).unwrap();
    let epoch = world.epoch;
    world.must(&Command::ConfirmClosed { epoch, session: SESSION, inodes: vec![f, g, d] });
    assert!(!is_gone(&world, f) && !is_gone(&world, g) && !is_gone(&world, d));
    world.must(&Command::EndSession { epoch, session: OTHER });
    assert!(is_gone(&world, f) && is_gone(&world, g) && is_gone(&world, d));
}

#[test]
fn what_is_made_and_removed_leaves_no_record() {
    let mut world = World::new();
    let epoch = world.epoch;
    world.file(ROOT, "first");
    unlink(&mut world, "first");
    let everything = |world: &mut World| {
        let inodes = awaiting(world, SESSION);
        world.must(&Command::ConfirmClosed { epoch, session: SESSION, inodes });
        let purges = world.rules.pending_purges(&world.kv, 100).unwrap();
        let inodes = purges.iter().map(|purge| purge.inode).collect();
        world.must(&Command::PurgesDone { epoch, inodes });
        let keys: Vec<Vec<u8>> = world.dump().into_iter().map(|(key, _)| key).collect();
        keys
    };
    let before = everything(&mut world);
    let inode = world.file(ROOT, "f");
    world.root(Operation::Link { inode, parent: ROOT, name: b"g".to_vec() }).unwrap();
    for name in ["user.x", "user.y", "security.capability"] {
        let value = bytes::Bytes::from_static(b"v");
        let mode = ministry_types::operations::XattrMode::Either;
        world.root(Operation::SetXattr { inode, name: name.into(), value, mode }).unwrap();
    }
    let extend = Operation::Extend { inode, size: 3 << 30 };
    world.root(extend).unwrap();
    let truncate_sequence = world.stat(inode).layout.truncate_sequence();
    world
        .root(Operation::ReportWrite {
            inode,
            truncate_sequence,
            offset: 0,
            end: 3 << 30,
            allocated: (0..48).map(|chunk| (chunk, 4096)).collect(),
            turn: 0,
        })
        .unwrap();
    world.made(&Caller::root(), create(ROOT, "s", FileKind::Symlink, 0));
    world.directory(ROOT, "d");
    world.root(Operation::Unlink { parent: ROOT, name: b"f".to_vec() }).unwrap();
    for name in ["g", "s"] {
        unlink(&mut world, name);
    }
    let rmdir = Operation::RemoveDirectory { parent: ROOT, name: b"d".to_vec() };
    world.root(rmdir).unwrap();
    assert_eq!(everything(&mut world), before);
}

#[test]
fn a_chunked_orphan_leaves_a_purge_until_storage_has_confirmed() {
    let mut world = World::new();
    let epoch = world.epoch;
    let inode = world.file(ROOT, "f");
    let set = SetAttributes { size: Some(1 << 33), ..Default::default() };
    world.set(inode, set).unwrap();
    let set = SetAttributes { size: Some(1), ..Default::default() };
    world.set(inode, set).unwrap();
    unlink(&mut world, "f");
    world.must(&Command::EndSession { epoch, session: SESSION });
    assert!(is_gone(&world, inode));
    assert!(world.rules.pending_truncates(&world.kv, 9).unwrap().is_empty());
    let chunk_bytes = ministry_types::limits::CHUNK_BYTES;
    let purge = PendingPurge { inode, chunk_bytes, data_end: 1 << 33 };
    assert_eq!(world.rules.pending_purges(&world.kv, 9).unwrap(), [purge]);
    assert_eq!(world.rules.pending_purges(&world.kv, 0).unwrap(), []);
    world.must(&Command::PurgesDone { epoch, inodes: vec![inode] });
    assert_eq!(world.rules.pending_purges(&world.kv, 9).unwrap(), []);
}

#[test]
fn objects_are_counted_from_their_first_name_until_nobody_has_them_open() {
    let mut world = World::new();
    let objects = |world: &World| world.rules.objects(&world.kv).unwrap();
    let before = objects(&world);
    world.file(ROOT, "f");
    assert_eq!(world.root(create(ROOT, "f", FileKind::Regular, 0)), Err(Exists));
    world.root(create(ROOT, "d", FileKind::Directory, 0o755)).unwrap();
    assert_eq!(objects(&world), before + 2);
    let inode = unlink(&mut world, "f");
    assert_eq!(objects(&world), before + 2, "it may be open");
    let closed =
        Command::ConfirmClosed { epoch: Epoch(1), session: SESSION, inodes: vec![inode, inode] };
    assert_eq!(world.apply(&closed), CommandReply::Done);
    assert_eq!(objects(&world), before + 1);
}

#[test]
fn sessions_have_a_limit_and_those_that_live_go_on() {
    let mut world = World::new();
    let most = ministry_types::limits::SESSIONS_PER_MINISTRY_MAX as u64;
    let view = world.kv.view();
    let mut overlay = Overlay::new(&*view);
    overlay.put(world.rules.keys.session_count(), encode(&most));
    let batch = overlay.into_batch();
    world.kv.write(batch).unwrap();
    let (epoch, client) = (world.epoch, ClientId([7; 16]));
    let open = |session| Command::OpenSession { epoch, session, client };
    let refused = CommandReply::Change(Err(FsError::Overloaded));
    assert_eq!(world.apply(&open(SessionId([2; 16]))), refused);
    let (session, epoch) = (SESSION, world.epoch);
    let again = Command::OpenSession { epoch, session, client: ClientId([5; 16]) };
    assert_eq!(world.apply(&again), CommandReply::Done);
    world.file(ROOT, "f");
    world.must(&Command::EndSession { epoch, session });
    assert_eq!(world.apply(&open(SessionId([2; 16]))), CommandReply::Done, "a place is free");
}
