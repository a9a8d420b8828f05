//! All groups of a node: `roles` starts and stops them here, and hands incoming requests over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ministry_types::{GroupId, NodeId};
use ministry_wire::raft::{RaftRefusal, RaftReply, RaftRequest};
use openraft::storage::RaftLogStorage;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::{GroupKind, Settings, raft_config};
use crate::errors::RaftError;
use crate::fatal::Fatal;
use crate::group::{Group, ROOM_UNIT_BYTES, Shared};
use crate::incoming;
use crate::log_store::RocksLog;
use crate::log_store_memory::MemoryLog;
use crate::machine::{Machine, run_blocking};
use crate::monitor::{self, LastPosition};
use crate::network::{Callers, RaftNetwork};
use crate::proposer;
use crate::receiver::Receiver;
use crate::spool::SnapshotSpool;
use crate::state_machine::StateMachine;
use crate::status::{GroupStatus, status};
use crate::type_config::{Peer, Raft, Runtime, TypeConfig};

/// Bytes of commands of all groups that wait for being applied.
const COMMANDS_WAITING_BYTES_MAX: usize = 64 << 20;

/// The log of a node.
#[derive(Clone)]
pub enum NodeLog {
    /// On disk: production.
    Rocks(RocksLog),
    /// In memory: simulation.
    Memory(MemoryLog),
}

/// All groups of a node. Clones share them.
#[derive(Clone)]
pub struct Groups {
    inner: Arc<Inner>,
}

struct Inner {
    node: NodeId,
    log: NodeLog,
    network: Arc<dyn RaftNetwork>,
    spool: Arc<dyn SnapshotSpool>,
    settings: Settings,
    fatal: Fatal,
    running: Mutex<BTreeMap<GroupId, Slot>>,
    room: Arc<Semaphore>,
    transfers: Arc<AtomicU64>,
    starts: AtomicU64,
}

enum Slot {
    Starting,
    Running(Arc<Running>),
}

struct Running {
    group: Group,
    receiver: Receiver,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in self.tasks.get_mut() {
            task.abort();
        }
    }
}

/// The place of a group that is being started; gives it back if the start comes to nothing.
struct Reserved<'a> {
    inner: &'a Inner,
    group: GroupId,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut running = self.inner.running.lock();
        if matches!(running.get(&self.group), Some(Slot::Starting)) {
            running.remove(&self.group);
        }
    }
}

impl Groups {
    /// The groups of `node`; none runs yet. `fatal` hears of every storage error.
    pub fn new(
        node: NodeId,
        log: NodeLog,
        network: Arc<dyn RaftNetwork>,
        spool: Arc<dyn SnapshotSpool>,
        settings: Settings,
        fatal: Fatal,
    ) -> Groups {
        let inner = Inner {
            node,
            log,
            network,
            spool,
            settings,
            fatal,
            running: Mutex::default(),
            room: Arc::new(Semaphore::new(COMMANDS_WAITING_BYTES_MAX / ROOM_UNIT_BYTES)),
            transfers: Arc::new(AtomicU64::new(settings.seed)),
            starts: AtomicU64::new(0),
        };
        Groups { inner: Arc::new(inner) }
    }

    /// What hears of storage errors.
    pub fn fatal(&self) -> &Fatal {
        &self.inner.fatal
    }

    /// Starts a group on this node. Does an interrupted install again, applies what the log knows
    /// to be committed, then takes part. A group without members waits for
    /// [`Group::initialize`] or for a leader that adds this node.
    pub async fn start(
        &self,
        group: GroupId,
        kind: GroupKind,
        machine: Arc<dyn StateMachine>,
    ) -> Result<Group, RaftError> {
        let reserved = self.reserve(group)?;
        let inner = &*self.inner;
        let threads = inner.settings.blocking_threads;
        let spool = Arc::clone(&inner.spool);
        let machine =
            Machine::new(group, machine, Arc::clone(&spool), threads, inner.fatal.clone());
        machine.recover().await.map_err(|error| RaftError::Fatal(error.to_string()))?;
        let running = match &inner.log {
            NodeLog::Rocks(log) => {
                let log = log.clone();
                let log = run_blocking(threads, move || log.group(group)).await;
                let log = log.map_err(|error| RaftError::Fatal(error.to_string()))?;
                let log = log.map_err(|error| RaftError::Fatal(error.to_string()))?;
                let (last, has_voted) = (log.clone(), log.has_voted());
                let last = move || {
                    Box::new({
                        let last = last.clone();
                        move || last.last()
                    }) as _
                };
                inner.run(group, kind, machine, log, last, has_voted).await?
            }
            NodeLog::Memory(log) => {
                let log = log.group(group);
                let (last, has_voted) = (log.clone(), log.has_voted());
                let last = move || {
                    Box::new({
                        let last = last.clone();
                        move || last.last()
                    }) as _
                };
                inner.run(group, kind, machine, log, last, has_voted).await?
            }
        };
        let handle = running.group.clone();
        inner.running.lock().insert(group, Slot::Running(Arc::new(running)));
        drop(reserved);
        Ok(handle)
    }

    fn reserve(&self, group: GroupId) -> Result<Reserved<'_>, RaftError> {
        let mut running = self.inner.running.lock();
        if running.contains_key(&group) {
            return Err(RaftError::NotAllowed(format!("group {group} runs already")));
        }
        running.insert(group, Slot::Starting);
        Ok(Reserved { inner: &self.inner, group })
    }

    fn running(&self, group: GroupId) -> Option<Arc<Running>> {
        match self.inner.running.lock().get(&group) {
            Some(Slot::Running(running)) => Some(Arc::clone(running)),
            Some(Slot::Starting) | None => None,
        }
    }

    /// The group, if it runs.
    pub fn get(&self, group: GroupId) -> Option<Group> {
        self.running(group).map(|running| running.group.clone())
    }

    /// All groups that run.
    pub fn all(&self) -> Vec<Group> {
        let running = self.inner.running.lock();
        let groups = running.values().filter_map(|slot| match slot {
            Slot::Running(running) => Some(running.group.clone()),
            Slot::Starting => None,
        });
        groups.collect()
    }

    /// Stops a group; what it has stays on disk. Nothing happens if it does not run.
    pub async fn stop(&self, group: GroupId) {
        let Some(running) = self.running(group) else { return };
        if let Err(error) = running.group.shared.raft.shutdown().await {
            tracing::warn!(%group, %error, "the group did not end in good order");
        }
        let tasks = std::mem::take(&mut *running.tasks.lock());
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
        self.inner.running.lock().remove(&group);
    }

    /// Stops all groups.
    pub async fn shutdown(&self) {
        for group in self.all() {
            self.stop(group.id()).await;
        }
    }

    /// Answers a request that came from the node `from`, as its connection's certificate says.
    pub async fn handle(&self, from: NodeId, group: GroupId, request: RaftRequest) -> RaftReply {
        match self.running(group) {
            Some(running) => {
                Box::pin(incoming::handle(&running.group, &running.receiver, from, request)).await
            }
            None => RaftReply::Refused(RaftRefusal::UnknownGroup(group)),
        }
    }
}

impl Inner {
    async fn run<L: RaftLogStorage<TypeConfig>>(
        &self,
        group: GroupId,
        kind: GroupKind,
        machine: Machine,
        log: L,
        last: impl Fn() -> LastPosition,
        has_voted: bool,
    ) -> Result<Running, RaftError> {
        let settings = self.settings;
        let config = raft_config(&settings, kind)?;
        let callers = Callers {
            node: self.node,
            group,
            network: Arc::clone(&self.network),
            timings: settings.timings,
            blocking_threads: settings.blocking_threads,
            commit_patience: match kind {
                // All nodes act by what the cluster log says, and not much is in it.
                GroupKind::Elected => Duration::ZERO,
                GroupKind::Appointed => settings.timings.commit_patience,
            },
            transfers: Arc::clone(&self.transfers),
            silent: Arc::default(),
        };
        let unflushed = machine.unflushed();
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        let seed = mix(&[settings.seed, short_number(self.node), group.0, start]);
        let raft = Raft::new(Peer(self.node), config, callers, log, machine);
        let raft = Runtime::scope(seed, raft).await;
        let raft = raft.map_err(|error| RaftError::Fatal(error.to_string()))?;
        // Answers once openraft has read its storage and published what it found.
        let ready = raft.with_raft_state(|_| ()).await;
        ready.map_err(|error| RaftError::Fatal(error.to_string()))?;

        let lease = if has_voted { settings.timings.election_max } else { Default::default() };
        let votes_from = Instant::now() + lease;
        let (proposals, queue) = mpsc::channel(settings.proposals_max);
        let first = {
            use openraft::async_runtime::WatchReceiver;
            status(&raft.metrics().borrow_watched(), last()())
        };
        let (publish, changes) = watch::channel::<GroupStatus>(first);
        let mut tasks = vec![
            tokio::spawn(proposer::run(raft.clone(), kind, queue)),
            tokio::spawn(monitor::run(group, raft.clone(), last(), publish, self.fatal.clone())),
            tokio::spawn(monitor::flush_in_time(raft.clone(), unflushed, settings.compaction)),
        ];
        if kind == GroupKind::Elected {
            let raft = raft.clone();
            tasks.push(tokio::spawn(async move {
                tokio::time::sleep_until(votes_from).await;
                raft.runtime_config().elect(true);
            }));
        }
        let shared = Shared {
            id: group,
            raft,
            proposals,
            room: Arc::clone(&self.room),
            status: changes,
            last: last(),
            settings,
            votes_from,
            handed_over: AtomicU64::new(0),
        };
        Ok(Running {
            group: Group { shared: Arc::new(shared) },
            receiver: Receiver::new(group, Arc::clone(&self.spool), settings.blocking_threads),
            tasks: Mutex::new(tasks),
        })
    }
}

fn short_number(node: NodeId) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&node.0[..8]);
    u64::from_be_bytes(bytes)
}

/// Draws one number from several (SplitMix64 over each).
fn mix(parts: &[u64]) -> u64 {
    parts.iter().fold(0, |sum: u64, part| {
        let z = (sum ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}
