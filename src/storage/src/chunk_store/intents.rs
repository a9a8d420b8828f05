//! The write-intent map: which regions of which inodes may differ from their checksums.
//!
//! Before the first write into a region since it was last clean, (inode, region) goes to a log,
//! synced. After an unclean stop the checksums of exactly these regions are made anew from the
//! data: the bytes and their checksums are two files, and a loss of power keeps an arbitrary part
//! of each. A stream of writes declares ahead, further each time, so that it waits rarely.
//!
//! Intents are dropped an inode at a time, in two steps. [`Intents::rotate`] sets the present ones
//! aside as *old*; writers that come later declare anew (without a sync, since the log still has
//! it). When every writer from before the rotation is done, [`Intents::ready`] names the inode;
//! the caller syncs its files and then calls [`Intents::drop_old`].
//!
//! What must always hold: while a writer holds its [`IntentGuard`], and until the files are synced
//! after it, the log names every region that it writes. An intent lost to damage can show as
//! damaged blocks after an unclean stop, which are then repaired from a replica.

use std::collections::BTreeMap;
use std::sync::Arc;

use ministry_types::InodeId;
use parking_lot::Mutex;

use super::ChunkError;
use super::record_log::{Record, RecordLog};
use crate::disk::Disk;

/// Bytes of a region.
pub const REGION_BYTES: u64 = 1 << 20;

const PATH: &str = "intents";
const KIND: u32 = 0x696e_7465;
/// Regions that a long stream declares ahead.
const AHEAD_MAX: u64 = 64;
/// Bytes of a log that is not worth making anew.
const LOG_SLACK_BYTES: u64 = 64 << 10;

/// Regions from the first (included) to the second (excluded).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Regions {
    /// The first one.
    pub first: u64,
    /// Behind the last one.
    pub end: u64,
}

impl Regions {
    /// The regions that hold these bytes; at least one.
    pub fn of_bytes(offset: u64, length: u64) -> Regions {
        let first = offset / REGION_BYTES;
        let end = offset.saturating_add(length).div_ceil(REGION_BYTES);
        Regions { first, end: end.max(first + 1) }
    }
}

/// Disjoint, sorted, not adjacent.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct RegionSet(Vec<Regions>);

impl RegionSet {
    pub(super) fn insert(&mut self, new: Regions) {
        let from = self.0.partition_point(|have| have.end < new.first);
        let to = self.0.partition_point(|have| have.first <= new.end);
        let mut merged = new;
        if let Some(touched) = self.0.get(from..to) {
            for have in touched {
                merged.first = merged.first.min(have.first);
                merged.end = merged.end.max(have.end);
            }
        }
        self.0.splice(from..to, [merged]);
    }

    fn covers(&self, wanted: Regions) -> bool {
        let at = self.0.partition_point(|have| have.end < wanted.end);
        self.0.get(at).is_some_and(|have| have.first <= wanted.first)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn has_end(&self, end: u64) -> bool {
        self.0.binary_search_by_key(&end, |have| have.end).is_ok()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Regions> {
        self.0.iter().copied()
    }
}

#[derive(Debug, Default)]
struct InodeIntents {
    /// Declared since the last rotation.
    current: RegionSet,
    /// Declared before it.
    old: RegionSet,
    /// On their way to the log: no writer may rely on them yet.
    declaring: Vec<Regions>,
    /// Raised by each rotation, so that a guard knows to which side it belongs.
    rotation: u64,
    users_current: u32,
    users_old: u32,
    /// Regions declared ahead at the last miss.
    ahead: u64,
}

impl InodeIntents {
    fn is_idle(&self) -> bool {
        self.users_current == 0
            && self.users_old == 0
            && self.current.is_empty()
            && self.old.is_empty()
            && self.declaring.is_empty()
    }

    /// How far to declare beyond what is written: more each time a stream goes on where the
    /// declared regions end, nothing for a write elsewhere.
    fn next_ahead(&mut self, wanted: Regions) -> u64 {
        let goes_on = self.current.has_end(wanted.first) || self.old.has_end(wanted.first);
        self.ahead = if goes_on { (self.ahead * 4).clamp(4, AHEAD_MAX) } else { 0 };
        self.ahead
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Intents {
    inodes: Mutex<BTreeMap<u64, InodeIntents>>,
    log: RecordLog,
}

/// A writer is at work in declared regions.
#[derive(Debug)]
pub(super) struct IntentGuard<'a> {
    intents: &'a Intents,
    inode: u64,
    rotation: u64,
}

impl Drop for IntentGuard<'_> {
    fn drop(&mut self) {
        let mut inodes = self.intents.inodes.lock();
        let Some(entry) = inodes.get_mut(&self.inode) else {
            unreachable!("an inode with a writer stays in the map");
        };
        let users = if entry.rotation == self.rotation {
            &mut entry.users_current
        } else {
            &mut entry.users_old
        };
        assert!(*users > 0, "a writer is counted until it is done");
        *users -= 1;
        if entry.is_idle() {
            inodes.remove(&self.inode);
        }
    }
}

impl Intents {
    /// Opens the log; the second value is what an unclean stop left in it.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
    ) -> Result<(Intents, BTreeMap<InodeId, RegionSet>), ChunkError> {
        let (log, records) = RecordLog::open(disk, PATH, KIND)?;
        let mut left: BTreeMap<InodeId, RegionSet> = BTreeMap::new();
        for [inode, first, end] in records {
            if first < end {
                left.entry(InodeId(inode)).or_default().insert(Regions { first, end });
            }
        }
        Ok((Intents { inodes: Mutex::default(), log }, left))
    }

    /// Announces a write; returns when the log has its regions.
    pub(super) fn begin(
        &self,
        inode: InodeId,
        wanted: Regions,
    ) -> Result<IntentGuard<'_>, ChunkError> {
        let (guard, declared) = {
            let mut inodes = self.inodes.lock();
            let entry = inodes.entry(inode.0).or_default();
            entry.users_current += 1;
            let guard = IntentGuard { intents: self, inode: inode.0, rotation: entry.rotation };
            if entry.current.covers(wanted) {
                return Ok(guard);
            }
            if entry.old.covers(wanted) {
                entry.current.insert(wanted);
                return Ok(guard);
            }
            let end = wanted.end.saturating_add(entry.next_ahead(wanted));
            let declared = Regions { first: wanted.first, end };
            entry.declaring.push(declared);
            (guard, declared)
        };
        let result = self.log.append(&[[inode.0, declared.first, declared.end]]);
        let mut inodes = self.inodes.lock();
        if let Some(entry) = inodes.get_mut(&inode.0) {
            if let Some(at) = entry.declaring.iter().position(|have| *have == declared) {
                entry.declaring.swap_remove(at);
            }
            if result.is_ok() {
                entry.current.insert(declared);
            }
        }
        drop(inodes);
        result.map(|()| guard)
    }

    /// Inodes that have intents.
    pub(super) fn inodes(&self) -> usize {
        self.inodes.lock().len()
    }

    /// Sets the present intents of every inode aside, where the last ones set aside are dropped.
    pub(super) fn rotate(&self) {
        for entry in self.inodes.lock().values_mut() {
            if entry.old.is_empty() && entry.users_old == 0 && !entry.current.is_empty() {
                entry.old = std::mem::take(&mut entry.current);
                entry.users_old = std::mem::take(&mut entry.users_current);
                entry.rotation += 1;
            }
        }
    }

    /// The inodes whose old intents have no writer any more.
    pub(super) fn ready(&self) -> Vec<InodeId> {
        let inodes = self.inodes.lock();
        let ready = inodes.iter().filter(|(_, e)| !e.old.is_empty() && e.users_old == 0);
        ready.map(|(inode, _)| InodeId(*inode)).collect()
    }

    /// Drops the old intents of an inode that [`Intents::ready`] named and whose files were synced
    /// since.
    pub(super) fn drop_old(&self, inode: InodeId) {
        let mut inodes = self.inodes.lock();
        if let Some(entry) = inodes.get_mut(&inode.0) {
            assert!(entry.users_old == 0, "nothing joins the old side between two rotations");
            entry.old = RegionSet::default();
            if entry.is_idle() {
                inodes.remove(&inode.0);
            }
        }
    }

    /// Drops everything of an inode whose files are gone.
    pub(super) fn forget(&self, inode: InodeId) {
        let mut inodes = self.inodes.lock();
        if let Some(entry) = inodes.get_mut(&inode.0) {
            entry.old = RegionSet::default();
            entry.current = RegionSet::default();
            if entry.is_idle() {
                inodes.remove(&inode.0);
            }
        }
    }

    /// Makes the log anew from what is still wanted, if that makes it much shorter, or if it then
    /// is empty: an empty log is what a clean stop leaves.
    pub(super) fn shorten(&self) -> Result<(), ChunkError> {
        let wanted = self.records();
        let bytes = wanted.len() as u64 * 32 + 32;
        let now = self.log.bytes();
        if now == bytes || (!wanted.is_empty() && now < 2 * bytes + LOG_SLACK_BYTES) {
            return Ok(());
        }
        // Asked again once no append is being written: one that was is in the map by then.
        self.log.rewrite(|| self.records())
    }

    fn records(&self) -> Vec<Record> {
        let inodes = self.inodes.lock();
        let mut records = Vec::new();
        for (inode, entry) in inodes.iter() {
            let mut all = entry.old.clone();
            entry.current.iter().for_each(|regions| all.insert(regions));
            entry.declaring.iter().for_each(|regions| all.insert(*regions));
            records.extend(all.iter().map(|regions| [*inode, regions.first, regions.end]));
        }
        records
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_disk::MemoryDisk;

    const INODE: InodeId = InodeId(5);

    fn regions(first: u64, end: u64) -> Regions {
        Regions { first, end }
    }

    fn left(disk: &MemoryDisk) -> Vec<Regions> {
        let (_, left) = Intents::open(Arc::new(disk.clone())).unwrap();
        left.get(&INODE).map_or_else(Vec::new, |set| set.iter().collect())
    }

    #[test]
    fn a_set_of_regions_merges_neighbours_and_overlaps() {
        let mut set = RegionSet::default();
        for (first, end) in [(10, 12), (0, 1), (4, 6), (1, 2), (5, 11)] {
            set.insert(regions(first, end));
        }
        assert_eq!(set.0, [regions(0, 2), regions(4, 12)]);
        assert!(set.covers(regions(4, 12)) && set.covers(regions(0, 1)));
        assert!(!set.covers(regions(1, 3)) && !set.covers(regions(12, 13)));
        assert!(set.has_end(2) && !set.has_end(6));
    }

    #[test]
    fn a_region_is_in_the_log_before_its_writer_goes_on() {
        let disk = MemoryDisk::default();
        let (intents, _) = Intents::open(Arc::new(disk.clone())).unwrap();
        let _guard = intents.begin(INODE, regions(3, 4)).unwrap();
        disk.crash(None);
        assert_eq!(left(&disk), [regions(3, 4)]);
    }

    #[test]
    fn a_stream_waits_for_few_syncs() {
        let disk = MemoryDisk::default();
        let (intents, _) = Intents::open(Arc::new(disk.clone())).unwrap();
        let before = disk.syncs();
        for region in 0..500 {
            drop(intents.begin(INODE, regions(region, region + 1)).unwrap());
        }
        assert!(disk.syncs() - before <= 12, "{} syncs", disk.syncs() - before);
    }

    #[test]
    fn an_intent_stays_while_a_writer_from_before_is_at_work() {
        let disk = MemoryDisk::default();
        let (intents, _) = Intents::open(Arc::new(disk.clone())).unwrap();
        let guard = intents.begin(INODE, regions(3, 4)).unwrap();
        intents.rotate();
        assert!(intents.ready().is_empty());
        drop(guard);
        assert_eq!(intents.ready(), [INODE]);
        let late = intents.begin(INODE, regions(3, 4)).unwrap();
        intents.drop_old(INODE);
        intents.shorten().unwrap();
        assert_eq!(left(&disk), [regions(3, 4)], "the late writer declared it anew");
        drop(late);
        intents.rotate();
        intents.drop_old(INODE);
        intents.shorten().unwrap();
        assert!(left(&disk).is_empty());
        assert_eq!(intents.inodes(), 0);
    }
}
