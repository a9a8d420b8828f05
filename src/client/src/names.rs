//! Calls about names and attributes.
//!
//! The mount calls these, one for each request of the kernel; so may any program. Objects are named
//! by inode and paths by their steps, as the kernel does. Every call acts on behalf of a
//! [`Caller`], whose rights the minister checks; every call ends within
//! [`ministry_types::limits::OPERATION_TIMEOUT`], then as [`FsError::TimedOut`].

use bytes::Bytes;
use futures::StreamExt;
use ministry_types::limits::{LISTING_ENTRIES_MAX, PATH_STEPS_MAX};
use ministry_types::operations::{
    Answer, Entry, Name, Operation, Outcome, Query, RenameMode, SetAttributes, XattrMode,
};
use ministry_types::{Attributes, Caller, FileKind, FsError, InodeId};

use crate::Client;
use crate::calls::{Core, unexpected};
use crate::retry::Backoff;

/// Questions for the attributes of one listing that are under way at the same time.
const LISTING_QUESTIONS: usize = 16;

/// A new object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewObject {
    /// What to make.
    pub kind: FileKind,
    /// Permission bits as they are wanted.
    pub permissions: u32,
    /// Bits to take off, unless the directory has a default access control list.
    pub umask: u32,
    /// Device number of a device node, else 0.
    pub device: u64,
    /// Target of a symbolic link, else empty.
    pub target: Vec<u8>,
}

/// The mode that a new file is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewMode {
    /// Permission bits as they are wanted.
    pub permissions: u32,
    /// Bits to take off, unless the directory has a default access control list.
    pub umask: u32,
}

impl From<u32> for NewMode {
    fn from(permissions: u32) -> NewMode {
        NewMode { permissions, umask: 0 }
    }
}

impl NewObject {
    /// An ordinary file.
    pub fn file(permissions: u32) -> NewObject {
        let target = Vec::new();
        NewObject { kind: FileKind::Regular, permissions, umask: 0, device: 0, target }
    }

    /// A directory.
    pub fn directory(permissions: u32) -> NewObject {
        NewObject { kind: FileKind::Directory, ..NewObject::file(permissions) }
    }

    /// A symbolic link.
    pub fn symlink(target: impl Into<Vec<u8>>) -> NewObject {
        NewObject { kind: FileKind::Symlink, target: target.into(), ..NewObject::file(0o777) }
    }
}

/// A part of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The entries, in order of their cookies; without `.` and `..`.
    pub entries: Vec<Entry>,
    /// Nothing follows.
    pub end: bool,
    /// The directory that holds this one (its own for the root).
    pub parent: InodeId,
}

impl Client {
    /// What a name stands for. `.` and `..` are allowed.
    pub async fn lookup(
        &self,
        caller: &Caller,
        parent: InodeId,
        name: &[u8],
    ) -> Result<Attributes, FsError> {
        self.core.operation("lookup", |_| self.core.lookup(caller, parent, name)).await
    }

    /// Attributes of an object.
    pub async fn getattr(&self, caller: &Caller, inode: InodeId) -> Result<Attributes, FsError> {
        self.core.operation("getattr", |_| self.core.attributes(caller, inode)).await
    }

    /// Sets attributes, the size among them: cuts or extends a file. With
    /// [`SetAttributes::size_by_handle`] the caller vouches that it has the file open for writing.
    pub async fn setattr(
        &self,
        caller: &Caller,
        inode: InodeId,
        set: SetAttributes,
    ) -> Result<Attributes, FsError> {
        let core = &self.core;
        core.operation("setattr", |deadline| core.set_attributes(caller, inode, set, deadline))
            .await
    }

    /// Makes a new object with one name.
    pub async fn create(
        &self,
        caller: &Caller,
        parent: InodeId,
        name: &[u8],
        new: NewObject,
    ) -> Result<Attributes, FsError> {
        self.core.operation("create", |_| self.core.create(caller, parent, name, new)).await
    }

    /// Gives an object that is not a directory another name.
    pub async fn link(
        &self,
        caller: &Caller,
        inode: InodeId,
        parent: InodeId,
        name: &[u8],
    ) -> Result<Attributes, FsError> {
        let operation = Operation::Link { inode, parent, name: name.to_vec() };
        let change = self.core.operation("link", |_| self.core.change(caller, operation));
        match change.await? {
            Outcome::Attributes(attributes) => Ok(self.core.learned(attributes)),
            other => Err(unexpected("link", &other)),
        }
    }

    /// Removes a name of an object that is not a directory. Whoever has it open keeps it.
    pub async fn unlink(
        &self,
        caller: &Caller,
        parent: InodeId,
        name: &[u8],
    ) -> Result<(), FsError> {
        let operation = Operation::Unlink { parent, name: name.to_vec() };
        let change = self.core.operation("unlink", |_| self.core.change(caller, operation));
        match change.await? {
            Outcome::Unlinked { inode, orphan } => {
                if orphan {
                    self.core.orphaned(inode);
                }
                Ok(())
            }
            other => Err(unexpected("unlink", &other)),
        }
    }

    /// Removes an empty directory.
    pub async fn rmdir(
        &self,
        caller: &Caller,
        parent: InodeId,
        name: &[u8],
    ) -> Result<(), FsError> {
        let operation = Operation::RemoveDirectory { parent, name: name.to_vec() };
        let change = self.core.operation("rmdir", |_| self.core.change(caller, operation));
        match change.await? {
            Outcome::Done => Ok(()),
            other => Err(unexpected("rmdir", &other)),
        }
    }

    /// Moves a name.
    pub async fn rename(
        &self,
        caller: &Caller,
        (parent, name): (InodeId, &[u8]),
        (new_parent, new_name): (InodeId, &[u8]),
        mode: RenameMode,
    ) -> Result<(), FsError> {
        let (name, new_name) = (name.to_vec(), new_name.to_vec());
        let operation = Operation::Rename { parent, name, new_parent, new_name, mode };
        let change = self.core.operation("rename", |_| self.core.change(caller, operation));
        match change.await? {
            Outcome::Renamed { displaced, orphan } => {
                if let (Some(inode), true) = (displaced, orphan) {
                    self.core.orphaned(inode);
                }
                Ok(())
            }
            other => Err(unexpected("rename", &other)),
        }
    }

    /// Target of a symbolic link.
    pub async fn readlink(&self, caller: &Caller, inode: InodeId) -> Result<Vec<u8>, FsError> {
        let query = Query::ReadLink { inode };
        match self.core.operation("readlink", |_| self.core.query(caller, query)).await? {
            Answer::Target(target) => Ok(target),
            other => Err(unexpected("readlink", &other)),
        }
    }

    /// Entries of a directory behind the one with cookie `after` (0: from the beginning), at most
    /// `max`; with their attributes where wanted. An entry that is removed while its attributes are
    /// asked for stays in the listing without them.
    pub async fn list(
        &self,
        caller: &Caller,
        directory: InodeId,
        after: u64,
        max: usize,
        attributes: bool,
    ) -> Result<Listing, FsError> {
        let entries_max = max.clamp(1, LISTING_ENTRIES_MAX) as u32;
        let query = Query::List { inode: directory, after, entries_max, attributes };
        let list = async |_| {
            let (entries, end, parent) = match self.core.query(caller, query).await? {
                Answer::Listing { entries, end, parent } => (entries, end, parent),
                other => return Err(unexpected("list", &other)),
            };
            let mut listing = Listing { entries, end, parent };
            if attributes {
                self.core.fill_in(caller, &mut listing.entries).await?;
            }
            Ok(listing)
        };
        self.core.operation("list", list).await
    }

    /// Value of an extended attribute.
    pub async fn getxattr(
        &self,
        caller: &Caller,
        inode: InodeId,
        name: &[u8],
    ) -> Result<Bytes, FsError> {
        let query = Query::GetXattr { inode, name: name.to_vec() };
        match self.core.operation("getxattr", |_| self.core.query(caller, query)).await? {
            Answer::Value(value) => Ok(value),
            other => Err(unexpected("getxattr", &other)),
        }
    }

    /// Names of the extended attributes.
    pub async fn listxattr(
        &self,
        caller: &Caller,
        inode: InodeId,
    ) -> Result<Vec<Vec<u8>>, FsError> {
        let query = Query::ListXattrs { inode };
        match self.core.operation("listxattr", |_| self.core.query(caller, query)).await? {
            Answer::Names(names) => Ok(names),
            other => Err(unexpected("listxattr", &other)),
        }
    }

    /// Sets an extended attribute.
    pub async fn setxattr(
        &self,
        caller: &Caller,
        inode: InodeId,
        name: &[u8],
        value: Bytes,
        mode: XattrMode,
    ) -> Result<(), FsError> {
        let operation = Operation::SetXattr { inode, name: name.to_vec(), value, mode };
        match self.core.operation("setxattr", |_| self.core.change(caller, operation)).await? {
            Outcome::Done => Ok(()),
            other => Err(unexpected("setxattr", &other)),
        }
    }

    /// Removes an extended attribute.
    pub async fn removexattr(
        &self,
        caller: &Caller,
        inode: InodeId,
        name: &[u8],
    ) -> Result<(), FsError> {
        let operation = Operation::RemoveXattr { inode, name: name.to_vec() };
        match self.core.operation("removexattr", |_| self.core.change(caller, operation)).await? {
            Outcome::Done => Ok(()),
            other => Err(unexpected("removexattr", &other)),
        }
    }

    /// Checks permissions as `access` does; `mask` is made of `R_OK`, `W_OK` and `X_OK`.
    pub async fn access(&self, caller: &Caller, inode: InodeId, mask: u32) -> Result<(), FsError> {
        let query = Query::Access { inode, mask };
        match self.core.operation("access", |_| self.core.query(caller, query)).await? {
            Answer::Done => Ok(()),
            other => Err(unexpected("access", &other)),
        }
    }

    /// The directory that holds an object, and its name there: of several names, one. The root
    /// answers itself and no name.
    pub async fn parent(
        &self,
        caller: &Caller,
        inode: InodeId,
    ) -> Result<(InodeId, Name), FsError> {
        self.core.operation("parent", |_| self.core.parent(caller, inode)).await
    }

    /// A path of an object from the root; of several, one. Each step is asked for by itself: a
    /// rename meanwhile can give a path that never was.
    pub async fn path_of(&self, caller: &Caller, inode: InodeId) -> Result<Vec<u8>, FsError> {
        self.core.operation("path_of", |_| self.core.path_of(caller, inode)).await
    }

    /// The object at a path from the root. Symbolic links are not followed.
    pub async fn resolve(&self, caller: &Caller, path: &[u8]) -> Result<Attributes, FsError> {
        self.core.operation("resolve", |_| self.core.resolve(caller, path)).await
    }
}

impl Core {
    pub(crate) async fn lookup(
        &self,
        caller: &Caller,
        parent: InodeId,
        name: &[u8],
    ) -> Result<Attributes, FsError> {
        let mut backoff = Backoff::new();
        loop {
            let query = Query::Lookup { parent, name: name.to_vec() };
            let inode = match self.query(caller, query).await? {
                Answer::Entry { attributes: Some(attributes), .. } => {
                    return Ok(self.learned(attributes));
                }
                Answer::Entry { inode, .. } => inode,
                other => return Err(unexpected("lookup", &other)),
            };
            match self.attributes(caller, inode).await {
                // Removed between the two questions: the name may stand for another object now.
                Err(FsError::NotFound | FsError::Stale) => self.wait(&mut backoff).await,
                result => return result,
            }
        }
    }

    pub(crate) async fn create(
        &self,
        caller: &Caller,
        parent: InodeId,
        name: &[u8],
        new: NewObject,
    ) -> Result<Attributes, FsError> {
        let NewObject { kind, permissions, umask, device, target } = new;
        let name = name.to_vec();
        let operation =
            Operation::Create { parent, name, kind, permissions, umask, device, target };
        match self.change(caller, operation).await? {
            Outcome::Attributes(attributes) => Ok(self.learned(attributes)),
            other => Err(unexpected("create", &other)),
        }
    }

    /// Asks the owners of the inodes for what the owner of the directory does not know.
    async fn fill_in(&self, caller: &Caller, entries: &mut [Entry]) -> Result<(), FsError> {
        let places: Vec<_> = (0..entries.len())
            .filter(|place| entries[*place].attributes.is_none())
            .map(|place| (place, entries[place].inode))
            .collect();
        let questions = places
            .into_iter()
            .map(|(place, inode)| async move { (place, self.attributes(caller, inode).await) });
        let mut answers = futures::stream::iter(questions).buffered(LISTING_QUESTIONS);
        while let Some((place, answer)) = answers.next().await {
            match answer {
                Ok(attributes) => entries[place].attributes = Some(attributes),
                Err(FsError::NotFound | FsError::Stale) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn parent(&self, caller: &Caller, inode: InodeId) -> Result<(InodeId, Name), FsError> {
        match self.query(caller, Query::Parent { inode }).await? {
            Answer::Parent { parent, name } => Ok((parent, name)),
            other => Err(unexpected("parent", &other)),
        }
    }

    async fn path_of(&self, caller: &Caller, inode: InodeId) -> Result<Vec<u8>, FsError> {
        let mut steps = Vec::new();
        let mut at = inode;
        while at != InodeId::ROOT {
            if steps.len() == PATH_STEPS_MAX {
                return Err(FsError::NameTooLong);
            }
            let (parent, name) = self.parent(caller, at).await?;
            steps.push(name);
            at = parent;
        }
        if steps.is_empty() {
            return Ok(b"/".to_vec());
        }
        Ok(steps.iter().rev().flat_map(|name| [b"/", name.as_slice()].concat()).collect())
    }

    async fn resolve(&self, caller: &Caller, path: &[u8]) -> Result<Attributes, FsError> {
        let mut at = None;
        for step in path.split(|byte| *byte == b'/').filter(|step| !step.is_empty()) {
            let directory = at.as_ref().map_or(InodeId::ROOT, |found: &Attributes| found.inode);
            at = Some(self.lookup(caller, directory, step).await?);
        }
        match at {
            Some(attributes) => Ok(attributes),
            None => self.attributes(caller, InodeId::ROOT).await,
        }
    }
}
