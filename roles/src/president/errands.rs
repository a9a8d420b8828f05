//! What has to be done for an order to come true: telling the appointed, bringing the electors
//! into the cluster log, handing directories over.
//!
//! An errand is one task, at most one a subject at a time. It can be repeated; what failed is
//! begun again at the next round, also by the next president.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ministry_types::limits::{ATTEMPT_TIMEOUT, SUSPECT_AFTER};
use ministry_types::{MinistryId, NodeId};
use ministry_wire::node::{Appointment, Handover, NodeClient, NodeRefusal};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::view::Sight;
use crate::government::{Government, Ministry, Order};
use crate::node::NodeContext;

/// An errand that was done waits this long before it is looked at again, so that the reports that
/// show its effect can arrive.
const REST: Duration = Duration::from_millis(50);
/// Bringing a node into the cluster log.
const MEMBERSHIP_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Membership,
    Appointment(MinistryId),
    Handover(MinistryId),
}

/// Errands under way.
pub(super) struct Errands {
    node: Arc<NodeContext>,
    tasks: JoinSet<Subject>,
    under_way: BTreeSet<Subject>,
}

impl Errands {
    pub fn new(node: Arc<NodeContext>) -> Errands {
        Errands { node, tasks: JoinSet::new(), under_way: BTreeSet::new() }
    }

    /// Waits until an errand is over; for ever while there is none.
    ///
    /// Cancel safety: safe.
    pub async fn reap(&mut self) {
        match self.tasks.join_next().await {
            Some(Ok(subject)) => {
                self.under_way.remove(&subject);
            }
            Some(Err(error)) => {
                // Which one is not known any more: all may be begun again.
                tracing::error!(%error, "an errand of the president failed");
                self.under_way.clear();
            }
            None => std::future::pending().await,
        }
    }

    fn begin<F>(&mut self, subject: Subject, errand: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if self.under_way.insert(subject.clone()) {
            self.tasks.spawn(async move {
                errand.await;
                sleep(REST).await;
                subject
            });
        }
    }

    /// Brings registered nodes into the cluster log, and its voters in line with the electors.
    pub fn members(&mut self, government: &Government, answering: &BTreeSet<NodeId>) {
        let status = self.node.cluster.status();
        let known: BTreeSet<NodeId> = status.voters.union(&status.learners).copied().collect();
        let missing = || government.nodes().map(|(id, _, _)| id).filter(|id| !known.contains(id));
        // One that answers first: bringing in a silent one takes as long as it is silent.
        let new = missing().find(|id| answering.contains(id)).or_else(|| missing().next());
        let electors = government.electors().clone();
        let change =
            !electors.is_empty() && electors != status.voters && electors.is_subset(&known);
        if new.is_none() && !change {
            return;
        }
        let node = Arc::clone(&self.node);
        self.begin(Subject::Membership, async move {
            let cluster = &node.cluster;
            let changed = match new {
                Some(id) => cluster.add_learner(id, false, MEMBERSHIP_TIMEOUT).await,
                None => cluster.change_members(electors, true, MEMBERSHIP_TIMEOUT).await,
            };
            match changed {
                Ok(()) => tracing::info!("the members of the cluster log changed"),
                Err(error) => tracing::warn!(%error, "the cluster log's members are as before"),
            }
        });
    }

    /// Tells each appointed member that does not serve yet.
    pub fn appointments(&mut self, government: &Government, sights: &BTreeMap<NodeId, Sight>) {
        for (id, ministry) in government.ministries() {
            let Some(minister) = ministry.minister else { continue };
            // A reign that has begun and is not served any more is over: a new appointment is due.
            if serves(sights, *id, ministry) || has_reigned(sights, *id, ministry) {
                continue;
            }
            let appointment = Appointment {
                ministry: *id,
                epoch: ministry.epoch,
                minister,
                members: ministry.members.iter().copied().collect(),
            };
            let node = Arc::clone(&self.node);
            self.begin(Subject::Appointment(*id), async move { tell(&node, appointment).await });
        }
    }

    /// Carries each directory that is being handed over from its old ministry to its new one.
    pub fn handovers(&mut self, government: &Government, sights: &BTreeMap<NodeId, Sight>) {
        for (id, ministry) in government.ministries() {
            let Some(handover) = &ministry.handover else { continue };
            let Some(old) = government.ministries().get(&handover.from) else { continue };
            if !serves(sights, *id, ministry) || !serves(sights, handover.from, old) {
                continue;
            }
            let (Some(giver), Some(taker)) = (old.minister, ministry.minister) else { continue };
            let step = Handover::Give {
                from: handover.from,
                inode: handover.inode,
                to: *id,
                generation: handover.generation,
            };
            let (node, id, generation) = (Arc::clone(&self.node), *id, handover.generation);
            self.begin(Subject::Handover(id), async move {
                hand_over(&node, id, generation, giver, step, taker).await;
            });
        }
    }
}

fn serves(sights: &BTreeMap<NodeId, Sight>, id: MinistryId, ministry: &Ministry) -> bool {
    let sight = ministry.minister.and_then(|node| sights.get(&node));
    let Some(sight) = sight.filter(|sight| sight.age < SUSPECT_AFTER) else { return false };
    let group = sight.report.groups.iter().find(|report| report.group == id.group());
    group.is_some_and(|report| report.serving == Some(ministry.epoch))
}

/// Whether the minister has begun the reign of the epoch in force, as far as it last said.
fn has_reigned(sights: &BTreeMap<NodeId, Sight>, id: MinistryId, ministry: &Ministry) -> bool {
    let sight = ministry.minister.and_then(|node| sights.get(&node));
    let report = sight.map(|sight| sight.report.groups.iter());
    report.into_iter().flatten().any(|r| r.group == id.group() && r.reign >= ministry.epoch)
}

async fn tell(node: &Arc<NodeContext>, appointment: Appointment) {
    let (ministry, to) = (appointment.ministry, appointment.minister);
    let told = if to == node.me {
        node.appoint(appointment).await
    } else {
        let told = node.call_node(to, ATTEMPT_TIMEOUT, |client: NodeClient, context| async move {
            client.appoint(context, appointment).await
        });
        match told.await {
            Ok(told) => told,
            Err(error) => {
                tracing::debug!(%ministry, to = to.short(), %error, "the appointed is out of reach");
                return;
            }
        }
    };
    if let Err(refusal) = told {
        tracing::warn!(%ministry, to = to.short(), %refusal, "the appointed refused");
    }
}

async fn step(
    node: &Arc<NodeContext>,
    to: NodeId,
    step: Handover,
) -> Option<Result<Vec<u8>, NodeRefusal>> {
    if to == node.me {
        return Some(node.hand_over(step).await);
    }
    let asked = node.call_node(to, ATTEMPT_TIMEOUT, |client: NodeClient, context| async move {
        client.hand_over(context, step).await
    });
    asked.await.ok()
}

async fn hand_over(
    node: &Arc<NodeContext>,
    ministry: MinistryId,
    generation: u64,
    giver: NodeId,
    give: Handover,
    taker: NodeId,
) {
    let record = match step(node, giver, give).await {
        Some(Ok(record)) => record,
        Some(Err(NodeRefusal::Failed(why))) => {
            let order = Order::AbandonHandover { ministry };
            let reason = format!("the directory cannot be handed over: {why}");
            if let Err(error) = node.order(order, reason).await {
                tracing::debug!(%ministry, %error, "the handover is abandoned later");
            }
            return;
        }
        Some(Err(_)) | None => return,
    };
    let take = Handover::Take { to: ministry, record, generation };
    match step(node, taker, take).await {
        Some(Ok(_)) => {}
        Some(Err(refusal)) => {
            return tracing::warn!(%ministry, %refusal, "the new ministry did not take over yet");
        }
        None => return,
    }
    let order = Order::CompleteHandover { ministry };
    let reason = "its minister has taken the directory over".to_owned();
    if let Err(error) = node.order(order, reason).await {
        tracing::debug!(%ministry, %error, "the handover is completed later");
    }
}
