//! How a node comes into the cluster log: it tells the president its profile until the log shows
//! it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ministry_transport::{Door, Target};
use ministry_types::NodeId;
use ministry_types::government::NodeProfile;
use ministry_types::limits::ATTEMPT_TIMEOUT;
use ministry_wire::node::{NodeClient, NodeRefusal};

use super::NodeContext;
use crate::government::{Order, OrderReply};

/// Between two tries to register.
const REGISTER_AGAIN: Duration = Duration::from_millis(100);

impl NodeContext {
    /// Writes a node down, if this node is the president.
    pub async fn register_at_president(
        &self,
        node: NodeId,
        profile: NodeProfile,
    ) -> Result<(), NodeRefusal> {
        let hint = self.cluster.status().leader;
        if !self.is_president() || !self.government.government().is_founded() {
            return Err(NodeRefusal::NotPresident { hint });
        }
        let reason = "the node registered".to_owned();
        match self.order(Order::Register { node, profile }, reason).await {
            Ok(OrderReply::Refused(why)) => Err(NodeRefusal::Failed(why)),
            Ok(_) => Ok(()),
            Err(_) => Err(NodeRefusal::NotPresident { hint: None }),
        }
    }

    pub(super) fn is_registered(&self) -> bool {
        let map = self.government.map();
        let map = map.borrow();
        map.nodes.get(&self.me).is_some_and(|entry| entry.profile == self.profile)
    }

    /// Registers this node until the cluster log shows its profile.
    pub(super) async fn register(self: Arc<Self>) {
        let mut hint: Option<NodeId> = None;
        while !self.is_registered() {
            if self.is_president() {
                let written = self.register_at_president(self.me, self.profile.clone()).await;
                if let Err(refusal) = written {
                    tracing::debug!(%refusal, "not registered yet");
                }
            } else {
                hint = self.register_elsewhere(hint).await;
            }
            tokio::time::sleep(REGISTER_AGAIN).await;
        }
        tracing::info!("this node is registered");
    }

    /// Asks every known address once; answers who the president is said to be.
    async fn register_elsewhere(&self, hint: Option<NodeId>) -> Option<NodeId> {
        let map = self.government.map().borrow().clone();
        let hinted = hint.and_then(|node| map.address(node));
        let known = map.nodes.values().map(|entry| entry.profile.address);
        let own = self.profile.address;
        let mut asked = BTreeSet::new();
        let mut heard = None;
        for address in hinted.into_iter().chain(self.seeds.iter().copied()).chain(known) {
            if address == own || !asked.insert(address) {
                continue;
            }
            let (me, profile) = (self.me, self.profile.clone());
            let call =
                self.peers.call(
                    Target::any(address),
                    Door::Node,
                    ATTEMPT_TIMEOUT,
                    |client: NodeClient, context| async move {
                        client.register(context, me, profile).await
                    },
                );
            match call.await {
                Ok(Ok(())) => return heard,
                Ok(Err(NodeRefusal::NotPresident { hint })) => heard = hint.or(heard),
                Ok(Err(refusal)) => tracing::warn!(%address, %refusal, "not registered"),
                Err(error) => tracing::debug!(%address, %error, "not registered"),
            }
        }
        heard
    }
}
