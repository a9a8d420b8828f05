//! What happened in a run, line by line: the proof that a seed decides everything, and what a
//! person reads when a run has failed.
//!
//! A run is one thread, so the trace is the thread's. Everything writes here: the simulation its
//! faults and calls, the product its log ([`Capture`]), whoever finds a promise broken the breach.
//! What depends on the real clock or on addresses in memory must not get here.

use std::cell::RefCell;
use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::clock;

/// What else of the log is taken, as `openraft=debug`. Not all of it is the same in two runs.
const ALSO: &str = crate::TRACE_ALSO;
/// Breaches beyond this many say nothing new.
const BREACHES_MAX: usize = 20;

#[derive(Default)]
struct Trace {
    tick: u64,
    host: String,
    lines: Vec<String>,
    breaches: Vec<String>,
}

thread_local! {
    static TRACE: RefCell<Trace> = RefCell::default();
}

fn with<R>(work: impl FnOnce(&mut Trace) -> R) -> Option<R> {
    // A log line of a destructor at the end of the thread comes too late to matter.
    TRACE.try_with(|trace| work(&mut trace.borrow_mut())).ok()
}

/// The millisecond it is now.
pub fn set_tick(tick: u64) {
    clock::set(tick);
    with(|trace| trace.tick = tick);
}

/// The millisecond it is now.
pub fn tick() -> u64 {
    with(|trace| trace.tick).unwrap_or_default()
}

/// Whose lines follow.
pub fn set_host(name: &str) {
    with(|trace| {
        trace.host.clear();
        trace.host.push_str(name);
    });
}

/// Writes a line.
pub fn note(text: impl fmt::Display) {
    with(|trace| {
        let line = format!("{:>7} {:<9} {text}", trace.tick, trace.host);
        trace.lines.push(line);
    });
}

/// A promise is broken.
pub fn breach(text: impl fmt::Display) {
    note(format_args!("BREACH: {text}"));
    with(|trace| {
        if trace.breaches.len() < BREACHES_MAX {
            let line = format!("at {} ms: {text}", trace.tick);
            trace.breaches.push(line);
        }
    });
}

/// What was found broken until now.
pub fn breaches() -> Vec<String> {
    with(|trace| trace.breaches.clone()).unwrap_or_default()
}

/// Whether anything was found broken until now.
pub fn is_broken() -> bool {
    with(|trace| !trace.breaches.is_empty()).unwrap_or_default()
}

/// All lines.
pub fn take() -> Vec<String> {
    with(|trace| std::mem::take(&mut trace.lines)).unwrap_or_default()
}

/// Takes the log of the product into the trace.
pub struct Capture;

impl<S: tracing::Subscriber> Layer<S> for Capture {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut text = String::new();
        let metadata = event.metadata();
        let _ = write!(text, "{} {}:", metadata.level(), metadata.target());
        event.record(&mut Fields(&mut text));
        note(text);
    }
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = write!(self.0, " {field}={value}");
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

/// Begins to listen: to the log of the product, and to panics, each of which is a breach.
pub fn begin() {
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::layer::SubscriberExt;
    clock::set(0);
    let mut wanted = Targets::new().with_target("ministry", tracing::Level::DEBUG);
    if let Some(more) = std::env::var(ALSO).ok().and_then(|text| text.parse::<Targets>().ok()) {
        wanted.extend(more);
    }
    let subscriber = tracing_subscriber::registry().with(Capture.with_filter(wanted));
    tracing::subscriber::set_global_default(subscriber).expect("a process runs one seed");
    std::panic::set_hook(Box::new(|panic| {
        breach(format_args!("a panic: {panic}"));
        eprintln!("{panic}");
    }));
}
