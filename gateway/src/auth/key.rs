//! The key that tokens are verified with.
//!
//! Owns the reading of its file and which algorithms a kind of key allows. Must never take the
//! algorithm from a token, nor a public key for a secret.

use jsonwebtoken::{Algorithm, DecodingKey};
use std::{fs, io, path::Path, path::PathBuf};
use thiserror::Error;

/// Shortest secret, in bytes: as long as the hash.
const SECRET_MIN: usize = 32;
/// Length of the public key of a 2048-bit RSA pair with the smallest exponent, DER, in bytes.
const RSA_MIN: usize = 268;
/// Length of an uncompressed point of P-256, in bytes.
const P256: usize = 65;
/// Length of a public key of Ed25519, in bytes.
const ED25519: usize = 32;

/// Why a key file can't be used.
#[derive(Debug, Error)]
pub enum KeyError {
    /// It can't be read.
    #[error("read the key file {path}")]
    Read {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A secret that could be guessed.
    #[error("the secret has {0} bytes; at least {SECRET_MIN} are needed")]
    ShortSecret(usize),
    /// PEM of something else: a private key, a certificate, an unknown kind.
    #[error("the PEM file must hold one public key: RSA, EC on P-256, or Ed25519")]
    NotPublicKey,
    /// RSA below 2048 bits.
    #[error("the RSA key is too short; at least 2048 bits are needed")]
    ShortRsa,
}

/// A key and what it may be used for.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) decoding: DecodingKey,
    pub(super) algorithms: Vec<Algorithm>,
}

impl Key {
    /// Reads a key file.
    ///
    /// # Errors
    /// If there is none, or it holds no key that is strong enough.
    pub(super) fn read(path: &Path) -> Result<Self, KeyError> {
        let content = fs::read(path).map_err(|source| KeyError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&content)
    }

    /// PEM is a public key, and whatever else is a secret.
    pub(super) fn parse(content: &[u8]) -> Result<Self, KeyError> {
        let text = String::from_utf8_lossy(content);
        if !text.contains("-----BEGIN") {
            return secret(content);
        }
        let public = [
            "-----BEGIN PUBLIC KEY-----",
            "-----BEGIN RSA PUBLIC KEY-----",
        ];
        if !public.iter().any(|label| text.contains(label)) {
            return Err(KeyError::NotPublicKey);
        }
        if let Ok(key) = DecodingKey::from_ec_pem(content) {
            let is_p256 = length(&key) == P256;
            return supported(is_p256, key, &[Algorithm::ES256]);
        }
        if let Ok(key) = DecodingKey::from_ed_pem(content) {
            let is_ed25519 = length(&key) == ED25519;
            return supported(is_ed25519, key, &[Algorithm::EdDSA]);
        }
        let key = DecodingKey::from_rsa_pem(content).map_err(|_| KeyError::NotPublicKey)?;
        if length(&key) < RSA_MIN {
            return Err(KeyError::ShortRsa);
        }
        supported(true, key, &[Algorithm::RS256, Algorithm::PS256])
    }
}

fn secret(content: &[u8]) -> Result<Key, KeyError> {
    let secret = content.strip_suffix(b"\n").unwrap_or(content);
    let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
    if secret.len() < SECRET_MIN {
        return Err(KeyError::ShortSecret(secret.len()));
    }
    supported(true, DecodingKey::from_secret(secret), &[Algorithm::HS256])
}

fn supported(
    is_supported: bool,
    decoding: DecodingKey,
    algorithms: &[Algorithm],
) -> Result<Key, KeyError> {
    if !is_supported {
        return Err(KeyError::NotPublicKey);
    }
    Ok(Key {
        decoding,
        algorithms: algorithms.to_vec(),
    })
}

fn length(key: &DecodingKey) -> usize {
    key.try_get_as_bytes().map_or(0, <[u8]>::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn algorithms(content: &[u8]) -> Vec<Algorithm> {
        Key::parse(content).expect("a key").algorithms
    }

    #[test]
    fn a_kind_of_key_has_its_fixed_algorithms() {
        let rsa = include_bytes!("../../tests/keys/rsa.pub.pem");
        assert_eq!(algorithms(rsa), [Algorithm::RS256, Algorithm::PS256]);
        let rsa = include_bytes!("../../tests/keys/rsa.pkcs1.pub.pem");
        assert_eq!(algorithms(rsa), [Algorithm::RS256, Algorithm::PS256]);
        let ec = include_bytes!("../../tests/keys/p256.pub.pem");
        assert_eq!(algorithms(ec), [Algorithm::ES256]);
        let ed = include_bytes!("../../tests/keys/ed25519.pub.pem");
        assert_eq!(algorithms(ed), [Algorithm::EdDSA]);
        assert_eq!(algorithms(&[b'x'; SECRET_MIN]), [Algorithm::HS256]);
    }

    #[test]
    fn a_short_secret_is_refused_and_its_newline_does_not_count() {
        let secret = [b"x".repeat(SECRET_MIN - 1), b"\r\n".to_vec()].concat();
        let refused = Key::parse(&secret);
        assert!(
            matches!(refused, Err(KeyError::ShortSecret(31))),
            "{refused:?}"
        );
        let refused = Key::parse(b"");
        assert!(
            matches!(refused, Err(KeyError::ShortSecret(0))),
            "{refused:?}"
        );
    }

    #[test]
    fn pem_that_is_no_strong_public_key_is_never_taken_for_a_secret() {
        let weak = include_bytes!("../../tests/keys/rsa1024.pub.pem");
        assert!(matches!(Key::parse(weak), Err(KeyError::ShortRsa)));
        let p384 = include_bytes!("../../tests/keys/p384.pub.pem");
        let ed = String::from_utf8_lossy(include_bytes!("../../tests/keys/ed25519.pub.pem"));
        let cut = ed.replace("=", "").replace("MCow", "MC");
        for (what, bad) in [
            ("another curve", p384.to_vec()),
            (
                "a private key",
                ed.replace("PUBLIC", "PRIVATE").into_bytes(),
            ),
            (
                "a certificate",
                ed.replace("PUBLIC KEY", "CERTIFICATE").into_bytes(),
            ),
            ("damage", cut.into_bytes()),
        ] {
            let refused = Key::parse(&bad);
            assert!(
                matches!(refused, Err(KeyError::NotPublicKey)),
                "{what}: {refused:?}"
            );
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Key::read(Path::new("no/such/key")).expect_err("missing");
        assert_eq!(error.to_string(), "read the key file no/such/key");
    }
}
