//! What goes wrong in a run: planned from the seed, carried out when its time comes.
//!
//! Whom a fault hits is decided when it is due (the president of that moment, say). Every fault
//! that was planned must bite: one that found nobody to hit is reported, and the run does not
//! count.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::network::{HostId, Weather};
use crate::trace;
use crate::world::{NODES, World};

/// Whom a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// The minister of the root ministry.
    Minister,
    /// The president.
    President,
    /// This node.
    Node(usize),
}

/// Which way a node is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Both.
    Both,
    /// It hears nothing.
    In,
    /// It is not heard.
    Out,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// A node crashes and comes back so many milliseconds later.
    Crash(Whom, u64),
    /// All nodes lose their power at once.
    Blackout(u64),
    /// A node stands still.
    Pause(Whom, u64),
    /// A client stands still.
    PauseClient(usize, u64),
    /// A node is cut off from all hosts.
    CutOff(Whom, Way, u64),
    /// The president and the minister do not reach each other; all others reach both.
    Rift(u64),
    /// The nodes fall into two parts; the bits say who is where. Clients reach all.
    Split(u8, u64),
    /// Connections break and stall.
    Storm(u64),
}

struct Planned {
    at: u64,
    fault: Fault,
}

/// Faults of a run.
pub struct Faults {
    planned: Vec<Planned>,
    /// What ends when.
    ends: Vec<(u64, End)>,
    cuts: BTreeMap<(HostId, HostId), u32>,
    storms: u32,
    rng: SmallRng,
    clients: Vec<HostId>,
    /// What bit, by name.
    pub bitten: BTreeMap<&'static str, u64>,
    /// What was planned and could not bite.
    pub missed: Vec<String>,
}

enum End {
    Start(usize),
    Heal(Vec<(HostId, HostId)>),
    Calm,
}

impl Faults {
    /// Plans the faults of a seed between two moments, against these clients.
    pub fn plan(seed: u64, from: u64, to: u64, clients: Vec<HostId>) -> Faults {
        let mut rng = SmallRng::seed_from_u64(seed);
        // What every run has; the rest is drawn.
        let mut wanted = vec![
            Fault::Crash(Whom::Minister, rng.random_range(300..4_000)),
            Fault::CutOff(draw_whom(&mut rng), draw_way(&mut rng), rng.random_range(500..8_000)),
            Fault::Pause(draw_whom(&mut rng), rng.random_range(500..8_000)),
            Fault::Storm(rng.random_range(2_000..6_000)),
        ];
        for _ in 0..rng.random_range(2..6) {
            wanted.push(draw(&mut rng, clients.len()));
        }
        wanted.shuffle(&mut rng);
        let mut planned: Vec<Planned> = wanted
            .into_iter()
            .map(|fault| Planned { at: rng.random_range(from..to), fault })
            .collect();
        planned.sort_by_key(|planned| planned.at);
        for Planned { at, fault } in &planned {
            trace::note(format_args!("planned at {at}: {fault:?}"));
        }
        Faults {
            planned,
            ends: Vec::new(),
            cuts: BTreeMap::new(),
            storms: 0,
            rng,
            clients,
            bitten: BTreeMap::new(),
            missed: Vec::new(),
        }
    }

    /// Begins and ends what is due.
    pub fn step(&mut self, world: &mut World) {
        let now = world.tick();
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.ends).into_iter().partition(|(at, _)| *at <= now);
        self.ends = later;
        due.into_iter().for_each(|(_, end)| self.end(world, end));
        let mut waiting = Vec::new();
        for planned in std::mem::take(&mut self.planned) {
            // One that finds nobody to hit waits: who is meant may be down, or not be appointed.
            if planned.at > now || !self.begin(world, planned.fault) {
                waiting.push(planned);
            }
        }
        self.planned = waiting;
    }

    /// Whether everything that must bite has begun.
    pub fn all_begun(&self) -> bool {
        self.planned.iter().all(|planned| matches!(planned.fault, Fault::Rift(_)))
    }

    /// Ends everything: what is down starts, what is cut heals.
    pub fn heal(&mut self, world: &mut World) {
        trace::note("everything heals");
        let left = std::mem::take(&mut self.planned);
        // Who presides may be the minister all the time.
        let missed = left.iter().filter(|planned| !matches!(planned.fault, Fault::Rift(_)));
        self.missed.extend(missed.map(|planned| format!("{:?}", planned.fault)));
        let ends = std::mem::take(&mut self.ends);
        ends.into_iter().for_each(|(_, end)| self.end(world, end));
        world.end_pauses();
        assert!(self.cuts.is_empty() && self.storms == 0, "what began has ended");
        assert!((0..NODES).all(|node| world.is_up(node)), "every node is on");
    }

    fn bit(&mut self, name: &'static str) -> bool {
        *self.bitten.entry(name).or_default() += 1;
        true
    }

    fn until(&mut self, at: u64, end: End) {
        self.ends.push((at, end));
    }

    /// Begins a fault; `false`: there is nobody to hit now.
    fn begin(&mut self, world: &mut World, fault: Fault) -> bool {
        let now = world.tick();
        match fault {
            Fault::Crash(whom, time) => {
                let Some(node) = find(world, whom) else { return false };
                trace::note(format_args!("{fault:?}"));
                self.crash(world, node, now + time);
                self.bit(match whom {
                    Whom::Minister => "crash of the minister",
                    Whom::President => "crash of the president",
                    Whom::Node(_) => "crash of a node",
                })
            }
            Fault::Blackout(time) => {
                trace::note(format_args!("{fault:?}"));
                for node in 0..NODES {
                    if world.is_up(node) {
                        let at = now + time + self.rng.random_range(0..500);
                        self.crash(world, node, at);
                    }
                }
                self.bit("blackout")
            }
            Fault::Pause(whom, time) => {
                let Some(node) = find(world, whom).filter(|node| world.runs(*node)) else {
                    return false;
                };
                world.pause(node, time);
                self.bit(match whom {
                    Whom::Minister => "pause of the minister",
                    Whom::President => "pause of the president",
                    Whom::Node(_) => "pause of a node",
                })
            }
            Fault::PauseClient(client, time) => {
                world.pause(self.clients[client], time);
                self.bit("pause of a client")
            }
            Fault::CutOff(whom, way, time) => {
                let Some(node) = find(world, whom) else { return false };
                let others = (0..NODES).chain(self.clients.iter().copied());
                let others: Vec<_> = others.filter(|other| *other != node).collect();
                let into = others.iter().map(|other| (*other, node));
                let out = others.iter().map(|other| (node, *other));
                let pairs: Vec<_> = match way {
                    Way::Both => into.chain(out).collect(),
                    Way::In => into.collect(),
                    Way::Out => out.collect(),
                };
                trace::note(format_args!("{fault:?}: node {node}"));
                self.cut(world, pairs, now + time);
                self.bit(if way == Way::Both { "cut-off" } else { "one-way cut-off" })
            }
            Fault::Rift(time) => {
                let (president, minister) =
                    (find(world, Whom::President), find(world, Whom::Minister));
                let (Some(president), Some(minister)) = (president, minister) else { return false };
                if president == minister {
                    return false;
                }
                trace::note(format_args!("{fault:?}: {president} and {minister}"));
                let pairs = vec![(president, minister), (minister, president)];
                self.cut(world, pairs, now + time);
                self.bit("rift")
            }
            Fault::Split(parts, time) => {
                let part = |node: usize| parts >> node & 1;
                let all = (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to)));
                let pairs: Vec<_> = all.filter(|(from, to)| part(*from) != part(*to)).collect();
                trace::note(format_args!("{fault:?}"));
                self.cut(world, pairs, now + time);
                self.bit("split")
            }
            Fault::Storm(time) => {
                trace::note(format_args!("{fault:?}"));
                self.storms += 1;
                let slow = self.rng.random_range(1..4);
                let breaks = self.rng.random_range(0.002..0.02);
                let stalls = self.rng.random_range(0.002..0.02);
                world.network.set_weather(Weather { breaks, stalls, slow });
                self.until(now + time, End::Calm);
                self.bit("storm")
            }
        }
    }

    fn crash(&mut self, world: &mut World, node: usize, until: u64) {
        let announced = self.rng.random_bool(0.5);
        world.crash_node(node, announced);
        self.until(until, End::Start(node));
    }

    fn cut(&mut self, world: &World, pairs: Vec<(HostId, HostId)>, until: u64) {
        for pair in &pairs {
            *self.cuts.entry(*pair).or_default() += 1;
            world.network.cut(pair.0, pair.1);
        }
        self.until(until, End::Heal(pairs));
    }

    fn end(&mut self, world: &mut World, end: End) {
        match end {
            End::Start(node) => world.start_node(node),
            End::Heal(pairs) => {
                trace::note(format_args!("{} ways heal", pairs.len()));
                for pair in pairs {
                    let count = self.cuts.get_mut(&pair).expect("what is healed was cut");
                    *count -= 1;
                    if *count == 0 {
                        self.cuts.remove(&pair);
                        world.network.heal(pair.0, pair.1);
                    }
                }
            }
            End::Calm => {
                self.storms -= 1;
                if self.storms == 0 {
                    trace::note("the storm is over");
                    world.network.set_weather(Weather::FAIR);
                }
            }
        }
    }
}

fn draw_whom(rng: &mut SmallRng) -> Whom {
    match rng.random_range(0..3) {
        0 => Whom::Minister,
        1 => Whom::President,
        _ => Whom::Node(rng.random_range(0..NODES)),
    }
}

fn draw_way(rng: &mut SmallRng) -> Way {
    [Way::Both, Way::Both, Way::In, Way::Out][rng.random_range(0..4)]
}

fn draw(rng: &mut SmallRng, clients: usize) -> Fault {
    match rng.random_range(0..100) {
        0..35 => Fault::Crash(draw_whom(rng), rng.random_range(300..5_000)),
        35..45 => Fault::Blackout(rng.random_range(300..2_000)),
        45..60 => Fault::Pause(draw_whom(rng), rng.random_range(500..10_000)),
        60..67 => Fault::PauseClient(rng.random_range(0..clients), rng.random_range(3_000..9_000)),
        67..80 => Fault::CutOff(draw_whom(rng), draw_way(rng), rng.random_range(500..10_000)),
        80..86 => Fault::Rift(rng.random_range(500..8_000)),
        86..93 => Fault::Split(rng.random_range(1..31), rng.random_range(500..8_000)),
        _ => Fault::Storm(rng.random_range(1_000..6_000)),
    }
}

/// Who is meant, of the nodes that are on.
fn find(world: &World, whom: Whom) -> Option<usize> {
    let holds = |number: &usize| {
        let Some(status) = world.status(*number).filter(|_| world.runs(*number)) else {
            return false;
        };
        match whom {
            Whom::Minister => status.ministries.values().any(Option::is_some),
            Whom::President => status.president,
            Whom::Node(wanted) => wanted == *number,
        }
    };
    (0..NODES).find(holds)
}
