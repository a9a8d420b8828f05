//! SQLite with several writers: each a process, with a journal and with a write-ahead log.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ministry_tests::process::Spawner;
use ministry_tests::{Cluster, Program, wait};

use crate::{MINUTE, healthy, knob, text};

/// Whether locks hold between mounts: without them two mounts must not write one data base.
const LOCKS_BETWEEN_MOUNTS: bool = true;

const WRITERS: usize = 4;

/// Transactions of each writer: every one moves between two tables, so that half a one shows.
fn transactions() -> usize {
    knob("MINISTRY_SQLITE_TRANSACTIONS", 40) as usize
}

fn sql(database: &Path, text: &str) -> String {
    Program::new("sqlite3").arg(database).arg(text).within(5 * MINUTE).ok()
}

fn create(database: &Path, mode: &str) {
    let answer = sql(
        database,
        &format!(
            "PRAGMA journal_mode={mode};
             CREATE TABLE entry(writer INTEGER, number INTEGER, v, PRIMARY KEY(writer, number));
             CREATE TABLE total(writer INTEGER PRIMARY KEY, count INTEGER);
             CREATE INDEX by_value ON entry(v);
             INSERT INTO total VALUES (0,0),(1,0),(2,0),(3,0),(4,0);"
        ),
    );
    assert_eq!(answer.trim(), mode);
}

/// What one writer does, one line a transaction; each prints its number once it is committed.
/// It waits for the others as long as it takes.
fn script(folder: &Path, writer: usize, count: usize) -> PathBuf {
    let path = folder.join(format!("writer-{writer}.sql"));
    let mut lines = String::from(".bail on\n.timeout 240000\n");
    for number in 1..=count {
        lines.push_str(&format!(
            "BEGIN IMMEDIATE; INSERT INTO entry VALUES({writer},{number},hex(randomblob(100))); \
             UPDATE total SET count=count+1 WHERE writer={writer}; COMMIT;\nSELECT {number};\n"
        ));
    }
    std::fs::write(&path, lines).unwrap();
    path
}

/// All writers at once, writer `n` on the data base `databases[n % …]`.
fn write_at_once(databases: &[PathBuf], scratch: &Path) {
    let count = transactions();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let database = &databases[writer % databases.len()];
            let script = script(scratch, writer, count);
            scope.spawn(move || {
                let read = format!(".read '{}'", text(&script));
                let program = Program::new("sqlite3").arg(database).arg(read);
                let out = program.within(10 * MINUTE).ok();
                assert_eq!(out.lines().count(), count, "{out}");
            });
        }
    });
    println!(
        "{WRITERS} writers, {count} transactions each: {:.1} s",
        began.elapsed().as_secs_f64()
    );
    for database in databases {
        assert_eq!(sql(database, "PRAGMA integrity_check;").trim(), "ok");
        for writer in 0..WRITERS {
            let all = format!(
                "SELECT count(*), max(number), (SELECT count FROM total WHERE writer={writer}) \
                 FROM entry WHERE writer={writer};"
            );
            assert_eq!(sql(database, &all).trim(), format!("{count}|{count}|{count}"));
        }
    }
}

/// Kills a writer in the middle; what it had printed is there, and nothing is half done.
fn kill_a_writer(database: &Path, scratch: &Path) {
    let script = script(scratch, WRITERS, 100_000);
    let out = scratch.join("killed.out");
    let _ = std::fs::remove_file(&out);
    let mut command = Command::new("stdbuf");
    command.args(["-oL", "sqlite3"]).arg(database).arg(format!(".read '{}'", text(&script)));
    let spawner = Spawner::new();
    let mut process = spawner.start(command, &out);
    let printed = || std::fs::read_to_string(&out).unwrap_or_default();
    wait::until_true(2 * MINUTE, "the writer has committed some", || {
        assert!(process.ended().is_none(), "{}", printed());
        printed().lines().count() > 20
    });
    // Somewhere inside of a transaction.
    std::thread::sleep(Duration::from_millis(13));
    process.kill();
    let printed = printed();
    let told = printed.lines().filter_map(|line| line.parse::<u64>().ok()).max().unwrap();
    assert_eq!(sql(database, "PRAGMA integrity_check;").trim(), "ok");
    let query = "SELECT count(*), max(number), (SELECT count FROM total WHERE writer=4) \
                 FROM entry WHERE writer=4;";
    let found: Vec<u64> =
        sql(database, query).trim().split('|').map(|word| word.parse().unwrap()).collect();
    println!("killed after transaction {told}; {found:?}");
    assert!(found.iter().all(|one| one == &found[0]), "{found:?}: half a transaction");
    assert!(found[0] >= told, "{told} was acknowledged, {} are there", found[0]);
}

fn one_mount(mode: &str) {
    let mut cluster = Cluster::start();
    let database = cluster.mount(0).join("data.db");
    create(&database, mode);
    write_at_once(std::slice::from_ref(&database), &cluster.scratch());
    kill_a_writer(&database, &cluster.scratch());
    healthy(&mut cluster);
}

#[test]
fn sqlite_with_a_journal_and_several_writers_loses_no_row() {
    one_mount("delete");
}

#[test]
fn sqlite_with_a_write_ahead_log_and_several_writers_loses_no_row() {
    one_mount("wal");
}

#[test]
fn sqlite_with_a_journal_and_writers_on_two_mounts_loses_no_row() {
    if !LOCKS_BETWEEN_MOUNTS {
        return;
    }
    let mut cluster = Cluster::with_two_mounts();
    let databases = [0, 1].map(|mount| cluster.mount(mount).join("data.db"));
    create(&databases[0], "delete");
    write_at_once(&databases, &cluster.scratch());
    kill_a_writer(&databases[1], &cluster.scratch());
    assert_eq!(sql(&databases[0], "PRAGMA integrity_check;").trim(), "ok");
    healthy(&mut cluster);
}
