//! What a ministry's log carries, and what applying it answers.
//!
//! A minister encodes a [`Command`], its group replicates the bytes, every member applies them with
//! [`crate::Namespace::apply`]; the minister hands the [`CommandReply`] to whoever asked.
//!
//! What must always hold: both are on disk and on the wire between versions: variants and fields
//! are only appended, under a new feature level. Bytes that do not decode are refused, never
//! guessed at.

use ministry_types::format::NAMESPACE_FORMAT;
use ministry_types::operations::{ChangeResult, Operation};
use ministry_types::{
    Caller, ClientId, Epoch, FsError, InodeId, MinistryId, NodeId, SessionId, Timestamp,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::soft::Unlogged;

/// One entry of a ministry's log. Each but the first kind carries the epoch of the reign under
/// which it was proposed, and does nothing under another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A minister begins to reign. Refused unless the epoch is larger than every one before.
    Reign {
        /// The appointment.
        epoch: Epoch,
        /// The appointed node.
        node: NodeId,
        /// When, by its clock.
        time: Timestamp,
    },
    /// Makes the root directory, in the root ministry alone. Done already: nothing.
    Found {
        /// The reign.
        epoch: Epoch,
        /// Birth of the root directory.
        time: Timestamp,
    },
    /// Inode numbers that the president gave. What is known already is passed over.
    AddRanges {
        /// The reign.
        epoch: Epoch,
        /// First number, and the one after the last.
        ranges: Vec<(InodeId, InodeId)>,
    },
    /// A client opens its standing with the ministry. Open already: nothing. A number that is
    /// another client's answers [`CommandReply::UnknownSession`].
    OpenSession {
        /// The reign.
        epoch: Epoch,
        /// The session.
        session: SessionId,
        /// Whose.
        client: ClientId,
    },
    /// A session ends: its replay slots go, and orphans wait for it no longer.
    EndSession {
        /// The reign.
        epoch: Epoch,
        /// The session.
        session: SessionId,
    },
    /// A change of the name space; done once, however often it comes.
    Change {
        /// The reign.
        epoch: Epoch,
        /// Who asks.
        session: SessionId,
        /// Replay slot, below [`ministry_types::limits::SLOTS_PER_SESSION`].
        slot: u32,
        /// Number within the slot, from 1.
        sequence: u64,
        /// On whose behalf.
        caller: Caller,
        /// When, by the minister's clock.
        time: Timestamp,
        /// What.
        operation: Operation,
    },
    /// Orphans that are not open at that session.
    ConfirmClosed {
        /// The reign.
        epoch: Epoch,
        /// Who says so.
        session: SessionId,
        /// The orphans.
        inodes: Vec<InodeId>,
    },
    /// Storage has made the cuts of these files up to these numbers.
    TruncatesDone {
        /// The reign.
        epoch: Epoch,
        /// The file, and the newest cut that every replica has made.
        done: Vec<(InodeId, u64)>,
    },
    /// Storage has removed the data of these files.
    PurgesDone {
        /// The reign.
        epoch: Epoch,
        /// The files.
        inodes: Vec<InodeId>,
    },
    /// An empty directory becomes another ministry's. Asked again with the same receiver it
    /// answers the same.
    GiveAway {
        /// The reign.
        epoch: Epoch,
        /// The directory.
        inode: InodeId,
        /// The ministry that owns it from now on.
        to: MinistryId,
        /// Generation of the ownership that this is part of; grows with each hand-over of it.
        generation: u64,
    },
    /// A directory comes from another ministry. Taken over already: nothing.
    Adopt {
        /// The reign.
        epoch: Epoch,
        /// What [`CommandReply::GivenAway`] answered there.
        record: Vec<u8>,
        /// Generation of the ownership that this is part of.
        generation: u64,
    },
    /// What writes have made of files without the log; then, within the same entry, the command
    /// that had to wait for it. Answers what that answers.
    Settle {
        /// The reign.
        epoch: Epoch,
        /// Each file once.
        unlogged: Vec<Unlogged>,
        /// Neither a reign nor a further one of these.
        then: Option<Box<Command>>,
    },
    /// A write that an earlier minister acknowledged in memory, and that the present one cannot
    /// keep there. Done only if nothing as new is in the log.
    WriteAgain {
        /// The reign.
        epoch: Epoch,
        /// On whose behalf.
        caller: Caller,
        /// The time that it got.
        time: Timestamp,
        /// The write, its place settled.
        operation: Operation,
    },
    /// From now on storage refuses what was sent to a chunked file before: whoever had the turn to
    /// append has not given it back. One that is not chunked stays as it is.
    Fence {
        /// The reign.
        epoch: Epoch,
        /// The file.
        inode: InodeId,
    },
    /// A [`Command::Change`] that is to add nothing to the state, since the disk of the minister is
    /// short of room: one that would is answered [`FsError::NoSpace`], in its slot.
    WithoutRoom {
        /// The reign.
        epoch: Epoch,
        /// The change.
        change: Box<Command>,
    },
}

impl Command {
    /// The bytes for the log.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads what [`Command::encode`] made.
    pub fn decode(bytes: &[u8]) -> Result<Command, DecodeError> {
        decode(bytes)
    }

    /// The reign under which it was proposed; for [`Command::Reign`] the one it begins.
    pub fn epoch(&self) -> Epoch {
        match self {
            Command::Reign { epoch, .. }
            | Command::Found { epoch, .. }
            | Command::AddRanges { epoch, .. }
            | Command::OpenSession { epoch, .. }
            | Command::EndSession { epoch, .. }
            | Command::Change { epoch, .. }
            | Command::ConfirmClosed { epoch, .. }
            | Command::TruncatesDone { epoch, .. }
            | Command::PurgesDone { epoch, .. }
            | Command::GiveAway { epoch, .. }
            | Command::Adopt { epoch, .. }
            | Command::Settle { epoch, .. }
            | Command::WriteAgain { epoch, .. }
            | Command::Fence { epoch, .. }
            | Command::WithoutRoom { epoch, .. } => *epoch,
        }
    }
}

/// What applying a command answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandReply {
    /// Done, now or before.
    Done,
    /// Result of a [`Command::Change`]. A full table of sessions answers [`Command::OpenSession`]
    /// with [`FsError::Overloaded`] here.
    Change(ChangeResult),
    /// The inode is another ministry's. Nothing was done, and the slot is as it was.
    Elsewhere {
        /// Which.
        owner: MinistryId,
    },
    /// The directory's record, for [`Command::Adopt`]. A record that cannot be read answers
    /// [`Command::Adopt`] with [`FsError::Damaged`] here.
    GivenAway(Result<Vec<u8>, FsError>),
    /// Proposed under another reign; nothing was done.
    StaleReign {
        /// The reign of now, 0 before the first.
        current: Epoch,
    },
    /// The session was never opened or has ended; nothing was done.
    UnknownSession,
    /// A later change of the slot was done before, or there is no such slot; nothing was done.
    StaleSequence,
}

impl CommandReply {
    /// The bytes for the way back.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads what [`CommandReply::encode`] made.
    pub fn decode(bytes: &[u8]) -> Result<CommandReply, DecodeError> {
        decode(bytes)
    }
}

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by a version that this one does not know.
    #[error("format {found} is not known: this version reads {NAMESPACE_FORMAT}")]
    Format {
        /// The number at the beginning.
        found: u8,
    },
    /// Nothing at all.
    #[error("empty")]
    Empty,
    /// Cut off, damaged, or of another kind.
    #[error("malformed: {0}")]
    Malformed(String),
}

/// The format's number and the value after it.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![NAMESPACE_FORMAT])
        .expect("writing to memory fails for no type of this crate")
}

/// Reads what [`encode`] made, and nothing after it.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (format, body) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if *format != NAMESPACE_FORMAT {
        return Err(DecodeError::Format { found: *format });
    }
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(DecodeError::Malformed(format!("{} bytes too many", rest.len()))),
        Err(error) => Err(DecodeError::Malformed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn change() -> Command {
        Command::Change {
            epoch: Epoch(3),
            session: SessionId([7; 16]),
            slot: 2,
            sequence: 9,
            caller: Caller { uid: 1, gid: 2, groups: vec![3] },
            time: Timestamp(11),
            operation: Operation::Unlink { parent: InodeId(1), name: b"x".to_vec() },
        }
    }

    #[test]
    fn a_command_reads_back_as_it_was_written() {
        assert_eq!(Command::decode(&change().encode()), Ok(change()));
        let reply = CommandReply::Change(Err(FsError::NotFound));
        assert_eq!(CommandReply::decode(&reply.encode()), Ok(reply));
    }

    #[test]
    fn another_format_and_trailing_bytes_are_refused() {
        let mut bytes = change().encode();
        bytes.push(0);
        assert!(matches!(Command::decode(&bytes), Err(DecodeError::Malformed(_))));
        bytes[0] = 99;
        assert_eq!(Command::decode(&bytes), Err(DecodeError::Format { found: 99 }));
        assert_eq!(Command::decode(&[]), Err(DecodeError::Empty));
    }

    proptest! {
        #[test]
        fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Command::decode(&bytes);
            let mut formatted = vec![NAMESPACE_FORMAT];
            formatted.extend(bytes);
            let _ = Command::decode(&formatted);
            let _ = CommandReply::decode(&formatted);
        }
    }

    /// The number of a kind, as it stands in logs.
    fn number(command: &Command) -> u8 {
        command.encode()[1]
    }

    #[test]
    fn kinds_keep_their_numbers() {
        let (epoch, inode) = (Epoch(0), InodeId(1));
        assert_eq!(number(&Command::Found { epoch, time: Timestamp(0) }), 1);
        assert_eq!(number(&Command::Settle { epoch, unlogged: Vec::new(), then: None }), 11);
        assert_eq!(number(&Command::Fence { epoch, inode }), 13);
        let change = Box::new(Command::Fence { epoch, inode });
        assert_eq!(number(&Command::WithoutRoom { epoch, change }), 14);
    }
}
