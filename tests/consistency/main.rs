//! Whether the mounts of a cluster behave as one local file system would.
//!
//! Two ways: random sequences of calls, run on the mounts in turns and on a local file system
//! beside them, where every answer and every effect must be alike; and recorded histories of calls
//! at the same time, for each of which there must be an order of its calls, none against the
//! clock, that a file system used by one alone could have answered.
//!
//! All choices come from a seed, which a failure prints with the command that repeats it. See
//! docs/testing.md. Needs root, as all that mounts.

mod accepted;
mod append_workers;
mod appends;
mod call;
mod checker;
mod comparison;
mod confinement;
mod generator;
mod histories;
mod history;
mod models;
mod sequences;
mod snapshot;
mod subject;
mod workers;

/// Whether `fallocate`, `SEEK_DATA`, `SEEK_HOLE` and `copy_file_range` are drawn.
pub const CALLS_NEW: bool = true;
/// Whether the time of the last access is compared. It moves as `relatime` has it, but a comparison of
/// whole trees would have to know of each look that the kernel answers by itself: links it has
/// followed, folders it has listed.
pub const RELATIME_NEW: bool = false;
/// Whether links to another's files are refused as `fs.protected_hardlinks` has it; else only the
/// super-user makes links.
pub const PROTECTED_HARDLINKS_NEW: bool = false;
/// Whether a write by another than the super-user takes setuid and setgid away also through a handle
/// that the super-user opened; else only the super-user writes through handles.
pub const WRITE_CLEARS_SETUID_NEW: bool = true;
/// Whether `utimensat` with one time *now* and the other left or given is for the owner alone; else
/// only the super-user sets times.
pub const UTIMENS_OF_OTHERS_NEW: bool = true;
/// Whether `chown` of neither user nor group changes ctime and takes setuid and setgid away; else it
/// is not called.
pub const CHOWN_OF_NOTHING_NEW: bool = true;

/// Whether appends of two mounts to a file over 4 KiB are judged.
pub const APPENDS_LARGE: bool = true;
/// Whether `fcntl` locks of two mounts are judged.
pub const LOCKS_ACROSS_MOUNTS: bool = true;
/// Whether a program may read, through the mount that writes it, what a write that has not returned
/// is about to write. So it is as long as reads and writes go through the kernel's pages.
pub const PAGES_SHOW_WRITES_EARLY: bool = false;

/// Where a test's choices come from.
struct Seed {
    test: &'static str,
    number: u64,
}

impl Seed {
    /// `MINISTRY_SEED`, or any.
    fn of(test: &'static str) -> Seed {
        let given = std::env::var("MINISTRY_SEED").ok();
        let number = given.map_or_else(
            || u64::from(rand::random::<u32>()),
            |seed| seed.parse().expect("MINISTRY_SEED is a number"),
        );
        println!("seed {number}");
        Seed { test, number }
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!(
                "repeat all: MINISTRY_SEED={} tests/run consistency {}",
                self.number, self.test
            );
        }
    }
}

/// A number from the environment.
fn knob(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}
