//! A mount dies, alone or together with nodes: what it held is freed, what it was promised or others
//! have seen of it stays, the others go on.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use ministry_tests::load::{Kind, Load};
use ministry_tests::{Cluster, tree};

use crate::{GOING_ON, Seed, appointments};

/// Longer than a session lives without its client.
const BEYOND_SESSION: Duration = Duration::from_secs(7);
/// Within this the data of what a dead mount held open must be gone.
const FREED_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn files_that_a_dead_mount_held_open_are_freed_and_the_other_mount_goes_on() {
    let seed = Seed::of("files_that_a_dead_mount_held_open_are_freed_and_the_other_mount_goes_on");
    let mut cluster = Cluster::with_two_mounts();
    let mut load = Load::new(
        seed.number,
        &[(Kind::Small, "small"), (Kind::Large, "large"), (Kind::Rename, "rename")],
    );
    load.prepare(cluster.mount(0));
    let content = tree::bytes(seed.number, 200_000);
    std::fs::write(cluster.mount(0).join("held"), &content).unwrap();
    let held = std::fs::File::open(cluster.mount(1).join("held")).unwrap();
    let inode = held.metadata().unwrap().ino();

    let running = load.start(cluster.mount(0));
    std::fs::remove_file(cluster.mount(0).join("held")).unwrap();
    // The session of the holder is renewed all the time: the file lives on.
    std::thread::sleep(BEYOND_SESSION);
    let mut read = vec![0; content.len()];
    held.read_exact_at(&mut read, 0).expect("a file that is open reads");
    assert!(read == content, "an unlinked file changed while it was open");
    assert!(!cluster.objects_of(inode).is_empty());

    let killed = Instant::now();
    cluster.mount_process(1).kill();
    cluster.wait_until_purged(inode, FREED_WITHIN);
    println!("freed {:.2?} after the death of the mount", killed.elapsed());
    held.read_exact_at(&mut read[..1], 0).expect_err("the mount is gone");

    running.wait_until_all_go_on(GOING_ON);
    load = running.stop();
    println!("{}", load.summary());
    println!("appointments: {:#?}", appointments(&cluster));
    let third = cluster.add_mount();
    load.verify(cluster.mount(third));
    load.verify(cluster.mount(0));
}

/// A file whose writes are to be durable when they return.
fn synchronous(path: &Path, flag: i32) -> File {
    OpenOptions::new().append(true).create(true).custom_flags(flag).open(path).unwrap()
}

#[test]
fn what_a_synchronous_write_returned_outlives_the_death_of_everything_in_the_same_moment() {
    let mut cluster = Cluster::start();
    let mut wanted: Vec<(&str, Vec<u8>)> = Vec::new();
    for (round, flag) in [libc::O_DSYNC, libc::O_SYNC, libc::O_DSYNC].into_iter().enumerate() {
        // In the inode, in chunks, and on the way from one to the other.
        for (name, bytes) in [("small", 700), ("large", 50_000), ("growing", 3_000)] {
            let record = vec![b'a' + round as u8; bytes];
            let mut file = synchronous(&cluster.mount(0).join(name), flag);
            file.write_all(&record).unwrap();
            match wanted.iter_mut().find(|(known, _)| *known == name) {
                Some((_, content)) => content.extend(record),
                None => wanted.push((name, record)),
            }
        }
        // Sooner than a minister logs what nobody waits for.
        cluster.kill_all(true);
        cluster.start_all();
        cluster.add_mount();
        for (name, content) in &wanted {
            let found = std::fs::read(cluster.mount(0).join(name)).unwrap();
            assert!(found == *content, "round {round}: {name} has {} bytes", found.len());
        }
    }
}

#[test]
fn what_one_mount_has_seen_of_another_outlives_that_one_and_the_minister() {
    let mut cluster = Cluster::with_two_mounts();
    let mut writer = 0;
    for round in 0..3 {
        let name = format!("seen-{round}");
        std::fs::write(cluster.mount(writer).join(&name), "before").unwrap();
        let seen = cluster.mount(1).join(&name);
        let file = OpenOptions::new().write(true).open(cluster.mount(writer).join(&name)).unwrap();
        file.write_all_at(b"after it", 0).unwrap();
        assert_eq!(std::fs::read(&seen).unwrap(), b"after it", "mounts are coherent");
        // Sooner than a minister logs what nobody waits for.
        let minister = cluster.minister(1);
        cluster.mount_process(writer).kill();
        cluster.kill_node(minister);
        assert_eq!(std::fs::read(&seen).unwrap(), b"after it", "round {round}");
        assert_eq!(seen.metadata().unwrap().len(), 8);
        cluster.start_node(minister);
        cluster.wait_until_serving();
        writer = cluster.add_mount();
    }
}
