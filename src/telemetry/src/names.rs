//! Every metric of the system, declared in one place.
//!
//! A crate counts with a literal name through the macros of `metrics`; the name stands here with
//! its kind, unit, meaning, labels and stability. A test of the workspace checks that each literal
//! in the code is declared, and the reference in `docs/` is made from [`ALL`].
//!
//! Names follow `ministry_<part>_<thing>_<unit>[_total]`. A [`Stability::Stable`] name changes only
//! with a note in the changelog; dashboards and alerts use no other.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by size.
    Histogram,
}

impl Kind {
    /// The word that documentation uses.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// Whether others may build on a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stability {
    /// For dashboards and alerts.
    Stable,
    /// May change with any version.
    Experimental,
}

impl Stability {
    /// The word that documentation uses.
    pub fn word(self) -> &'static str {
        match self {
            Stability::Stable => "stable",
            Stability::Experimental => "experimental",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// What it is measured in.
    pub unit: Unit,
    /// What it tells, as a sentence.
    pub help: &'static str,
    /// Whether others may build on it.
    pub stability: Stability,
    /// Its labels.
    pub labels: &'static [&'static str],
}

macro_rules! metrics_table {
    ($($name:literal $kind:ident $unit:ident $stability:ident [$($label:literal),*] $help:literal;)*) => {
        /// Every metric of the system.
        pub const ALL: &[Metric] = &[$(Metric {
            name: $name,
            kind: Kind::$kind,
            unit: Unit::$unit,
            help: $help,
            stability: Stability::$stability,
            labels: &[$($label),*],
        },)*];
    };
}

metrics_table! {
    "ministry_process_cpu_cores" Gauge Count Stable []
        "CPU that the process used since the last sample, in cores.";
    "ministry_process_resident_bytes" Gauge Bytes Stable []
        "Resident memory of the process.";
    "ministry_process_virtual_bytes" Gauge Bytes Experimental []
        "Address space of the process.";
    "ministry_process_open_files" Gauge Count Stable []
        "Files and sockets that the process has open.";
    "ministry_process_uptime_seconds" Gauge Seconds Stable []
        "How long the process has run.";
    "ministry_machine_cpu_ratio" Gauge Count Stable []
        "CPU of the whole machine since the last sample, 0 to 1.";
    "ministry_machine_memory_bytes" Gauge Bytes Stable []
        "Memory of the machine.";
    "ministry_machine_memory_available_bytes" Gauge Bytes Stable []
        "Memory of the machine that programs may still take.";
    "ministry_build_info" Gauge Count Stable ["version"]
        "Always 1; the label tells the version of the program.";
    "ministry_transport_call_seconds" Histogram Seconds Stable ["door"]
        "Time of a call to another node that was answered, connecting included.";
    "ministry_transport_request_seconds" Histogram Seconds Stable ["request"]
        "Time in which a request of another process was answered here.";
    "ministry_transport_connections" Gauge Count Stable ["door"]
        "Connections that others have opened to this node.";
    "ministry_transport_refused_total" Counter Count Stable ["reason"]
        "Connections of others that this process refused.";
    "ministry_transport_was_refused_total" Counter Count Stable ["reason"]
        "Connections of this process that others refused.";
    "ministry_raft_applied_index" Gauge Count Stable ["group"]
        "Last entry of the group's log applied here.";
    "ministry_raft_apply_lag" Gauge Count Stable ["group"]
        "Entries in the group's log here that are not applied yet.";
    "ministry_raft_is_leader" Gauge Count Stable ["group"]
        "1 where this node leads the group, else 0; group 0 is the cluster log.";
    "ministry_raft_commit_seconds" Histogram Seconds Stable []
        "From proposing a command to its being applied at the leader.";
    "ministry_raft_log_sync_seconds" Histogram Seconds Stable []
        "One synced write of the log, for all groups that waited for it.";
    "ministry_raft_log_batch_entries" Histogram Count Experimental []
        "Entries that one synced write of the log made durable.";
    "ministry_raft_entry_commands" Histogram Count Experimental []
        "Commands that one entry of a log was proposed with.";
    "ministry_raft_log_queue_depth" Gauge Count Stable []
        "Appends that wait for the writer of the log.";
    "ministry_president_orders_total" Counter Count Stable ["order"]
        "Orders that this node gave as president; appointments are 'appoint'.";
    "ministry_minister_accession_seconds" Histogram Seconds Stable []
        "From an appointment to the first request served under it.";
    "ministry_minister_change_seconds" Histogram Seconds Stable ["operation"]
        "A change of the name space, at the minister.";
    "ministry_minister_query_seconds" Histogram Seconds Stable ["query"]
        "A question to the name space, at the minister.";
    "ministry_minister_busy_total" Counter Count Stable []
        "Requests of clients that were refused because too many were under way on this node.";
    "ministry_minister_sessions_expired_total" Counter Count Stable []
        "Sessions that this minister ended because nothing was heard of their client.";
    "ministry_minister_unlogged_files" Gauge Count Stable []
        "Files of which writes or times of access are in the memory of this minister and not yet in its log.";
    "ministry_minister_locks" Gauge Count Stable ["ministry", "state"]
        "Advisory locks of the ministry that are held, and requests that wait for one.";
    "ministry_minister_lock_wait_seconds" Histogram Seconds Stable []
        "One question of a client how its waiting request for a lock stands, until it was answered.";
    "ministry_storekeeper_request_seconds" Histogram Seconds Stable ["action"]
        "A request about file data, at the node that got it.";
    "ministry_storekeeper_bytes_total" Counter Bytes Stable ["direction"]
        "File data that came in and went out.";
    "ministry_storekeeper_queue_depth" Gauge Count Stable []
        "Requests about file data that are under way.";
    "ministry_storekeeper_waiting" Gauge Count Stable []
        "Writes that wait for a member of their placement group to answer.";
    "ministry_node_disk_bytes" Gauge Bytes Stable []
        "Size of the disk below the node's data folder.";
    "ministry_node_disk_available_bytes" Gauge Bytes Stable []
        "What file data may still take of it: all but the reserve that is kept for logs and state.";
    "ministry_storage_read_bytes_total" Counter Bytes Stable []
        "File data read from the disk.";
    "ministry_storage_write_bytes_total" Counter Bytes Stable []
        "File data written to the disk.";
    "ministry_storage_sync_seconds" Histogram Seconds Stable []
        "One sync of file data to the disk.";
    "ministry_storage_intents" Gauge Count Experimental []
        "Inodes with regions noted in the write-intent map.";
    "ministry_storage_damaged_blocks_total" Counter Count Stable []
        "Blocks that did not fit their checksum; never served.";
    "ministry_client_operation_seconds" Histogram Seconds Stable ["operation"]
        "One operation of the client library, with all its attempts.";
    "ministry_client_retries_total" Counter Count Stable ["reason"]
        "Attempts that had to be made again.";
    "ministry_client_sessions_lost_total" Counter Count Stable []
        "Sessions that a ministry had ended before the client did.";
    "ministry_client_open_files" Gauge Count Stable []
        "Files that are open at the client.";
    "ministry_client_locks" Gauge Count Stable []
        "Owners of advisory locks, per file, that this client has to think of at close.";
    "ministry_client_lock_wait_seconds" Histogram Seconds Stable []
        "How long a request for a lock waited that had to wait.";
    "ministry_client_bytes_total" Counter Bytes Stable ["direction"]
        "File data that programs read and wrote.";
    "ministry_fuse_operation_seconds" Histogram Seconds Stable ["operation"]
        "One request of the kernel, until it was answered.";
    "ministry_fuse_inflight" Gauge Count Stable []
        "Requests of the kernel that are not answered yet.";
}

/// The declaration of a name, if there is one.
pub fn find(name: &str) -> Option<&'static Metric> {
    ALL.iter().find(|metric| metric.name == name)
}

/// Describes every metric to the recorder in charge.
pub fn describe_all() {
    for metric in ALL {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, metric.unit, metric.help),
            Kind::Gauge => describe_gauge!(metric.name, metric.unit, metric.help),
            Kind::Histogram => describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_is_declared_once_and_follows_the_rule() {
        let mut seen = BTreeSet::new();
        for metric in ALL {
            let name = metric.name;
            assert!(seen.insert(name), "{name} is declared twice");
            assert!(name.starts_with("ministry_"), "{name}");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{name} has other letters"
            );
            assert!(metric.help.ends_with('.'), "{name}: the help is a sentence");
            let counts = metric.kind == Kind::Counter;
            assert_eq!(name.ends_with("_total"), counts, "{name}: _total is for counters");
        }
    }

    #[test]
    fn units_stand_at_the_end_of_names() {
        for metric in ALL {
            let stem = metric.name.trim_end_matches("_total");
            let seconds = metric.unit == Unit::Seconds;
            let bytes = metric.unit == Unit::Bytes;
            assert_eq!(stem.ends_with("_seconds"), seconds, "{}", metric.name);
            assert_eq!(stem.ends_with("_bytes"), bytes, "{}", metric.name);
        }
    }
}
