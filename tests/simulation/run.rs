//! One seed from beginning to end.
//!
//! The cluster comes up; clients work while things go wrong; everything heals, and the cluster must
//! come to rest by itself; then everything is compared with the history.

use std::collections::{BTreeMap, BTreeSet};

use ministry_types::placement::mix;
use ministry_types::{Epoch, MinistryId, NodeId};

use crate::clients;
use crate::faults::Faults;
use crate::history::Shared;
use crate::trace;
use crate::world::{Mutant, NODES, World};

/// Clients that work.
const CLIENTS: usize = 3;
/// How long things go wrong.
const TROUBLE: u64 = 18_000;
/// So many times ten milliseconds more, for faults that waited for somebody to hit.
const LATE: u64 = 1_500;
/// A cluster at peace must serve within this.
const COMES_UP: u64 = 30_000;
/// After healing, everything must be well within this.
const HEALS: u64 = 30_000;
/// What is under way ends within this: the time of an operation, and a little.
const ENDS: u64 = 70_000;
/// Between two looks at everything.
const LOOK: u64 = 10;

/// What is counted by the lines that the product logs about it.
const LOGGED: &[(&str, &str)] = &[
    ("snapshots installed", "ministry_raft::machine: installing"),
    ("leads handed over", "handed over to the appointed minister"),
    ("sessions lost", "ministry_client::sessions: the session has ended"),
];

/// What a run came to.
pub struct Report {
    /// What was found broken.
    pub breaches: Vec<String>,
    /// What happened how often.
    pub coverage: BTreeMap<String, u64>,
    /// The trace.
    pub trace: Vec<String>,
}

struct Run {
    world: World,
    shared: Shared,
    faults: Option<Faults>,
    /// Who was seen to serve a ministry under an epoch.
    served: BTreeMap<(MinistryId, Epoch), NodeId>,
    /// Who was president at the last look.
    presidents: BTreeSet<NodeId>,
    accessions: u64,
}

/// Runs a seed in this thread.
pub fn run(seed: u64, mutant: Option<Mutant>) -> Report {
    trace::begin();
    trace::note(format_args!("seed {seed}"));
    let mut run = Run {
        world: World::new(seed, mutant),
        shared: Shared::default(),
        faults: None,
        served: BTreeMap::new(),
        presidents: BTreeSet::new(),
        accessions: 0,
    };
    let ended = run.all(seed);
    if !ended && !trace::is_broken() {
        trace::breach("the run did not come to its end");
    }
    let mut coverage = run.coverage();
    let Run { world, .. } = run;
    // Nothing of the end is part of the run.
    let (breaches, trace) = (trace::breaches(), trace::take());
    for (name, text) in LOGGED {
        let lines = trace.iter().filter(|line| line.contains(text)).count();
        coverage.insert((*name).to_owned(), lines as u64);
    }
    drop(world);
    Report { breaches, coverage, trace }
}

impl Run {
    /// `false`: a phase did not end.
    fn all(&mut self, seed: u64) -> bool {
        for node in 0..NODES {
            self.world.start_node(node);
        }
        if !self.until("the cluster comes up", COMES_UP, |run| run.is_served()) {
            return false;
        }
        if !self.client("prepare", clients::prepare, COMES_UP) {
            return false;
        }
        let mut hosts = Vec::new();
        for number in 0..CLIENTS {
            let shared = self.shared.clone();
            shared.works(true);
            let host = self.world.start_client(&format!("client-{number}"), |link, who, rng| {
                clients::work(number, shared, link, who, rng)
            });
            hosts.push(host);
        }
        let now = self.world.tick();
        self.faults = Some(Faults::plan(mix(seed), now + 1_000, now + TROUBLE - 2_000, hosts));
        if !self.steps(TROUBLE) {
            return false;
        }
        // What waits for somebody to hit gets its chance.
        for _ in 0..LATE {
            if self.faults.as_ref().is_none_or(Faults::all_begun) || !self.steps(10) {
                break;
            }
        }
        self.heal() && self.compare()
    }

    /// Everything heals: the cluster must come to rest by itself, and serve.
    fn heal(&mut self) -> bool {
        if let Some(faults) = &mut self.faults {
            faults.heal(&mut self.world);
        }
        let served = self.client("probe", clients::probe, HEALS);
        if !served || !self.until("one president, a minister", HEALS, |run| run.is_governed()) {
            return false;
        }
        self.shared.stop();
        self.until("the clients end", ENDS, |run| run.shared.working() == 0)
            && self.until("the members agree", HEALS, Run::members_agree)
    }

    fn compare(&mut self) -> bool {
        self.client("inspect", clients::inspect, ENDS)
            && self.until("the members agree", HEALS, Run::members_agree)
    }

    /// Runs a client that ends by itself.
    fn client<F>(
        &mut self,
        name: &str,
        program: fn(
            Shared,
            crate::network::Link,
            std::sync::Arc<ministry_transport::Security>,
            rand::rngs::SmallRng,
        ) -> F,
        limit: u64,
    ) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let before = self.shared.working();
        self.shared.works(true);
        let shared = self.shared.clone();
        self.world.start_client(name, |link, who, rng| program(shared, link, who, rng));
        self.until(name, limit, |run| run.shared.working() <= before)
    }

    fn step(&mut self) {
        if let Some(faults) = &mut self.faults {
            faults.step(&mut self.world);
        }
        self.world.step();
        if self.world.tick().is_multiple_of(LOOK) {
            self.look();
        }
    }

    fn steps(&mut self, count: u64) -> bool {
        for _ in 0..count {
            self.step();
            if trace::is_broken() {
                return false;
            }
        }
        true
    }

    /// Goes on until something is so; that it is not so in time is a breach.
    fn until(&mut self, what: &str, limit: u64, done: impl Fn(&Run) -> bool) -> bool {
        let begun = self.world.tick();
        while !trace::is_broken() {
            self.step();
            let time = self.world.tick() - begun;
            if done(self) {
                trace::note(format_args!("{what}: after {time} ms"));
                return true;
            }
            if time >= limit {
                trace::breach(format_args!("{what}: not within {limit} ms"));
            }
        }
        false
    }

    /// What must hold at every moment.
    fn look(&mut self) {
        self.world.look();
        for number in 0..NODES {
            let id = self.world.id(number);
            let status = self.world.status(number);
            let presides = status.as_ref().is_some_and(|status| status.president);
            if presides && self.presidents.insert(id) {
                self.accessions += 1;
            } else if !presides {
                self.presidents.remove(&id);
            }
            let Some(status) = status else { continue };
            for (ministry, epoch) in status.ministries {
                let Some(epoch) = epoch else { continue };
                let first = *self.served.entry((ministry, epoch)).or_insert(status.node);
                if first != status.node {
                    trace::breach(format_args!(
                        "{} and {} both serve {ministry} under epoch {epoch}",
                        first.short(),
                        status.node.short()
                    ));
                }
            }
        }
    }

    fn is_served(&self) -> bool {
        let serves = |number: usize| {
            let status = self.world.status(number);
            status.is_some_and(|status| status.ministries.values().any(Option::is_some))
        };
        (0..NODES).any(serves)
    }

    /// One president, whom all know, and one minister of the newest epoch.
    fn is_governed(&self) -> bool {
        let statuses: Vec<_> = (0..NODES).filter_map(|node| self.world.status(node)).collect();
        let presidents: Vec<_> = statuses.iter().filter(|status| status.president).collect();
        let [president] = presidents[..] else { return false };
        let known = statuses.iter().all(|status| status.known_president == Some(president.node));
        let newest = self.world.replicas.newest_reign(MinistryId::ROOT.0);
        let serving = statuses
            .iter()
            .filter(|status| status.ministries.get(&MinistryId::ROOT) == Some(&Some(newest)));
        statuses.len() == NODES && known && serving.count() == 1
    }

    /// All members of each group have come equally far, and so (it is checked as they go) have
    /// the same state.
    fn members_agree(&self) -> bool {
        let Some(map) = self.world.map(0) else { return false };
        let Some(root) = map.ministries.get(&MinistryId::ROOT) else { return false };
        let members = root.members.iter().filter_map(|id| self.world.number(*id));
        let agree = |group: u64, nodes: Vec<usize>| {
            let states: BTreeSet<_> = nodes
                .iter()
                .map(|node| self.world.state(*node).and_then(|state| state.state(group)))
                .collect();
            states.len() == 1 && !states.contains(&None)
        };
        agree(0, (0..NODES).collect()) && agree(MinistryId::ROOT.0, members.collect())
    }

    fn coverage(&self) -> BTreeMap<String, u64> {
        let seen = self.world.network.seen();
        let counts = self.shared.with(|history| history.counts);
        let mut coverage: BTreeMap<String, u64> = [
            ("connections broken", seen.broken),
            ("replies lost", seen.replies_lost),
            ("sendings held by a partition", seen.held),
            ("sendings stalled", seen.stalled),
            ("states compared", self.world.replicas.compared()),
            ("changes done", counts.done),
            ("outcomes unknown", counts.unknown),
            ("reads", counts.reads),
            ("reigns", self.world.replicas.newest_reign(MinistryId::ROOT.0).0),
            ("accessions of a president", self.accessions),
            ("milliseconds", self.world.tick()),
        ]
        .map(|(name, count)| (name.to_owned(), count))
        .into();
        if let Some(faults) = &self.faults {
            for missed in &faults.missed {
                *coverage.entry(format!("missed: {missed}")).or_default() += 1;
            }
            let bitten = faults.bitten.iter();
            coverage.extend(bitten.map(|(name, count)| ((*name).to_owned(), *count)));
        }
        coverage
    }
}
