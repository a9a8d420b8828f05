//! What the clients asked for, what they were told, and so what may be seen.
//!
//! Every object has one owner, who asks for one change of it at a time. So after each answer it is
//! known exactly where the object is; after an answer that says *unknown* it is in one of two
//! places, and is left alone from then on. Names and contents carry serial numbers, so that a
//! thing that should not be there is recognised.
//!
//! Two things are read by all while their owner changes them: the *token*, a file that is renamed
//! again and again, and the *register*, a file that is written again and again. Both are numbered
//! upwards. A read may show no number below what was acknowledged, or was seen, before the read
//! began, and none above what was asked for before it ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ministry_types::{FileKind, FsError, InodeId};
use parking_lot::Mutex;

use crate::trace;

/// A name in one of the directories.
pub type Name = (Directory, String);

/// The directories of the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Directory {
    /// Where objects live and move.
    First,
    /// Where objects live and move.
    Second,
    /// Where the token is renamed.
    Ring,
    /// Where all want the same names.
    Contest,
}

impl Directory {
    /// All.
    pub const ALL: [Directory; 4] =
        [Directory::First, Directory::Second, Directory::Ring, Directory::Contest];

    /// Its name in the root.
    pub fn name(self) -> &'static str {
        match self {
            Directory::First => "first",
            Directory::Second => "second",
            Directory::Ring => "ring",
            Directory::Contest => "contest",
        }
    }
}

/// An object of one owner.
#[derive(Debug, Clone)]
pub struct Item {
    /// What it is.
    pub kind: FileKind,
    /// Its inode, where an answer told it.
    pub inode: Option<InodeId>,
    /// Where it may be; one place, unless the last answer was *unknown*.
    pub places: Vec<Option<Name>>,
    /// What may be in it.
    pub contents: Vec<Vec<u8>>,
}

/// A number that is changed by one and read by all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Number {
    /// The highest that was acknowledged or seen.
    pub floor: u64,
    /// The highest that was asked for.
    pub issued: u64,
}

/// How often what was answered.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Changes that were done.
    pub done: u64,
    /// Answers that say *unknown*.
    pub unknown: u64,
    /// Reads of the token or the register.
    pub reads: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct History {
    /// The directories.
    pub directories: BTreeMap<Directory, InodeId>,
    /// All objects.
    pub items: Vec<Item>,
    /// By name in the contest: how many made it, how many do not know.
    pub contests: BTreeMap<String, (u32, u32)>,
    /// The file that is renamed.
    pub token: (InodeId, Number),
    /// The file that is written.
    pub register: (InodeId, Number),
    /// A file that gets further names.
    pub anchor: InodeId,
    /// How often what was answered.
    pub counts: Counts,
    serial: u64,
}

/// What all clients share.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<Mutex<SharedState>>);

#[derive(Debug, Default)]
struct SharedState {
    history: History,
    stopping: bool,
    working: usize,
}

impl Shared {
    /// Looks into the history, or writes it.
    pub fn with<R>(&self, work: impl FnOnce(&mut History) -> R) -> R {
        work(&mut self.0.lock().history)
    }

    /// Asks the clients to stop.
    pub fn stop(&self) {
        self.0.lock().stopping = true;
    }

    /// Whether the clients are to stop.
    pub fn is_stopping(&self) -> bool {
        self.0.lock().stopping
    }

    /// How many clients work.
    pub fn working(&self) -> usize {
        self.0.lock().working
    }

    /// One more works, or one less.
    pub fn works(&self, begins: bool) {
        let working = &mut self.0.lock().working;
        *working = if begins { *working + 1 } else { *working - 1 };
    }
}

/// Names by their directory, with the inode: what a listing of everything showed.
pub type Listing = BTreeMap<Name, InodeId>;

impl History {
    /// The next number of this run.
    pub fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// A directory's inode.
    pub fn directory(&self, directory: Directory) -> InodeId {
        self.directories.get(&directory).copied().expect("the directories are made first")
    }

    /// A change of an item is about to be asked for: from now on it may be there.
    pub fn ask(&mut self, item: usize, place: Option<Name>) {
        self.items[item].places.push(place);
    }

    /// What became of it. `true`: the owner may go on with it.
    pub fn answer(&mut self, what: &str, item: usize, result: Result<(), FsError>) -> bool {
        let places = &mut self.items[item].places;
        trace::note(format_args!("{what}: {result:?}"));
        match result {
            Ok(()) => {
                places.drain(..places.len() - 1);
                self.counts.done += 1;
                true
            }
            Err(FsError::TimedOut) => {
                self.counts.unknown += 1;
                false
            }
            Err(error) => {
                trace::breach(format_args!("{what} was answered: {error}"));
                false
            }
        }
    }

    /// A number was read that was between `floor` and what is issued now.
    pub fn seen(what: &str, number: &mut Number, floor: u64, found: u64) {
        trace::note(format_args!("{what}: {found}"));
        if found < floor || found > number.issued {
            trace::breach(format_args!(
                "{what} shows {found}, must be from {floor} to {}",
                number.issued
            ));
        }
        number.floor = number.floor.max(found);
    }

    /// Compares a listing of everything, after everything has ended, with the history.
    pub fn check(&self, listing: &Listing) {
        let mut explained: BTreeSet<&Name> = BTreeSet::new();
        for item in &self.items {
            let found: Vec<&Name> = item
                .places
                .iter()
                .flatten()
                .filter(|name| match listing.get(*name) {
                    Some(inode) => item.inode.is_none_or(|known| known == *inode),
                    None => false,
                })
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect();
            explained.extend(found.iter().copied());
            let missing = found.is_empty() && !item.places.contains(&None);
            if missing {
                trace::breach(format_args!("lost: {item:?} is nowhere"));
            }
            if found.len() > 1 {
                trace::breach(format_args!("{item:?} is at {found:?} at once"));
            }
        }
        for name in listing.keys().filter(|(directory, _)| is_private(*directory)) {
            if !explained.contains(name) {
                trace::breach(format_args!("phantom: {name:?} should not be there"));
            }
        }
        self.check_contests(listing);
    }

    fn check_contests(&self, listing: &Listing) {
        for (name, (done, unknown)) in &self.contests {
            let there = listing.contains_key(&(Directory::Contest, name.clone()));
            if *done > 1 {
                trace::breach(format_args!("{name} was made by {done} clients"));
            }
            if *done == 1 && !there {
                trace::breach(format_args!("lost: {name}, which one client made"));
            }
            if done + unknown == 0 {
                trace::breach(format_args!("{name} was never made, but clients found it there"));
            }
        }
        let contest = listing.keys().filter(|(directory, _)| *directory == Directory::Contest);
        for (_, name) in contest {
            if !self.contests.contains_key(name) {
                trace::breach(format_args!("phantom: {name} in the contest"));
            }
        }
    }
}

/// Whether each name in there has one owner.
fn is_private(directory: Directory) -> bool {
    matches!(directory, Directory::First | Directory::Second)
}
