//! The file-system rules of one ministry, as a deterministic state machine.
//!
//! A ministry's log carries [`Command`]s; every member applies them in order with
//! [`Namespace::apply`] and comes to the same records. [`Namespace::query`] reads. The minister's
//! office asks for what it has to drive on: sessions, orphans, cuts and purges
//! ([`office`]).
//!
//! What must always hold: nothing here reads a clock, draws a number at random, does I/O or depends
//! on anything but the command and the state. A change that is refused leaves no trace but the
//! reply in its slot. Applying commands in one overlay or one by one gives the same state.
//!
//! When the state cannot be read, everything ends in a [`ministry_types::kv::KvError`], and the
//! overlay of that batch is thrown away: the node steps aside.
//!
//! The map: [`command`] what comes in, [`overlay`] what goes out, `keys` and `records` how the
//! state lies, `apply` the one way in, and a file for each subject of the rules.

pub mod command;
pub mod office;
pub mod overlay;
pub mod soft;

mod acl;
mod acl_attributes;
mod apply;
mod attributes;
mod create;
mod data;
mod keys;
mod lock_table;
mod locks;
mod orphans;
mod permissions;
mod query;
mod ranges;
mod records;
mod remove;
mod rename;
mod sessions;
mod transfer;
mod xattrs;

#[cfg(test)]
mod tests;

pub use command::{Command, CommandReply, DecodeError};
pub use locks::LockCount;
pub use office::{PendingPurge, PendingTruncate, Ranges};
pub use overlay::Overlay;
pub use query::QueryRefusal;
pub use soft::{Replay, SoftView, SoftWrite, Softly, Unlogged, access_is_due};

use ministry_types::MinistryId;

use keys::Keys;

/// The rules of one ministry over its part of a state. It holds nothing but where that part lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespace {
    keys: Keys,
    ministry: MinistryId,
}

impl Namespace {
    /// The rules of `ministry`, whose records have the keys of `keyspace`.
    pub fn new(keyspace: u64, ministry: MinistryId) -> Namespace {
        Namespace { keys: Keys { keyspace }, ministry }
    }

    /// Which ministry.
    pub fn ministry(&self) -> MinistryId {
        self.ministry
    }
}
