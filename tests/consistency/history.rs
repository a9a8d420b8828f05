//! What was called when, and what was answered.
//!
//! All times come from one monotonic clock of the test's process, read just before a call and just
//! after it; the mounts are on the same machine, so no two clocks are ever compared.

use std::collections::BTreeMap;
use std::time::Instant;

use rustix::io::Errno;

/// The one clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Begins now.
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation<C, A> {
    /// Who called; each has one call at a time.
    pub worker: usize,
    /// When, in nanoseconds.
    pub called: u64,
    /// When it returned.
    pub returned: u64,
    /// What was called.
    pub call: C,
    /// What was answered; none: the error leaves open whether it was done, now or later.
    pub answer: Option<A>,
}

/// Calls of all workers, in no order.
pub type History<C, A> = Vec<Operation<C, A>>;

/// Notes the calls of one worker.
#[derive(Debug)]
pub struct Recorder<C, A> {
    clock: Clock,
    worker: usize,
    /// The calls so far.
    pub operations: History<C, A>,
    /// Errors that no file system may answer here.
    pub strange: Vec<String>,
}

/// Whether an error leaves open what became of the call.
pub fn is_unknown(error: Errno) -> bool {
    let unknown = [Errno::TIMEDOUT, Errno::IO, Errno::INTR, Errno::NOTCONN, Errno::CONNABORTED];
    unknown.contains(&error)
}

impl<C: std::fmt::Debug, A: Clone> Recorder<C, A> {
    /// For one worker.
    pub fn new(clock: Clock, worker: usize) -> Recorder<C, A> {
        Recorder { clock, worker, operations: Vec::new(), strange: Vec::new() }
    }

    /// Makes the call and notes it; gives the answer.
    pub fn call(&mut self, call: C, work: impl FnOnce() -> Result<A, Errno>) -> Option<A> {
        let worker = self.worker;
        let called = self.clock.now();
        let result = work();
        let returned = self.clock.now();
        let answer = match result {
            Ok(answer) => Some(answer),
            Err(error) if is_unknown(error) => None,
            Err(error) => {
                let at = called as f64 / 1e6;
                self.strange.push(format!("at {at:.3} ms worker {worker}: {call:?}: {error}"));
                return None;
            }
        };
        self.operations.push(Operation { worker, called, returned, call, answer: answer.clone() });
        answer
    }
}

/// The calls by the object they are about: each object is judged by itself, since a history is
/// linearizable if and only if that of each object is (Herlihy and Wing).
pub fn by_object<K: Ord, C: Clone, A: Clone>(
    history: &[Operation<C, A>],
    object: impl Fn(&C) -> K,
) -> BTreeMap<K, History<C, A>> {
    let mut parts: BTreeMap<K, History<C, A>> = BTreeMap::new();
    for operation in history {
        parts.entry(object(&operation.call)).or_default().push(operation.clone());
    }
    parts
}
