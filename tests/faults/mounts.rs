//! A mount dies: what it held is freed, the others go on.

use std::os::unix::fs::{FileExt, MetadataExt};
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
