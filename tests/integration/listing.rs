//! Directories of very many entries: each name once, in constant memory, while others change.
//!
//! `MINISTRY_ENTRIES` says how many entries; 100,000 unless it does.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use futures::StreamExt;
use ministry_client::{Client, ClientConfig, NewObject};
use ministry_tests::{Cluster, Program};
use ministry_transport::{Identity, Role, Security, TcpConnector};
use ministry_types::{Caller, InodeId};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::{MINUTE, text};

const ENTRIES: usize = 100_000;
/// Creations under way at once.
const CALLERS: usize = 128;
/// What a mount and a minister may grow by while a directory of any size is listed.
const GROWTH_MAX: u64 = 48 << 20;

fn entries() -> usize {
    std::env::var("MINISTRY_ENTRIES").ok().and_then(|text| text.parse().ok()).unwrap_or(ENTRIES)
}

async fn connect(cluster: &Cluster) -> Client {
    let identity = Identity::load(&cluster.new_client("library"), Role::Client).unwrap();
    let addresses = (0..cluster.nodes()).map(|node| cluster.ports().node(node).parse().unwrap());
    let config = ClientConfig {
        security: Arc::new(Security::tls(identity).unwrap()),
        connector: Arc::new(TcpConnector),
        addresses: addresses.collect(),
        rng: SmallRng::from_os_rng(),
    };
    Client::connect(config).await.unwrap()
}

/// Makes files `PREFIX0`, `PREFIX1`, ... with many callers at once.
async fn make(client: &Client, directory: InodeId, prefix: &str, count: usize) {
    let one = |number: usize| async move {
        let name = format!("{prefix}{number}");
        let new = NewObject::file(0o644);
        client.create(&Caller::root(), directory, name.as_bytes(), new).await.unwrap();
    };
    futures::stream::iter((0..count).map(one)).buffer_unordered(CALLERS).collect::<()>().await;
}

/// Makes and removes names of its own until it is told to stop; gives how many.
async fn churn(client: &Client, directory: InodeId, stop: &AtomicBool) -> usize {
    let rounds = AtomicUsize::new(0);
    let one = |caller: usize| {
        let rounds = &rounds;
        async move {
            while !stop.load(Ordering::Relaxed) {
                let number = rounds.fetch_add(1, Ordering::Relaxed);
                let name = format!("comes-and-goes-{caller}-{number}");
                let new = NewObject::file(0o644);
                let root = Caller::root();
                client.create(&root, directory, name.as_bytes(), new).await.unwrap();
                client.unlink(&root, directory, name.as_bytes()).await.unwrap();
            }
        }
    };
    futures::future::join_all((0..4).map(one)).await;
    rounds.into_inner()
}

/// Lists through the mount; each name must come once, and all that stay must come.
fn check_listing(folder: &Path, staying: usize) {
    let mut seen: HashSet<Vec<u8>> = HashSet::new();
    let mut stayed = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_encoded_bytes();
        stayed += usize::from(name.starts_with(b"stays-"));
        let shown = String::from_utf8_lossy(&name).into_owned();
        assert!(seen.insert(name), "{shown} was listed twice");
    }
    assert_eq!(stayed, staying, "names that stayed");
}

fn timed(what: &str, work: impl FnOnce()) {
    let began = Instant::now();
    work();
    println!("{what}: {:.2} s", began.elapsed().as_secs_f64());
}

#[test]
fn a_large_directory_is_listed_whole_in_constant_memory_while_it_changes() {
    let mut cluster = Cluster::start();
    let folder = cluster.mount(0).join("large");
    std::fs::create_dir(&folder).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = runtime.block_on(connect(&cluster));
    let directory = runtime.block_on(client.resolve(&Caller::root(), b"/large")).unwrap().inode;
    let count = entries();
    timed("creating", || runtime.block_on(make(&client, directory, "stays-", count)));
    let minister = cluster.minister(1);
    let mount_before = cluster.mount_process(0).memory();
    let minister_before = cluster.running(minister).memory();
    timed("listing", || check_listing(&folder, count));
    timed("ls -f", || {
        let list = format!("ls -f {} | wc -l", text(&folder));
        let out = Program::script(&list).within(5 * MINUTE).ok();
        assert_eq!(out.trim(), (count + 2).to_string());
    });
    let mount_grown = cluster.mount_process(0).memory().saturating_sub(mount_before);
    let minister_grown = cluster.running(minister).memory().saturating_sub(minister_before);
    println!("grown by KiB: mount {}, minister {}", mount_grown >> 10, minister_grown >> 10);
    assert!(mount_grown < GROWTH_MAX, "the mount grew by {mount_grown} bytes");
    assert!(minister_grown < GROWTH_MAX, "the minister grew by {minister_grown} bytes");
    // Others make and remove names meanwhile: what stays is listed once, whatever they do.
    let stop = Arc::new(AtomicBool::new(false));
    let churner = runtime.spawn({
        let (client, stop) = (client.clone(), Arc::clone(&stop));
        async move { churn(&client, directory, &stop).await }
    });
    for _ in 0..3 {
        timed("listing while it changes", || check_listing(&folder, count));
    }
    stop.store(true, Ordering::Relaxed);
    let rounds = runtime.block_on(churner).unwrap();
    assert!(rounds > 10, "nothing changed meanwhile: {rounds}");
    println!("{rounds} names came and went");
    runtime.block_on(client.shutdown());
    cluster.assert_all_run();
}
