//! Room of files, holes, and copies within the cluster, each compared with what a local file
//! system does.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use ministry_tests::{Cluster, Program, tree};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::content::with_mapping;
use crate::{MINUTE, errno, healthy, text};

const MIB: u64 = 1 << 20;
const CHUNK: u64 = 64 * MIB;

const ALLOCATE: i32 = 0;
const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;

fn create(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap()
}

fn done(result: i64) -> std::io::Result<u64> {
    u64::try_from(result).map_err(|_| std::io::Error::last_os_error())
}

fn fallocate(file: &File, mode: i32, offset: i64, length: i64) -> std::io::Result<u64> {
    // SAFETY: no memory is handed over.
    done(i64::from(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, length) }))
}

fn seek(file: &File, offset: i64, whence: i32) -> std::io::Result<u64> {
    // SAFETY: no memory is handed over.
    done(unsafe { libc::lseek(file.as_raw_fd(), offset, whence) })
}

fn copy(from: (&File, i64), to: (&File, i64), length: usize) -> std::io::Result<u64> {
    let (mut from_offset, mut to_offset) = (from.1, to.1);
    let (source, target) = (from.0.as_raw_fd(), to.0.as_raw_fd());
    // SAFETY: both offsets live until the call is over.
    let copied = unsafe {
        libc::copy_file_range(source, &mut from_offset, target, &mut to_offset, length, 0)
    };
    done(copied as i64)
}

/// All of a range, however many calls that takes.
fn copy_all(from: (&File, i64), to: (&File, i64), length: usize) -> u64 {
    let mut copied = 0;
    while copied < length as u64 {
        let rest = length - copied as usize;
        let at = copied as i64;
        match copy((from.0, from.1 + at), (to.0, to.1 + at), rest).unwrap() {
            0 => break,
            more => copied += more,
        }
    }
    copied
}

fn allocated(file: &File) -> u64 {
    file.metadata().unwrap().blocks() * 512
}

fn same(what: &str, here: &File, there: &File, local: &File) {
    let size = local.metadata().unwrap().len();
    let mut expected = vec![0; size as usize];
    local.read_exact_at(&mut expected, 0).unwrap();
    for file in [here, there] {
        assert_eq!(file.metadata().unwrap().len(), size, "{what}");
        let mut found = vec![0xEE; size as usize];
        file.read_exact_at(&mut found, 0).unwrap();
        let differs = found.iter().zip(&expected).position(|(one, other)| one != other);
        assert_eq!(differs, None, "{what}: the first byte that differs");
    }
}

#[test]
fn every_mode_of_fallocate_does_what_it_does_to_a_local_file() {
    let mut cluster = Cluster::with_two_mounts();
    let modes = [ALLOCATE, KEEP, PUNCH, ZERO, ZERO | KEEP];
    let sizes = [0_usize, 100, 4_096, 10_000, 300_000];
    let ranges = [(0, 10), (50, 4_000), (4_096, 8_192), (5_000, 200_000), (290_000, 500_000)];
    let mut number = 0;
    for size in sizes {
        for mode in modes {
            for (offset, length) in ranges {
                number += 1;
                let name = format!("f{number}");
                let what = format!("{size} bytes, mode {mode}, {length} at {offset}");
                let here = create(&cluster.mount(0).join(&name));
                let local = create(&cluster.scratch().join(&name));
                let bytes = tree::bytes(number, size);
                here.write_all_at(&bytes, 0).unwrap();
                local.write_all_at(&bytes, 0).unwrap();
                let there = File::open(cluster.mount(1).join(&name)).unwrap();
                let before = there.metadata().unwrap();
                fallocate(&here, mode, offset, length).unwrap();
                fallocate(&local, mode, offset, length).unwrap();
                same(&what, &here, &there, &local);
                let after = there.metadata().unwrap();
                if mode & KEEP == 0 || (offset as usize) < size {
                    let time = |of: &std::fs::Metadata| (of.mtime(), of.mtime_nsec());
                    assert!(time(&after) > time(&before), "{what}: mtime");
                }
                // Written afterwards, it is an ordinary file.
                here.write_all_at(b"after", offset as u64 + 3).unwrap();
                local.write_all_at(b"after", offset as u64 + 3).unwrap();
                same(&what, &here, &there, &local);
            }
        }
    }
    healthy(&mut cluster);
}

#[test]
fn what_fallocate_refuses_it_refuses_as_a_local_file_does() {
    let cluster = Cluster::start();
    let here = create(&cluster.mount(0).join("f"));
    let local = create(&cluster.scratch().join("f"));
    let calls = [
        (ALLOCATE, 0, 0, libc::EINVAL),
        (ALLOCATE, -1, 10, libc::EINVAL),
        (ALLOCATE, 0, -5, libc::EINVAL),
        (ALLOCATE, i64::MAX - 5, 10, libc::EFBIG),
        (libc::FALLOC_FL_PUNCH_HOLE, 0, 10, libc::EOPNOTSUPP),
        (PUNCH | ZERO, 0, 10, libc::EOPNOTSUPP),
        (0x4000, 0, 10, libc::EOPNOTSUPP),
    ];
    for (mode, offset, length, expected) in calls {
        for file in [&here, &local] {
            let found = errno(fallocate(file, mode, offset, length));
            assert_eq!(found, expected, "mode {mode}, {length} at {offset}");
        }
    }
    // Not offered here; a local file may.
    for mode in [libc::FALLOC_FL_COLLAPSE_RANGE, libc::FALLOC_FL_INSERT_RANGE] {
        assert_eq!(errno(fallocate(&here, mode, 0, 4_096)), libc::EOPNOTSUPP);
    }
    let to_read = File::open(cluster.mount(0).join("f")).unwrap();
    assert_eq!(errno(fallocate(&to_read, ALLOCATE, 0, 10)), libc::EBADF);
    let directory = File::open(cluster.mount(0)).unwrap();
    assert_eq!(errno(fallocate(&directory, ALLOCATE, 0, 10)), libc::EBADF);
    // More than any cluster has.
    assert_eq!(errno(fallocate(&here, ALLOCATE, 0, 1 << 43)), libc::ENOSPC);
    assert_eq!(here.metadata().unwrap().len(), 0, "the size is as it was");
}

#[test]
fn room_is_kept_on_the_disks_and_given_back() {
    let mut cluster = Cluster::with_two_mounts();
    let path = cluster.mount(0).join("room");
    let here = create(&path);
    let there = File::open(cluster.mount(1).join("room")).unwrap();
    let length = 150 * MIB;
    let on_disks = |cluster: &Cluster| -> u64 {
        let files = cluster.objects_of(there.metadata().unwrap().ino());
        files.iter().map(|file| std::fs::metadata(file).unwrap().blocks() * 512).sum()
    };
    fallocate(&here, ALLOCATE, 0, length as i64).unwrap();
    assert_eq!(there.metadata().unwrap().len(), length);
    assert_eq!(allocated(&there), length);
    assert!(on_disks(&cluster) >= 3 * length, "three replicas keep it: {}", on_disks(&cluster));
    let told = Program::new("du").args(["-B1", text(&path)]).ok();
    assert!(told.starts_with(&length.to_string()), "{told}");
    // Writing there takes nothing more.
    here.write_all_at(&tree::bytes(1, MIB as usize), CHUNK - 1_000).unwrap();
    here.sync_all().unwrap();
    assert_eq!(allocated(&there), length);
    fallocate(&here, PUNCH, MIB as i64, (length - 2 * MIB) as i64).unwrap();
    assert_eq!(allocated(&there), 2 * MIB);
    assert!(on_disks(&cluster) < 8 * MIB, "{} on the disks", on_disks(&cluster));
    let mut found = vec![1; 2 * MIB as usize];
    there.read_exact_at(&mut found, CHUNK - MIB).unwrap();
    assert!(found.iter().all(|byte| *byte == 0));
    // A huge hole is punched in no time.
    here.set_len(1 << 43).unwrap();
    fallocate(&here, PUNCH, 0, 1 << 43).unwrap();
    assert_eq!(allocated(&there), 0);
    healthy(&mut cluster);
}

#[test]
fn data_and_holes_are_found_as_in_a_local_file() {
    let mut cluster = Cluster::with_two_mounts();
    let here = create(&cluster.mount(0).join("holes"));
    let local = create(&cluster.scratch().join("holes"));
    let there = File::open(cluster.mount(1).join("holes")).unwrap();
    for file in [&here, &local] {
        file.set_len(300 * MIB).unwrap();
        for (number, at) in [8_192, MIB, CHUNK - 4_096, 3 * CHUNK + 65_536].iter().enumerate() {
            file.write_all_at(&tree::bytes(number as u64 + 1, 8_192), *at).unwrap();
        }
        file.sync_all().unwrap();
    }
    let mut places: Vec<i64> = vec![0, 1, 8_192, 12_000, 16_384, 300 * MIB as i64 - 1];
    places.extend([300 * MIB as i64, 1 << 40, -1, CHUNK as i64, 3 * CHUNK as i64 + 70_000]);
    for whence in [libc::SEEK_DATA, libc::SEEK_HOLE] {
        for place in &places {
            let expected = seek(&local, *place, whence).map_err(|error| error.raw_os_error());
            for file in [&here, &there] {
                let found = seek(file, *place, whence).map_err(|error| error.raw_os_error());
                assert_eq!(found, expected, "whence {whence} from {place}");
            }
        }
    }
    // All of it: where data and holes change.
    let borders = |file: &File| {
        let (mut at, mut borders) = (0_i64, Vec::new());
        while let Ok(data) = seek(file, at, libc::SEEK_DATA) {
            at = seek(file, data as i64, libc::SEEK_HOLE).unwrap() as i64;
            borders.push((data, at));
        }
        borders
    };
    assert_eq!(borders(&there), borders(&local));
    assert_eq!(borders(&there).len(), 4);
    // In an inode everything is data.
    let small = create(&cluster.mount(0).join("small"));
    small.write_all_at(b"x", 1_000).unwrap();
    assert_eq!(seek(&small, 3, libc::SEEK_DATA).unwrap(), 3);
    assert_eq!(seek(&small, 3, libc::SEEK_HOLE).unwrap(), 1_001);
    assert_eq!(errno(seek(&small, 1_001, libc::SEEK_DATA)), libc::ENXIO);
    healthy(&mut cluster);
}

#[test]
fn a_copy_has_the_same_bytes_and_the_same_holes() {
    let mut cluster = Cluster::with_two_mounts();
    let source_path = cluster.mount(0).join("source");
    let source = create(&source_path);
    let length = 130 * MIB + 777;
    source.set_len(length).unwrap();
    let data = tree::bytes(1, 20 * MIB as usize + 777);
    source.write_all_at(&data, CHUNK - 10 * MIB).unwrap();
    source.write_all_at(&data[..300_777], length - 300_777).unwrap();
    source.sync_all().unwrap();
    let target = create(&cluster.mount(0).join("target"));
    assert_eq!(copy_all((&source, 0), (&target, 0), 1 << 40), length);
    target.sync_all().unwrap();
    let there = cluster.mount(1).join("target");
    Program::new("cmp").args([&source_path, &there]).within(5 * MINUTE).ok();
    let there = File::open(there).unwrap();
    assert!(allocated(&there) < 22 * MIB, "{} allocated", allocated(&there));
    assert!(allocated(&there) >= 20 * MIB);
    // Elsewhere, at odd places, over what was there, and within one file.
    let odd = create(&cluster.mount(1).join("odd"));
    odd.write_all_at(&tree::bytes(2, 3 * MIB as usize), 0).unwrap();
    let from_there = File::open(cluster.mount(1).join("source")).unwrap();
    let at = (CHUNK - 10 * MIB) as i64 + 1;
    assert_eq!(copy_all((&from_there, at), (&odd, 77), 2 * MIB as usize), 2 * MIB);
    let mut found = vec![0; 3 * MIB as usize];
    odd.read_exact_at(&mut found, 0).unwrap();
    assert!(found[..77] == tree::bytes(2, 77) && found[77..][..2 << 20] == data[1..][..2 << 20]);
    assert!(found[(2 << 20) + 77..] == tree::bytes(2, 3 << 20)[(2 << 20) + 77..]);
    let both = OpenOptions::new().read(true).write(true).open(cluster.mount(1).join("odd"));
    let both = both.unwrap();
    assert_eq!(copy_all((&both, 77), (&both, 5_000_001), MIB as usize), MIB);
    let mut again = vec![0; MIB as usize];
    both.read_exact_at(&mut again, 5_000_001).unwrap();
    assert!(again == found[77..][..1 << 20]);
    // cp takes the same way.
    let copied = cluster.mount(0).join("copied");
    Program::new("cp").args([&source_path, &copied]).within(5 * MINUTE).ok();
    Program::new("cmp").args([&source_path, &copied]).within(5 * MINUTE).ok();
    healthy(&mut cluster);
}

#[test]
fn what_a_copy_refuses_it_refuses_as_a_local_file_does() {
    let cluster = Cluster::start();
    for folder in [cluster.mount(0).to_owned(), cluster.scratch()] {
        let file = create(&folder.join("f"));
        file.write_all_at(&tree::bytes(1, 100_000), 0).unwrap();
        let place = folder.display();
        assert_eq!(errno(copy((&file, 0), (&file, 50_000), 50_001)), libc::EINVAL, "{place}");
        assert_eq!(copy((&file, 0), (&file, 50_000), 50_000).unwrap(), 50_000, "{place}");
        assert_eq!(copy((&file, 100_000), (&file, 0), 10).unwrap(), 0, "{place}");
        assert_eq!(copy((&file, 99_000), (&file, 0), 9_999).unwrap(), 1_000, "{place}");
        let to_read = File::open(folder.join("f")).unwrap();
        assert_eq!(errno(copy((&file, 0), (&to_read, 0), 10)), libc::EBADF, "{place}");
        let appends = OpenOptions::new().append(true).open(folder.join("f")).unwrap();
        assert_eq!(errno(copy((&file, 0), (&appends, 0), 10)), libc::EBADF, "{place}");
        let mut options = OpenOptions::new();
        let directory = options.read(true).custom_flags(libc::O_DIRECTORY).open(&folder).unwrap();
        assert_eq!(errno(copy((&directory, 0), (&file, 0), 10)), libc::EISDIR, "{place}");
    }
}

/// One random operation on a file and its local double.
fn random_operation(random: &mut SmallRng, number: u64, pair: [&File; 2], length_max: u64) {
    let offset = random.random_range(0..length_max);
    let length = random.random_range(1..=(length_max - offset).min(length_max / 3).max(1));
    let mode = [ALLOCATE, KEEP, PUNCH, ZERO, ZERO | KEEP][random.random_range(0..5)];
    let what = random.random_range(0..10);
    let to = random.random_range(0..length_max);
    let bytes = tree::bytes(number, length as usize);
    for file in pair {
        match what {
            0..=2 => file.write_all_at(&bytes, offset).unwrap(),
            3..=6 => {
                fallocate(file, mode, offset as i64, length as i64).unwrap();
            }
            7 => file.set_len(offset).unwrap(),
            8 if offset + length <= to || to + length <= offset => {
                copy_all((file, offset as i64), (file, to as i64), length as usize);
            }
            8 => {}
            _ => {
                let size = file.metadata().unwrap().len() as usize;
                if size > 0 {
                    with_mapping(file, size, libc::MAP_SHARED, |mapping| {
                        let at = offset as usize % size;
                        mapping[at] = mapping[at].wrapping_add(7);
                    });
                }
            }
        }
    }
}

#[test]
fn random_changes_of_room_on_both_mounts_equal_a_local_file() {
    let mut cluster = Cluster::with_two_mounts();
    for (seed, operations, length_max) in
        [(1, 200, 12_000), (2, 200, 12_000), (3, 150, 500_000), (4, 60, 140 * MIB)]
    {
        let mut random = SmallRng::seed_from_u64(seed);
        let name = format!("random-{seed}");
        let open = |folder: &Path| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            options.open(folder.join(&name)).unwrap()
        };
        let mounts = [open(cluster.mount(0)), open(cluster.mount(1))];
        let local = open(&cluster.scratch());
        for number in 0..operations {
            let mount = &mounts[random.random_range(0..2)];
            random_operation(&mut random, seed << 32 | number, [mount, &local], length_max);
            if length_max < MIB || number % 10 == 9 {
                let what = format!("seed {seed}, operation {number}");
                same(&what, &mounts[0], &mounts[1], &local);
            }
        }
    }
    healthy(&mut cluster);
}
