//! What waits to be written to a broadcaster.
//!
//! Owns coalescing: of acks, states and progress only the latest of a kind waits, so that a client
//! that reads slowly holds up nothing and costs nothing. Must never drop what is not repeated.

use aircheck_core::wire::FromServer;
use std::collections::VecDeque;
use tokio_tungstenite::tungstenite::{
    Bytes, Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

/// Above this many waiting messages the client has to read before it is read.
const CROWDED: usize = 16;

/// One waiting message, written out only when its turn comes.
#[derive(Debug)]
enum Waiting {
    Message(FromServer),
    Text(String),
    Ping,
    Close(CloseFrame),
}

/// Waiting messages, in order.
#[derive(Debug, Default)]
pub(crate) struct Outbox(VecDeque<Waiting>);

impl Outbox {
    /// Queues a message of `aircheck.v1`, in the place of an older one that it makes worthless.
    pub(crate) fn say(&mut self, message: FromServer) {
        let older = self.0.iter_mut().find(|waiting| match waiting {
            Waiting::Message(older) => replaces(&message, older),
            Waiting::Text(_) | Waiting::Ping | Waiting::Close(_) => false,
        });
        match older {
            Some(older) => *older = Waiting::Message(message),
            None => self.0.push_back(Waiting::Message(message)),
        }
    }

    /// Queues text as it is.
    pub(crate) fn text(&mut self, text: impl Into<String>) {
        self.0.push_back(Waiting::Text(text.into()));
    }

    /// Queues a ping, unless one waits already.
    pub(crate) fn ping(&mut self) {
        if !self
            .0
            .iter()
            .any(|waiting| matches!(waiting, Waiting::Ping))
        {
            self.0.push_back(Waiting::Ping);
        }
    }

    /// Queues the close; nothing may follow.
    pub(crate) fn close(&mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame {
            code: CloseCode::from(code),
            reason: reason.into(),
        };
        self.0.push_back(Waiting::Close(frame));
    }

    /// Whether so much waits that the client should not be read.
    pub(crate) fn is_crowded(&self) -> bool {
        self.0.len() >= CROWDED
    }

    /// The next message as it goes to the wire.
    pub(crate) fn pop(&mut self) -> Option<Message> {
        Some(match self.0.pop_front()? {
            Waiting::Message(message) => {
                let json = serde_json::to_string(&message);
                Message::text(json.expect("messages of the contract are plain JSON objects"))
            }
            Waiting::Text(text) => Message::text(text),
            Waiting::Ping => Message::Ping(Bytes::new()),
            Waiting::Close(frame) => Message::Close(Some(frame)),
        })
    }
}

/// Whether `newer` says everything that `older` said.
fn replaces(newer: &FromServer, older: &FromServer) -> bool {
    match (newer, older) {
        (FromServer::Ack { take: newer, .. }, FromServer::Ack { take: older, .. }) => {
            newer == older
        }
        (FromServer::State { .. }, FromServer::State { .. })
        | (FromServer::Finalizing { .. }, FromServer::Finalizing { .. }) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(take: &str, offset: u64) -> FromServer {
        FromServer::Ack {
            take: take.to_owned(),
            offset,
            archived: 0,
        }
    }

    fn drain(outbox: &mut Outbox) -> Vec<String> {
        std::iter::from_fn(|| outbox.pop())
            .map(|m| m.to_string())
            .collect()
    }

    #[test]
    fn only_the_latest_ack_of_a_take_waits() {
        let mut outbox = Outbox::default();
        for offset in 1..=1000 {
            outbox.say(ack("a", offset));
        }
        outbox.say(ack("b", 1));
        let written = drain(&mut outbox);
        assert_eq!(
            written,
            [
                r#"{"type":"ack","take":"a","offset":1000,"archived":0}"#,
                r#"{"type":"ack","take":"b","offset":1,"archived":0}"#
            ]
        );
    }

    #[test]
    fn what_is_not_repeated_is_never_replaced() {
        let mut outbox = Outbox::default();
        let error = |code: &str| FromServer::Error {
            code: code.to_owned(),
            message: String::new(),
            retry_ms: None,
        };
        outbox.say(error("AC_A"));
        outbox.say(error("AC_B"));
        assert_eq!(drain(&mut outbox).len(), 2);
    }

    #[test]
    fn a_crowd_of_pings_is_one_ping() {
        let mut outbox = Outbox::default();
        for _ in 0..100 {
            outbox.ping();
        }
        assert!(!outbox.is_crowded());
        assert_eq!(drain(&mut outbox).len(), 1);
    }
}
