mod cluster;
mod space;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use ministry_client::data::DataFailure;
use ministry_transport::data_stream::router::DataQuestion;
use ministry_types::{ClientId, Epoch, InodeId, PgId, TruncateMark};
use ministry_wire::data::{DataAction, DataError, DataOutcome, DataRequest, DataSource, checksums};
use ministry_wire::hello::Subject;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use cluster::{Cluster, Latency, node};

const CHUNK: u64 = 1 << 22;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn bytes(seed: u64, length: usize) -> Bytes {
    let mut random = SmallRng::seed_from_u64(seed);
    (0..length).map(|_| random.random::<u8>()).collect::<Vec<_>>().into()
}

fn mark(sequence: u64, size: u64) -> TruncateMark {
    TruncateMark { sequence, size }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_and_synced_is_read_back_after_a_loss_of_power() {
    let mut cluster = Cluster::new(5);
    let (client, inode) = (cluster.client(1), InodeId(7));
    let data = bytes(1, 9 << 20);
    let allocated = client.write(inode, 1_000, data.clone(), CHUNK, &[], soon()).await.unwrap();
    let total: u64 = allocated.iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(allocated.len(), 3);
    assert_eq!(total, (9 << 20) + 4096, "what the chunks take is told");
    client.sync(inode, 0..3, &[], soon()).await.unwrap();
    for number in 1..=5 {
        cluster.kill(node(number));
        cluster.disks[&node(number)].crash(None);
        cluster.start(node(number));
    }
    let read = client.read(inode, 1_000, data.len() as u64, CHUNK, &[], soon()).await.unwrap();
    assert!(read == data);
    let around = client.read(inode, 0, 1_000, CHUNK, &[], soon()).await.unwrap();
    assert!(around.iter().all(|byte| *byte == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_reaches_every_member_and_older_senders_are_refused() {
    let cluster = Cluster::new(4);
    let (client, inode) = (cluster.client(1), cluster.inode_in(2));
    client.write(inode, 0, bytes(1, 20_000), CHUNK, &[], soon()).await.unwrap();
    let minister = cluster.router(Subject::Node(node(4)));
    let marks = vec![mark(1, 5_000), mark(2, 10_000)];
    let action = DataAction::Truncate { chunk: 0, chunk_bytes: CHUNK };
    let question = DataQuestion { pg: PgId(2), inode, truncates: marks.clone(), action };
    let (outcome, _) = minister.ask(&question, &Bytes::new(), soon()).await.unwrap();
    assert_eq!(outcome, DataOutcome::Written { allocated_bytes: 8192 });

    let stale = client.write(inode, 0, bytes(2, 10), CHUNK, &marks[..1], soon()).await;
    assert_eq!(stale, Err(DataFailure::StaleTruncate { current: 2 }));
    let read = client.read(inode, 4_000, 4_000, CHUNK, &marks, soon()).await.unwrap();
    assert!(read[..1_000] == bytes(1, 20_000)[4_000..5_000]);
    assert!(read[1_000..].iter().all(|byte| *byte == 0));
    for id in cluster.members(2) {
        let at = cluster.stores[&id].read(inode, 0, 20_000, &marks).unwrap().data;
        assert!(at[5_000..].iter().all(|byte| *byte == 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purged_inode_is_gone_everywhere_and_stays_so() {
    let cluster = Cluster::new(3);
    let (client, inode) = (cluster.client(1), cluster.inode_in(1));
    client.write(inode, 0, bytes(1, 9_000), CHUNK, &[], soon()).await.unwrap();
    let purge =
        DataQuestion { pg: PgId(1), inode, truncates: Vec::new(), action: DataAction::Purge };
    let client_router = cluster.router(Subject::Client(ClientId([2; 16])));
    let refused = client_router.ask(&purge, &Bytes::new(), soon()).await;
    assert!(matches!(refused, Err(DataFailure::Invalid(_))), "a client removes nothing");

    let minister = cluster.router(Subject::Node(node(3)));
    for _ in 0..2 {
        let done = minister.ask(&purge, &Bytes::new(), soon()).await.unwrap();
        assert_eq!(done.0, DataOutcome::Done);
    }
    assert!(cluster.stores.values().all(|store| store.is_purged(inode)));
    let late = client.write(inode, 0, bytes(2, 10), CHUNK, &[], soon()).await;
    assert_eq!(late, Err(DataFailure::Purged));
}

/// The promise at the heart: whatever is sent again, late, or at once with something else.
#[tokio::test(flavor = "multi_thread")]
async fn overlapping_writes_end_equal_on_all_replicas_though_connections_break() {
    const SPACE: usize = 300_000;
    let cluster = Arc::new(Cluster::new(3));
    cluster.network.set_latency(Latency::UpTo(Duration::from_millis(20)));
    let (pg, inode) = (3, cluster.inode_in(3));
    let mut writers = JoinSet::new();
    for number in 0..6u8 {
        let client = cluster.client(number);
        writers.spawn(async move {
            let mut random = SmallRng::seed_from_u64(u64::from(number));
            for round in 0..25u64 {
                let length = random.random_range(1..60_000);
                let offset = random.random_range(0..SPACE - length);
                let data = bytes(u64::from(number) << 32 | round, length);
                let written = client.write(inode, offset as u64, data, CHUNK, &[], soon()).await;
                written.unwrap();
            }
        });
    }
    let breaker = tokio::spawn({
        let cluster = Arc::clone(&cluster);
        async move {
            let mut random = SmallRng::seed_from_u64(99);
            loop {
                sleep(Duration::from_millis(random.random_range(2..40))).await;
                let to = [None, Some(node(1)), Some(node(2)), Some(node(3))];
                cluster.network.break_connections(to[random.random_range(0..4)]);
            }
        }
    });
    while let Some(writer) = writers.join_next().await {
        writer.unwrap();
    }
    breaker.abort();
    assert!(cluster.network.breaks.load(Ordering::Relaxed) > 30, "connections did break");
    // What is still on its way must not change anything either.
    let before = cluster.replicas(pg, inode, SPACE);
    sleep(Duration::from_millis(300)).await;
    let after = cluster.replicas(pg, inode, SPACE);
    assert!(before == after, "something took effect late");
    assert!(after[0] == after[1] && after[0] == after[2], "the replicas differ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_write_of_a_client_is_never_undone_by_an_earlier_one_sent_twice() {
    let cluster = Arc::new(Cluster::new(3));
    cluster.network.set_latency(Latency::UpTo(Duration::from_millis(20)));
    let (client, inode) = (cluster.client(1), cluster.inode_in(0));
    let breaker = tokio::spawn({
        let cluster = Arc::clone(&cluster);
        async move {
            let mut random = SmallRng::seed_from_u64(7);
            loop {
                sleep(Duration::from_millis(random.random_range(3..60))).await;
                cluster.network.break_connections(None);
            }
        }
    });
    for round in 0..40u64 {
        client.write(inode, 0, bytes(round, 30_000), CHUNK, &[], soon()).await.unwrap();
        let read = client.read(inode, 0, 30_000, CHUNK, &[], soon()).await.unwrap();
        assert!(read == bytes(round, 30_000), "round {round}");
    }
    breaker.abort();
    assert!(cluster.network.breaks.load(Ordering::Relaxed) > 20, "connections did break");
}

/// A first copy of a write is still on its way when the second copy and a later write are done.
async fn first_copy_arrives_last(slow: impl Fn(&Cluster) -> ministry_types::NodeId) {
    let cluster = Arc::new(Cluster::new(3));
    let (client, inode) = (cluster.client(1), cluster.inode_in(0));
    let slow = slow(&cluster);
    if slow != cluster.members(0)[0] {
        // The way to the master is short already.
        client.read(inode, 0, 10, CHUNK, &[], soon()).await.unwrap();
    }
    cluster.network.set_latency(Latency::Each(Duration::from_millis(300)));
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.write(inode, 0, bytes(1, 30_000), CHUNK, &[], soon()).await }
    });
    sleep(Duration::from_millis(60)).await;
    cluster.network.set_latency(Latency::None);
    cluster.network.break_connections(None);
    first.await.unwrap().unwrap();
    client.write(inode, 0, bytes(2, 30_000), CHUNK, &[], soon()).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    for replica in cluster.replicas(0, inode, 30_000) {
        assert!(replica == bytes(2, 30_000), "the first write came back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_copy_of_a_clients_write_takes_no_effect() {
    first_copy_arrives_last(|cluster| cluster.members(0)[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_copy_of_a_masters_write_takes_no_effect() {
    first_copy_arrives_last(|cluster| cluster.members(0)[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_waits_for_a_dead_member_and_is_done_when_it_returns() {
    let mut cluster = Cluster::new(4);
    let (client, inode) = (cluster.client(1), cluster.inode_in(0));
    client.write(inode, 0, bytes(1, 20_000), CHUNK, &[], soon()).await.unwrap();
    let dead = cluster.members(0)[2];
    cluster.kill(dead);
    let started = Instant::now();
    let deadline = started + Duration::from_millis(2_500);
    let failed = client.write(inode, 0, bytes(2, 10_000), CHUNK, &[], deadline).await;
    let Err(DataFailure::TimedOut(cause)) = failed else { panic!("{failed:?}") };
    assert!(cause.contains(&dead.short()) || cause.contains("in time"), "{cause}");

    // Nobody sees the bytes of a write that one member lacks, and others are not disturbed.
    let blocked = client.read(inode, 0, 100, CHUNK, &[], Instant::now() + Duration::from_secs(2));
    assert!(matches!(blocked.await, Err(DataFailure::TimedOut(_))));
    let apart = client.read(inode, 10_000, 10_000, CHUNK, &[], soon()).await.unwrap();
    assert!(apart == bytes(1, 20_000)[10_000..]);
    let healthy = cluster.inode_in(3);
    assert!(!cluster.members(3).contains(&dead));
    client.write(healthy, 0, bytes(3, 100), CHUNK, &[], soon()).await.unwrap();

    let waiting = {
        let client = client.clone();
        tokio::spawn(
            async move { client.write(inode, 0, bytes(4, 10_000), CHUNK, &[], soon()).await },
        )
    };
    sleep(Duration::from_millis(1_000)).await;
    assert!(!waiting.is_finished());
    cluster.start(dead);
    timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap().unwrap();
    let read = client.read(inode, 0, 10_000, CHUNK, &[], soon()).await.unwrap();
    assert!(read == bytes(4, 10_000));
    let replicas = cluster.replicas(0, inode, 20_000);
    assert!(replicas[0] == replicas[1] && replicas[0] == replicas[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_member_does_not_take_the_memory_of_groups_without_it() {
    let mut cluster = Cluster::new(5);
    let dead = cluster.members(0)[1];
    let (client, inode) = (cluster.client(1), cluster.inode_in(0));
    cluster.kill(dead);
    let flood = tokio::spawn({
        let client = client.clone();
        async move { client.write(inode, 0, bytes(1, 4 << 20), CHUNK, &[], soon()).await }
    });
    let other = cluster.client(2);
    let more = tokio::spawn(async move {
        let all = (0..16).map(|_| other.write(inode, 0, bytes(1, 4 << 20), CHUNK, &[], soon()));
        futures::future::join_all(all).await
    });
    sleep(Duration::from_secs(2)).await;
    let master = cluster.members(0)[0];
    let map = Arc::clone(&cluster.map.borrow());
    let healthy = map
        .pgs
        .groups
        .iter()
        .position(|group| group.master() == Some(master) && !group.members.contains(&dead));
    // With five nodes the same master has groups with the same members only: take any healthy one.
    let healthy = healthy.unwrap_or_else(|| {
        map.pgs.groups.iter().position(|group| !group.members.contains(&dead)).unwrap()
    });
    let healthy = cluster.inode_in(healthy as u32);
    let third = cluster.client(3);
    let written = third.write(healthy, 0, bytes(5, 1 << 20), CHUNK, &[], soon());
    timeout(Duration::from_secs(3), written).await.unwrap().unwrap();
    cluster.start(dead);
    timeout(Duration::from_secs(20), flood).await.unwrap().unwrap().unwrap();
    let more = timeout(Duration::from_secs(20), more).await.unwrap().unwrap();
    assert!(more.into_iter().all(|result| result.is_ok()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_epoch_or_master_is_corrected_by_a_newer_map() {
    let cluster = Cluster::new(4);
    let inode = cluster.inode_in(0);
    // The client's map is one change behind: another member was the master.
    let mut old = (**cluster.map.borrow()).clone();
    old.pgs.groups[0].members.rotate_left(1);
    let stale = tokio::sync::watch::Sender::new(Arc::new(old));
    cluster.map.send_modify(|map| Arc::make_mut(map).pgs.groups[0].epoch = Epoch(2));
    let wanted = Arc::new(tokio::sync::Notify::new());
    let router = ministry_transport::data_stream::router::DataRouter::new(
        cluster.streams(Subject::Client(ClientId([1; 16]))),
        stale.subscribe(),
        Arc::clone(&wanted),
    );
    let client = ministry_client::data::DataPath::new(router);
    let write =
        tokio::spawn(
            async move { client.write(inode, 0, bytes(1, 100), CHUNK, &[], soon()).await },
        );
    timeout(Duration::from_secs(2), wanted.notified()).await.expect("a newer map is asked for");
    stale.send_replace(Arc::clone(&cluster.map.borrow()));
    timeout(Duration::from_secs(2), write).await.unwrap().unwrap().unwrap();
    assert!(cluster.replicas(0, inode, 100).iter().all(|at| *at == bytes(1, 100)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_block_is_reported_and_never_served() {
    let cluster = Cluster::new(3);
    let (client, inode) = (cluster.client(1), cluster.inode_in(0));
    client.write(inode, 0, bytes(1, 40_000), CHUNK, &[], soon()).await.unwrap();
    client.sync(inode, 0..1, &[], soon()).await.unwrap();
    let disk = &cluster.disks[&cluster.members(0)[0]];
    let path = format!("objects/{:02x}/{:02x}/{:016x}.data", 0, 0, inode.0);
    assert!(disk.damage(&path, 20_000, 0x10));
    let read = client.read(inode, 16_000, 8_000, CHUNK, &[], soon()).await;
    assert!(matches!(&read, Err(DataFailure::Damaged(text)) if text.contains("block 4")));
    let fine = client.read(inode, 0, 16_384, CHUNK, &[], soon()).await.unwrap();
    assert!(fine == bytes(1, 40_000)[..16_384]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_calls_the_hook_once_and_is_never_acknowledged() {
    let cluster = Cluster::new(3);
    let (client, inode) = (cluster.client(1), cluster.inode_in(0));
    client.write(inode, 0, bytes(1, 40_000), CHUNK, &[], soon()).await.unwrap();
    let slave = cluster.members(0)[1];
    cluster.disks[&slave].fail_syncs_after(0);
    let deadline = Instant::now() + Duration::from_secs(4);
    let synced = client.sync(inode, 0..1, &[], deadline).await;
    assert!(matches!(synced, Err(DataFailure::TimedOut(_))), "{synced:?}");
    assert_eq!(*cluster.fatal.lock(), [slave]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_without_room_refuses_the_write() {
    let cluster = Cluster::new(3);
    let (client, inode) = (cluster.client(1), cluster.inode_in(0));
    client.write(inode, 0, bytes(1, 40_000), CHUNK, &[], soon()).await.unwrap();
    cluster.disks[&cluster.members(0)[2]].set_capacity(Some(100_000));
    let full = client.write(inode, 0, bytes(2, 1 << 20), CHUNK, &[], soon()).await;
    assert_eq!(full, Err(DataFailure::NoSpace));
    cluster.disks[&cluster.members(0)[2]].set_capacity(None);
    client.write(inode, 0, bytes(2, 1 << 20), CHUNK, &[], soon()).await.unwrap();
    let replicas = cluster.replicas(0, inode, 1 << 20);
    assert!(replicas[0] == replicas[1] && replicas[0] == replicas[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarded_requests_are_taken_from_the_master_of_the_group_only() {
    let cluster = Cluster::new(4);
    let inode = cluster.inode_in(0);
    let (master, slave) = (cluster.members(0)[0], cluster.members(0)[1]);
    let payload = bytes(1, 100);
    let request = DataRequest {
        id: 0,
        source: DataSource::default(),
        pg: PgId(0),
        epoch: Epoch(1),
        inode,
        truncates: Vec::new(),
        forwarded: true,
        action: DataAction::Write {
            offset: 0,
            chunk: 0,
            chunk_bytes: CHUNK,
            checksums: checksums(0, &payload),
        },
    };
    let address = cluster.map.borrow().address(slave).unwrap();
    let senders = [
        (Subject::Client(ClientId([1; 16])), false),
        (Subject::Node(cluster.members(0)[2]), false),
        (Subject::Node(master), true),
    ];
    for (sender, is_fine) in senders {
        let sent = cluster.streams(sender);
        let patience = Duration::from_secs(5);
        let answer = sent.request(slave, address, request.clone(), payload.clone(), patience);
        let result = answer.await.unwrap().0.result;
        assert_eq!(result.is_ok(), is_fine, "{sender}: {result:?}");
    }
    let wrong = DataRequest { forwarded: false, ..request.clone() };
    let streams = cluster.streams(Subject::Client(ClientId([1; 16])));
    let patience = Duration::from_secs(5);
    let answer = streams.request(slave, address, wrong, payload.clone(), patience).await.unwrap();
    assert_eq!(answer.0.result, Err(DataError::WrongEpoch { current: Epoch(1) }));
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_on_the_way_is_noticed_and_writes_nothing() {
    let cluster = Cluster::new(3);
    let inode = cluster.inode_in(0);
    let payload = bytes(1, 5_000);
    let mut wrong = checksums(0, &payload);
    wrong[1] ^= 1;
    let action = DataAction::Write { offset: 0, chunk: 0, chunk_bytes: CHUNK, checksums: wrong };
    let question = DataQuestion { pg: PgId(0), inode, truncates: Vec::new(), action };
    let router = cluster.router(Subject::Client(ClientId([1; 16])));
    let deadline = Instant::now() + Duration::from_secs(1);
    let asked = router.ask(&question, &payload, deadline).await;
    assert!(matches!(asked, Err(DataFailure::TimedOut(_))), "{asked:?}");
    assert!(cluster.replicas(0, inode, 5_000).iter().all(|at| at.iter().all(|b| *b == 0)));
}
