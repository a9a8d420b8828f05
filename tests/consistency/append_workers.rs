//! Writers that append records to one file through several mounts.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::fs;
use rustix::io::Errno;

use crate::appends::{self, Append, Look};
use crate::history::is_unknown;
use crate::workers::{Signs, WORKERS};

/// What the records of a file are like.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// What the file is called.
    pub name: &'static str,
    /// The shortest and the longest record.
    pub lengths: (usize, usize),
    /// What each worker appends at most.
    pub share: usize,
}

/// Stays within what lives in an inode.
pub const SMALL: Shape = Shape { name: "small", lengths: (17, 90), share: 600 };
/// Moves out of the inode on its way.
pub const LARGE: Shape = Shape { name: "large", lengths: (17, 7_000), share: 150_000 };

/// What was appended to one file, and how large it was seen.
#[derive(Debug, Default)]
pub struct Written {
    /// The appends.
    pub appends: Vec<Append>,
    /// The sizes.
    pub looks: Vec<Look>,
    /// Errors that no file system may answer here.
    pub strange: Vec<String>,
}

/// Appends until each worker has had its share, or is asked to stop.
pub fn append(mounts: &[&Path], file: &str, shape: Shape, seed: u64, signs: &Signs) -> Written {
    File::create(mounts[0].join(file)).expect("a file");
    let mut all = Written::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..WORKERS * mounts.len())
            .map(|worker| {
                let path = mounts[worker % mounts.len()].join(file);
                let random = SmallRng::seed_from_u64(seed.wrapping_mul(1_000) + worker as u64);
                scope.spawn(move || append_share(&path, shape, worker, random, signs))
            })
            .collect();
        for thread in threads {
            let written = thread.join().expect("a worker does not panic");
            all.appends.extend(written.appends);
            all.looks.extend(written.looks);
            all.strange.extend(written.strange);
        }
    });
    all
}

fn append_share(
    path: &Path,
    shape: Shape,
    worker: usize,
    mut random: SmallRng,
    signs: &Signs,
) -> Written {
    let clock = signs.clock();
    let open = || File::options().append(true).open(path);
    let mut written = Written::default();
    let (mut file, mut left) = (None, shape.share);
    while !signs.stops() {
        // Half of the workers open the file for each record.
        if worker % 4 < 2 {
            file = None;
        }
        let Ok(handle) = file.take().map_or_else(open, Ok) else { continue };
        let length = random.random_range(shape.lengths.0..=shape.lengths.1);
        if length > left {
            break;
        }
        left -= length;
        let id = (worker, written.appends.len() as u64);
        let record = appends::record(id, length);
        let called = clock.now();
        let result = (&handle).write(&record);
        let returned = clock.now();
        let done = match &result {
            Ok(count) if *count == length => true,
            Err(error)
                if error
                    .raw_os_error()
                    .is_some_and(|error| is_unknown(Errno::from_raw_os_error(error))) =>
            {
                false
            }
            other => {
                written.strange.push(format!("append of {length} bytes as {id:?}: {other:?}"));
                false
            }
        };
        written.appends.push(Append { id, called, returned, done });
        if random.random_range(0..3) == 0 {
            let called = clock.now();
            if let Ok(stat) = fs::fstat(&handle) {
                let returned = clock.now();
                written.looks.push(Look { called, returned, size: stat.st_size as u64 });
            }
        }
        signs.count(worker);
        file = Some(handle);
    }
    written
}
