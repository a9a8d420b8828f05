//! Byte streams, and where they come from.
//!
//! Everything above is generic over [`Connector`] and [`Listener`], so that a simulation puts its
//! own network here. [`TcpConnector`] and [`TcpAccept`] are the real ones.
//!
//! What must always hold: a stream is as TCP gives it, without encryption and without identity;
//! only [`crate::server`] and [`crate::dial`] use it, and both prove first who is there.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// What a connection reads and writes.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

impl std::fmt::Debug for dyn ByteStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ByteStream")
    }
}

/// A connection, whatever carries it.
pub type BoxedStream = Box<dyn ByteStream>;

/// Opens connections.
pub trait Connector: Send + Sync + 'static {
    /// Opens a connection to `address`. The caller bounds the time.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<BoxedStream>>;
}

/// Accepts connections.
pub trait Listener: Send + Sync + 'static {
    /// Waits for the next connection.
    ///
    /// Cancel safety: safe; no connection may be lost when the future is dropped.
    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxedStream, SocketAddr)>>;

    /// Where it listens.
    fn local_address(&self) -> io::Result<SocketAddr>;
}

/// Silence after which the kernel asks whether the other end is still there, and between
/// questions. A machine that lost its power closes nothing.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Questions without an answer after which the connection is closed.
const KEEP_ALIVE_QUESTIONS: u32 = 3;
/// How long written bytes may stay unacknowledged before the connection is closed.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(15);

fn configure(stream: &TcpStream) -> io::Result<()> {
    // Requests are small and somebody waits for each answer: nothing may be held back.
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keep_alive = TcpKeepalive::new()
        .with_time(KEEP_ALIVE)
        .with_interval(KEEP_ALIVE)
        .with_retries(KEEP_ALIVE_QUESTIONS);
    socket.set_tcp_keepalive(&keep_alive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))
}

impl Listener for Box<dyn Listener> {
    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxedStream, SocketAddr)>> {
        (**self).accept()
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        (**self).local_address()
    }
}

/// Connections over TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpConnector;

impl Connector for TcpConnector {
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<BoxedStream>> {
        async move {
            let stream = TcpStream::connect(address).await?;
            configure(&stream)?;
            Ok(Box::new(stream) as BoxedStream)
        }
        .boxed()
    }
}

/// A TCP socket that accepts connections.
#[derive(Debug)]
pub struct TcpAccept {
    listener: TcpListener,
}

impl TcpAccept {
    /// Listens at `address`; port 0 takes any free one.
    pub async fn bind(address: SocketAddr) -> io::Result<TcpAccept> {
        Ok(TcpAccept { listener: TcpListener::bind(address).await? })
    }
}

impl Listener for TcpAccept {
    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxedStream, SocketAddr)>> {
        async move {
            let (stream, address) = self.listener.accept().await?;
            // A connection that is gone already fails at its first read, not here: an error of
            // `accept` would hold up the others.
            let _ = configure(&stream);
            Ok((Box::new(stream) as BoxedStream, address))
        }
        .boxed()
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
