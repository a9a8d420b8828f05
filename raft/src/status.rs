//! What a group knows about itself at one moment.

use std::collections::{BTreeMap, BTreeSet};

use ministry_types::{LogIndex, LogPosition, NodeId, Term};
use openraft::RaftMetrics;

use crate::type_config::{Peer, TypeConfig};

/// The condition of a group on this node.
///
/// Positions are the default (term 0, index 0) where there is none yet; `initialised` tells a
/// group without entries from one with a single entry of index 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupStatus {
    /// Who leads, as far as is known here.
    pub leader: Option<NodeId>,
    /// This node leads: a majority has granted it, and nothing newer is known here. Not yet a
    /// right to serve, see [`crate::Group::linearize`].
    pub is_leader: bool,
    /// The term known here.
    pub term: Term,
    /// The last entry in the log of this node. What succession compares, as a whole: term, then
    /// leader, then index.
    pub last_log: LogPosition,
    /// The last entry applied.
    pub applied: LogIndex,
    /// The last entry known here to be committed.
    pub committed: LogIndex,
    /// Members with a vote; of both sets while a change is under way.
    pub voters: BTreeSet<NodeId>,
    /// Members without.
    pub learners: BTreeSet<NodeId>,
    /// A change of membership is under way (two sets of voters, or not committed).
    pub changing: bool,
    /// The last entry removed from the log's beginning.
    pub purged: LogIndex,
    /// The last entry known to be flushed into the state.
    pub snapshot: LogIndex,
    /// The group has its first membership.
    pub initialised: bool,
    /// When this node leads: how far each other member has come.
    pub replication: BTreeMap<NodeId, LogIndex>,
    /// Why the group has stopped here, if it has.
    pub stopped: Option<String>,
}

impl GroupStatus {
    /// When this node leads: how many entries `member` lacks.
    pub fn lag(&self, member: NodeId) -> Option<u64> {
        let reached = self.replication.get(&member)?;
        Some(self.last_log.index.0.saturating_sub(reached.0))
    }
}

fn index(id: &Option<crate::type_config::LogId>) -> LogIndex {
    LogIndex(id.as_ref().map_or(0, |id| id.index))
}

/// Reads openraft's metrics; `last_log` comes from the log itself, which is never behind.
pub(crate) fn status(
    metrics: &RaftMetrics<TypeConfig>,
    last_log: Option<LogPosition>,
) -> GroupStatus {
    let membership = metrics.membership_config.membership();
    let changing = membership.get_joint_config().len() > 1
        || metrics.membership_config.log_id() != metrics.committed_membership_config.log_id();
    let replication = metrics.replication.iter().flatten();
    let replication =
        replication.map(|(peer, matched): (&Peer, _)| (peer.0, index(matched))).collect();
    GroupStatus {
        leader: metrics.current_leader.map(|peer| peer.0),
        is_leader: metrics.state.is_leader(),
        term: Term(metrics.current_term),
        last_log: last_log.unwrap_or_default(),
        applied: index(&metrics.last_applied),
        committed: index(&metrics.local_committed),
        voters: membership.voter_ids().map(|peer| peer.0).collect(),
        learners: membership.learner_ids().map(|peer| peer.0).collect(),
        changing,
        purged: index(&metrics.purged),
        snapshot: index(&metrics.snapshot),
        initialised: metrics.last_log_index.is_some() || last_log.is_some(),
        replication,
        stopped: metrics.running_state.as_ref().err().map(ToString::to_string),
    }
}
