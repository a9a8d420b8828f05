//! What the president's decisions are made from.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ministry_types::limits::SUSPECT_AFTER;
use ministry_types::{Epoch, MinistryId, NodeId};
use ministry_wire::node::{GroupReport, NodeReport};

use crate::government::{Government, Order};

/// A node as the president sees it: what it last answered, and how long ago.
#[derive(Debug, Clone)]
pub struct Sight {
    /// Its last answer.
    pub report: NodeReport,
    /// Time since that answer came.
    pub age: Duration,
}

/// Everything that a decision may look at. Decisions are pure functions of it, so that a thousand
/// of them are tested in a second, and history can be replayed.
#[derive(Debug)]
pub struct View<'a> {
    /// The president.
    pub me: NodeId,
    /// The state of the cluster log.
    pub government: &'a Government,
    /// Answers of the nodes.
    pub sights: &'a BTreeMap<NodeId, Sight>,
    /// How long this presidency has lasted: nobody is blamed for silence from before.
    pub presidency: Duration,
    /// For how long the appointment in force has not been seen to serve.
    pub unserved: &'a BTreeMap<MinistryId, Duration>,
}

impl View<'_> {
    /// How long the node has not answered.
    pub fn silence(&self, node: NodeId) -> Duration {
        self.sights.get(&node).map_or(self.presidency, |sight| sight.age.min(self.presidency))
    }

    /// Whether the node has answered within [`SUSPECT_AFTER`].
    pub fn answers(&self, node: NodeId) -> bool {
        self.sights.contains_key(&node) && self.silence(node) < SUSPECT_AFTER
    }

    /// How the ministry stands at a node that answers.
    pub fn group(&self, node: NodeId, ministry: MinistryId) -> Option<&GroupReport> {
        let sight = self.sights.get(&node).filter(|_| self.answers(node))?;
        sight.report.groups.iter().find(|report| report.group == ministry.group())
    }

    /// Whether the node serves the ministry under this epoch.
    pub fn serves(&self, node: NodeId, ministry: MinistryId, epoch: Epoch) -> bool {
        self.group(node, ministry).is_some_and(|report| report.serving == Some(epoch))
    }

    /// Nodes that answer.
    pub fn answering(&self) -> BTreeSet<NodeId> {
        self.sights.keys().copied().filter(|node| self.answers(*node)).collect()
    }
}

/// An order with its reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// What.
    pub order: Order,
    /// Why: a sentence for `ministryctl events`.
    pub reason: String,
}

/// All that is due now, in the order in which it should be given.
pub fn plan(view: &View<'_>) -> Vec<Decision> {
    let mut decisions = super::census::plan(view);
    decisions.extend(super::electors::plan(view));
    decisions.extend(super::placement::plan(view));
    decisions.extend(super::appointments::plan(view));
    decisions
}
