//! What the master sends to the other members.
//!
//! [`super::job`] calls [`forward`] for each in-sync member at once. It sends the request until
//! the member has an answer, over broken connections and restarts of the member; only a change of
//! the placement group or the end of the storekeeper ends it earlier. Copies that arrive twice do
//! no harm: nothing later about the same bytes begins before this one is through.
//!
//! What must always hold: what is kept for a member that does not answer is bounded
//! ([`BACKLOG_BYTES_MAX`]), so that one dead member does not take the memory that the placement
//! groups without it need.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use ministry_types::NodeId;
use ministry_types::limits::BLOCK_BYTES;
use ministry_wire::data::{DataError, DataOutcome, DataRequest};
use parking_lot::Mutex;

use super::Office;

/// Bytes of changes that one member lacks and does not take; with more, new ones are refused.
const BACKLOG_BYTES_MAX: u64 = 8 << 20;
/// Waits between two tries, the last one again and again.
const BACKOFFS: [Duration; 4] = [
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(60),
    Duration::from_millis(150),
];
/// One try; a connection that is silent is found much earlier.
const TRY_TIMEOUT: Duration = Duration::from_secs(30);

/// What members lack that do not answer.
#[derive(Debug, Default)]
pub(super) struct Backlogs {
    bytes: Mutex<BTreeMap<NodeId, u64>>,
}

impl Backlogs {
    /// A member that has as much to catch up with as may be.
    pub(super) fn full(&self, members: &[NodeId]) -> Option<NodeId> {
        let bytes = self.bytes.lock();
        let full = |node: &NodeId| bytes.get(node).is_some_and(|held| *held >= BACKLOG_BYTES_MAX);
        members.iter().copied().find(full)
    }

    fn hold(&self, node: NodeId, payload: usize) -> Held<'_> {
        // Without a payload it still takes memory.
        let size = payload as u64 + BLOCK_BYTES as u64;
        *self.bytes.lock().entry(node).or_default() += size;
        Held { backlogs: self, node, size }
    }
}

/// A change that a member does not take at present.
struct Held<'a> {
    backlogs: &'a Backlogs,
    node: NodeId,
    size: u64,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut bytes = self.backlogs.bytes.lock();
        let held = bytes.get_mut(&self.node).expect("what is held was counted");
        *held -= self.size;
        if *held == 0 {
            bytes.remove(&self.node);
        }
    }
}

/// The members that have not answered yet, for the person who asks what a write waits for.
#[derive(Debug)]
pub(super) struct Missing {
    nodes: Mutex<Vec<(NodeId, Option<String>)>>,
}

impl Missing {
    pub(super) fn new(nodes: &[NodeId]) -> Missing {
        Missing { nodes: Mutex::new(nodes.iter().map(|node| (*node, None)).collect()) }
    }

    fn note(&self, node: NodeId, reason: String) {
        let mut nodes = self.nodes.lock();
        if let Some((_, last)) = nodes.iter_mut().find(|(missing, _)| *missing == node) {
            *last = Some(reason);
        }
    }

    fn done(&self, node: NodeId) {
        self.nodes.lock().retain(|(missing, _)| *missing != node);
    }

    /// Who, and why as far as it is known.
    pub(super) fn text(&self) -> String {
        let nodes = self.nodes.lock();
        if nodes.is_empty() {
            return "the master's own disk".to_owned();
        }
        let word = |(node, reason): &(NodeId, Option<String>)| match reason {
            Some(reason) => reason.clone(),
            None => format!("node {} has not answered yet", node.short()),
        };
        nodes.iter().map(word).collect::<Vec<_>>().join("; ")
    }
}

/// Sends the request to a member until it is answered.
pub(super) async fn forward(
    office: &Office,
    node: NodeId,
    request: &DataRequest,
    payload: &Bytes,
    missing: &Missing,
) -> Result<DataOutcome, DataError> {
    let mut backoffs = BACKOFFS.iter();
    let mut pause = BACKOFFS[0];
    let mut held = None;
    let request = DataRequest { forwarded: true, ..request.clone() };
    loop {
        let map = office.map();
        let current = map.pgs.get(request.pg).map(|group| group.epoch).unwrap_or_default();
        if current != request.epoch {
            return Err(DataError::WrongEpoch { current });
        }
        let reason = match map.address(node) {
            None => format!("node {} is not known", node.short()),
            Some(address) => {
                let sent = office.streams.request(
                    node,
                    address,
                    request.clone(),
                    payload.clone(),
                    TRY_TIMEOUT,
                );
                match sent.await.map(|(reply, _)| reply.result) {
                    Ok(Err(error)) if is_passing(&error, &request) => {
                        format!("node {}: {error}", node.short())
                    }
                    Ok(result) => {
                        missing.done(node);
                        return result;
                    }
                    Err(error) => error.to_string(),
                }
            }
        };
        missing.note(node, reason);
        held.get_or_insert_with(|| office.backlogs.hold(node, payload.len()));
        pause = backoffs.next().copied().unwrap_or(pause);
        tokio::time::sleep(pause).await;
    }
}

/// Whether a member's refusal passes with time, so that the request is sent again.
fn is_passing(error: &DataError, request: &DataRequest) -> bool {
    match error {
        DataError::Busy | DataError::Waiting(_) => true,
        // Damaged between the master, which found it whole, and the member.
        DataError::ChecksumMismatch => true,
        // Its map is older than ours.
        DataError::WrongEpoch { current } => *current <= request.epoch,
        DataError::StaleTruncate { .. }
        | DataError::Purged
        | DataError::Damaged { .. }
        | DataError::NoSpace
        | DataError::Disk(_)
        | DataError::Invalid(_) => false,
    }
}
