//! The asking end of data connections.
//!
//! Clients use it to reach masters of placement groups, masters to reach slaves, ministers to have
//! files cut and purged. A process has one [`DataStreams`]; it keeps up to
//! [`DATA_STREAMS_PER_PEER`] connections (*lanes*) to each node, carries up to
//! [`DATA_REQUESTS_PER_STREAM_MAX`] requests at once on each, and connects anew when one breaks.
//!
//! What must always hold: requests about one inode take one lane and go out in the order in which
//! they were asked; a change whose answer is not waited for any more closes its connection, and
//! everything later on that lane carries a larger generation, so that the receiver refuses what
//! may be left of it (see [`DataSource`]). A request is sent at most once by one call: sending
//! again is up to the caller, who knows whether it may.
//!
//! When it fails: a [`DataStreamError`], after which the request may or may not have been carried
//! out (but for [`DataStreamError::Unreachable`]: not). The tasks of a connection end with it, and
//! all connections with the [`DataStreams`].

mod connection;
pub mod frames;
pub mod router;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use ministry_types::limits::{
    CONNECT_TIMEOUT, DATA_REQUESTS_PER_STREAM_MAX, DATA_STREAMS_PER_PEER,
};
use ministry_types::placement::mix;
use ministry_types::{InodeId, NodeId};
use ministry_wire::data::{DataReply, DataRequest, DataSource};
use ministry_wire::hello::Door;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::dial::Dialer;
use crate::stream::BoxedStream;
use connection::Connection;

/// Wait after the first failure to connect, doubled with each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
/// Longest wait between two tries to connect: what a node that returns waits for us.
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Opens data connections. The real one is [`Dialer`], which does TLS and the handshake.
pub trait DataConnector: Send + Sync + 'static {
    /// Opens a connection to the data door of `node`, expected at `address`. The caller bounds the
    /// time. An error is a text for people.
    fn connect(
        &self,
        node: NodeId,
        address: SocketAddr,
    ) -> BoxFuture<'_, Result<BoxedStream, String>>;
}

impl DataConnector for Dialer {
    fn connect(
        &self,
        node: NodeId,
        address: SocketAddr,
    ) -> BoxFuture<'_, Result<BoxedStream, String>> {
        async move {
            match self.connect(address, Some(node), Door::Data).await {
                Ok((stream, _)) => Ok(stream),
                Err(error) => Err(error.to_string()),
            }
        }
        .boxed()
    }
}

/// No answer to a data request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DataStreamError {
    /// No connection: the request was not sent. Try again in a moment.
    #[error("node {} is out of reach: {reason}", .node.short())]
    Unreachable {
        /// Which node.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// The connection broke before the answer came: ask again.
    #[error("the connection to node {} broke: {reason}", .node.short())]
    Broken {
        /// Which node.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// No answer within the time given: ask again.
    #[error("node {} did not answer in time", .node.short())]
    TimedOut {
        /// Which node.
        node: NodeId,
    },
    /// The request does not fit a frame: asking again does not help.
    #[error("the request cannot be sent: {0}")]
    Unsendable(String),
}

/// Data connections of one process to all nodes it has to do with.
pub struct DataStreams {
    connector: Arc<dyn DataConnector>,
    incarnation: u64,
    /// One for all lanes of all peers, so that it grows whatever becomes of a peer.
    generations: Arc<AtomicU64>,
    peers: Mutex<BTreeMap<NodeId, Arc<DataPeer>>>,
}

impl DataStreams {
    /// Connections made by `connector`. `incarnation` is drawn at random by the process at its
    /// start; nodes tell by it this process from the one before.
    pub fn new(connector: Arc<dyn DataConnector>, incarnation: u64) -> DataStreams {
        DataStreams {
            connector,
            incarnation,
            generations: Arc::new(AtomicU64::new(1)),
            peers: Mutex::new(BTreeMap::new()),
        }
    }

    /// The connections to `node`, which is reached at `address` from now on.
    pub fn peer(&self, node: NodeId, address: SocketAddr) -> Arc<DataPeer> {
        let mut peers = self.peers.lock();
        let peer = peers.entry(node).or_insert_with(|| {
            let connector = Arc::clone(&self.connector);
            let generations = Arc::clone(&self.generations);
            Arc::new(DataPeer::new(node, address, connector, self.incarnation, generations))
        });
        *peer.address.lock() = address;
        Arc::clone(peer)
    }

    /// Sends a request to `node` and waits for the answer; see [`DataPeer::request`].
    pub async fn request(
        &self,
        node: NodeId,
        address: SocketAddr,
        request: DataRequest,
        payload: Bytes,
        patience: Duration,
    ) -> Result<(DataReply, Bytes), DataStreamError> {
        self.peer(node, address).request(request, payload, patience).await
    }

    /// Closes the connections to nodes that are not wanted any more.
    pub fn retain(&self, mut wanted: impl FnMut(NodeId) -> bool) {
        self.peers.lock().retain(|node, _| wanted(*node));
    }
}

impl std::fmt::Debug for DataStreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataStreams")
            .field("incarnation", &self.incarnation)
            .finish_non_exhaustive()
    }
}

/// The lane that requests about an inode take, at every sender.
pub fn lane_of(inode: InodeId) -> usize {
    (mix(inode.0) % DATA_STREAMS_PER_PEER as u64) as usize
}

/// Data connections to one node.
pub struct DataPeer {
    node: NodeId,
    address: Mutex<SocketAddr>,
    connector: Arc<dyn DataConnector>,
    incarnation: u64,
    generations: Arc<AtomicU64>,
    lanes: [Lane; DATA_STREAMS_PER_PEER],
}

impl std::fmt::Debug for DataPeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataPeer").field("node", &self.node).finish_non_exhaustive()
    }
}

/// One connection at a time, and what bounds its use.
struct Lane {
    slots: Semaphore,
    /// An asynchronous lock, because all who need the connection wait while one makes it.
    state: tokio::sync::Mutex<LaneState>,
}

#[derive(Default)]
struct LaneState {
    connection: Option<Arc<Connection>>,
    failure: Option<Failure>,
}

/// The last try to connect failed.
struct Failure {
    reason: String,
    retry_at: Instant,
    backoff: Duration,
}

impl DataPeer {
    fn new(
        node: NodeId,
        address: SocketAddr,
        connector: Arc<dyn DataConnector>,
        incarnation: u64,
        generations: Arc<AtomicU64>,
    ) -> DataPeer {
        let lane = |_| Lane {
            slots: Semaphore::new(DATA_REQUESTS_PER_STREAM_MAX),
            state: tokio::sync::Mutex::default(),
        };
        DataPeer {
            node,
            address: Mutex::new(address),
            connector,
            incarnation,
            generations,
            lanes: std::array::from_fn(lane),
        }
    }

    /// Sends a request and waits for the answer, at most for `patience`. `id` and `source` of the
    /// request are filled in here. Dropped or out of time before the answer came, a change closes
    /// its connection; the other requests on it fail with [`DataStreamError::Broken`].
    pub async fn request(
        &self,
        request: DataRequest,
        payload: Bytes,
        patience: Duration,
    ) -> Result<(DataReply, Bytes), DataStreamError> {
        let asked = self.exchange(request, payload);
        match timeout(patience, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(DataStreamError::TimedOut { node: self.node }),
        }
    }

    async fn exchange(
        &self,
        mut request: DataRequest,
        payload: Bytes,
    ) -> Result<(DataReply, Bytes), DataStreamError> {
        let number = lane_of(request.inode);
        let lane = &self.lanes[number];
        let _slot = lane.slots.acquire().await.expect("the slots are never closed");
        let connection = self.connection(lane).await?;
        request.source = DataSource {
            incarnation: self.incarnation,
            lane: number as u32,
            generation: connection.generation(),
        };
        connection.exchange(request, payload).await
    }

    /// The lane's connection, made anew if there is none that works.
    ///
    /// Cancel safety: safe; a connection half made is dropped, the next caller begins again.
    async fn connection(&self, lane: &Lane) -> Result<Arc<Connection>, DataStreamError> {
        let mut state = lane.state.lock().await;
        if let Some(connection) = state.connection.as_ref().filter(|live| live.is_open()) {
            return Ok(Arc::clone(connection));
        }
        state.connection = None;
        let now = Instant::now();
        if let Some(failure) = state.failure.as_ref().filter(|failure| now < failure.retry_at) {
            return Err(self.unreachable(failure.reason.clone()));
        }
        let address = *self.address.lock();
        let opened = timeout(CONNECT_TIMEOUT, self.connector.connect(self.node, address)).await;
        let opened = opened.unwrap_or_else(|_| Err("connecting took too long".to_owned()));
        match opened {
            Ok(stream) => {
                let generation = self.generations.fetch_add(1, Ordering::Relaxed);
                let connection = Arc::new(Connection::new(self.node, generation, stream));
                state.failure = None;
                state.connection = Some(Arc::clone(&connection));
                Ok(connection)
            }
            Err(reason) => {
                let last = state.failure.as_ref().map(|failure| failure.backoff);
                let backoff = last.map_or(BACKOFF_FIRST, |last| (last * 2).min(BACKOFF_MAX));
                if last.is_none() {
                    tracing::info!(node = %self.node.short(), %address, %reason,
                        "no data connection; trying on");
                }
                let retry_at = Instant::now() + backoff;
                state.failure = Some(Failure { reason: reason.clone(), retry_at, backoff });
                Err(self.unreachable(reason))
            }
        }
    }

    fn unreachable(&self, reason: String) -> DataStreamError {
        DataStreamError::Unreachable { node: self.node, reason }
    }
}

#[cfg(test)]
mod tests;
