//! What the kernel has open: its 64-bit handles, and what stands behind each.
//!
//! What must always hold: a handle number is never used twice, so a late request on a closed
//! handle finds nothing rather than another file. What fails: too many open files at once are
//! refused.

use std::collections::HashMap;
use std::sync::Arc;

use fuser::FileHandle as Number;
use ministry_client::FileHandle;
use ministry_types::limits::OPEN_FILES_MAX;
use ministry_types::{Caller, InodeId};
use parking_lot::Mutex;

use crate::directory::Position;
use crate::failure::MountFailure;

/// An open file.
#[derive(Debug)]
pub(crate) struct OpenFile {
    /// The client's side of it.
    pub(crate) file: FileHandle,
    /// What it changes is to be durable at once (`O_SYNC`, `O_DSYNC`).
    pub(crate) synchronous: bool,
}

/// An open directory.
#[derive(Debug)]
pub(crate) struct OpenDirectory {
    /// Which.
    pub(crate) inode: InodeId,
    /// Who opened it; the permission to read it was asked then.
    pub(crate) opener: Caller,
    /// Entries that were fetched and not yet handed over.
    pub(crate) position: Position,
}

/// A table of one kind of handle.
#[derive(Debug)]
pub(crate) struct Handles<T> {
    table: Mutex<Table<T>>,
}

#[derive(Debug)]
struct Table<T> {
    last: u64,
    open: HashMap<u64, Arc<T>>,
}

impl<T> Default for Handles<T> {
    fn default() -> Handles<T> {
        Handles { table: Mutex::new(Table { last: 0, open: HashMap::new() }) }
    }
}

impl<T> Handles<T> {
    /// Gives a number to what was opened.
    pub(crate) fn insert(&self, value: T) -> Result<Number, MountFailure> {
        let mut table = self.table.lock();
        if table.open.len() >= OPEN_FILES_MAX {
            return Err(MountFailure::TooManyOpen);
        }
        table.last += 1;
        let number = table.last;
        let previous = table.open.insert(number, Arc::new(value));
        assert!(previous.is_none(), "a handle number is used once");
        Ok(Number(number))
    }

    /// What stands behind a number.
    pub(crate) fn get(&self, number: Number) -> Result<Arc<T>, MountFailure> {
        self.table.lock().open.get(&number.0).cloned().ok_or(MountFailure::BadHandle)
    }

    /// Any handle that will do.
    pub(crate) fn find(&self, will_do: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        self.table.lock().open.values().find(|value| will_do(value)).cloned()
    }

    /// Closes one.
    pub(crate) fn remove(&self, number: Number) -> Result<Arc<T>, MountFailure> {
        self.table.lock().open.remove(&number.0).ok_or(MountFailure::BadHandle)
    }

    /// Closes all: the kernel does not always say so for each when a mount ends.
    pub(crate) fn drain(&self) -> Vec<Arc<T>> {
        self.table.lock().open.drain().map(|(_, value)| value).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_number_never_comes_back() {
        let handles = Handles::default();
        let first = handles.insert("first").unwrap();
        assert_eq!(handles.get(first).as_deref(), Ok(&"first"));
        assert_eq!(handles.remove(first).as_deref(), Ok(&"first"));
        let second = handles.insert("second").unwrap();
        assert_ne!(first, second);
        assert_eq!(handles.get(first), Err(MountFailure::BadHandle));
        assert_eq!(handles.remove(first), Err(MountFailure::BadHandle));
        assert_eq!(handles.find(|value| *value == "second").as_deref(), Some(&"second"));
        assert_eq!(handles.drain().len(), 1);
        assert_eq!(handles.get(second), Err(MountFailure::BadHandle));
    }

    #[test]
    fn one_file_too_many_is_enfile_until_another_is_closed() {
        let handles = Handles::default();
        let numbers: Vec<_> = (0..OPEN_FILES_MAX).map(|_| handles.insert(()).unwrap()).collect();
        let refused = handles.insert(()).unwrap_err();
        assert_eq!(crate::failure::Failure::from(refused).errno().code(), libc::ENFILE);
        handles.remove(numbers[7]).unwrap();
        handles.insert(()).unwrap();
        assert_eq!(handles.insert(()), Err(MountFailure::TooManyOpen));
    }
}
