//! Which connections still count.
//!
//! A sender that gave up on a connection may have sent its request again on the next one, and
//! something later after it. What is left of the old connection must not take effect any more.
//! Every request carries the [`DataSource`] it was sent over; here is remembered the newest one of
//! each sender and lane. A request is asked about twice: when it arrives, and when its turn has
//! come, just before it takes effect (in its place of [`super::ranges`], where a copy that was sent
//! again cannot overtake it).
//!
//! What must always hold: after a request of a newer connection was seen, none of an older one
//! begins. A master that was restarted has a new incarnation; its connections are accepted after
//! all those of the process before, which is how the newer one is known without a clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ministry_types::NodeId;
use ministry_types::limits::DATA_STREAMS_PER_PEER;
use ministry_wire::data::DataSource;
use ministry_wire::hello::PeerIdentity;
use parking_lot::Mutex;

/// One sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sender {
    /// A node that is the master of what it sends: one incarnation at a time.
    Master(NodeId),
    /// A client, or a node on its own behalf. Several processes may share one certificate.
    Process(PeerIdentity, u64),
}

#[derive(Debug)]
struct Seen {
    incarnation: u64,
    /// The connection over which the incarnation was first seen.
    first_connection: u64,
    /// Newest generation of each lane.
    lanes: [u64; DATA_STREAMS_PER_PEER],
    /// Connections that sent something.
    connections: usize,
}

/// What was seen of all senders.
#[derive(Debug, Default)]
pub(super) struct Sources {
    accepted: AtomicU64,
    seen: Mutex<BTreeMap<Sender, Seen>>,
}

/// One accepted connection.
#[derive(Debug)]
pub(super) struct Caller {
    sources: Arc<Sources>,
    number: u64,
    peer: PeerIdentity,
    /// The incarnation it sent, and as whom it sent it.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    incarnation: Option<u64>,
    senders: Vec<Sender>,
}

impl Sources {
    /// Counts a connection that was accepted just now.
    pub(super) fn accept(self: &Arc<Self>, peer: PeerIdentity) -> Arc<Caller> {
        let number = self.accepted.fetch_add(1, Ordering::Relaxed);
        Arc::new(Caller { sources: Arc::clone(self), number, peer, known: Mutex::default() })
    }
}

impl Caller {
    /// Who is at the other end.
    pub(super) fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    /// Whether a request over this connection counts; remembers that it was seen.
    pub(super) fn admit(&self, source: DataSource, forwarded: bool) -> bool {
        let sender = match self.peer.node().filter(|_| forwarded) {
            Some(node) => Sender::Master(node),
            None => Sender::Process(self.peer, source.incarnation),
        };
        let is_first = {
            let mut known = self.known.lock();
            // A process has one incarnation: another one on its connection is a wrong sender.
            if *known.incarnation.get_or_insert(source.incarnation) != source.incarnation {
                return false;
            }
            let is_first = !known.senders.contains(&sender);
            if is_first {
                known.senders.push(sender);
            }
            is_first
        };
        let mut seen = self.sources.seen.lock();
        let seen = seen.entry(sender).or_insert_with(|| Seen {
            incarnation: source.incarnation,
            first_connection: self.number,
            lanes: [0; DATA_STREAMS_PER_PEER],
            connections: 0,
        });
        seen.connections += usize::from(is_first);
        seen.admit(self.number, source)
    }
}

impl Seen {
    fn admit(&mut self, connection: u64, source: DataSource) -> bool {
        if self.incarnation != source.incarnation {
            if connection <= self.first_connection {
                return false;
            }
            self.incarnation = source.incarnation;
            self.first_connection = connection;
            self.lanes = [0; DATA_STREAMS_PER_PEER];
        }
        let Some(newest) = self.lanes.get_mut(source.lane as usize) else { return false };
        *newest = (*newest).max(source.generation);
        source.generation == *newest
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let mut seen = self.sources.seen.lock();
        for sender in self.known.lock().senders.drain(..) {
            let Some(of_sender) = seen.get_mut(&sender) else { continue };
            of_sender.connections -= 1;
            // Nothing of a process is left when its last connection and request are gone. A
            // master is remembered: there are only so many nodes.
            if of_sender.connections == 0 && matches!(sender, Sender::Process(..)) {
                seen.remove(&sender);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ministry_types::{ClientId, ClusterId};
    use ministry_wire::hello::Subject;

    fn peer(subject: Subject) -> PeerIdentity {
        PeerIdentity { cluster: ClusterId([1; 16]), subject }
    }

    fn source(incarnation: u64, lane: u32, generation: u64) -> DataSource {
        DataSource { incarnation, lane, generation }
    }

    #[test]
    fn what_is_left_of_an_older_connection_is_refused_lane_by_lane() {
        let sources = Arc::new(Sources::default());
        let client = peer(Subject::Client(ClientId([2; 16])));
        let (old, new) = (sources.accept(client), sources.accept(client));
        assert!(old.admit(source(7, 0, 1), false));
        assert!(old.admit(source(7, 0, 1), false));
        assert!(new.admit(source(7, 0, 3), false));
        assert!(!old.admit(source(7, 0, 1), false), "a newer connection was seen");
        assert!(old.admit(source(7, 1, 2), false), "the other lane goes on");
        assert!(!old.admit(source(7, 99, 9), false), "there is no such lane");
        assert!(!old.admit(source(8, 1, 9), false), "a connection has one incarnation");
    }

    #[test]
    fn two_processes_with_one_certificate_do_not_disturb_each_other_and_leave_nothing() {
        let sources = Arc::new(Sources::default());
        let client = peer(Subject::Client(ClientId([2; 16])));
        let (one, two) = (sources.accept(client), sources.accept(client));
        assert!(one.admit(source(7, 0, 5), false));
        assert!(two.admit(source(8, 0, 1), false));
        assert!(one.admit(source(7, 0, 5), false));
        drop((one, two));
        assert!(sources.seen.lock().is_empty());
    }

    #[test]
    fn a_restarted_master_supersedes_the_process_before_it() {
        let sources = Arc::new(Sources::default());
        let node = peer(Subject::Node(NodeId([3; 32])));
        let (old, new, second) = (sources.accept(node), sources.accept(node), sources.accept(node));
        assert!(old.admit(source(7, 0, 90), true));
        assert!(second.admit(source(8, 1, 2), true));
        assert!(new.admit(source(8, 0, 1), true), "the other lane of the new process");
        assert!(!old.admit(source(7, 0, 90), true));
        assert!(old.admit(source(7, 0, 90), false), "on its own behalf it is another sender");
    }
}
