//! The broadcaster against a server that follows a script.

use super::*;
use crate::broadcast::{Credentials, Pace, Reach, line::TargetError};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::{future::Future, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, tungstenite::Message};

const HEADER: &[u8] = &[0x1a, 0x45, 0xdf, 0xa3, 1, 2, 3];
const MEDIA: &[u8] = &[0x1f, 0x43, 0xb6, 0x75, 5, 6, 7, 8, 9, 10, 11, 12, 13];

fn file() -> Vec<u8> {
    [HEADER, MEDIA].concat()
}

/// The server's side of one connection.
struct Server(WebSocketStream<TcpStream>);

impl Server {
    /// Accepts the next connection, and gives its `hello`.
    async fn accept(listener: &TcpListener) -> (Self, Value) {
        let (stream, _) = listener.accept().await.expect("accept");
        let echo = |request: &http::Request<()>, mut response: http::Response<()>| {
            let offered = request.headers()["sec-websocket-protocol"].clone();
            response
                .headers_mut()
                .insert("sec-websocket-protocol", offered);
            Ok(response)
        };
        let mut server = Self(accept_hdr_async(stream, echo).await.expect("upgrade"));
        let hello = server.text().await;
        assert_eq!(hello["type"], "hello");
        (server, hello)
    }

    async fn say(&mut self, message: Value) {
        self.0
            .send(Message::text(message.to_string()))
            .await
            .expect("send");
    }

    async fn ready(&mut self, session: &str, take: &Value, offset: u64) {
        self.say(json!({
            "type": "ready", "session": session, "epoch": 1, "show_id": "7", "take": take,
            "offset": offset, "resumed": true, "recording": "recording", "grace_s": 30,
            "max_frame": 4
        }))
        .await;
    }

    async fn ack(&mut self, take: &Value, offset: u64) {
        self.say(json!({"type": "ack", "take": take, "offset": offset, "archived": 0}))
            .await;
    }

    async fn next(&mut self) -> Message {
        self.0.next().await.expect("open").expect("whole")
    }

    async fn text(&mut self) -> Value {
        let message = self.next().await;
        serde_json::from_str(message.to_text().expect("text")).expect("JSON")
    }

    async fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < count {
            let message = self.next().await;
            assert!(message.is_binary() && message.len() <= 4, "{message:?}");
            all.extend_from_slice(&message.into_data());
        }
        all
    }

    async fn finish(&mut self) {
        assert_eq!(self.text().await["type"], "stop");
        self.say(json!({"type": "archived", "recording": recording("archived")}))
            .await;
    }
}

fn recording(status: &str) -> Value {
    json!({
        "id": "S1", "show_id": "7", "version": "v", "status": status, "error": null,
        "started_at": "", "ended_at": null, "archived_at": null, "end_reason": null, "mime": "",
        "bytes": 20, "duration_ms": null, "takes": 1, "reconnects": 0, "gaps": [],
        "object_key": null, "markers": []
    })
}

/// Answers one HTTP request; gives its path.
async fn answer(listener: &TcpListener, body: &Value) -> String {
    let (mut stream, _) = listener.accept().await.expect("accept");
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.expect("a request"));
    }
    let body = body.to_string();
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length";
    let text = format!("{head}: {}\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).await.expect("answer");
    let request = String::from_utf8(request).expect("ascii");
    request.split(' ').nth(1).expect("a path").to_owned()
}

fn dialer(address: SocketAddr) -> Result<Dialer, TargetError> {
    let show = Credentials {
        show: "7".into(),
        user: "u".into(),
        token: None,
    };
    let reach = Reach::new(None).expect("no file");
    Dialer::new(&format!("ws://{address}"), show, &reach)
}

/// Broadcasts the file to a server that follows the script.
async fn broadcast<F: Future<Output = ()>>(
    stop: bool,
    script: impl FnOnce(TcpListener) -> F,
) -> (Result<Outcome, Error>, Tally) {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("show.webm");
    std::fs::write(&path, file()).expect("write");
    let pace = Pace {
        speed: 0.0,
        bytes_per_s: 1,
        chunk: Duration::from_secs(1),
    };
    let recorder = Recorder::open(&path, None, pace).await.expect("opens");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let dialer = dialer(listener.local_addr().expect("bound")).expect("an address");
    let wishes = Wishes {
        force: false,
        rehearse: false,
        stop,
        drop_every: None,
        retry_for: Duration::from_secs(60),
    };
    let (driver, tally) = Driver::new(recorder, dialer, wishes, Shutdown::new());
    let both = async { tokio::join!(driver.run(), script(listener)) };
    let (outcome, ()) = timeout(Duration::from_secs(30), both)
        .await
        .expect("no deadlock");
    let tally = tally.borrow().clone();
    (outcome, tally)
}

#[tokio::test]
async fn a_lost_connection_goes_on_where_the_server_says() {
    let (outcome, tally) = broadcast(false, async |listener| {
        let (mut server, hello) = Server::accept(&listener).await;
        assert_eq!(hello["session"], Value::Null);
        server.ready("S1", &hello["take"]["id"], 0).await;
        assert_eq!(server.bytes(20).await, file());
        drop(server);
        let (mut server, again) = Server::accept(&listener).await;
        assert_eq!(again["session"], "S1");
        assert_eq!(again["take"], json!({"id": hello["take"]["id"], "mime": "audio/webm;codecs=opus", "first": 0, "next": 20}));
        server.ready("S1", &hello["take"]["id"], 9).await;
        assert_eq!(server.bytes(11).await, file()[9..]);
        server.ack(&hello["take"]["id"], 20).await;
        assert!(server.next().await.is_close());
    })
    .await;
    assert!(matches!(outcome, Ok(Outcome::Left { session }) if session == "S1"));
    assert_eq!((tally.sent, tally.reconnects), (20, 1));
}

#[tokio::test]
async fn in_a_new_session_the_header_and_the_unacknowledged_rest_are_a_new_take() {
    let (outcome, _) = broadcast(true, async |listener| {
        let (mut server, hello) = Server::accept(&listener).await;
        let take = &hello["take"]["id"];
        server.ready("S1", take, 0).await;
        assert_eq!(server.bytes(20).await, file());
        server.ack(take, 12).await;
        // The stop proves that the ack is not overtaken by the loss below.
        assert_eq!(server.text().await["type"], "stop");
        server
            .say(json!({"type": "error", "code": "AC_DRAINING", "message": "x", "retry_ms": 1}))
            .await;
        drop(server);
        let status = json!({"session": "S1", "state": "live"});
        assert_eq!(
            answer(&listener, &status).await,
            "/api/stream/status?show_id=7"
        );
        let (mut server, hello) = Server::accept(&listener).await;
        server.ready("S2", &hello["take"]["id"], 0).await;
        let next = server.text().await;
        assert_eq!(next["type"], "take");
        assert_ne!(next["take"]["id"], *take);
        let expected = [HEADER, &file()[12..]].concat();
        assert_eq!(next["take"]["next"], expected.len());
        server.ready("S2", &next["take"]["id"], 0).await;
        assert_eq!(server.bytes(expected.len()).await, expected);
        server.finish().await;
    })
    .await;
    assert!(matches!(outcome, Ok(Outcome::Ended(_))));
}

#[tokio::test]
async fn a_session_that_was_told_to_stop_is_asked_after_and_never_begun_again() {
    let (outcome, _) = broadcast(true, async |listener| {
        let (mut server, hello) = Server::accept(&listener).await;
        server.ready("S1", &hello["take"]["id"], 0).await;
        server.bytes(20).await;
        assert_eq!(server.text().await["type"], "stop");
        drop(server);
        answer(&listener, &json!({"session": "S1", "state": "finalizing"})).await;
        let path = answer(&listener, &recording("finalizing")).await;
        assert_eq!(path, "/api/recordings/S1");
        answer(&listener, &json!({"session": null, "state": "idle"})).await;
        answer(&listener, &recording("failed")).await;
    })
    .await;
    assert!(
        matches!(outcome, Ok(Outcome::Ended(recording)) if recording.status.as_str() == "failed")
    );
}

#[tokio::test]
async fn without_a_stop_it_leaves_only_when_everything_is_durable() {
    let (outcome, tally) = broadcast(false, async |listener| {
        let (mut server, hello) = Server::accept(&listener).await;
        let take = &hello["take"]["id"];
        server.ready("S1", take, 0).await;
        server.bytes(20).await;
        server.ack(take, 19).await;
        server.ack(&json!("another take"), 20).await;
        server.ack(take, 20).await;
        assert!(server.next().await.is_close());
    })
    .await;
    assert!(matches!(outcome, Ok(Outcome::Left { session }) if session == "S1"));
    assert_eq!(tally.durable, 20);
}

#[tokio::test]
async fn a_refusal_is_final() {
    let (outcome, _) = broadcast(true, async |listener| {
        let (mut server, _) = Server::accept(&listener).await;
        server
            .say(
                json!({"type": "error", "code": "AC_CONFLICT", "message": "why", "retry_ms": null}),
            )
            .await;
        server.0.close(None).await.expect("close");
    })
    .await;
    assert!(matches!(outcome, Err(Error::Refused(fault)) if fault.message == "why"));
}
