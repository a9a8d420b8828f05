//! Where a snapshot gathers before it is installed, and what makes an interrupted install safe.
//!
//! A snapshot that arrives is written block by block into a spool. Only when it is complete and its
//! checksum is right is it installed:
//!
//! 1. [`SpoolWriter::finish`]: everything is on disk.
//! 2. [`FinishedSpool::mark`]: the spool is now the group's truth. From here on the state may be
//!    half old, half new.
//! 3. [`crate::StateMachine::install`], then [`crate::StateMachine::flush`].
//! 4. [`SnapshotSpool::clear`].
//!
//! If the process ends between 2 and 4, the next start finds the mark and does 3 and 4 again before
//! the group does anything else. If it ends before 2, the leftovers are thrown away and the state
//! is untouched. Nothing is applied between 2 and 4, so doing it again loses nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use ministry_types::{GroupId, format::SNAPSHOT_FORMAT, limits};
use parking_lot::Mutex;

use crate::Applied;
use crate::errors::StateError;
use crate::state_machine::Blocks;

/// First bytes of a spool file.
const MAGIC: &[u8; 8] = b"ministry";
/// Bytes of what a snapshot says about itself; memberships are small.
const HEADER_BYTES_MAX: u32 = 1 << 20;

/// A complete snapshot in a spool.
pub struct SpooledSnapshot {
    /// How far it goes.
    pub applied: Applied,
    /// What it holds, verified as it is read.
    pub blocks: Blocks,
}

/// Receives one snapshot. Dropped before [`SpoolWriter::finish`], it leaves nothing that counts.
pub trait SpoolWriter: Send {
    /// Takes the next block.
    fn write(&mut self, block: &[u8]) -> io::Result<()>;

    /// Makes everything durable.
    fn finish(self: Box<Self>) -> io::Result<Box<dyn FinishedSpool>>;
}

/// A snapshot that is complete and durable, but does not count yet. Dropped without
/// [`FinishedSpool::mark`], it never does.
pub trait FinishedSpool: Send {
    /// Marks it as being installed, durably, in place of one that was marked before.
    fn mark(self: Box<Self>) -> io::Result<()>;
}

/// The spools of all groups of a node. The calls block.
pub trait SnapshotSpool: Send + Sync + 'static {
    /// Begins a spool for the group, beside others of it.
    fn begin(&self, group: GroupId, applied: &Applied) -> io::Result<Box<dyn SpoolWriter>>;

    /// The spool that is marked, if there is one.
    fn marked(&self, group: GroupId) -> io::Result<Option<SpooledSnapshot>>;

    /// Removes the spool that is marked.
    fn clear(&self, group: GroupId) -> io::Result<()>;
}

/// Spools as files in a folder: production.
pub struct FileSpool {
    folder: PathBuf,
    begun: AtomicU64,
}

impl FileSpool {
    /// Uses the folder, which it makes if need be, and removes what was left there without a
    /// mark. Blocks.
    pub fn open(folder: &Path) -> io::Result<FileSpool> {
        std::fs::create_dir_all(folder)?;
        for file in std::fs::read_dir(folder)? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "received") {
                remove(&path)?;
            }
        }
        Ok(FileSpool { folder: folder.to_owned(), begun: AtomicU64::new(0) })
    }

    fn installing(&self, group: GroupId) -> PathBuf {
        self.folder.join(format!("group-{group}.installing"))
    }
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// A spool file; removed when it is dropped.
struct SpoolFile {
    path: PathBuf,
    installing: PathBuf,
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::warn!(%error, "a spool file was left over until the next start");
        }
    }
}

impl FinishedSpool for SpoolFile {
    fn mark(self: Box<Self>) -> io::Result<()> {
        std::fs::rename(&self.path, &self.installing)?;
        sync_folder_of(&self.installing)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write_frame(file: &mut impl Write, block: &[u8]) -> io::Result<()> {
    let length = u32::try_from(block.len()).map_err(io::Error::other)?;
    file.write_all(&length.to_le_bytes())?;
    file.write_all(&crc32c::crc32c(block).to_le_bytes())?;
    file.write_all(block)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// The next frame; none where the empty one marks the end.
fn read_frame(file: &mut impl Read, bytes_max: u32) -> io::Result<Option<Bytes>> {
    let mut head = [0; 8];
    file.read_exact(&mut head)?;
    let (length, checksum) = head.split_at(4);
    let length = u32::from_le_bytes(length.try_into().map_err(|_| invalid("length"))?);
    if length > bytes_max {
        return Err(invalid("a block of a snapshot is too large"));
    }
    let mut block = vec![0; length as usize];
    file.read_exact(&mut block)?;
    if crc32c::crc32c(&block).to_le_bytes() != checksum {
        return Err(invalid("a block of a snapshot does not fit its checksum"));
    }
    Ok((!block.is_empty()).then(|| Bytes::from(block)))
}

struct FileWriter {
    file: BufWriter<File>,
    spool: SpoolFile,
}

impl SpoolWriter for FileWriter {
    fn write(&mut self, block: &[u8]) -> io::Result<()> {
        if block.is_empty() {
            return Ok(());
        }
        write_frame(&mut self.file, block)
    }

    fn finish(mut self: Box<Self>) -> io::Result<Box<dyn FinishedSpool>> {
        write_frame(&mut self.file, &[])?;
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        Ok(Box::new(self.spool))
    }
}

impl SnapshotSpool for FileSpool {
    fn begin(&self, group: GroupId, applied: &Applied) -> io::Result<Box<dyn SpoolWriter>> {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("group-{group}-{number}.received"));
        let mut file = BufWriter::new(File::create(&path)?);
        let spool = SpoolFile { path, installing: self.installing(group) };
        file.write_all(MAGIC)?;
        file.write_all(&[SNAPSHOT_FORMAT])?;
        write_frame(&mut file, &postcard::to_stdvec(applied).map_err(io::Error::other)?)?;
        Ok(Box::new(FileWriter { file, spool }))
    }

    fn marked(&self, group: GroupId) -> io::Result<Option<SpooledSnapshot>> {
        let file = match File::open(self.installing(group)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut file = BufReader::new(file);
        let mut head = [0; 9];
        file.read_exact(&mut head)?;
        if &head[..8] != MAGIC || head[8] != SNAPSHOT_FORMAT {
            return Err(invalid("a spooled snapshot has an unknown format"));
        }
        let header = read_frame(&mut file, HEADER_BYTES_MAX)?;
        let header = header.ok_or_else(|| invalid("a spooled snapshot has no header"))?;
        let applied = postcard::from_bytes(&header).map_err(|error| invalid(&error.to_string()))?;
        let mut ended = false;
        let blocks = std::iter::from_fn(move || {
            if ended {
                return None;
            }
            let block = read_frame(&mut file, limits::SNAPSHOT_BLOCK_BYTES as u32).transpose();
            ended = !matches!(block, Some(Ok(_)));
            block.map(|block| block.map_err(|error| StateError(error.to_string())))
        });
        Ok(Some(SpooledSnapshot { applied, blocks: Box::new(blocks) }))
    }

    fn clear(&self, group: GroupId) -> io::Result<()> {
        let installing = self.installing(group);
        remove(&installing)?;
        sync_folder_of(&installing)
    }
}

/// Spools in memory: simulation. Clones share them; what is marked outlives the node's crashes, as
/// a file would.
#[derive(Clone, Default)]
pub struct MemorySpool {
    marked: Arc<Mutex<BTreeMap<GroupId, Spooled>>>,
}

#[derive(Clone)]
struct Spooled {
    applied: Applied,
    blocks: Vec<Bytes>,
}

struct MemoryWriter {
    group: GroupId,
    spooled: Spooled,
    spool: MemorySpool,
}

impl SpoolWriter for MemoryWriter {
    fn write(&mut self, block: &[u8]) -> io::Result<()> {
        self.spooled.blocks.push(Bytes::copy_from_slice(block));
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<Box<dyn FinishedSpool>> {
        Ok(self)
    }
}

impl FinishedSpool for MemoryWriter {
    fn mark(self: Box<Self>) -> io::Result<()> {
        self.spool.marked.lock().insert(self.group, self.spooled);
        Ok(())
    }
}

impl SnapshotSpool for MemorySpool {
    fn begin(&self, group: GroupId, applied: &Applied) -> io::Result<Box<dyn SpoolWriter>> {
        let spooled = Spooled { applied: applied.clone(), blocks: Vec::new() };
        Ok(Box::new(MemoryWriter { group, spooled, spool: self.clone() }))
    }

    fn marked(&self, group: GroupId) -> io::Result<Option<SpooledSnapshot>> {
        let marked = self.marked.lock().get(&group).cloned();
        Ok(marked.map(|spooled| SpooledSnapshot {
            applied: spooled.applied,
            blocks: Box::new(spooled.blocks.into_iter().map(Ok)),
        }))
    }

    fn clear(&self, group: GroupId) -> io::Result<()> {
        self.marked.lock().remove(&group);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(3);

    fn blocks(spool: &dyn SnapshotSpool) -> Option<Vec<Bytes>> {
        let marked = spool.marked(GROUP).unwrap()?;
        Some(marked.blocks.collect::<Result<_, _>>().unwrap())
    }

    fn goes_through_its_steps(spool: &dyn SnapshotSpool) {
        let mut writer = spool.begin(GROUP, &Applied::default()).unwrap();
        writer.write(b"one").unwrap();
        writer.write(b"two").unwrap();
        assert!(spool.marked(GROUP).unwrap().is_none());
        let mut other = spool.begin(GROUP, &Applied::default()).unwrap();
        other.write(b"other").unwrap();
        let finished = writer.finish().unwrap();
        assert!(spool.marked(GROUP).unwrap().is_none());
        finished.mark().unwrap();
        drop(other.finish().unwrap());
        assert_eq!(blocks(spool).unwrap(), ["one", "two"].map(Bytes::from));
        assert_eq!(blocks(spool).unwrap().len(), 2, "it can be read again");
        spool.clear(GROUP).unwrap();
        assert!(spool.marked(GROUP).unwrap().is_none());
    }

    #[test]
    fn a_spool_counts_only_from_its_mark_on() {
        let folder = tempfile::tempdir().unwrap();
        goes_through_its_steps(&FileSpool::open(folder.path()).unwrap());
        goes_through_its_steps(&MemorySpool::default());
    }

    #[test]
    fn a_damaged_or_short_spool_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let spool = FileSpool::open(folder.path()).unwrap();
        let mut writer = spool.begin(GROUP, &Applied::default()).unwrap();
        writer.write(&[7; 1000]).unwrap();
        writer.finish().unwrap().mark().unwrap();
        let path = spool.installing(GROUP);
        let good = std::fs::read(&path).unwrap();
        for length in [good.len() - 1, good.len() - 8, good.len() - 500] {
            std::fs::write(&path, &good[..length]).unwrap();
            assert!(spool.marked(GROUP).unwrap().unwrap().blocks.any(|block| block.is_err()));
        }
        let mut damaged = good.clone();
        damaged[good.len() - 100] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        assert!(spool.marked(GROUP).unwrap().unwrap().blocks.any(|block| block.is_err()));
    }
}
