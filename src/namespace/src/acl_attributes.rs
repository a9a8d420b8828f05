//! Access control lists of objects: kept, shown and set as extended attributes, inherited.
//!
//! Called by `xattrs` for the two names, by `create` for what a new object gets, by `attributes`
//! when a mode changes, by `permissions` through [`Records::check`]. Errors and their order are
//! those of Linux's `set_posix_acl`.
//!
//! What must always hold: the object's record says which lists it has, so that an object without
//! any costs no further read; a list that it says is there and is not is damage. A list that says
//! no more than the mode is not kept.

use bytes::Bytes;
use ministry_types::kv::KvError;
use ministry_types::operations::Outcome;
use ministry_types::{Caller, FileKind, FsError, InodeId};
use serde::{Deserialize, Serialize};

use crate::acl::Acl;
use crate::permissions::{self, SET_GID};
use crate::records::{InodeRecord, Records, Ruled, Work};

/// Which of the two lists of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AclKind {
    /// Who may do what with the object.
    Access,
    /// What new objects in the directory get.
    Default,
}

impl AclKind {
    /// Both, in the order in which they are listed.
    pub(crate) const ALL: [AclKind; 2] = [AclKind::Access, AclKind::Default];

    /// The name as an extended attribute.
    pub(crate) fn xattr_name(self) -> &'static [u8] {
        match self {
            AclKind::Access => b"system.posix_acl_access",
            AclKind::Default => b"system.posix_acl_default",
        }
    }

    /// Which list an extended attribute is, if it is one.
    pub(crate) fn of_xattr(name: &[u8]) -> Option<AclKind> {
        AclKind::ALL.into_iter().find(|kind| kind.xattr_name() == name)
    }
}

/// Which lists an object has; part of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct AclsKept {
    pub(crate) access: bool,
    pub(crate) default: bool,
}

impl AclsKept {
    pub(crate) fn has(self, kind: AclKind) -> bool {
        match kind {
            AclKind::Access => self.access,
            AclKind::Default => self.default,
        }
    }

    fn set(&mut self, kind: AclKind, kept: bool) {
        match kind {
            AclKind::Access => self.access = kept,
            AclKind::Default => self.default = kept,
        }
    }
}

/// Mode and lists of a new object.
pub(crate) struct Inherited {
    pub(crate) permissions: u32,
    pub(crate) access: Option<Acl>,
    pub(crate) default: Option<Acl>,
}

impl Records<'_> {
    /// A list of an object.
    pub(crate) fn acl(&self, record: &InodeRecord, kind: AclKind) -> Result<Option<Acl>, KvError> {
        if !record.acls.has(kind) {
            return Ok(None);
        }
        let inode = record.attributes.inode;
        match self.read(&self.keys.acl(inode, kind))? {
            Some(acl) => Ok(Some(acl)),
            None => Err(KvError(format!("inode {inode} has lost its {kind:?} list"))),
        }
    }

    /// Whether the caller may do everything in `mask` with an object.
    pub(crate) fn check(&self, caller: &Caller, record: &InodeRecord, mask: u32) -> Ruled<()> {
        let acl = if permissions::asks_acl(caller, &record.attributes) {
            self.acl(record, AclKind::Access)?
        } else {
            None
        };
        Ok(permissions::check(caller, &record.attributes, acl.as_ref(), mask)?)
    }

    /// A list as the value of its extended attribute.
    pub(crate) fn acl_xattr(&self, inode: InodeId, kind: AclKind) -> Ruled<Bytes> {
        let record = self.inode(inode)?;
        if record.attributes.kind == FileKind::Symlink {
            return Err(FsError::NotSupported.into());
        }
        let acl = self.acl(&record, kind)?.ok_or(FsError::NoAttribute)?;
        Ok(Bytes::from(acl.to_xattr()))
    }

    /// Mode and lists of a new object of `kind` in a directory: with a default list there, the
    /// umask counts for nothing.
    pub(crate) fn inherit_acls(
        &self,
        directory: &InodeRecord,
        kind: FileKind,
        permissions: u32,
        umask: u32,
    ) -> Ruled<Inherited> {
        if kind == FileKind::Symlink {
            return Ok(Inherited { permissions, access: None, default: None });
        }
        let Some(default) = self.acl(directory, AclKind::Default)? else {
            let permissions = permissions & !(umask & 0o777);
            return Ok(Inherited { permissions, access: None, default: None });
        };
        let (access, permissions) = default.inherited(permissions);
        let access = (!access.is_minimal()).then_some(access);
        let default = (kind == FileKind::Directory).then_some(default);
        Ok(Inherited { permissions, access, default })
    }
}

impl Work<'_> {
    /// Sets a list from the value of its extended attribute, or removes it.
    pub(crate) fn set_acl_xattr(
        &mut self,
        inode: InodeId,
        kind: AclKind,
        value: &[u8],
    ) -> Ruled<Outcome> {
        let mut record = self.records().inode(inode)?;
        if record.attributes.kind == FileKind::Symlink {
            return Err(FsError::NotSupported.into());
        }
        let acl = Acl::from_xattr(value)?;
        if kind == AclKind::Default && !record.is_directory() {
            return match acl {
                Some(_) => Err(FsError::PermissionDenied.into()),
                None => Ok(Outcome::Done),
            };
        }
        if !permissions::owns(self.caller, &record.attributes) {
            return Err(FsError::NotPermitted.into());
        }
        if acl.is_none() && !record.acls.has(kind) {
            return Ok(Outcome::Done);
        }
        match (kind, acl) {
            (AclKind::Access, Some(acl)) => {
                let of = &mut record.attributes;
                of.permissions = of.permissions & !0o777 | acl.mode();
                if !permissions::in_group(self.caller, of.gid) {
                    of.permissions &= !SET_GID;
                }
                self.keep_acl(&mut record, kind, (!acl.is_minimal()).then_some(acl));
            }
            (kind, acl) => self.keep_acl(&mut record, kind, acl),
        }
        record.touch(self.time);
        self.write_inode(&record);
        Ok(Outcome::Done)
    }

    /// Writes or removes a list; the caller writes the record of the object, which takes note.
    pub(crate) fn keep_acl(&mut self, record: &mut InodeRecord, kind: AclKind, acl: Option<Acl>) {
        let key = self.keys.acl(record.attributes.inode, kind);
        match &acl {
            Some(acl) => self.write(key, acl),
            None if record.acls.has(kind) => self.state.delete(key),
            None => {}
        }
        record.acls.set(kind, acl.is_some());
    }

    /// The access list follows a mode that was set.
    pub(crate) fn acl_follows_mode(&mut self, record: &mut InodeRecord) -> Ruled<()> {
        if let Some(mut acl) = self.records().acl(record, AclKind::Access)? {
            acl.set_mode(record.attributes.permissions);
            self.keep_acl(record, AclKind::Access, Some(acl));
        }
        Ok(())
    }

    /// Removes the lists of an object that goes.
    pub(crate) fn forget_acls(&mut self, record: &InodeRecord) {
        for kind in AclKind::ALL {
            if record.acls.has(kind) {
                self.state.delete(self.keys.acl(record.attributes.inode, kind));
            }
        }
    }
}
