//! A group's state machine as openraft calls it.
//!
//! To openraft, a snapshot that was built is a promise that everything up to its position is
//! durable: it purges the log below. So building one is [`StateMachine::flush`], and the position is
//! taken before. The content of a snapshot is read only when a member needs it.
//!
//! What must always hold: see [`crate::spool`] for an install that is interrupted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use ministry_types::GroupId;
use openraft::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};

use crate::Applied;
use crate::convert;
use crate::errors::StateError;
use crate::fatal::Fatal;
use crate::log_tail::entry_bytes;
use crate::spool::{FinishedSpool, SnapshotSpool};
use crate::state_machine::{Blocks, Committed, Snapshot, StateMachine};
use crate::type_config::{LogId, RaftStoredMembership, Replies, TypeConfig};

/// Commands after which no further entry is taken into the same batch.
const BATCH_COMMANDS: usize = 512;
/// Commands that are applied without handing them to another thread: tens of microseconds each.
const AT_ONCE_COMMANDS_MAX: usize = 16;
/// Bytes of entries applied in one batch.
const BATCH_BYTES_MAX: usize = 2 << 20;

/// The content of a snapshot on its way through openraft.
pub enum SnapshotData {
    /// Of this node, read as it is asked for.
    Own(Blocks),
    /// From another node, complete and verified.
    Received(Box<dyn FinishedSpool>),
}

/// The adapter. Clones share the state machine.
#[derive(Clone)]
pub struct Machine {
    group: GroupId,
    machine: Arc<dyn StateMachine>,
    spool: Arc<dyn SnapshotSpool>,
    blocking_threads: bool,
    fatal: Fatal,
    /// Commands applied since the state was flushed, or since somebody was told of so many.
    unflushed: Arc<AtomicU64>,
}

type RaftSnapshot = SnapshotOf<TypeConfig, SnapshotData>;

/// Runs what may block, on a thread for it if the settings say so.
pub(crate) async fn run_blocking<T: Send + 'static>(
    on_thread: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    if !on_thread {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

fn state_error(error: impl ToString) -> StateError {
    StateError(error.to_string())
}

impl Machine {
    /// The adapter of one group.
    pub fn new(
        group: GroupId,
        machine: Arc<dyn StateMachine>,
        spool: Arc<dyn SnapshotSpool>,
        blocking_threads: bool,
        fatal: Fatal,
    ) -> Machine {
        let unflushed = Arc::default();
        Machine { group, machine, spool, blocking_threads, fatal, unflushed }
    }

    /// Counts the commands that were applied and not flushed; whoever sees to a flush sets it to 0.
    pub(crate) fn unflushed(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.unflushed)
    }

    /// Does an interrupted install again, then makes durable what is there: what openraft finds
    /// at its start counts as flushed.
    pub async fn recover(&self) -> io::Result<()> {
        let this = self.clone();
        self.run(move |machine| {
            this.install_marked()?;
            machine.flush()
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn StateMachine) -> Result<T, StateError> + Send + 'static,
    ) -> io::Result<T> {
        let machine = Arc::clone(&self.machine);
        let result = run_blocking(self.blocking_threads, move || work(&*machine)).await;
        let result = result.and_then(|result| result.map_err(io::Error::other));
        result.inspect_err(|error| {
            self.fatal.report(format!("the state of group {}: {error}", self.group));
        })
    }

    fn on_this_thread<T>(
        &self,
        work: impl FnOnce(&dyn StateMachine) -> Result<T, StateError>,
    ) -> io::Result<T> {
        work(&*self.machine).map_err(|error| {
            self.fatal.report(format!("the state of group {}: {error}", self.group));
            io::Error::other(error)
        })
    }

    /// Installs the spool that is marked, if there is one.
    fn install_marked(&self) -> Result<(), StateError> {
        let Some(spooled) = self.spool.marked(self.group).map_err(state_error)? else {
            return Ok(());
        };
        tracing::info!(group = %self.group, applied = ?spooled.applied.position, "installing");
        self.machine.install(spooled.applied, spooled.blocks)?;
        self.machine.flush()?;
        self.spool.clear(self.group).map_err(state_error)
    }

    async fn snapshot(&self, flush: bool) -> io::Result<Option<RaftSnapshot>> {
        let snapshot = self
            .run(move |machine| {
                let snapshot = machine.snapshot()?;
                if flush {
                    machine.flush()?;
                }
                Ok(snapshot)
            })
            .await?;
        let Snapshot { applied, blocks } = snapshot;
        let Some(position) = applied.position else { return Ok(None) };
        let last_membership =
            convert::raft_stored_membership(&applied.membership).map_err(io::Error::other)?;
        let last_log_id = Some(convert::log_id(&position));
        let meta = SnapshotMetaOf::<TypeConfig> { last_log_id, last_membership };
        Ok(Some(RaftSnapshot { meta, snapshot: SnapshotData::Own(blocks) }))
    }

    async fn apply_batch(
        &self,
        batch: Vec<Committed>,
        responders: Vec<Option<ApplyResponder<TypeConfig>>>,
    ) -> io::Result<()> {
        let counts: Vec<usize> = batch.iter().map(|entry| entry.body.command_count()).collect();
        let wanted = counts.iter().sum();
        // A few commands are done sooner than handed to another thread.
        let at_once = if self.blocking_threads && wanted <= AT_ONCE_COMMANDS_MAX {
            self.on_this_thread(|machine| machine.apply_at_once(&batch))?
        } else {
            None
        };
        let replies: Vec<Bytes> = match at_once {
            Some(replies) => replies,
            None => self.run(move |machine| machine.apply(batch)).await?,
        };
        if replies.len() != wanted {
            let reason = format!("{} replies to {wanted} commands", replies.len());
            return self.on_this_thread(|_| Err(state_error(reason)));
        }
        self.unflushed.fetch_add(wanted as u64, Ordering::Relaxed);
        let mut replies = replies.into_iter();
        for (responder, count) in responders.into_iter().zip(counts) {
            let replies = replies.by_ref().take(count);
            match responder {
                Some(responder) => responder.send(Replies(replies.collect())),
                None => replies.for_each(drop),
            }
        }
        Ok(())
    }
}

/// Builds a snapshot: makes the state durable.
pub struct Builder {
    machine: Machine,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<RaftSnapshot, io::Error> {
        self.machine.unflushed.store(0, Ordering::Relaxed);
        let snapshot = self.machine.snapshot(true).await?;
        Ok(snapshot.unwrap_or_else(|| RaftSnapshot {
            meta: SnapshotMetaOf::<TypeConfig>::default(),
            snapshot: SnapshotData::Own(Box::new(std::iter::empty())),
        }))
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, RaftStoredMembership), io::Error> {
        let applied = self.run(|machine| machine.applied()).await?;
        let membership =
            convert::raft_stored_membership(&applied.membership).map_err(io::Error::other)?;
        Ok((applied.position.as_ref().map(convert::log_id), membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        let (mut batch, mut responders) = (Vec::new(), Vec::new());
        let (mut commands, mut bytes) = (0, 0);
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            bytes += entry_bytes(&entry);
            let entry = convert::entry(&entry);
            commands += entry.body.command_count();
            batch.push(Committed { position: entry.position, body: entry.body });
            responders.push(responder);
            if commands.max(batch.len()) >= BATCH_COMMANDS || bytes >= BATCH_BYTES_MAX {
                (commands, bytes) = (0, 0);
                self.apply_batch(std::mem::take(&mut batch), std::mem::take(&mut responders))
                    .await?;
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.apply_batch(batch, responders).await
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { machine: self.clone() }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<TypeConfig>,
        data: SnapshotData,
    ) -> Result<(), io::Error> {
        let applied = Applied {
            position: meta.last_log_id.as_ref().map(convert::position),
            membership: convert::stored_membership(&meta.last_membership),
        };
        let this = self.clone();
        self.run(move |machine| match data {
            SnapshotData::Received(finished) => {
                finished.mark().map_err(state_error)?;
                this.install_marked()
            }
            SnapshotData::Own(blocks) => {
                machine.install(applied, blocks)?;
                machine.flush()
            }
        })
        .await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<RaftSnapshot>, io::Error> {
        self.snapshot(false).await
    }
}
