//! The clients' door.

use std::sync::Arc;
use std::time::Duration;

use ministry_transport::PeerIdentity;
use ministry_types::government::ClusterMap;
use ministry_types::limits::OPERATION_TIMEOUT;
use ministry_types::locks::LockProgress;
use ministry_types::{ClientId, Epoch, FsError, InodeId, MapVersion, MinistryId, SessionId};
use ministry_wire::hello::Subject;
use ministry_wire::minister::{
    AppendTurn, AwaitLockRequest, ChangeReply, ChangeRequest, FsUsage, KeepAliveReply,
    KeepAliveRequest, Ministry, QueryReply, QueryRequest, ReclaimRequest, Refusal,
};
use tarpc::context::Context;
use tokio::time::timeout;

use crate::minister::Office;
use crate::node::NodeContext;
use crate::services::admission::{answer_bytes, change_bytes};

#[derive(Clone)]
pub(super) struct MinistryService {
    pub node: Arc<NodeContext>,
    pub peer: PeerIdentity,
}

impl MinistryService {
    /// Whose session it is: sessions belong to the certificate they were opened with.
    fn client(&self) -> ClientId {
        match self.peer.subject {
            Subject::Client(id) | Subject::Operator(id) => id,
            Subject::Node(id) => {
                let mut client = ClientId::default();
                let length = client.0.len();
                client.0.copy_from_slice(&id.0[..length]);
                client
            }
        }
    }

    fn office(&self, ministry: MinistryId) -> Result<Arc<Office>, Refusal> {
        self.node.office(ministry).ok_or_else(|| {
            let map = self.node.government.map();
            let map = map.borrow();
            let entry = map.ministries.get(&ministry);
            Refusal::NotMinister {
                ministry,
                epoch: entry.map_or(Epoch(0), |entry| entry.epoch),
                hint: entry.and_then(|entry| entry.minister),
            }
        })
    }
}

/// Counts what is refused for want of room, here or further in. The requests come in boxes: the future of a connection's request is moved
/// several times, and is as large as the largest of these.
async fn counted<T>(request: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    let result = request.await;
    if matches!(result, Err(Refusal::Busy { .. })) {
        metrics::counter!("ministry_minister_busy_total").increment(1);
    }
    result
}

impl Ministry for MinistryService {
    async fn map(self, _: Context, known: MapVersion, wait: Duration) -> Option<ClusterMap> {
        let mut map = self.node.government.map();
        let newer = map.wait_for(|map| map.version > known);
        match timeout(wait.min(OPERATION_TIMEOUT), newer).await {
            Ok(Ok(map)) => Some(ClusterMap::clone(&map)),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    async fn open_session(
        self,
        _: Context,
        ministry: MinistryId,
        session: SessionId,
    ) -> Result<KeepAliveReply, Refusal> {
        self.office(ministry)?.open_session(session, self.client()).await
    }

    async fn close_session(
        self,
        _: Context,
        ministry: MinistryId,
        session: SessionId,
    ) -> Result<(), Refusal> {
        self.office(ministry)?.close_session(session, self.client()).await
    }

    async fn keep_alive(
        self,
        _: Context,
        request: KeepAliveRequest,
    ) -> Result<KeepAliveReply, Refusal> {
        self.office(request.ministry)?.keep_alive(request, self.client()).await
    }

    async fn change(self, _: Context, request: ChangeRequest) -> Result<ChangeReply, Refusal> {
        counted(Box::pin(async {
            let _room = self.node.admission.admit(change_bytes(&request.operation))?;
            self.office(request.ministry)?.change(request, self.client()).await
        }))
        .await
    }

    async fn query(self, _: Context, request: QueryRequest) -> Result<QueryReply, Refusal> {
        counted(Box::pin(async {
            let _room = self.node.admission.admit(answer_bytes(&request.query))?;
            self.office(request.ministry)?.query(request, self.client()).await
        }))
        .await
    }

    async fn usage(self, _: Context) -> Option<FsUsage> {
        self.node.usage()
    }

    async fn reclaim(self, _: Context, request: ReclaimRequest) -> Result<(), Refusal> {
        self.office(request.ministry)?.reclaim(request, self.client()).await
    }

    async fn append_turn(
        self,
        _: Context,
        ministry: MinistryId,
        session: SessionId,
        inode: InodeId,
    ) -> Result<Result<AppendTurn, FsError>, Refusal> {
        self.office(ministry)?.append_turn(session, inode, self.client()).await
    }

    async fn end_turn(
        self,
        _: Context,
        ministry: MinistryId,
        session: SessionId,
        inode: InodeId,
        turn: u64,
    ) -> Result<(), Refusal> {
        self.office(ministry)?.end_turn(session, inode, turn, self.client()).await
    }

    async fn await_lock(
        self,
        _: Context,
        request: AwaitLockRequest,
    ) -> Result<LockProgress, Refusal> {
        self.office(request.ministry)?.await_lock(request, self.client()).await
    }
}
