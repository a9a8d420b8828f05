//! The sequential objects of a file system that histories are checked against.

use std::collections::BTreeMap;

use crate::checker::Model;

/// One value that is written and read whole.
#[derive(Debug)]
pub struct Register {
    /// Before the first write.
    pub initial: u64,
}

/// See [`Register`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegisterCall {
    Write(u64),
    Read,
}

/// See [`Register`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegisterAnswer {
    Written,
    Value(u64),
    /// What was read is no value as a whole.
    Torn(String),
    /// There was no file.
    Missing,
}

impl Model for Register {
    type State = u64;
    type Call = RegisterCall;
    type Answer = RegisterAnswer;

    fn initial(&self) -> u64 {
        self.initial
    }

    fn step(
        &self,
        state: &u64,
        _worker: usize,
        call: &RegisterCall,
        answer: Option<&RegisterAnswer>,
    ) -> Vec<u64> {
        match (call, answer) {
            (RegisterCall::Write(value), None | Some(RegisterAnswer::Written)) => vec![*value],
            (RegisterCall::Read, Some(RegisterAnswer::Value(value))) if value == state => {
                vec![*state]
            }
            // A read of which nothing is known tells nothing.
            _ => Vec::new(),
        }
    }
}

/// The attributes of one file: mode and mtime are set apart from each other; ctime grows with each
/// change, and with nothing else.
#[derive(Debug)]
pub struct AttributesModel {
    /// Before the first call.
    pub initial: (u32, i64),
}

/// See [`AttributesModel`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttributesCall {
    SetMode(u32),
    SetMtime(i64),
    Stat,
}

/// See [`AttributesModel`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttributesAnswer {
    Set,
    Shows { mode: u32, mtime: i64, ctime: i64 },
}

/// See [`AttributesModel`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AttributesState {
    mode: u32,
    mtime: i64,
    /// As it was shown last.
    ctime: i64,
    /// Something has changed since.
    changed: bool,
}

impl Model for AttributesModel {
    type State = AttributesState;
    type Call = AttributesCall;
    type Answer = AttributesAnswer;

    fn initial(&self) -> AttributesState {
        let (mode, mtime) = self.initial;
        AttributesState { mode, mtime, ctime: 0, changed: true }
    }

    fn step(
        &self,
        state: &AttributesState,
        _worker: usize,
        call: &AttributesCall,
        answer: Option<&AttributesAnswer>,
    ) -> Vec<AttributesState> {
        let mut state = state.clone();
        match (call, answer) {
            (AttributesCall::SetMode(mode), None | Some(AttributesAnswer::Set)) => {
                state.mode = *mode;
                state.changed = true;
                vec![state]
            }
            (AttributesCall::SetMtime(mtime), None | Some(AttributesAnswer::Set)) => {
                state.mtime = *mtime;
                state.changed = true;
                vec![state]
            }
            (AttributesCall::Stat, Some(AttributesAnswer::Shows { mode, mtime, ctime })) => {
                let time_fits =
                    if state.changed { *ctime > state.ctime } else { *ctime == state.ctime };
                if (*mode, *mtime) != (state.mode, state.mtime) || !time_fits {
                    return Vec::new();
                }
                state.ctime = *ctime;
                state.changed = false;
                vec![state]
            }
            _ => Vec::new(),
        }
    }
}

/// The names in one folder.
#[derive(Debug)]
pub struct Names;

/// A name, by its number.
pub type Name = u8;

/// See [`Names`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamesCall {
    /// `O_CREAT | O_EXCL`.
    Create(Name),
    Unlink(Name),
    Rename(Name, Name),
    RenameNoReplace(Name, Name),
    Exchange(Name, Name),
    Lookup(Name),
    List,
}

/// See [`Names`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamesAnswer {
    /// A new file with this inode.
    Made(u64),
    Done,
    /// The name has this inode.
    Found(u64),
    Missing,
    Exists,
    /// All names with their inodes.
    Listed(BTreeMap<Name, u64>),
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum File {
    /// With this inode.
    Inode(u64),
    /// Made by a call with an unknown outcome: its inode is not known yet. Numbered, the lowest
    /// free number first, so that equal states are equal.
    Unknown(usize),
}

/// The state of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Folder {
    names: BTreeMap<Name, File>,
    /// The names that each file has had, as bits; of files that have a name.
    had: BTreeMap<File, u8>,
}

impl Folder {
    fn has(&self, name: &Name) -> bool {
        self.names.contains_key(name)
    }

    fn put(&mut self, name: Name, file: File) -> bool {
        let free = self.names.insert(name, file).is_none();
        *self.had.entry(file).or_default() |= 1 << name;
        self.forget();
        free
    }

    fn take(&mut self, name: &Name) -> Option<File> {
        self.names.remove(name)
    }

    /// What has no name will never have one.
    fn forget(&mut self) {
        let names = &self.names;
        self.had.retain(|file, _| names.values().any(|named| named == file));
    }

    /// Whether `to` has a file that `from` once had. The kernel looks both names up before it asks
    /// the server; when the file went from the one to the other in between, it sees one file under
    /// two names, and to rename these onto each other is to do nothing, successfully.
    fn is_same_file(&self, from: &Name, to: &Name) -> bool {
        self.names.get(to).is_some_and(|file| self.had[file] & (1 << from) != 0)
    }

    /// Whether a file may have this inode; one that was not known is known from then on.
    fn is(&mut self, file: File, inode: u64) -> bool {
        let known = File::Inode(inode);
        if file == known {
            return true;
        }
        if matches!(file, File::Inode(_)) || self.had.contains_key(&known) {
            return false;
        }
        for other in self.names.values_mut().filter(|other| **other == file) {
            *other = known;
        }
        if let Some(had) = self.had.remove(&file) {
            self.had.insert(known, had);
        }
        true
    }
}

impl Model for Names {
    type State = Folder;
    type Call = NamesCall;
    type Answer = NamesAnswer;

    fn initial(&self) -> Folder {
        Folder::default()
    }

    fn step(
        &self,
        state: &Folder,
        _worker: usize,
        call: &NamesCall,
        answer: Option<&NamesAnswer>,
    ) -> Vec<Folder> {
        let mut all: Vec<Folder> = match answer {
            Some(answer) => answered(state, call, answer),
            None => done(state, call),
        }
        .into_iter()
        .collect();
        if let (
            NamesCall::Rename(from, to) | NamesCall::Exchange(from, to),
            Some(NamesAnswer::Done),
        ) = (call, answer)
            && state.is_same_file(from, to)
            && !all.contains(state)
        {
            all.push(state.clone());
        }
        all
    }
}

/// After a change of which nothing is known but that it was done.
fn done(state: &Folder, call: &NamesCall) -> Option<Folder> {
    match call {
        NamesCall::Create(name) => {
            let taken = |number| state.had.contains_key(&File::Unknown(number));
            let number = (0..).find(|number| !taken(*number))?;
            let mut state = state.clone();
            state.put(*name, File::Unknown(number)).then_some(state)
        }
        NamesCall::Lookup(_) | NamesCall::List => None,
        _ => answered(state, call, &NamesAnswer::Done),
    }
}

fn answered(state: &Folder, call: &NamesCall, answer: &NamesAnswer) -> Option<Folder> {
    let mut after = state.clone();
    match (call, answer) {
        (NamesCall::Create(name), NamesAnswer::Made(inode)) => {
            let file = File::Inode(*inode);
            let fresh = !state.had.contains_key(&file);
            (after.put(*name, file) && fresh).then_some(after)
        }
        (NamesCall::Create(name), NamesAnswer::Exists) => state.has(name).then_some(after),
        (NamesCall::Unlink(name), NamesAnswer::Done) => {
            after.take(name)?;
            after.forget();
            Some(after)
        }
        (NamesCall::Unlink(name), NamesAnswer::Missing) => (!state.has(name)).then_some(after),
        (NamesCall::Rename(from, to), NamesAnswer::Done) => {
            let file = after.take(from)?;
            after.put(*to, file);
            Some(after)
        }
        (NamesCall::RenameNoReplace(from, to), NamesAnswer::Done) => {
            let file = after.take(from)?;
            after.put(*to, file).then_some(after)
        }
        (NamesCall::Exchange(one, other), NamesAnswer::Done) => {
            let (first, second) = (*state.names.get(one)?, *state.names.get(other)?);
            after.names.insert(*other, first);
            after.put(*one, second);
            after.put(*other, first);
            Some(after)
        }
        (NamesCall::RenameNoReplace(_, to), NamesAnswer::Exists) => state.has(to).then_some(after),
        (
            NamesCall::Rename(from, _) | NamesCall::RenameNoReplace(from, _),
            NamesAnswer::Missing,
        ) => (!state.has(from)).then_some(after),
        (NamesCall::Exchange(one, other), NamesAnswer::Missing) => {
            (!state.has(one) || !state.has(other)).then_some(after)
        }
        (NamesCall::Lookup(name), NamesAnswer::Found(inode)) => {
            let file = *state.names.get(name)?;
            after.is(file, *inode).then_some(after)
        }
        (NamesCall::Lookup(name), NamesAnswer::Missing) => (!state.has(name)).then_some(after),
        (NamesCall::List, NamesAnswer::Listed(names)) => {
            if !names.keys().eq(state.names.keys()) {
                return None;
            }
            for (file, inode) in state.names.values().zip(names.values()) {
                if !after.is(*file, *inode) {
                    return None;
                }
            }
            Some(after)
        }
        _ => None,
    }
}

/// Locks on ranges of bytes of one file; each handle is an owner.
#[derive(Debug)]
pub struct Locks;

/// Bytes of a file that locks are about.
pub const LOCK_BYTES: usize = 4;

/// See [`Locks`]. Ranges are from the first to before the second byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocksCall {
    /// Without waiting or, with it, within a moment of the call.
    Lock {
        exclusive: bool,
        wait: bool,
        begin: usize,
        end: usize,
    },
    Unlock {
        begin: usize,
        end: usize,
    },
}

/// See [`Locks`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocksAnswer {
    Granted,
    Refused,
}

/// By byte: the owners with a shared lock, and the one with an exclusive lock.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct LocksState {
    bytes: [(Vec<usize>, Option<usize>); LOCK_BYTES],
}

impl Model for Locks {
    type State = LocksState;
    type Call = LocksCall;
    type Answer = LocksAnswer;

    fn initial(&self) -> LocksState {
        LocksState::default()
    }

    fn step(
        &self,
        state: &LocksState,
        worker: usize,
        call: &LocksCall,
        answer: Option<&LocksAnswer>,
    ) -> Vec<LocksState> {
        let mut after = state.clone();
        match (call, answer.unwrap_or(&LocksAnswer::Granted)) {
            (LocksCall::Unlock { begin, end }, LocksAnswer::Granted) => {
                after.release(worker, *begin, *end);
                vec![after]
            }
            (LocksCall::Lock { exclusive, wait, begin, end }, answer) => {
                let free = state.is_free(worker, *exclusive, *begin, *end);
                match answer {
                    LocksAnswer::Granted if free => {
                        after.release(worker, *begin, *end);
                        after.grant(worker, *exclusive, *begin, *end);
                        vec![after]
                    }
                    LocksAnswer::Refused if !free && !wait => vec![after],
                    _ => Vec::new(),
                }
            }
            _ => Vec::new(),
        }
    }
}

impl LocksState {
    fn is_free(&self, owner: usize, exclusive: bool, begin: usize, end: usize) -> bool {
        self.bytes[begin..end].iter().all(|(shared, held)| {
            let none_exclusive = held.is_none_or(|held| held == owner);
            none_exclusive && (!exclusive || shared.iter().all(|shared| *shared == owner))
        })
    }

    fn grant(&mut self, owner: usize, exclusive: bool, begin: usize, end: usize) {
        for (shared, held) in &mut self.bytes[begin..end] {
            if exclusive {
                *held = Some(owner);
            } else {
                shared.push(owner);
                shared.sort_unstable();
            }
        }
    }

    fn release(&mut self, owner: usize, begin: usize, end: usize) {
        for (shared, held) in &mut self.bytes[begin..end] {
            shared.retain(|shared| *shared != owner);
            if *held == Some(owner) {
                *held = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::check;
    use crate::history::Operation;

    /// Calls one after the other, each by its worker.
    fn in_turns<C: Clone, A: Clone>(calls: &[(usize, C, Option<A>)]) -> Vec<Operation<C, A>> {
        let numbered = calls.iter().enumerate();
        let made = numbered.map(|(number, (worker, call, answer))| {
            let called = number as u64 * 10;
            let (call, answer) = (call.clone(), answer.clone());
            Operation { worker: *worker, called, returned: called + 5, call, answer }
        });
        made.collect()
    }

    fn names(calls: &[(NamesCall, Option<NamesAnswer>)]) -> bool {
        let calls: Vec<_> =
            calls.iter().map(|(call, answer)| (0, call.clone(), answer.clone())).collect();
        check(&Names, &in_turns(&calls)).is_ok()
    }

    #[test]
    fn names_follow_the_calls() {
        use NamesAnswer::{Done, Exists, Found, Listed, Made, Missing};
        use NamesCall::{Create, Exchange, List, Lookup, Rename, RenameNoReplace, Unlink};
        let made = (Create(1), Some(Made(7)));
        let list = |names: &[(Name, u64)]| (List, Some(Listed(names.iter().copied().collect())));
        assert!(names(&[made.clone(), (Lookup(1), Some(Found(7))), list(&[(1, 7)])]));
        assert!(!names(&[made.clone(), (Create(1), Some(Made(8)))]), "two winners");
        assert!(!names(&[made.clone(), (Lookup(1), Some(Missing))]));
        let moved = [made.clone(), (Rename(1, 2), Some(Done))];
        let then = |call: (NamesCall, Option<NamesAnswer>)| names(&[&moved[..], &[call]].concat());
        assert!(then(list(&[(2, 7)])));
        assert!(!then(list(&[(1, 7), (2, 7)])), "at both names");
        assert!(!then(list(&[])), "at neither");
        assert!(then((RenameNoReplace(2, 1), Some(Done))));
        assert!(!then((RenameNoReplace(2, 1), Some(Exists))));
        assert!(!then((Unlink(1), Some(Done))));
        // The kernel may see one file under two names, see `is_same_file`; but not out of nothing.
        assert!(then((Rename(1, 2), Some(Done))));
        assert!(!then((Rename(1, 3), Some(Done))));
        assert!(!then((Rename(3, 2), Some(Done))));
        assert!(then((Exchange(1, 2), Some(Missing))));
        let two = [made, (Create(2), Some(Made(8))), (Exchange(1, 2), Some(Done))];
        assert!(names(&[&two[..], &[list(&[(1, 8), (2, 7)])]].concat()));
    }

    #[test]
    fn a_file_of_unknown_making_has_one_inode() {
        use NamesAnswer::{Found, Missing};
        use NamesCall::{Create, Lookup, Rename};
        let unknown = [(Create(1), None), (Create(2), None)];
        let then =
            |calls: &[(NamesCall, Option<NamesAnswer>)]| names(&[&unknown[..], calls].concat());
        assert!(then(&[(Lookup(1), Some(Missing))]));
        assert!(then(&[(Lookup(1), Some(Found(7))), (Lookup(2), Some(Found(8)))]));
        assert!(!then(&[(Lookup(1), Some(Found(7))), (Lookup(2), Some(Found(7)))]));
        assert!(!then(&[(Lookup(1), Some(Found(7))), (Lookup(1), Some(Found(8)))]));
        let moved = (Rename(1, 3), Some(NamesAnswer::Done));
        assert!(then(&[(Lookup(1), Some(Found(7))), moved, (Lookup(3), Some(Found(7)))]));
    }

    #[test]
    fn ctime_grows_with_each_change_and_with_nothing_else() {
        let set = |mode| (0, AttributesCall::SetMode(mode), Some(AttributesAnswer::Set));
        let stat = |mode, ctime| {
            let shows = AttributesAnswer::Shows { mode, mtime: 1, ctime };
            (0, AttributesCall::Stat, Some(shows))
        };
        let verdict = |calls: &[_]| check(&AttributesModel { initial: (1, 1) }, &in_turns(calls));
        assert!(verdict(&[stat(1, 5), stat(1, 5), set(2), stat(2, 6)]).is_ok());
        assert!(verdict(&[stat(1, 5), set(2), stat(2, 5)]).is_err(), "it stood still");
        assert!(verdict(&[stat(1, 5), stat(1, 6)]).is_err(), "it grew by itself");
        assert!(verdict(&[stat(1, 5), set(2), stat(1, 6)]).is_err(), "an old mode");
    }

    #[test]
    fn locks_exclude_each_other_byte_by_byte() {
        let lock = |worker, exclusive, begin, end, granted: bool| {
            let answer = if granted { LocksAnswer::Granted } else { LocksAnswer::Refused };
            let call = LocksCall::Lock { exclusive, wait: false, begin, end };
            (worker, call, Some(answer))
        };
        let unlock = |worker, begin, end| {
            (worker, LocksCall::Unlock { begin, end }, Some(LocksAnswer::Granted))
        };
        let verdict = |calls: &[_]| check(&Locks, &in_turns(calls)).is_ok();
        assert!(verdict(&[lock(0, true, 0, 2, true), lock(1, true, 2, 4, true)]));
        assert!(verdict(&[lock(0, true, 0, 3, true), lock(1, true, 2, 4, false)]));
        assert!(!verdict(&[lock(0, true, 0, 3, true), lock(1, true, 2, 4, true)]));
        assert!(verdict(&[lock(0, false, 0, 4, true), lock(1, false, 0, 4, true)]));
        assert!(!verdict(&[lock(0, false, 0, 4, true), lock(1, false, 0, 4, false)]));
        // A hole in a lock is free, the rest is not.
        let split = [lock(0, true, 0, 4, true), unlock(0, 1, 2)];
        assert!(verdict(&[&split[..], &[lock(1, true, 1, 2, true)]].concat()));
        assert!(!verdict(&[&split[..], &[lock(1, true, 1, 3, true)]].concat()));
        // One's own lock changes its kind.
        let lower = [lock(0, true, 0, 4, true), lock(0, false, 0, 4, true)];
        assert!(verdict(&[&lower[..], &[lock(1, false, 0, 1, true)]].concat()));
    }
}
