//! The process that serves a mount: connects, mounts, waits for the end, closes the sessions.
//!
//! It ends when the mount is taken away, or at SIGTERM, SIGINT or SIGHUP. A mount that is in use
//! at a signal is taken out of sight, and cut off when its programs have had their time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ministry_client::{Client, ClientConfig};
use ministry_fuse::mount_table::busy_processes;
use ministry_fuse::{Mount, MountError, MountOptions, Unmount};
use ministry_telemetry::http::{Health, PageServer};
use ministry_telemetry::logging::{self, LogTarget, LoggingError};
use ministry_telemetry::{process, recorder};
use ministry_transport::{Role, Security, TcpConnector};
use ministry_types::{Caller, InodeId};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::cli::Global;
use crate::credentials::Credentials;
use crate::failure::{Failure, Kind};
use crate::mount::presence::Presence;
use crate::mount::{MountArgs, background, place, usage};

/// Between two attempts to connect.
const CONNECT_PAUSE: Duration = Duration::from_millis(200);
/// How long programs that use a mount keep it after a signal.
const LINGER: Duration = Duration::from_secs(10);
/// How long the end of the sessions may take; later they end by themselves.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves the mount until it ends. `reporting`: another process waits for the word that it is
/// there.
pub fn run(args: &MountArgs, global: &Global, reporting: bool) -> Result<(), Failure> {
    let place = place::check(&args.directory)?;
    let credentials = Credentials::load(&args.identity, Role::Client, &global.address)?;
    if reporting {
        background::detach();
    }
    match logging::init(&LogTarget::Stderr, "info") {
        // The main program may have done that already.
        Ok(()) | Err(LoggingError::Twice) => {}
        Err(error) => return Err(Failure::new(Kind::Usage, error)),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let options = MountOptions {
        read_only: args.read_only,
        allow_suid: args.suid,
        allow_devices: args.dev,
        ..MountOptions::new(place)
    };
    let serve = async {
        let mut tasks = JoinSet::new();
        if let Some(address) = args.metrics {
            serve_metrics(&mut tasks, address, &options).await?;
        }
        let client = connect(credentials, global.timeout).await?;
        let result = mount_and_wait(client.clone(), options, reporting).await;
        if timeout(SHUTDOWN_TIMEOUT, client.shutdown()).await.is_err() {
            tracing::warn!("the sessions are left to end by themselves");
        }
        result
    };
    let result = runtime.block_on(serve);
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    result
}

/// Connects, and makes sure that the root of the file system is served: a mount that could not
/// show even that would only hang.
async fn connect(credentials: Credentials, patience: Duration) -> Result<Client, Failure> {
    let deadline = Instant::now() + patience;
    let security = Security::tls(credentials.identity.clone())
        .map_err(|error| Failure::new(Kind::Credentials, error))?;
    let security = Arc::new(security);
    let mut last = "no node has answered yet".to_owned();
    let client = loop {
        let config = ClientConfig {
            security: Arc::clone(&security),
            connector: Arc::new(TcpConnector),
            addresses: credentials.addresses.clone(),
            rng: SmallRng::from_os_rng(),
        };
        match timeout_at(deadline, Client::connect(config)).await {
            Ok(Ok(client)) => break client,
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => return Err(Failure::text(Kind::Unreachable, last)),
        }
        sleep_until(deadline.min(Instant::now() + CONNECT_PAUSE)).await;
    };
    match timeout_at(deadline, client.getattr(&Caller::root(), InodeId::ROOT)).await {
        Ok(Ok(_)) => Ok(client),
        Ok(Err(error)) => {
            let text = format!("the root of the file system cannot be looked at: {error}");
            Err(Failure::text(Kind::Failed, text))
        }
        Err(_) => Err(Failure::text(
            Kind::Unreachable,
            "the nodes answer, but no minister serves the root of the file system: 'ministryctl \
             status' says why; wait longer with --timeout",
        )),
    }
}

async fn mount_and_wait(
    client: Client,
    options: MountOptions,
    reporting: bool,
) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let runtime = Handle::current();
    let mount = tokio::task::spawn_blocking(move || Mount::start(client, &options, &runtime))
        .await
        .context("the mount could not be started")?
        .map_err(explain)?;
    let presence = Presence::announce(mount.device());
    tracing::info!(path = %mount.path().display(), device = mount.device(), "mounted");
    if reporting {
        background::report_mounted();
    }
    let ended = tokio::select! {
        ended = mount.ended() => ended,
        _ = terminate.recv() => end(&mount).await,
        _ = interrupt.recv() => end(&mount).await,
        _ = hang_up.recv() => end(&mount).await,
    };
    tracing::info!(path = %mount.path().display(), "unmounted");
    // Held until everything is closed.
    drop(presence);
    ended.map_err(|error| Failure::text(Kind::Failed, format!("the mount failed: {error}")))
}

fn explain(error: MountError) -> Failure {
    match error {
        MountError::NoDevice | MountError::MountPoint { .. } => usage(error.to_string()),
        error => Failure::new(Kind::Failed, error),
    }
}

/// Ends the mount because of a signal.
async fn end(mount: &Mount) -> Result<(), String> {
    if let Err(error) = mount.unmount(Unmount::IfIdle).await {
        let path = mount.path().to_owned();
        let users = tokio::task::spawn_blocking(move || busy_processes(&path)).await;
        tracing::warn!(%error, users = ?users.unwrap_or_default(), "unmounting while in use");
        if let Err(error) = mount.unmount(Unmount::Lazily).await {
            return Err(format!("cannot unmount: {error}"));
        }
    }
    match timeout(LINGER, mount.ended()).await {
        Ok(ended) => ended,
        Err(_) => {
            tracing::warn!("programs still use the mount: they will see errors from now on");
            Ok(())
        }
    }
}

/// Binds the page first, so that a wrong address is refused before anything is mounted.
async fn serve_metrics(
    tasks: &mut JoinSet<()>,
    address: SocketAddr,
    options: &MountOptions,
) -> Result<(), Failure> {
    let metrics = recorder::install()?;
    let mount_point = options.mount_point.display().to_string();
    let health = Arc::new(move || Health {
        healthy: true,
        node: mount_point.clone(),
        role: "mount".to_owned(),
        president: None,
        ministries: Vec::new(),
        reason: None,
    });
    let server = PageServer::bind(address, metrics.clone(), health)
        .await
        .map_err(|error| Failure::new(Kind::Usage, error))?;
    tracing::info!(address = %server.address(), "metrics are served");
    tasks.spawn(recorder::run_upkeep(metrics));
    tasks.spawn(process::run_sampler());
    tasks.spawn(async move {
        // Ends with the task.
        if let Err(error) = server.run(std::future::pending()).await {
            tracing::error!(%error, "the metrics page has ended");
        }
    });
    Ok(())
}
