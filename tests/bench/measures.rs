//! What is measured, in which order, and the ways of timing.

use std::io;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::figures::{Figure, Side};
use crate::places::Places;
use crate::{commits, content, names, trees};

/// One MiB.
pub const MIB: usize = 1 << 20;

/// How much of everything.
pub struct Sizes {
    /// Files created, looked at, renamed, removed.
    pub names: usize,
    /// Files created by eight callers.
    pub names_by_eight: usize,
    /// Files written with a sync each.
    pub synced: usize,
    /// The same by eight callers.
    pub synced_by_eight: usize,
    /// Files of 4 KiB.
    pub small: usize,
    /// Files of the tree.
    pub tree: usize,
    /// Entries of the long listing; 64 callers make them.
    pub listed: usize,
    /// MiB written and read in order.
    pub sequential_mib: usize,
    /// Single pages read and written.
    pub random: usize,
    /// MiB that each of two mounts writes.
    pub shared_mib: usize,
    /// Changes by 64 callers of the library.
    pub library: usize,
}

impl Sizes {
    /// Figures that mean something.
    pub const FULL: Sizes = Sizes {
        names: 5_000,
        names_by_eight: 8_000,
        synced: 1_000,
        synced_by_eight: 4_000,
        small: 2_000,
        tree: 5_000,
        listed: 100_032,
        sequential_mib: 1_024,
        random: 1_000,
        shared_mib: 256,
        library: 20_032,
    };
    /// Seconds.
    pub const QUICK: Sizes = Sizes {
        names: 200,
        names_by_eight: 240,
        synced: 50,
        synced_by_eight: 80,
        small: 50,
        tree: 200,
        listed: 1_024,
        sequential_mib: 32,
        random: 50,
        shared_mib: 8,
        library: 640,
    };
}

/// One measure, of one or more figures.
pub struct Measure {
    /// What `--only` chooses by.
    pub name: &'static str,
    /// Runs it at all places.
    pub run: fn(&mut Places, &Sizes) -> Result<Vec<Figure>>,
}

/// All of them, in the order in which they run.
pub const ALL: [Measure; 10] = [
    Measure { name: "names: create, stat, rename, unlink", run: names::one_by_one },
    Measure { name: "names by eight callers", run: names::by_eight },
    Measure { name: "small: write and read 4 KiB", run: content::small },
    Measure { name: "fsynced create by one", run: names::synced_by_one },
    Measure { name: "fsynced create by eight", run: names::synced_by_eight },
    Measure { name: "unpack and remove a tree", run: trees::unpack },
    Measure { name: "list a large folder", run: trees::list },
    Measure { name: "sequential and random", run: content::large },
    Measure { name: "two mounts write", run: content::two_writers },
    Measure { name: "library and etcd", run: commits::library },
];

/// Times of calls that follow each other.
pub fn each<T>(items: &[T], mut call: impl FnMut(&T) -> io::Result<()>) -> Result<Side> {
    let mut calls = Vec::with_capacity(items.len());
    let began = Instant::now();
    for item in items {
        let call_began = Instant::now();
        call(item)?;
        calls.push(call_began.elapsed());
    }
    Ok(Side::new(items.len() as f64, began.elapsed(), &calls))
}

/// Times of calls by several callers at once, each with a list of its own.
pub fn at_once<T: Sync>(
    lists: &[Vec<T>],
    call: impl Fn(&T) -> io::Result<()> + Sync,
) -> Result<Side> {
    let began = Instant::now();
    let calls: Vec<Result<Vec<Duration>>> = std::thread::scope(|scope| {
        let threads = lists.iter().map(|list| {
            let call = &call;
            scope.spawn(move || {
                let timed = |item| {
                    let began = Instant::now();
                    call(item).map(|()| began.elapsed())
                };
                Ok(list.iter().map(timed).collect::<io::Result<Vec<Duration>>>()?)
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|one| one.join().expect("a caller does not panic")).collect()
    });
    let all = began.elapsed();
    let calls: Vec<Vec<Duration>> = calls.into_iter().collect::<Result<_>>()?;
    let calls = calls.concat();
    Ok(Side::new(calls.len() as f64, all, &calls))
}

/// One time of everything.
pub fn once(units: usize, call: impl FnOnce() -> Result<()>) -> Result<Side> {
    let began = Instant::now();
    call()?;
    Ok(Side::new(units as f64, began.elapsed(), &[]))
}

/// From one list of figures a place to one list of places a figure.
pub fn figures<const N: usize>(
    titles: [(&'static str, usize, &'static str); N],
    sides: Vec<[Side; N]>,
) -> Vec<Figure> {
    let mut of_title: Vec<Vec<Side>> = vec![Vec::new(); N];
    for place in sides {
        for (number, side) in place.into_iter().enumerate() {
            of_title[number].push(side);
        }
    }
    let figure = |((name, count, unit), sides): ((_, _, _), Vec<Side>)| {
        Figure::of(name, count, unit, sides.try_into().expect("three places"))
    };
    titles.into_iter().zip(of_title).map(figure).collect()
}
