//! Room, searches and copies over some storekeepers.

use ministry_types::SpaceChange;
use ministry_wire::data::CopySource;

use super::*;

fn source(inode: InodeId, offset: u64) -> CopySource {
    CopySource { inode, offset, chunk_bytes: CHUNK, truncates: Vec::new() }
}

async fn read(client: &ministry_client::data::DataPath, inode: InodeId, length: u64) -> Bytes {
    client.read(inode, 0, length, CHUNK, &[], soon()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_room_are_the_same_at_every_member() {
    let cluster = Cluster::new(4);
    let (client, inode) = (cluster.client(1), cluster.inode_in(0));
    client.write(inode, 0, bytes(1, 100_000), CHUNK, &[], soon()).await.unwrap();
    let space = async |range: std::ops::Range<u64>, change| {
        let told = client.space(inode, range, change, CHUNK, &[], soon()).await.unwrap();
        told.iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>()
    };
    assert_eq!(space(0..1 << 20, SpaceChange::Allocate).await, [1 << 20]);
    assert_eq!(space(10_000..50_000, SpaceChange::Punch).await, [(1 << 20) - 9 * 4096]);
    assert_eq!(space(10_000..20_000, SpaceChange::Zero).await, [(1 << 20) - 7 * 4096]);
    let mut expected = bytes(1, 100_000).to_vec();
    expected[10_000..50_000].fill(0);
    for replica in cluster.replicas(0, inode, 100_000) {
        assert!(replica == expected);
    }
    for id in cluster.members(0) {
        let allocated = cluster.stores[&id].allocated(inode, 0, CHUNK).unwrap();
        assert_eq!(allocated, (1 << 20) - 7 * 4096);
    }
    // Over several chunks, each told.
    let told = client.space(inode, 0..3 * CHUNK, SpaceChange::Allocate, CHUNK, &[], soon()).await;
    assert_eq!(told.unwrap(), [(0, CHUNK), (1, CHUNK), (2, CHUNK)]);
    cluster.disks[&cluster.members(0)[2]].set_capacity(Some(CHUNK));
    let wide = 8 * CHUNK..16 * CHUNK;
    let full = client.space(inode, wide, SpaceChange::Allocate, CHUNK, &[], soon()).await;
    assert_eq!(full, Err(DataFailure::NoSpace), "a full disk says so");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_finds_the_nearest_place_whatever_group_it_lies_in() {
    let cluster = Cluster::new(5);
    let (client, inode) = (cluster.client(1), InodeId(7));
    let end = 1 << 43;
    let seek = async |from: u64, end: u64, hole| {
        client.seek(inode, from..end, hole, CHUNK, &[], soon()).await.unwrap()
    };
    assert_eq!(seek(0, end, false).await, None);
    assert_eq!(seek(5, end, true).await, Some(5));
    let places = [3 * CHUNK + 4096, 40 * CHUNK - 4096, 1000 * CHUNK];
    for place in places {
        client.write(inode, place, bytes(place, 8192), CHUNK, &[], soon()).await.unwrap();
    }
    let mut at = 0;
    for place in places {
        assert_eq!(seek(at, end, false).await, Some(place));
        at = seek(place, end, true).await.unwrap();
        assert_eq!(at, place + 8192);
    }
    assert_eq!(seek(at, end, false).await, None);
    let full = client.space(inode, 0..5 * CHUNK, SpaceChange::Allocate, CHUNK, &[], soon());
    full.await.unwrap();
    assert_eq!(seek(0, end, true).await, Some(5 * CHUNK));
    assert_eq!(seek(0, 5 * CHUNK, true).await, None, "the caller knows where the file ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn copied_bytes_are_the_same_at_every_member_however_they_lie() {
    let cluster = Cluster::new(5);
    let (client, from, to) = (cluster.client(1), InodeId(7), InodeId(8));
    let data = bytes(1, 9 << 20);
    client.write(from, 1_000, data.clone(), CHUNK, &[], soon()).await.unwrap();
    for (target, target_offset, offset) in
        [(to, 1_000, 1_000), (to, 20 << 20, 1_001), (from, 30 << 20, 1_000)]
    {
        let range = target_offset..target_offset + (8 << 20);
        let told = client.copy(target, range, &source(from, offset), CHUNK, &[], soon()).await;
        assert!(told.unwrap().len() >= 2, "what the chunks take is told");
        let start = (offset - 1_000) as usize;
        let copied = client.read(target, target_offset, 8 << 20, CHUNK, &[], soon()).await.unwrap();
        assert!(copied == data[start..start + (8 << 20)]);
    }
    // Each replica has them, after a loss of power too.
    client.sync(to, 0..8, &[], soon()).await.unwrap();
    let map = Arc::clone(&cluster.map.borrow());
    let group = map.pgs.get(map.pgs.group_of(to, 1).unwrap()).unwrap();
    for id in &group.members {
        cluster.disks[id].crash(None);
        let disk = Arc::new(cluster.disks[id].clone());
        let store = ministry_storage::ChunkStore::open(disk, Default::default()).unwrap();
        let at = store.read(to, CHUNK, 1 << 20, &[]).unwrap().data;
        assert!(at == data[(CHUNK - 1_000) as usize..(CHUNK - 1_000) as usize + (1 << 20)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_in_opposite_directions_do_not_wait_for_each_other() {
    let cluster = Cluster::new(4);
    let (one, other) = (cluster.inode_in(0), cluster.inode_in(1));
    let client = cluster.client(1);
    client.write(one, 0, bytes(1, 1 << 20), CHUNK, &[], soon()).await.unwrap();
    client.write(other, 0, bytes(2, 1 << 20), CHUNK, &[], soon()).await.unwrap();
    let mut copies = JoinSet::new();
    for number in 0..8u8 {
        let client = cluster.client(number);
        let (from, to) = if number % 2 == 0 { (one, other) } else { (other, one) };
        copies.spawn(async move {
            for _ in 0..10 {
                let range = 0..1 << 20;
                let told = client.copy(to, range, &source(from, 0), CHUNK, &[], soon()).await;
                told.unwrap();
            }
        });
    }
    let all = async {
        while let Some(done) = copies.join_next().await {
            done.unwrap()
        }
    };
    timeout(Duration::from_secs(20), all).await.expect("nobody waits for ever");
    for (pg, inode) in [(0, one), (1, other)] {
        let replicas = cluster.replicas(pg, inode, 1 << 20);
        assert!(replicas[0] == replicas[1] && replicas[0] == replicas[2]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_by_an_old_size_of_its_source_is_refused() {
    let cluster = Cluster::new(4);
    let (client, from, to) = (cluster.client(1), cluster.inode_in(2), cluster.inode_in(0));
    client.write(from, 0, bytes(1, 20_000), CHUNK, &[], soon()).await.unwrap();
    let marks = [mark(4, 10_000)];
    client.read(from, 0, 1, CHUNK, &marks, soon()).await.unwrap();
    let stale = client.copy(to, 0..20_000, &source(from, 0), CHUNK, &[], soon()).await;
    assert_eq!(stale, Err(DataFailure::StaleTruncate { current: 4 }));
    let fresh = CopySource { truncates: marks.to_vec(), ..source(from, 0) };
    client.copy(to, 0..20_000, &fresh, CHUNK, &[], soon()).await.unwrap();
    let copied = read(&client, to, 20_000).await;
    assert!(copied[..10_000] == bytes(1, 20_000)[..10_000]);
    assert!(copied[10_000..].iter().all(|byte| *byte == 0));
}

/// A copy that its sender has given up does not land over what the sender wrote after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_given_up_takes_no_effect_later() {
    let cluster = Arc::new(Cluster::new(4));
    let (client, from, to) = (cluster.client(1), cluster.inode_in(2), cluster.inode_in(0));
    client.write(from, 0, bytes(1, 30_000), CHUNK, &[], soon()).await.unwrap();
    client.read(to, 0, 10, CHUNK, &[], soon()).await.unwrap();
    // The way from the target's master to the source's master is slow.
    cluster.network.set_latency(Latency::Each(Duration::from_millis(400)));
    let given_up = Instant::now() + Duration::from_millis(150);
    let late = client.copy(to, 0..30_000, &source(from, 0), CHUNK, &[], given_up).await;
    assert!(matches!(late, Err(DataFailure::TimedOut(_))), "{late:?}");
    cluster.network.set_latency(Latency::None);
    client.write(to, 0, bytes(2, 30_000), CHUNK, &[], soon()).await.unwrap();
    sleep(Duration::from_millis(1_500)).await;
    for replica in cluster.replicas(0, to, 30_000) {
        assert!(replica == bytes(2, 30_000), "the copy came late");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_arrive_though_connections_break() {
    let cluster = Arc::new(Cluster::new(4));
    cluster.network.set_latency(Latency::UpTo(Duration::from_millis(5)));
    let (client, from, to) = (cluster.client(1), cluster.inode_in(2), cluster.inode_in(0));
    client.write(from, 0, bytes(1, 2 << 20), CHUNK, &[], soon()).await.unwrap();
    let breaker = tokio::spawn({
        let cluster = Arc::clone(&cluster);
        async move {
            let mut random = SmallRng::seed_from_u64(3);
            loop {
                sleep(Duration::from_millis(random.random_range(3..60))).await;
                cluster.network.break_connections(None);
            }
        }
    });
    for _ in 0..15 {
        client.write(to, 0, bytes(9, 2 << 20), CHUNK, &[], soon()).await.unwrap();
        client.copy(to, 0..2 << 20, &source(from, 0), CHUNK, &[], soon()).await.unwrap();
        assert!(read(&client, to, 2 << 20).await == bytes(1, 2 << 20));
    }
    breaker.abort();
    let replicas = cluster.replicas(0, to, 2 << 20);
    assert!(replicas[0] == replicas[1] && replicas[0] == replicas[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_are_refused() {
    let cluster = Cluster::new(3);
    let inode = cluster.inode_in(0);
    let router = cluster.router(Subject::Client(ClientId([1; 16])));
    let space = |offset, length, chunk_bytes| DataAction::Space {
        offset,
        length,
        chunk: 0,
        chunk_bytes,
        change: SpaceChange::Punch,
    };
    let copy = |length, from| DataAction::Copy {
        offset: 0,
        length,
        chunk: 0,
        chunk_bytes: CHUNK,
        source: source(InodeId(1), from),
    };
    let seek = |offset, end| DataAction::Seek { offset, end, chunk_bytes: CHUNK, hole: true };
    let senseless = [
        space(0, 0, CHUNK),
        space(1, CHUNK, CHUNK),
        space(0, 100, 5_000),
        copy(0, 0),
        copy(2 << 20, 0),
        copy(10, CHUNK - 5),
        copy(10, u64::MAX - 3),
        seek(5, 5),
        seek(5, u64::MAX),
    ];
    for action in senseless {
        let question = DataQuestion { pg: PgId(0), inode, truncates: Vec::new(), action };
        let asked = router.ask(&question, &Bytes::new(), soon()).await;
        assert!(matches!(asked, Err(DataFailure::Invalid(_))), "{question:?}: {asked:?}");
    }
}
