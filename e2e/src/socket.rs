//! A WebSocket that reports what it hears, and can vanish in unfriendly ways.
//!
//! Owns the connection; must never know a dialect.

use bytes::Bytes;
use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use serde_json::Value;
use std::{net::SocketAddr, time::Duration};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error, Message, client::IntoClientRequest as _, http::HeaderValue,
        protocol::WebSocketConfig,
    },
};

use crate::wait::{soon, within};

/// The subprotocol of browsers.
pub const SUBPROTOCOL: &str = "aircheck.v1";
/// Close code of a connection that ended without a close frame (RFC 6455).
pub const ABNORMAL: u16 = 1006;

/// The server's longest timeout of a connection that must end, 10 s for a hello, and some more.
const CLOSES: Duration = Duration::from_secs(18);

/// Why no socket was opened.
#[derive(Clone, Debug)]
pub enum Refused {
    /// The server answered with this status and body.
    Http(u16, Value),
    /// There is no server, or it went away.
    Unreachable(String),
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A text message.
    Text(String),
    /// The end, with its code; [`ABNORMAL`] if there was no close frame.
    Closed(u16),
}

/// An open WebSocket.
#[derive(Debug)]
pub struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    /// Opens `/ws/stream` with that query; `subprotocol` chooses the dialect.
    ///
    /// # Errors
    /// The server's refusal.
    ///
    /// # Panics
    /// If the server echoes a subprotocol that was not offered, or the reverse.
    pub async fn open(
        address: SocketAddr,
        query: &str,
        subprotocol: Option<&'static str>,
    ) -> Result<Self, Refused> {
        let url = format!("ws://{address}/ws/stream{query}");
        let mut request = url
            .into_client_request()
            .expect("the tests' URLs are valid");
        if let Some(name) = subprotocol {
            request
                .headers_mut()
                .insert("sec-websocket-protocol", HeaderValue::from_static(name));
        }
        let unreachable = |error: &dyn std::fmt::Display| Refused::Unreachable(error.to_string());
        let stream = soon("a TCP connection", TcpStream::connect(address)).await;
        let stream = stream.map_err(|error| unreachable(&error))?;
        stream
            .set_nodelay(true)
            .map_err(|error| unreachable(&error))?;
        let config = WebSocketConfig::default()
            .max_write_buffer_size(16 << 20)
            .write_buffer_size(0);
        match soon(
            "the upgrade",
            client_async_with_config(request, stream, Some(config)),
        )
        .await
        {
            Ok((socket, response)) => {
                let echoed = response.headers().get("sec-websocket-protocol");
                let echoed = echoed.and_then(|name| name.to_str().ok());
                assert_eq!(
                    echoed, subprotocol,
                    "the server answers with the offered subprotocol"
                );
                Ok(Self(socket))
            }
            Err(Error::Http(response)) => {
                let body = response.body().clone().unwrap_or_default();
                let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
                Err(Refused::Http(response.status().as_u16(), json))
            }
            Err(error) => Err(unreachable(&error)),
        }
    }

    /// Sends text. A connection that has ended says so at the next [`Socket::next`].
    pub async fn text(&mut self, text: impl Into<String>) {
        self.send(Message::text(text.into())).await;
    }

    /// Sends media. A connection that has ended says so at the next [`Socket::next`].
    pub async fn binary(&mut self, data: impl Into<Bytes>) {
        self.send(Message::Binary(data.into())).await;
    }

    async fn send(&mut self, message: Message) {
        // The peer may close while we send; what matters is why, and that is read.
        drop(soon("the server takes a message", self.0.send(message)).await);
    }

    /// What comes next. Pings are answered on the way.
    ///
    /// # Panics
    /// If nothing comes in time, or binary, which the server never sends.
    pub async fn next(&mut self) -> Heard {
        soon("the server says something", self.read()).await
    }

    /// What has come already, if anything. Pings are answered on the way.
    pub fn try_next(&mut self) -> Option<Heard> {
        self.read().now_or_never()
    }

    /// As [`Socket::next`], without a deadline. Safe to drop half-way.
    pub async fn read(&mut self) -> Heard {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => return Heard::Text(text.to_string()),
                Some(Ok(Message::Close(frame))) => {
                    // 1005 is RFC 6455's word for a close frame without a code.
                    return Heard::Closed(frame.map_or(1005, |frame| frame.code.into()));
                }
                Some(Ok(Message::Binary(_))) => panic!("the server never sends binary"),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Heard::Closed(ABNORMAL),
            }
        }
    }

    /// The next text.
    ///
    /// # Panics
    /// If the connection ends instead.
    pub async fn said(&mut self) -> String {
        match self.next().await {
            Heard::Text(text) => text,
            Heard::Closed(code) => {
                panic!("expected a message, but the connection closed with {code}")
            }
        }
    }

    /// The close code; texts on the way are collected into `said`.
    ///
    /// # Panics
    /// If the server does not close in time.
    pub async fn closed(&mut self, said: &mut Vec<String>) -> u16 {
        let closing = async {
            loop {
                match self.read().await {
                    Heard::Text(text) => said.push(text),
                    Heard::Closed(code) => return code,
                }
            }
        };
        within(CLOSES, "the server closes the connection", closing).await
    }

    /// Resets the TCP connection: no close frame, no FIN.
    pub fn reset(self) {
        let stream = self.0.get_ref();
        stream
            .set_zero_linger()
            .expect("a socket of ours takes an option");
    }
}
