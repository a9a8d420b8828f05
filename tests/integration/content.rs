//! What is in files: holes, both ways of truncation, mappings, chunk borders, room.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use ministry_tests::{Cluster, Program, tree};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::{MINUTE, healthy, text};

const MIB: u64 = 1 << 20;
const CHUNK: u64 = 64 * MIB;

/// Maps a file for reading and writing, and syncs the mapping at the end.
pub fn with_mapping(file: &File, length: usize, flags: i32, work: impl FnOnce(&mut [u8])) {
    // SAFETY: a fresh mapping of our own, used only inside this function, of `length` bytes that
    // the file has.
    unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let at = libc::mmap(std::ptr::null_mut(), length, protection, flags, file.as_raw_fd(), 0);
        assert_ne!(at, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        work(std::slice::from_raw_parts_mut(at.cast(), length));
        let synced = libc::msync(at, length, libc::MS_SYNC);
        assert_eq!(synced, 0, "msync: {}", std::io::Error::last_os_error());
        assert_eq!(libc::munmap(at, length), 0);
    }
}

fn create(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap()
}

fn read(file: &File, at: u64, length: usize) -> Vec<u8> {
    let mut found = vec![0xEE; length];
    file.read_exact_at(&mut found, at).unwrap();
    found
}

fn allocated(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().blocks() * 512
}

#[test]
fn holes_read_as_zeros_and_take_no_room() {
    let mut cluster = Cluster::with_two_mounts();
    let (here, there) = (cluster.mount(0).join("sparse"), cluster.mount(1).join("sparse"));
    let file = create(&here);
    let page = tree::bytes(1, 4_096);
    file.write_all_at(&page, 0).unwrap();
    file.write_all_at(&page, 10 * MIB).unwrap();
    file.sync_all().unwrap();
    for path in [&here, &there] {
        assert_eq!(std::fs::metadata(path).unwrap().len(), 10 * MIB + 4_096);
        assert!((8_192..=MIB).contains(&allocated(path)), "{} allocated", allocated(path));
        let content = std::fs::read(path).unwrap();
        assert!(content[..4_096] == page && content[10 * MIB as usize..] == page);
        assert!(content[4_096..10 * MIB as usize].iter().all(|byte| *byte == 0));
    }
    let told = Program::new("du").args(["-B1", text(&there)]).ok();
    let told: u64 = told.split_whitespace().next().unwrap().parse().unwrap();
    assert_eq!(told, allocated(&here));
    // Filled, it takes the room.
    file.write_all_at(&tree::bytes(2, 3 * MIB as usize), MIB).unwrap();
    file.sync_all().unwrap();
    assert!((3 * MIB..4 * MIB).contains(&allocated(&there)), "{} allocated", allocated(&there));
    // Cut, it gives it back.
    file.set_len(2 * MIB).unwrap();
    assert!((MIB..=2 * MIB).contains(&allocated(&there)), "{} allocated", allocated(&there));
    file.set_len(0).unwrap();
    assert_eq!(allocated(&there), 0);
    healthy(&mut cluster);
}

#[test]
fn what_was_cut_off_never_comes_back() {
    let mut cluster = Cluster::with_two_mounts();
    let mounts = [cluster.mount(0).to_owned(), cluster.mount(1).to_owned()];
    let lengths = [10_u64, 4_000, 4_096, 4_097, 8_192, 100_000, MIB + 1];
    for (number, (&from, &to)) in
        lengths.iter().flat_map(|from| lengths.iter().map(move |to| (from, to))).enumerate()
    {
        let name = format!("f{number}");
        let (here, there) = (mounts[number % 2].join(&name), mounts[(number + 1) % 2].join(&name));
        let file = create(&here);
        let content = tree::bytes(number as u64, from as usize);
        file.write_all_at(&content, 0).unwrap();
        let cut = from / 3;
        let other = OpenOptions::new().read(true).write(true).open(&there).unwrap();
        other.set_len(cut).unwrap();
        file.set_len(to).unwrap();
        let kept = cut.min(to) as usize;
        for path in [&here, &there] {
            let found = std::fs::read(path).unwrap();
            assert_eq!(found.len() as u64, to, "{from} to {cut} to {to}");
            assert!(found[..kept] == content[..kept], "{from} to {cut} to {to}: what stays");
            assert!(found[kept..].iter().all(|byte| *byte == 0), "{from} to {cut} to {to}: zeros");
        }
        // A write behind the end leaves a hole in between.
        other.set_len(cut).unwrap();
        file.write_all_at(b"end", cut + 5_000).unwrap();
        let found = std::fs::read(&there).unwrap();
        assert_eq!(found.len() as u64, cut + 5_003);
        let cut = cut as usize;
        let known = cut.min(to as usize);
        assert!(found[..known] == content[..known] && &found[cut + 5_000..] == b"end");
        assert!(found[known..cut + 5_000].iter().all(|byte| *byte == 0), "{from} {cut} {to}: hole");
    }
    healthy(&mut cluster);
}

/// Random operations from both mounts in turn, compared with an array after each.
fn compare_with_array(cluster: &Cluster, seed: u64, operations: usize, length_max: usize) {
    let mut random = SmallRng::seed_from_u64(seed);
    let name = format!("array-{seed}");
    let open = |mount: usize| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.open(cluster.mount(mount).join(&name)).unwrap()
    };
    let mut files = [open(0), open(1)];
    let mut array: Vec<u8> = Vec::new();
    for number in 0..operations {
        let mount = random.random_range(0..2);
        let what = random.random_range(0..100);
        let file = &files[mount];
        if what < 45 {
            let at = random.random_range(0..length_max);
            let length = random.random_range(1..=(length_max - at).min(length_max / 4));
            let part = tree::bytes(seed ^ number as u64, length);
            file.write_all_at(&part, at as u64).unwrap();
            array.resize(array.len().max(at + length), 0);
            array[at..at + length].copy_from_slice(&part);
        } else if what < 60 {
            let length = random.random_range(0..length_max);
            file.set_len(length as u64).unwrap();
            array.resize(length, 0);
        } else if what < 65 {
            file.sync_all().unwrap();
        } else if what < 70 {
            files[mount] = open(mount);
        }
        let file = &files[random.random_range(0..2)];
        assert_eq!(file.metadata().unwrap().len(), array.len() as u64, "seed {seed}, {number}");
        let at = random.random_range(0..=array.len());
        let length = random.random_range(0..=array.len() - at);
        let place = format!("seed {seed}, operation {number}: {length} bytes at {at}");
        assert!(read(file, at as u64, length) == array[at..at + length], "{place}");
    }
    for mount in [0, 1] {
        assert!(std::fs::read(cluster.mount(mount).join(&name)).unwrap() == array, "seed {seed}");
    }
}

#[test]
fn random_writes_and_truncations_on_both_mounts_equal_an_array() {
    let mut cluster = Cluster::with_two_mounts();
    for seed in 0..6 {
        compare_with_array(&cluster, seed, 400, 12_000);
        compare_with_array(&cluster, seed + 100, 300, 300_000);
    }
    healthy(&mut cluster);
}

#[test]
fn mappings_write_to_the_file_if_shared_and_never_if_private() {
    let mut cluster = Cluster::with_two_mounts();
    for (number, length) in [100_usize, 4_096, 10_000, 300_000].into_iter().enumerate() {
        let name = format!("m{number}");
        let (here, there) = (cluster.mount(0).join(&name), cluster.mount(1).join(&name));
        let content = tree::bytes(number as u64, length);
        std::fs::write(&here, &content).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&here).unwrap();
        with_mapping(&file, length, libc::MAP_PRIVATE, |mapping| {
            assert!(*mapping == content[..]);
            mapping.fill(b'p');
        });
        assert!(std::fs::read(&here).unwrap() == content, "{length}: private");
        assert!(std::fs::read(&there).unwrap() == content);
        let before = std::fs::metadata(&here).unwrap();
        with_mapping(&file, length, libc::MAP_SHARED, |mapping| {
            assert!(*mapping == content[..]);
            mapping.fill(b's');
        });
        assert!(std::fs::read(&there).unwrap() == vec![b's'; length], "{length}: shared");
        let after = std::fs::metadata(&there).unwrap();
        let modified = |of: &std::fs::Metadata| (of.mtime(), of.mtime_nsec());
        assert!(modified(&after) > modified(&before), "{length}: mtime grows");
        assert_eq!(after.len(), length as u64);
        // Stays when the descriptor is closed before the mapping goes.
        with_mapping(&file, length, libc::MAP_SHARED, |mapping| mapping[0] = b'!');
        drop(file);
        assert_eq!(std::fs::read(&there).unwrap()[0], b'!');
    }
    healthy(&mut cluster);
}

#[test]
fn a_file_over_several_chunks_is_whole_at_their_borders() {
    let mut cluster = Cluster::with_two_mounts();
    let (here, there) = (cluster.mount(0).join("large"), cluster.mount(1).join("large"));
    let file = create(&here);
    let length = 150 * MIB;
    file.set_len(length).unwrap();
    let part = tree::bytes(7, 300_000);
    let places = [0, CHUNK - 150_001, 2 * CHUNK - 1, length - part.len() as u64];
    for at in places {
        file.write_all_at(&part, at).unwrap();
    }
    file.sync_all().unwrap();
    let other = File::open(&there).unwrap();
    assert_eq!(other.metadata().unwrap().len(), length);
    assert!(allocated(&there) < 4 * MIB, "{} allocated", allocated(&there));
    for at in places {
        assert!(read(&other, at, part.len()) == part, "at {at}");
    }
    // Around what was written, and everywhere else: zeros.
    let mut at = 0;
    while at < length {
        let piece = read(&other, at, MIB as usize);
        for (offset, byte) in piece.iter().enumerate().filter(|(_, byte)| **byte != 0) {
            let place = at + offset as u64;
            let inside = places.iter().any(|from| (*from..from + 300_000).contains(&place));
            assert!(inside, "byte {byte} at {place}");
        }
        at += MIB;
    }
    let told = cluster.json(&["where", text(&here)]);
    assert_eq!(told["chunks_total"], 3);
    assert_eq!(told["chunks"].as_array().unwrap().len(), 3);
    // Cut in the second chunk and grown again: the third is gone.
    file.set_len(CHUNK + 10).unwrap();
    file.set_len(length).unwrap();
    assert!(read(&other, CHUNK + 10, 200_000).iter().all(|byte| *byte == 0));
    assert!(read(&other, 2 * CHUNK - 1, 300_000).iter().all(|byte| *byte == 0));
    assert!(read(&other, length - 300_000, 300_000).iter().all(|byte| *byte == 0));
    assert!(read(&other, CHUNK - 150_001, 150_011) == part[..150_011]);
    healthy(&mut cluster);
}

#[test]
fn a_long_stream_arrives_as_it_was_sent() {
    let mut cluster = Cluster::with_two_mounts();
    let local = cluster.scratch().join("stream");
    std::fs::write(&local, tree::bytes(5, 100 * MIB as usize + 777)).unwrap();
    let there = cluster.mount(1).join("stream");
    let copy = |words: &[&str]| Program::new("dd").args(words).within(5 * MINUTE).ok();
    let (from, to) = (format!("if={}", text(&local)), cluster.mount(0).join("stream"));
    copy(&[&from, &format!("of={}", text(&to)), "bs=1M", "conv=fsync"]);
    Program::new("cmp").args([&local, &there]).within(5 * MINUTE).ok();
    // Without the kernel's cache, in both directions.
    let from = format!("if={}", text(&there));
    let direct = cluster.mount(1).join("direct");
    copy(&[&from, &format!("of={}", text(&direct)), "bs=512K", "iflag=direct", "conv=fsync"]);
    Program::new("cmp").args([&local, &cluster.mount(0).join("direct")]).within(5 * MINUTE).ok();
    let mut options = OpenOptions::new();
    let file = options.write(true).custom_flags(libc::O_DIRECT).open(&direct).unwrap();
    let page = tree::bytes(6, 4_096);
    file.write_all_at(&page, 8_192).unwrap();
    let other = File::open(cluster.mount(0).join("direct")).unwrap();
    assert!(read(&other, 8_192, 4_096) == page);
    healthy(&mut cluster);
}

#[test]
fn df_tells_the_room_that_the_cluster_has() {
    let cluster = Cluster::start();
    let df = || {
        let told = rustix::fs::statvfs(cluster.mount(0)).unwrap();
        let bytes = |blocks: u64| blocks * told.f_frsize;
        (bytes(told.f_blocks), bytes(told.f_bfree), bytes(told.f_bavail), told)
    };
    let (total, free, available, told) = df();
    assert!(total > 0 && free <= total && available <= free);
    assert_eq!(told.f_namemax, 255);
    assert!(told.f_files > 0 && told.f_ffree <= told.f_files);
    let usage = &cluster.json(&["status"])["usage"];
    // The disk is shared with everything else on this machine.
    let close = |one: u64, other: &serde_json::Value| {
        let other = other.as_u64().unwrap();
        assert!(one.abs_diff(other) < total / 20, "{one} and {other}");
    };
    close(total, &usage["total_bytes"]);
    close(free, &usage["free_bytes"]);
    close(available, &usage["available_bytes"]);
    // All nodes share one disk here, and every file is kept three times.
    let disk = rustix::fs::statvfs(cluster.scratch()).unwrap();
    let disk = disk.f_blocks * disk.f_frsize;
    assert!(total.abs_diff(disk / 3) < disk / 30, "{total} of a disk of {disk}");
    Program::new("df").args(["-h", text(cluster.mount(0))]).ok();
}
