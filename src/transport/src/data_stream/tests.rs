use std::sync::atomic::AtomicUsize;

use futures::FutureExt;
use ministry_types::{Epoch, PgId};
use ministry_wire::data::{DataAction, DataError, DataOutcome};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::frames::{FrameReader, FrameWriter};
use super::*;

/// Hands the far end of each connection to the test.
struct InMemory {
    opened: mpsc::UnboundedSender<BoxedStream>,
    refusals: AtomicUsize,
    connects: AtomicUsize,
}

impl DataConnector for InMemory {
    fn connect(&self, _: NodeId, _: SocketAddr) -> BoxFuture<'_, Result<BoxedStream, String>> {
        self.connects.fetch_add(1, Ordering::Relaxed);
        let refused = self
            .refusals
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        let (near, far) = tokio::io::duplex(64 << 10);
        async move {
            if refused.is_ok() {
                return Err("refused by the test".to_owned());
            }
            self.opened.send(Box::new(far)).map_err(|error| error.to_string())?;
            Ok(Box::new(near) as BoxedStream)
        }
        .boxed()
    }
}

/// The answering end of one connection.
struct Far {
    reader: FrameReader<tokio::io::ReadHalf<BoxedStream>>,
    writer: FrameWriter<tokio::io::WriteHalf<BoxedStream>>,
}

impl Far {
    fn new(stream: BoxedStream) -> Far {
        let (reader, writer) = tokio::io::split(stream);
        Far { reader: FrameReader::new(reader), writer: FrameWriter::new(writer) }
    }

    async fn next(&mut self) -> Option<(DataRequest, Bytes)> {
        let lengths = self.reader.lengths().await.ok().flatten()?;
        let frame = self.reader.frame(lengths).await.unwrap();
        Some((frame.header, frame.payload))
    }

    async fn answer(&mut self, id: u64, payload: Bytes) {
        let reply = DataReply { id, result: Ok(DataOutcome::Done) };
        self.writer.put(&reply, &payload).await.unwrap();
        self.writer.flush().await.unwrap();
    }
}

struct Bench {
    connector: Arc<InMemory>,
    streams: Arc<DataStreams>,
    opened: mpsc::UnboundedReceiver<BoxedStream>,
}

const NODE: NodeId = NodeId([1; 32]);
const PATIENCE: Duration = Duration::from_secs(30);

fn bench(refusals: usize) -> Bench {
    let (sender, opened) = mpsc::unbounded_channel();
    let refusals = AtomicUsize::new(refusals);
    let connector = Arc::new(InMemory { opened: sender, refusals, connects: AtomicUsize::new(0) });
    let streams = Arc::new(DataStreams::new(Arc::clone(&connector) as Arc<_>, 77));
    Bench { connector, streams, opened }
}

impl Bench {
    fn ask(
        &self,
        request: DataRequest,
        patience: Duration,
    ) -> impl Future<Output = Result<(DataReply, Bytes), DataStreamError>> + Send + use<> {
        let streams = Arc::clone(&self.streams);
        let payload = Bytes::from(vec![request.inode.0 as u8; request.inode.0 as usize]);
        let address = "127.0.0.1:1".parse().unwrap();
        async move { streams.request(NODE, address, request, payload, patience).await }
    }

    async fn far(&mut self) -> Far {
        Far::new(self.opened.recv().await.unwrap())
    }
}

fn request(inode: u64, action: DataAction) -> DataRequest {
    DataRequest {
        id: 0,
        source: DataSource::default(),
        pg: PgId(0),
        epoch: Epoch(1),
        inode: InodeId(inode),
        truncates: Vec::new(),
        forwarded: false,
        action,
    }
}

/// Inodes of one lane.
fn one_lane(count: usize) -> Vec<u64> {
    (1..).filter(|inode| lane_of(InodeId(*inode)) == 0).take(count).collect()
}

#[tokio::test]
async fn answers_in_any_order_reach_their_askers() {
    let mut bench = bench(0);
    let inodes = one_lane(10);
    let mut asked = JoinSet::new();
    for inode in &inodes {
        asked.spawn(bench.ask(request(*inode, DataAction::Purge), PATIENCE));
    }
    let mut far = bench.far().await;
    let mut taken = Vec::new();
    for _ in &inodes {
        taken.push(far.next().await.unwrap());
    }
    for (request, payload) in taken.into_iter().rev() {
        assert_eq!(payload.len() as u64, request.inode.0);
        assert_eq!((request.source.incarnation, request.source.lane), (77, 0));
        far.answer(request.id, payload).await;
    }
    let mut sizes: Vec<u64> =
        asked.join_all().await.into_iter().map(|answer| answer.unwrap().1.len() as u64).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, inodes);
    assert!(bench.opened.try_recv().is_err(), "one lane has one connection");
}

#[tokio::test]
async fn a_broken_connection_fails_what_waits_and_the_next_has_a_larger_generation() {
    let mut bench = bench(0);
    let inode = one_lane(1)[0];
    let asked = tokio::spawn(bench.ask(request(inode, DataAction::Purge), PATIENCE));
    let mut far = bench.far().await;
    let first = far.next().await.unwrap().0;
    drop(far);
    assert!(matches!(asked.await.unwrap(), Err(DataStreamError::Broken { .. })));
    let asked = tokio::spawn(bench.ask(request(inode, DataAction::Purge), PATIENCE));
    let mut far = bench.far().await;
    let second = far.next().await.unwrap().0;
    assert!(second.source.generation > first.source.generation);
    far.answer(second.id, Bytes::new()).await;
    assert!(asked.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_change_given_up_closes_its_connection_and_a_read_does_not() {
    let mut bench = bench(0);
    let inode = one_lane(1)[0];
    let soon = Duration::from_millis(50);
    let read = DataAction::Read { offset: 0, length: 1 };
    let asked = tokio::spawn(bench.ask(request(inode, read), soon));
    let mut far = bench.far().await;
    let (read, _) = far.next().await.unwrap();
    assert!(matches!(asked.await.unwrap(), Err(DataStreamError::TimedOut { .. })));
    far.answer(read.id, Bytes::from_static(b"late")).await;

    let asked = tokio::spawn(bench.ask(request(inode, DataAction::Purge), soon));
    let (purge, _) = far.next().await.unwrap();
    assert_eq!(purge.source.generation, read.source.generation);
    assert!(matches!(asked.await.unwrap(), Err(DataStreamError::TimedOut { .. })));
    assert!(far.next().await.is_none(), "the connection of a change given up is closed");
}

#[tokio::test]
async fn a_node_out_of_reach_is_not_asked_more_often_than_the_backoff_allows() {
    let bench = bench(usize::MAX);
    let started = Instant::now();
    let mut tries = 0;
    while started.elapsed() < Duration::from_millis(200) {
        let asked = bench.ask(request(1, DataAction::Sync), PATIENCE).await;
        assert!(matches!(asked, Err(DataStreamError::Unreachable { .. })));
        tries += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(tries > 20, "a node out of reach is told at once, {tries} times only");
    // 0, 20, 60, 140 ms; the fifth is due at 300.
    let connects = bench.connector.connects.load(Ordering::Relaxed);
    assert!((2..=5).contains(&connects), "{connects} tries to connect");
}

#[tokio::test]
async fn a_peer_that_answers_nothing_is_taken_for_dead() {
    let mut bench = bench(0);
    let inode = one_lane(1)[0];
    let asked = tokio::spawn(bench.ask(request(inode, DataAction::Sync), PATIENCE));
    let mut far = bench.far().await;
    far.next().await.unwrap();
    let error = tokio::time::timeout(Duration::from_secs(8), asked).await.unwrap().unwrap();
    assert!(matches!(error, Err(DataStreamError::Broken { .. })), "{error:?}");
}

#[tokio::test]
async fn no_more_requests_are_under_way_than_the_limit() {
    let mut bench = bench(0);
    let inode = one_lane(1)[0];
    let mut asked = JoinSet::new();
    for _ in 0..DATA_REQUESTS_PER_STREAM_MAX + 1 {
        asked.spawn(bench.ask(request(inode, DataAction::Sync), PATIENCE));
    }
    let mut far = bench.far().await;
    let mut taken = Vec::new();
    for _ in 0..DATA_REQUESTS_PER_STREAM_MAX {
        taken.push(far.next().await.unwrap().0.id);
    }
    let further = tokio::time::timeout(Duration::from_millis(50), far.reader.lengths()).await;
    assert!(further.is_err(), "the last one waits for a place");
    far.answer(taken[0], Bytes::new()).await;
    assert!(asked.join_next().await.unwrap().unwrap().is_ok());
    let reply = DataReply { id: taken[1], result: Err(DataError::Busy) };
    far.writer.put(&reply, &Bytes::new()).await.unwrap();
    far.writer.flush().await.unwrap();
    assert_eq!(asked.join_next().await.unwrap().unwrap().unwrap().0.result, Err(DataError::Busy));
}
