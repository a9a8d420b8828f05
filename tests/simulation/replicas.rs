//! The state of every node, watched as it is written.
//!
//! [`WatchedKv`] stands before a node's state store. After each batch that moves a group on, it
//! compares what the group's state is now with what other members had at the same entry. So a
//! committed entry that changes, replicas that drift apart, and an epoch that goes back or that
//! two nodes reign under, are noticed at the entry where they happen.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::sync::Arc;

use ministry_namespace::Namespace;
use ministry_raft::Applied;
use ministry_types::kv::{Batch, Kv, KvError, KvRead, MemoryKv, Step, Visit};
use ministry_types::{Epoch, LogPosition, MinistryId, NodeId};
use parking_lot::Mutex;

use crate::trace;

/// What all members together have shown.
#[derive(Debug, Default)]
struct Shown {
    /// By group and index: the entry, the state after it, and who showed it first.
    states: BTreeMap<(u64, u64), (LogPosition, u64, String)>,
    reigns: BTreeMap<(u64, Epoch), NodeId>,
    compared: u64,
}

/// What all members together have shown. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Replicas {
    shown: Arc<Mutex<Shown>>,
}

impl Replicas {
    /// How often the states of two members were compared.
    pub fn compared(&self) -> u64 {
        self.shown.lock().compared
    }

    /// The newest epoch that reigned in a group.
    pub fn newest_reign(&self, group: u64) -> Epoch {
        let shown = self.shown.lock();
        let reigns = shown.reigns.keys().filter(|(of, _)| *of == group);
        reigns.map(|(_, epoch)| *epoch).max().unwrap_or_default()
    }

    fn show(&self, group: u64, position: LogPosition, state: u64, host: &str) {
        let mut shown = self.shown.lock();
        let shown = &mut *shown;
        match shown.states.entry((group, position.index.0)) {
            Entry::Vacant(first) => {
                first.insert((position, state, host.to_owned()));
            }
            Entry::Occupied(known) => {
                shown.compared += 1;
                let (entry, there, who) = known.get();
                if *entry != position {
                    trace::breach(format_args!(
                        "group {group}: {host} applied {position}, {who} had applied {entry}"
                    ));
                } else if *there != state {
                    trace::breach(format_args!(
                        "group {group}: the states of {host} and {who} differ after {position}"
                    ));
                }
            }
        }
    }

    fn show_reign(&self, group: u64, (epoch, node): (Epoch, NodeId)) {
        let mut shown = self.shown.lock();
        let known = *shown.reigns.entry((group, epoch)).or_insert(node);
        if known != node {
            trace::breach(format_args!(
                "group {group}: {} and {} both reign under epoch {epoch}",
                known.short(),
                node.short()
            ));
        }
    }
}

/// How far a group has come on one node.
#[derive(Debug, Default, Clone, Copy)]
struct Group {
    /// Sum of the hashes of all records.
    state: u64,
    position: Option<LogPosition>,
    reign: Option<(Epoch, NodeId)>,
}

/// A state store that is watched.
pub struct WatchedKv {
    host: String,
    inner: MemoryKv,
    replicas: Replicas,
    /// A mistake on purpose: every hundredth value is another.
    drifts: bool,
    groups: Mutex<BTreeMap<u64, Group>>,
}

fn group_of(key: &[u8]) -> u64 {
    key.first_chunk::<8>().map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes))
}

fn hash_of(key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    value.hash(&mut hasher);
    hasher.finish()
}

/// Where a group notes how far it has come.
fn applied_key(group: u64) -> Vec<u8> {
    if group == 0 {
        let mut key = vec![0; 8];
        key.push(b'a');
        key.extend([0; 8]);
        return key;
    }
    Namespace::new(group, MinistryId(group)).applied_key()
}

impl WatchedKv {
    /// Watches a store from what it holds now.
    pub fn new(host: String, inner: MemoryKv, replicas: Replicas, drifts: bool) -> WatchedKv {
        let mut groups: BTreeMap<u64, Group> = BTreeMap::new();
        let whole = inner.scan(&[0; 8], &[0xff; 9], &mut |key, value| {
            let group = groups.entry(group_of(key)).or_default();
            group.state = group.state.wrapping_add(hash_of(key, value));
            ControlFlow::Continue(())
        });
        assert!(whole.is_ok(), "a map in memory can be read");
        let watched = WatchedKv { host, inner, replicas, drifts, groups: Mutex::default() };
        let known: Vec<u64> = groups.keys().copied().collect();
        *watched.groups.lock() = groups;
        known.into_iter().for_each(|group| watched.has_moved(group));
        watched
    }

    /// How far a group has come, and its state there.
    pub fn state(&self, group: u64) -> Option<(LogPosition, u64)> {
        let groups = self.groups.lock();
        let group = groups.get(&group)?;
        Some((group.position?, group.state))
    }

    fn change(&self, step: Step) -> Result<(), KvError> {
        let (key, new) = match &step {
            Step::Put(key, value) => (key, Some(value)),
            Step::Delete(key) => (key, None),
            Step::DeleteRange(from, to) => {
                let mut doomed = Vec::new();
                self.inner.scan(from, to, &mut |key, _| {
                    doomed.push(key.to_vec());
                    ControlFlow::Continue(())
                })?;
                return doomed.into_iter().try_for_each(|key| self.change(Step::Delete(key)));
            }
        };
        let old = self.inner.get(key)?;
        let mut groups = self.groups.lock();
        let group = groups.entry(group_of(key)).or_default();
        let minus = old.map_or(0, |old| hash_of(key, &old));
        let plus = new.map_or(0, |new| hash_of(key, new));
        group.state = group.state.wrapping_sub(minus).wrapping_add(plus);
        drop(groups);
        self.inner.write(Batch { steps: vec![step] })
    }

    /// A group has moved on: compares.
    fn has_moved(&self, id: u64) {
        let Ok(Some(record)) = self.inner.get(&applied_key(id)) else { return };
        let applied = record.get(1..).map(postcard::from_bytes::<Applied>);
        let Some(Ok(Applied { position: Some(position), .. })) = applied else {
            return trace::breach(format_args!("group {id}: its applied record does not decode"));
        };
        let mut groups = self.groups.lock();
        let group = groups.entry(id).or_default();
        if group.position.is_some_and(|before| before.index > position.index) {
            trace::breach(format_args!(
                "group {id}: {} went from {:?} to {position}",
                self.host, group.position
            ));
        }
        group.position = Some(position);
        self.replicas.show(id, position, group.state, &self.host);
        if id == 0 {
            return;
        }
        let Ok(Some(reign)) = Namespace::new(id, MinistryId(id)).reign(&self.inner) else { return };
        if group.reign.is_some_and(|before| before.0 > reign.0) {
            trace::breach(format_args!("group {id}: the epoch went back to {}", reign.0));
        }
        if group.reign != Some(reign) {
            let (epoch, node) = reign;
            trace::note(format_args!("group {id}: {} reigns under {epoch}", node.short()));
            group.reign = Some(reign);
            self.replicas.show_reign(id, reign);
        }
    }
}

/// The mistake on purpose: the last byte of some names' records.
fn drift(step: Step) -> Step {
    const DENTRY: u8 = 0x12;
    match step {
        Step::Put(key, mut value)
            if key.get(8) == Some(&DENTRY) && hash_of(&key, &[]).is_multiple_of(100) =>
        {
            if let Some(last) = value.last_mut() {
                *last ^= 1;
            }
            Step::Put(key, value)
        }
        step => step,
    }
}

impl KvRead for WatchedKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.inner.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), KvError> {
        self.inner.scan(from, to, visit)
    }
}

impl Kv for WatchedKv {
    fn write(&self, batch: Batch) -> Result<(), KvError> {
        let mut moved = None;
        for step in batch.steps {
            if let Step::Put(key, _) = &step
                && *key == applied_key(group_of(key))
            {
                moved = Some(group_of(key));
            }
            self.change(if self.drifts { drift(step) } else { step })?;
        }
        if let Some(group) = moved {
            self.has_moved(group);
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), KvError> {
        self.inner.flush()
    }

    fn view(&self) -> Box<dyn KvRead + Send> {
        self.inner.view()
    }
}
