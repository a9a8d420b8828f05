//! The map of the cluster, as this client knows it, and the tasks that keep it new.
//!
//! [`crate::Client`] owns one [`MapCache`] and two pollers. Each poller asks some node for the map
//! and leaves the question open (a *long poll*): when a minister is appointed the answer comes at
//! once, and every request that waits for the old one goes to the new one. Two, on different nodes,
//! because the node that one of them asks may be the one that just died.
//!
//! What must always hold: the map only moves forward, and never to another cluster's. When no node
//! answers, the last map stays in use; the pollers go on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ministry_transport::{CallError, Door, Peers, Revocations, RevokedIds, Target};
use ministry_types::MapVersion;
use ministry_types::government::{ClusterMap, NodeCondition};
use ministry_types::limits::ATTEMPT_TIMEOUT;
use ministry_wire::minister::MinistryClient;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use tokio::sync::{Notify, watch};

use crate::retry::Backoff;

/// How many nodes are asked at the same time.
pub(crate) const POLLERS: usize = 2;
/// How long a node may leave a question for the map open.
const POLL_WAIT: Duration = Duration::from_secs(5);

/// The newest map known.
#[derive(Debug)]
pub(crate) struct MapCache {
    newest: watch::Sender<Arc<ClusterMap>>,
    doubted: Arc<Notify>,
    peers: Peers,
    revocations: Revocations,
}

impl MapCache {
    /// Begins with the map that some node gave. What a map says of nodes that left or were thrown
    /// out, `peers` and `revocations` follow.
    pub fn new(first: ClusterMap, peers: Peers, revocations: Revocations) -> MapCache {
        revocations.set(revoked(&first));
        let newest = watch::Sender::new(Arc::new(first));
        MapCache { newest, doubted: Arc::default(), peers, revocations }
    }

    /// The newest map.
    pub fn newest(&self) -> Arc<ClusterMap> {
        Arc::clone(&self.newest.borrow())
    }

    /// Tells of every newer map.
    pub fn watch(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.newest.subscribe()
    }

    /// Somebody found that the map does not lead to an answer: a poller asks another node now.
    pub fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// What [`MapCache::doubt`] notifies, for others to do so.
    pub fn doubts(&self) -> Arc<Notify> {
        Arc::clone(&self.doubted)
    }

    /// Takes a map if it is newer.
    fn offer(&self, map: ClusterMap) {
        let taken = self.newest.send_if_modified(|newest| {
            if map.cluster != newest.cluster {
                tracing::error!(ours = %newest.cluster, theirs = %map.cluster,
                    "a node sent the map of another cluster; it is ignored");
                return false;
            }
            let newer = map.version > newest.version;
            if newer {
                tracing::debug!(version = %map.version, "a newer map");
                *newest = Arc::new(map);
            }
            newer
        });
        if taken {
            let map = self.newest();
            self.revocations.set(revoked(&map));
            self.peers.retain(|target| {
                target.node.is_none_or(|node| map.address(node) == Some(target.address))
            });
        }
    }
}

fn revoked(map: &ClusterMap) -> RevokedIds {
    let nodes = map.nodes.iter().filter(|(_, entry)| entry.condition == NodeCondition::Revoked);
    RevokedIds { nodes: nodes.map(|(node, _)| *node).collect(), ..RevokedIds::default() }
}

/// Asks one node for its map, if it has one newer than `known`.
pub(crate) async fn ask(
    peers: &Peers,
    target: Target,
    known: MapVersion,
    wait: Duration,
) -> Result<Option<ClusterMap>, CallError> {
    let limit = wait + ATTEMPT_TIMEOUT;
    let call = async move |client: MinistryClient, context| client.map(context, known, wait).await;
    peers.call(target, Door::Client, limit, call).await
}

/// Keeps the map new.
pub(crate) struct Poller {
    /// Where the map goes.
    pub maps: Arc<MapCache>,
    /// How nodes are reached.
    pub peers: Peers,
    /// Where to look when the map leads nowhere.
    pub seeds: Vec<SocketAddr>,
    /// Which node this poller begins with.
    pub position: usize,
    /// For the spread of waits.
    pub rng: Arc<Mutex<SmallRng>>,
}

impl Poller {
    /// Runs until it is dropped. Cancel safety: safe.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new();
        loop {
            let target = self.candidate();
            let known = self.maps.newest().version;
            let poll = ask(&self.peers, target, known, POLL_WAIT);
            let answer = tokio::select! {
                biased;
                answer = poll => answer,
                () = self.maps.doubted.notified() => {
                    self.ask_another().await;
                    // Many requests may doubt at the same time: one question serves them.
                    tokio::time::sleep(backoff.wait(&self.rng)).await;
                    continue;
                }
            };
            match answer {
                Ok(map) => {
                    backoff = Backoff::new();
                    map.into_iter().for_each(|map| self.maps.offer(map));
                }
                Err(error) => {
                    tracing::debug!(%error, "no map");
                    self.position = self.position.wrapping_add(POLLERS);
                    tokio::time::sleep(backoff.wait(&self.rng)).await;
                }
            }
        }
    }

    /// Asks the next node for what it has now.
    async fn ask_another(&mut self) {
        self.position = self.position.wrapping_add(POLLERS);
        let target = self.candidate();
        let known = self.maps.newest().version;
        match ask(&self.peers, target, known, Duration::ZERO).await {
            Ok(map) => map.into_iter().for_each(|map| self.maps.offer(map)),
            Err(error) => tracing::debug!(%error, "no map"),
        }
    }

    /// The node to ask. Steps of [`POLLERS`] keep two pollers on different nodes; the odd lap moves
    /// one further, so that each comes to every node.
    fn candidate(&self) -> Target {
        let map = self.maps.newest();
        let all = targets(&map, &self.seeds);
        assert!(!all.is_empty(), "a client has at least one address");
        let lap = self.position / all.len();
        all[(self.position + lap) % all.len()]
    }
}

/// Every node that may be asked: those of the map, and who listens at the addresses that the map
/// does not know.
pub(crate) fn targets(map: &ClusterMap, seeds: &[SocketAddr]) -> Vec<Target> {
    let nodes = map.nodes.iter().filter(|(_, entry)| entry.condition != NodeCondition::Revoked);
    let known = nodes.map(|(node, entry)| Target::node(*node, entry.profile.address));
    let strangers =
        seeds.iter().filter(|seed| map.nodes.values().all(|entry| entry.profile.address != **seed));
    known.chain(strangers.map(|seed| Target::any(*seed))).collect()
}
