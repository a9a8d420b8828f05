//! `fsx`: random operations on one file, each read checked against what the file must hold.

use std::path::Path;
use std::time::Instant;

use ministry_tests::{Cluster, Program, tree};

use crate::{MINUTE, healthy, knob, tool};

/// Seeds, half of them on each mount.
const SEEDS: [u32; 10] = [1, 20, 303, 4004, 50_005, 6, 77, 808, 9009, 10_010];
/// So many at once: more would only wait for each other.
const AT_ONCE: usize = 4;

/// Whether files can be preallocated, holes punched and ranges copied.
const ALLOCATION: bool = true;

/// 256 KiB, so that the file is inline at times and mostly not.
fn settings() -> String {
    let weight = if ALLOCATION { 3 } else { 0 };
    format!(
        "flen = 262144
[opsize]
max = 65536
min = 0
align = 1
[weights]
close_open = 1
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 5
fsync = 0.3
fdatasync = 0.3
posix_fallocate = {weight}
punch_hole = {weight}
sendfile = 3
posix_fadvise = 1
copy_file_range = {weight}
"
    )
}

fn exercise(folder: &Path, scratch: &Path, seed: u32, steps: u64) {
    let path = scratch.join(format!("fsx-{seed}.toml"));
    std::fs::write(&path, settings()).unwrap();
    let began = Instant::now();
    Program::new(tool("fsx"))
        .args(["-S", &seed.to_string(), "-N", &steps.to_string(), "-f"])
        .arg(&path)
        .arg("-P")
        .arg(scratch)
        .arg(folder.join(format!("fsx-{seed}")))
        .within(60 * MINUTE)
        .ok();
    println!("seed {seed}: {steps} operations in {:.1} s", began.elapsed().as_secs_f64());
}

#[test]
fn fsx_with_all_operations_finds_nothing_with_ten_seeds() {
    let mut cluster = Cluster::with_two_mounts();
    let scratch = cluster.scratch();
    // Of each seed; MINISTRY_FSX_STEPS=100000 makes the million.
    let steps = knob("MINISTRY_FSX_STEPS", 20_000);
    let began = Instant::now();
    for seeds in SEEDS.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            for (number, seed) in seeds.iter().enumerate() {
                let (mount, scratch) = (cluster.mount(number % 2), &scratch);
                scope.spawn(move || exercise(mount, scratch, *seed, steps));
            }
        });
    }
    let all = steps * SEEDS.len() as u64;
    println!("{all} operations in {:.1} s", began.elapsed().as_secs_f64());
    // The kernel of the mount that did not write has none of it: it reads from the cluster.
    for seed in SEEDS {
        let read = |mount: usize| tree::object(&cluster.mount(mount).join(format!("fsx-{seed}")));
        assert_eq!(read(0), read(1), "seed {seed}");
    }
    healthy(&mut cluster);
}
