//! What the health page says of a node: pure.

use ministry_roles::node::NodeStatus;
use ministry_telemetry::http::{Health, Office};
use ministry_types::NodeId;

/// Before the node has started.
pub fn starting(node: NodeId) -> Health {
    not_running(node, "the node is starting")
}

/// Once a signal has come.
pub fn stopping(node: NodeId) -> Health {
    not_running(node, "the node is stopping")
}

fn not_running(node: NodeId, reason: &str) -> Health {
    Health {
        healthy: false,
        node: node.to_string(),
        role: "idle".to_owned(),
        president: None,
        ministries: Vec::new(),
        reason: Some(reason.to_owned()),
    }
}

/// Of a node that runs.
pub fn of(status: &NodeStatus) -> Health {
    let office = |(id, serving): (&ministry_types::MinistryId, &Option<ministry_types::Epoch>)| {
        let role = if serving.is_some() { "minister" } else { "clerk" };
        Office { ministry: id.0, role: role.to_owned(), serving: serving.is_some() }
    };
    let ministries: Vec<Office> = status.ministries.iter().map(office).collect();
    let role = if status.president {
        "president"
    } else if ministries.iter().any(|office| office.serving) {
        "minister"
    } else if ministries.is_empty() {
        "idle"
    } else {
        "clerk"
    };
    let reason = if status.known_president.is_none() {
        Some("no president is known: no majority of the electors answers")
    } else if !status.registered {
        Some("the node is not registered at the president yet")
    } else {
        None
    };
    Health {
        healthy: reason.is_none(),
        node: status.node.to_string(),
        role: role.to_owned(),
        president: status.known_president.map(|president| president.to_string()),
        ministries,
        reason: reason.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ministry_types::{Epoch, MinistryId};

    use super::*;

    fn status() -> NodeStatus {
        NodeStatus {
            node: NodeId([1; 32]),
            president: false,
            known_president: Some(NodeId([2; 32])),
            registered: true,
            ministries: BTreeMap::from([(MinistryId(1), None), (MinistryId(2), Some(Epoch(3)))]),
        }
    }

    #[test]
    fn the_highest_office_is_the_role() {
        assert_eq!(of(&status()).role, "minister");
        assert_eq!(of(&NodeStatus { president: true, ..status() }).role, "president");
        let idle = NodeStatus { ministries: BTreeMap::new(), ..status() };
        assert_eq!(of(&idle).role, "idle");
    }

    #[test]
    fn a_node_without_a_president_says_why_it_is_not_healthy() {
        assert!(of(&status()).healthy);
        let alone = of(&NodeStatus { known_president: None, ..status() });
        assert!(!alone.healthy && alone.reason.unwrap().contains("president"));
    }
}
