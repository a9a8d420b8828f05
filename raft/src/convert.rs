//! Between openraft's types and ours, which alone go to disk and over the wire.

use std::collections::{BTreeMap, BTreeSet};

use ministry_types::{LogIndex, LogPosition, NodeId, Term};
use ministry_wire::raft as mirror;
use openraft::vote::RaftVote as _;
use openraft::{EmptyNode, EntryPayload};

use crate::type_config::{
    Commands, Entry, LeaderId, LogId, Peer, RaftMembership, RaftStoredMembership, Vote,
};

/// A membership that came from outside is not one a group can have.
#[derive(Debug, Clone, thiserror::Error)]
#[error("not a membership: {0}")]
pub(crate) struct BadMembership(String);

pub(crate) fn position(id: &LogId) -> LogPosition {
    LogPosition {
        term: Term(id.leader_id.term),
        leader: id.leader_id.node_id.0,
        index: LogIndex(id.index),
    }
}

pub(crate) fn log_id(position: &LogPosition) -> LogId {
    let leader_id = LeaderId { term: position.term.0, node_id: Peer(position.leader) };
    LogId { leader_id, index: position.index.0 }
}

pub(crate) fn vote(vote: &Vote) -> mirror::Vote {
    let leader = vote.leader_id();
    mirror::Vote { term: Term(leader.term), node: leader.node_id.0, committed: vote.is_committed() }
}

pub(crate) fn raft_vote(vote: &mirror::Vote) -> Vote {
    let leader_id = LeaderId { term: vote.term.0, node_id: Peer(vote.node) };
    Vote::from_leader_id(leader_id, vote.committed)
}

fn nodes(peers: &BTreeSet<Peer>) -> BTreeSet<NodeId> {
    peers.iter().map(|peer| peer.0).collect()
}

pub(crate) fn membership(from: &RaftMembership) -> mirror::Membership {
    mirror::Membership {
        configs: from.get_joint_config().iter().map(nodes).collect(),
        learners: from.learner_ids().map(|peer| peer.0).collect(),
    }
}

pub(crate) fn raft_membership(from: &mirror::Membership) -> Result<RaftMembership, BadMembership> {
    let configs: Vec<BTreeSet<Peer>> =
        from.configs.iter().map(|set| set.iter().copied().map(Peer).collect()).collect();
    let everyone: BTreeMap<Peer, EmptyNode> = configs
        .iter()
        .flatten()
        .copied()
        .chain(from.learners.iter().copied().map(Peer))
        .map(|peer| (peer, EmptyNode {}))
        .collect();
    RaftMembership::new(configs, everyone).map_err(|error| BadMembership(error.to_string()))
}

pub(crate) fn stored_membership(from: &RaftStoredMembership) -> mirror::StoredMembership {
    mirror::StoredMembership {
        position: from.log_id().as_ref().map(position),
        membership: membership(from.membership()),
    }
}

pub(crate) fn raft_stored_membership(
    from: &mirror::StoredMembership,
) -> Result<RaftStoredMembership, BadMembership> {
    let membership = raft_membership(&from.membership)?;
    Ok(RaftStoredMembership::new(from.position.as_ref().map(log_id), membership))
}

pub(crate) fn entry(from: &Entry) -> mirror::Entry {
    let body = match &from.payload {
        EntryPayload::Blank => mirror::Body::Blank,
        EntryPayload::Normal(commands) => mirror::Body::Commands(commands.0.clone()),
        EntryPayload::Membership(change) => mirror::Body::Membership(membership(change)),
    };
    mirror::Entry { position: position(&from.log_id), body }
}

pub(crate) fn raft_entry(from: mirror::Entry) -> Result<Entry, BadMembership> {
    let payload = match from.body {
        mirror::Body::Blank => EntryPayload::Blank,
        mirror::Body::Commands(commands) => EntryPayload::Normal(Commands(commands)),
        mirror::Body::Membership(change) => EntryPayload::Membership(raft_membership(&change)?),
    };
    Ok(Entry { log_id: log_id(&from.position), payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    #[test]
    fn a_joint_membership_with_learners_goes_both_ways() {
        let from = mirror::Membership {
            configs: vec![[node(1), node(2)].into(), [node(2), node(3)].into()],
            learners: [node(4)].into(),
        };
        assert_eq!(membership(&raft_membership(&from).unwrap()), from);
        let none = mirror::Membership::default();
        assert_eq!(membership(&raft_membership(&none).unwrap()), none);
    }

    #[test]
    fn a_membership_with_an_empty_set_of_voters_is_refused() {
        let from =
            mirror::Membership { configs: vec![BTreeSet::new()], learners: [node(4)].into() };
        assert!(raft_membership(&from).is_err());
    }

    #[test]
    fn positions_are_ordered_here_as_openraft_orders_them() {
        let mut positions = Vec::new();
        for term in 0..3 {
            for leader in 0..3 {
                for index in 0..3 {
                    positions.push(LogPosition {
                        term: Term(term),
                        leader: node(leader),
                        index: LogIndex(index),
                    });
                }
            }
        }
        for a in &positions {
            for b in &positions {
                assert_eq!(a.cmp(b), log_id(a).cmp(&log_id(b)), "{a} and {b}");
            }
        }
    }
}
