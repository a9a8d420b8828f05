//! A network inside the process, in virtual time, with everything that befalls a real one.
//!
//! Hosts connect by [`Link`] and accept by [`Port`]. The world calls [`Network::deliver`] once a
//! millisecond; in between nothing arrives anywhere.
//!
//! It behaves as TCP does: bytes of a connection arrive in order or not at all. What is lost is
//! sent again, later; so a loss is a delay, and a long one breaks the connection. A connection
//! that breaks loses what was under way in both directions, a reply among it. A host that lost
//! its power says nothing; who sends to it when it is up again is told that the connection is
//! gone.
//!
//! What must always hold: nothing here depends on how many bytes are sent (ids of the tracing
//! in tarpc are random and differ in length), only on when somebody sends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::FutureExt;
use futures::future::{BoxFuture, poll_fn};
use ministry_transport::{BoxedStream, Connector, Listener};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::trace;

/// A host by its number.
pub type HostId = usize;

const PORT: u16 = 7000;
/// What is not acknowledged for this long breaks the connection (as `TCP_USER_TIMEOUT` is set).
const UNACKNOWLEDGED_MAX: u64 = 15_000;
/// After this long a silent end is noticed (as `SO_KEEPALIVE` is set).
const SILENCE_MAX: u64 = 20_000;

/// The address of a host.
pub fn address(host: HostId) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host as u8 + 1], PORT))
}

/// What the network does to what is sent, beyond a millisecond or three.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Share of sendings with which the connection breaks.
    pub breaks: f64,
    /// Share of sendings that are late by up to three seconds.
    pub stalls: f64,
    /// Factor on every delay.
    pub slow: u64,
}

impl Weather {
    /// Fair, but for a packet that is lost now and then and comes some ten milliseconds later.
    pub const FAIR: Weather = Weather { breaks: 0.0, stalls: 0.0, slow: 1 };
}

/// What befell the connections, for the verdict on coverage.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// Connections that broke.
    pub broken: u64,
    /// Connections of clients that broke with a reply under way.
    pub replies_lost: u64,
    /// Sendings that were late.
    pub stalled: u64,
    /// Sendings that were held up by a partition.
    pub held: u64,
}

enum Parcel {
    Call,
    Answer,
    Bytes(Vec<u8>),
    End,
    Reset(io::ErrorKind),
}

struct UnderWay {
    sent: u64,
    due: u64,
    parcel: Parcel,
}

/// One end of a connection, with what is on its way to it.
struct End {
    host: HostId,
    life: u32,
    /// Since when nobody has the stream any more.
    gone_since: Option<u64>,
    answered: bool,
    arrived: VecDeque<u8>,
    ended: bool,
    failed: Option<io::ErrorKind>,
    coming: VecDeque<UnderWay>,
    /// All that is sent within a millisecond has one fate.
    fate: (u64, u64),
    reader: Option<Waker>,
}

impl End {
    fn new(host: HostId, life: u32) -> End {
        End {
            host,
            life,
            gone_since: None,
            answered: false,
            arrived: VecDeque::new(),
            ended: false,
            failed: None,
            coming: VecDeque::new(),
            fate: (0, 0),
            reader: None,
        }
    }
}

#[derive(Default)]
struct Host {
    up: bool,
    /// Counts the starts.
    life: u32,
    listens: bool,
    is_node: bool,
    waiting: VecDeque<u64>,
    acceptor: Option<Waker>,
}

struct Hub {
    now: u64,
    rng: SmallRng,
    hosts: Vec<Host>,
    connections: BTreeMap<u64, [End; 2]>,
    next: u64,
    cut: BTreeSet<(HostId, HostId)>,
    weather: Weather,
    seen: Seen,
    /// Woken when the lock is given back: waking may drop what wants the lock.
    awake: Vec<Waker>,
}

/// See the module. Clones share it.
#[derive(Clone)]
pub struct Network {
    hub: Arc<Mutex<Hub>>,
}

impl Network {
    /// Nobody is there yet.
    pub fn new(seed: u64) -> Network {
        let hub = Hub {
            now: 0,
            rng: SmallRng::seed_from_u64(seed),
            hosts: Vec::new(),
            connections: BTreeMap::new(),
            next: 0,
            cut: BTreeSet::new(),
            weather: Weather::FAIR,
            seen: Seen::default(),
            awake: Vec::new(),
        };
        Network { hub: Arc::new(Mutex::new(hub)) }
    }

    fn with<R>(&self, work: impl FnOnce(&mut Hub) -> R) -> R {
        let mut hub = self.hub.lock();
        let result = work(&mut hub);
        let awake = std::mem::take(&mut hub.awake);
        drop(hub);
        awake.into_iter().for_each(Waker::wake);
        result
    }

    /// A further host, switched off.
    pub fn add_host(&self, is_node: bool) -> HostId {
        self.with(|hub| {
            hub.hosts.push(Host { is_node, ..Host::default() });
            hub.hosts.len() - 1
        })
    }

    /// Switches a host on and gives its network card.
    pub fn start(&self, host: HostId) -> Link {
        self.with(|hub| {
            hub.hosts[host].up = true;
            hub.hosts[host].life += 1;
            Link { network: self.clone(), host, life: hub.hosts[host].life }
        })
    }

    /// The host is gone. `announced`: its kernel lives and closes the connections; else it lost
    /// its power and nobody hears of it.
    pub fn crash(&self, host: HostId, announced: bool) {
        self.with(|hub| hub.crash(host, announced));
    }

    /// Moves time on and hands over what is due.
    pub fn deliver(&self, now: u64) {
        self.with(|hub| hub.deliver(now));
    }

    /// Holds up everything that goes from one host to another.
    pub fn cut(&self, from: HostId, to: HostId) {
        self.with(|hub| hub.cut.insert((from, to)));
    }

    /// Lets it through again.
    pub fn heal(&self, from: HostId, to: HostId) {
        self.with(|hub| hub.cut.remove(&(from, to)));
    }

    /// Changes the weather.
    pub fn set_weather(&self, weather: Weather) {
        self.with(|hub| hub.weather = weather);
    }

    /// What befell the connections until now.
    pub fn seen(&self) -> Seen {
        self.with(|hub| hub.seen)
    }
}

impl Hub {
    /// How long a sending takes now.
    fn delay(&mut self) -> u64 {
        let delay = match self.rng.random_bool(0.01) {
            true => self.rng.random_range(20..60),
            false => self.rng.random_range(1..4),
        };
        delay * self.weather.slow
    }

    fn send(&mut self, id: u64, to: usize, parcel: Parcel) {
        let now = self.now;
        let Some(ends) = self.connections.get(&id) else { return };
        let last = ends[to].coming.back().map_or(0, |last| last.due);
        let (drawn, fate) = ends[to].fate;
        let between = (ends[1 - to].host, ends[to].host);
        let alone = between.0 == between.1;
        let (due, breaks) = match drawn == now + 1 {
            true => (fate, false),
            false => {
                let mut due = now + if alone { 1 } else { self.delay() };
                if !alone && self.weather.stalls > 0.0 && self.rng.random_bool(self.weather.stalls)
                {
                    self.seen.stalled += 1;
                    due += self.rng.random_range(200..3_000);
                }
                let breaks = self.weather.breaks;
                (due, !alone && breaks > 0.0 && self.rng.random_bool(breaks))
            }
        };
        let due = due.max(last);
        tracing::trace!(connection = id, ?between, drawn = drawn != now + 1, due, "sent");
        let Some(ends) = self.connections.get_mut(&id) else { return };
        ends[to].fate = (now + 1, due);
        ends[to].coming.push_back(UnderWay { sent: now, due, parcel });
        if breaks {
            self.break_off(id);
        }
    }

    /// The connection breaks: what is under way is lost, both ends hear of it.
    fn break_off(&mut self, id: u64) {
        let due = [self.now + self.delay(), self.now + self.delay()];
        let Some(ends) = self.connections.get_mut(&id) else { return };
        let of_client = !self.hosts[ends[0].host].is_node && self.hosts[ends[1].host].is_node;
        let has_bytes = ends[0].coming.iter().any(|on| matches!(on.parcel, Parcel::Bytes(_)));
        self.seen.broken += 1;
        self.seen.replies_lost += u64::from(of_client && has_bytes);
        trace::note(format_args!("connection {id} breaks"));
        for (end, due) in ends.iter_mut().zip(due) {
            end.coming.clear();
            let parcel = Parcel::Reset(io::ErrorKind::ConnectionReset);
            end.coming.push_back(UnderWay { sent: self.now, due, parcel });
        }
    }

    fn crash(&mut self, host: HostId, announced: bool) {
        let life = self.hosts[host].life;
        let Host { up, listens, waiting, acceptor, .. } = &mut self.hosts[host];
        (*up, *listens) = (false, false);
        waiting.clear();
        self.awake.extend(acceptor.take());
        let mut told = Vec::new();
        for (id, ends) in &mut self.connections {
            for (side, end) in ends.iter_mut().enumerate() {
                if end.host == host && end.life == life && end.gone_since.is_none() {
                    end.gone_since = Some(self.now);
                    end.coming.clear();
                    self.awake.extend(end.reader.take());
                    told.push((*id, 1 - side));
                }
            }
        }
        if announced {
            for (id, to) in told {
                self.send(id, to, Parcel::Reset(io::ErrorKind::ConnectionReset));
            }
        }
    }

    fn deliver(&mut self, now: u64) {
        self.now = now;
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        for id in ids {
            for to in 0..2 {
                while self.deliver_next(id, to) {}
            }
            self.forget_if_over(id);
        }
    }

    /// Hands over the next parcel to an end, if it is due. `false`: there is none.
    fn deliver_next(&mut self, id: u64, to: usize) -> bool {
        let now = self.now;
        let Some(ends) = self.connections.get_mut(&id) else { return false };
        let (from_host, to_host) = (ends[1 - to].host, ends[to].host);
        let Some(first) = ends[to].coming.front_mut().filter(|first| first.due <= now) else {
            return false;
        };
        let cut = self.cut.contains(&(from_host, to_host)) && from_host != to_host;
        if cut || !self.hosts[to_host].up {
            if now - first.sent > UNACKNOWLEDGED_MAX {
                ends[to].coming.clear();
                Hub::fail(&mut ends[1 - to], io::ErrorKind::TimedOut, &mut self.awake);
                return false;
            }
            self.seen.held += u64::from(cut && first.due == now);
            // Sent again, as TCP does.
            let again = now + (now - first.sent).clamp(5, 200) + self.rng.random_range(0..20);
            ends[to].coming.iter_mut().for_each(|on| on.due = on.due.max(again));
            return false;
        }
        let Some(UnderWay { parcel, .. }) = ends[to].coming.pop_front() else { return false };
        self.take_in(id, to, parcel);
        true
    }

    fn take_in(&mut self, id: u64, to: usize, parcel: Parcel) {
        let Some(ends) = self.connections.get_mut(&id) else { return };
        let host = &mut self.hosts[ends[to].host];
        let end = &mut ends[to];
        if let Parcel::Call = parcel {
            if !host.listens {
                return self.send(id, 0, Parcel::Reset(io::ErrorKind::ConnectionRefused));
            }
            end.life = host.life;
            end.gone_since = None;
            host.waiting.push_back(id);
            self.awake.extend(host.acceptor.take());
            return self.send(id, 0, Parcel::Answer);
        }
        if end.gone_since.is_some() {
            if !matches!(parcel, Parcel::Reset(_) | Parcel::End) {
                self.send(id, 1 - to, Parcel::Reset(io::ErrorKind::ConnectionReset));
            }
            return;
        }
        match parcel {
            Parcel::Call => {}
            Parcel::Answer => end.answered = true,
            Parcel::Bytes(bytes) => end.arrived.extend(bytes),
            Parcel::End => end.ended = true,
            Parcel::Reset(kind) => Hub::fail(end, kind, &mut self.awake),
        }
        self.awake.extend(end.reader.take());
    }

    fn fail(end: &mut End, kind: io::ErrorKind, awake: &mut Vec<Waker>) {
        end.failed.get_or_insert(kind);
        end.arrived.clear();
        awake.extend(end.reader.take());
    }

    fn forget_if_over(&mut self, id: u64) {
        let now = self.now;
        let Some(ends) = self.connections.get_mut(&id) else { return };
        for side in 0..2 {
            let silent = ends[side].gone_since.is_some_and(|since| now - since > SILENCE_MAX);
            let other = &mut ends[1 - side];
            if silent && other.gone_since.is_none() && other.failed.is_none() {
                Hub::fail(other, io::ErrorKind::TimedOut, &mut self.awake);
            }
        }
        let quiet = |end: &End| end.gone_since.is_some() && end.coming.is_empty();
        if ends.iter().all(quiet) {
            self.connections.remove(&id);
        }
    }

    fn call(&mut self, from: HostId, life: u32, to: SocketAddr) -> io::Result<u64> {
        let called = (0..self.hosts.len()).find(|host| address(*host) == to);
        let called = called.ok_or(io::ErrorKind::HostUnreachable)?;
        if self.hosts[from].life != life || !self.hosts[from].up {
            return Err(io::ErrorKind::NetworkDown.into());
        }
        let id = self.next;
        self.next += 1;
        self.connections.insert(id, [End::new(from, life), End::new(called, 0)]);
        self.send(id, 1, Parcel::Call);
        Ok(id)
    }
}

/// The network card of a host that runs.
#[derive(Clone)]
pub struct Link {
    network: Network,
    host: HostId,
    life: u32,
}

impl Link {
    /// Listens at the host's address.
    pub fn listen(&self) -> Port {
        self.network.with(|hub| hub.hosts[self.host].listens = true);
        Port { link: self.clone() }
    }
}

impl Connector for Link {
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<BoxedStream>> {
        async move {
            let id = self.network.with(|hub| hub.call(self.host, self.life, address))?;
            let stream = Stream { network: self.network.clone(), id, side: 0, shut: false };
            let answered = poll_fn(|context| stream.poll_answered(context));
            answered.await?;
            Ok(Box::new(stream) as BoxedStream)
        }
        .boxed()
    }
}

/// The socket of a host that listens.
pub struct Port {
    link: Link,
}

impl Listener for Port {
    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxedStream, SocketAddr)>> {
        poll_fn(|context| {
            let mut _old = None;
            self.link.network.with(|hub| {
                let host = &mut hub.hosts[self.link.host];
                let Some(id) = host.waiting.pop_front() else {
                    _old = host.acceptor.replace(context.waker().clone());
                    return Poll::Pending;
                };
                let Some(ends) = hub.connections.get_mut(&id) else {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                };
                let from = address(ends[0].host);
                let network = self.link.network.clone();
                let stream: BoxedStream = Box::new(Stream { network, id, side: 1, shut: false });
                Poll::Ready(Ok((stream, from)))
            })
        })
        .boxed()
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(address(self.link.host))
    }
}

/// One end of a connection, in somebody's hands.
struct Stream {
    network: Network,
    id: u64,
    side: usize,
    shut: bool,
}

impl Stream {
    fn with_end<R>(&self, work: impl FnOnce(&mut End) -> R) -> io::Result<R> {
        self.network.with(|hub| {
            let ends = hub.connections.get_mut(&self.id).ok_or(io::ErrorKind::ConnectionReset)?;
            let end = &mut ends[self.side];
            match end.gone_since {
                Some(_) => Err(io::ErrorKind::ConnectionReset.into()),
                None => Ok(work(end)),
            }
        })
    }

    fn poll_answered(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut _old = None;
        let answered = self.with_end(|end| match end.failed {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None if end.answered => Poll::Ready(Ok(())),
            None => {
                _old = end.reader.replace(context.waker().clone());
                Poll::Pending
            }
        });
        answered.unwrap_or_else(|error| Poll::Ready(Err(error)))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Dropped when the lock is given back: it may hold the last of a task that holds a stream.
        let mut _old = None;
        let read = self.with_end(|end| {
            if !end.arrived.is_empty() {
                let (first, _) = end.arrived.as_slices();
                let length = first.len().min(buffer.remaining());
                buffer.put_slice(&first[..length]);
                end.arrived.drain(..length);
                return Poll::Ready(Ok(()));
            }
            match end.failed {
                Some(kind) => Poll::Ready(Err(kind.into())),
                None if end.ended => Poll::Ready(Ok(())),
                None => {
                    _old = end.reader.replace(context.waker().clone());
                    Poll::Pending
                }
            }
        });
        read.unwrap_or_else(|error| Poll::Ready(Err(error)))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let failed = self.with_end(|end| end.failed);
        Poll::Ready(match failed {
            Ok(None) => {
                let parcel = Parcel::Bytes(bytes.to_vec());
                self.network.with(|hub| hub.send(self.id, 1 - self.side, parcel));
                Ok(bytes.len())
            }
            Ok(Some(kind)) => Err(kind.into()),
            Err(error) => Err(error),
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            self.shut = true;
            self.network.with(|hub| hub.send(self.id, 1 - self.side, Parcel::End));
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.network.with(|hub| {
            let now = hub.now;
            let Some(ends) = hub.connections.get_mut(&self.id) else { return };
            let end = &mut ends[self.side];
            if end.gone_since.is_some() {
                return;
            }
            end.gone_since = Some(now);
            hub.awake.extend(end.reader.take());
            if !self.shut && end.failed.is_none() {
                hub.send(self.id, 1 - self.side, Parcel::End);
            }
        });
    }
}
