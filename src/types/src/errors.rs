//! What can go wrong in the file system, and the errno each becomes.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $errno:ident, $text:literal;)*) => {
        /// The answer of a file-system rule to a request that cannot be done. It is part of
        /// replicated state (replies are kept for retries): append only.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
        pub enum FsError {
            $($(#[$doc])* #[error($text)] $name,)*
        }

        impl FsError {
            /// The number that a program sees.
            pub fn errno(self) -> Errno {
                Errno(match self { $(FsError::$name => libc::$errno,)* })
            }

            /// Every error with its symbolic errno, for the documentation and its test.
            pub const ALL: &'static [(FsError, &'static str)] =
                &[$((FsError::$name, stringify!($errno)),)*];
        }
    };
}

errors! {
    /// No such name, or the inode is gone.
    NotFound = ENOENT, "no such file or directory";
    /// The name is taken.
    Exists = EEXIST, "file exists";
    /// A directory was needed.
    NotDirectory = ENOTDIR, "not a directory";
    /// A directory cannot be used so.
    IsDirectory = EISDIR, "is a directory";
    /// The directory still has entries.
    NotEmpty = ENOTEMPTY, "directory not empty";
    /// The mode bits forbid it.
    PermissionDenied = EACCES, "permission denied";
    /// Only the owner or the super-user may.
    NotPermitted = EPERM, "operation not permitted";
    /// An argument makes no sense.
    Invalid = EINVAL, "invalid argument";
    /// A name is too long.
    NameTooLong = ENAMETOOLONG, "file name too long";
    /// The object cannot have more names.
    TooManyLinks = EMLINK, "too many links";
    /// The file would be too large.
    FileTooLarge = EFBIG, "file too large";
    /// No room.
    NoSpace = ENOSPC, "no space left";
    /// The two names lie in different ministries.
    CrossMinistry = EXDEV, "the two names lie in different ministries";
    /// The directory is the root of a ministry, or is otherwise in use.
    Busy = EBUSY, "the directory is the root of a ministry";
    /// No such extended attribute.
    NoAttribute = ENODATA, "no such extended attribute";
    /// The buffer or the value does not fit.
    Range = ERANGE, "result does not fit";
    /// The value is too large.
    TooLarge = E2BIG, "argument too large";
    /// Not offered.
    NotSupported = EOPNOTSUPP, "operation not supported";
    /// The inode number was given to an object that is gone.
    Stale = ESTALE, "stale file handle";
    /// Damage was found and no good copy.
    Damaged = EIO, "input/output error";
    /// The deadline passed; the change may or may not have happened.
    TimedOut = ETIMEDOUT, "timed out: no majority or no storage node answered in time";
    /// Too much under way.
    Overloaded = EAGAIN, "too many requests under way";
    /// The mount or the certificate is read-only.
    ReadOnly = EROFS, "read-only file system";
    /// The owner, the group or the subtree has used up what it was given. Not raised yet: there are
    /// no quotas.
    Quota = EDQUOT, "disk quota exceeded";
    /// Too many files are open at the client.
    TooManyOpenFiles = ENFILE, "too many open files";
    /// The table of locks of the file or of the session is full.
    NoLocks = ENOLCK, "no locks available";
    /// Waiting for the lock would never end: its holder waits for the caller.
    Deadlock = EDEADLK, "waiting for this lock would be a deadlock";
    /// A signal ended the wait.
    Interrupted = EINTR, "interrupted by a signal";
    /// Another one holds a lock here, and the caller does not want to wait.
    Locked = EAGAIN, "locked by another process";
}

/// A Linux error number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
