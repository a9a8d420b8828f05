//! Who votes in the cluster log.

use std::collections::BTreeSet;

use ministry_types::NodeId;
use ministry_types::limits::ELECTORS_MAX;

use super::view::{Decision, View};
use crate::government::Order;

/// Raises the number of electors to the largest odd number that the answering nodes allow, at
/// most [`ELECTORS_MAX`]. It never removes one: an elector that is down still counts in the
/// majority, and taking it out because it is silent is what splits a brain.
pub fn plan(view: &View<'_>) -> Option<Decision> {
    let mut present = view.government.electors().clone();
    let answering = view.answering();
    let registered: BTreeSet<NodeId> = view
        .government
        .nodes()
        .map(|(node, _, _)| node)
        .filter(|n| answering.contains(n))
        .collect();
    if present.is_empty() {
        // The founder votes already. Electors without it would depose it before anybody knows its
        // address, and it would never hear of it.
        if !registered.contains(&view.me) {
            return None;
        }
        present.insert(view.me);
    }
    let possible = present.union(&registered).count().min(ELECTORS_MAX);
    // The largest odd number: an even one survives no more losses.
    let target = possible.saturating_sub(1) | 1;
    if view.government.electors().len() >= target {
        return None;
    }
    let mut electors = present;
    for node in registered {
        if electors.len() < target {
            electors.insert(node);
        }
    }
    let reason = format!(
        "{} nodes answer, so {} electors survive the loss of {}; there were {}",
        answering.len(),
        electors.len(),
        electors.len() / 2,
        view.government.electors().len(),
    );
    Some(Decision { order: Order::SetElectors { electors }, reason })
}
