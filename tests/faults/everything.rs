//! Everything is killed at once, at any moment, again and again, and comes back.

use std::time::{Duration, Instant};

use ministry_tests::load::{Kind, Load};
use ministry_tests::{Cluster, wait};
use rand::Rng;

use crate::{Seed, knob};

/// The share of rounds in which all is killed once more while it comes back.
const KILLED_TWICE: f64 = 0.25;

/// Works until a random moment, kills everything and brings it back.
fn round(cluster: &mut Cluster, load: Load, seed: &mut Seed) -> Load {
    let running = load.start(cluster.mount(0));
    std::thread::sleep(seed.millis(50..1_500));
    running.falling();
    cluster.kill_all(true);
    let load = running.stop();
    if seed.random.random_bool(KILLED_TWICE) {
        for node in 0..cluster.nodes() {
            cluster.start_node(node);
        }
        std::thread::sleep(seed.millis(0..600));
        cluster.kill_all(true);
    }
    cluster.start_all();
    cluster.add_mount();
    load
}

/// Everything is removed, and then no node holds a byte of it.
fn nothing_is_left_behind(cluster: &Cluster, folders: &[&str]) {
    for folder in folders {
        std::fs::remove_dir_all(cluster.mount(0).join(folder)).expect("a tree can be removed");
    }
    wait::until_true(Duration::from_secs(60), "the data of removed files is gone", || {
        cluster.objects().is_empty()
    });
}

#[test]
fn everything_synced_survives_the_death_of_all_processes() {
    let mut seed = Seed::of("everything_synced_survives_the_death_of_all_processes");
    let rounds = knob("MINISTRY_ROUNDS", 20);
    let mut cluster = Cluster::start();
    std::fs::create_dir(cluster.mount(0).join("second")).unwrap();
    let made = cluster.create_ministry("/second");
    assert!(made.status.success(), "{made}");

    let places = [
        (Kind::Small, "small"),
        (Kind::Small, "second/small"),
        (Kind::Large, "large"),
        (Kind::Overwrite, "second/overwrite"),
        (Kind::Append, "append"),
        (Kind::Rename, "rename"),
        (Kind::Rename, "second/rename"),
    ];
    let mut load = Load::new(seed.number, &places).synced();
    load.prepare(cluster.mount(0));
    let (mut interrupted, mut operations) = (0, 0);
    for number in 0..rounds {
        let began = Instant::now();
        load = round(&mut cluster, load, &mut seed);
        let (cut_off, count) = (load.interrupted(), load.count());
        interrupted += cut_off;
        operations += count;
        let back = began.elapsed();
        load.verify(cluster.mount(0));
        println!(
            "round {number}: {count} operations, {cut_off} interrupted, back after {back:.2?}, \
             checked after {:.2?}",
            began.elapsed()
        );
    }
    // A run in which nothing was under way when it was killed shows nothing.
    assert!(interrupted as u64 >= rounds, "only {interrupted} operations were interrupted");
    assert!(operations as u64 >= 20 * rounds, "only {operations} operations were acknowledged");
    println!("{operations} operations acknowledged, {interrupted} interrupted in {rounds} rounds");
    nothing_is_left_behind(&cluster, &places.map(|(_, folder)| folder));
    cluster.assert_all_run();
}
