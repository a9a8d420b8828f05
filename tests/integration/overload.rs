//! Ten times what a node lets in: everything ends, nothing ends a process, and memory stays bounded.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ministry_client::{Client, ClientConfig, NewObject};
use ministry_tests::{Cluster, Plan};
use ministry_transport::{Identity, Role, Security, TcpConnector};
use ministry_types::limits::{CLIENT_REQUESTS_PER_NODE_MAX, SLOTS_PER_SESSION};
use ministry_types::{Caller, FsError, InodeId};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::task::JoinSet;

/// Clients, each with connections of its own: one alone holds back what it sends. So many that
/// their changes alone, a slot each, are four times what a node lets in: all are there long before
/// a quarter of them is in the log, however fast the machine is.
const CLIENTS: usize = 4 * CLIENT_REQUESTS_PER_NODE_MAX / SLOTS_PER_SESSION as usize;
/// Requests of all clients together, all begun at once.
const REQUESTS: usize = 10 * CLIENT_REQUESTS_PER_NODE_MAX;
/// One of so many is a question, all others are changes, which wait for the log.
const QUESTION_EVERY: usize = 4;
/// One of so many questions is a listing: the largest answer there is.
const LISTING_EVERY: usize = 16;
/// Names in the directory that is listed.
const NAMES: usize = 1000;
/// What all five nodes may take while they are overloaded: the room for requests of one node, and
/// what they take at rest.
const MEMORY_MAX: u64 = 1200 << 20;

fn addresses(identity: &Path) -> Vec<SocketAddr> {
    let text = std::fs::read_to_string(identity.join("addresses")).expect("the addresses");
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.parse().expect("an address")).collect()
}

async fn connect(identity: &Path, seed: u64) -> Client {
    let known = Identity::load(identity, Role::Client).expect("an identity");
    let security = Arc::new(Security::tls(known).expect("a certificate"));
    let config = ClientConfig {
        security,
        connector: Arc::new(TcpConnector),
        addresses: addresses(identity),
        rng: SmallRng::seed_from_u64(seed),
    };
    Client::connect(config).await.expect("a connection")
}

/// The largest memory of the nodes, looked at now and then until `done`.
fn watch_memory(cluster: &Cluster, done: &AtomicBool) -> u64 {
    let mut most = 0;
    while !done.load(Ordering::Relaxed) {
        most = most.max(cluster.memory());
        std::thread::sleep(Duration::from_millis(50));
    }
    most
}

/// A counter of a node; 0 while it was never counted.
fn metric(cluster: &Cluster, node: usize, name: &str) -> f64 {
    let mut stream =
        TcpStream::connect(cluster.ports().metrics(node)).expect("the page of metrics");
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).expect("a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or(0.0)
}

async fn storm(clients: &[Client], folder: InodeId, busy: &AtomicU64) {
    let mut requests = JoinSet::new();
    for number in 0..REQUESTS {
        let client = clients[number % clients.len()].clone();
        requests.spawn(async move {
            let caller = Caller::root();
            if !number.is_multiple_of(QUESTION_EVERY) {
                let name = format!("new-{number}");
                let new = NewObject::file(0o644);
                client.create(&caller, folder, name.as_bytes(), new).await.map(|_| ())
            } else if number.is_multiple_of(QUESTION_EVERY * LISTING_EVERY) {
                client.list(&caller, folder, 0, NAMES, true).await.map(|_| ())
            } else {
                client.getattr(&caller, folder).await.map(|_| ())
            }
        });
    }
    while let Some(ended) = requests.join_next().await {
        match ended.expect("no request panics") {
            Ok(()) => {}
            // A program that meets this tries again or reports it: slow, and told so.
            Err(FsError::Overloaded | FsError::TimedOut) => {
                busy.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => panic!("a request ended in {error}"),
        }
    }
}

#[test]
fn ten_times_the_load_is_slow_and_nothing_worse() {
    let mut cluster = Cluster::with(Plan { nodes: 3, ..Plan::default() });
    let identity = cluster.new_client("storm");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (clients, folder) = runtime.block_on(async {
        let mut clients = Vec::new();
        for seed in 0..CLIENTS {
            clients.push(connect(&identity, seed as u64).await);
        }
        let caller = Caller::root();
        let new = NewObject::directory(0o755);
        let folder = clients[0].create(&caller, InodeId::ROOT, b"d", new).await.unwrap().inode;
        for number in 0..NAMES {
            let name = format!("name-{number}-{}", "x".repeat(100));
            let new = NewObject::file(0o644);
            clients[0].create(&caller, folder, name.as_bytes(), new).await.unwrap();
        }
        (clients, folder)
    });
    let (busy, done, began) = (AtomicU64::new(0), AtomicBool::new(false), Instant::now());
    let most = std::thread::scope(|scope| {
        let watch = scope.spawn(|| watch_memory(&cluster, &done));
        runtime.block_on(storm(&clients, folder, &busy));
        done.store(true, Ordering::Relaxed);
        watch.join().expect("the watch does not panic")
    });
    let refused: f64 = (0..cluster.nodes())
        .map(|node| metric(&cluster, node, "ministry_minister_busy_total"))
        .sum();
    println!(
        "{REQUESTS} requests at once: {:?}, {refused} refused, {} given up, at most {} MiB",
        began.elapsed(),
        busy.load(Ordering::Relaxed),
        most >> 20
    );
    assert!(most < MEMORY_MAX, "{} MiB of memory", most >> 20);
    // Whoever comes after is served as ever.
    let began = Instant::now();
    std::fs::write(cluster.mount(0).join("after"), "content").unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(refused > 0.0, "nothing was refused: this was no overload");
    cluster.assert_all_run();
}
