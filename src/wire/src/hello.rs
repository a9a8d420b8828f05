//! The first words on a connection: who is calling, and at which door.
//!
//! After TLS the caller sends one [`Hello`], the other end answers with one [`HelloReply`]; then
//! the connection belongs to the door's own protocol. `transport` is the only user.
//!
//! What must always hold: the frame around both is the same in every wire version, for ever, and
//! a refusal is plain text inside it, so that programs of different versions can still tell each
//! other why they part. A frame is at most [`HELLO_BYTES_MAX`] long; its length is checked before
//! memory is taken. Layout, numbers big endian:
//!
//! ```text
//! hello:  "MNST"  wire version u32  length u32  postcard of Hello
//! reply:  "MNSR"  wire version u32  kind u8 (0 welcome, else the reason)  length u32
//!         postcard of Welcome, or the reason as UTF-8
//! ```
//!
//! When it fails: a [`HelloError`]; the connection is of no use any more.

use std::fmt;
use std::io;

use ministry_types::format::WIRE_VERSION;
use ministry_types::{ClientId, ClusterId, NodeId};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::codec;

/// Bytes of one hello or reply: read before the caller is known, so as few as will do.
pub const HELLO_BYTES_MAX: usize = 4096;

const HELLO_MAGIC: [u8; 4] = *b"MNST";
const REPLY_MAGIC: [u8; 4] = *b"MNSR";
const KIND_WELCOME: u8 = 0;

/// What a connection is for. Each connection serves one door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Door {
    /// Asking for a certificate with a token; the only door that needs none.
    Join,
    /// Messages of Raft groups between nodes.
    Raft,
    /// President and nodes: heartbeats, orders, reports.
    Node,
    /// Metadata: clients, and nodes on their behalf.
    Client,
    /// What `ministryctl` asks.
    Admin,
    /// File data, in frames of its own.
    Data,
}

impl Door {
    /// Every door.
    pub const ALL: [Door; 6] =
        [Door::Join, Door::Raft, Door::Node, Door::Client, Door::Admin, Door::Data];

    /// Whether a peer of this role may come in here. Nodes may use every door, because each may
    /// pass on what another node or a person asked it. Operators may do what clients do.
    pub fn admits(self, role: Role) -> bool {
        match self {
            Door::Join => true,
            Door::Raft | Door::Node => role == Role::Node,
            Door::Client | Door::Data => true,
            Door::Admin => matches!(role, Role::Node | Role::Operator),
        }
    }

    /// Whether a certificate is needed.
    pub fn needs_certificate(self) -> bool {
        self != Door::Join
    }

    /// Its name, in lower case, for texts and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Door::Join => "join",
            Door::Raft => "raft",
            Door::Node => "node",
            Door::Client => "client",
            Door::Admin => "admin",
            Door::Data => "data",
        }
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a certificate says its holder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// A `ministryd`.
    Node,
    /// A mount or a program that uses files.
    Client,
    /// A person with `ministryctl`.
    Operator,
}

impl Role {
    /// Its name as certificates and tokens spell it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Node => "node",
            Role::Client => "client",
            Role::Operator => "operator",
        }
    }

    /// The role of that name.
    pub fn from_name(name: &str) -> Option<Role> {
        [Role::Node, Role::Client, Role::Operator].into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who a certificate speaks of: role and identity in one, so that they cannot disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Subject {
    /// A node.
    Node(NodeId),
    /// A client.
    Client(ClientId),
    /// An operator.
    Operator(ClientId),
}

impl Subject {
    /// Its role.
    pub fn role(self) -> Role {
        match self {
            Subject::Node(_) => Role::Node,
            Subject::Client(_) => Role::Client,
            Subject::Operator(_) => Role::Operator,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Node(id) => write!(f, "node {}", id.short()),
            Subject::Client(id) => write!(f, "client {id}"),
            Subject::Operator(id) => write!(f, "operator {id}"),
        }
    }
}

/// Who is at the other end, as proven by its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerIdentity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Role and identity.
    pub subject: Subject,
}

impl PeerIdentity {
    /// Its role.
    pub fn role(&self) -> Role {
        self.subject.role()
    }

    /// Its node id, if it is a node.
    pub fn node(&self) -> Option<NodeId> {
        match self.subject {
            Subject::Node(id) => Some(id),
            Subject::Client(_) | Subject::Operator(_) => None,
        }
    }

    /// Its client id, if it is a client or an operator.
    pub fn client(&self) -> Option<ClientId> {
        match self.subject {
            Subject::Node(_) => None,
            Subject::Client(id) | Subject::Operator(id) => Some(id),
        }
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of cluster {}", self.subject, self.cluster)
    }
}

/// What the caller says first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The cluster it means; `None` while it does not know (joining).
    pub cluster: Option<ClusterId>,
    /// What the connection is for.
    pub door: Door,
    /// The node it means to reach; `None`: whichever listens there.
    pub node: Option<NodeId>,
    /// Who it claims to be: only in simulation, where there is no TLS to prove it.
    pub claimed: Option<PeerIdentity>,
    /// Version of the program, for logs.
    pub software: String,
}

/// What the other end says when the caller may stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Which node it is.
    pub node: NodeId,
    /// Version of its program, for logs.
    pub software: String,
    /// Highest feature level it understands.
    pub feature_level: u32,
}

macro_rules! refusal_kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $label:literal;)*) => {
        /// Why a caller may not stay, for programs; the text beside it is for people.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum RefusalKind {
            $($(#[$doc])* $name,)*
            /// A reason that this version does not know.
            Other(u8),
        }

        impl RefusalKind {
            fn number(self) -> u8 {
                match self {
                    $(RefusalKind::$name => $number,)*
                    RefusalKind::Other(number) => number,
                }
            }

            fn from_number(number: u8) -> RefusalKind {
                match number {
                    $($number => RefusalKind::$name,)*
                    other => RefusalKind::Other(other),
                }
            }

            /// One word, for metrics and logs.
            pub fn name(self) -> &'static str {
                match self {
                    $(RefusalKind::$name => $label,)*
                    RefusalKind::Other(_) => "other",
                }
            }
        }
    };
}

refusal_kinds! {
    /// The two ends speak different wire versions.
    WireVersion = 1, "wire_version";
    /// The caller means another cluster.
    WrongCluster = 2, "wrong_cluster";
    /// The caller means another node.
    WrongNode = 3, "wrong_node";
    /// The door needs a certificate and the caller showed none.
    NoCertificate = 4, "no_certificate";
    /// The certificate names nobody, or not the holder of its key.
    BadCertificate = 5, "bad_certificate";
    /// The caller's role has no business at this door.
    RoleNotAdmitted = 6, "role_not_admitted";
    /// The caller's certificate is revoked.
    Revoked = 7, "revoked";
    /// The first bytes were not a hello.
    Malformed = 8, "malformed";
    /// Nobody serves this door now.
    NotServed = 9, "not_served";
    /// Too many connections.
    Overloaded = 10, "overloaded";
}

/// A refusal: the kind for the program, what and what to do for the person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// Why.
    pub kind: RefusalKind,
    /// Why, and what to do about it.
    pub text: String,
}

impl Refusal {
    /// A refusal of this kind with this text.
    pub fn new(kind: RefusalKind, text: impl Into<String>) -> Refusal {
        Refusal { kind, text: text.into() }
    }
}

/// The answer to a hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HelloReply {
    /// The caller may stay.
    Welcome(Welcome),
    /// It may not.
    Refused {
        /// The wire version of the end that refuses.
        wire_version: u32,
        /// Why.
        refusal: Refusal,
    },
}

/// Why a hello or its answer could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The first bytes are of another protocol.
    #[error("the other end does not speak Ministry's protocol (its first bytes are {first:02x?})")]
    NotMinistry {
        /// What came.
        first: [u8; 4],
    },
    /// A hello of another wire version: it was read to its end, but not understood.
    #[error("the other end speaks wire version {theirs}, this program speaks {WIRE_VERSION}")]
    WireVersion {
        /// What the other end speaks.
        theirs: u32,
    },
    /// The frame claims more bytes than a hello may have.
    #[error("a hello of {bytes} bytes; at most {HELLO_BYTES_MAX} are allowed")]
    TooLong {
        /// The claimed length.
        bytes: usize,
    },
    /// The content does not decode.
    #[error("the hello does not decode: {0}")]
    Malformed(#[from] codec::CodecError),
}

/// Sends a hello.
pub async fn write_hello<Io>(io: &mut Io, hello: &Hello) -> Result<(), HelloError>
where
    Io: AsyncWrite + Unpin,
{
    write_hello_as(io, hello, WIRE_VERSION).await
}

/// Sends a hello under another wire version: for tests of what the other end makes of it.
pub async fn write_hello_as<Io>(io: &mut Io, hello: &Hello, version: u32) -> Result<(), HelloError>
where
    Io: AsyncWrite + Unpin,
{
    let body = codec::encode(hello)?;
    let mut frame = Vec::with_capacity(12 + body.len());
    frame.extend_from_slice(&HELLO_MAGIC);
    frame.extend_from_slice(&version.to_be_bytes());
    push_body(&mut frame, &body)?;
    io.write_all(&frame).await?;
    Ok(io.flush().await?)
}

/// Reads a hello. One of another wire version is read to its end, so that the answer reaches a
/// caller that has nothing unread on its way.
pub async fn read_hello<Io>(io: &mut Io) -> Result<Hello, HelloError>
where
    Io: AsyncRead + Unpin,
{
    let version = read_prelude(io, HELLO_MAGIC).await?;
    let body = read_body(io).await?;
    if version != WIRE_VERSION {
        return Err(HelloError::WireVersion { theirs: version });
    }
    Ok(codec::decode(&body)?)
}

/// Sends the answer to a hello.
pub async fn write_reply<Io>(io: &mut Io, reply: &HelloReply) -> Result<(), HelloError>
where
    Io: AsyncWrite + Unpin,
{
    let (version, kind, body) = match reply {
        HelloReply::Welcome(welcome) => {
            (WIRE_VERSION, KIND_WELCOME, codec::encode(welcome)?.to_vec())
        }
        HelloReply::Refused { wire_version, refusal } => {
            let mut text = refusal.text.clone();
            text.truncate(text.floor_char_boundary(HELLO_BYTES_MAX));
            (*wire_version, refusal.kind.number(), text.into_bytes())
        }
    };
    let mut frame = Vec::with_capacity(13 + body.len());
    frame.extend_from_slice(&REPLY_MAGIC);
    frame.extend_from_slice(&version.to_be_bytes());
    frame.push(kind);
    push_body(&mut frame, &body)?;
    io.write_all(&frame).await?;
    Ok(io.flush().await?)
}

/// Reads the answer to a hello. A refusal is understood whatever the version of its sender.
pub async fn read_reply<Io>(io: &mut Io) -> Result<HelloReply, HelloError>
where
    Io: AsyncRead + Unpin,
{
    let version = read_prelude(io, REPLY_MAGIC).await?;
    let kind = io.read_u8().await?;
    let body = read_body(io).await?;
    if kind != KIND_WELCOME {
        let text = String::from_utf8_lossy(&body).into_owned();
        let refusal = Refusal::new(RefusalKind::from_number(kind), text);
        return Ok(HelloReply::Refused { wire_version: version, refusal });
    }
    if version != WIRE_VERSION {
        return Err(HelloError::WireVersion { theirs: version });
    }
    Ok(HelloReply::Welcome(codec::decode(&body)?))
}

fn push_body(frame: &mut Vec<u8>, body: &[u8]) -> Result<(), HelloError> {
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= HELLO_BYTES_MAX);
    let length = length.ok_or(HelloError::TooLong { bytes: body.len() })?;
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(body);
    Ok(())
}

async fn read_prelude<Io>(io: &mut Io, magic: [u8; 4]) -> Result<u32, HelloError>
where
    Io: AsyncRead + Unpin,
{
    let mut first = [0; 4];
    io.read_exact(&mut first).await?;
    if first != magic {
        return Err(HelloError::NotMinistry { first });
    }
    Ok(io.read_u32().await?)
}

async fn read_body<Io>(io: &mut Io) -> Result<Vec<u8>, HelloError>
where
    Io: AsyncRead + Unpin,
{
    let length = io.read_u32().await?;
    let bytes = usize::try_from(length).unwrap_or(usize::MAX);
    if bytes > HELLO_BYTES_MAX {
        return Err(HelloError::TooLong { bytes });
    }
    let mut body = vec![0; bytes];
    io.read_exact(&mut body).await?;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            cluster: Some(ClusterId([7; 16])),
            door: Door::Client,
            node: Some(NodeId([9; 32])),
            claimed: None,
            software: "0.1.0".to_owned(),
        }
    }

    #[tokio::test]
    async fn a_hello_reads_back() {
        let mut bytes = Vec::new();
        write_hello(&mut bytes, &hello()).await.unwrap();
        assert_eq!(read_hello(&mut bytes.as_slice()).await.unwrap(), hello());
    }

    #[tokio::test]
    async fn a_hello_of_another_version_is_read_to_its_end_and_named() {
        let mut bytes = Vec::new();
        write_hello_as(&mut bytes, &hello(), WIRE_VERSION + 1).await.unwrap();
        let mut rest = bytes.as_slice();
        let error = read_hello(&mut rest).await.unwrap_err();
        assert!(matches!(error, HelloError::WireVersion { theirs } if theirs == WIRE_VERSION + 1));
        assert!(rest.is_empty());
    }

    #[tokio::test]
    async fn a_refusal_of_another_version_is_understood() {
        let refusal = Refusal::new(RefusalKind::WireVersion, "we speak 99: upgrade this program");
        let reply = HelloReply::Refused { wire_version: 99, refusal };
        let mut bytes = Vec::new();
        write_reply(&mut bytes, &reply).await.unwrap();
        assert_eq!(read_reply(&mut bytes.as_slice()).await.unwrap(), reply);
    }

    #[tokio::test]
    async fn a_reason_that_is_not_known_keeps_its_text() {
        let reply = HelloReply::Refused {
            wire_version: 2,
            refusal: Refusal::new(RefusalKind::Other(200), "a reason of the future"),
        };
        let mut bytes = Vec::new();
        write_reply(&mut bytes, &reply).await.unwrap();
        assert_eq!(read_reply(&mut bytes.as_slice()).await.unwrap(), reply);
    }

    #[tokio::test]
    async fn a_length_over_the_bound_is_refused_before_it_is_read() {
        let mut bytes = HELLO_MAGIC.to_vec();
        bytes.extend(WIRE_VERSION.to_be_bytes());
        bytes.extend(u32::MAX.to_be_bytes());
        let error = read_hello(&mut bytes.as_slice()).await.unwrap_err();
        assert!(matches!(error, HelloError::TooLong { .. }));
    }

    #[test]
    fn only_nodes_come_in_where_the_government_speaks() {
        for door in [Door::Raft, Door::Node] {
            assert!(door.admits(Role::Node));
            assert!(!door.admits(Role::Client) && !door.admits(Role::Operator), "{door}");
        }
        assert!(!Door::Admin.admits(Role::Client));
        assert!(Door::ALL.iter().all(|door| door.needs_certificate() != (*door == Door::Join)));
    }
}
