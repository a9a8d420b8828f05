//! Hosts in virtual time: five nodes and some clients, each a machine of its own.
//!
//! Every host has its own runtime with a clock that stands still unless the world moves it. In
//! each [`World::step`] a millisecond passes: the network hands over what is due, then every host
//! runs, in an order drawn anew, until it has nothing more to do. A host that is paused does not
//! run, and finds its clock moved on afterwards, as a stopped process does. A host that crashes
//! loses its runtime with every task in it, and its disks what was not synced.
//!
//! What must always hold: the seed decides everything.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ministry_raft::{Compaction, Fatal, MemoryLog, MemorySpool, NodeLog, Settings};
use ministry_roles::clock::Clock;
use ministry_roles::node::{Node, NodeStatus};
use ministry_roles::storekeeper::Threads;
use ministry_roles::{Founding, Parts};
use ministry_storage::{ChunkStore, ChunkStoreOptions, MemoryDisk};
use ministry_transport::{PeerIdentity, Security, Subject};
use ministry_types::government::{ClusterMap, NodeProfile};
use ministry_types::kv::MemoryKv;
use ministry_types::{ClientId, ClusterId, NodeId, Timestamp};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, RngCore, SeedableRng};
use tokio::runtime::{Builder, RngSeed, Runtime};

use crate::network::{HostId, Link, Network, address};
use crate::replicas::{Replicas, WatchedKv};
use crate::trace;

/// Nodes of the cluster: enough that all five electors are needed, and two are idle.
pub const NODES: usize = 5;
/// 2026, so that times look like times.
const EPOCH_SECONDS: i64 = 1_770_000_000;
/// A small log, so that it is shortened and snapshots travel within a short run.
const COMPACTION: Compaction = Compaction { entries: 300, commands: 500, keep: 150 };

/// The wall clock of a host: wrong by a constant.
struct HostClock {
    skew: i64,
}

impl Clock for HostClock {
    fn now(&self) -> Timestamp {
        let milliseconds = EPOCH_SECONDS * 1000 + trace::tick().cast_signed() + self.skew;
        Timestamp(milliseconds * 1_000_000)
    }
}

struct Host {
    name: String,
    runtime: Option<Runtime>,
    paused_until: u64,
    behind: u64,
}

/// What outlives the crashes of a node, and the node while it runs.
struct Machine {
    id: NodeId,
    log: MemoryLog,
    kv: MemoryKv,
    watched: Option<Arc<WatchedKv>>,
    spool: MemorySpool,
    disk: MemoryDisk,
    skew: i64,
    running: Arc<Mutex<Option<Node>>>,
    fatal: Fatal,
    newest_map: u64,
    /// It knows of the founding: the file with the authority is gone.
    founded: bool,
}

/// Everything. Node `i` is host `i`.
pub struct World {
    /// What connects the hosts.
    pub network: Network,
    /// What the nodes' states have shown.
    pub replicas: Replicas,
    hosts: Vec<Host>,
    machines: Vec<Machine>,
    cluster: ClusterId,
    rng: SmallRng,
    tick: u64,
    mutant: Option<Mutant>,
}

/// A mistake that is made on purpose, to see that it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// One node now and then writes another value than it should.
    Drift,
    /// Disks come back empty after a crash.
    Amnesia,
}

impl Mutant {
    /// The mistake of that name.
    pub fn from_name(name: &str) -> Option<Mutant> {
        match name {
            "drift" => Some(Mutant::Drift),
            "amnesia" => Some(Mutant::Amnesia),
            _ => None,
        }
    }
}

impl World {
    /// A world of this seed, with its nodes switched off.
    pub fn new(seed: u64, mutant: Option<Mutant>) -> World {
        let mut rng = SmallRng::seed_from_u64(seed);
        let network = Network::new(rng.next_u64());
        let mut cluster = ClusterId::default();
        rng.fill_bytes(&mut cluster.0);
        let mut world = World {
            network,
            replicas: Replicas::default(),
            hosts: Vec::new(),
            machines: Vec::new(),
            cluster,
            rng,
            tick: 0,
            mutant,
        };
        let skewed = world.rng.random_bool(0.3);
        for number in 0..NODES {
            world.add_host(format!("node-{number}"), true);
            let mut id = NodeId::default();
            world.rng.fill_bytes(&mut id.0);
            let sync_time = Duration::from_millis(world.rng.random_range(1..4));
            let skew = if skewed { world.rng.random_range(-3_600_000..3_600_000) } else { 0 };
            world.machines.push(Machine {
                id,
                log: MemoryLog::new(sync_time),
                kv: MemoryKv::default(),
                watched: None,
                spool: MemorySpool::default(),
                disk: MemoryDisk::default(),
                skew,
                running: Arc::default(),
                fatal: Fatal::new(),
                newest_map: 0,
                founded: false,
            });
        }
        world
    }

    fn add_host(&mut self, name: String, is_node: bool) -> HostId {
        self.hosts.push(Host { name, runtime: None, paused_until: 0, behind: 0 });
        self.network.add_host(is_node)
    }

    fn runtime(&mut self) -> Runtime {
        let seed = RngSeed::from_bytes(&self.rng.next_u64().to_be_bytes());
        let mut runtime = Builder::new_current_thread();
        runtime.enable_time().start_paused(true).rng_seed(seed);
        runtime.build().expect("a runtime without I/O needs nothing")
    }

    /// The millisecond it is now.
    pub fn tick(&self) -> u64 {
        self.tick
    }

    /// One millisecond passes.
    pub fn step(&mut self) {
        self.tick += 1;
        trace::set_tick(self.tick);
        trace::set_host("network");
        self.network.deliver(self.tick);
        let mut order: Vec<usize> = (0..self.hosts.len()).collect();
        order.shuffle(&mut self.rng);
        for number in order {
            let host = &mut self.hosts[number];
            let Some(runtime) = &host.runtime else { continue };
            if self.tick <= host.paused_until {
                host.behind += 1;
                continue;
            }
            trace::set_host(&host.name);
            let behind = std::mem::take(&mut host.behind);
            runtime.block_on(async {
                if behind > 0 {
                    tokio::time::advance(Duration::from_millis(behind)).await;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            });
        }
        trace::set_host("world");
    }

    /// Switches a node on.
    pub fn start_node(&mut self, number: usize) {
        let runtime = self.runtime();
        let link = self.network.start(number);
        let (incarnation, seed) = (self.rng.next_u64(), self.rng.next_u64());
        trace::set_host(&self.hosts[number].name.clone());
        trace::note(format_args!("starts as {}", self.machines[number].id.short()));
        let parts = self.parts(number, link, incarnation, seed);
        let running = Arc::clone(&self.machines[number].running);
        runtime.spawn(async move {
            match Node::start(parts).await {
                Ok(node) => *running.lock() = Some(node),
                Err(error) => trace::breach(format_args!("a node does not start: {error}")),
            }
        });
        self.hosts[number].runtime = Some(runtime);
        trace::set_host("world");
    }

    fn parts(&mut self, number: usize, link: Link, incarnation: u64, seed: u64) -> Parts {
        let cluster = self.cluster;
        let name = self.hosts[number].name.clone();
        let replicas = self.replicas.clone();
        let machine = &mut self.machines[number];
        let drifts = number == 1 && self.mutant == Some(Mutant::Drift);
        let kv = Arc::new(WatchedKv::new(name.clone(), machine.kv.clone(), replicas, drifts));
        machine.watched = Some(Arc::clone(&kv));
        machine.fatal = Fatal::new();
        machine.newest_map = 0;
        let disk = Arc::new(machine.disk.clone());
        let chunks = ChunkStore::open(disk, ChunkStoreOptions::default());
        let chunks = chunks.expect("the chunk store opens after every crash");
        let peer = PeerIdentity { cluster, subject: Subject::Node(machine.id) };
        let profile = NodeProfile {
            address: address(number),
            metrics_address: None,
            failure_domain: format!("rack-{number}"),
            offers_metadata: true,
            storage_weight: 1.0,
            version: "simulated".to_owned(),
            feature_level: ministry_types::format::FEATURE_LEVEL,
        };
        let founding = (number == 0 && !machine.founded).then(|| Founding {
            cluster,
            authority: "no certificates in here".to_owned(),
            initial_nodes: NODES as u32,
        });
        Parts {
            me: machine.id,
            profile,
            security: Arc::new(Security::plain_for_simulation(peer)),
            connector: Arc::new(link.clone()),
            listener: Box::new(link.listen()),
            clock: Arc::new(HostClock { skew: machine.skew }),
            kv,
            log: NodeLog::Memory(machine.log.clone()),
            spool: Arc::new(machine.spool.clone()),
            chunks: Arc::new(chunks),
            threads: Threads::InPlace,
            raft: Settings { compaction: COMPACTION, ..Settings::simulation(seed) },
            incarnation,
            founding,
            seeds: (0..NODES).filter(|other| *other != number).map(address).collect(),
            device: name,
            fatal: machine.fatal.clone(),
        }
    }

    /// A node loses its power, or (`announced`) its process is killed and its kernel closes the
    /// connections. Either way the disks keep what was synced, no more.
    pub fn crash_node(&mut self, number: usize, announced: bool) {
        trace::note(format_args!("{} crashes, announced: {announced}", self.hosts[number].name));
        self.network.crash(number, announced);
        let host = &mut self.hosts[number];
        (host.paused_until, host.behind) = (0, 0);
        trace::set_host(&host.name);
        let Some(runtime) = host.runtime.take() else { return };
        let machine = &mut self.machines[number];
        {
            let _context = runtime.enter();
            drop(machine.running.lock().take());
        }
        drop(runtime);
        machine.running = Arc::default();
        machine.watched = None;
        machine.log.crash();
        machine.kv.crash();
        machine.disk.crash(Some(self.rng.next_u64()));
        if self.mutant == Some(Mutant::Amnesia) {
            machine.log = MemoryLog::new(Duration::from_millis(1));
            machine.kv = MemoryKv::default();
        }
        trace::set_host("world");
    }

    /// Stops a host, node or client, for so many milliseconds.
    pub fn pause(&mut self, host: HostId, milliseconds: u64) {
        trace::note(format_args!("{} is paused for {milliseconds} ms", self.hosts[host].name));
        self.hosts[host].paused_until = self.tick + milliseconds;
    }

    /// Whether the node is switched on.
    pub fn is_up(&self, number: usize) -> bool {
        self.hosts[number].runtime.is_some()
    }

    /// Whether the host runs: it is on and not paused.
    pub fn runs(&self, host: HostId) -> bool {
        let host = &self.hosts[host];
        host.runtime.is_some() && host.paused_until < self.tick
    }

    /// Lets every host run again.
    pub fn end_pauses(&mut self) {
        self.hosts.iter_mut().for_each(|host| host.paused_until = 0);
    }

    /// A further host that runs what `program` makes of its network card, its identity and its
    /// randomness.
    pub fn start_client<F>(
        &mut self,
        name: &str,
        program: impl FnOnce(Link, Arc<Security>, SmallRng) -> F,
    ) -> HostId
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let number = self.add_host(name.to_owned(), false);
        let runtime = self.runtime();
        let link = self.network.start(number);
        let mut id = ClientId::default();
        self.rng.fill_bytes(&mut id.0);
        let peer = PeerIdentity { cluster: self.cluster, subject: Subject::Client(id) };
        let security = Arc::new(Security::plain_for_simulation(peer));
        let rng = SmallRng::seed_from_u64(self.rng.next_u64());
        runtime.spawn(program(link, security, rng));
        self.hosts[number].runtime = Some(runtime);
        number
    }

    /// How a node stands; `None`: it does not run yet, or no more.
    pub fn status(&self, number: usize) -> Option<NodeStatus> {
        self.machines[number].running.lock().as_ref().map(Node::status)
    }

    /// The cluster map as a node knows it.
    pub fn map(&self, number: usize) -> Option<Arc<ClusterMap>> {
        let running = self.machines[number].running.lock();
        running.as_ref().map(|node| node.map().borrow().clone())
    }

    /// The state store of a node that is on.
    pub fn state(&self, number: usize) -> Option<&Arc<WatchedKv>> {
        self.machines[number].watched.as_ref()
    }

    /// The id of a node.
    pub fn id(&self, number: usize) -> NodeId {
        self.machines[number].id
    }

    /// The number of a node.
    pub fn number(&self, id: NodeId) -> Option<usize> {
        self.machines.iter().position(|machine| machine.id == id)
    }

    /// What no node may ever show: a failed disk (none is made to fail), a map that goes back.
    pub fn look(&mut self) {
        for number in 0..NODES {
            if let Some(reason) = self.machines[number].fatal.reason() {
                trace::breach(format_args!("{} gave up: {reason}", self.hosts[number].name));
            }
            let Some(map) = self.map(number) else { continue };
            let running = Arc::clone(&self.machines[number].running);
            let founded = running.lock().as_ref().is_some_and(Node::is_founded);
            self.machines[number].founded |= founded;
            let newest = &mut self.machines[number].newest_map;
            if map.version.0 < *newest {
                trace::breach(format_args!("the map of {} went back", self.hosts[number].name));
            }
            *newest = map.version.0;
        }
    }
}
