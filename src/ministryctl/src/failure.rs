//! What a person at the keyboard gets when something fails: one line, and an exit code.

use std::fmt;

/// Kind of a failure, which is its exit code. 2, wrong usage, is also what the command line's
/// parser ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It was refused or failed.
    Failed = 1,
    /// Wrong usage: what was given makes no sense.
    Usage = 2,
    /// No node, or no president, answers.
    Unreachable = 3,
    /// The credentials are refused, or there are none.
    Credentials = 4,
    /// The outcome is not known, or the time is over.
    Unknown = 5,
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
    /// A failure of this kind.
    pub fn new(kind: Kind, error: impl Into<anyhow::Error>) -> Failure {
        Failure { kind, error: error.into() }
    }

    /// A failure of this kind with this text.
    pub fn text(kind: Kind, text: impl Into<String>) -> Failure {
        Failure { kind, error: anyhow::Error::msg(text.into()) }
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
