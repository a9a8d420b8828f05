//! The types that openraft works with here.
//!
//! Commands and replies are bytes: what they mean is the state machine's business. An entry carries
//! one command or many ([`crate::proposer`]). Randomness
//! (election time-outs) comes from a seed, in production and in simulation alike, so that both
//! run the same code: see [`crate::Settings::seed`].

use std::fmt;

use bytes::Bytes;
use ministry_types::NodeId;
use openraft::raft::responder::Responder;
use openraft::{EmptyNode, EntryPayload, OptionalSend, RaftTypeConfig, impls};
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// A node as openraft knows it. A type of its own, because openraft's storage suite makes nodes
/// of numbers, which a real [`NodeId`] must not allow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Peer(pub NodeId);

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.short())
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<u64> for Peer {
    fn from(number: u64) -> Peer {
        let mut bytes = [0; 32];
        bytes[24..].copy_from_slice(&number.to_be_bytes());
        Peer(NodeId(bytes))
    }
}

/// The commands of one entry, as bytes, in the order in which they were proposed.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Commands(pub Vec<Bytes>);

impl Commands {
    /// Bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }
}

impl fmt::Display for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands, {} bytes", self.0.len(), self.bytes())
    }
}

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The replies to the commands of one entry, as bytes, in the order of the commands.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Replies(pub Vec<Bytes>);

impl fmt::Debug for Replies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} replies", self.0.len())
    }
}

/// What is to be done about an entry. Dropped with all it holds when it comes to nothing.
pub struct Respond<T> {
    /// Dropped as soon as the entry is committed, which is before it is applied.
    pub until_committed: Option<oneshot::Sender<()>>,
    /// What is to be done with the result.
    pub result: Box<dyn FnOnce(T) + Send>,
}

impl<T: Send + 'static> Responder<TypeConfig, T> for Respond<T> {
    fn on_commit(&mut self, _position: LogId) {
        self.until_committed = None;
    }

    fn on_complete(self, result: T) {
        (self.result)(result);
    }
}

/// openraft's type configuration.
#[derive(Debug, Clone, Copy, Default, Eq, PartialEq, Ord, PartialOrd)]
pub struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Commands;
    type R = Replies;
    type NodeId = Peer;
    type Node = EmptyNode;
    type Term = u64;
    type LeaderId = impls::leader_id_adv::LeaderId<u64, Peer>;
    type Vote = impls::Vote<Self::LeaderId>;
    type Payload = EntryPayload<Commands, Peer, EmptyNode>;
    type Entry = openraft::Entry<Self::LeaderId, Self::Payload>;
    type AsyncRuntime = DeterministicRng<TokioRuntime>;
    type Responder<T>
        = Respond<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = impls::BoxedErrorSource;
}

/// The randomness and tasks of openraft here.
pub(crate) type Runtime = DeterministicRng<TokioRuntime>;
/// A position as openraft knows it.
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
/// A leader as openraft knows it.
pub(crate) type LeaderId = openraft::alias::LeaderIdOf<TypeConfig>;
/// A vote as openraft knows it.
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
/// An entry as openraft knows it.
pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
/// A membership as openraft knows it.
pub(crate) type RaftMembership = openraft::Membership<Peer, openraft::EmptyNode>;
/// A membership with its position as openraft knows it.
pub(crate) type RaftStoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
/// One group as openraft knows it.
pub(crate) type Raft = openraft::Raft<TypeConfig, crate::machine::Machine>;
