//! Connections: mutual TLS, identity, joining, time limits.
//!
//! A node runs one [`server::Server`] on its port and has one [`peers::Peers`] for calls to
//! others; a client has the latter alone. Every connection begins with TLS and a hello
//! ([`ministry_wire::hello`]) and then belongs to one [`Door`].
//!
//! | part | what it does |
//! |---|---|
//! | [`stream`] | where byte streams come from; a simulation puts its own network here |
//! | [`name`], [`authority`], [`identity`], [`token`] | who is who, on paper |
//! | [`security`] | TLS settings, exchanged while connections stand |
//! | [`server`], [`dial`] | the two ends of a handshake |
//! | [`serve`](mod@serve), [`peers`] | tarpc over connections: answering, and calling |
//! | [`join`] | a token becomes an identity |
//! | [`revocations`] | who is out, at once |
//!
//! What must always hold: nobody is believed without proof but in a simulation; every wait has a
//! limit; every queue, frame and number of connections has a bound. When something fails it says
//! what and what to do, on both ends.

pub mod authority;
pub mod data_stream;
pub mod dial;
pub mod identity;
pub mod join;
pub mod name;
pub mod peers;
mod pem;
mod refusals;
pub mod revocations;
pub mod security;
pub mod serve;
pub mod server;
pub mod stream;
pub mod token;

pub use authority::Authority;
pub use dial::{ConnectError, Dialer};
pub use identity::{Identity, PrivateKey};
pub use ministry_wire::hello::{Door, PeerIdentity, Role, Subject};
pub use peers::{CallError, Peers, Target};
pub use revocations::{Revocations, RevokedIds};
pub use security::Security;
pub use serve::serve;
pub use server::{Handler, Incoming, Server};
pub use stream::{BoxedStream, Connector, Listener, TcpAccept, TcpConnector};
pub use token::JoinToken;

/// What this program calls itself in a hello.
pub(crate) const SOFTWARE: &str = concat!("ministry ", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests;
