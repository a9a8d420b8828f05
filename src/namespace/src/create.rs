//! New objects and further names of old ones.
//!
//! Called by `apply` for [`Operation::Create`] and [`Operation::Link`]; `rename` uses the parts that
//! put a name into a directory.
//!
//! What must always hold: a number is given out once. A name that is put into a directory is
//! counted there, and found from its object: by the record of a directory, by a backlink of
//! anything else.
//!
//! [`Operation::Create`]: ministry_types::operations::Operation::Create
//! [`Operation::Link`]: ministry_types::operations::Operation::Link

use std::ops::ControlFlow;

use ministry_types::limits::{
    INLINE_BYTES_MAX, INODE_BLOCK, LINKS_MAX, NAME_BYTES_MAX, SYMLINK_BYTES_MAX,
};
use ministry_types::operations::Outcome;
use ministry_types::{Attributes, FileKind, FsError, InodeId, Layout, Timestamp};

use crate::acl_attributes::{AclKind, AclsKept, Inherited};
use crate::keys;
use crate::permissions::{EXECUTE, GROUP_EXECUTE, PERMISSION_BITS, SET_GID, WRITE, in_group};
use crate::records::{
    DentryRecord, DirectoryRecord, InodeRecord, RangeRecord, Ruled, Work, read_number, read_value,
};

/// What to make.
pub(crate) struct New<'a> {
    pub(crate) kind: FileKind,
    pub(crate) permissions: u32,
    pub(crate) umask: u32,
    pub(crate) device: u64,
    pub(crate) target: &'a [u8],
}

/// Whether a name may stand in a directory.
pub(crate) fn check_name(name: &[u8]) -> Result<(), FsError> {
    if name.is_empty()
        || name == b"."
        || name == b".."
        || name.iter().any(|b| matches!(b, 0 | b'/'))
    {
        return Err(FsError::Invalid);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(FsError::NameTooLong);
    }
    Ok(())
}

impl Work<'_> {
    /// Makes an object with one name.
    pub(crate) fn create(&mut self, parent: InodeId, name: &[u8], new: &New<'_>) -> Ruled<Outcome> {
        let (directory, _) = self.records().directory(parent)?;
        self.check_new_name(&directory, name)?;
        self.check_new_object(new)?;
        let (gid, permissions) = self.inherit(&directory.attributes, new);
        let inherited =
            self.records().inherit_acls(&directory, new.kind, permissions, new.umask)?;
        let Inherited { permissions, access, default } = inherited;
        let inode = self.take_number(parent)?;
        let is_directory = new.kind == FileKind::Directory;
        let size = new.target.len() as u64;
        let mut record = InodeRecord {
            attributes: Attributes {
                inode,
                kind: new.kind,
                permissions,
                uid: self.caller.uid,
                gid,
                links: if is_directory { 2 } else { 1 },
                size,
                allocated_bytes: 0,
                atime: self.time,
                mtime: self.time,
                ctime: self.time,
                btime: self.time,
                device: new.device,
                layout: if new.kind == FileKind::Regular { Layout::Inline } else { Layout::None },
            },
            directory: is_directory.then(|| DirectoryRecord::new(parent, 0)),
            capability: false,
            acls: AclsKept::default(),
            data_end: 0,
            cuts_confirmed: 0,
            newest_write: Timestamp(0),
            atime_until: Timestamp(0),
            xattr_bytes: 0,
        };
        self.keep_acl(&mut record, AclKind::Access, access);
        self.keep_acl(&mut record, AclKind::Default, default);
        self.write_inode(&record);
        if new.kind == FileKind::Symlink {
            self.write_content(inode, new.target.to_vec());
        }
        self.put_name(parent, name, inode, new.kind)?;
        self.count_objects(1)?;
        Ok(Outcome::Attributes(record.attributes))
    }

    /// Makes an ordinary file with its content.
    pub(crate) fn put(
        &mut self,
        parent: InodeId,
        name: &[u8],
        (permissions, umask): (u32, u32),
        data: &[u8],
    ) -> Ruled<Outcome> {
        if data.len() > INLINE_BYTES_MAX {
            return Err(FsError::Invalid.into());
        }
        let kind = FileKind::Regular;
        let new = New { kind, permissions, umask, device: 0, target: &[] };
        let Outcome::Attributes(made) = self.create(parent, name, &new)? else {
            unreachable!("what was made is told by its attributes")
        };
        self.write_content(made.inode, data.to_vec());
        let record = self.edit_inode(made.inode, |record| {
            record.attributes.size = data.len() as u64;
            record.attributes.allocated_bytes = record.attributes.size;
        })?;
        Ok(Outcome::Attributes(record.attributes))
    }

    /// Gives an object a further name.
    pub(crate) fn link(&mut self, inode: InodeId, parent: InodeId, name: &[u8]) -> Ruled<Outcome> {
        let (directory, _) = self.records().directory(parent)?;
        self.check_new_name(&directory, name)?;
        let Some(record) = self.records().inode_here(inode)? else {
            let elsewhere = self.records().is_elsewhere(inode)?;
            return Err(if elsewhere { FsError::CrossMinistry } else { FsError::NotFound }.into());
        };
        if record.is_directory() {
            return Err(FsError::NotPermitted.into());
        }
        if record.is_orphan() {
            return Err(FsError::NotFound.into());
        }
        if record.attributes.links >= LINKS_MAX {
            return Err(FsError::TooManyLinks.into());
        }
        let time = self.time;
        let record = self.edit_inode(inode, |record| {
            record.attributes.links += 1;
            record.touch(time);
        })?;
        self.put_name(parent, name, inode, record.attributes.kind)?;
        Ok(Outcome::Attributes(record.attributes))
    }

    /// Whether the caller may put `name`, which must not be there, into a directory. The order of
    /// the checks is Linux's: a name that is taken is told to whoever may search.
    fn check_new_name(&self, directory: &InodeRecord, name: &[u8]) -> Ruled<()> {
        self.records().check(self.caller, directory, EXECUTE)?;
        check_name(name)?;
        if self.records().find(directory.attributes.inode, name)?.is_some() {
            return Err(FsError::Exists.into());
        }
        self.check_may_add(directory)
    }

    /// Whether the caller may put some name into a directory.
    pub(crate) fn check_may_add(&self, directory: &InodeRecord) -> Ruled<()> {
        if directory.is_orphan() {
            return Err(FsError::NotFound.into());
        }
        self.records().check(self.caller, directory, WRITE | EXECUTE)
    }

    fn check_new_object(&self, new: &New<'_>) -> Ruled<()> {
        let is_symlink = new.kind == FileKind::Symlink;
        if new.target.contains(&0) || is_symlink == new.target.is_empty() {
            // An empty target is `ENOENT` to symlink(2).
            let missing = is_symlink && new.target.is_empty();
            return Err(if missing { FsError::NotFound } else { FsError::Invalid }.into());
        }
        if new.target.len() > SYMLINK_BYTES_MAX {
            return Err(FsError::NameTooLong.into());
        }
        let is_device = matches!(new.kind, FileKind::CharDevice | FileKind::BlockDevice);
        if !is_device && new.device != 0 {
            return Err(FsError::Invalid.into());
        }
        // Character device 0:0 is the whiteout of overlay file systems, which anybody may make.
        let is_whiteout = new.kind == FileKind::CharDevice && new.device == 0;
        if is_device && !is_whiteout && !self.caller.is_root() {
            return Err(FsError::NotPermitted.into());
        }
        Ok(())
    }

    /// Group and mode of a new object in a directory, before umask and default list: whether the
    /// set-group bit stays is judged by what was asked for.
    fn inherit(&self, directory: &Attributes, new: &New<'_>) -> (u32, u32) {
        let mut permissions = match new.kind {
            FileKind::Symlink => 0o777,
            // As mkdir(2): the set-id bits of a directory are inherited or set later.
            FileKind::Directory => new.permissions & 0o1777,
            _ => new.permissions & PERMISSION_BITS,
        };
        if directory.permissions & SET_GID == 0 {
            return (self.caller.gid, permissions);
        }
        let runs_as_group = SET_GID | GROUP_EXECUTE;
        if new.kind == FileKind::Directory {
            permissions |= SET_GID;
        } else if permissions & runs_as_group == runs_as_group
            && !in_group(self.caller, directory.gid)
        {
            permissions &= !SET_GID;
        }
        (directory.gid, permissions)
    }

    /// The number of a new object: from the directory's block, so that children are neighbours.
    fn take_number(&mut self, parent: InodeId) -> Ruled<InodeId> {
        let (mut record, mut directory) = self.records().directory(parent)?;
        if directory.numbers_next >= directory.numbers_end {
            (directory.numbers_next, directory.numbers_end) = self.take_block()?;
        }
        let number = directory.numbers_next;
        assert!(number > InodeId::ROOT, "0 and 1 are never given out");
        directory.numbers_next = InodeId(number.0 + 1);
        record.directory = Some(directory);
        self.write_inode(&record);
        Ok(number)
    }

    /// Takes a block of numbers from the first range that has one.
    fn take_block(&mut self) -> Ruled<(InodeId, InodeId)> {
        let mut found = None;
        self.records().each(&self.keys.ranges(), |key, value| {
            let range: RangeRecord = read_value(key, value)?;
            if range.next >= range.end {
                return Ok(ControlFlow::Continue(()));
            }
            found = Some((InodeId(read_number(key)?), range));
            Ok(ControlFlow::Break(()))
        })?;
        let Some((first, mut range)) = found else {
            return Err(FsError::NoSpace.into());
        };
        let block =
            (range.next, InodeId(range.end.0.min(range.next.0.saturating_add(INODE_BLOCK))));
        range.next = block.1;
        self.write(self.keys.range(first), &range);
        Ok(block)
    }

    /// Puts a name that is not there into a directory: dentry, way back, counts and times.
    pub(crate) fn put_name(
        &mut self,
        parent: InodeId,
        name: &[u8],
        inode: InodeId,
        kind: FileKind,
    ) -> Ruled<()> {
        let cookie = self.records().free_cookie(parent, name)?;
        let dentry = DentryRecord { name: name.to_vec(), inode, kind };
        self.write(self.keys.dentry(parent, cookie), &dentry);
        self.put_way_back(inode, kind, parent, cookie)?;
        self.edit_directory(parent, |record, directory, time| {
            directory.entries += 1;
            directory.collided |= cookie != keys::first_cookie(name);
            record.attributes.links += u32::from(kind == FileKind::Directory);
            record.touch_content(time);
        })
    }

    /// Notes at an object where its name is.
    pub(crate) fn put_way_back(
        &mut self,
        inode: InodeId,
        kind: FileKind,
        parent: InodeId,
        cookie: u64,
    ) -> Ruled<()> {
        if kind == FileKind::Directory {
            return self.edit_directory(inode, |_, directory, _| {
                (directory.parent, directory.cookie) = (parent, cookie);
            });
        }
        self.state.put(self.keys.backlink(inode, parent, cookie), Vec::new());
        Ok(())
    }

    /// Changes a directory that is known to be here.
    pub(crate) fn edit_directory(
        &mut self,
        inode: InodeId,
        edit: impl FnOnce(&mut InodeRecord, &mut DirectoryRecord, Timestamp),
    ) -> Ruled<()> {
        let (mut record, mut directory) = self.records().directory(inode)?;
        edit(&mut record, &mut directory, self.time);
        record.directory = Some(directory);
        self.write_inode(&record);
        Ok(())
    }
}

impl DirectoryRecord {
    /// A directory without entries and without numbers for them.
    pub(crate) fn new(parent: InodeId, cookie: u64) -> DirectoryRecord {
        DirectoryRecord {
            parent,
            cookie,
            entries: 0,
            numbers_next: InodeId(0),
            numbers_end: InodeId(0),
            ministry_root: false,
            collided: false,
        }
    }
}
