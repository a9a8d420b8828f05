//! The orders of the cluster log and their encoding.

use std::collections::BTreeSet;

use ministry_types::format::GOVERNMENT_FORMAT;
use ministry_types::government::{MinistryCondition, NodeCondition, NodeProfile};
use ministry_types::placement::PlacementGroup;
use ministry_types::{ClusterId, Epoch, InodeId, MinistryId, NodeId, Timestamp};
use ministry_wire::hello::{Role, Subject};
use serde::{Deserialize, Serialize};

/// One change of the government.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Order {
    /// The first order of a cluster.
    Found {
        /// Its identity.
        cluster: ClusterId,
        /// Certificate and key of its authority, PEM: here, so that any president can admit a node.
        authority: String,
        /// Nodes that are waited for before the first ministry is made.
        initial_nodes: u32,
    },
    /// A join token was made.
    Invite {
        /// Names the token.
        id: String,
        /// SHA-256 of its secret.
        secret_hash: Vec<u8>,
        /// What it is for.
        role: Role,
        /// Until when it may be used.
        expires: Timestamp,
    },
    /// A token was used.
    Enrol {
        /// The token.
        id: String,
        /// Who used it.
        subject: Subject,
    },
    /// A node came, or its profile changed.
    Register {
        /// Which node.
        node: NodeId,
        /// What it says about itself.
        profile: NodeProfile,
    },
    /// A node answers again, or no longer.
    SetNodeCondition {
        /// Which node.
        node: NodeId,
        /// How it stands.
        condition: NodeCondition,
    },
    /// Who votes in the cluster log from now on.
    SetElectors {
        /// All electors.
        electors: BTreeSet<NodeId>,
    },
    /// A ministry is made.
    CreateMinistry {
        /// Its number.
        ministry: MinistryId,
        /// Its members.
        members: Vec<NodeId>,
        /// The directory it is made for.
        root: InodeId,
        /// The path of that directory.
        path: String,
    },
    /// A member becomes minister.
    Appoint {
        /// Which ministry.
        ministry: MinistryId,
        /// Who.
        minister: NodeId,
        /// The epoch that was in force when this was decided: refused if there is a newer one.
        succeeds: Epoch,
    },
    /// How a ministry stands.
    SetMinistryCondition {
        /// Which ministry.
        ministry: MinistryId,
        /// How it stands.
        condition: MinistryCondition,
    },
    /// Inode numbers for a ministry: the next free range.
    GrantRange {
        /// Which ministry.
        ministry: MinistryId,
    },
    /// The directory that a ministry was made for is now its own.
    CompleteHandover {
        /// The new ministry.
        ministry: MinistryId,
    },
    /// The directory could not be handed over; the ministry is dissolved.
    AbandonHandover {
        /// The new ministry.
        ministry: MinistryId,
    },
    /// All placement groups.
    SetPlacement {
        /// Members of each group, master first; the epochs are given when the order is applied.
        groups: Vec<Vec<NodeId>>,
    },
    /// A certificate is refused from now on.
    Revoke {
        /// Hexadecimal id of a node or client.
        identity: String,
    },
}

impl Order {
    /// The word under which the history lists it.
    pub fn word(&self) -> &'static str {
        match self {
            Order::Found { .. } => "found",
            Order::Invite { .. } => "invite",
            Order::Enrol { .. } => "enrol",
            Order::Register { .. } => "register",
            Order::SetNodeCondition { .. } => "node-condition",
            Order::SetElectors { .. } => "electors",
            Order::CreateMinistry { .. } => "create-ministry",
            Order::Appoint { .. } => "appoint",
            Order::SetMinistryCondition { .. } => "ministry-condition",
            Order::GrantRange { .. } => "grant-range",
            Order::CompleteHandover { .. } => "hand-over",
            Order::AbandonHandover { .. } => "abandon",
            Order::SetPlacement { .. } => "placement",
            Order::Revoke { .. } => "revoke",
        }
    }
}

/// An order with who gives it, when and why: what is written into the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// The president.
    pub president: NodeId,
    /// Its clock; for the history only.
    pub time: Timestamp,
    /// Why.
    pub reason: String,
    /// What.
    pub order: Order,
}

/// The result of a used token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Enrolment {
    /// The token is now used up for this identity.
    Accepted,
    /// There is no such token.
    Unknown,
    /// It was used before, by somebody else.
    Used(Subject),
}

/// What an order came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderReply {
    /// Carried out.
    Done,
    /// Carried out; the epoch that was given.
    Epoch(Epoch),
    /// The token's fate.
    Enrolment(Enrolment),
    /// Not carried out, and why.
    Refused(String),
}

/// Bytes in a log or a snapshot that this version does not understand.
#[derive(Debug, Clone, thiserror::Error)]
#[error("an order or state of the government does not decode: {0}")]
pub struct DecodeError(pub String);

/// A value behind its format number.
pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let header = vec![GOVERNMENT_FORMAT];
    postcard::to_extend(value, header).expect("plain data always encodes")
}

/// Reads what [`encode`] wrote.
pub(super) fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, DecodeError> {
    match bytes.split_first() {
        Some((&GOVERNMENT_FORMAT, rest)) => {
            postcard::from_bytes(rest).map_err(|error| DecodeError(error.to_string()))
        }
        Some((format, _)) => Err(DecodeError(format!(
            "format {format} is not known here; a newer version of ministryd wrote it"
        ))),
        None => Err(DecodeError("it is empty".to_owned())),
    }
}

impl Proposal {
    /// For the log.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// From the log.
    pub fn decode(bytes: &[u8]) -> Result<Proposal, DecodeError> {
        decode(bytes)
    }

    /// The placement groups that a [`Order::SetPlacement`] makes under one epoch.
    pub(super) fn placement(groups: &[Vec<NodeId>], epoch: Epoch) -> Vec<PlacementGroup> {
        groups
            .iter()
            .map(|members| PlacementGroup {
                epoch,
                members: members.clone(),
                in_sync: members.iter().copied().collect(),
            })
            .collect()
    }
}

impl OrderReply {
    /// For the proposer.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// From the log's reply.
    pub fn decode(bytes: &[u8]) -> Result<OrderReply, DecodeError> {
        decode(bytes)
    }
}
