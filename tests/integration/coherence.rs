//! Two mounts: what one did, the other sees at its next call, without a lease and without a wait.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use ministry_tests::{Cluster, tree};

use crate::{healthy, text};

/// Rounds in each direction.
const ROUNDS: usize = 200;
/// Inline in the inode, at its border, behind it, over several pages.
const SIZES: [usize; 5] = [100, 4_096, 4_097, 20_000, 70_001];

/// Both mounts in turn: who acts, who looks, the number of the round.
fn both_ways(cluster: &Cluster, mut round: impl FnMut(&Path, &Path, usize)) {
    for number in 0..2 * ROUNDS {
        let (actor, other) = (cluster.mount(number % 2), cluster.mount((number + 1) % 2));
        round(actor, other, number);
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn missing(path: &Path) -> bool {
    matches!(std::fs::symlink_metadata(path), Err(error) if error.kind() == ErrorKind::NotFound)
}

#[test]
fn content_written_here_is_read_there() {
    let mut cluster = Cluster::with_two_mounts();
    both_ways(&cluster, |here, there, round| {
        let (mine, yours) = (here.join("file"), there.join("file"));
        let mut content = tree::bytes(round as u64, SIZES[round / 2 % SIZES.len()]);
        std::fs::write(&mine, &content).unwrap();
        assert_eq!(std::fs::read(&yours).unwrap(), content, "round {round}: written");
        // Overwritten in the middle by the other.
        let at = content.len() / 2;
        let part = format!("<round {round}>").into_bytes();
        let file = OpenOptions::new().write(true).open(&yours).unwrap();
        file.write_all_at(&part, at as u64).unwrap();
        drop(file);
        content.resize(content.len().max(at + part.len()), 0);
        content[at..at + part.len()].copy_from_slice(&part);
        assert_eq!(std::fs::read(&mine).unwrap(), content, "round {round}: overwritten");
        // Appended here.
        let mut file = OpenOptions::new().append(true).open(&mine).unwrap();
        file.write_all(&part).unwrap();
        content.extend_from_slice(&part);
        assert_eq!(std::fs::metadata(&yours).unwrap().len(), content.len() as u64);
        assert_eq!(std::fs::read(&yours).unwrap(), content, "round {round}: appended");
        // Cut there, while it is open here.
        let file_there = OpenOptions::new().write(true).open(&yours).unwrap();
        content.truncate(content.len() / 3);
        file_there.set_len(content.len() as u64).unwrap();
        assert_eq!(file.metadata().unwrap().len(), content.len() as u64);
        assert_eq!(std::fs::read(&mine).unwrap(), content, "round {round}: cut");
        // Grown here: zeros, never the old bytes.
        file.set_len(content.len() as u64 + 1_000).unwrap();
        content.resize(content.len() + 1_000, 0);
        assert_eq!(std::fs::read(&yours).unwrap(), content, "round {round}: grown");
    });
    healthy(&mut cluster);
}

#[test]
fn names_changed_here_are_changed_there() {
    let mut cluster = Cluster::with_two_mounts();
    both_ways(&cluster, |here, there, round| {
        let at = |top: &Path, name: &str| top.join(format!("{name}-{round}"));
        // The absence that the other knows of must not last.
        assert!(missing(&at(there, "a")));
        File::create_new(at(here, "a")).unwrap();
        assert!(!missing(&at(there, "a")), "round {round}: created");
        assert_eq!(File::create_new(at(there, "a")).unwrap_err().kind(), ErrorKind::AlreadyExists);
        std::fs::rename(at(there, "a"), at(there, "b")).unwrap();
        assert!(missing(&at(here, "a")) && !missing(&at(here, "b")), "round {round}: renamed");
        std::fs::hard_link(at(here, "b"), at(here, "c")).unwrap();
        assert_eq!(std::fs::metadata(at(there, "b")).unwrap().nlink(), 2);
        std::fs::create_dir(at(there, "d")).unwrap();
        std::fs::rename(at(here, "c"), at(here, "d").join("c")).unwrap();
        assert_eq!(names(&at(there, "d")), ["c"], "round {round}: moved");
        std::os::unix::fs::symlink("d", at(here, "l")).unwrap();
        assert_eq!(std::fs::read_link(at(there, "l")).unwrap(), Path::new("d"));
        // Replaced by a rename: the other opens the new one.
        std::fs::write(at(here, "n"), "new").unwrap();
        std::fs::rename(at(here, "n"), at(here, "b")).unwrap();
        assert_eq!(std::fs::read(at(there, "b")).unwrap(), b"new", "round {round}: replaced");
        for name in ["b", "l"] {
            std::fs::remove_file(at(there, name)).unwrap();
            assert!(missing(&at(here, name)), "round {round}: removed");
        }
        std::fs::remove_dir_all(at(here, "d")).unwrap();
        assert!(missing(&at(there, "d")));
    });
    assert_eq!(names(cluster.mount(0)), Vec::<String>::new());
    assert_eq!(names(cluster.mount(1)), Vec::<String>::new());
    healthy(&mut cluster);
}

#[test]
fn attributes_changed_here_are_changed_there() {
    let mut cluster = Cluster::with_two_mounts();
    std::fs::write(cluster.mount(0).join("file"), "x").unwrap();
    both_ways(&cluster, |here, there, round| {
        let (mine, yours) = (here.join("file"), there.join("file"));
        let before = std::fs::metadata(&yours).unwrap();
        let mode = 0o400 + round as u32 % 0o377;
        std::fs::set_permissions(&mine, PermissionsExt::from_mode(mode)).unwrap();
        let after = std::fs::metadata(&yours).unwrap();
        assert_eq!(after.mode() & 0o7777, mode, "round {round}");
        let changed = |of: &std::fs::Metadata| (of.ctime(), of.ctime_nsec());
        assert!(changed(&after) > changed(&before), "round {round}: ctime grows");
        std::os::unix::fs::chown(&mine, Some(round as u32), Some(7)).unwrap();
        assert_eq!(std::fs::metadata(&yours).unwrap().uid(), round as u32);
        let times = std::fs::FileTimes::new().set_modified(
            std::time::UNIX_EPOCH + std::time::Duration::new(round as u64, 123_456_789),
        );
        File::open(&mine).unwrap().set_times(times).unwrap();
        let after = std::fs::metadata(&yours).unwrap();
        assert_eq!((after.mtime(), after.mtime_nsec()), (round as i64, 123_456_789));
        let value = format!("value {round}");
        rustix::fs::setxattr(
            &mine,
            c"user.round",
            value.as_bytes(),
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
        let mut found = [0_u8; 64];
        let length = rustix::fs::getxattr(&yours, c"user.round", &mut found[..]).unwrap();
        assert_eq!(&found[..length], value.as_bytes());
        rustix::fs::removexattr(&yours, c"user.round").unwrap();
        let gone = rustix::fs::getxattr(&mine, c"user.round", &mut found[..]);
        assert_eq!(gone, Err(rustix::io::Errno::NODATA), "round {round}");
    });
    healthy(&mut cluster);
}

#[test]
fn files_that_stay_open_on_both_mounts_show_each_others_writes() {
    let mut cluster = Cluster::with_two_mounts();
    let open = |mount: usize| {
        let path = cluster.mount(mount).join("shared");
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
    };
    let files = [open(0), open(1)];
    const LENGTH: usize = 40_000;
    files[0].set_len(LENGTH as u64).unwrap();
    let mut content = vec![0; LENGTH];
    let mut found = vec![0; LENGTH];
    for round in 0..2 * ROUNDS {
        let (mine, yours) = (&files[round % 2], &files[(round + 1) % 2]);
        let part = tree::bytes(round as u64, 1 + round * 37 % 9_000);
        let at = round * 7_919 % (LENGTH - part.len());
        mine.write_all_at(&part, at as u64).unwrap();
        content[at..at + part.len()].copy_from_slice(&part);
        yours.read_exact_at(&mut found, 0).unwrap();
        assert!(found == content, "round {round}: {} bytes at {at}", part.len());
    }
    healthy(&mut cluster);
}

#[test]
fn what_is_written_through_a_shared_mapping_is_read_on_the_other_mount_after_msync() {
    let mut cluster = Cluster::with_two_mounts();
    const LENGTH: usize = 5 * 4_096 + 10;
    let open = |mount: usize| {
        let path = cluster.mount(mount).join("mapped");
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
    };
    let files = [open(0), open(1)];
    files[0].set_len(LENGTH as u64).unwrap();
    let mut content = vec![0; LENGTH];
    let mut found = vec![0; LENGTH];
    for round in 0..2 * ROUNDS {
        let (mine, yours) = (&files[round % 2], &files[(round + 1) % 2]);
        // As any program asks before it maps, how long the file is: from here on the mapping is up
        // to date. A read alone tells the kernel nothing about its pages.
        assert_eq!(mine.metadata().unwrap().len(), LENGTH as u64);
        let part = tree::bytes(round as u64, 1 + round * 13 % 6_000);
        let at = round * 3_571 % (LENGTH - part.len());
        crate::content::with_mapping(mine, LENGTH, libc::MAP_SHARED, |mapping| {
            mapping[at..at + part.len()].copy_from_slice(&part);
        });
        content[at..at + part.len()].copy_from_slice(&part);
        yours.read_exact_at(&mut found, 0).unwrap();
        assert!(found == content, "round {round}: {} bytes at {at}", part.len());
    }
    healthy(&mut cluster);
}

/// Four writers append `records` records each, writer by writer to the mounts in turn; all must be
/// there, whole, each writer's in their order, on both mounts.
fn append_at_once(cluster: &Cluster, name: &str, mounts: &[usize], records: usize) {
    let line =
        |writer: usize, record: usize| format!("{writer} {record} {}", "x".repeat(record % 90));
    std::thread::scope(|scope| {
        for writer in 0..4_usize {
            let path = cluster.mount(mounts[writer % mounts.len()]).join(name);
            scope.spawn(move || {
                let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
                for record in 0..records {
                    let line = line(writer, record) + "\n";
                    assert_eq!(file.write(line.as_bytes()).unwrap(), line.len());
                }
            });
        }
    });
    let log = std::fs::read_to_string(cluster.mount(0).join(name)).unwrap();
    assert_eq!(log, std::fs::read_to_string(cluster.mount(1).join(name)).unwrap());
    assert_eq!(log.lines().count(), 4 * records, "{name}: records");
    for writer in 0..4 {
        let start = format!("{writer} ");
        let own: Vec<&str> = log.lines().filter(|line| line.starts_with(&start)).collect();
        let expected: Vec<String> = (0..records).map(|record| line(writer, record)).collect();
        assert_eq!(own, expected, "{name}: the records of writer {writer} in their order");
    }
}

#[test]
fn records_appended_at_once_are_all_there_and_whole() {
    let mut cluster = Cluster::with_two_mounts();
    append_at_once(&cluster, "one-mount", &[0], 250);
    // A file in its inode: the minister gives the places. It stays under 4 KiB.
    for round in 0..20 {
        append_at_once(&cluster, &format!("inline-{round}"), &[0, 1], 25);
    }
    healthy(&mut cluster);
}

#[test]
fn records_appended_on_both_mounts_at_once_to_a_file_in_chunks_are_all_there() {
    let mut cluster = Cluster::with_two_mounts();
    append_at_once(&cluster, "two-mounts", &[0, 1], 250);
    healthy(&mut cluster);
}

#[test]
fn of_two_mounts_that_want_the_same_name_one_gets_it() {
    let mut cluster = Cluster::with_two_mounts();
    for round in 0..ROUNDS {
        let create = |mount: usize| {
            File::create_new(cluster.mount(mount).join(format!("lock-{round}"))).is_ok()
        };
        let (one, other) = std::thread::scope(|scope| {
            let other = scope.spawn(|| create(1));
            (create(0), other.join().unwrap())
        });
        assert!(one != other, "round {round}: {one} {other}");
        // Both move it away: one finds it.
        let rename = |mount: usize| {
            let top = cluster.mount(mount);
            std::fs::rename(top.join(format!("lock-{round}")), top.join(format!("to-{mount}")))
                .is_ok()
        };
        let (one, other) = std::thread::scope(|scope| {
            let other = scope.spawn(|| rename(1));
            (rename(0), other.join().unwrap())
        });
        assert!(one != other, "round {round}: renamed by {one} {other}");
    }
    healthy(&mut cluster);
}

#[test]
fn a_file_replaced_by_rename_is_always_seen_whole_and_never_older() {
    let mut cluster = Cluster::with_two_mounts();
    let done = AtomicBool::new(false);
    let version = |number: usize| format!("{number:06} ").repeat(1 + number % 3_000);
    std::fs::write(cluster.mount(0).join("current"), version(0)).unwrap();
    std::thread::scope(|scope| {
        let done = &done;
        let writer = cluster.mount(0);
        let reader = cluster.mount(1);
        let reading = scope.spawn(move || {
            let (mut last, mut looks) = (0, 0);
            while !done.load(Ordering::Relaxed) {
                let found = std::fs::read_to_string(reader.join("current")).unwrap();
                let number: usize = found[..6].parse().unwrap();
                assert!(found == version(number), "version {number} is not whole: {}", found.len());
                assert!(number >= last, "{number} after {last}");
                last = number;
                looks += 1;
            }
            looks
        });
        for number in 1..=300 {
            std::fs::write(writer.join("next"), version(number)).unwrap();
            std::fs::rename(writer.join("next"), writer.join("current")).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        assert!(reading.join().unwrap() > 10);
    });
    healthy(&mut cluster);
}

#[test]
fn a_file_opened_for_truncation_there_is_empty_here() {
    let cluster = Cluster::with_two_mounts();
    let (here, there) = (cluster.mount(0).join("f"), cluster.mount(1).join("f"));
    for length in SIZES {
        std::fs::write(&here, tree::bytes(1, length)).unwrap();
        let kept = File::open(&here).unwrap();
        let mut found = vec![0; length];
        kept.read_exact_at(&mut found, 0).unwrap();
        let flags = OpenOptions::new().write(true).custom_flags(libc::O_TRUNC).open(&there);
        drop(flags.unwrap());
        assert_eq!(kept.metadata().unwrap().len(), 0, "{}", text(&here));
        assert_eq!(kept.read_at(&mut found, 0).unwrap(), 0);
    }
}

/// The first write beyond what an inode holds, by a mount that has last seen the file empty.
#[test]
fn what_the_other_mount_has_written_meanwhile_moves_out_with_the_file() {
    let mut cluster = Cluster::with_two_mounts();
    both_ways(&cluster, |here, there, round| {
        let name = format!("moves-{round}");
        let mine = File::create_new(here.join(&name)).unwrap();
        let yours = OpenOptions::new().write(true).open(there.join(&name)).unwrap();
        let large = tree::bytes(round as u64, 8_192);
        let (small, outgrown) = (round % 4 < 2, &large[..5_000]);
        let first = if small { b"small".as_slice() } else { outgrown };
        yours.write_all_at(first, 0).unwrap();
        mine.write_all_at(&large, 6_000).unwrap();
        let found = std::fs::read(there.join(&name)).unwrap();
        let mut expected = first.to_vec();
        expected.resize(6_000, 0);
        expected.extend_from_slice(&large);
        assert!(found == expected, "round {round}: {} bytes", found.len());
        std::fs::remove_file(here.join(&name)).unwrap();
    });
    healthy(&mut cluster);
}
