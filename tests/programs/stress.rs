//! `stress-ng`: its stressors of file systems, each by itself, with `--verify`.
//!
//! Of the class `filesystem` these are left out:
//!
//! | left out | since |
//! |---|---|
//! | `bind-mount`, `binderfs` | they mount file systems of their own |
//! | `chattr`, `inode-flags`, `verity` | flags of ext4 and its kin, which FUSE does not bring to us |
//! | `fiemap`, `file-ioctl` | ioctls that tell where blocks lie on a local disk |
//! | `eventfd`, `ioprio`, `procfs` | no file of ours is touched |
//! | `fanotify` | it marks the whole machine's mounts, others' tests too |

use std::path::Path;
use std::time::Instant;

use ministry_tests::{Cluster, Ended, Program};

use crate::{MINUTE, healthy, knob, text};

/// Names and attributes.
const NAMES: [&str; 19] = [
    "access", "chdir", "chmod", "chown", "dentry", "dir", "dirdeep", "dirmany", "filename",
    "fstat", "getdent", "handle", "link", "mknod", "rename", "symlink", "touch", "utime", "xattr",
];
/// Content, locks, watchers.
const CONTENT: [&str; 22] = [
    "aio",
    "copy-file",
    "dnotify",
    "dup",
    "fallocate",
    "fcntl",
    "flock",
    "fpunch",
    "fsize",
    "hdd",
    "inotify",
    "io",
    "iomix",
    "lease",
    "locka",
    "lockf",
    "lockofd",
    "open",
    "readahead",
    "seek",
    "sendfile",
    "sync-file",
];
/// What would not fit into seconds, or onto the disk, by itself.
const BOUNDS: [(&str, &str); 9] = [
    ("copy-file", "--copy-file-bytes=128m"),
    ("dentry", "--dentries=256"),
    ("dirdeep", "--dirdeep-inodes=500"),
    ("fallocate", "--fallocate-bytes=16m"),
    ("hdd", "--hdd-bytes=16m"),
    ("iomix", "--iomix-bytes=16m"),
    ("readahead", "--readahead-bytes=16m"),
    ("seek", "--seek-size=16m"),
    ("sync-file", "--sync-file-bytes=16m"),
];

/// How many times the time that is asked for one gets at once, and then, if it did nothing: on a slow
/// machine it took all of it to prepare.
const TRIES: [u64; 3] = [1, 10, 60];
/// One operation of `xattr` sets, replaces and removes thousands of attributes, each of them logged.
const TRIES_OF_XATTR: [u64; 1] = [60];

/// Runs one; what it said if it failed.
fn stress(folder: &Path, name: &str) -> Option<String> {
    let seconds = knob("MINISTRY_STRESS_SECONDS", 2);
    let tries: &[u64] = if name == "xattr" { &TRIES_OF_XATTR } else { &TRIES };
    let mut tries = tries.iter();
    let mut next = || tries.next().map(|times| run(folder, name, times * seconds));
    let mut ended = next().expect("there is a first try");
    while ended.status.success() && done(&ended, name) == 0 {
        let Some(again) = next() else { break };
        ended = again;
    }
    // One that finds nothing to do here says so, or not even that, and ends with success.
    let skipped = [&ended.out, &ended.err].iter().any(|text| text.contains("skipp"));
    let left = std::fs::read_dir(folder).expect("the folder reads").count();
    let well = ended.status.success() && done(&ended, name) > 0 && !skipped && left == 0;
    (!well).then(|| format!("{left} left; {ended}"))
}

fn run(folder: &Path, name: &str, seconds: u64) -> Ended {
    let began = Instant::now();
    let bounds = BOUNDS.iter().filter(|(of, _)| *of == name).map(|(_, bound)| *bound);
    let ended = Program::new("stress-ng")
        .args([&format!("--{name}"), "2", "--verify", "--oomable", "--no-rand-seed", "--metrics"])
        .args(["--timeout", &format!("{seconds}s"), "--temp-path", text(folder)])
        .args(bounds)
        .dir(folder)
        .within(5 * MINUTE)
        .run();
    println!("{name}: {} after {:.1} s", ended.status, began.elapsed().as_secs_f64());
    ended
}

/// How many of its operations it says it did.
fn done(ended: &Ended, name: &str) -> u64 {
    let lines = ended.out.lines().chain(ended.err.lines());
    let counts = lines.filter(|line| line.contains("metrc:")).filter_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word != name);
        words.nth(1)?.parse::<u64>().ok()
    });
    counts.sum()
}

fn all(names: &[&str]) {
    let mut cluster = Cluster::start();
    let folder = cluster.mount(0).join("stress");
    std::fs::create_dir(&folder).unwrap();
    let wanted = std::env::var("MINISTRY_STRESSORS").unwrap_or_default();
    let wanted: Vec<&str> = wanted.split(',').filter(|word| !word.is_empty()).collect();
    let chosen = names.iter().filter(|name| wanted.is_empty() || wanted.contains(name));
    let failures: Vec<String> = chosen.filter_map(|name| stress(&folder, name)).collect();
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n\n"));
    healthy(&mut cluster);
}

#[test]
fn stressors_of_names_and_attributes_find_nothing() {
    all(&NAMES);
}

#[test]
fn stressors_of_content_and_locks_find_nothing() {
    all(&CONTENT);
}
