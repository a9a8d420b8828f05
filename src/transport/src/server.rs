//! The called end: accepts connections, finds out who is there, and hands them on.
//!
//! A node runs one [`Server`] for its one port. For each connection: TLS, the caller's
//! [`ministry_wire::hello::Hello`], the checks, the answer, then the [`Handler`] with a stream that
//! belongs to one door and one known peer.
//!
//! What must always hold: nothing but a certificate of this cluster's authority opens a door other
//! than Join; a role comes in only where [`Door::admits`] lets it; a revoked peer is out at once,
//! also from connections that stand. Handshakes are bounded in number and time, connections in
//! number. Each refusal is told to the caller and logged here.
//!
//! When it fails: one connection's failure, or a panic in its handler, ends that connection alone.
//! Dropping [`Server::run`] ends all of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use ministry_types::format::{FEATURE_LEVEL, WIRE_VERSION};
use ministry_types::limits::{CONNECT_TIMEOUT, CONNECTIONS_MAX, HANDSHAKES_MAX};
use ministry_types::{ClusterId, NodeId};
use ministry_wire::hello::{
    self, Door, Hello, HelloError, HelloReply, PeerIdentity, Refusal, RefusalKind, Welcome,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};

use crate::SOFTWARE;
use crate::refusals::Refusals;
use crate::revocations::Revocations;
use crate::security::{Accepted, Security, tls_reason};
use crate::stream::{BoxedStream, Listener};

/// After a failed accept, mostly for want of file descriptors: some may be free again by then.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long a refused caller may take to read why.
const LINGER: Duration = Duration::from_millis(500);
/// What of a refused caller's bytes is read and thrown away.
const LINGER_BYTES_MAX: usize = 64 << 10;

/// A connection that was let in.
pub struct Incoming {
    /// Who is there. `None` at the Join door alone.
    pub peer: Option<PeerIdentity>,
    /// What the connection is for.
    pub door: Door,
    /// Where it comes from.
    pub address: SocketAddr,
    /// The connection.
    pub stream: BoxedStream,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Incoming({:?} from {} at {})", self.peer, self.address, self.door)
    }
}

impl Incoming {
    /// Who is there, at a door that needs a certificate.
    pub fn known_peer(&self) -> PeerIdentity {
        assert!(self.door.needs_certificate(), "the Join door is open to strangers");
        self.peer.expect("the server lets nobody without a certificate in at this door")
    }
}

/// What a node does with the connections that were let in.
pub trait Handler: Send + Sync + 'static {
    /// Whether this door is served now; called before the caller is told that it may stay.
    fn admit(&self, _door: Door, _peer: Option<&PeerIdentity>) -> Result<(), Refusal> {
        Ok(())
    }

    /// Serves a connection to its end, in a task of its own. The task is dropped when the server
    /// is, or when the peer is revoked.
    fn handle(&self, incoming: Incoming) -> BoxFuture<'static, ()>;
}

impl<F> Handler for F
where
    F: Fn(Incoming) -> BoxFuture<'static, ()> + Send + Sync + 'static,
{
    fn handle(&self, incoming: Incoming) -> BoxFuture<'static, ()> {
        self(incoming)
    }
}

/// One port with everything that comes in there.
pub struct Server {
    listener: Box<dyn Listener>,
    shared: Arc<Shared>,
}

struct Shared {
    cluster: ClusterId,
    node: NodeId,
    security: Arc<Security>,
    revocations: Revocations,
    handler: Arc<dyn Handler>,
    refusals: Refusals,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({})", self.shared.node)
    }
}

impl Server {
    /// A server for a node; nothing is accepted before [`Server::run`].
    ///
    /// # Panics
    /// When `security` is not a node's: only nodes are reached.
    pub fn new(
        listener: impl Listener,
        security: Arc<Security>,
        revocations: Revocations,
        handler: Arc<dyn Handler>,
    ) -> Server {
        let peer = security.peer();
        let node = peer.node().expect("only a node has a server");
        let shared = Shared {
            cluster: peer.cluster,
            node,
            security,
            revocations,
            handler,
            refusals: Refusals::default(),
        };
        Server { listener: Box::new(listener), shared: Arc::new(shared) }
    }

    /// Where it listens.
    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_address()
    }

    /// Accepts and serves until it is dropped.
    pub async fn run(self) {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        let mut connections = JoinSet::new();
        loop {
            while let Some(ended) = connections.try_join_next() {
                report_panic(ended);
            }
            let Ok(permit) = handshakes.clone().acquire_owned().await else {
                unreachable!("the semaphore is never closed");
            };
            let accepted = tokio::select! {
                biased;
                accepted = self.listener.accept() => accepted,
                Some(ended) = connections.join_next() => {
                    report_panic(ended);
                    continue;
                }
            };
            match accepted {
                Ok((_, address)) if connections.len() >= CONNECTIONS_MAX => {
                    let reason = "too many connections";
                    self.shared.refusals.refused(address, None, "overloaded", reason);
                }
                Ok((stream, address)) => {
                    let shared = self.shared.clone();
                    connections.spawn(shared.serve(stream, address, permit));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections; trying again");
                    sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

fn report_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "the handler of a connection panicked; the connection was closed");
    }
}

/// Why a connection was not let in.
struct Rejected {
    door: Option<Door>,
    kind: &'static str,
    reason: String,
    /// The other end left without a word, as port scans and health checks do.
    silent: bool,
}

impl Shared {
    async fn serve(
        self: Arc<Self>,
        stream: BoxedStream,
        address: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) {
        let established = timeout(CONNECT_TIMEOUT, self.establish(stream, address)).await;
        drop(permit);
        let incoming = match established {
            Ok(Ok(incoming)) => incoming,
            Ok(Err(rejected)) if rejected.silent => {
                tracing::debug!(%address, "a connection was closed before it said anything");
                return;
            }
            Ok(Err(Rejected { door, kind, reason, .. })) => {
                return self.refusals.refused(address, door, kind, &reason);
            }
            Err(_) => {
                let reason = format!("the handshake took longer than {CONNECT_TIMEOUT:?}");
                return self.refusals.refused(address, None, "timeout", &reason);
            }
        };
        let door = incoming.door;
        let gauge = metrics::gauge!("ministry_transport_connections", "door" => door.name());
        let _open = Open::count(gauge);
        let Some(peer) = incoming.peer else {
            return self.handler.handle(incoming).await;
        };
        tracing::debug!(%address, %peer, %door, "connected");
        tokio::select! {
            biased;
            () = self.revocations.revoked(peer.subject) => {
                let reason = format!("{peer} was revoked: its connection is closed");
                self.refusals.refused(address, Some(door), "revoked", &reason);
            }
            () = self.handler.handle(incoming) => {}
        }
    }

    /// From bare bytes to a known peer at a door.
    async fn establish(
        &self,
        stream: BoxedStream,
        address: SocketAddr,
    ) -> Result<Incoming, Rejected> {
        let (mut stream, certified) = match self.security.accept(stream).await {
            Accepted::Secure { stream, peer } => (stream, peer),
            Accepted::Failed { stream, reason, silent } => {
                close_gently(stream).await;
                return Err(Rejected { door: None, kind: "tls", reason, silent });
            }
        };
        let hello = match hello::read_hello(&mut stream).await {
            Ok(hello) => hello,
            Err(error) => return Err(refuse(stream, None, refusal_of(error)?).await),
        };
        let door = hello.door;
        let checked = match certified {
            Ok(certified) => self.check(&hello, certified),
            Err(error) => Err(Refusal::new(RefusalKind::BadCertificate, error.to_string())),
        };
        let peer = match checked {
            Ok(peer) => peer,
            Err(refusal) => return Err(refuse(stream, Some(door), refusal).await),
        };
        let welcome = HelloReply::Welcome(Welcome {
            cluster: self.cluster,
            node: self.node,
            software: SOFTWARE.to_owned(),
            feature_level: FEATURE_LEVEL,
        });
        match hello::write_reply(&mut stream, &welcome).await {
            Ok(()) => Ok(Incoming { peer, door, address, stream }),
            Err(error) => Err(broken(Some(door), &error)),
        }
    }

    /// Whether the caller may stay, and who it is.
    fn check(
        &self,
        hello: &Hello,
        certified: Option<PeerIdentity>,
    ) -> Result<Option<PeerIdentity>, Refusal> {
        // A claim counts only where nothing can be proven.
        let peer = if self.security.is_plain() { hello.claimed } else { certified };
        let named = hello.cluster.into_iter().chain(peer.map(|peer| peer.cluster));
        if let Some(other) = named.into_iter().find(|cluster| *cluster != self.cluster) {
            return Err(Refusal::new(
                RefusalKind::WrongCluster,
                format!(
                    "this is cluster {}, the caller belongs to {other}: check the address, or \
                     join this cluster",
                    self.cluster
                ),
            ));
        }
        if let Some(wanted) = hello.node.filter(|wanted| *wanted != self.node) {
            return Err(Refusal::new(
                RefusalKind::WrongNode,
                format!(
                    "this is node {}, the caller wants {}: two nodes share an address, or the \
                     caller's map is old",
                    self.node.short(),
                    wanted.short()
                ),
            ));
        }
        let door = hello.door;
        match peer {
            None if door.needs_certificate() => {
                return Err(Refusal::new(
                    RefusalKind::NoCertificate,
                    format!("door '{door}' needs a certificate: join the cluster with a token"),
                ));
            }
            Some(peer) if self.revocations.contains(peer.subject) => {
                return Err(Refusal::new(
                    RefusalKind::Revoked,
                    format!(
                        "{} is revoked: join anew with a new key and a new token",
                        peer.subject
                    ),
                ));
            }
            Some(peer) if !door.admits(peer.role()) => {
                return Err(Refusal::new(
                    RefusalKind::RoleNotAdmitted,
                    format!(
                        "a {} may not use door '{door}': it needs a certificate of another role",
                        peer.role()
                    ),
                ));
            }
            _ => {}
        }
        self.handler.admit(door, peer.as_ref())?;
        Ok(peer)
    }
}

/// What to answer to a hello that could not be read; `Err` when nobody is there to answer to.
fn refusal_of(error: HelloError) -> Result<Refusal, Rejected> {
    match error {
        HelloError::Io(_) => Err(broken(None, &error)),
        HelloError::WireVersion { theirs } => {
            let advice =
                if theirs < WIRE_VERSION { "upgrade the caller" } else { "upgrade this node" };
            Ok(Refusal::new(
                RefusalKind::WireVersion,
                format!(
                    "this node speaks wire version {WIRE_VERSION}, the caller {theirs}: {advice}"
                ),
            ))
        }
        other => Ok(Refusal::new(RefusalKind::Malformed, other.to_string())),
    }
}

fn broken(door: Option<Door>, error: &HelloError) -> Rejected {
    let reason = match error {
        HelloError::Io(error) => tls_reason(error),
        other => other.to_string(),
    };
    Rejected { door, kind: "broken", reason, silent: false }
}

/// Tells the caller why it may not stay.
async fn refuse(mut stream: BoxedStream, door: Option<Door>, refusal: Refusal) -> Rejected {
    let kind = refusal.kind.name();
    let reason = refusal.text.clone();
    let reply = HelloReply::Refused { wire_version: WIRE_VERSION, refusal };
    // If it cannot be told it has left; the log has the reason either way.
    let _ = hello::write_reply(&mut stream, &reply).await;
    close_gently(stream).await;
    Rejected { door, kind, reason, silent: false }
}

/// Closes so that what was written last arrives: closing with unread bytes would make the kernel
/// send a reset, and that overtakes the reason.
async fn close_gently(mut stream: BoxedStream) {
    let _ = timeout(LINGER, async {
        stream.shutdown().await?;
        let mut thrown_away = 0;
        let mut buffer = [0; 1024];
        while thrown_away < LINGER_BYTES_MAX {
            match stream.read(&mut buffer).await? {
                0 => break,
                bytes => thrown_away += bytes,
            }
        }
        std::io::Result::Ok(())
    })
    .await;
}

/// Counts a connection in a gauge as long as it lives.
struct Open(metrics::Gauge);

impl Open {
    fn count(gauge: metrics::Gauge) -> Open {
        gauge.increment(1.0);
        Open(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
