//! Changes that are not written yet, over a state that does not move.
//!
//! The state machine of a ministry makes one [`Overlay`] for each batch of commands, applies them
//! one after the other, and writes [`Overlay::into_batch`] together with its own records. The rules
//! themselves make a further overlay for each command, so that a command that is refused half-way
//! leaves nothing behind.
//!
//! What must always hold: reading through the overlay is reading the state as if its batch had
//! been written. When reading the base fails, the overlay is thrown away as a whole.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::ops::ControlFlow;

use ministry_types::SessionId;
use ministry_types::kv::{Batch, KvError, KvRead, Visit};

/// Records by key; `None`: there is none.
type Records = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Changes over a state: see the module.
pub struct Overlay<'a> {
    base: &'a dyn KvRead,
    changes: Changes,
    /// What was read of the base, where that is worth remembering.
    seen: Option<RefCell<Records>>,
}

/// What an overlay holds beside its base.
#[derive(Default)]
pub(crate) struct Changes {
    /// Removed ranges of the base, from first key to excluded end; disjoint.
    cleared: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Records set (`Some`) or removed since; stronger than `cleared`.
    records: Records,
    /// Requests for locks that wait no more. No part of the state: the minister tells the clients.
    settled: Vec<(SessionId, u64)>,
}

impl Changes {
    fn is_cleared(&self, key: &[u8]) -> bool {
        self.cleared
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()
            .is_some_and(|(_, end)| key < end.as_slice())
    }

    fn clear(&mut self, from: &[u8], to: &[u8]) {
        if from >= to {
            return;
        }
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        let doomed: Vec<Vec<u8>> =
            self.records.range::<[u8], _>(bounds).map(|(key, _)| key.clone()).collect();
        for key in doomed {
            self.records.remove(&key);
        }
        // Ranges that touch become one, so that one look to the left finds the range of a key.
        let (mut first, mut end) = (from.to_vec(), to.to_vec());
        while let Some((other_first, other_end)) = self
            .cleared
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(end.as_slice())))
            .next_back()
            .filter(|(_, other_end)| **other_end >= first)
            .map(|(other_first, other_end)| (other_first.clone(), other_end.clone()))
        {
            self.cleared.remove(&other_first);
            first = first.min(other_first);
            end = end.max(other_end);
        }
        self.cleared.insert(first, end);
    }
}

impl<'a> Overlay<'a> {
    /// An overlay without changes.
    pub fn new(base: &'a dyn KvRead) -> Overlay<'a> {
        Overlay { base, changes: Changes::default(), seen: None }
    }

    /// As [`Overlay::new`], over a base where each look costs: what was read of it once is remembered.
    /// A change looks at the same few records again and again.
    pub fn remembering(base: &'a dyn KvRead) -> Overlay<'a> {
        Overlay { seen: Some(RefCell::default()), ..Overlay::new(base) }
    }

    fn look_up(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        let Some(seen) = &self.seen else { return self.base.get(key) };
        if let Some(value) = seen.borrow().get(key) {
            return Ok(value.clone());
        }
        let value = self.base.get(key)?;
        seen.borrow_mut().insert(key.to_vec(), value.clone());
        Ok(value)
    }

    /// Sets a record.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.changes.records.insert(key, Some(value));
    }

    /// Removes a record.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.changes.records.insert(key, None);
    }

    /// Removes all records from the first key (included) to the second (excluded).
    pub fn delete_range(&mut self, from: &[u8], to: &[u8]) {
        self.changes.clear(from, to);
    }

    /// A request for a lock waits no more.
    pub(crate) fn note_settled(&mut self, request: (SessionId, u64)) {
        self.changes.settled.push(request);
    }

    /// The requests for locks that these changes have granted or ended: session, and number of the
    /// request there.
    pub fn settled(&self) -> &[(SessionId, u64)] {
        &self.changes.settled
    }

    /// The changes as steps that a store writes at once.
    pub fn into_batch(self) -> Batch {
        let mut batch = Batch::default();
        for (from, to) in self.changes.cleared {
            batch.delete_range(from, to);
        }
        for (key, value) in self.changes.records {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        batch
    }

    /// The changes alone, to lay them over something else.
    pub(crate) fn into_changes(self) -> Changes {
        self.changes
    }

    /// Takes over changes that were made in an overlay over this one.
    pub(crate) fn take(&mut self, changes: Changes) {
        for (from, to) in changes.cleared {
            self.changes.clear(&from, &to);
        }
        self.changes.records.extend(changes.records);
        self.changes.settled.extend(changes.settled);
    }
}

impl KvRead for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        match self.changes.records.get(key) {
            Some(value) => Ok(value.clone()),
            None if self.changes.is_cleared(key) => Ok(None),
            None => self.look_up(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), KvError> {
        if from >= to {
            return Ok(());
        }
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        let mut changed = self.changes.records.range::<[u8], _>(bounds).peekable();
        let mut ended = false;
        self.base.scan(from, to, &mut |key, value| {
            while let Some((new_key, new_value)) =
                changed.next_if(|(new_key, _)| new_key.as_slice() <= key)
            {
                if let Some(new_value) = new_value
                    && visit(new_key, new_value).is_break()
                {
                    ended = true;
                    return ControlFlow::Break(());
                }
                if new_key.as_slice() == key {
                    return ControlFlow::Continue(());
                }
            }
            if self.changes.is_cleared(key) {
                return ControlFlow::Continue(());
            }
            let step = visit(key, value);
            ended = step.is_break();
            step
        })?;
        if ended {
            return Ok(());
        }
        for (key, value) in changed {
            if let Some(value) = value
                && visit(key, value).is_break()
            {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ministry_types::kv::{Kv, MemoryKv};
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Edit {
        Put(u8, u8),
        Delete(u8),
        DeleteRange(u8, u8),
        Nest,
    }

    fn edit() -> impl Strategy<Value = Edit> {
        prop_oneof![
            4 => (0u8..30, any::<u8>()).prop_map(|(key, value)| Edit::Put(key, value)),
            2 => (0u8..30).prop_map(Edit::Delete),
            1 => (0u8..30, 0u8..30).prop_map(|(a, b)| Edit::DeleteRange(a.min(b), a.max(b))),
            1 => Just(Edit::Nest),
        ]
    }

    fn all(state: &dyn KvRead, from: u8, to: u8, most: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found = Vec::new();
        state
            .scan(&[from], &[to], &mut |key, value| {
                found.push((key.to_vec(), value.to_vec()));
                if found.len() >= most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        found
    }

    fn make(overlay: &mut Overlay<'_>, model: &mut BTreeMap<u8, u8>, edits: &[Edit]) {
        for (at, edit) in edits.iter().enumerate() {
            match edit {
                Edit::Put(key, value) => {
                    overlay.put(vec![*key], vec![*value]);
                    model.insert(*key, *value);
                }
                Edit::Delete(key) => {
                    overlay.delete(vec![*key]);
                    model.remove(key);
                }
                Edit::DeleteRange(from, to) => {
                    overlay.delete_range(&[*from], &[*to]);
                    model.retain(|key, _| !(from..to).contains(&key));
                }
                Edit::Nest => {
                    let mut inner = Overlay::new(overlay);
                    make(&mut inner, model, &edits[at + 1..]);
                    let changes = inner.into_changes();
                    overlay.take(changes);
                    return;
                }
            }
        }
    }

    proptest! {
        #[test]
        fn reading_through_an_overlay_is_reading_after_its_batch(
            base in prop::collection::btree_map(0u8..30, any::<u8>(), 0..20),
            edits in prop::collection::vec(edit(), 0..25),
            from in 0u8..30, to in 0u8..31, most in 1usize..8,
        ) {
            let kv = MemoryKv::default();
            let mut batch = Batch::default();
            for (key, value) in &base {
                batch.put(vec![*key], vec![*value]);
            }
            kv.write(batch).unwrap();
            let mut model = base;
            let view = kv.view();
            let mut overlay = Overlay::remembering(&*view);
            make(&mut overlay, &mut model, &edits);

            let expected: Vec<_> = model
                .iter()
                .filter(|(key, _)| from <= **key && **key < to)
                .map(|(key, value)| (vec![*key], vec![*value]))
                .collect();
            prop_assert_eq!(all(&overlay, from, to, usize::MAX), expected.clone());
            let first: Vec<_> = expected.iter().take(most).cloned().collect();
            prop_assert_eq!(all(&overlay, from, to, most), first);
            for key in 0u8..30 {
                let value = model.get(&key).map(|value| vec![*value]);
                prop_assert_eq!(overlay.get(&[key]).unwrap(), value);
            }
            kv.write(overlay.into_batch()).unwrap();
            prop_assert_eq!(all(&kv, from, to, usize::MAX), expected);
        }
    }
}
