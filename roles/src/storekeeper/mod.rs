//! Storekeeper: the office of a node that stores file data (primary and secondary replica; Ceph's
//! OSD, GFS's chunk server).
//!
//! `ministryd` makes one [`Storekeeper`] and hands it the connections that come in at the data
//! door. For some placement groups the node is the master: it orders the changes, carries them out
//! here and at every other in-sync member at the same time, and answers when all have them. For
//! others it is a slave and does what the master sends.
//!
//! ```text
//!  connection ─ Arrival ─┬─ ranges: waits for what is in the way ─┬─ local: the chunk store
//!   (one task each way)  │   (one task a request)                 └─ forward: the other members
//!                        ├─ copy: fetches the bytes first, then goes on as a write
//!                        └─ refused at once: wrong epoch, no room, makes no sense
//! ```
//!
//! What must always hold:
//! - Nothing is acknowledged that is not at every in-sync member of the placement group.
//! - Changes of the same bytes happen in one order at all members ([`ranges`]); nothing that is
//!   left of an older connection takes effect after something newer ([`sources`]).
//! - A change that has begun goes on until every in-sync member has it, also when its sender is
//!   gone, so that the members do not stay different; meanwhile nobody reads its bytes.
//! - Each request is answered within [`ANSWER_WITHIN`] and a little, if only by
//!   [`ministry_wire::data::DataError::Waiting`]; its sender then asks again.
//! - What is held in memory is bounded: by connection, for reads, for writes, and for each member
//!   that does not answer.
//!
//! When it fails: a member that does not answer makes changes wait until it returns or the
//! placement group changes. Damage is answered as damage and never served. A failed sync here ends
//! the process by the hook given to [`Storekeeper::new`].

mod arrival;
mod connection;
mod copy;
mod forward;
mod job;
mod local;
mod ranges;
mod sources;

use std::sync::Arc;
use std::time::Duration;

use ministry_storage::ChunkStore;
use ministry_transport::data_stream::DataStreams;
use ministry_transport::data_stream::router::DataRouter;
use ministry_transport::{BoxedStream, PeerIdentity};
use ministry_types::NodeId;
use ministry_types::government::ClusterMap;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use forward::Backlogs;
use local::Local;
pub use local::{FatalHook, Threads};
use ranges::RangeQueues;
use sources::Sources;

/// A request that takes longer is answered by [`ministry_wire::data::DataError::Waiting`] and goes on.
pub const ANSWER_WITHIN: Duration = Duration::from_millis(1_500);
/// Bytes of payloads of changes that are under way.
pub const WRITE_BYTES_MAX: usize = 48 << 20;
/// Bytes that were or are being fetched for copies.
pub const COPY_BYTES_MAX: usize = 16 << 20;
/// Bytes of replies to reads that are under way.
pub const READ_BYTES_MAX: usize = 24 << 20;

/// See the module. Dropping it ends everything that it runs.
pub struct Storekeeper {
    office: Arc<Office>,
}

/// What all tasks share.
struct Office {
    me: NodeId,
    map: watch::Receiver<Arc<ClusterMap>>,
    streams: Arc<DataStreams>,
    local: Local,
    ranges: Arc<RangeQueues>,
    sources: Arc<Sources>,
    backlogs: Backlogs,
    /// Asks other masters for bytes that are copied from them.
    router: DataRouter,
    copy_room: Arc<Semaphore>,
    write_room: Arc<Semaphore>,
    read_room: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Storekeeper {
    /// A storekeeper over this chunk store. `map` is the node's own copy of the cluster map;
    /// `streams` are the process's only data connections to other nodes. `fatal` is called, at
    /// most once, when the chunk store must not be used any more; it is expected to end the
    /// process. Must be called within a runtime.
    pub fn new(
        me: NodeId,
        store: Arc<ChunkStore>,
        map: watch::Receiver<Arc<ClusterMap>>,
        streams: Arc<DataStreams>,
        threads: Threads,
        fatal: FatalHook,
    ) -> Storekeeper {
        // The map comes by the cluster log: nobody has to be told that it seems to be old.
        let router = DataRouter::new(Arc::clone(&streams), map.clone(), Arc::default());
        let office = Arc::new(Office {
            me,
            map,
            streams,
            router,
            copy_room: Arc::new(Semaphore::new(COPY_BYTES_MAX)),
            local: Local::new(store, threads, fatal),
            ranges: RangeQueues::new(),
            sources: Arc::default(),
            backlogs: Backlogs::default(),
            write_room: Arc::new(Semaphore::new(WRITE_BYTES_MAX)),
            read_room: Arc::new(Semaphore::new(READ_BYTES_MAX)),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        let keeping = Arc::clone(&office);
        office.spawn(async move { keeping.local.maintain().await });
        Storekeeper { office }
    }

    /// Answers the requests of one connection until it ends.
    ///
    /// Cancel safety: dropped, the connection ends; changes that have begun go on.
    pub async fn serve(&self, peer: PeerIdentity, stream: BoxedStream) {
        let serving = connection::serve(&self.office, peer, stream);
        tokio::select! {
            () = serving => {}
            () = self.office.stop.cancelled() => {}
        }
    }

    /// Ends everything and waits until nothing uses the chunk store any more. Changes that other
    /// members lack stay so until their senders ask again.
    pub async fn stop(self) {
        self.office.stop.cancel();
        self.office.tasks.close();
        self.office.tasks.wait().await;
        self.office.local.close().await;
    }
}

impl Drop for Storekeeper {
    fn drop(&mut self) {
        self.office.stop.cancel();
    }
}

impl std::fmt::Debug for Storekeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Storekeeper({})", self.office.me.short())
    }
}

impl Office {
    /// Runs a task that ends with the storekeeper.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = stop.cancelled() => {}
            }
        });
    }

    fn map(&self) -> Arc<ClusterMap> {
        Arc::clone(&self.map.borrow())
    }
}

#[cfg(test)]
mod tests;
