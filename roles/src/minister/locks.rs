//! Waiting for locks, at the minister: those who ask hear of a grant when it is applied.
//!
//! Which requests wait is replicated (`namespace`); who has a call open here to hear of one is not:
//! a client asks the next minister again. Nobody looks at a clock or polls the state: the state
//! machine names the requests that a batch has settled.
//!
//! What must always hold: "settled" is said only of a request that the state knew to wait. So a
//! minister first makes sure that its state is as of now: one that was deposed, and never saw the
//! request, must not take it for granted.

use std::collections::BTreeMap;
use std::sync::Arc;

use ministry_types::limits::ATTEMPT_TIMEOUT;
use ministry_types::locks::LockProgress;
use ministry_types::{ClientId, SessionId};
use ministry_wire::minister::{AwaitLockRequest, Refusal};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::office::Office;

/// A request for a lock: its session, and its number there.
type RequestName = (SessionId, u64);

#[derive(Debug, Default)]
struct Listeners {
    count: usize,
    settled: Arc<Notify>,
}

/// The calls that wait here to hear of a lock. Bounded by the requests that a node takes at once.
#[derive(Debug, Default)]
pub struct LockWaits {
    listeners: Mutex<BTreeMap<RequestName, Listeners>>,
}

/// One call that waits. It is forgotten when dropped.
struct Listening<'a> {
    waits: &'a LockWaits,
    name: RequestName,
    settled: Arc<Notify>,
}

impl LockWaits {
    fn listen(&self, name: RequestName) -> Listening<'_> {
        let mut listeners = self.listeners.lock();
        let entry = listeners.entry(name).or_default();
        entry.count += 1;
        let settled = Arc::clone(&entry.settled);
        Listening { waits: self, name, settled }
    }

    /// These requests wait no more.
    pub(super) fn settled(&self, names: &[RequestName]) {
        if names.is_empty() {
            return;
        }
        let listeners = self.listeners.lock();
        for entry in names.iter().filter_map(|name| listeners.get(name)) {
            entry.settled.notify_waiters();
        }
    }

    /// The state has become another one: everybody looks again.
    pub(super) fn wake_all(&self) {
        for entry in self.listeners.lock().values() {
            entry.settled.notify_waiters();
        }
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        let mut listeners = self.waits.listeners.lock();
        let Some(entry) = listeners.get_mut(&self.name) else { return };
        entry.count -= 1;
        if entry.count == 0 {
            listeners.remove(&self.name);
        }
    }
}

impl Office {
    /// Tells how a request for a lock stands: as soon as it waits no more, else when the time is
    /// over.
    ///
    /// Cancel safety: safe.
    pub async fn await_lock(
        &self,
        request: AwaitLockRequest,
        client: ClientId,
    ) -> Result<LockProgress, Refusal> {
        self.serving_for(request.session, client).await?;
        let started = Instant::now();
        let deadline = started + request.wait.min(ATTEMPT_TIMEOUT);
        self.linearize().await?;
        let listening = self.machine.lock_waits.listen((request.session, request.request));
        let progress = loop {
            // Before the look at the state, so that nothing is missed in between.
            let settled = listening.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            let progress = self.lock_progress(&request)?;
            if progress == LockProgress::Settled {
                break progress;
            }
            if timeout_at(deadline, settled).await.is_err() {
                break progress;
            }
        };
        metrics::histogram!("ministry_minister_lock_wait_seconds")
            .record(started.elapsed().as_secs_f64());
        // The end of a session settles its requests, and grants none of them.
        self.serving_for(request.session, client).await?;
        Ok(progress)
    }

    fn lock_progress(&self, request: &AwaitLockRequest) -> Result<LockProgress, Refusal> {
        let AwaitLockRequest { session, inode, request, .. } = *request;
        let namespace = self.machine.namespace();
        let progress = namespace.lock_progress(self.machine.reader(), session, inode, request);
        progress.map_err(|error| {
            tracing::error!(ministry = %self.ministry, %error, "the state cannot be read");
            Refusal::Unknown
        })
    }

    /// Sets the measures of locks.
    pub(super) fn measure_locks(&self) {
        let Ok(count) = self.machine.namespace().lock_count(self.machine.reader()) else { return };
        let ministry = self.ministry.to_string();
        for (state, number) in [("held", count.held), ("waiting", count.waiting)] {
            metrics::gauge!("ministry_minister_locks", "ministry" => ministry.clone(),
                "state" => state)
            .set(number as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn whoever_listens_hears_of_its_own_request_and_is_forgotten_after() {
        let waits = LockWaits::default();
        let (session, other) = (SessionId([1; 16]), SessionId([2; 16]));
        let mine = waits.listen((session, 7));
        let again = waits.listen((session, 7));
        let others = waits.listen((other, 7));
        let heard = mine.settled.notified();
        let heard_too = again.settled.notified();
        let not_heard = others.settled.notified();
        waits.settled(&[(session, 7), (session, 8)]);
        assert!(heard.now_or_never().is_some() && heard_too.now_or_never().is_some());
        assert!(not_heard.now_or_never().is_none(), "it was about another one");
        drop((mine, again, others));
        assert!(waits.listeners.lock().is_empty());
    }
}
