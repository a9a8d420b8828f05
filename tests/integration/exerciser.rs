//! fsx: random reads, writes, mapped reads and writes, truncations, syncs and reopenings of one
//! file, each checked against what it must hold. Preallocation, holes punched into files and
//! copying of ranges come with a later issue.

use std::path::{Path, PathBuf};
use std::time::Instant;

use ministry_tests::{Cluster, Program, tree};

use crate::{MINUTE, healthy};

const OPERATIONS: u32 = 50_000;
const SEEDS: [u32; 4] = [1, 20, 303, 4004];

/// Every operation that exists so far; 256 KiB, so that the file is inline at times and mostly not.
const SETTINGS: &str = "flen = 262144
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
posix_fallocate = 0
punch_hole = 0
sendfile = 3
posix_fadvise = 1
copy_file_range = 0
";

/// Where tests/run installs it, or wherever it is found.
fn fsx() -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or(home.join(".cache"), PathBuf::from);
    let installed = cache.join("ministry/tools/bin/fsx");
    if installed.exists() { installed } else { PathBuf::from("fsx") }
}

fn exercise(folder: &Path, scratch: &Path, seed: u32) {
    let settings = scratch.join(format!("fsx-{seed}.toml"));
    std::fs::write(&settings, SETTINGS).unwrap();
    let began = Instant::now();
    Program::new(fsx())
        .args(["-S", &seed.to_string(), "-N", &OPERATIONS.to_string(), "-f"])
        .arg(&settings)
        .arg("-P")
        .arg(scratch)
        .arg(folder.join(format!("fsx-{seed}")))
        .within(12 * MINUTE)
        .ok();
    println!("seed {seed}: {OPERATIONS} operations in {:.1} s", began.elapsed().as_secs_f64());
}

#[test]
fn fsx_finds_nothing_with_four_seeds_on_two_mounts() {
    let mut cluster = Cluster::with_two_mounts();
    let scratch = cluster.scratch();
    std::thread::scope(|scope| {
        for (number, seed) in SEEDS.into_iter().enumerate() {
            let (mount, scratch) = (cluster.mount(number % 2), &scratch);
            scope.spawn(move || exercise(mount, scratch, seed));
        }
    });
    // The kernel of the mount that did not write has none of it: it reads from the cluster.
    for seed in SEEDS {
        let read = |mount: usize| tree::object(&cluster.mount(mount).join(format!("fsx-{seed}")));
        assert_eq!(read(0), read(1), "seed {seed}");
    }
    healthy(&mut cluster);
}
