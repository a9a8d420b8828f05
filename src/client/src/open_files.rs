//! Which inodes this client has open, and what it knows of each.
//!
//! Two users: the file calls ([`crate::read`], [`crate::write`]) share one [`OpenFile`] for all
//! handles of an inode; the sessions ([`crate::sessions`]) ask here before they tell a minister
//! that a removed inode is *not open here*, after which it may be purged.
//!
//! What must always hold: an inode is marked before its open is asked for, and once "not open here"
//! was said of it, it is never opened here again. So a removed file can neither be purged under a
//! handle nor be opened on the way to being purged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use ministry_types::limits::OPEN_FILES_MAX;
use ministry_types::{Attributes, Caller, FsError, InodeId};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Inodes of which is remembered that "not open here" was said. They have no name any more: what
/// falls out is at worst opened by a request that was long under way, and its reads answer `ESTALE`
/// once it is purged.
const GIVEN_UP_MAX: usize = 1 << 14;
/// Confirmations that wait to be sent. The minister repeats its question for what falls out.
const CONFIRMATIONS_MAX: usize = 1 << 14;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenFlags {
    /// To read.
    pub read: bool,
    /// To write.
    pub write: bool,
    /// To execute: checks the mode bits for that instead of reading.
    pub execute: bool,
    /// Every write goes to the end, whatever offset it carries.
    pub append: bool,
    /// Cuts the file to nothing first.
    pub truncate: bool,
    /// Reading leaves the time of access as it is (`O_NOATIME`).
    pub no_access_time: bool,
}

impl OpenFlags {
    /// To read only.
    pub const READ: OpenFlags = OpenFlags {
        read: true,
        write: false,
        execute: false,
        append: false,
        truncate: false,
        no_access_time: false,
    };
    /// To read and write.
    pub const READ_WRITE: OpenFlags = OpenFlags { write: true, ..OpenFlags::READ };
}

/// An open file. Clones are the same open file; it is closed when the last one is dropped or
/// closed.
#[derive(Debug, Clone)]
pub struct FileHandle {
    pub(crate) opened: Arc<Opened>,
    pub(crate) caller: Caller,
    pub(crate) flags: OpenFlags,
}

impl FileHandle {
    /// The inode that is open.
    pub fn inode(&self) -> InodeId {
        self.opened.file.inode
    }

    /// How it was opened.
    pub fn flags(&self) -> OpenFlags {
        self.flags
    }

    /// The same open file, for calls on behalf of somebody else.
    #[must_use]
    pub fn on_behalf_of(mut self, caller: Caller) -> FileHandle {
        self.caller = caller;
        self
    }

    /// The same open file, for writes that go to the end or do not: `fcntl(2)` changes that while a
    /// file is open.
    #[must_use]
    pub fn appending(mut self, append: bool) -> FileHandle {
        self.flags.append = append;
        self
    }

    /// Whether a write may have set-id bits to take away, as far as is known here.
    pub fn may_have_set_ids(&self) -> bool {
        self.file().known().is_none_or(|known| known.permissions & 0o6000 != 0)
    }

    pub(crate) fn file(&self) -> &OpenFile {
        &self.opened.file
    }
}

/// What all handles of one inode share.
#[derive(Debug)]
pub(crate) struct OpenFile {
    /// Which inode.
    pub inode: InodeId,
    /// One write of this client after the other, in the order in which they came: overlapping ones
    /// are never turned round, appends never meet.
    pub writing: tokio::sync::Mutex<()>,
    newest: Mutex<Option<Attributes>>,
}

impl OpenFile {
    /// The newest attributes that any answer carried. Others may have changed the file since.
    pub fn known(&self) -> Option<Attributes> {
        self.newest.lock().clone()
    }

    /// An answer carried these attributes.
    pub fn learn(&self, attributes: &Attributes) {
        assert_eq!(attributes.inode, self.inode, "attributes of another inode");
        let mut newest = self.newest.lock();
        // Answers overtake each other. ctime grows strictly with each change but one: moving out,
        // which happens once.
        let newer = newest.as_ref().is_none_or(|known| {
            let moved_back = known.layout.is_chunked() && !attributes.layout.is_chunked();
            known.ctime <= attributes.ctime && !moved_back
        });
        if newer {
            *newest = Some(attributes.clone());
        }
    }
}

/// All inodes that are open or being opened.
#[derive(Debug, Default)]
pub(crate) struct OpenTable {
    inner: Mutex<Table>,
    confirmations: Notify,
}

#[derive(Debug, Default)]
struct Table {
    open: BTreeMap<InodeId, Entry>,
    given_up: BTreeSet<InodeId>,
    given_up_order: VecDeque<InodeId>,
    to_confirm: BTreeSet<InodeId>,
}

#[derive(Debug)]
struct Entry {
    file: Arc<OpenFile>,
    handles: usize,
    /// It has lost its last name: its minister waits to hear that it is closed.
    orphan: bool,
}

/// One open of an inode, from before it was asked for; ends when dropped.
#[derive(Debug)]
pub(crate) struct Opened {
    table: Arc<OpenTable>,
    file: Arc<OpenFile>,
}

impl OpenTable {
    /// Marks the inode as open, before the minister is asked.
    pub fn begin(self: &Arc<OpenTable>, inode: InodeId) -> Result<Opened, FsError> {
        let mut inner = self.inner.lock();
        if inner.given_up.contains(&inode) {
            return Err(FsError::Stale);
        }
        if inner.open.len() >= OPEN_FILES_MAX && !inner.open.contains_key(&inode) {
            return Err(FsError::TooManyOpenFiles);
        }
        let entry = inner.open.entry(inode).or_insert_with(|| Entry {
            file: Arc::new(OpenFile {
                inode,
                writing: tokio::sync::Mutex::default(),
                newest: Mutex::default(),
            }),
            handles: 0,
            orphan: false,
        });
        entry.handles += 1;
        let file = Arc::clone(&entry.file);
        metrics::gauge!("ministry_client_open_files").set(inner.open.len() as f64);
        Ok(Opened { table: Arc::clone(self), file })
    }

    /// The shared state of an inode that is open.
    pub fn find(&self, inode: InodeId) -> Option<Arc<OpenFile>> {
        self.inner.lock().open.get(&inode).map(|entry| Arc::clone(&entry.file))
    }

    /// The inode has lost its last name. Not open here: that will be confirmed with the next sign
    /// of life; open: when it is closed.
    pub fn orphaned(&self, inode: InodeId) {
        self.inner.lock().orphaned(inode);
    }

    /// What there is to confirm is worth a sign of life of its own: room gets free.
    pub fn confirm_soon(&self) {
        self.confirmations.notify_waiters();
    }

    /// The inodes of which "not open here" is to be said, of those that `wanted` takes.
    pub fn confirmations(&self, limit: usize, wanted: impl Fn(InodeId) -> bool) -> Vec<InodeId> {
        let inner = self.inner.lock();
        inner.to_confirm.iter().copied().filter(|inode| wanted(*inode)).take(limit).collect()
    }

    /// These were said.
    pub fn confirmed(&self, inodes: &[InodeId]) {
        let mut inner = self.inner.lock();
        for inode in inodes {
            inner.to_confirm.remove(inode);
        }
    }

    /// Ends when there may be something new to confirm.
    ///
    /// Cancel safety: safe; what it missed is found by [`OpenTable::confirmations`].
    pub async fn something_to_confirm(&self) {
        self.confirmations.notified().await;
    }

    fn end(&self, inode: InodeId) {
        let mut inner = self.inner.lock();
        let entry = inner.open.get_mut(&inode).expect("an open inode is in the table");
        assert!(entry.handles > 0, "an open inode has handles");
        entry.handles -= 1;
        if entry.handles > 0 {
            return;
        }
        let orphan = entry.orphan;
        inner.open.remove(&inode);
        if orphan {
            inner.orphaned(inode);
        }
        metrics::gauge!("ministry_client_open_files").set(inner.open.len() as f64);
        drop(inner);
        if orphan {
            self.confirm_soon();
        }
    }
}

impl Table {
    fn orphaned(&mut self, inode: InodeId) {
        if let Some(entry) = self.open.get_mut(&inode) {
            entry.orphan = true;
            return;
        }
        if self.given_up.insert(inode) {
            self.given_up_order.push_back(inode);
        }
        if self.given_up_order.len() > GIVEN_UP_MAX
            && let Some(oldest) = self.given_up_order.pop_front()
        {
            self.given_up.remove(&oldest);
            self.to_confirm.remove(&oldest);
        }
        if self.to_confirm.len() < CONFIRMATIONS_MAX {
            self.to_confirm.insert(inode);
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.table.end(self.file.inode);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INODE: InodeId = InodeId(7);

    fn to_confirm(table: &OpenTable) -> Vec<InodeId> {
        table.confirmations(100, |_| true)
    }

    #[test]
    fn an_open_orphan_is_confirmed_only_when_its_last_handle_is_closed() {
        let table = Arc::new(OpenTable::default());
        let first = table.begin(INODE).unwrap();
        let second = table.begin(INODE).unwrap();
        table.orphaned(INODE);
        drop(first);
        assert_eq!(to_confirm(&table), []);
        drop(second);
        assert_eq!(to_confirm(&table), [INODE]);
        table.confirmed(&[INODE]);
        assert_eq!(to_confirm(&table), []);
    }

    #[test]
    fn what_was_said_to_be_closed_is_never_opened_again() {
        let table = Arc::new(OpenTable::default());
        table.orphaned(INODE);
        assert_eq!(table.begin(INODE).unwrap_err(), FsError::Stale);
        table.confirmed(&[INODE]);
        assert_eq!(table.begin(INODE).unwrap_err(), FsError::Stale);
    }

    #[test]
    fn the_table_is_empty_when_everything_is_closed() {
        let table = Arc::new(OpenTable::default());
        let opened: Vec<_> = (1..50).map(|inode| table.begin(InodeId(inode)).unwrap()).collect();
        assert!(table.find(InodeId(3)).is_some());
        drop(opened);
        assert!(table.inner.lock().open.is_empty());
        assert_eq!(to_confirm(&table), []);
    }

    #[test]
    fn one_open_file_too_many_is_refused_and_those_that_are_open_can_be_opened_again() {
        let table = Arc::new(OpenTable::default());
        let most = OPEN_FILES_MAX as u64;
        let mut opened: Vec<_> =
            (1..=most).map(|inode| table.begin(InodeId(inode)).unwrap()).collect();
        assert_eq!(table.begin(InodeId(most + 1)).unwrap_err(), FsError::TooManyOpenFiles);
        drop(table.begin(InodeId(most)).unwrap());
        drop(opened.pop());
        table.begin(InodeId(most + 1)).unwrap();
    }

    #[test]
    fn what_is_remembered_of_closed_orphans_is_bounded() {
        let table = Arc::new(OpenTable::default());
        for inode in 0..2 * GIVEN_UP_MAX as u64 {
            table.orphaned(InodeId(inode + 1));
        }
        let inner = table.inner.lock();
        assert_eq!(inner.given_up.len(), GIVEN_UP_MAX);
        assert!(inner.to_confirm.len() <= CONFIRMATIONS_MAX);
    }
}
