//! The cluster log's state machine on one node: the [`Government`] with its place in the state
//! store.
//!
//! Called by the `raft` crate. The state is small and is written whole with each batch of orders;
//! the history has a record an event, and forgets the oldest. Whoever acts on the government
//! follows [`GovernmentMachine::map`] or takes [`GovernmentMachine::government`].

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use ministry_raft::{Applied, Blocks, Body, Committed, Snapshot, StateError, StateMachine};
use ministry_types::LogIndex;
use ministry_types::government::{ClusterMap, Event};
use ministry_types::kv::{Batch, Kv, KvError};
use ministry_types::limits::HISTORY_MAX;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::order::{DecodeError, Proposal, decode, encode};
use super::state::Government;
use crate::snapshot;

/// Key prefix of the cluster log's records; ministries use their own number, which is never 0.
const KEYSPACE: u64 = 0;

fn key(tag: u8, number: u64) -> Vec<u8> {
    let mut key = KEYSPACE.to_be_bytes().to_vec();
    key.push(tag);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn applied_key() -> Vec<u8> {
    key(b'a', 0)
}

fn state_key() -> Vec<u8> {
    key(b's', 0)
}

fn event_key(index: u64) -> Vec<u8> {
    key(b'e', index)
}

fn keyspace() -> (Vec<u8>, Vec<u8>) {
    (KEYSPACE.to_be_bytes().to_vec(), (KEYSPACE + 1).to_be_bytes().to_vec())
}

impl From<DecodeError> for StateError {
    fn from(error: DecodeError) -> StateError {
        StateError(error.to_string())
    }
}

pub(crate) fn kv_failed(error: KvError) -> StateError {
    StateError(error.to_string())
}

/// The government of one node.
pub struct GovernmentMachine {
    kv: Arc<dyn Kv>,
    state: RwLock<Arc<Government>>,
    applied: Mutex<Applied>,
    /// Indices of the events in the store, oldest first.
    events: Mutex<VecDeque<u64>>,
    map: watch::Sender<Arc<ClusterMap>>,
}

impl GovernmentMachine {
    /// Takes up what the store holds.
    pub fn open(kv: Arc<dyn Kv>) -> Result<GovernmentMachine, StateError> {
        let machine = GovernmentMachine {
            kv,
            state: RwLock::default(),
            applied: Mutex::default(),
            events: Mutex::default(),
            map: watch::Sender::new(Arc::default()),
        };
        machine.load()?;
        Ok(machine)
    }

    fn load(&self) -> Result<(), StateError> {
        let state: Government = self.read(&state_key())?.unwrap_or_default();
        let applied: Applied = self.read(&applied_key())?.unwrap_or_default();
        let mut events = VecDeque::new();
        self.kv
            .scan(&event_key(0), &event_key(u64::MAX), &mut |key, _| {
                if let Some(index) = key.last_chunk::<8>() {
                    events.push_back(u64::from_be_bytes(*index));
                }
                std::ops::ControlFlow::Continue(())
            })
            .map_err(kv_failed)?;
        self.map.send_replace(Arc::new(state.map()));
        *self.state.write() = Arc::new(state);
        *self.applied.lock() = applied;
        *self.events.lock() = events;
        Ok(())
    }

    fn read<T: for<'a> serde::Deserialize<'a>>(&self, key: &[u8]) -> Result<Option<T>, StateError> {
        match self.kv.get(key).map_err(kv_failed)? {
            Some(bytes) => Ok(Some(decode(&bytes)?)),
            None => Ok(None),
        }
    }

    /// The government as of now.
    pub fn government(&self) -> Arc<Government> {
        Arc::clone(&self.state.read())
    }

    /// The map as of now, and each later one.
    pub fn map(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.map.subscribe()
    }

    /// Last order applied.
    pub fn applied_index(&self) -> LogIndex {
        self.applied.lock().position.map_or(LogIndex(0), |position| position.index)
    }

    /// The history from `from` on, oldest first, at most `max` events.
    pub fn events(&self, from: LogIndex, max: usize) -> Result<Vec<Event>, StateError> {
        let mut found = Vec::new();
        let mut damage = None;
        self.kv
            .scan(&event_key(from.0), &event_key(u64::MAX), &mut |_, value| {
                match decode(value) {
                    Ok(event) => found.push(event),
                    Err(error) => damage = Some(error),
                }
                if damage.is_some() || found.len() >= max {
                    return std::ops::ControlFlow::Break(());
                }
                std::ops::ControlFlow::Continue(())
            })
            .map_err(kv_failed)?;
        match damage {
            Some(error) => Err(error.into()),
            None => Ok(found),
        }
    }
}

impl StateMachine for GovernmentMachine {
    fn applied(&self) -> Result<Applied, StateError> {
        Ok(self.applied.lock().clone())
    }

    fn apply(&self, batch: Vec<Committed>) -> Result<Vec<Bytes>, StateError> {
        let mut state = Government::clone(&self.government());
        let mut applied = self.applied.lock().clone();
        let mut writes = Batch::default();
        let mut events = self.events.lock().clone();
        let mut replies = Vec::with_capacity(batch.len());
        for committed in batch {
            match committed.body {
                Body::Blank => {}
                Body::Membership(membership) => {
                    applied.membership.position = Some(committed.position);
                    applied.membership.membership = membership;
                }
                // One an entry: orders are named by their positions.
                Body::Commands(commands) => {
                    for bytes in commands {
                        let proposal = Proposal::decode(&bytes)?;
                        let (answer, event) = state.apply(committed.position.index, &proposal);
                        if let Some(event) = event {
                            events.push_back(event.index);
                            writes.put(event_key(event.index), encode(&event));
                        }
                        replies.push(Bytes::from(answer.encode()));
                    }
                }
            }
            applied.position = Some(committed.position);
        }
        while events.len() > HISTORY_MAX {
            if let Some(oldest) = events.pop_front() {
                writes.delete(event_key(oldest));
            }
        }
        writes.put(state_key(), encode(&state));
        writes.put(applied_key(), encode(&applied));
        self.kv.write(writes).map_err(kv_failed)?;
        let map = state.map();
        *self.applied.lock() = applied;
        *self.events.lock() = events;
        *self.state.write() = Arc::new(state);
        self.map.send_if_modified(|known| {
            let newer = map.version > known.version;
            if newer {
                *known = Arc::new(map);
            }
            newer
        });
        Ok(replies)
    }

    fn snapshot(&self) -> Result<Snapshot, StateError> {
        // Both of one view: an order may be applied meanwhile.
        let view = self.kv.view();
        let applied = match view.get(&applied_key()).map_err(kv_failed)? {
            Some(bytes) => decode(&bytes)?,
            None => Applied::default(),
        };
        let (from, to) = keyspace();
        Ok(Snapshot { applied, blocks: snapshot::blocks(view, from, to) })
    }

    fn install(&self, applied: Applied, blocks: Blocks) -> Result<(), StateError> {
        let (from, to) = keyspace();
        let record = (applied_key(), encode(&applied));
        snapshot::install(&*self.kv, from, to, blocks, record)?;
        self.load()
    }

    fn flush(&self) -> Result<(), StateError> {
        self.kv.flush().map_err(kv_failed)
    }
}
