//! The studio and the listeners' page: what browsers load, embedded in the binary.
//!
//! Owns its files and their headers; must never read a file while it serves.

use crate::refusal::Refusal;
use aircheck_core::{code::Code, id::ShowId};
use axum::{
    Router,
    extract::{Path, rejection::PathRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};

/// Name, entity tag and content of each file.
const FILES: &[(&str, &str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/studio.rs"));

/// Scripts and styles come from here alone; media and sockets may go where the station's are.
const POLICY: &str = "default-src 'self'; connect-src 'self' ws: wss:; media-src * blob:; \
     img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'self'";

/// `/`, `/studio/{file}`, and the listener's page of every show.
pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route(
            "/",
            get(|headers: HeaderMap| async move { file("index.html", &headers) }),
        )
        .route("/studio/{file}", get(named))
        .route("/listen/{show_id}", get(listener))
}

async fn named(path: Result<Path<String>, PathRejection>, headers: HeaderMap) -> Response {
    match path {
        Ok(Path(name)) => file(&name, &headers),
        Err(rejection) => Refusal::from(rejection).into_response(),
    }
}

/// The page is the same for every show, on air or not: it reads the id from its own address.
async fn listener(path: Result<Path<String>, PathRejection>, headers: HeaderMap) -> Response {
    match path.map(|Path(id)| id.parse::<ShowId>()) {
        Ok(Ok(_show)) => file("listen.html", &headers),
        Ok(Err(error)) => Refusal::new(Code::BadShowId, error.to_string()).into_response(),
        Err(rejection) => Refusal::from(rejection).into_response(),
    }
}

fn file(name: &str, headers: &HeaderMap) -> Response {
    let Some((_, tag, content)) = FILES.iter().find(|(known, ..)| *known == name) else {
        return Refusal::new(Code::NotFound, "There is no such file.").into_response();
    };
    let fixed = [
        (header::ETAG, HeaderValue::from_static(tag)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(POLICY),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
        (
            HeaderName::from_static("permissions-policy"),
            HeaderValue::from_static("microphone=(self)"),
        ),
    ];
    if is_fresh(headers, tag) {
        return (StatusCode::NOT_MODIFIED, fixed).into_response();
    }
    (
        fixed,
        [(header::CONTENT_TYPE, content_type(name))],
        *content,
    )
        .into_response()
}

/// Whether the browser holds this very content.
fn is_fresh(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|known| known.trim().trim_start_matches("W/") == tag)
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        _ => "text/javascript; charset=utf-8",
    }
}
