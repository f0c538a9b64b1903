//! Tokens as an operator's own program would mint them.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::{Value, json};
use std::io::Write as _;
use tempfile::NamedTempFile;

const SECRET: &[u8] = b"only for tests, and 32 bytes long";

/// Seconds since 1970.
pub fn now() -> u64 {
    aircheck_runtime::clock::unix_ms() / 1000
}

/// A file with the secret, as an editor leaves it.
pub fn key_file() -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(SECRET).expect("write");
    file.write_all(b"\n").expect("write");
    file
}

/// A token with these claims.
pub fn signed(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&json!({"alg": "HS256"})), part(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes()));
    format!("{message}.{signature}")
}

/// A token that lets somebody do everything for ten minutes.
pub fn of(user: &str) -> String {
    signed(&json!({"sub": user, "exp": now() + 600}))
}
