//! Names: the rules that random changes rarely reach.

use ministry_types::FsError::*;
use ministry_types::limits::{LINKS_MAX, SYMLINK_BYTES_MAX};
use ministry_types::operations::{Answer, Operation, Outcome, Query, RenameMode};
use ministry_types::{Caller, FileKind, InodeId};

use super::world::{ROOT, World, create, user};
use crate::Command;
use crate::keys::{Keys, ORDINALS, first_cookie};
use crate::records::InodeRecord;

fn rename(from: (InodeId, &str), to: (InodeId, &str), mode: RenameMode) -> Operation {
    Operation::Rename {
        parent: from.0,
        name: from.1.as_bytes().to_vec(),
        new_parent: to.0,
        new_name: to.1.as_bytes().to_vec(),
        mode,
    }
}

#[test]
fn a_directory_never_moves_below_itself() {
    let mut world = World::new();
    let a = world.directory(ROOT, "a");
    let b = world.directory(a, "b");
    let c = world.directory(b, "c");
    let replace = RenameMode::Replace;
    assert_eq!(world.root(rename((ROOT, "a"), (c, "x"), replace)), Err(Invalid));
    assert_eq!(world.root(rename((ROOT, "a"), (a, "x"), replace)), Err(Invalid));
    assert_eq!(world.root(rename((a, "b"), (ROOT, "a"), replace)), Err(NotEmpty));
    assert_eq!(world.root(rename((b, "c"), (ROOT, "a"), RenameMode::Exchange)), Err(Invalid));
    assert!(world.root(rename((b, "c"), (ROOT, "c"), replace)).is_ok());
    let links: Vec<u32> = [ROOT, a, b, c].map(|inode| world.stat(inode).links).to_vec();
    assert_eq!(links, [4, 3, 2, 2]);
    assert_eq!(world.lookup(&Caller::root(), c, ".."), Ok(ROOT));
}

#[test]
fn the_number_of_an_object_survives_its_moves() {
    let mut world = World::new();
    let a = world.directory(ROOT, "a");
    let file = world.file(a, "x");
    world.root(rename((a, "x"), (ROOT, "y"), RenameMode::Replace)).unwrap();
    assert_eq!(world.lookup(&Caller::root(), ROOT, "y"), Ok(file));
    assert_eq!(world.lookup(&Caller::root(), a, "x"), Err(NotFound));
    let parent = world.query(&Caller::root(), &Query::Parent { inode: file });
    assert_eq!(parent, Ok(Answer::Parent { parent: ROOT, name: b"y".to_vec() }));
}

#[test]
fn an_unusable_name_is_refused_in_every_place() {
    let mut world = World::new();
    let file = world.file(ROOT, "f");
    for (name, error) in
        [("", Invalid), (".", Invalid), ("..", Invalid), ("a/b", Invalid), ("a\0b", Invalid)]
    {
        let bytes = name.as_bytes().to_vec();
        let make = create(ROOT, name, FileKind::Regular, 0o644);
        let link = Operation::Link { inode: file, parent: ROOT, name: bytes.clone() };
        let unlink = Operation::Unlink { parent: ROOT, name: bytes.clone() };
        let rmdir = Operation::RemoveDirectory { parent: ROOT, name: bytes };
        let away = rename((ROOT, "f"), (ROOT, name), RenameMode::Replace);
        for operation in [make, link, unlink, rmdir, away] {
            assert_eq!(world.root(operation), Err(error), "{name:?}");
        }
    }
    let long = "x".repeat(256);
    let make = |name: &str| create(ROOT, name, FileKind::Regular, 0o644);
    assert_eq!(world.root(make(&long)), Err(NameTooLong));
    assert!(world.root(make(&long[1..])).is_ok());
    assert_eq!(world.lookup(&Caller::root(), ROOT, &long), Err(NameTooLong));
}

#[test]
fn what_is_made_has_to_make_sense() {
    let mut world = World::new();
    let special = |kind, device, target: &[u8]| Operation::Create {
        parent: ROOT,
        name: b"n".to_vec(),
        kind,
        permissions: 0o644,
        umask: 0,
        device,
        target: target.to_vec(),
    };
    let long = vec![b'x'; SYMLINK_BYTES_MAX + 1];
    assert_eq!(world.root(special(FileKind::Symlink, 0, b"")), Err(NotFound));
    assert_eq!(world.root(special(FileKind::Symlink, 0, b"a\0")), Err(Invalid));
    assert_eq!(world.root(special(FileKind::Symlink, 0, &long)), Err(NameTooLong));
    assert_eq!(world.root(special(FileKind::Regular, 0, b"x")), Err(Invalid));
    assert_eq!(world.root(special(FileKind::Fifo, 3, b"")), Err(Invalid));
    world.mode(ROOT, 0o777);
    let someone = user(1, 1, &[]);
    assert_eq!(world.change(&someone, special(FileKind::CharDevice, 3, b"")), Err(NotPermitted));
    let whiteout = world.made(&someone, special(FileKind::CharDevice, 0, b""));
    assert_eq!(whiteout.kind, FileKind::CharDevice);
}

#[test]
fn a_symlink_tells_its_target_and_its_length() {
    let mut world = World::new();
    let link = world.made(&Caller::root(), create(ROOT, "s", FileKind::Symlink, 0)).inode;
    assert_eq!(world.stat(link).size, 6);
    let answer = world.query(&Caller::root(), &Query::ReadLink { inode: link });
    assert_eq!(answer, Ok(Answer::Target(b"target".to_vec())));
}

#[test]
fn links_have_a_limit_and_directories_have_none() {
    let mut world = World::new();
    let file = world.file(ROOT, "f");
    let directory = world.directory(ROOT, "d");
    let link =
        |inode, name: &str| Operation::Link { inode, parent: ROOT, name: name.as_bytes().to_vec() };
    assert_eq!(world.root(link(directory, "e")), Err(NotPermitted));
    assert_eq!(world.root(link(file, "f")), Err(Exists));
    // The limit is too far to walk there: the record is set to just below.
    let keys = Keys { keyspace: 1 };
    let mut record: InodeRecord =
        world.rules.records(&world.kv).read(&keys.inode(file)).unwrap().unwrap();
    record.attributes.links = LINKS_MAX - 1;
    let mut batch = ministry_types::kv::Batch::default();
    batch.put(keys.inode(file), crate::command::encode(&record));
    ministry_types::kv::Kv::write(&world.kv, batch).unwrap();
    assert!(world.root(link(file, "g")).is_ok());
    assert_eq!(world.root(link(file, "h")), Err(TooManyLinks));
}

#[test]
fn an_orphan_gets_no_new_name_and_a_removed_directory_no_child() {
    let mut world = World::new();
    let file = world.file(ROOT, "f");
    let directory = world.directory(ROOT, "d");
    let unlink = Operation::Unlink { parent: ROOT, name: b"f".to_vec() };
    assert_eq!(world.root(unlink), Ok(Outcome::Unlinked { inode: file, orphan: true }));
    let rmdir = Operation::RemoveDirectory { parent: ROOT, name: b"d".to_vec() };
    assert_eq!(world.root(rmdir), Ok(Outcome::Done));
    let link = Operation::Link { inode: file, parent: ROOT, name: b"g".to_vec() };
    assert_eq!(world.root(link), Err(NotFound));
    assert_eq!(world.root(create(directory, "x", FileKind::Regular, 0)), Err(NotFound));
    let into = rename((ROOT, "g"), (directory, "g"), RenameMode::Replace);
    world.file(ROOT, "g");
    assert_eq!(world.root(into), Err(NotFound));
    assert_eq!(world.lookup(&Caller::root(), directory, "x"), Err(NotFound));
}

#[test]
fn names_of_one_hash_live_beside_each_other() {
    // No two short names with one hash are known, so the records are made by hand: the place of
    // "a" is taken by others.
    let mut world = World::new();
    let keys = Keys { keyspace: 1 };
    let other = world.file(ROOT, "other");
    let first = first_cookie(b"a");
    let mut batch = ministry_types::kv::Batch::default();
    for ordinal in 0..3 {
        let record = crate::records::DentryRecord {
            name: format!("taken {ordinal}").into_bytes(),
            inode: other,
            kind: FileKind::Regular,
        };
        batch.put(keys.dentry(ROOT, first + ordinal), crate::command::encode(&record));
    }
    ministry_types::kv::Kv::write(&world.kv, batch).unwrap();
    let a = world.file(ROOT, "a");
    assert_eq!(world.lookup(&Caller::root(), ROOT, "a"), Ok(a));
    let (entries, _) = world.list(ROOT, 0, 100);
    assert_eq!(entries.iter().find(|entry| entry.inode == a).unwrap().cookie, first + 3);
    let unlink = Operation::Unlink { parent: ROOT, name: b"a".to_vec() };
    world.root(unlink).unwrap();
    assert_eq!(world.lookup(&Caller::root(), ROOT, "a"), Err(NotFound));

    let mut batch = ministry_types::kv::Batch::default();
    for ordinal in 3..ORDINALS {
        let record = crate::records::DentryRecord {
            name: format!("taken {ordinal}").into_bytes(),
            inode: other,
            kind: FileKind::Regular,
        };
        batch.put(keys.dentry(ROOT, first + ordinal), crate::command::encode(&record));
    }
    ministry_types::kv::Kv::write(&world.kv, batch).unwrap();
    // The slot moves on, but no number is used up and nothing half-made is left.
    let objects = |world: &World| -> Vec<_> {
        let slot = keys.slot(super::world::SESSION, 0);
        world.dump().into_iter().filter(|(key, _)| *key != slot).collect()
    };
    let before = objects(&world);
    assert_eq!(world.root(create(ROOT, "a", FileKind::Regular, 0)), Err(NoSpace));
    assert_eq!(objects(&world), before);
}

#[test]
fn a_directory_that_changes_its_parent_has_to_be_writable() {
    let mut world = World::new();
    world.mode(ROOT, 0o777);
    let someone = user(1, 1, &[]);
    let a = world.made(&someone, create(ROOT, "a", FileKind::Directory, 0o755)).inode;
    world.made(&someone, create(a, "mine", FileKind::Directory, 0o755));
    world.directory(ROOT, "other");
    let exchange = RenameMode::Exchange;
    let there = rename((a, "mine"), (ROOT, "other"), exchange);
    let back = rename((ROOT, "other"), (a, "mine"), exchange);
    let away = rename((ROOT, "other"), (a, "other"), RenameMode::Replace);
    for operation in [there, back, away] {
        assert_eq!(world.change(&someone, operation), Err(PermissionDenied));
    }
    // In its own directory its name is all that changes.
    let rename = rename((ROOT, "other"), (ROOT, "renamed"), RenameMode::Replace);
    assert!(world.change(&someone, rename).is_ok());
}

#[test]
fn children_of_a_directory_are_neighbours_and_numbers_end() {
    let mut world = World::bare(ministry_types::MinistryId::ROOT);
    let epoch = world.epoch;
    world.must(&Command::Found { epoch, time: ministry_types::Timestamp(1) });
    world.open_session(super::world::SESSION);
    let make = |parent, name: &str| create(parent, name, FileKind::Regular, 0o644);
    assert_eq!(world.root(make(ROOT, "x")), Err(NoSpace), "no range was given");
    let ranges = vec![(InodeId(1), InodeId(300)), (InodeId(1000), InodeId(1002))];
    world.must(&Command::AddRanges { epoch, ranges: ranges.clone() });
    assert_eq!(world.rules.ranges(&world.kv).unwrap().left_unused, 2);
    let directory = world.directory(ROOT, "d");
    assert_eq!(directory, InodeId(2));
    let (a, b) = (world.file(directory, "a"), world.file(directory, "b"));
    assert_eq!((a, b), (InodeId(258), InodeId(259)));
    assert_eq!(world.file(ROOT, "c"), InodeId(3));
    for at in 0..40 {
        world.file(directory, &format!("more {at}"));
    }
    assert_eq!(world.file(directory, "last"), InodeId(1000));
    world.file(directory, "very last");
    assert_eq!(world.root(make(directory, "none")), Err(NoSpace));
    // Told again, nothing is given out again.
    world.must(&Command::AddRanges { epoch, ranges: ranges.clone() });
    let known = world.rules.ranges(&world.kv).unwrap();
    assert_eq!((known.known, known.left_unused, known.list), (2, 0, ranges));
    assert_eq!(world.root(make(directory, "none")), Err(NoSpace));
}
