//! Who gets in, and what both ends say when somebody does not.

use std::collections::BTreeSet;

use ministry_types::ClusterId;
use ministry_types::format::WIRE_VERSION;
use ministry_types::limits::{CONNECT_TIMEOUT, CONNECTIONS_MAX, HANDSHAKES_MAX};
use ministry_wire::hello::{self, Hello, HelloReply, RefusalKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::*;
use crate::join::PinnedAuthority;
use crate::security::{anonymous_client, connect_tls};

fn hello(door: Door) -> Hello {
    Hello { cluster: None, door, node: None, claimed: None, software: "test".to_owned() }
}

async fn refused(reply: Result<HelloReply, hello::HelloError>) -> hello::Refusal {
    match reply.unwrap() {
        HelloReply::Refused { refusal, .. } => refusal,
        HelloReply::Welcome(welcome) => panic!("welcome: {welcome:?}"),
    }
}

/// TLS without a certificate of one's own.
async fn stranger(authority: &Authority, address: SocketAddr) -> BoxedStream {
    let verifier = Arc::new(PinnedAuthority { hash: authority.hash() });
    let config = Arc::new(anonymous_client(verifier).unwrap());
    let stream = TcpConnector.connect(address).await.unwrap();
    connect_tls(stream, config).await.unwrap().0
}

#[tokio::test]
async fn nodes_and_clients_come_in_and_each_end_knows_the_other() {
    let authority = cluster();
    let guests = Guests::default();
    let server = start(identity(&authority, Role::Node), Arc::new(guests.clone())).await;
    for (role, door) in [
        (Role::Node, Door::Raft),
        (Role::Node, Door::Data),
        (Role::Client, Door::Client),
        (Role::Client, Door::Data),
        (Role::Operator, Door::Admin),
    ] {
        let dialer = dialer(identity(&authority, role));
        let (mut stream, peer) =
            dialer.connect(server.address, Some(server.node), door).await.unwrap();
        assert_eq!(peer, server.security.peer());
        stream.write_all(b"to and fro").await.unwrap();
        let mut back = [0; 10];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"to and fro");
        assert_eq!(guests.seen.lock().last(), Some(&(Some(dialer.peer()), door)));
    }
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused_by_the_caller_and_both_say_so() {
    let (log, _guard) = Log::capture();
    let server = start(identity(&cluster(), Role::Node), Arc::new(Guests::default())).await;
    let dialer = dialer(identity(&cluster(), Role::Node));
    let error = dialer.connect(server.address, None, Door::Raft).await.unwrap_err();
    says(&error, "belongs to another cluster");
    log.server_said("different clusters").await;
}

#[tokio::test]
async fn a_certificate_of_another_cluster_is_refused_by_the_server_and_both_say_so() {
    let (log, _guard) = Log::capture();
    let (ours, theirs) = (cluster(), cluster());
    let guests = Guests::default();
    let server = start(identity(&ours, Role::Node), Arc::new(guests.clone())).await;
    // It trusts our authority, but its own certificate is from elsewhere.
    let key = PrivateKey::generate().unwrap();
    let signed = theirs.sign(key.public(), Role::Node, now(), CERTIFICATE_LIFETIME).unwrap();
    let foreign = Identity::new(key, &signed.pem, &ours.certificate_pem()).unwrap();
    let error = dialer(foreign).connect(server.address, None, Door::Raft).await.unwrap_err();
    assert_eq!(error.kind(), "wrong_cluster", "{error}");
    log.server_said("signed by another authority").await;
    assert!(guests.seen.lock().is_empty());
}

#[tokio::test]
async fn an_expired_certificate_of_a_caller_is_refused_and_both_say_so() {
    let (log, _guard) = Log::capture();
    let authority = cluster();
    let guests = Guests::default();
    let server = start(identity(&authority, Role::Node), Arc::new(guests.clone())).await;
    let old = identity_at(&authority, Role::Node, now() - 30 * 24 * 3600);
    let error = dialer(old).connect(server.address, None, Door::Raft).await.unwrap_err();
    says(&error, "our certificate has expired");
    log.server_said("certificate has expired").await;
    assert!(guests.seen.lock().is_empty());
}

#[tokio::test]
async fn an_expired_certificate_of_a_node_is_refused_and_both_say_so() {
    let (log, _guard) = Log::capture();
    let authority = cluster();
    let old = identity_at(&authority, Role::Node, now() - 30 * 24 * 3600);
    let server = start(old, Arc::new(Guests::default())).await;
    let dialer = dialer(identity(&authority, Role::Node));
    let error = dialer.connect(server.address, None, Door::Raft).await.unwrap_err();
    says(&error, "other end's certificate has expired");
    log.server_said("our certificate has expired").await;
}

#[tokio::test]
async fn a_role_at_a_door_that_is_not_for_it_is_refused_and_both_say_so() {
    let (log, _guard) = Log::capture();
    let authority = cluster();
    let guests = Guests::default();
    let server = start(identity(&authority, Role::Node), Arc::new(guests.clone())).await;
    for (role, door) in [
        (Role::Client, Door::Raft),
        (Role::Client, Door::Node),
        (Role::Client, Door::Admin),
        (Role::Operator, Door::Raft),
        (Role::Operator, Door::Node),
    ] {
        let dialer = dialer(identity(&authority, role));
        let error = dialer.connect(server.address, None, door).await.unwrap_err();
        assert_eq!(error.kind(), RefusalKind::RoleNotAdmitted.name());
        says(&error, &format!("a {role} may not use door '{door}'"));
    }
    log.server_said("a client may not use door 'raft'").await;
    assert!(guests.seen.lock().is_empty());
}

#[tokio::test]
async fn without_a_certificate_only_the_join_door_opens_whatever_is_claimed() {
    let (log, _guard) = Log::capture();
    let authority = cluster();
    let guests = Guests::default();
    let server = start(identity(&authority, Role::Node), Arc::new(guests.clone())).await;
    for door in Door::ALL.into_iter().filter(|door| *door != Door::Join) {
        let mut stream = stranger(&authority, server.address).await;
        let claimed = Some(server.security.peer());
        hello::write_hello(&mut stream, &Hello { claimed, ..hello(door) }).await.unwrap();
        let refusal = refused(hello::read_reply(&mut stream).await).await;
        assert_eq!(refusal.kind, RefusalKind::NoCertificate, "{door}");
    }
    log.server_said("needs a certificate").await;
    assert!(guests.seen.lock().is_empty());
    let mut stream = stranger(&authority, server.address).await;
    hello::write_hello(&mut stream, &hello(Door::Join)).await.unwrap();
    let reply = hello::read_reply(&mut stream).await.unwrap();
    assert!(matches!(reply, HelloReply::Welcome(_)), "{reply:?}");
}

#[tokio::test]
async fn another_wire_version_is_refused_with_ours_named_on_both_ends() {
    let (log, _guard) = Log::capture();
    let authority = cluster();
    let server = start(identity(&authority, Role::Node), Arc::new(Guests::default())).await;
    let caller = Security::tls(identity(&authority, Role::Node)).unwrap();
    let stream = TcpConnector.connect(server.address).await.unwrap();
    let (mut stream, _) = caller.connect(stream).await.unwrap();
    hello::write_hello_as(&mut stream, &hello(Door::Raft), WIRE_VERSION + 1).await.unwrap();
    match hello::read_reply(&mut stream).await.unwrap() {
        HelloReply::Refused { wire_version, refusal } => {
            assert_eq!(wire_version, WIRE_VERSION);
            says(&refusal, "upgrade this node");
        }
        HelloReply::Welcome(welcome) => panic!("welcome: {welcome:?}"),
    }
    log.server_said("wire version").await;
}

#[tokio::test]
async fn plain_tcp_is_refused_and_logged() {
    let (log, _guard) = Log::capture();
    let server = start(identity(&cluster(), Role::Node), Arc::new(Guests::default())).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: ministry\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer.first(), Some(&0x15), "a TLS alert: {answer:02x?}");
    log.server_said("does not speak TLS").await;
}

#[tokio::test]
async fn callers_beyond_the_most_handshakes_wait_until_another_has_ended() {
    let authority = cluster();
    let server = start(identity(&authority, Role::Node), Arc::new(Guests::default())).await;
    let mut silent = Vec::new();
    for _ in 0..HANDSHAKES_MAX {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    let dialer = dialer(identity(&authority, Role::Node));
    let address = server.address;
    let mut coming =
        tokio::spawn(async move { dialer.connect(address, None, Door::Raft).await.map(drop) });
    timeout(CONNECT_TIMEOUT / 4, &mut coming).await.expect_err("all places are taken");
    silent.pop();
    timeout(CONNECT_TIMEOUT / 4, coming).await.expect("there is room").unwrap().unwrap();
}

/// Connections in memory, as they are handed in.
struct Pipes(tokio::sync::Mutex<tokio::sync::mpsc::Receiver<BoxedStream>>);

impl Listener for Pipes {
    fn accept(&self) -> BoxFuture<'_, std::io::Result<(BoxedStream, SocketAddr)>> {
        let address = self.local_address();
        async move {
            match self.0.lock().await.recv().await {
                Some(stream) => Ok((stream, address?)),
                None => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn local_address(&self) -> std::io::Result<SocketAddr> {
        Ok(([127, 0, 0, 1], 1).into())
    }
}

#[tokio::test]
async fn connections_beyond_the_most_are_closed_and_one_that_ends_makes_room() {
    let (log, _guard) = Log::capture();
    let peer = identity(&cluster(), Role::Node).peer();
    let security = Arc::new(Security::plain_for_simulation(peer));
    let (hand_in, pipes) = tokio::sync::mpsc::channel(1);
    let pipes = Pipes(tokio::sync::Mutex::new(pipes));
    let guests = Arc::new(Guests::default());
    let server = Server::new(pipes, security, Revocations::default(), guests);
    let _running = AbortOnDropHandle::new(tokio::spawn(server.run()));
    let come_in = async || {
        let (mut stream, other) = tokio::io::duplex(1 << 10);
        hand_in.send(Box::new(other)).await.unwrap();
        let hello = Hello { claimed: Some(peer), ..hello(Door::Raft) };
        hello::write_hello(&mut stream, &hello).await.ok()?;
        match hello::read_reply(&mut stream).await.ok()? {
            HelloReply::Welcome(_) => Some(stream),
            HelloReply::Refused { refusal, .. } => panic!("{refusal:?}"),
        }
    };
    let mut inside = Vec::with_capacity(CONNECTIONS_MAX);
    while let Some(stream) = come_in().await {
        inside.push(stream);
    }
    assert_eq!(inside.len(), CONNECTIONS_MAX);
    log.server_said("too many connections").await;
    inside.pop();
    let again = timeout(SOON, async { while come_in().await.is_none() {} }).await;
    again.expect("there is room for one");
}

#[tokio::test]
async fn a_caller_of_a_simulation_does_not_get_into_a_real_node() {
    let (log, _guard) = Log::capture();
    let authority = cluster();
    let guests = Guests::default();
    let server = start(identity(&authority, Role::Node), Arc::new(guests.clone())).await;
    let plain = Arc::new(Security::plain_for_simulation(server.security.peer()));
    let dialer = Dialer::new(Arc::new(TcpConnector), plain, Revocations::default());
    dialer.connect(server.address, None, Door::Raft).await.unwrap_err();
    log.server_said("does not speak TLS").await;
    assert!(guests.seen.lock().is_empty());
}

#[tokio::test]
async fn another_node_than_the_expected_is_refused_and_both_say_so() {
    let (log, _guard) = Log::capture();
    let authority = cluster();
    let guests = Guests::default();
    let server = start(identity(&authority, Role::Node), Arc::new(guests.clone())).await;
    let dialer = dialer(identity(&authority, Role::Node));
    let expected = NodeId([7; 32]);
    let error = dialer.connect(server.address, Some(expected), Door::Raft).await.unwrap_err();
    let found = server.node;
    assert_eq!(error, ConnectError::WrongNode { address: server.address, expected, found });
    log.server_said("the caller wants 07070707").await;
    assert!(guests.seen.lock().is_empty());
}

#[tokio::test]
async fn a_client_cannot_pose_as_a_node() {
    let authority = cluster();
    let node = start(identity(&authority, Role::Node), Arc::new(Guests::default())).await;
    // A listener that has a client's certificate and answers with it.
    let client = identity(&authority, Role::Client);
    let provider = crate::security::provider();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(client.chain(), client.private_key())
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let _ = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await;
    }));
    let dialer = dialer(identity(&authority, Role::Node));
    let error = dialer.connect(address, None, Door::Raft).await.unwrap_err();
    assert_eq!(error.kind(), "tls", "{error}");
    drop((task, node));
}

#[tokio::test]
async fn a_revoked_node_is_out_at_once_and_does_not_come_back() {
    let (log, _guard) = Log::capture();
    let authority = cluster();
    let server = start(identity(&authority, Role::Node), Arc::new(Guests::default())).await;
    let bad = dialer(identity(&authority, Role::Node));
    let good = dialer(identity(&authority, Role::Client));
    let (mut bad_stream, _) = bad.connect(server.address, None, Door::Raft).await.unwrap();
    let (mut good_stream, _) = good.connect(server.address, None, Door::Data).await.unwrap();
    let nodes = BTreeSet::from([bad.peer().node().unwrap()]);
    server.revocations.set(RevokedIds { nodes, clients: BTreeSet::new() });
    let mut end = [0; 1];
    let read = timeout(SOON, bad_stream.read(&mut end)).await.expect("the connection ends");
    assert!(matches!(read, Ok(0) | Err(_)));
    let error = bad.connect(server.address, None, Door::Raft).await.unwrap_err();
    assert_eq!(error.kind(), RefusalKind::Revoked.name());
    log.server_said("revoked").await;
    good_stream.write_all(b"!").await.unwrap();
    good_stream.read_exact(&mut end).await.unwrap();
}

#[tokio::test]
async fn a_revoked_node_is_not_called() {
    let authority = cluster();
    let server = start(identity(&authority, Role::Node), Arc::new(Guests::default())).await;
    let revocations = Revocations::default();
    let security = Arc::new(Security::tls(identity(&authority, Role::Client)).unwrap());
    let dialer = Dialer::new(Arc::new(TcpConnector), security, revocations.clone());
    dialer.connect(server.address, None, Door::Client).await.unwrap();
    let nodes = BTreeSet::from([server.node]);
    revocations.set(RevokedIds { nodes, clients: BTreeSet::new() });
    let error = dialer.connect(server.address, None, Door::Client).await.unwrap_err();
    assert_eq!(error.kind(), "revoked");
}

#[tokio::test]
async fn a_caller_that_says_nothing_is_let_go_after_the_time_limit() {
    let (log, _guard) = Log::capture();
    let server = start(identity(&cluster(), Role::Node), Arc::new(Guests::default())).await;
    let begin = Instant::now();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let mut answer = Vec::new();
    timeout(CONNECT_TIMEOUT + SOON, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(begin.elapsed() >= CONNECT_TIMEOUT);
    log.server_said("took longer").await;
}

#[tokio::test]
async fn a_renewed_certificate_is_used_and_standing_connections_go_on() {
    let authority = cluster();
    let server = start(identity(&authority, Role::Node), Arc::new(Guests::default())).await;
    let dialer = dialer(identity(&authority, Role::Client));
    let (mut before, _) = dialer.connect(server.address, None, Door::Data).await.unwrap();
    let old = server.security.identity().unwrap();
    let request = old.signing_request().unwrap();
    let lifetime = CERTIFICATE_LIFETIME * 2;
    let signed = authority.sign_request(&request, Role::Node, now(), lifetime).unwrap();
    let new = old.renewed(&signed.pem, &authority.certificate_pem()).unwrap();
    server.security.reload(new).unwrap();
    assert!(server.security.identity().unwrap().validity().1 > old.validity().1);
    dialer.connect(server.address, Some(server.node), Door::Data).await.unwrap();
    before.write_all(b"!").await.unwrap();
    before.read_exact(&mut [0; 1]).await.unwrap();
    let other = identity(&authority, Role::Node);
    assert!(server.security.reload(other).is_err(), "an id does not change in flight");
}

#[tokio::test]
async fn a_panic_in_a_handler_ends_that_connection_alone() {
    let authority = cluster();
    let handler = |incoming: Incoming| -> BoxFuture<'static, ()> {
        Box::pin(async move {
            assert!(incoming.door != Door::Admin, "this is the panic that the test wants");
            std::future::pending::<()>().await;
        })
    };
    let server = start(identity(&authority, Role::Node), Arc::new(handler)).await;
    let dialer = dialer(identity(&authority, Role::Operator));
    let (mut stream, _) = dialer.connect(server.address, None, Door::Admin).await.unwrap();
    let read = timeout(SOON, stream.read(&mut [0; 1])).await.expect("the connection ends");
    assert!(matches!(read, Ok(0) | Err(_)));
    dialer.connect(server.address, None, Door::Client).await.unwrap();
}

#[tokio::test]
async fn in_a_simulation_the_hello_says_who_is_there() {
    let cluster = ClusterId([1; 16]);
    let peer = |byte| PeerIdentity { cluster, subject: Subject::Node(NodeId([byte; 32])) };
    let plain = |byte| Arc::new(Security::plain_for_simulation(peer(byte)));
    let guests = Guests::default();
    let address = "127.0.0.1:0".parse().unwrap();
    let server = start_with(address, plain(1), Arc::new(guests.clone())).await;
    let dialer = Dialer::new(Arc::new(TcpConnector), plain(2), Revocations::default());
    let (_stream, found) =
        dialer.connect(server.address, Some(server.node), Door::Raft).await.unwrap();
    assert_eq!(found, peer(1));
    assert_eq!(*guests.seen.lock(), [(Some(peer(2)), Door::Raft)]);
    let error = dialer.connect(server.address, Some(NodeId([3; 32])), Door::Raft).await;
    assert_eq!(error.err().unwrap().kind(), RefusalKind::WrongNode.name());
}
