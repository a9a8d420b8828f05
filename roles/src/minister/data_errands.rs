//! Cuts and purges that a minister carries to the storage nodes in the background.
//!
//! Every data operation of a client carries the cuts that storage has not confirmed, so nothing
//! waits for these errands: they let the ministry forget the cuts, and give the room of removed
//! files back. Each can be repeated; what could not be done stays in the ministry's state.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ministry_namespace::{PendingPurge, PendingTruncate};
use ministry_transport::data_stream::DataStreams;
use ministry_types::government::ClusterMap;
use ministry_types::limits::ATTEMPT_TIMEOUT;
use ministry_types::{ChunkNumber, InodeId, PgId, TruncateMark};
use ministry_wire::data::{DataAction, DataError, DataRequest, DataSource};

/// Chunks of a file by their placement group: one chunk for each group that may hold any.
fn groups(
    map: &ClusterMap,
    inode: InodeId,
    chunk_bytes: u64,
    data_end: u64,
) -> Option<BTreeMap<PgId, ChunkNumber>> {
    let chunks = data_end.div_ceil(chunk_bytes.max(1)).max(1);
    let mut groups = BTreeMap::new();
    for chunk in 0..chunks {
        groups.entry(map.pgs.group_of(inode, chunk)?).or_insert(chunk);
        // Every group is concerned already: further chunks add none.
        if groups.len() == map.pgs.groups.len() {
            break;
        }
    }
    Some(groups)
}

/// The way to the masters of placement groups.
#[derive(Clone)]
pub(super) struct DataErrands {
    pub map: Arc<ClusterMap>,
    pub data: Arc<DataStreams>,
}

impl DataErrands {
    /// Whether all storage nodes concerned have purged the inode.
    pub async fn purge(&self, purge: &PendingPurge) -> bool {
        let (inode, chunk_bytes) = (purge.inode, purge.chunk_bytes);
        let Some(groups) = groups(&self.map, inode, chunk_bytes, purge.data_end) else {
            return false;
        };
        for pg in groups.into_keys() {
            if !self.ask(pg, inode, Vec::new(), DataAction::Purge).await {
                return false;
            }
        }
        true
    }

    /// Whether all storage nodes concerned have made the cuts.
    pub async fn truncate(&self, pending: &PendingTruncate) -> bool {
        let (inode, chunk_bytes) = (pending.inode, pending.chunk_bytes);
        let Some(groups) = groups(&self.map, inode, chunk_bytes, pending.data_end) else {
            return false;
        };
        for (pg, chunk) in groups {
            let action = DataAction::Truncate { chunk, chunk_bytes };
            if !self.ask(pg, inode, pending.truncates.clone(), action).await {
                return false;
            }
        }
        true
    }

    async fn ask(
        &self,
        pg: PgId,
        inode: InodeId,
        truncates: Vec<TruncateMark>,
        action: DataAction,
    ) -> bool {
        let Some(group) = self.map.pgs.get(pg) else { return false };
        let Some(master) = group.master() else { return false };
        let Some(address) = self.map.address(master) else { return false };
        let word = action.word();
        let request = DataRequest {
            id: 0,
            source: DataSource::default(),
            pg,
            epoch: group.epoch,
            inode,
            truncates,
            forwarded: false,
            action,
        };
        match self.data.request(master, address, request, Bytes::new(), ATTEMPT_TIMEOUT).await {
            // A later cut, or the purge, covers what was asked.
            Ok((reply, _)) => match reply.result {
                Ok(_) | Err(DataError::Purged | DataError::StaleTruncate { .. }) => true,
                Err(error) => {
                    tracing::debug!(%inode, word, %error, "storage refused; it is asked again");
                    false
                }
            },
            Err(error) => {
                tracing::debug!(%inode, word, %error, "storage is out of reach; asked again");
                false
            }
        }
    }
}
