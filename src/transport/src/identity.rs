//! What this process is: its private key, its certificate, the authorities it trusts.
//!
//! `ministryd` and `ministryctl` load one from a folder at start, or make a key and ask for a
//! certificate ([`crate::join`]). [`crate::security`] makes TLS settings of it.
//!
//! What must always hold: the private key is readable by its owner alone and is on disk before
//! anybody is asked to sign for it, so that a join that is repeated after a crash has the same
//! id; key, certificate and authority belong together, which is checked whenever they are loaded.
//!
//! When it fails: an [`IdentityFileError`] that names the file. The functions that touch files
//! block; they are called at start and on renewal only.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ministry_types::NodeId;
use ministry_wire::hello::{PeerIdentity, Role, Subject};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::name::{self, IdentityError};
use crate::pem;

/// The authority's certificate, beside the identity.
pub const AUTHORITY_FILE: &str = "authority.crt";

/// Why an identity could not be made, loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum IdentityFileError {
    /// Nothing is there yet.
    #[error("{} does not exist: join the cluster with a token first", .path.display())]
    NotJoined {
        /// The missing file.
        path: PathBuf,
    },
    /// The file could not be read or written.
    #[error("{}: {source}", .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read the private key.
    #[error(
        "{} can be read by others (mode {mode:03o}): run `chmod 600` on it, and if anybody else \
         used this machine, revoke it and join anew",
        .path.display()
    )]
    KeyExposed {
        /// The key's file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The text does not hold what it should.
    #[error("{what}: {reason}; restore the files from where they came, or join anew")]
    Content {
        /// Key, certificate or authority.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The certificate names nobody.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

fn content(what: &'static str, reason: impl ToString) -> IdentityFileError {
    IdentityFileError::Content { what, reason: reason.to_string() }
}

/// A private key, before or after there is a certificate for it.
pub struct PrivateKey {
    key: KeyPair,
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

impl PrivateKey {
    /// Makes a new key.
    pub fn generate() -> Result<PrivateKey, IdentityFileError> {
        let key = KeyPair::generate().map_err(|error| content("a new key", error))?;
        Ok(PrivateKey { key })
    }

    /// Reads a key from PEM text.
    pub fn from_pem(text: &str) -> Result<PrivateKey, IdentityFileError> {
        let der = pem::private_key(text).map_err(|error| content("private key", error))?;
        let der = der.ok_or_else(|| content("private key", "the text holds none"))?;
        let key = KeyPair::try_from(der.secret_der()).map_err(|e| content("private key", e))?;
        Ok(PrivateKey { key })
    }

    /// The key as PEM text.
    pub fn to_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Who the holder of this key is in this role.
    pub fn subject(&self, role: Role) -> Subject {
        name::subject_of_key(role, &self.key.subject_public_key_info())
    }

    /// A request for a certificate, PEM.
    pub fn signing_request(&self) -> Result<String, IdentityFileError> {
        let request = CertificateParams::default()
            .serialize_request(&self.key)
            .and_then(|request| request.pem());
        request.map_err(|error| content("signing request", error))
    }

    /// The public part, to have it signed in the same process.
    pub fn public(&self) -> &impl PublicKeyData {
        &self.key
    }

    /// Loads the key of this role from the folder, or makes one and puts it there.
    pub fn load_or_create(folder: &Path, role: Role) -> Result<PrivateKey, IdentityFileError> {
        match PrivateKey::load(folder, role) {
            Err(IdentityFileError::NotJoined { path }) => {
                let key = PrivateKey::generate()?;
                create_folder(folder)?;
                write_file(&path, key.to_pem().as_bytes(), 0o600)?;
                Ok(key)
            }
            other => other,
        }
    }

    /// Loads the key of this role from the folder.
    pub fn load(folder: &Path, role: Role) -> Result<PrivateKey, IdentityFileError> {
        let path = key_path(folder, role);
        let text = read_file(&path)?;
        let mode = fs::metadata(&path).map_err(|source| file(&path, source))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(IdentityFileError::KeyExposed { path, mode: mode & 0o777 });
        }
        PrivateKey::from_pem(&text)
    }
}

/// Key, certificate chain and authorities of this process, checked against each other.
#[derive(Clone)]
pub struct Identity {
    key: Arc<PrivateKey>,
    certificate: CertificateDer<'static>,
    authorities: Vec<CertificateDer<'static>>,
    peer: PeerIdentity,
    valid_from: u64,
    valid_until: u64,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("peer", &self.peer)
            .field("valid_until", &self.valid_until)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Puts an identity together from a key and PEM texts. The text of the authority may hold
    /// several certificates, while an authority is replaced.
    pub fn new(
        key: PrivateKey,
        certificate: &str,
        authority: &str,
    ) -> Result<Identity, IdentityFileError> {
        let certificates = pem::certificates(certificate).map_err(|e| content("certificate", e))?;
        let certificate = certificates.into_iter().next();
        let certificate = certificate.ok_or_else(|| content("certificate", "there is none"))?;
        let authorities = pem::certificates(authority).map_err(|e| content("authority", e))?;
        if authorities.is_empty() {
            return Err(content("authority", "there is no certificate"));
        }
        let peer = name::identify(&certificate)?;
        if key.subject(peer.role()) != peer.subject {
            return Err(content("private key", "it is not the key of the certificate"));
        }
        let parsed = name::parse(&certificate)?;
        let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
        let valid_from = seconds(parsed.validity().not_before.timestamp());
        let valid_until = seconds(parsed.validity().not_after.timestamp());
        let key = Arc::new(key);
        Ok(Identity { key, certificate, authorities, peer, valid_from, valid_until })
    }

    /// The same key with a new certificate.
    pub fn renewed(
        &self,
        certificate: &str,
        authority: &str,
    ) -> Result<Identity, IdentityFileError> {
        Identity::new(PrivateKey::from_pem(&self.key.to_pem())?, certificate, authority)
    }

    /// Loads the identity of this role from the folder.
    pub fn load(folder: &Path, role: Role) -> Result<Identity, IdentityFileError> {
        let key = PrivateKey::load(folder, role)?;
        let certificate = read_file(&certificate_path(folder, role))?;
        let authority = read_file(&folder.join(AUTHORITY_FILE))?;
        let identity = Identity::new(key, &certificate, &authority)?;
        if identity.peer.role() != role {
            let reason = format!("it is for a {}, not for a {role}", identity.peer.role());
            return Err(content("certificate", reason));
        }
        Ok(identity)
    }

    /// Writes the identity into the folder; the certificate last, so that there is none without
    /// its key and authority.
    pub fn save(&self, folder: &Path) -> Result<(), IdentityFileError> {
        let role = self.peer.role();
        create_folder(folder)?;
        write_file(&key_path(folder, role), self.key.to_pem().as_bytes(), 0o600)?;
        write_file(&folder.join(AUTHORITY_FILE), self.authority_pem().as_bytes(), 0o644)?;
        let certificate = pem::certificate(&self.certificate);
        write_file(&certificate_path(folder, role), certificate.as_bytes(), 0o644)
    }

    /// Who this is.
    pub fn peer(&self) -> PeerIdentity {
        self.peer
    }

    /// The node id; `None` of a client or an operator.
    pub fn node(&self) -> Option<NodeId> {
        self.peer.node()
    }

    /// From when to when the certificate is valid, seconds since 1970.
    pub fn validity(&self) -> (u64, u64) {
        (self.valid_from, self.valid_until)
    }

    /// A request for a new certificate of the same key, PEM.
    pub fn signing_request(&self) -> Result<String, IdentityFileError> {
        self.key.signing_request()
    }

    /// The authorities' certificates, PEM.
    pub fn authority_pem(&self) -> String {
        self.authorities.iter().map(|certificate| pem::certificate(certificate)).collect()
    }

    /// SHA-256 of the first authority's certificate, for tokens.
    pub fn authority_hash(&self) -> [u8; 32] {
        self.authorities.first().map(|authority| name::sha256(authority)).unwrap_or_default()
    }

    pub(crate) fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }

    /// What goes over the wire: the certificate, then the authorities, so that a newcomer can
    /// compare their hash with its token.
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        let mut chain = vec![self.certificate.clone()];
        chain.extend(self.authorities.iter().cloned());
        chain
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.key.serialize_der().into())
    }
}

fn key_path(folder: &Path, role: Role) -> PathBuf {
    folder.join(format!("{role}.key"))
}

fn certificate_path(folder: &Path, role: Role) -> PathBuf {
    folder.join(format!("{role}.crt"))
}

fn file(path: &Path, source: io::Error) -> IdentityFileError {
    IdentityFileError::File { path: path.to_owned(), source }
}

fn create_folder(folder: &Path) -> Result<(), IdentityFileError> {
    fs::create_dir_all(folder).map_err(|source| file(folder, source))
}

fn read_file(path: &Path) -> Result<String, IdentityFileError> {
    fs::read_to_string(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => IdentityFileError::NotJoined { path: path.to_owned() },
        _ => file(path, source),
    })
}

/// Replaces a file as a whole, on disk when it returns: a crash leaves the old or the new one.
fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), IdentityFileError> {
    let temporary = path.with_extension("new");
    let write = || -> io::Result<()> {
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Never open to others, not for a moment.
        let mut target =
            fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        target.write_all(bytes)?;
        target.sync_all()?;
        fs::rename(&temporary, path)?;
        match path.parent() {
            Some(folder) => fs::File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|source| file(path, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::{Authority, CERTIFICATE_LIFETIME};

    const NOW: u64 = 1_800_000_000;

    fn identity(authority: &Authority, role: Role) -> Identity {
        let key = PrivateKey::generate().unwrap();
        let signed = authority.sign(key.public(), role, NOW, CERTIFICATE_LIFETIME).unwrap();
        Identity::new(key, &signed.pem, &authority.certificate_pem()).unwrap()
    }

    #[test]
    fn an_identity_is_loaded_as_it_was_saved() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(NOW).unwrap();
        for role in [Role::Node, Role::Client, Role::Operator] {
            let identity = identity(&authority, role);
            identity.save(folder.path()).unwrap();
            let loaded = Identity::load(folder.path(), role).unwrap();
            assert_eq!(loaded.peer(), identity.peer());
            assert_eq!(loaded.validity().1, NOW + CERTIFICATE_LIFETIME.as_secs());
            assert_eq!(loaded.authority_hash(), authority.hash());
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        identity(&Authority::create(NOW).unwrap(), Role::Node).save(folder.path()).unwrap();
        let path = folder.path().join("node.key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Identity::load(folder.path(), Role::Node).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_key_made_before_a_crash_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let first = PrivateKey::load_or_create(folder.path(), Role::Node).unwrap();
        let second = PrivateKey::load_or_create(folder.path(), Role::Node).unwrap();
        assert_eq!(first.subject(Role::Node), second.subject(Role::Node));
        let error = Identity::load(folder.path(), Role::Node).unwrap_err();
        assert!(matches!(error, IdentityFileError::NotJoined { .. }), "{error}");
    }

    #[test]
    fn files_that_do_not_belong_together_are_refused() {
        let authority = Authority::create(NOW).unwrap();
        let key = PrivateKey::generate().unwrap();
        let other = PrivateKey::generate().unwrap();
        let signed = authority.sign(other.public(), Role::Node, NOW, CERTIFICATE_LIFETIME).unwrap();
        let error = Identity::new(key, &signed.pem, &authority.certificate_pem()).unwrap_err();
        assert!(error.to_string().contains("not the key of the certificate"), "{error}");
    }

    #[test]
    fn a_renewed_certificate_keeps_the_id_and_has_a_serial_number_of_its_own() {
        let authority = Authority::create(NOW).unwrap();
        let identity = identity(&authority, Role::Node);
        let request = identity.signing_request().unwrap();
        let later = NOW + 3600;
        let signed =
            authority.sign_request(&request, Role::Node, later, CERTIFICATE_LIFETIME).unwrap();
        let renewed = identity.renewed(&signed.pem, &authority.certificate_pem()).unwrap();
        assert_eq!(renewed.peer(), identity.peer());
        assert_eq!(renewed.validity().1, later + CERTIFICATE_LIFETIME.as_secs());
        let serial =
            |identity: &Identity| name::parse(&identity.certificate).unwrap().raw_serial().to_vec();
        assert_ne!(serial(&renewed), serial(&identity));
    }
}
