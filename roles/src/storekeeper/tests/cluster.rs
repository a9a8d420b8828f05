//! Some storekeepers in one process: disks in memory, a network that loses connections.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use ministry_client::data::DataPath;
use ministry_storage::{ChunkStore, ChunkStoreOptions, MemoryDisk};
use ministry_transport::BoxedStream;
use ministry_transport::data_stream::router::DataRouter;
use ministry_transport::data_stream::{DataConnector, DataStreams};
use ministry_types::government::{ClusterMap, NodeCondition, NodeEntry, NodeProfile};
use ministry_types::placement::{PgMap, PlacementGroup};
use ministry_types::{ClientId, ClusterId, Epoch, InodeId, NodeId, PgId};
use ministry_wire::hello::{PeerIdentity, Subject};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::{FatalHook, Storekeeper, Threads};

const CLUSTER: ClusterId = ClusterId([9; 16]);
const GROUPS: u32 = 8;

pub(super) fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, number], 7000))
}

#[derive(Default, Clone, Copy)]
pub(super) enum Latency {
    #[default]
    None,
    Each(Duration),
    /// Each connection has its own part of it.
    UpTo(Duration),
}

/// Lets connections through, slowly, and breaks them on demand.
#[derive(Default)]
pub(super) struct Network {
    nodes: Mutex<BTreeMap<NodeId, Arc<Storekeeper>>>,
    pipes: Mutex<Vec<Pipe>>,
    pub(super) breaks: AtomicU64,
    /// What a byte takes from a sender to a receiver, over connections made from now on.
    latency: Mutex<Latency>,
    opened: AtomicU64,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// One connection. Broken, the sender notices at once; the receiver still gets what is on its way.
struct Pipe {
    to: NodeId,
    ends: Vec<JoinHandle<()>>,
}

impl Network {
    pub(super) fn set_latency(&self, latency: Latency) {
        *self.latency.lock() = latency;
    }

    /// Breaks all connections, or those to one node.
    pub(super) fn break_connections(&self, to: Option<NodeId>) {
        self.pipes.lock().retain(|pipe| {
            let hit = to.is_none_or(|to| pipe.to == to);
            if hit {
                self.breaks.fetch_add(1, Ordering::Relaxed);
                pipe.ends.iter().for_each(JoinHandle::abort);
            }
            !hit
        });
    }

    fn open(&self, to: NodeId, peer: PeerIdentity) -> Result<BoxedStream, String> {
        let Some(keeper) = self.nodes.lock().get(&to).cloned() else {
            return Err("it is down".to_owned());
        };
        let (near, near_pipe) = tokio::io::duplex(1 << 20);
        let (far_pipe, far) = tokio::io::duplex(1 << 20);
        let share = self.opened.fetch_add(1, Ordering::Relaxed) * 7 % 10;
        let latency = match *self.latency.lock() {
            Latency::None => Duration::ZERO,
            Latency::Each(latency) => latency,
            Latency::UpTo(most) => most * share as u32 / 10,
        };
        let ends = self.connect_ends(near_pipe, far_pipe, latency);
        self.pipes.lock().push(Pipe { to, ends });
        let serving = tokio::spawn(async move { keeper.serve(peer, Box::new(far)).await });
        self.tasks.lock().push(serving);
        Ok(Box::new(near))
    }

    fn connect_ends(
        &self,
        near: DuplexStream,
        far: DuplexStream,
        latency: Duration,
    ) -> Vec<JoinHandle<()>> {
        let (mut near_reader, mut near_writer) = tokio::io::split(near);
        let (mut far_reader, mut far_writer) = tokio::io::split(far);
        let (sender, mut on_its_way) = mpsc::channel::<(Instant, Vec<u8>)>(4096);
        let taking = tokio::spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(count @ 1..) = near_reader.read(&mut buffer).await {
                let arrival = Instant::now() + latency;
                if sender.send((arrival, buffer[..count].to_vec())).await.is_err() {
                    return;
                }
            }
        });
        // Not broken with the rest: what was sent arrives late.
        let delivering = tokio::spawn(async move {
            while let Some((arrival, bytes)) = on_its_way.recv().await {
                tokio::time::sleep_until(arrival).await;
                if far_writer.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        });
        let returning = tokio::spawn(async move {
            let _ = tokio::io::copy(&mut far_reader, &mut near_writer).await;
        });
        self.tasks.lock().push(delivering);
        vec![taking, returning]
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.tasks.lock().iter().for_each(JoinHandle::abort);
    }
}

/// The network as one process sees it.
struct Dial {
    network: Arc<Network>,
    me: PeerIdentity,
}

impl DataConnector for Dial {
    fn connect(&self, to: NodeId, _: SocketAddr) -> BoxFuture<'_, Result<BoxedStream, String>> {
        async move { self.network.open(to, self.me) }.boxed()
    }
}

pub(super) struct Cluster {
    pub(super) network: Arc<Network>,
    pub(super) map: watch::Sender<Arc<ClusterMap>>,
    pub(super) disks: BTreeMap<NodeId, MemoryDisk>,
    pub(super) stores: BTreeMap<NodeId, Arc<ChunkStore>>,
    pub(super) fatal: Arc<Mutex<Vec<NodeId>>>,
    incarnations: AtomicU64,
}

impl Cluster {
    /// `count` nodes; each group has the three after the one of its number, the first as master.
    pub(super) fn new(count: u8) -> Cluster {
        let mut map = ClusterMap { cluster: CLUSTER, ..ClusterMap::default() };
        for number in 1..=count {
            map.nodes.insert(node(number), entry(address(number)));
        }
        let group = |pg: u32| {
            let member = |i: u32| node((pg + i) as u8 % count + 1);
            let members: Vec<NodeId> = (0..3).map(member).collect();
            let in_sync = members.iter().copied().collect::<BTreeSet<_>>();
            PlacementGroup { epoch: Epoch(1), members, in_sync }
        };
        map.pgs = PgMap { groups: (0..GROUPS).map(group).collect() };
        let mut cluster = Cluster {
            network: Arc::new(Network::default()),
            map: watch::Sender::new(Arc::new(map)),
            disks: (1..=count).map(|number| (node(number), MemoryDisk::default())).collect(),
            stores: BTreeMap::new(),
            fatal: Arc::default(),
            incarnations: AtomicU64::new(1),
        };
        for number in 1..=count {
            cluster.start(node(number));
        }
        cluster
    }

    pub(super) fn start(&mut self, id: NodeId) {
        let disk = Arc::new(self.disks[&id].clone());
        let store = ChunkStore::open(disk, ChunkStoreOptions { open_inodes_max: 64 }).unwrap();
        let store = Arc::new(store);
        self.stores.insert(id, Arc::clone(&store));
        let fatal = Arc::clone(&self.fatal);
        let hook: FatalHook = Arc::new(move |_| fatal.lock().push(id));
        let streams = self.streams(Subject::Node(id));
        let map = self.map.subscribe();
        let keeper = Storekeeper::new(id, store, map, streams, Threads::Blocking, hook);
        self.network.nodes.lock().insert(id, Arc::new(keeper));
    }

    /// The process dies: its memory is gone, its disk stays.
    pub(super) fn kill(&mut self, id: NodeId) {
        self.network.nodes.lock().remove(&id);
        self.network.break_connections(Some(id));
        self.stores.remove(&id);
    }

    pub(super) fn streams(&self, subject: Subject) -> Arc<DataStreams> {
        let me = PeerIdentity { cluster: CLUSTER, subject };
        let dial = Dial { network: Arc::clone(&self.network), me };
        let incarnation = self.incarnations.fetch_add(1, Ordering::Relaxed);
        Arc::new(DataStreams::new(Arc::new(dial), incarnation))
    }

    pub(super) fn client(&self, number: u8) -> DataPath {
        DataPath::new(self.router(Subject::Client(ClientId([number; 16]))))
    }

    pub(super) fn router(&self, subject: Subject) -> DataRouter {
        DataRouter::new(self.streams(subject), self.map.subscribe(), Arc::new(Notify::new()))
    }

    /// An inode whose chunk 0 has this placement group.
    pub(super) fn inode_in(&self, pg: u32) -> InodeId {
        let map = self.map.borrow();
        let of = |inode: &InodeId| map.pgs.group_of(*inode, 0) == Some(PgId(pg));
        (100..).map(InodeId).find(of).unwrap()
    }

    pub(super) fn members(&self, pg: u32) -> Vec<NodeId> {
        self.map.borrow().pgs.groups[pg as usize].members.clone()
    }

    /// The bytes of an inode at each member of the group.
    pub(super) fn replicas(&self, pg: u32, inode: InodeId, length: usize) -> Vec<Vec<u8>> {
        let read = |id: &NodeId| self.stores[id].read(inode, 0, length, &[]).unwrap().data.to_vec();
        self.members(pg).iter().map(read).collect()
    }
}

fn entry(address: SocketAddr) -> NodeEntry {
    let profile = NodeProfile {
        address,
        metrics_address: None,
        failure_domain: String::new(),
        offers_metadata: false,
        storage_weight: 1.0,
        version: "test".to_owned(),
        feature_level: 1,
    };
    NodeEntry { profile, condition: NodeCondition::Alive, elector: false }
}
