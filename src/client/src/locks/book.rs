//! Which owners of this client hold or asked for locks, file by file.
//!
//! What must always hold: an owner with a request under way, or of which the ministry has not said
//! that it holds nothing, is in the book.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ministry_types::locks::{LockKind, LockOwner};
use ministry_types::{InodeId, SessionId};
use parking_lot::Mutex;

/// An owner on a file.
pub(super) type Key = (InodeId, LockOwner);

#[derive(Debug, Default)]
struct Entry {
    /// Open files by which it asked.
    handles: BTreeSet<u64>,
    /// The program knows of a lock that it has.
    holds: bool,
    /// Requests of which nobody knows what came of them.
    open: BTreeSet<u64>,
    /// Under which the newest lock was granted.
    session: Option<SessionId>,
    /// Requests that are not answered, and tasks that wait for their turn.
    under_way: usize,
    /// Held while something is given back.
    order: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct Book {
    entries: BTreeMap<Key, Entry>,
    /// Handles whose locks went with their session.
    lost: BTreeSet<u64>,
}

/// The table of owners.
#[derive(Debug, Default)]
pub(crate) struct LockBook {
    inner: Mutex<Book>,
    /// Of handles that are lost, so that the usual case asks for no lock.
    lost: AtomicUsize,
    last_request: AtomicU64,
}

/// Something that concerns an owner is under way; ends when dropped.
#[derive(Debug)]
pub(super) struct UnderWay {
    book: Arc<LockBook>,
    pub(super) key: Key,
    /// Held while something is given back: what comes later waits for it.
    pub(super) order: Arc<tokio::sync::Mutex<()>>,
}

impl LockBook {
    /// A number that no request of this client had before.
    pub(super) fn next_request(&self) -> u64 {
        self.last_request.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A request of an owner is to be sent.
    pub(super) fn begin(self: &Arc<LockBook>, key: Key) -> UnderWay {
        let mut inner = self.inner.lock();
        let entry = inner.entries.entry(key).or_default();
        entry.under_way += 1;
        let order = Arc::clone(&entry.order);
        measure(&inner);
        UnderWay { book: Arc::clone(self), key, order }
    }

    /// As [`LockBook::begin`], where the owner is in the book.
    pub(super) fn begin_known(self: &Arc<LockBook>, key: Key) -> Option<UnderWay> {
        let known = self.inner.lock().entries.contains_key(&key);
        // Whoever is forgotten in between has nothing: asking is in vain, not wrong.
        known.then(|| self.begin(key))
    }

    /// The owners with this number on a file.
    pub(super) fn owners(&self, inode: InodeId, number: u64) -> Vec<Key> {
        let inner = self.inner.lock();
        let kinds = [LockKind::Flock, LockKind::Posix];
        let keys = kinds.map(|kind| (inode, LockOwner { number, kind }));
        keys.into_iter().filter(|key| inner.entries.contains_key(key)).collect()
    }

    /// The owners that asked by this handle on a file.
    pub(super) fn owners_by_handle(&self, inode: InodeId, handle: u64) -> Vec<Key> {
        let inner = self.inner.lock();
        let lowest = LockOwner { number: 0, kind: LockKind::Flock };
        let of_file = inner.entries.range((inode, lowest)..);
        let of_file = of_file.take_while(|((other, _), _)| *other == inode);
        let by_handle = of_file.filter(|(_, entry)| entry.handles.contains(&handle));
        by_handle.map(|(key, _)| *key).collect()
    }

    /// The session under which these locks were granted has ended.
    pub(crate) fn session_ended(&self, session: SessionId) {
        let mut inner = self.inner.lock();
        let Book { entries, lost } = &mut *inner;
        for entry in entries.values_mut() {
            if entry.holds && entry.session == Some(session) {
                lost.extend(entry.handles.iter());
                entry.holds = false;
            }
        }
        let count = inner.lost.len();
        drop(inner);
        self.lost.store(count, Ordering::Release);
        if count > 0 {
            tracing::warn!(handles = count, "locks were lost with the session; their files fail");
        }
    }

    /// Whether a lock that was taken by this handle went with its session.
    pub(super) fn is_lost(&self, handle: u64) -> bool {
        self.lost.load(Ordering::Acquire) > 0 && self.inner.lock().lost.contains(&handle)
    }

    /// The handle is closed.
    pub(super) fn forget_handle(&self, handle: u64) {
        if self.lost.load(Ordering::Acquire) > 0 {
            let mut inner = self.inner.lock();
            inner.lost.remove(&handle);
            self.lost.store(inner.lost.len(), Ordering::Release);
        }
    }
}

impl UnderWay {
    fn entry<T>(&self, work: impl FnOnce(&mut Entry) -> T) -> T {
        let mut inner = self.book.inner.lock();
        let entry = inner.entries.get_mut(&self.key);
        work(entry.expect("an owner with something under way is in the book"))
    }

    /// A request goes out by this handle.
    pub(super) fn asks(&self, handle: u64, request: u64) {
        self.entry(|entry| {
            entry.handles.insert(handle);
            entry.open.insert(request);
        });
    }

    /// The program is told that it has a lock.
    pub(super) fn granted(&self, request: u64, session: SessionId) {
        self.entry(|entry| {
            entry.holds = true;
            entry.session = Some(session);
            entry.open.remove(&request);
        });
    }

    /// The request was refused, or has ended: nothing will come of it.
    pub(super) fn refused(&self, request: u64) {
        self.entry(|entry| entry.open.remove(&request));
    }

    /// Nothing else of the owner is under way.
    pub(super) fn is_alone(&self) -> bool {
        self.entry(|entry| entry.under_way == 1)
    }

    /// The program knows of no lock, and nothing else is under way: whatever the ministry has for
    /// the owner is nobody's.
    pub(super) fn has_nothing(&self) -> bool {
        self.entry(|entry| !entry.holds && entry.under_way == 1)
    }

    /// Whether the owner asked by this handle.
    pub(super) fn asked_by(&self, handle: u64) -> bool {
        self.entry(|entry| entry.handles.contains(&handle))
    }

    /// Everything was given back.
    pub(super) fn gave_back(&self) {
        self.entry(|entry| {
            entry.holds = false;
            entry.handles.clear();
            entry.open.clear();
        });
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut inner = self.book.inner.lock();
        let Some(entry) = inner.entries.get_mut(&self.key) else { return };
        entry.under_way -= 1;
        if entry.under_way == 0 && !entry.holds && entry.open.is_empty() {
            inner.entries.remove(&self.key);
        }
        measure(&inner);
    }
}

fn measure(book: &Book) {
    metrics::gauge!("ministry_client_locks").set(book.entries.len() as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    const INODE: InodeId = InodeId(9);

    fn key(number: u64, kind: LockKind) -> Key {
        (INODE, LockOwner { number, kind })
    }

    #[test]
    fn an_owner_is_known_until_everything_is_given_back() {
        let book = Arc::new(LockBook::default());
        let session = SessionId([1; 16]);
        let posix = key(7, LockKind::Posix);
        let asking = book.begin(posix);
        asking.asks(3, 1);
        asking.granted(1, session);
        drop(asking);
        assert_eq!(book.owners(INODE, 7), [posix]);
        assert_eq!(book.owners_by_handle(INODE, 3), [posix]);
        assert_eq!(book.owners_by_handle(INODE, 4), []);
        assert_eq!(book.owners_by_handle(InodeId(8), 3), []);
        let releasing = book.begin_known(posix).unwrap();
        releasing.gave_back();
        drop(releasing);
        assert!(book.begin_known(posix).is_none() && book.owners(INODE, 7).is_empty());
    }

    #[test]
    fn an_owner_whose_request_was_not_answered_stays_known() {
        let book = Arc::new(LockBook::default());
        let flock = key(7, LockKind::Flock);
        let asking = book.begin(flock);
        asking.asks(3, 1);
        asking.asks(3, 2);
        asking.refused(2);
        drop(asking);
        assert_eq!(book.owners_by_handle(INODE, 3), [flock], "the ministry may have granted it");
        let asking = book.begin(flock);
        asking.refused(1);
        drop(asking);
        assert_eq!(book.owners_by_handle(INODE, 3), [], "a refused one costs nothing at close");
    }

    #[test]
    fn handles_are_lost_with_the_session_of_their_locks_until_they_are_closed() {
        let book = Arc::new(LockBook::default());
        let (session, other) = (SessionId([1; 16]), SessionId([2; 16]));
        for (number, session) in [(1, session), (2, other)] {
            let asking = book.begin(key(number, LockKind::Flock));
            asking.asks(number, number);
            asking.granted(number, session);
        }
        book.session_ended(session);
        assert!(book.is_lost(1) && !book.is_lost(2));
        book.forget_handle(1);
        assert!(!book.is_lost(1));
    }
}
