//! The room on a node's disk, as it was at the last look.
//!
//! The node looks every few seconds; its reports to the president tell what it found, and its
//! ministers take on nothing that grows while the disk is short.
//!
//! What must always hold: nothing here waits for the disk.
//!
//! When it fails: a look that fails leaves the one before in force.

use ministry_storage::Usage;
use ministry_types::limits::DATA_FRAME_BYTES_MAX;
use ministry_wire::node::DiskReport;
use parking_lot::Mutex;

/// How much is left, worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Level {
    /// There is room.
    #[default]
    Fine,
    /// Hardly any but the reserve: files get no new blocks.
    Full,
    /// Less than half of the reserve.
    Short,
}

impl Level {
    /// From one look, and how it was before: what was worse has to be clearly better to be so no
    /// more, or each removal and creation would turn it. A disk is full once it has no room for
    /// the largest write.
    fn of(usage: &Usage, before: Level) -> Level {
        let quarters = if before == Level::Short { 3 } else { 2 };
        let writes = if before == Level::Fine { 1 } else { 4 };
        if usage.available < usage.reserve() / 4 * quarters {
            Level::Short
        } else if usage.available_for_files() < writes * DATA_FRAME_BYTES_MAX as u64 {
            Level::Full
        } else {
            Level::Fine
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct DiskRoom {
    seen: Mutex<(DiskReport, Level)>,
}

impl DiskRoom {
    /// Takes note of a look at the disk `device`.
    pub fn note(&self, device: &str, usage: &Usage) {
        let report = DiskReport {
            device: device.to_owned(),
            total_bytes: usage.total,
            free_bytes: usage.free,
            available_bytes: usage.available_for_files(),
        };
        metrics::gauge!("ministry_node_disk_bytes").set(report.total_bytes as f64);
        metrics::gauge!("ministry_node_disk_available_bytes").set(report.available_bytes as f64);
        let (before, now) = {
            let mut seen = self.seen.lock();
            let before = seen.1;
            *seen = (report, Level::of(usage, before));
            (before, seen.1)
        };
        if before == now {
            return;
        }
        let (available, reserve) = (usage.available, usage.reserve());
        match now {
            Level::Fine => tracing::info!(available, "the disk has room again"),
            Level::Full => tracing::warn!(
                available,
                reserve,
                "the disk is full but for its reserve: files here get no new blocks; remove files"
            ),
            Level::Short => tracing::warn!(
                available,
                reserve,
                "half of the disk's reserve is gone: nothing is added to the ministries governed \
                 from here; remove what else fills the disk"
            ),
        }
    }

    /// The last look.
    pub fn report(&self) -> DiskReport {
        self.seen.lock().0.clone()
    }

    /// Whether the room that is left is needed for what is there: logs that go on, and removals.
    pub fn is_short(&self) -> bool {
        self.seen.lock().1 == Level::Short
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_short_from_half_of_its_reserve_until_three_quarters() {
        let room = DiskRoom::default();
        let look = |available| {
            let total = 1000 << 20;
            room.note("8:1", &Usage { total, free: available, available, device: 1 });
            (room.is_short(), room.report().available_bytes)
        };
        assert_eq!(look(300 << 20), (false, 200 << 20));
        assert_eq!(look(60 << 20), (false, 0));
        assert_eq!(look(49 << 20), (true, 0));
        assert_eq!(look(74 << 20), (true, 0));
        assert_eq!(look(75 << 20), (false, 0));
        assert_eq!(look(51 << 20), (false, 0));
    }

    #[test]
    fn a_disk_is_full_when_the_largest_write_does_not_fit() {
        let at = |available_for_files: u64, before| {
            let (total, free) = (1000 << 20, (100 << 20) + available_for_files);
            Level::of(&Usage { total, free, available: free, device: 1 }, before)
        };
        assert_eq!(at(1 << 20, Level::Fine), Level::Fine);
        assert_eq!(at((1 << 20) - 1, Level::Fine), Level::Full);
        assert_eq!(at((4 << 20) - 1, Level::Full), Level::Full);
        assert_eq!(at(4 << 20, Level::Full), Level::Fine);
    }
}
