//! PEM text: certificates and keys as they lie in files, in the cluster log and in messages.
//!
//! Used by [`crate::authority`] and [`crate::identity`]. When it fails: a [`PemError`].

use data_encoding::BASE64;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Characters of a line, as RFC 7468 wants.
const LINE: usize = 64;

/// The text is not PEM.
#[derive(Debug, thiserror::Error)]
#[error("not PEM text: {0}")]
pub struct PemError(String);

/// Every certificate in the text, in order.
pub fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, PemError> {
    rustls_pemfile::certs(&mut text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| PemError(error.to_string()))
}

/// The first private key in the text.
pub fn private_key(text: &str) -> Result<Option<PrivateKeyDer<'static>>, PemError> {
    rustls_pemfile::private_key(&mut text.as_bytes()).map_err(|error| PemError(error.to_string()))
}

/// A certificate as text.
pub fn certificate(der: &[u8]) -> String {
    encode("CERTIFICATE", der)
}

/// Bytes as text under a label.
pub fn encode(label: &str, der: &[u8]) -> String {
    let base64 = BASE64.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in base64.as_bytes().chunks(LINE) {
        // Base64 is ASCII, so a cut never falls inside a character.
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// The bytes of the first block, whatever its label.
#[cfg(test)]
pub(crate) fn decode_for_test(text: &str) -> Vec<u8> {
    let base64: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    BASE64.decode(base64.trim().as_bytes()).unwrap()
}
