//! The network as the Raft groups see it: tarpc calls over kept connections at the Raft door.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use ministry_raft::{NetworkError, RaftNetwork};
use ministry_transport::{CallError, Door, Peers, Target};
use ministry_types::government::ClusterMap;
use ministry_types::{GroupId, NodeId};
use ministry_wire::raft::{RaftDoorClient, RaftReply, RaftRequest};
use tokio::sync::watch;

/// Calls other members by the addresses of the cluster map.
pub struct PeerNetwork {
    peers: Peers,
    map: watch::Receiver<Arc<ClusterMap>>,
}

impl PeerNetwork {
    /// Over these connections.
    pub fn new(peers: Peers, map: watch::Receiver<Arc<ClusterMap>>) -> PeerNetwork {
        PeerNetwork { peers, map }
    }
}

impl RaftNetwork for PeerNetwork {
    fn call(
        &self,
        to: NodeId,
        group: GroupId,
        request: RaftRequest,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<RaftReply, NetworkError>> {
        let address = self.map.borrow().address(to);
        let peers = self.peers.clone();
        async move {
            let Some(address) = address else {
                return Err(NetworkError::Unreachable("its address is not known".to_owned()));
            };
            let call = peers.call(
                Target::node(to, address),
                Door::Raft,
                timeout,
                |client: RaftDoorClient, context| async move {
                    client.call(context, group, request).await
                },
            );
            call.await.map_err(|error| match error {
                CallError::TimedOut { .. } => NetworkError::TimedOut,
                error if error.was_not_done() => NetworkError::Unreachable(error.to_string()),
                error => NetworkError::Broken(error.to_string()),
            })
        }
        .boxed()
    }
}
