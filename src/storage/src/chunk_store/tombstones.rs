//! The inodes that were purged, for good.
//!
//! Inode numbers never return, and neighbours are often removed together: the set is kept as words
//! of 64 inodes, in memory and in a log of (word, bits) records.
//!
//! What must always hold: a purge that was confirmed is known after every restart. A tombstone
//! lost to damage lets a late write of a removed inode make a file again: room is lost until the
//! next purge of it, but no name leads to the bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use ministry_types::InodeId;
use parking_lot::RwLock;

use super::ChunkError;
use super::record_log::{Record, RecordLog};
use crate::disk::Disk;

const PATH: &str = "tombstones";
const KIND: u32 = 0x746f_6d62;
/// Records above twice the words before the log is made anew at the start.
const SLACK: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(super) struct Tombstones {
    words: RwLock<BTreeMap<u64, u64>>,
    log: RecordLog,
}

fn place(inode: InodeId) -> (u64, u64) {
    (inode.0 / 64, 1 << (inode.0 % 64))
}

impl Tombstones {
    /// Reads the tombstones, and makes their log short. With `rewrite` it is written again in any
    /// case: see the recovery module.
    pub(super) fn open(disk: Arc<dyn Disk>, rewrite: bool) -> Result<Tombstones, ChunkError> {
        let (log, records) = RecordLog::open(disk, PATH, KIND)?;
        let mut words = BTreeMap::new();
        for [word, bits, _] in &records {
            *words.entry(*word).or_insert(0) |= *bits;
        }
        if rewrite || records.len() > 2 * words.len() + SLACK {
            log.rewrite(|| words.iter().map(|(word, bits)| [*word, *bits, 0]).collect())?;
        }
        Ok(Tombstones { words: RwLock::new(words), log })
    }

    /// Whether the inode was purged.
    pub(super) fn contains(&self, inode: InodeId) -> bool {
        let (word, bit) = place(inode);
        self.words.read().get(&word).is_some_and(|bits| bits & bit != 0)
    }

    /// Adds an inode; durable when it returns.
    pub(super) fn insert(&self, inode: InodeId) -> Result<(), ChunkError> {
        if self.contains(inode) {
            return Ok(());
        }
        let (word, bit) = place(inode);
        let record: Record = [word, bit, 0];
        self.log.append(&[record])?;
        *self.words.write().entry(word).or_insert(0) |= bit;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_disk::MemoryDisk;

    #[test]
    fn a_tombstone_survives_a_loss_of_power() {
        let disk = MemoryDisk::default();
        let tombstones = Tombstones::open(Arc::new(disk.clone()), false).unwrap();
        for inode in [1, 63, 64, 1 << 40] {
            tombstones.insert(InodeId(inode)).unwrap();
        }
        disk.crash(None);
        let tombstones = Tombstones::open(Arc::new(disk), true).unwrap();
        for inode in [1, 63, 64, 1 << 40] {
            assert!(tombstones.contains(InodeId(inode)));
            assert!(!tombstones.contains(InodeId(inode + 1)) || inode == 63);
        }
    }
}
