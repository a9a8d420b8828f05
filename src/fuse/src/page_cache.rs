//! Whether the kernel may keep the pages of a file that is opened again.
//!
//! Pages are dropped in two ways. While a file is open the kernel compares size and mtime before
//! each read (`FUSE_AUTO_INVAL_DATA`; with attribute time-out 0 it asks each time) and drops them
//! when one has changed: mtime grows strictly with each change of the content. But a person may
//! set mtime back (`cp -p`, `touch -r`), so at open a stronger rule holds: the pages stay
//! (`FOPEN_KEEP_CACHE`) only if **ctime**, which nobody can set and which grows strictly with every
//! change, is what it was at the last open here. Then nothing at all has happened in between, so
//! whatever pages the kernel has are right. Anything else drops them; a `chmod` costs the cache of
//! one file.
//!
//! What must always hold: forgetting an entry is always safe. Entries go when the kernel forgets
//! the inode, and all of them when there are too many.

use std::collections::HashMap;

use ministry_types::{Attributes, FileKind, InodeId, Timestamp};
use parking_lot::Mutex;

/// Files of which this is remembered; some forty bytes each.
const REMEMBERED_MAX: usize = 1 << 20;

/// What is known of the ctime of each file that the kernel knows.
#[derive(Debug, Default)]
pub(crate) struct PageCache {
    files: Mutex<HashMap<InodeId, Times>>,
}

#[derive(Debug)]
struct Times {
    /// The newest that any answer carried.
    seen: Timestamp,
    /// What it was when the file was last opened.
    opened: Option<Timestamp>,
}

impl PageCache {
    /// An answer carried these attributes.
    pub(crate) fn saw(&self, attributes: &Attributes) {
        if attributes.kind != FileKind::Regular {
            return;
        }
        let mut files = self.files.lock();
        if files.len() >= REMEMBERED_MAX && !files.contains_key(&attributes.inode) {
            files.clear();
        }
        let seen = attributes.ctime;
        let times = files.entry(attributes.inode).or_insert(Times { seen, opened: None });
        times.seen = times.seen.max(seen);
    }

    /// A file is opened. Whether the kernel may keep its pages. The kernel has looked the name up
    /// within the same call (entry time-out 0), so what was seen last is new enough.
    pub(crate) fn keep_pages(&self, inode: InodeId) -> bool {
        let mut files = self.files.lock();
        let Some(times) = files.get_mut(&inode) else { return false };
        times.opened.replace(times.seen) == Some(times.seen)
    }

    /// The kernel has dropped the inode, and its pages with it.
    pub(crate) fn forget(&self, inode: InodeId) {
        self.files.lock().remove(&inode);
    }
}

#[cfg(test)]
mod tests {
    use ministry_types::Layout;

    use super::*;

    const FILE: InodeId = InodeId(5);

    fn file(mtime: i64, ctime: i64) -> Attributes {
        Attributes {
            inode: FILE,
            kind: FileKind::Regular,
            permissions: 0o644,
            uid: 0,
            gid: 0,
            links: 1,
            size: 1,
            allocated_bytes: 1,
            atime: Timestamp(0),
            mtime: Timestamp(mtime),
            ctime: Timestamp(ctime),
            btime: Timestamp(0),
            device: 0,
            layout: Layout::Inline,
        }
    }

    #[test]
    fn pages_are_dropped_at_open_although_mtime_was_set_back() {
        let cache = PageCache::default();
        assert!(!cache.keep_pages(FILE), "nothing is known");
        cache.saw(&file(1, 1));
        assert!(!cache.keep_pages(FILE), "nothing is known of the pages yet");
        cache.saw(&file(1, 1));
        assert!(cache.keep_pages(FILE));
        cache.saw(&file(1, 3));
        assert!(!cache.keep_pages(FILE), "changed, then touch -r");
        assert!(cache.keep_pages(FILE));
        cache.saw(&file(1, 2));
        assert!(cache.keep_pages(FILE), "an answer that was overtaken");
        cache.forget(FILE);
        cache.saw(&file(1, 3));
        assert!(!cache.keep_pages(FILE));
    }
}
