//! Which storage nodes hold which chunk: computed, never looked up per file.
//!
//! A chunk belongs to a placement group by a hash of (inode, chunk number). The members of a group
//! come from weighted rendezvous hashing over the failure domains of the nodes (Thaler and
//! Ravishankar, 1998; the weighted form of Schindelhauer and Schomaker, 2005): each node draws a
//! score from (group, node) and its weight, the best node of each of the best domains wins. When a
//! node comes or goes only the groups that it wins or held change.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::fencing::Epoch;
use crate::ids::{InodeId, NodeId, PgId};
use crate::layout::ChunkNumber;

/// One placement group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementGroup {
    /// Raised with each change of the members, the order or the in-sync set.
    pub epoch: Epoch,
    /// The members in order: the first is the master, the others are slaves.
    pub members: Vec<NodeId>,
    /// The members that have every acknowledged write.
    pub in_sync: BTreeSet<NodeId>,
}

impl PlacementGroup {
    /// The member that orders the writes.
    pub fn master(&self) -> Option<NodeId> {
        self.members.first().copied()
    }
}

/// All placement groups of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct PgMap {
    /// Indexed by [`PgId`]; the length is a power of two, or 0 before there are enough nodes.
    pub groups: Vec<PlacementGroup>,
}

impl PgMap {
    /// The group of a chunk; `None` while there are no groups.
    pub fn group_of(&self, inode: InodeId, chunk: ChunkNumber) -> Option<PgId> {
        let count = self.groups.len() as u64;
        // A mask, so that doubling the groups splits each one in place.
        (count > 0).then(|| PgId((mix(mix(inode.0) ^ chunk) & (count - 1)) as u32))
    }

    /// A group by number.
    pub fn get(&self, pg: PgId) -> Option<&PlacementGroup> {
        self.groups.get(pg.0 as usize)
    }
}

/// A node that may hold data.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Which node.
    pub node: NodeId,
    /// Where it stands, for example `rack1/host3`: nodes of one label fail together.
    pub failure_domain: String,
    /// Its share; larger is more. Not positive: none.
    pub weight: f64,
}

/// The `replicas` members of a group, master first: from distinct failure domains while there are
/// enough of them, then from distinct nodes. Fewer when there are fewer candidates.
pub fn members(pg: PgId, candidates: &[Candidate], replicas: usize) -> Vec<NodeId> {
    let mut scored: Vec<(f64, &Candidate)> = candidates
        .iter()
        .filter(|candidate| candidate.weight > 0.0)
        .map(|candidate| (score(pg, candidate), candidate))
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.node.cmp(&b.1.node)));
    let mut domains = BTreeSet::new();
    let (first, rest): (Vec<_>, Vec<_>) =
        scored.iter().partition(|(_, candidate)| domains.insert(candidate.failure_domain.as_str()));
    first.into_iter().chain(rest).take(replicas).map(|(_, candidate)| candidate.node).collect()
}

/// The node's draw for the group: `-weight / ln(u)` with `u` uniform in (0, 1).
fn score(pg: PgId, candidate: &Candidate) -> f64 {
    let mut hash = mix(u64::from(pg.0).wrapping_add(0x9e37_79b9_7f4a_7c15));
    for part in candidate.node.0.chunks_exact(8) {
        hash = mix(hash ^ u64::from_le_bytes(part.try_into().expect("eight bytes")));
    }
    let uniform = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -candidate.weight / uniform.ln()
}

/// The finaliser of SplitMix64: every bit of the input moves half the bits of the output. Part of
/// the format: data is found by it.
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(count: u8, domains: u8) -> Vec<Candidate> {
        (0..count)
            .map(|i| Candidate {
                node: NodeId([i; 32]),
                failure_domain: format!("rack{}", i % domains),
                weight: 1.0,
            })
            .collect()
    }

    #[test]
    fn replicas_stand_in_distinct_domains_while_there_are_enough() {
        let nodes = candidates(9, 3);
        for pg in 0..200 {
            let chosen = members(PgId(pg), &nodes, 3);
            let domains: BTreeSet<_> = chosen.iter().map(|node| node.0[0] % 3).collect();
            assert_eq!(domains.len(), 3);
        }
        assert_eq!(members(PgId(0), &candidates(5, 1), 3).len(), 3);
        assert_eq!(members(PgId(0), &candidates(2, 2), 3).len(), 2);
    }

    #[test]
    fn a_lost_node_moves_only_the_groups_it_held() {
        let all = candidates(7, 7);
        let fewer: Vec<_> = all.iter().filter(|c| c.node.0[0] != 3).cloned().collect();
        for pg in 0..200 {
            let before = members(PgId(pg), &all, 3);
            let after = members(PgId(pg), &fewer, 3);
            if !before.contains(&NodeId([3; 32])) {
                assert_eq!(before, after);
            }
        }
    }

    #[test]
    fn shares_follow_the_weights() {
        let mut nodes = candidates(4, 4);
        nodes[0].weight = 3.0;
        let won = (0..6_000).filter(|pg| members(PgId(*pg), &nodes, 1)[0] == nodes[0].node).count();
        assert!((2_800..3_200).contains(&won), "half of 6,000 expected, got {won}");
    }
}
