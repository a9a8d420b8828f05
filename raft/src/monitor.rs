//! Watches one group: publishes its status, keeps its gauges, has its state flushed in time, notices
//! its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ministry_types::{GroupId, LogPosition};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::Fatal as RaftFatal;
use tokio::sync::watch;

use crate::config::Compaction;
use crate::fatal::Fatal;
use crate::status::{GroupStatus, status};
use crate::type_config::Raft;

/// Reads the last position from the group's log.
pub(crate) type LastPosition = Box<dyn Fn() -> Option<LogPosition> + Send + Sync>;

/// Runs until the group ends.
pub(crate) async fn run(
    group: GroupId,
    raft: Raft,
    last: impl Fn() -> Option<LogPosition>,
    publish: watch::Sender<GroupStatus>,
    fatal: Fatal,
) {
    let label = group.to_string();
    let applied = metrics::gauge!("ministry_raft_applied_index", "group" => label.clone());
    let lag = metrics::gauge!("ministry_raft_apply_lag", "group" => label.clone());
    let leads = metrics::gauge!("ministry_raft_is_leader", "group" => label);
    let mut changes = raft.metrics();
    loop {
        let (now, stopped) = {
            let metrics = changes.borrow_watched();
            (status(&metrics, last()), metrics.running_state.clone().err())
        };
        applied.set(now.applied.0 as f64);
        lag.set(now.committed.0.saturating_sub(now.applied.0) as f64);
        leads.set(if now.is_leader { 1.0 } else { 0.0 });
        publish.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
        match stopped {
            None => {}
            Some(RaftFatal::Stopped) => return,
            Some(reason @ (RaftFatal::StorageError(_) | RaftFatal::Panicked)) => {
                fatal.report(format!("group {group}: {reason}"));
                return;
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Has the state flushed whenever so many commands were applied since the last time. openraft counts
/// entries, whatever is in them.
pub(crate) async fn flush_in_time(raft: Raft, unflushed: Arc<AtomicU64>, compaction: Compaction) {
    let mut changes = raft.metrics();
    while changes.changed().await.is_ok() {
        if unflushed.load(Ordering::Relaxed) < compaction.commands {
            continue;
        }
        unflushed.store(0, Ordering::Relaxed);
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}
