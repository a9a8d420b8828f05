//! The log on disk: one RocksDB for all groups of a node.
//!
//! `ministryd` opens it once and gives it to [`crate::Groups`]. Each group gets its own view,
//! which openraft appends to and reads from; one thread writes for all ([`crate::log_writer`]).
//!
//! What must always hold: entries can be read as soon as they were appended, but are reported only
//! after the sync; a log that is damaged or shorter than what was acknowledged does not open, and
//! opening it changes nothing.
//!
//! When it fails: reading or writing reports to [`Fatal`], and openraft stops the group.

use std::fmt::Debug;
use std::io;
use std::ops::{ControlFlow, RangeBounds};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use ministry_types::{GroupId, LogPosition, limits};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, IteratorMode, Options, ReadOptions,
};
use tokio::sync::{mpsc, oneshot};

use crate::convert;
use crate::errors::LogError;
use crate::fatal::Fatal;
use crate::log_record::{self, Kind};
use crate::log_tail::{Tail, cut_to_bytes, entry_bytes, is_contiguous};
use crate::log_writer::{Operation, QUEUE_MAX, Step, Writer};
use crate::type_config::{Entry, LogId, TypeConfig, Vote};
use crate::watermark::Watermark;

/// Bytes that gather in memory before RocksDB writes a table.
const WRITE_BUFFER_BYTES: usize = 8 << 20;
/// Bytes of RocksDB's cache: reads nearly always hit our own.
const BLOCK_CACHE_BYTES: usize = 2 << 20;
/// Bytes of RocksDB's own log before it is given up.
const WAL_BYTES_MAX: u64 = 64 << 20;

/// The log of all groups of a node. Clones share it; the last one closes it.
#[derive(Clone)]
pub struct RocksLog {
    shared: Arc<Shared>,
}

struct Shared {
    db: Arc<DB>,
    queue: Option<mpsc::Sender<Operation>>,
    writer: Option<JoinHandle<()>>,
    fatal: Fatal,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn options() -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(BLOCK_CACHE_BYTES));
    table.set_format_version(5);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(2);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    // A file that is written over needs no new length, and so a shorter sync.
    options.set_recycle_log_file_num(2);
    options.set_max_background_jobs(2);
    options.set_max_open_files(64);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

impl RocksLog {
    /// Opens the log in the folder, or makes it there. Blocks.
    pub fn open(folder: &Path, fatal: Fatal) -> Result<RocksLog, LogError> {
        let disk = |reason: String| LogError::Disk { path: folder.display().to_string(), reason };
        let io_error = |error: io::Error| disk(error.to_string());
        std::fs::create_dir_all(folder).map_err(io_error)?;
        let database = folder.join("db");
        let watermark_path = folder.join("watermark");
        let exists = database.join("CURRENT").try_exists().map_err(io_error)?;
        let watermark = match Watermark::open(&watermark_path).map_err(io_error)? {
            Some(watermark) => watermark,
            None if exists => {
                return Err(LogError::Damaged("the file 'watermark' is missing".to_owned()));
            }
            None => Watermark::create(&watermark_path).map_err(io_error)?,
        };
        let acknowledged = watermark.read().map_err(io_error)?;
        let acknowledged = acknowledged
            .ok_or_else(|| LogError::Damaged("the file 'watermark' is damaged".to_owned()))?;
        let found = if exists { last_number(&database).map_err(disk)? } else { 0 };
        if found < acknowledged {
            return Err(LogError::Shorter { found, acknowledged });
        }
        let db = DB::open(&options(), &database).map_err(|error| disk(error.to_string()))?;
        if db.latest_sequence_number() < acknowledged {
            return Err(LogError::Shorter { found: db.latest_sequence_number(), acknowledged });
        }
        RocksLog::start(Arc::new(db), watermark, fatal).map_err(io_error)
    }

    fn start(db: Arc<DB>, watermark: Watermark, fatal: Fatal) -> io::Result<RocksLog> {
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let writer = Writer { db: Arc::clone(&db), watermark, queue, fatal: fatal.clone() };
        let writer =
            std::thread::Builder::new().name("raft-log".to_owned()).spawn(|| writer.run())?;
        let shared = Shared { db, queue: Some(sender), writer: Some(writer), fatal };
        Ok(RocksLog { shared: Arc::new(shared) })
    }

    /// The log of one group, read and verified whole. Blocks. One view of a group at a time.
    pub fn group(&self, group: GroupId) -> Result<RocksGroupLog, LogError> {
        let tail = self.load(group)?;
        let tail = Arc::new(Mutex::new(tail));
        Ok(RocksGroupLog { group, shared: Arc::clone(&self.shared), tail })
    }

    fn mark<T>(
        &self,
        group: GroupId,
        kind: Kind,
        decode: impl Fn(&[u8]) -> Result<T, LogError>,
    ) -> Result<Option<T>, LogError> {
        let record = self.shared.db.get_pinned(log_record::key(group, kind));
        let record = record.map_err(|error| LogError::Damaged(error.to_string()))?;
        record.map(|record| decode(&record)).transpose()
    }

    fn load(&self, group: GroupId) -> Result<Tail, LogError> {
        let mut tail = Tail::default();
        tail.vote = self.mark(group, Kind::Vote, log_record::decode_vote)?;
        tail.committed = self.mark(group, Kind::Committed, log_record::decode_position)?;
        tail.purged = self.mark(group, Kind::Purged, log_record::decode_position)?;
        tail.last = tail.purged;
        scan(&self.shared.db, group, tail.next(), u64::MAX, |entry| {
            let next = entry.log_id.index + 1;
            tail.append(&[entry]).map_err(|error| LogError::Damaged(error.to_string()))?;
            tail.synced(0, next);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(tail)
    }
}

/// The number of the last write in a database, found without changing anything in it.
fn last_number(database: &Path) -> Result<u64, String> {
    let mut options = options();
    options.create_if_missing(false);
    let db = DB::open_for_read_only(&options, database, false);
    Ok(db.map_err(|error| error.to_string())?.latest_sequence_number())
}

/// Visits the entries of a group from `start` to `end` (excluded), until a visit breaks off.
fn scan(
    db: &DB,
    group: GroupId,
    start: u64,
    end: u64,
    mut visit: impl FnMut(Entry) -> Result<ControlFlow<()>, LogError>,
) -> Result<(), LogError> {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(log_record::entry_key(group, start));
    options.set_iterate_upper_bound(log_record::entry_key(group, end));
    for record in db.iterator_opt(IteratorMode::Start, options) {
        let (key, record) = record.map_err(|error| LogError::Damaged(error.to_string()))?;
        let entry = log_record::decode_entry(&record)?;
        if log_record::entry_index(&key) != Some(entry.log_id.index) {
            return Err(LogError::Damaged(format!("entry {} is misplaced", entry.log_id)));
        }
        if visit(entry)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// The log of one group. Clones share it.
#[derive(Clone)]
pub struct RocksGroupLog {
    group: GroupId,
    shared: Arc<Shared>,
    tail: Arc<Mutex<Tail>>,
}

impl RocksGroupLog {
    /// The last entry.
    pub fn last(&self) -> Option<LogPosition> {
        self.tail.lock().last.as_ref().map(convert::position)
    }

    /// Whether the log knows of a vote: then this node may have granted a lease before.
    pub fn has_voted(&self) -> bool {
        self.tail.lock().vote.is_some()
    }

    async fn send(&self, step: Step) -> io::Result<()> {
        let closed = || io::Error::other("the log is closed");
        let queue = self.shared.queue.as_ref().ok_or_else(closed)?;
        queue.send(Operation { group: self.group, step }).await.map_err(|_| closed())
    }

    async fn send_and_wait(
        &self,
        step: impl FnOnce(crate::log_writer::Done) -> Step,
    ) -> io::Result<()> {
        let (done, result) = oneshot::channel();
        self.send(step(done)).await?;
        result.await.map_err(|_| io::Error::other("the log is closed"))?
    }

    /// Reads entries from disk, until there are `bytes_max` bytes of them.
    async fn read_disk(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let (db, group) = (Arc::clone(&self.shared.db), self.group);
        let read = move || {
            let (mut entries, mut bytes) = (Vec::new(), 0);
            scan(&db, group, start, end, |entry| {
                bytes += entry_bytes(&entry);
                entries.push(entry);
                let full = bytes >= bytes_max;
                Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            Ok::<_, LogError>(entries)
        };
        let result = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?;
        result.map_err(|error| {
            self.shared.fatal.report(format!("the log could not be read: {error}"));
            error.into()
        })
    }

    /// Reads entries; the first ones of the range, if there are more than `bytes_max` bytes.
    async fn read(&self, range: impl RangeBounds<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        loop {
            let (plan, marks) = {
                let tail = self.tail.lock();
                (tail.plan(&range), (tail.generation, tail.purged))
            };
            if plan.start == plan.disk_end {
                return Ok(plan.cached);
            }
            let mut entries = self.read_disk(plan.start, plan.disk_end, bytes_max).await?;
            let got = plan.start + entries.len() as u64;
            let full = entries.iter().map(entry_bytes).sum::<usize>() >= bytes_max;
            if is_contiguous(&entries, plan.start, got) && (full || got == plan.disk_end) {
                if got == plan.disk_end {
                    entries.extend(plan.cached);
                }
                return Ok(entries);
            }
            // Entries are missing: they were removed in the meantime, or the log is damaged.
            let tail = self.tail.lock();
            if (tail.generation, tail.purged) == marks {
                let reason = format!(
                    "entries of group {} are missing between {} and {}",
                    self.group, plan.start, plan.disk_end
                );
                self.shared.fatal.report(reason.clone());
                return Err(io::Error::other(reason));
            }
        }
    }
}

impl RaftLogReader<TypeConfig> for RocksGroupLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(range, usize::MAX).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.tail.lock().vote)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        let mut entries = self.read(start..end, limits::APPEND_BYTES_MAX).await?;
        cut_to_bytes(&mut entries, limits::APPEND_BYTES_MAX);
        Ok(entries)
    }
}

impl RaftLogStorage<TypeConfig> for RocksGroupLog {
    type LogReader = RocksGroupLog;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        Ok(self.tail.lock().log_state())
    }

    async fn get_log_reader(&mut self) -> RocksGroupLog {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let record = log_record::encode_vote(vote);
        self.send_and_wait(|done| Step::Vote { record, done }).await?;
        self.tail.lock().vote = Some(*vote);
        Ok(())
    }

    // Goes to disk with the next entries: it only shortens a start, and is not worth a write.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.tail.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.tail.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let encoded = |entry: &Entry| (entry.log_id.index, log_record::encode_entry(entry));
        let records = entries.iter().map(encoded).collect();
        let (generation, next, committed) = {
            let mut tail = self.tail.lock();
            tail.append(&entries)?;
            (tail.generation, tail.next(), tail.committed)
        };
        let tail = Arc::clone(&self.tail);
        let committed = committed.as_ref().map(log_record::encode_position);
        self.send(Step::Append { tail, generation, next, records, committed, done }).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.as_ref().map_or(0, |last| last.index + 1);
        self.tail.lock().truncate(from, last);
        self.send_and_wait(|done| Step::Truncate { from, done }).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.tail.lock().purge(upto);
        let record = log_record::encode_position(&upto);
        self.send(Step::Purge { upto: upto.index, record }).await
    }
}
