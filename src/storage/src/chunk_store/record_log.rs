//! A small log of fixed-size records, synced before an append returns.
//!
//! The intents and the tombstones of the chunk store are kept in it. Appends of several threads
//! share one write and one sync. The log is made anew by writing another file beside it and
//! renaming that over it.
//!
//! What must always hold: a record whose append returned `Ok` is on stable storage. A record that
//! was being appended when the power went may be there or not; one that is torn fails its
//! checksum. A failed sync is final for the process.
//!
//! Records that fail their checksum are left out when the log is opened, also in the middle, since
//! the parts of one append reach the disk in any order. What a *lost* record means is said by the
//! two users: each is safe without it, though not as good.

use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::ChunkError;
use crate::disk::{Disk, DiskFile, folder_of};

/// Three numbers; their meaning is the user's.
pub(super) type Record = [u64; 3];

const RECORD_BYTES: usize = 32;
const FORMAT: u64 = 1;

type Outcome = Arc<OnceLock<Result<(), ChunkError>>>;

/// See the module.
#[derive(Debug)]
pub(super) struct RecordLog {
    disk: Arc<dyn Disk>,
    path: &'static str,
    /// Mixed into every checksum, so that a record of another log is never taken for one.
    kind: u32,
    state: Mutex<State>,
    free: Condvar,
}

#[derive(Debug)]
struct State {
    file: Arc<dyn DiskFile>,
    end: u64,
    /// Records that wait for the next write, and who waits for them.
    pending: Vec<u8>,
    waiting: Vec<Outcome>,
    /// A thread writes or replaces the file.
    busy: bool,
    fatal: Option<ChunkError>,
}

fn encode(kind: u32, record: &Record) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    let (words, _) = bytes.as_chunks_mut::<8>();
    for (word, number) in words.iter_mut().zip(record) {
        *word = number.to_le_bytes();
    }
    let check = crc32c::crc32c_append(kind, &bytes[..24]);
    bytes[24..28].copy_from_slice(&check.to_le_bytes());
    bytes
}

fn decode(kind: u32, bytes: &[u8; RECORD_BYTES]) -> Option<Record> {
    let (words, _) = bytes.as_chunks::<8>();
    let mut record = [0; 3];
    for (number, word) in record.iter_mut().zip(words) {
        *number = u64::from_le_bytes(*word);
    }
    (encode(kind, &record) == *bytes).then_some(record)
}

impl RecordLog {
    /// Opens the log, made if there is none, with the records in it.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        path: &'static str,
        kind: u32,
    ) -> Result<(RecordLog, Vec<Record>), ChunkError> {
        let file = match disk.open(path, false).map_err(ChunkError::from_io("open", path))? {
            Some(file) => file,
            None => replace(&*disk, path, kind, &[])?,
        };
        let records = read_all(&*file, path, kind)?;
        let end = file.size().map_err(ChunkError::from_io("look at", path))?;
        // A torn record at the end is written over.
        let end = end - end % RECORD_BYTES as u64;
        let state =
            State { file, end, pending: Vec::new(), waiting: Vec::new(), busy: false, fatal: None };
        let log = RecordLog { disk, path, kind, state: Mutex::new(state), free: Condvar::new() };
        Ok((log, records))
    }

    /// Appends records and returns when they are on stable storage.
    pub(super) fn append(&self, records: &[Record]) -> Result<(), ChunkError> {
        let mut state = self.state.lock();
        for record in records {
            state.pending.extend_from_slice(&encode(self.kind, record));
        }
        let outcome = Outcome::default();
        state.waiting.push(Arc::clone(&outcome));
        loop {
            if let Some(result) = outcome.get() {
                return result.clone();
            }
            if state.busy {
                self.free.wait(&mut state);
            } else {
                self.write_pending(&mut state);
            }
        }
    }

    fn write_pending(&self, state: &mut MutexGuard<'_, State>) {
        let bytes = std::mem::take(&mut state.pending);
        let waiting = std::mem::take(&mut state.waiting);
        let result = match &state.fatal {
            Some(fatal) => Err(fatal.clone()),
            None => {
                state.busy = true;
                let (file, end) = (Arc::clone(&state.file), state.end);
                let result =
                    MutexGuard::unlocked(state, || write_synced(&*file, self.path, end, &bytes));
                state.busy = false;
                result
            }
        };
        match &result {
            Ok(()) => state.end += bytes.len() as u64,
            Err(error @ ChunkError::Fatal(_)) => state.fatal = Some(error.clone()),
            Err(_) => {}
        }
        for outcome in waiting {
            // Each outcome is set by the one thread that took it out of the queue.
            let _ = outcome.set(result.clone());
        }
        self.free.notify_all();
    }

    /// Bytes of the log.
    pub(super) fn bytes(&self) -> u64 {
        self.state.lock().end
    }

    /// Replaces all records. `records` is asked once no append is being written; appends that come
    /// later go to the new file.
    pub(super) fn rewrite(&self, records: impl FnOnce() -> Vec<Record>) -> Result<(), ChunkError> {
        let mut state = self.state.lock();
        while state.busy {
            self.free.wait(&mut state);
        }
        if let Some(fatal) = &state.fatal {
            return Err(fatal.clone());
        }
        state.busy = true;
        let result = MutexGuard::unlocked(&mut state, || {
            let records = records();
            let end = ((records.len() + 1) * RECORD_BYTES) as u64;
            replace(&*self.disk, self.path, self.kind, &records).map(|file| (file, end))
        });
        state.busy = false;
        let result = match result {
            Ok((file, end)) => {
                state.file = file;
                state.end = end;
                Ok(())
            }
            Err(error) => {
                if matches!(error, ChunkError::Fatal(_)) {
                    state.fatal = Some(error.clone());
                }
                Err(error)
            }
        };
        self.free.notify_all();
        result
    }
}

fn write_synced(file: &dyn DiskFile, path: &str, end: u64, bytes: &[u8]) -> Result<(), ChunkError> {
    file.write_at(bytes, end).map_err(|failure| ChunkError::io("write", path, &failure.error))?;
    file.sync().map_err(|error| ChunkError::sync(path, &error))
}

/// Writes a new file with these records and puts it in the place of the old one.
fn replace(
    disk: &dyn Disk,
    path: &str,
    kind: u32,
    records: &[Record],
) -> Result<Arc<dyn DiskFile>, ChunkError> {
    let new_path = format!("{path}.new");
    let file = disk
        .open(&new_path, true)
        .map_err(ChunkError::from_io("open", &new_path))?
        .ok_or_else(|| ChunkError::Io(format!("{new_path} could not be made")))?;
    file.set_size(0).map_err(ChunkError::from_io("cut", &new_path))?;
    let mut bytes = Vec::with_capacity((records.len() + 1) * RECORD_BYTES);
    bytes.extend_from_slice(&encode(kind, &[FORMAT, 0, 0]));
    for record in records {
        bytes.extend_from_slice(&encode(kind, record));
    }
    write_synced(&*file, &new_path, 0, &bytes)?;
    disk.rename(&new_path, path).map_err(ChunkError::from_io("rename", &new_path))?;
    disk.sync_dir(folder_of(path)).map_err(|error| ChunkError::sync(path, &error))?;
    Ok(file)
}

fn read_all(file: &dyn DiskFile, path: &str, kind: u32) -> Result<Vec<Record>, ChunkError> {
    let size = file.size().map_err(ChunkError::from_io("look at", path))?;
    let size = usize::try_from(size)
        .map_err(|_| ChunkError::DamagedStore(format!("{path} has {size} bytes")))?;
    let mut bytes = Vec::new();
    file.read_into(&mut bytes, 0, size).map_err(ChunkError::from_io("read", path))?;
    let (slots, _) = bytes.as_chunks::<RECORD_BYTES>();
    // The file came into its place whole: without its first record it is not ours.
    match slots.first().and_then(|first| decode(kind, first)) {
        Some([FORMAT, 0, 0]) => {}
        Some([format, 0, 0]) => {
            return Err(ChunkError::DamagedStore(format!(
                "{path} has format {format}, newer than {FORMAT}: start a newer ministryd"
            )));
        }
        _ => {
            return Err(ChunkError::DamagedStore(format!("the first record of {path} is damaged")));
        }
    }
    let rest = slots.get(1..).unwrap_or(&[]);
    let records: Vec<Record> = rest.iter().filter_map(|slot| decode(kind, slot)).collect();
    if records.len() < rest.len() {
        let lost = rest.len() - records.len();
        tracing::warn!(path, lost, "records that were being written or are damaged are left out");
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_disk::MemoryDisk;

    #[test]
    fn appended_records_survive_a_crash_and_a_rewrite_replaces_them() {
        let disk = MemoryDisk::default();
        let open = || RecordLog::open(Arc::new(disk.clone()), "log", 7).unwrap();
        let (log, records) = open();
        assert!(records.is_empty());
        log.append(&[[1, 2, 3], [4, 5, 6]]).unwrap();
        disk.crash(Some(3));
        let (log, records) = open();
        assert_eq!(records, [[1, 2, 3], [4, 5, 6]]);
        log.rewrite(|| vec![[7, 8, 9]]).unwrap();
        log.append(&[[1, 1, 1]]).unwrap();
        disk.crash(None);
        assert_eq!(open().1, [[7, 8, 9], [1, 1, 1]]);
    }

    #[test]
    fn a_damaged_record_is_left_out_and_a_damaged_beginning_is_refused() {
        let disk = MemoryDisk::default();
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let (log, _) = RecordLog::open(Arc::clone(&shared), "log", 7).unwrap();
        log.append(&[[1, 0, 0], [2, 0, 0]]).unwrap();
        assert!(disk.damage("log", 40, 1));
        assert_eq!(RecordLog::open(Arc::clone(&shared), "log", 7).unwrap().1, [[2, 0, 0]]);
        assert!(matches!(
            RecordLog::open(Arc::clone(&shared), "log", 8),
            Err(ChunkError::DamagedStore(_))
        ));
    }

    #[test]
    fn a_failed_sync_is_final() {
        let disk = MemoryDisk::default();
        let (log, _) = RecordLog::open(Arc::new(disk.clone()), "log", 7).unwrap();
        disk.fail_syncs_after(0);
        assert!(matches!(log.append(&[[1, 0, 0]]), Err(ChunkError::Fatal(_))));
        let syncs = disk.syncs();
        assert!(matches!(log.append(&[[1, 0, 0]]), Err(ChunkError::Fatal(_))));
        assert!(matches!(log.rewrite(Vec::new), Err(ChunkError::Fatal(_))));
        assert_eq!(disk.syncs(), syncs, "never tried again");
    }

    #[test]
    fn appends_of_many_threads_share_syncs_and_all_arrive() {
        let disk = MemoryDisk::default();
        let (log, _) = RecordLog::open(Arc::new(disk.clone()), "log", 7).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let log = &log;
                scope.spawn(move || {
                    for number in 0..50 {
                        log.append(&[[thread, number, 0]]).unwrap();
                    }
                });
            }
        });
        disk.crash(None);
        assert_eq!(RecordLog::open(Arc::new(disk), "log", 7).unwrap().1.len(), 400);
    }
}
