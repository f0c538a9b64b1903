//! A broadcaster that speaks `aircheck.v1`, written against the contract.
//!
//! Owns the client's half of the bargain: it keeps what is not acknowledged, resumes where `ready`
//! says, and forgets what is below an ack. It checks every answer on the way: offsets that go back,
//! epochs that don't rise and acks of bytes that were never sent end the test.

use crate::{
    capture::Capture,
    http,
    socket::{Heard, Refused, SUBPROTOCOL, Socket},
    wait::{HANG, HEALED, eventually, within},
};
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};

/// Why a connection is over.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Close code; [`crate::socket::ABNORMAL`] if there was no close frame.
    pub close: u16,
    /// The `error` message before it, if there was one.
    pub error: Option<Value>,
}

impl Ended {
    /// Close code and the error's code.
    #[must_use]
    pub fn codes(&self) -> (u16, &str) {
        let code = self.error.as_ref().and_then(|error| error["code"].as_str());
        (self.close, code.unwrap_or_default())
    }
}

/// One broadcaster of one show, with one capture to send.
#[derive(Debug)]
pub struct Broadcaster {
    /// Where it connects next time.
    pub server: SocketAddr,
    show: String,
    take: String,
    capture: Capture,
    socket: Option<Socket>,
    /// The session it believes in.
    pub session: Option<String>,
    /// Of the last connection.
    pub epoch: u64,
    /// Of the last connection that heard an ack of bytes of its own: no crash takes it back.
    lasting_epoch: u64,
    /// Where the last connection began.
    began: u64,
    /// The next byte to send.
    pub position: usize,
    /// Furthest byte ever sent.
    sent: usize,
    /// Below this: durable, and forgotten here.
    pub acked: u64,
    /// Below this: archived.
    pub archived: u64,
    /// Everything heard but acks, in order.
    pub heard: Vec<Value>,
    /// Connections that became ready.
    pub connections: u32,
    /// Pause after each chunk.
    pub pace: Duration,
}

impl Broadcaster {
    /// Not yet connected.
    #[must_use]
    pub fn new(server: SocketAddr, show: &str, capture: Capture) -> Self {
        Self {
            server,
            show: show.to_owned(),
            take: format!("{show}-take"),
            capture,
            socket: None,
            session: None,
            epoch: 0,
            lasting_epoch: 0,
            began: 0,
            position: 0,
            sent: 0,
            acked: 0,
            archived: 0,
            heard: Vec::new(),
            connections: 0,
            pace: Duration::from_millis(2),
        }
    }

    /// Connected and ready for the capture's first byte.
    pub async fn live(server: SocketAddr, show: &str, capture: Capture) -> Self {
        let mut broadcaster = Self::new(server, show, capture);
        let ready = broadcaster.connect().await.expect("a new show goes live");
        assert_eq!(
            (&ready["offset"], &ready["resumed"]),
            (&json!(0), &json!(false)),
            "{ready}"
        );
        broadcaster
    }

    /// What it sends.
    #[must_use]
    pub fn capture(&self) -> &Capture {
        &self.capture
    }

    /// Says hello and waits for ready, whose offset is where sending goes on.
    ///
    /// # Errors
    /// The server's refusal.
    ///
    /// # Panics
    /// If ready breaks the contract.
    pub async fn connect(&mut self) -> Result<Value, Ended> {
        let query = format!("?show_id={}", self.show);
        let mut socket = match Socket::open(self.server, &query, Some(SUBPROTOCOL)).await {
            Ok(socket) => socket,
            Err(Refused::Unreachable(_)) => {
                return Err(Ended {
                    close: crate::socket::ABNORMAL,
                    error: None,
                });
            }
            Err(refused) => {
                panic!("the upgrade to {SUBPROTOCOL} is always accepted, but: {refused:?}")
            }
        };
        let take = json!({"id": self.take, "mime": self.capture.mime, "first": self.acked, "next": self.sent});
        socket
            .text(json!({"type": "hello", "session": self.session, "take": take}).to_string())
            .await;
        self.socket = Some(socket);
        let mut ready = self.next().await?;
        while ready["type"] == "error" {
            // The close that follows carries the refusal.
            ready = self.next().await?;
        }
        self.agree(&ready);
        Ok(ready)
    }

    fn agree(&mut self, ready: &Value) {
        assert_eq!(ready["type"], "ready", "{ready}");
        assert_eq!(ready["show_id"], json!(self.show), "{ready}");
        assert_eq!(ready["take"], json!(self.take), "{ready}");
        let session = ready["session"]
            .as_str()
            .expect("ready names the session")
            .to_owned();
        let epoch = ready["epoch"].as_u64().expect("ready has an epoch");
        let offset = ready["offset"].as_u64().expect("ready has an offset");
        let largest = self.capture.chunks().map(|chunk| chunk.len() as u64).max();
        assert!(ready["max_frame"].as_u64() >= largest, "{ready}");
        if self.session.as_ref() == Some(&session) {
            assert!(
                epoch > self.lasting_epoch,
                "epochs rise: {} then {ready}",
                self.lasting_epoch
            );
            assert!(
                offset >= self.acked,
                "what was acknowledged ({}) is never asked for again: {ready}",
                self.acked
            );
        } else {
            self.acked = 0;
            self.archived = 0;
            self.lasting_epoch = 0;
        }
        self.began = offset;
        assert!(
            offset <= self.sent as u64,
            "{} bytes were sent, but {ready}",
            self.sent
        );
        self.position = usize::try_from(offset).expect("an offset fits");
        (self.session, self.epoch) = (Some(session), epoch);
        self.connections += 1;
    }

    /// Connects again and again until the server is ready.
    ///
    /// # Panics
    /// If it is not within [`HEALED`].
    pub async fn resume(&mut self) -> Value {
        let deadline = tokio::time::Instant::now() + HEALED;
        loop {
            match self.connect().await {
                Ok(ready) => return ready,
                Err(ended) => {
                    let late = tokio::time::Instant::now() > deadline;
                    assert!(!late, "could not resume within {HEALED:?}: {ended:?}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Begins another run of its encoder, which will send `capture`.
    ///
    /// # Errors
    /// If the connection ends instead.
    ///
    /// # Panics
    /// If ready breaks the contract.
    pub async fn begin_take(&mut self, id: &str, capture: Capture) -> Result<Value, Ended> {
        let take = json!({"id": id, "mime": capture.mime, "first": 0, "next": 0});
        (self.take, self.capture) = (id.to_owned(), capture);
        (self.position, self.sent, self.acked, self.archived) = (0, 0, 0, 0);
        self.began = 0;
        self.say(json!({"type": "take", "take": take})).await;
        let ready = self.next_of("ready").await?;
        assert_eq!(
            (&ready["take"], &ready["offset"]),
            (&json!(id), &json!(0)),
            "{ready}"
        );
        Ok(ready)
    }

    /// Sends whole chunks until `offset` or more is sent. Hears what comes meanwhile.
    ///
    /// # Errors
    /// If the connection ends.
    pub async fn send_to(&mut self, offset: usize) -> Result<(), Ended> {
        while self.position < offset {
            let Some(chunk) = self.capture.chunk_at(self.position) else {
                break;
            };
            self.position += chunk.len();
            self.sent = self.sent.max(self.position);
            self.socket_mut().binary(chunk).await;
            self.hear_pending()?;
            if !self.pace.is_zero() {
                tokio::time::sleep(self.pace).await;
            }
        }
        Ok(())
    }

    /// Sends everything.
    ///
    /// # Errors
    /// If the connection ends.
    pub async fn send_all(&mut self) -> Result<(), Ended> {
        self.send_to(self.capture.len()).await
    }

    /// Waits until everything below `offset` is acknowledged.
    ///
    /// # Errors
    /// If the connection ends.
    pub async fn acked_to(&mut self, offset: usize) -> Result<(), Ended> {
        while self.acked < offset as u64 {
            let heard = self.hear().await?;
            self.keep(heard);
        }
        Ok(())
    }

    /// Hears until the server ends the connection, which may take it as long as noticing that another
    /// service is gone.
    ///
    /// # Panics
    /// If it does not within `limit`.
    pub async fn sent_away(&mut self, limit: Duration) -> Ended {
        within(limit, "the server ends the connection", async {
            loop {
                let heard = self.socket_mut().read().await;
                match self.understand(heard) {
                    Ok(message) => self.keep(message),
                    Err(ended) => return ended,
                }
            }
        })
        .await
    }

    /// The next message that is no ack.
    ///
    /// # Errors
    /// If the connection ends.
    ///
    /// # Panics
    /// If none comes within [`HANG`]: acks and pings go on whatever the services are waiting for.
    pub async fn next(&mut self) -> Result<Value, Ended> {
        let hear = async {
            loop {
                if let Some(message) = self.hear().await? {
                    self.heard.push(message.clone());
                    return Ok(message);
                }
            }
        };
        within(HANG, "a message that is no ack", hear).await
    }

    /// The next message of that type; others are kept in `heard`.
    ///
    /// # Errors
    /// If the connection ends.
    pub async fn next_of(&mut self, kind: &str) -> Result<Value, Ended> {
        loop {
            let message = self.next().await?;
            if message["type"] == kind {
                return Ok(message);
            }
        }
    }

    /// Any message in JSON.
    pub async fn say(&mut self, message: Value) {
        self.socket_mut().text(message.to_string()).await;
    }

    /// Says stop and waits until the session is sealed.
    ///
    /// # Panics
    /// If the connection ends first.
    pub async fn seal(&mut self) {
        self.say(json!({"type": "stop"})).await;
        self.next_of("finalizing").await.expect("stop is heard");
    }

    /// Stops and waits for the recording.
    ///
    /// # Errors
    /// If the connection ends before it is final.
    pub async fn stop(&mut self) -> Result<Value, Ended> {
        self.say(json!({"type": "stop"})).await;
        loop {
            let message = self.next().await?;
            match message["type"].as_str() {
                Some("archived" | "failed") => {
                    let closed = self.next().await.expect_err("nothing follows the end");
                    assert_eq!(closed.close, 1000, "the end is followed by a clean close");
                    return Ok(message["recording"].clone());
                }
                Some("finalizing" | "state" | "error") => {}
                _ => panic!("not what follows stop: {message}"),
            }
        }
    }

    /// Resets the TCP connection, without a close frame.
    ///
    /// # Panics
    /// If there is no connection.
    pub fn reset(&mut self) {
        self.socket.take().expect("a connection to reset").reset();
    }

    /// Leaves the connection as it is, open and deaf, and forgets it here.
    ///
    /// # Panics
    /// If there is no connection.
    #[must_use = "the connection closes when dropped"]
    pub fn abandon(&mut self) -> Socket {
        self.socket.take().expect("a connection to abandon")
    }

    /// Sends the whole capture and stops, through whatever happens to the servers meanwhile.
    ///
    /// # Panics
    /// If the show can't be brought to its end.
    pub async fn survive(&mut self) {
        loop {
            if self.socket.is_none() {
                self.resume().await;
            }
            if self.send_all().await.is_ok() {
                break;
            }
            self.socket = None;
        }
        // Whether a stop was heard can't be known when the connection dies: the status tells.
        while self.stop().await.is_err() {
            self.socket = None;
            if self.is_over().await {
                return;
            }
            self.resume().await;
            if self.send_all().await.is_err() {
                self.socket = None;
                self.resume().await;
            }
        }
    }

    /// Whether the session has ended, by what the services say. One that nobody knows any more was lost by a
    /// crash, and the show goes on in another.
    async fn is_over(&self) -> bool {
        let status = format!("/api/stream/status?show_id={}", self.show);
        let status = self.look("the status of the show", &status).await;
        match status["state"].as_str() {
            Some("live" | "grace") => return false,
            Some("finalizing") => return true,
            _ => {}
        }
        let session = self.session.as_deref().unwrap_or_default();
        let recording = format!("/api/recordings/{session}");
        let recording = self.look("the recording of the session", &recording).await;
        let is_known = recording["id"] == json!(session);
        assert!(
            is_known || self.acked == 0,
            "an acknowledged session is lost"
        );
        is_known
    }

    /// An answer in JSON, as soon as there is one that says yes or no.
    async fn look(&self, what: &str, path: &str) -> Value {
        eventually(HEALED, what, || async {
            let answer = http::get(self.server, path)
                .await
                .map_err(|error| error.to_string())?;
            match answer.status {
                200 => Ok(answer.json()),
                404 => Ok(Value::Null),
                status => Err(format!("status {status}: {:?}", answer.body)),
            }
        })
        .await
    }

    fn socket_mut(&mut self) -> &mut Socket {
        self.socket.as_mut().expect("the broadcaster is connected")
    }

    /// Messages that are here already.
    fn hear_pending(&mut self) -> Result<(), Ended> {
        while let Some(heard) = self.socket_mut().try_next() {
            let message = self.understand(heard)?;
            self.keep(message);
        }
        Ok(())
    }

    fn keep(&mut self, message: Option<Value>) {
        self.heard.extend(message);
    }

    /// The next message; `None` is an ack.
    async fn hear(&mut self) -> Result<Option<Value>, Ended> {
        let heard = self.socket_mut().next().await;
        self.understand(heard)
    }

    fn understand(&mut self, heard: Heard) -> Result<Option<Value>, Ended> {
        let text = match heard {
            Heard::Text(text) => text,
            Heard::Closed(close) => {
                self.socket = None;
                let error = self
                    .heard
                    .last()
                    .filter(|last| last["type"] == "error")
                    .cloned();
                return Err(Ended { close, error });
            }
        };
        let message: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        if message["type"] != "ack" {
            return Ok(Some(message));
        }
        if message["take"] != json!(self.take) {
            // Of the take before, on its way when this one began.
            return Ok(None);
        }
        let field = |name: &str| {
            message[name]
                .as_u64()
                .unwrap_or_else(|| panic!("{name} in {message}"))
        };
        let (offset, archived) = (field("offset"), field("archived"));
        assert!(
            offset >= self.acked,
            "acks never go back: {} then {message}",
            self.acked
        );
        assert!(
            offset <= self.sent as u64,
            "{} bytes were sent, but {message}",
            self.sent
        );
        assert!(
            archived >= self.archived && archived <= offset,
            "{} then {message}",
            self.archived
        );
        (self.acked, self.archived) = (offset, archived);
        if offset > self.began {
            self.lasting_epoch = self.epoch;
        }
        Ok(None)
    }
}
