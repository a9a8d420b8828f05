//! Extended attributes.
//!
//! Called by `apply` for [`Operation::SetXattr`] and [`Operation::RemoveXattr`], and by `query` for
//! their reading. Errors and their order are those of Linux's `xattr_permission` and ext4.
//!
//! What must always hold: all attributes of an object are one record within
//! [`XATTRS_BYTES_MAX`], and the object knows whether `security.capability` is among them.
//!
//! [`Operation::SetXattr`]: ministry_types::operations::Operation::SetXattr
//! [`Operation::RemoveXattr`]: ministry_types::operations::Operation::RemoveXattr

use bytes::Bytes;
use ministry_types::limits::{XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX, XATTRS_BYTES_MAX};
use ministry_types::operations::{Outcome, XattrMode};
use ministry_types::{Caller, FileKind, FsError, InodeId};

use crate::acl_attributes::AclKind;
use crate::permissions::{self, READ, STICKY, WRITE};
use crate::records::{Fault, InodeRecord, Records, Ruled, Work, XattrsRecord};

/// File capabilities: a write takes them away, as it does the set-id bits.
const CAPABILITY: &[u8] = b"security.capability";
const TRUSTED: &[u8] = b"trusted.";

/// Whether the caller may read (`write == false`) or change the attribute.
fn check_xattr(
    records: &Records<'_>,
    caller: &Caller,
    record: &InodeRecord,
    name: &[u8],
    write: bool,
) -> Ruled<()> {
    let of = &record.attributes;
    if name.is_empty() || name.len() > XATTR_NAME_BYTES_MAX {
        return Err(FsError::Range.into());
    }
    let refused = if write { FsError::NotPermitted } else { FsError::NoAttribute };
    let rest = if let Some(rest) = name.strip_prefix(b"user.") {
        if !matches!(of.kind, FileKind::Regular | FileKind::Directory) {
            return Err(refused.into());
        }
        let sticky = of.kind == FileKind::Directory && of.permissions & STICKY != 0;
        if write && sticky && !permissions::owns(caller, of) {
            return Err(FsError::NotPermitted.into());
        }
        records.check(caller, record, if write { WRITE } else { READ })?;
        rest
    } else if let Some(rest) = name.strip_prefix(TRUSTED) {
        if !caller.is_root() {
            return Err(refused.into());
        }
        rest
    } else if let Some(rest) = name.strip_prefix(b"security.") {
        if write && !caller.is_root() {
            return Err(FsError::NotPermitted.into());
        }
        rest
    } else {
        return Err(FsError::NotSupported.into());
    };
    if rest.is_empty() || rest.contains(&0) { Err(FsError::Invalid.into()) } else { Ok(()) }
}

impl XattrsRecord {
    fn bytes(&self) -> usize {
        self.values.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

impl Records<'_> {
    /// The value of an attribute.
    pub(crate) fn xattr(&self, caller: &Caller, inode: InodeId, name: &[u8]) -> Ruled<Bytes> {
        if let Some(kind) = AclKind::of_xattr(name) {
            return self.acl_xattr(inode, kind);
        }
        let record = self.inode(inode)?;
        check_xattr(self, caller, &record, name, false)?;
        let mut xattrs = self.xattrs(inode)?;
        Ok(xattrs.values.remove(name).ok_or(FsError::NoAttribute)?)
    }

    /// The names of all attributes that the caller may know of.
    pub(crate) fn xattr_names(&self, caller: &Caller, inode: InodeId) -> Ruled<Vec<Vec<u8>>> {
        let record = self.inode(inode)?;
        let names = self.xattrs(inode)?.values.into_keys();
        let acls = AclKind::ALL.into_iter().filter(|kind| record.acls.has(*kind));
        Ok(names
            .filter(|name| caller.is_root() || !name.starts_with(TRUSTED))
            .chain(acls.map(|kind| kind.xattr_name().to_vec()))
            .collect())
    }
}

impl Work<'_> {
    /// Sets an attribute.
    pub(crate) fn set_xattr(
        &mut self,
        inode: InodeId,
        name: &[u8],
        value: &Bytes,
        mode: XattrMode,
    ) -> Ruled<Outcome> {
        let record = self.records().inode(inode)?;
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(FsError::TooLarge.into());
        }
        // As Linux: whether a list is there already makes no difference to its setting.
        if let Some(kind) = AclKind::of_xattr(name) {
            return self.set_acl_xattr(inode, kind, value);
        }
        check_xattr(&self.records(), self.caller, &record, name, true)?;
        let mut xattrs = self.records().xattrs(inode)?;
        match (mode, xattrs.values.contains_key(name)) {
            (XattrMode::Create, true) => return Err(FsError::Exists.into()),
            (XattrMode::Replace, false) => return Err(FsError::NoAttribute.into()),
            _ => {}
        }
        xattrs.values.insert(name.to_vec(), value.clone());
        if xattrs.bytes() > XATTRS_BYTES_MAX {
            return Err(FsError::NoSpace.into());
        }
        self.write_xattrs(record, &xattrs);
        Ok(Outcome::Done)
    }

    /// Removes an attribute.
    pub(crate) fn remove_xattr(&mut self, inode: InodeId, name: &[u8]) -> Ruled<Outcome> {
        if let Some(kind) = AclKind::of_xattr(name) {
            return self.set_acl_xattr(inode, kind, &[]);
        }
        let record = self.records().inode(inode)?;
        // The kernel takes it away before a cut or a change of group, in the name of the caller;
        // from a program that asks for its removal it wants the right to set it.
        let takes_privilege = name == CAPABILITY && self.may_strip(&record)?;
        if !takes_privilege {
            check_xattr(&self.records(), self.caller, &record, name, true)?;
        }
        let mut xattrs = self.records().xattrs(inode)?;
        if xattrs.values.remove(name).is_none() {
            return Err(FsError::NoAttribute.into());
        }
        self.write_xattrs(record, &xattrs);
        Ok(Outcome::Done)
    }

    /// Whether the caller could take file capabilities away by other means: by a write, or by
    /// giving the file away.
    fn may_strip(&self, record: &InodeRecord) -> Ruled<bool> {
        if permissions::owns(self.caller, &record.attributes) {
            return Ok(true);
        }
        match self.records().check(self.caller, record, WRITE) {
            Ok(()) => Ok(true),
            Err(Fault::Fs(_)) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    fn write_xattrs(&mut self, mut record: InodeRecord, xattrs: &XattrsRecord) {
        record.capability = xattrs.values.contains_key(CAPABILITY);
        record.touch(self.time);
        self.put_xattrs(record.attributes.inode, xattrs);
        self.write_inode(&record);
    }

    /// Writes the record of all attributes, if there is one to write.
    pub(crate) fn put_xattrs(&mut self, inode: InodeId, xattrs: &XattrsRecord) {
        let key = self.keys.xattrs(inode);
        if xattrs.values.is_empty() {
            self.state.delete(key);
        } else {
            self.write(key, xattrs);
        }
    }

    /// Takes `security.capability` away; the caller has taken note of it in the inode's record.
    pub(crate) fn drop_capability(&mut self, inode: InodeId) -> Ruled<()> {
        let mut xattrs = self.records().xattrs(inode)?;
        xattrs.values.remove(CAPABILITY);
        self.put_xattrs(inode, &xattrs);
        Ok(())
    }
}
