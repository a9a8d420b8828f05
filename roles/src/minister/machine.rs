//! A ministry's state machine on one node: the file-system rules over this node's state store.
//!
//! Called by the `raft` crate to apply entries, by [`super::office`] to read. What must always
//! hold: data, reply slots, and how far the log was applied change in one batch.

use std::sync::Arc;

use bytes::Bytes;
use ministry_namespace::{Command, Namespace, Overlay};
use ministry_raft::{Applied, Blocks, Body, Committed, Snapshot, StateError, StateMachine};
use ministry_types::format::NAMESPACE_FORMAT;
use ministry_types::kv::{Batch, Kv, KvError, KvRead};
use ministry_types::{Epoch, LogIndex, MinistryId, NodeId};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::locks::LockWaits;
use crate::government::kv_failed;
use crate::snapshot;

/// The state of one ministry on one node.
pub struct NamespaceMachine {
    namespace: Namespace,
    kv: Arc<dyn Kv>,
    applied: Mutex<Applied>,
    reign: watch::Sender<Option<(Epoch, NodeId)>>,
    /// Those who wait here to hear of a lock.
    pub(super) lock_waits: LockWaits,
}

fn encode_applied(applied: &Applied) -> Vec<u8> {
    postcard::to_extend(applied, vec![NAMESPACE_FORMAT]).expect("plain data always encodes")
}

fn decode_applied(bytes: &[u8]) -> Result<Applied, StateError> {
    match bytes.split_first() {
        Some((&NAMESPACE_FORMAT, rest)) => postcard::from_bytes(rest)
            .map_err(|error| StateError(format!("the applied record does not decode: {error}"))),
        _ => Err(StateError(
            "the state of a ministry has a format that this ministryd does not know; start the \
             newer version that wrote it"
                .to_owned(),
        )),
    }
}

impl NamespaceMachine {
    /// Takes up what the store holds. A ministry's keyspace is its own number: a ministry that is
    /// split off one day may go on in its parent's.
    pub fn open(ministry: MinistryId, kv: Arc<dyn Kv>) -> Result<NamespaceMachine, StateError> {
        let machine = NamespaceMachine {
            namespace: Namespace::new(ministry.0, ministry),
            kv,
            applied: Mutex::default(),
            reign: watch::Sender::new(None),
            lock_waits: LockWaits::default(),
        };
        machine.load()?;
        Ok(machine)
    }

    fn load(&self) -> Result<(), StateError> {
        let applied = self.kv.get(&self.namespace.applied_key()).map_err(kv_failed)?;
        let applied = applied.map_or(Ok(Applied::default()), |bytes| decode_applied(&bytes))?;
        let reign = self.namespace.reign(self.reader()).map_err(kv_failed)?;
        *self.applied.lock() = applied;
        self.reign.send_replace(reign);
        self.lock_waits.wake_all();
        Ok(())
    }

    /// The rules.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The state as of now; several reads may see several moments.
    pub fn reader(&self) -> &dyn KvRead {
        &*self.kv
    }

    /// The state of this moment, unchanging.
    pub fn view(&self) -> Box<dyn KvRead + Send> {
        self.kv.view()
    }

    /// The reign in force, as applied here.
    pub fn reign(&self) -> Option<(Epoch, NodeId)> {
        *self.reign.borrow()
    }

    /// Last entry applied.
    pub fn applied_index(&self) -> LogIndex {
        self.applied.lock().position.map_or(LogIndex(0), |position| position.index)
    }
}

impl StateMachine for NamespaceMachine {
    fn applied(&self) -> Result<Applied, StateError> {
        Ok(self.applied.lock().clone())
    }

    fn apply(&self, batch: Vec<Committed>) -> Result<Vec<Bytes>, StateError> {
        let replies = self.carry_out(&batch, |writes| self.kv.write(writes).map(|()| true))?;
        Ok(replies.expect("a store that may wait takes what it is given"))
    }

    fn apply_at_once(&self, batch: &[Committed]) -> Result<Option<Vec<Bytes>>, StateError> {
        self.carry_out(batch, |writes| self.kv.write_at_once(&writes))
    }

    fn snapshot(&self) -> Result<Snapshot, StateError> {
        let view = self.kv.view();
        let applied = view.get(&self.namespace.applied_key()).map_err(kv_failed)?;
        let applied = applied.map_or(Ok(Applied::default()), |bytes| decode_applied(&bytes))?;
        let (from, to) = self.namespace.keyspace_range();
        Ok(Snapshot { applied, blocks: snapshot::blocks(view, from, to) })
    }

    fn install(&self, applied: Applied, blocks: Blocks) -> Result<(), StateError> {
        let (from, to) = self.namespace.keyspace_range();
        let record = (self.namespace.applied_key(), encode_applied(&applied));
        snapshot::install(&*self.kv, from, to, blocks, record)?;
        self.load()
    }

    fn flush(&self) -> Result<(), StateError> {
        self.kv.flush().map_err(kv_failed)
    }
}

impl NamespaceMachine {
    /// Carries entries out and has what they change written. `None`: `write` took nothing, and
    /// nothing has changed.
    fn carry_out(
        &self,
        batch: &[Committed],
        write: impl FnOnce(Batch) -> Result<bool, KvError>,
    ) -> Result<Option<Vec<Bytes>>, StateError> {
        let mut applied = self.applied.lock().clone();
        let mut overlay = Overlay::remembering(self.reader());
        let count = batch.iter().map(|committed| committed.body.command_count()).sum();
        let mut replies = Vec::with_capacity(count);
        let mut reigned = false;
        for committed in batch {
            match &committed.body {
                Body::Blank => {}
                Body::Membership(membership) => {
                    applied.membership.position = Some(committed.position);
                    applied.membership.membership = membership.clone();
                }
                Body::Commands(commands) => {
                    for bytes in commands {
                        let command = Command::decode(bytes)
                            .map_err(|error| StateError(error.to_string()))?;
                        reigned |= matches!(command, Command::Reign { .. });
                        let answer =
                            self.namespace.apply(&mut overlay, &command).map_err(kv_failed)?;
                        replies.push(Bytes::from(answer.encode()));
                    }
                }
            }
            applied.position = Some(committed.position);
        }
        let settled = overlay.settled().to_vec();
        let mut writes = overlay.into_batch();
        writes.put(self.namespace.applied_key(), encode_applied(&applied));
        if !write(writes).map_err(kv_failed)? {
            return Ok(None);
        }
        *self.applied.lock() = applied;
        self.lock_waits.settled(&settled);
        if reigned {
            let reign = self.namespace.reign(self.reader()).map_err(kv_failed)?;
            self.reign.send_replace(reign);
        }
        Ok(Some(replies))
    }
}
