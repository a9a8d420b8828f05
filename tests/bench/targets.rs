//! What was to be reached, beside what was measured.
//!
//! Nothing fails when one is missed: a benchmark on a busy machine proves nothing, one that is
//! missed on a quiet machine is a piece of work.

use std::fmt;

use serde::Serialize;

use crate::figures::{Figure, number};

/// One target.
#[derive(Debug, Serialize)]
pub struct Target {
    /// In words.
    pub what: &'static str,
    /// `at least` or `at most`.
    pub bound: &'static str,
    /// The number to reach.
    pub wanted: f64,
    /// The number measured.
    pub measured: f64,
    /// Whether it was reached.
    pub met: bool,
}

type Ratio = fn(&Figure) -> Option<f64>;

const AT_LEAST: &str = "at least";
const AT_MOST: &str = "at most";

fn by_etcd(figure: &Figure) -> Option<f64> {
    figure.ratios.etcd
}

fn by_bindfs(figure: &Figure) -> Option<f64> {
    figure.ratios.bindfs
}

fn by_local(figure: &Figure) -> Option<f64> {
    figure.ratios.local
}

fn time_by_bindfs(figure: &Figure) -> Option<f64> {
    figure.ratios.bindfs.map(|ratio| 1.0 / ratio)
}

fn p50_by_bindfs(figure: &Figure) -> Option<f64> {
    Some(figure.ministry.p50_ms? / figure.bindfs.as_ref()?.p50_ms?)
}

/// Words; figure; ratio; bound; number.
const ALL: [(&str, &str, Ratio, &str, f64); 10] = [
    ("creates, 1 caller, by etcd's puts", "create, empty", by_etcd, AT_LEAST, 1.0),
    ("creates, 8 callers, by etcd's puts", "create, empty, by 8", by_etcd, AT_LEAST, 1.5),
    ("library, 64 callers, by etcd's puts", "library: create, by 64", by_etcd, AT_LEAST, 2.0),
    ("fsynced 4 KiB create, p50 by bindfs", "create 4 KiB, fsync", p50_by_bindfs, AT_MOST, 2.0),
    ("sequential write+fsync, by local", "sequential write, fsync", by_local, AT_LEAST, 0.15),
    ("sequential write+fsync, by bindfs", "sequential write, fsync", by_bindfs, AT_LEAST, 1.0),
    ("cold sequential read, by bindfs", "sequential read, cold", by_bindfs, AT_LEAST, 0.4),
    ("uncached stat, by bindfs", "stat", by_bindfs, AT_LEAST, 0.22),
    ("unpacking, time by bindfs", "unpack a tree", time_by_bindfs, AT_MOST, 4.0),
    ("4 KiB write+close, by bindfs", "write 4 KiB, close", by_bindfs, AT_LEAST, 0.5),
];

/// Those whose figures were measured.
pub fn reached(figures: &[Figure]) -> Vec<Target> {
    let target = |(what, name, ratio, bound, wanted): (_, _, Ratio, _, f64)| {
        let measured = ratio(figures.iter().find(|figure| figure.name == name)?)?;
        let met = if bound == AT_LEAST { measured >= wanted } else { measured <= wanted };
        Some(Target { what, bound, wanted, measured, met })
    };
    ALL.into_iter().filter_map(target).collect()
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target { what, bound, wanted, measured, met } = self;
        let verdict = if *met { "met" } else { "missed" };
        let (wanted, measured) = (number(*wanted), number(*measured));
        write!(f, "{what:<36} {bound:<8} {wanted:>5}   measured {measured:>6}   {verdict}")
    }
}
