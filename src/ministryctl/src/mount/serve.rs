//! The process that serves a mount: connects, mounts, waits for the end, closes the sessions.
//!
//! It ends when the mount is taken away, or at SIGTERM, SIGINT or SIGHUP. A mount that is in use
//! at a signal is taken out of sight, and cut off when its programs have had their time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ministry_client::{Client, ClientConfig};
use ministry_fuse::{Mount, MountError, MountOptions, Unmount, busy};
use ministry_telemetry::http::{Health, PageServer};
use ministry_telemetry::logging::{self, LogTarget, LoggingError};
use ministry_telemetry::{process, recorder};
use ministry_transport::{Role, Security, TcpConnector};
use ministry_types::{Caller, FileKind, FsError, InodeId, limits};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::credentials::Credentials;
use crate::failure::{Failure, Kind};
use crate::mount::plan::Plan;
use crate::mount::presence::Presence;
use crate::mount::{background, place, usage};

/// Between two attempts to connect.
const CONNECT_PAUSE: Duration = Duration::from_millis(200);
/// How long programs that use a mount keep it after a signal.
const LINGER: Duration = Duration::from_secs(10);
/// How long the end of the sessions may take; later they end by themselves.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves the mount until it ends. `reporting`: another process waits for the word that it is
/// there.
pub fn run(plan: &Plan, reporting: bool) -> Result<(), Failure> {
    let place = place::check(&plan.directory, plan.options.non_empty)?;
    let credentials = Credentials::load(&plan.credentials, Role::Client, &plan.addresses)?;
    if reporting {
        background::detach();
    }
    match logging::init(&LogTarget::Stderr, "info") {
        // The main program may have done that already.
        Ok(()) | Err(LoggingError::Twice) => {}
        Err(error) => return Err(Failure::new(Kind::Usage, error)),
    }
    let runtime = process::runtime().thread_name("requests").build()?;
    let options = plan.mount_options(place);
    let serve = async {
        let mut tasks = JoinSet::new();
        if let Some(address) = plan.options.metrics {
            serve_metrics(&mut tasks, address, &options).await?;
        }
        let (client, root) = connect(credentials, &plan.source.path, plan.timeout).await?;
        let options = MountOptions { root, ..options };
        let result = mount_and_wait(client.clone(), options, reporting).await;
        shut_down(&client).await;
        result
    };
    let result = runtime.block_on(serve);
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    result
}

/// Connects, and finds the directory that becomes the root of the mount: a mount that could not
/// show even that would only hang.
async fn connect(
    credentials: Credentials,
    path: &str,
    patience: Duration,
) -> Result<(Client, InodeId), Failure> {
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
    let caller = whoever_mounts();
    match timeout_at(deadline, client.resolve(&caller, path.as_bytes())).await {
        Ok(Ok(found)) if found.kind == FileKind::Directory => Ok((client, found.inode)),
        Ok(found) => Err(no_root(path, caller.uid, found.err().unwrap_or(FsError::NotDirectory))),
        Err(_) => Err(Failure::text(
            Kind::Unreachable,
            format!(
                "the nodes answer, but no minister serves {path}: 'ministryctl status' says why; \
                 wait longer with --timeout or the option timeout"
            ),
        )),
    }
}

/// The person who mounts, as far as the minister is concerned.
fn whoever_mounts() -> Caller {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return Caller::root();
    }
    let groups = rustix::process::getgroups().unwrap_or_default();
    let groups = groups.into_iter().map(|group| group.as_raw());
    Caller {
        uid: uid.as_raw(),
        gid: rustix::process::getegid().as_raw(),
        groups: groups.take(limits::CALLER_GROUPS_MAX).collect(),
    }
}

fn no_root(path: &str, uid: u32, error: FsError) -> Failure {
    let text = match error {
        FsError::NotFound => format!(
            "there is no directory {path} in the file system: mount all of it (CLUSTER:/) and make \
             the directory first"
        ),
        FsError::NotDirectory => format!("{path} is no directory of the file system"),
        FsError::PermissionDenied => format!("user {uid} may not reach {path} in the file system"),
        error => format!("{path} of the file system cannot be looked at: {error}"),
    };
    Failure::text(Kind::Failed, text)
}

/// Has the minister log what it has in memory of this mount's writes, and ends the sessions. A second
/// call has nothing left to do.
async fn shut_down(client: &Client) {
    if timeout(SHUTDOWN_TIMEOUT, client.shutdown()).await.is_err() {
        tracing::warn!(
            "the sessions are left to end by themselves; what was not synced may be lost"
        );
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
    let serving = client.clone();
    let mount = tokio::task::spawn_blocking(move || Mount::start(serving, &options, &runtime))
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
    // Held until everything is closed and every write is in the log: who unmounts waits for it.
    shut_down(&client).await;
    drop(presence);
    ended.map_err(|error| Failure::text(Kind::Failed, format!("the mount failed: {error}")))
}

fn explain(error: MountError) -> Failure {
    match error {
        MountError::NoDevice
        | MountError::NoProgram
        | MountError::DeviceClosed
        | MountError::AllowOther
        | MountError::SuperUserOnly { .. }
        | MountError::MountPoint { .. } => usage(error.to_string()),
        // Its text holds its source already.
        error => Failure::text(Kind::Failed, error.to_string()),
    }
}

/// Ends the mount because of a signal.
async fn end(mount: &Mount) -> Result<(), String> {
    if let Err(error) = mount.unmount(Unmount::IfIdle).await {
        let path = mount.path().to_owned();
        let users = tokio::task::spawn_blocking(move || busy::users(&path)).await;
        let users = users.map(|users| users.to_string()).unwrap_or_default();
        tracing::warn!(%error, users, "unmounting while in use");
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
