//! The queue of one group's proposals, and how they become entries of the log.
//!
//! A proposal is put into the queue by the call itself, not when its future is first polled: so
//! the commands of one task lie in the log in the order of its calls, however their futures are
//! awaited. One task hands the queue to openraft.
//!
//! Until a batch is committed, what comes gathers for the next one (Nagle's algorithm): every batch
//! costs a sync at each member and a message to each, whatever is in it, and the next could not be
//! sent to a member before its answer in any case. While it is applied, the next is on its way. A
//! caller who is alone never waits for another.
//!
//! What was gathered is put into one entry, as far as the group allows it: an entry costs its way
//! through openraft, a record of the log at each member and a place in each message, which many
//! commands then share.
//!
//! What must always hold: every proposal whose entry openraft took is told its own reply or the
//! entry's error, once; one that openraft did not take is dropped, which its proposer sees.

use std::iter::Peekable;
use std::time::Duration;

use bytes::Bytes;
use ministry_types::limits::{ENTRY_BYTES_MAX, ENTRY_COMMANDS_MAX};
use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::timeout;

use crate::config::GroupKind;
use crate::convert;
use crate::group::Proposed;
use crate::type_config::{Commands, Raft, Respond, TypeConfig};

/// What a proposer is told.
pub(crate) type Answer = Result<Proposed, ClientWriteError<TypeConfig>>;

/// A command on its way into the log.
pub(crate) struct Proposal {
    pub command: Bytes,
    pub waiting: Waiting,
}

/// Who waits for a command.
pub(crate) struct Waiting {
    /// Nobody waiting any more is no event worth a word.
    pub result: oneshot::Sender<Answer>,
    /// The command's share of the memory for commands under way, given back at the end.
    pub room: OwnedSemaphorePermit,
}

/// So long a batch keeps the next one waiting at most: on a slow disk two at once are better.
const GATHER_MAX: Duration = Duration::from_millis(2);

/// Hands proposals to openraft until the group ends.
pub(crate) async fn run(raft: Raft, kind: GroupKind, mut queue: mpsc::Receiver<Proposal>) {
    let commands_max = match kind {
        // The orders of the government are named by their positions.
        GroupKind::Elected => 1,
        GroupKind::Appointed => ENTRY_COMMANDS_MAX,
    };
    let mut taken = Vec::with_capacity(ENTRY_COMMANDS_MAX);
    while queue.recv_many(&mut taken, ENTRY_COMMANDS_MAX).await > 0 {
        let (committing, committed) = oneshot::channel::<()>();
        let mut committing = Some(committing);
        let mut left = taken.drain(..).peekable();
        while left.peek().is_some() {
            let (commands, waiting) = gather(&mut left, commands_max);
            metrics::histogram!("ministry_raft_entry_commands").record(waiting.len() as f64);
            let respond = Respond {
                // Dropped with the last entry also where that is never committed.
                until_committed: if left.peek().is_none() { committing.take() } else { None },
                result: Box::new(move |result| tell(waiting, result)),
            };
            if let Err(error) = raft.client_write_ff(commands, Some(respond)).await {
                tracing::debug!(%error, "a proposal came after the group's end");
            }
        }
        drop(left);
        // Ended by either: done, or long enough.
        let _ = timeout(GATHER_MAX, committed).await;
    }
}

/// The commands of the next entry: at least one, and no more than belong into one.
fn gather(
    left: &mut Peekable<impl Iterator<Item = Proposal>>,
    commands_max: usize,
) -> (Commands, Vec<Waiting>) {
    let (mut commands, mut waiting, mut bytes) = (Vec::new(), Vec::new(), 0);
    while let Some(Proposal { command, waiting: one }) = left.next_if(|next| {
        let fits = bytes + next.command.len() <= ENTRY_BYTES_MAX;
        commands.is_empty() || (fits && commands.len() < commands_max)
    }) {
        bytes += command.len();
        commands.push(command);
        waiting.push(one);
    }
    (Commands(commands), waiting)
}

/// Tells each proposer of an entry what became of its command.
fn tell(waiting: Vec<Waiting>, result: ClientWriteResult<TypeConfig>) {
    match result {
        Ok(done) => {
            let position = convert::position(&done.log_id);
            for (Waiting { result, room }, reply) in waiting.into_iter().zip(done.data.0) {
                drop(room);
                let _ = result.send(Ok(Proposed { position, reply }));
            }
        }
        Err(error) => {
            for Waiting { result, room } in waiting {
                drop(room);
                let _ = result.send(Err(error.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    /// How many commands each entry has, of commands of these sizes.
    fn entries_of(sizes: &[usize], commands_max: usize) -> Vec<usize> {
        let room = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let proposals = sizes.iter().map(|size| Proposal {
            command: vec![0; *size].into(),
            waiting: Waiting {
                result: oneshot::channel().0,
                room: Arc::clone(&room).try_acquire_owned().unwrap(),
            },
        });
        let mut left = proposals.peekable();
        let mut entries = Vec::new();
        while left.peek().is_some() {
            let (commands, waiting) = gather(&mut left, commands_max);
            assert_eq!(commands.0.len(), waiting.len());
            entries.push(waiting.len());
        }
        entries
    }

    #[test]
    fn an_entry_takes_what_fits_and_a_command_that_is_larger_goes_alone() {
        assert_eq!(entries_of(&[], 9), [0; 0]);
        assert_eq!(entries_of(&[1; 20], 9), [9, 9, 2]);
        assert_eq!(entries_of(&[1; 3], 1), [1, 1, 1]);
        let (large, half) = (ENTRY_BYTES_MAX + 1, ENTRY_BYTES_MAX / 2);
        assert_eq!(entries_of(&[large, 1, large, large], 9), [1, 1, 1, 1]);
        assert_eq!(entries_of(&[half, half, 1, half], 9), [2, 2]);
    }
}
