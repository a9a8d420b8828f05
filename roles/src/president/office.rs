//! The office of the president: watch, decide, give orders, see to it that they are carried out.
//!
//! [`President::run`] is entered when this node leads the cluster log and returns when it no
//! longer does. Everything it started ends with it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ministry_types::NodeId;
use ministry_types::limits::{HEARTBEAT_INTERVAL, SUSPECT_AFTER};
use ministry_wire::node::{NodeClient, Ping};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::errands::Errands;
use super::sights::{Unserved, usage};
use super::view::{View, plan};
use crate::government::{Order, OrderReply};
use crate::node::NodeContext;

/// A question to a node may take this long: longer than what makes it suspect, so that a slow
/// answer still says that it lives.
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// Questions to one node that may be under way: one that hangs does not hide the next.
const PINGS_PER_NODE_MAX: usize = 3;

/// The presidency of this node.
pub struct President {
    node: Arc<NodeContext>,
    begun: Instant,
    unserved: Unserved,
    pings: JoinSet<NodeId>,
    asked: Vec<NodeId>,
    answered: Arc<Notify>,
    errands: Errands,
}

impl President {
    /// Enters the office.
    pub fn new(node: Arc<NodeContext>) -> President {
        node.sights.clear();
        let errands = Errands::new(Arc::clone(&node));
        President {
            node,
            begun: Instant::now(),
            unserved: Unserved::default(),
            pings: JoinSet::new(),
            asked: Vec::new(),
            answered: Arc::default(),
            errands,
        }
    }

    /// Governs until this node no longer leads the cluster log.
    ///
    /// Cancel safety: safe; what was ordered is in the log, what was under way is taken up again.
    pub async fn run(mut self) {
        let node = Arc::clone(&self.node);
        let mut map = node.government.map();
        let mut ticks = interval(HEARTBEAT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tracing::info!(term = %node.cluster.status().term, "this node is president");
        loop {
            tokio::select! {
                _ = ticks.tick() => self.ask_everybody(),
                _ = self.answered.notified() => {}
                changed = map.changed() => assert!(changed.is_ok(), "the machine outlives us"),
                Some(done) = self.pings.join_next() => {
                    if let Ok(node) = done { self.forget_question(node); }
                    continue;
                }
                () = self.errands.reap() => {}
            }
            if !node.cluster.status().is_leader {
                tracing::info!("this node is no longer president");
                return;
            }
            self.found_if_due().await;
            self.decide().await;
        }
    }

    fn forget_question(&mut self, node: NodeId) {
        if let Some(place) = self.asked.iter().position(|asked| *asked == node) {
            self.asked.swap_remove(place);
        }
    }

    fn ask_everybody(&mut self) {
        let government = self.node.government.government();
        let sights = self.node.sights.snapshot(Instant::now());
        let usage = usage(&sights);
        self.node.set_usage(usage);
        let term = self.node.cluster.status().term;
        let ping = Ping { president: self.node.me, term, usage };
        for (node, _, _) in government.nodes() {
            let under_way = self.asked.iter().filter(|asked| **asked == node).count();
            if under_way < PINGS_PER_NODE_MAX {
                self.asked.push(node);
                self.ask(node, ping.clone());
            }
        }
    }

    fn ask(&mut self, to: NodeId, ping: Ping) {
        let node = Arc::clone(&self.node);
        let answered = Arc::clone(&self.answered);
        self.pings.spawn(async move {
            let asked = Instant::now();
            let report = if to == node.me {
                Some(node.report())
            } else {
                node.call_node(to, PING_TIMEOUT, |client: NodeClient, context| async move {
                    client.ping(context, ping).await
                })
                .await
                .ok()
            };
            if let Some(report) = report.filter(|report| report.node == to) {
                let news = node.sights.record(asked, report);
                if news {
                    answered.notify_one();
                }
            }
            to
        });
    }

    async fn found_if_due(&self) {
        if self.node.government.government().is_founded() {
            return;
        }
        let Some(founding) = self.node.founding() else { return };
        let order = Order::Found {
            cluster: founding.cluster,
            authority: founding.authority,
            initial_nodes: founding.initial_nodes,
        };
        let reason = "the first node was started with the cluster's authority".to_owned();
        if let Err(error) = self.node.order(order, reason).await {
            tracing::warn!(%error, "the cluster is not founded yet");
        }
    }

    async fn decide(&mut self) {
        let now = Instant::now();
        let government = self.node.government.government();
        let sights = self.node.sights.snapshot(now);
        let unserved = self.unserved.update(&government, &sights, now);
        let view = View {
            me: self.node.me,
            government: &government,
            sights: &sights,
            presidency: now.duration_since(self.begun),
            unserved: &unserved,
        };
        for decision in plan(&view) {
            let word = decision.order.word();
            tracing::info!(order = word, reason = %decision.reason, "order");
            match self.node.order(decision.order, decision.reason).await {
                Ok(OrderReply::Refused(why)) => {
                    tracing::info!(order = word, why, "the order was refused");
                }
                Ok(_) => {
                    metrics::counter!("ministry_president_orders_total", "order" => word)
                        .increment(1);
                }
                Err(error) => {
                    tracing::warn!(order = word, %error, "the order could not be logged");
                    return;
                }
            }
        }
        self.see_to_it(&view_sights(&sights));
    }

    /// Has carried out what the log says and the world does not show yet.
    fn see_to_it(&mut self, answering: &BTreeSet<NodeId>) {
        let government = self.node.government.government();
        let sights = self.node.sights.snapshot(Instant::now());
        self.errands.members(&government, answering);
        self.errands.appointments(&government, &sights);
        self.errands.handovers(&government, &sights);
    }
}

fn view_sights(
    sights: &std::collections::BTreeMap<NodeId, super::view::Sight>,
) -> BTreeSet<NodeId> {
    sights.iter().filter(|(_, sight)| sight.age < SUSPECT_AFTER).map(|(node, _)| *node).collect()
}
