//! Random sequences on a cluster and on a local file system beside it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ministry_tests::{Cluster, sandbox};
use parking_lot::Mutex;

use crate::call::Step;
use crate::comparison::{self, Difference, Ran, World};
use crate::confinement::Confinement;
use crate::generator;
use crate::{Seed, knob};

/// Sequences that run at the same time: while one waits for a commit, another computes.
const WORKERS: usize = 4;
/// How long the steps that are not needed may be looked for, for each kind of difference.
const SHRINKING_MAX: Duration = Duration::from_secs(20);
/// Kinds of differences after which it is enough.
const KINDS_MAX: usize = 20;
/// Calls that must have succeeded at least once in a full run: else the run shows nothing.
const FULL_RUN_STEPS: u64 = 10_000;

/// What was found, and what was run.
#[derive(Default)]
struct Report {
    /// One finding of each kind, and how many there were.
    findings: BTreeMap<String, (Finding, u64)>,
    calls: BTreeMap<String, (u64, u64)>,
    accepted: BTreeMap<&'static str, u64>,
}

struct Finding {
    seed: u64,
    steps: Vec<Step>,
    difference: Difference,
}

fn compare_sequences(test: &'static str, mounts: usize) {
    let seed = Seed::of(test);
    let sequences = knob("MINISTRY_SEQUENCES", 500);
    let steps = knob("MINISTRY_STEPS", 50) as usize;
    let mut cluster = if mounts == 1 { Cluster::start() } else { Cluster::with_two_mounts() };
    let reference = Reference::of(&cluster);
    let tops: Vec<&Path> = (0..mounts).map(|mount| cluster.mount(mount)).collect();
    let world = World::new(cluster.top(), reference.path(), &tops);
    let began = Instant::now();
    let plan = Plan { seed: seed.number, sequences, steps, mounts };
    let report = Mutex::new(Report::default());
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| world.confined(|| compare_many(&world, &report, &next, &plan)));
        }
    });
    let took = began.elapsed();
    let report = report.into_inner();
    let made: u64 = report.calls.values().map(|(made, _)| made).sum();
    println!(
        "{sequences} sequences of {steps} steps over {mounts} mounts in {:.1} s: {made} calls, \
         {:.2} ms each",
        took.as_secs_f64(),
        took.as_secs_f64() * 1000.0 / made.max(1) as f64
    );
    println!("calls made and succeeded: {:?}", report.calls);
    for (reason, times) in &report.accepted {
        println!("accepted {times} times: {reason}");
    }
    let never: Vec<&String> =
        report.calls.iter().filter(|(_, (_, done))| *done == 0).map(|(call, _)| call).collect();
    let told = world.confined(|| report.tell(test, &world, steps));
    assert!(told.is_empty(), "{} kinds of differences\n{told}", report.findings.len());
    assert!(made < FULL_RUN_STEPS || never.is_empty(), "never succeeded: {never:?}");
    cluster.assert_all_run();
}

/// What is to be run.
struct Plan {
    seed: u64,
    sequences: u64,
    steps: usize,
    mounts: usize,
}

/// One worker: sequence after sequence.
fn compare_many(world: &World, report: &Mutex<Report>, next: &AtomicU64, plan: &Plan) {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= plan.sequences || report.lock().findings.len() >= KINDS_MAX {
            return;
        }
        let seed = plan.seed + number;
        let steps = generator::sequence(seed, plan.steps, plan.mounts);
        let (ran, difference) = comparison::run(world, &steps);
        report.lock().add(seed, steps, ran, difference);
    }
}

/// The folder of the reference: beside the cluster, or where `MINISTRY_REFERENCE` says.
struct Reference {
    path: PathBuf,
    /// What is to be removed at the end.
    _given: Option<tempfile::TempDir>,
}

impl Reference {
    fn of(cluster: &Cluster) -> Reference {
        let Some(given) = std::env::var_os("MINISTRY_REFERENCE") else {
            return Reference { path: cluster.scratch(), _given: None };
        };
        let folder = tempfile::Builder::new().prefix("reference-").tempdir_in(given);
        let folder = folder.expect("a folder for the reference");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(folder.path(), mode).expect("our folder");
        let path = Confinement::new(cluster.top()).bind(folder.path(), "reference");
        Reference { path, _given: Some(folder) }
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Report {
    fn add(&mut self, seed: u64, steps: Vec<Step>, ran: Ran, difference: Option<Difference>) {
        for (call, (made, done)) in ran.calls {
            let sum = self.calls.entry(call).or_default();
            *sum = (sum.0 + made, sum.1 + done);
        }
        for (reason, times) in ran.accepted {
            *self.accepted.entry(reason).or_default() += times;
        }
        let Some(difference) = difference else { return };
        let kind = difference.kind.clone();
        let found = self.findings.entry(kind);
        let found = found.or_insert((Finding { seed, steps, difference }, 0));
        found.1 += 1;
    }

    /// Every kind of difference with the fewest steps that show it.
    fn tell(&self, test: &str, world: &World, steps: usize) -> String {
        let mut told = String::new();
        for (kind, (finding, times)) in &self.findings {
            let seed = finding.seed;
            let (shrunk, again) = shrink(world, finding);
            let _ = writeln!(told, "\n== {kind} (in {times} sequences)");
            let _ = writeln!(
                told,
                "repeat it: MINISTRY_SEED={seed} MINISTRY_SEQUENCES=1 MINISTRY_STEPS={steps} \
                 tests/run consistency {test}"
            );
            if !again {
                let _ = writeln!(told, "it did not come again: not all of it lies in the steps");
            }
            let (ran, difference) = comparison::run(world, &shrunk);
            let difference = difference.as_ref().unwrap_or(&finding.difference);
            for (number, step) in shrunk.iter().enumerate() {
                let answer = ran.answers.get(number).map_or("not reached", String::as_str);
                let _ = writeln!(told, "  {number:2} {step}\n       expected: {answer}");
            }
            let at = difference.step.map_or("at the end".into(), |step| format!("at step {step}"));
            let _ = writeln!(told, "  {at}: {}", difference.text);
        }
        told
    }
}

/// Leaves out steps as long as the same kind of difference comes; whether it came again at all.
fn shrink(world: &World, finding: &Finding) -> (Vec<Step>, bool) {
    let until = Instant::now() + SHRINKING_MAX;
    let fails = |steps: &[Step]| {
        let (_, difference) = comparison::run(world, steps);
        difference.is_some_and(|difference| difference.kind == finding.difference.kind)
    };
    let mut steps = finding.steps.clone();
    if let Some(last) = finding.difference.step {
        steps.truncate(last + 1);
    }
    if !fails(&steps) {
        return (steps, false);
    }
    let mut part = steps.len().div_ceil(2);
    loop {
        let mut begin = 0;
        while begin < steps.len() && Instant::now() < until {
            let mut fewer = steps.clone();
            fewer.drain(begin..(begin + part).min(steps.len()));
            if fails(&fewer) {
                steps = fewer;
            } else {
                begin += part;
            }
        }
        if part == 1 || Instant::now() >= until {
            return (simplify(&steps, fails), true);
        }
        part = part.div_ceil(2);
    }
}

/// Takes the change of mounts, of users and the watching away where they play no part.
fn simplify(steps: &[Step], fails: impl Fn(&[Step]) -> bool) -> Vec<Step> {
    let mut steps = steps.to_vec();
    let changes: [fn(&mut Step); 4] = [
        |step| step.watch = false,
        |step| step.user = crate::call::User::Root,
        |step| step.look = step.mount,
        |step| (step.mount, step.look) = (0, 0),
    ];
    for change in changes {
        for number in 0..steps.len() {
            let mut simpler = steps.clone();
            change(&mut simpler[number]);
            if simpler != steps && fails(&simpler) {
                steps = simpler;
            }
        }
    }
    steps
}

#[test]
fn one_mount_does_what_a_local_file_system_does() {
    compare_sequences("one_mount_does_what_a_local_file_system_does", 1);
}

#[test]
fn two_mounts_in_turns_do_what_a_local_file_system_does() {
    compare_sequences("two_mounts_in_turns_do_what_a_local_file_system_does", 2);
}

#[test]
fn the_same_seed_draws_the_same_steps() {
    assert_eq!(generator::sequence(7, 200, 2), generator::sequence(7, 200, 2));
    assert_ne!(generator::sequence(7, 200, 2), generator::sequence(8, 200, 2));
}

/// A local folder beside itself has no difference; where one of two mounts shows another folder,
/// there is one.
#[test]
fn a_local_file_system_is_like_itself_and_a_mount_that_shows_another_is_found() {
    let folder = sandbox::folder();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(folder.path(), mode).unwrap();
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    std::fs::create_dir(&one).unwrap();
    std::fs::create_dir(&other).unwrap();
    let world = World::new(folder.path(), &one, &[&other, &other]);
    world.confined(|| {
        for seed in 0..60 {
            let steps = generator::sequence(seed, 50, 2);
            let (ran, difference) = comparison::run(&world, &steps);
            let last = ran.answers.last();
            assert!(difference.is_none(), "seed {seed}: {difference:?} after {last:?}");
        }
    });
    let third = folder.path().join("third");
    std::fs::create_dir(&third).unwrap();
    let world = World::new(folder.path(), &one, &[&other, &third]);
    world.confined(|| {
        let (_, difference) = comparison::run(&world, &generator::sequence(1, 50, 2));
        assert!(difference.is_some(), "a mount that shows another folder was not found");
    });
}
