//! The president: leader of the cluster log (what others call the leader of the control plane).
//!
//! [`office`] watches the nodes and acts; what is to be done is decided by pure functions over a
//! [`View`]: [`census`], [`electors`], [`placement`], [`appointments`].
//!
//! What must always hold: nothing in government changes but by an order in the cluster log, with
//! its reason; a decision is a function of its view alone; a half-done order is taken up by the
//! next president from the log.
//!
//! When it fails: without a president everything that is healthy goes on; only a change of
//! government waits.

pub mod appointments;
pub mod census;
pub mod electors;
mod errands;
pub(crate) mod office;
pub mod placement;
pub mod sights;
#[cfg(test)]
mod tests;
mod view;

pub use view::{Decision, Sight, View, plan};
