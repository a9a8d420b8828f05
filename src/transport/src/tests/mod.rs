//! Whole connections over the loopback interface: every wrong way in, calls, joining.

mod calls;
mod handshakes;
mod joining;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use futures::future::BoxFuture;
use ministry_types::NodeId;
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;
use tracing_subscriber::fmt::MakeWriter;

use crate::authority::CERTIFICATE_LIFETIME;
use crate::*;

/// Long enough for whatever should happen soon, on a busy machine.
const SOON: Duration = Duration::from_secs(5);

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn identity(authority: &Authority, role: Role) -> Identity {
    identity_at(authority, role, now())
}

fn identity_at(authority: &Authority, role: Role, now: u64) -> Identity {
    let key = PrivateKey::generate().unwrap();
    let signed = authority.sign(key.public(), role, now, CERTIFICATE_LIFETIME).unwrap();
    Identity::new(key, &signed.pem, &authority.certificate_pem()).unwrap()
}

fn cluster() -> Authority {
    Authority::create(now() - 100 * 24 * 3600).unwrap()
}

fn dialer(identity: Identity) -> Dialer {
    let security = Arc::new(Security::tls(identity).unwrap());
    Dialer::new(Arc::new(TcpConnector), security, Revocations::default())
}

/// A server that runs until it is dropped.
struct Running {
    address: SocketAddr,
    node: NodeId,
    security: Arc<Security>,
    revocations: Revocations,
    task: AbortOnDropHandle<()>,
}

impl Running {
    /// Stops it and waits until its port is free.
    async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn start(identity: Identity, handler: Arc<dyn Handler>) -> Running {
    start_at("127.0.0.1:0".parse().unwrap(), identity, handler).await
}

async fn start_at(address: SocketAddr, identity: Identity, handler: Arc<dyn Handler>) -> Running {
    let security = Arc::new(Security::tls(identity).unwrap());
    start_with(address, security, handler).await
}

async fn start_with(
    address: SocketAddr,
    security: Arc<Security>,
    handler: Arc<dyn Handler>,
) -> Running {
    let listener = TcpAccept::bind(address).await.unwrap();
    let revocations = Revocations::default();
    let server = Server::new(listener, security.clone(), revocations.clone(), handler);
    let address = server.local_address().unwrap();
    let node = security.peer().node().unwrap();
    let task = AbortOnDropHandle::new(tokio::spawn(server.run()));
    Running { address, node, security, revocations, task }
}

/// Who came in, and where.
type Guest = (Option<PeerIdentity>, Door);

/// Remembers who came in, and sends back whatever they send.
#[derive(Clone, Default)]
struct Guests {
    seen: Arc<Mutex<Vec<Guest>>>,
}

impl Handler for Guests {
    fn handle(&self, mut incoming: Incoming) -> BoxFuture<'static, ()> {
        self.seen.lock().push((incoming.peer, incoming.door));
        async move {
            let (mut reader, mut writer) = tokio::io::split(&mut incoming.stream);
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        }
        .boxed()
    }
}

/// What was logged on this thread since.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

impl Log {
    fn capture() -> (Log, tracing::subscriber::DefaultGuard) {
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(log.clone())
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// Waits for a line of the server with this text.
    async fn server_said(&self, text: &str) {
        let find = async {
            loop {
                let log = String::from_utf8_lossy(&self.0.lock()).into_owned();
                let said = |line: &str| line.contains("connection refused") && line.contains(text);
                if log.lines().any(said) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(SOON, find).await.is_err() {
            let log = String::from_utf8_lossy(&self.0.lock()).into_owned();
            panic!("the server did not log '{text}'; it logged:\n{log}");
        }
    }
}

/// Asserts that the error says this.
#[track_caller]
fn says(error: &dyn std::error::Error, text: &str) {
    let said = error.to_string();
    assert!(said.contains(text), "expected '{text}' in: {said}");
}
