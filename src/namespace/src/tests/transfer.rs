//! A directory becomes a ministry of its own.

use ministry_types::FsError::{self, *};
use ministry_types::operations::{Answer, Operation, Query, RenameMode, XattrMode};
use ministry_types::{Caller, FileKind, InodeId, MinistryId};

use super::world::{ROOT, SESSION, World, create};
use crate::{Command, CommandReply, QueryRefusal};

const HEIR: MinistryId = MinistryId(2);

fn give(world: &mut World, inode: InodeId, to: MinistryId) -> Result<Vec<u8>, FsError> {
    let epoch = world.epoch;
    match world.apply(&Command::GiveAway { epoch, inode, to, generation: 5 }) {
        CommandReply::GivenAway(result) => result,
        other => panic!("{other:?}"),
    }
}

fn rename(from: (InodeId, &str), to: (InodeId, &str)) -> Operation {
    Operation::Rename {
        parent: from.0,
        name: from.1.as_bytes().to_vec(),
        new_parent: to.0,
        new_name: to.1.as_bytes().to_vec(),
        mode: RenameMode::Replace,
    }
}

fn set_xattr(inode: InodeId, name: &str) -> Operation {
    let (value, mode) = (name.as_bytes().to_vec().into(), XattrMode::Create);
    Operation::SetXattr { inode, name: name.as_bytes().to_vec(), value, mode }
}

/// The giver, the heir, and the directory that went over.
fn handed_over() -> (World, World, InodeId) {
    let mut world = World::new();
    let directory = world.directory(ROOT, "d");
    world.mode(directory, 0o1777);
    for name in ["user.a", "user.b"] {
        world.root(set_xattr(directory, name)).unwrap();
    }
    let record = give(&mut world, directory, HEIR).unwrap();
    assert_eq!(world.dump().iter().filter(|(key, _)| key.ends_with(b"user.a")).count(), 0);
    let mut heir = World::bare(HEIR);
    let epoch = heir.epoch;
    heir.must(&Command::Adopt { epoch, record: record.clone(), generation: 5 });
    heir.must(&Command::Adopt { epoch, record, generation: 5 });
    heir.open_session(SESSION);
    let ranges = vec![(InodeId(7000), InodeId(9000))];
    heir.must(&Command::AddRanges { epoch, ranges });
    (world, heir, directory)
}

#[test]
fn only_an_empty_directory_below_the_root_is_given() {
    let mut world = World::new();
    let directory = world.directory(ROOT, "d");
    let file = world.file(directory, "f");
    assert_eq!(give(&mut world, directory, HEIR), Err(NotEmpty));
    assert_eq!(give(&mut world, file, HEIR), Err(NotDirectory));
    assert_eq!(give(&mut world, ROOT, HEIR), Err(Busy));
    assert_eq!(give(&mut world, InodeId(999), HEIR), Err(Stale));
    let gone = world.directory(ROOT, "gone");
    let rmdir = Operation::RemoveDirectory { parent: ROOT, name: b"gone".to_vec() };
    world.root(rmdir).unwrap();
    assert_eq!(give(&mut world, gone, HEIR), Err(NotFound));
}

#[test]
fn giving_again_answers_the_same_and_to_another_is_refused() {
    let mut world = World::new();
    let directory = world.directory(ROOT, "d");
    let first = give(&mut world, directory, HEIR).unwrap();
    let before = world.dump();
    assert_eq!(give(&mut world, directory, HEIR).unwrap(), first);
    assert_eq!(give(&mut world, directory, MinistryId(3)), Err(Busy));
    assert_eq!(world.dump(), before);
    assert!(!world.rules.exists(&world.kv, directory).unwrap());
}

#[test]
fn what_concerns_a_given_directory_is_sent_elsewhere_and_its_name_stays() {
    let (mut world, _, directory) = handed_over();
    let elsewhere = CommandReply::Elsewhere { owner: HEIR };
    let make = create(directory, "f", FileKind::Regular, 0);
    let command = world.command(&Caller::root(), make);
    let before = world.dump();
    assert_eq!(world.apply(&command), elsewhere);
    assert_eq!(world.apply(&command), elsewhere);
    assert_eq!(world.dump(), before, "the slot is as it was");
    let stat = world.query(&Caller::root(), &Query::GetAttributes { inode: directory });
    assert_eq!(stat, Err(QueryRefusal::Elsewhere { owner: HEIR }));

    let lookup = Query::Lookup { parent: ROOT, name: b"d".to_vec() };
    let entry = Answer::Entry { inode: directory, kind: FileKind::Directory, attributes: None };
    assert_eq!(world.query(&Caller::root(), &lookup), Ok(entry));
    let (entries, _) = world.list(ROOT, 0, 9);
    assert_eq!(entries[0].attributes, None);

    let file = world.file(ROOT, "f");
    world.directory(ROOT, "e");
    let rmdir = Operation::RemoveDirectory { parent: ROOT, name: b"d".to_vec() };
    assert_eq!(world.root(rmdir), Err(Busy));
    assert_eq!(world.root(rename((ROOT, "d"), (ROOT, "x"))), Err(Busy));
    assert_eq!(world.root(rename((ROOT, "e"), (ROOT, "d"))), Err(Busy));
    assert_eq!(world.root(rename((ROOT, "f"), (ROOT, "d"))), Err(IsDirectory));
    assert_eq!(world.root(rename((ROOT, "f"), (directory, "x"))), Err(CrossMinistry));
    assert_eq!(world.root(rename((ROOT, "f"), (InodeId(1 << 50), "x"))), Err(CrossMinistry));
    assert_eq!(world.root(rename((ROOT, "f"), (InodeId(1000), "x"))), Err(NotFound));
    let link = |inode| Operation::Link { inode, parent: ROOT, name: b"new".to_vec() };
    assert_eq!(world.root(link(InodeId(1 << 50))), Err(CrossMinistry));
    assert_eq!(world.root(link(InodeId(1000))), Err(NotFound));
    assert_eq!(world.lookup(&Caller::root(), ROOT, "f"), Ok(file));
}

#[test]
fn the_heir_goes_on_with_the_directory_as_it_was() {
    let (world, mut heir, directory) = handed_over();
    assert!(heir.rules.exists(&heir.kv, directory).unwrap());
    assert_eq!(heir.stat(directory).permissions, 0o1777);
    let query = Query::GetXattr { inode: directory, name: b"user.b".to_vec() };
    assert_eq!(heir.query(&Caller::root(), &query), Ok(Answer::Value("user.b".into())));
    assert_eq!(heir.root(set_xattr(directory, "user.a")), Err(Exists));
    let parent = heir.query(&Caller::root(), &Query::Parent { inode: directory });
    assert_eq!(parent, Ok(Answer::Parent { parent: ROOT, name: b"d".to_vec() }));
    let file = heir.file(directory, "f");
    assert_eq!(file, InodeId(7000), "children have numbers of the heir");
    let sub = heir.directory(directory, "sub");
    assert_eq!(heir.stat(directory).links, 3);
    assert_eq!(heir.root(rename((directory, "sub"), (sub, "x"))), Err(Invalid));
    assert_eq!(heir.root(rename((directory, "f"), (ROOT, "x"))), Err(CrossMinistry));
    assert_eq!(heir.lookup(&Caller::root(), directory, ".."), Ok(ROOT));
    assert_eq!(give(&mut heir, directory, MinistryId(3)), Err(Busy), "it is a root already");
    drop(world);
}

#[test]
fn a_record_that_cannot_be_read_is_not_adopted() {
    let mut heir = World::bare(HEIR);
    let epoch = heir.epoch;
    let before = heir.dump();
    for record in [vec![], vec![1, 2, 3], vec![9; 200]] {
        let reply = heir.apply(&Command::Adopt { epoch, record, generation: 5 });
        assert_eq!(reply, CommandReply::GivenAway(Err(Damaged)));
    }
    assert_eq!(heir.dump(), before);
}
