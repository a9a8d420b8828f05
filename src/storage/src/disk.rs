//! The disk as the chunk store sees it, and the real one.
//!
//! The trait is as small as the chunk store allows, so that [`crate::memory_disk::MemoryDisk`] can
//! stand in for it in simulation and forget what was not synced. All calls block.
//!
//! What must always hold: bytes are on stable storage only after [`DiskFile::sync`] returned, and
//! a new, removed or renamed name only after [`Disk::sync_dir`] of its folder did. A caller that
//! sees either fail must not try again: the kernel may have marked clean what it could not write.
//!
//! Paths are relative to the root of the disk, with `/` between the parts.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ministry_types::limits::{DISK_RESERVE_BYTES_MAX, DISK_RESERVE_PART};
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

/// Room on the file system that holds a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes of the file system.
    pub total: u64,
    /// Bytes that are free, those kept for the super-user included.
    pub free: u64,
    /// Bytes that this process may still take.
    pub available: u64,
    /// Which device: two folders with the same number share their room.
    pub device: u64,
}

impl Usage {
    /// Bytes that file data leaves free for the logs and the state of the node.
    pub fn reserve(&self) -> u64 {
        (self.total / DISK_RESERVE_PART).min(DISK_RESERVE_BYTES_MAX)
    }

    /// Bytes that file data may still take.
    pub fn available_for_files(&self) -> u64 {
        self.available.saturating_sub(self.reserve())
    }
}

/// A folder tree on one disk.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Opens an ordinary file for reading and writing. A missing one is made when `create` is
    /// set, and is `None` otherwise.
    fn open(&self, path: &str, create: bool) -> io::Result<Option<Arc<dyn DiskFile>>>;

    /// Makes a folder; one that is there is fine.
    fn create_dir(&self, path: &str) -> io::Result<()>;

    /// Removes a file; `false` if there was none.
    fn remove(&self, path: &str) -> io::Result<bool>;

    /// Renames a file within its folder, replacing the target.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// The names in a folder, sorted; none if there is no such folder.
    fn list(&self, path: &str) -> io::Result<Vec<String>>;

    /// Whether the name is there.
    fn exists(&self, path: &str) -> io::Result<bool>;

    /// Makes the names of a folder durable. `""` is the root.
    fn sync_dir(&self, path: &str) -> io::Result<()>;

    /// Room on the file system below.
    fn usage(&self) -> io::Result<Usage>;

    /// Room for so many bytes more of file data, if the disk has it beside its reserve and what was
    /// claimed before. Bytes that are written count twice until their claim is dropped, so the last
    /// ones may be refused a little early. A program that takes room at the same moment may be
    /// faster; then the write itself fails.
    fn claim_room(&self, bytes: u64) -> io::Result<Option<RoomClaim>>;
}

/// Bytes that are about to be taken: they count as taken until this is dropped.
#[derive(Debug)]
pub struct RoomClaim {
    claimed: Arc<AtomicU64>,
    bytes: u64,
}

impl RoomClaim {
    /// One of `bytes`, if they fit into the room that is found beside what is claimed. The claim is
    /// made before the look, so that each of two at once sees the other.
    fn make(
        claimed: &Arc<AtomicU64>,
        bytes: u64,
        look: impl FnOnce() -> io::Result<u64>,
    ) -> io::Result<Option<RoomClaim>> {
        let before = claimed.fetch_add(bytes, Ordering::AcqRel);
        let claim = RoomClaim { claimed: Arc::clone(claimed), bytes };
        Ok((before.saturating_add(bytes) <= look()?).then_some(claim))
    }

    /// One on a disk without bounds.
    pub(crate) fn unbounded() -> RoomClaim {
        RoomClaim { claimed: Arc::default(), bytes: 0 }
    }
}

impl Drop for RoomClaim {
    fn drop(&mut self) {
        self.claimed.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// A write that did not get all of its bytes to the file.
#[derive(Debug)]
pub struct WriteFailure {
    /// How many bytes from the beginning were written.
    pub written: usize,
    /// Why not more.
    pub error: io::Error,
}

/// An open ordinary file, sparse where nothing was written.
pub trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// Appends `length` bytes from `offset` of the file to `buffer`; fewer only at the end of the
    /// file.
    fn read_into(&self, buffer: &mut Vec<u8>, offset: u64, length: usize) -> io::Result<()>;

    /// Writes all of `data` at `offset`.
    fn write_at(&self, data: &[u8], offset: u64) -> Result<(), WriteFailure>;

    /// The size in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Cuts or extends to a size; what is added reads as zeros.
    fn set_size(&self, size: u64) -> io::Result<()>;

    /// Keeps room for a range, so that writing there needs none; what is there stays, the rest
    /// reads as zeros. The file is at least as long as the range afterwards. After a failure a
    /// part of the range may have room.
    fn reserve(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Makes a range read as zeros and gives back what room of it can be given back. The size
    /// stays.
    fn punch(&self, offset: u64, length: u64) -> io::Result<()>;

    /// A hint that what was written to the range may go to the disk now. Waits for nothing, and
    /// promises nothing: a sync is needed as before, and says what failed.
    fn start_writing_out(&self, _offset: u64, _length: u64) {}

    /// Makes content and size durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;

    /// The first byte at or after `from` that is not in a hole; `None` if there is none.
    fn next_data(&self, from: u64) -> io::Result<Option<u64>>;

    /// Bytes that the file takes on the disk.
    fn allocated(&self) -> io::Result<u64>;
}

/// The folder of a path; `""` for a name at the root.
pub(crate) fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// A folder of the machine.
#[derive(Debug, Clone)]
pub struct RealDisk {
    root: PathBuf,
    /// Bytes that are about to be taken.
    claimed: Arc<AtomicU64>,
}

impl RealDisk {
    /// A disk whose root is `root`, which is there.
    pub fn new(root: &Path) -> RealDisk {
        RealDisk { root: root.to_owned(), claimed: Arc::default() }
    }

    fn full(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }
}

/// Room on the file system that holds `folder`, asked of the file system itself.
pub fn usage_of(folder: &Path) -> io::Result<Usage> {
    let room = rustix::fs::statvfs(folder)?;
    let device = rustix::fs::stat(folder)?.st_dev;
    Ok(Usage {
        total: room.f_blocks.saturating_mul(room.f_frsize),
        free: room.f_bfree.saturating_mul(room.f_frsize),
        available: room.f_bavail.saturating_mul(room.f_frsize),
        device,
    })
}

impl Disk for RealDisk {
    fn open(&self, path: &str, create: bool) -> io::Result<Option<Arc<dyn DiskFile>>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).truncate(false);
        match options.open(self.full(path)) {
            Ok(file) => Ok(Some(Arc::new(RealFile { file }))),
            Err(error) if !create && error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        match std::fs::create_dir(self.full(path)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    fn remove(&self, path: &str) -> io::Result<bool> {
        match std::fs::remove_file(self.full(path)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.full(from), self.full(to))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(self.full(path)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &str) -> io::Result<bool> {
        self.full(path).try_exists()
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        File::open(self.full(path))?.sync_all()
    }

    fn usage(&self) -> io::Result<Usage> {
        usage_of(&self.root)
    }

    fn claim_room(&self, bytes: u64) -> io::Result<Option<RoomClaim>> {
        RoomClaim::make(&self.claimed, bytes, || Ok(self.usage()?.available_for_files()))
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
}

/// What is done in pieces is done in pieces of this size.
const STEP_BYTES: usize = 1 << 20;

impl RealFile {
    fn in_steps(
        &self,
        offset: u64,
        length: u64,
        mut step: impl FnMut(u64, usize) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < length {
            let count = (length - done).min(STEP_BYTES as u64);
            step(offset + done, count as usize)?;
            done += count;
        }
        Ok(())
    }
}

/// `fallocate`, again after an interruption.
fn fallocate(file: &File, flags: FallocateFlags, offset: u64, length: u64) -> Result<(), Errno> {
    loop {
        match rustix::fs::fallocate(file, flags, offset, length) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

impl DiskFile for RealFile {
    fn read_into(&self, buffer: &mut Vec<u8>, offset: u64, length: usize) -> io::Result<()> {
        let target = buffer.len() + length;
        buffer.reserve_exact(length);
        let mut offset = offset;
        while buffer.len() < target {
            let wanted = target - buffer.len();
            // The spare capacity may be larger than what is wanted: what comes too much is cut.
            let room = rustix::buffer::spare_capacity(buffer);
            let got = match rustix::io::pread(&self.file, room, offset) {
                Ok(0) => return Ok(()),
                Ok(got) => got,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if got > wanted {
                buffer.truncate(target);
            }
            offset += got as u64;
        }
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<(), WriteFailure> {
        let mut written = 0;
        while let Some(rest) = data.get(written..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pwrite(&self.file, rest, offset + written as u64) {
                Ok(0) => {
                    return Err(WriteFailure { written, error: io::ErrorKind::WriteZero.into() });
                }
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(WriteFailure { written, error: error.into() }),
            }
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstat(&self.file)?.st_size.max(0) as u64)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(&self.file, size)?)
    }

    fn reserve(&self, offset: u64, length: u64) -> io::Result<()> {
        match fallocate(&self.file, FallocateFlags::empty(), offset, length) {
            Err(Errno::OPNOTSUPP) => {
                // Nothing to keep room with. What is written with what is there takes its room.
                let mut bytes = Vec::new();
                self.in_steps(offset, length, |at, count| {
                    bytes.clear();
                    self.read_into(&mut bytes, at, count)?;
                    bytes.resize(count, 0);
                    self.write_at(&bytes, at).map_err(|failure| failure.error)
                })
            }
            result => Ok(result?),
        }
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, flags, offset, length) {
            Err(Errno::OPNOTSUPP) => {
                // The room stays; the zeros are what counts.
                let length = self.size()?.saturating_sub(offset).min(length);
                let zeros = vec![0; STEP_BYTES.min(length as usize)];
                self.in_steps(offset, length, |at, count| {
                    let zeros = zeros.get(..count).unwrap_or(&zeros);
                    self.write_at(zeros, at).map_err(|failure| failure.error)
                })
            }
            result => Ok(result?),
        }
    }

    fn start_writing_out(&self, offset: u64, length: u64) {
        let flags = libc::SYNC_FILE_RANGE_WRITE;
        let (offset, length) = (offset.cast_signed(), length.cast_signed());
        // SAFETY: the descriptor is open, and no memory is handed over. Without the flags that
        // wait, the call neither reports nor forgets a failure of the disk.
        let _ = unsafe { libc::sync_file_range(self.file.as_raw_fd(), offset, length, flags) };
    }

    fn sync(&self) -> io::Result<()> {
        // Not tried again on an interruption either: fdatasync is not interrupted on Linux, and a
        // second call could report as written what the first one lost.
        Ok(rustix::fs::fdatasync(&self.file)?)
    }

    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        // The file's own position is used by nobody: all reads and writes carry theirs.
        match rustix::fs::seek(&self.file, SeekFrom::Data(from)) {
            Ok(offset) => Ok(Some(offset)),
            Err(Errno::NXIO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn allocated(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstat(&self.file)?.st_blocks.max(0) as u64 * 512)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_a_disk_is_kept_from_files_and_no_more_than_a_gibibyte() {
        let disk = |total: u64, available| Usage { total, free: available, available, device: 1 };
        let small = disk(1000 << 20, 300 << 20);
        assert_eq!((small.reserve(), small.available_for_files()), (100 << 20, 200 << 20));
        let large = disk(1 << 40, 3 << 30);
        assert_eq!((large.reserve(), large.available_for_files()), (1 << 30, 2 << 30));
        assert_eq!(disk(1 << 40, 1 << 29).available_for_files(), 0);
    }

    #[test]
    fn what_is_claimed_counts_as_taken_until_it_is_done() {
        let claimed = Arc::default();
        let claim = |bytes| RoomClaim::make(&claimed, bytes, || Ok(100)).unwrap();
        let first = claim(60).unwrap();
        assert!(claim(41).is_none());
        let second = claim(40).unwrap();
        assert!(claim(1).is_none());
        drop(first);
        let _third = claim(60).unwrap();
        drop(second);
        assert_eq!(claimed.load(Ordering::Relaxed), 60);
    }

    #[test]
    fn more_than_the_disk_has_finds_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(folder.path());
        let usage = disk.usage().unwrap();
        assert!(disk.claim_room(usage.available_for_files() / 2).unwrap().is_some());
        assert!(disk.claim_room(usage.total).unwrap().is_none());
    }

    #[test]
    fn a_sparse_file_reads_zeros_in_its_holes_and_ends_where_it_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(folder.path());
        assert!(disk.open("a", false).unwrap().is_none());
        let file = disk.open("a", true).unwrap().unwrap();
        file.write_at(b"tail", 1 << 20).unwrap();
        let mut buffer = vec![9];
        file.read_into(&mut buffer, (1 << 20) - 2, 100).unwrap();
        assert_eq!(buffer, [9, 0, 0, b't', b'a', b'i', b'l']);
        assert!(file.next_data(0).unwrap().unwrap() > 0);
        file.set_size(10).unwrap();
        assert_eq!(file.size().unwrap(), 10);
        assert_eq!(file.next_data(10).unwrap(), None);
        let mut buffer = Vec::with_capacity(4096);
        file.write_at(&[7; 64], 0).unwrap();
        file.read_into(&mut buffer, 0, 16).unwrap();
        assert_eq!(buffer, [7; 16]);
        file.sync().unwrap();
        disk.sync_dir("").unwrap();
    }

    #[test]
    fn room_is_kept_and_given_back_without_touching_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(folder.path());
        let file = disk.open("a", true).unwrap().unwrap();
        file.write_at(&[7; 10_000], 0).unwrap();
        file.reserve(4_096, 1 << 20).unwrap();
        assert_eq!(file.size().unwrap(), (1 << 20) + 4_096);
        assert!(file.allocated().unwrap() > 1 << 20);
        file.punch(5_000, 100).unwrap();
        file.punch(8_192, 2 << 20).unwrap();
        assert_eq!(file.size().unwrap(), (1 << 20) + 4_096);
        let mut buffer = Vec::new();
        file.read_into(&mut buffer, 0, 12_000).unwrap();
        let expected = [vec![7; 5_000], vec![0; 100], vec![7; 3_092], vec![0; 3_808]].concat();
        assert!(buffer == expected);
    }

    #[test]
    fn room_is_asked_of_the_file_system() {
        let folder = tempfile::tempdir().unwrap();
        let usage = usage_of(folder.path()).unwrap();
        assert!(usage.total >= usage.free && usage.free >= usage.available && usage.total > 0);
    }
}
