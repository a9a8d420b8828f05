//! Owners, modes, times, extended attributes: who may, and what goes with it.

use bytes::Bytes;
use ministry_types::FsError::{self, *};
use ministry_types::limits::{XATTR_VALUE_BYTES_MAX, XATTRS_BYTES_MAX};
use ministry_types::operations::{
    Answer, Operation, Outcome, Query, SetAttributes, SetTime, WriteAt, XattrMode,
};
use ministry_types::{Attributes, Caller, FileKind, InodeId, Timestamp};

use super::world::{ROOT, World, create, user};
use crate::QueryRefusal;

fn set_xattr(inode: InodeId, name: &str, value: &[u8], mode: XattrMode) -> Operation {
    let value = Bytes::copy_from_slice(value);
    Operation::SetXattr { inode, name: name.as_bytes().to_vec(), value, mode }
}

fn xattr(world: &World, caller: &Caller, inode: InodeId, name: &str) -> Result<Bytes, FsError> {
    match world.query(caller, &Query::GetXattr { inode, name: name.as_bytes().to_vec() }) {
        Ok(Answer::Value(value)) => Ok(value),
        Err(QueryRefusal::Fs(error)) => Err(error),
        other => panic!("{other:?}"),
    }
}

#[test]
fn times_are_set_by_the_owner_and_now_by_who_may_write() {
    let mut world = World::new();
    let inode = world.file(ROOT, "f");
    world.mode(inode, 0o646);
    let (writer, reader) = (user(1, 1, &[]), user(2, 0, &[]));
    let set = |time| Operation::SetAttributes {
        inode,
        set: SetAttributes { atime: Some(time), mtime: Some(time), ..Default::default() },
    };
    assert_eq!(world.change(&reader, set(SetTime::Now)), Err(PermissionDenied));
    assert_eq!(world.change(&writer, set(SetTime::At(Timestamp(5)))), Err(NotPermitted));
    assert!(world.change(&writer, set(SetTime::Now)).is_ok());
    let is = world.stat(inode);
    assert_eq!((is.atime, is.mtime), (is.ctime, is.ctime));
    world.root(set(SetTime::At(Timestamp(5)))).unwrap();
    let is = world.stat(inode);
    assert_eq!((is.atime, is.mtime), (Timestamp(5), Timestamp(5)));
    assert_eq!(is.ctime, world.time);
}

#[test]
fn times_grow_where_the_clock_does_not() {
    let mut world = World::new();
    let inode = world.file(ROOT, "f");
    let before = world.stat(inode);
    world.time = Timestamp(0);
    world.write(inode, WriteAt::End, b"x").unwrap();
    let after = world.stat(inode);
    assert_eq!(after.mtime, Timestamp(before.mtime.0 + 1));
    assert_eq!(after.ctime, Timestamp(before.ctime.0 + 1));
    // A time of now after that is not an older one.
    let set = SetAttributes { mtime: Some(SetTime::Now), ..Default::default() };
    world.set(inode, set).unwrap();
    assert!(world.stat(inode).mtime > after.mtime);
}

#[test]
fn a_write_by_another_takes_rights_and_capabilities_away() {
    let mut world = World::new();
    let inode = world.file(ROOT, "f");
    let capability = "security.capability";
    let someone = user(1, 1, &[]);
    let write = Operation::WriteInline { inode, at: WriteAt::End, data: Bytes::from_static(b"x") };
    world.mode(inode, 0o6777);
    world.root(set_xattr(inode, capability, b"c", XattrMode::Either)).unwrap();
    assert_eq!(xattr(&world, &someone, inode, capability).unwrap(), "c");
    world.change(&someone, write.clone()).unwrap();
    assert_eq!(world.stat(inode).permissions, 0o777);
    assert_eq!(xattr(&world, &someone, inode, capability), Err(NoAttribute));

    world.mode(inode, 0o6777);
    world.root(write).unwrap();
    assert_eq!(world.stat(inode).permissions, 0o6777, "the super-user's writes take no bits");
    let chown = SetAttributes { uid: Some(1), ..Default::default() };
    world.set(inode, chown).unwrap();
    assert_eq!(world.stat(inode).permissions, 0o777, "but giving it away does");
}

#[test]
fn capabilities_go_by_the_hand_of_whoever_could_write_them_away() {
    let mut world = World::new();
    let inode = world.file(ROOT, "f");
    let capability = "security.capability";
    let give = set_xattr(inode, capability, b"c", XattrMode::Either);
    let take = Operation::RemoveXattr { inode, name: capability.into() };
    let someone = user(1, 1, &[]);
    world.root(give.clone()).unwrap();
    assert_eq!(world.change(&someone, give.clone()), Err(NotPermitted));
    assert_eq!(world.change(&someone, take.clone()), Err(NotPermitted));
    world.mode(inode, 0o646);
    assert_eq!(world.change(&someone, take.clone()), Ok(Outcome::Done));
    assert_eq!(world.change(&someone, take), Err(NoAttribute));
    let other = Operation::RemoveXattr { inode, name: b"security.other".to_vec() };
    assert_eq!(world.change(&someone, other), Err(NotPermitted));
}

#[test]
fn a_group_bit_is_kept_only_by_members() {
    let mut world = World::new();
    world.mode(ROOT, 0o777);
    let owner = user(1, 1, &[5]);
    let inode = world.made(&owner, create(ROOT, "f", FileKind::Regular, 0o644)).inode;
    let set = |gid, permissions| Operation::SetAttributes {
        inode,
        set: SetAttributes { gid, permissions, ..Default::default() },
    };
    assert_eq!(world.change(&owner, set(Some(6), None)), Err(NotPermitted));
    assert!(world.change(&owner, set(Some(5), None)).is_ok());
    assert!(world.change(&owner, set(None, Some(0o2755))).is_ok());
    assert_eq!(world.stat(inode).permissions, 0o2755);
    world.root(set(Some(9), None)).unwrap();
    assert!(world.change(&owner, set(None, Some(0o2755))).is_ok());
    assert_eq!(world.stat(inode).permissions, 0o755);
    assert_eq!(world.root(set(Some(u32::MAX), None)), Err(Invalid));
}

#[test]
fn setting_nothing_is_a_chown_of_nobody_that_shows_in_ctime_alone() {
    let mut world = World::new();
    let inode = world.file(ROOT, "f");
    let before = world.stat(inode);
    let set = SetAttributes { size_by_handle: true, ..Default::default() };
    let nothing = Operation::SetAttributes { inode, set };
    let anybody = user(1, 1, &[]);
    let Ok(Outcome::Attributes(after)) = world.change(&anybody, nothing.clone()) else {
        panic!("as on a local disk anybody may");
    };
    assert!(after.ctime > before.ctime);
    assert_eq!(Attributes { ctime: before.ctime, ..after }, before);
    world.mode(inode, 0o6755);
    let with_bits = world.stat(inode);
    let asked = world.change(&anybody, nothing.clone());
    assert_eq!(asked, Ok(Outcome::Attributes(with_bits)), "the write that follows takes them");
    world.root(nothing).unwrap();
    assert_eq!(world.stat(inode).permissions, 0o755);
}

#[test]
fn one_time_of_now_alone_is_set_by_the_owner() {
    let mut world = World::new();
    let inode = world.file(ROOT, "f");
    world.mode(inode, 0o666);
    let set = SetAttributes { atime: Some(SetTime::Now), ..Default::default() };
    let access = Operation::SetAttributes { inode, set };
    assert_eq!(world.change(&user(1, 1, &[]), access.clone()), Err(NotPermitted));
    assert!(world.root(access).is_ok());
    // The kernel sends a cut with the time of the change: that is no wish of its own.
    let (size, mtime) = (Some(0), Some(SetTime::Now));
    let set = SetAttributes { size, mtime, ..Default::default() };
    let cut = Operation::SetAttributes { inode, set };
    assert!(world.change(&user(1, 1, &[]), cut).is_ok());
}

#[test]
fn each_name_space_of_attributes_has_its_own_rule() {
    let mut world = World::new();
    let inode = world.file(ROOT, "f");
    let fifo = world.made(&Caller::root(), create(ROOT, "p", FileKind::Fifo, 0o666)).inode;
    let someone = user(1, 1, &[]);
    let either = |inode, name: &str| set_xattr(inode, name, b"v", XattrMode::Either);
    for (name, error) in [
        ("user.a", PermissionDenied),
        ("trusted.a", NotPermitted),
        ("security.a", NotPermitted),
        ("system.other", NotSupported),
        ("other", NotSupported),
        ("", Range),
    ] {
        assert_eq!(world.change(&someone, either(inode, name)), Err(error), "{name}");
    }
    for name in ["user.a", "trusted.a", "security.a"] {
        assert_eq!(world.root(either(inode, name)), Ok(Outcome::Done));
    }
    assert_eq!(world.root(either(inode, "user.")), Err(Invalid));
    assert_eq!(world.root(either(fifo, "user.a")), Err(NotPermitted));
    assert_eq!(xattr(&world, &someone, fifo, "user.a"), Err(NoAttribute));
    assert_eq!(xattr(&world, &someone, inode, "user.a").unwrap(), "v");
    assert_eq!(xattr(&world, &someone, inode, "trusted.a"), Err(NoAttribute));
    assert_eq!(xattr(&world, &someone, inode, "security.a").unwrap(), "v");
    world.mode(inode, 0o600);
    assert_eq!(xattr(&world, &someone, inode, "user.a"), Err(PermissionDenied));

    let names = |caller| match world.query(caller, &Query::ListXattrs { inode }) {
        Ok(Answer::Names(names)) => names.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!((names(&Caller::root()), names(&someone)), (3, 2));
}

#[test]
fn an_attribute_is_made_replaced_and_removed_as_asked() {
    let mut world = World::new();
    let inode = world.file(ROOT, "f");
    let set = |mode, value: &[u8]| set_xattr(inode, "user.a", value, mode);
    let remove = Operation::RemoveXattr { inode, name: b"user.a".to_vec() };
    assert_eq!(world.root(set(XattrMode::Replace, b"1")), Err(NoAttribute));
    assert_eq!(world.root(remove.clone()), Err(NoAttribute));
    assert!(world.root(set(XattrMode::Create, b"1")).is_ok());
    assert_eq!(world.root(set(XattrMode::Create, b"2")), Err(Exists));
    assert!(world.root(set(XattrMode::Replace, b"3")).is_ok());
    assert_eq!(xattr(&world, &Caller::root(), inode, "user.a").unwrap(), "3");
    let ctime = world.stat(inode).ctime;
    assert!(world.root(remove).is_ok());
    assert!(world.stat(inode).ctime > ctime);
    assert_eq!(xattr(&world, &Caller::root(), inode, "user.a"), Err(NoAttribute));
}

#[test]
fn attributes_have_limits() {
    let mut world = World::new();
    let inode = world.file(ROOT, "f");
    let set = |name: &str, bytes: usize| set_xattr(inode, name, &vec![7; bytes], XattrMode::Either);
    let largest = XATTR_VALUE_BYTES_MAX;
    assert_eq!(world.root(set("user.a", largest + 1)), Err(TooLarge));
    assert!(world.root(set("user.a", largest)).is_ok());
    assert_eq!(world.root(set("user.b", largest)), Err(NoSpace), "names count too");
    assert!(world.root(set("user.b", XATTRS_BYTES_MAX - largest - 12)).is_ok());
    let long = format!("user.{}", "x".repeat(251));
    assert_eq!(world.root(set(&long, 0)), Err(Range));
    // Room comes back with what is replaced and what is removed, and with nothing else.
    assert_eq!(world.root(set("user.c", 0)), Err(NoSpace));
    assert!(world.root(set("user.a", largest - 6)).is_ok());
    assert!(world.root(set("user.c", 0)).is_ok());
    assert_eq!(world.root(set("user.d", 0)), Err(NoSpace));
    world.root(Operation::RemoveXattr { inode, name: b"user.a".to_vec() }).unwrap();
    assert!(world.root(set("user.d", largest)).is_err());
    assert!(world.root(set("user.d", largest - 12)).is_ok());
    match world.query(&Caller::root(), &Query::ListXattrs { inode }) {
        Ok(Answer::Names(names)) => {
            assert_eq!(names, ["user.b", "user.c", "user.d"].map(Vec::from))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_change_of_one_attribute_writes_none_of_the_others() {
    let mut world = World::new();
    let inode = world.file(ROOT, "f");
    for number in 0..100 {
        world.root(set_xattr(inode, &format!("user.{number}"), b"v", XattrMode::Create)).unwrap();
    }
    let before = world.dump();
    world.root(set_xattr(inode, "user.7", b"w", XattrMode::Replace)).unwrap();
    let after = world.dump();
    let changed = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    assert_eq!(before.len(), after.len());
    // The attribute, its object, the slot of the change and the place in the log.
    assert!(changed <= 4, "{changed} records");
}

#[test]
fn opening_and_asking_for_access_look_at_the_mode() {
    let mut world = World::new();
    let inode = world.file(ROOT, "f");
    let directory = world.directory(ROOT, "d");
    let link = world.made(&Caller::root(), create(ROOT, "s", FileKind::Symlink, 0)).inode;
    let someone = user(1, 1, &[]);
    let open = |inode, read, write, execute| Query::Open { inode, read, write, execute };
    let refused = |caller: &Caller, query| match world.query(caller, &query) {
        Ok(_) => None,
        Err(QueryRefusal::Fs(error)) => Some(error),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&someone, open(inode, true, false, false)), None);
    assert_eq!(refused(&someone, open(inode, true, true, false)), Some(PermissionDenied));
    assert_eq!(refused(&Caller::root(), open(inode, false, true, false)), None);
    assert_eq!(refused(&Caller::root(), open(inode, false, false, true)), Some(PermissionDenied));
    assert_eq!(refused(&Caller::root(), open(directory, false, true, false)), Some(IsDirectory));
    assert_eq!(refused(&Caller::root(), open(link, true, false, false)), Some(Invalid));
    let access = |mask| Query::Access { inode, mask };
    assert_eq!(refused(&someone, access(0)), None);
    assert_eq!(refused(&someone, access(4)), None);
    assert_eq!(refused(&someone, access(6)), Some(PermissionDenied));
    assert_eq!(refused(&someone, access(8)), Some(Invalid));
}

#[test]
fn a_directory_shows_its_names_to_readers_and_finds_them_for_searchers() {
    let mut world = World::new();
    let directory = world.directory(ROOT, "d");
    world.file(directory, "f");
    let someone = user(1, 1, &[]);
    let list = Query::List { inode: directory, after: 0, entries_max: 9, attributes: false };
    world.mode(directory, 0o711);
    assert_eq!(world.query(&someone, &list), Err(QueryRefusal::Fs(PermissionDenied)));
    assert!(world.lookup(&someone, directory, "f").is_ok());
    world.mode(directory, 0o744);
    assert!(world.query(&someone, &list).is_ok());
    assert_eq!(world.lookup(&someone, directory, "f"), Err(PermissionDenied));
    assert_eq!(world.lookup(&someone, directory, "g"), Err(PermissionDenied));
}
