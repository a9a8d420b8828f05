//! The one writer of a node's log: a thread that writes what all groups wait for at once.
//!
//! One sync of the disk costs as much for one entry as for a thousand. So the writer takes
//! everything that waits, of all groups, writes it as one batch, syncs once, and reports to all.
//! While it syncs, the next batch gathers.
//!
//! What must always hold: nothing is reported before the sync that covers it. After an error
//! nothing is written any more, and everything that waits or comes is told of it: the kernel may
//! report a failed sync only once, and what was not written then is lost without a further word.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use ministry_types::GroupId;
use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use rocksdb::{DB, WriteBatch, WriteOptions};
use tokio::sync::{mpsc, oneshot};

use crate::fatal::Fatal;
use crate::log_record::{Kind, entry_key, key};
use crate::log_tail::Tail;
use crate::type_config::TypeConfig;
use crate::watermark::Watermark;

/// Operations that wait at most; then the groups wait too.
pub(crate) const QUEUE_MAX: usize = 1024;
/// Bytes in one batch; bounds memory and the time of one sync.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Operations in one batch.
const BATCH_OPERATIONS_MAX: usize = 1024;

pub(crate) type Done = oneshot::Sender<io::Result<()>>;

/// One thing to write.
pub(crate) enum Step {
    /// Entries with their indexes, and what is committed so far.
    Append {
        tail: Arc<Mutex<Tail>>,
        generation: u64,
        next: u64,
        records: Vec<(u64, Vec<u8>)>,
        committed: Option<Vec<u8>>,
        done: IOFlushed<TypeConfig>,
    },
    /// A vote.
    Vote { record: Vec<u8>, done: Done },
    /// Removal of all entries from an index on.
    Truncate { from: u64, done: Done },
    /// Removal of the first entries. Not synced: if it is lost, they are there again, no more.
    Purge { upto: u64, record: Vec<u8> },
}

/// A step of one group.
pub(crate) struct Operation {
    pub group: GroupId,
    pub step: Step,
}

impl Operation {
    fn bytes(&self) -> usize {
        match &self.step {
            Step::Append { records, .. } => records.iter().map(|(_, record)| record.len()).sum(),
            Step::Vote { .. } | Step::Truncate { .. } | Step::Purge { .. } => 0,
        }
    }

    fn entries(&self) -> usize {
        match &self.step {
            Step::Append { records, .. } => records.len(),
            Step::Vote { .. } | Step::Truncate { .. } | Step::Purge { .. } => 0,
        }
    }

    fn write_to(&self, batch: &mut WriteBatch) {
        let group = self.group;
        match &self.step {
            Step::Append { records, committed, .. } => {
                for (index, record) in records {
                    batch.put(entry_key(group, *index), record);
                }
                if let Some(record) = committed {
                    batch.put(key(group, Kind::Committed), record);
                }
            }
            Step::Vote { record, .. } => batch.put(key(group, Kind::Vote), record),
            Step::Truncate { from, .. } => {
                batch.delete_range(entry_key(group, *from), entry_key(group, u64::MAX));
            }
            Step::Purge { upto, record } => {
                batch.put(key(group, Kind::Purged), record);
                batch.delete_range(entry_key(group, 0), entry_key(group, upto + 1));
            }
        }
    }

    fn report(self, result: Result<(), &str>) {
        let result = result.map_err(|reason| io::Error::other(reason.to_owned()));
        match self.step {
            Step::Append { tail, generation, next, done, .. } => {
                if result.is_ok() {
                    tail.lock().synced(generation, next);
                }
                done.io_completed(result);
            }
            Step::Vote { done, .. } | Step::Truncate { done, .. } => {
                let _ = done.send(result);
            }
            Step::Purge { .. } => {}
        }
    }
}

/// The thread's own.
pub(crate) struct Writer {
    pub db: Arc<DB>,
    pub watermark: Watermark,
    pub queue: mpsc::Receiver<Operation>,
    pub fatal: Fatal,
}

impl Writer {
    /// Writes until all senders are gone.
    pub fn run(mut self) {
        let mut failed: Option<String> = None;
        while let Some(first) = self.queue.blocking_recv() {
            let operations = self.gather(first);
            if failed.is_none() {
                failed = self.write(&operations).err();
                if let Some(reason) = &failed {
                    self.fatal.report(format!("the log could not be written: {reason}"));
                }
            }
            let result = failed.as_deref().map_or(Ok(()), Err);
            for operation in operations {
                operation.report(result);
            }
        }
        if failed.is_none()
            && let Err(error) = self.db.flush_wal(true)
        {
            tracing::warn!(%error, "the log was not synced at the end");
        }
        self.db.cancel_all_background_work(true);
    }

    fn gather(&mut self, first: Operation) -> Vec<Operation> {
        let mut bytes = first.bytes();
        let mut operations = vec![first];
        while bytes < BATCH_BYTES_MAX && operations.len() < BATCH_OPERATIONS_MAX {
            let Ok(operation) = self.queue.try_recv() else { break };
            bytes += operation.bytes();
            operations.push(operation);
        }
        metrics::gauge!("ministry_raft_log_queue_depth").set(self.queue.len() as f64);
        operations
    }

    fn write(&self, operations: &[Operation]) -> Result<(), String> {
        let mut batch = WriteBatch::default();
        let mut entries = 0;
        let mut sync = false;
        for operation in operations {
            operation.write_to(&mut batch);
            entries += operation.entries();
            sync |= !matches!(operation.step, Step::Purge { .. });
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        let started = Instant::now();
        self.db.write_opt(batch, &options).map_err(|error| error.to_string())?;
        if sync {
            metrics::histogram!("ministry_raft_log_sync_seconds").record(started.elapsed());
            metrics::histogram!("ministry_raft_log_batch_entries").record(entries as f64);
            let number = self.db.latest_sequence_number();
            self.watermark.write(number).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}
