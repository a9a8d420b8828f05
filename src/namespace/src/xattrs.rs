//! Extended attributes.
//!
//! Called by `apply` for [`Operation::SetXattr`] and [`Operation::RemoveXattr`], and by `query` for
//! their reading. Errors and their order are those of Linux's `xattr_permission` and ext4.
//!
//! What must always hold: each attribute is a record of its own, so that a change costs the same
//! however many there are; the object knows how many bytes all of them are, which stay within
//! [`XATTRS_BYTES_MAX`], and whether `security.capability` is among them.
//!
//! [`Operation::SetXattr`]: ministry_types::operations::Operation::SetXattr
//! [`Operation::RemoveXattr`]: ministry_types::operations::Operation::RemoveXattr

use std::ops::ControlFlow;

use bytes::Bytes;
use ministry_types::kv::KvError;
use ministry_types::limits::{XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX, XATTRS_BYTES_MAX};
use ministry_types::operations::{Outcome, XattrMode};
use ministry_types::{Caller, FileKind, FsError, InodeId};

use crate::acl_attributes::AclKind;
use crate::keys::Keys;
use crate::permissions::{self, READ, STICKY, WRITE};
use crate::records::{Fault, InodeRecord, Records, Ruled, Work, read_value};

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

impl Records<'_> {
    /// The value of an attribute.
    pub(crate) fn xattr(&self, caller: &Caller, inode: InodeId, name: &[u8]) -> Ruled<Bytes> {
        if let Some(kind) = AclKind::of_xattr(name) {
            return self.acl_xattr(inode, kind);
        }
        let record = self.inode(inode)?;
        check_xattr(self, caller, &record, name, false)?;
        Ok(self.kept_xattr(&record, name)?.ok_or(FsError::NoAttribute)?)
    }

    /// The value that is kept under a name, whoever may see it.
    fn kept_xattr(&self, record: &InodeRecord, name: &[u8]) -> Result<Option<Bytes>, KvError> {
        // Most objects have none, and the kernel asks for `security.capability` before it writes.
        if record.xattr_bytes == 0 {
            return Ok(None);
        }
        self.read(&self.keys.xattr(record.attributes.inode, name))
    }

    /// Names and values of all attributes, in order of their names.
    fn kept_xattrs(&self, record: &InodeRecord) -> Result<Vec<(Vec<u8>, Bytes)>, KvError> {
        let mut all = Vec::new();
        if record.xattr_bytes > 0 {
            self.each(&self.keys.xattrs(record.attributes.inode), |key, value| {
                let name = Keys::xattr_name(key).unwrap_or_default();
                all.push((name.to_vec(), read_value(key, value)?));
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(all)
    }

    /// The names of all attributes that the caller may know of.
    pub(crate) fn xattr_names(&self, caller: &Caller, inode: InodeId) -> Ruled<Vec<Vec<u8>>> {
        let record = self.inode(inode)?;
        let names = self.kept_xattrs(&record)?.into_iter().map(|(name, _)| name);
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
        let mut record = self.records().inode(inode)?;
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(FsError::TooLarge.into());
        }
        // As Linux: whether a list is there already makes no difference to its setting.
        if let Some(kind) = AclKind::of_xattr(name) {
            return self.set_acl_xattr(inode, kind, value);
        }
        check_xattr(&self.records(), self.caller, &record, name, true)?;
        let before = self.records().kept_xattr(&record, name)?;
        match (mode, &before) {
            (XattrMode::Create, Some(_)) => return Err(FsError::Exists.into()),
            (XattrMode::Replace, None) => return Err(FsError::NoAttribute.into()),
            _ => {}
        }
        record.xattr_bytes -= before.map_or(0, |before| bytes_of(name, &before));
        record.xattr_bytes += bytes_of(name, value);
        if record.xattr_bytes as usize > XATTRS_BYTES_MAX {
            return Err(FsError::NoSpace.into());
        }
        record.capability |= name == CAPABILITY;
        self.write(self.keys.xattr(inode, name), value);
        record.touch(self.time);
        self.write_inode(&record);
        Ok(Outcome::Done)
    }

    /// Removes an attribute.
    pub(crate) fn remove_xattr(&mut self, inode: InodeId, name: &[u8]) -> Ruled<Outcome> {
        if let Some(kind) = AclKind::of_xattr(name) {
            return self.set_acl_xattr(inode, kind, &[]);
        }
        let mut record = self.records().inode(inode)?;
        // The kernel takes it away before a cut or a change of group, in the name of the caller;
        // from a program that asks for its removal it wants the right to set it.
        let takes_privilege = name == CAPABILITY && self.may_strip(&record)?;
        if !takes_privilege {
            check_xattr(&self.records(), self.caller, &record, name, true)?;
        }
        if !self.drop_xattr(&mut record, name)? {
            return Err(FsError::NoAttribute.into());
        }
        record.capability &= name != CAPABILITY;
        record.touch(self.time);
        self.write_inode(&record);
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

    /// Removes an attribute, if it is there, and says whether it was; the caller writes the object.
    fn drop_xattr(&mut self, record: &mut InodeRecord, name: &[u8]) -> Ruled<bool> {
        let Some(value) = self.records().kept_xattr(record, name)? else { return Ok(false) };
        record.xattr_bytes -= bytes_of(name, &value);
        self.state.delete(self.keys.xattr(record.attributes.inode, name));
        Ok(true)
    }

    /// Takes `security.capability` away, of which the object's record says already that it is gone;
    /// the caller writes it.
    pub(crate) fn drop_capability(&mut self, record: &mut InodeRecord) -> Ruled<()> {
        self.drop_xattr(record, CAPABILITY).map(|_| ())
    }

    /// Removes all attributes of an object that goes, and answers them.
    pub(crate) fn take_xattrs(&mut self, record: &InodeRecord) -> Ruled<Vec<(Vec<u8>, Bytes)>> {
        let all = self.records().kept_xattrs(record)?;
        for (name, _) in &all {
            self.state.delete(self.keys.xattr(record.attributes.inode, name));
        }
        Ok(all)
    }
}

/// What an attribute counts for among [`XATTRS_BYTES_MAX`].
fn bytes_of(name: &[u8], value: &[u8]) -> u32 {
    u32::try_from(name.len() + value.len()).expect("both are bounded")
}
