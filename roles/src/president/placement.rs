//! Where the first ministry and the placement groups go.

use std::collections::BTreeSet;

use ministry_types::limits::{MINISTRY_MEMBERS, PLACEMENT_GROUPS, REPLICAS};
use ministry_types::placement::{Candidate, members};
use ministry_types::{InodeId, MinistryId, NodeId, PgId};

use super::view::{Decision, View};
use crate::government::Order;

/// Lays out the root ministry and the placement groups once the nodes that were announced at the
/// founding answer. Placement groups stay where they are afterwards: moving data to nodes that
/// come later is not built yet.
pub fn plan(view: &View<'_>) -> Vec<Decision> {
    let government = view.government;
    let answering = view.answering();
    let wanted = (government.initial_nodes() as usize).max(MINISTRY_MEMBERS);
    if !government.is_founded() || answering.len() < wanted {
        return Vec::new();
    }
    let mut decisions = Vec::new();
    if government.pgs().groups.is_empty() {
        decisions.extend(lay_out_groups(view, &answering));
    }
    if government.ministries().is_empty()
        && let Some(chosen) = choose_members(view)
    {
        let order = Order::CreateMinistry {
            ministry: MinistryId::ROOT,
            members: chosen,
            root: InodeId::ROOT,
            path: "/".to_owned(),
        };
        let reason = format!("{} of {wanted} announced nodes answer", answering.len());
        decisions.push(Decision { order, reason });
    }
    decisions
}

fn lay_out_groups(view: &View<'_>, answering: &BTreeSet<NodeId>) -> Option<Decision> {
    let candidates: Vec<Candidate> = view
        .government
        .nodes()
        .filter(|(node, profile, _)| profile.storage_weight > 0.0 && answering.contains(node))
        .map(|(node, profile, _)| Candidate {
            node,
            failure_domain: profile.failure_domain.clone(),
            weight: profile.storage_weight,
        })
        .collect();
    if candidates.len() < REPLICAS {
        return None;
    }
    let groups = (0..PLACEMENT_GROUPS).map(|pg| members(PgId(pg), &candidates, REPLICAS)).collect();
    let domains: BTreeSet<_> = candidates.iter().map(|c| &c.failure_domain).collect();
    let reason = format!(
        "weighted rendezvous hashing over {} storage nodes in {} failure domains, {REPLICAS} \
         replicas",
        candidates.len(),
        domains.len()
    );
    Some(Decision { order: Order::SetPlacement { groups }, reason })
}

/// Members for a new ministry: nodes that answer and offer metadata, those with the fewest offices
/// first (so the idle ones), from distinct failure domains while there are enough, the president
/// last. `None` when fewer than [`MINISTRY_MEMBERS`] can be had.
pub fn choose_members(view: &View<'_>) -> Option<Vec<NodeId>> {
    let answering = view.answering();
    let offices = |node: NodeId| {
        view.government.ministries().values().filter(|m| m.members.contains(&node)).count()
    };
    let mut candidates: Vec<_> = view
        .government
        .nodes()
        .filter(|(node, profile, _)| profile.offers_metadata && answering.contains(node))
        .map(|(node, profile, _)| (offices(node), node == view.me, node, &profile.failure_domain))
        .collect();
    candidates.sort();
    let mut domains = BTreeSet::new();
    let (first, rest): (Vec<_>, Vec<_>) =
        candidates.into_iter().partition(|(_, _, _, domain)| domains.insert(*domain));
    let chosen: Vec<NodeId> =
        first.into_iter().chain(rest).take(MINISTRY_MEMBERS).map(|(_, _, node, _)| node).collect();
    (chosen.len() == MINISTRY_MEMBERS).then_some(chosen)
}
