//! The algebra of locked ranges of one owner: setting a range cuts and splits what lies under it,
//! and joins what touches it in the same mode, as `fcntl` has it.
//!
//! Used by [`crate::lock_table`] alone. It knows nothing of files, sessions and conflicts.
//!
//! What must always hold: the spans of an owner share no byte, lie in order, and two that touch
//! differ in their mode.

use ministry_types::locks::{LockMode, LockRange};
use serde::{Deserialize, Serialize};

/// A range with its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    pub(crate) range: LockRange,
    pub(crate) mode: LockMode,
}

/// Gives the bytes of a range this mode, or none, whatever they had before.
pub(crate) fn set(spans: &[Span], range: LockRange, mode: Option<LockMode>) -> Vec<Span> {
    assert!(range.is_valid(), "{range:?} names bytes that no file has");
    let mut parts = Vec::with_capacity(spans.len() + 2);
    for span in spans {
        if !span.range.overlaps(range) {
            parts.push(*span);
            continue;
        }
        if span.range.first < range.first {
            let before = LockRange { last: range.first - 1, ..span.range };
            parts.push(Span { range: before, ..*span });
        }
        if span.range.last > range.last {
            let behind = LockRange { first: range.last + 1, ..span.range };
            parts.push(Span { range: behind, ..*span });
        }
    }
    parts.extend(mode.map(|mode| Span { range, mode }));
    parts.sort_unstable_by_key(|span| span.range.first);
    join(parts)
}

fn join(parts: Vec<Span>) -> Vec<Span> {
    let mut joined: Vec<Span> = Vec::with_capacity(parts.len());
    for part in parts {
        match joined.last_mut() {
            Some(last) if last.mode == part.mode && last.range.last + 1 == part.range.first => {
                last.range.last = part.range.last;
            }
            last => {
                assert!(
                    last.is_none_or(|last| last.range.last < part.range.first),
                    "the spans of an owner share no byte"
                );
                joined.push(part);
            }
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes of the model's file.
    const BYTES: u64 = 24;

    type Model = Vec<Option<LockMode>>;

    fn span(first: u64, last: u64, mode: LockMode) -> Span {
        Span { range: LockRange { first, last }, mode }
    }

    /// What the bytes say: the longest runs of one mode.
    fn spans_of(model: &Model) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        for (at, mode) in model.iter().enumerate() {
            let (at, Some(mode)) = (at as u64, *mode) else { continue };
            match spans.last_mut() {
                Some(last) if last.mode == mode && last.range.last + 1 == at => {
                    last.range.last = at;
                }
                _ => spans.push(span(at, at, mode)),
            }
        }
        spans
    }

    fn mode() -> impl Strategy<Value = Option<LockMode>> {
        prop_oneof![Just(None), Just(Some(LockMode::Shared)), Just(Some(LockMode::Exclusive))]
    }

    proptest! {
        #[test]
        fn ranges_are_split_and_joined_as_an_array_of_bytes_would_be(
            steps in prop::collection::vec((0..BYTES, 0..BYTES, mode()), 1..60)
        ) {
            let mut model: Model = vec![None; BYTES as usize];
            let mut spans = Vec::new();
            for (one, other, mode) in steps {
                let range = LockRange { first: one.min(other), last: one.max(other) };
                spans = set(&spans, range, mode);
                model[range.first as usize..=range.last as usize].fill(mode);
                prop_assert_eq!(&spans, &spans_of(&model));
            }
        }
    }

    #[test]
    fn a_range_may_reach_to_the_end_of_every_file() {
        let whole = set(&[], LockRange::WHOLE, Some(LockMode::Shared));
        let last = LockRange { first: LockRange::LAST, last: LockRange::LAST };
        let cut = set(&whole, last, Some(LockMode::Exclusive));
        assert_eq!(
            cut,
            [
                span(0, LockRange::LAST - 1, LockMode::Shared),
                span(LockRange::LAST, LockRange::LAST, LockMode::Exclusive)
            ]
        );
        assert_eq!(set(&cut, LockRange::WHOLE, None), []);
    }
}
