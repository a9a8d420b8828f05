//! What crosses the network, and nothing else: one file a service, request and reply side by side.
//!
//! `transport` carries these messages, `roles` answers them, `client`, `roles` and `ministryctl`
//! send them. Control traffic is tarpc with postcard; file data has frames of its own
//! ([`data`]), on connections of its own, so that a large write never delays a small answer.
//!
//! What must always hold: fields are only appended, under a new [`ministry_types::format`] number;
//! the handshake ([`hello`]) refuses a peer with another wire version. An error that a peer must
//! act on is data, never text. When a peer is of another version or sends rubbish, decoding fails
//! and the connection is closed; nothing is guessed.

pub mod admin;
pub mod codec;
pub mod data;
pub mod hello;
pub mod join;
pub mod minister;
pub mod node;
pub mod raft;
