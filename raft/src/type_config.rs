//! The types that openraft works with here.
//!
//! Commands and replies are bytes: what they mean is the state machine's business. Randomness
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
use tokio::sync::{OwnedSemaphorePermit, oneshot};

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

/// A command, as bytes.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Command(pub Bytes);

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A reply, as bytes.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reply(pub Bytes);

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Sends a result to whoever waits for it; nobody waiting any more is no event worth a word.
pub struct Respond<T> {
    /// Where to.
    pub result: oneshot::Sender<T>,
    /// The command's share of the memory for commands under way, given back at the end.
    pub room: Option<OwnedSemaphorePermit>,
    /// Dropped at the end too: whoever holds the other side sees it.
    pub ended: Option<oneshot::Sender<()>>,
}

impl<T: Send + 'static> Responder<TypeConfig, T> for Respond<T> {
    fn on_complete(self, result: T) {
        drop(self.room);
        let _ = self.result.send(result);
        drop(self.ended);
    }
}

/// openraft's type configuration.
#[derive(Debug, Clone, Copy, Default, Eq, PartialEq, Ord, PartialOrd)]
pub struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Command;
    type R = Reply;
    type NodeId = Peer;
    type Node = EmptyNode;
    type Term = u64;
    type LeaderId = impls::leader_id_adv::LeaderId<u64, Peer>;
    type Vote = impls::Vote<Self::LeaderId>;
    type Payload = EntryPayload<Command, Peer, EmptyNode>;
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
