//! What of the government everybody may see: nodes, ministries, the map, the history.
//!
//! The cluster log's own state and its orders live in `roles`; this is the part that is sent to
//! clients, which cache it as the [`ClusterMap`], and to `ministryctl`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::fencing::{Epoch, Era, MapVersion};
use crate::ids::{ClusterId, InodeId, MinistryId, NodeId};
use crate::inode::Timestamp;
use crate::ownership::OwnershipMap;
use crate::placement::PgMap;

/// What a node tells about itself when it registers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeProfile {
    /// Where other nodes and clients reach it.
    pub address: SocketAddr,
    /// Where `http://…/metrics` and `/health` are.
    pub metrics_address: Option<SocketAddr>,
    /// Where it stands, for example `rack1/host3`: nodes of one label fail together.
    pub failure_domain: String,
    /// Whether it takes metadata offices.
    pub offers_metadata: bool,
    /// Its share of the data; 0 or less: it stores none.
    pub storage_weight: f64,
    /// Version of the program.
    pub version: String,
    /// Highest feature level it understands.
    pub feature_level: u32,
}

/// How a node stands with the government.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeCondition {
    /// It answers.
    Alive,
    /// It does not answer.
    Down,
    /// Its certificate is revoked.
    Revoked,
}

/// A node as the cluster log knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// What it said about itself.
    pub profile: NodeProfile,
    /// How it stands.
    pub condition: NodeCondition,
    /// It votes in the cluster log.
    pub elector: bool,
}

/// How a ministry stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MinistryCondition {
    /// Being made; names the step that is due.
    Forming(String),
    /// A minister is appointed.
    Governed,
    /// No majority of the members answers; the reason says who is missing.
    Down(String),
}

/// A ministry as the cluster log knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinistryEntry {
    /// Number of the last appointment.
    pub epoch: Epoch,
    /// Who was appointed.
    pub minister: Option<NodeId>,
    /// All members, the minister among them.
    pub members: Vec<NodeId>,
    /// How it stands.
    pub condition: MinistryCondition,
    /// The directory it was made for.
    pub root: InodeId,
    /// The path of that directory when the ministry was made.
    pub path: String,
}

/// Everything a client or a server needs to find its way. Version by version it only moves
/// forward.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct ClusterMap {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Its era.
    pub era: Era,
    /// Version of this map.
    pub version: MapVersion,
    /// All nodes.
    pub nodes: BTreeMap<NodeId, NodeEntry>,
    /// All ministries.
    pub ministries: BTreeMap<MinistryId, MinistryEntry>,
    /// Which ministry owns which part of the name space.
    pub ownership: OwnershipMap,
    /// Which nodes hold which placement group.
    pub pgs: PgMap,
    /// Nodes that are wanted before the first ministry is made.
    pub initial_nodes: u32,
}

impl ClusterMap {
    /// Where a node is reached.
    pub fn address(&self, node: NodeId) -> Option<SocketAddr> {
        self.nodes.get(&node).map(|entry| entry.profile.address)
    }
}

/// One order with its reason, as `ministryctl events` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Index of the order in the cluster log.
    pub index: u64,
    /// When it was given.
    pub time: Timestamp,
    /// The president that gave it.
    pub president: NodeId,
    /// What was ordered, one word: `appoint`, `register`, `form-ministry`, ….
    pub order: String,
    /// What it was ordered about: a ministry, a node, a placement group.
    pub subject: String,
    /// What was ordered, as a sentence.
    pub text: String,
    /// Why.
    pub reason: String,
}
