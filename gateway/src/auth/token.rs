//! From a token to a grant.
//!
//! Owns the claims; must never believe one before the signature was verified.

use super::{
    crypto,
    grant::{Allowed, Grant, Scope},
    key::Key,
};
use aircheck_core::code::Code;
use aircheck_proto::Fault;
use jsonwebtoken::{DecodingKey, Validation, decode, errors::ErrorKind};
use serde::Deserialize;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// How far the clocks of issuer and gateway may differ, in seconds.
const LEEWAY_S: u64 = 60;
/// Longest `sub`, in bytes: it travels with every status of a session.
const SUB_MAX: usize = 256;
/// Grants every show.
const EVERY_SHOW: &str = "*";

/// What tokens say. A claim that is there has to be of its type, `null` isn't.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    #[serde(default)]
    shows: Shows,
    #[serde(default = "everything")]
    scope: Scopes,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Shows {
    Every(String),
    Some(Vec<ShowName>),
}

/// Stations with numbered shows write numbers.
#[derive(Deserialize)]
#[serde(untagged)]
enum ShowName {
    Text(String),
    Number(u64),
}

#[derive(Deserialize)]
#[serde(from = "String")]
struct Scopes(Allowed<Scope>);

impl Default for Shows {
    fn default() -> Self {
        Self::Every(EVERY_SHOW.to_owned())
    }
}

fn everything() -> Scopes {
    Scopes(Allowed::All)
}

impl From<String> for Scopes {
    /// Words that mean something to others are no fault.
    fn from(words: String) -> Self {
        let known = words.split_ascii_whitespace().filter_map(Scope::parse);
        Self(Allowed::Only(known.collect()))
    }
}

impl Shows {
    fn allowed(self) -> Option<Allowed<String>> {
        let names = match self {
            Self::Every(name) if name == EVERY_SHOW => return Some(Allowed::All),
            Self::Every(_) => return None,
            Self::Some(names) => names,
        };
        let names = names.into_iter().map(|name| match name {
            ShowName::Text(text) => text,
            ShowName::Number(number) => number.to_string(),
        });
        let names: std::collections::HashSet<_> = names.collect();
        Some(if names.contains(EVERY_SHOW) {
            Allowed::All
        } else {
            Allowed::Only(names)
        })
    }
}

/// Verifies tokens.
#[derive(Debug)]
pub(crate) struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

impl Verifier {
    pub(super) fn new(key: Key, issuer: Option<&str>, audience: Option<&str>) -> Self {
        crypto::install();
        let mut validation = Validation {
            algorithms: key.algorithms,
            leeway: LEEWAY_S,
            validate_nbf: true,
            ..Validation::default()
        };
        let mut required = vec!["exp", "sub"];
        if let Some(issuer) = issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        if let Some(audience) = audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        Self {
            key: key.decoding,
            validation,
        }
    }

    /// What the bearer of a token may do.
    ///
    /// # Errors
    /// If the token isn't valid, now.
    pub(super) fn grant(&self, token: &[u8]) -> Result<Grant, Fault> {
        let decoded = decode::<Claims>(token, &self.key, &self.validation);
        let claims = decoded
            .map_err(|error| unauthenticated(reason(error.kind())))?
            .claims;
        let is_name = |sub: &str| {
            !sub.trim().is_empty() && sub.len() <= SUB_MAX && !sub.contains(char::is_control)
        };
        if !is_name(&claims.sub) {
            return Err(unauthenticated("The token's sub can't be a name."));
        }
        let shows = claims.shows.allowed();
        Ok(Grant {
            user: claims.sub,
            until: end(claims.exp, SystemTime::now(), Instant::now()),
            shows: shows.ok_or_else(|| unauthenticated("The token's shows can't be read."))?,
            scopes: claims.scope.0,
        })
    }
}

/// When the leeway after `exp` is over; `None` where that is beyond what clocks count.
fn end(exp: f64, wall: SystemTime, now: Instant) -> Option<Instant> {
    let since_epoch = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    let expiry = Duration::try_from_secs_f64(exp).ok()?;
    let end = expiry.checked_add(Duration::from_secs(LEEWAY_S))?;
    now.checked_add(end.saturating_sub(since_epoch))
}

fn unauthenticated(why: &str) -> Fault {
    Fault::new(Code::Unauthenticated, why)
}

/// Says what the issuer can mend, and nothing that helps to forge.
fn reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "The token has expired.",
        ErrorKind::ImmatureSignature => "The token is not valid yet.",
        ErrorKind::InvalidIssuer => "The token is of another issuer.",
        ErrorKind::InvalidAudience => "The token is for another audience.",
        ErrorKind::MissingRequiredClaim(_) => "The token lacks a claim that is required.",
        _ => "The token is not valid.",
    }
}

#[cfg(test)]
mod tests;
