//! The nodes' door.

use std::sync::Arc;

use ministry_types::NodeId;
use ministry_types::government::NodeProfile;
use ministry_wire::node::{Appointment, Handover, Node, NodeRefusal, NodeReport, Ping};
use tarpc::context::Context;

use crate::node::NodeContext;

#[derive(Clone)]
pub(super) struct NodeService {
    pub node: Arc<NodeContext>,
    pub from: NodeId,
}

impl Node for NodeService {
    async fn ping(self, _: Context, ping: Ping) -> NodeReport {
        if ping.president == self.from {
            self.node.set_usage(ping.usage);
        }
        self.node.report()
    }

    async fn appoint(self, _: Context, appointment: Appointment) -> Result<(), NodeRefusal> {
        self.node.appoint(appointment).await
    }

    async fn hand_over(self, _: Context, step: Handover) -> Result<Vec<u8>, NodeRefusal> {
        self.node.hand_over(step).await
    }

    async fn register(
        self,
        _: Context,
        node: NodeId,
        profile: NodeProfile,
    ) -> Result<(), NodeRefusal> {
        if node != self.from {
            return Err(NodeRefusal::Failed("a node registers nobody but itself".to_owned()));
        }
        self.node.register_at_president(node, profile).await
    }
}
