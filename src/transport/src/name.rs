//! How an identity is written into a certificate, and read back.
//!
//! A certificate names its holder in one URI of SPIFFE form, `spiffe://<cluster>/<role>/<id>`,
//! where the id is the hash of the holder's public key. Used by [`crate::authority`], which writes
//! names, and by [`crate::identity`], [`crate::dial`] and [`crate::server`], which check them.
//!
//! What must always hold: a name that does not match the key of its certificate names nobody, even
//! if the authority signed it: an id cannot be moved to another key.
//!
//! When it fails: an [`IdentityError`] that says which rule was broken.

use ministry_types::{ClientId, ClusterId, NodeId};
use ministry_wire::hello::{PeerIdentity, Role, Subject};
use ring::digest::{SHA256, digest};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The DNS name in every node's certificate, and in no other: TLS asks for a name, and nodes are
/// known by their keys, not by the names of their machines.
pub const NODE_SERVER_NAME: &str = "node.ministry";

/// Scheme of the name.
const SCHEME: &str = "spiffe://";

/// Why a certificate or a name identifies nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The bytes are not an X.509 certificate.
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    /// It does not carry exactly one URI.
    #[error(
        "the certificate carries {count} URI names, expected one of the form \
             spiffe://<cluster>/<role>/<id>: it was not made by Ministry"
    )]
    NameCount {
        /// How many.
        count: usize,
    },
    /// The URI is not of our form.
    #[error("the certificate's name '{name}' is not of the form spiffe://<cluster>/<role>/<id>")]
    MalformedName {
        /// What it says.
        name: String,
    },
    /// The id in the name is not the hash of the key.
    #[error(
        "the certificate names {named}, but its key is that of {actual}: the certificate was \
             made for another key"
    )]
    KeyMismatch {
        /// Who the name says.
        named: Subject,
        /// Whose key it is.
        actual: Subject,
    },
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// Who the holder of a public key is in this role; `public_key` is its SubjectPublicKeyInfo, DER.
pub fn subject_of_key(role: Role, public_key: &[u8]) -> Subject {
    let hash = sha256(public_key);
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    match role {
        Role::Node => Subject::Node(NodeId(hash)),
        Role::Client => Subject::Client(ClientId(half)),
        Role::Operator => Subject::Operator(ClientId(half)),
    }
}

/// The name that goes into a certificate.
pub fn uri(peer: &PeerIdentity) -> String {
    let PeerIdentity { cluster, subject } = peer;
    match subject {
        Subject::Node(id) => format!("{SCHEME}{cluster}/node/{id}"),
        Subject::Client(id) => format!("{SCHEME}{cluster}/client/{id}"),
        Subject::Operator(id) => format!("{SCHEME}{cluster}/operator/{id}"),
    }
}

/// The name of a cluster, which its authority's certificate carries.
pub fn cluster_uri(cluster: ClusterId) -> String {
    format!("{SCHEME}{cluster}")
}

/// Reads the name of a cluster.
pub fn parse_cluster_uri(name: &str) -> Result<ClusterId, IdentityError> {
    let malformed = || IdentityError::MalformedName { name: name.to_owned() };
    name.strip_prefix(SCHEME).ok_or_else(malformed)?.parse().map_err(|_| malformed())
}

/// Reads a name.
pub fn parse_uri(name: &str) -> Result<PeerIdentity, IdentityError> {
    let malformed = || IdentityError::MalformedName { name: name.to_owned() };
    let mut parts = name.strip_prefix(SCHEME).ok_or_else(malformed)?.split('/');
    let (Some(cluster), Some(role), Some(id), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed());
    };
    let cluster = cluster.parse().map_err(|_| malformed())?;
    let subject = match Role::from_name(role).ok_or_else(malformed)? {
        Role::Node => Subject::Node(id.parse().map_err(|_| malformed())?),
        Role::Client => Subject::Client(id.parse().map_err(|_| malformed())?),
        Role::Operator => Subject::Operator(id.parse().map_err(|_| malformed())?),
    };
    Ok(PeerIdentity { cluster, subject })
}

/// The single URI of a certificate.
pub fn uri_of(certificate: &X509Certificate<'_>) -> Result<String, IdentityError> {
    let unreadable =
        |error: x509_parser::error::X509Error| IdentityError::Unreadable(error.to_string());
    let names = certificate.subject_alternative_name().map_err(unreadable)?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris.as_slice() {
        [uri] => Ok((*uri).to_owned()),
        other => Err(IdentityError::NameCount { count: other.len() }),
    }
}

/// Who a certificate speaks of. That an authority of the cluster signed it is checked by TLS; this
/// checks that the name is whole and belongs to the key.
pub fn identify(certificate: &[u8]) -> Result<PeerIdentity, IdentityError> {
    let certificate = parse(certificate)?;
    let peer = parse_uri(&uri_of(&certificate)?)?;
    let actual = subject_of_key(peer.role(), certificate.public_key().raw);
    if actual != peer.subject {
        return Err(IdentityError::KeyMismatch { named: peer.subject, actual });
    }
    Ok(peer)
}

/// Parses a certificate that is all of `der`.
pub fn parse(der: &[u8]) -> Result<X509Certificate<'_>, IdentityError> {
    let (rest, certificate) = X509Certificate::from_der(der)
        .map_err(|error| IdentityError::Unreadable(error.to_string()))?;
    if rest.is_empty() {
        Ok(certificate)
    } else {
        Err(IdentityError::Unreadable(format!("{} bytes follow it", rest.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back() {
        for role in [Role::Node, Role::Client, Role::Operator] {
            let subject = subject_of_key(role, b"a key");
            let peer = PeerIdentity { cluster: ClusterId([3; 16]), subject };
            assert_eq!(parse_uri(&uri(&peer)), Ok(peer));
        }
        let cluster = ClusterId([3; 16]);
        assert_eq!(parse_cluster_uri(&cluster_uri(cluster)), Ok(cluster));
    }

    #[test]
    fn a_signed_name_that_is_not_the_key_s_names_nobody() {
        let certificate = |names: &[String]| {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params = rcgen::CertificateParams::default();
            let uri = |name: &String| rcgen::SanType::URI(name.clone().try_into().unwrap());
            params.subject_alt_names = names.iter().map(uri).collect();
            params.self_signed(&key).unwrap().der().to_vec()
        };
        let subject = subject_of_key(Role::Node, b"the key of somebody else");
        let stolen = uri(&PeerIdentity { cluster: ClusterId([3; 16]), subject });
        let error = identify(&certificate(std::slice::from_ref(&stolen))).unwrap_err();
        assert!(matches!(error, IdentityError::KeyMismatch { .. }), "{error}");
        let error = identify(&certificate(&[])).unwrap_err();
        assert_eq!(error, IdentityError::NameCount { count: 0 });
        let error = identify(&certificate(&[stolen.clone(), stolen])).unwrap_err();
        assert_eq!(error, IdentityError::NameCount { count: 2 });
        assert!(identify(b"not a certificate").is_err());
    }

    #[test]
    fn a_name_of_another_form_is_refused() {
        let node = "0".repeat(64);
        let cluster = "1".repeat(32);
        for name in [
            "".to_owned(),
            format!("https://{cluster}/node/{node}"),
            format!("spiffe://{cluster}/node"),
            format!("spiffe://{cluster}/node/{node}/more"),
            format!("spiffe://{cluster}/king/{node}"),
            format!("spiffe://{cluster}/client/{node}"),
            format!("spiffe://{node}/node/{node}"),
        ] {
            assert!(parse_uri(&name).is_err(), "{name}");
        }
    }
}
