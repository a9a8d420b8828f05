//! The queue of one group's proposals.
//!
//! A proposal is put into the queue by the call itself, not when its future is first polled: so
//! the commands of one task lie in the log in the order of its calls, however their futures are
//! awaited. One task hands the queue to openraft, which puts all that waits into one append.
//!
//! While a batch is on its way, what comes gathers for the next one (Nagle's algorithm): every batch
//! costs a sync at each member and a message to each, whatever is in it, and the next could not be
//! sent to a member before its answer in any case. A caller who is alone never waits for another.

use std::time::Duration;

use openraft::raft::ClientWriteResult;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::type_config::{Command, Raft, Respond, TypeConfig};

/// A command on its way into the log.
pub(crate) struct Proposal {
    pub command: Command,
    pub respond: Respond<ClientWriteResult<TypeConfig>>,
}

/// Proposals handed over at once.
const TAKE_MAX: usize = 256;

/// So long a batch keeps the next one waiting at most: on a slow disk two at once are better.
const GATHER_MAX: Duration = Duration::from_millis(2);

/// Hands proposals to openraft until the group ends. A proposal that openraft no longer takes is
/// dropped, which its proposer sees.
pub(crate) async fn run(raft: Raft, mut queue: mpsc::Receiver<Proposal>) {
    let mut taken = Vec::with_capacity(TAKE_MAX);
    while queue.recv_many(&mut taken, TAKE_MAX).await > 0 {
        let (ended, end) = oneshot::channel();
        if let Some(last) = taken.last_mut() {
            last.respond.ended = Some(ended);
        }
        for Proposal { command, respond } in taken.drain(..) {
            if let Err(error) = raft.client_write_ff(command, Some(respond)).await {
                tracing::debug!(%error, "a proposal came after the group's end");
            }
        }
        // Ended by either: done, or long enough.
        let _ = timeout(GATHER_MAX, end).await;
    }
}
