//! The chunk store of this node, from tasks.
//!
//! The chunk store blocks; here its calls go to threads that may, a bounded number at once, with
//! syncs apart so that they never hold up reads and writes. A simulation has no threads: there
//! the calls are made in place ([`Threads::InPlace`]).
//!
//! What must always hold: once the chunk store has failed for good, nothing is answered any more.
//! The hook ends the process; a restart finds out what the disk holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ministry_storage::{ChunkError, ChunkStore, Searched};
use ministry_types::government::ClusterMap;
use ministry_wire::data::{DataAction, DataError, DataOutcome, DataRequest};
use tokio::sync::Semaphore;

/// Called when the node's disk must not be trusted any more, with the reason.
pub type FatalHook = Arc<dyn Fn(&str) + Send + Sync>;

/// Reads and writes at once: more do not make a disk faster.
const WORK_THREADS: usize = 16;
/// Syncs at once.
const SYNC_THREADS: usize = 16;
/// Between two calls of [`ChunkStore::maintain`].
const MAINTAIN_INTERVAL: Duration = Duration::from_secs(3);

/// Where blocking calls run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// On the runtime's blocking threads.
    Blocking,
    /// Where they are made: for simulation, where the disk is memory.
    InPlace,
}

impl Threads {
    /// Makes a call that may block. `None`: it panicked, or the runtime ends.
    pub async fn call<T: Send + 'static>(
        self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        match self {
            Threads::InPlace => Some(call()),
            Threads::Blocking => tokio::task::spawn_blocking(call).await.ok(),
        }
    }
}

pub(super) struct Local {
    store: Arc<ChunkStore>,
    threads: Threads,
    work: Arc<Semaphore>,
    syncs: Arc<Semaphore>,
    fatal: FatalHook,
    failed: AtomicBool,
}

impl Local {
    pub(super) fn new(store: Arc<ChunkStore>, threads: Threads, fatal: FatalHook) -> Local {
        Local {
            store,
            threads,
            work: Arc::new(Semaphore::new(WORK_THREADS)),
            syncs: Arc::new(Semaphore::new(SYNC_THREADS)),
            fatal,
            failed: AtomicBool::new(false),
        }
    }

    /// Carries out a change, or a sync.
    pub(super) async fn change(
        &self,
        request: &DataRequest,
        payload: &Bytes,
    ) -> Result<DataOutcome, DataError> {
        let inode = request.inode;
        let truncates = request.truncates.clone();
        match &request.action {
            DataAction::Write { offset, chunk, chunk_bytes, checksums } => {
                let (offset, chunk, chunk_bytes) = (*offset, *chunk, *chunk_bytes);
                let (checksums, payload) = (checksums.clone(), payload.clone());
                let write = move |store: &ChunkStore| {
                    store.write(inode, offset, &payload, Some(&checksums), &truncates)?;
                    store.allocated(inode, chunk, chunk_bytes)
                };
                let allocated_bytes = self.run(&self.work, write).await?;
                Ok(DataOutcome::Written { allocated_bytes })
            }
            DataAction::Truncate { chunk, chunk_bytes } => {
                let (chunk, chunk_bytes) = (*chunk, *chunk_bytes);
                let truncate = move |store: &ChunkStore| {
                    store.truncate(inode, &truncates)?;
                    store.allocated(inode, chunk, chunk_bytes)
                };
                let allocated_bytes = self.run(&self.syncs, truncate).await?;
                Ok(DataOutcome::Written { allocated_bytes })
            }
            DataAction::Sync => {
                self.run(&self.syncs, move |store| store.sync(inode)).await?;
                Ok(DataOutcome::Done)
            }
            DataAction::Purge => {
                self.run(&self.syncs, move |store| store.purge(inode)).await?;
                Ok(DataOutcome::Done)
            }
            DataAction::Space { offset, length, chunk, chunk_bytes, change } => {
                let (bytes, change) = (*offset..offset + length, *change);
                let (chunk, chunk_bytes) = (*chunk, *chunk_bytes);
                let work = move |store: &ChunkStore| {
                    store.change_space(inode, bytes, change, &truncates)?;
                    store.allocated(inode, chunk, chunk_bytes)
                };
                let allocated_bytes = self.run(&self.work, work).await?;
                Ok(DataOutcome::Written { allocated_bytes })
            }
            DataAction::Read { .. } | DataAction::Seek { .. } | DataAction::Copy { .. } => {
                unreachable!("questions change nothing, and a copy is a write by now")
            }
        }
    }

    /// Reads what a read request asks for.
    pub(super) async fn read(
        &self,
        request: &DataRequest,
    ) -> Result<(DataOutcome, Bytes), DataError> {
        let DataAction::Read { offset, length } = request.action else {
            unreachable!("only reads are read");
        };
        let (inode, truncates) = (request.inode, request.truncates.clone());
        let read = move |store: &ChunkStore| store.read(inode, offset, length as usize, &truncates);
        let out = self.run(&self.work, read).await?;
        assert_eq!(out.data.len(), length as usize, "a read gives as many bytes as were asked for");
        Ok((DataOutcome::Data { checksums: out.checksums }, out.data))
    }

    /// Looks for data or a hole in the chunks of the request's placement group.
    pub(super) async fn seek(
        &self,
        request: &DataRequest,
        map: Arc<ClusterMap>,
    ) -> Result<DataOutcome, DataError> {
        let DataAction::Seek { offset, end, chunk_bytes, hole } = request.action else {
            unreachable!("only searches are searched");
        };
        let (inode, pg, truncates) = (request.inode, request.pg, request.truncates.clone());
        let seek = move |store: &ChunkStore| {
            let belongs = |chunk| map.pgs.group_of(inode, chunk) == Some(pg);
            store.seek(inode, offset..end, hole, chunk_bytes, belongs, &truncates)
        };
        let Searched { at, found } = self.run(&self.work, seek).await?;
        Ok(DataOutcome::Searched { at, found })
    }

    /// Calls the chunk store's maintenance again and again.
    pub(super) async fn maintain(&self) {
        loop {
            tokio::time::sleep(MAINTAIN_INTERVAL).await;
            if let Err(error) = self.run(&self.syncs, ChunkStore::maintain).await {
                tracing::warn!(%error, "the maintenance of the chunk store failed; trying on");
            }
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        threads: &Arc<Semaphore>,
        call: impl FnOnce(&ChunkStore) -> Result<T, ChunkError> + Send + 'static,
    ) -> Result<T, DataError> {
        let thread = Arc::clone(threads).acquire_owned().await.expect("the threads stay");
        let result = match self.threads {
            Threads::InPlace => call(&self.store),
            Threads::Blocking => {
                let store = Arc::clone(&self.store);
                // The thread is given back when the call is through, also if nobody waits for it.
                let call = move || {
                    let _thread = thread;
                    call(&store)
                };
                match tokio::task::spawn_blocking(call).await {
                    Ok(result) => result,
                    Err(error) if error.is_panic() => Err(ChunkError::Fatal(error.to_string())),
                    // The runtime ends.
                    Err(_) => std::future::pending().await,
                }
            }
        };
        match result {
            Ok(value) => Ok(value),
            Err(ChunkError::Fatal(reason)) => self.end(&reason).await,
            Err(error) => Err(to_wire(error)),
        }
    }

    /// Waits until no call is under way and lets no further one begin.
    pub(super) async fn close(&self) {
        for (threads, count) in [(&self.work, WORK_THREADS), (&self.syncs, SYNC_THREADS)] {
            let all = threads.acquire_many(count as u32).await;
            all.expect("the threads stay").forget();
        }
    }

    /// Reports that nothing works any more, and never returns.
    async fn end<T>(&self, reason: &str) -> T {
        if !self.failed.swap(true, Ordering::Relaxed) {
            tracing::error!(reason, "the disk of this node failed for good");
            (self.fatal)(reason);
        }
        std::future::pending().await
    }
}

fn to_wire(error: ChunkError) -> DataError {
    match error {
        ChunkError::StaleTruncate { current } => DataError::StaleTruncate { current },
        ChunkError::Purged => DataError::Purged,
        ChunkError::ChecksumMismatch => DataError::ChecksumMismatch,
        ChunkError::Damaged { block } => DataError::Damaged { block },
        ChunkError::NoSpace => DataError::NoSpace,
        ChunkError::Invalid(text) => DataError::Invalid(text),
        ChunkError::DamagedStore(text) | ChunkError::Io(text) => DataError::Disk(text),
        ChunkError::Fatal(text) => unreachable!("a final failure is never answered: {text}"),
    }
}
