//! The cluster's authority: it signs the certificates of nodes, clients and operators.
//!
//! `ministryctl` makes it once; its key then lives in the cluster log, and the president signs with
//! it. Time is a parameter everywhere: nothing here reads a clock.
//!
//! What must always hold: a certificate's id is computed here from the key it is for, never taken
//! from the request; of a signing request only the public key counts; no certificate outlives its
//! authority.
//!
//! When it fails: an [`AuthorityError`], and nothing was signed.

use std::fmt;
use std::time::Duration;

use ministry_types::{ClusterId, NodeId};
use ministry_wire::hello::{PeerIdentity, Role, Subject};
use ministry_wire::join::SIGNING_REQUEST_BYTES_MAX;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::CertificateDer;

use crate::name::{self, IdentityError, NODE_SERVER_NAME};
use crate::pem;

/// Life of an authority.
pub const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Life of a certificate that renews itself at half time.
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How far clocks may disagree: a certificate is valid this long before it was made.
pub const CLOCK_SKEW: Duration = Duration::from_secs(600);

/// Why the authority could not be made, read, or did not sign.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The library refused.
    #[error("certificates: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The authority's own certificate is damaged.
    #[error("the authority's certificate: {0}")]
    Identity(#[from] IdentityError),
    /// The text does not hold a key and a certificate.
    #[error("the authority's PEM text: {0}")]
    Pem(#[from] pem::PemError),
    /// The text holds something else.
    #[error("the authority's PEM text holds no {missing}: it must hold key and certificate")]
    Missing {
        /// What is not there.
        missing: &'static str,
    },
    /// The key is not the certificate's.
    #[error("the authority's key and certificate do not belong together")]
    KeyMismatch,
    /// The signing request is too long.
    #[error("a signing request of {bytes} bytes; at most {SIGNING_REQUEST_BYTES_MAX} are accepted")]
    RequestTooLong {
        /// Its size.
        bytes: usize,
    },
    /// The authority itself is over.
    #[error("the authority's certificate ended at {ended_at} (seconds since 1970): renew it")]
    Ended {
        /// When.
        ended_at: u64,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
}

/// A certificate that was signed, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCertificate {
    /// The holder.
    pub subject: Subject,
    /// The certificate, PEM.
    pub pem: String,
    /// When it ends, seconds since 1970.
    pub ends_at: u64,
}

/// Key and certificate of a cluster's authority.
pub struct Authority {
    cluster: ClusterId,
    key: KeyPair,
    certificate: CertificateDer<'static>,
    ends_at: u64,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes the authority of a new cluster. `now`: seconds since 1970.
    pub fn create(now: u64) -> Result<Authority, AuthorityError> {
        let mut cluster = [0; 16];
        SystemRandom::new().fill(&mut cluster).map_err(|_| AuthorityError::NoRandomness)?;
        let cluster = ClusterId(cluster);
        let key = KeyPair::generate()?;
        let mut params = params(&format!("Ministry authority {cluster}"));
        params.subject_alt_names = vec![uri_name(name::cluster_uri(cluster))?];
        // It signs holders directly and nothing below them.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ends_at = now.saturating_add(AUTHORITY_LIFETIME.as_secs());
        set_validity(&mut params, &key, now, ends_at);
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Authority { cluster, key, certificate, ends_at })
    }

    /// Its cluster.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Its certificate, PEM: everybody may have it.
    pub fn certificate_pem(&self) -> String {
        pem::certificate(&self.certificate)
    }

    /// SHA-256 of its certificate, which join tokens carry.
    pub fn hash(&self) -> [u8; 32] {
        name::sha256(&self.certificate)
    }

    /// Key and certificate as one PEM text: the form in the cluster log. Whoever reads it can sign.
    pub fn to_pem(&self) -> String {
        format!("{}{}", self.key.serialize_pem(), self.certificate_pem())
    }

    /// Reads what [`Authority::to_pem`] wrote.
    pub fn from_pem(text: &str) -> Result<Authority, AuthorityError> {
        let certificates = pem::certificates(text)?;
        let [certificate] = certificates.as_slice() else {
            return Err(AuthorityError::Missing { missing: "single certificate" });
        };
        let key = pem::private_key(text)?.ok_or(AuthorityError::Missing { missing: "key" })?;
        let key = KeyPair::try_from(key.secret_der())?;
        let parsed = name::parse(certificate)?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(AuthorityError::KeyMismatch);
        }
        let cluster = name::parse_cluster_uri(&name::uri_of(&parsed)?)?;
        let ends_at = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        Ok(Authority { cluster, key, certificate: certificate.clone(), ends_at })
    }

    /// Signs a certificate for the key of a signing request (PEM), whose signature proves that the
    /// asker has the private key. Everything else in the request is ignored.
    pub fn sign_request(
        &self,
        request: &str,
        role: Role,
        now: u64,
        lifetime: Duration,
    ) -> Result<SignedCertificate, AuthorityError> {
        if request.len() > SIGNING_REQUEST_BYTES_MAX {
            return Err(AuthorityError::RequestTooLong { bytes: request.len() });
        }
        let request = CertificateSigningRequestParams::from_pem(request)?;
        self.sign(&request.public_key, role, now, lifetime)
    }

    /// Signs a certificate for a public key in this role.
    pub fn sign(
        &self,
        key: &impl PublicKeyData,
        role: Role,
        now: u64,
        lifetime: Duration,
    ) -> Result<SignedCertificate, AuthorityError> {
        if now >= self.ends_at {
            return Err(AuthorityError::Ended { ended_at: self.ends_at });
        }
        let subject = name::subject_of_key(role, &key.subject_public_key_info());
        let peer = PeerIdentity { cluster: self.cluster, subject };
        let mut params = params(&subject.to_string());
        params.subject_alt_names = vec![uri_name(name::uri(&peer))?];
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if role == Role::Node {
            // Without these two no certificate can answer as a node, whatever its name.
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            let dns = NODE_SERVER_NAME.to_owned().try_into()?;
            params.subject_alt_names.push(SanType::DnsName(dns));
        }
        let ends_at = now.saturating_add(lifetime.as_secs()).min(self.ends_at);
        set_validity(&mut params, key, now, ends_at);
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &self.key)?;
        let certificate = params.signed_by(key, &issuer)?;
        // Pair assertion: what was signed is what the other end will read.
        assert_eq!(name::identify(certificate.der()), Ok(peer), "a certificate names its key");
        Ok(SignedCertificate { subject, pem: pem::certificate(certificate.der()), ends_at })
    }

    /// Signs a request that is known to be for a node: its id besides the certificate.
    pub fn sign_node(
        &self,
        request: &str,
        now: u64,
        lifetime: Duration,
    ) -> Result<(NodeId, SignedCertificate), AuthorityError> {
        let signed = self.sign_request(request, Role::Node, now, lifetime)?;
        let Subject::Node(id) = signed.subject else {
            unreachable!("the role of the subject is the role asked for");
        };
        Ok((id, signed))
    }
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn uri_name(name: String) -> Result<SanType, rcgen::Error> {
    Ok(SanType::URI(name.try_into()?))
}

/// Sets the time and a serial number that differs for each renewal of the same key.
fn set_validity(params: &mut CertificateParams, key: &impl PublicKeyData, now: u64, ends_at: u64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(now.saturating_sub(CLOCK_SKEW.as_secs()));
    params.not_after = epoch + Duration::from_secs(ends_at);
    let mut seed = key.subject_public_key_info();
    seed.extend_from_slice(&now.to_be_bytes());
    seed.extend_from_slice(&ends_at.to_be_bytes());
    let mut serial = name::sha256(&seed)[..16].to_vec();
    // A serial number is a positive integer.
    if let Some(first) = serial.first_mut() {
        *first &= 0x7f;
    }
    params.serial_number = Some(SerialNumber::from_slice(&serial));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::PrivateKey;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn an_authority_reads_back_from_the_log_and_signs_the_same_cluster() {
        let authority = Authority::create(NOW).unwrap();
        let again = Authority::from_pem(&authority.to_pem()).unwrap();
        assert_eq!(again.cluster(), authority.cluster());
        assert_eq!(again.hash(), authority.hash());
        assert_eq!(again.ends_at, authority.ends_at);
        let key = PrivateKey::generate().unwrap();
        let request = key.signing_request().unwrap();
        let signed = again.sign_request(&request, Role::Node, NOW, CERTIFICATE_LIFETIME).unwrap();
        assert_eq!(signed.subject, key.subject(Role::Node));
    }

    #[test]
    fn half_an_authority_is_refused() {
        let authority = Authority::create(NOW).unwrap();
        let other = Authority::create(NOW).unwrap();
        assert!(Authority::from_pem("").is_err());
        assert!(Authority::from_pem(&authority.certificate_pem()).is_err());
        let mixed = format!("{}{}", authority.key.serialize_pem(), other.certificate_pem());
        assert!(matches!(Authority::from_pem(&mixed), Err(AuthorityError::KeyMismatch)));
    }

    #[test]
    fn a_request_changed_on_its_way_is_not_signed() {
        let authority = Authority::create(NOW).unwrap();
        let mine = PrivateKey::generate().unwrap().signing_request().unwrap();
        let mut der = pem::decode_for_test(&mine);
        let last = der.len() - 5;
        der[last] ^= 1;
        let changed = pem::encode("CERTIFICATE REQUEST", &der);
        assert!(authority.sign_request(&changed, Role::Node, NOW, CERTIFICATE_LIFETIME).is_err());
        let long = "x".repeat(SIGNING_REQUEST_BYTES_MAX + 1);
        assert!(authority.sign_request(&long, Role::Node, NOW, CERTIFICATE_LIFETIME).is_err());
    }

    #[test]
    fn no_certificate_outlives_its_authority() {
        let authority = Authority::create(NOW).unwrap();
        let request = PrivateKey::generate().unwrap().signing_request().unwrap();
        let late = authority.ends_at - 10;
        let signed = authority.sign_request(&request, Role::Client, late, CERTIFICATE_LIFETIME);
        assert_eq!(signed.unwrap().ends_at, authority.ends_at);
        let over = authority.ends_at;
        let signed = authority.sign_request(&request, Role::Client, over, CERTIFICATE_LIFETIME);
        assert!(matches!(signed, Err(AuthorityError::Ended { .. })));
    }
}
