//! Calls over kept connections: payloads, bounds, time limits, lost servers.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use ministry_types::limits::{CONTROL_FRAME_BYTES_MAX, CONTROL_REQUESTS_PER_CONNECTION_MAX};
use ministry_wire::codec::control_transport;
use tarpc::client::RpcError;
use tarpc::context::Context;
use tarpc::server::Serve;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::*;
use crate::peers::{BACKOFF_MIN, TIMEOUTS_MAX};

#[tarpc::service]
trait Echo {
    async fn echo(payload: Bytes) -> Bytes;
    async fn never();
    async fn connection() -> usize;
}

#[derive(Clone)]
struct EchoService {
    connection: usize,
    running: Arc<AtomicUsize>,
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Echo for EchoService {
    async fn echo(self, _: Context, payload: Bytes) -> Bytes {
        payload
    }

    async fn never(self, _: Context) {
        self.running.fetch_add(1, Ordering::SeqCst);
        let _counted = Counted(self.running);
        std::future::pending::<()>().await;
    }

    async fn connection(self, _: Context) -> usize {
        self.connection
    }
}

/// Serves [`Echo`]; knows how many connections there were and how many `never` run.
#[derive(Clone, Default)]
struct EchoHandler {
    connections: Arc<AtomicUsize>,
    running: Arc<AtomicUsize>,
}

impl Handler for EchoHandler {
    fn handle(&self, incoming: Incoming) -> BoxFuture<'static, ()> {
        let connection = self.connections.fetch_add(1, Ordering::SeqCst);
        let service = EchoService { connection, running: self.running.clone() };
        serve(incoming.stream, service.serve(), |service, context, request| {
            service.serve(context, request)
        })
        .boxed()
    }
}

fn peers(authority: &Authority) -> Peers {
    Peers::new(Arc::new(dialer(identity(authority, Role::Client))))
}

async fn echo(peers: &Peers, target: Target, payload: Bytes) -> Result<Bytes, CallError> {
    peers
        .call(target, Door::Client, SOON, |client: EchoClient, context| async move {
            client.echo(context, payload).await
        })
        .await
}

async fn never(peers: &Peers, target: Target, limit: Duration) -> CallError {
    peers
        .call(target, Door::Client, limit, |client: EchoClient, context| async move {
            client.never(context).await
        })
        .await
        .unwrap_err()
}

async fn connection(peers: &Peers, target: Target) -> Result<usize, CallError> {
    peers
        .call(target, Door::Client, SOON, |client: EchoClient, context| async move {
            client.connection(context).await
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_payloads_pass_and_calls_share_one_connection() {
    let authority = cluster();
    let handler = EchoHandler::default();
    let server = start(identity(&authority, Role::Node), Arc::new(handler.clone())).await;
    let peers = peers(&authority);
    let target = Target::node(server.node, server.address);
    let payload = Bytes::from(vec![42; 4 << 20]);
    let calls = (0..20).map(|_| echo(&peers, target, payload.clone()));
    for answer in futures::future::join_all(calls).await {
        assert_eq!(answer.unwrap(), payload);
    }
    assert_eq!(handler.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_request_over_the_cap_fails_alone() {
    let authority = cluster();
    let handler = EchoHandler::default();
    let server = start(identity(&authority, Role::Node), Arc::new(handler.clone())).await;
    let peers = peers(&authority);
    let target = Target::any(server.address);
    let error = echo(&peers, target, Bytes::from(vec![0; CONTROL_FRAME_BYTES_MAX])).await;
    let error = error.unwrap_err();
    assert!(matches!(error, CallError::Unsendable { .. }) && error.was_not_done(), "{error}");
    echo(&peers, target, Bytes::from_static(b"small")).await.unwrap();
    assert_eq!(handler.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_frame_over_the_cap_ends_the_connection_at_its_header() {
    let authority = cluster();
    let server = start(identity(&authority, Role::Node), Arc::new(EchoHandler::default())).await;
    let dialer = dialer(identity(&authority, Role::Client));
    let (mut stream, _) = dialer.connect(server.address, None, Door::Client).await.unwrap();
    let length = u32::try_from(CONTROL_FRAME_BYTES_MAX + 1).unwrap();
    stream.write_all(&length.to_be_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let read = timeout(SOON, stream.read(&mut [0; 1])).await.expect("the connection ends");
    assert!(matches!(read, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_call_ends_at_its_time_limit_and_the_server_stops_working_on_it() {
    let authority = cluster();
    let handler = EchoHandler::default();
    let server = start(identity(&authority, Role::Node), Arc::new(handler.clone())).await;
    let peers = peers(&authority);
    let target = Target::any(server.address);
    connection(&peers, target).await.unwrap();
    let begin = Instant::now();
    let limit = Duration::from_millis(200);
    let error = never(&peers, target, limit).await;
    assert_eq!(error, CallError::TimedOut { target, after: limit });
    assert!(!error.was_not_done());
    assert!(begin.elapsed() >= limit && begin.elapsed() < limit + SOON);
    let idle = async {
        while handler.running.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, idle).await.expect("the request's task is dropped");
}

/// Ours hold back what is too much; another program might not.
#[tokio::test]
async fn of_ten_times_the_requests_of_a_connection_the_first_run_and_the_others_are_told_to_wait() {
    let authority = cluster();
    let handler = EchoHandler::default();
    let server = start(identity(&authority, Role::Node), Arc::new(handler.clone())).await;
    let dialer = dialer(identity(&authority, Role::Client));
    let (stream, _) = dialer.connect(server.address, None, Door::Client).await.unwrap();
    let most = CONTROL_REQUESTS_PER_CONNECTION_MAX;
    let mut config = tarpc::client::Config::default();
    config.max_in_flight_requests = 20 * most;
    config.pending_request_buffer = 20 * most;
    let client = EchoClient::new(config, control_transport(stream)).spawn();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..10 * most {
        let client = client.clone();
        calls.spawn(async move { client.never(crate::peers::far_context()).await });
    }
    for _ in 0..9 * most {
        let refused = timeout(20 * SOON, calls.join_next()).await.expect("refused at once");
        let error = refused.unwrap().unwrap().unwrap_err();
        let busy = matches!(&error, RpcError::Server(error) if crate::peers::is_throttled(error));
        assert!(busy, "{error:?}");
    }
    assert_eq!(handler.running.load(Ordering::SeqCst), most);
    // Their end makes room again.
    calls.abort_all();
    let echoed = async {
        let context = crate::peers::far_context;
        while client.echo(context(), Bytes::from_static(b"x")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(20 * SOON, echoed).await.expect("there is room");
}

#[tokio::test]
async fn a_connection_that_swallows_calls_is_replaced() {
    let authority = cluster();
    let server = start(identity(&authority, Role::Node), Arc::new(EchoHandler::default())).await;
    let peers = peers(&authority);
    let target = Target::any(server.address);
    assert_eq!(connection(&peers, target).await, Ok(0));
    // Old enough that its end does not count as a failure to connect.
    tokio::time::sleep(Duration::from_millis(150)).await;
    for _ in 1..TIMEOUTS_MAX {
        never(&peers, target, Duration::from_millis(20)).await;
    }
    assert_eq!(connection(&peers, target).await, Ok(0), "an answer clears the count");
    for _ in 0..TIMEOUTS_MAX {
        never(&peers, target, Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(connection(&peers, target).await, Ok(1));
}

#[tokio::test]
async fn calls_work_again_after_the_server_came_back() {
    let authority = cluster();
    let node = identity(&authority, Role::Node);
    let server = start(node.clone(), Arc::new(EchoHandler::default())).await;
    let peers = peers(&authority);
    let target = Target::node(server.node, server.address);
    connection(&peers, target).await.unwrap();
    let address = server.address;
    server.stop().await;
    connection(&peers, target).await.unwrap_err();
    let error = loop {
        match connection(&peers, target).await.unwrap_err() {
            CallError::Connect(error) => break error,
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    assert!(error.may_pass(), "{error}");
    let _server = start_at(address, node, Arc::new(EchoHandler::default())).await;
    let again = async {
        while connection(&peers, target).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(2), again).await.expect("found again soon");
}

/// Counts attempts, and makes each fail after a moment.
#[derive(Clone, Default)]
struct Nowhere {
    attempts: Arc<AtomicUsize>,
}

impl Connector for Nowhere {
    fn connect(&self, _: SocketAddr) -> BoxFuture<'_, std::io::Result<BoxedStream>> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Err(std::io::ErrorKind::ConnectionRefused.into())
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn many_calls_make_one_attempt_to_connect_and_a_failure_is_remembered_for_a_moment() {
    let nowhere = Nowhere::default();
    let security = Arc::new(Security::tls(identity(&cluster(), Role::Client)).unwrap());
    let dialer = Dialer::new(Arc::new(nowhere.clone()), security, Revocations::default());
    let peers = Peers::new(Arc::new(dialer));
    let target = Target::any("192.0.2.1:7400".parse().unwrap());
    let calls = (0..50).map(|_| connection(&peers, target));
    for answer in futures::future::join_all(calls).await {
        assert!(matches!(answer, Err(CallError::Connect(ConnectError::Unreachable { .. }))));
    }
    assert_eq!(nowhere.attempts.load(Ordering::SeqCst), 1);
    connection(&peers, target).await.unwrap_err();
    assert_eq!(nowhere.attempts.load(Ordering::SeqCst), 1, "failed at once, from memory");
    tokio::time::sleep(BACKOFF_MIN).await;
    connection(&peers, target).await.unwrap_err();
    assert_eq!(nowhere.attempts.load(Ordering::SeqCst), 2);
    // An hour of eager callers: the pauses bound the attempts.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(60) {
        connection(&peers, target).await.unwrap_err();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let attempts = nowhere.attempts.load(Ordering::SeqCst);
    assert!((200..=300).contains(&attempts), "{attempts} attempts in a minute");
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_the_attempt_to_others() {
    let nowhere = Nowhere::default();
    let security = Arc::new(Security::tls(identity(&cluster(), Role::Client)).unwrap());
    let dialer = Dialer::new(Arc::new(nowhere.clone()), security, Revocations::default());
    let peers = Peers::new(Arc::new(dialer));
    let target = Target::any("192.0.2.1:7400".parse().unwrap());
    let error = never(&peers, target, Duration::from_millis(1)).await;
    assert!(matches!(error, CallError::NoConnection { .. }) && error.was_not_done(), "{error}");
    connection(&peers, target).await.unwrap_err();
    assert_eq!(nowhere.attempts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn connections_end_with_the_peers() {
    let authority = cluster();
    let handler = Guests::default();
    let server = start(identity(&authority, Role::Node), Arc::new(handler.clone())).await;
    let peers = peers(&authority);
    let target = Target::any(server.address);
    let client: EchoClient = peers.client(target, Door::Client).await.unwrap();
    drop(peers);
    let context = crate::peers::far_context();
    let answer = timeout(SOON, client.connection(context)).await.expect("no call hangs");
    assert!(answer.is_err());
}
