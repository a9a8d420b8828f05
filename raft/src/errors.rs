//! What can go wrong, as data for whoever must act on it.

use std::io;

use ministry_types::NodeId;

/// The state could not be read or written, or an entry of the log is not one of this state
/// machine. The node steps aside: the process ends.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the state machine failed: {0}")]
pub struct StateError(pub String);

/// The log on disk could not be opened. Nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// It ends before what this node has acknowledged: a disk lost what it had confirmed, or
    /// files were changed.
    #[error(
        "the log ends before what was acknowledged (found {found}, acknowledged {acknowledged}); \
         the node must be removed and joined anew under a new id; nothing was changed"
    )]
    Shorter {
        /// Number of the last write found.
        found: u64,
        /// Number of the last write that was acknowledged.
        acknowledged: u64,
    },
    /// A file or record is damaged, or of a format that this program does not know.
    #[error(
        "the log is damaged ({0}); the node must be removed and joined anew under a new id; \
         nothing was changed"
    )]
    Damaged(String),
    /// The disk or the file system refused.
    #[error("the log at {path} could not be opened: {reason}")]
    Disk {
        /// Where the log is.
        path: String,
        /// What the system said.
        reason: String,
    },
}

impl From<LogError> for io::Error {
    fn from(error: LogError) -> io::Error {
        io::Error::other(error.to_string())
    }
}

/// A request did not reach its node, or no answer came. It may have been carried out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NetworkError {
    /// Nobody answers there: try again after a pause.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
}

/// A command was not carried out, or nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead, or does not yet, or hands over. The command was certainly not
    /// carried out. The hint may be this node itself: a leader whose lease has run out, ask again.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who leads, as far as is known here.
        leader: Option<NodeId>,
    },
    /// Too many commands wait already. The command was certainly not carried out.
    #[error("too many commands wait")]
    Busy,
    /// The command is larger than [`ministry_types::limits::COMMAND_BYTES_MAX`]. The command was
    /// certainly not carried out.
    #[error("the command of {0} bytes is too large")]
    TooLarge(usize),
    /// The lead was lost on the way: the command may have been carried out or may still be. Try
    /// again only under the same identity.
    #[error("the lead was lost: whether the command was carried out is not known")]
    Unknown,
    /// The group has stopped here. The command may have been carried out.
    #[error("the group has stopped: {0}")]
    Fatal(String),
}

/// A read cannot be answered here now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// This node does not lead the group.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who leads, as far as is known here.
        leader: Option<NodeId>,
    },
    /// It could not be made sure in time that this node still leads.
    #[error("no majority confirmed the lead in time")]
    TimedOut,
    /// The group has stopped here.
    #[error("the group has stopped: {0}")]
    Fatal(String),
}

/// A group could not be started or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RaftError {
    /// This node does not lead the group.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who leads, as far as is known here.
        leader: Option<NodeId>,
    },
    /// The lead was lost on the way: whether the change was made is not known.
    #[error("the lead was lost: whether the change was made is not known")]
    Unknown,
    /// The group does not allow it now, for the reason given. Nothing was done.
    #[error("not allowed: {0}")]
    NotAllowed(String),
    /// It took too long; it may still happen.
    #[error("not done in time")]
    TimedOut,
    /// The group has stopped here, or its storage failed.
    #[error("the group has stopped: {0}")]
    Fatal(String),
}
