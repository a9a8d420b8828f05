//! Soft state against the log: whoever looks sees the same, whenever it is settled.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ministry_types::operations::{Answer, ChangeResult, Operation, Outcome, Query, RenameMode};
use ministry_types::operations::{SetAttributes, SetTime, WriteAt};
use ministry_types::{Attributes, Caller, FileKind, InodeId, SessionId, Timestamp};
use proptest::prelude::*;

use super::world::{ROOT, SESSION, World, create, user};
use crate::soft::{Replay, SoftView, SoftWrite, Softly, Unlogged, access_is_due};
use crate::{Command, CommandReply};

/// A minister's memory, without its office, and what its client keeps.
#[derive(Default)]
struct Memory {
    files: BTreeMap<InodeId, Arc<Unlogged>>,
    /// Writes by the time that they got. Nothing is forgotten: a client that tells too much must do
    /// no harm.
    kept: BTreeMap<Timestamp, (Caller, u64, Operation)>,
}

impl Memory {
    fn look_up(&self) -> impl Fn(InodeId) -> Option<Arc<Unlogged>> + '_ {
        |inode| self.files.get(&inode).cloned()
    }

    fn settle(&mut self, world: &mut World, which: impl Fn(InodeId) -> bool) {
        let unlogged: Vec<_> =
            self.files.values().filter(|one| which(one.inode)).map(|one| (**one).clone()).collect();
        self.files.retain(|inode, _| !which(*inode));
        let epoch = world.epoch;
        world.must(&Command::Settle { epoch, unlogged, then: None });
    }

    fn write(&mut self, world: &mut World, caller: &Caller, operation: &Operation) -> ChangeResult {
        world.sequence += 1;
        world.time.0 += 10;
        let (time, sequence) = (world.time, world.sequence);
        let write = SoftWrite { caller, time, session: SESSION, slot: 0, sequence, operation };
        let inode = operation.routing_inode();
        let before = self.files.get(&inode).cloned();
        let softly = {
            let view = ministry_types::kv::Kv::view(&world.kv);
            let look_up = self.look_up();
            let soft = SoftView::new(world.rules, &*view, &look_up);
            world.rules.write_softly(&soft, &write, before.as_deref()).unwrap()
        };
        match softly {
            Softly::Answer(result) => result,
            Softly::Written { outcome, unlogged } => {
                let newest = unlogged.newest().unwrap();
                world.time = world.time.max(newest);
                let placed = match (&outcome, operation) {
                    (Outcome::Written { offset, .. }, Operation::WriteInline { data, .. }) => {
                        inline(inode, WriteAt::Offset(*offset), data)
                    }
                    _ => operation.clone(),
                };
                self.kept.insert(newest, (caller.clone(), sequence, placed));
                self.files.insert(inode, Arc::new(unlogged));
                Ok(outcome)
            }
            Softly::MustBeLogged => {
                self.settle(world, |other| other == inode);
                world.sequence -= 1;
                world.time.0 -= 10;
                world.change(caller, operation.clone())
            }
        }
    }

    /// The minister dies, and the client tells the next one everything.
    fn die(&mut self, world: &World) {
        self.files.clear();
        for (time, (caller, sequence, operation)) in &self.kept {
            let (time, sequence, inode) = (*time, *sequence, operation.routing_inode());
            let write = SoftWrite { caller, time, session: SESSION, slot: 0, sequence, operation };
            let softly = {
                let view = ministry_types::kv::Kv::view(&world.kv);
                let look_up = |inode| self.files.get(&inode).cloned();
                let soft = SoftView::new(world.rules, &*view, &look_up);
                if world.rules.newest_write(&soft, inode).unwrap() >= time {
                    continue;
                }
                let before = look_up(inode);
                world.rules.write_softly(&soft, &write, before.as_deref()).unwrap()
            };
            match softly {
                Softly::Written { unlogged, .. } => {
                    assert_eq!(unlogged.newest(), Some(time), "it keeps its identity");
                    self.files.insert(inode, Arc::new(unlogged));
                }
                other => panic!("{time:?}: {other:?}"),
            }
        }
    }

    fn ask(&self, world: &World, query: &Query) -> Answer {
        let view = ministry_types::kv::Kv::view(&world.kv);
        let look_up = self.look_up();
        let soft = SoftView::new(world.rules, &*view, &look_up);
        world.rules.query(&soft, &Caller::root(), query).unwrap().unwrap()
    }
}

fn inline(inode: InodeId, at: WriteAt, data: &[u8]) -> Operation {
    Operation::WriteInline { inode, at, data: Bytes::copy_from_slice(data) }
}

fn attributes(world: &World, memory: &Memory, inode: InodeId) -> Attributes {
    match memory.ask(world, &Query::GetAttributes { inode }) {
        Answer::Attributes(attributes) => attributes,
        other => panic!("{other:?}"),
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write { file: usize, offset: u64, length: usize },
    Append { file: usize, length: usize },
    Report { file: usize, offset: u64, length: u64 },
    Cut { file: usize, size: u64 },
    Mode { file: usize, mode: u32, other: bool },
    Widen { file: usize, bits: u32 },
    Owner { file: usize, uid: Option<u32> },
    Times { file: usize, time: Option<i64>, access: bool, other: bool },
    Rename { file: usize, back: bool },
    Link { file: usize, serial: u16 },
    Settle { file: usize },
    SettleAll,
}

fn step() -> impl Strategy<Value = Step> {
    let file = 0usize..3;
    prop_oneof![
        5 => (file.clone(), 0u64..600, 1usize..300)
            .prop_map(|(file, offset, length)| Step::Write { file, offset, length }),
        3 => (file.clone(), 1usize..300).prop_map(|(file, length)| Step::Append { file, length }),
        3 => (file.clone(), 0u64..9_000, 1u64..9_000)
            .prop_map(|(file, offset, length)| Step::Report { file, offset, length }),
        2 => (file.clone(), 0u64..9_000).prop_map(|(file, size)| Step::Cut { file, size }),
        1 => (file.clone(), 0u32..0o10000, any::<bool>())
            .prop_map(|(file, mode, other)| Step::Mode { file, mode, other }),
        2 => (file.clone(), 0u32..0o1000).prop_map(|(file, bits)| Step::Widen { file, bits }),
        1 => (file.clone(), prop::option::of(prop::sample::select(vec![0u32, 77])))
            .prop_map(|(file, uid)| Step::Owner { file, uid }),
        3 => (file.clone(), prop::option::of(0i64..100_000), any::<bool>(), any::<bool>())
            .prop_map(|(file, time, access, other)| Step::Times { file, time, access, other }),
        2 => (file.clone(), any::<bool>()).prop_map(|(file, back)| Step::Rename { file, back }),
        1 => (file.clone(), any::<u16>()).prop_map(|(file, serial)| Step::Link { file, serial }),
        1 => file.prop_map(|file| Step::Settle { file }),
        1 => Just(Step::SettleAll),
    ]
}

/// Carries a step out in both worlds, and tells what they answered.
fn both(
    step: &Step,
    files: &[InodeId],
    (soft, memory): (&mut World, &mut Memory),
    direct: &mut World,
) -> Option<[ChangeResult; 2]> {
    let other = user(77, 77, &[]);
    let root = Caller::root();
    let operation = match step {
        Step::Write { file, offset, length } => {
            inline(files[*file], WriteAt::Offset(*offset), &vec![*length as u8; *length])
        }
        Step::Append { file, length } => {
            inline(files[*file], WriteAt::End, &vec![*length as u8; *length])
        }
        Step::Report { file, offset, length } => {
            let inode = files[*file];
            let known = attributes(soft, memory, inode);
            let truncate_sequence = known.layout.truncate_sequence();
            let (offset, end) = (*offset, offset + length);
            let allocated = vec![(0, end.next_multiple_of(4096))];
            Operation::ReportWrite { inode, truncate_sequence, offset, end, allocated, turn: 0 }
        }
        Step::Cut { file, size } => {
            let set = SetAttributes { size: Some(*size), ..Default::default() };
            Operation::SetAttributes { inode: files[*file], set }
        }
        Step::Mode { file, mode, .. } => {
            let set = SetAttributes { permissions: Some(*mode), ..Default::default() };
            Operation::SetAttributes { inode: files[*file], set }
        }
        Step::Widen { file, bits } => {
            let is = attributes(soft, memory, files[*file]).permissions;
            let set = SetAttributes { permissions: Some(is | bits), ..Default::default() };
            Operation::SetAttributes { inode: files[*file], set }
        }
        Step::Owner { file, uid } => {
            let set = SetAttributes { uid: *uid, ..Default::default() };
            Operation::SetAttributes { inode: files[*file], set }
        }
        Step::Times { file, time, access, .. } => {
            let time = Some(time.map_or(SetTime::Now, |time| SetTime::At(Timestamp(time))));
            let atime = time.filter(|_| *access);
            let set = SetAttributes { atime, mtime: time, ..Default::default() };
            Operation::SetAttributes { inode: files[*file], set }
        }
        // There, or back: one of the two finds nothing. It settles nothing, and moves `ctime`.
        Step::Rename { file, back } => {
            let (mut name, mut new_name) =
                (format!("f{file}").into_bytes(), format!("moved{file}").into_bytes());
            if *back {
                std::mem::swap(&mut name, &mut new_name);
            }
            let mode = RenameMode::NoReplace;
            Operation::Rename { parent: ROOT, name, new_parent: ROOT, new_name, mode }
        }
        Step::Link { file, serial } => {
            let name = format!("l{serial}").into_bytes();
            Operation::Link { inode: files[*file], parent: ROOT, name }
        }
        Step::Settle { file } => {
            let inode = files[*file];
            memory.settle(soft, |other| other == inode);
            return None;
        }
        Step::SettleAll => {
            memory.settle(soft, |_| true);
            return None;
        }
    };
    let is_write = matches!(step, Step::Write { .. } | Step::Append { .. } | Step::Report { .. });
    let sets_as_other =
        matches!(step, Step::Mode { other: true, .. } | Step::Times { other: true, .. });
    let caller = if is_write || sets_as_other { &other } else { &root };
    let answered = if operation.may_stay_unlogged() {
        memory.write(soft, caller, &operation)
    } else {
        if let Some(inode) = operation.settles() {
            memory.settle(soft, |other| other == inode);
        }
        soft.change(caller, operation.clone())
    };
    // A mark is named after `ctime`, which may be a moment later where a write was told again.
    let by_log = match operation {
        Operation::ReportWrite { inode, offset, end, allocated, turn, .. } => {
            let known = attributes(direct, &Memory::default(), inode);
            let truncate_sequence = known.layout.truncate_sequence();
            Operation::ReportWrite { inode, truncate_sequence, offset, end, allocated, turn }
        }
        other => other,
    };
    Some([answered, direct.change(caller, by_log)])
}

fn compare(soft: &World, memory: &Memory, direct: &World, files: &[InodeId]) {
    for inode in files {
        let query = Query::Read { inode: *inode, access: false };
        let nothing = Memory::default();
        assert_eq!(memory.ask(soft, &query), nothing.ask(direct, &query));
    }
}

proptest! {
    #[test]
    fn whoever_looks_sees_the_same_as_if_every_write_were_logged(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let (mut soft, mut direct) = (World::new(), World::new());
        let mut memory = Memory::default();
        let names = ["f0", "f1", "f2"];
        let files: Vec<_> = names.iter().map(|name| soft.file(ROOT, name)).collect();
        for name in names {
            direct.file(ROOT, name);
        }
        for step in &steps {
            if let Some([softly, by_log]) =
                both(step, &files, (&mut soft, &mut memory), &mut direct)
            {
                prop_assert_eq!(softly, by_log);
            }
            compare(&soft, &memory, &direct, &files);
        }
        let before = memory.files.clone();
        memory.settle(&mut soft, |_| true);
        compare(&soft, &memory, &direct, &files);
        // Told again by somebody who does not know better.
        let unlogged = before.values().map(|one| (**one).clone()).collect();
        let epoch = soft.epoch;
        soft.must(&Command::Settle { epoch, unlogged, then: None });
        compare(&soft, &memory, &direct, &files);
    }
}

/// A file, without its times.
fn content(world: &World, memory: &Memory, inode: InodeId) -> (u64, u64, u32, Option<Bytes>) {
    match memory.ask(world, &Query::Read { inode, access: false }) {
        Answer::Content { attributes, inline } => {
            let Attributes { size, allocated_bytes, permissions, .. } = attributes;
            (size, allocated_bytes, permissions, inline)
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    /// Also where names of the files come and go in between, which moves `ctime`.
    #[test]
    fn a_minister_that_dies_takes_no_write_along(
        steps in prop::collection::vec((step(), prop::bool::weighted(0.1)), 1..60)
    ) {
        let (mut soft, mut direct) = (World::new(), World::new());
        let mut memory = Memory::default();
        let files: Vec<_> = ["f0", "f1", "f2"].map(|name| soft.file(ROOT, name)).into();
        for name in ["f0", "f1", "f2"] {
            direct.file(ROOT, name);
        }
        for (step, dies) in &steps {
            both(step, &files, (&mut soft, &mut memory), &mut direct);
            if *dies {
                memory.die(&soft);
            }
            for file in &files {
                let nothing = Memory::default();
                let wanted = content(&direct, &nothing, *file);
                prop_assert_eq!(content(&soft, &memory, *file), wanted, "{:?}", step);
            }
        }
        memory.settle(&mut soft, |_| true);
        for file in &files {
            let nothing = Memory::default();
            prop_assert_eq!(content(&soft, &nothing, *file), content(&direct, &nothing, *file));
        }
    }
}

#[test]
fn a_write_that_was_settled_is_answered_again_and_not_done_again() {
    let (mut world, mut memory) = (World::new(), Memory::default());
    let file = world.file(ROOT, "f");
    let append = inline(file, WriteAt::End, b"once");
    memory.write(&mut world, &Caller::root(), &append).unwrap();
    memory.settle(&mut world, |_| true);
    let view = ministry_types::kv::Kv::view(&world.kv);
    let replayed = world.rules.replayed(&*view, SESSION, 0, world.sequence).unwrap();
    match replayed {
        Some(Replay::Answered(Ok(Outcome::Written { offset: 0, attributes }))) => {
            assert_eq!(attributes.size, 4);
        }
        other => panic!("{other:?}"),
    }
    let stale = world.rules.replayed(&*view, SESSION, 0, world.sequence - 1).unwrap();
    assert_eq!(stale, Some(Replay::Stale));
    let new = world.rules.replayed(&*view, SessionId([9; 16]), 0, 1).unwrap();
    assert_eq!(new, None);
}

#[test]
fn settling_comes_before_the_command_in_the_same_entry() {
    let (mut world, mut memory) = (World::new(), Memory::default());
    let file = world.file(ROOT, "f");
    memory.write(&mut world, &Caller::root(), &inline(file, WriteAt::End, b"abcdef")).unwrap();
    let set = SetAttributes { size: Some(3), ..Default::default() };
    let cut = world.command(&Caller::root(), Operation::SetAttributes { inode: file, set });
    let unlogged = vec![(*memory.files[&file]).clone()];
    let epoch = world.epoch;
    let reply = world.apply(&Command::Settle { epoch, unlogged, then: Some(Box::new(cut)) });
    assert!(matches!(reply, CommandReply::Change(Ok(Outcome::Attributes(of))) if of.size == 3));
    let content = Memory::default().ask(&world, &Query::Read { inode: file, access: false });
    assert!(matches!(content, Answer::Content { inline: Some(bytes), .. } if bytes == "abc"));
}

#[test]
fn what_decides_over_rights_is_logged_and_what_only_names_it_is_not() {
    let (mut world, mut memory) = (World::new(), Memory::default());
    let file = world.file(ROOT, "f");
    let is = attributes(&world, &memory, file);
    let mut set = |set: SetAttributes| {
        let operation = Operation::SetAttributes { inode: file, set };
        memory.write(&mut world, &Caller::root(), &operation).unwrap();
        std::mem::take(&mut memory.files).len()
    };
    let nothing = SetAttributes::default();
    let same = SetAttributes {
        permissions: Some(is.permissions),
        uid: Some(is.uid),
        gid: Some(is.gid),
        ..nothing.clone()
    };
    assert_eq!(set(same), 1, "mode and owner as they are: ctime moves");
    let time = Some(SetTime::At(Timestamp(7)));
    assert_eq!(set(SetAttributes { atime: time, mtime: time, ..nothing.clone() }), 1);
    let mode = |mode| SetAttributes { permissions: Some(mode), ..SetAttributes::default() };
    assert_eq!(set(mode(0o600)), 0, "rights are taken");
    assert_eq!(set(mode(0o640)), 1, "and given");
    assert_eq!(set(mode(0o4600)), 0, "a bit that lends rights");
    assert_eq!(set(SetAttributes { uid: Some(5), ..nothing.clone() }), 0);
    assert_eq!(set(SetAttributes { gid: Some(5), ..nothing }), 0);
}

#[test]
fn a_write_that_takes_set_id_bits_away_has_to_be_logged() {
    let (mut world, memory) = (World::new(), Memory::default());
    let file = world.file(ROOT, "f");
    let set = SetAttributes { permissions: Some(0o4755), ..Default::default() };
    world.root(Operation::SetAttributes { inode: file, set }).unwrap();
    let view = ministry_types::kv::Kv::view(&world.kv);
    let look_up = memory.look_up();
    let soft = SoftView::new(world.rules, &*view, &look_up);
    let (caller, operation) = (user(5, 5, &[]), inline(file, WriteAt::End, b"x"));
    let write = SoftWrite {
        caller: &caller,
        time: Timestamp(5_000),
        session: SESSION,
        slot: 0,
        sequence: 99,
        operation: &operation,
    };
    assert_eq!(world.rules.write_softly(&soft, &write, None).unwrap(), Softly::MustBeLogged);
}

#[test]
fn a_time_of_access_set_by_hand_outlives_older_reads_that_are_settled_late() {
    let mut world = World::new();
    let file = world.file(ROOT, "f");
    world.time.0 += 10;
    let read = Unlogged::access(file, world.time);
    let settle = |world: &mut World, read: Unlogged| {
        let epoch = world.epoch;
        world.must(&Command::Settle { epoch, unlogged: vec![read], then: None });
        attributes(world, &Memory::default(), file).atime
    };
    assert_eq!(settle(&mut world, read.clone()), world.time);
    let set = SetAttributes { atime: Some(SetTime::At(Timestamp(7))), ..Default::default() };
    world.root(Operation::SetAttributes { inode: file, set }).unwrap();
    assert_eq!(settle(&mut world, read), Timestamp(7), "the read came first");
    world.time.0 += 10;
    let later = Unlogged::access(file, world.time);
    assert_eq!(settle(&mut world, later), world.time);
}

#[test]
fn a_time_of_access_set_softly_outlives_older_reads_too() {
    let (mut world, mut memory) = (World::new(), Memory::default());
    let file = world.file(ROOT, "f");
    world.time.0 += 10;
    let read = Unlogged::access(file, world.time);
    let set = SetAttributes { atime: Some(SetTime::At(Timestamp(7))), ..Default::default() };
    let operation = Operation::SetAttributes { inode: file, set };
    memory.write(&mut world, &Caller::root(), &operation).unwrap();
    assert_eq!(attributes(&world, &memory, file).atime, Timestamp(7));
    memory.settle(&mut world, |_| true);
    let epoch = world.epoch;
    world.must(&Command::Settle { epoch, unlogged: vec![read], then: None });
    assert_eq!(attributes(&world, &memory, file).atime, Timestamp(7), "the read came first");
}

#[test]
fn a_read_is_noted_once_after_each_change_and_once_a_day() {
    let mut world = World::new();
    let file = world.made(&Caller::root(), create(ROOT, "f", FileKind::Regular, 0o644));
    let day = 24 * 3600 * 1_000_000_000;
    let mut of = file;
    assert!(access_is_due(&of, Timestamp(of.ctime.0 + 1)));
    of.atime = Timestamp(of.ctime.0 + 1);
    assert!(!access_is_due(&of, Timestamp(of.atime.0 + day - 1)));
    assert!(access_is_due(&of, Timestamp(of.atime.0 + day)));
}
