//! What the government knows, and how an order changes it.

use std::collections::{BTreeMap, BTreeSet};

use ministry_types::government::{
    ClusterMap, Event, MinistryCondition, MinistryEntry, NodeCondition, NodeEntry, NodeProfile,
};
use ministry_types::limits::{INODE_RANGE, JOIN_TOKENS_MAX};
use ministry_types::ownership::OwnershipMap;
use ministry_types::placement::PgMap;
use ministry_types::{
    ClusterId, Epoch, Era, InodeId, LogIndex, MapVersion, MinistryId, NodeId, Timestamp,
};
use ministry_wire::hello::{Role, Subject};
use serde::{Deserialize, Serialize};

use super::order::{Enrolment, Order, OrderReply, Proposal};

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Node {
    profile: NodeProfile,
    condition: NodeCondition,
}

/// The step from one ministry to another that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// The owner so far.
    pub from: MinistryId,
    /// The directory.
    pub inode: InodeId,
    /// Generation of its interval afterwards.
    pub generation: u64,
}

/// A ministry as the government knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ministry {
    /// Number of the last appointment.
    pub epoch: Epoch,
    /// Who was appointed.
    pub minister: Option<NodeId>,
    /// All members.
    pub members: Vec<NodeId>,
    /// How it stands.
    pub condition: MinistryCondition,
    /// The directory it was made for.
    pub root: InodeId,
    /// That directory's path at the time.
    pub path: String,
    /// Inode numbers it was given: first (included) and end (excluded).
    pub ranges: Vec<(InodeId, InodeId)>,
    /// The directory still has to be handed over.
    pub handover: Option<Handover>,
}

/// What has become of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenState {
    /// It can be used.
    Open,
    /// It was used, by this one.
    Used(Subject),
}

/// A join token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// SHA-256 of the secret.
    pub secret_hash: Vec<u8>,
    /// What it is for.
    pub role: Role,
    /// Until when.
    pub expires: Timestamp,
    /// What has become of it.
    pub state: TokenState,
}

/// The state of the cluster log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Government {
    cluster: ClusterId,
    era: Era,
    authority: String,
    initial_nodes: u32,
    map_version: MapVersion,
    last_epoch: Epoch,
    last_ministry: MinistryId,
    next_range: u64,
    nodes: BTreeMap<NodeId, Node>,
    electors: BTreeSet<NodeId>,
    ministries: BTreeMap<MinistryId, Ministry>,
    ownership: OwnershipMap,
    pgs: PgMap,
    tokens: BTreeMap<String, JoinToken>,
    revoked: BTreeSet<String>,
}

impl Government {
    /// Whether a cluster was founded.
    pub fn is_founded(&self) -> bool {
        !self.authority.is_empty()
    }

    /// Certificate and key of the authority, PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Which cluster.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Who votes in the cluster log.
    pub fn electors(&self) -> &BTreeSet<NodeId> {
        &self.electors
    }

    /// All nodes with profile and condition.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &NodeProfile, NodeCondition)> {
        self.nodes.iter().map(|(id, node)| (*id, &node.profile, node.condition))
    }

    /// All ministries.
    pub fn ministries(&self) -> &BTreeMap<MinistryId, Ministry> {
        &self.ministries
    }

    /// Who owns which part of the name space.
    pub fn ownership(&self) -> &OwnershipMap {
        &self.ownership
    }

    /// The placement groups.
    pub fn pgs(&self) -> &PgMap {
        &self.pgs
    }

    /// A join token.
    pub fn token(&self, id: &str) -> Option<&JoinToken> {
        self.tokens.get(id)
    }

    /// Ids whose certificates are refused.
    pub fn revoked(&self) -> &BTreeSet<String> {
        &self.revoked
    }

    /// Nodes that are waited for before the first ministry is made.
    pub fn initial_nodes(&self) -> u32 {
        self.initial_nodes
    }

    /// The number that the next ministry will have.
    pub fn next_ministry(&self) -> MinistryId {
        MinistryId(self.last_ministry.0 + 1)
    }

    /// What everybody may see.
    pub fn map(&self) -> ClusterMap {
        let nodes = self.nodes.iter().map(|(id, node)| {
            let elector = self.electors.contains(id);
            let profile = node.profile.clone();
            (*id, NodeEntry { profile, condition: node.condition, elector })
        });
        let ministries = self.ministries.iter().map(|(id, ministry)| {
            let entry = MinistryEntry {
                epoch: ministry.epoch,
                minister: ministry.minister,
                members: ministry.members.clone(),
                condition: ministry.condition.clone(),
                root: ministry.root,
                path: ministry.path.clone(),
            };
            (*id, entry)
        });
        ClusterMap {
            cluster: self.cluster,
            era: self.era,
            version: self.map_version,
            nodes: nodes.collect(),
            ministries: ministries.collect(),
            ownership: self.ownership.clone(),
            pgs: self.pgs.clone(),
            initial_nodes: self.initial_nodes,
        }
    }

    /// Carries out one order of the log. Answers the event for the history if it changed
    /// anything.
    pub fn apply(&mut self, index: LogIndex, proposal: &Proposal) -> (OrderReply, Option<Event>) {
        let epoch_before = self.last_epoch;
        let reply = self.carry_out(&proposal.order, proposal.time);
        assert!(self.last_epoch >= epoch_before, "epochs only grow");
        if let OrderReply::Refused(_)
        | OrderReply::Enrolment(Enrolment::Unknown | Enrolment::Used(_)) = reply
        {
            return (reply, None);
        }
        self.map_version = MapVersion(index.0);
        let (subject, text) = self.describe(&proposal.order);
        let event = Event {
            index: index.0,
            time: proposal.time,
            president: proposal.president,
            order: proposal.order.word().to_owned(),
            subject,
            text,
            reason: proposal.reason.clone(),
        };
        (reply, Some(event))
    }

    fn carry_out(&mut self, order: &Order, time: Timestamp) -> OrderReply {
        match order {
            Order::Found { cluster, authority, initial_nodes } => {
                if self.is_founded() {
                    return refused("the cluster is founded already");
                }
                self.cluster = *cluster;
                self.authority = authority.clone();
                self.initial_nodes = *initial_nodes;
                OrderReply::Done
            }
            Order::Invite { id, secret_hash, role, expires } => {
                self.tokens.retain(|_, token| token.expires > time);
                if self.tokens.len() >= JOIN_TOKENS_MAX {
                    return refused("too many join tokens are open; wait until some have expired");
                }
                let token = JoinToken {
                    secret_hash: secret_hash.clone(),
                    role: *role,
                    expires: *expires,
                    state: TokenState::Open,
                };
                self.tokens.insert(id.clone(), token);
                OrderReply::Done
            }
            Order::Enrol { id, subject } => OrderReply::Enrolment(self.enrol(id, *subject)),
            Order::Register { node, profile } => {
                if self.revoked.contains(&node.to_string()) {
                    return refused("the node's certificate is revoked");
                }
                let condition = NodeCondition::Alive;
                self.nodes.insert(*node, Node { profile: profile.clone(), condition });
                OrderReply::Done
            }
            Order::SetNodeCondition { node, condition } => match self.nodes.get_mut(node) {
                Some(known) if known.condition != *condition => {
                    known.condition = *condition;
                    OrderReply::Done
                }
                Some(_) => refused("the node stands so already"),
                None => refused("there is no such node"),
            },
            Order::SetElectors { electors } => {
                if electors.is_empty() || electors.iter().any(|id| !self.nodes.contains_key(id)) {
                    return refused("electors are registered nodes, and at least one");
                }
                self.electors = electors.clone();
                OrderReply::Done
            }
            Order::SetPlacement { groups } => {
                if !groups.len().is_power_of_two() {
                    return refused("the number of placement groups is a power of two");
                }
                self.last_epoch = self.last_epoch.next();
                self.pgs = PgMap { groups: Proposal::placement(groups, self.last_epoch) };
                OrderReply::Epoch(self.last_epoch)
            }
            Order::Revoke { identity } => {
                self.revoked.insert(identity.clone());
                if let Some(node) =
                    identity.parse().ok().and_then(|id: NodeId| self.nodes.get_mut(&id))
                {
                    node.condition = NodeCondition::Revoked;
                }
                OrderReply::Done
            }
            Order::CreateMinistry { .. }
            | Order::Appoint { .. }
            | Order::SetMinistryCondition { .. }
            | Order::GrantRange { .. }
            | Order::CompleteHandover { .. }
            | Order::AbandonHandover { .. } => self.carry_out_for_ministry(order),
        }
    }

    fn carry_out_for_ministry(&mut self, order: &Order) -> OrderReply {
        match order {
            Order::CreateMinistry { ministry, members, root, path } => {
                self.create_ministry(*ministry, members, *root, path)
            }
            Order::Appoint { ministry, minister, succeeds } => {
                self.appoint(*ministry, *minister, *succeeds)
            }
            Order::SetMinistryCondition { ministry, condition } => {
                match self.ministries.get_mut(ministry) {
                    Some(known) if known.condition != *condition => {
                        known.condition = condition.clone();
                        OrderReply::Done
                    }
                    Some(_) => refused("the ministry stands so already"),
                    None => refused("there is no such ministry"),
                }
            }
            Order::GrantRange { ministry } => {
                if !self.ministries.contains_key(ministry) {
                    return refused("there is no such ministry");
                }
                self.grant_range(*ministry);
                OrderReply::Done
            }
            Order::CompleteHandover { ministry } => self.complete_handover(*ministry),
            Order::AbandonHandover { ministry } => match self.ministries.get(ministry) {
                Some(known) if known.handover.is_some() => {
                    self.ministries.remove(ministry);
                    OrderReply::Done
                }
                _ => refused("there is no such handover under way"),
            },
            _ => unreachable!("the caller hands over orders about ministries alone"),
        }
    }

    fn enrol(&mut self, id: &str, subject: Subject) -> Enrolment {
        match self.tokens.get_mut(id) {
            None => Enrolment::Unknown,
            Some(token) => match &token.state {
                TokenState::Open => {
                    token.state = TokenState::Used(subject);
                    Enrolment::Accepted
                }
                // The answer to the first try was lost; the key is the same.
                TokenState::Used(by) if *by == subject => Enrolment::Accepted,
                TokenState::Used(by) => Enrolment::Used(*by),
            },
        }
    }

    fn create_ministry(
        &mut self,
        ministry: MinistryId,
        members: &[NodeId],
        root: InodeId,
        path: &str,
    ) -> OrderReply {
        if ministry != self.next_ministry() {
            return refused("another ministry was made meanwhile; try again");
        }
        if members.iter().any(|id| !self.nodes.contains_key(id)) {
            return refused("members of a ministry are registered nodes");
        }
        let handover = match self.ownership.find(ministry_types::ownership::Point::inode(root)) {
            None if root == InodeId::ROOT => None,
            None => return refused("no ministry owns that directory"),
            Some(_) if self.ministries.values().any(|known| known.root == root) => {
                return refused("the directory is the root of a ministry already");
            }
            Some(interval) => Some(Handover {
                from: interval.owner,
                inode: root,
                generation: interval.generation + 1,
            }),
        };
        self.last_ministry = ministry;
        let entry = Ministry {
            epoch: Epoch(0),
            minister: None,
            members: members.to_vec(),
            condition: MinistryCondition::Forming("a minister is to be appointed".to_owned()),
            root,
            path: path.to_owned(),
            ranges: Vec::new(),
            handover,
        };
        self.ministries.insert(ministry, entry);
        for _ in 0..ministry_types::limits::INODE_RANGES_AHEAD {
            self.grant_range(ministry);
        }
        OrderReply::Done
    }

    fn appoint(&mut self, id: MinistryId, minister: NodeId, succeeds: Epoch) -> OrderReply {
        let Some(ministry) = self.ministries.get_mut(&id) else {
            return refused("there is no such ministry");
        };
        if ministry.epoch != succeeds {
            return refused("there is a newer appointment");
        }
        if !ministry.members.contains(&minister) {
            return refused("only a member becomes minister");
        }
        self.last_epoch = self.last_epoch.next();
        ministry.epoch = self.last_epoch;
        ministry.minister = Some(minister);
        ministry.condition = match &ministry.handover {
            Some(_) => MinistryCondition::Forming("its directory is being handed over".to_owned()),
            None => MinistryCondition::Governed,
        };
        OrderReply::Epoch(self.last_epoch)
    }

    fn complete_handover(&mut self, id: MinistryId) -> OrderReply {
        let Some(ministry) = self.ministries.get_mut(&id) else {
            return refused("there is no such ministry");
        };
        let Some(handover) = ministry.handover.take() else {
            return refused("there is no such handover under way");
        };
        ministry.condition = MinistryCondition::Governed;
        let end = InodeId(handover.inode.0 + 1);
        let generation = self.ownership.assign(handover.inode, end, id);
        assert!(generation >= handover.generation, "generations of an interval only grow");
        OrderReply::Done
    }

    fn grant_range(&mut self, ministry: MinistryId) {
        // Inode 0 is nobody's, so the first range begins at 1.
        let first = InodeId((self.next_range * INODE_RANGE).max(1));
        let end = InodeId((self.next_range + 1) * INODE_RANGE);
        self.next_range += 1;
        let _generation = self.ownership.assign(first, end, ministry);
        if let Some(known) = self.ministries.get_mut(&ministry) {
            known.ranges.push((first, end));
        }
    }

    /// Subject and sentence for the history.
    fn describe(&self, order: &Order) -> (String, String) {
        let cluster = || "cluster".to_owned();
        match order {
            Order::Found { cluster: id, initial_nodes, .. } => {
                (cluster(), format!("cluster {id} is founded for {initial_nodes} nodes"))
            }
            Order::Invite { id, role, .. } => {
                (format!("token {id}"), format!("a token for one {role:?} is made").to_lowercase())
            }
            Order::Enrol { id, subject } => {
                (format!("token {id}"), format!("{subject} is enrolled"))
            }
            Order::Register { node, profile } => {
                (format!("node {}", node.short()), format!("the node is at {}", profile.address))
            }
            Order::SetNodeCondition { node, condition } => (
                format!("node {}", node.short()),
                format!("the node is {}", format!("{condition:?}").to_lowercase()),
            ),
            Order::SetElectors { electors } => {
                (cluster(), format!("the electors are {}", names(electors.iter())))
            }
            Order::CreateMinistry { ministry, members, path, .. } => (
                format!("ministry {ministry}"),
                format!("it is made for {path} with members {}", names(members.iter())),
            ),
            Order::Appoint { ministry, minister, .. } => (
                format!("ministry {ministry}"),
                format!("{} is minister, epoch {}", minister.short(), self.last_epoch),
            ),
            Order::SetMinistryCondition { ministry, condition } => {
                let text = match condition {
                    MinistryCondition::Forming(step) => format!("it is forming: {step}"),
                    MinistryCondition::Governed => "it is governed".to_owned(),
                    MinistryCondition::Down(why) => format!("it is down: {why}"),
                };
                (format!("ministry {ministry}"), text)
            }
            Order::GrantRange { ministry } => {
                (format!("ministry {ministry}"), "it has a further range of inodes".to_owned())
            }
            Order::CompleteHandover { ministry } => {
                (format!("ministry {ministry}"), "it owns its directory".to_owned())
            }
            Order::AbandonHandover { ministry } => {
                (format!("ministry {ministry}"), "it is dissolved".to_owned())
            }
            Order::SetPlacement { groups } => {
                (cluster(), format!("{} placement groups are laid out", groups.len()))
            }
            Order::Revoke { identity } => {
                (short(identity).to_owned(), "its certificate is refused".to_owned())
            }
        }
    }
}

fn refused(why: &str) -> OrderReply {
    OrderReply::Refused(why.to_owned())
}

fn short(identity: &str) -> &str {
    identity.get(..8).unwrap_or(identity)
}

fn names<'a>(nodes: impl Iterator<Item = &'a NodeId>) -> String {
    nodes.map(NodeId::short).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> NodeProfile {
        NodeProfile {
            address: "127.0.0.1:1".parse().unwrap(),
            metrics_address: None,
            failure_domain: String::new(),
            offers_metadata: true,
            storage_weight: 1.0,
            version: String::new(),
            feature_level: 1,
        }
    }

    fn give(government: &mut Government, order: Order) -> OrderReply {
        let index = LogIndex(government.map_version.0 + 1);
        let proposal = Proposal {
            president: NodeId::default(),
            time: Timestamp(5),
            reason: "test".to_owned(),
            order,
        };
        let read_back = Proposal::decode(&proposal.encode()).unwrap();
        government.apply(index, &read_back).0
    }

    fn with_root_ministry() -> Government {
        let mut government = Government::default();
        for i in 0..3 {
            give(&mut government, Order::Register { node: NodeId([i; 32]), profile: profile() });
        }
        let order = Order::CreateMinistry {
            ministry: MinistryId::ROOT,
            members: (0..3).map(|i| NodeId([i; 32])).collect(),
            root: InodeId::ROOT,
            path: "/".to_owned(),
        };
        assert_eq!(give(&mut government, order), OrderReply::Done);
        government
    }

    #[test]
    fn an_appointment_that_was_overtaken_is_refused() {
        let mut government = with_root_ministry();
        let appoint = |minister, succeeds| Order::Appoint {
            ministry: MinistryId::ROOT,
            minister: NodeId([minister; 32]),
            succeeds: Epoch(succeeds),
        };
        assert_eq!(give(&mut government, appoint(0, 0)), OrderReply::Epoch(Epoch(1)));
        assert!(matches!(give(&mut government, appoint(1, 0)), OrderReply::Refused(_)));
        assert_eq!(government.ministries()[&MinistryId::ROOT].minister, Some(NodeId([0; 32])));
        assert!(matches!(give(&mut government, appoint(9, 1)), OrderReply::Refused(_)));
    }

    #[test]
    fn a_token_is_used_once_and_a_repeated_try_of_the_same_key_is_answered() {
        let mut government = Government::default();
        let invite = Order::Invite {
            id: "t".to_owned(),
            secret_hash: vec![1],
            role: Role::Node,
            expires: Timestamp(10),
        };
        give(&mut government, invite);
        let node = |i| Subject::Node(NodeId([i; 32]));
        let mut enrol =
            |i| give(&mut government, Order::Enrol { id: "t".to_owned(), subject: node(i) });
        assert_eq!(enrol(1), OrderReply::Enrolment(Enrolment::Accepted));
        assert_eq!(enrol(1), OrderReply::Enrolment(Enrolment::Accepted));
        assert_eq!(enrol(2), OrderReply::Enrolment(Enrolment::Used(node(1))));
    }

    #[test]
    fn open_tokens_are_bounded_and_expired_ones_do_not_count() {
        let mut government = Government::default();
        let mut invite = |number: usize, time, expires| {
            let order = Order::Invite {
                id: number.to_string(),
                secret_hash: vec![1],
                role: Role::Client,
                expires: Timestamp(expires),
            };
            government.carry_out(&order, Timestamp(time))
        };
        for number in 0..JOIN_TOKENS_MAX {
            assert_eq!(invite(number, 1, if number == 0 { 5 } else { 9 }), OrderReply::Done);
        }
        let refused = invite(JOIN_TOKENS_MAX, 4, 9);
        assert!(matches!(&refused, OrderReply::Refused(why) if why.contains("too many")));
        assert_eq!(invite(JOIN_TOKENS_MAX, 5, 9), OrderReply::Done, "one has expired");
        assert!(matches!(invite(JOIN_TOKENS_MAX + 1, 5, 9), OrderReply::Refused(_)));
    }

    #[test]
    fn a_handed_over_directory_is_cut_out_of_its_old_owner_with_a_larger_generation() {
        let mut government = with_root_ministry();
        assert_eq!(government.ownership().owner(InodeId::ROOT), Some(MinistryId::ROOT));
        let order = Order::CreateMinistry {
            ministry: MinistryId(2),
            members: (0..3).map(|i| NodeId([i; 32])).collect(),
            root: InodeId(77),
            path: "/b".to_owned(),
        };
        assert_eq!(give(&mut government, order), OrderReply::Done);
        assert_eq!(government.ownership().owner(InodeId(77)), Some(MinistryId::ROOT));
        let complete = Order::CompleteHandover { ministry: MinistryId(2) };
        assert_eq!(give(&mut government, complete), OrderReply::Done);
        let owner = |inode| government.ownership().owner(InodeId(inode));
        assert_eq!(owner(77), Some(MinistryId(2)));
        assert_eq!((owner(76), owner(78)), (Some(MinistryId(1)), Some(MinistryId(1))));
        let ranges = &government.ministries()[&MinistryId(2)].ranges;
        assert!(ranges.iter().all(|(first, _)| owner(first.0) == Some(MinistryId(2))));
    }
}
