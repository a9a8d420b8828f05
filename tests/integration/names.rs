//! Names, large folders, many processes at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ministry_tests::{Cluster, Program};

use crate::{MINUTE, errno, healthy};

/// Names in the large folder that stay.
const STAYING: usize = 20_000;

fn listed(folder: &Path) -> Vec<OsString> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

#[test]
fn names_of_any_bytes_up_to_255_are_kept() {
    let mut cluster = Cluster::with_two_mounts();
    let (here, there) = (cluster.mount(0), cluster.mount(1));
    let mut names: BTreeSet<OsString> = BTreeSet::new();
    names.insert("n".repeat(255).into());
    names.insert("\u{e4}".repeat(127).into());
    for byte in (1..=255_u8).filter(|byte| ![b'/', b'.'].contains(byte)) {
        names.insert(OsStr::from_bytes(&[byte]).to_owned());
        names.insert(OsStr::from_bytes(&[b'x', byte, b'y']).to_owned());
    }
    for name in ["...", ". .", " ", "-rf", "a\nb", "\\", "*", ".hidden", "COM1", "A", "a"] {
        names.insert(name.into());
    }
    for name in &names {
        File::create(here.join(name)).unwrap_or_else(|error| panic!("{name:?}: {error}"));
    }
    let found: Vec<OsString> = listed(there);
    assert_eq!(found.len(), names.len());
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), names);
    let long = "n".repeat(256);
    assert_eq!(errno(File::create(here.join(&long))), libc::ENAMETOOLONG);
    assert_eq!(errno(std::fs::metadata(here.join(&long))), libc::ENAMETOOLONG);
    assert_eq!(errno(std::fs::create_dir(here.join(&long))), libc::ENAMETOOLONG);
    let renamed = std::fs::rename(here.join("A"), here.join(&long));
    assert_eq!(errno(renamed), libc::ENAMETOOLONG);
    for name in &names {
        std::fs::remove_file(there.join(name)).unwrap_or_else(|error| panic!("{name:?}: {error}"));
    }
    assert_eq!(listed(here).len(), 0);
    healthy(&mut cluster);
}

#[test]
fn links_and_paths_as_long_as_the_kernel_allows() {
    let cluster = Cluster::with_two_mounts();
    let (here, there) = (cluster.mount(0), cluster.mount(1));
    let target = "t".repeat(4_095);
    std::os::unix::fs::symlink(&target, here.join("long")).unwrap();
    assert_eq!(std::fs::read_link(there.join("long")).unwrap(), Path::new(&target));
    assert_eq!(std::fs::symlink_metadata(there.join("long")).unwrap().len(), 4_095);
    let mut deep = PathBuf::new();
    for number in 0..200 {
        deep.push(format!("level-{number}"));
    }
    std::fs::create_dir_all(here.join(&deep)).unwrap();
    std::fs::write(there.join(&deep).join("bottom"), "here").unwrap();
    assert_eq!(std::fs::read(here.join(&deep).join("bottom")).unwrap(), b"here");
    // A folder never gets into itself.
    let loops = std::fs::rename(here.join("level-0"), here.join("level-0/level-1/level-2/in"));
    assert_eq!(errno(loops), libc::EINVAL);
    std::os::unix::fs::symlink("circle", here.join("circle")).unwrap();
    assert_eq!(errno(File::open(there.join("circle"))), libc::ELOOP);
    std::fs::remove_dir_all(there.join("level-0")).unwrap();
    assert!(!here.join("level-0").exists());
}

/// Creates and removes names that come and go, until told to stop.
fn churn(folder: &Path, who: usize, stop: &AtomicBool) {
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        let path = folder.join(format!("passing-{who}-{round}"));
        File::create(&path).unwrap();
        if round % 3 == 0 {
            let renamed = folder.join(format!("renamed-{who}-{round}"));
            std::fs::rename(&path, &renamed).unwrap();
            std::fs::remove_file(renamed).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
        round += 1;
    }
}

#[test]
fn a_folder_of_twenty_thousand_lists_each_name_once_while_it_changes() {
    let mut cluster = Cluster::with_two_mounts();
    let folders = [0, 1].map(|mount| cluster.mount(mount).join("many"));
    std::fs::create_dir(&folders[0]).unwrap();
    let next = AtomicUsize::new(0);
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let (folder, next) = (&folders[writer % 2], &next);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= STAYING {
                        return;
                    }
                    File::create_new(folder.join(format!("stays-{number:05}"))).unwrap();
                }
            });
        }
    });
    println!("{STAYING} files created in {:.1} s", began.elapsed().as_secs_f64());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (who, folder) in folders.iter().enumerate() {
            let stop = &stop;
            scope.spawn(move || churn(folder, who, stop));
        }
        let lists = std::panic::catch_unwind(|| {
            for round in 0..6 {
                list_once(&folders[round % 2]);
            }
        });
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = lists {
            std::panic::resume_unwind(panic);
        }
    });
    assert_eq!(listed(&folders[1]).len(), STAYING);
    let began = std::time::Instant::now();
    Program::new("rm").arg("-r").arg(&folders[0]).within(10 * MINUTE).ok();
    println!("removed in {:.1} s", began.elapsed().as_secs_f64());
    assert!(!folders[1].exists());
    healthy(&mut cluster);
}

fn list_once(folder: &Path) {
    let mut seen: BTreeMap<OsString, usize> = BTreeMap::new();
    for name in listed(folder) {
        *seen.entry(name).or_default() += 1;
    }
    let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).take(5).collect();
    assert!(twice.is_empty(), "listed more than once: {twice:?}");
    let missing: Vec<_> = (0..STAYING)
        .map(|number| format!("stays-{number:05}"))
        .filter(|name| !seen.contains_key(OsStr::new(name)))
        .take(5)
        .collect();
    assert!(missing.is_empty(), "not listed: {missing:?}");
}

#[test]
fn many_processes_at_once_get_what_each_of_them_asked_for() {
    let mut cluster = Cluster::with_two_mounts();
    let script = "me=$0
        mkdir $me; cd $me
        for i in $(seq 30); do
            echo \"$me $i\" > f$i; cp f$i g$i; mv g$i h$i; ln h$i l$i; cat f$i h$i l$i >> all
        done
        rm l*; [ $(ls | wc -l) = 61 ]; [ $(wc -l < all) = 90 ]; grep -c \"^$me \" all >/dev/null
        find . -name 'h*' -print0 | xargs -0 rm; cd ..; echo \"$me\" >> roll";
    std::thread::scope(|scope| {
        for who in 0..16_usize {
            let folder = cluster.mount(who % 2);
            let program = Program::script(script).arg(format!("p{who}")).dir(folder);
            scope.spawn(move || program.within(5 * MINUTE).ok());
        }
    });
    let roll = std::fs::read_to_string(cluster.mount(0).join("roll")).unwrap();
    let names: BTreeSet<&str> = roll.lines().collect();
    assert_eq!((roll.lines().count(), names.len()), (16, 16), "{roll}");
    healthy(&mut cluster);
}

#[test]
fn one_file_written_by_many_threads_in_separate_parts_is_whole() {
    let mut cluster = Cluster::with_two_mounts();
    const PART: usize = 10_000;
    let path = |mount: usize| cluster.mount(mount).join("parts");
    File::create(path(0)).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..12_usize {
            let path = path(writer % 2);
            scope.spawn(move || {
                let file = File::options().write(true).open(path).unwrap();
                for piece in 0..10 {
                    let at = writer * PART + piece * PART / 10;
                    file.write_all_at(&[writer as u8 + 1; PART / 10], at as u64).unwrap();
                }
            });
        }
    });
    for mount in [0, 1] {
        let content = std::fs::read(path(mount)).unwrap();
        assert_eq!(content.len(), 12 * PART);
        for (writer, part) in content.chunks(PART).enumerate() {
            let wrong = part.iter().filter(|byte| **byte != writer as u8 + 1).count();
            assert_eq!(wrong, 0, "mount {mount}: part of writer {writer}");
        }
    }
    assert_eq!(std::fs::metadata(path(0)).unwrap().nlink(), 1);
    healthy(&mut cluster);
}
