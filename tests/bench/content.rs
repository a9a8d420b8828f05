//! Content: small files, large ones in order and at random, two writers.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use ministry_tests::tree;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

use crate::figures::{Figure, Side};
use crate::measures::{MIB, Sizes, each, figures, once};
use crate::places::Places;

const PAGE: usize = 4096;

/// New files of 4 KiB, written and closed, not synced; then read by another mount's first look.
pub fn small(places: &mut Places, sizes: &Sizes) -> Result<Vec<Figure>> {
    let content = tree::bytes(7, PAGE);
    let mut sides = Vec::new();
    for [top, other] in places.twice() {
        let (folder, other) = (top.join("small"), other.join("small"));
        std::fs::create_dir(&folder)?;
        let paths = |folder: &Path| -> Vec<PathBuf> {
            (0..sizes.small).map(|number| folder.join(number.to_string())).collect()
        };
        let write = each(&paths(&folder), |path| {
            let mut file = File::create_new(path)?;
            file.write_all(&content)
        })?;
        let mut found = Vec::with_capacity(PAGE);
        let read = each(&paths(&other), |path| {
            found.clear();
            File::open(path)?.read_to_end(&mut found)?;
            // A benchmark that reads wrong bytes measures nothing.
            assert!(found == content, "{path:?} is not what was written");
            Ok(())
        })?;
        std::fs::remove_dir_all(&folder)?;
        sides.push([write, read]);
    }
    let titles = ["write 4 KiB, close", "read 4 KiB"];
    Ok(figures(titles.map(|name| (name, sizes.small, "file")), sides))
}

/// One large file.
pub fn large(places: &mut Places, sizes: &Sizes) -> Result<Vec<Figure>> {
    let content = tree::bytes(6, 16 * MIB);
    let mib = sizes.sequential_mib;
    let parts: Vec<&[u8]> =
        (0..mib).map(|part| &content[part % 16 * MIB..(part % 16 + 1) * MIB]).collect();
    let mut sides = Vec::new();
    for number in 0..places.all().len() {
        let path = |places: &Places| places.all()[number].join("large");
        let written = write_through(&path(places), &parts)?;
        places.forget()?;
        let cold = read_through(&path(places), &parts)?;
        let again = read_through(&path(places), &parts)?;
        places.forget()?;
        let (scattered, pages) = (path(places), pages(mib, sizes.random));
        let reads = read_pages(&scattered, &pages)?;
        let writes = write_pages(&scattered, &pages)?;
        std::fs::remove_file(&scattered)?;
        sides.push([written, cold, again, reads, writes]);
    }
    let titles = [
        ("sequential write, fsync", mib, "MiB"),
        ("sequential read, cold", mib, "MiB"),
        ("sequential read, again", mib, "MiB"),
        ("random read of 4 KiB, cold", sizes.random, "call"),
        ("random write of 4 KiB, fsync", sizes.random, "call"),
    ];
    Ok(figures(titles, sides))
}

fn write_through(path: &Path, parts: &[&[u8]]) -> Result<Side> {
    let mut file = File::create_new(path)?;
    let mut calls = Vec::with_capacity(parts.len());
    let began = Instant::now();
    for part in parts {
        let call = Instant::now();
        file.write_all(part)?;
        calls.push(call.elapsed());
    }
    file.sync_all()?;
    Ok(Side::new(parts.len() as f64, began.elapsed(), &calls))
}

/// Reads all of it, 1 MiB a call.
fn read_through(path: &Path, parts: &[&[u8]]) -> Result<Side> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; MIB];
    let mut calls = Vec::with_capacity(parts.len());
    for (number, part) in parts.iter().enumerate() {
        let began = Instant::now();
        file.read_exact(&mut buffer).with_context(|| format!("MiB {number}"))?;
        calls.push(began.elapsed());
        // Comparing is not part of the time.
        ensure!(buffer == **part, "MiB {number} of {path:?} is not what was written");
    }
    Ok(Side::new(parts.len() as f64, calls.iter().sum(), &calls))
}

/// Places of pages, each at most once, the same at every place.
fn pages(mib: usize, count: usize) -> Vec<u64> {
    let mut all: Vec<u64> = (0..(mib * MIB / PAGE) as u64).collect();
    let (chosen, _) = all.partial_shuffle(&mut SmallRng::seed_from_u64(3), count);
    chosen.iter().map(|page| page * PAGE as u64).collect()
}

fn read_pages(path: &Path, pages: &[u64]) -> Result<Side> {
    let file = File::open(path)?;
    let mut buffer = vec![0; PAGE];
    each(pages, |page| file.read_exact_at(&mut buffer, *page))
}

/// The time of all has the sync at the end in it, the times of the calls have not.
fn write_pages(path: &Path, pages: &[u64]) -> Result<Side> {
    let file = File::options().write(true).open(path)?;
    let began = Instant::now();
    let calls = each(pages, |page| file.write_all_at(&[b'w'; PAGE], *page))?;
    file.sync_all()?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(Side { seconds, rate: pages.len() as f64 / seconds, ..calls })
}

/// Two programs, each on a mount of its own: a file each, then the two halves of one file.
pub fn two_writers(places: &mut Places, sizes: &Sizes) -> Result<Vec<Figure>> {
    let mib = sizes.shared_mib;
    let mut sides = Vec::new();
    for tops in places.twice() {
        let files = [tops[0].join("one"), tops[1].join("two")];
        let own = once(2 * mib, || write_at_once(&files, [0, 0], mib))?;
        let shared = tops.each_ref().map(|top| top.join("shared"));
        File::create_new(&shared[0])?;
        let one = once(2 * mib, || write_at_once(&shared, [0, mib], mib))?;
        let length = std::fs::metadata(&shared[0])?.len();
        ensure!(length == (2 * mib * MIB) as u64, "{length} bytes in the shared file");
        for path in [&files[0], &files[1], &shared[0]] {
            std::fs::remove_file(path)?;
        }
        sides.push([own, one]);
    }
    let titles = ["two mounts, two files, fsync", "two mounts, one file, fsync"];
    Ok(figures(titles.map(|name| (name, 2 * mib, "MiB")), sides))
}

fn write_at_once(paths: &[PathBuf; 2], from: [usize; 2], mib: usize) -> Result<()> {
    let content = tree::bytes(8, MIB);
    let write = |path: &Path, from: usize| -> Result<()> {
        let options = File::options().write(true).create(true).truncate(false).clone();
        let file = options.open(path)?;
        for part in from..from + mib {
            file.write_all_at(&content, (part * MIB) as u64)?;
        }
        Ok(file.sync_all()?)
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| write(&paths[1], from[1]));
        write(&paths[0], from[0])?;
        other.join().expect("a writer does not panic")
    })
}
