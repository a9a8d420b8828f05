//! One node is killed, stopped or paused under load, and comes back.

use std::io::Write;
use std::time::{Duration, Instant};

use ministry_tests::load::{Kind, Load, Operation};
use ministry_tests::{Cluster, Plan};
use rand::seq::SliceRandom;
use serde_json::Value;

use crate::{GOING_ON, Seed, appointments, make_ministries, outside};

/// How long the first node that is killed stays away, and each of the others.
const AWAY_LONG: Duration = Duration::from_secs(10);
const AWAY: Duration = Duration::from_secs(4);
/// How long a minister or president stands still: longer than it takes to be replaced, shorter
/// than a session lives.
const PAUSE: Duration = Duration::from_secs(3);
/// Load before a fault.
const BEFORE: Duration = Duration::from_millis(800);
/// The longest that a program may wait for a ministry that has nothing to do with the node that is
/// away. It does not wait for it at all, but two cores carry five nodes and all programs.
const UNTOUCHED_MAX: Duration = Duration::from_secs(2);
/// Operations that such a program does at least while the node is away.
const UNTOUCHED_OPERATIONS: usize = 20;

const COMMON: [(Kind, &str); 6] = [
    (Kind::Small, "small"),
    (Kind::Large, "large"),
    (Kind::Overwrite, "overwrite"),
    (Kind::Append, "append"),
    (Kind::Rename, "rename"),
    (Kind::Rewrite, "rewrite"),
];

/// Starts the load, does `fault`, waits until every program goes on, and checks that everything is
/// there on both mounts. A program that gets an error fails the test.
fn under_load(
    cluster: &mut Cluster,
    load: Load,
    fault: impl FnOnce(&mut Cluster),
) -> (Load, Instant, Instant) {
    let running = load.start(cluster.mount(0));
    std::thread::sleep(BEFORE);
    let began = Instant::now();
    fault(cluster);
    let ended = Instant::now();
    running.wait_until_all_go_on(GOING_ON);
    let mut load = running.stop();
    println!("{}", load.summary());
    // The other mount's kernel knows nothing of these files.
    load.verify(cluster.mount(1));
    load.verify(cluster.mount(0));
    cluster.wait_until_serving();
    (load, began, ended)
}

fn within(operations: &[Operation], began: Instant, ended: Instant) -> Vec<Operation> {
    let touches = |one: &&Operation| one.ended > began && one.began < ended;
    operations.iter().filter(touches).copied().collect()
}

fn longest(operations: &[Operation]) -> Duration {
    operations.iter().map(Operation::took).max().unwrap_or_default()
}

/// What a node is, for the output.
fn offices(cluster: &Cluster, ministries: &[(u64, Vec<usize>)], node: usize) -> String {
    let mut offices = Vec::new();
    if cluster.president() == node {
        offices.push("president".to_owned());
    }
    for (number, _) in ministries {
        let members = cluster.members(*number);
        if let Some(place) = members.iter().position(|member| *member == node) {
            let office = if place == 0 { "minister" } else { "clerk" };
            offices.push(format!("{office} of {number}"));
        }
    }
    let pgs = cluster.json(&["pgs"]);
    let of = |role: &str| {
        let is = |pg: &&Value| match &pg[role] {
            Value::String(id) => id == cluster.id(node),
            Value::Array(ids) => ids.iter().any(|id| id == cluster.id(node)),
            other => panic!("{role} of a placement group is {other}"),
        };
        pgs["placement_groups"].as_array().expect("a list").iter().filter(is).count()
    };
    offices.push(format!("master of {} and slave of {} groups", of("master"), of("slaves")));
    offices.join(", ")
}

#[test]
fn a_node_that_is_killed_and_comes_back_costs_time_but_no_error() {
    let mut seed = Seed::of("a_node_that_is_killed_and_comes_back_costs_time_but_no_error");
    let mut cluster = Cluster::with_two_mounts();
    let ministries = make_ministries(&cluster);
    let served: Vec<(u64, String)> =
        ministries.iter().map(|(number, _)| (*number, folder(*number))).collect();
    let mut places = COMMON.to_vec();
    places.extend(served.iter().map(|(_, folder)| (Kind::Small, folder.as_str())));
    let mut load = Load::new(seed.number, &places);
    load.prepare(cluster.mount(0));

    let mut order: Vec<usize> = (0..cluster.nodes()).collect();
    order.shuffle(&mut seed.random);
    let mut killed_in_office = [false; 3];
    for (round, node) in order.into_iter().enumerate() {
        let is = offices(&cluster, &ministries, node);
        for (office, killed) in
            ["president", "minister", "master"].iter().zip(&mut killed_in_office)
        {
            *killed |= is.contains(office);
        }
        let away = if round == 0 { AWAY_LONG } else { AWAY };
        println!("node {node} is killed for {away:?}: {is}");
        let (after, began, ended) = under_load(&mut cluster, load, |cluster| {
            cluster.kill_node(node);
            std::thread::sleep(away);
            cluster.start_node(node);
        });
        load = after;
        for number in outside(&ministries, node) {
            let during = within(load.operations(&folder(number)), began, ended);
            let (count, longest) = (during.len(), longest(&during));
            println!(
                "ministry {number} has no part in it: {count} operations, longest {longest:.2?}"
            );
            assert!(count >= UNTOUCHED_OPERATIONS, "ministry {number} served only {count}");
            assert!(longest < UNTOUCHED_MAX, "ministry {number} was waited for: {longest:?}");
        }
        // Files lie on all nodes: a program that writes them had to wait, or nothing was shown.
        let waited = longest(load.operations("large"));
        assert!(waited > away / 2, "the node was not needed: the longest wait was {waited:?}");
    }
    // Offices move while the nodes take their turns, but one of each kind was hit.
    assert_eq!(killed_in_office[1..], [true, true], "no minister or no master was killed");
    assert!(killed_in_office[0], "no president was killed");
    cluster.assert_all_run();
}

fn folder(ministry: u64) -> String {
    if ministry == 1 { "served".to_owned() } else { format!("{ministry}/served") }
}

/// What is written and not synced is in the memory of the minister and of the mount alone.
#[test]
fn what_was_written_and_not_synced_survives_the_death_of_its_minister() {
    let mut cluster = Cluster::with_two_mounts();
    for round in 0..6 {
        let (top, other) = (cluster.mount(0).to_owned(), cluster.mount(1).to_owned());
        let minister = cluster.minister(1);
        // Large enough to lie in chunks; another mount has a part in every second file.
        let mut expected = Vec::new();
        for number in 0..40 {
            let name = format!("unsynced-{round}-{number}");
            let mut content = vec![number as u8; if number % 2 == 0 { 700 } else { 9_000 }];
            std::fs::write(top.join(&name), &content).unwrap();
            expected.push((name, content.clone()));
            if number % 4 < 2 {
                continue;
            }
            let mut file =
                std::fs::OpenOptions::new().append(true).open(other.join(&expected[number].0));
            file.as_mut().unwrap().write_all(b"from the other mount").unwrap();
            content.extend(b"from the other mount");
            expected[number].1 = content;
        }
        let times: Vec<_> = expected
            .iter()
            .map(|(name, _)| std::fs::metadata(top.join(name)).unwrap().modified().unwrap())
            .collect();
        cluster.kill_node(minister);
        // What lies in chunks waits for the storage of the node that is away.
        let (small, large): (Vec<_>, Vec<_>) =
            expected.iter().zip(times).partition(|((_, content), _)| content.len() < 4_000);
        for (place, ((name, content), time)) in small.into_iter().chain(large).enumerate() {
            if place == 20 {
                assert_ne!(cluster.minister(1), minister, "nobody else was appointed");
                cluster.start_node(minister);
            }
            let found = std::fs::read(other.join(name)).unwrap();
            assert!(found == *content, "{name}: {} bytes of {}", found.len(), content.len());
            let modified = std::fs::metadata(top.join(name)).unwrap().modified().unwrap();
            assert_eq!(modified, time, "{name}");
        }
        cluster.wait_until_serving();
    }
    cluster.assert_all_run();
}

#[test]
fn ministers_and_presidents_are_restarted_under_load_without_an_error() {
    let seed = Seed::of("ministers_and_presidents_are_restarted_under_load_without_an_error");
    let mut cluster = Cluster::with_two_mounts();
    let mut load = Load::new(seed.number, &COMMON);
    load.prepare(cluster.mount(0));
    for round in 0..4 {
        let (office, node) = match round % 2 {
            0 => ("minister", cluster.minister(1)),
            _ => ("president", cluster.president()),
        };
        println!("{office}, node {node}, is restarted");
        let restarted = under_load(&mut cluster, load, |cluster| {
            cluster.stop_node(node);
            cluster.start_node(node);
        });
        load = restarted.0;
    }
    cluster.assert_all_run();
}

#[test]
fn a_minister_that_stands_still_is_replaced_and_nothing_is_lost() {
    let seed = Seed::of("a_minister_that_stands_still_is_replaced_and_nothing_is_lost");
    let mut cluster = Cluster::with(Plan { mounts: 2, ..Plan::default() });
    let mut load = Load::new(seed.number, &COMMON);
    load.prepare(cluster.mount(0));
    for _ in 0..2 {
        let node = cluster.minister(1);
        let before = appointments(&cluster).len();
        println!(
            "minister, node {node}, stands still: {}",
            offices(&cluster, &[(1, vec![])], node)
        );
        let paused = under_load(&mut cluster, load, |cluster| {
            cluster.pause_node(node);
            std::thread::sleep(PAUSE);
            cluster.resume_node(node);
        });
        load = paused.0;
        let appointments = appointments(&cluster).split_off(before);
        println!("appointments: {appointments:#?}");
        let other = |event: &Value| {
            !event["text"].as_str().expect("a text").starts_with(&cluster.id(node)[..8])
        };
        assert!(appointments.iter().any(other), "nobody else was appointed: {appointments:?}");
    }
    cluster.assert_all_run();
}

#[test]
fn a_president_that_stands_still_is_replaced_and_nothing_is_lost() {
    let seed = Seed::of("a_president_that_stands_still_is_replaced_and_nothing_is_lost");
    let mut cluster = Cluster::with_two_mounts();
    let mut load = Load::new(seed.number, &COMMON);
    load.prepare(cluster.mount(0));
    let node = cluster.president();
    println!("president, node {node}, stands still");
    under_load(&mut cluster, load, |cluster| {
        cluster.pause_node(node);
        std::thread::sleep(PAUSE);
        cluster.resume_node(node);
    });
    assert_ne!(cluster.president(), node, "the president was not replaced");
    cluster.assert_all_run();
}
