//! Between the contract's messages and the types of [`aircheck_core`].
//!
//! Owns field-by-field translation; must never drop or invent a value.

use crate::{archiver, ingest};
use aircheck_core::{id::rfc3339, recording, rendition, sheet, wire};

impl From<recording::Status> for archiver::RecordingStatus {
    fn from(status: recording::Status) -> Self {
        match status {
            recording::Status::Recording => Self::Recording,
            recording::Status::Finalizing => Self::Finalizing,
            recording::Status::Archived => Self::Archived,
            recording::Status::Failed => Self::Failed,
        }
    }
}

impl archiver::RecordingStatus {
    /// The status in the core's words; `None` where the message says nothing.
    #[must_use]
    pub fn to_core(self) -> Option<recording::Status> {
        Some(match self {
            Self::Unspecified => return None,
            Self::Recording => recording::Status::Recording,
            Self::Finalizing => recording::Status::Finalizing,
            Self::Archived => recording::Status::Archived,
            Self::Failed => recording::Status::Failed,
        })
    }
}

impl From<archiver::Recording> for recording::Recording {
    /// An unspecified status reads as `recording`: the least that can be true of a row.
    fn from(from: archiver::Recording) -> Self {
        Self {
            status: from
                .status()
                .to_core()
                .unwrap_or(recording::Status::Recording),
            id: from.id,
            show_id: from.show_id,
            version: from.version,
            error: from.error,
            started_at: rfc3339(from.started_at_unix_ms),
            ended_at: from.ended_at_unix_ms.map(rfc3339),
            archived_at: from.archived_at_unix_ms.map(rfc3339),
            end_reason: from.end_reason,
            mime: from.mime,
            bytes: from.bytes,
            duration_ms: from.duration_ms,
            takes: from.takes,
            reconnects: from.reconnects,
            gaps: from.gaps.into_iter().map(Into::into).collect(),
            object_key: from.object_key,
            sha256: from.sha256,
            crc64nvme: from.crc64nvme,
            markers: from.markers.into_iter().map(Into::into).collect(),
            rehearsal: from.rehearsal,
            // A sheet that is not understood is none: it must not hide the recording.
            sheet: from.sheet.and_then(|json| serde_json::from_str(&json).ok()),
            objects: from.objects,
            // As with sheets: one that a later version knows is left out.
            renditions: from.renditions.into_iter().filter_map(known).collect(),
        }
    }
}

fn known(from: archiver::Rendition) -> Option<rendition::Rendition> {
    Some(rendition::Rendition {
        format: rendition::Format::parse(&from.format)?,
        bitrate: from.bitrate,
        status: rendition::Status::parse(&from.status)?,
        key: from.key,
        bytes: from.bytes,
        crc64nvme: from.crc64nvme,
        error: from.error,
    })
}

impl From<rendition::Rendition> for archiver::Rendition {
    fn from(from: rendition::Rendition) -> Self {
        Self {
            format: from.format.as_str().to_owned(),
            bitrate: from.bitrate,
            status: from.status.as_str().to_owned(),
            key: from.key,
            bytes: from.bytes,
            crc64nvme: from.crc64nvme,
            error: from.error,
        }
    }
}

impl From<sheet::Link> for ingest::Link {
    fn from(link: sheet::Link) -> Self {
        let times = |times: sheet::Times| ingest::Times {
            p50_us: times.p50_us,
            p99_us: times.p99_us,
        };
        Self {
            round_trip: link.round_trip.map(times),
            ack: link.ack.map(times),
        }
    }
}

impl From<ingest::Link> for sheet::Link {
    fn from(link: ingest::Link) -> Self {
        let times = |times: ingest::Times| sheet::Times {
            p50_us: times.p50_us,
            p99_us: times.p99_us,
        };
        Self {
            round_trip: link.round_trip.map(times),
            ack: link.ack.map(times),
        }
    }
}

impl From<archiver::Gap> for recording::Gap {
    fn from(gap: archiver::Gap) -> Self {
        Self {
            take: gap.take,
            from: gap.from,
            to: gap.to,
            cause: gap.cause,
        }
    }
}

impl From<recording::Gap> for archiver::Gap {
    fn from(gap: recording::Gap) -> Self {
        Self {
            take: gap.take,
            from: gap.from,
            to: gap.to,
            cause: gap.cause,
        }
    }
}

impl From<archiver::Marker> for recording::Marker {
    fn from(marker: archiver::Marker) -> Self {
        Self {
            at_ms: marker.at_ms,
            label: marker.label,
            kind: marker.kind,
        }
    }
}

impl From<recording::Marker> for archiver::Marker {
    fn from(marker: recording::Marker) -> Self {
        Self {
            at_ms: marker.at_ms,
            label: marker.label,
            kind: marker.kind,
        }
    }
}

impl From<ingest::SinkStatus> for wire::Sink {
    fn from(sink: ingest::SinkStatus) -> Self {
        let state = match sink.state() {
            ingest::SinkState::Unspecified | ingest::SinkState::Starting => "starting",
            ingest::SinkState::Up => "up",
            ingest::SinkState::Down => "down",
        };
        Self {
            state: state.to_owned(),
            name: sink.name,
            error: sink.error,
            lost_clusters: sink.lost_clusters,
            restarts: sink.restarts,
        }
    }
}

impl ingest::Alarm {
    /// Its name in the contract; `None` for what this version does not know.
    #[must_use]
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Unspecified => None,
            Self::NoData => Some("no_data"),
            Self::Silence => Some("silence"),
            Self::Clipping => Some("clipping"),
        }
    }

    /// The names of all.
    #[must_use]
    pub fn words(alarms: impl Iterator<Item = Self>) -> Vec<String> {
        alarms.filter_map(Self::word).map(str::to_owned).collect()
    }
}
