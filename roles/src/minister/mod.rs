//! A member of a ministry: minister (leader of the ministry's Raft group) or clerk (follower).
//!
//! [`Office`] is one ministry on one node. It stands for election when the president appoints
//! this node ([`Office::stand`]), and serves clients only after its reign's first entry was
//! applied here. Until leases come, a clerk only follows the log.
//!
//! What must always hold: an answer is given only under the newest reign that a majority knows;
//! every change goes through the log with the epoch of the reign, which `apply` checks again.
//!
//! When it fails: a lost lead makes the office refuse with the epoch it knows; clients ask the
//! next minister under the same identity.

mod data_errands;
mod housekeeping;
mod locks;
mod machine;
mod office;
mod reclaim;
mod reign;
mod sessions;
mod soft;
mod turns;
mod writes;

pub use machine::NamespaceMachine;
pub use office::{Office, Surroundings};
