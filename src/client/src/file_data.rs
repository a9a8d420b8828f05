//! What the file calls need of the data path.
//!
//! [`crate::data::DataPath`] is the real one: streams to the masters of the placement groups. The
//! trait is the seam at which a test puts bytes in memory instead.
//!
//! What must always hold: what `write` acknowledged is at every in-sync replica; what `sync`
//! acknowledged is on their disks. Every call ends at its deadline.

use std::ops::Range;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use ministry_types::{ChunkNumber, FsError, InodeId, SpaceChange, TruncateMark};
use ministry_wire::data::CopySource;
use tokio::time::Instant;

use crate::data::{DataFailure, DataPath};

/// Which bytes of which file, as every data call names them.
#[derive(Debug, Clone)]
pub struct Place {
    /// The file.
    pub inode: InodeId,
    /// Bytes of one of its chunks.
    pub chunk_bytes: u64,
    /// The cuts that the caller knows and storage has not confirmed.
    pub truncates: Vec<TruncateMark>,
    /// When to give up.
    pub deadline: Instant,
}

/// Reads and writes the chunks of files.
pub trait FileData: Send + Sync + 'static {
    /// Writes; answers with the bytes now allocated in each chunk that was written to.
    fn write<'a>(
        &'a self,
        place: &'a Place,
        offset: u64,
        data: Bytes,
    ) -> BoxFuture<'a, Result<Vec<(ChunkNumber, u64)>, DataFailure>>;

    /// Reads exactly `length` bytes; holes are zeros.
    fn read<'a>(
        &'a self,
        place: &'a Place,
        offset: u64,
        length: u64,
    ) -> BoxFuture<'a, Result<Bytes, DataFailure>>;

    /// Everything acknowledged in these chunks is on stable storage.
    fn sync<'a>(
        &'a self,
        place: &'a Place,
        chunks: Range<ChunkNumber>,
    ) -> BoxFuture<'a, Result<(), DataFailure>>;

    /// Changes the room of a range; answers as `write`.
    fn space<'a>(
        &'a self,
        place: &'a Place,
        bytes: Range<u64>,
        change: SpaceChange,
    ) -> BoxFuture<'a, Result<Vec<(ChunkNumber, u64)>, DataFailure>>;

    /// The first data, or the first hole, in a range; `None`: there is none.
    fn seek<'a>(
        &'a self,
        place: &'a Place,
        bytes: Range<u64>,
        hole: bool,
    ) -> BoxFuture<'a, Result<Option<u64>, DataFailure>>;

    /// Writes bytes of a chunked file without carrying them through this process; answers as
    /// `write`.
    fn copy<'a>(
        &'a self,
        place: &'a Place,
        bytes: Range<u64>,
        source: CopySource,
    ) -> BoxFuture<'a, Result<Vec<(ChunkNumber, u64)>, DataFailure>>;
}

impl FileData for DataPath {
    fn write<'a>(
        &'a self,
        place: &'a Place,
        offset: u64,
        data: Bytes,
    ) -> BoxFuture<'a, Result<Vec<(ChunkNumber, u64)>, DataFailure>> {
        let Place { inode, chunk_bytes, truncates, deadline } = place;
        DataPath::write(self, *inode, offset, data, *chunk_bytes, truncates, *deadline).boxed()
    }

    fn read<'a>(
        &'a self,
        place: &'a Place,
        offset: u64,
        length: u64,
    ) -> BoxFuture<'a, Result<Bytes, DataFailure>> {
        let Place { inode, chunk_bytes, truncates, deadline } = place;
        DataPath::read(self, *inode, offset, length, *chunk_bytes, truncates, *deadline).boxed()
    }

    fn sync<'a>(
        &'a self,
        place: &'a Place,
        chunks: Range<ChunkNumber>,
    ) -> BoxFuture<'a, Result<(), DataFailure>> {
        let Place { inode, truncates, deadline, .. } = place;
        DataPath::sync(self, *inode, chunks, truncates, *deadline).boxed()
    }

    fn space<'a>(
        &'a self,
        place: &'a Place,
        bytes: Range<u64>,
        change: SpaceChange,
    ) -> BoxFuture<'a, Result<Vec<(ChunkNumber, u64)>, DataFailure>> {
        let Place { inode, chunk_bytes, truncates, deadline } = place;
        DataPath::space(self, *inode, bytes, change, *chunk_bytes, truncates, *deadline).boxed()
    }

    fn seek<'a>(
        &'a self,
        place: &'a Place,
        bytes: Range<u64>,
        hole: bool,
    ) -> BoxFuture<'a, Result<Option<u64>, DataFailure>> {
        let Place { inode, chunk_bytes, truncates, deadline } = place;
        DataPath::seek(self, *inode, bytes, hole, *chunk_bytes, truncates, *deadline).boxed()
    }

    fn copy<'a>(
        &'a self,
        place: &'a Place,
        bytes: Range<u64>,
        source: CopySource,
    ) -> BoxFuture<'a, Result<Vec<(ChunkNumber, u64)>, DataFailure>> {
        let Place { inode, chunk_bytes, truncates, deadline } = place;
        let copy = async move {
            DataPath::copy(self, *inode, bytes, &source, *chunk_bytes, truncates, *deadline).await
        };
        copy.boxed()
    }
}

/// A failure of the data path that no fresh attributes can cure, as a program sees it. `None`: the
/// file was cut since, take its attributes anew.
pub(crate) fn as_fs_error(failure: DataFailure) -> Option<FsError> {
    match failure {
        DataFailure::StaleTruncate { .. } => None,
        // The program hears of it, and whoever asks for the state of the cluster.
        failure @ DataFailure::NoSpace => Some(failure.fs_error()),
        failure => {
            tracing::warn!(%failure, "file data");
            Some(failure.fs_error())
        }
    }
}
