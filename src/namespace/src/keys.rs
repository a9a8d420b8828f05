//! Where each record of a ministry's state lies.
//!
//! Every part of this crate reads and writes records by the keys made here. A key is the keyspace
//! (eight bytes), a tag that names the kind of record (one byte), and the subject in big endian, so
//! that the order of keys is the order of numbers.
//!
//! What must always hold: tags are never used anew for something else, and all records of one
//! subject lie together, so that a listing and a removal are one range.

use ministry_types::{ChunkNumber, InodeId, SessionId};

use crate::acl_attributes::AclKind;

const APPLIED: u8 = 0x01;
const REIGN: u8 = 0x02;
const RANGE: u8 = 0x03;
const SESSION: u8 = 0x04;
const SESSION_COUNT: u8 = 0x05;
const SLOT: u8 = 0x06;
const AWAITED: u8 = 0x07;
const OBJECT_COUNT: u8 = 0x08;
const INODE: u8 = 0x10;
const CONTENT: u8 = 0x11;
const DENTRY: u8 = 0x12;
const BACKLINK: u8 = 0x13;
// 0x14 held all extended attributes of an object, up to format 4.
const ALLOCATION: u8 = 0x15;
const ORPHAN: u8 = 0x16;
const PURGE: u8 = 0x17;
const TRUNCATED: u8 = 0x18;
const GIVEN: u8 = 0x19;
const ADOPTED: u8 = 0x1a;
const ACL_ACCESS: u8 = 0x20;
const ACL_DEFAULT: u8 = 0x21;
const XATTR: u8 = 0x22;
const LOCKS: u8 = 0x30;
const LOCKED: u8 = 0x31;
const LOCK_COUNT: u8 = 0x32;
const LOCK_WAIT: u8 = 0x33;
const LOCK_TOTAL: u8 = 0x34;

/// Bytes of a key that name its keyspace; its tag follows.
const KEYSPACE_BYTES: usize = 8;

/// Bits of a cookie that number the names of one hash.
const ORDINAL_BITS: u32 = 8;
/// Names of one directory that may share a hash.
pub(crate) const ORDINALS: u64 = 1 << ORDINAL_BITS;
/// Hashes that are in use: neither the smallest nor the largest of 55 bits, so that a cookie is
/// never one of the small numbers that programs give a meaning, nor the largest `off_t`.
const HASHES: u64 = (1 << 55) - 2;

/// The smallest cookie that `name` can have; the others follow it directly.
///
/// The hash is FNV-1a with the final mix of MurmurHash3: it needs no key, and must never change,
/// since it is on disk and in the hands of programs that list a directory.
pub(crate) fn first_cookie(name: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^= hash >> 33;
    (hash % HASHES + 1) << ORDINAL_BITS
}

/// What a key is about, for those of whose records something may be unlogged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// The record of an object.
    Inode(InodeId),
    /// Its inline bytes.
    Content(InodeId),
    /// What one of its chunks takes.
    Allocation(InodeId, ChunkNumber),
}

/// The keys of one keyspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) keyspace: u64,
}

impl Keys {
    fn key(self, tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let mut key = Vec::with_capacity(KEYSPACE_BYTES + 1 + length);
        key.extend_from_slice(&self.keyspace.to_be_bytes());
        key.push(tag);
        for part in parts {
            key.extend_from_slice(part);
        }
        key
    }

    /// What a key is about: the way back from [`Keys::inode`], [`Keys::content`] and
    /// [`Keys::allocation`].
    pub(crate) fn subject(self, key: &[u8]) -> Option<Subject> {
        let rest = key.strip_prefix(&self.keyspace.to_be_bytes())?;
        let (tag, rest) = rest.split_first()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let inode = InodeId(u64::from_be_bytes(*number));
        match (*tag, rest) {
            (INODE, []) => Some(Subject::Inode(inode)),
            (CONTENT, []) => Some(Subject::Content(inode)),
            (ALLOCATION, rest) => {
                let chunk = <[u8; 8]>::try_from(rest).ok()?;
                Some(Subject::Allocation(inode, u64::from_be_bytes(chunk)))
            }
            _ => None,
        }
    }

    fn numbered(self, tag: u8, number: u64) -> Vec<u8> {
        self.key(tag, &[&number.to_be_bytes()])
    }

    fn tag_range(self, tag: u8) -> (Vec<u8>, Vec<u8>) {
        (self.key(tag, &[]), self.key(tag + 1, &[]))
    }

    /// All records of the keyspace.
    pub(crate) fn everything(self) -> (Vec<u8>, Vec<u8>) {
        let from = self.keyspace.to_be_bytes().to_vec();
        // No tag is that large: the end needs no successor of the keyspace, which may have none.
        (from, self.key(0xff, &[]))
    }

    pub(crate) fn applied(self) -> Vec<u8> {
        self.key(APPLIED, &[])
    }

    pub(crate) fn reign(self) -> Vec<u8> {
        self.key(REIGN, &[])
    }

    pub(crate) fn range(self, first: InodeId) -> Vec<u8> {
        self.numbered(RANGE, first.0)
    }

    pub(crate) fn ranges(self) -> (Vec<u8>, Vec<u8>) {
        self.tag_range(RANGE)
    }

    pub(crate) fn session(self, session: SessionId) -> Vec<u8> {
        self.key(SESSION, &[&session.0])
    }

    pub(crate) fn sessions(self) -> (Vec<u8>, Vec<u8>) {
        self.tag_range(SESSION)
    }

    pub(crate) fn session_count(self) -> Vec<u8> {
        self.key(SESSION_COUNT, &[])
    }

    pub(crate) fn object_count(self) -> Vec<u8> {
        self.key(OBJECT_COUNT, &[])
    }

    pub(crate) fn slot(self, session: SessionId, slot: u32) -> Vec<u8> {
        self.key(SLOT, &[&session.0, &slot.to_be_bytes()])
    }

    /// All slots of a session.
    pub(crate) fn slots(self, session: SessionId) -> (Vec<u8>, Vec<u8>) {
        (self.slot(session, 0), self.slot(session, u32::MAX))
    }

    /// An orphan that waits for a session.
    pub(crate) fn awaited(self, session: SessionId, inode: InodeId) -> Vec<u8> {
        self.key(AWAITED, &[&session.0, &inode.0.to_be_bytes()])
    }

    /// All orphans that wait for a session.
    pub(crate) fn awaited_all(self, session: SessionId) -> (Vec<u8>, Vec<u8>) {
        let from = self.awaited(session, InodeId(0));
        // The largest number is never given out, so that it may be the excluded end.
        (from, self.awaited(session, InodeId(u64::MAX)))
    }

    pub(crate) fn inode(self, inode: InodeId) -> Vec<u8> {
        self.numbered(INODE, inode.0)
    }

    /// Inline bytes of a file, or the target of a symbolic link.
    pub(crate) fn content(self, inode: InodeId) -> Vec<u8> {
        self.numbered(CONTENT, inode.0)
    }

    pub(crate) fn dentry(self, parent: InodeId, cookie: u64) -> Vec<u8> {
        self.key(DENTRY, &[&parent.0.to_be_bytes(), &cookie.to_be_bytes()])
    }

    pub(crate) fn backlink(self, inode: InodeId, parent: InodeId, cookie: u64) -> Vec<u8> {
        let (inode, parent) = (inode.0.to_be_bytes(), parent.0.to_be_bytes());
        self.key(BACKLINK, &[&inode, &parent, &cookie.to_be_bytes()])
    }

    pub(crate) fn backlinks(self, inode: InodeId) -> (Vec<u8>, Vec<u8>) {
        let from = self.key(BACKLINK, &[&inode.0.to_be_bytes()]);
        (from, self.backlink(inode, InodeId(u64::MAX), u64::MAX))
    }

    /// An extended attribute of an object.
    pub(crate) fn xattr(self, inode: InodeId, name: &[u8]) -> Vec<u8> {
        self.key(XATTR, &[&inode.0.to_be_bytes(), name])
    }

    /// All extended attributes of an object, in order of their names.
    pub(crate) fn xattrs(self, inode: InodeId) -> (Vec<u8>, Vec<u8>) {
        // The largest number is never given out, so that each has a successor.
        (self.xattr(inode, &[]), self.xattr(InodeId(inode.0.saturating_add(1)), &[]))
    }

    /// The name in the key of an extended attribute.
    pub(crate) fn xattr_name(key: &[u8]) -> Option<&[u8]> {
        key.get(KEYSPACE_BYTES + 1 + 8..)
    }

    pub(crate) fn acl(self, inode: InodeId, kind: AclKind) -> Vec<u8> {
        let tag = match kind {
            AclKind::Access => ACL_ACCESS,
            AclKind::Default => ACL_DEFAULT,
        };
        self.numbered(tag, inode.0)
    }

    pub(crate) fn allocation(self, inode: InodeId, chunk: ChunkNumber) -> Vec<u8> {
        self.key(ALLOCATION, &[&inode.0.to_be_bytes(), &chunk.to_be_bytes()])
    }

    pub(crate) fn orphan(self, inode: InodeId) -> Vec<u8> {
        self.numbered(ORPHAN, inode.0)
    }

    pub(crate) fn purge(self, inode: InodeId) -> Vec<u8> {
        self.numbered(PURGE, inode.0)
    }

    pub(crate) fn purges(self) -> (Vec<u8>, Vec<u8>) {
        self.tag_range(PURGE)
    }

    /// A file with cuts that storage has not confirmed.
    pub(crate) fn truncated(self, inode: InodeId) -> Vec<u8> {
        self.numbered(TRUNCATED, inode.0)
    }

    pub(crate) fn truncated_all(self) -> (Vec<u8>, Vec<u8>) {
        self.tag_range(TRUNCATED)
    }

    /// A directory that has become another ministry's.
    pub(crate) fn given(self, inode: InodeId) -> Vec<u8> {
        self.numbered(GIVEN, inode.0)
    }

    /// A directory that came from another ministry.
    pub(crate) fn adopted(self, inode: InodeId) -> Vec<u8> {
        self.numbered(ADOPTED, inode.0)
    }

    /// Locks of a file, and requests that wait for some.
    pub(crate) fn locks(self, inode: InodeId) -> Vec<u8> {
        self.numbered(LOCKS, inode.0)
    }

    /// An inode on which a session holds or wants a lock.
    pub(crate) fn locked_inode(self, session: SessionId, inode: InodeId) -> Vec<u8> {
        self.key(LOCKED, &[&session.0, &inode.0.to_be_bytes()])
    }

    /// All inodes on which a session holds or wants a lock.
    pub(crate) fn locked_inodes(self, session: SessionId) -> (Vec<u8>, Vec<u8>) {
        // The largest number is never given out, so that it may be the excluded end.
        let from = self.locked_inode(session, InodeId(0));
        (from, self.locked_inode(session, InodeId(u64::MAX)))
    }

    /// How many locks and requests a session has.
    pub(crate) fn lock_count(self, session: SessionId) -> Vec<u8> {
        self.key(LOCK_COUNT, &[&session.0])
    }

    /// A request that waits: by session, number of the owner, number of the request.
    pub(crate) fn lock_wait(self, session: SessionId, owner: u64, request: u64) -> Vec<u8> {
        self.key(LOCK_WAIT, &[&session.0, &owner.to_be_bytes(), &request.to_be_bytes()])
    }

    /// All requests with which an owner waits.
    pub(crate) fn lock_waits(self, session: SessionId, owner: u64) -> (Vec<u8>, Vec<u8>) {
        let end = self.lock_wait(session, owner, u64::MAX);
        // Clients count their requests from 1: none has the largest number.
        (self.lock_wait(session, owner, 0), end)
    }

    /// How many locks there are.
    pub(crate) fn lock_total(self) -> Vec<u8> {
        self.key(LOCK_TOTAL, &[])
    }
}

/// The number at the end of a key.
pub(crate) fn last_number(key: &[u8]) -> Option<u64> {
    key.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
}

/// The number before the last of a key.
pub(crate) fn number_before_last(key: &[u8]) -> Option<u64> {
    key.split_last_chunk::<8>().and_then(|(rest, _)| last_number(rest))
}

/// The session in the key of a session's record.
pub(crate) fn session_of(key: &[u8]) -> Option<SessionId> {
    key.last_chunk::<16>().map(|bytes| SessionId(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cookie_fits_an_off_t_and_is_no_number_with_a_meaning(
            name in prop::collection::vec(any::<u8>(), 1..40)
        ) {
            let first = first_cookie(&name);
            prop_assert!(first > 2);
            prop_assert!(first + ORDINALS - 1 < i64::MAX as u64);
            prop_assert_eq!(first % ORDINALS, 0);
        }

        #[test]
        fn every_key_lies_in_its_keyspace(keyspace: u64, inode: u64, parent: u64, cookie: u64) {
            let keys = Keys { keyspace };
            let (from, to) = keys.everything();
            for key in [
                keys.applied(),
                keys.reign(),
                keys.dentry(InodeId(parent), cookie),
                keys.backlink(InodeId(inode), InodeId(parent), cookie),
                keys.adopted(InodeId(inode)),
            ] {
                prop_assert!(from <= key && key < to);
            }
            let inode_id = InodeId(inode);
            prop_assert_eq!(keys.subject(&keys.inode(inode_id)), Some(Subject::Inode(inode_id)));
            prop_assert_eq!(
                keys.subject(&keys.content(inode_id)),
                Some(Subject::Content(inode_id))
            );
            prop_assert_eq!(
                keys.subject(&keys.allocation(inode_id, cookie)),
                Some(Subject::Allocation(inode_id, cookie))
            );
            let xattr = keys.xattr(inode_id, b"user.name");
            prop_assert_eq!(keys.subject(&xattr), None);
            prop_assert_eq!(Keys::xattr_name(&xattr), Some(b"user.name".as_slice()));
            let (from, to) = keys.xattrs(inode_id);
            prop_assert!(inode == u64::MAX || (from..to).contains(&xattr));
            let backlink = keys.backlink(InodeId(inode), InodeId(parent), cookie);
            prop_assert_eq!(keys.subject(&backlink), None);
            prop_assert_eq!(number_before_last(&backlink), Some(parent));
            prop_assert_eq!(last_number(&backlink), Some(cookie));
        }
    }

    #[test]
    fn the_hash_of_a_name_is_what_it_was_when_it_was_written() {
        assert_eq!([first_cookie(b"hello") >> 8, first_cookie(b"") >> 8], HASHES_ON_DISK);
    }

    /// Computed once by another program.
    const HASHES_ON_DISK: [u64; 2] = [19530354422593003, 22552498444774629];
}
