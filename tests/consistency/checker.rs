//! Whether a recorded history is linearizable.
//!
//! A history is, if each of its calls can be given a moment between its invocation and its return
//! so that a *sequential* object, used by one caller after the other in the order of these moments,
//! would have given all the answers (Herlihy and Wing, "Linearizability: A Correctness Condition
//! for Concurrent Objects", TOPLAS 1990). The search is that of Wing and Gong ("Testing and
//! Verifying Concurrent Objects", JPDC 1993) in the form of Lowe ("Testing for Linearizability",
//! CCPE 2017): calls take effect *just in time*, before one of them returns, and each pair of (state
//! of the object, pending calls that took effect) is visited once. It goes through the history by
//! time and keeps all such pairs that are possible so far; when none is left, the call that just
//! returned cannot have given its answer.
//!
//! A call with an unknown outcome may take effect at any moment after its invocation, or never: it
//! stays pending to the end. Of two possibilities with the same state, the one in which fewer of
//! those have been used up can do all that the other can, so the other is dropped.
//!
//! What must always hold: no history that is linearizable is refused. A search that grows beyond
//! its bound is *undecided*, which a test takes for a failure.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;

use crate::history::Operation;

/// For each state and each set of calls that certainly took effect: the sets of calls that may have.
type Groups<S> = HashMap<(S, Vec<usize>), Vec<Vec<usize>>>;

/// Possibilities kept at most.
const POSSIBLE_MAX: usize = 300_000;
/// Calls shown before the one that cannot be.
const SHOWN: usize = 14;
/// Possible states shown.
const STATES_SHOWN: usize = 4;

/// A sequential object.
pub trait Model {
    /// All that the answers of later calls depend on.
    type State: Clone + Eq + Hash + Debug;
    /// What can be called.
    type Call: Debug;
    /// What can be answered.
    type Answer: Debug;

    /// Before the first call.
    fn initial(&self) -> Self::State;

    /// The states that the object may be in after this call by this worker had this answer; none
    /// if it cannot have. Without an answer: the states after it was done, whatever it answered.
    fn step(
        &self,
        state: &Self::State,
        worker: usize,
        call: &Self::Call,
        answer: Option<&Self::Answer>,
    ) -> Vec<Self::State>;
}

/// How large a search was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Searched {
    /// Calls.
    pub calls: usize,
    /// Of these with an unknown outcome.
    pub unknown: usize,
    /// The most calls that were pending at once.
    pub pending_max: usize,
    /// The most possibilities that were kept.
    pub possible_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Possible<S> {
    state: S,
    /// Pending calls that took effect, in order of their number.
    done: Vec<usize>,
}

impl<S: Clone> Possible<S> {
    fn with(&self, state: S, call: usize) -> Possible<S> {
        let mut done = self.done.clone();
        let place = done.binary_search(&call).expect_err("a call takes effect once");
        done.insert(place, call);
        Possible { state, done }
    }
}

/// Looks for an order. The error tells the first call that fits in none.
pub fn check<M: Model>(
    model: &M,
    history: &[Operation<M::Call, M::Answer>],
) -> Result<Searched, String> {
    let mut moments: Vec<(u64, bool, usize)> = Vec::new();
    for (number, operation) in history.iter().enumerate() {
        assert!(operation.called <= operation.returned, "a call returns after it was made");
        moments.push((operation.called, false, number));
        if operation.answer.is_some() {
            moments.push((operation.returned, true, number));
        }
    }
    // In a moment of both, calls come first: the order that allows more.
    moments.sort_unstable();
    let mut search = Search {
        model,
        history,
        pending: Vec::new(),
        possible: HashSet::from([Possible { state: model.initial(), done: Vec::new() }]),
    };
    let mut searched = Searched { calls: history.len(), ..Searched::default() };
    searched.unknown = history.iter().filter(|operation| operation.answer.is_none()).count();
    for (_, returns, number) in moments {
        if returns {
            search.returned(number)?;
        } else {
            search.pending.push(number);
        }
        searched.pending_max = searched.pending_max.max(search.pending.len());
        searched.possible_max = searched.possible_max.max(search.possible.len());
    }
    Ok(searched)
}

struct Search<'a, M: Model> {
    model: &'a M,
    history: &'a [Operation<M::Call, M::Answer>],
    pending: Vec<usize>,
    possible: HashSet<Possible<M::State>>,
}

impl<M: Model> Search<'_, M> {
    /// From here on only what is possible with this call's effect goes on.
    fn returned(&mut self, number: usize) -> Result<(), String> {
        let mut next: HashSet<Possible<M::State>> = HashSet::new();
        let mut visited: HashSet<Possible<M::State>> = HashSet::new();
        let mut todo: Vec<Possible<M::State>> = self.possible.iter().cloned().collect();
        while let Some(mut one) = todo.pop() {
            if let Ok(place) = one.done.binary_search(&number) {
                one.done.remove(place);
                next.insert(one);
                continue;
            }
            for call in &self.pending {
                if one.done.binary_search(call).is_ok() {
                    continue;
                }
                let made = &self.history[*call];
                let after =
                    self.model.step(&one.state, made.worker, &made.call, made.answer.as_ref());
                for state in after {
                    let further = one.with(state, *call);
                    if visited.insert(further.clone()) {
                        todo.push(further);
                    }
                }
            }
            if visited.len() > POSSIBLE_MAX {
                let told = self.tell(number, "undecided: too many possibilities before");
                return Err(told);
            }
        }
        if next.is_empty() {
            return Err(self.tell(number, "not linearizable: no order allows"));
        }
        self.pending.retain(|pending| *pending != number);
        self.possible = self.without_dominated(next);
        Ok(())
    }

    fn without_dominated(
        &self,
        possible: HashSet<Possible<M::State>>,
    ) -> HashSet<Possible<M::State>> {
        let unknown = |call: &usize| self.history[*call].answer.is_none();
        if !self.pending.iter().any(unknown) {
            return possible;
        }
        let mut groups = Groups::<M::State>::new();
        for one in possible {
            let (spent, certain): (Vec<usize>, Vec<usize>) =
                one.done.iter().partition(|c| unknown(c));
            let group = groups.entry((one.state, certain)).or_default();
            let covers = |few: &[usize], many: &[usize]| few.iter().all(|c| many.contains(c));
            if !group.iter().any(|known| covers(known, &spent)) {
                group.retain(|known| !covers(&spent, known));
                group.push(spent);
            }
        }
        let all = groups.into_iter().flat_map(|((state, certain), group)| {
            group.into_iter().map(move |spent| {
                let mut done = [certain.clone(), spent].concat();
                done.sort_unstable();
                Possible { state: state.clone(), done }
            })
        });
        all.collect()
    }

    /// The calls up to this one and what the object may have been.
    fn tell(&self, number: usize, verdict: &str) -> String {
        use std::fmt::Write as _;
        let last = &self.history[number];
        let mut told = format!("{verdict} {}\n", line(last));
        let mut before: Vec<_> = self
            .history
            .iter()
            .filter(|operation| operation.called < last.returned && !std::ptr::eq(*operation, last))
            .collect::<Vec<_>>();
        before.sort_by_key(|operation| operation.returned);
        let overlapping =
            before.iter().filter(|operation| operation.returned > last.called).count();
        let shown = SHOWN.max(overlapping);
        for operation in before.iter().skip(before.len().saturating_sub(shown)) {
            let _ = writeln!(told, "    {}", line(operation));
        }
        for one in self.possible.iter().take(STATES_SHOWN) {
            let effect: Vec<_> = one.done.iter().map(|call| &self.history[*call].call).collect();
            let _ = writeln!(told, "  possible before: {:?}, done: {effect:?}", one.state);
        }
        told
    }
}

/// A call in a line.
fn line<C: Debug, A: Debug>(operation: &Operation<C, A>) -> String {
    let Operation { worker, called, returned, call, answer } = operation;
    let (begin, end) = (*called as f64 / 1e6, *returned as f64 / 1e6);
    match answer {
        Some(answer) => {
            format!("{begin:10.3}..{end:10.3} ms  worker {worker}: {call:?} -> {answer:?}")
        }
        None => format!("{begin:10.3}..{end:10.3} ms  worker {worker}: {call:?} -> unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Register, RegisterAnswer, RegisterCall};

    type Made = Operation<RegisterCall, RegisterAnswer>;

    fn write(worker: usize, called: u64, returned: u64, value: u64) -> Made {
        let (call, answer) = (RegisterCall::Write(value), Some(RegisterAnswer::Written));
        Operation { worker, called, returned, call, answer }
    }

    fn read(worker: usize, called: u64, returned: u64, value: u64) -> Made {
        let (call, answer) = (RegisterCall::Read, Some(RegisterAnswer::Value(value)));
        Operation { worker, called, returned, call, answer }
    }

    fn unknown(mut operation: Made) -> Made {
        operation.answer = None;
        operation
    }

    fn verdict(history: &[Made]) -> bool {
        check(&Register { initial: 0 }, history).is_ok()
    }

    #[test]
    fn one_call_after_the_other_is_judged_by_its_answers() {
        assert!(verdict(&[write(0, 0, 1, 5), read(1, 2, 3, 5)]));
        assert!(!verdict(&[write(0, 0, 1, 5), read(1, 2, 3, 0)]), "a stale read");
        assert!(!verdict(&[write(0, 0, 1, 5), read(1, 2, 3, 6)]), "a value out of nowhere");
        assert!(verdict(&[]));
    }

    #[test]
    fn calls_at_the_same_time_may_be_in_either_order() {
        for seen in [0, 5] {
            assert!(verdict(&[write(0, 0, 10, 5), read(1, 2, 3, seen)]));
        }
        let both = [write(0, 0, 10, 5), write(1, 0, 10, 6)];
        for last in [5, 6] {
            assert!(verdict(&[both[0].clone(), both[1].clone(), read(2, 11, 12, last)]));
        }
    }

    #[test]
    fn what_was_seen_is_not_unseen() {
        let seen_then_not = [write(0, 0, 10, 5), read(1, 1, 2, 5), read(2, 3, 4, 0)];
        assert!(!verdict(&seen_then_not));
        let not_then_seen = [write(0, 0, 10, 5), read(1, 1, 2, 0), read(2, 3, 4, 5)];
        assert!(verdict(&not_then_seen));
        // Two readers must agree in which order two writes came.
        let writes = [write(0, 0, 20, 5), write(1, 0, 20, 6)];
        let reads = [read(2, 1, 2, 5), read(2, 5, 6, 6), read(3, 3, 4, 6), read(3, 7, 8, 5)];
        assert!(!verdict(&[writes.as_slice(), &reads].concat()));
    }

    #[test]
    fn an_unknown_write_may_come_late_or_never_but_once() {
        let maybe = unknown(write(0, 0, 1, 5));
        assert!(verdict(&[maybe.clone(), read(1, 2, 3, 0)]), "never");
        assert!(verdict(&[maybe.clone(), read(1, 2, 3, 0), read(1, 4, 5, 5)]), "late");
        let twice = [write(1, 4, 5, 6), read(1, 6, 7, 5), write(1, 8, 9, 7), read(1, 10, 11, 5)];
        assert!(!verdict(&[&[maybe], twice.as_slice()].concat()), "it came twice");
        let before = [read(1, 0, 1, 5), unknown(write(0, 2, 3, 5))];
        assert!(!verdict(&before), "seen before it was called");
    }

    #[test]
    fn many_unknown_writes_stay_within_bounds() {
        let mut history: Vec<Made> =
            (0..12).map(|number| unknown(write(number, 0, 1, number as u64 + 1))).collect();
        for round in 0..40 {
            history.push(write(20, 10 + round * 10, 12 + round * 10, 100 + round));
            history.push(read(21, 13 + round * 10, 14 + round * 10, 100 + round));
        }
        let searched = check(&Register { initial: 0 }, &history).unwrap();
        assert_eq!(searched.unknown, 12);
        assert!(searched.possible_max < 20, "{searched:?}");
    }

    #[test]
    fn a_long_history_of_many_workers_takes_a_moment() {
        let mut history = Vec::new();
        for round in 0..2_000_u64 {
            let begin = round * 100;
            for worker in 0..4 {
                let value = round * 10 + worker as u64;
                history.push(write(worker, begin + worker as u64, begin + 50, value));
            }
            history.push(read(9, begin + 60, begin + 61, round * 10 + round % 4));
        }
        assert!(verdict(&history));
        let last = history.len() - 1;
        history[last] = read(9, 1_999 * 100 + 60, 1_999 * 100 + 61, 3);
        let told = check(&Register { initial: 0 }, &history).unwrap_err();
        assert!(told.contains("not linearizable") && told.contains("Value(3)"), "{told}");
    }
}
