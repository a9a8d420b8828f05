//! What a node answers at its doors: one file a tarpc service, thin over [`NodeContext`].
//!
//! [`Doors`] is the [`Handler`] of the node's server: it knows who is there (the certificate says
//! so) and which door they came through, and serves the connection to its end.

mod admin;
mod admission;
mod join;
mod ministry;
mod node;
mod raft;

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use ministry_transport::server::{Handler, Incoming};
use ministry_transport::{Door, serve};
use ministry_wire::admin::Admin as _;
use ministry_wire::join::Join as _;
use ministry_wire::minister::Ministry as _;
use ministry_wire::node::Node as _;
use ministry_wire::raft::RaftDoor as _;

use crate::node::NodeContext;

pub(crate) use admission::Admission;

/// All doors of a node.
pub(crate) struct Doors {
    node: Arc<NodeContext>,
}

impl Doors {
    pub fn new(node: Arc<NodeContext>) -> Doors {
        Doors { node }
    }
}

impl Handler for Doors {
    fn handle(&self, incoming: Incoming) -> BoxFuture<'static, ()> {
        let node = Arc::clone(&self.node);
        async move {
            match incoming.door {
                Door::Join => {
                    let service = join::JoinService { node };
                    serve(incoming.stream, service.serve(), |s, c, r| {
                        tarpc::server::Serve::serve(s, c, r)
                    })
                    .await;
                }
                Door::Raft => {
                    let Some(from) = incoming.known_peer().node() else { return };
                    let service = raft::RaftService { node, from };
                    serve(incoming.stream, service.serve(), |s, c, r| {
                        tarpc::server::Serve::serve(s, c, r)
                    })
                    .await;
                }
                Door::Node => {
                    let Some(from) = incoming.known_peer().node() else { return };
                    let service = node::NodeService { node, from };
                    serve(incoming.stream, service.serve(), |s, c, r| {
                        tarpc::server::Serve::serve(s, c, r)
                    })
                    .await;
                }
                Door::Client => {
                    let peer = incoming.known_peer();
                    let service = ministry::MinistryService { node, peer };
                    serve(incoming.stream, service.serve(), |s, c, r| {
                        tarpc::server::Serve::serve(s, c, r)
                    })
                    .await;
                }
                Door::Admin => {
                    let service = admin::AdminService { node };
                    serve(incoming.stream, service.serve(), |s, c, r| {
                        tarpc::server::Serve::serve(s, c, r)
                    })
                    .await;
                }
                Door::Data => {
                    let peer = incoming.known_peer();
                    let storekeeper = Arc::clone(&node.storekeeper);
                    storekeeper.serve(peer, incoming.stream).await;
                }
            }
        }
        .boxed()
    }
}
