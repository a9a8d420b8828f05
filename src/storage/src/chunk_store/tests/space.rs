//! Room that is kept, given back and looked for.

use super::*;

const CHUNK: u64 = 1 << 20;
const CHUNK_BLOCKS: u64 = CHUNK / BLOCK;

fn change(store: &ChunkStore, bytes: Range<u64>, change: SpaceChange) {
    store.change_space(INODE, bytes, change, &[]).unwrap();
}

fn allocated_blocks(store: &ChunkStore, chunk: u64) -> u64 {
    store.allocated(INODE, chunk, CHUNK).unwrap() / BLOCK
}

fn seek(store: &ChunkStore, offset: u64, hole: bool) -> Option<u64> {
    let found = store.seek(INODE, offset..10 * CHUNK, hole, CHUNK, |_| true, &[]).unwrap();
    found.found.then_some(found.at)
}

#[test]
fn kept_room_reads_as_zeros_counts_and_leaves_bytes_alone() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk);
    let data = pattern(3 * BLOCK_BYTES, 1);
    store.write(INODE, BLOCK, &data, None, &[]).unwrap();
    assert_eq!(allocated_blocks(&store, 0), 3);
    change(&store, 0..CHUNK, SpaceChange::Allocate);
    change(&store, CHUNK + 1..CHUNK + BLOCK + 1, SpaceChange::Allocate);
    assert_eq!(allocated_blocks(&store, 0), CHUNK_BLOCKS);
    assert_eq!(allocated_blocks(&store, 1), 2, "each block that is touched");
    let mut expected = vec![0; CHUNK as usize];
    expected[BLOCK_BYTES..4 * BLOCK_BYTES].copy_from_slice(&data);
    assert!(read(&store, 0, CHUNK as usize) == expected);
    // The same after a start anew, whatever a loss of power kept.
    for seed in [None, Some(1), Some(2), Some(3)] {
        change(&store, 0..CHUNK, SpaceChange::Allocate);
        change(&store, CHUNK..2 * CHUNK, SpaceChange::Allocate);
        store.sync(INODE).unwrap();
        change(&store, 2 * CHUNK..3 * CHUNK, SpaceChange::Allocate);
        change(&store, CHUNK..2 * CHUNK, SpaceChange::Punch);
        disk.crash(seed);
        store = open(&disk);
        assert!(read(&store, 0, CHUNK as usize) == expected);
        assert!(read(&store, CHUNK, 2 * CHUNK as usize).iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_full_disk_says_so_when_room_is_kept_and_not_when_it_is_written() {
    let disk = MemoryDisk::default();
    let store = open(&disk);
    disk.set_capacity(Some(2 * CHUNK));
    change(&store, 0..CHUNK, SpaceChange::Allocate);
    let more = store.change_space(INODE, CHUNK..3 * CHUNK, SpaceChange::Allocate, &[]);
    assert_eq!(more, Err(ChunkError::NoSpace));
    assert_eq!(allocated_blocks(&store, 1) + allocated_blocks(&store, 2), 0);
    let free = disk.usage().unwrap().free;
    assert!(free > CHUNK / 2, "what was not enough is free again: {free}");
    disk.set_capacity(Some(0));
    let data = pattern(CHUNK as usize, 2);
    store.write(INODE, 0, &data, None, &[]).unwrap();
    assert!(read(&store, 0, CHUNK as usize) == data);
    assert!(store.write(INODE, CHUNK, &data, None, &[]).is_err());
}

#[test]
fn a_punched_range_is_zeros_and_only_whole_blocks_lose_their_room() {
    let disk = MemoryDisk::default();
    let store = open(&disk);
    let data = pattern(10 * BLOCK_BYTES, 3);
    store.write(INODE, 0, &data, None, &[]).unwrap();
    let before = disk.usage().unwrap().free;
    let (from, to) = (BLOCK as usize + 10, 5 * BLOCK_BYTES - 10);
    change(&store, from as u64..to as u64, SpaceChange::Punch);
    let mut expected = data.clone();
    expected[from..to].fill(0);
    assert!(read(&store, 0, data.len()) == expected);
    assert_eq!(allocated_blocks(&store, 0), 8);
    assert_eq!(disk.usage().unwrap().free - before, 2 * BLOCK);
    // Within one block, over holes, and where nothing is.
    change(&store, 100..200, SpaceChange::Punch);
    change(&store, 2 * BLOCK..3 * BLOCK, SpaceChange::Punch);
    change(&store, 5 * CHUNK + 1..6 * CHUNK, SpaceChange::Punch);
    expected[100..200].fill(0);
    assert!(read(&store, 0, data.len()) == expected);
    assert_eq!(allocated_blocks(&store, 0), 8);
    store.change_space(InodeId(77), 0..CHUNK, SpaceChange::Punch, &[]).unwrap();
    assert!(!store.inodes().unwrap().contains(&InodeId(77)), "nothing was made to punch it");
    let store = open(&disk);
    assert!(read(&store, 0, data.len()) == expected);
}

#[test]
fn a_zeroed_range_keeps_its_room() {
    let store = open(&MemoryDisk::default());
    let data = pattern(10 * BLOCK_BYTES, 4);
    store.write(INODE, 0, &data, None, &[]).unwrap();
    change(&store, 10..20 * BLOCK + 10, SpaceChange::Zero);
    assert_eq!(allocated_blocks(&store, 0), 21);
    let found = read(&store, 0, 30 * BLOCK_BYTES);
    assert!(found[..10] == data[..10] && found[10..].iter().all(|byte| *byte == 0));
}

#[test]
fn room_goes_with_a_cut_and_older_senders_are_refused() {
    let disk = MemoryDisk::default();
    let store = open(&disk);
    change(&store, 0..CHUNK, SpaceChange::Allocate);
    let cut = [mark(3, 5_000)];
    store.change_space(INODE, 0..100, SpaceChange::Zero, &cut).unwrap();
    assert_eq!(allocated_blocks(&store, 0), 2);
    for change in [SpaceChange::Allocate, SpaceChange::Zero, SpaceChange::Punch] {
        let late = store.change_space(INODE, 0..100, change, &[mark(2, 0)]);
        assert_eq!(late, Err(ChunkError::StaleTruncate { current: 3 }));
    }
    let late = store.seek(INODE, 0..100, true, CHUNK, |_| true, &[]);
    assert_eq!(late, Err(ChunkError::StaleTruncate { current: 3 }));
    store.purge(INODE).unwrap();
    let late = store.change_space(INODE, 0..100, SpaceChange::Punch, &cut);
    assert_eq!(late, Err(ChunkError::Purged));
}

#[test]
fn data_and_holes_are_found_by_block() {
    let store = open(&MemoryDisk::default());
    assert_eq!(seek(&store, 77, true), Some(77), "nothing is there yet");
    assert_eq!(seek(&store, 0, false), None);
    store.write(INODE, 3 * BLOCK + 5, b"x", None, &[]).unwrap();
    store.write(INODE, 3 * CHUNK, &pattern(2 * BLOCK_BYTES, 1), None, &[]).unwrap();
    change(&store, 3 * CHUNK + 2 * BLOCK..3 * CHUNK + 3 * BLOCK, SpaceChange::Allocate);
    assert_eq!(seek(&store, 0, false), Some(3 * BLOCK));
    assert_eq!(seek(&store, 3 * BLOCK + 100, false), Some(3 * BLOCK + 100));
    assert_eq!(seek(&store, 3 * BLOCK + 100, true), Some(4 * BLOCK));
    assert_eq!(seek(&store, 4 * BLOCK, false), Some(3 * CHUNK));
    assert_eq!(seek(&store, 3 * CHUNK + 1, true), Some(3 * CHUNK + 3 * BLOCK));
    assert_eq!(seek(&store, 5 * CHUNK, false), None);
    // Only in chunks of the group that is asked.
    let odd = |chunk: u64| chunk % 2 == 1;
    let data = store.seek(INODE, 0..10 * CHUNK, false, CHUNK, odd, &[]).unwrap();
    assert_eq!(data, Searched { at: 3 * CHUNK, found: true });
    let hole = store.seek(INODE, 0..10 * CHUNK, true, CHUNK, odd, &[]).unwrap();
    assert_eq!(hole, Searched { at: CHUNK, found: true });
}

#[test]
fn one_search_does_a_bounded_amount_of_work() {
    let store = open(&MemoryDisk::default());
    store.write(INODE, 0, b"x", None, &[]).unwrap();
    let end = 1 << 43;
    let mut at = 0;
    let mut asked = 0;
    while asked < 3 {
        let found = store.seek(INODE, at..end, true, CHUNK, |_| false, &[]).unwrap();
        assert!(!found.found && found.at > at);
        at = found.at;
        asked += 1;
    }
    assert!(at < end, "it did not go to the end");
    // Data that is not there is not looked for chunk by chunk.
    let found = store.seek(INODE, BLOCK..end, false, CHUNK, |_| true, &[]).unwrap();
    assert_eq!(found, Searched { at: end, found: false });
}

#[test]
fn the_reserve_of_a_disk_is_kept_from_what_needs_new_blocks_and_from_nothing_else() {
    let disk = MemoryDisk::default();
    let store = open(&disk);
    disk.keep_reserve();
    disk.set_capacity(Some(10 * CHUNK));
    let data = pattern(CHUNK as usize, 3);
    change(&store, 8 * CHUNK..9 * CHUNK - BLOCK, SpaceChange::Allocate);
    let mut chunks = 0;
    let refused = loop {
        match store.write(INODE, chunks * CHUNK, &data, None, &[]) {
            Ok(_) => chunks += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, ChunkError::NoSpace);
    let usage = disk.usage().unwrap();
    assert!(usage.available >= usage.reserve() && usage.available_for_files() < CHUNK, "{usage:?}");
    assert_eq!(chunks, 7, "a tenth is kept, and some blocks hold checksums");
    let kept = store.change_space(INODE, 12 * CHUNK..13 * CHUNK, SpaceChange::Allocate, &[]);
    assert_eq!(kept, Err(ChunkError::NoSpace));
    // What has its room.
    let other = pattern(CHUNK as usize - BLOCK_BYTES, 4);
    store.write(INODE, 0, &other, None, &[]).unwrap();
    store.write(INODE, 8 * CHUNK, &other, None, &[]).unwrap();
    assert!(read(&store, 8 * CHUNK, other.len()) == other);
    // Zeros keep what room they have.
    change(&store, 8 * CHUNK..9 * CHUNK - BLOCK, SpaceChange::Zero);
    assert!(read(&store, 8 * CHUNK, other.len()).iter().all(|byte| *byte == 0));
    store.write(INODE, 8 * CHUNK, &other, None, &[]).unwrap();
    // No files for what does not come in, to the last block.
    let mut end = 20 * CHUNK;
    while store.write(INODE, end, &data[..BLOCK_BYTES], None, &[]).is_ok() {
        end += BLOCK;
    }
    let more = InodeId(INODE.0 + 1);
    assert_eq!(store.write(more, 0, &data, None, &[]), Err(ChunkError::NoSpace));
    assert!(!disk.exists(&format!("{}.sum", object_path(more))).unwrap());
    // Giving room back, and taking it.
    change(&store, CHUNK..2 * CHUNK, SpaceChange::Punch);
    store.write(INODE, 12 * CHUNK, &data[..CHUNK as usize / 2], None, &[]).unwrap();
}

#[test]
fn what_is_removed_makes_the_room_that_removing_needs() {
    let disk = MemoryDisk::default();
    let store = open(&disk);
    let data = pattern(CHUNK as usize, 5);
    // So many that the record of one of them begins a new block.
    let inodes = (1..300).map(|number| InodeId(number << 8));
    inodes.clone().for_each(|inode| {
        store.write(inode, 0, &data[..BLOCK_BYTES], None, &[]).unwrap();
    });
    for inode in inodes.clone() {
        // What the one before gave back is taken by others.
        disk.set_capacity(None);
        let taken = (1 << 40) - disk.usage().unwrap().free;
        disk.set_capacity(Some(taken));
        store.purge(inode).unwrap();
        assert_eq!(store.read(inode, 0, 1, &[]), Err(ChunkError::Purged));
    }
    disk.crash(None);
    let store = open(&disk);
    for inode in inodes {
        assert_eq!(store.read(inode, 0, 1, &[]), Err(ChunkError::Purged));
    }
}
