//! Changes on a minister whose disk is short.

use bytes::Bytes;
use ministry_types::operations::{
    ChangeResult, Operation, Outcome, RenameMode, SetAttributes, WriteAt, XattrMode,
};
use ministry_types::{Caller, FileKind, FsError, InodeId, SpaceChange};

use super::world::{ROOT, World, create};
use crate::{Command, CommandReply};

fn short(world: &mut World, operation: Operation) -> Command {
    let change = Box::new(world.command(&Caller::root(), operation));
    Command::WithoutRoom { epoch: world.epoch, change }
}

fn try_to(world: &mut World, operation: Operation) -> ChangeResult {
    let command = short(world, operation);
    match world.apply(&command) {
        CommandReply::Change(result) => result,
        other => panic!("{command:?} answered {other:?}"),
    }
}

fn refused(world: &mut World, operation: Operation) {
    let said = format!("{operation:?}");
    let before = world.dump().len();
    assert_eq!(try_to(world, operation), Err(FsError::NoSpace), "{said}");
    assert_eq!(world.dump().len(), before, "{said}");
}

fn write(inode: InodeId, offset: u64, data: &'static [u8]) -> Operation {
    let (at, data) = (WriteAt::Offset(offset), Bytes::from_static(data));
    Operation::WriteInline { inode, at, data }
}

fn resize(inode: InodeId, size: u64) -> Operation {
    let set = SetAttributes { size: Some(size), ..SetAttributes::default() };
    Operation::SetAttributes { inode, set }
}

#[test]
fn what_adds_is_refused_and_the_rest_goes_on() {
    let mut world = World::new();
    let file = world.file(ROOT, "file");
    world.write(file, WriteAt::Offset(0), b"12345678").unwrap();
    let empty = world.file(ROOT, "empty");
    let name = |name: &str| name.as_bytes().to_vec();

    refused(&mut world, create(ROOT, "new", FileKind::Regular, 0o644));
    refused(&mut world, create(ROOT, "folder", FileKind::Directory, 0o755));
    refused(&mut world, Operation::Link { inode: file, parent: ROOT, name: name("link") });
    refused(&mut world, write(file, 4, b"12345"));
    refused(&mut world, write(empty, 0, b"1"));
    refused(&mut world, resize(file, 9));
    let set = Operation::SetXattr {
        inode: file,
        name: name("user.a"),
        value: Bytes::from_static(b"b"),
        mode: XattrMode::Either,
    };
    refused(&mut world, set);
    refused(&mut world, Operation::Extend { inode: file, size: 10 });
    let (keep, offset, length, keep_size) = (SpaceChange::Allocate, 0, 9, false);
    refused(
        &mut world,
        Operation::SpaceInline { inode: file, offset, length, change: keep, keep_size },
    );
    assert_eq!(world.content(file).unwrap(), b"12345678");

    // What is wrong in any case is said before.
    let exists = try_to(&mut world, create(ROOT, "file", FileKind::Regular, 0o644));
    assert_eq!(exists, Err(FsError::Exists));

    // What does not fit into an inode is not the state's.
    let outgrows = try_to(&mut world, resize(empty, 5_000));
    let is_chunked = |found: &Outcome| match found {
        Outcome::Attributes(attributes) => attributes.layout.is_chunked(),
        _ => false,
    };
    assert!(outgrows.as_ref().is_ok_and(is_chunked), "{outgrows:?}");
    let set = |value: &'static [u8]| Operation::SetXattr {
        inode: file,
        name: name("user.kept"),
        value: Bytes::from_static(value),
        mode: XattrMode::Either,
    };
    world.root(set(b"value")).unwrap();
    refused(&mut world, set(b"longer value"));
    try_to(&mut world, set(b"other")).unwrap();

    try_to(&mut world, write(file, 4, b"abcd")).unwrap();
    try_to(&mut world, resize(file, 6)).unwrap();
    assert_eq!(world.content(file).unwrap(), b"1234ab");
    let rename = Operation::Rename {
        parent: ROOT,
        name: name("file"),
        new_parent: ROOT,
        new_name: name("moved"),
        mode: RenameMode::Replace,
    };
    try_to(&mut world, rename).unwrap();
    try_to(&mut world, Operation::Unlink { parent: ROOT, name: name("moved") }).unwrap();
}

#[test]
fn what_was_carried_out_is_answered_so_and_what_was_refused_stays_refused() {
    let mut world = World::new();
    let done = world.command(&Caller::root(), create(ROOT, "a", FileKind::Regular, 0o644));
    let reply = world.apply(&done);
    assert!(matches!(reply, CommandReply::Change(Ok(Outcome::Attributes(_)))));
    let again = Command::WithoutRoom { epoch: world.epoch, change: Box::new(done) };
    assert_eq!(world.apply(&again), reply);

    let late = world.command(&Caller::root(), create(ROOT, "b", FileKind::Regular, 0o644));
    let without = Command::WithoutRoom { epoch: world.epoch, change: Box::new(late.clone()) };
    let refused = CommandReply::Change(Err(FsError::NoSpace));
    assert_eq!(world.apply(&without), refused);
    // The first try of it, which was slower.
    assert_eq!(world.apply(&late), refused);
    world.file(ROOT, "b");
}

#[test]
fn behind_what_is_settled_it_is_the_same() {
    let mut world = World::new();
    let file = world.file(ROOT, "file");
    world.write(file, WriteAt::Offset(0), b"1234").unwrap();
    let epoch = world.epoch;
    let settle = |then| Command::Settle { epoch, unlogged: Vec::new(), then: Some(Box::new(then)) };
    let longer = settle(short(&mut world, write(file, 0, b"12345")));
    assert_eq!(world.apply(&longer), CommandReply::Change(Err(FsError::NoSpace)));
    let same = settle(short(&mut world, write(file, 0, b"abcd")));
    assert!(matches!(world.apply(&same), CommandReply::Change(Ok(Outcome::Written { .. }))));
    assert_eq!(world.content(file).unwrap(), b"abcd");
}
