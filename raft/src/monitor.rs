//! Watches one group: publishes its status, keeps its gauges, notices its end.

use std::collections::BTreeMap;
use std::time::Duration;

use ministry_types::{GroupId, LogIndex, LogPosition};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::Fatal as RaftFatal;
use tokio::sync::watch;

use crate::fatal::Fatal;
use crate::status::{GroupStatus, status};
use crate::type_config::Raft;

/// Reads the last position from the group's log.
pub(crate) type LastPosition = Box<dyn Fn() -> Option<LogPosition> + Send + Sync>;

/// Changes of positions are published this often at most; other changes at most so much later.
const POSITIONS_INTERVAL: Duration = Duration::from_millis(5);

/// What others wait for: all but the positions.
fn standing_of(status: &GroupStatus) -> GroupStatus {
    GroupStatus {
        last_log: LogPosition::default(),
        applied: LogIndex::default(),
        committed: LogIndex::default(),
        replication: BTreeMap::new(),
        ..status.clone()
    }
}

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
    let mut standing = None;
    loop {
        let (now, stopped) = {
            let metrics = changes.borrow_watched();
            (status(&metrics, last()), metrics.running_state.clone().err())
        };
        applied.set(now.applied.0 as f64);
        lag.set(now.committed.0.saturating_sub(now.applied.0) as f64);
        leads.set(if now.is_leader { 1.0 } else { 0.0 });
        let stands = standing_of(&now);
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
        if standing.as_ref() == Some(&stands) {
            // Only positions have changed, which they do with every entry.
            tokio::time::sleep(POSITIONS_INTERVAL).await;
        }
        standing = Some(stands);
        if changes.changed().await.is_err() {
            return;
        }
    }
}
