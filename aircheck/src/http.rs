//! A small HTTP client for the gateway's API and for downloads.
//!
//! Owns connecting and what an error answer says. Must never follow a redirect by itself.

use crate::tls::Trust;
use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri, header,
    header::InvalidHeaderValue,
    uri::{Authority, PathAndQuery},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;
use thiserror::Error;

/// Longest wait for the head of an answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest JSON answer, in bytes: a page of 200 recordings has far less.
const JSON_MAX: usize = 16 << 20;
/// How much of a foreign error's text is shown, in characters.
const MESSAGE_MAX: usize = 300;

/// Why a request has no useful answer.
#[derive(Debug, Error)]
pub(crate) enum HttpError {
    /// The URL is no http:// or https:// URL.
    #[error("{0} is no http:// or https:// URL")]
    Url(String),
    /// No answer.
    #[error("{url} does not answer")]
    Unreachable {
        /// Whom we asked.
        url: Uri,
        /// Why.
        #[source]
        source: hyper_util::client::legacy::Error,
    },
    /// None in time.
    #[error("{0} did not answer in time")]
    Timeout(Uri),
    /// An answer that breaks off.
    #[error("the answer breaks off")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An answer that is not what it should be.
    #[error("the answer is not understood")]
    Json(#[from] serde_json::Error),
    /// An error answer, in the server's words.
    #[error("{status}: {message}")]
    Status {
        /// Its status.
        status: StatusCode,
        /// What the server says.
        message: String,
    },
}

/// The client; connections are kept.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    bearer: Option<Bearer>,
}

/// Who we are, and to whom alone it is said: a store that a download is redirected to is a stranger.
#[derive(Clone, Debug)]
struct Bearer {
    to: Option<Authority>,
    value: HeaderValue,
}

impl Http {
    /// Certificates are checked against those of the machine; where it has none, https:// fails.
    pub(crate) fn new() -> Self {
        Self::with(&Trust::of_machine())
    }

    /// Certificates are checked against `trust`.
    pub(crate) fn with(trust: &Trust) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(trust.config())
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        Self {
            client: Client::builder(TokioExecutor::new()).build(https),
            bearer: None,
        }
    }

    /// Says who we are with every request to the host of `url` from now on, and to nobody else.
    pub(crate) fn with_bearer(self, url: &Uri, value: HeaderValue) -> Self {
        let bearer = Bearer {
            to: url.authority().cloned(),
            value,
        };
        Self {
            bearer: Some(bearer),
            ..self
        }
    }

    /// Asks, and gives the answer whatever its status, its body unread.
    ///
    /// # Errors
    /// If there is no answer.
    pub(crate) async fn open(
        &self,
        url: &Uri,
        range: Option<HeaderValue>,
    ) -> Result<Response<Incoming>, HttpError> {
        let mut request = Request::new(Full::default());
        if let Some(range) = range {
            request.headers_mut().insert(header::RANGE, range);
        }
        self.send(url, request).await
    }

    async fn send(
        &self,
        url: &Uri,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, HttpError> {
        if !matches!(url.scheme_str(), Some("http" | "https")) {
            return Err(HttpError::Url(url.to_string()));
        }
        request.uri_mut().clone_from(url);
        if let Some(Bearer { to, value }) = &self.bearer
            && to.as_ref() == url.authority()
        {
            let name = header::AUTHORIZATION;
            request.headers_mut().insert(name, value.clone());
        }
        let answer = tokio::time::timeout(ANSWER_DEADLINE, self.client.request(request)).await;
        answer
            .map_err(|_| HttpError::Timeout(url.clone()))?
            .map_err(|source| HttpError::Unreachable {
                url: url.clone(),
                source,
            })
    }

    /// Asks the API for JSON.
    ///
    /// # Errors
    /// If there is no answer, or another one than 200 with the JSON that is expected.
    pub(crate) async fn json<T: DeserializeOwned>(&self, url: &Uri) -> Result<T, HttpError> {
        let answer = self.open(url, None).await?;
        if answer.status() != StatusCode::OK {
            return Err(refusal(answer).await);
        }
        Ok(serde_json::from_slice(&read(answer).await?)?)
    }

    /// Posts nothing to the API, for JSON.
    ///
    /// # Errors
    /// If there is no answer, or none of success with the JSON that is expected.
    pub(crate) async fn post<T: DeserializeOwned>(&self, url: &Uri) -> Result<T, HttpError> {
        let mut request = Request::new(Full::default());
        *request.method_mut() = Method::POST;
        let answer = self.send(url, request).await?;
        if !answer.status().is_success() {
            return Err(refusal(answer).await);
        }
        Ok(serde_json::from_slice(&read(answer).await?)?)
    }
}

/// The header that carries a token.
///
/// # Errors
/// If it holds what no header can hold.
pub(crate) fn bearer(token: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// What an error answer says: `error.message` of our own API, or the beginning of its text.
pub(crate) async fn refusal(answer: Response<Incoming>) -> HttpError {
    let status = answer.status();
    match read(answer).await {
        Ok(body) => HttpError::Status {
            status,
            message: message(&body),
        },
        Err(error) => error,
    }
}

fn message(body: &[u8]) -> String {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    match json
        .as_ref()
        .and_then(|json| json["error"]["message"].as_str())
    {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(body)
            .chars()
            .take(MESSAGE_MAX)
            .collect(),
    }
}

async fn read(answer: Response<Incoming>) -> Result<Bytes, HttpError> {
    let reading = Limited::new(answer.into_body(), JSON_MAX).collect();
    match tokio::time::timeout(ANSWER_DEADLINE, reading).await {
        Ok(body) => Ok(body.map_err(HttpError::Body)?.to_bytes()),
        Err(elapsed) => Err(HttpError::Body(elapsed.into())),
    }
}

/// A gateway's HTTP address, by its WebSocket's or its own.
pub(crate) fn web(to: &str) -> String {
    match to.strip_prefix("ws") {
        Some(rest) => format!("http{rest}"),
        None => to.to_owned(),
    }
}

/// `base` with another path and query.
///
/// # Errors
/// If `base` is no http:// or https:// URL.
pub(crate) fn join(base: &str, path_and_query: &str) -> Result<Uri, HttpError> {
    let bad = || HttpError::Url(base.to_owned());
    let mut parts = base.parse::<Uri>().map_err(|_| bad())?.into_parts();
    let below = parts
        .path_and_query
        .as_ref()
        .map_or("", |p| p.path().trim_end_matches('/'));
    let whole = format!("{below}{path_and_query}");
    parts.path_and_query = Some(PathAndQuery::try_from(whole).map_err(|_| bad())?);
    let url = Uri::from_parts(parts).map_err(|_| bad())?;
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err(bad());
    }
    Ok(url)
}

/// `text` as a value in a query.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ => {
                out.push('%');
                out.push_str(&format!("{byte:02X}"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateways_http_address_is_that_of_its_websocket() {
        assert_eq!(web("ws://h:1/x"), "http://h:1/x");
        assert_eq!(web("wss://h"), "https://h");
        assert_eq!(web("https://h"), "https://h");
    }

    #[test]
    fn a_base_may_have_a_path_of_its_own() {
        let joined = |base| join(base, "/api/x?y=1").map(|url| url.to_string()).ok();
        assert_eq!(
            joined("http://h:1").as_deref(),
            Some("http://h:1/api/x?y=1")
        );
        assert_eq!(
            joined("http://h:1/").as_deref(),
            Some("http://h:1/api/x?y=1")
        );
        assert_eq!(
            joined("https://h/radio/").as_deref(),
            Some("https://h/radio/api/x?y=1")
        );
        for bad in ["", "h:1", "/x", "ws://h", "ftp://h"] {
            assert!(join(bad, "/").is_err(), "{bad}");
        }
    }

    #[test]
    fn values_of_a_query_are_escaped() {
        assert_eq!(escaped("a-b_C.9~"), "a-b_C.9~");
        assert_eq!(escaped("a b&c=ä"), "a%20b%26c%3D%C3%A4");
    }

    #[test]
    fn an_error_speaks_in_the_words_of_the_server() {
        assert_eq!(
            message(br#"{"error":{"code":"AC_X","message":"why"}}"#),
            "why"
        );
        assert_eq!(message(b"<Error>no</Error>"), "<Error>no</Error>");
    }
}
