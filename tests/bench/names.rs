//! Names, and small files with a sync each.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

use crate::figures::Figure;
use crate::measures::{Sizes, at_once, each, figures};
use crate::places::Places;

const CALLERS: usize = 8;

fn create(path: &PathBuf) -> std::io::Result<()> {
    File::create_new(path).map(drop)
}

/// Everything that is one change or one question, by one caller in one folder.
pub fn one_by_one(places: &mut Places, sizes: &Sizes) -> Result<Vec<Figure>> {
    let mut sides = Vec::new();
    for top in places.all() {
        let folder = top.join("names");
        std::fs::create_dir(&folder)?;
        let names = |word: &str| -> Vec<PathBuf> {
            (0..sizes.names).map(|number| folder.join(format!("{word}-{number}"))).collect()
        };
        let paths = names("file");
        let mut shuffled: Vec<(PathBuf, PathBuf)> =
            paths.iter().cloned().zip(names("moved")).collect();
        shuffled.shuffle(&mut SmallRng::seed_from_u64(1));
        let create = each(&paths, create)?;
        let stat = each(&shuffled, |(path, _)| std::fs::metadata(path).map(drop))?;
        let rename = each(&shuffled, |(path, moved)| std::fs::rename(path, moved))?;
        let unlink = each(&shuffled, |(_, moved)| std::fs::remove_file(moved))?;
        std::fs::remove_dir(&folder)?;
        sides.push([create, stat, rename, unlink]);
    }
    let titles = ["create, empty", "stat", "rename", "unlink"];
    let mut figures = figures(titles.map(|name| (name, sizes.names, "file")), sides);
    let puts = places.etcd(1, sizes.names)?;
    let create = figures.remove(0).with_etcd(puts);
    figures.insert(0, create);
    Ok(figures)
}

/// Lists of paths for eight callers, each in a folder of its own.
fn lists(top: &Path, count: usize) -> Result<Vec<Vec<PathBuf>>> {
    let mut lists = Vec::new();
    for caller in 0..CALLERS {
        let folder = top.join(caller.to_string());
        std::fs::create_dir_all(&folder)?;
        lists.push((0..count / CALLERS).map(|file| folder.join(file.to_string())).collect());
    }
    Ok(lists)
}

/// Creating and looking by eight callers.
pub fn by_eight(places: &mut Places, sizes: &Sizes) -> Result<Vec<Figure>> {
    let mut sides = Vec::new();
    for top in places.all() {
        let top = top.join("by-eight");
        let lists = lists(&top, sizes.names_by_eight)?;
        let create = at_once(&lists, create)?;
        let stat = at_once(&lists, |path| std::fs::metadata(path).map(drop))?;
        let unlink = at_once(&lists, |path| std::fs::remove_file(path))?;
        std::fs::remove_dir_all(&top)?;
        sides.push([create, stat, unlink]);
    }
    let titles = ["create, empty, by 8", "stat, by 8", "unlink, by 8"];
    let mut figures = figures(titles.map(|name| (name, sizes.names_by_eight, "file")), sides);
    let puts = places.etcd(8, sizes.names_by_eight)?;
    let create = figures.remove(0).with_etcd(puts);
    figures.insert(0, create);
    Ok(figures)
}

/// A file of 4 KiB that is on stable storage.
fn synced_file(path: &PathBuf) -> std::io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(&[b'm'; 4096])?;
    file.sync_all()
}

/// By one caller.
pub fn synced_by_one(places: &mut Places, sizes: &Sizes) -> Result<Vec<Figure>> {
    let mut sides = Vec::new();
    for top in places.all() {
        let folder = top.join("synced");
        std::fs::create_dir(&folder)?;
        let paths: Vec<_> =
            (0..sizes.synced).map(|number| folder.join(number.to_string())).collect();
        sides.push([each(&paths, synced_file)?]);
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(figures([("create 4 KiB, fsync", sizes.synced, "file")], sides))
}

/// By eight, each in a folder of its own.
pub fn synced_by_eight(places: &mut Places, sizes: &Sizes) -> Result<Vec<Figure>> {
    let mut sides = Vec::new();
    for top in places.all() {
        let top = top.join("synced-by-eight");
        let lists = lists(&top, sizes.synced_by_eight)?;
        sides.push([at_once(&lists, synced_file)?]);
        std::fs::remove_dir_all(&top)?;
    }
    Ok(figures([("create 4 KiB, fsync, by 8", sizes.synced_by_eight, "file")], sides))
}
