//! From an inode to the minister who answers for it, and one attempt of a call there.
//!
//! [`crate::calls`] and [`crate::sessions`] make their attempts here. Inode → ministry by the
//! ownership map; ministry → minister by the map, or by a hint of a newer epoch that a refusing
//! node gave; minister → address by the map.
//!
//! What must always hold: an attempt ends within its time-out, and at once when another minister is
//! appointed while it is under way (else each change of minister would cost a whole time-out).
//! What it came to is one of three outcomes ([`Attempt`]).

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ministry_transport::{CallError, Door, Peers, Target};
use ministry_types::limits::ATTEMPT_TIMEOUT;
use ministry_types::{Epoch, InodeId, LogIndex, MapVersion, MinistryId, NodeId};
use ministry_wire::minister::{MinistryClient, Refusal};
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;
use tarpc::client::RpcError;
use tarpc::context::Context;
use tokio::time::timeout;

use crate::maps::MapCache;
use crate::retry::{Attempt, Backoff, Doubt, Refused};

/// Who serves a ministry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Route {
    node: NodeId,
    target: Target,
    epoch: Epoch,
}

/// What is known of a ministry beyond the map.
#[derive(Debug, Default)]
struct Known {
    /// A minister of a newer epoch than the map's, as another node told.
    hint: Option<(Epoch, NodeId)>,
    /// Highest index of its log that an answer carried.
    seen: LogIndex,
}

/// The ministries as this client reaches them.
pub(crate) struct Ministries {
    /// The map.
    pub maps: Arc<MapCache>,
    peers: Peers,
    known: Mutex<BTreeMap<MinistryId, Known>>,
    rng: Arc<Mutex<SmallRng>>,
}

impl Ministries {
    /// Nothing is known yet but the map.
    pub fn new(maps: Arc<MapCache>, peers: Peers, rng: Arc<Mutex<SmallRng>>) -> Ministries {
        Ministries { maps, peers, known: Mutex::default(), rng }
    }

    /// The ministry that owns an inode, as far as the map tells.
    pub fn owner(&self, inode: InodeId) -> Option<MinistryId> {
        self.maps.newest().ownership.owner(inode)
    }

    /// The newest appointment for a ministry that this client has heard of.
    pub fn epoch(&self, ministry: MinistryId) -> Epoch {
        self.route(ministry).map_or(Epoch(0), |route| route.epoch)
    }

    /// Waits until an appointment newer than `known` is heard of.
    pub async fn newer_epoch(&self, ministry: MinistryId, known: Epoch) -> Epoch {
        let mut maps = self.maps.watch();
        loop {
            let epoch = self.epoch(ministry);
            if epoch > known {
                return epoch;
            }
            if maps.changed().await.is_err() {
                // The client is being dropped, and this future with it.
                return std::future::pending().await;
            }
        }
    }

    /// Highest log index of the ministry that this client has seen.
    pub fn seen(&self, ministry: MinistryId) -> LogIndex {
        self.known.lock().get(&ministry).map_or(LogIndex::default(), |known| known.seen)
    }

    /// An answer carried this index.
    pub fn saw(&self, ministry: MinistryId, index: LogIndex) {
        let mut known = self.known.lock();
        let seen = &mut known.entry(ministry).or_default().seen;
        *seen = index.max(*seen);
    }

    /// Makes one attempt of a call at the minister of `ministry`.
    ///
    /// Cancel safety: dropping it leaves the outcome unknown.
    pub async fn attempt<T, F>(
        &self,
        ministry: MinistryId,
        call: impl FnOnce(MinistryClient, Context) -> F,
    ) -> Attempt<T>
    where
        F: Future<Output = Result<Result<T, Refusal>, RpcError>>,
    {
        let Some(route) = self.route(ministry) else {
            return Attempt::NotDone(Refused::NobodyKnown);
        };
        // In a box: everything above it is moved about, and would be as large.
        let call = Box::pin(self.peers.call(route.target, Door::Client, ATTEMPT_TIMEOUT, call));
        let answer = tokio::select! {
            biased;
            answer = call => answer,
            () = self.moved(ministry, route) => return Attempt::Unknown(Doubt::Moved),
        };
        let error = match answer {
            Ok(Ok(value)) => return Attempt::Done(value),
            Ok(Err(refusal)) => return self.refused(ministry, route, refusal),
            Err(error) => error,
        };
        tracing::debug!(%ministry, %error, "no answer from the minister");
        self.forget_hint(ministry, route.node);
        match error {
            CallError::Busy { .. } => Attempt::NotDone(Refused::Busy(Duration::ZERO)),
            CallError::TimedOut { .. } => Attempt::Unknown(Doubt::NoAnswer),
            error if error.was_not_done() => Attempt::NotDone(Refused::Unreachable),
            _ => Attempt::Unknown(Doubt::Broken),
        }
    }

    /// Whether a refusal means that a session with the ministry is over, not only out of reach.
    pub fn is_end(&self, ministry: MinistryId, refused: Refused) -> bool {
        match refused {
            Refused::UnknownSession | Refused::WrongMinistry(_) => true,
            Refused::NobodyKnown => !self.maps.newest().ministries.contains_key(&ministry),
            _ => false,
        }
    }

    /// Waits before the next attempt after one was refused: for a newer map, or a moment.
    pub async fn after_refusal(&self, refused: Refused, backoff: &mut Backoff) {
        metrics::counter!("ministry_client_retries_total", "reason" => refused.word()).increment(1);
        match refused {
            Refused::NotMinister { hint: true } if backoff.follow_hint() => {}
            Refused::UnknownSession if backoff.follow_hint() => {}
            Refused::Busy(retry_after) => {
                // Its word, but within bounds: the operation has a deadline of its own. Spread,
                // since it says the same to all whom it refuses at the same moment.
                let told = retry_after.min(ATTEMPT_TIMEOUT);
                let told = told.mul_f64(self.rng.lock().random_range(1.0..1.5));
                tokio::time::sleep(backoff.wait(&self.rng).max(told)).await;
            }
            Refused::WrongMinistry(version) => self.pause(version, backoff).await,
            // Whoever makes attempts has told it meanwhile.
            Refused::ReclaimFirst(_) if backoff.follow_hint() => {}
            _ => self.pause(self.maps.newest().version.next(), backoff).await,
        }
    }

    /// Waits before the next attempt after one whose outcome is not known.
    pub async fn after_doubt(&self, doubt: Doubt, backoff: &mut Backoff) {
        metrics::counter!("ministry_client_retries_total", "reason" => doubt.word()).increment(1);
        if doubt != Doubt::Moved {
            self.pause(self.maps.newest().version.next(), backoff).await;
        }
    }

    /// Waits a moment, but not longer than until a map of `version` is here.
    async fn pause(&self, version: MapVersion, backoff: &mut Backoff) {
        self.maps.doubt();
        let mut maps = self.maps.watch();
        let wait = backoff.wait(&self.rng);
        // Either end of the wait is fine: the next attempt takes what is known then.
        let _ = timeout(wait, maps.wait_for(|map| map.version >= version)).await;
    }

    fn route(&self, ministry: MinistryId) -> Option<Route> {
        let map = self.maps.newest();
        let entry = map.ministries.get(&ministry)?;
        let hint = self.known.lock().get(&ministry).and_then(|known| known.hint);
        let hint =
            hint.filter(|(epoch, node)| *epoch > entry.epoch && map.nodes.contains_key(node));
        let (epoch, node) = match hint {
            Some(hint) => hint,
            None => (entry.epoch, entry.minister?),
        };
        Some(Route { node, target: Target::node(node, map.address(node)?), epoch })
    }

    /// Waits until the way to the ministry is another one than `route`.
    async fn moved(&self, ministry: MinistryId, route: Route) {
        let mut maps = self.maps.watch();
        loop {
            match self.route(ministry) {
                Some(now) if now.node != route.node && now.epoch > route.epoch => return,
                _ => {}
            }
            if maps.changed().await.is_err() {
                // The client is being dropped, and this future with it.
                return std::future::pending().await;
            }
        }
    }

    /// A hint that led to a dead end must not stand before the map for ever.
    fn forget_hint(&self, ministry: MinistryId, node: NodeId) {
        if let Some(known) = self.known.lock().get_mut(&ministry)
            && known.hint.is_some_and(|(_, hinted)| hinted == node)
        {
            known.hint = None;
        }
    }

    fn refused<T>(&self, ministry: MinistryId, asked: Route, refusal: Refusal) -> Attempt<T> {
        Attempt::NotDone(match refusal {
            Refusal::NotMinister { epoch, hint, .. } => {
                self.forget_hint(ministry, asked.node);
                let hint = hint.filter(|node| *node != asked.node && epoch > asked.epoch);
                if let Some(node) = hint {
                    self.known.lock().entry(ministry).or_default().hint = Some((epoch, node));
                }
                // Only a node with a known address can be asked at once.
                let known = hint.is_some_and(|node| self.maps.newest().address(node).is_some());
                Refused::NotMinister { hint: known }
            }
            Refusal::WrongMinistry { map_version, .. } => Refused::WrongMinistry(map_version),
            Refusal::UnknownSession => Refused::UnknownSession,
            Refusal::StaleRequest => Refused::Stale,
            Refusal::Busy { retry_after } => Refused::Busy(retry_after),
            Refusal::ReclaimFirst { reign } => Refused::ReclaimFirst(reign),
            Refusal::Unknown => return Attempt::Unknown(Doubt::Unresolved),
        })
    }
}
