//! Who may do what: the mode bits and the access control list, as Linux reads them.
//!
//! Every rule and query asks here. The client's kernel may have asked before; it is asked again,
//! since a client can lie.
//!
//! What must always hold: the super-user passes everything, but executes an ordinary file only if
//! somebody may. `EACCES` is for the mode bits, `EPERM` for ownership.

use ministry_types::{Attributes, Caller, FileKind, FsError};

use crate::acl::Acl;
use crate::records::InodeRecord;

/// To read. The numbers are those of `access(2)`, and of one digit of a mode.
pub(crate) const READ: u32 = 4;
/// To write.
pub(crate) const WRITE: u32 = 2;
/// To execute, or to search a directory.
pub(crate) const EXECUTE: u32 = 1;

/// Mode bits: set user, set group, sticky; execution by the group; execution by anybody.
pub(crate) const SET_UID: u32 = 0o4000;
pub(crate) const SET_GID: u32 = 0o2000;
pub(crate) const STICKY: u32 = 0o1000;
pub(crate) const GROUP_EXECUTE: u32 = 0o010;
/// The middle digit: the group, or the mask of an access control list.
const GROUP_BITS: u32 = 0o070;
pub(crate) const ANY_EXECUTE: u32 = 0o111;
/// All bits that `chmod` can set.
pub(crate) const PERMISSION_BITS: u32 = 0o7777;

/// Whether the access control list of an object, if it has one, decides about the caller. As in
/// Linux the owner's digit speaks for the list, and a middle digit of 0 (a mask that lets nobody
/// do anything) sets the list aside: the digits alone then say the same to all but named users,
/// who count as the others they are.
pub(crate) fn asks_acl(caller: &Caller, of: &Attributes) -> bool {
    !caller.is_root() && caller.uid != of.uid && of.permissions & GROUP_BITS != 0
}

/// Asks the mode bits, and the access control list where there is one, for everything in `mask`.
/// The list may be left out where [`asks_acl`] says so.
pub(crate) fn check(
    caller: &Caller,
    of: &Attributes,
    acl: Option<&Acl>,
    mask: u32,
) -> Result<(), FsError> {
    debug_assert!(mask <= READ | WRITE | EXECUTE);
    let allowed = if caller.is_root() {
        mask & EXECUTE == 0 || of.kind == FileKind::Directory || of.permissions & ANY_EXECUTE != 0
    } else if let Some(acl) = acl.filter(|_| asks_acl(caller, of)) {
        acl.lets(caller, of, mask)
    } else {
        let digit = if caller.uid == of.uid {
            of.permissions >> 6
        } else if caller.in_group(of.gid) {
            of.permissions >> 3
        } else {
            of.permissions
        };
        digit & mask == mask
    };
    if allowed { Ok(()) } else { Err(FsError::PermissionDenied) }
}

/// Whether the caller is the owner or the super-user.
pub(crate) fn owns(caller: &Caller, of: &Attributes) -> bool {
    caller.is_root() || caller.uid == of.uid
}

/// Whether the caller may give an object the set-group bit of `gid`.
pub(crate) fn in_group(caller: &Caller, gid: u32) -> bool {
    caller.is_root() || caller.in_group(gid)
}

/// The sticky rule: in such a directory only the owner of the object or of the directory takes a
/// name away.
pub(crate) fn check_sticky(
    caller: &Caller,
    directory: &Attributes,
    victim: &Attributes,
) -> Result<(), FsError> {
    let free =
        directory.permissions & STICKY == 0 || owns(caller, victim) || caller.uid == directory.uid;
    if free { Ok(()) } else { Err(FsError::NotPermitted) }
}

/// The mode after a write or a cut: a program that another person has changed must not run with
/// the rights of its owner.
pub(crate) fn after_write(caller: &Caller, of: &Attributes) -> u32 {
    if caller.is_root() || of.kind != FileKind::Regular {
        return of.permissions;
    }
    without_set_ids(caller, of)
}

/// The mode after a change of owner or group, which takes the bits away whoever makes it.
pub(crate) fn after_chown(caller: &Caller, of: &Attributes) -> u32 {
    if of.kind == FileKind::Directory { of.permissions } else { without_set_ids(caller, of) }
}

fn without_set_ids(caller: &Caller, of: &Attributes) -> u32 {
    // Without execution by the group the bit once meant mandatory locking: it goes only when the
    // caller could not have set it.
    let drop_gid = of.permissions & GROUP_EXECUTE != 0 || !in_group(caller, of.gid);
    of.permissions & !SET_UID & !(if drop_gid { SET_GID } else { 0 })
}

/// Takes what a write takes: the set-id bits. Says whether `security.capability` has to go too.
pub(crate) fn strip_after_write(caller: &Caller, record: &mut InodeRecord) -> bool {
    record.attributes.permissions = after_write(caller, &record.attributes);
    std::mem::take(&mut record.capability)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ministry_types::{InodeId, Layout, Timestamp};

    fn object(kind: FileKind, permissions: u32, uid: u32, gid: u32) -> Attributes {
        Attributes {
            inode: InodeId(9),
            kind,
            permissions,
            uid,
            gid,
            links: 1,
            size: 0,
            allocated_bytes: 0,
            atime: Timestamp(0),
            mtime: Timestamp(0),
            ctime: Timestamp(0),
            btime: Timestamp(0),
            device: 0,
            layout: Layout::None,
        }
    }

    fn caller(uid: u32, gid: u32, groups: &[u32]) -> Caller {
        Caller { uid, gid, groups: groups.to_vec() }
    }

    #[test]
    fn the_first_digit_that_fits_decides_alone() {
        let file = object(FileKind::Regular, 0o047, 1, 10);
        assert!(check(&caller(1, 10, &[]), &file, None, READ).is_err());
        assert!(check(&caller(2, 10, &[]), &file, None, READ).is_ok());
        assert!(check(&caller(2, 10, &[]), &file, None, WRITE).is_err());
        assert!(check(&caller(2, 11, &[10]), &file, None, READ).is_ok());
        assert!(check(&caller(2, 11, &[10]), &file, None, READ | WRITE).is_err());
        assert!(check(&caller(2, 11, &[]), &file, None, READ | WRITE | EXECUTE).is_ok());
    }

    #[test]
    fn the_super_user_executes_only_what_somebody_may() {
        let root = Caller::root();
        assert!(check(&root, &object(FileKind::Regular, 0, 1, 1), None, READ | WRITE).is_ok());
        assert!(check(&root, &object(FileKind::Regular, 0o666, 1, 1), None, EXECUTE).is_err());
        assert!(check(&root, &object(FileKind::Regular, 0o010, 1, 1), None, EXECUTE).is_ok());
        assert!(check(&root, &object(FileKind::Directory, 0, 1, 1), None, EXECUTE).is_ok());
    }

    #[test]
    fn a_write_by_another_takes_the_set_id_bits() {
        let program = object(FileKind::Regular, 0o6755, 1, 10);
        assert_eq!(after_write(&caller(2, 2, &[]), &program), 0o755);
        assert_eq!(after_write(&Caller::root(), &program), 0o6755);
        let locked = object(FileKind::Regular, 0o2644, 1, 10);
        assert_eq!(after_write(&caller(2, 10, &[]), &locked), 0o2644);
        assert_eq!(after_write(&caller(2, 2, &[]), &locked), 0o644);
        assert_eq!(after_chown(&Caller::root(), &program), 0o755);
        assert_eq!(
            after_chown(&Caller::root(), &object(FileKind::Directory, 0o6755, 1, 1)),
            0o6755
        );
    }
}
