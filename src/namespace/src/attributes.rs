//! Attributes that a person sets: mode, owner, group, size, times.
//!
//! Called by `apply` for [`Operation::SetAttributes`]. The checks come in the order of Linux's
//! `notify_change` and `setattr_prepare`.
//!
//! What must always hold: all of it is set, or nothing. `ctime` strictly grows.
//!
//! [`Operation::SetAttributes`]: ministry_types::operations::Operation::SetAttributes

use ministry_types::limits::FILE_BYTES_MAX;
use ministry_types::operations::{Outcome, SetAttributes, SetTime};
use ministry_types::{Attributes, FileKind, FsError, InodeId, Timestamp};

use crate::data::Resized;
use crate::permissions::{self, PERMISSION_BITS, SET_GID, WRITE};
use crate::records::{InodeRecord, Ruled, Work};

/// What `chown(2)` takes for "leave it": no user and no group.
const NOBODY: u32 = u32::MAX;

impl Work<'_> {
    /// Sets attributes.
    pub(crate) fn set_attributes(&mut self, inode: InodeId, set: &SetAttributes) -> Ruled<Outcome> {
        let mut record = self.records().inode(inode)?;
        let of = &record.attributes;
        let takes_set_ids = permissions::after_chown(self.caller, of) != of.permissions;
        if names_nothing(set) && takes_set_ids && !permissions::owns(self.caller, of) {
            // Linux refuses that as a `chown` of nothing. But the kernel asks the same before a
            // write, in the name of whoever writes: it must go on, and takes the bits itself.
            return Ok(Outcome::Attributes(record.attributes));
        }
        self.check_size(&record, set)?;
        self.check_times_now(&record, set)?;
        self.check_owner(&record, set)?;
        if let Some(size) = set.size
            && self.resize(&mut record, size)? == Resized::NotInline
        {
            return Ok(Outcome::NotInline { attributes: record.attributes });
        }
        self.set_mode_and_owner(&mut record, set)?;
        if set.size.is_some() {
            record.touch_content(self.time);
        } else {
            record.touch(self.time);
        }
        set_times(&mut record.attributes, set);
        if set.atime.is_some() {
            record.atime_until = record.atime_until.max(self.time);
        }
        self.write_inode(&record);
        Ok(Outcome::Attributes(record.attributes))
    }

    fn check_size(&self, record: &InodeRecord, set: &SetAttributes) -> Ruled<()> {
        let Some(size) = set.size else {
            return Ok(());
        };
        check_has_bytes(&record.attributes)?;
        if !set.size_by_handle {
            self.records().check(self.caller, record, WRITE)?;
        }
        if size > FILE_BYTES_MAX {
            return Err(FsError::FileTooLarge.into());
        }
        Ok(())
    }

    /// Both times of now may be set by whoever may write: a write would set them too.
    fn check_times_now(&self, record: &InodeRecord, set: &SetAttributes) -> Ruled<()> {
        if !is_touch(set) || permissions::owns(self.caller, &record.attributes) {
            return Ok(());
        }
        self.records().check(self.caller, record, WRITE)
    }

    fn check_owner(&self, record: &InodeRecord, set: &SetAttributes) -> Ruled<()> {
        let of = &record.attributes;
        if set.permissions.is_some() && of.kind == FileKind::Symlink {
            return Err(FsError::NotSupported.into());
        }
        if set.uid == Some(NOBODY) || set.gid == Some(NOBODY) {
            return Err(FsError::Invalid.into());
        }
        let caller = self.caller;
        let is_owner = caller.uid == of.uid;
        let may_chown = |uid: u32| caller.is_root() || (is_owner && uid == of.uid);
        let may_chgrp =
            |gid: u32| caller.is_root() || (is_owner && (caller.in_group(gid) || gid == of.gid));
        let wants_ownership = set.permissions.is_some() || chooses_time(set);
        let allowed = set.uid.is_none_or(may_chown)
            && set.gid.is_none_or(may_chgrp)
            && (!wants_ownership || permissions::owns(caller, of));
        if allowed { Ok(()) } else { Err(FsError::NotPermitted.into()) }
    }

    fn set_mode_and_owner(&mut self, record: &mut InodeRecord, set: &SetAttributes) -> Ruled<()> {
        let mut loses_capability = false;
        if set.size.is_some() {
            loses_capability |= permissions::strip_after_write(self.caller, record);
        }
        let of = &mut record.attributes;
        if is_chown(set) {
            of.permissions = permissions::after_chown(self.caller, of);
            loses_capability |= std::mem::take(&mut record.capability);
            of.uid = set.uid.unwrap_or(of.uid);
            of.gid = set.gid.unwrap_or(of.gid);
        }
        if let Some(permissions) = set.permissions {
            of.permissions = permissions & PERMISSION_BITS;
            if !permissions::in_group(self.caller, of.gid) {
                of.permissions &= !SET_GID;
            }
        }
        if set.permissions.is_some() {
            self.acl_follows_mode(record)?;
        }
        if loses_capability {
            self.drop_capability(record)?;
        }
        Ok(())
    }
}

/// `chown`, also the one of neither user nor group, which still takes the set-id bits and shows in
/// `ctime`: it is the one system call that sets nothing.
fn is_chown(set: &SetAttributes) -> bool {
    let SetAttributes { permissions, uid, gid, size, size_by_handle: _, atime, mtime } = set;
    let others = permissions.is_some() || size.is_some() || atime.is_some() || mtime.is_some();
    uid.is_some() || gid.is_some() || !others
}

/// Nothing at all is to be set.
fn names_nothing(set: &SetAttributes) -> bool {
    *set == SetAttributes { size_by_handle: set.size_by_handle, ..SetAttributes::default() }
}

/// `utimes` without times, or with twice the time of now.
fn is_touch(set: &SetAttributes) -> bool {
    (set.atime, set.mtime) == (Some(SetTime::Now), Some(SetTime::Now)) && set.size.is_none()
}

/// `utimes` that does more than a write would do: a given time, or one of the two times alone. A
/// cut comes with the time of now, which is its own.
fn chooses_time(set: &SetAttributes) -> bool {
    let times = [set.atime, set.mtime];
    let given = times.iter().any(|time| matches!(time, Some(SetTime::At(_))));
    given || (times.iter().any(Option::is_some) && set.size.is_none() && !is_touch(set))
}

/// Whether the object is one that has bytes to read and write.
pub(crate) fn check_has_bytes(of: &Attributes) -> Result<(), FsError> {
    match of.kind {
        FileKind::Regular => Ok(()),
        FileKind::Directory => Err(FsError::IsDirectory),
        _ => Err(FsError::Invalid),
    }
}

/// Sets times, once `ctime` is that of this change.
fn set_times(of: &mut Attributes, set: &SetAttributes) {
    // "Now" is the record's own time of this change, not the command's: a time that was shown
    // for an older content must never come back for a newer one.
    let now = of.ctime;
    let value = |time: SetTime| -> Timestamp {
        match time {
            SetTime::Now => now,
            SetTime::At(time) => time,
        }
    };
    of.atime = set.atime.map_or(of.atime, value);
    of.mtime = set.mtime.map_or(of.mtime, value);
}
