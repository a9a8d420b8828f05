//! How a byte stream becomes a connection between two known parties.
//!
//! [`crate::server`] and [`crate::dial`] ask it for each new connection. The real programs use
//! mutual TLS 1.3 ([`Security::tls`]); a simulation has no TLS, and there each end believes what
//! the other says of itself ([`Security::plain_for_simulation`]): no setting leads there, only
//! code that calls it.
//!
//! What must always hold: TLS 1.3 alone, without resumption (a resumed session would not look at
//! the certificate again); a peer without a certificate is nobody; the settings can be exchanged
//! while connections stand, which keep what they began with.
//!
//! When it fails: a reason in words ([`tls_reason`]) that says what to do.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ministry_wire::hello::{PeerIdentity, Role};
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::identity::Identity;
use crate::name::{self, IdentityError, NODE_SERVER_NAME};
use crate::stream::BoxedStream;

/// The identity cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
#[error("the identity cannot be used for TLS: {0}; join the cluster anew")]
pub struct SecurityError(String);

fn unusable(error: impl ToString) -> SecurityError {
    SecurityError(error.to_string())
}

/// What this process shows to others and asks of them.
pub struct Security {
    kind: Kind,
}

enum Kind {
    Tls(ArcSwap<TlsMaterial>),
    Simulation(PeerIdentity),
}

struct TlsMaterial {
    identity: Identity,
    /// Only a node has it: others cannot be reached.
    server: Option<Arc<ServerConfig>>,
    client: Arc<ClientConfig>,
}

impl std::fmt::Debug for Security {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.is_plain() { "simulation" } else { "tls" };
        write!(f, "Security({kind}, {})", self.peer())
    }
}

impl Security {
    /// Mutual TLS 1.3 with this identity.
    pub fn tls(identity: Identity) -> Result<Security, SecurityError> {
        let material = TlsMaterial::new(identity)?;
        Ok(Security { kind: Kind::Tls(ArcSwap::from_pointee(material)) })
    }

    /// No encryption and no proof: each end believes the other. For simulations, whose network is
    /// inside the process.
    pub fn plain_for_simulation(peer: PeerIdentity) -> Security {
        Security { kind: Kind::Simulation(peer) }
    }

    /// Uses another certificate from the next handshake on; connections that stand go on.
    pub fn reload(&self, identity: Identity) -> Result<(), SecurityError> {
        match &self.kind {
            Kind::Tls(current) => {
                if identity.peer() != self.peer() {
                    return Err(unusable("it is somebody else's"));
                }
                current.store(Arc::new(TlsMaterial::new(identity)?));
                Ok(())
            }
            Kind::Simulation(_) => Err(unusable("a simulation has no certificates")),
        }
    }

    /// Who this process is.
    pub fn peer(&self) -> PeerIdentity {
        match &self.kind {
            Kind::Tls(material) => material.load().identity.peer(),
            Kind::Simulation(peer) => *peer,
        }
    }

    /// The identity with its certificate; `None` in a simulation.
    pub fn identity(&self) -> Option<Identity> {
        match &self.kind {
            Kind::Tls(material) => Some(material.load().identity.clone()),
            Kind::Simulation(_) => None,
        }
    }

    /// Whether each end believes what the other says of itself.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.kind, Kind::Simulation(_))
    }

    /// The called end. Without a certificate the peer is `None`.
    pub(crate) async fn accept(&self, stream: BoxedStream) -> Accepted {
        let Kind::Tls(material) = &self.kind else {
            return Accepted::Secure { stream, peer: Ok(None) };
        };
        let server = material.load().server.clone();
        let Some(server) = server else {
            let reason = "this process is not a node and accepts no connections".to_owned();
            return Accepted::Failed { stream, reason, silent: false };
        };
        match TlsAcceptor::from(server).accept(stream).into_fallible().await {
            Ok(tls) => {
                let certificates = tls.get_ref().1.peer_certificates();
                let holder = certificates.and_then(|chain| chain.first());
                let peer = holder.map(|certificate| name::identify(certificate)).transpose();
                Accepted::Secure { stream: Box::new(tls), peer }
            }
            Err((error, stream)) => {
                let silent = error.kind() == io::ErrorKind::UnexpectedEof;
                Accepted::Failed { stream, reason: tls_reason(&error), silent }
            }
        }
    }

    /// The calling end: who is there, as its certificate proves; `None` in a simulation.
    pub(crate) async fn connect(
        &self,
        stream: BoxedStream,
    ) -> Result<(BoxedStream, Option<PeerIdentity>), String> {
        match &self.kind {
            Kind::Simulation(_) => Ok((stream, None)),
            Kind::Tls(material) => {
                let client = material.load().client.clone();
                let (stream, peer) = connect_tls(stream, client).await?;
                Ok((stream, Some(peer)))
            }
        }
    }
}

/// What came of an incoming stream.
pub(crate) enum Accepted {
    /// TLS stands (or a simulation needs none); the certificate may still be unacceptable.
    Secure { stream: BoxedStream, peer: Result<Option<PeerIdentity>, IdentityError> },
    /// It does not; the stream is given back so that the last alert can still be read. `silent`:
    /// the other end just left, as port scans and health checks do.
    Failed { stream: BoxedStream, reason: String, silent: bool },
}

/// TLS as the calling end.
pub(crate) async fn connect_tls(
    stream: BoxedStream,
    config: Arc<ClientConfig>,
) -> Result<(BoxedStream, PeerIdentity), String> {
    let server_name = ServerName::try_from(NODE_SERVER_NAME).map_err(|error| error.to_string())?;
    let tls = TlsConnector::from(config)
        .connect(server_name, stream)
        .await
        .map_err(|error| tls_reason(&error))?;
    let certificates = tls.get_ref().1.peer_certificates();
    let certificate = certificates
        .and_then(|chain| chain.first())
        .ok_or_else(|| "the other end showed no certificate".to_owned())?;
    let peer = name::identify(certificate).map_err(|error| error.to_string())?;
    if peer.role() != Role::Node {
        return Err(format!("the other end is {peer}, not a node"));
    }
    Ok((Box::new(tls), peer))
}

impl TlsMaterial {
    fn new(identity: Identity) -> Result<TlsMaterial, SecurityError> {
        let roots = Arc::new(roots(identity.authorities()).map_err(unusable)?);
        let server = match identity.peer().role() {
            Role::Node => Some(Arc::new(server_config(&identity, roots.clone())?)),
            Role::Client | Role::Operator => None,
        };
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unusable)?
            .with_root_certificates(roots)
            .with_client_auth_cert(identity.chain(), identity.private_key())
            .map_err(unusable)?;
        client.resumption = Resumption::disabled();
        Ok(TlsMaterial { identity, server, client: Arc::new(client) })
    }
}

fn server_config(
    identity: &Identity,
    roots: Arc<RootCertStore>,
) -> Result<ServerConfig, SecurityError> {
    // Who has no certificate gets as far as the hello, where all doors but one are closed to it.
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()
        .map_err(unusable)?;
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain(), identity.private_key())
        .map_err(unusable)?;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(server)
}

/// TLS without a certificate of one's own, for joining.
pub(crate) fn anonymous_client(
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<ClientConfig, rustls::Error> {
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    client.resumption = Resumption::disabled();
    Ok(client)
}

/// The one provider of cryptography, named explicitly so that no feature of another crate can
/// exchange it.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(crate) fn roots(
    authorities: &[CertificateDer<'static>],
) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    Ok(roots)
}

/// What went wrong in TLS, and what to do about it.
pub(crate) fn tls_reason(error: &io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(error)) => certificate_reason(error),
        Some(rustls::Error::AlertReceived(alert)) => alert_reason(*alert),
        Some(rustls::Error::InvalidMessage(_)) => {
            "the other end does not speak TLS: check the address and the port".to_owned()
        }
        Some(other) => format!("TLS failed: {other}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the other end closed the connection before the handshake was over".to_owned()
        }
        None => error.to_string(),
    }
}

fn certificate_reason(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the other end's certificate is signed by another authority: it belongs to another \
             cluster; check the address, or join this cluster"
                .to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the other end's certificate has expired: check both clocks; if they are right, the \
             other end must renew its certificate or join anew"
                .to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the other end's certificate is not valid yet: check both clocks".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the other end's certificate is not a node's".to_owned()
        }
        other => format!("the other end's certificate is not acceptable: {other}"),
    }
}

fn alert_reason(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "the other end does not know the authority of our certificate: the two ends belong to \
             different clusters; check the address, or join its cluster"
                .to_owned()
        }
        AlertDescription::CertificateExpired => {
            "the other end says that our certificate has expired: check both clocks; if they are \
             right, renew it or join anew"
                .to_owned()
        }
        AlertDescription::BadCertificate | AlertDescription::UnsupportedCertificate => {
            "the other end does not accept our certificate: join anew".to_owned()
        }
        other => format!("the other end broke off TLS: {other:?}"),
    }
}
