//! Both logs against openraft's own suite, and the log on disk against damage.

mod common;

use std::fs;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::List;
use ministry_raft::suite::{Commands, Machine, MemoryGroupLog, RocksGroupLog, TypeConfig};
use ministry_raft::{Fatal, LogError, MemoryLog, MemorySpool, RocksLog};
use ministry_types::GroupId;
use openraft::alias::{EntryOf, LogIdOf, VoteOf};
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, StorageError};
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;
use tempfile::TempDir;

const GROUP: GroupId = GroupId(5);

fn machine() -> Machine {
    let spool = Arc::new(MemorySpool::default());
    Machine::new(GROUP, Arc::new(List::default()), spool, false, Fatal::new())
}

struct OnDisk;

impl StoreBuilder<TypeConfig, RocksGroupLog, Machine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, RocksGroupLog, Machine), StorageError<TypeConfig>> {
        let folder = tempfile::tempdir().unwrap();
        let log = RocksLog::open(folder.path(), Fatal::new()).unwrap();
        Ok((folder, log.group(GROUP).unwrap(), machine()))
    }
}

struct InMemory(Duration);

impl StoreBuilder<TypeConfig, MemoryGroupLog, Machine, ()> for InMemory {
    async fn build(&self) -> Result<((), MemoryGroupLog, Machine), StorageError<TypeConfig>> {
        Ok(((), MemoryLog::new(self.0).group(GROUP), machine()))
    }
}

fn seeded<F: Future>(test: F) -> impl Future<Output = F::Output> {
    DeterministicRng::<TokioRuntime>::scope(1, test)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_on_disk_is_a_log_to_openraft() {
    seeded(Suite::test_all(OnDisk)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_log_in_memory_is_a_log_to_openraft() {
    seeded(Suite::test_all(InMemory(Duration::ZERO))).await.unwrap();
    seeded(Suite::test_all(InMemory(Duration::from_millis(1)))).await.unwrap();
}

fn log_id(term: u64, index: u64) -> LogIdOf<TypeConfig> {
    let leader_id = openraft::impls::leader_id_adv::LeaderId { term, node_id: 1.into() };
    openraft::LogId { leader_id, index }
}

fn entries(term: u64, range: std::ops::Range<u64>, bytes: usize) -> Vec<EntryOf<TypeConfig>> {
    let entry = |index| {
        let commands = Commands(vec![vec![index as u8; bytes].into()]);
        openraft::Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(commands) }
    };
    range.map(entry).collect()
}

async fn read(log: &mut RocksGroupLog, range: std::ops::Range<u64>) -> Vec<EntryOf<TypeConfig>> {
    log.try_get_log_entries(range).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_synced_is_there_after_a_restart_also_of_groups_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let vote = VoteOf::<TypeConfig>::new(7, 3.into());
    {
        let log = RocksLog::open(folder.path(), Fatal::new()).unwrap();
        for group in 0..3 {
            let mut log = log.group(GroupId(group)).unwrap();
            log.save_vote(&vote).await.unwrap();
            log.blocking_append(entries(1, 0..3000, 1000)).await.unwrap();
            log.truncate_after(Some(log_id(1, 2899))).await.unwrap();
            log.blocking_append(entries(2, 2900..3100 + group, 10)).await.unwrap();
            log.save_committed(Some(log_id(2, 3000))).await.unwrap();
            log.purge(log_id(1, 99)).await.unwrap();
            log.blocking_append(entries(2, 3100 + group..3101 + group, 10)).await.unwrap();
        }
    }
    let log = RocksLog::open(folder.path(), Fatal::new()).unwrap();
    for group in 0..3 {
        let mut log = log.group(GroupId(group)).unwrap();
        assert_eq!(log.read_vote().await.unwrap(), Some(vote));
        assert_eq!(log.read_committed().await.unwrap(), Some(log_id(2, 3000)));
        let state = log.get_log_state().await.unwrap();
        assert_eq!(state.last_purged_log_id, Some(log_id(1, 99)));
        assert_eq!(state.last_log_id, Some(log_id(2, 3100 + group)));
        let mut expected = entries(1, 100..2900, 1000);
        expected.extend(entries(2, 2900..3101 + group, 10));
        assert_eq!(read(&mut log, 0..9999).await, expected);
        assert_eq!(read(&mut log, 150..160).await, entries(1, 150..160, 1000));
        assert_eq!(read(&mut log, 2890..2910).await, expected[2790..2810]);
    }
    let none = log.group(GroupId(77)).unwrap().get_log_state().await.unwrap();
    assert_eq!(none.last_log_id, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_to_a_member_that_is_behind_is_cut_to_the_size_of_a_message() {
    let folder = tempfile::tempdir().unwrap();
    let log = RocksLog::open(folder.path(), Fatal::new()).unwrap();
    let mut log = log.group(GROUP).unwrap();
    log.blocking_append(entries(1, 0..100, 200_000)).await.unwrap();
    for start in [0, 50, 95] {
        let entries = log.limited_get_log_entries(start, 100).await.unwrap();
        assert_eq!(entries.first().unwrap().log_id.index, start);
        assert!((5..=21).contains(&entries.len()), "{} from {start}", entries.len());
    }
}

fn wal_files(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder.join("db")).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension() == Some("log".as_ref())).collect();
    files.sort();
    files
}

/// Copies the files of a log while it is open: what a killed process leaves behind.
fn copy_of_killed(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("db")).unwrap();
    fs::copy(folder.join("watermark"), copy.path().join("watermark")).unwrap();
    for file in fs::read_dir(folder.join("db")).unwrap() {
        let file = file.unwrap();
        if file.file_name() != "LOCK" {
            fs::copy(file.path(), copy.path().join("db").join(file.file_name())).unwrap();
        }
    }
    copy
}

async fn filled(folder: &Path) -> RocksLog {
    let log = RocksLog::open(folder, Fatal::new()).unwrap();
    let mut group = log.group(GROUP).unwrap();
    for index in 0..50 {
        group.blocking_append(entries(1, index..index + 1, 100)).await.unwrap();
    }
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let log = filled(folder.path()).await;
    let copy = copy_of_killed(folder.path());
    drop(log);
    let log = RocksLog::open(copy.path(), Fatal::new()).unwrap();
    let mut log = log.group(GROUP).unwrap();
    assert_eq!(read(&mut log, 0..100).await, entries(1, 0..50, 100));
}

/// Entries of one append of the process that is killed, and their size.
const KILLED_ENTRIES: u64 = 10;
const KILLED_BYTES: usize = 100_000;

/// Not a test: the process that the next test kills. Says what was acknowledged.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by another test"]
async fn a_process_to_be_killed() {
    let Some(folder) = std::env::var_os("MINISTRY_TEST_FOLDER") else { return };
    let log = RocksLog::open(Path::new(&folder), Fatal::new()).unwrap();
    let mut log = log.group(GROUP).unwrap();
    let mut next = log.last().map_or(0, |last| last.index.0 + 1);
    loop {
        log.blocking_append(entries(1, next..next + KILLED_ENTRIES, KILLED_BYTES)).await.unwrap();
        next += KILLED_ENTRIES;
        println!("acknowledged {next}");
        if next > 100 {
            log.purge(log_id(1, next - 100)).await.unwrap();
        }
    }
}

/// It writes so much that RocksDB uses its files again, where what was there before must not
/// come back.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_while_it_writes_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    for round in 1..6 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_process_to_be_killed", "--ignored", "--nocapture"])
            .env("MINISTRY_TEST_FOLDER", folder.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let acknowledged = |line: std::io::Result<String>| {
            line.unwrap().strip_prefix("acknowledged ")?.parse::<u64>().ok()
        };
        let acknowledged = lines.filter_map(acknowledged).nth(17 * round).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let log = RocksLog::open(folder.path(), Fatal::new()).unwrap();
        let mut log = log.group(GROUP).unwrap();
        let last = log.last().unwrap().index.0;
        assert!(last + 1 >= acknowledged, "{last} of {acknowledged}");
        let first = log.get_log_state().await.unwrap().last_purged_log_id.unwrap().index + 1;
        let expected = entries(1, first..last + 1, KILLED_BYTES);
        assert_eq!(read(&mut log, 0..u64::MAX).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_or_damaged_log_never_silently_starts_shorter() {
    let folder = tempfile::tempdir().unwrap();
    let log = filled(folder.path()).await;
    let copy = || copy_of_killed(folder.path());

    let truncated = copy();
    let wal = wal_files(truncated.path()).pop().unwrap();
    let content = fs::read(&wal).unwrap();
    let used = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    fs::write(&wal, &content[..used - 60]).unwrap();
    for _ in 0..2 {
        let error = RocksLog::open(truncated.path(), Fatal::new()).err().unwrap();
        assert!(matches!(error, LogError::Shorter { .. }), "{error}");
        assert_eq!(fs::read(&wal).unwrap(), content[..used - 60], "nothing was changed");
    }

    for place in [used / 3, used - 20] {
        let damaged = copy();
        let wal = wal_files(damaged.path()).pop().unwrap();
        let mut content = content.clone();
        content[place] ^= 0x10;
        fs::write(&wal, &content).unwrap();
        let error = RocksLog::open(damaged.path(), Fatal::new()).err().unwrap();
        assert!(matches!(error, LogError::Shorter { .. }), "{error}");
    }

    let emptied = copy();
    fs::remove_dir_all(emptied.path().join("db")).unwrap();
    let error = RocksLog::open(emptied.path(), Fatal::new()).err().unwrap();
    assert!(matches!(error, LogError::Shorter { found: 0, .. }), "{error}");

    let unmarked = copy();
    fs::remove_file(unmarked.path().join("watermark")).unwrap();
    let error = RocksLog::open(unmarked.path(), Fatal::new()).err().unwrap();
    assert!(matches!(error, LogError::Damaged(_)), "{error}");
    drop(log);
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_memory_cuts_back_to_what_was_synced() {
    seeded(async {
        let log = MemoryLog::new(Duration::from_millis(5));
        let mut group = log.group(GROUP);
        group.blocking_append(entries(1, 0..10, 1)).await.unwrap();
        let done = openraft::storage::IOFlushed::noop();
        group.append(entries(1, 10..20, 1), done).await.unwrap();
        assert_eq!(group.last().unwrap().index.0, 19, "readable at once");
        log.crash();
        assert_eq!(group.last().unwrap().index.0, 9);
    })
    .await;
}
