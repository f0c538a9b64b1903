//! The opening of a WebSocket, before and at the upgrade.
//!
//! Owns which requests may become one and in which dialect; must never talk to another service.

use super::resumable::SUBPROTOCOL;
use crate::{config::Config, query::flag, refusal::Refusal};
use aircheck_core::{code::Code, id::ShowId};
use aircheck_proto::Fault;
use axum::{
    body::Body,
    extract::Query,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The only version of RFC 6455.
const VERSION: &str = "13";

/// What the address says.
#[derive(Debug, Default, Deserialize)]
struct Parameters {
    show_id: Option<String>,
    force: Option<String>,
    test: Option<String>,
}

/// A broadcaster's wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) show: ShowId,
    pub(crate) force: bool,
    /// Not on air.
    pub(crate) rehearsal: bool,
}

/// How a broadcaster speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    Plain,
    Resumable,
}

/// Reads the query.
///
/// # Errors
/// If the show's name, `force` or `test` is malformed.
pub(crate) fn wish(uri: &Uri) -> Result<Wish, Fault> {
    let Query(parameters) = Query::<Parameters>::try_from_uri(uri)
        .map_err(|rejection| Fault::new(Code::BadMessage, rejection.body_text()))?;
    let show = parameters
        .show_id
        .unwrap_or_default()
        .parse::<ShowId>()
        .map_err(|error| Fault::new(Code::BadShowId, error.to_string()))?;
    Ok(Wish {
        show,
        force: flag("force", parameters.force.as_deref())?,
        rehearsal: flag("test", parameters.test.as_deref())?,
    })
}

/// The dialect that a client offers.
///
/// # Errors
/// If it offers others only.
pub(crate) fn offer(headers: &HeaderMap) -> Result<Offer, Fault> {
    let mut offers = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .peekable();
    if offers.peek().is_none() {
        return Ok(Offer::Plain);
    }
    let known = offers
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim() == SUBPROTOCOL);
    if known {
        return Ok(Offer::Resumable);
    }
    let message = format!("Offer the subprotocol {SUBPROTOCOL}, or none for the plain dialect.");
    Err(Fault::new(Code::BadMessage, message))
}

/// Whether the page that asks may broadcast. Requests without an origin come from no page.
///
/// # Errors
/// If there is a list of origins and this one isn't in it.
pub(crate) fn origin(headers: &HeaderMap, config: &Config) -> Result<(), Fault> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    let allowed = &config.allowed_origins;
    if allowed.is_empty()
        || allowed
            .iter()
            .any(|known| known.as_bytes() == origin.as_bytes())
    {
        return Ok(());
    }
    Err(Fault::new(
        Code::Forbidden,
        "Pages of this origin may not broadcast here.",
    ))
}

/// The accept key of an opening handshake.
///
/// # Errors
/// The response that refuses a request which is none.
pub(crate) fn accept_key(headers: &HeaderMap) -> Result<String, Box<Response>> {
    let has = |name: header::HeaderName, token: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
        let refusal = Refusal::new(Code::BadMessage, "This address speaks WebSocket only.");
        let mut response = refusal.with_status(StatusCode::UPGRADE_REQUIRED);
        let upgrade = HeaderValue::from_static("websocket");
        response.headers_mut().insert(header::UPGRADE, upgrade);
        return Err(Box::new(response));
    }
    if headers
        .get(header::SEC_WEBSOCKET_VERSION)
        .is_none_or(|v| v != VERSION)
    {
        let refusal = Refusal::new(Code::BadMessage, "Sec-WebSocket-Version must be 13.");
        let mut response = refusal.into_response();
        let version = HeaderValue::from_static(VERSION);
        response
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_VERSION, version);
        return Err(Box::new(response));
    }
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .filter(|key| key.len() == 24);
    match key {
        Some(key) => Ok(derive_accept_key(key.as_bytes())),
        None => {
            let refusal = Refusal::new(Code::BadMessage, "Sec-WebSocket-Key must have 16 bytes.");
            Err(Box::new(refusal.into_response()))
        }
    }
}

/// The 101 that hands the connection over.
pub(crate) fn switching(key: &str, offer: Offer) -> Response {
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, key);
    let response = match offer {
        Offer::Plain => response,
        Offer::Resumable => response.header(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL),
    };
    response
        .body(Body::empty())
        .expect("a base64 key is a valid header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish_of(query: &str) -> Result<Wish, Code> {
        let uri = format!("/ws/stream{query}").parse().expect("address");
        wish(&uri).map_err(|fault| fault.code)
    }

    #[test]
    fn a_show_id_is_required_and_checked() {
        let wish = Wish {
            show: "7".parse().expect("id"),
            force: false,
            rehearsal: false,
        };
        assert_eq!(wish_of("?show_id=7"), Ok(wish.clone()));
        assert_eq!(
            wish_of("?show_id=7&force=true&token=x"),
            Ok(Wish {
                force: true,
                ..wish
            })
        );
        for bad in [
            "",
            "?show_id=",
            "?show_id=../x",
            "?show_id=a%20b",
            "?show=7",
        ] {
            assert_eq!(wish_of(bad), Err(Code::BadShowId), "{bad}");
        }
        let rehearsal = wish_of("?show_id=7&test=true").map(|wish| wish.rehearsal);
        assert_eq!(rehearsal, Ok(true));
        assert_eq!(wish_of("?show_id=7&test=2"), Err(Code::BadMessage));
        assert_eq!(wish_of("?show_id=7&force=perhaps"), Err(Code::BadMessage));
        assert_eq!(wish_of("?show_id=7&show_id=8"), Err(Code::BadMessage));
    }

    #[test]
    fn the_dialect_is_found_among_several_offers() {
        let offered = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(
                header::SEC_WEBSOCKET_PROTOCOL,
                HeaderValue::from_static(value),
            );
            offer(&headers).map_err(|fault| fault.code)
        };
        assert_eq!(offer(&HeaderMap::new()), Ok(Offer::Plain));
        assert_eq!(offered("aircheck.v1"), Ok(Offer::Resumable));
        assert_eq!(offered("other, aircheck.v1"), Ok(Offer::Resumable));
        assert_eq!(offered("aircheck.v2"), Err(Code::BadMessage));
    }

    #[test]
    fn only_listed_origins_may_broadcast_where_there_is_a_list() {
        let mut config = Config::new(vec!["http://i".into()], "http://a".into());
        let mut headers = HeaderMap::new();
        headers.insert(
            header::ORIGIN,
            HeaderValue::from_static("https://evil.example"),
        );
        assert_eq!(origin(&headers, &config), Ok(()));
        config.allowed_origins = vec!["https://radio.example".into()];
        assert_eq!(
            origin(&headers, &config).map_err(|f| f.code),
            Err(Code::Forbidden)
        );
        assert_eq!(origin(&HeaderMap::new(), &config), Ok(()));
        headers.insert(
            header::ORIGIN,
            HeaderValue::from_static("https://radio.example"),
        );
        assert_eq!(origin(&headers, &config), Ok(()));
    }
}
