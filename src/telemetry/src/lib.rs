//! What a program of Ministry shows of itself: metrics, a health page, a log.
//!
//! `ministryd` serves the metrics and the health page ([`http`]), both programs write their log
//! through [`logging`]. Every other crate only uses the macros of `metrics` and `tracing`; what
//! the metrics mean is declared here in one place ([`names`]).
//!
//! What must always hold: a metric that the code counts is declared in [`names::ALL`] with its
//! unit and its stability; nothing here touches the list of mounts, since asking a mount that does
//! not answer would hang the node with it. When the page cannot be served the node says so at its
//! start and stops; a failure later costs the page, never the node.

pub mod http;
pub mod logging;
pub mod names;
pub mod process;
pub mod recorder;
