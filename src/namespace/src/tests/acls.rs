//! Access control lists: as extended attributes, and who may do what because of them.

use bytes::Bytes;
use ministry_types::FsError::{self, *};
use ministry_types::operations::{Answer, Operation, Outcome, Query, SetAttributes, XattrMode};
use ministry_types::{Attributes, Caller, Epoch, FileKind, InodeId, MinistryId};

use super::world::{ROOT, World, create, user};
use crate::acl::Whom::{self, *};
use crate::acl::tests::bytes;
use crate::{Command, CommandReply, QueryRefusal};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

fn set(inode: InodeId, name: &str, list: &[(Whom, u32)]) -> Operation {
    let value = Bytes::from(bytes(list));
    Operation::SetXattr { inode, name: name.into(), value, mode: XattrMode::Either }
}

fn remove(inode: InodeId, name: &str) -> Operation {
    Operation::RemoveXattr { inode, name: name.into() }
}

fn shown(world: &World, inode: InodeId, name: &str) -> Result<Bytes, FsError> {
    let query = Query::GetXattr { inode, name: name.into() };
    match world.query(&user(99, 99, &[]), &query) {
        Ok(Answer::Value(value)) => Ok(value),
        Err(QueryRefusal::Fs(error)) => Err(error),
        other => panic!("{other:?}"),
    }
}

fn names(world: &World, caller: &Caller, inode: InodeId) -> Vec<Vec<u8>> {
    match world.query(caller, &Query::ListXattrs { inode }) {
        Ok(Answer::Names(names)) => names,
        other => panic!("{other:?}"),
    }
}

fn opens(world: &World, caller: &Caller, inode: InodeId, read: bool, write: bool) -> bool {
    world.query(caller, &Query::Open { inode, read, write, execute: false }).is_ok()
}

fn masked(name: u32) -> Operation {
    create(ROOT, &name.to_string(), FileKind::Regular, 0o666)
}

fn create_masked(parent: InodeId, name: &str, kind: FileKind, mode: u32, mask: u32) -> Operation {
    let mut operation = create(parent, name, kind, mode);
    if let Operation::Create { umask, .. } = &mut operation {
        *umask = mask;
    }
    operation
}

const LIST: &[(Whom, u32)] =
    &[(Owner, 6), (User(7), 6), (OwningGroup, 4), (Group(70), 2), (Mask, 6), (Others, 0)];

#[test]
fn a_list_sets_the_mode_and_lets_in_whom_it_names() {
    let mut world = World::new();
    let inode = world.made(&Caller::root(), masked(1)).inode;
    let before = world.stat(inode);
    world.root(set(inode, ACCESS, LIST)).unwrap();
    let is = world.stat(inode);
    assert_eq!(is.permissions, 0o660);
    assert!(is.ctime > before.ctime && is.mtime == before.mtime);
    assert_eq!(shown(&world, inode, ACCESS).unwrap(), bytes(LIST));
    assert_eq!(names(&world, &user(9, 9, &[]), inode), [ACCESS.as_bytes()]);
    assert!(opens(&world, &user(7, 9, &[]), inode, true, true));
    assert!(opens(&world, &user(8, 8, &[70]), inode, false, true));
    assert!(!opens(&world, &user(8, 8, &[70]), inode, true, false));
    assert!(!opens(&world, &user(9, 9, &[]), inode, true, false));
    // `chmod g-w` is the mask.
    world.mode(inode, 0o640);
    assert!(!opens(&world, &user(7, 9, &[]), inode, true, true));
    assert!(opens(&world, &user(7, 9, &[]), inode, true, false));
    assert!(!opens(&world, &user(8, 8, &[70]), inode, false, true));
    world.root(remove(inode, ACCESS)).unwrap();
    assert_eq!(world.stat(inode).permissions, 0o640, "the mode stays");
    assert!(!opens(&world, &user(7, 9, &[]), inode, true, false));
    assert_eq!(shown(&world, inode, ACCESS), Err(NoAttribute));
    assert_eq!(world.root(remove(inode, ACCESS)), Ok(Outcome::Done), "as Linux");
}

#[test]
fn a_list_that_says_no_more_than_the_mode_is_not_kept() {
    let mut world = World::new();
    let inode = world.made(&Caller::root(), masked(1)).inode;
    world.root(set(inode, ACCESS, LIST)).unwrap();
    world.root(set(inode, ACCESS, &[(Owner, 7), (OwningGroup, 5), (Others, 1)])).unwrap();
    assert_eq!(world.stat(inode).permissions, 0o751);
    assert_eq!(shown(&world, inode, ACCESS), Err(NoAttribute));
    assert!(names(&world, &Caller::root(), inode).is_empty());
}

#[test]
fn lists_are_set_by_the_owner_where_they_make_sense() {
    let mut world = World::new();
    let owner = user(5, 50, &[]);
    world.mode(ROOT, 0o777);
    let inode = world.made(&owner, masked(1)).inode;
    let link = world.made(&owner, create(ROOT, "l", FileKind::Symlink, 0)).inode;
    assert_eq!(world.change(&user(6, 50, &[]), set(inode, ACCESS, LIST)), Err(NotPermitted));
    assert_eq!(world.change(&user(6, 50, &[]), remove(inode, ACCESS)), Err(NotPermitted));
    assert_eq!(world.change(&owner, set(inode, ACCESS, LIST)), Ok(Outcome::Done));
    assert_eq!(world.change(&owner, set(inode, DEFAULT, LIST)), Err(PermissionDenied));
    assert_eq!(world.change(&owner, remove(inode, DEFAULT)), Ok(Outcome::Done));
    assert_eq!(world.root(set(link, ACCESS, LIST)), Err(NotSupported));
    assert_eq!(shown(&world, link, ACCESS), Err(NotSupported));
    assert_eq!(world.root(set(inode, ACCESS, &LIST[1..])), Err(Invalid));
    // Who is not in the group cannot keep its set-group bit.
    world.mode(inode, 0o2770);
    world.set(inode, SetAttributes { gid: Some(51), ..Default::default() }).unwrap();
    world.mode(inode, 0o2770);
    assert_eq!(world.change(&owner, set(inode, ACCESS, LIST)), Ok(Outcome::Done));
    assert_eq!(world.stat(inode).permissions, 0o660);
}

#[test]
fn a_default_list_is_inherited_and_sets_the_umask_aside() {
    let mut world = World::new();
    let top = world.directory(ROOT, "d");
    let default = &[(Owner, 7), (User(7), 7), (OwningGroup, 5), (Mask, 7), (Others, 5)];
    world.root(set(top, DEFAULT, default)).unwrap();
    assert_eq!(world.stat(top).permissions, 0o755, "it says nothing of the directory itself");
    let made = |world: &mut World, name: &str, kind, mode| -> Attributes {
        world.made(&Caller::root(), create_masked(top, name, kind, mode, 0o077))
    };
    let file = made(&mut world, "f", FileKind::Regular, 0o640);
    assert_eq!(file.permissions, 0o640);
    let own = &[(Owner, 6), (User(7), 7), (OwningGroup, 5), (Mask, 4), (Others, 0)];
    assert_eq!(shown(&world, file.inode, ACCESS).unwrap(), bytes(own));
    assert_eq!(shown(&world, file.inode, DEFAULT), Err(NoAttribute));
    assert!(opens(&world, &user(7, 7, &[]), file.inode, true, false));
    assert!(!opens(&world, &user(7, 7, &[]), file.inode, true, true));
    let below = made(&mut world, "below", FileKind::Directory, 0o777);
    assert_eq!(below.permissions, 0o775);
    assert_eq!(shown(&world, below.inode, DEFAULT).unwrap(), bytes(default));
    let link = made(&mut world, "l", FileKind::Symlink, 0o777);
    assert_eq!(link.permissions, 0o777);
    world.root(remove(top, DEFAULT)).unwrap();
    let plain = made(&mut world, "plain", FileKind::Regular, 0o666);
    assert_eq!(plain.permissions, 0o600);
    assert_eq!(shown(&world, plain.inode, ACCESS), Err(NoAttribute));
}

#[test]
fn the_set_group_bit_of_a_new_file_is_judged_before_the_umask() {
    let mut world = World::new();
    let top = world.made(&Caller::root(), create(ROOT, "d", FileKind::Directory, 0o777)).inode;
    world.set(top, SetAttributes { gid: Some(5), ..Default::default() }).unwrap();
    world.mode(top, 0o2777);
    let new = |name| create_masked(top, name, FileKind::Regular, 0o2777, 0o070);
    assert_eq!(world.made(&user(1, 1, &[]), new("a")).permissions, 0o707);
    assert_eq!(world.made(&user(1, 1, &[5]), new("b")).permissions, 0o2707);
}

#[test]
fn nothing_of_a_list_is_left_when_its_object_is_gone() {
    let mut world = World::new();
    let before = world.dump().len();
    let top = world.directory(ROOT, "d");
    world.root(set(top, DEFAULT, LIST)).unwrap();
    world.root(set(top, ACCESS, LIST)).unwrap();
    world.root(Operation::RemoveDirectory { parent: ROOT, name: b"d".into() }).unwrap();
    let (epoch, session) = (world.epoch, super::world::SESSION);
    world.must(&Command::ConfirmClosed { epoch, session, inodes: vec![top] });
    // The reply in the slot of the session.
    assert_eq!(world.dump().len(), before + 1);
}

#[test]
fn the_lists_of_a_directory_go_along_to_another_ministry() {
    let mut world = World::new();
    let top = world.directory(ROOT, "d");
    world.root(set(top, DEFAULT, LIST)).unwrap();
    world.root(set(top, ACCESS, LIST)).unwrap();
    let (to, generation) = (MinistryId(7), 2);
    let epoch = world.epoch;
    let reply = world.apply(&Command::GiveAway { epoch, inode: top, to, generation });
    let CommandReply::GivenAway(Ok(record)) = reply else { panic!("{reply:?}") };
    let mut other = World::bare(to);
    other.must(&Command::Adopt { epoch: Epoch(1), record, generation });
    assert_eq!(shown(&other, top, DEFAULT).unwrap(), bytes(LIST));
    assert_eq!(shown(&other, top, ACCESS).unwrap(), bytes(LIST));
}
