//! Several ministries: subtrees with a government of their own, and what goes between them.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ministry_tests::{Cluster, Program, tree};

use crate::{MINUTE, errno, healthy, text};

fn with_two_subtrees() -> Cluster {
    let cluster = Cluster::with_two_mounts();
    for name in ["one", "two"] {
        std::fs::create_dir(cluster.mount(0).join(name)).unwrap();
        let made = cluster.create_ministry(&format!("/{name}"));
        assert!(made.status.success(), "{made}");
    }
    cluster
}

#[test]
fn a_subtree_is_governed_by_its_own_ministry_and_used_like_any_other() {
    let mut cluster = with_two_subtrees();
    let told = cluster.json(&["ministries"]);
    let paths: Vec<&str> = told["ministries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            assert_eq!(one["serving"], true, "{one}");
            assert_eq!(one["clerks"].as_array().unwrap().len(), 2, "{one}");
            one["path"].as_str().unwrap()
        })
        .collect();
    assert_eq!(paths, ["/", "/one", "/two"]);
    // A whole tree in each, at the same time, through different mounts.
    let source = cluster.scratch().join("source");
    std::fs::create_dir(&source).unwrap();
    tree::make(&source, 300, 9);
    std::thread::scope(|scope| {
        for (mount, place) in [(0, "one"), (1, "two"), (0, "three")] {
            let (source, to) = (&source, cluster.mount(mount).join(place).join("copy"));
            scope.spawn(move || {
                std::fs::create_dir_all(to.parent().unwrap()).unwrap();
                Program::new("cp").args(["-a", text(source), text(&to)]).within(5 * MINUTE).ok()
            });
        }
    });
    for place in ["one", "two", "three"] {
        tree::same(&source, &cluster.mount(0).join(place).join("copy"));
        tree::same(&source, &cluster.mount(1).join(place).join("copy"));
        // Deep below, it is still the ministry of the subtree.
        let path = cluster.mount(0).join(place).join("copy/d0/e0/file-0.txt");
        let told = cluster.json(&["where", text(&path)]);
        let expected = if place == "three" { "/".to_owned() } else { format!("/{place}") };
        assert_eq!(told["ministry"]["path"], expected.as_str(), "{place}");
    }
    let found = Program::new("find").args([text(cluster.mount(1)), "-type", "f"]).ok();
    assert_eq!(found.lines().count(), 900);
    // Inside one ministry everything is allowed.
    let one = cluster.mount(1).join("one");
    std::fs::rename(one.join("copy/d0"), one.join("moved")).unwrap();
    std::fs::hard_link(one.join("moved/e0/file-0.txt"), one.join("linked")).unwrap();
    assert_eq!(std::fs::metadata(cluster.mount(0).join("one/linked")).unwrap().nlink(), 2);
    healthy(&mut cluster);
}

#[test]
fn renames_and_links_between_ministries_answer_exdev_and_mv_copies() {
    let mut cluster = with_two_subtrees();
    let top = cluster.mount(0);
    std::fs::write(top.join("plain"), "plain").unwrap();
    std::fs::write(top.join("one/file"), tree::bytes(1, 100_000)).unwrap();
    std::fs::create_dir(top.join("one/folder")).unwrap();
    let rename = |from: &str, to: &str| errno(std::fs::rename(top.join(from), top.join(to)));
    let link = |from: &str, to: &str| errno(std::fs::hard_link(top.join(from), top.join(to)));
    for (from, to) in [("one/file", "two/file"), ("one/file", "file"), ("plain", "one/plain")] {
        assert_eq!(rename(from, to), libc::EXDEV, "{from} to {to}");
        assert_eq!(link(from, to), libc::EXDEV, "{from} to {to}");
    }
    assert_eq!(rename("one/folder", "two/folder"), libc::EXDEV);
    assert_eq!(rename("one/folder", "folder"), libc::EXDEV);
    let content = std::fs::read(top.join("one/file")).unwrap();
    // The program falls back to copying, as between any two file systems.
    Program::new("mv").args(["one/file", "one/folder", "two/"]).dir(top).ok();
    let there = cluster.mount(1);
    assert!(std::fs::read(there.join("two/file")).unwrap() == content);
    assert!(there.join("two/folder").is_dir());
    assert!(!there.join("one/file").exists() && !there.join("one/folder").exists());
    Program::new("mv").args(["plain", "two/plain"]).dir(there).ok();
    assert_eq!(std::fs::read(top.join("two/plain")).unwrap(), b"plain");
    healthy(&mut cluster);
}

#[test]
fn the_root_of_a_ministry_stays_where_it_is() {
    let mut cluster = with_two_subtrees();
    let top = cluster.mount(0);
    std::fs::create_dir(top.join("empty")).unwrap();
    assert_eq!(errno(std::fs::remove_dir(top.join("one"))), libc::EBUSY);
    for (from, to) in [("one", "other"), ("one", "empty"), ("empty", "one")] {
        let renamed = std::fs::rename(top.join(from), top.join(to));
        assert_eq!(errno(renamed), libc::EBUSY, "{from} to {to}");
    }
    let into = std::fs::rename(top.join("one"), top.join("two/one"));
    assert!([libc::EXDEV, libc::EBUSY].contains(&errno(into)));
    assert_eq!(errno(std::fs::rename(top.join("one"), top.join("one/in"))), libc::EINVAL);
    assert_eq!(errno(std::fs::remove_file(top.join("one"))), libc::EISDIR);
    // rm gets as far as the root, and no further.
    File::create(top.join("one/f")).unwrap();
    Program::new("rm").args(["-rf", "one"]).dir(top).fails();
    assert_eq!(std::fs::read_dir(cluster.mount(1).join("one")).unwrap().count(), 0);
    // Its own attributes can be changed as those of any folder.
    Program::script("chmod 700 one; chown 1000:1000 one; touch -d 2001-02-03 one").dir(top).ok();
    let is = std::fs::metadata(cluster.mount(1).join("one")).unwrap();
    assert_eq!((is.mode() & 0o7777, is.uid()), (0o700, 1000));
    let denied = Program::new("ls").arg("one").dir(top).user(1001, 1001, &[]).fails();
    assert!(denied.err.contains("Permission denied"), "{denied}");
    Program::script("touch one/mine; ls one").dir(top).user(1000, 1000, &[]).ok();
    healthy(&mut cluster);
}

#[test]
fn only_an_empty_folder_gets_a_ministry_and_each_only_once() {
    let cluster = with_two_subtrees();
    let top = cluster.mount(0);
    std::fs::write(top.join("file"), "").unwrap();
    let refused = |subtree: &str, code: i32, why: &str| {
        let made = cluster.ctl(&["ministry", "create", "--subtree", subtree]).run();
        assert_eq!(made.status.code(), Some(code), "{made}");
        assert!(made.err.contains(why), "{made}");
    };
    refused("/", 2, "root");
    refused("relative", 2, "path");
    refused("/nowhere", 1, "no such file");
    refused("/file", 1, "only a directory");
    refused("/one", 1, "already");
    // In a ministry, another one.
    std::fs::create_dir(top.join("one/inner")).unwrap();
    let made = cluster.create_ministry("/one/inner");
    assert!(made.status.success(), "{made}");
    std::fs::write(top.join("one/inner/f"), "inner").unwrap();
    assert_eq!(std::fs::read(cluster.mount(1).join("one/inner/f")).unwrap(), b"inner");
    let told = cluster.json(&["where", "--fs-path", "/one/inner/f"]);
    assert_eq!(told["ministry"]["path"], "/one/inner");
    // A folder with something in it: refused, nothing is changed, and the reason is on record.
    std::fs::create_dir(top.join("full")).unwrap();
    std::fs::write(top.join("full/f"), "").unwrap();
    let made = cluster
        .ctl(&["--timeout", "20s", "ministry", "create", "--subtree", "/full", "--wait"])
        .run();
    assert!(!made.status.success(), "{made}");
    assert!(Path::new(&top.join("full/f")).exists());
    let events = cluster.ctl(&["--json", "events"]).ok();
    assert!(events.contains("directory not empty"), "the reason is among the events");
    assert_eq!(cluster.json(&["ministries"])["ministries"].as_array().unwrap().len(), 4);
}

#[test]
fn ministries_come_back_with_all_they_hold_after_everything_was_stopped() {
    let mut cluster = with_two_subtrees();
    for place in ["", "one", "two"] {
        let folder = cluster.mount(0).join(place).join("kept");
        std::fs::create_dir(&folder).unwrap();
        tree::make(&folder, 60, place.len() as u64);
    }
    let read = |cluster: &Cluster| {
        ["kept", "one/kept", "two/kept"].map(|place| tree::read(&cluster.mount(1).join(place)))
    };
    let before = read(&cluster);
    for node in 0..cluster.nodes() {
        cluster.stop_node(node);
    }
    cluster.start_all();
    // The mounts go on as if nothing had been.
    let after = read(&cluster);
    for (before, after) in before.iter().zip(&after) {
        tree::compare(before, after);
    }
    std::fs::write(cluster.mount(0).join("two/new"), "new").unwrap();
    assert_eq!(std::fs::read(cluster.mount(1).join("two/new")).unwrap(), b"new");
    healthy(&mut cluster);
}
