//! Files without a name that somebody still has open: they live on, on every mount, and their room
//! comes back when the last one closes them.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use ministry_tests::{Cluster, Program, tree, wait};

use crate::{errno, healthy};

/// Within this time the data of a file that nobody has open is gone from all nodes.
const PURGED: Duration = Duration::from_secs(10);
const LENGTH: usize = 200_000;

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn read(file: &File, length: usize) -> Vec<u8> {
    let mut found = vec![0; length];
    file.read_exact_at(&mut found, 0).unwrap();
    found
}

#[test]
fn a_file_removed_there_lives_on_here_until_it_is_closed() {
    let mut cluster = Cluster::with_two_mounts();
    for (number, length) in [LENGTH, 50].into_iter().enumerate() {
        let name = format!("f{number}");
        let (here, there) = (cluster.mount(0).join(&name), cluster.mount(1).join(&name));
        let mut content = tree::bytes(1, length);
        std::fs::write(&here, &content).unwrap();
        let file = open(&here);
        let inode = file.metadata().unwrap().ino();
        std::fs::remove_file(&there).unwrap();
        assert_eq!(std::fs::metadata(&here).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        assert!(read(&file, length) == content);
        // It goes on: written, grown past the inline size, cut, synced.
        file.write_all_at(b"changed", 10).unwrap();
        content[10..17].copy_from_slice(b"changed");
        assert!(read(&file, length) == content);
        // Longer than a few keep-alives: the session says that it has the file open.
        std::thread::sleep(Duration::from_secs(7));
        assert!(read(&file, length) == content);
        let more = tree::bytes(2, 100_000);
        file.write_all_at(&more, length as u64).unwrap();
        file.sync_all().unwrap();
        content.extend_from_slice(&more);
        assert!(read(&file, content.len()) == content);
        assert!(!cluster.objects_of(inode).is_empty(), "the nodes keep it");
        file.set_len(5).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 5);
        // The name is free for another file.
        std::fs::write(&there, "another").unwrap();
        assert_ne!(std::fs::metadata(&here).unwrap().ino(), inode);
        drop(file);
        cluster.wait_until_purged(inode, PURGED);
        assert_eq!(std::fs::read(&here).unwrap(), b"another");
    }
    healthy(&mut cluster);
}

#[test]
fn the_room_of_removed_files_comes_back() {
    let mut cluster = Cluster::with_two_mounts();
    let (here, there) = (cluster.mount(0), cluster.mount(1));
    for number in 0..60 {
        std::fs::write(here.join(format!("f{number}")), tree::bytes(number, 50_000)).unwrap();
    }
    let inodes: Vec<u64> = (0..60)
        .map(|number| std::fs::metadata(here.join(format!("f{number}"))).unwrap().ino())
        .collect();
    assert_eq!(cluster.objects().len(), 3 * 60, "three replicas of each");
    for number in 0..60 {
        let from = if number % 2 == 0 { here } else { there };
        std::fs::remove_file(from.join(format!("f{number}"))).unwrap();
    }
    wait::until_true(PURGED, "all data is gone", || cluster.objects().is_empty());
    assert!(inodes.iter().all(|inode| cluster.objects_of(*inode).is_empty()));
    healthy(&mut cluster);
}

#[test]
fn a_file_replaced_by_rename_lives_on_where_it_is_open() {
    let mut cluster = Cluster::with_two_mounts();
    let (here, there) = (cluster.mount(0).join("f"), cluster.mount(1).join("f"));
    let content = tree::bytes(3, LENGTH);
    std::fs::write(&here, &content).unwrap();
    let file = open(&here);
    let inode = file.metadata().unwrap().ino();
    std::fs::write(cluster.mount(1).join("new"), "new").unwrap();
    std::fs::rename(cluster.mount(1).join("new"), &there).unwrap();
    assert_eq!(std::fs::read(&here).unwrap(), b"new");
    assert!(read(&file, LENGTH) == content);
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    drop(file);
    cluster.wait_until_purged(inode, PURGED);
    healthy(&mut cluster);
}

#[test]
fn a_second_name_keeps_a_file() {
    let cluster = Cluster::with_two_mounts();
    let (here, there) = (cluster.mount(0), cluster.mount(1));
    let content = tree::bytes(4, LENGTH);
    std::fs::write(here.join("one"), &content).unwrap();
    std::fs::hard_link(there.join("one"), there.join("two")).unwrap();
    let file = open(&here.join("one"));
    std::fs::remove_file(there.join("one")).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 1);
    drop(file);
    std::thread::sleep(Duration::from_secs(2));
    assert!(std::fs::read(here.join("two")).unwrap() == content);
    let inode = std::fs::metadata(here.join("two")).unwrap().ino();
    std::fs::remove_file(here.join("two")).unwrap();
    cluster.wait_until_purged(inode, PURGED);
}

#[test]
fn what_a_killed_mount_had_open_is_given_up_with_its_session() {
    let mut cluster = Cluster::with_two_mounts();
    let (here, there) = (cluster.mount(0).join("f"), cluster.mount(1).join("f"));
    std::fs::write(&here, tree::bytes(5, LENGTH)).unwrap();
    let file = open(&there);
    let inode = file.metadata().unwrap().ino();
    std::fs::remove_file(&here).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(cluster.objects_of(inode).len(), 3, "it is open on the other mount");
    cluster.mount_process(1).kill();
    let error = errno(file.read_at(&mut [0; 10], 0));
    assert!([libc::ENOTCONN, libc::ECONNABORTED, libc::EIO].contains(&error), "{error}");
    drop(file);
    cluster.wait_until_purged(inode, Duration::from_secs(60));
}

#[test]
fn a_folder_that_is_gone_takes_nothing_new() {
    let mut cluster = Cluster::with_two_mounts();
    let (here, there) = (cluster.mount(0).join("d"), cluster.mount(1).join("d"));
    std::fs::create_dir(&here).unwrap();
    let folder = File::open(&here).unwrap();
    std::fs::remove_dir(&there).unwrap();
    assert_eq!(folder.metadata().unwrap().nlink(), 0);
    let file = rustix::fs::openat(
        &folder,
        "late",
        rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY,
        rustix::fs::Mode::from_raw_mode(0o644),
    );
    assert_eq!(file.unwrap_err(), rustix::io::Errno::NOENT);
    // A shell that stands in it sees an empty folder, or none.
    std::fs::create_dir(&here).unwrap();
    let script = "rmdir \"$0\"; ls -a >/dev/null || true; ! touch late";
    Program::script(script).dir(&here).arg(&there).ok();
    healthy(&mut cluster);
}
