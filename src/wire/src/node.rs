//! Service `Node`: what nodes say to each other outside of Raft.
//!
//! The president calls [`Node::ping`] and [`Node::appoint`] at every node; every node calls
//! [`Node::register`] at the president. The president watches by these answers of the program:
//! a stopped process still acknowledges TCP.

use std::collections::BTreeSet;

use ministry_types::government::NodeProfile;
use ministry_types::{Epoch, GroupId, InodeId, LogIndex, LogPosition, MinistryId, NodeId, Term};
use serde::{Deserialize, Serialize};

use crate::minister::FsUsage;

/// How one of a node's ministries stands there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupReport {
    /// Which group.
    pub group: GroupId,
    /// Last entry in the log, synced: what succession compares.
    pub last_log: LogPosition,
    /// Last entry applied.
    pub applied: LogIndex,
    /// Raft's term here.
    pub term: Term,
    /// The epoch of the reign that this node serves, if it is the minister and serves.
    pub serving: Option<Epoch>,
    /// Newest reign that was applied here.
    pub reign: Epoch,
    /// The group has its first membership.
    pub initialised: bool,
    /// Inode ranges that the ministry knows of.
    pub ranges_known: u32,
    /// Inode ranges that it has not begun to use.
    pub ranges_left: u32,
    /// Objects that the ministry holds.
    pub objects: u64,
}

/// Room on the disk below a node's data folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct DiskReport {
    /// Names the file system below the data folder, so that nodes that share it count once.
    pub device: String,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes not used.
    pub free_bytes: u64,
    /// Bytes that may still be written.
    pub available_bytes: u64,
}

/// The answer to a ping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Who answers.
    pub node: NodeId,
    /// Drawn at start: a changed one says that the program was restarted.
    pub incarnation: u64,
    /// Last entry of the cluster log applied here.
    pub cluster_applied: LogIndex,
    /// Its ministries.
    pub groups: Vec<GroupReport>,
    /// Its disk.
    pub disk: DiskReport,
}

/// What the president tells with each ping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// The president.
    pub president: NodeId,
    /// Its term in the cluster log.
    pub term: Term,
    /// Room in the file system, as far as the president knows.
    pub usage: Option<FsUsage>,
}

/// The word to a node that it was appointed. It is already in the cluster log; this is for speed
/// and carries what the node's copy of the log may not have yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appointment {
    /// Which ministry.
    pub ministry: MinistryId,
    /// Number of the appointment.
    pub epoch: Epoch,
    /// Who is appointed.
    pub minister: NodeId,
    /// Members of the ministry.
    pub members: BTreeSet<NodeId>,
}

/// Why a node does not take a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum NodeRefusal {
    /// Only the president takes this call.
    #[error("this node is not the president")]
    NotPresident {
        /// The president known here.
        hint: Option<NodeId>,
    },
    /// This node does not serve the ministry now.
    #[error("this node does not serve ministry {0}")]
    NotServing(MinistryId),
    /// A newer president or appointment is known here.
    #[error("out of date: epoch {0} is known here")]
    OutOfDate(Epoch),
    /// It cannot be done, now or later; the text says why.
    #[error("{0}")]
    Failed(String),
}

/// Steps in handing an empty directory to a ministry of its own, asked by the president of the
/// ministers concerned; each can be repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Handover {
    /// To the present owner: give the directory's record away and answer it.
    Give {
        /// The present owner.
        from: MinistryId,
        /// The directory.
        inode: InodeId,
        /// The new owner.
        to: MinistryId,
        /// Generation of the interval from now on.
        generation: u64,
    },
    /// To the new owner: take the record up.
    Take {
        /// The new owner.
        to: MinistryId,
        /// What [`Handover::Give`] answered.
        record: Vec<u8>,
        /// Generation of the interval from now on.
        generation: u64,
    },
}

/// What nodes ask of each other.
#[tarpc::service]
pub trait Node {
    /// From the president: how are you?
    async fn ping(ping: Ping) -> NodeReport;
    /// From the president: stand for election and begin the reign.
    async fn appoint(appointment: Appointment) -> Result<(), NodeRefusal>;
    /// From the president to a minister: a step of a handover. Answers the record that was given.
    async fn hand_over(step: Handover) -> Result<Vec<u8>, NodeRefusal>;
    /// To the president: here I am, this is my profile.
    async fn register(node: NodeId, profile: NodeProfile) -> Result<(), NodeRefusal>;
}
