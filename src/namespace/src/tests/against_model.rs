//! Random changes by several callers, answered by the rules and by the model, compare equal.

use std::collections::BTreeMap;

use bytes::Bytes;
use ministry_types::operations::{
    Answer, Operation, Outcome, Query, RenameMode, SetAttributes, SetTime, WriteAt, XattrMode,
};
use ministry_types::{Attributes, Caller, FileKind, FsError, InodeId, Layout, Timestamp};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::lists;
use super::model::{Effect, Id, Model, Settings, Verdict};
use super::world::{ROOT, World, create, user};
use crate::QueryRefusal;

/// An operation on objects by their place among all that were made, modulo their number.
#[derive(Debug, Clone)]
pub(super) enum Wish {
    Create(usize, usize, FileKind, (u32, u32)),
    Link(usize, usize, usize),
    Unlink(usize, usize),
    RemoveDirectory(usize, usize),
    Rename(usize, usize, usize, usize, RenameMode),
    Set(usize, Settings),
    Write(usize, Option<usize>, usize),
    /// The default list or the other, by its place among the samples; none removes it.
    SetList(usize, bool, Option<usize>),
}

const NAMES: &[&str] = &["a", "b", "c", "d", "e", "..", "a/b", ""];
const MODES: &[u32] = &[0o777, 0o755, 0o1777, 0o2777, 0o700, 0o6755, 0o2644, 0o666, 0o070, 0];

fn name(at: usize) -> Vec<u8> {
    if at == NAMES.len() { vec![b'x'; 256] } else { NAMES[at].as_bytes().to_vec() }
}

fn callers() -> Vec<Caller> {
    vec![Caller::root(), user(1, 1, &[2]), user(2, 2, &[]), user(3, 1, &[])]
}

fn umask() -> impl Strategy<Value = u32> {
    prop_oneof![2 => Just(0u32), 1 => Just(0o022), 1 => Just(0o077)]
}

fn kind() -> impl Strategy<Value = FileKind> {
    prop_oneof![
        5 => Just(FileKind::Directory),
        5 => Just(FileKind::Regular),
        1 => Just(FileKind::Symlink),
        1 => Just(FileKind::Fifo),
        1 => Just(FileKind::BlockDevice),
    ]
}

fn name_at() -> impl Strategy<Value = usize> {
    prop_oneof![40 => 0usize..5, 1 => 5usize..NAMES.len() + 1]
}

fn settings() -> impl Strategy<Value = Settings> {
    let maybe_mode = prop::option::of(prop::sample::select(MODES));
    let size = prop::option::weighted(0.3, prop::sample::select(&[0u64, 7, 4096, 5000, 1 << 30]));
    (
        maybe_mode,
        prop::option::weighted(0.2, 0u32..4),
        prop::option::weighted(0.2, 0u32..4),
        size,
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(mode, uid, gid, size, touch, set_mtime)| Settings {
            mode,
            uid,
            gid,
            size,
            touch: touch && !set_mtime,
            set_mtime,
        })
}

pub(super) fn wish() -> impl Strategy<Value = Wish> {
    let mode = prop_oneof![
        4 => Just(RenameMode::Replace),
        1 => Just(RenameMode::NoReplace),
        2 => Just(RenameMode::Exchange),
    ];
    let object = 0usize..40;
    prop_oneof![
        8 => (object.clone(), name_at(), kind(), (prop::sample::select(MODES), umask()))
            .prop_map(|(dir, name, kind, mode)| Wish::Create(dir, name, kind, mode)),
        2 => (object.clone(), object.clone(), name_at())
            .prop_map(|(object, dir, name)| Wish::Link(object, dir, name)),
        2 => (object.clone(), name_at()).prop_map(|(dir, name)| Wish::Unlink(dir, name)),
        2 => (object.clone(), name_at()).prop_map(|(dir, name)| Wish::RemoveDirectory(dir, name)),
        6 => (object.clone(), name_at(), object.clone(), name_at(), mode)
            .prop_map(|(a, b, c, d, mode)| Wish::Rename(a, b, c, d, mode)),
        3 => (object.clone(), settings()).prop_map(|(object, set)| Wish::Set(object, set)),
        3 => (object.clone(), any::<bool>(), prop::option::weighted(0.9, 0..lists::samples().len()))
            .prop_map(|(object, default, list)| Wish::SetList(object, default, list)),
        2 => (object, prop::option::of(0usize..6000), 0usize..300)
            .prop_map(|(object, at, length)| Wish::Write(object, at, length)),
    ]
}

pub(super) fn wishes(most: usize) -> impl Strategy<Value = Vec<(usize, Wish)>> {
    prop::collection::vec((prop_oneof![2 => Just(0usize), 3 => 1usize..4], wish()), 1..most)
}

/// The world, the model, and which object is which.
pub(super) struct Pair {
    pub(super) world: World,
    model: Model,
    inodes: Vec<InodeId>,
}

impl Pair {
    pub(super) fn new() -> Pair {
        let mut pair = Pair { world: World::new(), model: Model::new(), inodes: vec![ROOT] };
        let opened = Settings { mode: Some(0o777), ..Default::default() };
        assert_eq!(pair.grant(0, &Wish::Set(0, opened)).unwrap(), Ok(Effect::Done));
        pair
    }

    fn id(&self, at: usize) -> Id {
        at % self.inodes.len()
    }

    fn inode(&self, at: usize) -> InodeId {
        self.inodes[self.id(at)]
    }

    /// The same wish as an operation.
    pub(super) fn operation(&self, wish: &Wish) -> Operation {
        match wish {
            Wish::Create(dir, at, kind, (mode, mask)) => {
                let mut operation = create(self.inode(*dir), "", *kind, *mode);
                if let Operation::Create { name: place, umask, .. } = &mut operation {
                    (*place, *umask) = (name(*at), *mask);
                }
                operation
            }
            Wish::Link(object, dir, at) => Operation::Link {
                inode: self.inode(*object),
                parent: self.inode(*dir),
                name: name(*at),
            },
            Wish::Unlink(dir, at) => {
                Operation::Unlink { parent: self.inode(*dir), name: name(*at) }
            }
            Wish::RemoveDirectory(dir, at) => {
                Operation::RemoveDirectory { parent: self.inode(*dir), name: name(*at) }
            }
            Wish::Rename(dir, at, new_dir, new_at, mode) => Operation::Rename {
                parent: self.inode(*dir),
                name: name(*at),
                new_parent: self.inode(*new_dir),
                new_name: name(*new_at),
                mode: *mode,
            },
            Wish::Set(object, set) => Operation::SetAttributes {
                inode: self.inode(*object),
                set: SetAttributes {
                    permissions: set.mode,
                    uid: set.uid,
                    gid: set.gid,
                    size: set.size,
                    size_by_handle: false,
                    atime: set.touch.then_some(SetTime::Now),
                    mtime: match (set.set_mtime, set.touch) {
                        (true, _) => Some(SetTime::At(Timestamp(77))),
                        (_, true) => Some(SetTime::Now),
                        _ => None,
                    },
                },
            },
            Wish::Write(object, at, length) => Operation::WriteInline {
                inode: self.inode(*object),
                at: at.map_or(WriteAt::End, |at| WriteAt::Offset(at as u64)),
                data: Bytes::from(vec![*length as u8; *length]),
            },
            Wish::SetList(object, default, list) => {
                let inode = self.inode(*object);
                let name = list_name(*default).to_vec();
                match list {
                    None => Operation::RemoveXattr { inode, name },
                    Some(list) => {
                        let value = Bytes::from(lists::value(&lists::samples()[*list].1));
                        Operation::SetXattr { inode, name, value, mode: XattrMode::Either }
                    }
                }
            }
        }
    }

    fn judge(&mut self, who: &Caller, wish: &Wish) -> Verdict {
        let id = |at: &usize| *at % self.inodes.len();
        match wish {
            Wish::Create(dir, at, kind, mode) => {
                let dir = id(dir);
                self.model.create(who, dir, &name(*at), *kind, *mode)
            }
            Wish::Link(object, dir, at) => {
                let (object, dir) = (id(object), id(dir));
                self.model.link(who, object, dir, &name(*at))
            }
            Wish::Unlink(dir, at) => {
                let dir = id(dir);
                self.model.unlink(who, dir, &name(*at))
            }
            Wish::RemoveDirectory(dir, at) => {
                let dir = id(dir);
                self.model.rmdir(who, dir, &name(*at))
            }
            Wish::Rename(dir, at, new_dir, new_at, mode) => {
                let (dir, new_dir) = (id(dir), id(new_dir));
                self.model.rename(who, (dir, &name(*at)), (new_dir, &name(*new_at)), *mode)
            }
            Wish::Set(object, set) => {
                let object = id(object);
                self.model.setattr(who, object, set)
            }
            Wish::Write(object, at, length) => {
                let object = id(object);
                self.model.write(who, object, *at, &vec![*length as u8; *length])
            }
            Wish::SetList(object, default, list) => {
                let object = id(object);
                let list = list.map(|list| lists::samples().swap_remove(list));
                self.model.set_list(who, object, *default, list.as_ref())
            }
        }
    }

    /// Has both carry it out, and compares what they answer.
    pub(super) fn grant(&mut self, who: usize, wish: &Wish) -> Result<Verdict, TestCaseError> {
        let who = callers()[who].clone();
        let operation = self.operation(wish);
        let outcome = self.world.change(&who, operation.clone());
        let verdict = self.judge(&who, wish);
        if let (Wish::Create(..), Ok(Outcome::Attributes(made))) = (wish, &outcome) {
            prop_assert!(!self.inodes.contains(&made.inode), "a number was given out twice");
            self.inodes.push(made.inode);
        }
        let outcome = outcome.map(|outcome| self.effect(outcome));
        prop_assert_eq!(&outcome, &verdict, "{:?} by {:?}", operation, who);
        Ok(verdict)
    }

    fn place(&self, inode: InodeId) -> Id {
        self.inodes.iter().position(|known| *known == inode).unwrap()
    }

    fn effect(&self, outcome: Outcome) -> Effect {
        match outcome {
            Outcome::Done | Outcome::Attributes(_) => Effect::Done,
            Outcome::Unlinked { inode, orphan } => {
                Effect::Unlinked { object: self.place(inode), orphan }
            }
            Outcome::Renamed { displaced, orphan } => {
                Effect::Renamed { displaced: displaced.map(|inode| self.place(inode)), orphan }
            }
            Outcome::Written { offset, .. } => Effect::Written(offset),
            Outcome::NotInline { .. } => Effect::NotInline,
            Outcome::Conflict { .. } => panic!("nothing here conflicts"),
            Outcome::LockDenied
            | Outcome::LockWaiting
            | Outcome::LockCancelled
            | Outcome::Unlocked { .. } => panic!("nothing here locks"),
        }
    }

    fn stats(&self) -> Vec<Attributes> {
        self.inodes.iter().map(|inode| self.world.stat(*inode)).collect()
    }

    /// Everything that can be seen of the tree.
    pub(super) fn compare(&self) -> Result<(), TestCaseError> {
        for (id, inode) in self.inodes.iter().enumerate() {
            let (is, object) = (self.world.stat(*inode), &self.model.objects[id]);
            let seen = (is.kind, is.permissions, is.uid, is.gid, is.links, is.size);
            let (links, size) = (self.model.links(id), self.model.size(id));
            let should = (object.kind, object.mode, object.uid, object.gid, links, size);
            prop_assert_eq!(seen, should, "object {} of {:?}", id, self.model);
            match object.kind {
                FileKind::Directory => self.compare_directory(id, *inode)?,
                FileKind::Regular => {
                    let bytes = object.chunked.is_none().then(|| object.bytes.clone());
                    prop_assert_eq!(is.layout == Layout::Inline, bytes.is_some());
                    prop_assert_eq!(self.world.content(*inode), bytes);
                }
                _ => {}
            }
            self.compare_lists(id, *inode)?;
            self.compare_parent(id, *inode)?;
        }
        Ok(())
    }

    fn compare_lists(&self, id: Id, inode: InodeId) -> Result<(), TestCaseError> {
        let object = &self.model.objects[id];
        if object.kind == FileKind::Symlink {
            return Ok(());
        }
        for (default, list) in [(false, &object.access), (true, &object.default)] {
            let name = list_name(default).to_vec();
            let answer = self.world.query(&Caller::root(), &Query::GetXattr { inode, name });
            let should = match list {
                Some(list) => Ok(Answer::Value(Bytes::from(lists::value(list)))),
                None => Err(QueryRefusal::Fs(FsError::NoAttribute)),
            };
            prop_assert_eq!(answer, should, "object {} of {:?}", id, self.model);
        }
        Ok(())
    }

    fn compare_directory(&self, id: Id, inode: InodeId) -> Result<(), TestCaseError> {
        if self.model.objects[id].removed {
            return Ok(());
        }
        let (entries, end) = self.world.list(inode, 0, 1000);
        prop_assert!(end);
        let seen: BTreeMap<_, _> =
            entries.iter().map(|entry| (entry.name.clone(), self.place(entry.inode))).collect();
        prop_assert_eq!(seen.len(), entries.len());
        prop_assert_eq!(&seen, &self.model.objects[id].entries);
        for entry in &entries {
            let found = self.world.lookup(&Caller::root(), inode, &utf8(&entry.name));
            prop_assert_eq!(found, Ok(entry.inode));
            prop_assert_eq!(entry.attributes.as_ref(), Some(&self.world.stat(entry.inode)));
        }
        Ok(())
    }

    fn compare_parent(&self, id: Id, inode: InodeId) -> Result<(), TestCaseError> {
        let answer = self.world.query(&Caller::root(), &Query::Parent { inode });
        let object = &self.model.objects[id];
        if object.removed {
            prop_assert!(answer.is_err());
            return Ok(());
        }
        let Ok(Answer::Parent { parent, name }) = answer else {
            return Err(TestCaseError::fail(format!("no parent of {inode}: {answer:?}")));
        };
        if id != 0 {
            let names = self.model.names(id);
            prop_assert!(names.contains(&(self.place(parent), name)), "{:?}", names);
        }
        Ok(())
    }
}

fn list_name(default: bool) -> &'static [u8] {
    if default { b"system.posix_acl_default" } else { b"system.posix_acl_access" }
}

fn utf8(name: &[u8]) -> String {
    String::from_utf8(name.to_vec()).unwrap()
}

fn check_times(before: &[Attributes], after: &[Attributes]) -> Result<(), TestCaseError> {
    for (old, new) in before.iter().zip(after) {
        if old == new {
            continue;
        }
        prop_assert!(new.ctime > old.ctime, "{:?} became {:?}", old, new);
        prop_assert_eq!(new.btime, old.btime);
        if old.size != new.size && new.mtime != Timestamp(77) {
            prop_assert!(new.mtime > old.mtime, "{:?} became {:?}", old, new);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_change_answers_and_does_what_the_manual_says(wishes in wishes(80)) {
        let mut pair = Pair::new();
        for (who, wish) in &wishes {
            let before = pair.stats();
            let _ = pair.grant(*who, wish)?;
            check_times(&before, &pair.stats())?;
        }
        pair.compare()?;
    }
}

/// What the random changes reached: the kind of operation with its error or success.
fn reached(runs: usize) -> BTreeMap<(&'static str, Option<&'static str>), usize> {
    let mut runner = TestRunner::deterministic();
    let mut reached = BTreeMap::new();
    for _ in 0..runs {
        let wishes = wishes(80).new_tree(&mut runner).unwrap().current();
        let mut pair = Pair::new();
        for (who, wish) in &wishes {
            let operation = pair.operation(wish);
            let verdict = pair.grant(*who, wish).unwrap();
            let symbol = |error| FsError::ALL.iter().find(|(at, _)| *at == error).unwrap().1;
            *reached.entry((operation.word(), verdict.err().map(symbol))).or_default() += 1;
        }
    }
    reached
}

/// A comparison that never came to a rule says nothing about it.
#[test]
fn the_random_changes_reach_every_error_that_they_are_for() {
    let reached = reached(400);
    let wanted: &[(&str, &[&str])] = &[
        ("create", &["EEXIST", "EACCES", "EPERM", "ENOTDIR", "EINVAL", "ENAMETOOLONG", "ENOENT"]),
        ("link", &["EEXIST", "EACCES", "EPERM", "ENOTDIR", "EINVAL", "ENOENT"]),
        ("unlink", &["ENOENT", "EACCES", "EPERM", "EISDIR", "ENOTDIR"]),
        ("rmdir", &["ENOENT", "EACCES", "EPERM", "ENOTEMPTY", "ENOTDIR"]),
        (
            "rename",
            &["ENOENT", "EACCES", "EPERM", "ENOTEMPTY", "ENOTDIR", "EISDIR", "EINVAL", "EEXIST"],
        ),
        ("setattr", &["EACCES", "EPERM", "EISDIR", "EINVAL", "EOPNOTSUPP"]),
        ("write_inline", &["EISDIR", "EINVAL"]),
        ("setxattr", &["EOPNOTSUPP", "EINVAL", "EACCES", "EPERM"]),
        ("removexattr", &["EOPNOTSUPP", "EPERM"]),
    ];
    for (word, errors) in wanted {
        for result in errors.iter().map(|error| Some(*error)).chain([None]) {
            let times = reached.get(&(*word, result)).copied().unwrap_or(0);
            assert!(times > 0, "{word} never ended in {result:?}: {reached:#?}");
        }
    }
}
