//! The calling end: opens a connection to a node and finds out who is there.
//!
//! [`crate::peers`] uses it for calls, storage and clients for data streams. After
//! [`Dialer::connect`] the stream belongs to the door it was opened for.
//!
//! What must always hold: who answers has proven to be a node of our cluster, and the expected one
//! where one is expected: an answer is never taken from somebody else who got its address.
//!
//! When it fails: a [`ConnectError`] that says at which step and what to do; nothing was asked of
//! the other end, so trying again is always safe. Refusals are logged as well.

use std::net::SocketAddr;
use std::sync::Arc;

use ministry_types::format::WIRE_VERSION;
use ministry_types::limits::CONNECT_TIMEOUT;
use ministry_types::{ClusterId, NodeId};
use ministry_wire::hello::{
    self, Door, Hello, HelloError, HelloReply, PeerIdentity, Refusal, RefusalKind, Subject, Welcome,
};
use tokio::time::timeout;

use crate::SOFTWARE;
use crate::refusals::Refusals;
use crate::revocations::Revocations;
use crate::security::{Security, tls_reason};
use crate::stream::{BoxedStream, Connector};

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers there.
    #[error("cannot reach {address}: {reason}; check that a node runs there and the network")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// It took too long.
    #[error(
        "no connection to {address} within {CONNECT_TIMEOUT:?}: it is overloaded, stopped or \
         unreachable"
    )]
    TimedOut {
        /// Where.
        address: SocketAddr,
    },
    /// TLS did not come about.
    #[error("no secure connection to {address}: {reason}")]
    Tls {
        /// Where.
        address: SocketAddr,
        /// What went wrong and what to do.
        reason: String,
    },
    /// The other end said no.
    #[error("{address} refused the connection for '{door}': {refusal}")]
    Refused {
        /// Where.
        address: SocketAddr,
        /// For what.
        door: Door,
        /// Why.
        refusal: Refusal,
    },
    /// Somebody else is there.
    #[error(
        "at {address} is node {}, expected was {}: the address was given to another node",
        .found.short(),
        .expected.short()
    )]
    WrongNode {
        /// Where.
        address: SocketAddr,
        /// Who should be there.
        expected: NodeId,
        /// Who is.
        found: NodeId,
    },
    /// A node of another cluster is there.
    #[error("at {address} is a node of cluster {found}, expected was {expected}")]
    WrongCluster {
        /// Where.
        address: SocketAddr,
        /// Ours.
        expected: ClusterId,
        /// Its.
        found: ClusterId,
    },
    /// The node there is revoked.
    #[error("at {address} is node {}, whose certificate is revoked", .node.short())]
    Revoked {
        /// Where.
        address: SocketAddr,
        /// Who.
        node: NodeId,
    },
    /// The other end speaks another protocol.
    #[error("the answer from {address} makes no sense: {reason}")]
    Protocol {
        /// Where.
        address: SocketAddr,
        /// What came.
        reason: String,
    },
    /// The connection stood for a moment only.
    #[error("{address} closed the connection for '{door}' at once; its log says why")]
    Closed {
        /// Where.
        address: SocketAddr,
        /// For what.
        door: Door,
    },
    /// As many connections as may be are open.
    #[error("too many connections to other nodes are open in this process")]
    TooMany,
}

impl ConnectError {
    /// One word, for metrics and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            ConnectError::Unreachable { .. } => "unreachable",
            ConnectError::TimedOut { .. } => "timeout",
            ConnectError::Tls { .. } => "tls",
            ConnectError::Refused { refusal, .. } => refusal.kind.name(),
            ConnectError::WrongNode { .. } => "wrong_node",
            ConnectError::WrongCluster { .. } => "wrong_cluster",
            ConnectError::Revoked { .. } => "revoked",
            ConnectError::Protocol { .. } => "protocol",
            ConnectError::Closed { .. } => "closed",
            ConnectError::TooMany => "too_many",
        }
    }

    /// Whether time alone may cure it: nobody there, too slow, not served just now. The others
    /// need a person.
    pub fn may_pass(&self) -> bool {
        match self {
            ConnectError::Unreachable { .. }
            | ConnectError::TimedOut { .. }
            | ConnectError::Closed { .. }
            | ConnectError::TooMany => true,
            ConnectError::Refused { refusal, .. } => matches!(
                refusal.kind,
                RefusalKind::NotServed | RefusalKind::Overloaded | RefusalKind::WrongNode
            ),
            _ => false,
        }
    }
}

/// Opens connections as one identity.
pub struct Dialer {
    connector: Arc<dyn Connector>,
    security: Arc<Security>,
    revocations: Revocations,
    refusals: Refusals,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dialer({})", self.security.peer())
    }
}

impl Dialer {
    /// A dialer over this network, as this identity.
    pub fn new(
        connector: Arc<dyn Connector>,
        security: Arc<Security>,
        revocations: Revocations,
    ) -> Dialer {
        Dialer { connector, security, revocations, refusals: Refusals::default() }
    }

    /// Who calls.
    pub fn peer(&self) -> PeerIdentity {
        self.security.peer()
    }

    pub(crate) fn is_revoked(&self, node: NodeId) -> bool {
        self.revocations.contains(Subject::Node(node))
    }

    /// Opens a connection for a door within [`CONNECT_TIMEOUT`], to the expected node, or with
    /// `None` to whichever node is there.
    ///
    /// Cancel safety: safe; a connection half made is dropped.
    pub async fn connect(
        &self,
        address: SocketAddr,
        expected: Option<NodeId>,
        door: Door,
    ) -> Result<(BoxedStream, PeerIdentity), ConnectError> {
        let connecting = self.establish(address, expected, door);
        let result = match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::TimedOut { address }),
        };
        if let Err(error) = &result {
            match error {
                ConnectError::Unreachable { .. } | ConnectError::TimedOut { .. } => {
                    tracing::debug!(%address, %door, %error, "no connection");
                }
                _ => self.refusals.was_refused(address, door, error.kind(), &error.to_string()),
            }
        }
        result
    }

    async fn establish(
        &self,
        address: SocketAddr,
        expected: Option<NodeId>,
        door: Door,
    ) -> Result<(BoxedStream, PeerIdentity), ConnectError> {
        let stream = open(&*self.connector, address).await?;
        let (mut stream, certified) = self
            .security
            .connect(stream)
            .await
            .map_err(|reason| ConnectError::Tls { address, reason })?;
        let own = self.security.peer();
        let hello = Hello {
            cluster: Some(own.cluster),
            door,
            node: expected,
            claimed: self.security.is_plain().then_some(own),
            software: SOFTWARE.to_owned(),
        };
        let welcome = greet(&mut stream, &hello, address).await;
        // What the certificate proves goes before what the other end says, even if it refused.
        if let Some(certified) = certified {
            self.check(address, expected, certified)?;
        }
        let welcome = welcome?;
        let peer = PeerIdentity { cluster: welcome.cluster, subject: Subject::Node(welcome.node) };
        self.check(address, expected, peer)?;
        if let Some(certified) = certified.filter(|certified| *certified != peer) {
            let reason = format!("it says that it is {peer}, its certificate is of {certified}");
            return Err(ConnectError::Protocol { address, reason });
        }
        Ok((stream, peer))
    }

    /// Whether who is there is who should be.
    fn check(
        &self,
        address: SocketAddr,
        expected: Option<NodeId>,
        peer: PeerIdentity,
    ) -> Result<(), ConnectError> {
        let own = self.security.peer().cluster;
        if peer.cluster != own {
            let found = peer.cluster;
            return Err(ConnectError::WrongCluster { address, expected: own, found });
        }
        let Some(found) = peer.node() else {
            let reason = format!("{peer} is not a node");
            return Err(ConnectError::Protocol { address, reason });
        };
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(ConnectError::WrongNode { address, expected, found });
        }
        if self.is_revoked(found) {
            return Err(ConnectError::Revoked { address, node: found });
        }
        Ok(())
    }
}

pub(crate) async fn open(
    connector: &dyn Connector,
    address: SocketAddr,
) -> Result<BoxedStream, ConnectError> {
    connector.connect(address).await.map_err(|error| {
        let reason = error.to_string();
        ConnectError::Unreachable { address, reason }
    })
}

/// Says hello and reads the answer.
pub(crate) async fn greet(
    stream: &mut BoxedStream,
    hello: &Hello,
    address: SocketAddr,
) -> Result<Welcome, ConnectError> {
    // A server that refused our certificate has closed already, and its reason waits to be read:
    // reading comes to it even when writing fails.
    let written = hello::write_hello(stream, hello).await;
    match hello::read_reply(stream).await {
        Ok(HelloReply::Welcome(welcome)) => Ok(welcome),
        Ok(HelloReply::Refused { wire_version, refusal }) => {
            let mut refusal = refusal;
            if wire_version != WIRE_VERSION {
                refusal.kind = RefusalKind::WireVersion;
            }
            Err(ConnectError::Refused { address, door: hello.door, refusal })
        }
        Err(HelloError::Io(error)) => {
            let reason = match &written {
                Err(HelloError::Io(first)) if error.get_ref().is_none() => tls_reason(first),
                _ => tls_reason(&error),
            };
            Err(ConnectError::Tls { address, reason })
        }
        Err(other) => Err(ConnectError::Protocol { address, reason: other.to_string() }),
    }
}
