//! Messages of the browser dialect `aircheck.v1`, as JSON.
//!
//! Owns field names and limits of the text messages; must never know how they travel.

use crate::{recording::Recording, sheet::Sheet};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest name a client may give a take, in characters.
pub const TAKE_ID_MAX: usize = 64;
/// Longest content type, in characters.
pub const MIME_MAX: usize = 128;
/// Longest label of a marker, in characters.
pub const LABEL_MAX: usize = 256;
/// Longest title of a show, in characters.
pub const TITLE_MAX: usize = 200;
/// Longest grace of a show, in seconds.
pub const GRACE_MAX_S: u64 = 1800;
/// Largest chunk, in bytes.
pub const MAX_FRAME: usize = 1 << 20;
/// Largest text message, in bytes.
pub const MAX_TEXT: usize = 64 << 10;

/// The client's view of one encoder run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Take {
    /// The client's own name of it.
    pub id: String,
    /// Content type.
    pub mime: String,
    /// Lowest offset the client can still send.
    #[serde(default)]
    pub first: u64,
    /// Bytes recorded so far.
    #[serde(default)]
    pub next: u64,
}

/// What a client says in text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum FromClient {
    /// The first message.
    Hello {
        /// The session the client believes in.
        #[serde(default)]
        session: Option<String>,
        /// What it is about to send.
        take: Take,
    },
    /// A new encoder run begins.
    Take {
        /// What it is about to send.
        take: Take,
    },
    /// A point in the timeline.
    Marker {
        /// What the broadcaster calls it.
        label: String,
        /// `track`, `chapter` or `note`.
        #[serde(default = "note")]
        kind: String,
    },
    /// The end, after the last chunk.
    Stop,
}

fn note() -> String {
    "note".to_owned()
}

/// Why a text message was refused.
#[derive(Debug, Error)]
pub enum MessageError {
    /// Not JSON, not an object with a known `type`, or fields missing.
    #[error("not a message of aircheck.v1: {0}")]
    Json(#[from] serde_json::Error),
    /// A take's id is empty or beyond [`TAKE_ID_MAX`].
    #[error("take.id must have 1 to {TAKE_ID_MAX} characters")]
    TakeId,
    /// A content type beyond [`MIME_MAX`].
    #[error("take.mime must have at most {MIME_MAX} characters")]
    Mime,
    /// `first` beyond `next`.
    #[error("take.first must not be beyond take.next")]
    Offsets,
    /// A label that is empty or beyond [`LABEL_MAX`].
    #[error("marker.label must have 1 to {LABEL_MAX} characters")]
    Label,
    /// A kind of marker that does not exist.
    #[error("marker.kind must be track, chapter or note")]
    Kind,
}

impl Take {
    /// Checks the limits.
    ///
    /// # Errors
    /// The first limit that is broken.
    pub fn check(&self) -> Result<(), MessageError> {
        if self.id.is_empty() || self.id.chars().count() > TAKE_ID_MAX {
            return Err(MessageError::TakeId);
        }
        if self.mime.chars().count() > MIME_MAX {
            return Err(MessageError::Mime);
        }
        if self.first > self.next {
            return Err(MessageError::Offsets);
        }
        Ok(())
    }
}

/// Checks a marker's limits.
///
/// # Errors
/// The first limit that is broken.
pub fn check_marker(label: &str, kind: &str) -> Result<(), MessageError> {
    if label.is_empty() || label.chars().count() > LABEL_MAX {
        return Err(MessageError::Label);
    }
    if !matches!(kind, "track" | "chapter" | "note") {
        return Err(MessageError::Kind);
    }
    Ok(())
}

impl FromClient {
    /// Reads and checks a text message.
    ///
    /// # Errors
    /// If it is no message, or breaks a limit.
    pub fn parse(text: &str) -> Result<Self, MessageError> {
        let message: Self = serde_json::from_str(text)?;
        match &message {
            Self::Hello { take, .. } | Self::Take { take } => take.check()?,
            Self::Marker { label, kind } => check_marker(label, kind)?,
            Self::Stop => {}
        }
        Ok(message)
    }
}

/// Health of the recording branch, as clients see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordingState {
    /// Chunks reach the disk.
    Recording,
    /// They don't; the live branch goes on.
    Failed,
}

/// A server that the live branch is carried on to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sink {
    /// Its URL without credentials and stream key.
    pub name: String,
    /// `starting`, `up` or `down`.
    pub state: String,
    /// Why it is down.
    pub error: Option<String>,
    /// Whole clusters that it did not carry.
    pub lost_clusters: u64,
    /// How often it began anew after a failure.
    pub restarts: u64,
}

/// The session a client named in `hello`, when it is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// Its id.
    pub session: String,
    /// `finalizing`, `archived` or `failed`.
    pub status: String,
}

/// What the server says in text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum FromServer {
    /// Answer to `hello` and `take`.
    Ready {
        /// The session.
        session: String,
        /// This connection's fencing token.
        epoch: u64,
        /// The show.
        show_id: String,
        /// The client's name of the take.
        take: String,
        /// Send from here on.
        offset: u64,
        /// Whether the session is the one the client named.
        resumed: bool,
        /// Health of the recording branch.
        recording: RecordingState,
        /// How long the session waits for a lost client, in seconds.
        grace_s: u64,
        /// Largest binary message, in bytes.
        max_frame: u64,
        /// The session the client named, when it is over.
        #[serde(skip_serializing_if = "Option::is_none")]
        previous: Option<Previous>,
    },
    /// Progress of durability.
    Ack {
        /// The client's name of the take.
        take: String,
        /// Below this: synced on the ingest's disk.
        offset: u64,
        /// Below this: in an S3 part.
        archived: u64,
    },
    /// State of both branches, on every change.
    State {
        /// Whether the show is on air.
        live: bool,
        /// Health of the recording branch.
        recording: RecordingState,
        /// What is wrong with it.
        error: Option<String>,
        /// How many listen.
        listeners: u64,
        /// Where the live branch is carried on to.
        #[serde(default)]
        sinks: Vec<Sink>,
        /// What somebody may want to look at: `no_data`, `silence`, `clipping`.
        #[serde(default)]
        alarms: Vec<String>,
    },
    /// Progress after stop.
    Finalizing {
        /// Bytes of the session.
        bytes: u64,
        /// How many of them are archived.
        archived: u64,
    },
    /// Of a rehearsal, before its end.
    Sheet(Sheet),
    /// The end: the archive is complete.
    Archived {
        /// The recording.
        recording: Box<Recording>,
    },
    /// The end: the recording is incomplete.
    Failed {
        /// The recording.
        recording: Box<Recording>,
    },
    /// Before a 4xxx close.
    Error {
        /// `AC_` and the reason.
        code: String,
        /// For people.
        message: String,
        /// When a retry makes sense, in milliseconds.
        retry_ms: Option<u64>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_reads_as_the_contract_writes_it() {
        let text = r#"{"type":"hello","session":null,"take":{"id":"t1","mime":"audio/webm;codecs=opus","first":0,"next":10}}"#;
        let take = Take {
            id: "t1".into(),
            mime: "audio/webm;codecs=opus".into(),
            first: 0,
            next: 10,
        };
        let hello = FromClient::Hello {
            session: None,
            take,
        };
        assert_eq!(FromClient::parse(text).expect("hello"), hello);
    }

    #[test]
    fn malformed_messages_are_refused() {
        let long = "x".repeat(65);
        for bad in [
            "",
            "stop",
            "[]",
            "{}",
            r#"{"type":"nonsense"}"#,
            r#"{"type":"hello"}"#,
            r#"{"type":"hello","take":{"id":"","mime":"a"}}"#,
            r#"{"type":"take","take":{"id":"a","mime":"a","first":2,"next":1}}"#,
            r#"{"type":"take","take":{"id":"a","mime":"a","first":-1,"next":1}}"#,
            r#"{"type":"marker","label":"","kind":"note"}"#,
            r#"{"type":"marker","label":"x","kind":"poem"}"#,
            &format!(r#"{{"type":"take","take":{{"id":"{long}","mime":"a"}}}}"#),
        ] {
            assert!(FromClient::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_ack_is_written_as_the_contract_says() {
        let ack = FromServer::Ack {
            take: "t".into(),
            offset: 5,
            archived: 0,
        };
        let text = serde_json::to_string(&ack).expect("json");
        assert_eq!(text, r#"{"type":"ack","take":"t","offset":5,"archived":0}"#);
    }
}
