//! The chunk store against a plain vector of bytes, with crashes, damage, cuts and full disks.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use ministry_types::limits::BLOCK_BYTES;
use ministry_types::{InodeId, SpaceChange, TruncateMark};

use super::checksums::parts;
use super::object::object_path;
use super::*;
use crate::disk::{Disk, RealDisk};
use crate::memory_disk::MemoryDisk;

mod against_model;
mod space;

const INODE: InodeId = InodeId(0x1_0203);
const OPTIONS: ChunkStoreOptions = ChunkStoreOptions { open_inodes_max: 4 };

fn open(disk: &MemoryDisk) -> ChunkStore {
    ChunkStore::open(Arc::new(disk.clone()), OPTIONS).unwrap()
}

fn mark(sequence: u64, size: u64) -> TruncateMark {
    TruncateMark { sequence, size }
}

fn pattern(length: usize, seed: u64) -> Vec<u8> {
    (0..length as u64)
        .map(|i| (ministry_types::placement::mix(seed ^ (i / 8)) >> 3) as u8)
        .collect()
}

fn crcs(offset: u64, data: &[u8]) -> Vec<u32> {
    parts(offset, data).map(crc32c::crc32c).collect()
}

fn read(store: &ChunkStore, offset: u64, length: usize) -> Vec<u8> {
    let out = store.read(INODE, offset, length, &[]).unwrap();
    assert_eq!(out.checksums, crcs(offset, &out.data));
    out.data.to_vec()
}

#[test]
fn bytes_read_back_with_zeros_in_holes_and_behind_the_end() {
    let disk = MemoryDisk::default();
    let store = open(&disk);
    let data = pattern(10_000, 1);
    let written = store.write(INODE, 5_000_000, &data, Some(&crcs(5_000_000, &data)), &[]).unwrap();
    assert_eq!(written.newly_allocated, 4 * BLOCK);
    let mut wanted = vec![0; 100];
    wanted.extend(&data);
    wanted.extend([0; 200]);
    assert_eq!(read(&store, 5_000_000 - 100, 10_300), wanted);
    assert_eq!(read(&store, 0, 8192), vec![0; 8192]);
    let nothing = store.read(InodeId(99), 3, 5000, &[]).unwrap();
    assert_eq!(nothing.data, vec![0; 5000]);
    assert_eq!(nothing.checksums, crcs(3, &nothing.data));
    assert!(store.read(INODE, 7, 0, &[]).unwrap().data.is_empty());
}

#[test]
fn wrong_checksums_of_the_sender_are_refused_and_nothing_is_written() {
    let store = open(&MemoryDisk::default());
    let data = pattern(9000, 2);
    let mut wrong = crcs(100, &data);
    wrong[2] ^= 1;
    let refused = store.write(INODE, 100, &data, Some(&wrong), &[]);
    assert_eq!(refused, Err(ChunkError::ChecksumMismatch));
    let refused = store.write(INODE, 100, &data, Some(&wrong[..2]), &[]);
    assert_eq!(refused, Err(ChunkError::ChecksumMismatch));
    assert_eq!(read(&store, 0, 12_000), vec![0; 12_000]);
}

#[test]
fn a_flipped_bit_on_the_disk_is_never_served() {
    let disk = MemoryDisk::default();
    let store = open(&disk);
    let data = pattern(5 * BLOCK_BYTES, 3);
    store.write(INODE, 0, &data, None, &[]).unwrap();
    // A byte of a block, a byte of a checksum, a byte in a hole.
    store.write(INODE, 20 * BLOCK, &[1], None, &[]).unwrap();
    let path = object_path(INODE);
    assert!(disk.damage(&format!("{path}.data"), 2 * BLOCK + 77, 4));
    assert!(disk.damage(&format!("{path}.sum"), 4096 + 4 * 4, 4));
    assert!(disk.damage(&format!("{path}.data"), 10 * BLOCK, 4));
    for (offset, block) in [(2 * BLOCK + 5, 2), (4 * BLOCK, 4), (10 * BLOCK, 10), (0, 2)] {
        let error = store.read(INODE, offset, 4 * BLOCK_BYTES, &[]).unwrap_err();
        assert_eq!(error, ChunkError::Damaged { block });
    }
    assert_eq!(read(&store, 0, 2 * BLOCK_BYTES), data[..2 * BLOCK_BYTES]);
    // A part of a damaged block is not written: that would put a good checksum on it.
    let error = store.write(INODE, 2 * BLOCK, &[1, 2, 3], None, &[]).unwrap_err();
    assert_eq!(error, ChunkError::Damaged { block: 2 });
    // A whole block from a replica repairs it.
    let good = &data[2 * BLOCK_BYTES..3 * BLOCK_BYTES];
    store.write(INODE, 2 * BLOCK, good, None, &[]).unwrap();
    assert_eq!(read(&store, 2 * BLOCK, BLOCK_BYTES), good);
}

#[test]
fn a_cut_is_made_first_and_older_senders_are_refused() {
    let disk = MemoryDisk::default();
    let store = open(&disk);
    let data = pattern(20_000, 4);
    store.write(INODE, 0, &data, None, &[]).unwrap();
    store.truncate(INODE, &[mark(1, 5_000), mark(2, 9_000)]).unwrap();
    disk.crash(None);
    let store = open(&disk);
    let stale = Err(ChunkError::StaleTruncate { current: 2 });
    assert_eq!(store.write(INODE, 0, b"x", None, &[mark(1, 5_000)]).map(|_| ()), stale);
    assert_eq!(store.read(INODE, 0, 10, &[]).map(|_| ()), stale);
    assert_eq!(store.truncate(INODE, &[mark(1, 0)]), stale);
    let marks = [mark(2, 9_000)];
    let out = store.read(INODE, 0, 20_000, &marks).unwrap().data;
    assert_eq!(out[..5_000], data[..5_000]);
    assert!(out[5_000..].iter().all(|byte| *byte == 0));
    // Growing again after the cut shows zeros, also in the block of the cut.
    store.write(INODE, 9_999, b"end", None, &[mark(2, 9_000), mark(3, 100)]).unwrap();
    let out = store.read(INODE, 0, 10_002, &[mark(3, 100)]).unwrap().data;
    assert_eq!(out[..100], data[..100]);
    assert!(out[100..9_999].iter().all(|byte| *byte == 0));
    assert_eq!(&out[9_999..], b"end");
}

#[test]
fn a_cut_of_nothing_is_remembered() {
    let disk = MemoryDisk::default();
    let store = open(&disk);
    store.truncate(INODE, &[mark(7, 100)]).unwrap();
    disk.crash(None);
    let store = open(&disk);
    let refused = store.write(INODE, 0, b"late", None, &[mark(6, 0)]);
    assert_eq!(refused, Err(ChunkError::StaleTruncate { current: 7 }));
}

#[test]
fn a_synced_write_behind_a_cut_is_not_cut_again_after_a_crash() {
    let disk = MemoryDisk::default();
    let store = open(&disk);
    let marks = [mark(1, 0)];
    store.write(INODE, 0, b"kept", None, &marks).unwrap();
    store.sync(INODE).unwrap();
    disk.crash(None);
    let out = open(&disk).read(INODE, 0, 4, &marks).unwrap();
    assert_eq!(&out.data[..], b"kept");
}

#[test]
fn what_a_killed_process_left_unsynced_is_synced_by_the_next() {
    // A cut of nothing, whose number and file names the first process did not sync.
    for confirmed_by_read in [false, true] {
        let disk = MemoryDisk::default();
        let marks = [mark(1, 0)];
        let store = open(&disk);
        disk.fail_syncs_after(if confirmed_by_read { 100 } else { 3 });
        if confirmed_by_read {
            store.truncate(INODE, &[]).unwrap();
            store.write(INODE, 0, b"", None, &marks).unwrap();
        } else {
            assert!(matches!(store.truncate(INODE, &marks), Err(ChunkError::Fatal(_))));
        }
        drop(store);
        disk.fail_syncs_after(u64::MAX);
        let store = open(&disk);
        assert_eq!(store.read(INODE, 0, 4, &marks).unwrap().data[..], [0; 4]);
        store.write(INODE, 0, b"kept", None, &marks).unwrap();
        store.sync(INODE).unwrap();
        disk.crash(None);
        let out = open(&disk).read(INODE, 0, 4, &marks).unwrap();
        assert_eq!(&out.data[..], b"kept");
    }
}

#[test]
fn a_purge_is_for_good() {
    let disk = MemoryDisk::default();
    let store = open(&disk);
    store.write(INODE, 0, &pattern(9000, 5), None, &[]).unwrap();
    store.purge(INODE).unwrap();
    store.purge(INODE).unwrap();
    disk.crash(None);
    let store = open(&disk);
    assert_eq!(store.write(INODE, 0, b"late", None, &[]), Err(ChunkError::Purged));
    assert_eq!(store.read(INODE, 0, 1, &[]), Err(ChunkError::Purged));
    assert_eq!(store.truncate(INODE, &[mark(1, 0)]), Err(ChunkError::Purged));
    assert_eq!(store.sync(INODE), Err(ChunkError::Purged));
    store.purge(INODE).unwrap();
    assert!(store.is_purged(INODE));
    assert_eq!(store.inodes().unwrap(), []);
    let folder = object_path(INODE).rsplit_once('/').unwrap().0.to_owned();
    assert!(disk.list(&folder).unwrap().is_empty());
}

#[test]
fn allocation_counts_blocks_with_data_and_follows_writes_and_cuts() {
    let store = open(&MemoryDisk::default());
    let chunk_bytes = 1 << 20;
    let chunk = |number| store.allocated(INODE, number, chunk_bytes).unwrap();
    assert_eq!(chunk(0), 0);
    store.write(INODE, 0, &pattern(BLOCK_BYTES + 1, 6), None, &[]).unwrap();
    assert_eq!((chunk(0), chunk(1)), (2 * BLOCK, 0));
    store.write(INODE, chunk_bytes - 1, &[1, 2], None, &[]).unwrap();
    store.write(INODE, 0, &[3; 100], None, &[]).unwrap();
    assert_eq!((chunk(0), chunk(1)), (3 * BLOCK, BLOCK));
    store.truncate(INODE, &[mark(1, BLOCK)]).unwrap();
    assert_eq!((chunk(0), chunk(1)), (BLOCK, 0));
    assert!(matches!(store.allocated(INODE, 0, 1000), Err(ChunkError::Invalid(_))));
}

#[test]
fn what_was_synced_survives_and_maintenance_leaves_nothing_to_recover() {
    let disk = MemoryDisk::default();
    let store = open(&disk);
    let data = pattern(3 << 20, 7);
    store.write(INODE, 0, &data, None, &[]).unwrap();
    store.sync(INODE).unwrap();
    disk.crash(None);
    let store = open(&disk);
    assert_eq!(store.recovered().len(), 1);
    assert_eq!(read(&store, 0, data.len()), data);
    store.write(INODE, 1 << 20, b"new", None, &[]).unwrap();
    store.maintain().unwrap();
    store.maintain().unwrap();
    disk.crash(None);
    let store = open(&disk);
    assert_eq!(store.recovered(), []);
    assert_eq!(read(&store, 1 << 20, 3), b"new");
    store.write(INODE, 0, b"last", None, &[]).unwrap();
    store.close().unwrap();
    disk.crash(None);
    let store = open(&disk);
    assert_eq!(store.recovered(), []);
    assert_eq!(read(&store, 0, 4), b"last");
}

#[test]
fn damage_outside_the_regions_being_written_is_noticed_also_after_a_crash() {
    let disk = MemoryDisk::default();
    let store = open(&disk);
    store.write(INODE, 0, &pattern(3 << 20, 8), None, &[]).unwrap();
    store.close().unwrap();
    let store = open(&disk);
    store.write(INODE, 0, b"x", None, &[]).unwrap();
    assert!(disk.damage(&format!("{}.data", object_path(INODE)), 2 << 20, 1));
    disk.crash(Some(1));
    let error = open(&disk).read(INODE, 2 << 20, 10, &[]).unwrap_err();
    assert_eq!(error, ChunkError::Damaged { block: (2 << 20) / BLOCK });
}

#[test]
fn a_failed_sync_is_fatal_wherever_it_happens_and_is_never_tried_again() {
    let data = pattern(9000, 9);
    let work = |store: &ChunkStore| -> Result<(), ChunkError> {
        store.write(INODE, 0, &data, None, &[])?;
        store.sync(INODE)?;
        store.write(INODE, 2 << 20, &data, None, &[mark(1, 5_000)])?;
        store.truncate(INODE, &[mark(2, 3_000)])?;
        store.maintain()?;
        store.maintain()?;
        store.purge(INODE)
    };
    let mut failed = 0;
    for count in 0..40 {
        let disk = MemoryDisk::default();
        let store = open(&disk);
        disk.fail_syncs_after(count);
        let Err(error) = work(&store) else { continue };
        assert!(matches!(error, ChunkError::Fatal(_)), "{error}");
        failed += 1;
        let syncs = disk.syncs();
        assert_eq!(store.write(INODE, 0, &data, None, &[]), Err(error.clone()));
        assert_eq!(store.sync(INODE), Err(error.clone()));
        assert_eq!(store.maintain(), Err(error));
        assert_eq!(disk.syncs(), syncs);
    }
    assert!(failed >= 12, "only {failed} syncs were reached");
}

#[test]
fn a_full_disk_refuses_writes_and_leaves_what_was_there() {
    for room in 0..12u64 {
        let disk = MemoryDisk::default();
        let store = open(&disk);
        let data = pattern(6 * BLOCK_BYTES, 10);
        store.write(INODE, 0, &data, None, &[]).unwrap();
        let taken = (1 << 40) - disk.usage().unwrap().free;
        disk.set_capacity(Some(taken + room * BLOCK));
        let more = pattern(8 * BLOCK_BYTES + 100, 11);
        let offset = 5 * BLOCK + 1000;
        let result = store.write(INODE, offset, &more, None, &[]);
        // What is there is old or new in each byte, and fits its checksums.
        let mut new = data.clone();
        new.truncate(offset as usize);
        new.extend(&more);
        let mut old = data.clone();
        old.resize(new.len(), 0);
        let now = read(&store, 0, new.len());
        match result {
            Ok(_) => assert_eq!(now, new),
            Err(error) => assert_eq!(error, ChunkError::NoSpace),
        }
        let bytes = now.iter().zip(&old).zip(&new);
        assert!(bytes.clone().all(|((now, old), new)| now == old || now == new));
        disk.set_capacity(None);
        store.write(INODE, offset, &more, None, &[]).unwrap();
        assert_eq!(read(&store, 0, new.len()), new);
    }
}

#[test]
fn many_inodes_share_few_open_files_and_none_loses_its_sync() {
    let disk = MemoryDisk::default();
    let store = open(&disk);
    for number in 0..50 {
        store.write(InodeId(number), 0, &pattern(5000, number), None, &[]).unwrap();
    }
    for number in 0..50 {
        store.sync(InodeId(number)).unwrap();
    }
    disk.crash(None);
    let store = open(&disk);
    for number in 0..50 {
        let out = store.read(InodeId(number), 0, 5000, &[]).unwrap();
        assert_eq!(out.data, pattern(5000, number));
    }
    let mut inodes = store.inodes().unwrap();
    inodes.sort();
    assert_eq!(inodes, (0..50).map(InodeId).collect::<Vec<_>>());
}

#[test]
fn threads_at_work_on_one_inode_and_maintenance_leave_whole_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::new(folder.path()));
    let store = ChunkStore::open(disk.clone(), OPTIONS).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..60 {
                    let offset = (round % 20) * 100_000 + thread * 1_000;
                    let data = vec![thread as u8 + 1; 1_000];
                    store.write(INODE, offset, &data, None, &[]).unwrap();
                    store.read(INODE, offset, 50_000, &[]).unwrap();
                    store.write(InodeId(1_000 + round), 0, &data, None, &[]).unwrap();
                    if round % 8 == 0 {
                        store.sync(INODE).unwrap();
                        store.maintain().unwrap();
                    }
                }
            });
        }
    });
    for round in 0..20 {
        let data = read(&store, round * 100_000, 4_000);
        let wanted: Vec<u8> = (1..=4).flat_map(|thread| [thread; 1_000]).collect();
        assert_eq!(data, wanted);
    }
    drop(store);
    // The process ended without closing: the intents are there, the bytes are too.
    let store = ChunkStore::open(disk, OPTIONS).unwrap();
    assert!(!store.recovered().is_empty());
    assert_eq!(read(&store, 0, 1_000), [1; 1_000]);
    store.close().unwrap();
    assert!(store.usage().unwrap().total > 0);
}

#[test]
fn nonsense_is_refused() {
    let store = open(&MemoryDisk::default());
    let invalid = |result: Result<(), ChunkError>| matches!(result, Err(ChunkError::Invalid(_)));
    assert!(invalid(store.write(INODE, u64::MAX, b"xx", None, &[]).map(|_| ())));
    assert!(invalid(store.read(INODE, i64::MAX as u64, 1, &[]).map(|_| ())));
    assert!(invalid(store.read(INODE, 0, 1 << 30, &[]).map(|_| ())));
}

/// Run by hand: what the store adds to plain reads and writes of the disk below.
#[test]
#[ignore = "a measurement, not a check"]
fn measure_streams() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::new(folder.path()));
    let store = ChunkStore::open(disk.clone(), OPTIONS).unwrap();
    let data = pattern(1 << 20, 1);
    let sums = crcs(0, &data);
    let count = 512u64;
    let plain = disk.open("plain", true).unwrap().unwrap();
    let timed = |what: &str, call: &mut dyn FnMut(u64)| {
        let begun = Instant::now();
        (0..count).for_each(call);
        println!("{what}: {:.0} MiB/s", count as f64 / begun.elapsed().as_secs_f64());
    };
    for round in 0..3 {
        println!("round {round}");
        timed("plain write", &mut |n| plain.write_at(&data, n << 20).unwrap());
        timed("store write", &mut |n| {
            store.write(INODE, n << 20, &data, Some(&sums), &[]).map(drop).unwrap();
        });
        timed("plain read", &mut |n| {
            let mut buffer = Vec::new();
            plain.read_into(&mut buffer, n << 20, 1 << 20).unwrap();
            std::hint::black_box(&buffer);
        });
        timed("store read", &mut |n| {
            let out = store.read(INODE, n << 20, 1 << 20, &[]).unwrap();
            std::hint::black_box(out);
        });
        timed("crc32c", &mut |_| drop(std::hint::black_box(crcs(0, &data))));
        timed("store write of 4 KiB, in thousands", &mut |n| {
            for at in 0..1000 {
                let offset = ((n * 1000 + at) * 7919 % (count * 256)) * BLOCK;
                store.write(INODE, offset, &data[..4096], None, &[]).unwrap();
            }
        });
    }
    plain.sync().unwrap();
    store.close().unwrap();
}
