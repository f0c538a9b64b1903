//! A recording as every client sees it, in JSON.
//!
//! Owns the field names of the contract's recording. Must never hold what only a service knows.

use crate::{rendition::Rendition, sheet::Sheet};
use serde::{Deserialize, Serialize};

/// Where a recording stands. Statuses never go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Live or in grace.
    Recording,
    /// Sealed; its archive is being made.
    Finalizing,
    /// Its archive is complete.
    Archived,
    /// Known to be incomplete; what could be saved is archived all the same.
    Failed,
}

impl Status {
    /// As in JSON and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recording => "recording",
            Self::Finalizing => "finalizing",
            Self::Archived => "archived",
            Self::Failed => "failed",
        }
    }

    /// The status by that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [
            Self::Recording,
            Self::Finalizing,
            Self::Archived,
            Self::Failed,
        ]
        .into_iter()
        .find(|status| status.as_str() == name)
    }

    /// Whether nothing more will happen to it.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Archived | Self::Failed)
    }
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The broadcaster or an operator stopped it.
    Stop,
    /// Nobody came back within grace.
    GraceExpired,
    /// Another broadcaster took the show over.
    Superseded,
    /// A limit of duration or bytes was reached.
    Limit,
    /// Found on disk after a crash, and nobody came back.
    Recovered,
}

impl EndReason {
    /// As in JSON and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::GraceExpired => "grace_expired",
            Self::Superseded => "superseded",
            Self::Limit => "limit",
            Self::Recovered => "recovered",
        }
    }
}

/// Bytes of a take that nobody has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Index of the take, from 0.
    pub take: u32,
    /// First missing offset.
    pub from: u64,
    /// Offset after the last missing byte; equal to `from` where the length is not known.
    pub to: u64,
    /// Why they are missing.
    pub cause: String,
}

/// A point in the timeline of a show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Milliseconds since the session started.
    pub at_ms: u64,
    /// What the broadcaster called it.
    pub label: String,
    /// `track`, `chapter` or `note`.
    pub kind: String,
}

/// The recording of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// The session's id.
    pub id: String,
    /// The show.
    pub show_id: String,
    /// UTC start, unique within the show.
    pub version: String,
    /// Where it stands.
    pub status: Status,
    /// Why it failed, or what is wrong with it.
    pub error: Option<String>,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339.
    pub ended_at: Option<String>,
    /// RFC 3339.
    pub archived_at: Option<String>,
    /// Why the session ended.
    pub end_reason: Option<String>,
    /// Content type as the browser named it.
    pub mime: String,
    /// Bytes of the archive once archived, else bytes recorded so far.
    pub bytes: u64,
    /// Playing time, where known.
    pub duration_ms: Option<u64>,
    /// Number of takes.
    pub takes: u32,
    /// Connections after the first.
    pub reconnects: u32,
    /// What is missing.
    pub gaps: Vec<Gap>,
    /// Key of the archive in S3.
    pub object_key: Option<String>,
    /// Lower-case hex, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Base64 as S3 writes it, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc64nvme: Option<String>,
    /// Points in the timeline.
    pub markers: Vec<Marker>,
    /// Not for listeners: kept apart, and not for long.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rehearsal: bool,
    /// What a rehearsal was worth, once it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sheet: Option<Sheet>,
    /// Keys of every media object of the recording, where there is more than the archive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<String>,
    /// What is made of its media objects for other players, once it is final. None of this is ever a
    /// condition of `archived`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub renditions: Vec<Rendition>,
}
