//! The client itself: connecting, the map, room in the file system, the end.
//!
//! A program makes one [`Client`] and clones it at will. The file-system calls are in
//! [`crate::names`], [`crate::files`], [`crate::read`] and [`crate::write`].
//!
//! What must always hold: every task of a client ends with its last clone. Dropping it without
//! [`Client::shutdown`] is safe: its sessions end by themselves when nothing is heard of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ministry_transport::data_stream::DataStreams;
use ministry_transport::data_stream::router::DataRouter;
use ministry_transport::{Connector, Dialer, Door, Peers, Revocations, Security, Target};
use ministry_types::government::ClusterMap;
use ministry_types::limits::ATTEMPT_TIMEOUT;
use ministry_types::{FsError, MapVersion};
use ministry_wire::minister::{FsUsage, MinistryClient};
use parking_lot::Mutex;
use rand::RngCore;
use rand::rngs::SmallRng;
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::calls::Core;
use crate::data::DataPath;
use crate::file_data::FileData;
use crate::locks::{LockBook, LockTasks};
use crate::maps::{self, MapCache, POLLERS, Poller};
use crate::open_files::OpenTable;
use crate::retry::Backoff;
use crate::routing::Ministries;
use crate::sessions::Sessions;

/// Rounds over all nodes of a question that any node answers.
const ROUNDS_MAX: usize = 3;

/// What a client needs to begin.
pub struct ClientConfig {
    /// Who this client is, and whom it believes.
    pub security: Arc<Security>,
    /// Where connections come from: [`ministry_transport::TcpConnector`], or a simulated network.
    pub connector: Arc<dyn Connector>,
    /// Nodes to begin with; one that answers is enough, the others come with the map.
    pub addresses: Vec<SocketAddr>,
    /// The only source of chance: identities of sessions, spread of waits.
    pub rng: SmallRng,
}

/// What a way to the chunks of files is made of.
#[derive(Debug)]
pub struct DataSetup {
    /// Opens connections to storage nodes.
    pub dialer: Arc<Dialer>,
    /// The map, as it changes.
    pub map: watch::Receiver<Arc<ClusterMap>>,
    /// To be notified when the map seems to be out of date.
    pub map_wanted: Arc<Notify>,
    /// Drawn at random for this client: storage nodes tell by it one client from the next.
    pub incarnation: u64,
}

impl DataSetup {
    /// The real way: streams to the masters of the placement groups.
    pub fn path(self) -> DataPath {
        let streams = DataStreams::new(self.dialer, self.incarnation);
        DataPath::new(DataRouter::new(Arc::new(streams), self.map, self.map_wanted))
    }
}

/// Why a client could not begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// There is nobody to ask.
    #[error("no address of a node is given: name at least one")]
    NoAddresses,
    /// No node gave a map. The reasons, one a node.
    #[error("no node of the cluster answers: {}", .0.iter()
        .map(|(address, reason)| format!("{address}: {reason}"))
        .collect::<Vec<_>>()
        .join("; "))]
    NoAnswer(Vec<(SocketAddr, String)>),
}

/// Access to one cluster's file system. Clones share everything.
#[derive(Clone)]
pub struct Client {
    pub(crate) core: Arc<Core>,
    // Beside the core, which its tasks use: it ends with the last clone.
    pub(crate) lock_tasks: Arc<LockTasks>,
    // Declared after the core, so that the pollers go when nobody uses the map any more.
    _pollers: Arc<Vec<AbortOnDropHandle<()>>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let map = self.core.ministries.maps.newest();
        write!(f, "Client(cluster {}, map {})", map.cluster, map.version)
    }
}

impl Client {
    /// Takes the map from the first node that answers, and begins. Must be called within a tokio
    /// runtime, which the client's tasks run on.
    pub async fn connect(config: ClientConfig) -> Result<Client, ConnectError> {
        Client::connect_with_data(config, |setup| Arc::new(setup.path())).await
    }

    /// As [`Client::connect`], with another way to the chunks of files.
    pub async fn connect_with_data(
        config: ClientConfig,
        data: impl FnOnce(DataSetup) -> Arc<dyn FileData>,
    ) -> Result<Client, ConnectError> {
        let ClientConfig { security, connector, addresses: seeds, mut rng } = config;
        let revocations = Revocations::default();
        let dialer = Dialer::new(connector, security, revocations.clone());
        let peers = Peers::new(Arc::new(dialer));
        let first = first_map(&peers, &seeds).await?;
        let maps = Arc::new(MapCache::new(first, peers.clone(), revocations));
        let data = data(DataSetup {
            dialer: Arc::clone(peers.dialer()),
            map: maps.watch(),
            map_wanted: maps.doubts(),
            incarnation: rng.next_u64(),
        });
        let rng = Arc::new(Mutex::new(rng));
        let pollers = (0..POLLERS).map(|position| Poller {
            maps: Arc::clone(&maps),
            peers: peers.clone(),
            seeds: seeds.clone(),
            position,
            rng: Arc::clone(&rng),
        });
        let pollers = pollers.map(|poller| AbortOnDropHandle::new(tokio::spawn(poller.run())));
        let pollers = Arc::new(pollers.collect());
        let open_files = Arc::new(OpenTable::default());
        let ministries = Arc::new(Ministries::new(maps, peers.clone(), Arc::clone(&rng)));
        let locks = Arc::new(LockBook::default());
        let sessions = Sessions::new(
            Arc::clone(&ministries),
            Arc::clone(&open_files),
            Arc::clone(&locks),
            Arc::clone(&rng),
        );
        let core = Core { ministries, peers, seeds, sessions, open_files, locks, data, rng };
        Ok(Client { core: Arc::new(core), lock_tasks: Arc::default(), _pollers: pollers })
    }

    /// The newest map of the cluster, and every newer one as it comes.
    pub fn map(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.core.ministries.maps.watch()
    }

    /// Room in the file system.
    pub async fn statfs(&self) -> Result<FsUsage, FsError> {
        self.core.operation("statfs", |_| self.core.usage()).await
    }

    /// Waits until every write is in the log, and ends all sessions, so that nobody waits for this
    /// client. What is still under way goes on under new ones.
    pub async fn shutdown(&self) {
        self.core.sessions.settle_all().await;
        self.core.sessions.close_all().await;
    }
}

impl Core {
    pub(crate) async fn usage(&self) -> Result<FsUsage, FsError> {
        let mut backoff = Backoff::new();
        for _ in 0..ROUNDS_MAX {
            for target in maps::targets(&self.ministries.maps.newest(), &self.seeds) {
                let ask = async |client: MinistryClient, context| client.usage(context).await;
                match self.peers.call(target, Door::Client, ATTEMPT_TIMEOUT, ask).await {
                    Ok(Some(usage)) => return Ok(usage),
                    Ok(None) => {}
                    Err(error) => tracing::debug!(%error, "no usage"),
                }
            }
            self.wait(&mut backoff).await;
        }
        Err(FsError::TimedOut)
    }
}

/// The map of the first node that has one.
async fn first_map(peers: &Peers, seeds: &[SocketAddr]) -> Result<ClusterMap, ConnectError> {
    if seeds.is_empty() {
        return Err(ConnectError::NoAddresses);
    }
    let mut failures = Vec::new();
    for address in seeds {
        let ask = maps::ask(peers, Target::any(*address), MapVersion::default(), Duration::ZERO);
        let reason = match ask.await {
            Ok(Some(map)) => return Ok(map),
            Ok(None) => "it has no map yet".to_owned(),
            Err(error) => error.to_string(),
        };
        failures.push((*address, reason));
    }
    Err(ConnectError::NoAnswer(failures))
}
