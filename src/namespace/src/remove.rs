//! Names that go.
//!
//! Called by `apply` for [`Operation::Unlink`] and [`Operation::RemoveDirectory`]; `rename` uses
//! the parts that take a name away.
//!
//! What must always hold: an object whose last name goes becomes an orphan in the same step. A
//! directory that another ministry owns keeps its name.
//!
//! [`Operation::Unlink`]: ministry_types::operations::Operation::Unlink
//! [`Operation::RemoveDirectory`]: ministry_types::operations::Operation::RemoveDirectory

use ministry_types::operations::Outcome;
use ministry_types::{FileKind, FsError, InodeId};

use crate::create::check_name;
use crate::permissions::{self, EXECUTE, WRITE};
use crate::records::{Found, InodeRecord, Ruled, Work};

/// A name with what is behind it.
pub(crate) struct Child {
    pub(crate) found: Found,
    /// Absent: another ministry owns it.
    pub(crate) record: Option<InodeRecord>,
}

impl Child {
    pub(crate) fn is_directory(&self) -> bool {
        self.found.kind == FileKind::Directory
    }
}

impl Work<'_> {
    /// Removes a name of an object that is not a directory.
    pub(crate) fn unlink(&mut self, parent: InodeId, name: &[u8]) -> Ruled<Outcome> {
        let (directory, _) = self.records().directory(parent)?;
        let child = self.find_child(&directory, name)?;
        self.check_may_remove(&directory, &child, false)?;
        if child.record.is_none() {
            return Err(FsError::Busy.into());
        }
        self.take_name(parent, &child.found)?;
        let orphan = self.drop_link(child.found.inode)?;
        Ok(Outcome::Unlinked { inode: child.found.inode, orphan })
    }

    /// Removes an empty directory.
    pub(crate) fn remove_directory(&mut self, parent: InodeId, name: &[u8]) -> Ruled<Outcome> {
        let (directory, _) = self.records().directory(parent)?;
        let child = self.find_child(&directory, name)?;
        self.check_may_remove(&directory, &child, true)?;
        let record = child.record.ok_or(FsError::Busy)?;
        check_empty(&record)?;
        self.take_name(parent, &child.found)?;
        self.drop_link(child.found.inode)?;
        Ok(Outcome::Done)
    }

    /// What a name stands for that must be there.
    pub(crate) fn find_child(&self, directory: &InodeRecord, name: &[u8]) -> Ruled<Child> {
        self.find_any(directory, name)?.ok_or_else(|| FsError::NotFound.into())
    }

    /// What a name stands for, if it is there.
    pub(crate) fn find_any(&self, directory: &InodeRecord, name: &[u8]) -> Ruled<Option<Child>> {
        self.records().check(self.caller, directory, EXECUTE)?;
        check_name(name)?;
        let records = self.records();
        let Some(found) = records.find(directory.attributes.inode, name)? else {
            return Ok(None);
        };
        let record = records.inode_here(found.inode)?;
        Ok(Some(Child { found, record }))
    }

    /// Whether the caller may take a name away, as that of a directory or of something else.
    pub(crate) fn check_may_remove(
        &self,
        directory: &InodeRecord,
        child: &Child,
        as_directory: bool,
    ) -> Ruled<()> {
        self.records().check(self.caller, directory, WRITE | EXECUTE)?;
        if let Some(record) = &child.record {
            permissions::check_sticky(self.caller, &directory.attributes, &record.attributes)?;
        }
        match (as_directory, child.is_directory()) {
            (true, false) => Err(FsError::NotDirectory.into()),
            (false, true) => Err(FsError::IsDirectory.into()),
            _ => Ok(()),
        }
    }

    /// Takes a name out of a directory: dentry, way back, counts and times.
    pub(crate) fn take_name(&mut self, parent: InodeId, found: &Found) -> Ruled<()> {
        self.state.delete(self.keys.dentry(parent, found.cookie));
        let is_directory = found.kind == FileKind::Directory;
        if !is_directory {
            self.state.delete(self.keys.backlink(found.inode, parent, found.cookie));
        }
        self.edit_directory(parent, |record, directory, time| {
            assert!(directory.entries > 0, "a directory counts its names");
            directory.entries -= 1;
            record.attributes.links -= u32::from(is_directory);
            record.touch_content(time);
        })
    }

    /// Counts one name less of an object, and says whether that was the last.
    pub(crate) fn drop_link(&mut self, inode: InodeId) -> Ruled<bool> {
        let time = self.time;
        let record = self.edit_inode(inode, |record| {
            assert!(record.attributes.links > 0, "an orphan has no name to lose");
            // The second link of a directory is its own, which goes with its name.
            let last = record.is_directory();
            record.attributes.links = if last { 0 } else { record.attributes.links - 1 };
            record.touch(time);
        })?;
        if record.is_orphan() {
            self.make_orphan(&record)?;
        }
        Ok(record.is_orphan())
    }
}

/// Whether a directory has no names in it.
pub(crate) fn check_empty(record: &InodeRecord) -> Result<(), FsError> {
    match &record.directory {
        Some(directory) if directory.entries > 0 => Err(FsError::NotEmpty),
        _ => Ok(()),
    }
}
