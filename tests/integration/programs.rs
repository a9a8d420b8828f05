//! The programs that people run all day, on the mount; a second mount reads what they wrote.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use ministry_tests::{Cluster, Program, tree};

use crate::{MINUTE, healthy, text};

/// The source tree that the tests lie in: a repository if it was cloned, or made one.
fn repository(scratch: &Path) -> std::path::PathBuf {
    let source = scratch.join("origin");
    std::fs::create_dir(&source).unwrap();
    tree::make(&source, 800, 11);
    let git = |words: &[&str]| git(&source, words);
    git(&["init", "-q", "-b", "main"]);
    for round in 0..5 {
        std::fs::write(source.join("changes.txt"), format!("round {round}\n").repeat(200)).unwrap();
        git(&["add", "-A"]);
        git(&["commit", "-q", "-m", &format!("round {round}")]);
    }
    source
}

fn git(folder: &Path, words: &[&str]) -> String {
    Program::new("git")
        .args(["-c", "user.name=Test", "-c", "user.email=test@example.org"])
        .args(["-c", "gc.auto=0", "-c", "safe.directory=*"])
        .args(words)
        .dir(folder)
        .within(5 * MINUTE)
        .ok()
}

#[test]
fn git_clones_commits_collects_and_checks() {
    let mut cluster = Cluster::with_two_mounts();
    let origin = repository(&cluster.scratch());
    let (here, there) = (cluster.mount(0).to_owned(), cluster.mount(1).to_owned());
    // Without --no-local git makes hard links, which cannot leave the local disk anyway.
    git(&here, &["clone", "-q", "--no-local", text(&origin), "clone"]);
    let clone = here.join("clone");
    assert_eq!(git(&clone, &["status", "--porcelain"]), "");
    git(&clone, &["checkout", "-q", "-b", "work"]);
    for round in 0..3 {
        std::fs::write(clone.join("mine.txt"), format!("{round}\n")).unwrap();
        git(&clone, &["add", "-A"]);
        git(&clone, &["commit", "-q", "-m", &format!("mine {round}")]);
    }
    git(&clone, &["mv", "mine.txt", "yours.txt"]);
    git(&clone, &["commit", "-q", "-m", "renamed"]);
    git(&clone, &["gc", "-q", "--aggressive", "--prune=now"]);
    git(&clone, &["fsck", "--full", "--strict"]);

    // The other mount sees a repository in order, with the same content.
    let twin = there.join("clone");
    git(&twin, &["fsck", "--full", "--strict"]);
    assert_eq!(git(&twin, &["status", "--porcelain"]), "");
    assert_eq!(git(&twin, &["log", "--oneline"]), git(&clone, &["log", "--oneline"]));
    assert_eq!(git(&twin, &["rev-list", "--count", "HEAD"]).trim(), "9");
    // A local clone inside the mount shares objects by hard links.
    git(&there, &["clone", "-q", "clone", "second"]);
    git(&there.join("second"), &["fsck", "--full"]);
    git(&here.join("second"), &["checkout", "-q", "HEAD~4"]);
    tree::same(&here.join("second"), &there.join("second"));
    healthy(&mut cluster);
}

#[test]
fn sqlite_keeps_its_database_whole_and_both_mounts_read_it() {
    let mut cluster = Cluster::with_two_mounts();
    let sql = |mount: usize, text: &str| {
        let path = cluster.mount(mount).join("data.db");
        Program::new("sqlite3").arg(path).arg(text).within(3 * MINUTE).ok()
    };
    let journal = sql(0, "PRAGMA journal_mode=DELETE; CREATE TABLE t(id INTEGER PRIMARY KEY, v);");
    assert_eq!(journal.trim(), "delete");
    sql(0, "CREATE INDEX tv ON t(v);");
    sql(
        0,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<20000)
            INSERT INTO t SELECT i, hex(randomblob(40)) FROM n;",
    );
    // Many small transactions, each with its own journal and its own syncs, from both mounts.
    for round in 0..20 {
        sql(
            round % 2,
            &format!("INSERT INTO t(v) VALUES('round {round}'); DELETE FROM t WHERE id={round};"),
        );
    }
    sql(1, "BEGIN; UPDATE t SET v='lost'; ROLLBACK;");
    for mount in [0, 1] {
        assert_eq!(sql(mount, "PRAGMA integrity_check;").trim(), "ok");
        assert_eq!(sql(mount, "SELECT count(*) FROM t WHERE v='lost';").trim(), "0");
        assert_eq!(sql(mount, "SELECT count(*) FROM t WHERE v LIKE 'round %';").trim(), "20");
        assert_eq!(sql(mount, "SELECT count(*) FROM t;").trim(), "20001");
    }
    for mode in ["TRUNCATE", "PERSIST"] {
        let lines = format!("PRAGMA journal_mode={mode}; INSERT INTO t(v) VALUES('{mode}');");
        sql(0, &lines);
        assert_eq!(sql(1, "PRAGMA integrity_check;").trim(), "ok", "{mode}");
    }
    sql(1, "VACUUM;");
    assert_eq!(sql(0, "SELECT count(*), max(length(v)) FROM t;").trim(), "20003|80");
    let sums: Vec<u64> = [0, 1]
        .map(|mount| tree::sum(&std::fs::read(cluster.mount(mount).join("data.db")).unwrap()))
        .to_vec();
    assert_eq!(sums[0], sums[1]);
    healthy(&mut cluster);
}

/// A program of many small files, with headers and a Makefile that finds dependencies by itself.
fn c_project(folder: &Path, sources: usize) {
    std::fs::create_dir_all(folder.join("src")).unwrap();
    std::fs::create_dir_all(folder.join("include")).unwrap();
    let mut main = String::from("#include <stdio.h>\n");
    let mut calls = String::new();
    for number in 0..sources {
        let header = format!("#pragma once\nlong part_{number}(long value);\n");
        std::fs::write(folder.join(format!("include/part_{number}.h")), header).unwrap();
        let next = (number + 1) % sources;
        let source = format!(
            "#include \"part_{number}.h\"\n#include \"part_{next}.h\"\n#include <string.h>\n\
             long part_{number}(long value) {{ return value * 31 + {number}; }}\n"
        );
        std::fs::write(folder.join(format!("src/part_{number}.c")), source).unwrap();
        main.push_str(&format!("#include \"part_{number}.h\"\n"));
        calls.push_str(&format!("    value = part_{number}(value) % 1000003;\n"));
    }
    main.push_str(&format!(
        "int main(void) {{\n    long value = 1;\n{calls}    printf(\"%ld\\n\", value);\n    \
         return 0;\n}}\n"
    ));
    std::fs::write(folder.join("src/main.c"), main).unwrap();
    let makefile = "OBJECTS := $(patsubst src/%.c,build/%.o,$(wildcard src/*.c))\n\
        program: $(OBJECTS)\n\tgcc -o $@ $^\n\
        build/%.o: src/%.c | build\n\tgcc -O1 -g -MMD -Iinclude -c -o $@ $<\n\
        build:\n\tmkdir -p $@\n\
        -include $(wildcard build/*.d)\n";
    std::fs::write(folder.join("Makefile"), makefile).unwrap();
}

#[test]
fn make_builds_a_c_project_and_knows_what_is_up_to_date() {
    let mut cluster = Cluster::with_two_mounts();
    let project = cluster.mount(0).join("project");
    let twin = cluster.mount(1).join("project");
    c_project(&project, 60);
    let expected = (0..60).fold(1_i64, |value, number| (value * 31 + number) % 1_000_003);
    let make = |folder: &Path| Program::new("make").arg("-j2").dir(folder).within(5 * MINUTE).ok();
    assert_eq!(make(&project).matches("gcc -O1").count(), 61);
    assert_eq!(Program::new(project.join("program")).ok().trim(), expected.to_string());
    // The other mount sees the same times: nothing is to be done.
    assert!(make(&twin).contains("up to date"));
    assert_eq!(Program::new(twin.join("program")).ok().trim(), expected.to_string());
    // A header that the other mount changes has exactly its two users and main compiled again.
    let header = twin.join("include/part_7.h");
    let changed = std::fs::read_to_string(&header).unwrap() + "// changed\n";
    std::fs::write(&header, changed).unwrap();
    assert_eq!(make(&project).matches("gcc -O1").count(), 3);
    assert!(make(&twin).contains("up to date"));
    assert_eq!(Program::new(twin.join("program")).ok().trim(), expected.to_string());
    healthy(&mut cluster);
}

/// A tree with everything that rsync -aHX keeps.
fn decorated(folder: &Path) {
    tree::make(folder, 400, 5);
    let d0 = folder.join("d0/e0");
    std::fs::hard_link(d0.join("file-0.txt"), folder.join("hard")).unwrap();
    std::fs::hard_link(d0.join("file-0.txt"), folder.join("d0/hard")).unwrap();
    symlink("nowhere/at/all", folder.join("dangling")).unwrap();
    symlink("d0/e0", folder.join("to-folder")).unwrap();
    symlink("x".repeat(1_000), folder.join("long-link")).unwrap();
    std::fs::create_dir(folder.join("empty")).unwrap();
    std::fs::set_permissions(folder.join("empty"), PermissionsExt::from_mode(0o1777)).unwrap();
    std::fs::set_permissions(folder.join("d0"), PermissionsExt::from_mode(0o2755)).unwrap();
    std::fs::write(folder.join("\u{e4}\u{f6}\u{fc} \u{1f4c1} 'quoted' \"name\"\n"), "names")
        .unwrap();
    let script = "mkfifo pipe; mknod device c 1 3
        setfattr -n user.colour -v green d0/e0/file-1.txt
        setfattr -n user.empty d0/e0/file-2.txt
        setfattr -n user.long -v \"$(head -c 3000 /dev/zero | tr '\\0' x)\" d0/e0
        chown 1000:2000 d0/e0/file-3.txt; chown -h 1001:1001 dangling
        touch -d '1999-12-31 23:59:59.987654321 UTC' d0/e0/file-4.txt
        touch -d '2037-01-02 03:04:05.000000001 UTC' d0/e0/file-5.txt
        touch -h -d '2001-02-03 04:05:06.123456789 UTC' dangling
        touch -d '2011-11-11 11:11:11.111111111 UTC' d0/e0 empty";
    Program::script(script).dir(folder).ok();
}

#[test]
fn rsync_brings_a_tree_there_and_back_without_a_difference() {
    let mut cluster = Cluster::with_two_mounts();
    let source = cluster.scratch().join("source");
    let back = cluster.scratch().join("back");
    std::fs::create_dir(&source).unwrap();
    decorated(&source);
    let rsync = |flags: &[&str], from: &Path, to: &Path| {
        let (from, to) = (format!("{}/", text(from)), format!("{}/", text(to)));
        // By itself rsync takes times of one second for equal.
        let flags = ["-aHX", "--modify-window=-1"].iter().chain(flags);
        Program::new("rsync").args(flags).args([from, to]).within(5 * MINUTE).ok()
    };
    let (here, there) = (cluster.mount(0).join("copy"), cluster.mount(1).join("copy"));
    rsync(&[], &source, &here);
    tree::same(&source, &here);
    tree::same(&source, &there);
    rsync(&[], &there, &back);
    tree::same(&source, &back);
    // Hard links are links of one inode, not equal files.
    let inode = |path: &str| std::fs::metadata(there.join(path)).unwrap().ino();
    assert_eq!(inode("hard"), inode("d0/hard"));
    assert_eq!(inode("hard"), inode("d0/e0/file-0.txt"));
    // Compared by content, nothing is left to do, in either direction.
    for (from, to) in [(&source, &here), (&source, &there), (&there, &source)] {
        assert_eq!(rsync(&["-c", "-n", "-i", "--delete"], from, to), "", "{from:?} to {to:?}");
    }
    // Changes, through the other mount.
    std::fs::write(source.join("d0/e0/file-6.txt"), tree::bytes(99, 150_000)).unwrap();
    std::fs::remove_dir_all(source.join("d0/e3")).unwrap();
    rsync(&["--inplace", "--no-whole-file", "--delete"], &source, &there);
    tree::same(&source, &here);
    healthy(&mut cluster);
}

#[test]
fn tar_unpacks_and_packs_five_thousand_files() {
    let mut cluster = Cluster::with_two_mounts();
    let source = cluster.scratch().join("tree");
    std::fs::create_dir(&source).unwrap();
    tree::make(&source, 5_000, 3);
    let archive = cluster.scratch().join("tree.tar");
    let tar = |words: &[&str], folder: &Path| {
        Program::new("tar").args(words).dir(folder).within(10 * MINUTE).ok()
    };
    let format = "--format=posix";
    tar(&["-cf", text(&archive), format, "tree"], &cluster.scratch());
    let began = std::time::Instant::now();
    tar(&["-xpf", text(&archive)], cluster.mount(0));
    println!("5,000 files unpacked in {:.1} s", began.elapsed().as_secs_f64());
    tree::same(&source, &cluster.mount(1).join("tree"));
    // Out again by way of the other mount, into an archive on the mount itself.
    tar(&["-cf", "back.tar", format, "tree"], cluster.mount(1));
    let differences = tar(&["-df", "back.tar"], cluster.mount(0));
    assert_eq!(differences, "");
    let back = cluster.scratch().join("back");
    std::fs::create_dir(&back).unwrap();
    tar(&["-xpf", text(&cluster.mount(0).join("back.tar"))], &back);
    tree::same(&source, &back.join("tree"));
    let began = std::time::Instant::now();
    std::fs::remove_dir_all(cluster.mount(1).join("tree")).unwrap();
    println!("removed in {:.1} s", began.elapsed().as_secs_f64());
    assert!(!cluster.mount(0).join("tree").exists());
    healthy(&mut cluster);
}
