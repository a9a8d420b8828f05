//! A tree of small files, and a folder of very many.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ministry_tests::{Program, tree};

use crate::figures::{Figure, Side};
use crate::measures::{Sizes, figures, once};
use crate::places::Places;

/// Callers that fill the long folder of the cluster.
const CALLERS: usize = 64;

/// Unpacked by `tar`, synced, removed.
pub fn unpack(places: &mut Places, sizes: &Sizes) -> Result<Vec<Figure>> {
    let scratch = places.cluster.scratch();
    let (source, archive) = (scratch.join("source"), scratch.join("source.tar"));
    tree::make(&source, sizes.tree, 5);
    Program::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&source).arg(".").ok();
    std::fs::remove_dir_all(&source)?;
    let mut sides = Vec::new();
    for top in places.all() {
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
        let removed = once(sizes.tree, || Ok(std::fs::remove_dir_all(&folder)?))?;
        sides.push([unpacked, synced, removed]);
    }
    std::fs::remove_file(&archive)?;
    let titles = ["unpack a tree", "unpack a tree, sync", "remove a tree"];
    Ok(figures(titles.map(|name| (name, sizes.tree, "file")), sides))
}

/// A listing, and one with the attributes of each entry, as `ls -l`.
pub fn list(places: &mut Places, sizes: &Sizes) -> Result<Vec<Figure>> {
    let count = sizes.listed;
    for top in [places.local().to_owned(), places.below()] {
        std::fs::create_dir(top.join("long"))?;
        for number in 0..count {
            File::create_new(top.join(format!("long/file-{number}")))?;
        }
    }
    // The cluster's by the library: through the mount it would take minutes.
    places.library()?.fill("long", count, CALLERS)?;
    let mut sides = Vec::new();
    for top in places.all() {
        let folder = top.join("long");
        let names = once(count, || listed(&folder, count, false))?;
        let attributes = once(count, || listed(&folder, count, true))?;
        sides.push([names, attributes]);
    }
    for top in [places.local().to_owned(), places.below()] {
        std::fs::remove_dir_all(top.join("long"))?;
    }
    places.library()?.empty("long", count, CALLERS)?;
    let titles = ["list 100,000", "list 100,000 with attributes"];
    Ok(figures(titles.map(|name| (name, count, "entry")), sides))
}

fn listed(folder: &Path, expected: usize, attributes: bool) -> Result<()> {
    let mut count = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if attributes {
            entry.metadata()?;
        }
        count += 1;
    }
    ensure!(count == expected, "{count} of {expected} names are listed");
    Ok(())
}
