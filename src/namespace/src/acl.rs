//! Access control lists, as acl(5) describes them: what they hold, whether they make sense, whom
//! they let in, and how they and the mode bits follow each other.
//!
//! Called by `permissions` to judge, by `acl_attributes` to set, show and inherit. Nothing here
//! reads or writes records.
//!
//! What must always hold: a list that is kept is valid in the sense of Linux's `posix_acl_valid`,
//! and its entries for the owner, the mask (where there is none, the group) and the others are the
//! three digits of the object's mode. The order of entries is the one they came in; of two for the
//! same user the first counts, as in Linux.

use ministry_types::limits::ACL_ENTRIES_MAX;
use ministry_types::{Attributes, Caller, FsError};
use serde::{Deserialize, Serialize};

/// The version of the kernel's binary form, its first four bytes.
const XATTR_VERSION: u32 = 2;
const HEADER_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;
/// The id of an entry that is for nobody by name.
const NO_ID: u32 = u32::MAX;

const TAG_USER_OBJECT: u16 = 0x01;
const TAG_USER: u16 = 0x02;
const TAG_GROUP_OBJECT: u16 = 0x04;
const TAG_GROUP: u16 = 0x08;
const TAG_MASK: u16 = 0x10;
const TAG_OTHER: u16 = 0x20;

/// Whom an entry is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Whom {
    /// The owner.
    Owner,
    /// A user by number.
    User(u32),
    /// The object's group.
    OwningGroup,
    /// A group by number.
    Group(u32),
    /// The most that all but the owner and the others may.
    Mask,
    /// Everybody else.
    Others,
}

/// One entry: for whom, and three permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AclEntry {
    pub(crate) whom: Whom,
    pub(crate) permissions: u32,
}

/// A valid list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Acl {
    entries: Vec<AclEntry>,
}

fn little_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn little_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl AclEntry {
    fn decode(bytes: &[u8]) -> Option<AclEntry> {
        let tag = little_u16(bytes, 0)?;
        let permissions = u32::from(little_u16(bytes, 2)?);
        let id = little_u32(bytes, 4)?;
        let named = (id != NO_ID).then_some(id);
        let whom = match tag {
            TAG_USER_OBJECT => Whom::Owner,
            TAG_USER => Whom::User(named?),
            TAG_GROUP_OBJECT => Whom::OwningGroup,
            TAG_GROUP => Whom::Group(named?),
            TAG_MASK => Whom::Mask,
            TAG_OTHER => Whom::Others,
            _ => return None,
        };
        Some(AclEntry { whom, permissions })
    }

    fn encode(self) -> [u8; ENTRY_BYTES] {
        let (tag, id) = match self.whom {
            Whom::Owner => (TAG_USER_OBJECT, NO_ID),
            Whom::User(id) => (TAG_USER, id),
            Whom::OwningGroup => (TAG_GROUP_OBJECT, NO_ID),
            Whom::Group(id) => (TAG_GROUP, id),
            Whom::Mask => (TAG_MASK, NO_ID),
            Whom::Others => (TAG_OTHER, NO_ID),
        };
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..2].copy_from_slice(&tag.to_le_bytes());
        bytes[2..4].copy_from_slice(&(self.permissions as u16).to_le_bytes());
        bytes[4..].copy_from_slice(&id.to_le_bytes());
        bytes
    }
}

impl Acl {
    /// Reads the kernel's binary form. No entries at all is the wish to have no list.
    pub(crate) fn from_xattr(value: &[u8]) -> Result<Option<Acl>, FsError> {
        if value.is_empty() {
            return Ok(None);
        }
        let version = little_u32(value, 0).ok_or(FsError::Invalid)?;
        if version != XATTR_VERSION {
            return Err(FsError::NotSupported);
        }
        let entries = value.get(HEADER_BYTES..).unwrap_or_default();
        if !entries.len().is_multiple_of(ENTRY_BYTES) {
            return Err(FsError::Invalid);
        }
        if entries.len() / ENTRY_BYTES > ACL_ENTRIES_MAX {
            return Err(FsError::TooLarge);
        }
        let entries = entries.chunks_exact(ENTRY_BYTES).map(AclEntry::decode);
        let entries: Vec<AclEntry> = entries.collect::<Option<_>>().ok_or(FsError::Invalid)?;
        if entries.is_empty() {
            return Ok(None);
        }
        let acl = Acl { entries };
        if acl.is_valid() { Ok(Some(acl)) } else { Err(FsError::Invalid) }
    }

    /// The kernel's binary form.
    pub(crate) fn to_xattr(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.entries.len() * ENTRY_BYTES);
        bytes.extend_from_slice(&XATTR_VERSION.to_le_bytes());
        for entry in &self.entries {
            bytes.extend_from_slice(&entry.encode());
        }
        bytes
    }

    /// Linux's `posix_acl_valid`: the kinds of entries in their order, one each of those that are
    /// for nobody by name, and a mask where there are named ones.
    fn is_valid(&self) -> bool {
        let mut rest = self.entries.iter().peekable();
        let mut takes = |wanted: fn(&Whom) -> bool| {
            let taken = rest.next_if(|entry| wanted(&entry.whom));
            taken.is_some()
        };
        if self.entries.iter().any(|entry| entry.permissions & !0o7 != 0) {
            return false;
        }
        let mut needs_mask = false;
        if !takes(|whom| *whom == Whom::Owner) {
            return false;
        }
        while takes(|whom| matches!(whom, Whom::User(_))) {
            needs_mask = true;
        }
        if !takes(|whom| *whom == Whom::OwningGroup) {
            return false;
        }
        while takes(|whom| matches!(whom, Whom::Group(_))) {
            needs_mask = true;
        }
        let has_mask = takes(|whom| *whom == Whom::Mask);
        (has_mask || !needs_mask) && takes(|whom| *whom == Whom::Others) && rest.next().is_none()
    }

    fn permissions_of(&self, whom: Whom) -> Option<u32> {
        self.entries.iter().find(|entry| entry.whom == whom).map(|entry| entry.permissions)
    }

    fn entry_mut(&mut self, whom: Whom) -> Option<&mut u32> {
        let entry = self.entries.iter_mut().find(|entry| entry.whom == whom)?;
        Some(&mut entry.permissions)
    }

    /// The entry that the middle digit of the mode is.
    fn group_class(&self) -> Whom {
        let masked = self.permissions_of(Whom::Mask).is_some();
        if masked { Whom::Mask } else { Whom::OwningGroup }
    }

    /// The mode says the same: there is nothing that only the list can say.
    pub(crate) fn is_minimal(&self) -> bool {
        self.entries
            .iter()
            .all(|entry| matches!(entry.whom, Whom::Owner | Whom::OwningGroup | Whom::Others))
    }

    /// The three digits of the mode that go with the list.
    pub(crate) fn mode(&self) -> u32 {
        let digit = |whom| self.permissions_of(whom).unwrap_or(0);
        digit(Whom::Owner) << 6 | digit(self.group_class()) << 3 | digit(Whom::Others)
    }

    /// Follows a `chmod`.
    pub(crate) fn set_mode(&mut self, permissions: u32) {
        let group_class = self.group_class();
        let digits = [(Whom::Owner, 6), (group_class, 3), (Whom::Others, 0)];
        for (whom, shift) in digits {
            if let Some(entry) = self.entry_mut(whom) {
                *entry = permissions >> shift & 0o7;
            }
        }
        debug_assert_eq!(self.mode(), permissions & 0o777);
    }

    /// What a new object with this default list of its directory has as its own: both the list
    /// and the mode that its maker asked for give less where the other has less.
    pub(crate) fn inherited(&self, wanted: u32) -> (Acl, u32) {
        let mut acl = self.clone();
        let permissions = wanted & (acl.mode() | !0o777);
        acl.set_mode(permissions);
        (acl, permissions)
    }

    /// Whether the list lets the caller do all of `mask`. The owner comes first in a valid list,
    /// and the others last.
    pub(crate) fn lets(&self, caller: &Caller, of: &Attributes, mask: u32) -> bool {
        let mut in_a_group = false;
        for entry in &self.entries {
            let has_all = entry.permissions & mask == mask;
            let is_meant = match entry.whom {
                Whom::Owner if caller.uid == of.uid => return has_all,
                Whom::User(uid) if caller.uid == uid => return has_all && self.masks_in(mask),
                Whom::OwningGroup => caller.in_group(of.gid),
                Whom::Group(gid) => caller.in_group(gid),
                Whom::Others => return has_all && !in_a_group,
                Whom::Owner | Whom::User(_) | Whom::Mask => false,
            };
            if is_meant && has_all {
                return self.masks_in(mask);
            }
            in_a_group |= is_meant;
        }
        false
    }

    fn masks_in(&self, mask: u32) -> bool {
        self.permissions_of(Whom::Mask).is_none_or(|most| most & mask == mask)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use ministry_types::{FileKind, InodeId, Layout, Timestamp};

    /// A list from pairs of whom and what, in the order given.
    pub(crate) fn bytes(entries: &[(Whom, u32)]) -> Vec<u8> {
        let entries = entries
            .iter()
            .map(|(whom, permissions)| AclEntry { whom: *whom, permissions: *permissions });
        Acl { entries: entries.collect() }.to_xattr()
    }

    fn acl(entries: &[(Whom, u32)]) -> Acl {
        Acl::from_xattr(&bytes(entries)).unwrap().unwrap()
    }

    fn object(uid: u32, gid: u32) -> Attributes {
        let zero = Timestamp(0);
        Attributes {
            inode: InodeId(9),
            kind: FileKind::Regular,
            permissions: 0,
            uid,
            gid,
            links: 1,
            size: 0,
            allocated_bytes: 0,
            atime: zero,
            mtime: zero,
            ctime: zero,
            btime: zero,
            device: 0,
            layout: Layout::None,
        }
    }

    fn caller(uid: u32, gid: u32, groups: &[u32]) -> Caller {
        Caller { uid, gid, groups: groups.to_vec() }
    }

    #[test]
    fn the_binary_form_is_the_kernels() {
        // What `setfacl -m u:1000:rw,g:5:r` of a file 0644 hands to the kernel.
        let value = [
            2, 0, 0, 0, // version
            1, 0, 6, 0, 255, 255, 255, 255, // user::rw-
            2, 0, 6, 0, 0xe8, 3, 0, 0, // user:1000:rw-
            4, 0, 4, 0, 255, 255, 255, 255, // group::r--
            8, 0, 4, 0, 5, 0, 0, 0, // group:5:r--
            16, 0, 6, 0, 255, 255, 255, 255, // mask::rw-
            32, 0, 4, 0, 255, 255, 255, 255, // other::r--
        ];
        let acl = Acl::from_xattr(&value).unwrap().unwrap();
        assert_eq!(acl.permissions_of(Whom::User(1000)), Some(6));
        assert_eq!(acl.mode(), 0o664);
        assert!(!acl.is_minimal());
        assert_eq!(acl.to_xattr(), value);
    }

    #[test]
    fn a_list_that_makes_no_sense_is_refused_as_by_the_kernel() {
        use Whom::*;
        let refused = |value: &[u8]| Acl::from_xattr(value).unwrap_err();
        let minimal = [(Owner, 7), (OwningGroup, 5), (Others, 5)];
        assert!(acl(&minimal).is_minimal());
        assert_eq!(Acl::from_xattr(b""), Ok(None));
        assert_eq!(Acl::from_xattr(&[2, 0, 0, 0]), Ok(None), "no entries");
        assert_eq!(refused(&[2, 0, 0]), FsError::Invalid);
        assert_eq!(refused(&[1, 0, 0, 0]), FsError::NotSupported, "an older version");
        let mut cut = bytes(&minimal);
        cut.pop();
        assert_eq!(refused(&cut), FsError::Invalid);
        let mut unknown = bytes(&minimal);
        unknown[4] = 0x40;
        assert_eq!(refused(&unknown), FsError::Invalid);
        let invalid: &[&[(Whom, u32)]] = &[
            &[(OwningGroup, 5), (Others, 5)],
            &[(Owner, 7), (Others, 5)],
            &[(Owner, 7), (OwningGroup, 5)],
            &[(Owner, 7), (Owner, 7), (OwningGroup, 5), (Others, 5)],
            &[(Owner, 7), (Others, 5), (OwningGroup, 5)],
            &[(Owner, 8), (OwningGroup, 5), (Others, 5)],
            &[(Owner, 7), (User(1), 7), (OwningGroup, 5), (Others, 5)],
            &[(Owner, 7), (OwningGroup, 5), (Group(1), 7), (Others, 5)],
            &[(Owner, 7), (OwningGroup, 5), (User(1), 7), (Mask, 7), (Others, 5)],
            &[(Owner, 7), (Group(1), 7), (OwningGroup, 5), (Mask, 7), (Others, 5)],
            &[(Owner, 7), (OwningGroup, 5), (Mask, 7), (Mask, 7), (Others, 5)],
            &[(Owner, 7), (OwningGroup, 5), (Mask, 7), (Others, 5), (Others, 5)],
            &[(Owner, 7), (User(NO_ID), 7), (OwningGroup, 5), (Mask, 7), (Others, 5)],
        ];
        for entries in invalid {
            assert_eq!(refused(&bytes(entries)), FsError::Invalid, "{entries:?}");
        }
        let masked = [(Owner, 7), (OwningGroup, 5), (Mask, 1), (Others, 5)];
        assert_eq!(acl(&masked).mode(), 0o715, "a mask without named entries is allowed");
        let mut many = vec![(Owner, 7)];
        many.extend((0..ACL_ENTRIES_MAX as u32).map(|uid| (User(uid), 7)));
        many.extend([(OwningGroup, 5), (Mask, 7), (Others, 5)]);
        assert_eq!(refused(&bytes(&many)), FsError::TooLarge);
    }

    #[test]
    fn the_first_kind_of_entry_that_fits_decides_and_groups_add_up() {
        use Whom::*;
        let list = acl(&[
            (Owner, 0),
            (User(2), 6),
            (OwningGroup, 4),
            (Group(20), 3),
            (Mask, 5),
            (Others, 1),
        ]);
        let file = object(1, 10);
        let may = |who: &Caller, mask| list.lets(who, &file, mask);
        assert!(!may(&caller(1, 10, &[20]), 4), "the owner's entry counts for the owner alone");
        assert!(may(&caller(2, 2, &[]), 4));
        assert!(!may(&caller(2, 2, &[]), 2), "the mask takes the w");
        assert!(!may(&caller(2, 10, &[20]), 1), "a named user is not asked for groups");
        assert!(may(&caller(3, 10, &[]), 4));
        assert!(may(&caller(3, 9, &[20]), 1));
        assert!(may(&caller(3, 10, &[20]), 4) && may(&caller(3, 10, &[20]), 1));
        assert!(!may(&caller(3, 10, &[20]), 5), "no single group has both");
        assert!(!may(&caller(3, 10, &[]), 1), "who is in a group is not one of the others");
        assert!(may(&caller(4, 4, &[]), 1) && !may(&caller(4, 4, &[]), 4));
    }

    #[test]
    fn chmod_sets_the_mask_and_leaves_the_groups_entry() {
        use Whom::*;
        let mut list = acl(&[(Owner, 6), (User(2), 6), (OwningGroup, 4), (Mask, 6), (Others, 0)]);
        list.set_mode(0o4751);
        assert_eq!(list.mode(), 0o751);
        assert_eq!(list.permissions_of(OwningGroup), Some(4));
        assert_eq!(list.permissions_of(User(2)), Some(6));
    }

    fn entries() -> impl Strategy<Value = Vec<(Whom, u32)>> {
        let named = prop::collection::vec((0u32..3, 0u32..8), 0..3);
        (named.clone(), named, prop::option::of(0u32..8), prop::array::uniform3(0u32..8)).prop_map(
            |(users, groups, mask, [owner, group, others])| {
                let mut entries = vec![(Whom::Owner, owner)];
                entries.extend(users.iter().map(|(id, bits)| (Whom::User(*id), *bits)));
                entries.push((Whom::OwningGroup, group));
                entries.extend(groups.iter().map(|(id, bits)| (Whom::Group(*id), *bits)));
                let needs_mask = !users.is_empty() || !groups.is_empty();
                let mask = mask.or(needs_mask.then_some(7));
                entries.extend(mask.map(|mask| (Whom::Mask, mask)));
                entries.push((Whom::Others, others));
                entries
            },
        )
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(value in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Acl::from_xattr(&value);
        }

        #[test]
        fn a_list_comes_back_as_it_went(entries in entries()) {
            let value = bytes(&entries);
            let list = Acl::from_xattr(&value).unwrap().unwrap();
            prop_assert_eq!(list.to_xattr(), value);
        }

        #[test]
        fn what_is_inherited_is_valid_and_never_more_than_was_asked_for(
            entries in entries(), wanted in 0u32..0o10000
        ) {
            let parent = acl(&entries);
            let (own, permissions) = parent.inherited(wanted);
            prop_assert!(own.is_valid());
            prop_assert_eq!(own.mode(), permissions & 0o777);
            prop_assert_eq!(permissions & !wanted, 0);
            prop_assert_eq!(permissions & 0o7000, wanted & 0o7000);
            prop_assert_eq!(own.is_minimal(), parent.is_minimal());
        }
    }
}
