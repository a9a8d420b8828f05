//! A whole cluster of real processes, used through its mounts by real programs, without faults.
//!
//! Each test starts a cluster of its own, which takes under a second. Needs root and the Debian
//! packages that tests/run installs; see tests/README.md.

mod acls;
mod budgets;
mod coherence;
mod content;
mod damage;
mod exerciser;
mod file_handles;
mod full_disk;
mod listing;
mod locked_doors;
mod locks;
mod ministries;
mod mounting;
mod names;
mod operator;
mod orphans;
mod overload;
mod permissions;
mod programs;
mod scripts;
mod space;

use std::path::Path;
use std::time::Duration;

/// Resident memory of five nodes and their mount, from the promise in the README.
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

/// A path as text.
fn text(path: &Path) -> &str {
    path.to_str().expect("the folders of tests have plain names")
}

/// The error number of a failed call.
fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.expect_err("this call had to fail").raw_os_error().expect("an error of the kernel")
}
