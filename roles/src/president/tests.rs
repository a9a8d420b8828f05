//! Decisions over made-up views: no cluster, no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use ministry_types::government::{MinistryCondition, NodeCondition, NodeProfile};
use ministry_types::limits::{ELECTORS_MAX, SUSPECT_AFTER};
use ministry_types::{
    ClusterId, Epoch, GroupId, InodeId, LogIndex, LogPosition, MinistryId, NodeId, Term, Timestamp,
};
use ministry_wire::node::{DiskReport, GroupReport, NodeReport};

use super::{Decision, Sight, View, placement, plan};
use crate::government::{Government, Order, Proposal};

fn node(i: u8) -> NodeId {
    NodeId([i; 32])
}

/// A cluster in which every node answers, and time passes by the caller's word.
struct World {
    government: Government,
    sights: BTreeMap<NodeId, Sight>,
    unserved: BTreeMap<MinistryId, Duration>,
    index: u64,
}

impl World {
    fn new(nodes: u8) -> World {
        let mut world = World {
            government: Government::default(),
            sights: BTreeMap::new(),
            unserved: BTreeMap::new(),
            index: 0,
        };
        world.give(Order::Found {
            cluster: ClusterId([7; 16]),
            authority: "authority".to_owned(),
            initial_nodes: u32::from(nodes),
        });
        for i in 0..nodes {
            let profile = NodeProfile {
                address: ([10, 0, 0, i], 7400).into(),
                metrics_address: None,
                failure_domain: format!("rack{}", i % 3),
                offers_metadata: true,
                storage_weight: 1.0,
                version: String::new(),
                feature_level: 1,
            };
            world.give(Order::Register { node: node(i), profile });
            world.answer(i, Vec::new());
        }
        world
    }

    fn give(&mut self, order: Order) {
        self.index += 1;
        let reason = String::new();
        let proposal = Proposal { president: node(0), time: Timestamp(1), reason, order };
        self.government.apply(LogIndex(self.index), &proposal);
    }

    fn answer(&mut self, i: u8, groups: Vec<GroupReport>) {
        let report = NodeReport {
            node: node(i),
            incarnation: 1,
            cluster_applied: LogIndex(0),
            groups,
            disk: DiskReport::default(),
        };
        self.sights.insert(node(i), Sight { report, age: Duration::ZERO });
    }

    fn silence(&mut self, i: u8, age: Duration) {
        self.sights.get_mut(&node(i)).expect("a node of this world").age = age;
    }

    fn plan(&self) -> Vec<Decision> {
        plan(&View {
            me: node(0),
            government: &self.government,
            sights: &self.sights,
            presidency: Duration::from_secs(60),
            unserved: &self.unserved,
        })
    }

    /// Gives orders until nothing is due, as the office does.
    fn settle(&mut self) {
        for _ in 0..20 {
            let decisions = self.plan();
            if decisions.is_empty() {
                return;
            }
            for decision in decisions {
                assert!(!decision.reason.is_empty(), "every order has a reason");
                let appointed = match &decision.order {
                    Order::Appoint { ministry, .. } => Some(*ministry),
                    _ => None,
                };
                self.give(decision.order);
                if let Some(ministry) = appointed {
                    self.serve(ministry);
                }
            }
        }
        panic!("decisions never come to an end: {:?}", self.plan());
    }

    /// Lets the appointed serve and its clerks follow.
    fn serve(&mut self, ministry: MinistryId) {
        let entry = self.government.ministries()[&ministry].clone();
        for member in &entry.members {
            let serving = (Some(*member) == entry.minister).then_some(entry.epoch);
            let report = group(ministry, 5, 10, serving, entry.epoch);
            self.answer(member.0[0], vec![report]);
        }
        self.unserved.remove(&ministry);
    }
}

fn group(
    ministry: MinistryId,
    term: u64,
    index: u64,
    serving: Option<Epoch>,
    reign: Epoch,
) -> GroupReport {
    GroupReport {
        group: GroupId(ministry.0),
        last_log: LogPosition { term: Term(term), leader: node(0), index: LogIndex(index) },
        applied: LogIndex(index),
        term: Term(term),
        serving,
        reign,
        initialised: true,
        ranges_known: 2,
        ranges_left: 2,
        objects: 1,
    }
}

fn appointments(decisions: &[Decision]) -> Vec<(MinistryId, NodeId)> {
    decisions
        .iter()
        .filter_map(|decision| match &decision.order {
            Order::Appoint { ministry, minister, .. } => Some((*ministry, *minister)),
            _ => None,
        })
        .collect()
}

#[test]
fn five_nodes_become_a_governed_cluster_and_then_nothing_is_due() {
    let mut world = World::new(5);
    world.settle();
    assert_eq!(world.government.electors().len(), ELECTORS_MAX);
    let root = &world.government.ministries()[&MinistryId::ROOT];
    assert_eq!(root.condition, MinistryCondition::Governed);
    assert!(!root.members.contains(&node(0)), "idle nodes come before the president");
    assert_eq!(world.government.ownership().owner(InodeId::ROOT), Some(MinistryId::ROOT));
    assert!(world.government.pgs().groups.iter().all(|group| group.members.len() == 3));
}

#[test]
fn the_founder_is_an_elector_from_the_beginning_or_there_are_none_yet() {
    let mut world = World::new(3);
    let founder = world.sights.remove(&node(0)).expect("it answers itself");
    let electors = |world: &World| {
        world.plan().into_iter().find_map(|decision| match decision.order {
            Order::SetElectors { electors } => Some(electors),
            _ => None,
        })
    };
    assert_eq!(electors(&world), None);
    world.sights.insert(node(0), founder);
    assert!(electors(&world).is_some_and(|electors| electors.contains(&node(0))));
}

#[test]
fn nothing_is_laid_out_before_the_announced_nodes_answer() {
    let mut world = World::new(5);
    world.silence(4, Duration::from_secs(1));
    let made = |decision: &Decision| {
        matches!(decision.order, Order::CreateMinistry { .. } | Order::SetPlacement { .. })
    };
    assert!(!world.plan().iter().any(made));
    world.silence(4, Duration::ZERO);
    assert!(world.plan().iter().any(made));
}

#[test]
fn the_successor_is_the_member_with_the_last_entry_whatever_is_known_to_be_committed() {
    let mut world = World::new(5);
    world.settle();
    let root = world.government.ministries()[&MinistryId::ROOT].clone();
    let minister = root.minister.expect("governed");
    let clerks: Vec<NodeId> = root.members.iter().copied().filter(|m| *m != minister).collect();
    world.silence(minister.0[0], SUSPECT_AFTER * 2);
    // The first clerk has applied more, the second holds an entry of a later term.
    world.answer(clerks[0].0[0], vec![group(MinistryId::ROOT, 5, 900, None, root.epoch)]);
    world.answer(clerks[1].0[0], vec![group(MinistryId::ROOT, 6, 20, None, root.epoch)]);
    assert_eq!(appointments(&world.plan()), [(MinistryId::ROOT, clerks[1])]);
}

#[test]
fn without_a_majority_nobody_is_appointed_and_the_ministry_is_down_with_the_reason() {
    let mut world = World::new(5);
    world.settle();
    let root = world.government.ministries()[&MinistryId::ROOT].clone();
    for member in &root.members[..2] {
        world.silence(member.0[0], SUSPECT_AFTER * 2);
    }
    world.unserved.insert(MinistryId::ROOT, Duration::from_secs(10));
    let last = root.members[2];
    world.answer(last.0[0], vec![group(MinistryId::ROOT, 5, 10, None, root.epoch)]);
    let decisions = world.plan();
    assert!(appointments(&decisions).is_empty());
    let down = decisions.iter().find_map(|decision| match &decision.order {
        Order::SetMinistryCondition { condition: MinistryCondition::Down(why), .. } => Some(why),
        _ => None,
    });
    let why = down.expect("the ministry is down");
    assert!(why.contains(&root.members[0].short()), "{why}");
    for decision in decisions {
        world.give(decision.order);
    }
    world.unserved.insert(MinistryId::ROOT, Duration::from_secs(20));
    let again: Vec<_> = world.plan();
    let repeated = |d: &Decision| matches!(d.order, Order::SetMinistryCondition { .. });
    assert!(!again.iter().any(repeated), "said once");
}

#[test]
fn a_restarted_minister_is_appointed_anew_and_a_slow_one_is_left_alone() {
    let mut world = World::new(5);
    world.settle();
    let root = world.government.ministries()[&MinistryId::ROOT].clone();
    let minister = root.minister.expect("governed");
    // Appointed a moment ago, its reign not begun: it is given time.
    world.answer(minister.0[0], vec![group(MinistryId::ROOT, 5, 10, None, Epoch(0))]);
    world.unserved.insert(MinistryId::ROOT, SUSPECT_AFTER);
    assert!(appointments(&world.plan()).is_empty());
    // Its reign had begun and is over.
    world.answer(minister.0[0], vec![group(MinistryId::ROOT, 5, 10, None, root.epoch)]);
    assert_eq!(appointments(&world.plan()), [(MinistryId::ROOT, minister)]);
}

#[test]
fn a_node_that_falls_silent_is_written_down_and_stays_an_elector() {
    let mut world = World::new(5);
    world.settle();
    world.silence(4, Duration::from_secs(10));
    world.settle();
    let condition = world.government.nodes().find(|(id, _, _)| *id == node(4)).map(|n| n.2);
    assert_eq!(condition, Some(NodeCondition::Down));
    assert!(world.government.electors().contains(&node(4)));
}

#[test]
fn a_new_ministry_takes_idle_nodes_first_and_distinct_racks() {
    let mut world = World::new(6);
    world.settle();
    let first = world.government.ministries()[&MinistryId::ROOT].members.clone();
    let view = View {
        me: node(0),
        government: &world.government,
        sights: &world.sights,
        presidency: Duration::from_secs(60),
        unserved: &world.unserved,
    };
    let second = placement::choose_members(&view).expect("enough nodes");
    assert!(second.iter().all(|member| !first.contains(member)), "{first:?} {second:?}");
    let racks: std::collections::BTreeSet<_> =
        second.iter().map(|member| member.0[0] % 3).collect();
    assert_eq!(racks.len(), 3);
}
