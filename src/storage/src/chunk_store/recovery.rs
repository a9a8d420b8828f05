//! What is done at a start after an unclean stop: the checksums of the regions that were being
//! written are made anew from the data.
//!
//! What must always hold: the intents are dropped only after everything they name was synced, the
//! bytes too, since after the end of a process (not of the machine) they may be in memory only.
//!
//! After a failed sync that is not enough: the kernel has marked clean what it could not write,
//! goes on to show it to the next process, and syncs it no more. So a process that saw a sync fail
//! leaves a mark, as good as it can. The next one writes everything again that the intents name,
//! and both logs, before it relies on them. (After a new start of the machine the kernel shows
//! what is on the disk; the mark then does no harm.)

use std::collections::BTreeMap;

use ministry_types::InodeId;

use super::ChunkError;
use super::block_files::BlockFiles;
use super::checksums::BLOCK;
use super::intents::{REGION_BYTES, RegionSet, Regions};
use super::object::{folder_path, object_path};
use super::tombstones::Tombstones;
use crate::disk::Disk;

const DOUBT: &str = "sync-failed";
const REGION_BLOCKS: u64 = REGION_BYTES / BLOCK;

/// Regions of one inode that were being written when the process or the machine stopped. The bytes
/// there may differ between replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The inode.
    pub inode: InodeId,
    /// In order, disjoint; they may reach behind the end of the file.
    pub regions: Vec<Regions>,
}

/// Leaves the mark that a sync failed. It need not be durable: it is meant for the next process on
/// the same start of the machine. Whether it works cannot be helped.
pub(super) fn leave_doubt(disk: &dyn Disk) {
    if let Err(error) = disk.open(DOUBT, true) {
        tracing::error!(%error, "cannot note that a sync failed: restart the machine");
    }
}

/// Whether the process before saw a sync fail.
pub(super) fn is_in_doubt(disk: &dyn Disk) -> Result<bool, ChunkError> {
    disk.exists(DOUBT).map_err(ChunkError::from_io("look for", DOUBT))
}

/// Removes the mark, after everything was written again.
pub(super) fn end_doubt(disk: &dyn Disk) -> Result<(), ChunkError> {
    disk.remove(DOUBT).map(drop).map_err(ChunkError::from_io("remove", DOUBT))
}

/// Makes the checksums of the regions anew, and everything durable.
pub(super) fn recover(
    disk: &dyn Disk,
    tombstones: &Tombstones,
    left: BTreeMap<InodeId, RegionSet>,
    in_doubt: bool,
) -> Result<Vec<Recovered>, ChunkError> {
    let mut recovered = Vec::new();
    for (inode, regions) in left {
        if tombstones.contains(inode) {
            continue;
        }
        match recover_one(disk, inode, &regions, in_doubt) {
            Ok(true) => recovered.push(Recovered { inode, regions: regions.iter().collect() }),
            Ok(false) => {}
            // One damaged file does not keep the others from being served.
            Err(error @ ChunkError::Damaged { .. }) => {
                tracing::error!(%inode, %error, "the checksums of an inode cannot be made anew");
            }
            Err(error) => return Err(error),
        }
    }
    if !recovered.is_empty() {
        let inodes = recovered.len();
        tracing::info!(inodes, "checksums were made anew after an unclean stop");
    }
    Ok(recovered)
}

fn recover_one(
    disk: &dyn Disk,
    inode: InodeId,
    regions: &RegionSet,
    in_doubt: bool,
) -> Result<bool, ChunkError> {
    let Some((files, _)) = BlockFiles::open(disk, &object_path(inode), false)? else {
        return Ok(false);
    };
    for Regions { first, end } in regions.iter() {
        let blocks = |region: u64| region.saturating_mul(REGION_BLOCKS);
        files.make_sums_anew(blocks(first), blocks(end), in_doubt)?;
    }
    let handles = files.handles();
    // Always: a header that a failed sync two processes ago left in memory only looks as any other.
    handles.touch_header()?;
    handles.sync_data()?;
    handles.sync_sums()?;
    let folder = folder_path(inode);
    disk.sync_dir(&folder).map_err(|error| ChunkError::sync(&folder, &error))?;
    Ok(true)
}
