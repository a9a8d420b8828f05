//! Content: inline bytes, moving out, cuts, reports.

use ministry_types::FsError::*;
use ministry_types::limits::{CHUNK_BYTES, FILE_BYTES_MAX, TRUNCATE_MARKS_MAX};
use ministry_types::operations::{
    ChangeResult, Operation, Outcome, SetAttributes, WriteAt, move_out_mark,
};
use ministry_types::{InodeId, Layout, SpaceChange, TruncateMark};

use super::world::{ROOT, World, create, user};
use crate::Command;

const CHUNK: u64 = 1 << 20;

fn size(size: u64) -> SetAttributes {
    SetAttributes { size: Some(size), ..Default::default() }
}

fn move_out(world: &mut World, inode: InodeId) -> ChangeResult {
    let is = world.stat(inode);
    world.root(Operation::MoveOut {
        inode,
        mtime: is.mtime,
        ctime: is.ctime,
        chunk_bytes: CHUNK,
        allocated_bytes: 4096,
    })
}

/// A chunked file of five bytes.
fn chunked(world: &mut World) -> InodeId {
    let inode = world.file(ROOT, "f");
    world.write(inode, WriteAt::End, b"hello").unwrap();
    assert!(matches!(move_out(world, inode), Ok(Outcome::Attributes(_))));
    inode
}

fn report(
    world: &mut World,
    inode: InodeId,
    range: std::ops::Range<u64>,
    allocated: &[(u64, u64)],
) -> ChangeResult {
    let truncate_sequence = world.stat(inode).layout.truncate_sequence();
    world.root(Operation::ReportWrite {
        inode,
        truncate_sequence,
        offset: range.start,
        end: range.end,
        allocated: allocated.to_vec(),
        turn: 0,
    })
}

fn marks(world: &World, inode: InodeId) -> Vec<TruncateMark> {
    match world.stat(inode).layout {
        Layout::Chunked { truncates, .. } => truncates,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_gap_reads_as_zeros_and_a_cut_forgets() {
    let mut world = World::new();
    let inode = world.file(ROOT, "f");
    world.write(inode, WriteAt::Offset(3), b"abc").unwrap();
    assert_eq!(world.content(inode).unwrap(), b"\0\0\0abc");
    world.set(inode, size(4)).unwrap();
    world.set(inode, size(6)).unwrap();
    assert_eq!(world.content(inode).unwrap(), b"\0\0\0a\0\0");
    let end = world.write(inode, WriteAt::End, b"z").unwrap();
    assert!(matches!(end, Outcome::Written { offset: 6, .. }));
    let is = world.stat(inode);
    assert_eq!((is.size, is.allocated_bytes), (7, 7));
}

#[test]
fn pages_that_are_written_back_end_where_the_file_does() {
    let mut world = World::new();
    let inode = world.file(ROOT, "f");
    world.write(inode, WriteAt::End, b"abcdef").unwrap();
    world.write(inode, WriteAt::Within(4), b"EFGH").unwrap();
    assert_eq!(world.content(inode).unwrap(), b"abcdEF");
    let before = world.stat(inode);
    world.write(inode, WriteAt::Within(6), b"GH").unwrap();
    world.write(inode, WriteAt::Within(4000), b"GH").unwrap();
    assert_eq!(world.stat(inode), before, "nothing of it lies within the file");
}

#[test]
fn a_file_that_would_grow_too_large_for_its_inode_is_left_alone() {
    let mut world = World::new();
    let inode = world.file(ROOT, "f");
    world.write(inode, WriteAt::End, &[1; 4000]).unwrap();
    let before = world.stat(inode);
    let answer = Outcome::NotInline { attributes: before.clone() };
    assert_eq!(world.write(inode, WriteAt::End, &[1; 97]), Ok(answer.clone()));
    assert_eq!(world.set(inode, size(4097)), Ok(answer.clone()));
    assert_eq!(world.root(Operation::Extend { inode, size: 1 << 40 }), Ok(answer));
    assert_eq!(world.stat(inode), before);
    assert!(matches!(
        world.write(inode, WriteAt::End, &[1; 96]),
        Ok(Outcome::Written { offset: 4000, .. })
    ));
    assert_eq!(world.set(inode, size(FILE_BYTES_MAX + 1)), Err(FileTooLarge));
    assert_eq!(world.write(inode, WriteAt::Offset(u64::MAX), b"x"), Err(FileTooLarge));
}

#[test]
fn an_empty_file_becomes_chunked_under_a_mark_that_beats_every_move_given_up() {
    let mut world = World::new();
    let inode = world.file(ROOT, "f");
    world.write(inode, WriteAt::End, b"secret").unwrap();
    // A client may have moved this out to storage, and lost the race against the cut.
    let given_up = move_out_mark(world.stat(inode).ctime);
    world.set(inode, size(0)).unwrap();
    world.set(inode, size(1 << 30)).unwrap();
    let is = world.stat(inode);
    assert_eq!((is.size, is.allocated_bytes), (1 << 30, 0));
    let Layout::Chunked { chunk_bytes, truncates } = is.layout else { panic!() };
    assert_eq!(chunk_bytes, CHUNK_BYTES);
    assert_eq!((truncates.len(), truncates[0].size), (1, 0));
    assert!(truncates[0].sequence > given_up.sequence);
    assert_eq!(world.rules.pending_truncates(&world.kv, 9).unwrap().len(), 1);
}

#[test]
fn a_content_moves_out_only_as_it_was_read() {
    let mut world = World::new();
    let inode = world.file(ROOT, "f");
    world.write(inode, WriteAt::End, b"hello").unwrap();
    let read = world.stat(inode);
    let stale = Operation::MoveOut {
        inode,
        mtime: read.mtime,
        ctime: read.ctime,
        chunk_bytes: CHUNK,
        allocated_bytes: 4096,
    };
    world.write(inode, WriteAt::End, b"!").unwrap();
    assert!(matches!(world.root(stale.clone()), Ok(Outcome::Conflict { .. })));
    assert_eq!(world.content(inode).unwrap(), b"hello!");
    let written = move_out_mark(world.stat(inode).ctime);
    assert!(matches!(move_out(&mut world, inode), Ok(Outcome::Attributes(_))));
    assert_eq!(world.content(inode), None);
    let mark = TruncateMark { sequence: written.sequence + 1, size: 6 };
    assert_eq!(marks(&world, inode), [mark]);
    assert_eq!(world.stat(inode).allocated_bytes, 4096);
    assert!(matches!(world.root(stale), Ok(Outcome::Conflict { .. })));
    let odd = world.file(ROOT, "odd");
    let is = world.stat(odd);
    let (mtime, ctime) = (is.mtime, is.ctime);
    let odd =
        Operation::MoveOut { inode: odd, mtime, ctime, chunk_bytes: 12_288, allocated_bytes: 0 };
    assert_eq!(world.root(odd), Err(Invalid));
}

#[test]
fn a_report_counts_each_chunk_once_and_a_cut_takes_it_back() {
    let mut world = World::new();
    let inode = chunked(&mut world);
    world.root(Operation::Extend { inode, size: 3 * CHUNK }).unwrap();
    report(&mut world, inode, 0..3 * CHUNK, &[(0, CHUNK), (1, CHUNK), (2, CHUNK)]).unwrap();
    report(&mut world, inode, 0..10, &[(0, CHUNK)]).unwrap();
    assert_eq!(world.stat(inode).allocated_bytes, 3 * CHUNK);
    world.set(inode, size(CHUNK + 5000)).unwrap();
    assert_eq!(world.stat(inode).allocated_bytes, CHUNK + 8192);
    world.set(inode, size(3 * CHUNK)).unwrap();
    assert_eq!(world.stat(inode).allocated_bytes, CHUNK + 8192, "growing allocates nothing");
    world.set(inode, size(0)).unwrap();
    assert_eq!(world.stat(inode).allocated_bytes, 0);
    assert!(report(&mut world, inode, 0..0, &[(0, 1)]).is_ok());
    assert_eq!(report(&mut world, inode, 0..5, &[(7, 1)]), Err(Invalid));
}

#[test]
fn a_cut_of_a_file_with_many_chunks_takes_them_all() {
    let mut world = World::new();
    let inode = chunked(&mut world);
    let chunks: Vec<(u64, u64)> = (0..50).map(|chunk| (chunk, 4096)).collect();
    report(&mut world, inode, 0..50 * CHUNK, &chunks).unwrap();
    assert_eq!(world.stat(inode).allocated_bytes, 50 * 4096);
    world.set(inode, size(2 * CHUNK)).unwrap();
    assert_eq!(world.stat(inode).allocated_bytes, 2 * 4096);
    world.set(inode, size(50 * CHUNK)).unwrap();
    report(&mut world, inode, 0..50 * CHUNK, &chunks).unwrap();
    assert_eq!(world.stat(inode).allocated_bytes, 50 * 4096);
}

#[test]
fn a_report_from_before_a_cut_or_behind_a_gap_conflicts() {
    let mut world = World::new();
    let inode = chunked(&mut world);
    let old = world.stat(inode).layout.truncate_sequence();
    assert!(matches!(report(&mut world, inode, 6..9, &[]), Ok(Outcome::Conflict { .. })));
    assert!(matches!(report(&mut world, inode, 5..9, &[]), Ok(Outcome::Written { .. })));
    world.set(inode, size(2)).unwrap();
    let late = Operation::ReportWrite {
        inode,
        truncate_sequence: old,
        offset: 0,
        end: 9,
        allocated: vec![(0, 4096)],
        turn: 0,
    };
    assert!(matches!(world.root(late), Ok(Outcome::Conflict { .. })));
    assert_eq!(world.stat(inode).size, 2);
    let inline = world.file(ROOT, "inline");
    assert!(matches!(report(&mut world, inline, 0..1, &[]), Ok(Outcome::Conflict { .. })));
}

#[test]
fn each_change_of_size_makes_a_mark_at_the_smaller_size() {
    let mut world = World::new();
    let inode = chunked(&mut world);
    let first = marks(&world, inode)[0];
    world.set(inode, size(100)).unwrap();
    world.set(inode, size(100)).unwrap();
    world.set(inode, size(30)).unwrap();
    let expected = [(0, 5), (1, 5), (2, 30)]
        .map(|(step, size)| TruncateMark { sequence: first.sequence + step, size });
    assert_eq!(marks(&world, inode), expected);

    let before = world.stat(inode);
    assert!(matches!(
        world.root(Operation::Extend { inode, size: 30 }),
        Ok(Outcome::Attributes(is)) if is == before
    ));
    let pending = world.rules.pending_truncates(&world.kv, 9).unwrap();
    assert_eq!((pending.len(), pending[0].data_end), (1, 100));
    assert_eq!(pending[0].truncates, expected);

    let epoch = world.epoch;
    let done = |sequence| Command::TruncatesDone { epoch, done: vec![(inode, sequence)] };
    world.must(&done(first.sequence + 1));
    assert_eq!(marks(&world, inode), expected[2..]);
    assert_eq!(world.rules.pending_truncates(&world.kv, 9).unwrap().len(), 1);
    world.must(&done(first.sequence + 2));
    world.must(&done(first.sequence + 9));
    assert_eq!(marks(&world, inode), expected[2..], "the newest stays");
    assert!(world.rules.pending_truncates(&world.kv, 9).unwrap().is_empty());
    world.set(inode, size(7)).unwrap();
    let last = TruncateMark { sequence: first.sequence + 3, size: 7 };
    assert_eq!(marks(&world, inode), [last], "what is confirmed goes with the next");
    assert_eq!(world.rules.pending_truncates(&world.kv, 9).unwrap().len(), 1);
}

#[test]
fn cuts_that_storage_does_not_confirm_have_a_limit() {
    let mut world = World::new();
    let inode = chunked(&mut world);
    for step in 1..TRUNCATE_MARKS_MAX as u64 {
        world.set(inode, size(step % 2)).unwrap();
    }
    assert_eq!(marks(&world, inode).len(), TRUNCATE_MARKS_MAX);
    let before = world.dump();
    let command = world.command(
        &ministry_types::Caller::root(),
        Operation::SetAttributes { inode, set: size(99) },
    );
    let reply = world.apply(&command);
    assert_eq!(reply, crate::CommandReply::Change(Err(Overloaded)));
    let slot = crate::keys::Keys { keyspace: 1 }.slot(super::world::SESSION, 0);
    let but_slot = |records: Vec<(Vec<u8>, Vec<u8>)>| -> Vec<_> {
        records.into_iter().filter(|(key, _)| *key != slot).collect()
    };
    assert_eq!(but_slot(world.dump()), but_slot(before), "a refusal leaves nothing behind");
    let epoch = world.epoch;
    let sequence = world.stat(inode).layout.truncate_sequence();
    world.must(&Command::TruncatesDone { epoch, done: vec![(inode, sequence)] });
    assert!(world.set(inode, size(99)).is_ok());
}

#[test]
fn content_belongs_to_ordinary_files_alone() {
    let mut world = World::new();
    let directory = world.directory(ROOT, "d");
    let fifo =
        world.made(&user(0, 0, &[]), create(ROOT, "p", ministry_types::FileKind::Fifo, 0)).inode;
    for (inode, error) in [(directory, IsDirectory), (fifo, Invalid)] {
        assert_eq!(world.set(inode, size(0)), Err(error));
        assert_eq!(world.write(inode, WriteAt::End, b"x"), Err(error));
        assert_eq!(world.root(Operation::Extend { inode, size: 9 }), Err(error));
        assert_eq!(report(&mut world, inode, 0..1, &[]), Err(error));
        assert_eq!(move_out(&mut world, inode), Err(error));
    }
}

#[test]
fn an_open_handle_cuts_where_the_mode_bits_forbid() {
    let mut world = World::new();
    let inode = world.file(ROOT, "f");
    world.write(inode, WriteAt::End, b"hello").unwrap();
    let someone = user(7, 7, &[]);
    let cut = |size_by_handle| Operation::SetAttributes {
        inode,
        set: SetAttributes { size: Some(1), size_by_handle, ..Default::default() },
    };
    assert_eq!(world.change(&someone, cut(false)), Err(PermissionDenied));
    assert!(world.change(&someone, cut(true)).is_ok());
}

#[test]
fn the_room_of_an_inline_file_is_its_bytes() {
    let mut world = World::new();
    let inode = world.file(ROOT, "f");
    world.write(inode, WriteAt::End, b"0123456789").unwrap();
    let space = |world: &mut World, range: std::ops::Range<u64>, change, keep_size| {
        let (offset, length) = (range.start, range.end - range.start);
        world.root(Operation::SpaceInline { inode, offset, length, change, keep_size })
    };
    let before = world.stat(inode);
    for (range, change, keep_size, expected) in [
        (2..4, SpaceChange::Punch, true, &b"01\x00\x00456789"[..]),
        (8..5_000, SpaceChange::Zero, true, b"01\x00\x004567\0\0"),
        (0..5_000, SpaceChange::Allocate, true, b"01\x00\x004567\0\0"),
        (100..200, SpaceChange::Punch, true, b"01\x00\x004567\0\0"),
        (0..11, SpaceChange::Allocate, false, b"01\x00\x004567\0\0\0"),
        (7..12, SpaceChange::Zero, false, b"01\x00\x00456\0\0\0\0\0"),
    ] {
        let told = space(&mut world, range, change, keep_size);
        assert!(matches!(told, Ok(Outcome::Written { .. })), "{told:?}");
        assert_eq!(world.content(inode).unwrap(), expected);
    }
    let after = world.stat(inode);
    assert_eq!((after.size, after.allocated_bytes), (12, 12));
    assert!(after.mtime > before.mtime && after.ctime > before.ctime);
    let grows = space(&mut world, 4_000..4_097, SpaceChange::Zero, false);
    assert_eq!(grows, Ok(Outcome::NotInline { attributes: after }));
    assert_eq!(space(&mut world, 5..5, SpaceChange::Zero, true), Err(Invalid));
    assert_eq!(space(&mut world, 0..5, SpaceChange::Punch, false), Err(Invalid));
    let wide = 1..FILE_BYTES_MAX + 1;
    assert_eq!(space(&mut world, wide, SpaceChange::Allocate, false), Err(FileTooLarge));
    move_out(&mut world, inode).unwrap();
    let told = space(&mut world, 0..5, SpaceChange::Zero, true);
    assert!(matches!(told, Ok(Outcome::NotInline { .. })), "{told:?}");
}
