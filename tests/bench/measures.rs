//! What is measured. Each does the same at both places, the local folder first.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ministry_tests::{Program, tree};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

use crate::Places;
use crate::figures::{Figure, Side};

const MIB: usize = 1 << 20;

/// How much of everything.
pub struct Sizes {
    names: usize,
    synced: usize,
    synced_by_eight: usize,
    tree: usize,
    sequential_mib: usize,
    random: usize,
}

impl Sizes {
    /// Figures that mean something.
    pub const FULL: Sizes = Sizes {
        names: 5_000,
        synced: 1_000,
        synced_by_eight: 4_000,
        tree: 5_000,
        sequential_mib: 1_024,
        random: 1_000,
    };
    /// Seconds.
    pub const QUICK: Sizes = Sizes {
        names: 200,
        synced: 50,
        synced_by_eight: 80,
        tree: 200,
        sequential_mib: 32,
        random: 50,
    };
}

/// One measure, of one or more figures.
pub struct Measure {
    /// What `--only` chooses by.
    pub name: &'static str,
    /// Runs it at both places.
    pub run: fn(&mut Places, &Sizes) -> Result<Vec<Figure>>,
}

/// All of them, in the order in which they run.
pub const ALL: [Measure; 5] = [
    Measure { name: "names: create, stat, list, unlink", run: names },
    Measure { name: "fsynced create by one", run: synced_by_one },
    Measure { name: "fsynced create by eight", run: synced_by_eight },
    Measure { name: "unpack", run: unpack },
    Measure { name: "sequential and random", run: sequential },
];

/// Times of calls that follow each other.
fn each<T>(items: &[T], mut call: impl FnMut(&T) -> std::io::Result<()>) -> Result<Side> {
    let mut calls = Vec::with_capacity(items.len());
    let began = Instant::now();
    for item in items {
        let call_began = Instant::now();
        call(item)?;
        calls.push(call_began.elapsed());
    }
    Ok(Side::new(items.len() as f64, began.elapsed(), &calls))
}

/// One time of everything.
fn once(units: usize, call: impl FnOnce() -> Result<()>) -> Result<Side> {
    let began = Instant::now();
    call()?;
    Ok(Side::new(units as f64, began.elapsed(), &[]))
}

fn both(places: &Places) -> [PathBuf; 2] {
    [places.local.clone(), places.mount().to_owned()]
}

fn names(places: &mut Places, sizes: &Sizes) -> Result<Vec<Figure>> {
    let mut sides = Vec::new();
    for top in both(places) {
        let folder = top.join("names");
        std::fs::create_dir(&folder)?;
        let paths: Vec<PathBuf> =
            (0..sizes.names).map(|number| folder.join(format!("file-{number}"))).collect();
        let mut shuffled = paths.clone();
        shuffled.shuffle(&mut SmallRng::seed_from_u64(1));
        let create = each(&paths, |path| File::create_new(path).map(drop))?;
        let stat = each(&shuffled, |path| std::fs::metadata(path).map(drop))?;
        let list = once(sizes.names, || list(&folder, sizes.names))?;
        let unlink = each(&shuffled, |path| std::fs::remove_file(path))?;
        std::fs::remove_dir(&folder)?;
        sides.push([create, stat, list, unlink]);
    }
    let [local, mount]: [[Side; 4]; 2] = sides.try_into().expect("two places");
    let count = sizes.names as u64;
    let titles = ["create, empty", "stat", "list with attributes", "unlink"];
    let pairs = titles.into_iter().zip(local.into_iter().zip(mount));
    Ok(pairs.map(|(name, (local, mount))| Figure::new(name, count, "file", local, mount)).collect())
}

/// As `ls -l` does.
fn list(folder: &Path, expected: usize) -> Result<()> {
    let mut count = 0;
    for entry in std::fs::read_dir(folder)? {
        entry?.metadata()?;
        count += 1;
    }
    anyhow::ensure!(count == expected, "{count} of {expected} names are listed");
    Ok(())
}

/// A file of 1 KiB that is on stable storage.
fn synced_file(path: &Path) -> std::io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(&[b'm'; 1024])?;
    file.sync_all()
}

fn synced_by_one(places: &mut Places, sizes: &Sizes) -> Result<Vec<Figure>> {
    let mut sides = Vec::new();
    for top in both(places) {
        let folder = top.join("synced");
        std::fs::create_dir(&folder)?;
        let paths: Vec<_> =
            (0..sizes.synced).map(|number| folder.join(number.to_string())).collect();
        sides.push(each(&paths, |path| synced_file(path))?);
        std::fs::remove_dir_all(&folder)?;
    }
    let [local, mount] = sides.try_into().expect("two places");
    let name = "create 1 KiB, fsync, 1 by 1";
    Ok(vec![Figure::new(name, sizes.synced as u64, "file", local, mount)])
}

fn synced_by_eight(places: &mut Places, sizes: &Sizes) -> Result<Vec<Figure>> {
    const CALLERS: usize = 8;
    let mut sides = Vec::new();
    for top in both(places) {
        let top = top.join("synced-by-eight");
        let each_one = sizes.synced_by_eight / CALLERS;
        let mut lists = Vec::new();
        for caller in 0..CALLERS {
            let folder = top.join(caller.to_string());
            std::fs::create_dir_all(&folder)?;
            lists.push((0..each_one).map(|file| folder.join(file.to_string())).collect::<Vec<_>>());
        }
        let began = Instant::now();
        let calls: Result<Vec<Vec<Duration>>> = std::thread::scope(|scope| {
            let start = |list: &'_ Vec<PathBuf>| -> Result<Vec<Duration>> {
                let timed = |path: &PathBuf| {
                    let began = Instant::now();
                    synced_file(path).map(|()| began.elapsed())
                };
                Ok(list.iter().map(timed).collect::<std::io::Result<_>>()?)
            };
            let threads: Vec<_> =
                lists.iter().map(|list| scope.spawn(move || start(list))).collect();
            threads.into_iter().map(|one| one.join().expect("a caller does not panic")).collect()
        });
        let all = began.elapsed();
        sides.push(Side::new((each_one * CALLERS) as f64, all, &calls?.concat()));
        std::fs::remove_dir_all(&top)?;
    }
    let [local, mount] = sides.try_into().expect("two places");
    let name = "create 1 KiB, fsync, by 8";
    Ok(vec![Figure::new(name, sizes.synced_by_eight as u64, "file", local, mount)])
}

fn unpack(places: &mut Places, sizes: &Sizes) -> Result<Vec<Figure>> {
    let scratch = places.cluster.scratch();
    let (source, archive) = (scratch.join("source"), scratch.join("source.tar"));
    tree::make(&source, sizes.tree, 5);
    Program::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&source).arg(".").ok();
    let mut sides = Vec::new();
    for top in both(places) {
        let folder = top.join("unpacked");
        std::fs::create_dir(&folder)?;
        let began = Instant::now();
        Program::new("tar")
            .arg("-xf")
            .arg(&archive)
            .arg("-C")
            .arg(&folder)
            .within(Duration::from_secs(1_200))
            .ok();
        let unpacked = Side::new(sizes.tree as f64, began.elapsed(), &[]);
        rustix::fs::syncfs(File::open(&folder)?)?;
        let synced = Side::new(sizes.tree as f64, began.elapsed(), &[]);
        std::fs::remove_dir_all(&folder)?;
        sides.push([unpacked, synced]);
    }
    let [[local, local_synced], [mount, mount_synced]] = sides.try_into().expect("two places");
    let count = sizes.tree as u64;
    Ok(vec![
        Figure::new("unpack a tree", count, "file", local, mount),
        Figure::new("unpack a tree, sync", count, "file", local_synced, mount_synced),
    ])
}

fn sequential(places: &mut Places, sizes: &Sizes) -> Result<Vec<Figure>> {
    let content = tree::bytes(6, 16 * MIB);
    let count = sizes.sequential_mib;
    let parts: Vec<&[u8]> =
        (0..count).map(|part| &content[part % 16 * MIB..(part % 16 + 1) * MIB]).collect();
    let mut writes = Vec::new();
    for top in both(places) {
        let mut file = File::create_new(top.join("sequential"))?;
        let mut calls = Vec::with_capacity(count);
        let began = Instant::now();
        for part in &parts {
            let call = Instant::now();
            file.write_all(part)?;
            calls.push(call.elapsed());
        }
        file.sync_all()?;
        writes.push(Side::new(count as f64, began.elapsed(), &calls));
    }
    let mut reads = Vec::new();
    let mut scattered = Vec::new();
    for local in [true, false] {
        places.forget()?;
        let path = both(places)[usize::from(!local)].join("sequential");
        reads.push(read_through(&path, &parts)?);
        places.forget()?;
        let path = both(places)[usize::from(!local)].join("sequential");
        scattered.push(read_scattered(&path, count, sizes.random)?);
    }
    let mut again = Vec::new();
    for top in both(places) {
        let path = top.join("sequential");
        read_through(&path, &parts)?;
        again.push(read_through(&path, &parts)?);
        std::fs::remove_file(&path)?;
    }
    let two = |sides: Vec<Side>| <[Side; 2]>::try_from(sides).expect("two places");
    let figure = |name, count: usize, unit, sides: [Side; 2]| {
        let [local, mount] = sides;
        Figure::new(name, count as u64, unit, local, mount)
    };
    Ok(vec![
        figure("sequential write, fsync", count, "MiB", two(writes)),
        figure("sequential read, cold", count, "MiB", two(reads)),
        figure("sequential read, again", count, "MiB", two(again)),
        figure("random read of 4 KiB, cold", sizes.random, "call", two(scattered)),
    ])
}

/// Reads all of it, 1 MiB a call; a benchmark that reads wrong bytes measures nothing.
fn read_through(path: &Path, parts: &[&[u8]]) -> Result<Side> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; MIB];
    let mut calls = Vec::with_capacity(parts.len());
    for (number, part) in parts.iter().enumerate() {
        let began = Instant::now();
        file.read_exact(&mut buffer).with_context(|| format!("MiB {number}"))?;
        calls.push(began.elapsed());
        // Comparing is not part of the time.
        anyhow::ensure!(buffer == **part, "MiB {number} of {path:?} is not what was written");
    }
    Ok(Side::new(parts.len() as f64, calls.iter().sum(), &calls))
}

fn read_scattered(path: &Path, mib: usize, count: usize) -> Result<Side> {
    let file = File::open(path)?;
    let pages = mib * MIB / 4096;
    let mut places: Vec<usize> = (0..pages).collect();
    let (chosen, _) = places.partial_shuffle(&mut SmallRng::seed_from_u64(3), count);
    let mut buffer = vec![0; 4096];
    each(chosen, |page| file.read_exact_at(&mut buffer, (*page * 4096) as u64))
}
