//! Which nodes answer: recorded so that everybody knows, with the silence as the reason.

use std::time::Duration;

use ministry_types::government::NodeCondition;

use super::view::{Decision, View};
use crate::government::Order;

/// A node is written down as down after this much silence. Longer than what replaces a minister:
/// that must be quick, this must not flap.
pub const DOWN_AFTER: Duration = Duration::from_secs(3);

/// Changes of condition that are due.
pub fn plan(view: &View<'_>) -> Vec<Decision> {
    let mut decisions = Vec::new();
    for (node, _, condition) in view.government.nodes() {
        let silence = view.silence(node);
        let (condition, reason) = match condition {
            NodeCondition::Alive if silence >= DOWN_AFTER => (
                NodeCondition::Down,
                format!("it has not answered the president for {:.1} s", silence.as_secs_f64()),
            ),
            NodeCondition::Down if view.answers(node) => {
                (NodeCondition::Alive, "it answers the president again".to_owned())
            }
            _ => continue,
        };
        decisions.push(Decision { order: Order::SetNodeCondition { node, condition }, reason });
    }
    decisions
}
