//! Service `Join`: a token and a key for a certificate.
//!
//! Answered by every node at [`crate::hello::Door::Join`]: the president signs, another node names
//! the president. Called by `ministryctl` and by a `ministryd` that starts without a certificate.
//! It is the one service that is reached without a certificate, so every field is bounded and
//! nothing here is done before the token is checked.
//!
//! What must always hold: the caller has compared the authority's hash with its token *before* it
//! sends the secret; the private key never leaves the caller; a token serves one key only, and
//! asking again with the same token and the same key gets the same answer, so that a lost reply
//! costs nothing.
//!
//! When it fails: [`JoinError`] says what to do.

use std::fmt;
use std::net::SocketAddr;

use ministry_types::government::NodeProfile;
use ministry_types::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};

use crate::hello::{Role, Subject};

/// Bytes of a certificate signing request as PEM; an ordinary one has about 500.
pub const SIGNING_REQUEST_BYTES_MAX: usize = 8192;

/// Which token: the key under which the cluster log keeps the hash of its secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenId(pub [u8; 8]);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

/// The part of a token that only its holder knows. It prints as nothing, so that no log shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinSecret(pub [u8; 16]);

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecret(..)")
    }
}

/// What a newcomer asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnrollRequest {
    /// Which token.
    pub token: TokenId,
    /// Proof that the caller holds it.
    pub secret: JoinSecret,
    /// Certificate signing request, PEM; at most [`SIGNING_REQUEST_BYTES_MAX`]. Only its public
    /// key counts, and its signature, which proves that the caller has the private key.
    pub signing_request: String,
    /// What the caller wants to be; the token must be for that.
    pub role: Role,
    /// What a node tells about itself; `None` of a client or an operator.
    pub profile: Option<NodeProfile>,
}

/// A node and where it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAddress {
    /// Which node.
    pub node: NodeId,
    /// Where.
    pub address: SocketAddr,
}

/// What a newcomer gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Its certificate, PEM.
    pub certificate: String,
    /// Certificate of the authority, PEM; more than one while the authority changes.
    pub authority: String,
    /// The cluster.
    pub cluster: ClusterId,
    /// Who the caller is now.
    pub subject: Subject,
    /// Nodes of the cluster.
    pub nodes: Vec<NodeAddress>,
}

/// Why a newcomer gets no certificate, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum JoinError {
    /// No such token, or the wrong secret: deliberately not told apart.
    #[error(
        "the cluster knows no such token: check that it was copied whole and is of this cluster, \
         or make a new one with `ministryctl invite`"
    )]
    UnknownToken,
    /// Its time is over.
    #[error(
        "the token ended at {ended_at} (seconds since 1970): make a new one with \
         `ministryctl invite`"
    )]
    Expired {
        /// When it ended, seconds since 1970.
        ended_at: u64,
    },
    /// Another key has used it.
    #[error(
        "the token was used already, by {by}: each token serves once; make a new one with \
         `ministryctl invite`"
    )]
    AlreadyUsed {
        /// Who used it.
        by: Subject,
    },
    /// It is for something else.
    #[error(
        "the token is for a {granted}, not for a {asked}: make one with \
         `ministryctl invite --{asked}`"
    )]
    WrongRole {
        /// What the token is for.
        granted: Role,
        /// What was asked.
        asked: Role,
    },
    /// The key of the request belongs to somebody whose certificate was revoked.
    #[error("{subject} is revoked and cannot come back: remove its key and join with a new one")]
    Revoked {
        /// Whose key it is.
        subject: Subject,
    },
    /// The request makes no sense.
    #[error("the request cannot be granted: {reason}")]
    BadRequest {
        /// What is wrong with it.
        reason: String,
    },
    /// This node is not the president.
    #[error("this node is not the president; ask {}", address_text(.address))]
    NotPresident {
        /// Where the president is, if this node knows.
        address: Option<SocketAddr>,
    },
    /// There is no president, or no majority; nothing was changed, or the same token and key get
    /// the same answer later.
    #[error("the cluster cannot decide now ({reason}): try again")]
    Unavailable {
        /// What is missing.
        reason: String,
    },
}

fn address_text(address: &Option<SocketAddr>) -> String {
    match address {
        Some(address) => format!("the node at {address}"),
        None => "again in a moment: there is no president now".to_owned(),
    }
}

/// A token and a key for a certificate.
#[tarpc::service]
pub trait Join {
    /// Checks the token and signs a certificate for the key of the request.
    async fn enroll(request: EnrollRequest) -> Result<Enrolled, JoinError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints() {
        let text = format!("{:?}", JoinSecret([0xab; 16]));
        assert!(!text.contains("ab") && !text.contains("171"), "{text}");
    }

    #[test]
    fn every_error_says_what_to_do() {
        let error = JoinError::WrongRole { granted: Role::Client, asked: Role::Node };
        assert!(error.to_string().contains("--node"));
        let error = JoinError::NotPresident { address: Some(([10, 0, 0, 1], 7400).into()) };
        assert!(error.to_string().contains("10.0.0.1:7400"));
    }
}
