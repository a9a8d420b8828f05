//! A node: everything that one `ministryd` runs, assembled from what it is given.
//!
//! `ministryd` calls [`Node::start`] with real disks, TLS and TCP; a simulation with its own. The
//! node takes part in the cluster log from the beginning; what other offices it holds, the
//! government says: president while it leads the cluster log, member of the ministries that name
//! it, keeper of its share of the data. Every task belongs to the [`Node`] and ends with it.
//!
//! What must always hold: the wall clock, randomness, disks and network come in by
//! [`Parts`]; nothing here reaches for them itself.
//!
//! When it fails: an error of the disks is reported by [`Node::failed`]; the program then ends,
//! since nothing after such an error can be trusted.

mod offices;
mod registration;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ministry_raft::{
    Fatal, Group, GroupKind, Groups, NodeLog, ProposeError, RaftError, Settings, SnapshotSpool,
    StateError,
};
use ministry_storage::ChunkStore;
use ministry_transport::data_stream::DataStreams;
use ministry_transport::{
    CallError, Connector, Dialer, Door, Listener, Peers, Revocations, RevokedIds, Security, Server,
    Target,
};
use ministry_types::government::NodeProfile;
use ministry_types::kv::Kv;
use ministry_types::limits::ATTEMPT_TIMEOUT;
use ministry_types::{ClusterId, GroupId, MinistryId, NodeId};
use ministry_wire::minister::FsUsage;
use ministry_wire::node::{Appointment, NodeReport};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tarpc::RequestName;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::government::{GovernmentMachine, Order, OrderReply, Proposal};
use crate::minister::Office;
use crate::network::PeerNetwork;
use crate::president::sights::Sights;
use crate::room::DiskRoom;
use crate::services::{Admission, Doors};
use crate::storekeeper::{Storekeeper, Threads};

/// The node that begins a cluster holds its authority until the cluster log does.
#[derive(Debug, Clone)]
pub struct Founding {
    /// The new cluster.
    pub cluster: ClusterId,
    /// Certificate and key of its authority, PEM.
    pub authority: String,
    /// Nodes that are waited for before the first ministry is made.
    pub initial_nodes: u32,
}

/// What a node is made of.
pub struct Parts {
    /// Who it is.
    pub me: NodeId,
    /// What it tells about itself.
    pub profile: NodeProfile,
    /// How it proves who it is.
    pub security: Arc<Security>,
    /// How it reaches others.
    pub connector: Arc<dyn Connector>,
    /// Where others reach it.
    pub listener: Box<dyn Listener>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// State of the cluster log and of the ministries.
    pub kv: Arc<dyn Kv>,
    /// The log of all groups.
    pub log: NodeLog,
    /// Where snapshots are received.
    pub spool: Arc<dyn SnapshotSpool>,
    /// The file data.
    pub chunks: Arc<ChunkStore>,
    /// How chunks are worked with.
    pub threads: Threads,
    /// Settings of the groups.
    pub raft: Settings,
    /// Drawn at random at each start.
    pub incarnation: u64,
    /// Set where this node begins a cluster.
    pub founding: Option<Founding>,
    /// Nodes that were known at the last run, for the time before the map is there.
    pub seeds: Vec<SocketAddr>,
    /// Names the disk below the data, so that nodes which share it count once.
    pub device: String,
    /// Where the end of the process is asked for.
    pub fatal: Fatal,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The cluster log does not start.
    #[error("the cluster log does not start: {0}")]
    Raft(#[from] RaftError),
}

/// An order was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// This node is not the president; the order was certainly not given.
    #[error("this node is not the president")]
    NotPresident,
    /// It may have been given.
    #[error("whether the order was given is not known")]
    Unknown,
}

/// What all offices and services of a node share.
pub(crate) struct NodeContext {
    pub me: NodeId,
    pub clock: Arc<dyn Clock>,
    pub government: Arc<GovernmentMachine>,
    pub cluster: Group,
    pub groups: Groups,
    pub sights: Sights,
    pub storekeeper: Arc<Storekeeper>,
    pub admission: Admission,
    profile: NodeProfile,
    peers: Peers,
    seeds: Vec<SocketAddr>,
    kv: Arc<dyn Kv>,
    chunks: Arc<ChunkStore>,
    threads: Threads,
    data: Arc<DataStreams>,
    device: String,
    incarnation: u64,
    founding: Option<Founding>,
    usage: Mutex<Option<FsUsage>>,
    disk: Arc<DiskRoom>,
    offices: Mutex<BTreeMap<MinistryId, OpenOffice>>,
    /// An asynchronous lock: opening an office waits for its log, and two must not open one.
    opening: tokio::sync::Mutex<()>,
    fatal: Fatal,
}

/// An office with the tasks that belong to it.
struct OpenOffice {
    office: Arc<Office>,
    standing: Option<(Appointment, tokio_util::task::AbortOnDropHandle<()>)>,
    _house: tokio_util::task::AbortOnDropHandle<()>,
}

/// Between two looks at the disk's room and at the log's purge.
const DISK_LOOK: Duration = Duration::from_secs(2);

impl NodeContext {
    /// Whether this node leads the cluster log.
    pub fn is_president(&self) -> bool {
        self.cluster.status().is_leader
    }

    /// Where the president is, as far as is known here.
    pub fn president_address(&self) -> Option<SocketAddr> {
        let leader = self.cluster.status().leader?;
        self.government.map().borrow().address(leader)
    }

    /// What is to be founded, if this node was started to found a cluster.
    pub fn founding(&self) -> Option<Founding> {
        self.founding.clone()
    }

    /// Room in the file system, as the president last said.
    pub fn usage(&self) -> Option<FsUsage> {
        *self.usage.lock()
    }

    /// Takes note of the room in the file system.
    pub fn set_usage(&self, usage: Option<FsUsage>) {
        if usage.is_some() {
            *self.usage.lock() = usage;
        }
    }

    /// The office of a ministry, if this node is a member.
    pub fn office(&self, ministry: MinistryId) -> Option<Arc<Office>> {
        self.offices.lock().get(&ministry).map(|open| Arc::clone(&open.office))
    }

    /// All offices.
    pub fn offices(&self) -> Vec<Arc<Office>> {
        self.offices.lock().values().map(|open| Arc::clone(&open.office)).collect()
    }

    /// How this node is.
    pub fn report(&self) -> NodeReport {
        NodeReport {
            node: self.me,
            incarnation: self.incarnation,
            cluster_applied: self.government.applied_index(),
            groups: self.offices().iter().map(|office| office.report()).collect(),
            disk: self.disk.report(),
        }
    }

    /// Puts an order into the cluster log, within [`ATTEMPT_TIMEOUT`]: an entry that is neither
    /// committed nor overwritten, because this node was cut off, would be waited for without end.
    ///
    /// Cancel safety: the order may be given all the same.
    pub async fn order(&self, order: Order, reason: String) -> Result<OrderReply, OrderError> {
        let proposal = Proposal { president: self.me, time: self.clock.now(), reason, order };
        let proposed = self.cluster.propose(Bytes::from(proposal.encode()));
        let proposed =
            timeout(ATTEMPT_TIMEOUT, proposed).await.unwrap_or(Err(ProposeError::Unknown));
        let proposed = proposed.map_err(|error| match error {
            ProposeError::NotLeader { .. } | ProposeError::Busy | ProposeError::TooLarge(_) => {
                OrderError::NotPresident
            }
            ProposeError::Unknown | ProposeError::Fatal(_) => OrderError::Unknown,
        })?;
        OrderReply::decode(&proposed.reply).map_err(|_| OrderError::Unknown)
    }

    /// Calls the nodes' door of another node.
    pub async fn call_node<C, Req, Resp, R, F, Fut>(
        &self,
        to: NodeId,
        limit: Duration,
        request: F,
    ) -> Result<R, CallError>
    where
        C: From<tarpc::client::Channel<Req, Resp>>,
        Req: serde::Serialize + RequestName + Send + 'static,
        Resp: DeserializeOwned + Send + 'static,
        F: FnOnce(C, tarpc::context::Context) -> Fut,
        Fut: Future<Output = Result<R, tarpc::client::RpcError>>,
    {
        let address = self.government.map().borrow().address(to);
        let target = match address {
            Some(address) => Target::node(to, address),
            None => {
                let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
                return Err(CallError::NoConnection {
                    target: Target::node(to, unknown),
                    after: limit,
                });
            }
        };
        self.peers.call(target, Door::Node, limit, request).await
    }

    /// Keeps the list of refused certificates equal to the government's.
    async fn follow_revocations(self: Arc<Self>, revocations: Revocations) {
        let mut map = self.government.map();
        loop {
            let government = self.government.government();
            let revoked = government.revoked();
            revocations.set(RevokedIds {
                nodes: revoked.iter().filter_map(|id| id.parse().ok()).collect(),
                clients: revoked.iter().filter_map(|id| id.parse().ok()).collect(),
            });
            if map.changed().await.is_err() {
                return;
            }
        }
    }

    /// President while this node leads the cluster log.
    async fn preside_when_elected(self: Arc<Self>) {
        let mut status = self.cluster.watch();
        loop {
            match status.wait_for(|status| status.is_leader).await {
                Ok(_) => {}
                Err(_) => return,
            }
            crate::president::office::President::new(Arc::clone(&self)).run().await;
        }
    }

    /// Looks at the disk from time to time: asking it may take a while, a report must not.
    async fn watch_disk(self: Arc<Self>) {
        loop {
            let chunks = Arc::clone(&self.chunks);
            let usage = self.threads.call(move || chunks.usage()).await;
            if let Some(Ok(usage)) = usage {
                self.disk.note(&self.device, &usage);
            }
            tokio::time::sleep(DISK_LOOK).await;
        }
    }
}

/// How a node stands, for its health page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Who it is.
    pub node: NodeId,
    /// It is president.
    pub president: bool,
    /// Who is president, as far as is known here.
    pub known_president: Option<NodeId>,
    /// It is in the cluster log.
    pub registered: bool,
    /// Ministries that it is a member of, with the epoch under which it serves as minister.
    pub ministries: BTreeMap<MinistryId, Option<ministry_types::Epoch>>,
}

/// A node that runs. Dropping it ends everything.
pub struct Node {
    context: Arc<NodeContext>,
    fatal: Fatal,
    tasks: JoinSet<()>,
}

impl Node {
    /// Starts a node. Must be called within a runtime.
    pub async fn start(parts: Parts) -> Result<Node, StartError> {
        let Parts { me, security, connector, listener, fatal, .. } = parts;
        let revocations = Revocations::default();
        let dialer = Arc::new(Dialer::new(connector, Arc::clone(&security), revocations.clone()));
        let peers = Peers::new(Arc::clone(&dialer));
        let government = Arc::new(GovernmentMachine::open(Arc::clone(&parts.kv))?);
        let network = Arc::new(PeerNetwork::new(peers.clone(), government.map()));
        let groups = Groups::new(me, parts.log, network, parts.spool, parts.raft, fatal.clone());
        let state = Arc::clone(&government);
        let cluster = groups.start(GroupId::CLUSTER, GroupKind::Elected, state).await?;
        let data = Arc::new(DataStreams::new(dialer, parts.incarnation));
        let hook = fatal.clone();
        let storekeeper = Storekeeper::new(
            me,
            Arc::clone(&parts.chunks),
            government.map(),
            Arc::clone(&data),
            parts.threads,
            Arc::new(move |reason: &str| hook.report(reason)),
        );
        let context = Arc::new(NodeContext {
            me,
            clock: parts.clock,
            government,
            cluster,
            groups,
            sights: Sights::default(),
            storekeeper: Arc::new(storekeeper),
            admission: Admission::default(),
            profile: parts.profile,
            peers,
            seeds: parts.seeds,
            kv: parts.kv,
            chunks: parts.chunks,
            threads: parts.threads,
            data,
            device: parts.device,
            incarnation: parts.incarnation,
            founding: parts.founding,
            usage: Mutex::default(),
            disk: Arc::default(),
            offices: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            fatal: fatal.clone(),
        });
        if context.founding.is_some() && !context.cluster.status().initialised {
            context.cluster.initialize(BTreeSet::from([me])).await?;
        }
        let mut tasks = JoinSet::new();
        let doors = Arc::new(Doors::new(Arc::clone(&context)));
        let server = Server::new(listener, security, revocations.clone(), doors);
        tasks.spawn(server.run());
        tasks.spawn(Arc::clone(&context).register());
        tasks.spawn(Arc::clone(&context).follow_map());
        tasks.spawn(Arc::clone(&context).follow_revocations(revocations));
        tasks.spawn(Arc::clone(&context).preside_when_elected());
        tasks.spawn(Arc::clone(&context).watch_disk());
        Ok(Node { context, fatal, tasks })
    }

    /// How it stands.
    pub fn status(&self) -> NodeStatus {
        let context = &self.context;
        let offices = context.offices();
        let raft = context.cluster.status();
        NodeStatus {
            node: context.me,
            president: raft.is_leader,
            known_president: raft.leader,
            registered: context.is_registered(),
            ministries: offices.iter().map(|office| (office.id(), office.serves())).collect(),
        }
    }

    /// The cluster log is founded as far as is known here: the authority need not be kept
    /// elsewhere any more.
    pub fn is_founded(&self) -> bool {
        self.context.government.government().is_founded()
    }

    /// The map, and each later one.
    pub fn map(&self) -> watch::Receiver<Arc<ministry_types::government::ClusterMap>> {
        self.context.government.map()
    }

    /// Waits until the node's disks can no longer be trusted; answers why. The program must end.
    pub async fn failed(&self) -> String {
        self.fatal.wait().await
    }

    /// Ends the node in order: no more requests, groups stopped, state flushed.
    pub async fn shut_down(mut self) {
        self.tasks.shutdown().await;
        self.context.offices.lock().clear();
        self.context.groups.shutdown().await;
        let kv = Arc::clone(&self.context.kv);
        let chunks = Arc::clone(&self.context.chunks);
        let flushed = self.context.threads.call(move || {
            if let Err(error) = kv.flush() {
                tracing::error!(%error, "the state could not be flushed");
            }
            if let Err(error) = chunks.close() {
                tracing::error!(%error, "the chunk store could not be closed in order");
            }
        });
        let _done_or_panicked = flushed.await.is_some();
    }
}
