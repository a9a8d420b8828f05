//! The state of the ministries and of the government, in RocksDB.
//!
//! The state machines of a node use it through [`ministry_types::kv::Kv`]; the keys of different
//! ministries differ in their beginning, so that all share one database and one flush.
//!
//! What must always hold: there is one column family and no write-ahead log. Batches fill one
//! table in memory at a time and tables are flushed in order, so that what a crash leaves is the
//! state after some beginning of the row of batches, and at least after the last [`Kv::flush`].
//! The Raft log, which is synced, is purged only below what is flushed and brings back the rest.
//!
//! When it fails: every error names the folder, and is passed up. RocksDB turns read-only after a
//! failed write of its own; the node steps aside.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ministry_types::kv::{Batch, Kv, KvError, KvRead, Step, Visit};
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DB, DBCompressionType, ErrorKind, FlushOptions,
    Options, ReadOptions, Snapshot, WriteBatch, WriteOptions,
};

/// Bytes of a table in memory, of which [`WRITE_BUFFERS`] may exist: a node has tens of mebibytes
/// for its state, and a small table makes a small flush.
const WRITE_BUFFER_BYTES: usize = 8 << 20;
const WRITE_BUFFERS: i32 = 2;
/// Bytes of blocks, indexes and filters that are kept in memory.
const CACHE_BYTES: usize = 16 << 20;
/// Table files that are kept open.
const OPEN_FILES_MAX: i32 = 128;

/// See the module. Clones share the database.
#[derive(Clone)]
pub struct RocksKv {
    store: Arc<Store>,
}

struct Store {
    db: DB,
    folder: PathBuf,
}

impl Store {
    fn failed(&self, action: &str, error: &rocksdb::Error) -> KvError {
        KvError(format!("cannot {action} the state in {}: {error}", self.folder.display()))
    }

    fn get(&self, key: &[u8], options: &ReadOptions) -> Result<Option<Vec<u8>>, KvError> {
        self.db.get_opt(key, options).map_err(|error| self.failed("read", &error))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        mut options: ReadOptions,
        visit: Visit<'_>,
    ) -> Result<(), KvError> {
        if from >= to {
            return Ok(());
        }
        options.set_iterate_upper_bound(to);
        let mut records = self.db.raw_iterator_opt(options);
        records.seek(from);
        while let Some((key, value)) = records.item() {
            if let ControlFlow::Break(()) = visit(key, value) {
                return Ok(());
            }
            records.next();
        }
        // An iterator ends also where it meets damage.
        records.status().map_err(|error| self.failed("read", &error))
    }
}

fn options() -> Options {
    let mut tables = BlockBasedOptions::default();
    tables.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
    tables.set_cache_index_and_filter_blocks(true);
    tables.set_pin_l0_filter_and_index_blocks_in_cache(true);
    tables.set_bloom_filter(10.0, false);
    // In parts of a block each. Whole, the filter of a file with some hundred thousand records is
    // larger than a shard of the cache, is never kept, and is read anew for every look.
    tables.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    tables.set_partition_filters(true);
    tables.set_pin_top_level_index_and_filter(true);
    tables.set_format_version(5);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&tables);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(WRITE_BUFFERS);
    // Every other look is for what is not there: a name or a number that is about to be made.
    options.set_memtable_prefix_bloom_ratio(0.05);
    options.set_memtable_whole_key_filtering(true);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_paranoid_checks(true);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_max_background_jobs(2);
    options.set_level_compaction_dynamic_level_bytes(true);
    // A flush and a compaction do not push megabytes at the disk in one go, where the log's syncs
    // would wait behind them.
    options.set_bytes_per_sync(1 << 20);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_stats_dump_period_sec(0);
    options
}

impl RocksKv {
    /// Opens the state in `folder`, made if there is none.
    pub fn open(folder: &Path) -> Result<RocksKv, KvError> {
        let db = DB::open(&options(), folder).map_err(|error| {
            KvError(format!("cannot open the state in {}: {error}", folder.display()))
        })?;
        Ok(RocksKv { store: Arc::new(Store { db, folder: folder.to_owned() }) })
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.store.folder
    }
}

impl fmt::Debug for RocksKv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RocksKv({})", self.store.folder.display())
    }
}

impl KvRead for RocksKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.store.get(key, &ReadOptions::default())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), KvError> {
        self.store.scan(from, to, ReadOptions::default(), visit)
    }
}

fn write_batch(batch: &Batch) -> WriteBatch {
    let mut steps = WriteBatch::default();
    for step in &batch.steps {
        match step {
            Step::Put(key, value) => steps.put(key, value),
            Step::Delete(key) => steps.delete(key),
            Step::DeleteRange(from, to) if from < to => {
                steps.delete_range(from.as_slice(), to.as_slice());
            }
            Step::DeleteRange(..) => {}
        }
    }
    steps
}

impl Kv for RocksKv {
    fn write(&self, batch: Batch) -> Result<(), KvError> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        let written = self.store.db.write_opt(write_batch(&batch), &options);
        written.map_err(|error| self.store.failed("write", &error))
    }

    /// Into the table in memory, unless that is full and the one before not yet flushed.
    fn write_at_once(&self, batch: &Batch) -> Result<bool, KvError> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        options.set_no_slowdown(true);
        match self.store.db.write_opt(write_batch(batch), &options) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Incomplete => Ok(false),
            Err(error) => Err(self.store.failed("write", &error)),
        }
    }

    fn flush(&self) -> Result<(), KvError> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.store.db.flush_opt(&options).map_err(|error| self.store.failed("flush", &error))
    }

    fn view(&self) -> Box<dyn KvRead + Send> {
        Box::new(View::new(Arc::clone(&self.store)))
    }
}

/// An unchanging view, which keeps the database open.
struct View {
    snapshot: ManuallyDrop<Snapshot<'static>>,
    store: Arc<Store>,
}

impl View {
    fn new(store: Arc<Store>) -> View {
        let snapshot = store.db.snapshot();
        // SAFETY: the snapshot borrows `store.db`, which lies behind the `Arc` that this value
        // holds, so it stays where it is, and alive, until the snapshot is dropped: `drop` below
        // drops the snapshot while `store` still is there. The lifetime does not leave the type.
        let snapshot = unsafe { std::mem::transmute::<Snapshot<'_>, Snapshot<'static>>(snapshot) };
        View { snapshot: ManuallyDrop::new(snapshot), store }
    }

    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&*self.snapshot);
        options
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: dropped here and nowhere else, and not used after; fields are dropped later.
        unsafe { ManuallyDrop::drop(&mut self.snapshot) }
    }
}

impl KvRead for View {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.store.get(key, &self.options())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), KvError> {
        // A view is read from end to end for a snapshot: that must not push out of the cache what
        // requests use.
        let mut options = self.options();
        options.fill_cache(false);
        self.store.scan(from, to, options, visit)
    }
}

#[cfg(test)]
mod tests {
    use ministry_types::kv::MemoryKv;
    use proptest::prelude::*;
    use rocksdb::perf::{PerfContext, PerfMetric, PerfStatsLevel, set_perf_stats};

    use super::*;

    fn all(kv: &dyn KvRead) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut records = Vec::new();
        kv.scan(&[], &[0xff; 8], &mut |key, value| {
            records.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
        records
    }

    fn put(kv: &dyn Kv, key: &[u8], value: &[u8]) {
        let mut batch = Batch::default();
        batch.put(key.to_vec(), value.to_vec());
        kv.write(batch).unwrap();
    }

    /// What the disk holds while the database is open: what a crash leaves.
    fn crashed_copy(kv: &RocksKv) -> (tempfile::TempDir, RocksKv) {
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(kv.folder()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != "LOCK" {
                std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
            }
        }
        let kv = RocksKv::open(copy.path()).unwrap();
        (copy, kv)
    }

    /// What is read of files for a look must not grow with the number of records.
    #[test]
    fn a_look_among_very_many_records_reads_a_few_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let kv = RocksKv::open(folder.path()).unwrap();
        let key = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        let records = 1_000_000;
        for first in (0..records).step_by(1000) {
            let mut batch = Batch::default();
            (first..first + 1000).for_each(|number| batch.put(key(number).to_vec(), vec![7; 40]));
            kv.write(batch).unwrap();
        }
        kv.flush().unwrap();
        kv.store.db.compact_range(None::<&[u8]>, None::<&[u8]>);
        let looks = 1000;
        let mut counted = PerfContext::default();
        set_perf_stats(PerfStatsLevel::EnableCount);
        counted.reset();
        for look in 0..looks {
            assert!(kv.get(&key(look * (records / looks))).unwrap().is_some());
            assert!(kv.get(&key(records + look)).unwrap().is_none());
        }
        let read = counted.metric(PerfMetric::BlockReadByte) / looks;
        set_perf_stats(PerfStatsLevel::Disable);
        assert!(read < 32 << 10, "{read} bytes for one that is there and one that is not");
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = || proptest::collection::vec(0u8..4, 0..3);
        prop_oneof![
            4 => (key(), proptest::collection::vec(any::<u8>(), 0..4))
                .prop_map(|(key, value)| Step::Put(key, value)),
            2 => key().prop_map(Step::Delete),
            1 => (key(), key()).prop_map(|(a, b)| {
                let (from, to) = if a <= b { (a, b) } else { (b, a) };
                Step::DeleteRange(from, to)
            }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn it_holds_what_the_map_in_memory_holds(
            batches in proptest::collection::vec(
                (proptest::collection::vec(step(), 0..6), any::<bool>()), 1..40)
        ) {
            let folder = tempfile::tempdir().unwrap();
            let (rocks, memory) = (RocksKv::open(folder.path()).unwrap(), MemoryKv::default());
            let mut views = Vec::new();
            for (steps, flush) in batches {
                rocks.write(Batch { steps: steps.clone() }).unwrap();
                memory.write(Batch { steps }).unwrap();
                if flush {
                    rocks.flush().unwrap();
                    views.push((rocks.view(), memory.view()));
                }
                prop_assert_eq!(all(&rocks), all(&memory));
                for key in [&[][..], &[1], &[1, 2]] {
                    prop_assert_eq!(rocks.get(key).unwrap(), memory.get(key).unwrap());
                }
            }
            for (rocks, memory) in &views {
                prop_assert_eq!(all(&**rocks), all(&**memory));
            }
        }
    }

    #[test]
    fn a_crash_leaves_a_beginning_of_the_batches_with_all_that_was_flushed() {
        let folder = tempfile::tempdir().unwrap();
        let kv = RocksKv::open(folder.path()).unwrap();
        let pad = vec![7; 32 << 10];
        // Batch `n` holds two records, so that half of one would be seen; enough of them fill a
        // table in memory, which RocksDB flushes by itself.
        let flushed = 100u32;
        for number in 0..500u32 {
            let mut batch = Batch::default();
            batch.put([&[1], &number.to_be_bytes()[..]].concat(), pad.clone());
            batch.put([&[2], &number.to_be_bytes()[..]].concat(), Vec::new());
            kv.write(batch).unwrap();
            if number + 1 == flushed {
                kv.flush().unwrap();
            }
        }
        let (_copy, kv) = crashed_copy(&kv);
        let records = all(&kv);
        let count = (records.len() / 2) as u32;
        assert!(count >= flushed && records.len().is_multiple_of(2), "{} records", records.len());
        let keys: Vec<Vec<u8>> = records.into_iter().map(|(key, _)| key).collect();
        let wanted: Vec<Vec<u8>> = [1u8, 2]
            .into_iter()
            .flat_map(|first| (0..count).map(move |n| [&[first], &n.to_be_bytes()[..]].concat()))
            .collect();
        assert_eq!(keys, wanted);
    }

    #[test]
    fn a_view_outlives_the_store_and_errors_name_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let kv = RocksKv::open(folder.path()).unwrap();
        put(&kv, b"a", b"1");
        let view = kv.view();
        put(&kv, b"a", b"2");
        let error = RocksKv::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&folder.path().display().to_string()), "{error}");
        drop(kv);
        assert_eq!(view.get(b"a").unwrap(), Some(b"1".to_vec()));
    }

    #[test]
    fn a_damaged_table_is_an_error_and_not_an_absence() {
        let folder = tempfile::tempdir().unwrap();
        {
            let kv = RocksKv::open(folder.path()).unwrap();
            (0..1000u32).for_each(|n| put(&kv, &n.to_be_bytes(), &[n as u8; 100]));
            kv.flush().unwrap();
        }
        let entries = std::fs::read_dir(folder.path()).unwrap();
        let table = entries
            .map(|entry| entry.unwrap().path())
            .find(|path| path.extension().is_some_and(|ending| ending == "sst"))
            .unwrap();
        let mut bytes = std::fs::read(&table).unwrap();
        bytes[100] ^= 1;
        std::fs::write(&table, bytes).unwrap();
        let read = RocksKv::open(folder.path())
            .and_then(|kv| kv.scan(&[], &[0xff], &mut |_, _| ControlFlow::Continue(())));
        assert!(read.is_err());
    }
}
