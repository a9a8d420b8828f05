//! The data of files on one machine.
//!
//! One sparse, ordinary file for each inode, with its chunks at their natural offsets, and beside
//! it a sparse file with a CRC-32C for each 4 KiB block:
//!
//! ```text
//! objects/ab/cd/<inode>.data    the bytes
//! objects/ab/cd/<inode>.sum     header (magic, format, number of the last cut), then the checksums
//! intents                       regions whose checksums may be behind (see the intents module)
//! tombstones                    inodes that were purged
//! ```
//!
//! The storekeeper of a node calls it from blocking threads; calls on one inode may be concurrent,
//! their order is the caller's. [`ChunkStore::maintain`] is to be called every few seconds.
//!
//! **Guaranteed.** Bytes that do not fit their checksum are never served. What was acknowledged
//! before [`ChunkStore::sync`] of its inode began is there after a loss of power, when `sync` has
//! returned. A cut that [`ChunkStore::truncate`] confirmed stays made, and older senders stay
//! refused. A purge that was confirmed stays; late writes are refused. After an unclean stop no
//! block is reported damaged because of the stop.
//!
//! **Not guaranteed.** A write that was not synced may be lost, whole or in part, down to a sector
//! (it never was confirmed by a sync). In the regions that the intent log names at an unclean
//! stop, what the disk holds is taken for good: damage that happened there since the last
//! [`ChunkStore::maintain`] is not noticed by this node alone; [`ChunkStore::recovered`] says
//! which regions to level with the master.
//!
//! **When it fails.** A failed sync, or a failure that leaves bytes and checksums apart, is
//! [`ChunkError::Fatal`]: every later call answers the same, and the process is to end. No sync is
//! ever tried again; the next process writes anew what the kernel may only pretend to have (see the
//! recovery module). A full disk is [`ChunkError::NoSpace`]: what was there stays, or is new up to
//! some byte.

mod block_files;
mod checksums;
mod intents;
mod object;
mod record_log;
mod recovery;
mod space;
#[cfg(test)]
mod tests;
mod tombstones;

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use ministry_types::layout::cut_due;
use ministry_types::limits::{BLOCK_BYTES, FILE_BYTES_MAX};
use ministry_types::{ChunkNumber, InodeId, TruncateMark};
use parking_lot::{Mutex, RwLockReadGuard, RwLockWriteGuard};

use crate::disk::{Disk, Usage};
use block_files::BlockFiles;
use checksums::BLOCK;
use intents::{IntentGuard, Intents};
pub use intents::{REGION_BYTES, Regions};
use object::{Object, ObjectState, Objects, Scope, folder_parts, folder_path, object_path};
pub use recovery::Recovered;
pub use space::Searched;
use tombstones::Tombstones;

/// Bytes of one read or write; far above a frame.
const REQUEST_BYTES_MAX: usize = 16 << 20;
/// Inodes with intents at which writers do the maintenance themselves.
const INTENT_INODES_MAX: usize = 65_536;

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The sender does not know of a cut that was made here.
    #[error("the file was cut since (cut {current})")]
    StaleTruncate {
        /// Number of the newest cut here.
        current: u64,
    },
    /// The inode was removed for good.
    #[error("the inode was removed")]
    Purged,
    /// The bytes do not fit the checksums that came with them. Nothing was written.
    #[error("the bytes do not fit the checksums that came with them")]
    ChecksumMismatch,
    /// The stored bytes do not fit their checksum, and are not served.
    #[error("block {block} is damaged")]
    Damaged {
        /// Number of the 4 KiB block in its file.
        block: u64,
    },
    /// No room. A beginning of the bytes may be written; nothing else was changed.
    #[error("no space left on the disk")]
    NoSpace,
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A file of the store itself cannot be used.
    #[error("the data folder is damaged: {0}")]
    DamagedStore(String),
    /// The disk refused something other than a sync.
    #[error("the disk failed: {0}")]
    Io(String),
    /// What is on the disk is unknown. The process is to end; a restart makes it known.
    #[error("the disk failed for good: {0}")]
    Fatal(String),
}

impl ChunkError {
    fn io(action: &str, path: &str, error: &io::Error) -> ChunkError {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => ChunkError::NoSpace,
            Some(libc::EFBIG) => {
                ChunkError::Invalid(format!("{path} would be larger than the disk allows"))
            }
            _ => ChunkError::Io(format!("cannot {action} {path}: {error}")),
        }
    }

    fn from_io<'a>(
        action: &'a str,
        path: &'a str,
    ) -> impl FnOnce(io::Error) -> ChunkError + use<'a> {
        move |error| ChunkError::io(action, path, &error)
    }

    fn sync(path: &str, error: &io::Error) -> ChunkError {
        ChunkError::Fatal(format!("cannot sync {path}: {error}"))
    }

    /// For failures that leave bytes and checksums apart.
    fn into_fatal(self) -> ChunkError {
        match self {
            ChunkError::Fatal(_) => self,
            other => ChunkError::Fatal(other.to_string()),
        }
    }
}

/// How a store is set up.
#[derive(Debug, Clone, Copy)]
pub struct ChunkStoreOptions {
    /// Inodes whose two files are kept open.
    pub open_inodes_max: usize,
}

impl Default for ChunkStoreOptions {
    /// A quarter of the files that the process may open, at most 1,024.
    fn default() -> ChunkStoreOptions {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let files = limit.map_or(4096, |limit| limit.min(4096)) as usize;
        ChunkStoreOptions { open_inodes_max: (files / 8).clamp(16, 1024) }
    }
}

/// A write was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Bytes in blocks that were holes before. [`ChunkStore::allocated`] is cheap after it.
    pub newly_allocated: u64,
}

/// What a read found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadOut {
    /// As many bytes as were asked for; holes and what lies behind the end are zeros.
    pub data: Bytes,
    /// CRC-32C of each part of `data`, cut at multiples of 4 KiB of the file.
    pub checksums: Vec<u32>,
}

/// See the module.
#[derive(Debug)]
pub struct ChunkStore {
    disk: Arc<dyn Disk>,
    intents: Intents,
    tombstones: Tombstones,
    objects: Objects,
    /// Folders that are known to be durable.
    folders: Mutex<BTreeSet<(u8, u8)>>,
    maintenance: Mutex<()>,
    failed: OnceLock<ChunkError>,
    recovered: Vec<Recovered>,
}

impl ChunkStore {
    /// Opens the store on a disk, made if it is empty. After an unclean stop this reads the
    /// regions that were being written.
    pub fn open(disk: Arc<dyn Disk>, options: ChunkStoreOptions) -> Result<ChunkStore, ChunkError> {
        disk.create_dir("objects").map_err(ChunkError::from_io("make", "objects"))?;
        disk.sync_dir("").map_err(|error| ChunkError::sync("the data folder", &error))?;
        let in_doubt = recovery::is_in_doubt(&*disk)?;
        let tombstones = Tombstones::open(Arc::clone(&disk), in_doubt)?;
        let (intents, left) = Intents::open(Arc::clone(&disk))?;
        let recovered = recovery::recover(&*disk, &tombstones, left, in_doubt)?;
        intents.shorten()?;
        if in_doubt {
            recovery::end_doubt(&*disk)?;
        }
        Ok(ChunkStore {
            disk,
            intents,
            tombstones,
            objects: Objects::new(options.open_inodes_max),
            folders: Mutex::default(),
            maintenance: Mutex::default(),
            failed: OnceLock::new(),
            recovered,
        })
    }

    /// What [`ChunkStore::open`] made anew after an unclean stop.
    pub fn recovered(&self) -> &[Recovered] {
        &self.recovered
    }

    /// Writes bytes, after making the cuts that are due. `block_checksums`, if given, has a
    /// CRC-32C for each part of `data` cut at multiples of 4 KiB of the file.
    pub fn write(
        &self,
        inode: InodeId,
        offset: u64,
        data: &[u8],
        block_checksums: Option<&[u32]>,
        truncates: &[TruncateMark],
    ) -> Result<Written, ChunkError> {
        self.watched(|| {
            check_range(offset, data.len())?;
            self.refuse_purged(inode)?;
            let object = self.objects.get(&*self.disk, inode)?;
            self.refuse_when_full(&object)?;
            let wanted = Regions::of_bytes(offset, data.len() as u64);
            // Before the lock, so that readers do not wait for the log. It ends after the lock.
            let _intent = self.begin_write(inode, wanted)?;
            let mut state = object.state.write();
            self.load(&object, &mut state, true)?;
            self.settle(&object, &mut state, truncates)?;
            let Some(files) = &mut state.files else {
                unreachable!("loading with `create` opens the files");
            };
            if data.is_empty() {
                return Ok(Written { newly_allocated: 0 });
            }
            let result = files.write(&*self.disk, offset, data, block_checksums);
            // Also after a failure: a part may be written.
            object.changed();
            let newly_allocated = result? * BLOCK;
            let to_write_out = files.streamed(offset, data.len() as u64);
            drop(state);
            if let Some(part) = to_write_out {
                part.start();
            }
            metrics::counter!("ministry_storage_write_bytes_total").increment(data.len() as u64);
            Ok(Written { newly_allocated })
        })
    }

    /// Reads bytes, after making the cuts that are due, and verifies every block.
    pub fn read(
        &self,
        inode: InodeId,
        offset: u64,
        length: usize,
        truncates: &[TruncateMark],
    ) -> Result<ReadOut, ChunkError> {
        self.watched(|| {
            check_range(offset, length)?;
            self.refuse_purged(inode)?;
            let object = self.objects.get(&*self.disk, inode)?;
            let state = self.settled(&object, truncates)?;
            let out = match &state.files {
                _ if length == 0 => ReadOut { data: Bytes::new(), checksums: Vec::new() },
                Some(files) => {
                    let end = (offset + length as u64).div_ceil(BLOCK);
                    let verified = files.read(offset / BLOCK, end)?;
                    drop(state);
                    let (data, checksums) = verified.part(offset, length);
                    ReadOut { data, checksums }
                }
                None => zeros(offset, length),
            };
            metrics::counter!("ministry_storage_read_bytes_total").increment(length as u64);
            Ok(out)
        })
    }

    /// Makes the cuts that are due; they and their number are durable when it returns. The number
    /// is recorded also where there is nothing to cut, so that older senders are refused.
    pub fn truncate(&self, inode: InodeId, truncates: &[TruncateMark]) -> Result<(), ChunkError> {
        self.watched(|| {
            self.refuse_purged(inode)?;
            let object = self.objects.get(&*self.disk, inode)?;
            {
                let mut state = object.state.write();
                self.load(&object, &mut state, newest(truncates) > 0)?;
                self.settle(&object, &mut state, truncates)?;
            }
            self.timed_sync(&object, Scope::Header)
        })
    }

    /// Makes every write to the inode that returned before durable.
    pub fn sync(&self, inode: InodeId) -> Result<(), ChunkError> {
        self.watched(|| {
            self.refuse_purged(inode)?;
            // An inode that is not held has nothing to sync: it leaves only when it is synced.
            match self.objects.peek(inode) {
                Some(object) => self.timed_sync(&object, Scope::Bytes),
                None => Ok(()),
            }
        })
    }

    /// Removes the inode's data for good; late writes are refused from now on. May be repeated.
    pub fn purge(&self, inode: InodeId) -> Result<(), ChunkError> {
        self.watched(|| {
            let object = self.objects.get(&*self.disk, inode)?;
            let mut state = object.state.write();
            // First: nothing may come back after the files are gone.
            let again = self.tombstones.contains(inode);
            if let Err(error) = self.tombstones.insert(inode) {
                if error != ChunkError::NoSpace {
                    return Err(error);
                }
                // Its own blocks make room for the record. Nobody may come in between, and nobody
                // asks for these bytes again, whatever becomes of the record.
                *state = ObjectState::default();
                self.empty_files(inode)?;
                self.tombstones.insert(inode)?;
            }
            *state = ObjectState { loaded: true, files: None, purged: true };
            let path = object_path(inode);
            let mut removed = false;
            for ending in ["data", "sum"] {
                let path = format!("{path}.{ending}");
                removed |= self.disk.remove(&path).map_err(ChunkError::from_io("remove", &path))?;
            }
            let folder = folder_path(inode);
            let exists = self.disk.exists(&folder);
            let exists = exists.map_err(ChunkError::from_io("look for", &folder))?;
            // The one before may have been cut short between the removal and this.
            if removed || (again && exists) {
                self.disk.sync_dir(&folder).map_err(|error| ChunkError::sync(&folder, &error))?;
            }
            self.intents.forget(inode);
            Ok(())
        })
    }

    /// Gives up what the files of an inode hold.
    fn empty_files(&self, inode: InodeId) -> Result<(), ChunkError> {
        for ending in ["data", "sum"] {
            let path = format!("{}.{ending}", object_path(inode));
            let file = self.disk.open(&path, false).map_err(ChunkError::from_io("open", &path))?;
            if let Some(file) = file {
                file.set_size(0).map_err(ChunkError::from_io("cut", &path))?;
            }
        }
        Ok(())
    }

    /// Refuses what would need a first block of an inode for which the disk has no room, before
    /// files are made for it.
    fn refuse_when_full(&self, object: &Object) -> Result<(), ChunkError> {
        if object.state.read().files.is_some() {
            return Ok(());
        }
        let path = format!("{}.data", object_path(object.inode));
        let room = self.disk.claim_room(BLOCK).map_err(ChunkError::from_io("find room for", &path));
        if room?.is_some() {
            return Ok(());
        }
        match self.disk.exists(&path).map_err(ChunkError::from_io("look for", &path))? {
            true => Ok(()),
            false => Err(ChunkError::NoSpace),
        }
    }

    /// Bytes in 4 KiB blocks of a chunk that have data.
    pub fn allocated(
        &self,
        inode: InodeId,
        chunk: ChunkNumber,
        chunk_bytes: u64,
    ) -> Result<u64, ChunkError> {
        self.watched(|| {
            if chunk_bytes == 0 || !chunk_bytes.is_multiple_of(BLOCK) {
                return Err(ChunkError::Invalid(format!(
                    "a chunk of {chunk_bytes} bytes is not a number of {BLOCK_BYTES}-byte blocks"
                )));
            }
            self.refuse_purged(inode)?;
            let object = self.objects.get(&*self.disk, inode)?;
            if !object.state.read().loaded {
                self.load(&object, &mut object.state.write(), false)?;
            }
            let state = object.state.read();
            state.files.as_ref().map_or(Ok(0), |files| files.allocated(chunk, chunk_bytes))
        })
    }

    /// Whether the inode was purged here.
    pub fn is_purged(&self, inode: InodeId) -> bool {
        self.tombstones.contains(inode)
    }

    /// Room on the disk below.
    pub fn usage(&self) -> Result<Usage, ChunkError> {
        self.disk.usage().map_err(ChunkError::from_io("ask the room of", "the data folder"))
    }

    /// All inodes that have files here, in no order that means anything.
    pub fn inodes(&self) -> Result<Vec<InodeId>, ChunkError> {
        let list = |path: &str| self.disk.list(path).map_err(ChunkError::from_io("list", path));
        let mut found = Vec::new();
        for high in list("objects")? {
            for low in list(&format!("objects/{high}"))? {
                for name in list(&format!("objects/{high}/{low}"))? {
                    let number = name.strip_suffix(".sum").map(|n| u64::from_str_radix(n, 16));
                    if let Some(Ok(number)) = number {
                        found.push(InodeId(number));
                    }
                }
            }
        }
        Ok(found)
    }

    /// Syncs what was written some time ago and drops its intents. Called every few seconds: what
    /// is older than two calls need not be read again after an unclean stop.
    pub fn maintain(&self) -> Result<(), ChunkError> {
        self.watched(|| {
            let Some(_one) = self.maintenance.try_lock() else { return Ok(()) };
            for inode in self.intents.ready() {
                let object = self.objects.get(&*self.disk, inode)?;
                self.timed_sync(&object, Scope::All)?;
                self.intents.drop_old(inode);
            }
            self.intents.rotate();
            self.intents.shorten()?;
            metrics::gauge!("ministry_storage_intents").set(self.intents.inodes() as f64);
            Ok(())
        })
    }

    /// Syncs everything and leaves no intents, so that the next start has nothing to read. Called
    /// when no other call is under way; the store is not used after it.
    pub fn close(&self) -> Result<(), ChunkError> {
        for object in self.objects.unclean() {
            self.watched(|| self.timed_sync(&object, Scope::All))?;
        }
        // What is new is set aside by the first, and dropped by the second.
        self.maintain()?;
        self.maintain()
    }

    /// Runs a call, unless the store failed; notes it when it fails for good.
    fn watched<T>(&self, call: impl FnOnce() -> Result<T, ChunkError>) -> Result<T, ChunkError> {
        if let Some(failed) = self.failed.get() {
            return Err(failed.clone());
        }
        let result = call();
        match &result {
            Err(error @ ChunkError::Fatal(_)) => {
                tracing::error!(%error, "the chunk store can go on no more");
                if self.failed.set(error.clone()).is_ok() {
                    recovery::leave_doubt(&*self.disk);
                }
            }
            Err(ChunkError::Damaged { block }) => {
                metrics::counter!("ministry_storage_damaged_blocks_total").increment(1);
                tracing::error!(block, "a damaged block was found and is not served");
            }
            _ => {}
        }
        result
    }

    fn refuse_purged(&self, inode: InodeId) -> Result<(), ChunkError> {
        if self.tombstones.contains(inode) { Err(ChunkError::Purged) } else { Ok(()) }
    }

    fn begin_write(&self, inode: InodeId, wanted: Regions) -> Result<IntentGuard<'_>, ChunkError> {
        if self.intents.inodes() > INTENT_INODES_MAX {
            self.maintain()?;
        }
        self.intents.begin(inode, wanted)
    }

    /// Opens the inode's files, if there are some or `create` is set.
    fn load(
        &self,
        object: &Object,
        state: &mut ObjectState,
        create: bool,
    ) -> Result<(), ChunkError> {
        if state.purged || self.tombstones.contains(object.inode) {
            return Err(ChunkError::Purged);
        }
        if state.files.is_some() || (state.loaded && !create) {
            return Ok(());
        }
        if create {
            self.make_folder(object.inode)?;
        }
        let opened = BlockFiles::open(&*self.disk, &object_path(object.inode), create);
        match &opened {
            Ok(Some((files, false))) => {
                let known = self.folders.lock().contains(&folder_parts(object.inode));
                object.found(files.truncate_sequence() > 0, known);
            }
            Ok(None) => {}
            // Also where only one of the two files was made.
            Ok(Some((_, true))) | Err(_) => object.made(),
        }
        state.files = opened?.map(|(files, _)| files);
        state.loaded = true;
        Ok(())
    }

    /// Makes the folder of an inode's files, durably: once in the life of the process, also if it
    /// is there, since the process before may have died before its syncs. From then on the names
    /// in it that are older than this process are durable too.
    fn make_folder(&self, inode: InodeId) -> Result<(), ChunkError> {
        let parts = folder_parts(inode);
        let mut folders = self.folders.lock();
        if folders.contains(&parts) {
            return Ok(());
        }
        let sync =
            |path: &str| self.disk.sync_dir(path).map_err(|error| ChunkError::sync(path, &error));
        let (upper, folder) = (format!("objects/{:02x}", parts.0), folder_path(inode));
        for (folder, parent) in [(&*upper, "objects"), (&*folder, &*upper)] {
            self.disk.create_dir(folder).map_err(ChunkError::from_io("make", folder))?;
            sync(parent)?;
        }
        sync(&folder)?;
        folders.insert(parts);
        Ok(())
    }

    /// Refuses a sender that does not know the last cut, and makes the cuts that are due.
    fn settle(
        &self,
        object: &Object,
        state: &mut ObjectState,
        truncates: &[TruncateMark],
    ) -> Result<(), ChunkError> {
        let Some(files) = &mut state.files else { return Ok(()) };
        let current = files.truncate_sequence();
        if newest(truncates) < current {
            return Err(ChunkError::StaleTruncate { current });
        }
        let Some(cut) = cut_due(current, truncates) else { return Ok(()) };
        let end = files.end()?;
        let _intent = if files.reaches_beyond(cut.size)? {
            let wanted = Regions::of_bytes(cut.size, end.saturating_sub(cut.size));
            // Not by `begin_write`: maintenance takes locks of inodes, and one is held here.
            Some(self.intents.begin(object.inode, wanted)?)
        } else {
            None
        };
        let result = object.in_turn(|| files.cut(cut.size, cut.sequence));
        object.header_changed();
        result
    }

    /// The state of an inode to read from, with the cuts made that are due.
    fn settled<'a>(
        &self,
        object: &'a Object,
        truncates: &[TruncateMark],
    ) -> Result<RwLockReadGuard<'a, ObjectState>, ChunkError> {
        let mut state = object.state.read();
        let sequence = state.files.as_ref().map_or(0, |files| files.truncate_sequence());
        if !state.loaded || newest(truncates) != sequence {
            drop(state);
            let mut exclusive = object.state.write();
            self.load(object, &mut exclusive, false)?;
            self.settle(object, &mut exclusive, truncates)?;
            state = RwLockWriteGuard::downgrade(exclusive);
        }
        if state.purged { Err(ChunkError::Purged) } else { Ok(state) }
    }

    fn timed_sync(&self, object: &Object, scope: Scope) -> Result<(), ChunkError> {
        let begun = Instant::now();
        let result = object.sync(&*self.disk, scope);
        metrics::histogram!("ministry_storage_sync_seconds").record(begun.elapsed());
        result
    }
}

fn newest(truncates: &[TruncateMark]) -> u64 {
    truncates.iter().map(|mark| mark.sequence).max().unwrap_or(0)
}

fn check_range(offset: u64, length: usize) -> Result<(), ChunkError> {
    if length > REQUEST_BYTES_MAX {
        return Err(ChunkError::Invalid(format!("{length} bytes are too many at once")));
    }
    match offset.checked_add(length as u64) {
        Some(end) if end <= FILE_BYTES_MAX => Ok(()),
        _ => Err(ChunkError::Invalid(format!("no file has {length} bytes at {offset}"))),
    }
}

fn zeros(offset: u64, length: usize) -> ReadOut {
    let data = vec![0; length];
    let checksums = checksums::parts(offset, &data).map(crc32c::crc32c).collect();
    ReadOut { data: Bytes::from(data), checksums }
}
