//! Joining: a token and a new key become an identity.
//!
//! `ministryd` and `ministryctl` call [`enroll`] once. The node that answers must show the
//! authority whose hash the token carries, within the TLS handshake: so the secret is never said
//! to anybody else.
//!
//! What must always hold: the private key stays here; the certificate that comes back is for this
//! key, this role, this cluster, and signed under the authority of the token.
//!
//! When it fails: an [`EnrollError`]. Repeating it with the same token and key is safe: the
//! cluster answers the same.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ministry_types::ClusterId;
use ministry_types::government::NodeProfile;
use ministry_types::limits::{ATTEMPT_TIMEOUT, CONNECT_TIMEOUT};
use ministry_wire::hello::{Door, Hello, Role, Subject};
use ministry_wire::join::{EnrollRequest, Enrolled, JoinClient, JoinError, NodeAddress};
use rustls::CertificateError;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::time::{sleep, timeout};

use crate::SOFTWARE;
use crate::dial::{self, ConnectError};
use crate::identity::{Identity, IdentityFileError, PrivateKey};
use crate::name::sha256;
use crate::peers::far_context;
use crate::security::{anonymous_client, connect_tls, provider, roots};
use crate::stream::{BoxedStream, Connector};
use crate::token::JoinToken;

/// Rounds over all known addresses before giving up.
const ROUNDS: u32 = 10;
/// Between two rounds: a president is found in about a second.
const ROUND_PAUSE: Duration = Duration::from_millis(500);

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The cluster said no.
    #[error("the cluster refused")]
    Refused(#[from] JoinError),
    /// The token is for something else.
    #[error("the token is for a {granted}, not for a {asked}: make one for a {asked}")]
    WrongRole {
        /// What the token is for.
        granted: Role,
        /// What was asked.
        asked: Role,
    },
    /// No node of the token could decide.
    #[error("no node could be asked; the last one tried: {last}")]
    NobodyAnswers {
        /// What came of the last try.
        last: String,
    },
    /// What came back is not for us.
    #[error("the answer cannot be right ({reason}): do not use it; tell the operator")]
    WrongAnswer {
        /// What is wrong.
        reason: String,
    },
    /// The key could not be used.
    #[error(transparent)]
    Key(#[from] IdentityFileError),
}

/// What came of joining.
#[derive(Debug)]
pub struct Joined {
    /// The new identity; not saved yet.
    pub identity: Identity,
    /// Nodes of the cluster.
    pub nodes: Vec<NodeAddress>,
}

/// Asks the cluster of the token for a certificate.
pub async fn enroll(
    connector: &dyn Connector,
    token: &JoinToken,
    key: PrivateKey,
    role: Role,
    profile: Option<NodeProfile>,
) -> Result<Joined, EnrollError> {
    if token.role != role {
        return Err(EnrollError::WrongRole { granted: token.role, asked: role });
    }
    let request = EnrollRequest {
        token: token.id,
        secret: token.secret.clone(),
        signing_request: key.signing_request()?,
        role,
        profile,
    };
    let (enrolled, cluster) = ask_around(connector, token, &request).await?;
    let wrong = |reason: String| EnrollError::WrongAnswer { reason };
    let identity = Identity::new(key, &enrolled.certificate, &enrolled.authority)?;
    let peer = identity.peer();
    if peer.cluster != cluster || peer.role() != role || peer.subject != enrolled.subject {
        return Err(wrong(format!("the certificate is for {peer}")));
    }
    if !identity.authorities().iter().any(|it| sha256(it) == token.authority_hash) {
        return Err(wrong("the authority is not the one of the token".to_owned()));
    }
    Ok(Joined { identity, nodes: enrolled.nodes })
}

/// Asks one node after the other, and whom they name, until one decides.
async fn ask_around(
    connector: &dyn Connector,
    token: &JoinToken,
    request: &EnrollRequest,
) -> Result<(Enrolled, ClusterId), EnrollError> {
    let mut last = String::new();
    let mut hint = None;
    for round in 0..ROUNDS {
        if round > 0 {
            sleep(ROUND_PAUSE).await;
        }
        let addresses: Vec<SocketAddr> =
            hint.take().into_iter().chain(token.addresses.iter().copied()).collect();
        for address in addresses {
            match ask(connector, token, address, request).await {
                Ok((Ok(enrolled), cluster)) => return Ok((enrolled, cluster)),
                Ok((Err(JoinError::NotPresident { address: named }), _)) => {
                    last = format!("{address} is not the president");
                    hint = named.or(hint);
                    if hint.is_some() {
                        break;
                    }
                }
                Ok((Err(JoinError::Unavailable { reason }), _)) => {
                    last = format!("{address}: {reason}");
                }
                Ok((Err(error), _)) => return Err(error.into()),
                Err(error) => last = error,
            }
        }
    }
    Err(EnrollError::NobodyAnswers { last })
}

/// Asks one node.
async fn ask(
    connector: &dyn Connector,
    token: &JoinToken,
    address: SocketAddr,
    request: &EnrollRequest,
) -> Result<(Result<Enrolled, JoinError>, ClusterId), String> {
    let connecting = connect(connector, address, token.authority_hash);
    let (stream, cluster) = timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(|_| ConnectError::TimedOut { address }.to_string())?
        .map_err(|error| error.to_string())?;
    let transport = ministry_wire::codec::control_transport(stream);
    let client = JoinClient::new(tarpc::client::Config::default(), transport);
    let call = client.client.enroll(far_context(), request.clone());
    tokio::select! {
        biased;
        answer = timeout(ATTEMPT_TIMEOUT, call) => match answer {
            Ok(Ok(answer)) => Ok((answer, cluster)),
            Ok(Err(error)) => Err(format!("{address}: {error}")),
            Err(_) => Err(format!("{address} did not answer within {ATTEMPT_TIMEOUT:?}")),
        },
        ended = client.dispatch => Err(match ended {
            Ok(()) => format!("{address} closed the connection"),
            Err(error) => format!("the connection to {address} broke: {error}"),
        }),
    }
}

/// Opens a connection to the Join door of a node under the authority of this hash.
async fn connect(
    connector: &dyn Connector,
    address: SocketAddr,
    authority_hash: [u8; 32],
) -> Result<(BoxedStream, ClusterId), ConnectError> {
    let verifier = Arc::new(PinnedAuthority { hash: authority_hash });
    let config = anonymous_client(verifier)
        .map_err(|error| ConnectError::Tls { address, reason: error.to_string() })?;
    let stream = dial::open(connector, address).await?;
    let (mut stream, peer) = connect_tls(stream, Arc::new(config))
        .await
        .map_err(|reason| ConnectError::Tls { address, reason })?;
    let hello = Hello {
        cluster: None,
        door: Door::Join,
        node: None,
        claimed: None,
        software: SOFTWARE.to_owned(),
    };
    let welcome = dial::greet(&mut stream, &hello, address).await?;
    if peer.cluster != welcome.cluster || peer.subject != Subject::Node(welcome.node) {
        let reason = format!("its certificate is of {peer}, it says otherwise");
        return Err(ConnectError::Protocol { address, reason });
    }
    Ok((stream, peer.cluster))
}

/// Trusts the one authority whose certificate has this hash, which the node must show.
#[derive(Debug)]
pub(crate) struct PinnedAuthority {
    pub(crate) hash: [u8; 32],
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority =
            intermediates
                .iter()
                .find(|certificate| sha256(certificate) == self.hash)
                .ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let roots = Arc::new(roots(&[authority.clone().into_owned()])?);
        WebPkiServerVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
