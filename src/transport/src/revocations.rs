//! Whose certificates count no longer.
//!
//! The cluster log holds the list; whoever follows the log sets it here. [`crate::server`] and
//! [`crate::dial`] ask it at every handshake, and connections that stand end when their peer is
//! put on it: revocation acts at once, not at the next handshake.

use std::collections::BTreeSet;
use std::sync::Arc;

use ministry_types::{ClientId, NodeId};
use ministry_wire::hello::Subject;
use tokio::sync::watch;

/// The revoked ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RevokedIds {
    /// Nodes.
    pub nodes: BTreeSet<NodeId>,
    /// Clients and operators.
    pub clients: BTreeSet<ClientId>,
}

impl RevokedIds {
    /// Whether this holder is revoked.
    pub fn contains(&self, subject: Subject) -> bool {
        match subject {
            Subject::Node(id) => self.nodes.contains(&id),
            Subject::Client(id) | Subject::Operator(id) => self.clients.contains(&id),
        }
    }
}

/// The list, shared by everything that checks it.
#[derive(Debug, Clone)]
pub struct Revocations {
    list: Arc<watch::Sender<Arc<RevokedIds>>>,
}

impl Default for Revocations {
    fn default() -> Revocations {
        Revocations { list: Arc::new(watch::Sender::new(Arc::default())) }
    }
}

impl Revocations {
    /// Replaces the list.
    pub fn set(&self, ids: RevokedIds) {
        self.list.send_if_modified(|current| {
            let changed = **current != ids;
            if changed {
                *current = Arc::new(ids);
            }
            changed
        });
    }

    /// Whether this holder is revoked.
    pub fn contains(&self, subject: Subject) -> bool {
        self.list.borrow().contains(subject)
    }

    /// Returns when this holder is revoked, which may be never.
    ///
    /// Cancel safety: safe.
    pub async fn revoked(&self, subject: Subject) {
        let mut changes = self.list.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let seen = changes.wait_for(|ids| ids.contains(subject)).await;
        assert!(seen.is_ok(), "the list outlives those who watch it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_revocation_wakes_who_waits_for_it_and_nobody_else() {
        let revocations = Revocations::default();
        let (bad, good) = (Subject::Node(NodeId([1; 32])), Subject::Node(NodeId([2; 32])));
        assert!(!revocations.contains(bad));
        let mut bad_waits = std::pin::pin!(revocations.revoked(bad));
        let mut good_waits = std::pin::pin!(revocations.revoked(good));
        assert!(futures::poll!(bad_waits.as_mut()).is_pending());
        let nodes = BTreeSet::from([NodeId([1; 32])]);
        revocations.set(RevokedIds { nodes, clients: BTreeSet::new() });
        bad_waits.await;
        assert!(futures::poll!(good_waits.as_mut()).is_pending());
        assert!(revocations.contains(bad) && !revocations.contains(good));
    }
}
