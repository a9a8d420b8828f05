//! How an appointed member becomes minister.
//!
//! The president has logged the appointment and tells it. The member has its group elect it,
//! again and again, since the lease of the minister before must end first; then it puts the
//! reign's first entry into the log, and serves when that entry is applied here. A member that
//! hears of a newer appointment withdraws.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ministry_namespace::Command;
use ministry_types::limits::ATTEMPT_TIMEOUT;
use ministry_types::{Epoch, InodeId};
use ministry_wire::minister::{Refusal, ReignId};
use ministry_wire::node::Appointment;
use tokio::time::{Instant, sleep, timeout};

use super::office::{Memory, Office};

/// Between two tries to be elected.
const TRY_AGAIN: Duration = Duration::from_millis(40);
/// A member that has not begun to reign by then gives up; the president appoints anew.
const GIVE_UP: Duration = Duration::from_secs(10);

/// A newer appointment is known.
struct Withdrawn;

impl Office {
    /// Takes note of an appointment. Answers the newest epoch known before.
    pub fn note(&self, epoch: Epoch) -> Epoch {
        let mut before = Epoch(0);
        self.newest.send_if_modified(|newest| {
            before = *newest;
            let newer = epoch > *newest;
            *newest = epoch.max(*newest);
            newer
        });
        before
    }

    /// Stands for election under an appointment that names this node, and returns when the reign
    /// has begun, or failed to. `note` must have been called.
    ///
    /// Cancel safety: safe; the appointment can be told again.
    pub async fn stand(self: &Arc<Self>, appointment: &Appointment) {
        let (ministry, epoch) = (self.ministry, appointment.epoch);
        let mut newest = self.newest.subscribe();
        let withdrawn = async {
            let _newer = newest.wait_for(|newest| *newest > epoch).await;
            Withdrawn
        };
        let begun = Instant::now();
        tokio::select! {
            _ = withdrawn => tracing::info!(%ministry, %epoch, "withdrawn: a newer appointment"),
            result = timeout(GIVE_UP, self.become_minister(appointment)) => match result {
                Ok(()) => {
                    let millis = begun.elapsed().as_millis() as u64;
                    tracing::info!(%ministry, %epoch, millis, "the reign has begun");
                    metrics::histogram!("ministry_minister_accession_seconds")
                        .record(begun.elapsed().as_secs_f64());
                }
                Err(_) => tracing::warn!(%ministry, %epoch, "not elected in time"),
            },
        }
    }

    async fn become_minister(&self, appointment: &Appointment) {
        let ministry = self.ministry;
        self.await_map(appointment.epoch).await;
        loop {
            if !self.group.status().initialised
                && let Err(error) = self.group.initialize(appointment.members.clone()).await
            {
                tracing::debug!(%ministry, %error, "not initialised yet");
            }
            if !self.group.status().is_leader {
                if let Err(error) = self.group.elect().await {
                    tracing::debug!(%ministry, %error, "no election yet");
                }
                self.await_lead().await;
            }
            if self.group.status().is_leader {
                match self.begin(appointment).await {
                    Ok(()) => return,
                    Err(error) => tracing::debug!(%ministry, %error, "the reign cannot begin yet"),
                }
            }
            sleep(TRY_AGAIN).await;
        }
    }

    /// Waits until the order itself has arrived: the map then tells what the ministry is made for
    /// and which inodes are its own.
    async fn await_map(&self, epoch: Epoch) {
        let mut map = self.surroundings.map.clone();
        let arrived = map.wait_for(|map| {
            map.ministries.get(&self.ministry).is_some_and(|entry| entry.epoch >= epoch)
        });
        let _closed_at_shutdown = arrived.await.is_err();
    }

    /// Waits until this node leads, at most [`TRY_AGAIN`].
    async fn await_lead(&self) {
        let mut status = self.group.watch();
        let lead = status.wait_for(|status| status.is_leader);
        let _elected_or_not = timeout(TRY_AGAIN, lead).await.is_ok();
    }

    /// Hands the lead to the member that was appointed since, if this node still leads. A member
    /// that was thought dead and lives keeps its followers' votes from any candidate: it has to
    /// let go itself.
    pub(super) async fn yield_lead(&self) {
        let appointed = self
            .surroundings
            .map
            .borrow()
            .ministries
            .get(&self.ministry)
            .map(|entry| (entry.epoch, entry.minister));
        let Some((epoch, Some(minister))) = appointed else { return };
        let is_overdue = epoch > self.reigned() && minister != self.surroundings.me;
        if !is_overdue || !self.group.status().is_leader {
            return;
        }
        let (ministry, to) = (self.ministry, minister.short());
        match self.group.transfer_leader(minister, ATTEMPT_TIMEOUT).await {
            Ok(()) => tracing::info!(%ministry, to, "handed over to the appointed minister"),
            Err(error) => tracing::debug!(%ministry, to, %error, "not handed over yet"),
        }
    }

    /// Puts the first entries of the reign into the log and begins to serve.
    async fn begin(&self, appointment: &Appointment) -> Result<(), Refusal> {
        let epoch = appointment.epoch;
        let me = self.surroundings.me;
        if self.machine.reign() != Some((epoch, me)) {
            let time = self.surroundings.clock.now();
            self.command(&Command::Reign { epoch, node: me, time }).await?;
        }
        self.found(epoch).await?;
        self.take_ranges(epoch).await?;
        let known = self.machine.namespace().sessions(self.machine.reader());
        let known = known.map_err(|_| Refusal::Unknown)?;
        let incarnation = self.surroundings.clock.now().0;
        let sessions = known.iter().map(|(session, _)| *session).collect();
        self.begin_memory(Memory::new(ReignId { epoch, incarnation }, sessions));
        self.sessions.begin(known, Instant::now());
        self.serving.store(epoch.0, Ordering::Release);
        self.reclaim_all(epoch).await
    }

    /// Makes the root directory, where this is the root ministry and it has none.
    async fn found(&self, epoch: Epoch) -> Result<(), Refusal> {
        let map = self.surroundings.map.borrow().clone();
        let is_root =
            map.ministries.get(&self.ministry).is_some_and(|entry| entry.root == InodeId::ROOT);
        let founded = self.machine.namespace().is_founded(self.machine.reader());
        if is_root && !founded.map_err(|_| Refusal::Unknown)? {
            let time = self.surroundings.clock.now();
            self.command(&Command::Found { epoch, time }).await?;
        }
        Ok(())
    }

    /// Takes up the inode ranges that the map gives to this ministry and its state does not know.
    pub(super) async fn take_ranges(&self, epoch: Epoch) -> Result<(), Refusal> {
        let ranges = self.machine.namespace().ranges(self.machine.reader());
        let known = ranges.map_err(|_| Refusal::Unknown)?.list;
        let map = self.surroundings.map.borrow().clone();
        let granted: Vec<_> = map
            .ownership
            .intervals()
            .iter()
            .filter(|interval| interval.owner == self.ministry && interval.generation == 1)
            .map(|interval| (interval.start.inode, interval.end.inode))
            .filter(|(first, _)| !known.iter().any(|(from, to)| from <= first && first < to))
            .collect();
        if !granted.is_empty() {
            self.command(&Command::AddRanges { epoch, ranges: granted }).await?;
        }
        Ok(())
    }
}
