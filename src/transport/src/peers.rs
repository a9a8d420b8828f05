//! Calls to other nodes, over connections that are kept.
//!
//! Everybody who calls a service of another node has one [`Peers`] and gives it the target with
//! each call. One connection a target and door is kept and shared by all calls.
//!
//! What must always hold: at most one attempt to connect is under way a target and door, whoever
//! waits for it; after a failure the next one waits a moment ([`BACKOFF_MIN`] to [`BACKOFF_MAX`]),
//! and calls meanwhile fail at once with the reason; every call has a time limit; a connection that
//! broke, or that swallowed [`TIMEOUTS_MAX`] calls in a row, is replaced. The tasks that drive the
//! connections end with the [`Peers`].
//!
//! When it fails: a [`CallError`], which tells whether the other end can have acted
//! ([`CallError::was_not_done`]).

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ministry_types::NodeId;
use ministry_types::limits::{CONTROL_REQUESTS_PER_CONNECTION_MAX, PEER_CONNECTIONS_MAX};
use ministry_wire::codec::control_transport;
use ministry_wire::hello::Door;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tarpc::RequestName;
use tarpc::client::{self, Channel, RpcError};
use tarpc::context::{self, Context};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::dial::{ConnectError, Dialer};

/// Pause after a first failure to connect.
pub const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest pause after failures to connect: a node that is back is found this soon.
pub const BACKOFF_MAX: Duration = Duration::from_millis(200);
/// Calls in a row without an answer after which a connection is given up: its other end may be
/// gone without a word, and TCP would not notice for minutes.
pub const TIMEOUTS_MAX: u32 = 3;
/// A connection that ends sooner counts as a failed attempt.
const STOOD_MIN: Duration = Duration::from_millis(100);
/// tarpc's own deadline. Ours is tokio's, which a simulation can hold still; this one only has to
/// be later.
const TARPC_DEADLINE: Duration = Duration::from_secs(3600);
/// Tries of one call to find a connection that stands.
const CONNECTIONS_PER_CALL_MAX: usize = 3;

/// Where a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Who must be there; `None`: whichever node listens there (first contact).
    pub node: Option<NodeId>,
    /// Where.
    pub address: SocketAddr,
}

impl Target {
    /// A certain node.
    pub fn node(node: NodeId, address: SocketAddr) -> Target {
        Target { node: Some(node), address }
    }

    /// Whichever node listens there.
    pub fn any(address: SocketAddr) -> Target {
        Target { node: None, address }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.node {
            Some(node) => write!(f, "node {} at {}", node.short(), self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Time ran out while connecting.
    #[error("no connection to {target} within {after:?}")]
    NoConnection {
        /// Whom.
        target: Target,
        /// The call's time limit.
        after: Duration,
    },
    /// Time ran out waiting for the answer: whether it was done is unknown.
    #[error("no answer from {target} within {after:?}")]
    TimedOut {
        /// Whom.
        target: Target,
        /// The call's time limit.
        after: Duration,
    },
    /// The other end has too many requests of ours under way.
    #[error("{target} has too many requests under way: try again in a moment")]
    Busy {
        /// Who.
        target: Target,
    },
    /// The request could not be sent, mostly because it is too large.
    #[error("the request to {target} could not be sent: {reason}")]
    Unsendable {
        /// Whom.
        target: Target,
        /// Why.
        reason: String,
    },
    /// The connection broke: whether it was done is unknown.
    #[error("the connection to {target} broke: {reason}")]
    Broken {
        /// Whom.
        target: Target,
        /// How.
        reason: String,
    },
}

impl CallError {
    /// Whether the other end certainly did not act; else it is unknown.
    pub fn was_not_done(&self) -> bool {
        match self {
            CallError::Connect(_)
            | CallError::NoConnection { .. }
            | CallError::Busy { .. }
            | CallError::Unsendable { .. } => true,
            CallError::TimedOut { .. } | CallError::Broken { .. } => false,
        }
    }
}

/// A context for a tarpc call whose time limit is set otherwise.
pub fn far_context() -> Context {
    let mut context = context::current();
    context.deadline = std::time::Instant::now() + TARPC_DEADLINE;
    context
}

/// Whether the other end refused a request because too many are under way.
///
/// tarpc 0.38 writes the kind of the error as a signed number and reads it as an unsigned one, which
/// are not the same in our codec: the kind arrives as `Other`. The text is its own.
pub(crate) fn is_throttled(error: &tarpc::ServerError) -> bool {
    error.kind == std::io::ErrorKind::WouldBlock || error.detail == "server throttled the request."
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    target: Target,
    door: Door,
    /// Which service is spoken: the type of its channel.
    service: TypeId,
}

/// One connection, or the attempt to make one.
struct Slot {
    state: watch::Receiver<State>,
    /// Failures in a row, for the pause.
    failures: u32,
    /// Ends the connection when the slot goes.
    _task: AbortOnDropHandle<()>,
}

#[derive(Clone)]
enum State {
    Connecting,
    Ready { channel: Arc<dyn Any + Send + Sync>, health: Arc<Health> },
    Failed { error: ConnectError, until: Instant },
    Ended,
}

/// Whether a connection still answers.
#[derive(Debug, Default)]
struct Health {
    timeouts: AtomicU32,
    give_up: Notify,
}

impl Health {
    fn answered(&self) {
        self.timeouts.store(0, Ordering::Relaxed);
    }

    fn timed_out(&self) {
        if self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS_MAX {
            self.give_up.notify_one();
        }
    }
}

/// Connections to other nodes.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    dialer: Arc<Dialer>,
    slots: Mutex<BTreeMap<Key, Slot>>,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Peers({:?}, {} connections)", self.inner.dialer, self.inner.slots.lock().len())
    }
}

impl Peers {
    /// No connections yet.
    pub fn new(dialer: Arc<Dialer>) -> Peers {
        Peers { inner: Arc::new(Inner { dialer, slots: Mutex::default() }) }
    }

    /// What opens the connections; for connections that are not shared (file data).
    pub fn dialer(&self) -> &Arc<Dialer> {
        &self.inner.dialer
    }

    /// Calls a service: connects if need be, and waits for the answer, both within `limit`.
    ///
    /// ```ignore
    /// peers.call(target, Door::Node, ATTEMPT_TIMEOUT, |client: NodeClient, context| async move {
    ///     client.heartbeat(context, request).await
    /// })
    /// ```
    ///
    /// Cancel safety: the request may have been sent, and the other end is told to drop it.
    pub async fn call<C, Req, Resp, R, F, Fut>(
        &self,
        target: Target,
        door: Door,
        limit: Duration,
        request: F,
    ) -> Result<R, CallError>
    where
        C: From<Channel<Req, Resp>>,
        Req: Serialize + RequestName + Send + 'static,
        Resp: DeserializeOwned + Send + 'static,
        F: FnOnce(C, Context) -> Fut,
        Fut: Future<Output = Result<R, RpcError>>,
    {
        let begun = Instant::now();
        let deadline = begun + limit;
        let connecting = self.connected::<Req, Resp>(target, door);
        let (channel, health) = timeout_at(deadline, connecting)
            .await
            .map_err(|_| CallError::NoConnection { target, after: limit })??;
        let answer = timeout_at(deadline, request(C::from(channel), far_context())).await;
        match answer {
            Ok(Ok(answer)) => {
                health.answered();
                metrics::histogram!("ministry_transport_call_seconds", "door" => door.name())
                    .record(begun.elapsed());
                Ok(answer)
            }
            Ok(Err(error)) => Err(self.call_error(target, limit, error, &health)),
            Err(_) => {
                health.timed_out();
                Err(CallError::TimedOut { target, after: limit })
            }
        }
    }

    /// A client of a service over the kept connection, for callers that watch the time themselves.
    pub async fn client<C, Req, Resp>(&self, target: Target, door: Door) -> Result<C, ConnectError>
    where
        C: From<Channel<Req, Resp>>,
        Req: Serialize + RequestName + Send + 'static,
        Resp: DeserializeOwned + Send + 'static,
    {
        let (channel, _) = self.connected::<Req, Resp>(target, door).await?;
        Ok(C::from(channel))
    }

    /// Drops the connections to targets that `keep` does not want: nodes that left or moved.
    pub fn retain(&self, keep: impl Fn(&Target) -> bool) {
        self.inner.slots.lock().retain(|key, _| keep(&key.target));
    }

    fn call_error(
        &self,
        target: Target,
        after: Duration,
        error: RpcError,
        health: &Health,
    ) -> CallError {
        match error {
            RpcError::DeadlineExceeded => {
                health.timed_out();
                CallError::TimedOut { target, after }
            }
            RpcError::Server(error) if is_throttled(&error) => {
                health.answered();
                CallError::Busy { target }
            }
            RpcError::Send(error) => CallError::Unsendable { target, reason: error.to_string() },
            RpcError::Channel(error) => CallError::Broken { target, reason: error.to_string() },
            other => CallError::Broken { target, reason: other.to_string() },
        }
    }

    /// The channel of a connection that stands, making one if there is none.
    ///
    /// Cancel safety: safe; the attempt to connect goes on for those who come later.
    async fn connected<Req, Resp>(
        &self,
        target: Target,
        door: Door,
    ) -> Result<(Channel<Req, Resp>, Arc<Health>), ConnectError>
    where
        Req: Serialize + RequestName + Send + 'static,
        Resp: DeserializeOwned + Send + 'static,
    {
        let address = target.address;
        if let Some(node) = target.node
            && self.inner.dialer.is_revoked(node)
        {
            self.inner.slots.lock().retain(|key, _| key.target.node != Some(node));
            return Err(ConnectError::Revoked { address, node });
        }
        for _ in 0..CONNECTIONS_PER_CALL_MAX {
            let mut state = self.state::<Req, Resp>(target, door)?;
            // `Err`: the task is gone without a last word, because its slot was dropped.
            let Ok(state) = state.wait_for(|state| !matches!(state, State::Connecting)).await
            else {
                continue;
            };
            match &*state {
                State::Ready { channel, health } => {
                    let channel = channel.downcast_ref::<Channel<Req, Resp>>();
                    let channel = channel.expect("the key holds the type of the channel").clone();
                    return Ok((channel, health.clone()));
                }
                State::Failed { error, .. } => return Err(error.clone()),
                State::Connecting | State::Ended => {}
            }
        }
        Err(ConnectError::Closed { address, door })
    }

    /// How the connection for this target and door stands; begins a new one where the old one is
    /// over or its pause is.
    fn state<Req, Resp>(
        &self,
        target: Target,
        door: Door,
    ) -> Result<watch::Receiver<State>, ConnectError>
    where
        Req: Serialize + RequestName + Send + 'static,
        Resp: DeserializeOwned + Send + 'static,
    {
        let key = Key { target, door, service: TypeId::of::<Channel<Req, Resp>>() };
        let mut slots = self.inner.slots.lock();
        let mut failures = 0;
        if let Some(slot) = slots.get(&key) {
            // A task that panicked leaves its last state behind, and no sender.
            let driven = slot.state.has_changed().is_ok();
            match &*slot.state.borrow() {
                State::Connecting | State::Ready { .. } if driven => return Ok(slot.state.clone()),
                State::Connecting | State::Ready { .. } => {}
                State::Failed { until, .. } if Instant::now() < *until => {
                    return Ok(slot.state.clone());
                }
                State::Failed { .. } => failures = slot.failures + 1,
                State::Ended => {}
            }
        }
        if slots.len() >= PEER_CONNECTIONS_MAX {
            slots.retain(|_, slot| {
                matches!(&*slot.state.borrow(), State::Connecting | State::Ready { .. })
            });
            if slots.len() >= PEER_CONNECTIONS_MAX {
                return Err(ConnectError::TooMany);
            }
        }
        let (sender, state) = watch::channel(State::Connecting);
        let dialer = self.inner.dialer.clone();
        let task = tokio::spawn(drive::<Req, Resp>(dialer, target, door, failures, sender));
        let slot = Slot { state: state.clone(), failures, _task: AbortOnDropHandle::new(task) };
        slots.insert(key, slot);
        Ok(state)
    }
}

/// Makes one connection and drives it to its end.
async fn drive<Req, Resp>(
    dialer: Arc<Dialer>,
    target: Target,
    door: Door,
    failures: u32,
    state: watch::Sender<State>,
) where
    Req: Serialize + RequestName + Send + 'static,
    Resp: DeserializeOwned + Send + 'static,
{
    let pause = BACKOFF_MIN.saturating_mul(1 << failures.min(8)).min(BACKOFF_MAX);
    let fail = |error| State::Failed { error, until: Instant::now() + pause };
    let stream = match dialer.connect(target.address, target.node, door).await {
        Ok((stream, _)) => stream,
        Err(error) => {
            state.send_replace(fail(error));
            return;
        }
    };
    let mut config = client::Config::default();
    config.max_in_flight_requests = CONTROL_REQUESTS_PER_CONNECTION_MAX;
    config.pending_request_buffer = CONTROL_REQUESTS_PER_CONNECTION_MAX;
    let new = client::new::<Req, Resp, _>(config, control_transport(stream));
    let health = Arc::new(Health::default());
    let since = Instant::now();
    state.send_replace(State::Ready { channel: Arc::new(new.client), health: health.clone() });
    tokio::select! {
        biased;
        ended = new.dispatch => match ended {
            Ok(()) => tracing::debug!(%target, %door, "connection closed"),
            Err(error) => tracing::debug!(%target, %door, %error, "connection broke"),
        },
        () = health.give_up.notified() => {
            tracing::warn!(%target, %door, timeouts = TIMEOUTS_MAX,
                "connection given up: calls in a row had no answer");
        }
    }
    let stood = since.elapsed() >= STOOD_MIN;
    let address = target.address;
    state.send_replace(if stood {
        State::Ended
    } else {
        fail(ConnectError::Closed { address, door })
    });
}
