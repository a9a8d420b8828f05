//! What a minister does without being asked: ends silent sessions, takes up inode ranges, has
//! files cut and purged.
//!
//! One task an office, owned by the node. Work is bounded in each round; what is left stays in
//! the replicated state, also for the next minister.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use ministry_namespace::Command;
use ministry_types::Epoch;
use ministry_types::limits::SESSION_TIMEOUT;
use ministry_wire::minister::Refusal;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::data_errands::DataErrands;
use super::office::Office;

/// Between two rounds.
const ROUND: Duration = Duration::from_millis(200);
/// Files cut or purged in one round.
const FILES_PER_ROUND: usize = 512;
/// Files cut or purged at once.
const ERRANDS_AT_ONCE: usize = 16;

/// Runs errands, [`ERRANDS_AT_ONCE`] at a time, and answers those that were done.
async fn done<T>(errands: impl Iterator<Item = BoxFuture<'static, Option<T>>>) -> Vec<T> {
    let running = futures::stream::iter(errands).buffer_unordered(ERRANDS_AT_ONCE);
    running.filter_map(|done| async move { done }).collect().await
}

impl Office {
    /// Keeps house for as long as it runs. A node that leads without being minister any more hands
    /// the lead over; one that neither leads nor reigns does nothing.
    ///
    /// Cancel safety: safe; every step can be repeated.
    pub async fn keep_house(self: Arc<Self>) {
        tokio::join!(self.keep_rounds(), self.keep_settled());
    }

    async fn keep_rounds(&self) {
        let mut ticks = interval(ROUND);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.yield_lead().await;
            let Some(epoch) = self.serves() else { continue };
            self.measure_locks();
            if let Err(refusal) = self.round(epoch).await {
                tracing::debug!(ministry = %self.ministry, %refusal, "housekeeping goes on later");
            }
        }
    }

    async fn round(&self, epoch: Epoch) -> Result<(), Refusal> {
        self.end_silent_sessions(epoch).await?;
        self.take_ranges(epoch).await?;
        self.purge(epoch).await?;
        self.truncate(epoch).await
    }

    async fn end_silent_sessions(&self, epoch: Epoch) -> Result<(), Refusal> {
        if !self.group.has_lease() {
            self.sessions.out_of_reach();
            return Ok(());
        }
        for session in self.sessions.end_silent(SESSION_TIMEOUT, Instant::now()) {
            tracing::info!(ministry = %self.ministry, %session, "its client is silent: it ends");
            metrics::counter!("ministry_minister_sessions_expired_total").increment(1);
            let memory = self.memory();
            memory.soft.forget_session(session);
            memory.reclaim.forget(session);
        }
        // Those of earlier rounds too whose end the log would not take then.
        for session in self.sessions.ending() {
            self.command(&Command::EndSession { epoch, session }).await?;
            self.sessions.remove(session);
        }
        Ok(())
    }

    fn errands(&self) -> DataErrands {
        let map = self.surroundings.map.borrow().clone();
        DataErrands { map, data: Arc::clone(&self.surroundings.data) }
    }

    async fn purge(&self, epoch: Epoch) -> Result<(), Refusal> {
        let namespace = self.machine.namespace();
        let pending = namespace.pending_purges(self.machine.reader(), FILES_PER_ROUND);
        let pending = pending.map_err(|_| Refusal::Unknown)?;
        if pending.is_empty() {
            return Ok(());
        }
        let errands = self.errands();
        let purges = pending.into_iter().map(|purge| {
            let errands = errands.clone();
            async move { errands.purge(&purge).await.then_some(purge.inode) }.boxed()
        });
        let inodes = done(purges).await;
        if !inodes.is_empty() {
            self.command(&Command::PurgesDone { epoch, inodes }).await?;
        }
        Ok(())
    }

    async fn truncate(&self, epoch: Epoch) -> Result<(), Refusal> {
        let namespace = self.machine.namespace();
        let pending = namespace.pending_truncates(self.machine.reader(), FILES_PER_ROUND);
        let pending = pending.map_err(|_| Refusal::Unknown)?;
        if pending.is_empty() {
            return Ok(());
        }
        let errands = self.errands();
        let cuts = pending.into_iter().map(|cut| {
            let errands = errands.clone();
            async move {
                let newest = cut.truncates.last()?.sequence;
                errands.truncate(&cut).await.then_some((cut.inode, newest))
            }
            .boxed()
        });
        let done = done(cuts).await;
        if !done.is_empty() {
            self.command(&Command::TruncatesDone { epoch, done }).await?;
        }
        Ok(())
    }
}
