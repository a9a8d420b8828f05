//! Timings and bounds of the groups, and what becomes of them in openraft's configuration.

use std::sync::Arc;
use std::time::Duration;

use ministry_types::limits;
use openraft::{Config, SnapshotPolicy, StepDownPolicy};

use crate::errors::RaftError;

/// How a group gets its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupKind {
    /// The members elect: the cluster log.
    Elected,
    /// Never by itself, only by [`crate::Group::elect`] or [`crate::Group::transfer_leader`]:
    /// ministries.
    Appointed,
}

/// Times of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// Between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// No heartbeat to a member that has acknowledged anything within this time.
    pub heartbeat_quiet: Duration,
    /// Shortest election time-out.
    pub election_min: Duration,
    /// Longest election time-out, and length of the leader's lease.
    pub election_max: Duration,
    /// One call to another member, but for heartbeats, which have one heartbeat's time.
    pub call: Duration,
    /// How long a ministry's leader keeps news of a commit from the others when it has nothing else
    /// to send: less than a heartbeat, which tells it too.
    pub commit_patience: Duration,
    /// Installing a snapshot at its receiver, after its last block.
    pub install: Duration,
}

impl Default for Timings {
    fn default() -> Timings {
        Timings {
            heartbeat: limits::HEARTBEAT_INTERVAL,
            heartbeat_quiet: limits::HEARTBEAT_INTERVAL / 2,
            election_min: Duration::from_millis(250),
            election_max: limits::ELECTION_TIMEOUT_MAX,
            call: Duration::from_secs(1),
            commit_patience: Duration::from_millis(20),
            install: Duration::from_secs(60),
        }
    }
}

/// When the log of a group is shortened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compaction {
    /// After so many entries the state is flushed.
    pub entries: u64,
    /// And after so many commands, of which an entry may have many: a node that starts applies
    /// again what was not flushed.
    pub commands: u64,
    /// So many flushed entries stay in the log, for members that are a little behind.
    pub keep: u64,
}

impl Default for Compaction {
    fn default() -> Compaction {
        Compaction { entries: 10_000, commands: 50_000, keep: 5_000 }
    }
}

/// Settings of all groups of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Times.
    pub timings: Timings,
    /// When logs are shortened.
    pub compaction: Compaction,
    /// Where randomness (of election time-outs) begins: drawn at random in production, given by
    /// the simulation. With the same seed, everything is drawn the same.
    pub seed: u64,
    /// State machines and files are worked with on threads for blocking work. Off in simulation,
    /// where nothing blocks and threads would decide the order of events.
    pub blocking_threads: bool,
    /// Proposals of one group that wait to be taken into the log.
    pub proposals_max: usize,
}

impl Settings {
    /// For production.
    pub fn new(seed: u64) -> Settings {
        Settings {
            timings: Timings::default(),
            compaction: Compaction::default(),
            seed,
            blocking_threads: true,
            proposals_max: 8192,
        }
    }

    /// For simulation: nothing runs on a thread of its own.
    pub fn simulation(seed: u64) -> Settings {
        Settings { blocking_threads: false, ..Settings::new(seed) }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// openraft's configuration of a group. Elections begin switched off in both kinds: an elected
/// group gets them after its first lease (see `groups`).
pub(crate) fn raft_config(settings: &Settings, kind: GroupKind) -> Result<Arc<Config>, RaftError> {
    let timings = &settings.timings;
    let step_down = match kind {
        GroupKind::Elected => StepDownPolicy::After(millis(timings.heartbeat)),
        GroupKind::Appointed => StepDownPolicy::Never,
    };
    let config = Config {
        cluster_name: "ministry".to_owned(),
        heartbeat_interval: millis(timings.heartbeat),
        heartbeat_min_interval: Some(millis(timings.heartbeat_quiet)),
        election_timeout_min: millis(timings.election_min),
        election_timeout_max: millis(timings.election_max),
        install_snapshot_timeout: millis(timings.install),
        max_payload_entries: 1024,
        max_append_entries: Some(1024),
        replication_lag_threshold: 1000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(settings.compaction.entries),
        max_in_snapshot_log_to_keep: settings.compaction.keep,
        purge_batch_size: (settings.compaction.keep / 10).max(1),
        api_channel_size: Some(4096),
        notification_channel_size: Some(4096),
        state_machine_channel_size: Some(256),
        enable_elect: false,
        enable_pre_vote: Some(true),
        // A restarted leader that resumed would serve without having been appointed.
        enable_leader_restore: Some(false),
        removed_leader_step_down: step_down,
        backoff: "20ms 50ms 100ms ...500ms".to_owned(),
        ..Config::default()
    };
    let config = config.validate().map_err(|error| RaftError::NotAllowed(error.to_string()))?;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_timings_fit_each_other() {
        for kind in [GroupKind::Elected, GroupKind::Appointed] {
            let config = raft_config(&Settings::new(1), kind).unwrap();
            assert!(!config.enable_elect);
            assert_eq!(config.enable_leader_restore, Some(false));
        }
    }
}
