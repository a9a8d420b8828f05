//! Large programs on a mount: data bases, exercisers of file systems, a build.
//!
//! Each test starts a cluster of its own. The programs are Debian's; the knobs in docs/testing.md
//! make their work longer.
//!
//! What must always hold: what a program was told is stored stays stored, and no program notices
//! that its folder is not a local one. A program that hangs is ended at its deadline, and the test
//! says where it waited.

mod builds;
mod fio;
mod holes;
mod postgres;
mod postgres_client;
mod postgres_server;
mod sqlite;
mod stress;

use std::path::Path;
use std::time::Duration;

/// Resident memory of five nodes and their mounts, from the promise in the README.
const MEMORY_MAX: u64 = 600 << 20;

/// A minute, the unit of deadlines of programs.
const MINUTE: Duration = Duration::from_secs(60);

/// Checks that no process ended and that all together stay within the promised memory.
fn healthy(cluster: &mut ministry_tests::Cluster) {
    cluster.assert_all_run();
    let memory = cluster.memory();
    println!("resident: {} MiB", memory >> 20);
    assert!(memory < MEMORY_MAX, "{} MiB of memory", memory >> 20);
}

/// A number from the environment, for longer runs.
fn knob(name: &str, otherwise: u64) -> u64 {
    let Ok(word) = std::env::var(name) else {
        return otherwise;
    };
    word.parse().unwrap_or_else(|_| panic!("{name} must be a number, not '{word}'"))
}

/// A path as text.
fn text(path: &Path) -> &str {
    path.to_str().expect("the folders of tests have plain names")
}
