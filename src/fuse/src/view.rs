//! What a mount shows of the file system: which directory is its root, and whose the files are.
//!
//! The adapter and the code that takes requests apart ask this. The kernel's number of a mount's
//! root is always 1; with the option `subdir` another directory stands behind it. With the options
//! `uid` and `gid` every object is shown as owned by these, whoever owns it.
//!
//! What must always hold: only what is shown changes. The minister judges each request by the
//! process that makes it and by the true owner, so neither option gives rights to anybody; and a
//! root below the file system's own is a convenience, no wall.
//!
//! When the root is removed by another mount, it is a directory without a name until its record is
//! purged; then its number finds nothing, and the kernel gets `ESTALE`.

use fuser::{FileAttr, INodeNo};
use ministry_types::{Attributes, InodeId};

use crate::convert;

/// What one mount shows. The numbers that the kernel uses are Ministry's own, but for the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    /// The directory behind the kernel's number 1.
    pub(crate) root: InodeId,
    /// The owner that is shown, instead of the true one.
    pub(crate) uid: Option<u32>,
    /// The group that is shown, instead of the true one.
    pub(crate) gid: Option<u32>,
}

impl Default for View {
    /// Everything, as it is.
    fn default() -> View {
        View { root: InodeId::ROOT, uid: None, gid: None }
    }
}

impl View {
    /// The inode that the kernel means.
    pub(crate) fn inode(&self, number: INodeNo) -> InodeId {
        if number == INodeNo::ROOT { self.root } else { InodeId(number.0) }
    }

    /// What `stat` shows of an object.
    pub(crate) fn attributes(&self, attributes: &Attributes) -> FileAttr {
        let mut shown = convert::file_attributes(attributes);
        shown.uid = self.uid.unwrap_or(shown.uid);
        shown.gid = self.gid.unwrap_or(shown.gid);
        shown
    }

    /// What a directory shows as `..`. The root of a mount is its own parent, as on any file
    /// system; what lies above is not shown.
    pub(crate) fn parent(&self, directory: InodeId, parent: InodeId) -> InodeId {
        if directory == self.root { directory } else { parent }
    }
}

#[cfg(test)]
mod tests {
    use ministry_types::{FileKind, Layout, Timestamp};

    use super::*;

    fn attributes() -> Attributes {
        let time = Timestamp(1);
        Attributes {
            inode: InodeId(77),
            kind: FileKind::Directory,
            permissions: 0o755,
            uid: 5000,
            gid: 5001,
            links: 2,
            size: 0,
            allocated_bytes: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            device: 0,
            layout: Layout::None,
        }
    }

    #[test]
    fn the_kernels_root_is_the_directory_that_was_mounted() {
        let view = View { root: InodeId(77), ..View::default() };
        assert_eq!(view.inode(INodeNo(1)), InodeId(77));
        assert_eq!(view.inode(INodeNo(78)), InodeId(78));
        assert_eq!(View::default().inode(INodeNo(1)), InodeId::ROOT);
    }

    #[test]
    fn nothing_above_the_root_is_shown() {
        let view = View { root: InodeId(77), ..View::default() };
        assert_eq!(view.parent(InodeId(77), InodeId(1)), InodeId(77));
        assert_eq!(view.parent(InodeId(78), InodeId(77)), InodeId(77));
        assert_eq!(View::default().parent(InodeId::ROOT, InodeId::ROOT), InodeId::ROOT);
    }

    #[test]
    fn owner_and_group_are_shown_as_asked_for_each_for_itself() {
        let plain = View::default().attributes(&attributes());
        assert_eq!((plain.uid, plain.gid, plain.ino.0), (5000, 5001, 77));
        let view = View { uid: Some(7), ..View::default() };
        let shown = view.attributes(&attributes());
        assert_eq!((shown.uid, shown.gid), (7, 5001));
    }
}
