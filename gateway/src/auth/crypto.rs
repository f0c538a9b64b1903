//! How the signature of a token is verified: with ring, which TLS uses anyway.
//!
//! Owns the choice of the primitive for each algorithm; must never sign, nor look into a token.

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{ErrorKind, Result, new_error},
    signature::{self, Verifier},
};
use ring::{hmac, signature as public};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes this the process's way to verify tokens; only the first call does anything.
pub(super) fn install() {
    if PROVIDER.install_default().is_err() {
        tracing::trace!("the verification of tokens was set up before");
    }
}

/// What is computed.
enum Check {
    Secret(hmac::Key),
    Public(public::UnparsedPublicKey<Vec<u8>>),
}

/// Verifies signatures of one algorithm with one key.
struct Signed {
    algorithm: Algorithm,
    check: Check,
}

impl Verifier<Vec<u8>> for Signed {
    fn verify(
        &self,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> std::result::Result<(), signature::Error> {
        let verified = match &self.check {
            // Compares in constant time.
            Check::Secret(key) => hmac::verify(key, message, signature),
            Check::Public(key) => key.verify(message, signature),
        };
        verified.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Signed {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// A key can only serve algorithms of its own kind: a public key is never a secret.
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    let public: &'static dyn public::VerificationAlgorithm = match (key.family(), algorithm) {
        (AlgorithmFamily::Hmac, Algorithm::HS256) => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, key.try_get_as_bytes()?);
            return Ok(signed(*algorithm, Check::Secret(key)));
        }
        (AlgorithmFamily::Rsa, Algorithm::RS256) => &public::RSA_PKCS1_2048_8192_SHA256,
        (AlgorithmFamily::Rsa, Algorithm::PS256) => &public::RSA_PSS_2048_8192_SHA256,
        (AlgorithmFamily::Ec, Algorithm::ES256) => &public::ECDSA_P256_SHA256_FIXED,
        (AlgorithmFamily::Ed, Algorithm::EdDSA) => &public::ED25519,
        _ => return Err(new_error(ErrorKind::InvalidAlgorithm)),
    };
    let key = public::UnparsedPublicKey::new(public, key.try_get_as_bytes()?.to_vec());
    Ok(signed(*algorithm, Check::Public(key)))
}

fn signed(algorithm: Algorithm, check: Check) -> Box<dyn JwtVerifier> {
    Box::new(Signed { algorithm, check })
}

fn signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    Err(new_error(ErrorKind::UnsupportedAlgorithm))
}
