//! The requests that change and read a name space, and their answers.
//!
//! They are shared by `wire`, which carries them, and `namespace`, which carries them out, so that
//! nothing is translated in between. An [`Operation`] becomes part of a command in a ministry's
//! log; a [`Query`] reads. Both name objects by inode: paths exist only at the client's edge.
//!
//! What must always hold: these enums are on disk and on the wire; they are only ever appended to,
//! under a new feature level.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::errors::FsError;
use crate::ids::{InodeId, SessionId};
use crate::inode::{Attributes, FileKind, Timestamp};
use crate::layout::{ChunkNumber, SpaceChange, TruncateMark};
use crate::locks::{HeldLock, LockMode, LockOwner, LockRange};

/// One name in a directory: bytes without `/` and zero, not `.` nor `..`.
pub type Name = Vec<u8>;

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetTime {
    /// The time of the command (`UTIME_NOW`).
    Now,
    /// This time.
    At(Timestamp),
}

/// What to set of an inode's attributes; absent fields stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct SetAttributes {
    /// Permission bits with setuid, setgid and sticky.
    pub permissions: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size: cuts or extends.
    pub size: Option<u64>,
    /// The caller has the file open for writing: `ftruncate` asks the handle, not the mode bits.
    pub size_by_handle: bool,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of the content.
    pub mtime: Option<SetTime>,
}

/// When an extended attribute may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum XattrMode {
    /// Whether it exists or not.
    Either,
    /// Only if it does not exist (`XATTR_CREATE`).
    Create,
    /// Only if it exists (`XATTR_REPLACE`).
    Replace,
}

/// How a rename treats an existing target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenameMode {
    /// Replaces it.
    Replace,
    /// Fails (`RENAME_NOREPLACE`).
    NoReplace,
    /// Both names change places (`RENAME_EXCHANGE`).
    Exchange,
}

/// Where an inline write goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteAt {
    /// From this offset.
    Offset(u64),
    /// At the end, wherever that is when the command is applied (`O_APPEND`).
    End,
    /// From this offset, but not behind the end as it is then: pages of a mapping, which never make
    /// a file longer.
    Within(u64),
}

/// What a request for a lock does while another one is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockWait {
    /// It fails.
    No,
    /// It waits in the order of arrival.
    Yes {
        /// Drawn by the client, once for each request of its session that waits.
        request: u64,
        /// Fails when the wait would close a circle (`fcntl` locks of processes alone).
        find_deadlock: bool,
    },
}

/// A change of the name space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Makes a new object with one name. Answers [`Outcome::Attributes`].
    Create {
        /// The directory.
        parent: InodeId,
        /// The new name.
        name: Name,
        /// What to make.
        kind: FileKind,
        /// Permission bits as the program asked for them.
        permissions: u32,
        /// Bits to take off, unless the directory has a default access control list.
        umask: u32,
        /// Device number of a device node, else 0.
        device: u64,
        /// Target of a symbolic link, else empty.
        target: Vec<u8>,
    },
    /// Makes an ordinary file that holds `data` from the beginning: whoever sees its name sees all of
    /// it. Answers [`Outcome::Attributes`], or [`FsError::Invalid`] for more bytes than an inode
    /// holds.
    Put {
        /// The directory.
        parent: InodeId,
        /// The new name.
        name: Name,
        /// Permission bits as the program asked for them.
        permissions: u32,
        /// Bits to take off, unless the directory has a default access control list.
        umask: u32,
        /// The content.
        data: Bytes,
    },
    /// Gives an object that is not a directory another name. Answers [`Outcome::Attributes`].
    Link {
        /// The object.
        inode: InodeId,
        /// The directory of the new name.
        parent: InodeId,
        /// The new name.
        name: Name,
    },
    /// Removes a name of an object that is not a directory. Answers [`Outcome::Unlinked`].
    Unlink {
        /// The directory.
        parent: InodeId,
        /// The name.
        name: Name,
    },
    /// Removes an empty directory. Answers [`Outcome::Done`].
    RemoveDirectory {
        /// The directory that holds it.
        parent: InodeId,
        /// Its name.
        name: Name,
    },
    /// Moves a name. Answers [`Outcome::Renamed`].
    Rename {
        /// Directory of the old name.
        parent: InodeId,
        /// The old name.
        name: Name,
        /// Directory of the new name.
        new_parent: InodeId,
        /// The new name.
        new_name: Name,
        /// What to do with an existing target.
        mode: RenameMode,
    },
    /// Sets attributes. Answers [`Outcome::Attributes`].
    SetAttributes {
        /// The object.
        inode: InodeId,
        /// What to set.
        set: SetAttributes,
    },
    /// Sets an extended attribute. Answers [`Outcome::Done`].
    SetXattr {
        /// The object.
        inode: InodeId,
        /// Full name, with its name space.
        name: Vec<u8>,
        /// The value.
        value: Bytes,
        /// When it may be set.
        mode: XattrMode,
    },
    /// Removes an extended attribute. Answers [`Outcome::Done`].
    RemoveXattr {
        /// The object.
        inode: InodeId,
        /// Full name.
        name: Vec<u8>,
    },
    /// Takes a lock, or changes the mode of one. Answers [`Outcome::Done`],
    /// [`Outcome::LockDenied`], or [`Outcome::LockWaiting`]. Asks no permission: that was done at
    /// open.
    Lock {
        /// The file.
        inode: InodeId,
        /// For whom.
        owner: LockOwner,
        /// Process, for others that ask who holds the lock.
        pid: u32,
        /// Which bytes; all for `flock`.
        range: LockRange,
        /// Shared or exclusive.
        mode: LockMode,
        /// What to do while another one is in the way.
        wait: LockWait,
    },
    /// Gives locks back. Answers [`Outcome::Unlocked`], also where there was none.
    Unlock {
        /// The file.
        inode: InodeId,
        /// Whose.
        owner: LockOwner,
        /// Which bytes.
        range: LockRange,
        /// Requests of the owner that wait end too: nobody waits for their answer any more.
        waiting_too: bool,
    },
    /// Ends the wait of a request. Answers [`Outcome::LockCancelled`], or [`Outcome::Done`] where it
    /// does not wait: it was granted before, if it ever arrived.
    CancelLock {
        /// The file.
        inode: InodeId,
        /// The number that the request has in the session.
        request: u64,
    },
    /// A request has let others pass for long enough: it is granted if no holder is in its way.
    /// Answers [`Outcome::Done`] when it does not wait any more, or [`Outcome::LockWaiting`].
    InsistLock {
        /// The file.
        inode: InodeId,
        /// The number that the request has in the session.
        request: u64,
    },
    /// Writes into an inline file that stays inline. Answers [`Outcome::Written`], or
    /// [`Outcome::NotInline`] when the file is not inline or would grow past the limit.
    WriteInline {
        /// The file.
        inode: InodeId,
        /// Where.
        at: WriteAt,
        /// The bytes.
        data: Bytes,
    },
    /// Turns an inline file into a chunked one, after its content was written to its chunks and
    /// synced there. Answers [`Outcome::Attributes`]. `mtime` and `ctime` must be what the content
    /// was read at: else the content has changed, and [`Outcome::Conflict`] asks to begin anew.
    ///
    /// The content was written under the mark [`move_out_mark`]`(ctime)`; the new layout begins
    /// with the mark of the next sequence at the file's size. So what a slower client still sends
    /// of its own move is refused by storage as soon as anybody uses the new layout, and an older
    /// content never lies over a newer one.
    MoveOut {
        /// The file.
        inode: InodeId,
        /// Its time of last change when the content was read.
        mtime: Timestamp,
        /// Its time of last change of anything then: unlike `mtime` nobody can set it back.
        ctime: Timestamp,
        /// Bytes of a chunk from now on.
        chunk_bytes: u64,
        /// Bytes allocated in chunk 0.
        allocated_bytes: u64,
    },
    /// Tells of a write to chunks that every in-sync replica has: size, times and allocation
    /// follow. Answers [`Outcome::Written`], or [`Outcome::Conflict`] when the file was cut since,
    /// or the write would leave a gap behind the end: both are cured by taking the attributes
    /// anew, extending first where there is a gap, and writing again.
    ReportWrite {
        /// The file.
        inode: InodeId,
        /// Newest cut that the write carried.
        truncate_sequence: u64,
        /// First byte written.
        offset: u64,
        /// Byte after the last one written.
        end: u64,
        /// Bytes now allocated in each chunk that was written to.
        allocated: Vec<(ChunkNumber, u64)>,
        /// The turn to append that this write used and gives back; 0: none.
        turn: u64,
    },
    /// Raises the size of an ordinary file to `size`, as [`Operation::SetAttributes`] does for a
    /// larger size (with a new mark at the old size); a file that is at least that long stays
    /// exactly as it is. Before a write behind the end: setting the size would cut off what
    /// another client wrote there in the meantime. Asks no permission: that was done at open.
    /// Answers [`Outcome::Attributes`], or [`Outcome::NotInline`] when an inline file would grow
    /// past the limit.
    Extend {
        /// The file.
        inode: InodeId,
        /// The size to reach.
        size: u64,
    },
    /// Changes nothing; when it is answered, everything that was written to the file before is in
    /// the log. What `fsync` asks of the minister. Answers [`Outcome::Attributes`].
    Settle {
        /// The file.
        inode: InodeId,
    },
    /// Changes the space of an inline file, as `fallocate` does: zeros where they are wanted, a
    /// larger size unless it is kept, and the times of a write. Asks no permission: that was done
    /// at open. Answers [`Outcome::Written`], or [`Outcome::NotInline`] when the file is not inline
    /// or would grow past the limit. Of a file in chunks it moves the times, where the whole range
    /// lies behind an end that is kept.
    SpaceInline {
        /// The file.
        inode: InodeId,
        /// First byte of the range.
        offset: u64,
        /// Bytes of the range; at least one.
        length: u64,
        /// What to do.
        change: SpaceChange,
        /// The size stays, also where the range reaches behind it.
        keep_size: bool,
    },
}

/// The mark under which the content of an inline file is written to its chunks when it moves out:
/// storage cuts what an earlier move left there, and refuses what comes late from one.
pub fn move_out_mark(ctime: Timestamp) -> TruncateMark {
    TruncateMark { sequence: u64::try_from(ctime.0).unwrap_or(0), size: 0 }
}

/// The answer to an [`Operation`]: kept in replicated state for retries, so small.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done; nothing to tell.
    Done,
    /// Done; the object now.
    Attributes(Attributes),
    /// The name is gone.
    Unlinked {
        /// The object it named.
        inode: InodeId,
        /// That was its last name: it stays until each session has said that it is closed there.
        orphan: bool,
    },
    /// The name moved.
    Renamed {
        /// The object that was displaced, if there was one.
        displaced: Option<InodeId>,
        /// The displaced object lost its last name: as [`Outcome::Unlinked`].
        orphan: bool,
    },
    /// The bytes are part of the file.
    Written {
        /// Where they went: what was asked, or the place found for [`WriteAt::End`].
        offset: u64,
        /// The file now.
        attributes: Attributes,
    },
    /// The file is not, or would no longer be, inline: write to its chunks.
    NotInline {
        /// The file now.
        attributes: Attributes,
    },
    /// Something else came first: begin anew with these attributes.
    Conflict {
        /// The file now.
        attributes: Attributes,
    },
    /// Another one is in the way of the lock. A `flock` lock whose mode was to be changed is gone,
    /// as on Linux.
    LockDenied,
    /// The request waits; `await_lock` tells when it does so no more.
    LockWaiting,
    /// The request waited, and does so no more.
    LockCancelled,
    /// The locks are given back.
    Unlocked {
        /// The owner holds others on the file, or waits for some.
        left: bool,
    },
}

/// The replicated result of one change.
pub type ChangeResult = Result<Outcome, FsError>;

/// A question to the name space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// What a name stands for. Answers [`Answer::Entry`].
    Lookup {
        /// The directory.
        parent: InodeId,
        /// The name; `.` and `..` are allowed here.
        name: Name,
    },
    /// Answers [`Answer::Attributes`].
    GetAttributes {
        /// The object.
        inode: InodeId,
    },
    /// Attributes and, while the file is inline, its content. Asks no permission: that was done at
    /// open. Answers [`Answer::Content`].
    Read {
        /// The file.
        inode: InodeId,
        /// A program reads it: the time of access may move on.
        access: bool,
    },
    /// An ordinary file by its name, as an open and a [`Query::Read`] would find it: asks for the right
    /// to read. Answers [`Answer::Content`], or [`Answer::Entry`] when another ministry owns it.
    Get {
        /// The directory.
        parent: InodeId,
        /// The name.
        name: Name,
    },
    /// Checks the mode bits for an open. Answers [`Answer::Attributes`].
    Open {
        /// The object.
        inode: InodeId,
        /// To read.
        read: bool,
        /// To write.
        write: bool,
        /// To execute.
        execute: bool,
    },
    /// Checks permissions as `access` does. Answers [`Answer::Done`].
    Access {
        /// The object.
        inode: InodeId,
        /// `R_OK | W_OK | X_OK`.
        mask: u32,
    },
    /// Target of a symbolic link. Answers [`Answer::Target`].
    ReadLink {
        /// The link.
        inode: InodeId,
    },
    /// Entries of a directory. Answers [`Answer::Listing`].
    List {
        /// The directory.
        inode: InodeId,
        /// Cookie of the last entry already seen, 0 at the beginning.
        after: u64,
        /// Most entries wanted.
        entries_max: u32,
        /// With their attributes.
        attributes: bool,
    },
    /// Value of an extended attribute. Answers [`Answer::Value`].
    GetXattr {
        /// The object.
        inode: InodeId,
        /// Full name.
        name: Vec<u8>,
    },
    /// Names of the extended attributes. Answers [`Answer::Names`].
    ListXattrs {
        /// The object.
        inode: InodeId,
    },
    /// Directory that holds the object, and its name there: one step towards a path. Answers
    /// [`Answer::Parent`].
    Parent {
        /// The object; of several names, one.
        inode: InodeId,
    },
    /// Who would be in the way of a lock (`F_GETLK`). Answers [`Answer::Lock`].
    TestLock {
        /// The file.
        inode: InodeId,
        /// The session of the one who asks.
        session: SessionId,
        /// Who asks: its own locks are not in its way.
        owner: LockOwner,
        /// Which bytes.
        range: LockRange,
        /// Shared or exclusive.
        mode: LockMode,
    },
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where to go on after this entry; stays the same while others come and go; never 0.
    pub cookie: u64,
    /// The name.
    pub name: Name,
    /// The object.
    pub inode: InodeId,
    /// Its kind.
    pub kind: FileKind,
    /// Its attributes, where they were asked for and lie in the ministry that answers.
    pub attributes: Option<Attributes>,
}

/// The answer to a [`Query`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Yes.
    Done,
    /// The object.
    Attributes(Attributes),
    /// What the name stands for.
    Entry {
        /// The object.
        inode: InodeId,
        /// Its kind.
        kind: FileKind,
        /// Its attributes; absent when another ministry owns it: ask there.
        attributes: Option<Attributes>,
    },
    /// A file.
    Content {
        /// Its attributes.
        attributes: Attributes,
        /// Its bytes, while it is inline.
        inline: Option<Bytes>,
    },
    /// Target of a symbolic link.
    Target(Vec<u8>),
    /// Entries, in order of their cookies.
    Listing {
        /// The entries.
        entries: Vec<Entry>,
        /// Nothing follows.
        end: bool,
        /// The directory that holds this one (its own for the root).
        parent: InodeId,
    },
    /// Value of an extended attribute.
    Value(Bytes),
    /// Names of the extended attributes.
    Names(Vec<Vec<u8>>),
    /// One step up.
    Parent {
        /// The directory; the object itself for the root.
        parent: InodeId,
        /// The name there; empty for the root.
        name: Name,
    },
    /// A lock that is in the way, the one with the lowest offset.
    Lock(Option<HeldLock>),
}

/// The result of one question.
pub type QueryResult = Result<Answer, FsError>;

impl Operation {
    /// The inode whose owner carries the operation out.
    pub fn routing_inode(&self) -> InodeId {
        match self {
            Operation::Create { parent, .. }
            | Operation::Put { parent, .. }
            | Operation::Link { parent, .. }
            | Operation::Unlink { parent, .. }
            | Operation::RemoveDirectory { parent, .. }
            | Operation::Rename { parent, .. } => *parent,
            Operation::SetAttributes { inode, .. }
            | Operation::SetXattr { inode, .. }
            | Operation::RemoveXattr { inode, .. }
            | Operation::Lock { inode, .. }
            | Operation::Unlock { inode, .. }
            | Operation::CancelLock { inode, .. }
            | Operation::InsistLock { inode, .. }
            | Operation::WriteInline { inode, .. }
            | Operation::MoveOut { inode, .. }
            | Operation::ReportWrite { inode, .. }
            | Operation::Extend { inode, .. }
            | Operation::Settle { inode }
            | Operation::SpaceInline { inode, .. } => *inode,
        }
    }

    /// Whether it may stay out of the log for a moment: it writes into a file, or sets attributes
    /// other than the size. What the rules say of the state decides: see `ministry_namespace::soft`.
    pub fn may_stay_unlogged(&self) -> bool {
        match self {
            Operation::WriteInline { .. } | Operation::ReportWrite { .. } => true,
            Operation::SetAttributes { set, .. } => set.size.is_none(),
            _ => false,
        }
    }

    /// Whether it may add names, content or attributes to the state of a ministry. What moves or
    /// removes them does not, nor what belongs to a file in chunks.
    pub fn may_add(&self) -> bool {
        match self {
            Operation::Create { .. }
            | Operation::Put { .. }
            | Operation::Link { .. }
            | Operation::SetXattr { .. }
            | Operation::WriteInline { .. }
            | Operation::Extend { .. } => true,
            Operation::SpaceInline { change, .. } => *change != SpaceChange::Punch,
            Operation::SetAttributes { set, .. } => set.size.is_some(),
            _ => false,
        }
    }

    /// The object whose own record it changes or tells beyond its names: whatever is unlogged of
    /// it has to be in the log first.
    pub fn settles(&self) -> Option<InodeId> {
        match self {
            Operation::Create { .. }
            | Operation::Put { .. }
            | Operation::Unlink { .. }
            | Operation::RemoveDirectory { .. }
            | Operation::Rename { .. }
            | Operation::Lock { .. }
            | Operation::Unlock { .. }
            | Operation::CancelLock { .. }
            | Operation::InsistLock { .. } => None,
            Operation::Link { inode, .. } => Some(*inode),
            _ => Some(self.routing_inode()),
        }
    }

    /// The word that metrics and traces use.
    pub fn word(&self) -> &'static str {
        match self {
            Operation::Create { .. } => "create",
            Operation::Put { .. } => "put",
            Operation::Link { .. } => "link",
            Operation::Unlink { .. } => "unlink",
            Operation::RemoveDirectory { .. } => "rmdir",
            Operation::Rename { .. } => "rename",
            Operation::SetAttributes { .. } => "setattr",
            Operation::SetXattr { .. } => "setxattr",
            Operation::RemoveXattr { .. } => "removexattr",
            Operation::Lock { .. } => "lock",
            Operation::Unlock { .. } => "unlock",
            Operation::CancelLock { .. } => "cancel_lock",
            Operation::InsistLock { .. } => "insist_lock",
            Operation::WriteInline { .. } => "write_inline",
            Operation::MoveOut { .. } => "move_out",
            Operation::ReportWrite { .. } => "report_write",
            Operation::Extend { .. } => "extend",
            Operation::Settle { .. } => "settle",
            Operation::SpaceInline { .. } => "space_inline",
        }
    }
}

impl Query {
    /// The inode whose owner answers.
    pub fn routing_inode(&self) -> InodeId {
        match self {
            Query::Lookup { parent, .. } | Query::Get { parent, .. } => *parent,
            Query::GetAttributes { inode }
            | Query::Read { inode, .. }
            | Query::Open { inode, .. }
            | Query::Access { inode, .. }
            | Query::ReadLink { inode }
            | Query::List { inode, .. }
            | Query::GetXattr { inode, .. }
            | Query::ListXattrs { inode }
            | Query::Parent { inode }
            | Query::TestLock { inode, .. } => *inode,
        }
    }

    /// The word that metrics and traces use.
    pub fn word(&self) -> &'static str {
        match self {
            Query::Lookup { .. } => "lookup",
            Query::GetAttributes { .. } => "getattr",
            Query::Read { .. } => "read",
            Query::Get { .. } => "get",
            Query::Open { .. } => "open",
            Query::Access { .. } => "access",
            Query::ReadLink { .. } => "readlink",
            Query::List { .. } => "list",
            Query::GetXattr { .. } => "getxattr",
            Query::ListXattrs { .. } => "listxattr",
            Query::Parent { .. } => "parent",
            Query::TestLock { .. } => "test_lock",
        }
    }
}
