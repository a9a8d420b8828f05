//! What an operator sees: `ministryctl`, the metrics, the health page.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use ministry_tests::{Cluster, Program, tree, wait};
use serde_json::Value;

use crate::{healthy, text};

const COLUMNS: usize = 100;

/// A request to a web page: status line and body.
pub(crate) fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

fn busy() -> Cluster {
    let cluster = Cluster::with_two_mounts();
    let top = cluster.mount(0);
    std::fs::create_dir(top.join("a-folder-with-quite-a-long-name-for-a-table")).unwrap();
    let made = cluster.create_ministry("/a-folder-with-quite-a-long-name-for-a-table");
    assert!(made.status.success(), "{made}");
    std::fs::write(top.join("small"), "small").unwrap();
    std::fs::write(top.join("large"), tree::bytes(1, 300_000)).unwrap();
    std::os::unix::fs::symlink("small", top.join("link")).unwrap();
    cluster
}

#[test]
fn every_table_fits_a_hundred_columns_and_every_json_parses() {
    let mut cluster = busy();
    let top = cluster.mount(0).to_owned();
    let mut questions: Vec<Vec<&str>> = vec![
        vec!["status"],
        vec!["roles"],
        vec!["events"],
        vec!["ministries"],
        vec!["pgs"],
        vec!["node", "list"],
        vec!["where", "--fs-path", "/"],
        vec!["where", "--fs-path", "/small"],
    ];
    let paths = ["large", "small", "link", "."].map(|name| top.join(name));
    questions.extend(paths.iter().map(|path| vec!["where", text(path)]));
    for question in &questions {
        let table = cluster.ctl(question).env("COLUMNS", "100").ok();
        assert!(!table.trim().is_empty(), "{question:?}");
        for line in table.lines() {
            let width = line.chars().count();
            assert!(width <= COLUMNS, "{question:?}: {width} columns: {line}");
            assert!(!line.contains('\u{1b}'), "no colours into a file: {line:?}");
        }
        let answer = cluster.json(question);
        assert_eq!(answer["schema"], 1, "{question:?}");
    }
    healthy(&mut cluster);
}

#[test]
fn the_answers_agree_with_each_other_and_with_the_cluster() {
    let mut cluster = busy();
    let status = cluster.json(&["status"]);
    assert_eq!(status["healthy"], true, "{status}");
    assert_eq!(status["problems"].as_array().unwrap().len(), 0);
    assert_eq!(status["placement_groups"]["total"], status["placement_groups"]["whole"]);
    assert_eq!(status["nodes"].as_array().unwrap().len(), 5);
    let roles = cluster.json(&["roles"]);
    let roles = roles["roles"].as_array().unwrap();
    let count = |what: &dyn Fn(&Value) -> u64| roles.iter().map(what).sum::<u64>();
    let length = |value: &Value| value.as_array().unwrap().len() as u64;
    assert_eq!(count(&|role| u64::from(role["president"] == true)), 1);
    assert_eq!(count(&|role| length(&role["minister_of"])), 2);
    assert_eq!(count(&|role| length(&role["clerk_of"])), 4);
    let groups = status["placement_groups"]["total"].as_u64().unwrap();
    assert_eq!(count(&|role| role["master_of_pgs"].as_u64().unwrap()), groups);
    assert_eq!(count(&|role| role["slave_in_pgs"].as_u64().unwrap()), 2 * groups);
    // Where the bytes are said to lie, they lie.
    let path = cluster.mount(0).join("large");
    let told = cluster.json(&["where", text(&path)]);
    let inode = told["inode"].as_u64().unwrap();
    let mut said: Vec<usize> = told["chunks"][0]["replicas"]
        .as_array()
        .unwrap()
        .iter()
        .map(|replica| cluster.node_of(replica["node"].as_str().unwrap()))
        .collect();
    said.sort_unstable();
    let objects = cluster.objects_of(inode);
    let found: Vec<usize> = (0..cluster.nodes())
        .filter(|node| objects.iter().any(|path| path.starts_with(cluster.data(*node))))
        .collect();
    assert_eq!(said, found);
    // Every appointment is among the events, with its reason.
    let events = cluster.json(&["events"]);
    let events = events["events"].as_array().unwrap();
    let appointed = events.iter().filter(|event| event["order"] == "appoint");
    assert!(appointed.clone().count() >= 2);
    assert!(appointed.into_iter().all(|event| !event["reason"].as_str().unwrap().is_empty()));
    let indices: Vec<u64> = events.iter().map(|event| event["index"].as_u64().unwrap()).collect();
    assert!(indices.is_sorted());
    let later = cluster.json(&["events", "--from", &indices[5].to_string()]);
    assert_eq!(later["events"][0]["index"], indices[5]);
    healthy(&mut cluster);
}

#[test]
fn each_node_serves_metrics_and_health() {
    let mut cluster = busy();
    let mut presidents = 0;
    let mut masters = 0;
    for node in 0..cluster.nodes() {
        let address = cluster.ports().metrics(node);
        let (status, body) = get(&address, "/health");
        assert!(status.contains("200"), "node {node}: {status} {body}");
        let health: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(health["healthy"], true, "node {node}: {health}");
        assert_eq!(health["node"], cluster.id(node));
        presidents += usize::from(health["role"] == "president");
        // The load of the process is sampled every few seconds.
        let sampled = |(_, text): &(String, String)| text.contains("ministry_process_");
        let (status, metrics) = wait::until(Duration::from_secs(20), "a sample", || {
            Some(get(&address, "/metrics")).filter(sampled)
        });
        assert!(status.contains("200"), "{status}");
        check_metrics(&metrics);
        masters += usize::from(metrics.contains("ministry_storage"));
        let (status, _) = get(&address, "/nothing");
        assert!(status.contains("404"), "{status}");
    }
    assert_eq!(presidents, 1);
    assert!(masters > 0, "somebody stored the file");
    healthy(&mut cluster);
}

/// The text format of Prometheus: every sample belongs to a described metric and has a number.
fn check_metrics(text: &str) {
    let mut described: Vec<&str> = Vec::new();
    let mut samples = 0;
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            described.push(rest.split(' ').next().unwrap());
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end))
                .filter(|base| described.contains(base))
                .unwrap_or(name);
            assert!(described.contains(&base), "{line}: no type");
            assert!(name.starts_with("ministry_"), "{line}");
            let value = line.rsplit(' ').next().unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            samples += 1;
        }
    }
    assert!(samples > 30, "only {samples} samples");
    for wanted in ["ministry_process_", "ministry_transport_connections"] {
        assert!(text.contains(wanted), "{wanted} is missing");
    }
}

#[test]
fn a_node_that_is_gone_is_a_problem_that_status_names() {
    let mut cluster = Cluster::start();
    let victim = (0..cluster.nodes()).find(|node| *node != cluster.president()).unwrap();
    cluster.kill_node(victim);
    let id = cluster.id(victim)[..8].to_owned();
    wait::until_true(Duration::from_secs(20), "status names the node", || {
        let status = cluster.json(&["status"]);
        let problems = status["problems"].to_string();
        status["healthy"] == false && problems.contains(&id)
    });
    cluster.start_all();
    wait::until_true(Duration::from_secs(20), "all is well again", || {
        cluster.json(&["status"])["healthy"] == true
    });
}

#[test]
fn errors_end_with_the_code_of_their_kind() {
    let cluster = Cluster::start();
    let code = |program: Program| {
        let ended = program.run();
        assert!(!ended.err.trim().is_empty(), "{ended}");
        assert!(!ended.err.contains("panicked"), "{ended}");
        ended.status.code()
    };
    assert_eq!(code(cluster.ctl(&["fly"])), Some(2));
    assert_eq!(code(cluster.plain_ctl().args(["status"])), Some(4));
    let nobody = cluster.ports().spare(0);
    assert_eq!(code(cluster.ctl(&["--address", &nobody, "--timeout", "1s", "status"])), Some(3));
    assert_eq!(code(cluster.ctl(&["where", "/etc/passwd"])), Some(1), "not on a mount");
    assert_eq!(code(cluster.ctl(&["where", "--fs-path", "/missing"])), Some(1));
    assert_eq!(code(cluster.ctl(&["umount"]).arg(cluster.scratch())), Some(2), "not a mount");
    let full = cluster.scratch().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("f"), "").unwrap();
    let identity = cluster.new_client("another");
    let mount = cluster.ctl(&["mount", "--identity"]).arg(&identity);
    assert_eq!(code(mount.clone().arg(&full)), Some(2), "not empty");
    assert_eq!(code(mount.arg(cluster.scratch().join("missing"))), Some(2));
}
