//! What `fsx` lacks: zero range, allocation that keeps the size, and looking for data and holes,
//! mixed at random with writing, cutting and punching, from two mounts in turns.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use ministry_tests::{Cluster, tree};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::{healthy, knob};

/// Whether these calls exist.
const ALLOCATION: bool = true;

/// Several chunks' worth is not needed: holes matter within one.
const LENGTH_MAX: usize = 1 << 20;

/// What the file must hold, and where a hole is allowed: only where nothing was ever written or
/// where it was punched or zeroed since.
struct Model {
    content: Vec<u8>,
    written: Vec<bool>,
}

impl Model {
    fn resize(&mut self, length: usize) {
        self.content.resize(length, 0);
        self.written.resize(length, false);
    }

    fn fill(&mut self, from: usize, bytes: &[u8]) {
        let to = from + bytes.len();
        if to > self.content.len() {
            self.resize(to);
        }
        self.content[from..to].copy_from_slice(bytes);
        self.written[from..to].fill(true);
    }

    fn clear(&mut self, from: usize, to: usize) {
        let (from, to) = (from.min(self.content.len()), to.min(self.content.len()));
        self.content[from..to].fill(0);
        self.written[from..to].fill(false);
    }
}

fn fallocate(file: &File, mode: libc::c_int, from: usize, length: usize) {
    // SAFETY: no memory is involved.
    let done = unsafe { libc::fallocate(file.as_raw_fd(), mode, from as i64, length as i64) };
    let error = std::io::Error::last_os_error();
    assert_eq!(done, 0, "fallocate({mode:#x}, {from}, {length}): {error}");
}

fn seek(file: &File, from: usize, whence: libc::c_int) -> Option<usize> {
    // SAFETY: no memory is involved.
    let place = unsafe { libc::lseek(file.as_raw_fd(), from as i64, whence) };
    if place < 0 {
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::ENXIO));
    }
    usize::try_from(place).ok()
}

/// Data that was written is never said to be a hole, and the walk over the file ends at its end.
fn walk(file: &File, model: &Model) {
    let end = model.content.len();
    let mut place = 0;
    while place < end {
        let data = seek(file, place, libc::SEEK_DATA).unwrap_or(end);
        assert!(data >= place && data <= end, "data at {data}, from {place}");
        let first = (place..data).find(|at| model.written[*at] && model.content[*at] != 0);
        assert_eq!(first, None, "written, and said to be a hole in {place}..{data}");
        if data == end {
            break;
        }
        let hole = seek(file, data, libc::SEEK_HOLE).expect("there is a hole at the end");
        assert!(hole > data && hole <= end, "hole at {hole}, from {data}");
        place = hole;
    }
    assert_eq!(seek(file, end, libc::SEEK_DATA), None);
    assert_eq!(seek(file, end, libc::SEEK_HOLE), None);
}

fn step(random: &mut SmallRng, file: &File, model: &mut Model) -> String {
    let from = random.random_range(0..LENGTH_MAX - 1);
    let length = random.random_range(1..=(LENGTH_MAX - from).min(100_000));
    let to = from + length;
    let keep = libc::FALLOC_FL_KEEP_SIZE;
    let what = random.random_range(0..8);
    match what {
        0..3 => {
            let bytes = tree::bytes(random.random(), length);
            file.write_all_at(&bytes, from as u64).unwrap();
            model.fill(from, &bytes);
        }
        3 => {
            file.set_len(from as u64).unwrap();
            model.resize(from);
        }
        4 => {
            fallocate(file, 0, from, length);
            model.resize(model.content.len().max(to));
        }
        5 => fallocate(file, keep, from, length),
        6 => {
            fallocate(file, libc::FALLOC_FL_PUNCH_HOLE | keep, from, length);
            model.clear(from, to);
        }
        _ => {
            let keeps = random.random::<bool>();
            fallocate(
                file,
                libc::FALLOC_FL_ZERO_RANGE | if keeps { keep } else { 0 },
                from,
                length,
            );
            if !keeps {
                model.resize(model.content.len().max(to));
            }
            model.clear(from, to);
        }
    }
    format!("{what} at {from}, {length} bytes")
}

/// Random steps on a file that two folders show, each seen through the other.
fn exercise(folders: [&Path; 2], seed: u64, steps: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let name = format!("holes-{seed}");
    File::create_new(folders[0].join(&name)).unwrap();
    let files = folders
        .map(|folder| File::options().read(true).write(true).open(folder.join(&name)).unwrap());
    let mut model = Model { content: Vec::new(), written: Vec::new() };
    let mut last = Vec::new();
    for number in 0..steps {
        let (mine, other) = (&files[number as usize % 2], &files[(number as usize + 1) % 2]);
        last.push(step(&mut random, mine, &mut model));
        let size = other.metadata().unwrap().len() as usize;
        let steps = &last[last.len().saturating_sub(5)..];
        assert_eq!(size, model.content.len(), "seed {seed}, step {number}: {steps:?}");
        let mut found = vec![0; size];
        other.read_exact_at(&mut found, 0).unwrap();
        let wrong = found.iter().zip(&model.content).position(|(is, wanted)| is != wanted);
        assert_eq!(wrong, None, "seed {seed}, step {number}: {steps:?}");
        walk(other, &model);
    }
}

#[test]
fn the_model_of_holes_is_that_of_the_local_disk() {
    let folder = tempfile::tempdir().unwrap();
    exercise([folder.path(); 2], 1, 300);
}

#[test]
fn zeroing_punching_and_looking_for_holes_equal_a_model() {
    if !ALLOCATION {
        return;
    }
    let mut cluster = Cluster::with_two_mounts();
    for seed in 1..=3 {
        let folders = [cluster.mount(0), cluster.mount(1)];
        exercise(folders, seed, knob("MINISTRY_HOLES_STEPS", 400));
    }
    healthy(&mut cluster);
}
