//! Figures, and how they are shown.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::context::Context;

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

/// One measure at both places.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: &'static str,
    /// How many units at each place.
    pub count: u64,
    /// What is counted: files, calls, MiB.
    pub unit: &'static str,
    /// The local folder.
    pub local: Side,
    /// The mount.
    pub mount: Side,
    /// The mount's rate by the local one: 1 is as fast, 0.1 a tenth as fast.
    pub ratio: f64,
}

impl Figure {
    /// Compares two sides.
    pub fn new(
        name: &'static str,
        count: u64,
        unit: &'static str,
        local: Side,
        mount: Side,
    ) -> Figure {
        let ratio = mount.rate / local.rate;
        Figure { name, count, unit, local, mount, ratio }
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
}

fn number(value: f64) -> String {
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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let context = &self.context;
        writeln!(
            f,
            "commit {}, {}, kernel {}\n{} cores ({}), {} MiB of memory, disk {}\n\
             load average {:.2} before, {:.2} after{}\n",
            context.commit,
            context.time,
            context.kernel,
            context.cores,
            context.processor,
            context.memory_bytes >> 20,
            context.file_system,
            context.load_before,
            context.load_after,
            if self.quick { "; quick sizes, the figures mean little" } else { "" }
        )?;
        let head = ("", "local", "p50", "p99", "mount", "p50", "p99");
        let (name, local, p50, p99, mount, mount_p50, mount_p99) = head;
        writeln!(
            f,
            "{name:<27} {:>6}  {:<7} {local:>8} {p50:>6} {p99:>6}  {mount:>8} {mount_p50:>6} \
             {mount_p99:>6} {:>6}",
            "count", "unit", "ratio"
        )?;
        for figure in &self.figures {
            let Figure { name, count, unit, local, mount, ratio } = figure;
            writeln!(
                f,
                "{name:<27} {count:>6}  {:<7} {:>8} {:>6} {:>6}  {:>8} {:>6} {:>6} {:>6}",
                format!("{unit}/s"),
                number(local.rate),
                optional(local.p50_ms),
                optional(local.p99_ms),
                number(mount.rate),
                optional(mount.p50_ms),
                optional(mount.p99_ms),
                number(*ratio)
            )?;
        }
        writeln!(f, "\np50 and p99 in milliseconds a call; ratio: mount by local")
    }
}
