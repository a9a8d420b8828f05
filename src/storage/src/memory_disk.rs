//! A disk in memory that forgets what was not synced.
//!
//! Simulation and the tests of the chunk store stand on it. Each file keeps its content of now and
//! its synced content; each folder keeps the changes of its names that were not synced, in order.
//! [`MemoryDisk::crash`] is a loss of power: names and contents fall back to what was synced, or,
//! with a seed, to an arbitrary mixture: of each page written since, the old one, the new one or a
//! mixture of their sectors survives; of a folder's changes, a beginning does.
//!
//! What must always hold: the same calls with the same seed give the same disk. Handles from
//! before a crash fail.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::Arc;

use ministry_types::placement::mix;
use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, RoomClaim, Usage, WriteFailure, folder_of};

const PAGE: usize = 4096;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

type Page = Arc<[u8; PAGE]>;
type Shared = Arc<Mutex<Content>>;

/// See the module. Clones share the disk.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    tree: Arc<Mutex<Tree>>,
}

#[derive(Default)]
struct Tree {
    names: Names,
    synced: Names,
    /// Changes of names that were not synced, with their folder.
    pending: Vec<(String, Change)>,
    /// Raised by a crash, so that old handles are known.
    generation: u64,
    faults: Faults,
}

#[derive(Default)]
struct Faults {
    /// Bytes that fit; `None`: no bound.
    capacity: Option<u64>,
    /// File data leaves the reserve of a disk of this capacity free.
    reserved: bool,
    /// Syncs that still work; `None`: all.
    syncs_left: Option<u64>,
    /// Syncs since the beginning, failed ones included.
    syncs: u64,
}

#[derive(Default, Clone)]
struct Names {
    files: BTreeMap<String, Shared>,
    folders: BTreeSet<String>,
}

#[derive(Clone)]
enum Change {
    File(String, Shared),
    Folder(String),
    Remove(String),
    Rename(String, String),
}

#[derive(Default)]
struct Content {
    pages: BTreeMap<u64, Page>,
    size: u64,
    synced_pages: BTreeMap<u64, Page>,
    synced_size: u64,
    dirty: BTreeSet<u64>,
}

impl Names {
    fn carry_out(&mut self, change: Change) {
        match change {
            Change::File(path, content) => {
                self.files.insert(path, content);
            }
            Change::Folder(path) => {
                self.folders.insert(path);
            }
            Change::Remove(path) => {
                self.files.remove(&path);
            }
            Change::Rename(from, to) => {
                if let Some(content) = self.files.remove(&from) {
                    self.files.insert(to, content);
                }
            }
        }
    }

    fn has_folder(&self, path: &str) -> bool {
        path.is_empty() || self.folders.contains(path)
    }

    /// Drops what lies in folders that did not survive.
    fn drop_unreachable(&mut self) {
        let reachable = |folders: &BTreeSet<String>, path: &str| {
            let mut folder = folder_of(path);
            while !folder.is_empty() {
                if !folders.contains(folder) {
                    return false;
                }
                folder = folder_of(folder);
            }
            true
        };
        let folders = self.folders.clone();
        self.folders.retain(|path| reachable(&folders, path));
        self.files.retain(|path, _| reachable(&folders, path));
    }
}

impl Tree {
    fn change(&mut self, path: &str, change: Change) {
        self.names.carry_out(change.clone());
        self.pending.push((folder_of(path).to_owned(), change));
    }

    fn count_sync(&mut self) -> io::Result<()> {
        self.faults.syncs += 1;
        match &mut self.faults.syncs_left {
            Some(0) => Err(io::Error::from_raw_os_error(libc::EIO)),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Content {
    fn write(&mut self, data: &[u8], offset: u64) {
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let (number, start) = (at / PAGE as u64, (at % PAGE as u64) as usize);
            let count = (PAGE - start).min(data.len() - done);
            let page = self.pages.entry(number).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[start..start + count].copy_from_slice(&data[done..done + count]);
            self.dirty.insert(number);
            done += count;
        }
        self.size = self.size.max(offset + data.len() as u64);
    }

    fn set_size(&mut self, size: u64) {
        let gone: Vec<u64> = self.pages.range(size / PAGE as u64..).map(|(n, _)| *n).collect();
        for number in gone {
            let keep = size.saturating_sub(number * PAGE as u64).min(PAGE as u64) as usize;
            if keep == PAGE {
                continue;
            }
            self.dirty.insert(number);
            if keep == 0 {
                self.pages.remove(&number);
            } else if let Some(page) = self.pages.get_mut(&number) {
                Arc::make_mut(page)[keep..].fill(0);
            }
        }
        self.size = size;
    }

    /// Zeros; whole pages give their room back.
    fn punch(&mut self, offset: u64, length: u64) {
        let end = offset.saturating_add(length);
        let touched = offset / PAGE as u64..end.div_ceil(PAGE as u64);
        let numbers: Vec<u64> = self.pages.range(touched).map(|(number, _)| *number).collect();
        for number in numbers {
            let start = number * PAGE as u64;
            let from = offset.saturating_sub(start).min(PAGE as u64) as usize;
            let to = (end - start).min(PAGE as u64) as usize;
            self.dirty.insert(number);
            if to - from == PAGE {
                self.pages.remove(&number);
            } else if let Some(page) = self.pages.get_mut(&number) {
                Arc::make_mut(page)[from..to].fill(0);
            }
        }
    }

    fn sync(&mut self) {
        for number in std::mem::take(&mut self.dirty) {
            match self.pages.get(&number) {
                Some(page) => self.synced_pages.insert(number, Arc::clone(page)),
                None => self.synced_pages.remove(&number),
            };
        }
        self.synced_size = self.size;
    }

    fn crash(&mut self, draw: &mut Option<Draw>) {
        let mut pages = self.synced_pages.clone();
        let mut size = self.synced_size;
        if let Some(draw) = draw {
            for number in &self.dirty {
                let new = self.pages.get(number);
                match (draw.below(3), new) {
                    (0, _) => {}
                    (1, Some(page)) => drop(pages.insert(*number, Arc::clone(page))),
                    (1, None) => drop(pages.remove(number)),
                    (_, new) => {
                        let zeros = Arc::new([0; PAGE]);
                        let new = new.unwrap_or(&zeros);
                        let page = pages.entry(*number).or_insert_with(|| Arc::clone(&zeros));
                        let sectors = Arc::make_mut(page).chunks_mut(SECTOR);
                        for (sector, from) in sectors.zip(new.chunks(SECTOR)) {
                            if draw.below(2) == 0 {
                                sector.copy_from_slice(from);
                            }
                        }
                    }
                }
            }
            if draw.below(2) == 0 {
                size = self.size;
            }
        }
        self.pages = pages;
        self.size = u64::MAX;
        self.set_size(size);
        self.dirty.clear();
        self.synced_pages = self.pages.clone();
        self.synced_size = size;
    }
}

/// A row of numbers from a seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % bound
    }
}

impl MemoryDisk {
    /// A loss of power. Without a seed everything that was not synced is gone; with one, an
    /// arbitrary part of it is, and sectors of one page may be of different ages.
    pub fn crash(&self, seed: Option<u64>) {
        let mut draw = seed.map(Draw);
        let mut tree = self.tree.lock();
        tree.generation += 1;
        let mut pending = std::mem::take(&mut tree.pending);
        let folders: BTreeSet<String> = pending.iter().map(|(folder, _)| folder.clone()).collect();
        for folder in folders {
            let changes: Vec<Change> =
                pending.extract_if(.., |(of, _)| *of == folder).map(|(_, change)| change).collect();
            let survive = draw.as_mut().map_or(0, |draw| draw.below(changes.len() as u64 + 1));
            for change in changes.into_iter().take(survive as usize) {
                tree.synced.carry_out(change);
            }
        }
        tree.synced.drop_unreachable();
        tree.names = tree.synced.clone();
        let survivors: Vec<Shared> = tree.names.files.values().map(Arc::clone).collect();
        for content in survivors {
            content.lock().crash(&mut draw);
        }
        tree.faults.syncs_left = None;
    }

    /// Bounds the bytes that fit; writes beyond it fail for want of room.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.tree.lock().faults.capacity = bytes;
    }

    /// Has file data leave the reserve of the disk free, as on a real one: [`Usage::reserve`].
    /// Otherwise it meets the end of the disk itself.
    pub fn keep_reserve(&self) {
        self.tree.lock().faults.reserved = true;
    }

    /// Lets `count` further syncs work; those after it fail, until a crash.
    pub fn fail_syncs_after(&self, count: u64) {
        self.tree.lock().faults.syncs_left = Some(count);
    }

    /// How many syncs were asked for, failed ones included.
    pub fn syncs(&self) -> u64 {
        self.tree.lock().faults.syncs
    }

    /// Inverts bits of one byte, now and for good: damage. `false` if the file is shorter.
    pub fn damage(&self, path: &str, offset: u64, mask: u8) -> bool {
        let Some(content) = self.tree.lock().names.files.get(path).map(Arc::clone) else {
            return false;
        };
        let mut content = content.lock();
        if offset >= content.size {
            return false;
        }
        let (number, at) = (offset / PAGE as u64, (offset % PAGE as u64) as usize);
        for synced in [false, true] {
            let content = &mut *content;
            let pages = if synced { &mut content.synced_pages } else { &mut content.pages };
            let page = pages.entry(number).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[at] ^= mask;
        }
        true
    }

    fn allocated_bytes(tree: &Tree) -> u64 {
        let pages: usize = tree.names.files.values().map(|file| file.lock().pages.len()).sum();
        pages as u64 * PAGE as u64
    }
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tree = self.tree.lock();
        write!(f, "MemoryDisk({} files)", tree.names.files.len())
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &str, create: bool) -> io::Result<Option<Arc<dyn DiskFile>>> {
        let mut tree = self.tree.lock();
        let content = match tree.names.files.get(path) {
            Some(content) => Arc::clone(content),
            None if !create => return Ok(None),
            None if !tree.names.has_folder(folder_of(path)) => {
                return Err(io::ErrorKind::NotFound.into());
            }
            None => {
                let content = Shared::default();
                tree.change(path, Change::File(path.to_owned(), Arc::clone(&content)));
                content
            }
        };
        let disk = self.clone();
        Ok(Some(Arc::new(MemoryFile { disk, content, generation: tree.generation })))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let mut tree = self.tree.lock();
        if !tree.names.has_folder(folder_of(path)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if !tree.names.has_folder(path) {
            tree.change(path, Change::Folder(path.to_owned()));
        }
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<bool> {
        let mut tree = self.tree.lock();
        let found = tree.names.files.contains_key(path);
        if found {
            tree.change(path, Change::Remove(path.to_owned()));
        }
        Ok(found)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        assert_eq!(folder_of(from), folder_of(to), "a rename stays within its folder");
        let mut tree = self.tree.lock();
        if !tree.names.files.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        tree.change(from, Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let tree = self.tree.lock();
        let paths = tree.names.files.keys().chain(&tree.names.folders);
        let mut names: Vec<String> = paths
            .filter(|entry| folder_of(entry) == path)
            .map(|entry| entry.rsplit('/').next().unwrap_or(entry).to_owned())
            .collect();
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &str) -> io::Result<bool> {
        let tree = self.tree.lock();
        Ok(tree.names.files.contains_key(path) || tree.names.has_folder(path))
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        let mut tree = self.tree.lock();
        tree.count_sync()?;
        let mut pending = std::mem::take(&mut tree.pending);
        for (_, change) in pending.extract_if(.., |(folder, _)| folder == path) {
            tree.synced.carry_out(change);
        }
        tree.pending = pending;
        Ok(())
    }

    fn usage(&self) -> io::Result<Usage> {
        let tree = self.tree.lock();
        let total = tree.faults.capacity.unwrap_or(1 << 40);
        let free = total.saturating_sub(MemoryDisk::allocated_bytes(&tree));
        Ok(Usage { total, free, available: free, device: 0 })
    }

    fn claim_room(&self, bytes: u64) -> io::Result<Option<RoomClaim>> {
        // Counting what is taken goes through all files.
        let reserved = self.tree.lock().faults.reserved;
        let fits = !reserved || bytes <= self.usage()?.available_for_files();
        Ok(fits.then(RoomClaim::unbounded))
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    content: Shared,
    generation: u64,
}

impl MemoryFile {
    fn alive(&self) -> io::Result<()> {
        if self.disk.tree.lock().generation == self.generation {
            return Ok(());
        }
        Err(io::Error::other("the file was opened before the crash"))
    }

    /// Bytes that still fit on the disk; `None`: no bound.
    fn room(&self) -> Option<u64> {
        let tree = self.disk.tree.lock();
        let capacity = tree.faults.capacity;
        capacity.map(|capacity| capacity.saturating_sub(MemoryDisk::allocated_bytes(&tree)))
    }
}

impl fmt::Debug for MemoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryFile({} bytes)", self.content.lock().size)
    }
}

impl DiskFile for MemoryFile {
    fn read_into(&self, buffer: &mut Vec<u8>, offset: u64, length: usize) -> io::Result<()> {
        self.alive()?;
        let content = self.content.lock();
        let end = content.size.min(offset.saturating_add(length as u64));
        let mut at = offset;
        while at < end {
            let (number, start) = (at / PAGE as u64, (at % PAGE as u64) as usize);
            let count = ((PAGE - start) as u64).min(end - at) as usize;
            match content.pages.get(&number) {
                Some(page) => buffer.extend_from_slice(&page[start..start + count]),
                None => buffer.resize(buffer.len() + count, 0),
            }
            at += count as u64;
        }
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<(), WriteFailure> {
        self.alive().map_err(|error| WriteFailure { written: 0, error })?;
        let room = self.room();
        let mut content = self.content.lock();
        let mut fits = data.len();
        if let Some(room) = room {
            let mut pages = room / PAGE as u64;
            let mut at = 0;
            while at < data.len() {
                let number = (offset + at as u64) / PAGE as u64;
                if !content.pages.contains_key(&number) {
                    if pages == 0 {
                        fits = at;
                        break;
                    }
                    pages -= 1;
                }
                at = ((number + 1) * PAGE as u64 - offset) as usize;
            }
        }
        if fits > 0 || data.is_empty() {
            content.write(&data[..fits], offset);
        }
        if fits < data.len() {
            let error = io::Error::from_raw_os_error(libc::ENOSPC);
            return Err(WriteFailure { written: fits, error });
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        self.alive()?;
        Ok(self.content.lock().size)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.alive()?;
        self.content.lock().set_size(size);
        Ok(())
    }

    fn reserve(&self, offset: u64, length: u64) -> io::Result<()> {
        self.alive()?;
        let room = self.room();
        let mut content = self.content.lock();
        let end = offset.saturating_add(length);
        let mut pages = room.map_or(u64::MAX, |room| room / PAGE as u64);
        for number in offset / PAGE as u64..end.div_ceil(PAGE as u64) {
            if content.pages.contains_key(&number) {
                continue;
            }
            if pages == 0 {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            pages -= 1;
            content.pages.insert(number, Arc::new([0; PAGE]));
            content.dirty.insert(number);
        }
        content.size = content.size.max(end);
        Ok(())
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.alive()?;
        self.content.lock().punch(offset, length);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.alive()?;
        let counted = self.disk.tree.lock().count_sync();
        let mut content = self.content.lock();
        if counted.is_err() {
            // As ext4, XFS and Btrfs: the pages are clean now, and lost. What was cut off is a
            // matter of the journal, and still to come.
            let Content { pages, dirty, .. } = &mut *content;
            dirty.retain(|number| !pages.contains_key(number));
            return counted;
        }
        content.sync();
        Ok(())
    }

    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        self.alive()?;
        let content = self.content.lock();
        let next = content.pages.range(from / PAGE as u64..).next();
        let next = next.map(|(number, _)| (number * PAGE as u64).max(from));
        Ok(next.filter(|next| *next < content.size))
    }

    fn allocated(&self) -> io::Result<u64> {
        self.alive()?;
        Ok(self.content.lock().pages.len() as u64 * PAGE as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(disk: &MemoryDisk, path: &str) -> Option<Vec<u8>> {
        let file = disk.open(path, false).unwrap()?;
        let mut buffer = Vec::new();
        file.read_into(&mut buffer, 0, 1 << 20).unwrap();
        Some(buffer)
    }

    #[test]
    fn a_crash_forgets_bytes_and_names_that_were_not_synced() {
        let disk = MemoryDisk::default();
        let file = disk.open("a", true).unwrap().unwrap();
        file.write_at(b"old", 0).unwrap();
        file.sync().unwrap();
        disk.sync_dir("").unwrap();
        file.write_at(b"new and longer", 0).unwrap();
        let lost = disk.open("b", true).unwrap().unwrap();
        lost.sync().unwrap();
        assert_eq!(read(&disk, "a").unwrap(), b"new and longer");
        disk.crash(None);
        assert_eq!(read(&disk, "a").unwrap(), b"old");
        assert_eq!(read(&disk, "b"), None);
        assert!(file.sync().is_err(), "handles from before a crash are dead");
    }

    #[test]
    fn a_torn_crash_mixes_old_and_new_sectors_and_repeats_with_its_seed() {
        let mixtures: Vec<Vec<u8>> = [1, 1, 2, 3, 4, 5, 6, 7]
            .into_iter()
            .map(|seed| {
                let disk = MemoryDisk::default();
                let file = disk.open("a", true).unwrap().unwrap();
                file.write_at(&[1; PAGE], 0).unwrap();
                file.sync().unwrap();
                disk.sync_dir("").unwrap();
                file.write_at(&[2; PAGE], 0).unwrap();
                disk.crash(Some(seed));
                read(&disk, "a").unwrap()
            })
            .collect();
        assert_eq!(mixtures[0], mixtures[1]);
        assert!(mixtures.iter().any(|mixture| mixture.contains(&1) && mixture.contains(&2)));
        for mixture in mixtures {
            assert!(mixture.chunks(SECTOR).all(|sector| sector.iter().all(|b| *b == sector[0])));
        }
    }

    #[test]
    fn a_full_disk_takes_the_pages_that_fit() {
        let disk = MemoryDisk::default();
        disk.set_capacity(Some(2 * PAGE as u64));
        let file = disk.open("a", true).unwrap().unwrap();
        let failure = file.write_at(&[1; 3 * PAGE], 10).unwrap_err();
        assert_eq!(failure.written, 2 * PAGE - 10);
        file.write_at(&[2; PAGE], 0).unwrap();
    }
}
