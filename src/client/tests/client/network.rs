//! A network within the process, for the real transport.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use ministry_transport::{BoxedStream, Connector, Listener};
use parking_lot::Mutex;
use tokio::sync::mpsc;

type Accepted = (BoxedStream, SocketAddr);

const PIPE_BYTES: usize = 1 << 20;

/// Everything that listens.
#[derive(Clone, Default)]
pub struct Network {
    listening: Arc<Mutex<BTreeMap<SocketAddr, mpsc::Sender<Accepted>>>>,
}

impl Network {
    /// Listens at an address.
    pub fn listen(&self, address: SocketAddr) -> Port {
        let (sender, accepted) = mpsc::channel(16);
        self.listening.lock().insert(address, sender);
        Port { address, accepted: tokio::sync::Mutex::new(accepted) }
    }
}

impl Connector for Network {
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<BoxedStream>> {
        async move {
            let listener = self.listening.lock().get(&address).cloned();
            let listener = listener.ok_or(io::ErrorKind::ConnectionRefused)?;
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            let from = SocketAddr::from(([127, 0, 0, 1], 1));
            let sent = listener.send((Box::new(far), from)).await;
            sent.map_err(|_| io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(near) as BoxedStream)
        }
        .boxed()
    }
}

/// One address that listens.
pub struct Port {
    address: SocketAddr,
    accepted: tokio::sync::Mutex<mpsc::Receiver<Accepted>>,
}

impl Listener for Port {
    fn accept(&self) -> BoxFuture<'_, io::Result<Accepted>> {
        async move {
            let accepted = self.accepted.lock().await.recv().await;
            accepted.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
        }
        .boxed()
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
