//! HTTP as the simplest of clients speaks it.
//!
//! Owns requests and whole answers; streams go to [`crate::listener`].

use crate::wait::SOON;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{io, net::SocketAddr};
use tokio::{net::TcpStream, time::timeout};

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }

    /// The body as JSON of an answer that must be 200.
    ///
    /// # Panics
    /// If it is not.
    #[must_use]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    /// Status and code of an error, which has the contract's shape.
    ///
    /// # Panics
    /// If it has another one.
    #[must_use]
    pub fn error(&self) -> (u16, String) {
        let json = self.json();
        let field = |name: &str| json["error"][name].as_str().unwrap_or_default().to_owned();
        assert!(
            !field("message").is_empty(),
            "an error has a message: {self:?}"
        );
        (self.status, field("code"))
    }

    /// A header's text, or nothing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// Sends a request on a connection of its own and answers when the head has come.
///
/// # Errors
/// If the server can't be reached or does not speak HTTP.
pub async fn open(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
) -> io::Result<Response<Incoming>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // Ends by itself with the connection; its error comes out of the request as well.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(io::Error::other)
}

/// One request and its whole answer.
///
/// # Errors
/// If there is no answer in time.
pub async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> io::Result<Answer> {
    let mut builder = Request::builder()
        .method(method)
        .uri(path)
        .header("host", address.to_string());
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    let request = builder
        .body(Full::new(body.into()))
        .map_err(io::Error::other)?;
    let exchange = async {
        let (head, body) = open(address, request).await?.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        })
    };
    timeout(SOON, exchange)
        .await
        .unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
}

/// `GET`.
///
/// # Errors
/// If there is no answer in time.
pub async fn get(address: SocketAddr, path: &str) -> io::Result<Answer> {
    request(address, "GET", path, &[], Bytes::new()).await
}

/// `GET` of a URL as the server gave it.
///
/// # Panics
/// If the URL is not `http://IP:PORT/...`, or there is no answer.
pub async fn get_url(url: &str, headers: &[(&str, &str)]) -> Answer {
    let rest = url
        .strip_prefix("http://")
        .unwrap_or_else(|| panic!("not plain HTTP: {url}"));
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = host.replace("localhost", "127.0.0.1");
    let address: SocketAddr = address
        .parse()
        .unwrap_or_else(|error| panic!("{url}: {error}"));
    let answer = request(address, "GET", &format!("/{path}"), headers, Bytes::new()).await;
    answer.unwrap_or_else(|error| panic!("GET {url}: {error}"))
}
