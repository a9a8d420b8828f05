//! A request finds its minister, whoever that is by then.

use std::time::Duration;

use ministry_client::{Client, ClientConfig, ConnectError, NewObject};
use ministry_transport::{PeerIdentity, Security, Subject};
use ministry_types::{ClientId, ClusterId, InodeId, MinistryId};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use crate::cluster::{Cluster, Fault, node, root};
use crate::network::Network;

const ROOT: InodeId = InodeId::ROOT;

#[tokio::test(start_paused = true)]
async fn the_hint_of_a_refusing_node_is_followed_at_once() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    client.getattr(&root(), ROOT).await.unwrap();
    cluster.appoint(MinistryId::ROOT, node(2));
    let began = Instant::now();
    client.create(&root(), ROOT, b"a", NewObject::file(0o644)).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(10), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_request_at_a_silent_minister_goes_to_its_successor_without_waiting_it_out() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    client.getattr(&root(), ROOT).await.unwrap();
    cluster.inject(&[Fault::ReplyLost]);
    let began = Instant::now();
    let succession = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.appoint(MinistryId::ROOT, node(3));
        cluster.publish_minister(MinistryId::ROOT);
    };
    let caller = root();
    let create = client.create(&caller, ROOT, b"a", NewObject::file(0o644));
    let (created, ()) = tokio::join!(create, succession);
    created.unwrap();
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_inode_that_went_to_another_ministry_is_found_there() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    let directory = client.create(&root(), ROOT, b"d", NewObject::directory(0o755)).await.unwrap();
    let second = MinistryId(2);
    cluster.form(second, InodeId(1 << 40), InodeId(2 << 40));
    cluster.give_away(directory.inode, MinistryId::ROOT, second);
    let publication = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        cluster.publish_owner(directory.inode, second);
    };
    let create =
        async { client.create(&root(), directory.inode, b"f", NewObject::file(0o644)).await };
    let (made, ()) = tokio::join!(create, publication);
    assert!(made.unwrap().inode.0 >= 1 << 40, "made by the second ministry");
    let listing = client.list(&root(), ROOT, 0, 10, true).await.unwrap();
    let attributes = listing.entries[0].attributes.as_ref().expect("asked for at the owner");
    assert_eq!(attributes.inode, directory.inode);
    assert_eq!(client.lookup(&root(), ROOT, b"d").await.unwrap().inode, directory.inode);
    let found = client.resolve(&root(), b"/d/f").await.unwrap();
    assert_eq!(client.path_of(&root(), found.inode).await.unwrap(), b"/d/f");
}

#[tokio::test(start_paused = true)]
async fn a_new_map_reaches_an_idle_client_at_once() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    let mut map = client.map();
    let known = map.borrow_and_update().version;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let began = Instant::now();
    cluster.publish_minister(MinistryId::ROOT);
    let newer = map.wait_for(|map| map.version > known);
    tokio::time::timeout(Duration::from_secs(1), newer).await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn room_is_told_by_whichever_node_knows() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    assert_eq!(client.statfs().await.unwrap().total_bytes, 42);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reaches_nobody_says_whom_it_asked() {
    let identity = PeerIdentity {
        cluster: ClusterId::default(),
        subject: Subject::Client(ClientId::default()),
    };
    let config = |addresses| ClientConfig {
        security: Security::plain_for_simulation(identity).into(),
        connector: std::sync::Arc::new(Network::default()),
        addresses,
        rng: SmallRng::seed_from_u64(1),
    };
    let error = Client::connect(config(vec![])).await.unwrap_err();
    assert_eq!(error, ConnectError::NoAddresses);
    let address = ([127, 0, 0, 1], 7).into();
    let error = Client::connect(config(vec![address])).await.unwrap_err();
    assert!(error.to_string().contains("127.0.0.1:7"), "{error}");
}

/// The calls run in tasks of a runtime with several threads.
#[test]
fn calls_can_be_sent_to_other_threads() {
    fn sent<T: Send>(_: &T) {}
    fn calls(client: &Client, handle: &ministry_client::FileHandle) {
        let caller = root();
        sent(&client.lookup(&caller, ROOT, b"a"));
        sent(&client.list(&caller, ROOT, 0, 1, true));
        sent(&client.create(&caller, ROOT, b"a", NewObject::file(0)));
        sent(&client.setattr(&caller, ROOT, Default::default()));
        sent(&client.create_and_open(&caller, ROOT, b"a", 0, Default::default(), true));
        sent(&client.read(handle, 0, 1));
        sent(&client.write(handle, 0, Default::default()));
        sent(&client.fsync(handle, true));
        sent(&client.statfs());
        sent(&client.shutdown());
    }
    let _ = calls;
}
