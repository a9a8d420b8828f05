//! What is kept in memory of one group's log: its end, its marks, and its last entries.
//!
//! The entries that are not on disk yet are always here, so that they can be read the moment they
//! were appended; besides, the last ones stay for members and for applying, which nearly always
//! read the end.

use std::collections::VecDeque;
use std::io;
use std::ops::{Bound, RangeBounds};

use openraft::EntryPayload;
use openraft::storage::LogState;

use crate::type_config::{Entry, LogId, TypeConfig, Vote};

/// Entries kept that are on disk already.
const CACHED_ENTRIES_MAX: usize = 4096;
/// Bytes of entries kept that are on disk already.
const CACHED_BYTES_MAX: usize = 1 << 20;

/// The end of one group's log.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    /// The last entry, or what was purged if there is none.
    pub last: Option<LogId>,
    /// Index of the first entry of the log, if it has any.
    pub first: Option<u64>,
    /// Counts truncations: an append from before one says nothing about entries after it.
    pub generation: u64,
    /// Entries below this index are on disk.
    synced_next: u64,
    entries: VecDeque<Entry>,
    bytes: usize,
}

/// How to answer a read: entries below `disk_end` from disk, then `cached`.
#[derive(Debug)]
pub(crate) struct Plan {
    pub start: u64,
    pub disk_end: u64,
    pub cached: Vec<Entry>,
}

pub(crate) fn entry_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(commands) => commands.bytes() + 32 * commands.0.len() + 96,
        EntryPayload::Blank | EntryPayload::Membership(_) => 256,
    }
}

impl Tail {
    pub fn log_state(&self) -> LogState<TypeConfig> {
        LogState { last_purged_log_id: self.purged, last_log_id: self.last }
    }

    /// Index after the last entry.
    pub fn next(&self) -> u64 {
        self.last.as_ref().map_or(0, |last| last.index + 1)
    }

    /// Takes entries up; they must follow the last one.
    pub fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        for entry in entries {
            let index = entry.log_id.index;
            let follows = match (self.first, &self.last) {
                (Some(_), Some(last)) => last.index + 1 == index && *last < entry.log_id,
                (_, Some(purged)) => purged.index + 1 == index,
                (_, None) => true,
            };
            if !follows {
                return Err(io::Error::other(format!(
                    "entry {} does not follow the end of the log, {:?}",
                    entry.log_id, self.last
                )));
            }
            self.first.get_or_insert(index);
            self.last = Some(entry.log_id);
            self.bytes += entry_bytes(entry);
            self.entries.push_back(entry.clone());
        }
        Ok(())
    }

    /// Everything below `next` that was appended in `generation` is on disk.
    pub fn synced(&mut self, generation: u64, next: u64) {
        if generation != self.generation {
            return;
        }
        self.synced_next = self.synced_next.max(next);
        while (self.entries.len() > CACHED_ENTRIES_MAX || self.bytes > CACHED_BYTES_MAX)
            && self.entries.front().is_some_and(|entry| entry.log_id.index < self.synced_next)
        {
            self.forget_front();
        }
    }

    fn forget_front(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry_bytes(&entry);
        }
    }

    /// Removes the entries from `from` on. `last` is what ends the log then.
    pub fn truncate(&mut self, from: u64, last: Option<LogId>) {
        self.generation += 1;
        self.synced_next = self.synced_next.min(from);
        while self.entries.back().is_some_and(|entry| entry.log_id.index >= from) {
            if let Some(entry) = self.entries.pop_back() {
                self.bytes -= entry_bytes(&entry);
            }
        }
        if self.last.as_ref().is_some_and(|end| end.index >= from) {
            self.last = last.or(self.purged);
        }
        if self.first.is_some_and(|first| first >= from) {
            self.first = None;
        }
    }

    /// Removes the entries up to `upto`, included.
    pub fn purge(&mut self, upto: LogId) {
        if self.purged >= Some(upto) {
            return;
        }
        self.purged = Some(upto);
        while self.entries.front().is_some_and(|entry| entry.log_id.index <= upto.index) {
            self.forget_front();
        }
        if self.last.is_none_or(|last| last.index <= upto.index) {
            self.last = Some(upto);
            self.first = None;
            self.generation += 1;
        } else {
            self.first = self.first.map(|first| first.max(upto.index + 1));
        }
    }

    /// What must be read to answer for `range`.
    pub fn plan(&self, range: &impl RangeBounds<u64>) -> Plan {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let Some(first) = self.first else {
            return Plan { start: 0, disk_end: 0, cached: Vec::new() };
        };
        let start = start.max(first);
        let end = end.min(self.next());
        if start >= end {
            return Plan { start: 0, disk_end: 0, cached: Vec::new() };
        }
        let cached_from = self.entries.front().map_or(self.next(), |entry| entry.log_id.index);
        let disk_end = cached_from.clamp(start, end);
        let skip = usize::try_from(disk_end - cached_from.min(disk_end)).unwrap_or(usize::MAX);
        let take = usize::try_from(end - disk_end).unwrap_or(usize::MAX);
        let cached = self.entries.iter().skip(skip).take(take).cloned().collect();
        Plan { start, disk_end, cached }
    }
}

/// Cuts a list of entries after `limit` bytes, but never to nothing.
pub(crate) fn cut_to_bytes(entries: &mut Vec<Entry>, limit: usize) {
    let mut bytes = 0;
    let fits = entries.iter().take_while(|entry| {
        bytes += entry_bytes(entry);
        bytes <= limit
    });
    let count = fits.count().max(1);
    entries.truncate(count);
}

/// Entries must lie without a gap from `start` to `end` (excluded).
pub(crate) fn is_contiguous(entries: &[Entry], start: u64, end: u64) -> bool {
    entries.iter().map(|entry| entry.log_id.index).eq(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::type_config::{Commands, LeaderId, Peer};

    fn id(term: u64, index: u64) -> LogId {
        LogId { leader_id: LeaderId { term, node_id: Peer::from(1) }, index }
    }

    fn entries(term: u64, range: std::ops::Range<u64>, bytes: usize) -> Vec<Entry> {
        let payload = |_| EntryPayload::Normal(Commands(vec![vec![0; bytes].into()]));
        range.map(|index| Entry { log_id: id(term, index), payload: payload(index) }).collect()
    }

    #[test]
    fn entries_that_are_not_on_disk_are_never_forgotten() {
        let mut tail = Tail::default();
        tail.append(&entries(1, 0..40, 100_000)).unwrap();
        assert_eq!(tail.plan(&(..)).disk_end, 0);
        tail.synced(0, 35);
        let plan = tail.plan(&(3..39));
        assert!(plan.disk_end > 3 && plan.disk_end <= 35, "{}", plan.disk_end);
        assert!(is_contiguous(&plan.cached, plan.disk_end, 39));
    }

    #[test]
    fn a_sync_from_before_a_truncation_says_nothing_about_what_follows_it() {
        let mut tail = Tail::default();
        tail.append(&entries(1, 0..40, 100_000)).unwrap();
        tail.truncate(10, Some(id(1, 9)));
        tail.append(&entries(2, 10..40, 100_000)).unwrap();
        tail.synced(0, 40);
        assert_eq!(tail.plan(&(..)).disk_end, 0);
        tail.synced(1, 40);
        assert!(tail.plan(&(..)).disk_end > 0);
    }

    #[test]
    fn a_gap_and_a_repeated_index_are_refused() {
        let mut tail = Tail::default();
        tail.append(&entries(1, 0..4, 1)).unwrap();
        assert!(tail.append(&entries(1, 5..6, 1)).is_err());
        assert!(tail.append(&entries(2, 3..4, 1)).is_err());
        tail.purge(id(1, 9));
        assert!(tail.append(&entries(1, 4..5, 1)).is_err());
        tail.append(&entries(1, 10..11, 1)).unwrap();
    }
}
