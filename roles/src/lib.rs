//! What a node does: president, minister, clerk, storekeeper, or idle.
//!
//! `ministryd` starts one [`Node`] a process, a simulation many in one. The offices:
//!
//! | office | standard name | where |
//! |---|---|---|
//! | president | leader of the control plane's log | [`president`] |
//! | minister, clerk | leader and follower of a metadata group | [`minister`] |
//! | master, slave of a placement group | primary and secondary replica | [`storekeeper`] |
//!
//! A node without any of them is idle: the reserve. What must always hold: government changes by
//! orders of the cluster log alone ([`government`]); deciding is pure and apart from acting; clock,
//! randomness, disk and network are passed in ([`node::Parts`]).

pub mod clock;
pub mod government;
pub mod minister;
mod network;
pub mod node;
pub mod president;
pub mod room;
mod services;
mod snapshot;
pub mod storekeeper;

pub use node::{Founding, Node, Parts};
