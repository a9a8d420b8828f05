//! `ministryd run`: the node with its real disks, network and clock, until a signal ends it.
//!
//! What must always hold: the data folder is checked and locked before a store is opened; after an
//! error of the disks the process ends at once, without flushing what can no longer be trusted; a
//! first signal ends in order, a second one at once.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use metrics::gauge;
use ministry_raft::{Fatal, FileSpool, NodeLog, RocksLog, Settings};
use ministry_roles::clock::Clock;
use ministry_roles::node::{Node, Parts};
use ministry_roles::storekeeper::Threads;
use ministry_storage::{ChunkStore, ChunkStoreOptions, RealDisk, RocksKv};
use ministry_telemetry::http::{Health, HealthSource, PageServer};
use ministry_telemetry::logging::{self, LogTarget};
use ministry_telemetry::{process, recorder};
use ministry_transport::{Security, TcpAccept, TcpConnector};
use ministry_types::Timestamp;
use ministry_types::settings::NodeSettings;
use parking_lot::Mutex;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{interval, timeout};

use crate::cli::SettingFlags;
use crate::failure::Failure;
use crate::folder::{DataFolder, write_addresses};
use crate::{health, join, settings};

/// Between two looks at the node for the health page.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long the end in order may take: below what service managers wait before they kill.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(8);

/// The clock of the machine.
struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::new(since.as_secs().cast_signed(), since.subsec_nanos())
    }
}

/// Runs the node of a data folder.
pub async fn run(data: &Path, config: Option<&Path>, flags: &SettingFlags) -> Result<(), Failure> {
    let settings = settings::load(data, config, flags)?;
    let target = settings.log_file.clone().map_or(LogTarget::Stderr, LogTarget::File);
    logging::init(&target, &settings.log).map_err(Failure::usage)?;
    let folder = Arc::new(DataFolder::open(data)?);
    let mut signals = Signals::new()?;
    raise_file_limit();

    let health = Arc::new(Mutex::new(health::starting(folder.node)));
    let mut tasks = JoinSet::new();
    let (stop_pages, pages_stopped) = tokio::sync::oneshot::channel::<()>();
    serve_pages(&settings, &health, pages_stopped, &mut tasks).await?;

    let fatal = Fatal::new();
    let node = start(&folder, &settings, &fatal).await?;
    tracing::info!(node = %folder.node, address = %settings.address().map_err(Failure::usage)?,
        version = env!("CARGO_PKG_VERSION"), "the node runs");
    let reason = watch(&node, &folder, &health, &mut signals).await;
    if let Some(reason) = reason {
        // Nothing is flushed: after such an error nothing in memory can be trusted.
        tracing::error!(reason, "the node ends");
        eprintln!("ministryd: the disk of {} failed: {reason}", data.display());
        std::process::exit(1);
    }
    *health.lock() = health::stopping(folder.node);
    tokio::select! {
        ended = timeout(SHUTDOWN_TIMEOUT, node.shut_down()) => match ended {
            Ok(()) => tracing::info!("the node has ended in order"),
            Err(_) => tracing::warn!("the node did not end in time; the log has it all"),
        },
        () = signals.wait() => tracing::warn!("the node ends at once"),
    }
    let _ = stop_pages.send(());
    tasks.shutdown().await;
    Ok(())
}

/// The pages and the gauges, as tasks of the program.
async fn serve_pages(
    settings: &NodeSettings,
    health: &Arc<Mutex<Health>>,
    stopped: tokio::sync::oneshot::Receiver<()>,
    tasks: &mut JoinSet<()>,
) -> Result<(), Failure> {
    let metrics = recorder::install()?;
    gauge!("ministry_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    tasks.spawn(process::run_sampler());
    tasks.spawn(recorder::run_upkeep(metrics.clone()));
    let Some(address) = settings.metrics else { return Ok(()) };
    let health = Arc::clone(health);
    let source: HealthSource = Arc::new(move || health.lock().clone());
    let server = PageServer::bind(address, metrics, source).await?;
    tasks.spawn(async move {
        let stop = async move {
            // Both a message and a sender that is gone mean the end.
            let _ = stopped.await;
        };
        if let Err(error) = server.run(stop).await {
            tracing::error!(%error, "the metrics page is gone; the node goes on");
        }
    });
    Ok(())
}

/// Opens the stores and starts the node.
async fn start(
    folder: &Arc<DataFolder>,
    settings: &NodeSettings,
    fatal: &Fatal,
) -> Result<Node, Failure> {
    let security = Security::tls(folder.identity.clone()).map_err(Failure::folder)?;
    let listener = TcpAccept::bind(settings.listen).await.map_err(|error| {
        anyhow!(
            "cannot listen on {}: {error}; stop the program that does, or choose another address \
             with --listen",
            settings.listen
        )
    })?;
    let stores = {
        let (folder, fatal) = (Arc::clone(folder), fatal.clone());
        spawn_blocking(move || Stores::open(&folder, fatal))
            .await
            .context("opening the stores")??
    };
    let parts = Parts {
        me: folder.node,
        profile: join::profile(settings)?,
        security: Arc::new(security),
        connector: Arc::new(TcpConnector),
        listener: Box::new(listener),
        clock: Arc::new(WallClock),
        kv: Arc::new(stores.state),
        log: NodeLog::Rocks(stores.log),
        spool: Arc::new(stores.spool),
        chunks: Arc::new(stores.chunks),
        threads: Threads::Blocking,
        raft: Settings::new(rand::random()),
        incarnation: rand::random(),
        founding: folder.founding()?,
        seeds: folder.addresses(),
        device: stores.device,
        fatal: fatal.clone(),
    };
    Ok(Node::start(parts).await?)
}

/// What lies on this node's disk.
struct Stores {
    log: RocksLog,
    state: RocksKv,
    chunks: ChunkStore,
    spool: FileSpool,
    device: String,
}

impl Stores {
    /// Opens them, made where this is the first start. Blocks.
    fn open(folder: &DataFolder, fatal: Fatal) -> anyhow::Result<Stores> {
        let log = RocksLog::open(&folder.make_store("log")?, fatal)?;
        let state = RocksKv::open(&folder.make_store("state")?)?;
        let disk = RealDisk::new(&folder.make_store("chunks")?);
        let chunks = ChunkStore::open(Arc::new(disk), ChunkStoreOptions::default())?;
        let spool = FileSpool::open(&folder.make_store("snapshots")?)
            .with_context(|| format!("cannot use {}", folder.store("snapshots").display()))?;
        folder.stores_are_made()?;
        let device = device(&folder.path)?;
        Ok(Stores { log, state, chunks, spool, device })
    }
}

/// Names the file system below the data folder: nodes of one machine that share it say the same.
fn device(folder: &Path) -> anyhow::Result<String> {
    let stat =
        rustix::fs::stat(folder).with_context(|| format!("cannot look at {}", folder.display()))?;
    let machine = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Ok(format!("{}:{}", machine.trim(), stat.st_dev))
}

/// Watches the node until it fails (then why) or a signal comes (then nothing).
async fn watch(
    node: &Node,
    folder: &Arc<DataFolder>,
    health: &Mutex<Health>,
    signals: &mut Signals,
) -> Option<String> {
    let mut looks = interval(LOOK_INTERVAL);
    let mut map = node.map();
    let mut founding = folder.founding().is_ok_and(|founding| founding.is_some());
    let mut written: BTreeSet<SocketAddr> = folder.addresses().into_iter().collect();
    loop {
        tokio::select! {
            reason = node.failed() => return Some(reason),
            () = signals.wait() => return None,
            _ = looks.tick() => {
                *health.lock() = health::of(&node.status());
                if founding && node.is_founded() {
                    founding = false;
                    forget_founding(Arc::clone(folder)).await;
                }
            }
            changed = map.changed() => {
                if changed.is_err() {
                    continue;
                }
                let others = {
                    let map = map.borrow_and_update();
                    let others = map.nodes.iter().filter(|(node, _)| **node != folder.node);
                    others.map(|(_, entry)| entry.profile.address).collect::<BTreeSet<_>>()
                };
                if !others.is_empty() && others != written {
                    written = others.clone();
                    keep_addresses(Arc::clone(folder), others).await;
                }
            }
        }
    }
}

async fn forget_founding(folder: Arc<DataFolder>) {
    match spawn_blocking(move || folder.forget_founding()).await {
        Ok(Ok(())) => tracing::info!("the cluster log holds the authority; its file is removed"),
        Ok(Err(error)) => tracing::error!(%error, "remove the founding file by hand"),
        Err(error) => tracing::error!(%error, "the founding file may still be there"),
    }
}

async fn keep_addresses(folder: Arc<DataFolder>, others: BTreeSet<SocketAddr>) {
    let addresses: Vec<SocketAddr> = others.into_iter().collect();
    let write = spawn_blocking(move || write_addresses(&folder.path, &addresses));
    if let Ok(Err(error)) = write.await {
        tracing::warn!(%error, "the list of nodes could not be kept");
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Signals> {
        let terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        Ok(Signals { terminate, interrupt })
    }

    /// Cancel safety: safe; a signal that came stays noted.
    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => tracing::info!("SIGTERM"),
            _ = self.interrupt.recv() => tracing::info!("SIGINT"),
        }
    }
}

/// As many files as the system allows: chunks and connections need them.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}
