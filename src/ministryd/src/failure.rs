//! What a person at the keyboard gets when something fails: one line, and an exit code.

use std::fmt;

/// Kind of a failure, which is its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It could not be done.
    Failed = 1,
    /// The command line or the settings make no sense.
    Usage = 2,
    /// The data folder is not one that this node may use.
    Folder = 3,
}

/// A failure with its kind.
#[derive(Debug)]
pub struct Failure {
    /// Its kind.
    pub kind: Kind,
    /// What failed, at what, and what to do.
    pub error: anyhow::Error,
}

impl Failure {
    /// Wrong usage or settings.
    pub fn usage(error: impl Into<anyhow::Error>) -> Failure {
        Failure { kind: Kind::Usage, error: error.into() }
    }

    /// A data folder that is refused.
    pub fn folder(error: impl Into<anyhow::Error>) -> Failure {
        Failure { kind: Kind::Folder, error: error.into() }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure { kind: Kind::Failed, error: error.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line: what stands behind it follows after colons.
        write!(f, "{:#}", self.error)
    }
}
