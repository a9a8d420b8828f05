//! The log in memory, for simulation and tests: the twin of the log on disk.
//!
//! It remembers what was synced, so that a simulated crash cuts back to it
//! ([`MemoryLog::crash`]). A sync takes a given time of tokio's clock and is carried out by a task
//! of the node's own runtime; no threads. What must always hold: the same as of the log on disk,
//! which the same tests check.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::Duration;

use ministry_types::{GroupId, LogPosition, limits};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::convert;
use crate::log_tail::cut_to_bytes;
use crate::type_config::{Entry, LogId, TypeConfig, Vote};

/// The log of all groups of a simulated node. Clones share it; it outlives the node's crashes.
#[derive(Clone, Default)]
pub struct MemoryLog {
    disk: Arc<Mutex<Disk>>,
    sync_time: Duration,
}

#[derive(Default)]
struct Disk {
    groups: BTreeMap<GroupId, Copies>,
    waiting: VecDeque<Operation>,
    sync_is_due: bool,
}

/// What the node sees, and what a crash leaves.
#[derive(Default)]
struct Copies {
    current: Contents,
    synced: Contents,
}

#[derive(Default, Clone)]
struct Contents {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
}

enum Step {
    Append(Vec<Entry>, Option<LogId>),
    Vote(Vote),
    Truncate(u64),
    Purge(LogId),
}

enum Done {
    Nobody,
    Flushed(IOFlushed<TypeConfig>),
    Waiting(oneshot::Sender<io::Result<()>>),
}

struct Operation {
    group: GroupId,
    step: Step,
    done: Done,
}

impl Contents {
    fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, entry)| entry.log_id).or(self.purged)
    }

    fn carry_out(&mut self, step: &Step) -> io::Result<()> {
        match step {
            Step::Append(entries, committed) => {
                for entry in entries {
                    self.append(entry)?;
                }
                self.committed = self.committed.max(*committed);
            }
            Step::Vote(vote) => self.vote = Some(*vote),
            Step::Truncate(from) => drop(self.entries.split_off(from)),
            Step::Purge(upto) => {
                self.purged = self.purged.max(Some(*upto));
                self.entries = self.entries.split_off(&(upto.index + 1));
            }
        }
        Ok(())
    }

    fn append(&mut self, entry: &Entry) -> io::Result<()> {
        let index = entry.log_id.index;
        if self.last().is_some_and(|last| last.index + 1 != index || last >= entry.log_id) {
            return Err(io::Error::other(format!(
                "entry {} does not follow the end of the log",
                entry.log_id
            )));
        }
        self.entries.insert(index, entry.clone());
        Ok(())
    }
}

impl MemoryLog {
    /// An empty log whose syncs take this long; 0: at once.
    pub fn new(sync_time: Duration) -> MemoryLog {
        MemoryLog { disk: Arc::default(), sync_time }
    }

    /// Forgets what was not synced, as a loss of power does. The node must have ended.
    pub fn crash(&self) {
        let mut disk = self.disk.lock();
        disk.waiting.clear();
        disk.sync_is_due = false;
        for copies in disk.groups.values_mut() {
            copies.current = copies.synced.clone();
        }
    }

    /// The log of one group.
    pub fn group(&self, group: GroupId) -> MemoryGroupLog {
        MemoryGroupLog { group, log: self.clone() }
    }

    fn submit(&self, operation: Operation) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.groups.entry(operation.group).or_default().current.carry_out(&operation.step)?;
        disk.waiting.push_back(operation);
        if self.sync_time.is_zero() {
            drop(disk);
            self.sync();
        } else if !disk.sync_is_due {
            disk.sync_is_due = true;
            let log = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(log.sync_time).await;
                log.sync();
            });
        }
        Ok(())
    }

    fn sync(&self) {
        let mut disk = self.disk.lock();
        disk.sync_is_due = false;
        let waiting = std::mem::take(&mut disk.waiting);
        let mut results = Vec::with_capacity(waiting.len());
        for operation in waiting {
            let copies = disk.groups.entry(operation.group).or_default();
            results.push((operation.done, copies.synced.carry_out(&operation.step)));
        }
        drop(disk);
        for (done, result) in results {
            match done {
                Done::Nobody => {}
                Done::Flushed(done) => done.io_completed(result),
                Done::Waiting(done) => drop(done.send(result)),
            }
        }
    }
}

/// The log of one group of a simulated node. Clones share it.
#[derive(Clone)]
pub struct MemoryGroupLog {
    group: GroupId,
    log: MemoryLog,
}

impl MemoryGroupLog {
    /// The last entry.
    pub fn last(&self) -> Option<LogPosition> {
        self.with(|contents| contents.last().as_ref().map(convert::position))
    }

    /// Whether the log knows of a vote: then this node may have granted a lease before.
    pub fn has_voted(&self) -> bool {
        self.with(|contents| contents.vote.is_some())
    }

    fn with<T>(&self, read: impl FnOnce(&mut Contents) -> T) -> T {
        read(&mut self.log.disk.lock().groups.entry(self.group).or_default().current)
    }

    async fn submit_and_wait(&self, step: Step) -> io::Result<()> {
        let (done, result) = oneshot::channel();
        self.log.submit(Operation { group: self.group, step, done: Done::Waiting(done) })?;
        result.await.map_err(|_| io::Error::other("the node has crashed"))?
    }

    fn read(&self, range: impl RangeBounds<u64>) -> Vec<Entry> {
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        if is_empty(&bounds) {
            return Vec::new();
        }
        self.with(|contents| contents.entries.range(bounds).map(|(_, e)| e.clone()).collect())
    }
}

/// Such a range would be a mistake to an ordered map.
fn is_empty(bounds: &(std::ops::Bound<u64>, std::ops::Bound<u64>)) -> bool {
    use std::ops::Bound::{Excluded, Included};
    match bounds {
        (Included(start) | Excluded(start), Excluded(end)) => start >= end,
        (Included(start), Included(end)) => start > end,
        (Excluded(start), Included(end)) => start >= end,
        _ => false,
    }
}

impl RaftLogReader<TypeConfig> for MemoryGroupLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.read(range))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.with(|contents| contents.vote))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        let mut entries = self.read(start..end);
        cut_to_bytes(&mut entries, limits::APPEND_BYTES_MAX);
        Ok(entries)
    }
}

impl RaftLogStorage<TypeConfig> for MemoryGroupLog {
    type LogReader = MemoryGroupLog;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        Ok(self.with(|contents| LogState {
            last_purged_log_id: contents.purged,
            last_log_id: contents.last(),
        }))
    }

    async fn get_log_reader(&mut self) -> MemoryGroupLog {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.submit_and_wait(Step::Vote(*vote)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.with(|contents| contents.committed = committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.with(|contents| contents.committed))
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let committed = self.with(|contents| contents.committed);
        let step = Step::Append(entries.into_iter().collect(), committed);
        self.log.submit(Operation { group: self.group, step, done: Done::Flushed(done) })
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.as_ref().map_or(0, |last| last.index + 1);
        self.submit_and_wait(Step::Truncate(from)).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let step = Step::Purge(upto);
        self.log.submit(Operation { group: self.group, step, done: Done::Nobody })
    }
}
