//! Who calls, and what they may do: JSON Web Tokens, where the operator gave a key.
//!
//! Owns the way from a request to its [`Grant`]. The algorithms are those of the key's kind; `exp`
//! and `sub` are required, `nbf` is honoured, both with 60 s of leeway. `shows` (ids, or `"*"`) and
//! `scope` (words among `publish`, `listen`, `read`, `admin`) narrow what may be done; without them
//! everything may. A claim of another shape voids the token. Must never write a token, or an address
//! that could hold one, to a log.

mod crypto;
mod grant;
mod key;
mod token;

pub(crate) use grant::{Grant, Scope};
pub use key::KeyError;

use crate::{app::App, config::Config, refusal::Refusal};
use aircheck_core::code::Code;
use aircheck_proto::Fault;
use axum::{
    extract::{Query, Request, State},
    http::{HeaderMap, Uri, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use std::sync::Arc;
use token::Verifier;

/// Whether tokens are asked for.
#[derive(Debug)]
pub(crate) enum Auth {
    /// Everybody may do everything, and is called the same.
    Open,
    Keyed(Box<Verifier>),
}

/// Where a request may carry its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    Header,
    /// In the address too: a page's WebSocket and `<audio>` can't set headers.
    HeaderOrQuery,
}

/// What the calls behind a [`guard`] need.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    pub(crate) app: Arc<App>,
    pub(crate) scope: Scope,
    pub(crate) carrier: Carrier,
}

// No Debug: it holds a token.
#[derive(Default, Deserialize)]
struct TokenQuery {
    token: Option<String>,
}

impl Auth {
    /// Reads the key, if there is one.
    ///
    /// # Errors
    /// If the key file can't be used.
    pub(crate) fn new(config: &Config) -> Result<Self, KeyError> {
        Ok(match &config.auth_key_file {
            Some(path) => Self::Keyed(Box::new(Verifier::new(
                key::Key::read(path)?,
                config.auth_issuer.as_deref(),
                config.auth_audience.as_deref(),
            ))),
            None => Self::Open,
        })
    }

    /// What the sender of a request may do.
    ///
    /// # Errors
    /// If a token is needed and there is none, or none that is valid.
    pub(crate) fn grant(
        &self,
        headers: &HeaderMap,
        uri: &Uri,
        carrier: Carrier,
    ) -> Result<Grant, Fault> {
        let Self::Keyed(verifier) = self else {
            return Ok(Grant::anonymous());
        };
        let needed = || Fault::new(Code::Unauthenticated, "A token is needed.");
        let granted = match headers.get(header::AUTHORIZATION) {
            Some(value) => verifier.grant(bearer(value.as_bytes()).ok_or_else(needed)?),
            None if carrier == Carrier::HeaderOrQuery => {
                let Query(query) = Query::<TokenQuery>::try_from_uri(uri).unwrap_or_default();
                verifier.grant(query.token.ok_or_else(needed)?.as_bytes())
            }
            None => Err(needed()),
        };
        granted.inspect_err(|fault| tracing::info!(path = uri.path(), %fault, "not authenticated"))
    }
}

/// The token of an `Authorization: Bearer`, whose scheme has no case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

/// Lets a request pass with its grant, whose shows are for the call itself to ask.
pub(crate) async fn guard(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let granted = gate
        .app
        .auth
        .grant(request.headers(), request.uri(), gate.carrier)
        .and_then(|grant| grant.permits(gate.scope).map(|()| grant));
    match granted {
        Ok(grant) => {
            request.extensions_mut().insert(Arc::new(grant));
            next.run(request).await
        }
        Err(fault) => Refusal(fault).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_is_found_whatever_its_case() {
        assert_eq!(bearer(b"Bearer a.b.c"), Some(b"a.b.c".as_slice()));
        assert_eq!(bearer(b"bearer  a.b.c "), Some(b"a.b.c".as_slice()));
        for other in ["", "Bearer", "Basic YTpi", "a.b.c", "Bearera.b.c"] {
            assert_eq!(bearer(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn without_a_key_everybody_may_do_everything() {
        let config = Config::new(vec!["http://i".into()], "http://a".into());
        let auth = Auth::new(&config).expect("no key to read");
        let uri = Uri::from_static("/api/shows?token=nonsense");
        let grant = auth.grant(&HeaderMap::new(), &uri, Carrier::Header);
        assert_eq!(grant, Ok(Grant::anonymous()));
    }
}
