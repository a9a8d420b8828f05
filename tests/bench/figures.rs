//! Figures, and how they are shown.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::context::Context;
use crate::targets::Target;

/// One place's side of a figure.
#[derive(Debug, Clone, Serialize)]
pub struct Side {
    /// How long all of it took.
    pub seconds: f64,
    /// Units done in a second.
    pub rate: f64,
    /// Half of the calls took no longer; milliseconds. Absent where no single calls were timed.
    pub p50_ms: Option<f64>,
    /// 99 of 100 calls took no longer; milliseconds.
    pub p99_ms: Option<f64>,
}

impl Side {
    /// From the time of everything and of each call, which may be none.
    pub fn new(units: f64, all: Duration, calls: &[Duration]) -> Side {
        let mut sorted = calls.to_vec();
        sorted.sort();
        let at = |share: f64| {
            let place = (sorted.len() as f64 * share) as usize;
            let call = sorted.get(place.min(sorted.len().saturating_sub(1)))?;
            Some(call.as_secs_f64() * 1e3)
        };
        let seconds = all.as_secs_f64();
        Side { seconds, rate: units / seconds, p50_ms: at(0.50), p99_ms: at(0.99) }
    }
}

/// The rate here by the rates of the others: 1 is as fast, 0.1 a tenth as fast.
#[derive(Debug, Clone, Serialize)]
pub struct Ratios {
    /// By the local folder's.
    pub local: Option<f64>,
    /// By that of bindfs.
    pub bindfs: Option<f64>,
    /// By that of etcd.
    pub etcd: Option<f64>,
}

/// One measure at all places where it makes sense.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: &'static str,
    /// How many units at each place.
    pub count: u64,
    /// What is counted: files, calls, MiB.
    pub unit: &'static str,
    /// The local folder.
    pub local: Option<Side>,
    /// The same folder's neighbour through bindfs.
    pub bindfs: Option<Side>,
    /// Puts into etcd by as many callers, where a unit is one change of names.
    pub etcd: Option<Side>,
    /// Ministry: the mount, or the library where the name says so.
    pub ministry: Side,
    /// The last by each of the others.
    pub ratios: Ratios,
}

impl Figure {
    /// Of the local folder, bindfs and the mount.
    pub fn of(name: &'static str, count: usize, unit: &'static str, sides: [Side; 3]) -> Figure {
        let [local, bindfs, ministry] = sides;
        Figure::new(name, count, unit, (Some(local), Some(bindfs), None), ministry)
    }

    /// Of the library, beside etcd.
    pub fn beside_etcd(name: &'static str, count: usize, etcd: Side, ministry: Side) -> Figure {
        Figure::new(name, count, "file", (None, None, Some(etcd)), ministry)
    }

    /// The same with etcd's side.
    pub fn with_etcd(self, etcd: Side) -> Figure {
        let others = (self.local, self.bindfs, Some(etcd));
        Figure::new(self.name, self.count as usize, self.unit, others, self.ministry)
    }

    fn new(
        name: &'static str,
        count: usize,
        unit: &'static str,
        others: (Option<Side>, Option<Side>, Option<Side>),
        ministry: Side,
    ) -> Figure {
        let (local, bindfs, etcd) = others;
        let by = |side: &Option<Side>| side.as_ref().map(|side| ministry.rate / side.rate);
        let ratios = Ratios { local: by(&local), bindfs: by(&bindfs), etcd: by(&etcd) };
        Figure { name, count: count as u64, unit, local, bindfs, etcd, ministry, ratios }
    }
}

/// Everything of one run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Grows when the form changes.
    pub schema: u32,
    /// Small sizes: the figures mean little.
    pub quick: bool,
    /// The machine.
    pub context: Context,
    /// All figures.
    pub figures: Vec<Figure>,
    /// What was to be reached, of what was measured.
    pub targets: Vec<Target>,
}

/// Three or four digits.
pub fn number(value: f64) -> String {
    match value {
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ if value >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), number)
}

const WIDTHS: [usize; 12] = [30, 7, 7, 7, 7, 7, 6, 6, 6, 6, 6, 6];
const HEAD: [&str; 12] = [
    "", "unit", "local", "bindfs", "etcd", "minist.", "p50", "p99", "bi.p50", "/local", "/bind.",
    "/etcd",
];

fn row(f: &mut fmt::Formatter<'_>, cells: [String; 12]) -> fmt::Result {
    for (place, (cell, width)) in cells.iter().zip(WIDTHS).enumerate() {
        match place {
            0 => write!(f, "{cell:<width$}")?,
            1 => write!(f, " {cell:<width$}")?,
            _ => write!(f, " {cell:>width$}")?,
        }
    }
    writeln!(f)
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |side: &Option<Side>| optional(side.as_ref().map(|side| side.rate));
        let cells = [
            self.name.to_owned(),
            format!("{}/s", self.unit),
            rate(&self.local),
            rate(&self.bindfs),
            rate(&self.etcd),
            number(self.ministry.rate),
            optional(self.ministry.p50_ms),
            optional(self.ministry.p99_ms),
            optional(self.bindfs.as_ref().and_then(|side| side.p50_ms)),
            optional(self.ratios.local),
            optional(self.ratios.bindfs),
            optional(self.ratios.etcd),
        ];
        row(f, cells)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}{}\n", self.context, if self.quick { QUICK } else { "" })?;
        row(f, HEAD.map(str::to_owned))?;
        for figure in &self.figures {
            write!(f, "{figure}")?;
        }
        writeln!(
            f,
            "\nrates; p50 and p99 in milliseconds a call, of Ministry (bi.p50: of bindfs);\n\
             then Ministry's rate by each of the others'\n"
        )?;
        for target in &self.targets {
            writeln!(f, "{target}")?;
        }
        Ok(())
    }
}

const QUICK: &str = "; quick sizes, the figures mean little";
