//! One inode in use, and the bounded set of those that are.
//!
//! An [`Object`] is the lock of its inode and what is known about it: whether its files are open,
//! which cut was the last, what was written since the last sync. [`Objects`] keeps those that were
//! used last, with their two open files each.
//!
//! What must always hold: there is one [`Object`] of an inode at a time; one with anything that is
//! not synced never leaves the set, for the next one would believe that it is.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ministry_types::InodeId;
use parking_lot::{Mutex, RwLock};

use super::ChunkError;
use super::block_files::{BlockFiles, OpenFiles};
use crate::disk::Disk;

/// Entries that are looked at to find one that can leave without a sync.
const EVICTION_SCAN: usize = 32;
/// Entries that may leave for each one that comes, so that a set above its bound shrinks.
const EVICTIONS_PER_USE: usize = 2;

/// The folder of an inode's files: 256 neighbours share one, so that a directory's worth of new
/// files needs few syncs of folders.
pub(super) fn folder_parts(inode: InodeId) -> (u8, u8) {
    let [_, _, _, _, _, high, low, _] = inode.0.to_be_bytes();
    (high, low)
}

/// The folder of an inode's files.
pub(super) fn folder_path(inode: InodeId) -> String {
    let (high, low) = folder_parts(inode);
    format!("objects/{high:02x}/{low:02x}")
}

/// The path of an inode's files, without their ending.
pub(super) fn object_path(inode: InodeId) -> String {
    format!("{}/{:016x}", folder_path(inode), inode.0)
}

/// See the module.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) inode: InodeId,
    pub(super) state: RwLock<ObjectState>,
    /// Counts what was done to the files; raised after it was done, under the lock.
    written: AtomicU64,
    /// The value of `written` that the last sync of the bytes covered.
    data_synced: AtomicU64,
    /// The value of `written` that the last sync of everything covered.
    all_synced: AtomicU64,
    /// The same for the header of the checksum file, which says the last cut.
    header_written: AtomicU64,
    header_synced: AtomicU64,
    /// The names of the files are durable.
    names_synced: AtomicBool,
    /// Those who sync one inode at once share a sync. Guards why a sync failed: the kernel tells
    /// it to one caller only, and tells the next that all is well.
    turn: Mutex<Option<ChunkError>>,
}

/// What the lock of an inode guards.
#[derive(Debug, Default)]
pub(super) struct ObjectState {
    /// Whether the files were looked for.
    pub(super) loaded: bool,
    /// `None`: there are none.
    pub(super) files: Option<BlockFiles>,
    /// The inode is gone for good.
    pub(super) purged: bool,
}

/// What a sync covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// The number of the last cut, and the names of the files.
    Header,
    /// That, and the bytes.
    Bytes,
    /// That, and the checksums.
    All,
}

impl Object {
    fn new(inode: InodeId) -> Object {
        Object {
            inode,
            state: RwLock::default(),
            written: AtomicU64::new(0),
            data_synced: AtomicU64::new(0),
            all_synced: AtomicU64::new(0),
            header_written: AtomicU64::new(0),
            header_synced: AtomicU64::new(0),
            names_synced: AtomicBool::new(true),
            turn: Mutex::default(),
        }
    }

    /// Notes that the files were changed. Called with the lock held.
    pub(super) fn changed(&self) {
        self.written.fetch_add(1, Ordering::AcqRel);
    }

    /// Notes that the number of the last cut was changed. Called with the lock held.
    pub(super) fn header_changed(&self) {
        self.header_written.fetch_add(1, Ordering::AcqRel);
        self.changed();
    }

    /// Notes that a file was, or is about to be, made.
    pub(super) fn made(&self) {
        self.names_synced.store(false, Ordering::Release);
        self.changed();
    }

    /// Notes what was found when existing files were opened: the process before may have ended
    /// before it synced the number of the last cut or the names. Only a sync of this inode has to
    /// see to that; an object that leaves unsynced is found the same when it comes back.
    pub(super) fn found(&self, was_cut: bool, names_synced: bool) {
        if was_cut {
            self.header_written.fetch_add(1, Ordering::AcqRel);
        }
        self.names_synced.fetch_and(names_synced, Ordering::AcqRel);
    }

    /// Nothing that this process did waits for a sync.
    pub(super) fn is_clean(&self) -> bool {
        !self.is_due(Scope::All)
    }

    fn is_due(&self, scope: Scope) -> bool {
        let written = self.written.load(Ordering::Acquire);
        let header = self.header_synced.load(Ordering::Acquire)
            < self.header_written.load(Ordering::Acquire)
            || !self.names_synced.load(Ordering::Acquire);
        match scope {
            Scope::Header => header,
            Scope::Bytes => header || self.data_synced.load(Ordering::Acquire) < written,
            Scope::All => self.all_synced.load(Ordering::Acquire) < written,
        }
    }

    /// Makes what was done before the call durable.
    pub(super) fn sync(&self, disk: &dyn Disk, scope: Scope) -> Result<(), ChunkError> {
        if !self.is_due(scope) {
            return Ok(());
        }
        // Handles of their own, so that writers do not wait for the disk behind this lock; and
        // before the turn, since a cut takes its turn with the lock held.
        let files = self.state.read().files.as_ref().map(BlockFiles::handles);
        self.in_turn(|| match files {
            // What those before in the turn covered need not be synced again.
            Some(files) if self.is_due(scope) => self.sync_files(disk, scope, &files),
            Some(_) => Ok(()),
            // Never written, or purged.
            None => {
                let written = self.written.load(Ordering::Acquire);
                self.data_synced.fetch_max(written, Ordering::AcqRel);
                self.all_synced.fetch_max(written, Ordering::AcqRel);
                self.names_synced.store(true, Ordering::Release);
                Ok(())
            }
        })
    }

    /// Does something that syncs files of this inode, one at a time, and never again after a
    /// failure.
    pub(super) fn in_turn<T>(
        &self,
        action: impl FnOnce() -> Result<T, ChunkError>,
    ) -> Result<T, ChunkError> {
        let mut turn = self.turn.lock();
        if let Some(failed) = &*turn {
            return Err(failed.clone());
        }
        let result = action();
        if let Err(error @ ChunkError::Fatal(_)) = &result {
            *turn = Some(error.clone());
        }
        result
    }

    fn sync_files(
        &self,
        disk: &dyn Disk,
        scope: Scope,
        files: &OpenFiles,
    ) -> Result<(), ChunkError> {
        // Read before the syncs: what comes while they run may not be covered.
        let written = self.written.load(Ordering::Acquire);
        let header = self.header_written.load(Ordering::Acquire);
        let names_synced = self.names_synced.load(Ordering::Acquire);
        if scope != Scope::Header && self.data_synced.load(Ordering::Acquire) < written {
            files.sync_data()?;
            self.data_synced.fetch_max(written, Ordering::AcqRel);
        }
        let header_due = self.header_synced.load(Ordering::Acquire) < header;
        if header_due {
            files.touch_header()?;
        }
        if scope == Scope::All || header_due {
            files.sync_sums()?;
            self.header_synced.fetch_max(header, Ordering::AcqRel);
        }
        if !names_synced {
            let folder = folder_path(self.inode);
            disk.sync_dir(&folder).map_err(|error| ChunkError::sync(&folder, &error))?;
            self.names_synced.store(true, Ordering::Release);
        }
        if scope == Scope::All {
            self.all_synced.fetch_max(written, Ordering::AcqRel);
        }
        Ok(())
    }
}

/// The objects that were used last.
#[derive(Debug)]
pub(super) struct Objects {
    capacity: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    by_inode: HashMap<InodeId, (Arc<Object>, u64)>,
    by_age: BTreeMap<u64, InodeId>,
    age: u64,
}

impl Held {
    fn take_out(&mut self, inode: InodeId) {
        if let Some((_, age)) = self.by_inode.remove(&inode) {
            self.by_age.remove(&age);
        }
    }

    /// An object that nobody uses: a clean one if there is one among the oldest.
    fn victim(&self) -> Option<Arc<Object>> {
        let idle = |inode: &InodeId| {
            let (object, _) = self.by_inode.get(inode)?;
            (Arc::strong_count(object) == 1).then_some(object)
        };
        let mut oldest = self.by_age.values().take(EVICTION_SCAN).filter_map(idle);
        let first = oldest.clone().next()?;
        Some(Arc::clone(oldest.find(|object| object.is_clean()).unwrap_or(first)))
    }
}

impl Objects {
    /// A set that keeps about `capacity` objects; those in use or not yet synced may exceed it.
    pub(super) fn new(capacity: usize) -> Objects {
        Objects { capacity: capacity.max(1), held: Mutex::default() }
    }

    /// The object of an inode, and room for it.
    pub(super) fn get(&self, disk: &dyn Disk, inode: InodeId) -> Result<Arc<Object>, ChunkError> {
        let object = {
            let mut held = self.held.lock();
            let held = &mut *held;
            held.age += 1;
            let age = held.age;
            let (object, used) =
                held.by_inode.entry(inode).or_insert_with(|| (Arc::new(Object::new(inode)), age));
            held.by_age.remove(used);
            *used = age;
            held.by_age.insert(age, inode);
            Arc::clone(object)
        };
        self.make_room(disk)?;
        Ok(object)
    }

    /// The object of an inode, if it was used lately. One that was not has nothing to sync.
    pub(super) fn peek(&self, inode: InodeId) -> Option<Arc<Object>> {
        self.held.lock().by_inode.get(&inode).map(|(object, _)| Arc::clone(object))
    }

    /// All objects that wait for a sync.
    pub(super) fn unclean(&self) -> Vec<Arc<Object>> {
        let held = self.held.lock();
        let objects = held.by_age.values().filter_map(|inode| held.by_inode.get(inode));
        objects.map(|(object, _)| Arc::clone(object)).filter(|object| !object.is_clean()).collect()
    }

    fn make_room(&self, disk: &dyn Disk) -> Result<(), ChunkError> {
        for _ in 0..EVICTIONS_PER_USE {
            let victim = {
                let held = self.held.lock();
                if held.by_inode.len() <= self.capacity {
                    return Ok(());
                }
                match held.victim() {
                    Some(victim) => victim,
                    None => return Ok(()),
                }
            };
            // It stays in the set meanwhile, so that nobody takes it for synced.
            victim.sync(disk, Scope::All)?;
            let mut held = self.held.lock();
            // Nobody but the set and this function has it, and none can get it now.
            if Arc::strong_count(&victim) == 2 && victim.is_clean() {
                held.take_out(victim.inode);
            }
        }
        Ok(())
    }
}
