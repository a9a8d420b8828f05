//! The join token: one line that a person copies to a new machine.
//!
//! `ministryctl invite` prints one; `ministryd` and `ministryctl` read it ([`crate::join`]).
//! It carries the hash of the authority's certificate, so that the newcomer knows the cluster
//! before it says the secret; the cluster log keeps only the hash of the secret.
//!
//! Form: `ministry1-` and base32 (lower case, no padding) of the bytes of [`JoinToken`] followed
//! by four bytes of their SHA-256. The digit is the version of the form.
//!
//! What must always hold: a token that was damaged or cut by copying is told from one that the
//! cluster does not know. When it fails: a [`TokenError`].

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use ministry_wire::codec;
use ministry_wire::hello::Role;
use ministry_wire::join::{JoinSecret, TokenId};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::name::sha256;

/// How a token begins; the digit is the version of its form.
const PREFIX: &str = "ministry1-";
/// How a token of any version begins.
const PREFIX_ANY: &str = "ministry";
/// Bytes of the checksum at the end.
const CHECKSUM_BYTES: usize = 4;
/// Characters of a token; a longer text is something else.
const TOKEN_CHARACTERS_MAX: usize = 4096;
/// Addresses in a token: enough that one of them answers.
const ADDRESSES_MAX: usize = 8;

/// Why a text is not a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin like one.
    #[error("this is not a join token: one begins with '{PREFIX}'")]
    NotAToken,
    /// It is of a later version of the program.
    #[error("the token is of another version ('{prefix}'): use a program of the cluster's version")]
    OtherVersion {
        /// How it begins.
        prefix: String,
    },
    /// It was damaged.
    #[error("the token is damaged or incomplete: copy it again, whole")]
    Damaged,
    /// It was made wrongly.
    #[error("a token carries between 1 and {ADDRESSES_MAX} addresses")]
    Addresses,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// SHA-256 of the authority's certificate.
    pub authority_hash: [u8; 32],
    /// Its number in the cluster log.
    pub id: TokenId,
    /// What its holder alone knows.
    pub secret: JoinSecret,
    /// What its holder may become.
    pub role: Role,
    /// Where nodes of the cluster listen.
    pub addresses: Vec<SocketAddr>,
}

impl JoinToken {
    /// Draws a new token.
    pub fn create(
        authority_hash: [u8; 32],
        role: Role,
        addresses: Vec<SocketAddr>,
    ) -> Result<JoinToken, TokenError> {
        if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
            return Err(TokenError::Addresses);
        }
        let random = SystemRandom::new();
        let (mut id, mut secret) = ([0; 8], [0; 16]);
        random.fill(&mut id).map_err(|_| TokenError::NoRandomness)?;
        random.fill(&mut secret).map_err(|_| TokenError::NoRandomness)?;
        let (id, secret) = (TokenId(id), JoinSecret(secret));
        Ok(JoinToken { authority_hash, id, secret, role, addresses })
    }

    /// What the cluster log keeps of the secret.
    pub fn secret_hash(&self) -> [u8; 32] {
        hash_secret(&self.secret)
    }
}

/// The hash of a secret: what the cluster log keeps, and what a shown secret is compared with. The
/// secret has 128 random bits, so the hash need not be slow.
pub fn hash_secret(secret: &JoinSecret) -> [u8; 32] {
    let mut bytes = b"ministry join secret".to_vec();
    bytes.extend_from_slice(&secret.0);
    sha256(&bytes)
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let [a, b, c, d, ..] = sha256(bytes);
    [a, b, c, d]
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = codec::encode(self).map_err(|_| fmt::Error)?.to_vec();
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        write!(f, "{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_lowercase())
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<JoinToken, TokenError> {
        let text = text.trim().to_ascii_lowercase();
        let Some(body) = text.strip_prefix(PREFIX) else {
            return Err(match text.split_once('-') {
                Some((prefix, _)) if prefix.starts_with(PREFIX_ANY) => {
                    TokenError::OtherVersion { prefix: prefix.to_owned() }
                }
                _ => TokenError::NotAToken,
            });
        };
        if body.len() > TOKEN_CHARACTERS_MAX {
            return Err(TokenError::Damaged);
        }
        let bytes = BASE32_NOPAD
            .decode(body.to_ascii_uppercase().as_bytes())
            .map_err(|_| TokenError::Damaged)?;
        let (content, sum) =
            bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(TokenError::Damaged)?;
        if *sum != checksum(content) {
            return Err(TokenError::Damaged);
        }
        let token: JoinToken = codec::decode(content).map_err(|_| TokenError::Damaged)?;
        if token.addresses.is_empty() || token.addresses.len() > ADDRESSES_MAX {
            return Err(TokenError::Addresses);
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        let addresses =
            vec!["10.0.0.1:7400".parse().unwrap(), "[2001:db8::1]:7400".parse().unwrap()];
        JoinToken::create([5; 32], Role::Node, addresses).unwrap()
    }

    #[test]
    fn a_token_reads_back_from_its_text() {
        let token = token();
        let text = token.to_string();
        assert!(text.starts_with("ministry1-"), "{text}");
        assert!(
            text.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        );
        assert_eq!(text.parse(), Ok(token.clone()));
        assert_eq!(format!("  {}\n", text.to_uppercase()).parse(), Ok(token));
    }

    #[test]
    fn every_damaged_or_cut_token_is_told_from_an_unknown_one() {
        let text = token().to_string();
        for cut in PREFIX.len()..text.len() {
            assert_eq!(text[..cut].parse::<JoinToken>(), Err(TokenError::Damaged), "cut at {cut}");
        }
        for place in PREFIX.len()..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[place] = if bytes[place] == b'a' { b'b' } else { b'a' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(changed.parse::<JoinToken>(), Err(TokenError::Damaged), "at {place}");
        }
    }

    #[test]
    fn another_text_is_not_a_token() {
        assert_eq!("hello".parse::<JoinToken>(), Err(TokenError::NotAToken));
        assert_eq!("".parse::<JoinToken>(), Err(TokenError::NotAToken));
        let error = "ministry2-abc".parse::<JoinToken>().unwrap_err();
        assert!(matches!(error, TokenError::OtherVersion { .. }), "{error}");
        assert_eq!("ministry1-é".parse::<JoinToken>(), Err(TokenError::Damaged));
    }

    #[test]
    fn two_tokens_share_neither_id_nor_secret() {
        let (one, other) = (token(), token());
        assert_ne!(one.id, other.id);
        assert_ne!(one.secret_hash(), other.secret_hash());
        assert_ne!(one.secret_hash(), sha256(&one.secret.0), "the hash is for this use alone");
    }
}
