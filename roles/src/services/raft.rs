//! The Raft door.

use std::sync::Arc;

use ministry_types::{GroupId, NodeId};
use ministry_wire::raft::{RaftDoor, RaftReply, RaftRequest};
use tarpc::context::Context;

use crate::node::NodeContext;

#[derive(Clone)]
pub(super) struct RaftService {
    pub node: Arc<NodeContext>,
    pub from: NodeId,
}

impl RaftDoor for RaftService {
    async fn call(self, _: Context, group: GroupId, request: RaftRequest) -> RaftReply {
        self.node.groups.handle(self.from, group, request).await
    }
}
