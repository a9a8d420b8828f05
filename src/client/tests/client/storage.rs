//! The chunks of files, in memory, with the rules of storage nodes about cuts.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use ministry_client::FileData;
use ministry_client::data::DataFailure;
use ministry_client::file_data::Place;
use ministry_types::layout::cut_due;
use ministry_types::{ChunkNumber, InodeId, SpaceChange};
use ministry_wire::data::CopySource;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

#[derive(Default)]
struct Stored {
    seen: u64,
    bytes: Vec<u8>,
    synced: Vec<u8>,
}

/// What all clients of a test share.
#[derive(Clone, Default)]
pub struct Storage {
    files: Arc<Mutex<BTreeMap<InodeId, Stored>>>,
}

impl Storage {
    /// What of the file would survive a loss of power.
    pub fn synced(&self, inode: InodeId) -> Vec<u8> {
        self.files.lock().get(&inode).map_or(Vec::new(), |stored| stored.synced.clone())
    }

    /// What lies there, also behind the end.
    pub fn bytes(&self, inode: InodeId) -> Vec<u8> {
        self.files.lock().get(&inode).map_or(Vec::new(), |stored| stored.bytes.clone())
    }

    /// A write that no minister was told of.
    pub fn scribble(&self, inode: InodeId, offset: usize, data: &[u8]) {
        put(&mut self.files.lock().entry(inode).or_default().bytes, offset, data);
    }

    /// One client's way there.
    pub fn path(&self) -> MemoryPath {
        MemoryPath { storage: self.clone(), gate: Arc::new(Semaphore::new(1 << 20)) }
    }

    fn with<T>(
        &self,
        place: &Place,
        work: impl FnOnce(&mut Stored) -> T,
    ) -> Result<T, DataFailure> {
        let mut files = self.files.lock();
        let stored = files.entry(place.inode).or_default();
        let newest = place.truncates.last().map_or(0, |mark| mark.sequence);
        if newest < stored.seen {
            return Err(DataFailure::StaleTruncate { current: stored.seen });
        }
        if let Some(cut) = cut_due(stored.seen, &place.truncates) {
            stored.bytes.truncate(cut.size as usize);
            stored.seen = cut.sequence;
        }
        Ok(work(stored))
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

/// One client's way to the storage.
#[derive(Clone)]
pub struct MemoryPath {
    storage: Storage,
    gate: Arc<Semaphore>,
}

impl MemoryPath {
    /// Holds back every write from now on.
    pub fn shut(&self) {
        self.gate.forget_permits(usize::MAX >> 4);
    }

    /// Lets this many writes through.
    pub fn let_through(&self, writes: usize) {
        self.gate.add_permits(writes);
    }
}

impl FileData for MemoryPath {
    fn write<'a>(
        &'a self,
        place: &'a Place,
        offset: u64,
        data: Bytes,
    ) -> BoxFuture<'a, Result<Vec<(ChunkNumber, u64)>, DataFailure>> {
        async move {
            self.gate.acquire().await.expect("the gate stands").forget();
            tokio::task::yield_now().await;
            self.storage.with(place, |stored| {
                put(&mut stored.bytes, offset as usize, &data);
                vec![(offset / place.chunk_bytes, stored.bytes.len().next_multiple_of(4096) as u64)]
            })
        }
        .boxed()
    }

    fn read<'a>(
        &'a self,
        place: &'a Place,
        offset: u64,
        length: u64,
    ) -> BoxFuture<'a, Result<Bytes, DataFailure>> {
        async move {
            tokio::task::yield_now().await;
            self.storage.with(place, |stored| {
                let mut read = vec![0; length as usize];
                let from = (offset as usize).min(stored.bytes.len());
                let to = (from + read.len()).min(stored.bytes.len());
                read[..to - from].copy_from_slice(&stored.bytes[from..to]);
                Bytes::from(read)
            })
        }
        .boxed()
    }

    fn sync<'a>(
        &'a self,
        place: &'a Place,
        _chunks: Range<ChunkNumber>,
    ) -> BoxFuture<'a, Result<(), DataFailure>> {
        async move { self.storage.with(place, |stored| stored.synced = stored.bytes.clone()) }
            .boxed()
    }

    fn space<'a>(
        &'a self,
        place: &'a Place,
        bytes: Range<u64>,
        change: SpaceChange,
    ) -> BoxFuture<'a, Result<Vec<(ChunkNumber, u64)>, DataFailure>> {
        async move {
            self.gate.acquire().await.expect("the gate stands").forget();
            self.storage.with(place, |stored| {
                let (from, to) = (bytes.start as usize, bytes.end as usize);
                if change == SpaceChange::Punch {
                    let end = stored.bytes.len();
                    stored.bytes[from.min(end)..to.min(end)].fill(0);
                } else {
                    let there = stored.bytes.len().max(to);
                    stored.bytes.resize(there, 0);
                    if change == SpaceChange::Zero {
                        stored.bytes[from..to].fill(0);
                    }
                }
                let chunk = bytes.start / place.chunk_bytes;
                vec![(chunk, stored.bytes.len().next_multiple_of(4096) as u64)]
            })
        }
        .boxed()
    }

    /// Blocks of zeros are holes.
    fn seek<'a>(
        &'a self,
        place: &'a Place,
        bytes: Range<u64>,
        hole: bool,
    ) -> BoxFuture<'a, Result<Option<u64>, DataFailure>> {
        async move {
            self.storage.with(place, |stored| {
                let is_hole = |at: &u64| {
                    let from = (*at as usize / 4096 * 4096).min(stored.bytes.len());
                    let to = (from + 4096).min(stored.bytes.len());
                    stored.bytes[from..to].iter().all(|byte| *byte == 0)
                };
                let blocks = (bytes.start / 4096 + 1..bytes.end.div_ceil(4096)).map(|n| n * 4096);
                std::iter::once(bytes.start).chain(blocks).find(|at| is_hole(at) == hole)
            })
        }
        .boxed()
    }

    fn copy<'a>(
        &'a self,
        place: &'a Place,
        bytes: Range<u64>,
        source: CopySource,
    ) -> BoxFuture<'a, Result<Vec<(ChunkNumber, u64)>, DataFailure>> {
        async move {
            let CopySource { inode, offset, chunk_bytes, truncates } = source;
            let from = Place { inode, chunk_bytes, truncates, deadline: place.deadline };
            let data = self.read(&from, offset, bytes.end - bytes.start).await?;
            self.write(place, bytes.start, data).await
        }
        .boxed()
    }
}
