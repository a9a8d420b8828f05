//! The ordered key-value interface below the state machines.
//!
//! `storage` implements it over RocksDB for production, and [`MemoryKv`] here over an ordered map
//! for simulation and property tests. It is small on purpose: a state machine that needs more than
//! this is hard to keep the same on both.
//!
//! What must always hold: a batch is seen whole or not at all, also after a crash; batches become
//! durable in the order in which they were written.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, RwLock};

/// The state could not be read or written: damage or a failing disk. Never handled, only passed
/// up: the node steps aside, it does not guess.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the state store failed: {0}")]
pub struct KvError(pub String);

/// What a scan calls for each record; [`ControlFlow::Break`] ends it.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// Reading, at one moment.
pub trait KvRead {
    /// The value of `key`, if it has one.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError>;

    /// Calls `visit` for each record from `from` (included) to `to` (excluded), in key order.
    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), KvError>;
}

/// A store of records.
pub trait Kv: KvRead + Send + Sync + 'static {
    /// Applies the batch at once. It is durable after the next [`Kv::flush`].
    fn write(&self, batch: Batch) -> Result<(), KvError>;

    /// As [`Kv::write`], but on a thread that must not wait. `false`: it would have to wait for the
    /// disk; nothing was written.
    fn write_at_once(&self, _batch: &Batch) -> Result<bool, KvError> {
        Ok(false)
    }

    /// Makes everything written before durable. Blocks.
    fn flush(&self) -> Result<(), KvError>;

    /// An unchanging view of this moment.
    fn view(&self) -> Box<dyn KvRead + Send>;
}

/// One step of a batch.
#[derive(Clone, PartialEq, Eq)]
pub enum Step {
    /// Sets a record.
    Put(Vec<u8>, Vec<u8>),
    /// Removes a record.
    Delete(Vec<u8>),
    /// Removes all records from the first key (included) to the second (excluded).
    DeleteRange(Vec<u8>, Vec<u8>),
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Put(key, value) => write!(f, "Put({key:02x?}, {} bytes)", value.len()),
            Step::Delete(key) => write!(f, "Delete({key:02x?})"),
            Step::DeleteRange(from, to) => write!(f, "DeleteRange({from:02x?}..{to:02x?})"),
        }
    }
}

/// Steps that become visible together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// In the order in which they are carried out.
    pub steps: Vec<Step>,
}

impl Batch {
    /// Sets a record.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.steps.push(Step::Put(key, value));
    }

    /// Removes a record.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.steps.push(Step::Delete(key));
    }

    /// Removes a range of records.
    pub fn delete_range(&mut self, from: Vec<u8>, to: Vec<u8>) {
        self.steps.push(Step::DeleteRange(from, to));
    }
}

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// An ordered map in memory, for simulation and tests. Clones share the records.
///
/// It remembers what was flushed, so that a simulated crash can cut back to it
/// ([`MemoryKv::crash`]), as RocksDB without a log of its own comes back.
#[derive(Debug, Clone, Default)]
pub struct MemoryKv {
    inner: Arc<RwLock<MemoryRecords>>,
}

#[derive(Debug, Default)]
struct MemoryRecords {
    current: Arc<Records>,
    flushed: Arc<Records>,
}

impl MemoryKv {
    /// Forgets what was not flushed, as a loss of power does.
    pub fn crash(&self) {
        let mut inner = self.inner.write().expect("no writer panics");
        inner.current = Arc::clone(&inner.flushed);
    }

    fn current(&self) -> Arc<Records> {
        Arc::clone(&self.inner.read().expect("no writer panics").current)
    }
}

impl KvRead for Records {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        Ok(BTreeMap::get(self, key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), KvError> {
        if from < to {
            for (key, value) in self
                .range::<[u8], _>((std::ops::Bound::Included(from), std::ops::Bound::Excluded(to)))
            {
                if visit(key, value).is_break() {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl KvRead for Arc<Records> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        KvRead::get(&**self, key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), KvError> {
        KvRead::scan(&**self, from, to, visit)
    }
}

impl KvRead for MemoryKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        KvRead::get(&self.current(), key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), KvError> {
        KvRead::scan(&self.current(), from, to, visit)
    }
}

impl Kv for MemoryKv {
    fn write(&self, batch: Batch) -> Result<(), KvError> {
        let mut inner = self.inner.write().expect("no writer panics");
        let records = Arc::make_mut(&mut inner.current);
        for step in batch.steps {
            match step {
                Step::Put(key, value) => {
                    records.insert(key, value);
                }
                Step::Delete(key) => {
                    records.remove(&key);
                }
                Step::DeleteRange(from, to) => {
                    let doomed: Vec<_> = records.range(from..to).map(|(k, _)| k.clone()).collect();
                    for key in doomed {
                        records.remove(&key);
                    }
                }
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), KvError> {
        let mut inner = self.inner.write().expect("no writer panics");
        inner.flushed = Arc::clone(&inner.current);
        Ok(())
    }

    fn view(&self) -> Box<dyn KvRead + Send> {
        Box::new(self.current())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_forgets_what_was_not_flushed_and_a_view_does_not_move() {
        let kv = MemoryKv::default();
        let put = |key: &[u8], value: &[u8]| {
            let mut batch = Batch::default();
            batch.put(key.to_vec(), value.to_vec());
            kv.write(batch).unwrap();
        };
        put(b"a", b"1");
        kv.flush().unwrap();
        let view = kv.view();
        put(b"b", b"2");
        assert_eq!(view.get(b"b").unwrap(), None);
        assert_eq!(kv.get(b"b").unwrap(), Some(b"2".to_vec()));
        kv.crash();
        assert_eq!(kv.get(b"a").unwrap(), Some(b"1".to_vec()));
        assert_eq!(kv.get(b"b").unwrap(), None);
    }
}
