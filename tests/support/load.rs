//! Programs that change files all the time, know what must be there, and check that it is.
//!
//! Each writer is one thread in a folder of its own, and keeps in memory what its files must hold:
//! everything that returned, and the one change that was under way when the ground fell away. That
//! one may be done or not done, but never half: a name is there or not, a page is old or new.
//!
//! The death of a minister loses nothing that was acknowledged, synced or not: its clients have it.
//! Most changes are synced all the same: that path must work. Where the mount dies at the same moment
//! only what was synced must be there, and the load syncs all of it ([`Load::synced`]).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::{tree, wait};

/// What lives in the inode up to here.
const INLINE: usize = 4096;
/// Writes up to this size reach the mount as one request.
const REQUEST: usize = 1 << 20;
/// Pages are written whole.
const PAGE: usize = 4096;
/// An operation of a program ends within a minute, done or with an error; this is well above.
const OPERATION_MAX: Duration = Duration::from_secs(90);

type Files = BTreeMap<String, Vec<u8>>;

/// What a writer mostly does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Makes files that live in their inodes.
    Small,
    /// Makes files that lie in chunks.
    Large,
    /// Writes into the middle of files that are there, held open.
    Overwrite,
    /// Adds to files, from empty to well beyond what an inode holds; cuts them.
    Append,
    /// Renames within and between folders, also onto names that are taken.
    Rename,
    /// Writes again and again into the same few files that live in their inodes, seldom synced, and
    /// renames them in between: many writes of one file are unlogged at any moment.
    Rewrite,
}

/// One change, as it was about to be made.
#[derive(Debug, Clone)]
enum Change {
    Make { name: String, content: Vec<u8> },
    Write { name: String, at: usize, bytes: Vec<u8> },
    Append { name: String, bytes: Vec<u8> },
    Cut { name: String, length: usize },
    Rename { from: String, to: String },
    Remove { name: String },
}

/// One operation of a program, as long as it took.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    /// When the program called.
    pub began: Instant,
    /// When the call returned.
    pub ended: Instant,
}

impl Operation {
    /// How long it took.
    pub fn took(&self) -> Duration {
        self.ended - self.began
    }
}

/// One thread's folder and what must be in it.
#[derive(Debug)]
pub struct Writer {
    kind: Kind,
    folder: String,
    random: SmallRng,
    files: Files,
    pending: Option<Change>,
    named: u64,
    operations: Vec<Operation>,
    error: Option<String>,
    /// Every write is synced.
    syncs_all: bool,
}

/// Writers at rest.
#[derive(Debug)]
pub struct Load {
    writers: Vec<Writer>,
}

/// Writers at work.
#[derive(Debug)]
pub struct Running {
    threads: Vec<JoinHandle<Writer>>,
    signs: Arc<Signs>,
}

#[derive(Debug)]
struct Signs {
    stop: AtomicBool,
    falling: AtomicBool,
    done: Vec<AtomicU64>,
    failed: Vec<AtomicBool>,
}

impl Load {
    /// Writers in folders, named from the top of the mount, that [`Load::prepare`] makes.
    pub fn new(seed: u64, places: &[(Kind, &str)]) -> Load {
        let writers = places.iter().enumerate().map(|(number, (kind, folder))| Writer {
            kind: *kind,
            folder: (*folder).to_owned(),
            random: SmallRng::seed_from_u64(seed.wrapping_mul(1_000_003) ^ number as u64),
            files: Files::new(),
            pending: None,
            named: 0,
            operations: Vec::new(),
            error: None,
            syncs_all: false,
        });
        Load { writers: writers.collect() }
    }

    /// Has every write synced.
    #[must_use]
    pub fn synced(mut self) -> Load {
        for writer in &mut self.writers {
            writer.syncs_all = true;
        }
        self
    }

    /// Makes the folders and the files that some kinds begin with.
    pub fn prepare(&mut self, mount: &Path) {
        for writer in &mut self.writers {
            writer.prepare(mount);
        }
    }

    /// Lets all writers go on.
    pub fn start(self, mount: &Path) -> Running {
        let count = self.writers.len();
        let signs = Arc::new(Signs {
            stop: AtomicBool::new(false),
            falling: AtomicBool::new(false),
            done: (0..count).map(|_| AtomicU64::new(0)).collect(),
            failed: (0..count).map(|_| AtomicBool::new(false)).collect(),
        });
        let start = |(number, mut writer): (usize, Writer)| {
            let (signs, mount) = (Arc::clone(&signs), mount.to_owned());
            std::thread::spawn(move || {
                writer.work(&mount, number, &signs);
                writer
            })
        };
        let threads = self.writers.into_iter().enumerate().map(start).collect();
        Running { threads, signs }
    }

    /// Everything that must be there is there, and nothing else. What the change under way came to
    /// is what must be there from now on.
    pub fn verify(&mut self, mount: &Path) {
        for writer in &mut self.writers {
            writer.verify(mount);
        }
    }

    /// How many writers were interrupted in the middle of a change.
    pub fn interrupted(&self) -> usize {
        self.writers.iter().filter(|writer| writer.pending.is_some()).count()
    }

    /// The last operations of the writer in this folder, since it was started last.
    pub fn operations(&self, folder: &str) -> &[Operation] {
        let found = self.writers.iter().find(|writer| writer.folder == folder);
        &found.expect("there is such a writer").operations
    }

    /// Operations of all writers since they were started last.
    pub fn count(&self) -> usize {
        self.writers.iter().map(|writer| writer.operations.len()).sum()
    }

    /// One line a writer: operations and the longest.
    pub fn summary(&self) -> String {
        let line = |writer: &Writer| {
            let longest = writer.operations.iter().map(Operation::took).max().unwrap_or_default();
            let (kind, count) = (writer.kind, writer.operations.len());
            format!(
                "  {:<16} {kind:<10?} {count:>6} operations, longest {longest:.2?}",
                writer.folder
            )
        };
        self.writers.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

impl Running {
    /// From now on an error ends a writer without being a failure of the test.
    pub fn falling(&self) {
        self.signs.falling.store(true, Ordering::SeqCst);
    }

    /// Operations done so far, by writer.
    pub fn done(&self) -> Vec<u64> {
        self.signs.done.iter().map(|done| done.load(Ordering::SeqCst)).collect()
    }

    /// Waits until every writer has done an operation that began after this call.
    pub fn wait_until_all_go_on(&self, within: Duration) {
        let before = self.done();
        wait::until_true(within, "every program goes on", || {
            if self.signs.failed.iter().any(|failed| failed.load(Ordering::SeqCst)) {
                return true;
            }
            // The first may have been under way.
            self.done().iter().zip(&before).all(|(now, before)| *now >= before + 2)
        });
    }

    /// Ends the work. Panics if a program got an error, or hangs.
    pub fn stop(self) -> Load {
        self.signs.stop.store(true, Ordering::SeqCst);
        let writers: Vec<Writer> = self
            .threads
            .into_iter()
            .map(|thread| {
                wait::until_true(OPERATION_MAX, "an operation of a program ends", || {
                    thread.is_finished()
                });
                thread.join().expect("a writer does not panic")
            })
            .collect();
        let errors: Vec<&str> = writers.iter().filter_map(|one| one.error.as_deref()).collect();
        assert!(errors.is_empty(), "programs got errors:\n{}", errors.join("\n"));
        Load { writers }
    }
}

impl Writer {
    fn prepare(&mut self, mount: &Path) {
        let top = mount.join(&self.folder);
        for part in ["x", "y"] {
            std::fs::create_dir_all(top.join(part)).expect("a folder");
        }
        let lengths: &[usize] = match self.kind {
            Kind::Small | Kind::Large => &[],
            Kind::Overwrite => &[262_144, 262_144, 40_000, 3_000],
            Kind::Append => &[0, 0, 0],
            Kind::Rename => &[0, 1, 700, 4_096, 4_097, 30_000, 100, 9_000],
            Kind::Rewrite => &[300, 900, 2_000],
        };
        for length in lengths {
            let name = self.new_name();
            let content = tree::bytes(self.named, *length);
            let mut file = File::create(top.join(&name)).expect("a file");
            file.write_all(&content).and_then(|()| file.sync_all()).expect("written and synced");
            self.files.insert(name, content);
        }
    }

    fn work(&mut self, mount: &Path, number: usize, signs: &Signs) {
        self.operations.clear();
        let top = mount.join(&self.folder);
        // Names are looked up from the folder itself: those above it belong to other ministries.
        let folder = match File::open(&top) {
            Ok(folder) => folder,
            Err(error) => return self.fail(&error, number, signs),
        };
        let mut open = BTreeMap::new();
        while !signs.stop.load(Ordering::SeqCst) {
            let change = self.next();
            self.pending = Some(change.clone());
            let began = Instant::now();
            if let Err(error) = self.perform(folder.as_fd(), &change, &mut open) {
                return self.fail(&error, number, signs);
            }
            self.operations.push(Operation { began, ended: Instant::now() });
            self.pending = None;
            apply(&change, &mut self.files);
            signs.done[number].fetch_add(1, Ordering::SeqCst);
        }
    }

    fn fail(&mut self, error: &io::Error, number: usize, signs: &Signs) {
        if !signs.falling.load(Ordering::SeqCst) {
            let what = self.pending.as_ref().map(Change::describe);
            let what = what.unwrap_or_else(|| "opening the folder".to_owned());
            self.error = Some(format!("{:?} in {}: {what}: {error}", self.kind, self.folder));
            signs.failed[number].store(true, Ordering::SeqCst);
        }
    }

    fn new_name(&mut self) -> String {
        self.named += 1;
        let part = if self.named.is_multiple_of(2) { "x" } else { "y" };
        format!("{part}/f{}", self.named)
    }

    fn any(&mut self) -> Option<String> {
        if self.files.is_empty() {
            return None;
        }
        let place = self.random.random_range(0..self.files.len());
        self.files.keys().nth(place).cloned()
    }

    fn next(&mut self) -> Change {
        let dice = self.random.random_range(0..100);
        match (self.kind, self.any()) {
            (Kind::Small, Some(name)) if dice < 12 || self.files.len() > 80 => {
                Change::Remove { name }
            }
            (Kind::Small, Some(from)) if dice < 24 => Change::Rename { from, to: self.new_name() },
            (Kind::Small, Some(name)) if dice < 36 => self.write(name, 512),
            (Kind::Small, _) => self.make(0, INLINE),
            (Kind::Large, Some(name)) if dice < 20 || self.files.len() > 24 => {
                Change::Remove { name }
            }
            (Kind::Large, _) if dice < 30 => self.make(REQUEST, 2 * REQUEST),
            (Kind::Large, _) => self.make(INLINE + 1, 300_000),
            (Kind::Overwrite, Some(name)) => self.write(name, 65_536),
            (Kind::Append, Some(name)) if self.files[&name].len() > 40_000 || dice < 4 => {
                let length = self.random.random_range(0..=self.files[&name].len());
                let length = if dice < 50 { 0 } else { length };
                Change::Cut { name, length }
            }
            (Kind::Append, Some(name)) => {
                let length = self.random.random_range(1..2_500);
                Change::Append { name, bytes: self.bytes(length) }
            }
            (Kind::Rename, Some(from)) => {
                let taken =
                    self.any().filter(|to| *to != from && dice < 15 && self.files.len() > 4);
                match taken {
                    Some(to) => Change::Rename { from, to },
                    None if self.files.len() < 8 => self.make(0, 3 * INLINE),
                    None => Change::Rename { from, to: self.new_name() },
                }
            }
            (Kind::Rewrite, Some(from)) if dice < 15 => {
                Change::Rename { from, to: self.new_name() }
            }
            (Kind::Rewrite, Some(name)) if dice < 25 && self.files[&name].len() < 3_000 => {
                let length = self.random.random_range(1..500);
                Change::Append { name, bytes: self.bytes(length) }
            }
            (Kind::Rewrite, Some(name)) => self.write(name, 200),
            (Kind::Overwrite | Kind::Append | Kind::Rename | Kind::Rewrite, None) => {
                self.make(0, 3 * INLINE)
            }
        }
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        tree::bytes(self.random.random(), length)
    }

    fn make(&mut self, least: usize, most: usize) -> Change {
        let length = self.random.random_range(least..=most);
        Change::Make { name: self.new_name(), content: self.bytes(length) }
    }

    /// A write inside the file; half of them at the borders of pages.
    fn write(&mut self, name: String, most: usize) -> Change {
        let size = self.files[&name].len();
        if size == 0 {
            return Change::Remove { name };
        }
        let mut at = self.random.random_range(0..size);
        if self.random.random() {
            at -= at % PAGE;
        }
        let length = self.random.random_range(1..=most.min(size - at));
        Change::Write { name, at, bytes: self.bytes(length) }
    }

    fn perform(
        &mut self,
        folder: BorrowedFd<'_>,
        change: &Change,
        open: &mut BTreeMap<String, File>,
    ) -> io::Result<()> {
        let often = if self.kind == Kind::Rewrite { 15 } else { 85 };
        let sync = self.random.random_range(0..100) < often || self.syncs_all;
        let at = |name: &str, flags: OFlags| -> io::Result<File> {
            let flags = flags | OFlags::CLOEXEC;
            Ok(File::from(rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o644))?))
        };
        match change {
            Change::Make { name, content } => {
                let mut file = at(name, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY)?;
                file.write_all(content)?;
                finish(file, sync)
            }
            Change::Write { name, at: offset, bytes } if self.kind == Kind::Overwrite => {
                if !open.contains_key(name) {
                    open.insert(name.clone(), at(name, OFlags::RDWR)?);
                }
                let file = &open[name];
                file.write_all_at(bytes, *offset as u64)?;
                if sync { file.sync_data() } else { Ok(()) }
            }
            Change::Write { name, at: offset, bytes } => {
                let file = at(name, OFlags::RDWR)?;
                file.write_all_at(bytes, *offset as u64)?;
                finish(file, sync)
            }
            Change::Append { name, bytes } => {
                let mut file = at(name, OFlags::WRONLY | OFlags::APPEND)?;
                file.write_all(bytes)?;
                finish(file, sync)
            }
            Change::Cut { name, length } => {
                let file = at(name, OFlags::WRONLY)?;
                file.set_len(*length as u64)?;
                finish(file, sync)
            }
            Change::Rename { from, to } => {
                Ok(rustix::fs::renameat(folder, from.as_str(), folder, to.as_str())?)
            }
            Change::Remove { name } => {
                Ok(rustix::fs::unlinkat(folder, name.as_str(), AtFlags::empty())?)
            }
        }
    }

    fn verify(&mut self, mount: &Path) {
        let top = mount.join(&self.folder);
        let mut found = read_all(&top);
        let must = self.files.clone();
        let pending = self.pending.take();
        let who = format!("{:?} in {}", self.kind, self.folder);
        let touched: Vec<&str> = pending.as_ref().map(Change::names).unwrap_or_default();
        for (name, content) in &must {
            if !touched.contains(&name.as_str()) {
                let Some(is) = found.get(name) else { panic!("{who}: {name} is lost") };
                assert!(is == content, "{who}: {name}: {}", difference(content, is));
            }
        }
        for name in found.keys() {
            let known = must.contains_key(name) || touched.contains(&name.as_str());
            assert!(known, "{who}: {name} is there and must not be");
        }
        if let Some(change) = &pending
            && let Err(wrong) = change.allows(&must, &found)
        {
            panic!("{who}: {} was under way: {wrong}", change.describe());
        }
        std::mem::swap(&mut self.files, &mut found);
    }
}

fn finish(file: File, sync: bool) -> io::Result<()> {
    if sync {
        file.sync_all()?;
    }
    // Dropping would hide what closing says.
    // SAFETY: the descriptor is ours, and nobody has it any more.
    if unsafe { libc::close(file.into_raw_fd()) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn apply(change: &Change, files: &mut Files) {
    match change {
        Change::Make { name, content } => {
            files.insert(name.clone(), content.clone());
        }
        Change::Write { name, at, bytes } => {
            let content = files.get_mut(name).expect("it is known");
            content[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        Change::Append { name, bytes } => {
            files.get_mut(name).expect("it is known").extend_from_slice(bytes);
        }
        Change::Cut { name, length } => {
            files.get_mut(name).expect("it is known").truncate(*length);
        }
        Change::Rename { from, to } => {
            let content = files.remove(from).expect("it is known");
            files.insert(to.clone(), content);
        }
        Change::Remove { name } => {
            files.remove(name);
        }
    }
}

impl Change {
    fn names(&self) -> Vec<&str> {
        match self {
            Change::Rename { from, to } => vec![from, to],
            Change::Make { name, .. }
            | Change::Write { name, .. }
            | Change::Append { name, .. }
            | Change::Cut { name, .. }
            | Change::Remove { name } => vec![name],
        }
    }

    fn describe(&self) -> String {
        match self {
            Change::Make { name, content } => format!("making {name} of {} bytes", content.len()),
            Change::Write { name, at, bytes } => {
                format!("writing {} bytes at {at} of {name}", bytes.len())
            }
            Change::Append { name, bytes } => format!("adding {} bytes to {name}", bytes.len()),
            Change::Cut { name, length } => format!("cutting {name} to {length} bytes"),
            Change::Rename { from, to } => format!("renaming {from} to {to}"),
            Change::Remove { name } => format!("removing {name}"),
        }
    }

    /// Whether `found` is a state that the change may leave behind when it is interrupted.
    fn allows(&self, before: &Files, found: &Files) -> Result<(), String> {
        let same = |files: &Files, name: &str| files.get(name) == found.get(name);
        let mut after = before.clone();
        apply(self, &mut after);
        if self.names().iter().all(|name| same(before, name))
            || self.names().iter().all(|name| same(&after, name))
        {
            return Ok(());
        }
        let is = self.names().iter().map(|name| found.get(*name)).collect::<Vec<_>>();
        match (self, is.as_slice()) {
            // Made, but not yet written, or written in part where that takes several requests.
            (Change::Make { content, .. }, [Some(is)]) => {
                let part = is.is_empty() || content.len() > REQUEST;
                if part && content.starts_with(is) {
                    return Ok(());
                }
                Err(difference(content, is))
            }
            (Change::Write { name, at, bytes }, [Some(is)]) => {
                not_torn(&before[name], &after[name], is, *at..at + bytes.len())
            }
            (_, is) => {
                let lengths: Vec<_> = is.iter().map(|is| is.map(Vec::len)).collect();
                Err(format!("neither done nor not done: {lengths:?} bytes of {:?}", self.names()))
            }
        }
    }
}

/// Each page is wholly old or wholly new.
fn not_torn(
    old: &[u8],
    new: &[u8],
    is: &[u8],
    written: std::ops::Range<usize>,
) -> Result<(), String> {
    if is.len() != old.len() {
        return Err(format!("{} bytes instead of {}", is.len(), old.len()));
    }
    for start in (0..is.len()).step_by(PAGE) {
        let page = start..(start + PAGE).min(is.len());
        let page_is = &is[page.clone()];
        if page_is != &old[page.clone()] && page_is != &new[page.clone()] {
            return Err(format!("the page at {start} is torn; {written:?} was written"));
        }
    }
    Ok(())
}

fn difference(must: &[u8], is: &[u8]) -> String {
    let first = must.iter().zip(is).position(|(must, is)| must != is);
    let differing = must.iter().zip(is).filter(|(must, is)| must != is).count();
    let zeros = is.iter().filter(|byte| **byte == 0).count();
    format!(
        "{} bytes instead of {}, first difference at {first:?}, {differing} differ, {zeros} zeros",
        is.len(),
        must.len()
    )
}

fn read_all(top: &Path) -> Files {
    let mut found = Files::new();
    for part in ["x", "y"] {
        let entries = std::fs::read_dir(top.join(part)).expect("a folder lists");
        for entry in entries {
            let entry = entry.expect("an entry");
            let name = format!("{part}/{}", entry.file_name().to_str().expect("a plain name"));
            let path: PathBuf = entry.path();
            let content =
                std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let told = std::fs::metadata(&path).expect("it has attributes").len();
            assert_eq!(told, content.len() as u64, "{path:?}: length told and length read");
            assert!(found.insert(name, content).is_none(), "{path:?} is listed twice");
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(folder: &Path) -> Load {
        let kinds = [Kind::Small, Kind::Large, Kind::Overwrite, Kind::Append, Kind::Rename];
        let names = ["a", "b", "c", "d", "e"];
        let places: Vec<_> = kinds.into_iter().zip(names).collect();
        let mut load = Load::new(7, &places);
        load.prepare(folder);
        let running = load.start(folder);
        running.wait_until_all_go_on(Duration::from_secs(30));
        running.stop()
    }

    #[test]
    fn a_local_folder_holds_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        loaded(folder.path()).verify(folder.path());
    }

    #[test]
    #[should_panic(expected = "differ")]
    fn one_changed_byte_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let mut load = loaded(folder.path());
        let writer = load.writers.iter_mut().find(|writer| writer.kind == Kind::Overwrite).unwrap();
        let content = writer.files.values_mut().next().unwrap();
        content[0] ^= 1;
        load.verify(folder.path());
    }

    #[test]
    #[should_panic(expected = "is lost")]
    fn a_lost_name_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let mut load = loaded(folder.path());
        load.writers[4].files.insert("x/more".into(), vec![1]);
        load.verify(folder.path());
    }

    #[test]
    fn a_change_under_way_is_done_or_not_and_no_page_is_torn() {
        let files =
            Files::from([("x/a".to_owned(), vec![1; 3 * PAGE]), ("x/b".into(), vec![2; 9])]);
        let write = Change::Write { name: "x/a".into(), at: 10, bytes: vec![7; 2 * PAGE] };
        let mut found = files.clone();
        assert!(write.allows(&files, &found).is_ok());
        found.get_mut("x/a").unwrap()[10..PAGE].fill(7);
        assert!(write.allows(&files, &found).is_ok(), "one page of several");
        found.get_mut("x/a").unwrap()[20] = 1;
        assert!(write.allows(&files, &found).is_err(), "half a page");

        let rename = Change::Rename { from: "x/a".into(), to: "x/b".into() };
        let mut both = files.clone();
        both.insert("x/b".into(), files["x/a"].clone());
        assert!(rename.allows(&files, &files).is_ok());
        assert!(rename.allows(&files, &both).is_err(), "both names");
        assert!(rename.allows(&files, &Files::new()).is_err(), "neither name");

        let append = Change::Append { name: "x/b".into(), bytes: vec![3; 5] };
        let mut part = files.clone();
        part.get_mut("x/b").unwrap().push(3);
        assert!(append.allows(&files, &part).is_err(), "a part of what was added");
    }
}
