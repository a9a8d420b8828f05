//! The government: the state machine of the cluster log.
//!
//! Small state, in memory on every node, changed by nothing but an [`Order`] in the cluster log.
//! The president proposes orders ([`crate::president`]); every node applies them here and acts on
//! what it sees, so that a half-done order is finished by the next president from the log alone.
//!
//! What must always hold: [`Government::apply`] is deterministic and does no I/O; an order that no
//! longer fits what it was based on is refused, not bent; epochs only grow; a node id, a ministry
//! number, an inode range never comes back.
//!
//! When it fails: an order that cannot be decoded stops the node (a newer version wrote it); a
//! refused order changes nothing and says why.

mod machine;
mod order;
mod state;

pub use machine::GovernmentMachine;
pub(crate) use machine::kv_failed;
pub use order::{Enrolment, Order, OrderReply, Proposal};
pub use state::{Government, Handover, JoinToken, Ministry, TokenState};
