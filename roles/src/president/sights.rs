//! What the nodes answer: the president's soft state.
//!
//! The office ([`super::office`]) asks every node each [`HEARTBEAT_INTERVAL`] and writes the
//! answers here; decisions read a copy. Nothing of it is logged; a new president begins anew and
//! blames nobody for silence from before.
//!
//! [`HEARTBEAT_INTERVAL`]: ministry_types::limits::HEARTBEAT_INTERVAL

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ministry_types::limits::REPLICAS;
use ministry_types::{Epoch, MinistryId, NodeId};
use ministry_wire::minister::FsUsage;
use ministry_wire::node::{DiskReport, NodeReport};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::view::Sight;
use crate::government::Government;

/// The answers of the nodes, shared between the asking and the deciding.
#[derive(Debug, Clone, Default)]
pub struct Sights {
    inner: Arc<Mutex<BTreeMap<NodeId, (Instant, NodeReport)>>>,
}

impl Sights {
    /// Takes down an answer to a question that was sent at `asked`. Whether it says anything new
    /// about how the node's ministries stand.
    pub fn record(&self, asked: Instant, report: NodeReport) -> bool {
        let mut sights = self.inner.lock();
        let known = sights.get(&report.node);
        if known.is_some_and(|(known, _)| *known > asked) {
            return false;
        }
        let standing = |report: &NodeReport| -> Vec<_> {
            report.groups.iter().map(|group| (group.group, group.serving, group.reign)).collect()
        };
        let news = known.is_none_or(|(_, known)| {
            known.incarnation != report.incarnation || standing(known) != standing(&report)
        });
        sights.insert(report.node, (asked, report));
        news
    }

    /// All last answers with their age.
    pub fn snapshot(&self, now: Instant) -> BTreeMap<NodeId, Sight> {
        let sights = self.inner.lock();
        sights
            .iter()
            .map(|(node, (asked, report))| {
                let age = now.saturating_duration_since(*asked);
                (*node, Sight { report: report.clone(), age })
            })
            .collect()
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.inner.lock().clear();
    }
}

/// Room in the whole file system: disks that several nodes share count once, replicas are taken
/// off. `None` before any node has reported.
pub fn usage(sights: &BTreeMap<NodeId, Sight>) -> Option<FsUsage> {
    let disks: BTreeMap<&str, &DiskReport> = sights
        .values()
        .map(|sight| (sight.report.disk.device.as_str(), &sight.report.disk))
        .collect();
    if disks.is_empty() {
        return None;
    }
    let sum = |of: fn(&DiskReport) -> u64| disks.values().map(|d| of(d)).sum::<u64>();
    let replicas = REPLICAS as u64;
    Some(FsUsage {
        total_bytes: sum(|disk| disk.total_bytes) / replicas,
        free_bytes: sum(|disk| disk.free_bytes) / replicas,
        available_bytes: sum(|disk| disk.available_bytes) / replicas,
        inodes: objects(sights),
    })
}

/// Objects in all ministries: of each, what the member that has applied most knows.
fn objects(sights: &BTreeMap<NodeId, Sight>) -> u64 {
    let mut known = BTreeMap::new();
    for report in sights.values().flat_map(|sight| &sight.report.groups) {
        let newest = known.entry(report.group).or_insert((report.applied, report.objects));
        *newest = (*newest).max((report.applied, report.objects));
    }
    known.values().map(|(_, objects)| objects).sum()
}

/// Since when each appointment in force has not been seen to serve.
#[derive(Debug, Default)]
pub struct Unserved {
    since: BTreeMap<MinistryId, (Epoch, Instant)>,
}

impl Unserved {
    /// Brings the record up to date and answers the durations.
    pub fn update(
        &mut self,
        government: &Government,
        sights: &BTreeMap<NodeId, Sight>,
        now: Instant,
    ) -> BTreeMap<MinistryId, Duration> {
        let serves = |id: MinistryId, epoch: Epoch, minister: Option<NodeId>| {
            let report = minister.and_then(|node| sights.get(&node)).map(|sight| &sight.report);
            report.is_some_and(|report| {
                let group = report.groups.iter().find(|group| group.group == id.group());
                group.is_some_and(|group| group.serving == Some(epoch))
            })
        };
        self.since.retain(|id, _| government.ministries().contains_key(id));
        let mut durations = BTreeMap::new();
        for (id, ministry) in government.ministries() {
            if serves(*id, ministry.epoch, ministry.minister) {
                self.since.remove(id);
                continue;
            }
            let entry = self.since.entry(*id).or_insert((ministry.epoch, now));
            if entry.0 != ministry.epoch {
                *entry = (ministry.epoch, now);
            }
            durations.insert(*id, now.saturating_duration_since(entry.1));
        }
        durations
    }
}
