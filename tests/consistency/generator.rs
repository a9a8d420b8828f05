//! Sequences of steps from a seed.
//!
//! Steps are drawn without running them. The generator keeps a guess of what exists, so that most
//! calls meet something; the guess may be wrong, which only means one more failing call.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::fs::{FallocateFlags, OFlags, RenameFlags, XattrFlags};

use crate::call::{Call, Fill, SLOTS, Step, TEAM, Time, User, Whence};
use crate::{
    CALLS_NEW, CHOWN_OF_NOTHING_NEW, PROTECTED_HARDLINKS_NEW, UTIMENS_OF_OTHERS_NEW,
    WRITE_CLEARS_SETUID_NEW,
};

/// Few names, so that they meet.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// Folders in folders at most.
const DEPTH_MAX: usize = 3;
/// Sizes around the borders: what lives in the inode, a page, two.
const BORDERS: [u64; 7] = [0, 1, 4_095, 4_096, 4_097, 8_192, 12_288];
/// Sizes elsewhere are below this.
const SIZE_MAX: u64 = 20_000;

/// A folder is the empty path, or ends without a slash.
#[derive(Debug)]
struct Guess {
    folders: Vec<String>,
    files: Vec<String>,
    links: Vec<String>,
    open: Vec<bool>,
}

/// Draws steps.
#[derive(Debug)]
pub struct Generator {
    random: SmallRng,
    mounts: usize,
    guess: Guess,
}

/// `count` steps over `mounts` mounts.
pub fn sequence(seed: u64, count: usize, mounts: usize) -> Vec<Step> {
    let mut generator = Generator::new(seed, mounts);
    (0..count).map(|_| generator.step()).collect()
}

/// Whether another user's call would show what is known to be missing.
fn for_root_only(call: &Call) -> bool {
    match call {
        Call::Link { .. } => !PROTECTED_HARDLINKS_NEW,
        Call::Utimens { .. } => !UTIMENS_OF_OTHERS_NEW,
        Call::Write { .. } | Call::Pwrite { .. } => !WRITE_CLEARS_SETUID_NEW,
        _ => false,
    }
}

impl Generator {
    /// The same seed draws the same steps.
    pub fn new(seed: u64, mounts: usize) -> Generator {
        let guess = Guess {
            folders: vec![String::new()],
            files: Vec::new(),
            links: Vec::new(),
            open: vec![false; SLOTS],
        };
        Generator { random: SmallRng::seed_from_u64(seed), mounts, guess }
    }

    /// The next step.
    pub fn step(&mut self) -> Step {
        let mount = self.random.random_range(0..self.mounts);
        let look = self.random.random_range(0..self.mounts);
        let watch = self.chance(50);
        let user = match self.random.random_range(0..100) {
            0..76 => User::Root,
            76..88 => User::First,
            _ => User::Second,
        };
        let call = self.call();
        let user = if for_root_only(&call) { User::Root } else { user };
        Step { mount, look, watch, user, call }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn call(&mut self) -> Call {
        let any_open = self.guess.open.contains(&true);
        match self.random.random_range(0..100) {
            0..12 => self.open(),
            12..45 if any_open => self.through_handle(),
            12..20 => self.open(),
            20..60 => self.names(),
            60..80 => self.attributes(),
            80..90 => self.whole_file(),
            _ => self.look_up(),
        }
    }

    fn open(&mut self) -> Call {
        let mut flags = match self.random.random_range(0..10) {
            0..2 => OFlags::RDONLY,
            2..3 => OFlags::WRONLY,
            _ => OFlags::RDWR,
        };
        let odds = [
            (OFlags::CREATE, 70),
            (OFlags::EXCL, 12),
            (OFlags::TRUNC, 20),
            (OFlags::APPEND, 20),
            (OFlags::NOFOLLOW, 6),
            (OFlags::DIRECTORY, 2),
        ];
        for (flag, percent) in odds {
            if self.chance(percent) {
                flags |= flag;
            }
        }
        // Linux refuses it since 6.4, or makes a file and fails: nothing to learn.
        if flags.contains(OFlags::DIRECTORY) {
            flags &= !OFlags::CREATE;
        }
        let makes = flags.contains(OFlags::CREATE);
        let path = if makes && self.chance(55) { self.new_path() } else { self.file() };
        let slot = self.random.random_range(0..SLOTS);
        self.guess.open[slot] = true;
        if flags.contains(OFlags::CREATE) {
            self.knows_file(&path);
        }
        Call::Open { path, flags, mode: self.mode(), slot }
    }

    fn through_handle(&mut self) -> Call {
        let slot = self.slot();
        match self.random.random_range(0..100) {
            0..18 => Call::Write { slot, fill: self.fill() },
            18..42 => Call::Pwrite { slot, offset: self.offset(), fill: self.fill() },
            42..50 => Call::Read { slot, length: self.size() as usize },
            50..66 => {
                Call::Pread { slot, offset: self.offset(), length: self.size() as usize + 100 }
            }
            66..72 => self.seek(slot),
            72..80 => Call::Ftruncate { slot, length: self.offset() },
            80..84 => Call::Fsync { slot, data_only: self.chance(50) },
            84..90 => Call::Fstat { slot },
            90..92 => Call::Fchmod { slot, mode: self.mode() },
            92..97 if CALLS_NEW => self.range(slot),
            _ => {
                self.guess.open[slot] = false;
                Call::Close { slot }
            }
        }
    }

    fn seek(&mut self, slot: usize) -> Call {
        let whence = match self.random.random_range(0..6) {
            0 => Whence::Current,
            1 | 2 => Whence::End,
            3 if CALLS_NEW => Whence::Data,
            4 if CALLS_NEW => Whence::Hole,
            _ => Whence::Start,
        };
        let offset = self.offset() as i64;
        let offset = if self.chance(20) { -offset } else { offset };
        Call::Seek { slot, offset, whence }
    }

    fn range(&mut self, slot: usize) -> Call {
        let (offset, length) = (self.offset(), self.size());
        let keep = FallocateFlags::KEEP_SIZE;
        let mode = match self.random.random_range(0..7) {
            0 => FallocateFlags::empty(),
            1 => keep,
            2 => FallocateFlags::PUNCH_HOLE | keep,
            3 => FallocateFlags::ZERO_RANGE,
            4 => FallocateFlags::ZERO_RANGE | keep,
            _ => {
                let from = self.slot();
                let (from_offset, to_offset) = (offset, self.offset());
                let length = length as usize;
                return Call::CopyRange { from, from_offset, to: slot, to_offset, length };
            }
        };
        Call::Fallocate { slot, mode, offset, length }
    }

    fn names(&mut self) -> Call {
        match self.random.random_range(0..100) {
            0..18 => {
                let path = self.new_path();
                if path.matches('/').count() + 1 < DEPTH_MAX {
                    self.guess.folders.push(path.clone());
                }
                let mode = if self.chance(60) { 0o777 } else { self.mode() | 0o700 };
                Call::Mkdir { path, mode }
            }
            18..26 => {
                let path = if self.chance(80) { self.folder() } else { self.any() };
                self.forgets(&path);
                Call::Rmdir { path }
            }
            26..29 => {
                let path = self.new_path();
                Call::Mknod { path, mode: libc::S_IFSOCK | (self.mode() & 0o777) }
            }
            29..39 => {
                let target = self.target();
                let path = self.new_path();
                self.guess.links.push(path.clone());
                Call::Symlink { target, path }
            }
            39..52 => {
                let (from, to) = (self.file(), self.new_path());
                self.knows_file(&to);
                Call::Link { from, to }
            }
            52..67 => {
                let path = if self.chance(85) { self.file() } else { self.any() };
                self.forgets(&path);
                Call::Unlink { path }
            }
            _ => self.rename(),
        }
    }

    fn rename(&mut self) -> Call {
        let from = self.any();
        let to = if self.chance(50) { self.any() } else { self.new_path() };
        let flags = match self.random.random_range(0..20) {
            0..12 => RenameFlags::empty(),
            12..15 => RenameFlags::NOREPLACE,
            15..19 => RenameFlags::EXCHANGE,
            _ => RenameFlags::EXCHANGE | RenameFlags::NOREPLACE,
        };
        if flags.is_empty() || flags == RenameFlags::NOREPLACE {
            let is_folder = self.guess.folders.contains(&from);
            self.forgets(&from);
            if is_folder {
                self.guess.folders.push(to.clone());
            } else {
                self.knows_file(&to);
            }
        }
        Call::Rename { from, to, flags }
    }

    fn attributes(&mut self) -> Call {
        let path = self.any();
        match self.random.random_range(0..100) {
            0..25 => Call::Chmod { path, mode: self.mode() },
            25..40 => {
                let ids = [0, User::First.id(), User::Second.id(), TEAM];
                let mut id =
                    || self.chance(70).then(|| ids[self.random.random_range(0..ids.len())]);
                let (uid, mut gid) = (id(), id());
                if (uid, gid) == (None, None) && !CHOWN_OF_NOTHING_NEW {
                    gid = Some(0);
                }
                Call::Chown { path, uid, gid, follow: self.chance(70) }
            }
            40..58 => {
                let (atime, mtime) = (self.time(), self.time());
                Call::Utimens { path, atime, mtime, follow: self.chance(70) }
            }
            58..80 => {
                let length = self.random.random_range(0..60);
                let fill = Fill { length, seed: self.random.random() };
                let flags = match self.random.random_range(0..5) {
                    0 => XattrFlags::CREATE,
                    1 => XattrFlags::REPLACE,
                    _ => XattrFlags::empty(),
                };
                Call::SetXattr { path, name: self.xattr(), fill, flags }
            }
            80..90 => Call::GetXattr { path, name: self.xattr() },
            90..95 => Call::ListXattr { path },
            _ => Call::RemoveXattr { path, name: self.xattr() },
        }
    }

    fn whole_file(&mut self) -> Call {
        match self.random.random_range(0..100) {
            0..40 => {
                let path = if self.chance(40) { self.new_path() } else { self.file() };
                self.knows_file(&path);
                Call::WriteWhole { path, fill: self.fill() }
            }
            40..80 => Call::ReadWhole { path: self.file() },
            _ => Call::Truncate { path: self.file(), length: self.offset() },
        }
    }

    fn look_up(&mut self) -> Call {
        let path = self.any();
        match self.random.random_range(0..100) {
            0..20 => Call::Stat { path },
            20..45 => Call::Lstat { path },
            45..75 => Call::List { path: if self.chance(80) { self.folder() } else { path } },
            75..88 => {
                let links = &self.guess.links;
                if links.is_empty() || self.random.random_range(0..5) == 0 {
                    return Call::Readlink { path };
                }
                let path = links[self.random.random_range(0..links.len())].clone();
                Call::Readlink { path }
            }
            _ => Call::Access { path, mask: self.random.random_range(0..8) },
        }
    }

    fn mode(&mut self) -> u32 {
        match self.random.random_range(0..10) {
            0..3 => 0o644,
            3..5 => 0o755,
            5..6 => 0o777,
            6..7 => 0o600,
            7..9 => self.random.random_range(0..0o1000),
            _ => self.random.random_range(0..0o10000),
        }
    }

    fn time(&mut self) -> Time {
        match self.random.random_range(0..10) {
            0..3 => Time::Omit,
            3..5 => Time::Now,
            5 => Time::At(0, 1),
            _ => {
                let seconds = self.random.random_range(0..1_000_000_000);
                Time::At(seconds, self.random.random_range(0..1_000_000_000))
            }
        }
    }

    fn xattr(&mut self) -> String {
        let names = ["user.a", "user.a", "user.a", "user.a", "user.b", "trusted.t"];
        names[self.random.random_range(0..names.len())].to_owned()
    }

    fn size(&mut self) -> u64 {
        if self.chance(40) {
            BORDERS[self.random.random_range(0..BORDERS.len())]
        } else if self.chance(50) {
            self.random.random_range(0..200)
        } else {
            self.random.random_range(0..SIZE_MAX)
        }
    }

    fn offset(&mut self) -> u64 {
        if self.chance(2) { self.random.random_range(0..200_000) } else { self.size() }
    }

    fn fill(&mut self) -> Fill {
        Fill { length: self.size() as usize, seed: self.random.random() }
    }

    fn slot(&mut self) -> usize {
        let open: Vec<usize> = (0..SLOTS).filter(|slot| self.guess.open[*slot]).collect();
        if open.is_empty() || self.chance(3) {
            return self.random.random_range(0..SLOTS);
        }
        open[self.random.random_range(0..open.len())]
    }

    /// Targets are relative and lead up by one folder at most, so that both sides stay comparable.
    fn target(&mut self) -> String {
        let target = self.any_target();
        if target.starts_with('/') || target.is_empty() { NAMES[0].to_owned() } else { target }
    }

    fn any_target(&mut self) -> String {
        match self.random.random_range(0..10) {
            0..6 => self.any(),
            6..8 => format!("../{}", NAMES[self.random.random_range(0..NAMES.len())]),
            8 => "x".repeat(self.random.random_range(1..200)),
            _ => NAMES[self.random.random_range(0..NAMES.len())].to_owned(),
        }
    }

    fn new_path(&mut self) -> String {
        if self.chance(1) {
            let length = self.random.random_range(254..258);
            return "n".repeat(length);
        }
        let folder = self.folder();
        // Not all that should be a folder is one.
        let folder = if self.chance(4) { self.any() } else { folder };
        let folder = folder.trim_end_matches('/');
        let name = NAMES[self.random.random_range(0..NAMES.len())];
        if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
    }

    fn folder(&mut self) -> String {
        let folders = &self.guess.folders;
        folders[self.random.random_range(0..folders.len())].clone()
    }

    fn file(&mut self) -> String {
        let count = self.guess.files.len();
        if count == 0 || self.chance(8) {
            return self.any();
        }
        self.guess.files[self.random.random_range(0..count)].clone()
    }

    fn any(&mut self) -> String {
        let found = match self.random.random_range(0..20) {
            0..10 => &self.guess.files,
            10..15 => &self.guess.folders,
            15..19 => &self.guess.links,
            _ => return NAMES[self.random.random_range(0..NAMES.len())].to_owned(),
        };
        let found = if found.is_empty() { &self.guess.folders } else { found };
        let path = found[self.random.random_range(0..found.len())].clone();
        // The top is everyone's: changed seldom.
        if path.is_empty() && !self.chance(15) {
            return NAMES[self.random.random_range(0..NAMES.len())].to_owned();
        }
        if self.chance(2) && !path.is_empty() { format!("{path}/") } else { path }
    }

    fn knows_file(&mut self, path: &str) {
        if !self.guess.files.iter().any(|known| known == path) {
            self.guess.files.push(path.to_owned());
        }
    }

    /// Sometimes not: a name that is gone is also worth a call.
    fn forgets(&mut self, path: &str) {
        if self.chance(6) || path.is_empty() {
            return;
        }
        let guess = &mut self.guess;
        for list in [&mut guess.folders, &mut guess.files, &mut guess.links] {
            list.retain(|known| known != path);
        }
    }
}
