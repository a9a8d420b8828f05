//! Which ministry owns which part of the name space.
//!
//! Ownership goes by number, not by path: the map divides the space of *(inode, hash of a name)*
//! into intervals. Inodes and the names below a directory are found by the interval they fall in.
//! The map is small, is cached by clients and checked by servers.

use serde::{Deserialize, Serialize};

use crate::ids::{InodeId, MinistryId};

/// A point in the owned space.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
pub struct Point {
    /// The inode, or the directory that holds a name.
    pub inode: InodeId,
    /// Hash of the name; 0 for the inode itself.
    pub name_hash: u64,
}

impl Point {
    /// The point of an inode's own record.
    pub fn inode(inode: InodeId) -> Point {
        Point { inode, name_hash: 0 }
    }
}

/// A part of the space with one owner: from `start` to the start of the next interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// First point, included.
    pub start: Point,
    /// First point that is no longer part of it.
    pub end: Point,
    /// Who owns it.
    pub owner: MinistryId,
    /// Raised each time the interval changes hands; checked when a command is applied.
    pub generation: u64,
}

/// The whole map: intervals in order, without overlap. A point in a gap belongs to nobody yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct OwnershipMap {
    intervals: Vec<Interval>,
}

impl OwnershipMap {
    /// The interval of a point.
    pub fn find(&self, point: Point) -> Option<&Interval> {
        let after = self.intervals.partition_point(|interval| interval.start <= point);
        self.intervals[..after].last().filter(|interval| point < interval.end)
    }

    /// The ministry that owns an inode.
    pub fn owner(&self, inode: InodeId) -> Option<MinistryId> {
        self.find(Point::inode(inode)).map(|interval| interval.owner)
    }

    /// All intervals in order.
    pub fn intervals(&self) -> &[Interval] {
        &self.intervals
    }

    /// Gives the inodes from `first` (included) to `end` (excluded) with all names below them to
    /// `owner`; what other intervals said of them ends. Returns the generation of the new
    /// interval: one more than the largest it displaces.
    pub fn assign(&mut self, first: InodeId, end: InodeId, owner: MinistryId) -> u64 {
        assert!(first < end, "an interval holds at least one inode");
        let (start, end) = (Point::inode(first), Point::inode(end));
        let mut kept = Vec::with_capacity(self.intervals.len() + 2);
        let mut generation = 0;
        for old in self.intervals.drain(..) {
            if old.end <= start || old.start >= end {
                kept.push(old);
                continue;
            }
            generation = generation.max(old.generation);
            if old.start < start {
                kept.push(Interval { end: start, ..old });
            }
            if old.end > end {
                kept.push(Interval { start: end, ..old });
            }
        }
        generation += 1;
        kept.push(Interval { start, end, owner, generation });
        kept.sort_by_key(|interval| interval.start);
        self.intervals = kept;
        generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_hole_cut_into_an_interval_leaves_both_sides_with_the_old_owner() {
        let mut map = OwnershipMap::default();
        assert_eq!(map.assign(InodeId(1), InodeId(100), MinistryId(1)), 1);
        assert_eq!(map.assign(InodeId(10), InodeId(11), MinistryId(2)), 2);
        let owner = |inode| map.owner(InodeId(inode)).map(|m| m.0);
        assert_eq!((owner(9), owner(10), owner(11)), (Some(1), Some(2), Some(1)));
        assert_eq!((owner(0), owner(100)), (None, None));
    }

    proptest! {
        #[test]
        fn the_last_assignment_of_an_inode_wins(
            steps in prop::collection::vec((0u64..50, 1u64..20, 1u64..5), 1..40)
        ) {
            let mut map = OwnershipMap::default();
            let mut model = [None; 80];
            for (first, length, owner) in steps {
                map.assign(InodeId(first), InodeId(first + length), MinistryId(owner));
                for slot in &mut model[first as usize..(first + length) as usize] {
                    *slot = Some(MinistryId(owner));
                }
                let ordered = map.intervals().windows(2).all(|pair| pair[0].end <= pair[1].start);
                prop_assert!(ordered);
            }
            for (inode, owner) in model.iter().enumerate() {
                prop_assert_eq!(map.owner(InodeId(inode as u64)), *owner);
            }
        }
    }
}
