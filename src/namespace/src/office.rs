//! What a minister's office asks the state for, to drive on what the rules have left to do.
//!
//! The office of the minister calls these on the applied state: to end sessions, to tell storage of
//! cuts and purges, to ask for inode numbers ahead of need. Each costs what it answers, never a
//! scan of the tree. A state that cannot be read ends in a [`KvError`].

use std::ops::ControlFlow;

use ministry_types::kv::{KvError, KvRead};
use ministry_types::{ClientId, Epoch, InodeId, Layout, NodeId, SessionId, TruncateMark};

use crate::Namespace;
use crate::keys;
use crate::records::{
    PurgeRecord, RangeRecord, Records, ReignRecord, SessionRecord, read_number, read_value,
};

/// A removed file whose data storage still has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingPurge {
    /// The file that was.
    pub inode: InodeId,
    /// Bytes of a chunk.
    pub chunk_bytes: u64,
    /// Its data lies before this.
    pub data_end: u64,
}

/// A file with cuts that storage has not confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingTruncate {
    /// The file.
    pub inode: InodeId,
    /// Bytes of a chunk.
    pub chunk_bytes: u64,
    /// Its data lies before this.
    pub data_end: u64,
    /// The cuts, in order; the last is what [`crate::Command::TruncatesDone`] confirms.
    pub truncates: Vec<TruncateMark>,
}

/// The inode numbers that a ministry has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ranges {
    /// Ranges that were ever given.
    pub known: u32,
    /// Of these, the ones of which nothing is used.
    pub left_unused: u32,
    /// All of them in order: first number, and the one after the last.
    pub list: Vec<(InodeId, InodeId)>,
}

fn until(full: bool) -> ControlFlow<()> {
    if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

impl Namespace {
    pub(crate) fn records<'a>(&self, state: &'a dyn KvRead) -> Records<'a> {
        Records { keys: self.keys, state }
    }

    /// The keys of all records: from the first to the one after the last.
    pub fn keyspace_range(&self) -> (Vec<u8>, Vec<u8>) {
        self.keys.everything()
    }

    /// A key for the caller's own record of what it has applied; the rules never touch it.
    pub fn applied_key(&self) -> Vec<u8> {
        self.keys.applied()
    }

    /// Who reigns, and under which epoch.
    pub fn reign(&self, state: &dyn KvRead) -> Result<Option<(Epoch, NodeId)>, KvError> {
        let reign = self.records(state).read::<ReignRecord>(&self.keys.reign())?;
        Ok(reign.map(|reign| (reign.epoch, reign.node)))
    }

    /// The sessions that live, in order of their identities.
    pub fn sessions(&self, state: &dyn KvRead) -> Result<Vec<(SessionId, ClientId)>, KvError> {
        let mut sessions = Vec::new();
        self.records(state).each(&self.keys.sessions(), |key, value| {
            let record: SessionRecord = read_value(key, value)?;
            if let Some(session) = keys::session_of(key) {
                sessions.push((session, record.client));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(sessions)
    }

    /// How many objects exist, those without a name included.
    pub fn objects(&self, state: &dyn KvRead) -> Result<u64, KvError> {
        Ok(self.records(state).read(&self.keys.object_count())?.unwrap_or(0))
    }

    /// Whether the root directory is here.
    pub fn is_founded(&self, state: &dyn KvRead) -> Result<bool, KvError> {
        self.exists(state, InodeId::ROOT)
    }

    /// Whether an object is here: neither gone nor given away.
    pub fn exists(&self, state: &dyn KvRead, inode: InodeId) -> Result<bool, KvError> {
        Ok(state.get(&self.keys.inode(inode))?.is_some())
    }

    /// The inode numbers of the ministry.
    pub fn ranges(&self, state: &dyn KvRead) -> Result<Ranges, KvError> {
        let mut ranges = Ranges::default();
        self.records(state).each(&self.keys.ranges(), |key, value| {
            let first = InodeId(read_number(key)?);
            let record: RangeRecord = read_value(key, value)?;
            ranges.known += 1;
            ranges.left_unused += u32::from(record.next == RangeRecord::first_usable(first));
            ranges.list.push((first, record.end));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(ranges)
    }

    /// Removed files whose data storage has to remove; at most `max`.
    pub fn pending_purges(
        &self,
        state: &dyn KvRead,
        max: usize,
    ) -> Result<Vec<PendingPurge>, KvError> {
        let mut purges = Vec::new();
        if max == 0 {
            return Ok(purges);
        }
        self.records(state).each(&self.keys.purges(), |key, value| {
            let PurgeRecord { chunk_bytes, data_end } = read_value(key, value)?;
            purges.push(PendingPurge { inode: InodeId(read_number(key)?), chunk_bytes, data_end });
            Ok(until(purges.len() >= max))
        })?;
        Ok(purges)
    }

    /// Files with cuts that storage has not confirmed; at most `max`.
    pub fn pending_truncates(
        &self,
        state: &dyn KvRead,
        max: usize,
    ) -> Result<Vec<PendingTruncate>, KvError> {
        let records = self.records(state);
        let mut inodes = Vec::new();
        if max == 0 {
            return Ok(Vec::new());
        }
        records.each(&self.keys.truncated_all(), |key, _| {
            inodes.push(InodeId(read_number(key)?));
            Ok(until(inodes.len() >= max))
        })?;
        let mut pending = Vec::new();
        for inode in inodes {
            let Some(record) = records.inode_here(inode)? else {
                return Err(KvError(format!("inode {inode} has cuts and no record")));
            };
            if let Layout::Chunked { chunk_bytes, truncates } = record.attributes.layout {
                let data_end = record.data_end;
                pending.push(PendingTruncate { inode, chunk_bytes, data_end, truncates });
            }
        }
        Ok(pending)
    }

    /// Orphans that wait for a word of this session; at most `max`.
    pub fn orphans_awaiting(
        &self,
        state: &dyn KvRead,
        session: SessionId,
        max: usize,
    ) -> Result<Vec<InodeId>, KvError> {
        let mut orphans = Vec::new();
        if max == 0 {
            return Ok(orphans);
        }
        self.records(state).each(&self.keys.awaited_all(session), |key, _| {
            orphans.push(InodeId(read_number(key)?));
            Ok(until(orphans.len() >= max))
        })?;
        Ok(orphans)
    }
}
