//! Clients: a WebSocket that says what it sees, and HTTP byte by byte.

use super::{Scene, ingest::Broadcast, soon};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use std::{collections::HashMap, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error, Message, client::IntoClientRequest as _, http::HeaderValue,
        protocol::WebSocketConfig,
    },
};

/// A response, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Status and error code; every error has both, and a message.
    pub fn error(&self) -> (u16, String) {
        let json = self.json();
        let message = json["error"]["message"].as_str().expect("a message");
        assert!(!message.is_empty());
        (
            self.status,
            json["error"]["code"].as_str().expect("a code").to_owned(),
        )
    }
}

/// Sends raw bytes and reads until the server closes.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = soon(TcpStream::connect(address)).await.expect("connect");
    soon(stream.write_all(bytes)).await.expect("write");
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.expect("read");
    answer
}

/// One request on a connection of its own.
pub async fn http(address: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    http_with(address, method, path, "", body).await
}

/// As [`http`], with header lines, each ended by CRLF.
pub async fn http_with(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> Answer {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    );
    parse(&raw(address, request.as_bytes()).await)
}

fn parse(answer: &[u8]) -> Answer {
    let end = answer
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .expect("a head");
    let head = String::from_utf8_lossy(&answer[..end]);
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .expect("a status");
    let headers: HashMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let mut body = answer[end + 4..].to_vec();
    if headers
        .get("transfer-encoding")
        .is_some_and(|coding| coding == "chunked")
    {
        body = unchunk(&body);
    }
    Answer {
        status: status.parse().expect("a number"),
        headers,
        body,
    }
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest
            .windows(2)
            .position(|w| w == b"\r\n")
            .expect("a chunk's length");
        let length = std::str::from_utf8(&rest[..end]).expect("hex");
        let length = usize::from_str_radix(length, 16).expect("hex");
        if length == 0 {
            return body;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + length]);
        rest = &rest[end + 4 + length..];
    }
}

/// How a WebSocket connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed(pub u16);

/// A broadcaster.
pub struct Broadcaster(pub WebSocketStream<TcpStream>);

/// Opens a WebSocket, or gives status and code of its refusal.
pub async fn connect(
    address: SocketAddr,
    query: &str,
    headers: &[(&'static str, &str)],
) -> Result<Broadcaster, (u16, String)> {
    let mut request = format!("ws://{address}/ws/stream{query}")
        .into_client_request()
        .expect("url");
    for (name, value) in headers {
        request
            .headers_mut()
            .insert(*name, HeaderValue::from_str(value).expect("a header"));
    }
    let stream = soon(TcpStream::connect(address)).await.expect("connect");
    let config = WebSocketConfig::default().max_write_buffer_size(8 << 20);
    match soon(client_async_with_config(request, stream, Some(config))).await {
        Ok((socket, response)) => {
            let asked = headers
                .iter()
                .find(|(name, _)| *name == "sec-websocket-protocol");
            let told = response.headers().get("sec-websocket-protocol");
            assert_eq!(
                asked.is_some(),
                told.is_some(),
                "a subprotocol is echoed if offered"
            );
            Ok(Broadcaster(socket))
        }
        Err(Error::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            let json: Value = serde_json::from_slice(&body).expect("a JSON body");
            let code = json["error"]["code"].as_str().expect("a code").to_owned();
            Err((response.status().as_u16(), code))
        }
        Err(other) => panic!("{other}"),
    }
}

/// A plain client that is let in, and the ingest's side of it.
pub async fn plain_live(scene: &mut Scene, query: &str) -> (Broadcaster, Broadcast) {
    let (client, broadcast) = tokio::join!(plain(scene.address, query), async {
        let broadcast = scene.broadcasts.next().await;
        broadcast.ready(0).await;
        broadcast
    });
    let mut client = client.expect("let in");
    assert_eq!(client.said().await, "connected");
    (client, broadcast)
}

/// The plain dialect.
pub async fn plain(address: SocketAddr, query: &str) -> Result<Broadcaster, (u16, String)> {
    connect(address, query, &[]).await
}

/// `aircheck.v1`, whose upgrade is never refused.
pub async fn resumable(address: SocketAddr, query: &str) -> Broadcaster {
    let offer = [("sec-websocket-protocol", "aircheck.v1")];
    connect(address, query, &offer)
        .await
        .expect("the upgrade is always accepted")
}

impl Broadcaster {
    pub async fn text(&mut self, text: &str) {
        soon(self.0.send(Message::text(text))).await.expect("send");
    }

    pub async fn binary(&mut self, data: impl Into<bytes::Bytes>) {
        soon(self.0.send(Message::Binary(data.into())))
            .await
            .expect("send");
    }

    pub async fn hello(&mut self, take: &str) {
        let hello = format!(
            r#"{{"type":"hello","session":null,"take":{{"id":"{take}","mime":"audio/webm","first":0,"next":0}}}}"#
        );
        self.text(&hello).await;
    }

    /// The next text, or how the connection ended. Pings are answered on the way.
    pub async fn next(&mut self) -> Result<String, Closed> {
        loop {
            match soon(self.0.next()).await {
                Some(Ok(Message::Text(text))) => return Ok(text.to_string()),
                Some(Ok(Message::Close(Some(frame)))) => return Err(Closed(frame.code.into())),
                Some(Ok(Message::Close(None))) => return Err(Closed(1005)),
                Some(Ok(Message::Binary(_))) => panic!("the server sends no binary"),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(Closed(1006)),
            }
        }
    }

    pub async fn said(&mut self) -> String {
        self.next().await.expect("a message")
    }

    pub async fn json(&mut self) -> Value {
        serde_json::from_str(&self.said().await).expect("JSON")
    }

    /// The end: the error's code, and the close code.
    pub async fn refused(&mut self) -> (String, u16) {
        let error = self.json().await;
        assert_eq!(error["type"], "error", "{error}");
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty())
        );
        let code = error["code"].as_str().expect("a code").to_owned();
        (code, self.closed().await)
    }

    /// The close code, which comes next.
    pub async fn closed(&mut self) -> u16 {
        match self.next().await {
            Err(Closed(code)) => code,
            Ok(text) => panic!("expected the close, not {text}"),
        }
    }
}
