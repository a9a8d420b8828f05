//! Who has no business here is refused, and both ends say why.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ministry_tests::{Cluster, Ended, Plan, wait};

use crate::text;

fn small() -> Cluster {
    Cluster::with(Plan { nodes: 3, mounts: 0, ..Plan::default() })
}

/// Whether the log of any node has a line with all of this.
fn logged(cluster: &Cluster, words: &[&str]) -> bool {
    (0..cluster.nodes()).any(|node| {
        let log = cluster.log_of(node);
        log.lines().any(|line| words.iter().all(|word| line.contains(word)))
    })
}

fn is_logged(cluster: &Cluster, words: &[&str]) {
    let what = format!("a node logs {words:?}");
    wait::until_true(Duration::from_secs(10), &what, || logged(cluster, words));
}

fn refused(ended: &Ended, why: &str) {
    assert!(!ended.status.success(), "this had to be refused: {ended}");
    assert!(ended.err.contains(why), "{ended}");
    assert_eq!(ended.err.matches(why).count(), 1, "said once: {ended}");
}

/// A copy of a folder with credentials, under other names.
fn disguised(from: &Path, to: PathBuf, old: &str, new: &str) -> PathBuf {
    std::fs::create_dir_all(&to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        if entry.path().is_file() {
            let name = entry.file_name().into_string().unwrap().replace(old, new);
            std::fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
    to
}

#[test]
fn a_token_serves_once_in_time_and_for_its_purpose() {
    let cluster = small();
    let invite = |flags: &[&str]| cluster.ctl(&["invite"]).args(flags).ok().trim().to_owned();
    let join = |token: &str, name: &str| {
        let identity = cluster.scratch().join(name);
        cluster.plain_ctl().args(["client", "join", token, "--identity"]).arg(identity).run()
    };
    let short = invite(&["--client", "--for", "1s"]);
    let token = invite(&["--client"]);
    let for_node = invite(&["--node"]);
    assert!(join(&token, "first").status.success());
    refused(&join(&token, "second"), "used already");
    is_logged(&cluster, &["refused", "used already"]);
    std::thread::sleep(Duration::from_millis(1_500));
    refused(&join(&short, "late"), "the token ended");
    is_logged(&cluster, &["refused", "the token ended"]);
    refused(&join(&for_node, "wrong"), "for a node");
    let as_node = cluster.scratch().join("node");
    let listen = cluster.ports().spare(0);
    let words = ["join", &invite(&["--client"]), "--data", text(&as_node), "--listen", &listen];
    refused(&cluster.ministryd(&words).run(), "for a client");
    // A letter off: not even asked.
    let damaged = format!("{}aaaa", &for_node[..for_node.len() - 4]);
    assert_eq!(join(&damaged, "damaged").status.code(), Some(2));
    // The token for a node still serves: what was refused has not used it up.
    let words = ["join", &for_node, "--data", text(&as_node), "--listen", &listen];
    let joined = cluster.ministryd(&words).run();
    assert!(joined.status.success(), "{joined}");
}

#[test]
fn certificates_open_only_their_own_doors() {
    let cluster = small();
    let client = cluster.new_client("honest");
    let operator = cluster.top().join("admin");
    // The programs look at their own credentials first; what they show is refused in one line.
    let disguise = disguised(&client, cluster.scratch().join("admin"), "client", "operator");
    let asked = cluster.plain_ctl().args(["--admin", text(&disguise), "status"]).run();
    assert_eq!(asked.status.code(), Some(4), "{asked}");
    refused(&asked, "it is for a client");
    let disguise = disguised(&operator, cluster.scratch().join("client"), "operator", "client");
    let point = cluster.scratch().join("point");
    std::fs::create_dir(&point).unwrap();
    let mount = |identity: &Path, more: &[&str]| {
        let words = ["mount", text(&point), "--identity", text(identity), "--timeout", "3s"];
        cluster.plain_ctl().args(words).args(more).arg("--foreground").run()
    };
    refused(&mount(&disguise, &[]), "it is for a");
    assert!(std::fs::read_dir(&point).unwrap().next().is_none());
}

#[test]
fn a_clients_certificate_starts_no_node() {
    let mut cluster = small();
    let client = cluster.new_client("would-be-node");
    cluster.stop_node(2);
    let identity = cluster.data(2).join("identity");
    let kept = disguised(&identity, cluster.scratch().join("kept"), "", "");
    for part in ["crt", "key"] {
        let from = client.join(format!("client.{part}"));
        std::fs::copy(from, identity.join(format!("node.{part}"))).unwrap();
    }
    let data = cluster.data(2);
    refused(&cluster.ministryd(&["run", "--data", text(&data)]).run(), "it is for a client");
    for part in ["crt", "key"] {
        let name = format!("node.{part}");
        std::fs::copy(kept.join(&name), identity.join(&name)).unwrap();
    }
    cluster.start_all();
    assert!(cluster.runs(2));
}

#[test]
fn the_certificates_of_another_cluster_are_refused_by_both_ends() {
    let here = small();
    let there = small();
    let addresses: Vec<String> = (0..3).map(|node| here.ports().node(node)).collect();
    // An operator of the other cluster.
    let asked = there.ctl(&["--timeout", "2s", "--address", &addresses[0], "status"]).run();
    assert!(!asked.status.success(), "{asked}");
    println!("{asked}");
    // A client of the other cluster.
    let client = there.new_client("stranger");
    let point = here.scratch().join("point");
    std::fs::create_dir(&point).unwrap();
    let words = ["mount", text(&point), "--foreground", "--identity", text(&client)];
    let mut mount = there.plain_ctl().args(words).args(["--timeout", "3s"]);
    for address in &addresses {
        mount = mount.args(["--address", address]);
    }
    let mounted = mount.run();
    assert!(!mounted.status.success(), "{mounted}");
    println!("{mounted}");
    is_logged(&here, &["WARN ministry_transport::refusals"]);
    assert!(here.json(&["status"])["healthy"] == true);
}

#[test]
fn what_is_not_tls_is_refused_and_disturbs_nobody() {
    let cluster = small();
    let address = cluster.ports().node(0);
    for request in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0; 2_000], &[0xFF; 5], b"\n"] {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        let _ = stream.write_all(request);
        if request.len() < 6 {
            // Less than the head of a record: closed by us.
            continue;
        }
        let mut answer = Vec::new();
        // Closed or reset, after an alert of TLS at most: never an answer, never a hang.
        if let Err(error) = stream.read_to_end(&mut answer) {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "it hangs: {error}");
        }
        assert!(answer.len() < 64, "{answer:?}");
    }
    is_logged(&cluster, &["connection refused", "does not speak TLS"]);
    // Connections that say nothing do not keep others out.
    let silent: Vec<TcpStream> =
        (0..200).filter_map(|_| TcpStream::connect(&address).ok()).collect();
    assert!(silent.len() > 100);
    assert!(cluster.json(&["--address", &address, "status"])["healthy"] == true);
}
