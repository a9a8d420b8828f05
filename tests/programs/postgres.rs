//! PostgreSQL: founding, a minute of pgbench, `kill -9` under load, recovery.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ministry_tests::{Cluster, Program};

use crate::postgres_server::Server;
use crate::{MINUTE, healthy, knob};

/// Callers that count their own commits while the server is killed.
const WRITERS: u64 = 4;
/// Numbers of one writer do not reach those of the next.
const STRIDE: u64 = 1 << 32;

#[test]
fn postgres_serves_pgbench_and_its_books_balance() {
    let mut cluster = Cluster::start();
    let (mut server, _) = founded(&cluster);
    let seconds = knob("MINISTRY_PGBENCH_SECONDS", 60);
    let result = pgbench(&server, seconds).ok();
    let line = |word| result.lines().find(|line| line.starts_with(word)).unwrap_or_default();
    println!("pgbench: {}, {}", line("tps"), line("latency average"));
    assert!(result.contains("number of failed transactions: 0"), "{result}");
    let done = line("number of transactions actually processed").rsplit(' ').next();
    let done: u64 = done.and_then(|word| word.parse().ok()).expect("pgbench counts");
    assert_eq!(balance(&server), done, "rows of history, against what pgbench was told");
    whole(&mut server);
    healthy(&mut cluster);
}

#[test]
fn postgres_killed_under_load_keeps_every_acknowledged_commit() {
    let mut cluster = Cluster::start();
    let (mut server, record) = founded(&cluster);
    server.connect().unwrap().run("CREATE TABLE ledger (n bigint PRIMARY KEY, v text)").unwrap();
    let mut next = [1; WRITERS as usize];
    for round in 0..knob("MINISTRY_ROUNDS", 2) {
        let before: u64 = next.iter().sum();
        let killed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let load = pgbench(&server, 600);
            scope.spawn(move || load.run());
            for (writer, next) in next.iter_mut().enumerate() {
                let mut connection = server.connect().unwrap();
                let record = record.join(format!("writer-{writer}"));
                let killed = &killed;
                scope.spawn(move || {
                    let base = writer as u64 * STRIDE;
                    // Up to the error that the end of the server is.
                    while connection.run(&insert(base + *next, round)).is_ok() {
                        // Told, and only then written down, outside of the mount.
                        let file = std::fs::File::options().create(true).append(true).open(&record);
                        writeln!(file.unwrap(), "{}", base + *next).unwrap();
                        *next += 1;
                    }
                    assert!(killed.load(Ordering::Acquire), "an error before the kill");
                });
            }
            std::thread::sleep(Duration::from_secs(6) + Duration::from_millis(370) * round as u32);
            killed.store(true, Ordering::Release);
            println!("round {round}: {} processes killed with their server", server.kill());
        });
        let began = Instant::now();
        server.start();
        println!("recovered after {:.1} s", began.elapsed().as_secs_f64());
        let acknowledged = next.iter().sum::<u64>() - before;
        assert!(acknowledged > 20, "only {acknowledged} commits before the kill: no load");
        assert!(
            server.log().contains("redo done") || server.log().contains("redo is not required")
        );
        all_there(&server, &record);
        balance(&server);
        // A commit that was never acknowledged may have happened: its number is used up.
        for next in &mut next {
            *next += 1;
        }
    }
    whole(&mut server);
    healthy(&mut cluster);
}

fn insert(number: u64, round: u64) -> String {
    format!("INSERT INTO ledger VALUES ({number}, 'in round {round}')")
}

/// A server with pgbench's tables, and the folder for records outside of the mount.
fn founded(cluster: &Cluster) -> (Server, PathBuf) {
    let began = Instant::now();
    let mut server = Server::create(&cluster.mount(0).join("postgres"), &cluster.scratch());
    println!("initdb: {:.1} s", began.elapsed().as_secs_f64());
    server.start();
    let began = Instant::now();
    let scale = knob("MINISTRY_PGBENCH_SCALE", 2).to_string();
    server.program("pgbench").args(["-i", "-q", "-s", &scale]).within(10 * MINUTE).ok();
    println!("pgbench -i -s {scale}: {:.1} s", began.elapsed().as_secs_f64());
    let record = cluster.scratch().join("record");
    std::fs::create_dir(&record).unwrap();
    (server, record)
}

fn pgbench(server: &Server, seconds: u64) -> Program {
    let words = ["-n", "-c", "4", "-j", "2", "-T"];
    let deadline = Duration::from_secs(seconds) + 5 * MINUTE;
    server.program("pgbench").args(words).arg(seconds.to_string()).within(deadline)
}

/// Every transfer is in four tables: the sums agree. Gives the number of transfers.
fn balance(server: &Server) -> u64 {
    let mut connection = server.connect().unwrap();
    let mut one = |query: &str| connection.run(query).unwrap().remove(0);
    let history = one("SELECT coalesce(sum(delta), 0) FROM pgbench_history");
    for (column, table) in
        [("abalance", "accounts"), ("tbalance", "tellers"), ("bbalance", "branches")]
    {
        let sum = one(&format!("SELECT sum({column}) FROM pgbench_{table}"));
        assert_eq!(sum, history, "{table}");
    }
    one("SELECT count(*) FROM pgbench_history").parse().unwrap()
}

/// Every number in the records is in the table.
fn all_there(server: &Server, record: &Path) {
    let mut connection = server.connect().unwrap();
    let found = connection.run("SELECT n FROM ledger").unwrap();
    let found: std::collections::HashSet<u64> =
        found.iter().map(|number| number.parse().unwrap()).collect();
    let mut count = 0;
    for writer in 0..WRITERS {
        let told = std::fs::read_to_string(record.join(format!("writer-{writer}"))).unwrap();
        for number in told.lines().map(|line| line.parse::<u64>().unwrap()) {
            assert!(found.contains(&number), "commit {number} was acknowledged and is lost");
            count += 1;
        }
    }
    println!("{count} commits acknowledged, {} rows", found.len());
    // One a writer and round may have happened without the answer having come.
    assert!(found.len() - count <= (WRITERS * knob("MINISTRY_ROUNDS", 2)) as usize);
}

/// Indexes agree with their tables, everything can be read, every page has its checksum.
fn whole(server: &mut Server) {
    server.connect().unwrap().run("CREATE EXTENSION IF NOT EXISTS amcheck").unwrap();
    let words = ["--heapallindexed", "--parent-check", "-j", "2", "postgres"];
    server.program("pg_amcheck").args(words).within(5 * MINUTE).ok();
    let dump = server.program("pg_dump").within(5 * MINUTE).ok();
    assert!(dump.contains("PostgreSQL database dump complete"), "an incomplete dump");
    server.stop();
    let checked = server.program("pg_checksums").args(["--check", "-D"]).arg(server.data());
    let checked = checked.within(5 * MINUTE).ok();
    assert!(checked.contains("Bad checksums:  0"), "{checked}");
}
