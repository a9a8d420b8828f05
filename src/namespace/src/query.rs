//! Questions to the name space.
//!
//! Called by the minister's office on the applied state.
//!
//! What must always hold: a question changes nothing. It asks for the same permission as the system
//! call behind it; what works on an open handle (`GetAttributes`, `Read`) asks for none, since that
//! was done at open. A state that cannot be read ends in a [`KvError`].

use std::ops::ControlFlow;

use bytes::Bytes;
use ministry_types::kv::{KvError, KvRead};
use ministry_types::limits::{LISTING_BYTES_MAX, LISTING_ENTRIES_MAX, NAME_BYTES_MAX};
use ministry_types::operations::{Answer, Entry, Query};
use ministry_types::{Caller, FileKind, FsError, InodeId, Layout, MinistryId};

use crate::Namespace;
use crate::attributes::check_has_bytes;
use crate::create::check_name;
use crate::keys;
use crate::lock_table::{Holder, Wanted};
use crate::permissions::{self, EXECUTE, READ, WRITE};
use crate::ranges::Span;
use crate::records::{
    AdoptedRecord, DentryRecord, DirectoryRecord, Fault, InodeRecord, Records, Ruled, read_number,
    read_value,
};

/// Why a question has no answer here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueryRefusal {
    /// The file system's own answer.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The inode is another ministry's.
    #[error("ministry {owner} owns the inode")]
    Elsewhere {
        /// Which.
        owner: MinistryId,
    },
}

/// What to open for.
#[derive(Clone, Copy)]
struct OpenFor {
    read: bool,
    write: bool,
    execute: bool,
}

impl Namespace {
    /// Answers a question on behalf of `caller`.
    pub fn query(
        &self,
        state: &dyn KvRead,
        caller: &Caller,
        query: &Query,
    ) -> Result<Result<Answer, QueryRefusal>, KvError> {
        let asker = Asker { records: self.records(state), caller };
        match asker.answer(query) {
            Ok(answer) => Ok(Ok(answer)),
            Err(Fault::Fs(error)) => Ok(Err(QueryRefusal::Fs(error))),
            Err(Fault::Elsewhere(owner)) => Ok(Err(QueryRefusal::Elsewhere { owner })),
            Err(Fault::Kv(error)) => Err(error),
        }
    }
}

/// One question under way.
struct Asker<'a> {
    records: Records<'a>,
    caller: &'a Caller,
}

impl Asker<'_> {
    fn answer(&self, query: &Query) -> Ruled<Answer> {
        match query {
            Query::Lookup { parent, name } => self.lookup(*parent, name),
            Query::GetAttributes { inode } => {
                Ok(Answer::Attributes(self.records.inode(*inode)?.attributes))
            }
            Query::Read { inode, .. } => self.read(*inode),
            Query::Get { parent, name } => self.get(*parent, name),
            Query::Open { inode, read, write, execute } => {
                self.open(*inode, OpenFor { read: *read, write: *write, execute: *execute })
            }
            Query::Access { inode, mask } => self.access(*inode, *mask),
            Query::ReadLink { inode } => self.read_link(*inode),
            Query::List { inode, after, entries_max, attributes } => {
                self.list(*inode, *after, *entries_max, *attributes)
            }
            Query::GetXattr { inode, name } => {
                Ok(Answer::Value(self.records.xattr(self.caller, *inode, name)?))
            }
            Query::ListXattrs { inode } => {
                Ok(Answer::Names(self.records.xattr_names(self.caller, *inode)?))
            }
            Query::Parent { inode } => self.parent(*inode),
            Query::TestLock { inode, session, owner, range, mode } => {
                let holder = Holder { session: *session, owner: *owner };
                let span = Span { range: *range, mode: *mode };
                let wanted = Wanted { holder, pid: 0, span };
                Ok(Answer::Lock(self.records.test_lock(*inode, &wanted)?))
            }
        }
    }

    fn lookup(&self, parent: InodeId, name: &[u8]) -> Ruled<Answer> {
        let (record, directory) = self.records.directory(parent)?;
        self.records.check(self.caller, &record, EXECUTE)?;
        if name == b"." {
            return self.entry(parent, FileKind::Directory);
        }
        if record.is_orphan() {
            return Err(FsError::NotFound.into());
        }
        if name == b".." {
            return self.entry(directory.parent, FileKind::Directory);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(FsError::NameTooLong.into());
        }
        check_name(name)?;
        let found = self.records.find(parent, name)?.ok_or(FsError::NotFound)?;
        self.entry(found.inode, found.kind)
    }

    fn entry(&self, inode: InodeId, kind: FileKind) -> Ruled<Answer> {
        let attributes = self.records.inode_here(inode)?.map(|record| record.attributes);
        Ok(Answer::Entry { inode, kind, attributes })
    }

    fn get(&self, parent: InodeId, name: &[u8]) -> Ruled<Answer> {
        let inode = match self.lookup(parent, name)? {
            Answer::Entry { inode, attributes: Some(_), .. } => inode,
            other => return Ok(other),
        };
        self.open(inode, OpenFor { read: true, write: false, execute: false })?;
        self.read(inode)
    }

    fn read(&self, inode: InodeId) -> Ruled<Answer> {
        let attributes = self.records.inode(inode)?.attributes;
        check_has_bytes(&attributes)?;
        let inline = match attributes.layout {
            Layout::Inline => Some(Bytes::from(self.records.content(inode)?)),
            Layout::None | Layout::Chunked { .. } => None,
        };
        Ok(Answer::Content { attributes, inline })
    }

    fn open(&self, inode: InodeId, wanted: OpenFor) -> Ruled<Answer> {
        let record = self.records.inode(inode)?;
        match record.attributes.kind {
            FileKind::Symlink => return Err(FsError::Invalid.into()),
            FileKind::Directory if wanted.write => return Err(FsError::IsDirectory.into()),
            kind if wanted.execute && kind != FileKind::Regular => {
                return Err(FsError::PermissionDenied.into());
            }
            _ => {}
        }
        let bits = [(wanted.read, READ), (wanted.write, WRITE), (wanted.execute, EXECUTE)];
        let mask = bits.into_iter().filter(|(want, _)| *want).map(|(_, bit)| bit).sum();
        self.records.check(self.caller, &record, mask)?;
        Ok(Answer::Attributes(record.attributes))
    }

    fn access(&self, inode: InodeId, mask: u32) -> Ruled<Answer> {
        let record = self.records.inode(inode)?;
        if mask > READ | WRITE | EXECUTE {
            return Err(FsError::Invalid.into());
        }
        self.records.check(self.caller, &record, mask)?;
        Ok(Answer::Done)
    }

    fn read_link(&self, inode: InodeId) -> Ruled<Answer> {
        if self.records.inode(inode)?.attributes.kind != FileKind::Symlink {
            return Err(FsError::Invalid.into());
        }
        Ok(Answer::Target(self.records.content(inode)?))
    }

    fn list(
        &self,
        inode: InodeId,
        after: u64,
        entries_max: u32,
        attributes: bool,
    ) -> Ruled<Answer> {
        let (record, directory) = self.records.directory(inode)?;
        // The owner may always: a handle stays good when the mode changes after the opening, and
        // the owner, who could change the mode back, is the one who does that.
        if !permissions::owns(self.caller, &record.attributes) {
            self.records.check(self.caller, &record, READ)?;
        }
        if record.is_orphan() {
            return Err(FsError::NotFound.into());
        }
        let most = LISTING_ENTRIES_MAX.min(usize::try_from(entries_max).unwrap_or(usize::MAX));
        let (mut entries, end) = self.entries(inode, after, most.max(1))?;
        if attributes {
            for entry in &mut entries {
                let record = self.records.inode_here(entry.inode)?;
                entry.attributes = record.map(|record| record.attributes);
            }
        }
        Ok(Answer::Listing { entries, end, parent: directory.parent })
    }

    /// The entries behind a cookie, and whether nothing follows them.
    fn entries(&self, inode: InodeId, after: u64, most: usize) -> Ruled<(Vec<Entry>, bool)> {
        let keys = self.records.keys;
        let range = (keys.dentry(inode, after.saturating_add(1)), keys.dentry(inode, u64::MAX));
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let mut end = true;
        self.records.each(&range, |key, value| {
            let dentry: DentryRecord = read_value(key, value)?;
            bytes += dentry.name.len();
            let full = entries.len() >= most || (bytes > LISTING_BYTES_MAX && !entries.is_empty());
            if full {
                end = false;
                return Ok(ControlFlow::Break(()));
            }
            let DentryRecord { name, inode, kind } = dentry;
            let cookie = read_number(key)?;
            entries.push(Entry { cookie, name, inode, kind, attributes: None });
            Ok(ControlFlow::Continue(()))
        })?;
        Ok((entries, end))
    }

    fn parent(&self, inode: InodeId) -> Ruled<Answer> {
        let record = self.records.inode(inode)?;
        if record.is_orphan() {
            return Err(FsError::NotFound.into());
        }
        let (parent, cookie) = match &record.directory {
            Some(directory) if directory.ministry_root || directory.parent == inode => {
                return self.parent_of_root(inode, directory);
            }
            Some(directory) => (directory.parent, directory.cookie),
            None => self.first_backlink(&record)?,
        };
        // A path is told to those who could find it.
        let (holder, _) = self.records.directory(parent)?;
        self.records.check(self.caller, &holder, EXECUTE)?;
        let dentry = self.records.dentry(parent, cookie)?.ok_or_else(|| lost(inode))?;
        Ok(Answer::Parent { parent, name: dentry.name })
    }

    fn parent_of_root(&self, inode: InodeId, directory: &DirectoryRecord) -> Ruled<Answer> {
        let adopted: Option<AdoptedRecord> =
            self.records.read(&self.records.keys.adopted(inode))?;
        let name = adopted.map(|adopted| adopted.name).unwrap_or_default();
        Ok(Answer::Parent { parent: directory.parent, name })
    }

    /// Where one name of an object is.
    fn first_backlink(&self, record: &InodeRecord) -> Ruled<(InodeId, u64)> {
        let inode = record.attributes.inode;
        let mut first = None;
        self.records.each(&self.records.keys.backlinks(inode), |key, _| {
            first = keys::number_before_last(key).zip(keys::last_number(key));
            Ok(ControlFlow::Break(()))
        })?;
        let (parent, cookie) = first.ok_or_else(|| lost(inode))?;
        Ok((InodeId(parent), cookie))
    }
}

fn lost(inode: InodeId) -> Fault {
    Fault::Kv(KvError(format!("inode {inode} has lost the way to its name")))
}
