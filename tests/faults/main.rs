//! A whole cluster of real processes that are killed, stopped and paused under load.
//!
//! Every choice comes from a seed, which a failure prints with the command that repeats it; the
//! moments are the machine's own, so a repetition makes the same choices, not the same schedule.
//! `MINISTRY_ROUNDS` says how often everything is killed. Needs root, as all that mounts.

mod everything;
mod majority;
mod mounts;
mod one_node;

use std::time::Duration;

use ministry_tests::Cluster;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

/// How many ministries are made at most so that each node is missing in one.
const MINISTRIES_MAX: u64 = 8;
/// How long the programs of a load may take to go on after a fault: an operation's own time.
const GOING_ON: Duration = Duration::from_secs(60);

/// Where a test's choices come from.
struct Seed {
    test: &'static str,
    number: u64,
    random: SmallRng,
}

impl Seed {
    /// `MINISTRY_SEED`, or any.
    fn of(test: &'static str) -> Seed {
        let given = std::env::var("MINISTRY_SEED").ok();
        let number = given.map_or_else(
            || u64::from(rand::random::<u32>()),
            |seed| seed.parse().expect("MINISTRY_SEED is a number"),
        );
        println!("seed {number}");
        Seed { test, number, random: SmallRng::seed_from_u64(number) }
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.random.random_range(range))
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("repeat it: MINISTRY_SEED={} tests/run faults {}", self.number, self.test);
        }
    }
}

/// A number from the environment.
fn knob(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Makes ministries until every node is missing in one; gives the members of each by its number,
/// the minister first. The subtree of ministry `n` is `/n`, but `/` of the first.
fn make_ministries(cluster: &Cluster) -> Vec<(u64, Vec<usize>)> {
    let mut ministries = vec![(1, cluster.members(1))];
    while (0..cluster.nodes()).any(|node| outside(&ministries, node).next().is_none()) {
        let number = ministries.len() as u64 + 1;
        assert!(number <= MINISTRIES_MAX, "a node is in all of {ministries:?}");
        std::fs::create_dir(cluster.mount(0).join(number.to_string())).expect("a folder");
        let made = cluster.create_ministry(&format!("/{number}"));
        assert!(made.status.success(), "{made}");
        ministries.push((number, cluster.members(number)));
    }
    println!("ministries: {ministries:?}");
    ministries
}

/// The ministries that a node has no part in.
fn outside(ministries: &[(u64, Vec<usize>)], node: usize) -> impl Iterator<Item = u64> {
    let of =
        move |(number, members): &(u64, Vec<usize>)| (!members.contains(&node)).then_some(*number);
    ministries.iter().filter_map(of)
}

/// Every appointment so far, as the history tells it.
fn appointments(cluster: &Cluster) -> Vec<Value> {
    let answer = cluster.json(&["events"]);
    let events = answer["events"].as_array().expect("a list");
    events.iter().filter(|event| event["order"] == "appoint").cloned().collect()
}
