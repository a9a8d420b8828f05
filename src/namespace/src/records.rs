//! What the records hold, and how they are read and written.
//!
//! [`Records`] reads, for queries and rules alike; [`Work`] is one change under way: a reader with
//! an overlay of its own, which is thrown away when the change is refused.
//!
//! What must always hold: a record begins with the number of its format. A record that does not
//! decode is damage: it becomes a [`KvError`], and the node steps aside.

use std::ops::ControlFlow;

use ministry_types::kv::{KvError, KvRead};
use ministry_types::operations::{ChangeResult, Name};
use ministry_types::{
    Attributes, Caller, ClientId, Epoch, FileKind, FsError, InodeId, MinistryId, NodeId, Timestamp,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::acl_attributes::AclsKept;
use crate::command::{decode, encode};
use crate::keys::{self, Keys};
use crate::overlay::Overlay;

/// Why a rule ends early.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The file system's own answer.
    Fs(FsError),
    /// Another ministry has to be asked.
    Elsewhere(MinistryId),
    /// The state cannot be read.
    Kv(KvError),
}

impl From<FsError> for Fault {
    fn from(error: FsError) -> Fault {
        Fault::Fs(error)
    }
}

impl From<KvError> for Fault {
    fn from(error: KvError) -> Fault {
        Fault::Kv(error)
    }
}

/// What a rule answers.
pub(crate) type Ruled<T> = Result<T, Fault>;

/// The reign of now.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct ReignRecord {
    pub(crate) epoch: Epoch,
    pub(crate) node: NodeId,
    pub(crate) since: Timestamp,
}

/// A range of inode numbers; its first number is the key.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct RangeRecord {
    pub(crate) end: InodeId,
    /// The first number that no directory has taken.
    pub(crate) next: InodeId,
}

impl RangeRecord {
    /// The first number of a range that an object may have: 0 is none, and 1 is the root's.
    pub(crate) fn first_usable(first: InodeId) -> InodeId {
        first.max(InodeId(InodeId::ROOT.0 + 1))
    }
}

/// A session that lives.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct SessionRecord {
    pub(crate) client: ClientId,
}

/// The last change of a replay slot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SlotRecord {
    pub(crate) sequence: u64,
    pub(crate) reply: ChangeResult,
}

/// An object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InodeRecord {
    pub(crate) attributes: Attributes,
    /// Present for a directory.
    pub(crate) directory: Option<DirectoryRecord>,
    /// It has `security.capability`, which each write takes away.
    pub(crate) capability: bool,
    /// Which access control lists it has.
    pub(crate) acls: AclsKept,
    /// Of a chunked file: no byte that was reported ever lay at or behind this.
    pub(crate) data_end: u64,
    /// Of a chunked file: the newest cut that storage has confirmed.
    pub(crate) cuts_confirmed: u64,
    /// The time that the newest write got. It is that write's identity, and not `ctime`, which names
    /// move too: see [`crate::soft`].
    pub(crate) newest_write: Timestamp,
    /// When `atime` last got its value, by a read or by hand: a read before that is no news.
    pub(crate) atime_until: Timestamp,
    /// Bytes of the names and values of its extended attributes, access control lists aside.
    pub(crate) xattr_bytes: u32,
}

impl InodeRecord {
    pub(crate) fn is_directory(&self) -> bool {
        self.directory.is_some()
    }

    /// No name is left.
    pub(crate) fn is_orphan(&self) -> bool {
        self.attributes.links == 0
    }

    /// The attributes have changed.
    pub(crate) fn touch(&mut self, time: Timestamp) {
        self.attributes.ctime = self.attributes.ctime.advance(time);
    }

    /// The content has changed.
    pub(crate) fn touch_content(&mut self, time: Timestamp) {
        self.touch(time);
        // Later than both, so that `mtime` and `ctime` are the same but after a person set one.
        self.attributes.mtime = self.attributes.mtime.advance(self.attributes.ctime);
        self.newest_write = self.newest_write.advance(time);
    }
}

/// What only a directory has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DirectoryRecord {
    /// The directory that holds it; its own number for the root.
    pub(crate) parent: InodeId,
    /// Its name there, as a cookie; 0 for the root.
    pub(crate) cookie: u64,
    /// Names in it.
    pub(crate) entries: u64,
    /// Numbers taken for its children, not used yet: from here ...
    pub(crate) numbers_next: InodeId,
    /// ... to before here.
    pub(crate) numbers_end: InodeId,
    /// The ministry begins here: the dentry is another ministry's.
    pub(crate) ministry_root: bool,
    /// Two names in it have had the same hash at the same time.
    pub(crate) collided: bool,
}

/// A name in a directory; the directory and the cookie are the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DentryRecord {
    pub(crate) name: Name,
    pub(crate) inode: InodeId,
    pub(crate) kind: FileKind,
}

/// An object without a name that may still be open somewhere.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct OrphanRecord {
    /// Sessions that have not said that it is closed; each has a key of its own.
    pub(crate) awaited: u32,
}

/// A removed file whose chunks storage still has to remove.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct PurgeRecord {
    pub(crate) chunk_bytes: u64,
    pub(crate) data_end: u64,
}

/// A directory that another ministry owns now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct GivenRecord {
    pub(crate) to: MinistryId,
    pub(crate) generation: u64,
    /// What was answered, for the case that it is asked again.
    pub(crate) record: Vec<u8>,
}

/// A directory that came from another ministry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct AdoptedRecord {
    pub(crate) generation: u64,
    /// Its name there. It cannot change, since a ministry's root is not renamed.
    pub(crate) name: Name,
}

/// Reads records.
#[derive(Clone, Copy)]
pub(crate) struct Records<'a> {
    pub(crate) keys: Keys,
    pub(crate) state: &'a dyn KvRead,
}

/// A name that was found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) cookie: u64,
    pub(crate) inode: InodeId,
    pub(crate) kind: FileKind,
}

fn damaged(key: &[u8], reason: impl std::fmt::Display) -> KvError {
    KvError(format!("record {key:02x?} is damaged: {reason}"))
}

/// Decodes a value that was scanned.
pub(crate) fn read_value<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, KvError> {
    decode(value).map_err(|error| damaged(key, error))
}

/// Takes the number at the end of a key that was scanned.
pub(crate) fn read_number(key: &[u8]) -> Result<u64, KvError> {
    keys::last_number(key).ok_or_else(|| damaged(key, "the key is too short"))
}

impl Records<'_> {
    /// The record of a key.
    pub(crate) fn read<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, KvError> {
        self.state.get(key)?.map(|value| read_value(key, &value)).transpose()
    }

    /// Visits the records of a range until `visit` has enough.
    pub(crate) fn each(
        &self,
        range: &(Vec<u8>, Vec<u8>),
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, KvError>,
    ) -> Result<(), KvError> {
        let mut failure = None;
        self.state.scan(&range.0, &range.1, &mut |key, value| match visit(key, value) {
            Ok(step) => step,
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        })?;
        failure.map_or(Ok(()), Err)
    }

    /// The object, if it is here.
    pub(crate) fn inode_here(&self, inode: InodeId) -> Result<Option<InodeRecord>, KvError> {
        self.read(&self.keys.inode(inode))
    }

    /// The object that an operation names by its number. One that is gone is [`FsError::Stale`]:
    /// the kernel then walks the path again, and finds what has taken the name.
    pub(crate) fn inode(&self, inode: InodeId) -> Ruled<InodeRecord> {
        match self.inode_here(inode)? {
            Some(record) => Ok(record),
            None => Err(self.absent(inode, FsError::Stale)?),
        }
    }

    /// The directory in which an operation names something. One that is gone was empty, so that
    /// [`FsError::NotFound`] is true of every name in it.
    pub(crate) fn directory(&self, inode: InodeId) -> Ruled<(InodeRecord, DirectoryRecord)> {
        let Some(record) = self.inode_here(inode)? else {
            return Err(self.absent(inode, FsError::NotFound)?);
        };
        match record.directory.clone() {
            Some(directory) => Ok((record, directory)),
            None => Err(FsError::NotDirectory.into()),
        }
    }

    fn absent(&self, inode: InodeId, gone: FsError) -> Result<Fault, KvError> {
        let given = self.read::<GivenRecord>(&self.keys.given(inode))?;
        Ok(given.map_or(Fault::Fs(gone), |given| Fault::Elsewhere(given.to)))
    }

    /// Whether an absent object is another ministry's, rather than gone.
    pub(crate) fn is_elsewhere(&self, inode: InodeId) -> Result<bool, KvError> {
        if self.state.get(&self.keys.given(inode))?.is_some() {
            return Ok(true);
        }
        if inode == InodeId::ROOT {
            return Ok(true);
        }
        let mut ours = false;
        self.each(&self.keys.ranges(), |key, value| {
            let range: RangeRecord = read_value(key, value)?;
            ours = (read_number(key)?..range.end.0).contains(&inode.0);
            Ok(if ours { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(!ours)
    }

    /// What `name` stands for in a directory.
    pub(crate) fn find(&self, parent: InodeId, name: &[u8]) -> Result<Option<Found>, KvError> {
        let first = keys::first_cookie(name);
        // Nearly every name is alone with its hash: a look at its place is cheaper than a scan.
        match self.dentry(parent, first)? {
            Some(DentryRecord { name: there, inode, kind }) if there == name => {
                return Ok(Some(Found { cookie: first, inode, kind }));
            }
            None if !self.has_collided(parent)? => return Ok(None),
            _ => {}
        }
        let mut found = None;
        self.each(&self.same_hash(parent, first), |key, value| {
            let dentry: DentryRecord = read_value(key, value)?;
            if dentry.name != name {
                return Ok(ControlFlow::Continue(()));
            }
            let cookie = read_number(key)?;
            found = Some(Found { cookie, inode: dentry.inode, kind: dentry.kind });
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// Whether a name may lie at another place than the first of its hash.
    fn has_collided(&self, parent: InodeId) -> Result<bool, KvError> {
        let record = self.inode_here(parent)?;
        Ok(record.and_then(|record| record.directory).is_none_or(|directory| directory.collided))
    }

    fn same_hash(&self, parent: InodeId, first: u64) -> (Vec<u8>, Vec<u8>) {
        (self.keys.dentry(parent, first), self.keys.dentry(parent, first + keys::ORDINALS))
    }

    /// The cookie for a name that is not there yet.
    pub(crate) fn free_cookie(&self, parent: InodeId, name: &[u8]) -> Ruled<u64> {
        let first = keys::first_cookie(name);
        if self.dentry(parent, first)?.is_none() {
            return Ok(first);
        }
        let mut free = first;
        self.each(&self.same_hash(parent, first), |key, _| {
            if read_number(key)? != free {
                return Ok(ControlFlow::Break(()));
            }
            free += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        if free - first < keys::ORDINALS { Ok(free) } else { Err(FsError::NoSpace.into()) }
    }

    /// The dentry at a place.
    pub(crate) fn dentry(
        &self,
        parent: InodeId,
        cookie: u64,
    ) -> Result<Option<DentryRecord>, KvError> {
        self.read(&self.keys.dentry(parent, cookie))
    }

    /// Inline bytes, or the target of a symbolic link.
    pub(crate) fn content(&self, inode: InodeId) -> Result<Vec<u8>, KvError> {
        Ok(self.state.get(&self.keys.content(inode))?.unwrap_or_default())
    }
}

/// One change under way.
pub(crate) struct Work<'a> {
    pub(crate) keys: Keys,
    pub(crate) state: Overlay<'a>,
    pub(crate) caller: &'a Caller,
    pub(crate) time: Timestamp,
}

impl Work<'_> {
    /// Reads what this change has made so far.
    pub(crate) fn records(&self) -> Records<'_> {
        Records { keys: self.keys, state: &self.state }
    }

    /// Writes a record.
    pub(crate) fn write<T: Serialize>(&mut self, key: Vec<u8>, record: &T) {
        self.state.put(key, encode(record));
    }

    /// Keeps count of the objects that exist, those without a name included.
    pub(crate) fn count_objects(&mut self, change: i64) -> Ruled<()> {
        let key = self.keys.object_count();
        let count: u64 = self.records().read(&key)?.unwrap_or(0);
        let count = count.checked_add_signed(change).expect("what is removed was counted");
        self.write(key, &count);
        Ok(())
    }

    /// Writes an object.
    pub(crate) fn write_inode(&mut self, record: &InodeRecord) {
        self.write(self.keys.inode(record.attributes.inode), record);
    }

    /// Changes an object that is known to be here.
    pub(crate) fn edit_inode(
        &mut self,
        inode: InodeId,
        edit: impl FnOnce(&mut InodeRecord),
    ) -> Ruled<InodeRecord> {
        let mut record = self.records().inode(inode)?;
        edit(&mut record);
        self.write_inode(&record);
        Ok(record)
    }

    /// Sets the content of an inline file or a symbolic link.
    pub(crate) fn write_content(&mut self, inode: InodeId, content: Vec<u8>) {
        let key = self.keys.content(inode);
        if content.is_empty() {
            self.state.delete(key);
        } else {
            self.state.put(key, content);
        }
    }
}
