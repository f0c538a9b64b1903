//! A broadcaster that speaks the plain dialect.
//!
//! Owns its four words; must never know more of the server than such a client does.

use crate::{
    capture::Capture,
    socket::{ABNORMAL, Heard, Refused, Socket},
};
use std::net::SocketAddr;

/// A plain connection that is live.
#[derive(Debug)]
pub struct Plain(pub Socket);

impl Plain {
    /// Connects and waits for `connected`.
    ///
    /// # Errors
    /// The refusal: HTTP status and error code.
    ///
    /// # Panics
    /// If the server can't be reached.
    pub async fn connect(server: SocketAddr, query: &str) -> Result<Self, (u16, String)> {
        match Socket::open(server, query, None).await {
            Ok(mut socket) => {
                assert_eq!(socket.said().await, "connected");
                Ok(Self(socket))
            }
            Err(Refused::Http(status, body)) => {
                assert!(
                    body["error"]["message"].is_string(),
                    "a refusal explains itself: {body}"
                );
                Err((
                    status,
                    body["error"]["code"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                ))
            }
            Err(Refused::Unreachable(error)) => panic!("{error}"),
        }
    }

    /// Sends all chunks.
    pub async fn send(&mut self, capture: &Capture) {
        for chunk in capture.chunks() {
            self.0.binary(chunk).await;
        }
    }

    /// Stops and waits for the close.
    ///
    /// # Panics
    /// If it is not a clean one.
    pub async fn stop(mut self) {
        self.0.text("stop").await;
        let mut said = Vec::new();
        let code = self.0.closed(&mut said).await;
        assert_eq!(
            (code, &said),
            (1000, &Vec::new()),
            "stop closes cleanly and without a word"
        );
    }

    /// How it ended: the text after `error: `, and the close code.
    pub async fn refused(&mut self) -> (String, u16) {
        let mut said = Vec::new();
        let code = self.0.closed(&mut said).await;
        let error = said.iter().find_map(|text| text.strip_prefix("error: "));
        (error.unwrap_or_default().to_owned(), code)
    }

    /// Whether the server has said nothing so far.
    pub fn is_quiet(&mut self) -> bool {
        match self.0.try_next() {
            None => true,
            Some(Heard::Closed(code)) => {
                panic!("closed with {code} ({ABNORMAL} is a lost connection)")
            }
            Some(Heard::Text(text)) => panic!("unexpected text: {text}"),
        }
    }
}
