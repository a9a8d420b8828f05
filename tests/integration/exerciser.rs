//! fsx: random reads, writes, mapped reads and writes, truncations, preallocations, holes, copies of
//! ranges, syncs and reopenings of one file, each checked against what it must hold.

use std::path::{Path, PathBuf};
use std::time::Instant;

use ministry_tests::{Cluster, Program, tree};

use crate::{MINUTE, healthy};

/// Operations of each seed, unless `MINISTRY_FSX_STEPS` says otherwise: 100,000 make a million.
const OPERATIONS: u64 = 10_000;
/// Half of them on each mount.
const SEEDS: [u32; 10] = [1, 20, 303, 4004, 50_005, 6, 77, 808, 9009, 10_010];
/// So many at once: more would only wait for each other.
const AT_ONCE: usize = 4;

/// Every operation that the program has; 256 KiB, so that the file is inline at times and mostly not.
/// None of no bytes: the answer to a `posix_fallocate` of nothing is `EINVAL`, and the program takes
/// that for a file system without it.
const SETTINGS: &str = "flen = 262144
[opsize]
max = 65536
min = 1
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
posix_fallocate = 3
punch_hole = 3
sendfile = 3
posix_fadvise = 1
copy_file_range = 3
";

/// Where tests/run installs it, or wherever it is found.
fn fsx() -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or(home.join(".cache"), PathBuf::from);
    let installed = cache.join("ministry/tools/bin/fsx");
    if installed.exists() { installed } else { PathBuf::from("fsx") }
}

fn exercise(folder: &Path, scratch: &Path, seed: u32, operations: u64) {
    let settings = scratch.join(format!("fsx-{seed}.toml"));
    std::fs::write(&settings, SETTINGS).unwrap();
    let began = Instant::now();
    Program::new(fsx())
        .args(["-S", &seed.to_string(), "-N", &operations.to_string(), "-f"])
        .arg(&settings)
        .arg("-P")
        .arg(scratch)
        .arg(folder.join(format!("fsx-{seed}")))
        .within(60 * MINUTE)
        .ok();
    println!("seed {seed}: {operations} operations in {:.1} s", began.elapsed().as_secs_f64());
}

#[test]
fn fsx_with_all_operations_finds_nothing_with_ten_seeds_on_two_mounts() {
    let mut cluster = Cluster::with_two_mounts();
    let scratch = cluster.scratch();
    let operations = std::env::var("MINISTRY_FSX_STEPS").map_or(OPERATIONS, |steps| {
        steps
            .parse()
            .unwrap_or_else(|_| panic!("MINISTRY_FSX_STEPS must be a number, not '{steps}'"))
    });
    for seeds in SEEDS.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            for (number, seed) in seeds.iter().enumerate() {
                let (mount, scratch) = (cluster.mount(number % 2), &scratch);
                scope.spawn(move || exercise(mount, scratch, *seed, operations));
            }
        });
    }
    // The kernel of the mount that did not write has none of it: it reads from the cluster.
    for seed in SEEDS {
        let read = |mount: usize| tree::object(&cluster.mount(mount).join(format!("fsx-{seed}")));
        assert_eq!(read(0), read(1), "seed {seed}");
    }
    healthy(&mut cluster);
}
