//! Recorded histories of two mounts, judged by the checker.
//!
//! Each history is judged twice: as it was recorded, which must be linearizable, and with one
//! answer in it changed to one that cannot have been, which must be found out.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use ministry_tests::{Cluster, sandbox};

use crate::append_workers::{self, LARGE, SMALL, Shape, Written};
use crate::appends;
use crate::checker::{self, Model, Searched};
use crate::history::{Clock, History, Operation, by_object};
use crate::models::{
    AttributesAnswer, AttributesCall, AttributesModel, Locks, LocksAnswer, LocksCall, Names,
    NamesAnswer, NamesCall, Register, RegisterAnswer, RegisterCall,
};
use crate::workers::{self, ATTRIBUTES_FIRST, Lie, Recorded, Signs, WORKERS};
use crate::{APPENDS_LARGE, LOCKS_ACROSS_MOUNTS, PAGES_SHOW_WRITES_EARLY, Seed, knob};

/// What a history of a few seconds has at least; fewer calls show nothing.
const CALLS_MIN: usize = 300;
/// How long is waited for enough calls on a busy machine.
const BUSY_MAX: Duration = Duration::from_secs(120);
/// Calls of each kind and each worker before the minister dies, and after.
const CALLS_BEFORE: u64 = 3;
/// When the minister dies at the earliest, after the start.
const BEFORE_DEATH: Duration = Duration::from_secs(2);
/// Within this all workers go on after it.
const GOING_ON: Duration = Duration::from_secs(60);
/// A test that takes longer hangs.
const HANGS: Duration = Duration::from_secs(240);

fn seconds() -> Duration {
    Duration::from_secs(knob("MINISTRY_HISTORY_SECONDS", 5))
}

/// Runs `work` until the time is over. A history that does not end is no test result, so the
/// process ends then.
fn for_seconds<R: Send>(workers: usize, work: impl FnOnce(&Signs) -> R + Send) -> R {
    let signs = Signs::new(Clock::start(), workers);
    std::thread::scope(|scope| {
        let working = scope.spawn(|| work(&signs));
        wait_for_calls(&signs);
        signs.stop();
        ended_in_time(&signs, || working.is_finished());
        working.join().expect("workers do not panic")
    })
}

/// Until the time is over and enough was called: on a busy machine that takes longer.
fn wait_for_calls(signs: &Signs) {
    let began = Instant::now();
    let enough = || signs.calls().iter().sum::<u64>() >= 2 * CALLS_MIN as u64;
    while began.elapsed() < seconds() || !enough() {
        if began.elapsed() > BUSY_MAX {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn ended_in_time(signs: &Signs, ended: impl Fn() -> bool) {
    let began = Instant::now();
    while !ended() {
        if began.elapsed() > HANGS {
            eprintln!("a call does not return; calls by worker: {:?}", signs.calls());
            std::process::exit(101);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A history that must be linearizable, of each object and so as a whole.
fn judge<M: Model>(
    what: &str,
    model: &M,
    (history, strange): &Recorded<M::Call, M::Answer>,
) -> Searched
where
    M::Call: Clone,
    M::Answer: Clone,
{
    assert!(strange.is_empty(), "{what}: {strange:#?}");
    let began = Instant::now();
    let mut sum = Searched::default();
    for (object, part) in parts(history) {
        match checker::check(model, &part) {
            Ok(searched) => {
                sum.calls += searched.calls;
                sum.unknown += searched.unknown;
                sum.pending_max = sum.pending_max.max(searched.pending_max);
                sum.possible_max = sum.possible_max.max(searched.possible_max);
            }
            Err(told) => panic!("{what}, object {object}: {told}"),
        }
    }
    println!("{what}: {sum:?}, checked in {:.2} s", began.elapsed().as_secs_f64());
    sum
}

fn parts<C: Clone, A: Clone>(history: &History<(usize, C), A>) -> Vec<(usize, History<C, A>)> {
    let parts = by_object(history, |(object, _)| *object);
    let plain = parts.into_iter().map(|(object, part)| {
        let calls = part.into_iter().map(|one| {
            let Operation { worker, called, returned, call: (_, call), answer } = one;
            Operation { worker, called, returned, call, answer }
        });
        (object, calls.collect())
    });
    plain.collect()
}

/// The same with one answer changed must be found out. `change` gives whether it changed one.
fn must_be_found_out<M: Model>(
    what: &str,
    model: &M,
    history: &History<(usize, M::Call), M::Answer>,
    change: impl Fn(&mut History<M::Call, M::Answer>) -> bool,
) where
    M::Call: Clone,
    M::Answer: Clone,
{
    let mut changed = 0;
    for (object, mut part) in parts(history) {
        part.sort_by_key(|operation| operation.called);
        if change(&mut part) {
            changed += 1;
            let told = checker::check(model, &part);
            assert!(told.is_err(), "{what}, object {object}: a wrong answer was not found out");
        }
    }
    assert!(changed > 0, "{what}: there was no answer to be changed");
}

/// A read answers what a write had put there before another was done in between.
fn stale_read(part: &mut History<RegisterCall, RegisterAnswer>) -> bool {
    let writes: Vec<(u64, u64, u64)> = part
        .iter()
        .filter(|one| one.answer.is_some())
        .filter_map(|one| match one.call {
            RegisterCall::Write(value) => Some((one.called, one.returned, value)),
            RegisterCall::Read => None,
        })
        .collect();
    for one in part.iter_mut().rev() {
        if one.call != RegisterCall::Read || one.answer.is_none() {
            continue;
        }
        let newer = writes.iter().filter(|(_, returned, _)| *returned < one.called);
        let Some((between, _, _)) = newer.max_by_key(|(called, _, _)| *called) else { continue };
        if let Some((_, _, old)) = writes.iter().find(|(_, returned, _)| returned < between) {
            one.answer = Some(RegisterAnswer::Value(*old));
            return true;
        }
    }
    false
}

/// A file that a listing no longer had is listed again.
fn revived_name(part: &mut History<NamesCall, NamesAnswer>) -> bool {
    let lists: Vec<(usize, u64, u64)> = part
        .iter()
        .enumerate()
        .filter(|(_, one)| matches!(one.answer, Some(NamesAnswer::Listed(_))))
        .map(|(number, one)| (number, one.called, one.returned))
        .collect();
    let inodes = |part: &History<NamesCall, NamesAnswer>, number: usize| match &part[number].answer
    {
        Some(NamesAnswer::Listed(names)) => names.values().copied().collect::<Vec<u64>>(),
        _ => Vec::new(),
    };
    for (last, called, _) in lists.iter().rev() {
        let between = lists.iter().filter(|(_, _, returned)| returned < called);
        let Some((middle, begin, _)) = between.max_by_key(|(_, _, returned)| *returned) else {
            continue;
        };
        let still = inodes(part, *middle);
        let first = lists.iter().find(|(number, _, returned)| {
            returned < begin && inodes(part, *number).iter().any(|inode| !still.contains(inode))
        });
        if let Some((first, _, _)) = first {
            part[*last].answer = part[*first].answer.clone();
            return true;
        }
    }
    false
}

/// A look shows attributes from before a newer ctime was shown.
fn old_attributes(part: &mut History<AttributesCall, AttributesAnswer>) -> bool {
    let ctime = |answer: &Option<AttributesAnswer>| match answer {
        Some(AttributesAnswer::Shows { ctime, .. }) => Some(*ctime),
        _ => None,
    };
    let shown: Vec<(u64, u64, i64, Option<AttributesAnswer>)> = part
        .iter()
        .filter_map(|one| Some((one.called, one.returned, ctime(&one.answer)?, one.answer.clone())))
        .collect();
    for one in part.iter_mut().rev() {
        if ctime(&one.answer).is_none() {
            continue;
        }
        let newest = shown.iter().filter(|(_, returned, ..)| *returned < one.called);
        let Some((_, _, newest, _)) = newest.max_by_key(|(_, _, ctime, _)| *ctime) else {
            continue;
        };
        if let Some((.., old)) = shown.iter().find(|(_, _, ctime, _)| ctime < newest) {
            one.answer = old.clone();
            return true;
        }
    }
    false
}

/// A lock that was refused while another held it for certain is granted.
fn doubled_lock(part: &mut History<LocksCall, LocksAnswer>) -> bool {
    let held: Vec<(usize, usize, usize, u64, u64)> = part
        .iter()
        .filter_map(|one| match (&one.call, &one.answer) {
            (LocksCall::Lock { exclusive: true, begin, end, .. }, Some(LocksAnswer::Granted)) => {
                let of_worker = part.iter().filter(|next| next.worker == one.worker);
                let until = of_worker.map(|next| next.called).find(|at| *at > one.called)?;
                Some((one.worker, *begin, *end, one.returned, until))
            }
            _ => None,
        })
        .collect();
    for one in part.iter_mut() {
        let (LocksCall::Lock { begin, end, .. }, Some(LocksAnswer::Refused)) =
            (&one.call, &one.answer)
        else {
            continue;
        };
        let by_another = held.iter().any(|(worker, first, last, from, until)| {
            let overlap = first < end && begin < last;
            *worker != one.worker && overlap && *from < one.called && one.returned < *until
        });
        if by_another {
            one.answer = Some(LocksAnswer::Granted);
            return true;
        }
    }
    false
}

/// Takes away reads of a value that a write through the same mount was about to write: the kernel
/// puts the bytes into its pages before it asks the server, and shows them to other programs on
/// that machine. Gives how many.
fn without_early_reads(
    history: &mut History<(usize, RegisterCall), RegisterAnswer>,
    mounts: usize,
) -> usize {
    let writes: BTreeMap<u64, (usize, u64, u64)> = history
        .iter()
        .filter_map(|one| match one.call.1 {
            RegisterCall::Write(value) => {
                let ended = if one.answer.is_some() { one.returned } else { u64::MAX };
                Some((value, (one.worker % mounts, one.called, ended)))
            }
            RegisterCall::Read => None,
        })
        .collect();
    let before = history.len();
    history.retain(|one| {
        let Some(RegisterAnswer::Value(value)) = one.answer else { return true };
        let Some((mount, called, ended)) = writes.get(&value) else { return true };
        let at_once = *called < one.returned && one.called < *ended;
        !(at_once && *mount == one.worker % mounts)
    });
    before - history.len()
}

fn judge_blocks(mut recorded: Recorded<RegisterCall, RegisterAnswer>, mounts: usize) -> Searched {
    if PAGES_SHOW_WRITES_EARLY {
        let early = without_early_reads(&mut recorded.0, mounts);
        println!("{early} reads of a write through the same mount that had not returned");
    }
    judge_registers("blocks", &recorded)
}

fn judge_names(recorded: &Recorded<NamesCall, NamesAnswer>) -> Searched {
    let searched = judge("names", &Names, recorded);
    must_be_found_out("names", &Names, &recorded.0, revived_name);
    searched
}

fn judge_attributes(recorded: &Recorded<AttributesCall, AttributesAnswer>) -> Searched {
    let model = AttributesModel { initial: ATTRIBUTES_FIRST };
    let searched = judge("attributes", &model, recorded);
    must_be_found_out("attributes", &model, &recorded.0, old_attributes);
    searched
}

fn judge_registers(what: &str, recorded: &Recorded<RegisterCall, RegisterAnswer>) -> Searched {
    let model = Register { initial: 0 };
    let searched = judge(what, &model, recorded);
    must_be_found_out(what, &model, &recorded.0, stale_read);
    searched
}

fn judge_locks(recorded: &Recorded<LocksCall, LocksAnswer>) -> Searched {
    let searched = judge("locks", &Locks, recorded);
    must_be_found_out("locks", &Locks, &recorded.0, doubled_lock);
    searched
}

/// Judges a file of appends as each mount shows it.
fn judge_appends(mounts: &[&Path], file: &str, written: &Written) {
    assert!(written.strange.is_empty(), "{file}: {:#?}", written.strange);
    for (number, mount) in mounts.iter().enumerate() {
        let content = std::fs::read(mount.join(file)).expect("the file can be read");
        if let Err(told) = appends::check(&written.appends, &written.looks, &content) {
            panic!("{file} as mount {number} shows it: {told}");
        }
    }
    let mut content = std::fs::read(mounts[0].join(file)).expect("the file can be read");
    if content.len() > 100 {
        let half = content.len() / 2;
        content[half] ^= 1;
        let told = appends::check(&written.appends, &written.looks, &content);
        assert!(told.is_err(), "{file}: a changed byte was not found out");
    }
}

/// A cluster, its mounts, and a seed: what a history begins with.
fn with_mounts(test: &'static str, work: impl FnOnce(u64, &[&Path])) {
    let seed = Seed::of(test);
    let mut cluster = Cluster::with_two_mounts();
    work(seed.number, &[cluster.mount(0), cluster.mount(1)]);
    cluster.assert_all_run();
}

/// Without a fault every outcome is known.
fn calm(searched: Searched) {
    assert_eq!(searched.unknown, 0, "calls failed without a fault");
    assert!(searched.calls >= CALLS_MIN, "only {} calls", searched.calls);
}

#[test]
fn names_of_two_mounts_are_linearizable() {
    with_mounts("names_of_two_mounts_are_linearizable", |seed, mounts| {
        let recorded = for_seconds(2 * WORKERS, |signs| workers::names(mounts, seed, signs));
        calm(judge_names(&recorded));
    });
}

#[test]
fn attributes_of_two_mounts_are_linearizable() {
    with_mounts("attributes_of_two_mounts_are_linearizable", |seed, mounts| {
        let recorded = for_seconds(2 * WORKERS, |signs| workers::attributes(mounts, seed, signs));
        calm(judge_attributes(&recorded));
    });
}

#[test]
fn replaced_files_of_two_mounts_are_linearizable() {
    with_mounts("replaced_files_of_two_mounts_are_linearizable", |seed, mounts| {
        let recorded = for_seconds(2 * WORKERS, |signs| workers::replaced(mounts, seed, signs));
        calm(judge_registers("replaced files", &recorded));
    });
}

#[test]
fn blocks_of_two_mounts_are_linearizable() {
    with_mounts("blocks_of_two_mounts_are_linearizable", |seed, mounts| {
        let run = |signs: &Signs| workers::blocks(mounts, seed, signs, Lie::None);
        let recorded = for_seconds(2 * WORKERS, run);
        calm(judge_blocks(recorded, mounts.len()));
    });
}

#[test]
fn locks_of_two_mounts_are_linearizable() {
    if !LOCKS_ACROSS_MOUNTS {
        println!("left out: locks do not hold across mounts yet");
        return;
    }
    with_mounts("locks_of_two_mounts_are_linearizable", |seed, mounts| {
        let recorded = for_seconds(2 * WORKERS, |signs| workers::locks(mounts, seed, signs));
        calm(judge_locks(&recorded));
    });
}

fn append_in_rounds(test: &'static str, shape: Shape) {
    with_mounts(test, |seed, mounts| {
        let mut rounds = 0;
        let mut records = 0;
        let all: Vec<(String, Written)> = for_seconds(2 * WORKERS, |signs| {
            let mut all = Vec::new();
            while !signs.stops() {
                let file = format!("{}-{rounds}", shape.name);
                let seed = seed.wrapping_mul(1_000) + rounds;
                let written = append_workers::append(mounts, &file, shape, seed, signs);
                records += written.appends.len();
                all.push((file, written));
                rounds += 1;
            }
            all
        });
        for (file, written) in &all {
            judge_appends(mounts, file, written);
        }
        println!("{records} records in {rounds} files, each once, whole and in order");
        assert!(records >= CALLS_MIN, "only {records} records");
    });
}

#[test]
fn appends_of_two_mounts_to_small_files_are_once_whole_and_in_order() {
    append_in_rounds("appends_of_two_mounts_to_small_files_are_once_whole_and_in_order", SMALL);
}

#[test]
fn appends_of_two_mounts_to_large_files_are_once_whole_and_in_order() {
    if !APPENDS_LARGE {
        println!("left out: appends of two mounts to a file over 4 KiB are not atomic yet");
        return;
    }
    append_in_rounds("appends_of_two_mounts_to_large_files_are_once_whole_and_in_order", LARGE);
}

/// Asks all to stop when it goes.
struct StopAll<'a>(&'a [Signs]);

impl Drop for StopAll<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(Signs::stop);
    }
}

/// All that is recorded while the minister dies.
struct Everything {
    names: Recorded<NamesCall, NamesAnswer>,
    attributes: Recorded<AttributesCall, AttributesAnswer>,
    replaced: Recorded<RegisterCall, RegisterAnswer>,
    blocks: Recorded<RegisterCall, RegisterAnswer>,
    locks: Option<Recorded<LocksCall, LocksAnswer>>,
    appends: Vec<(Shape, Written)>,
}

fn record_everything(mounts: &[&Path], seed: u64, signs: &[Signs]) -> Everything {
    std::thread::scope(|scope| {
        let names = scope.spawn(|| workers::names(mounts, seed, &signs[0]));
        let attributes = scope.spawn(|| workers::attributes(mounts, seed, &signs[1]));
        let replaced = scope.spawn(|| workers::replaced(mounts, seed, &signs[2]));
        let blocks = scope.spawn(|| workers::blocks(mounts, seed, &signs[3], Lie::None));
        let shape = if APPENDS_LARGE { LARGE } else { SMALL };
        // Without an end: it must not be over when the minister dies.
        let shape = Shape { share: if APPENDS_LARGE { 50 << 20 } else { shape.share }, ..shape };
        let append =
            scope.spawn(move || append_workers::append(mounts, shape.name, shape, seed, &signs[4]));
        let locks =
            LOCKS_ACROSS_MOUNTS.then(|| scope.spawn(|| workers::locks(mounts, seed, &signs[5])));
        Everything {
            names: names.join().expect("no panic"),
            attributes: attributes.join().expect("no panic"),
            replaced: replaced.join().expect("no panic"),
            blocks: blocks.join().expect("no panic"),
            locks: locks.map(|locks| locks.join().expect("no panic")),
            appends: vec![(shape, append.join().expect("no panic"))],
        }
    })
}

#[test]
fn histories_are_linearizable_although_the_minister_dies() {
    let seed = Seed::of("histories_are_linearizable_although_the_minister_dies");
    let mut cluster = Cluster::with_two_mounts();
    let paths = [cluster.mount(0).to_owned(), cluster.mount(1).to_owned()];
    let mounts: Vec<&Path> = paths.iter().map(|path| path.as_path()).collect();
    let clock = Clock::start();
    let signs: Vec<Signs> = (0..6).map(|_| Signs::new(clock, 2 * WORKERS)).collect();
    let everything = std::thread::scope(|scope| {
        // Also where this thread panics: else the workers go on for ever.
        let _stopping = StopAll(&signs);
        let recording = scope.spawn(|| record_everything(&mounts, seed.number, &signs));
        std::thread::sleep(BEFORE_DEATH);
        let nothing = vec![vec![0; 2 * WORKERS]; signs.len()];
        wait_until_all_go_on(&signs, &nothing, Instant::now());
        let minister = cluster.minister(1);
        let before: Vec<Vec<u64>> = signs.iter().map(Signs::calls).collect();
        cluster.kill_node(minister);
        let killed = Instant::now();
        println!("the minister, node {minister}, is killed after {before:?} calls");
        // The data of the dead node must come back too: a write waits for every member.
        std::thread::sleep(Duration::from_secs(1));
        cluster.start_node(minister);
        wait_until_all_go_on(&signs, &before, killed);
        println!("all go on {:.2} s after the death", killed.elapsed().as_secs_f64());
        std::thread::sleep(BEFORE_DEATH);
        signs.iter().for_each(Signs::stop);
        ended_in_time(&signs[0], || recording.is_finished());
        recording.join().expect("no panic")
    });
    judge_everything(&mounts, everything);
}

/// Judges all kinds, also where one of them fails.
fn judge_everything(mounts: &[&Path], everything: Everything) {
    let Everything { names, attributes, replaced, blocks, locks, appends } = everything;
    let searched = std::thread::scope(|scope| {
        let searches = [
            scope.spawn(|| judge_names(&names)),
            scope.spawn(|| judge_attributes(&attributes)),
            scope.spawn(|| judge_registers("replaced files", &replaced)),
            scope.spawn(|| judge_blocks(blocks, mounts.len())),
            scope.spawn(|| locks.as_ref().map(judge_locks).unwrap_or_default()),
            scope.spawn(|| {
                for (shape, written) in &appends {
                    judge_appends(mounts, shape.name, written);
                }
                Searched::default()
            }),
        ];
        searches.map(|search| search.join().ok())
    });
    let calls: usize = searched.iter().flatten().map(|searched| searched.calls).sum();
    let unknown: usize = searched.iter().flatten().map(|searched| searched.unknown).sum();
    println!("{calls} calls, {unknown} of them with an unknown outcome");
    assert!(searched.iter().all(Option::is_some), "a history is wrong, see above");
    assert!(calls >= CALLS_MIN, "only {calls} calls");
}

/// Each worker of each kind has made calls since; writers that have had their share are not asked.
fn wait_until_all_go_on(signs: &[Signs], before: &[Vec<u64>], killed: Instant) {
    loop {
        let kinds = if LOCKS_ACROSS_MOUNTS { 6 } else { 5 };
        let asked = signs.iter().zip(before).take(kinds).enumerate();
        let mut asked = asked.filter(|(kind, _)| APPENDS_LARGE || *kind != 4);
        if asked.all(|(_, (signs, before))| signs.go_on(before, CALLS_BEFORE)) {
            return;
        }
        assert!(
            killed.elapsed() < GOING_ON,
            "not all go on: {:?} after {before:?}",
            signs.iter().map(Signs::calls).collect::<Vec<_>>()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The judges themselves: a local file system passes, a reader that lies does not.
#[test]
fn a_local_file_system_is_linearizable_and_a_lying_reader_is_found_out() {
    let folder = sandbox::folder();
    let mounts = [folder.path(), folder.path()];
    let in_short = |work: &(dyn Fn(&Signs) + Sync)| {
        let signs = Signs::new(Clock::start(), 2 * WORKERS);
        std::thread::scope(|scope| {
            let working = scope.spawn(|| work(&signs));
            let few = || signs.calls().iter().sum::<u64>() < 4 * CALLS_MIN as u64;
            while few() && !working.is_finished() {
                std::thread::sleep(Duration::from_millis(5));
            }
            signs.stop();
        });
    };
    in_short(&|signs| {
        judge_names(&workers::names(&mounts, 1, signs));
    });
    in_short(&|signs| {
        judge_registers("replaced files", &workers::replaced(&mounts, 1, signs));
    });
    in_short(&|signs| {
        judge("locks", &Locks, &workers::locks(&mounts, 1, signs));
    });
    in_short(&|signs| {
        // Small ones: a local file system shows a size in the middle of a large append.
        let written = append_workers::append(&mounts, "appended", SMALL, 1, signs);
        judge_appends(&mounts, "appended", &written);
    });
    in_short(&|signs| {
        let (history, _) = workers::blocks(&mounts, 1, signs, Lie::Stale(10));
        let model = Register { initial: 0 };
        let parts = parts(&history);
        let found = parts.iter().filter(|(_, part)| {
            checker::check(&model, part).is_err_and(|told| told.contains("not linearizable"))
        });
        assert!(found.count() > 0, "a reader that lies was not found out");
    });
}
