//! The one place where an error becomes an errno and a line in the log.
//!
//! Every handler ends here when it cannot answer. What a program does wrong is its own matter and
//! is only traced; what the cluster could not do is a warning; damage is an error.

use fuser::Errno;
use ministry_types::FsError;
use tracing::Level;

/// Why a request was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The file-system rules or the cluster say no.
    Fs(FsError),
    /// Only a mount has this answer.
    Mount(MountFailure),
}

/// What can go wrong between the kernel and this program alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MountFailure {
    /// The kernel named a handle that is not open.
    BadHandle,
    /// Too many open files in this mount.
    TooManyOpen,
    /// The session ended, and the locks that were taken by this handle with it.
    LocksLost,
}

impl From<FsError> for Failure {
    fn from(error: FsError) -> Failure {
        Failure::Fs(error)
    }
}

impl From<MountFailure> for Failure {
    fn from(error: MountFailure) -> Failure {
        Failure::Mount(error)
    }
}

impl Failure {
    /// The number that the program sees.
    pub(crate) fn errno(self) -> Errno {
        match self {
            Failure::Fs(error) => Errno::from_i32(error.errno().0),
            Failure::Mount(MountFailure::BadHandle) => Errno::EBADF,
            Failure::Mount(MountFailure::TooManyOpen) => Errno::ENFILE,
            Failure::Mount(MountFailure::LocksLost) => Errno::EIO,
        }
    }

    fn level(self) -> Level {
        match self {
            Failure::Fs(FsError::Damaged) | Failure::Mount(MountFailure::BadHandle) => Level::ERROR,
            Failure::Fs(FsError::TimedOut | FsError::Overloaded | FsError::TooManyOpenFiles)
            | Failure::Mount(MountFailure::TooManyOpen | MountFailure::LocksLost) => Level::WARN,
            Failure::Fs(FsError::Stale | FsError::NoSpace) => Level::DEBUG,
            Failure::Fs(_) => Level::TRACE,
        }
    }

    /// Writes the line, at the level that the failure deserves.
    pub(crate) fn log(self, operation: &'static str) {
        match self.level() {
            Level::ERROR => tracing::error!(operation, failure = ?self, "request failed"),
            Level::WARN => tracing::warn!(operation, failure = ?self, "request failed"),
            Level::DEBUG => tracing::debug!(operation, failure = ?self, "request failed"),
            _ => tracing::trace!(operation, failure = ?self, "request failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_reaches_the_program_as_its_own_errno() {
        for (error, name) in FsError::ALL {
            let errno = Failure::from(*error).errno();
            assert_eq!(errno.code(), error.errno().0, "{name}");
        }
    }

    #[test]
    fn mistakes_of_programs_do_not_fill_the_log() {
        for error in [FsError::NotFound, FsError::Exists, FsError::PermissionDenied] {
            assert_eq!(Failure::from(error).level(), Level::TRACE);
        }
        assert_eq!(Failure::from(FsError::TimedOut).level(), Level::WARN);
        assert_eq!(Failure::from(FsError::Damaged).level(), Level::ERROR);
    }
}
