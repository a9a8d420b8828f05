//! A state machine and a network for this crate's tests.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use ministry_raft::{
    Applied, Blocks, Body, Committed, NetworkError, RaftNetwork, Snapshot, StateError,
    StateMachine, StoredMembership,
};
use ministry_types::{GroupId, NodeId};
use ministry_wire::raft::{RaftReply, RaftRequest};
use parking_lot::Mutex;

/// Remembers the commands in their order; answers how many there were before.
#[derive(Default)]
pub struct List {
    state: Mutex<State>,
    flushed: Mutex<State>,
    /// An install ends half done, as if the process had ended there.
    pub fail_next_install: AtomicBool,
    pub installs: AtomicUsize,
}

#[derive(Default, Clone)]
struct State {
    applied: Applied,
    commands: Vec<Bytes>,
}

impl List {
    pub fn commands(&self) -> Vec<Bytes> {
        self.state.lock().commands.clone()
    }

    pub fn len(&self) -> usize {
        self.state.lock().commands.len()
    }

    /// Forgets what was not flushed.
    pub fn crash(&self) {
        *self.state.lock() = self.flushed.lock().clone();
    }
}

impl StateMachine for List {
    fn applied(&self) -> Result<Applied, StateError> {
        Ok(self.state.lock().applied.clone())
    }

    fn apply(&self, batch: Vec<Committed>) -> Result<Vec<Bytes>, StateError> {
        let mut state = self.state.lock();
        let mut replies = Vec::new();
        for Committed { position, body } in batch {
            assert!(state.applied.position < Some(position), "applied twice or out of order");
            state.applied.position = Some(position);
            match body {
                Body::Blank => {}
                Body::Commands(commands) => {
                    for command in commands {
                        replies.push(Bytes::from(state.commands.len().to_string()));
                        state.commands.push(command);
                    }
                }
                Body::Membership(membership) => {
                    state.applied.membership =
                        StoredMembership { position: Some(position), membership };
                }
            }
        }
        Ok(replies)
    }

    fn snapshot(&self) -> Result<Snapshot, StateError> {
        let State { applied, commands } = self.state.lock().clone();
        let blocks: Vec<Bytes> = commands
            .chunks(100)
            .map(|chunk| postcard::to_stdvec(chunk).map(Bytes::from).unwrap())
            .collect();
        Ok(Snapshot { applied, blocks: Box::new(blocks.into_iter().map(Ok)) })
    }

    fn install(&self, applied: Applied, blocks: Blocks) -> Result<(), StateError> {
        self.installs.fetch_add(1, Ordering::SeqCst);
        *self.state.lock() = State::default();
        let mut commands = Vec::new();
        for block in blocks {
            let chunk: Vec<Bytes> = postcard::from_bytes(&block?).unwrap();
            commands.extend(chunk);
            if self.fail_next_install.swap(false, Ordering::SeqCst) {
                self.state.lock().commands = commands;
                *self.flushed.lock() = self.state.lock().clone();
                return Err(StateError("the process ended in the middle".to_owned()));
            }
        }
        *self.state.lock() = State { applied, commands };
        Ok(())
    }

    fn flush(&self) -> Result<(), StateError> {
        *self.flushed.lock() = self.state.lock().clone();
        Ok(())
    }
}

/// Connects the groups of nodes in this process.
#[derive(Clone, Default)]
pub struct Switch {
    inner: Arc<Mutex<Lines>>,
    /// How long a request travels.
    pub latency: Duration,
}

#[derive(Default)]
struct Lines {
    nodes: BTreeMap<NodeId, ministry_raft::Groups>,
    cut_off: BTreeSet<NodeId>,
    snapshots: usize,
}

impl Switch {
    pub fn connect(&self, node: NodeId, groups: ministry_raft::Groups) {
        self.inner.lock().nodes.insert(node, groups);
    }

    pub fn disconnect(&self, node: NodeId) {
        self.inner.lock().nodes.remove(&node);
    }

    pub fn cut_off(&self, node: NodeId, cut: bool) {
        let mut lines = self.inner.lock();
        if cut {
            lines.cut_off.insert(node);
        } else {
            lines.cut_off.remove(&node);
        }
    }

    pub fn snapshots(&self) -> usize {
        self.inner.lock().snapshots
    }

    pub fn from(&self, node: NodeId) -> Arc<dyn RaftNetwork> {
        Arc::new(Line { node, switch: self.clone() })
    }
}

struct Line {
    node: NodeId,
    switch: Switch,
}

impl RaftNetwork for Line {
    fn call(
        &self,
        to: NodeId,
        group: GroupId,
        request: RaftRequest,
        _timeout: Duration,
    ) -> BoxFuture<'static, Result<RaftReply, NetworkError>> {
        let mut lines = self.switch.inner.lock();
        if matches!(request, RaftRequest::SnapshotFinish { .. }) {
            lines.snapshots += 1;
        }
        let cut = lines.cut_off.contains(&to) || lines.cut_off.contains(&self.node);
        let target = lines.nodes.get(&to).filter(|_| !cut).cloned();
        let (from, latency) = (self.node, self.switch.latency);
        async move {
            if !latency.is_zero() {
                tokio::time::sleep(latency).await;
            }
            let target = target.ok_or_else(|| NetworkError::Unreachable("cut off".to_owned()))?;
            Ok(target.handle(from, group, request).await)
        }
        .boxed()
    }
}
