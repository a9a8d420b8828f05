//! A majority of the nodes is gone: what has a majority of its own goes on, the rest ends in an
//! error at its deadline, and all is back when the nodes are.

use std::path::Path;
use std::time::{Duration, Instant};

use ministry_tests::Cluster;
use ministry_tests::load::{Kind, Load};
use rand::seq::SliceRandom;

use crate::{GOING_ON, Seed, make_ministries};

/// The deadline of an operation, and what a busy machine may add.
const DEADLINE: Duration = Duration::from_secs(60);
const SLACK: Duration = Duration::from_secs(8);

/// Longer than a minister that has lost its clerks may answer reads: its lease on the lead ends
/// within the longest time of an election, as nobody else can have been elected before.
const LEASE_OVER: Duration = Duration::from_secs(2);

/// Three nodes to kill, a ministry that keeps its minister and its majority, and one that loses it.
struct Split {
    killed: Vec<usize>,
    served: u64,
    down: u64,
}

fn choose(ministries: &[(u64, Vec<usize>)], nodes: usize, seed: &mut Seed) -> Split {
    let mut found = Vec::new();
    for a in 0..nodes {
        for b in a + 1..nodes {
            for c in b + 1..nodes {
                let killed = vec![a, b, c];
                let left = |members: &[usize]| {
                    members.iter().filter(|member| !killed.contains(member)).count()
                };
                let serves = |members: &[usize]| {
                    left(members) * 2 > members.len() && !killed.contains(&members[0])
                };
                // Names of the root are looked up on every path: it is the one that is down only
                // where programs hold their folders open, as these do.
                let served = ministries.iter().find(|(_, members)| serves(members));
                let down = ministries.iter().find(|(_, members)| left(members) * 2 < members.len());
                if let (Some((served, _)), Some((down, _))) = (served, down) {
                    found.push(Split { killed: killed.clone(), served: *served, down: *down });
                }
            }
        }
    }
    found.shuffle(&mut seed.random);
    found.pop().expect("three of five nodes can be chosen so that one ministry goes on")
}

fn folder(ministry: u64, name: &str) -> String {
    if ministry == 1 { name.to_owned() } else { format!("{ministry}/{name}") }
}

/// Each call on its own thread; each must end with the error of a deadline. All of them come to
/// their end on the way to the folder, where the kernel lets them wait side by side: behind a call
/// that changes the folder itself they would queue, a deadline each.
fn calls_end_at_their_deadline(folder: &Path, meanwhile: impl FnOnce()) {
    type Call = (&'static str, fn(&Path) -> std::io::Result<()>);
    let calls: [Call; 4] = [
        ("stat", |folder| std::fs::metadata(folder.join("file")).map(drop)),
        ("list", |folder| std::fs::read_dir(folder)?.try_for_each(|entry| entry.map(drop))),
        ("create", |folder| std::fs::write(folder.join("new"), "new")),
        ("rename", |folder| std::fs::rename(folder.join("file"), folder.join("renamed"))),
    ];
    std::thread::scope(|scope| {
        let threads: Vec<_> = calls
            .into_iter()
            .map(|(name, call)| {
                scope.spawn(move || {
                    let began = Instant::now();
                    (name, call(folder), began.elapsed())
                })
            })
            .collect();
        meanwhile();
        for thread in threads {
            let (name, result, took) = thread.join().expect("a call does not panic");
            println!("{name}: {result:?} after {took:.2?}");
            let error = result.expect_err(name);
            assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT), "{name}: {error}");
            assert!(took < DEADLINE + SLACK, "{name} took {took:?}");
        }
    });
}

#[test]
fn what_keeps_a_majority_is_served_and_the_rest_ends_in_an_error_at_its_deadline() {
    let mut seed =
        Seed::of("what_keeps_a_majority_is_served_and_the_rest_ends_in_an_error_at_its_deadline");
    let mut cluster = Cluster::start();
    let ministries = make_ministries(&cluster);
    let split = choose(&ministries, cluster.nodes(), &mut seed);
    println!("killed: {:?}; {} is served, {} is down", split.killed, split.served, split.down);
    let (served, down) = (folder(split.served, "served"), folder(split.down, "down"));
    let mut load = Load::new(seed.number, &[(Kind::Small, &served)]);
    load.prepare(cluster.mount(0));
    let mut lost = Load::new(seed.number + 1, &[(Kind::Small, &down)]);
    lost.prepare(cluster.mount(0));
    let lost_running = lost.start(cluster.mount(0));
    lost_running.wait_until_all_go_on(GOING_ON);
    let mut lost = lost_running.stop();
    let calls = cluster.mount(0).join(folder(split.down, "calls"));
    std::fs::create_dir(&calls).unwrap();
    std::fs::write(calls.join("file"), "content").unwrap();

    let running = load.start(cluster.mount(0));
    running.wait_until_all_go_on(GOING_ON);
    for node in &split.killed {
        cluster.kill_node(*node);
    }
    // Until then a minister that is left alone may answer, and rightly.
    std::thread::sleep(LEASE_OVER);
    let before = running.done();
    calls_end_at_their_deadline(&calls, || running.wait_until_all_go_on(Duration::from_secs(10)));
    let during = running.done()[0] - before[0];
    load = running.stop();
    println!("{}", load.summary());
    assert!(during > 100, "only {during} operations were served meanwhile");

    cluster.start_all();
    lost.verify(cluster.mount(0));
    load.verify(cluster.mount(0));
    // Whatever the calls came to, they came to it whole.
    let names = ["file", "renamed"].map(|name| std::fs::read_to_string(calls.join(name)).ok());
    assert_eq!(names.iter().flatten().collect::<Vec<_>>(), ["content"]);
    std::fs::write(calls.join("after"), "after").expect("all is served again");
    cluster.assert_all_run();
}
