//! Simulation: a whole cluster in one process, under one seed, with faults.
//!
//! Five nodes and some clients run in virtual time over a network and disks in memory; the real
//! `roles`, `raft`, `namespace`, `transport` and `client` run in them. The seed decides
//! everything: who is late, what is lost, who crashes when.
//!
//! ```text
//! cargo test --release -p ministry-tests --test simulation           # all, with 100 seeds
//! MINISTRY_SEEDS=200 …                                               # more seeds
//! MINISTRY_FIRST_SEED=4711 …                                         # others
//! MINISTRY_SEED=7 … the_seed_of_the_environment -- --exact           # one, with its trace
//! ```
//!
//! Every seed has a process of its own: some libraries keep random numbers by process.
//!
//! A run has three outcomes. It keeps every promise; it breaks one; or a fault that was planned
//! never bit, and then it does not count, and fails too.

mod clients;
mod clock;
mod faults;
mod history;
mod network;
mod replicas;
mod run;
mod trace;
mod world;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use world::Mutant;

/// Says which seed a process runs.
const SEED: &str = "MINISTRY_SEED";
/// Where the trace goes: a file. Without it, standard error.
const TRACE: &str = "MINISTRY_TRACE";
/// What goes into it beside the usual.
const TRACE_ALSO: &str = "MINISTRY_TRACE_ALSO";
/// Names a mistake that is made on purpose.
const MUTANT: &str = "MINISTRY_MUTANT";
/// How many seeds are run.
const SEEDS: &str = "MINISTRY_SEEDS";
/// The first of them.
const FIRST_SEED: &str = "MINISTRY_FIRST_SEED";
/// How many at once.
const JOBS: &str = "MINISTRY_JOBS";
/// Seeds, unless [`SEEDS`] says otherwise: what two busy cores do in a few minutes.
const SEEDS_DEFAULT: u64 = 100;
/// Seeds that are run twice.
const PAIRS: u64 = 5;
/// What a single run may lack, but not all together.
const WANTED: &[&str] = &[
    "blackout",
    "crash of the president",
    "leads handed over",
    "one-way cut-off",
    "outcomes unknown",
    "replies lost",
    "rift",
    "sessions lost",
    "snapshots installed",
    "split",
];
/// Seeds within which a mistake on purpose must be noticed.
const MUTANT_SEEDS: u64 = 10;
/// Seeds that found a mistake once, and are run for ever.
const FOUND_SOMETHING: &[u64] = &[];

/// One test at a time: each takes all cores.
static TURN: Mutex<()> = Mutex::new(());

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

fn rerun(seed: u64) -> String {
    format!(
        "{SEED}={seed} cargo test --release -p ministry-tests --test simulation \
         the_seed_of_the_environment -- --exact --nocapture"
    )
}

/// What a process that ran a seed said.
struct Said {
    seed: u64,
    good: bool,
    text: String,
    coverage: BTreeMap<String, u64>,
}

/// Runs a seed in a process of its own.
fn run_apart(seed: u64, trace: &Path, settings: &[(&str, &str)]) -> Said {
    let program = std::env::current_exe().expect("a test knows where it is");
    let output = Command::new(program)
        .args(["the_seed_of_the_environment", "--exact", "--nocapture", "--test-threads=1"])
        .env(SEED, seed.to_string())
        .env(TRACE, trace)
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("a test can start itself");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let coverage = text.lines().filter_map(|line| {
        let (count, name) = line.strip_prefix("coverage: ")?.split_once(' ')?;
        Some((name.to_owned(), count.parse().ok()?))
    });
    let coverage = coverage.collect();
    Said { seed, good: output.status.success(), text, coverage }
}

/// Runs many, some at once, in the order of the seeds.
fn run_all(seeds: &[u64], folder: &Path, settings: &[(&str, &str)]) -> Vec<Said> {
    let jobs = number(JOBS).unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64)
    });
    let (next, said) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed) as usize;
                    let Some(seed) = seeds.get(place) else { return };
                    let one = run_apart(*seed, &folder.join(format!("{place}")), settings);
                    said.lock().expect("no one panics here").push((place, one));
                }
            });
        }
    });
    let mut said = said.into_inner().expect("no one panics here");
    said.sort_by_key(|(place, _)| *place);
    said.into_iter().map(|(_, one)| one).collect()
}

fn complain(failed: &[&Said]) -> String {
    let mut text = format!("{} seeds failed\n", failed.len());
    for one in failed {
        let lines: Vec<&str> =
            one.text.lines().filter(|line| !line.starts_with("coverage: ")).collect();
        text += &format!("\nseed {}:\n{}\n  {}\n", one.seed, lines.join("\n"), rerun(one.seed));
    }
    text
}

#[test]
fn the_seed_of_the_environment() {
    let Some(seed) = number(SEED) else { return };
    let mutant = std::env::var(MUTANT).ok();
    let mutant = mutant.map(|name| Mutant::from_name(&name).expect("a mutant that is known"));
    let report = run::run(seed, mutant);
    let trace = report.trace.join("\n") + "\n";
    match std::env::var_os(TRACE).map(PathBuf::from) {
        Some(file) => std::fs::write(file, trace).expect("the trace can be written"),
        None => eprint!("{trace}"),
    }
    for (name, count) in &report.coverage {
        eprintln!("coverage: {count} {name}");
    }
    for breach in &report.breaches {
        eprintln!("broken: {breach}");
    }
    let missed: Vec<_> =
        report.coverage.keys().filter(|name| name.starts_with("missed: ")).collect();
    for missed in &missed {
        eprintln!("a fault never bit: {missed}");
    }
    // Not a panic: a panic counts as a breach.
    if !report.breaches.is_empty() || !missed.is_empty() {
        std::process::exit(1);
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    if number(SEED).is_some() {
        return;
    }
    let _turn = TURN.lock();
    let folder = tempfile::tempdir().expect("a folder for traces");
    let first = number(FIRST_SEED).unwrap_or(1);
    let seeds: Vec<u64> = (first..first + PAIRS).flat_map(|seed| [seed, seed]).collect();
    // Every single sending is compared.
    let said = run_all(&seeds, folder.path(), &[(TRACE_ALSO, "simulation=trace")]);
    let traces: Vec<String> = (0..seeds.len())
        .map(|place| {
            std::fs::read_to_string(folder.path().join(format!("{place}"))).unwrap_or_default()
        })
        .collect();
    for (pair, said) in traces.chunks(2).zip(said.chunks(2)) {
        let (one, other) = (&pair[0], &pair[1]);
        assert!(!one.is_empty(), "{}", complain(&[&said[0]]));
        if one != other {
            let mut lines = one.lines().zip(other.lines()).enumerate();
            let different = lines.find(|(_, (one, other))| one != other);
            panic!(
                "seed {} gave two traces of {} and {} lines; the first difference is {different:?}",
                said[0].seed,
                one.lines().count(),
                other.lines().count()
            );
        }
    }
}

/// The tests can fail: what is wrong on purpose is noticed, and for the right reason.
#[test]
fn a_mistake_on_purpose_is_noticed() {
    if number(SEED).is_some() {
        return;
    }
    let _turn = TURN.lock();
    let folder = tempfile::tempdir().expect("a folder for traces");
    let trace = folder.path().join("trace");
    for (mutant, word) in [("drift", "differ after"), ("amnesia", "broken: ")] {
        let noticed = (1..=MUTANT_SEEDS).find(|seed| {
            let said = run_apart(*seed, &trace, &[(MUTANT, mutant)]);
            !said.good && said.text.contains(word)
        });
        assert!(noticed.is_some(), "{mutant} went unnoticed in {MUTANT_SEEDS} seeds");
        println!("{mutant} was noticed by seed {noticed:?}");
    }
}

#[test]
fn every_seed_keeps_every_promise() {
    if number(SEED).is_some() {
        return;
    }
    let _turn = TURN.lock();
    let folder = tempfile::tempdir().expect("a folder for traces");
    let first = number(FIRST_SEED).unwrap_or(1);
    let count = number(SEEDS).unwrap_or(SEEDS_DEFAULT);
    let mut seeds: Vec<u64> = FOUND_SOMETHING.to_vec();
    seeds.extend(first..first + count);
    let said = run_all(&seeds, folder.path(), &[]);
    let failed: Vec<&Said> = said.iter().filter(|said| !said.good).collect();
    let mut sum = BTreeMap::<&str, u64>::new();
    for (name, count) in said.iter().flat_map(|said| &said.coverage) {
        *sum.entry(name).or_default() += count;
    }
    println!("{} seeds", said.len());
    for (name, count) in &sum {
        println!("  {count:>9} {name}");
    }
    assert!(failed.is_empty(), "{}", complain(&failed));
    if count >= SEEDS_DEFAULT {
        for wanted in WANTED {
            let bit = sum.get(wanted).is_some_and(|count| *count > 0);
            assert!(bit, "no run had this fault: {wanted}");
        }
    }
}
