//! Service `Admin`: what `ministryctl` may ask.
//!
//! Reads are answered by any node from its copy of the cluster log. Changes and soft state (who
//! answers, how full the disks are) are answered by the president; another node forwards nothing,
//! it answers [`AdminError::NotPresident`] with the address to ask.

use std::net::SocketAddr;
use std::time::Duration;

use ministry_types::government::{ClusterMap, Event};
use ministry_types::{InodeId, LogIndex, MinistryId, NodeId, Term, Timestamp};
use serde::{Deserialize, Serialize};

use crate::minister::FsUsage;
use crate::node::NodeReport;

/// Why an administrator's request was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum AdminError {
    /// Ask the president.
    #[error("this node is not the president")]
    NotPresident {
        /// The president known here.
        president: Option<NodeId>,
        /// Its address.
        address: Option<SocketAddr>,
    },
    /// There is no president: no majority of the electors answers.
    #[error("there is no president: no majority of the electors answers; start the missing nodes")]
    NoPresident,
    /// The request makes no sense now; the text says why and what to do.
    #[error("{0}")]
    Refused(String),
    /// The order may or may not have been given: look at the events, then ask again.
    #[error("the outcome is not known yet: look at 'ministryctl events' before trying again")]
    Unknown,
}

/// What a join token is for.
pub use crate::hello::Role as InviteRole;

/// The soft state of one node, as the president sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSight {
    /// The last answer.
    pub report: NodeReport,
    /// How long ago it came.
    pub age: Duration,
}

/// The state of the cluster in one answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The node that answers.
    pub node: NodeId,
    /// The map as known there.
    pub map: ClusterMap,
    /// The president known there.
    pub president: Option<NodeId>,
    /// Its term.
    pub term: Term,
    /// Last entry of the cluster log applied there.
    pub applied: LogIndex,
    /// What the president last heard of the nodes; empty when another node answers.
    pub sights: Vec<NodeSight>,
    /// Room in the file system, if known.
    pub usage: Option<FsUsage>,
}

/// A join token as the cluster log knows it, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The token's text: shown once, kept nowhere.
    pub token: String,
    /// Until when it may be used.
    pub expires: Timestamp,
}

/// What administrators ask.
#[tarpc::service]
pub trait Admin {
    /// The state of the cluster.
    async fn status() -> Status;
    /// The history from an index of the cluster log on, oldest first, at most `max`.
    async fn events(from: LogIndex, max: u32) -> Vec<Event>;
    /// Makes `count` one-time tokens.
    async fn invite(
        role: InviteRole,
        life: Duration,
        count: u32,
    ) -> Result<Vec<Invitation>, AdminError>;
    /// Makes a ministry for an empty directory; answers as soon as the order is logged: watch it
    /// form in [`Admin::status`].
    async fn create_ministry(root: InodeId, path: String) -> Result<MinistryId, AdminError>;
    /// Refuses a node's or a client's certificate from now on.
    async fn revoke(identity: String) -> Result<(), AdminError>;
}
