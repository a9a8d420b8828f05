//! Which times and link counts a change moves: those that a local disk moves, and no others.

use ministry_types::operations::{Operation, RenameMode};
use ministry_types::{FileKind, InodeId};

use super::world::{ROOT, World, create};

/// What of an object has moved since it was looked at.
fn moved(world: &World, before: &[ministry_types::Attributes]) -> Vec<&'static str> {
    let told = before.iter().map(|old| {
        let new = world.stat(old.inode);
        assert_eq!((new.atime, new.btime), (old.atime, old.btime));
        match (new.ctime > old.ctime, new.mtime > old.mtime) {
            (true, true) => "mc",
            (true, false) => "c",
            (false, false) => "-",
            (false, true) => panic!("mtime moves with ctime"),
        }
    });
    told.collect()
}

fn name(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

fn rename(from: (InodeId, &str), to: (InodeId, &str), mode: RenameMode) -> Operation {
    Operation::Rename {
        parent: from.0,
        name: name(from.1),
        new_parent: to.0,
        new_name: name(to.1),
        mode,
    }
}

/// Carries the operation out and tells what moved of each object.
fn after(world: &mut World, objects: &[InodeId], operation: Operation) -> Vec<&'static str> {
    let before: Vec<_> = objects.iter().map(|inode| world.stat(*inode)).collect();
    world.root(operation).unwrap();
    moved(world, &before)
}

#[test]
fn names_move_the_times_of_their_folder_and_of_what_they_name() {
    let mut world = World::new();
    let top = world.directory(ROOT, "d");
    let file = world.file(top, "f");
    assert_eq!(
        after(&mut world, &[ROOT, top, file], create(top, "g", FileKind::Fifo, 0)),
        ["-", "mc", "-"]
    );
    let link = Operation::Link { inode: file, parent: ROOT, name: name("l") };
    assert_eq!(after(&mut world, &[ROOT, top, file], link), ["mc", "-", "c"]);
    assert_eq!(world.stat(file).links, 2);
    let unlink = Operation::Unlink { parent: top, name: name("f") };
    assert_eq!(after(&mut world, &[ROOT, top, file], unlink), ["-", "mc", "c"]);
    let last = Operation::Unlink { parent: ROOT, name: name("l") };
    assert_eq!(after(&mut world, &[ROOT, top, file], last), ["mc", "-", "c"]);
    assert_eq!(world.stat(file).links, 0);
    let below = world.directory(top, "below");
    assert_eq!(world.stat(top).links, 3);
    let rmdir = Operation::RemoveDirectory { parent: top, name: name("below") };
    assert_eq!(after(&mut world, &[ROOT, top, below], rmdir), ["-", "mc", "c"]);
    assert_eq!((world.stat(top).links, world.stat(below).links), (2, 0));
}

#[test]
fn renames_move_the_times_of_both_folders_the_moved_and_the_displaced() {
    let mut world = World::new();
    let (a, b) = (world.directory(ROOT, "a"), world.directory(ROOT, "b"));
    let (one, two) = (world.file(a, "1"), world.file(b, "2"));
    let all = [a, b, one, two];
    let within = rename((a, "1"), (a, "x"), RenameMode::Replace);
    assert_eq!(after(&mut world, &all, within), ["mc", "-", "c", "-"]);
    let exchange = rename((a, "x"), (b, "2"), RenameMode::Exchange);
    assert_eq!(after(&mut world, &all, exchange), ["mc", "mc", "c", "c"]);
    let over = rename((a, "x"), (b, "2"), RenameMode::Replace);
    assert_eq!(after(&mut world, &all, over), ["mc", "mc", "c", "c"]);
    assert_eq!((world.stat(one).links, world.stat(two).links), (0, 1));
    // A folder takes its `..` along: the counts of both parents follow.
    let folder = world.directory(a, "folder");
    let links = |world: &World| (world.stat(a).links, world.stat(b).links);
    assert_eq!(links(&world), (3, 2));
    let across = rename((a, "folder"), (b, "folder"), RenameMode::NoReplace);
    assert_eq!(after(&mut world, &[a, b, folder], across), ["mc", "mc", "c"]);
    assert_eq!(links(&world), (2, 3));
    let exchange = rename((b, "folder"), (b, "2"), RenameMode::Exchange);
    assert_eq!(after(&mut world, &[a, b, folder, two], exchange), ["-", "mc", "c", "c"]);
    // Two names of one object: nothing happens at all.
    world.root(Operation::Link { inode: two, parent: a, name: name("same") }).unwrap();
    let nothing = rename((a, "same"), (b, "folder"), RenameMode::Replace);
    assert_eq!(after(&mut world, &[a, b, two], nothing), ["-", "-", "-"]);
    assert_eq!(world.stat(two).links, 2);
}
