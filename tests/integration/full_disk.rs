//! Disks that fill up: the mount says so, nothing is lost, nobody dies, and room that is given back
//! is there again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ministry_tests::{Cluster, Plan, tree, wait};
use rustix::fs::FallocateFlags;

use crate::{MINUTE, healthy};

const MIB: usize = 1 << 20;
/// Of each node's disk. A tenth is kept from file data.
const DISK: usize = 256 * MIB;

/// Three nodes, each with a small file system of its own.
fn cluster() -> Cluster {
    let plan = Plan { nodes: 3, disk_bytes: Some(DISK as u64), ..Plan::default() };
    Cluster::with(plan)
}

/// Writes until there is no room; answers how many MiB are written.
fn fill(path: &Path, content: &[u8]) -> usize {
    let mut file = File::create_new(path).unwrap();
    for written in 0..DISK / MIB {
        if let Err(error) = file.write_all(content) {
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "after {written} MiB: {error}");
            return written;
        }
    }
    panic!("more than the disks hold");
}

fn available(folder: &Path) -> u64 {
    let room = rustix::fs::statvfs(folder).unwrap();
    room.f_bavail * room.f_frsize
}

/// Fills a node's disk up to a quarter of its reserve, as another program would; answers with what.
fn make_short(data: &Path) -> PathBuf {
    let ballast = data.join("ballast");
    let file = File::create_new(&ballast).unwrap();
    let room = available(&ballast) - (DISK / 40) as u64;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, room).unwrap();
    ballast
}

fn no_space<T>(result: io::Result<T>) -> bool {
    result.err().and_then(|error| error.raw_os_error()) == Some(libc::ENOSPC)
}

#[test]
fn full_disks_are_said_and_survived_and_room_comes_back() {
    let mut cluster = cluster();
    let mount = cluster.mount(0).to_owned();
    let content = tree::bytes(1, MIB);
    // Room that was promised while there was some.
    let promised = File::create_new(mount.join("promised")).unwrap();
    rustix::fs::fallocate(&promised, FallocateFlags::empty(), 0, 4 * MIB as u64).unwrap();
    let written = fill(&mount.join("large"), &content);
    assert!(written > DISK / MIB / 2, "only {written} MiB fitted");

    promised.write_all_at(&content, MIB as u64).unwrap();
    let large = OpenOptions::new().read(true).write(true).open(mount.join("large")).unwrap();
    large.write_all_at(&content[..MIB / 2], (MIB / 2) as u64).unwrap();
    large.write_all_at(&content[MIB / 2..], (MIB / 2) as u64).unwrap();
    for file in [&promised, &large] {
        file.sync_all().unwrap();
    }
    assert!(no_space(fs::write(mount.join("more"), &content)), "there is no room");
    // Names and small files have the reserve.
    fs::create_dir(mount.join("folder")).unwrap();
    fs::write(mount.join("folder/small"), b"fits").unwrap();
    // Small pieces, until no disk takes one: the first write that is refused is so by the fullest.
    let mut more = OpenOptions::new().append(true).open(mount.join("more")).unwrap();
    let mut look = |what: &str, mut is_so: Box<dyn FnMut() -> bool + '_>| {
        wait::until_true(MINUTE, what, || {
            while more.write_all(&content[..MIB / 16]).is_ok() {}
            is_so()
        });
    };
    look("df tells that it is full", Box::new(|| available(&mount) < MIB as u64));
    let all = || cluster.ctl(&["status"]).run().out.matches("is full").count() == 3;
    look("status tells that three disks are full", Box::new(all));

    // The nodes start on disks that are full.
    cluster.kill_all(false);
    cluster.start_all();
    cluster.wait_until_serving();
    let mut found = vec![0; MIB];
    for part in 0..written {
        large.read_exact_at(&mut found, (part * MIB) as u64).unwrap();
        let as_written = if part == 0 {
            found[..MIB / 2] == content[..MIB / 2] && found[MIB / 2..] == content[MIB / 2..]
        } else {
            found == content
        };
        assert!(as_written, "MiB {part} of {written}");
    }

    drop(large);
    fs::remove_file(mount.join("large")).unwrap();
    wait::until_true(MINUTE, "the room comes back", || available(&mount) > (DISK / 2) as u64);
    fs::write(mount.join("again"), &content).unwrap();
    assert!(fs::read(mount.join("again")).unwrap() == content);
    assert_eq!(fs::read(mount.join("folder/small")).unwrap(), b"fits");
    healthy(&mut cluster);
}

/// Another program may fill the disk of the nodes beyond what file data leaves.
#[test]
fn a_disk_that_others_fill_takes_no_names_and_gives_them_up() {
    let mut cluster = cluster();
    let mount = cluster.mount(0).to_owned();
    fs::write(mount.join("old"), b"there before").unwrap();
    let held = File::create_new(mount.join("held")).unwrap();
    held.write_all_at(b"12345", 0).unwrap();
    // Whoever is minister.
    let ballast: Vec<PathBuf> = (0..3).map(|node| make_short(&cluster.data(node))).collect();

    let mut number = 0;
    wait::until_true(MINUTE, "names are refused", || {
        number += 1;
        no_space(File::create_new(mount.join(format!("new-{number}"))))
    });
    assert!(no_space(fs::create_dir(mount.join("folder"))));
    assert!(no_space(fs::hard_link(mount.join("old"), mount.join("linked"))));
    assert!(no_space(std::os::unix::fs::symlink("old", mount.join("symlink"))));
    assert!(no_space(held.write_all_at(b"longer", 0)));
    held.write_all_at(b"small", 0).unwrap();
    assert!(no_space(
        rustix::fs::setxattr(mount.join("held"), "user.a", b"b", rustix::fs::XattrFlags::empty())
            .map_err(io::Error::from)
    ));
    let exists = File::create_new(mount.join("held")).unwrap_err();
    assert_eq!(exists.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(mount.join("old")).unwrap(), b"there before");
    fs::rename(mount.join("old"), mount.join("moved")).unwrap();
    fs::remove_file(mount.join("moved")).unwrap();

    ballast.iter().for_each(|path| fs::remove_file(path).unwrap());
    wait::until_true(MINUTE, "names are taken again", || {
        fs::create_dir(mount.join("folder")).is_ok()
    });
    held.write_all_at(b"longer", 0).unwrap();
    held.sync_all().unwrap();
    assert_eq!(fs::read(mount.join("held")).unwrap(), b"longer");
    healthy(&mut cluster);
}

/// What a minister has answered and not yet logged is told to the next, which has to take it.
#[test]
fn a_write_that_was_answered_stays_when_the_next_minister_has_no_room() {
    let mut cluster = cluster();
    let mount = cluster.mount(0).to_owned();
    let held = File::create_new(mount.join("held")).unwrap();
    held.write_all_at(b"short", 0).unwrap();
    held.sync_all().unwrap();
    let minister = cluster.minister(1);
    let others: Vec<usize> = (0..3).filter(|node| *node != minister).collect();
    let ballast: Vec<PathBuf> =
        others.iter().map(|node| make_short(&cluster.data(*node))).collect();
    wait::until_true(MINUTE, "both nodes have seen that they have no room", || {
        others.iter().all(|node| cluster.log_of(*node).contains("half of the disk's reserve"))
    });
    assert_eq!(cluster.minister(1), minister);

    held.write_all_at(b"longer than it was", 0).unwrap();
    cluster.kill_node(minister);
    assert_eq!(fs::read(mount.join("held")).unwrap(), b"longer than it was");
    held.sync_all().unwrap();
    assert!(no_space(File::create_new(mount.join("new"))), "the minister has no room");

    ballast.iter().for_each(|path| fs::remove_file(path).unwrap());
    cluster.start_node(minister);
    wait::until_true(MINUTE, "names are taken again", || {
        fs::create_dir(mount.join("folder")).is_ok()
    });
    assert_eq!(fs::read(mount.join("held")).unwrap(), b"longer than it was");
    healthy(&mut cluster);
}
