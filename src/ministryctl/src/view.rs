//! From what the cluster answers to what is shown: pure, so that the form can be tested.

use ministry_types::government::{
    ClusterMap, Event, MinistryCondition, MinistryEntry, NodeCondition, NodeEntry,
};
use ministry_types::limits::DATA_FRAME_BYTES_MAX;
use ministry_types::placement::PlacementGroup;
use ministry_types::{MinistryId, NodeId, PgId, Timestamp};
use ministry_wire::admin::{NodeSight, Status};

use crate::output::{
    EventOut, MinistryOut, NodeOut, PgOut, PgSummaryOut, RoleOut, StatusOut, UsageOut,
};

/// `status`.
pub fn status(status: &Status) -> StatusOut {
    let problems = problems(status);
    let map = &status.map;
    StatusOut {
        cluster: map.cluster.to_string(),
        answered_by: status.node.to_string(),
        president: status.president.map(|president| president.to_string()),
        term: status.term.0,
        applied: status.applied.0,
        map_version: map.version.0,
        healthy: problems.is_empty(),
        problems,
        usage: status.usage.map(|usage| UsageOut {
            total_bytes: usage.total_bytes,
            free_bytes: usage.free_bytes,
            available_bytes: usage.available_bytes,
            inodes: usage.inodes,
        }),
        placement_groups: pg_summary(map),
        ministries: ministries(status),
        nodes: nodes(status),
    }
}

/// Whether programs can use the file system: a president, ministries that all serve, placement
/// groups.
pub fn serves(status: &Status) -> bool {
    let all = ministries(status);
    status.president.is_some()
        && !status.map.pgs.groups.is_empty()
        && !all.is_empty()
        && all.iter().all(is_serving)
}

/// Whether a ministry serves, as far as the president has heard.
pub fn is_serving(ministry: &MinistryOut) -> bool {
    ministry.condition == "governed" && ministry.serving == Some(true)
}

/// What is wrong, one sentence each.
fn problems(status: &Status) -> Vec<String> {
    let map = &status.map;
    let mut problems = Vec::new();
    if status.president.is_none() {
        problems.push(
            "there is no president: no majority of the electors answers; start the missing nodes"
                .to_owned(),
        );
    }
    for (node, entry) in &map.nodes {
        if entry.condition == NodeCondition::Down {
            let address = entry.profile.address;
            problems.push(format!("node {} at {address} does not answer", node.short()));
        }
    }
    for NodeSight { report, .. } in &status.sights {
        let room = report.disk.available_bytes;
        if report.disk.total_bytes > 0 && room < DATA_FRAME_BYTES_MAX as u64 {
            let node = report.node.short();
            problems.push(format!(
                "the disk of node {node} is full: files there cannot grow; remove files"
            ));
        }
    }
    if map.ministries.is_empty() {
        problems.push(format!(
            "there is no ministry yet: {} of {} nodes have joined",
            map.nodes.len(),
            map.initial_nodes
        ));
    }
    for ministry in ministries(status) {
        let name = format!("ministry {} ({})", ministry.ministry, ministry.path);
        match (ministry.condition.as_str(), ministry.serving) {
            ("down", _) => {
                problems.push(format!("{name} is down: {}", ministry.reason.unwrap_or_default()));
            }
            ("forming", _) => problems
                .push(format!("{name} is being formed: {}", ministry.reason.unwrap_or_default())),
            (_, Some(false)) => problems.push(format!("{name}: its minister does not serve yet")),
            _ => {}
        }
    }
    let pgs = pg_summary(map);
    if pgs.whole < pgs.total {
        let part = pgs.total - pgs.whole;
        problems.push(format!("{part} of {} placement groups lack a replica", pgs.total));
    }
    problems
}

fn pg_summary(map: &ClusterMap) -> PgSummaryOut {
    let whole = |group: &&PlacementGroup| {
        let fine = |node: &NodeId| group.in_sync.contains(node) && is_alive(map, *node);
        !group.members.is_empty() && group.members.iter().all(fine)
    };
    let groups = &map.pgs.groups;
    PgSummaryOut { total: groups.len(), whole: groups.iter().filter(whole).count() }
}

fn is_alive(map: &ClusterMap, node: NodeId) -> bool {
    map.nodes.get(&node).is_some_and(|entry| entry.condition == NodeCondition::Alive)
}

/// `ministries`.
pub fn ministries(status: &Status) -> Vec<MinistryOut> {
    let all = status.map.ministries.iter();
    all.map(|(number, entry)| ministry(*number, entry, &status.sights)).collect()
}

/// One ministry.
pub fn ministry(number: MinistryId, entry: &MinistryEntry, sights: &[NodeSight]) -> MinistryOut {
    let (condition, reason) = match &entry.condition {
        MinistryCondition::Forming(step) => ("forming", Some(step.clone())),
        MinistryCondition::Governed => ("governed", None),
        MinistryCondition::Down(reason) => ("down", Some(reason.clone())),
    };
    MinistryOut {
        ministry: number.0,
        path: entry.path.clone(),
        root: entry.root.0,
        condition: condition.to_owned(),
        reason,
        epoch: entry.epoch.0,
        minister: entry.minister.map(|minister| minister.to_string()),
        clerks: clerks(entry).map(|clerk| clerk.to_string()).collect(),
        serving: serving(number, entry, sights),
    }
}

fn clerks(entry: &MinistryEntry) -> impl Iterator<Item = NodeId> {
    entry.members.iter().copied().filter(|member| Some(*member) != entry.minister)
}

/// Only the president has heard of the nodes; others do not know.
fn serving(number: MinistryId, entry: &MinistryEntry, sights: &[NodeSight]) -> Option<bool> {
    if sights.is_empty() {
        return None;
    }
    let Some(minister) = entry.minister else { return Some(false) };
    let sight = sights.iter().find(|sight| sight.report.node == minister);
    let group = sight
        .and_then(|sight| sight.report.groups.iter().find(|report| report.group == number.group()));
    Some(group.is_some_and(|group| group.serving == Some(entry.epoch)))
}

/// `node list`.
pub fn nodes(status: &Status) -> Vec<NodeOut> {
    status.map.nodes.iter().map(|(id, entry)| node(*id, entry, &status.sights)).collect()
}

fn condition(entry: &NodeEntry) -> String {
    let word = match entry.condition {
        NodeCondition::Alive => "alive",
        NodeCondition::Down => "down",
        NodeCondition::Revoked => "revoked",
    };
    word.to_owned()
}

fn node(id: NodeId, entry: &NodeEntry, sights: &[NodeSight]) -> NodeOut {
    let sight = sights.iter().find(|sight| sight.report.node == id);
    let disk = sight.map(|sight| &sight.report.disk);
    let profile = &entry.profile;
    NodeOut {
        node: id.to_string(),
        address: profile.address.to_string(),
        metrics_address: profile.metrics_address.map(|address| address.to_string()),
        failure_domain: profile.failure_domain.clone(),
        condition: condition(entry),
        elector: entry.elector,
        offers_metadata: profile.offers_metadata,
        storage_weight: profile.storage_weight,
        version: profile.version.clone(),
        answered_ms_ago: sight.map(|sight| sight.age.as_millis() as u64),
        disk_total_bytes: disk.map(|disk| disk.total_bytes),
        disk_available_bytes: disk.map(|disk| disk.available_bytes),
    }
}

/// `roles`.
pub fn roles(status: &Status) -> Vec<RoleOut> {
    let map = &status.map;
    let role = |(id, entry): (&NodeId, &NodeEntry)| {
        let governs = |ministry: &MinistryEntry| ministry.minister == Some(*id);
        let serves = |ministry: &MinistryEntry| clerks(ministry).any(|clerk| clerk == *id);
        let numbers = |wanted: &dyn Fn(&MinistryEntry) -> bool| -> Vec<u64> {
            let all = map.ministries.iter().filter(|(_, ministry)| wanted(ministry));
            all.map(|(number, _)| number.0).collect()
        };
        let (minister_of, clerk_of) = (numbers(&governs), numbers(&serves));
        let groups = &map.pgs.groups;
        let president = status.president == Some(*id);
        let follows =
            |group: &&PlacementGroup| group.members.iter().skip(1).any(|member| member == id);
        RoleOut {
            node: id.to_string(),
            address: entry.profile.address.to_string(),
            condition: condition(entry),
            president,
            elector: entry.elector,
            idle: !president && minister_of.is_empty() && clerk_of.is_empty(),
            minister_of,
            clerk_of,
            master_of_pgs: groups.iter().filter(|group| group.master() == Some(*id)).count(),
            slave_in_pgs: groups.iter().filter(follows).count(),
        }
    };
    map.nodes.iter().map(role).collect()
}

/// `pgs`.
pub fn pgs(map: &ClusterMap) -> Vec<PgOut> {
    let all = map.pgs.groups.iter().enumerate();
    all.map(|(number, group)| pg(PgId(number as u32), group)).collect()
}

fn pg(number: PgId, group: &PlacementGroup) -> PgOut {
    PgOut {
        pg: number.0,
        epoch: group.epoch.0,
        master: group.master().map(|master| master.to_string()),
        slaves: group.members.iter().skip(1).map(ToString::to_string).collect(),
        in_sync: group.in_sync.iter().map(ToString::to_string).collect(),
    }
}

/// One order.
pub fn event(event: &Event) -> EventOut {
    EventOut {
        index: event.index,
        time: time(event.time),
        president: event.president.to_string(),
        order: event.order.clone(),
        subject: event.subject.clone(),
        text: event.text.clone(),
        reason: event.reason.clone(),
    }
}

/// A time as RFC 3339 in UTC.
pub fn time(time: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(time.0))
        .map_or_else(|_| time.0.to_string(), |time| time.to_string())
}

#[cfg(test)]
pub mod tests {
    use std::time::Duration;

    use ministry_types::government::NodeProfile;
    use ministry_types::placement::PgMap;
    use ministry_types::{ClusterId, Epoch, GroupId, InodeId, LogIndex, MapVersion, Term};
    use ministry_wire::minister::FsUsage;
    use ministry_wire::node::{DiskReport, GroupReport, NodeReport};

    use super::*;

    fn id(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    fn entry(number: u8, nodes: u8) -> NodeEntry {
        NodeEntry {
            profile: NodeProfile {
                address: ([10, 0, 0, number], 7400).into(),
                metrics_address: Some(([10, 0, 0, number], 7500).into()),
                failure_domain: format!("room1/rack{number}/host-with-a-long-name{number}"),
                offers_metadata: true,
                storage_weight: 1.0,
                version: "0.1.0".into(),
                feature_level: 1,
            },
            condition: if number == nodes { NodeCondition::Down } else { NodeCondition::Alive },
            elector: number <= 5,
        }
    }

    fn sight(number: u8) -> NodeSight {
        let group = GroupReport {
            group: GroupId(1),
            last_log: Default::default(),
            applied: LogIndex(5),
            term: Term(2),
            serving: (number == 1).then_some(Epoch(4)),
            reign: Epoch(4),
            initialised: true,
            ranges_left: 2,
            objects: 0,
            ranges_known: 2,
        };
        let disk = DiskReport {
            device: "8:1".into(),
            total_bytes: 1 << 40,
            free_bytes: 1 << 39,
            available_bytes: 1 << 38,
        };
        let report = NodeReport {
            node: id(number),
            incarnation: 7,
            cluster_applied: LogIndex(9),
            groups: vec![group],
            disk,
        };
        NodeSight { report, age: Duration::from_millis(40) }
    }

    /// A cluster of `nodes` nodes, the last of them down.
    pub fn sample(nodes: u8) -> Status {
        let ministry = |number: u8| MinistryEntry {
            epoch: Epoch(3 + u64::from(number)),
            minister: Some(id(number)),
            members: (1..=nodes.min(3)).map(id).collect(),
            condition: match number {
                1 => MinistryCondition::Governed,
                _ => MinistryCondition::Down("no majority of its members answers".into()),
            },
            root: InodeId(1),
            path: if number == 1 { "/".into() } else { format!("/{}", "long-path/".repeat(12)) },
        };
        let group = PlacementGroup {
            epoch: Epoch(1),
            members: (1..=nodes.min(3)).map(id).collect(),
            in_sync: (1..=nodes.min(3)).map(id).collect(),
        };
        let map = ClusterMap {
            cluster: ClusterId([0xc1; 16]),
            version: MapVersion(12),
            nodes: (1..=nodes).map(|number| (id(number), entry(number, nodes))).collect(),
            ministries: (1..=2).map(|n| (MinistryId(n), ministry(n as u8))).collect(),
            pgs: PgMap { groups: vec![group; 4] },
            initial_nodes: 3,
            ..ClusterMap::default()
        };
        Status {
            node: id(1),
            map,
            president: Some(id(1)),
            term: Term(2),
            applied: LogIndex(14),
            sights: (1..nodes).map(sight).collect(),
            usage: Some(FsUsage {
                total_bytes: 1 << 40,
                free_bytes: 1 << 39,
                available_bytes: 1 << 38,
                inodes: 1000,
            }),
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_sentences() {
        let out = status(&sample(3));
        assert!(!out.healthy);
        let all = out.problems.join("\n");
        assert!(all.contains("node 03030303 at 10.0.0.3:7400 does not answer"), "{all}");
        assert!(all.contains("is down: no majority of its members answers"), "{all}");
        assert!(all.contains("4 of 4 placement groups lack a replica"), "{all}");
        assert!(!all.contains("full"), "{all}");
    }

    #[test]
    fn a_full_disk_is_a_problem_and_one_that_nobody_has_looked_at_is_none() {
        let mut state = sample(4);
        state.sights[0].report.disk.available_bytes = DATA_FRAME_BYTES_MAX as u64 - 1;
        state.sights[1].report.disk = DiskReport::default();
        let all = status(&state).problems.join("\n");
        assert!(all.contains("the disk of node 01010101 is full"), "{all}");
        assert!(!all.contains("the disk of node 02020202"), "{all}");
    }

    #[test]
    fn a_ministry_serves_only_under_the_epoch_of_its_appointment() {
        let mut state = sample(4);
        state.map.ministries.remove(&MinistryId(2));
        assert!(serves(&state));
        let root = state.map.ministries.get_mut(&MinistryId::ROOT).unwrap();
        root.epoch = Epoch(5);
        assert!(!serves(&state), "the reign of the newest appointment has not begun");
        state.sights.clear();
        assert_eq!(ministries(&state)[0].serving, None, "another node has not heard");
        assert!(!serves(&state));
    }

    #[test]
    fn a_node_without_office_is_idle_whatever_it_stores() {
        let roles = roles(&sample(5));
        let idle: Vec<bool> = roles.iter().map(|role| role.idle).collect();
        assert_eq!(idle, [false, false, false, true, true]);
        assert_eq!((roles[0].master_of_pgs, roles[1].slave_in_pgs), (4, 4));
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(time(Timestamp::new(1_800_000_000, 0)), "2027-01-15T08:00:00Z");
    }
}
