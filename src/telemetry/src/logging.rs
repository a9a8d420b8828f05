//! The log of a program: lines with UTC time stamps, to standard error or to a file.
//!
//! Both programs call [`init`] once. `MINISTRY_LOG` chooses what is logged, in the syntax of
//! `tracing`'s filter (`debug`, or `info,ministry_raft=debug`).

use std::fs::{File, OpenOptions};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

/// Name of the environment variable that chooses what is logged.
pub const FILTER_VARIABLE: &str = "MINISTRY_LOG";

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard error.
    Stderr,
    /// Appended to this file.
    File(PathBuf),
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter does not parse.
    #[error(
        "'{text}' is not a log filter ({reason}): write for example 'info' or 'info,ministry_raft=debug'"
    )]
    Filter {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The log file cannot be opened.
    #[error("cannot open the log file {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A log was set up before.
    #[error("the log of this process was set up before")]
    Twice,
}

/// Checks a filter without using it.
pub fn check_filter(text: &str) -> Result<(), LoggingError> {
    filter(text).map(|_| ())
}

/// Libraries whose `info` tells their developers more than our users; a filter may name them. A
/// call to a member that does not arrive is no warning: there are ten in a second while a node is
/// away, and the `raft` crate says once that it is.
const QUIET: &str = "openraft=warn,openraft::core::heartbeat=error,\
    openraft::core::raft_core=error,openraft::engine::handler::replication_handler=error,\
    openraft::replication=error,tarpc=warn";

fn filter(text: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::builder()
        .parse(format!("{QUIET},{text}"))
        .map_err(|error| LoggingError::Filter { text: text.to_owned(), reason: error.to_string() })
}

fn open(path: &Path) -> Result<File, LoggingError> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|source| LoggingError::Open { path: path.to_owned(), source })
}

/// Sets up the log of this process. `default` is the filter where `MINISTRY_LOG` is not set.
pub fn init(target: &LogTarget, default: &str) -> Result<(), LoggingError> {
    let chosen = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| default.to_owned());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&chosen)?)
        .with_timer(SystemTime)
        .with_target(true);
    let result = match target {
        LogTarget::Stderr => {
            let colours = std::io::stderr().is_terminal();
            builder.with_ansi(colours).with_writer(std::io::stderr).try_init()
        }
        LogTarget::File(path) => {
            builder.with_ansi(false).with_writer(Mutex::new(open(path)?)).try_init()
        }
    };
    result.map_err(|_| LoggingError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_does_not_parse_is_named_in_the_error() {
        check_filter("info,ministry_raft=debug").unwrap();
        let error = check_filter("ministry_raft=loudly").unwrap_err();
        assert!(error.to_string().contains("ministry_raft=loudly"), "{error}");
    }
}
