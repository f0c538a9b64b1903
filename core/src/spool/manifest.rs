//! The manifest: all that is known of a session except its bytes.
//!
//! Owns the fold from events to state. It travels in three places, always as the same JSON: as a
//! checkpoint in the spool, in the Finalize call, and beside the archive in S3, where it is enough to
//! rebuild the recording's row.

use super::Event;
use crate::{
    id::{Epoch, Seat, SessionId, ShowId},
    recording::{EndReason, Gap, Marker},
    sheet::Link,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Version of the JSON; readers refuse a higher one.
pub const FORMAT: u32 = 1;

/// What fills a gap of the archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GapPolicy {
    /// Silence: the archive keeps wall-clock time.
    #[default]
    Silence,
    /// Nothing: what follows moves up.
    Close,
}

impl GapPolicy {
    /// As in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Silence => "silence",
            Self::Close => "close",
        }
    }

    /// The policy by that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Silence, Self::Close]
            .into_iter()
            .find(|policy| policy.as_str() == name)
    }
}

/// One run of the encoder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeRecord {
    /// The client's own name.
    pub id: String,
    /// Content type as the browser named it.
    pub mime: String,
    /// When the ingest saw it begin.
    pub started_unix_ms: u64,
    /// Offset after its last durable byte. Gaps may lie below.
    pub bytes: u64,
}

/// How far a session has come, as far as the disk is concerned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum Stage {
    /// A connection holds it.
    Live,
    /// Nobody holds it; grace runs.
    Grace {
        /// Since when.
        since_unix_ms: u64,
    },
    /// No more bytes; finalize is due until [`Stage::Done`].
    Sealed {
        /// Why it ended.
        reason: EndReason,
        /// When it ended.
        ended_unix_ms: u64,
    },
    /// The archive is proved.
    Done {
        /// Why it ended.
        reason: EndReason,
        /// When it ended.
        ended_unix_ms: u64,
    },
}

/// All that is known of a session except its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Its id, and the recording's.
    pub session: SessionId,
    /// The show.
    pub show_id: ShowId,
    /// Not for listeners: kept apart, and not for long.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rehearsal: bool,
    /// The show's title, where it has one.
    pub title: Option<String>,
    /// When it went live.
    pub started_unix_ms: u64,
    /// How long it waits for its broadcaster.
    pub grace_ms: u64,
    /// What fills gaps of its archive.
    pub gap_policy: GapPolicy,
    /// The latest connection.
    pub epoch: Epoch,
    /// Who broadcasts.
    pub user: String,
    /// Encoder runs, in order of appearance.
    pub takes: Vec<TakeRecord>,
    /// Bytes that will never come.
    pub gaps: Vec<Gap>,
    /// Points in the timeline.
    pub markers: Vec<Marker>,
    /// Why the recording branch gave up, if it did.
    pub recording_error: Option<String>,
    /// The broadcaster's connection, as measured in a rehearsal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Link>,
    /// How far it has come.
    #[serde(flatten)]
    pub stage: Stage,
}

/// A manifest or event that can't be used.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// Not the JSON of a manifest.
    #[error("read manifest")]
    Json(#[from] serde_json::Error),
    /// Written by a newer program.
    #[error("manifest has format {found}, and this program knows formats up to {FORMAT}")]
    Format {
        /// What it says.
        found: u32,
    },
    /// An event after the session was sealed, or a second opening.
    #[error("event does not follow from the session's state")]
    OutOfOrder,
}

impl Manifest {
    /// A session that just went live, before any connection or take.
    #[must_use]
    pub fn new(session: SessionId, show_id: ShowId, started_unix_ms: u64, grace_ms: u64) -> Self {
        Self {
            format: FORMAT,
            session,
            show_id,
            rehearsal: false,
            title: None,
            started_unix_ms,
            grace_ms,
            gap_policy: GapPolicy::default(),
            epoch: Epoch::default(),
            user: String::new(),
            takes: Vec::new(),
            gaps: Vec::new(),
            markers: Vec::new(),
            recording_error: None,
            link: None,
            stage: Stage::Grace {
                since_unix_ms: started_unix_ms,
            },
        }
    }

    /// Reads the JSON.
    ///
    /// # Errors
    /// If it is no manifest, or of a newer format.
    pub fn from_json(json: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let Head { format: found } = serde_json::from_slice(json)?;
        if found > FORMAT {
            return Err(ManifestError::Format { found });
        }
        Ok(serde_json::from_slice(json)?)
    }

    /// Writes the JSON.
    ///
    /// # Errors
    /// Never for a manifest of this crate's making; kept, because serialisation can fail by type.
    pub fn to_json(&self) -> Result<String, ManifestError> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Applies one event.
    ///
    /// # Errors
    /// [`ManifestError::OutOfOrder`]: the event can't follow; the manifest is unchanged.
    pub fn apply(&mut self, event: Event) -> Result<(), ManifestError> {
        let (reason, ended_unix_ms) = match (&self.stage, event) {
            (
                Stage::Sealed {
                    reason,
                    ended_unix_ms,
                },
                Event::Done,
            ) => (*reason, *ended_unix_ms),
            (Stage::Sealed { .. }, Event::RecordingFailed { reason }) => {
                self.recording_error.get_or_insert(reason);
                return Ok(());
            }
            (Stage::Live | Stage::Grace { .. }, event) => return self.apply_open(event),
            (Stage::Sealed { .. } | Stage::Done { .. }, _) => {
                return Err(ManifestError::OutOfOrder);
            }
        };
        self.stage = Stage::Done {
            reason,
            ended_unix_ms,
        };
        Ok(())
    }

    fn apply_open(&mut self, event: Event) -> Result<(), ManifestError> {
        match event {
            Event::Opened { .. } | Event::Done => return Err(ManifestError::OutOfOrder),
            Event::Connected { epoch, user, .. } => {
                if epoch <= self.epoch {
                    return Err(ManifestError::OutOfOrder);
                }
                self.epoch = epoch;
                self.user = user;
                self.stage = Stage::Live;
            }
            Event::Disconnected { epoch, at_unix_ms } => {
                if epoch != self.epoch {
                    return Err(ManifestError::OutOfOrder);
                }
                self.stage = Stage::Grace {
                    since_unix_ms: at_unix_ms,
                };
            }
            Event::TakeOpened {
                id,
                mime,
                at_unix_ms,
            } => {
                self.takes.push(TakeRecord {
                    id,
                    mime,
                    started_unix_ms: at_unix_ms,
                    bytes: 0,
                });
            }
            Event::Gap { gap } => self.gaps.push(gap),
            Event::Marked { marker } => self.markers.push(marker),
            Event::Rehearsed { link } => self.link = Some(link),
            Event::RecordingFailed { reason } => {
                self.recording_error.get_or_insert(reason);
            }
            Event::Sealed { reason, at_unix_ms } => {
                self.stage = Stage::Sealed {
                    reason,
                    ended_unix_ms: at_unix_ms,
                };
            }
        }
        Ok(())
    }

    /// Connections after the first.
    #[must_use]
    pub fn reconnects(&self) -> u64 {
        self.epoch.0.saturating_sub(1)
    }

    /// Bytes that exist, over all takes: lengths without gaps.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let lengths: u64 = self.takes.iter().map(|take| take.bytes).sum();
        // A gap may lie beyond the last durable byte: what followed it did not come through either.
        let missing: u64 = self
            .gaps
            .iter()
            .map(|gap| {
                let take = self.takes.get(gap.take as usize);
                let end = take.map_or(0, |take| take.bytes);
                gap.to.min(end).saturating_sub(gap.from)
            })
            .sum();
        lengths.saturating_sub(missing)
    }

    /// The latest time in it, in milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn latest_unix_ms(&self) -> u64 {
        let stage = match self.stage {
            Stage::Live => 0,
            Stage::Grace { since_unix_ms } => since_unix_ms,
            Stage::Sealed { ended_unix_ms, .. } | Stage::Done { ended_unix_ms, .. } => {
                ended_unix_ms
            }
        };
        let takes = self.takes.iter().map(|take| take.started_unix_ms);
        let markers = self
            .markers
            .iter()
            .map(|marker| self.started_unix_ms + marker.at_ms);
        let latest = takes.chain(markers).max().unwrap_or_default();
        latest.max(stage).max(self.started_unix_ms)
    }

    /// What the session occupies while it is open.
    #[must_use]
    pub fn seat(&self) -> Seat {
        Seat {
            show: self.show_id.clone(),
            rehearsal: self.rehearsal,
        }
    }

    /// Content type of the first take; empty before there is one.
    #[must_use]
    pub fn mime(&self) -> &str {
        self.takes.first().map_or("", |take| &take.mime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> Manifest {
        let show = "7".parse().expect("a show id");
        Manifest::new(SessionId(ulid::Ulid::from(7u128)), show, 1000, 30_000)
    }

    #[test]
    fn the_json_reads_back_as_the_same_manifest_in_every_stage() {
        let mut manifest = opened();
        let events = [
            Event::Connected {
                epoch: Epoch(1),
                user: "ann".into(),
                at_unix_ms: 1001,
            },
            Event::TakeOpened {
                id: "t".into(),
                mime: "audio/webm".into(),
                at_unix_ms: 1002,
            },
            Event::Gap {
                gap: Gap {
                    take: 0,
                    from: 3,
                    to: 9,
                    cause: "client".into(),
                },
            },
            Event::Marked {
                marker: Marker {
                    at_ms: 5,
                    label: "x".into(),
                    kind: "note".into(),
                },
            },
            Event::Disconnected {
                epoch: Epoch(1),
                at_unix_ms: 1010,
            },
            Event::RecordingFailed {
                reason: "disk full".into(),
            },
            Event::Sealed {
                reason: EndReason::GraceExpired,
                at_unix_ms: 31_010,
            },
            Event::Done,
        ];
        for event in events {
            manifest.apply(event).expect("in order");
            let json = manifest.to_json().expect("json");
            assert_eq!(
                Manifest::from_json(json.as_bytes()).expect("back"),
                manifest
            );
        }
        assert_eq!(manifest.reconnects(), 0);
    }

    #[test]
    fn nothing_changes_a_sealed_session_but_its_end() {
        let mut manifest = opened();
        let sealed = Event::Sealed {
            reason: EndReason::Stop,
            at_unix_ms: 2000,
        };
        manifest.apply(sealed.clone()).expect("open");
        let before = manifest.clone();
        let late = Event::Connected {
            epoch: Epoch(9),
            user: "late".into(),
            at_unix_ms: 2001,
        };
        assert!(manifest.apply(late).is_err());
        assert!(manifest.apply(sealed).is_err());
        assert_eq!(manifest, before);
    }

    #[test]
    fn a_stale_connection_changes_nothing() {
        let mut manifest = opened();
        for epoch in [1, 2] {
            let event = Event::Connected {
                epoch: Epoch(epoch),
                user: "ann".into(),
                at_unix_ms: 1001,
            };
            manifest.apply(event).expect("rising");
        }
        let before = manifest.clone();
        let stale = Event::Disconnected {
            epoch: Epoch(1),
            at_unix_ms: 1002,
        };
        assert!(manifest.apply(stale).is_err());
        assert_eq!(manifest, before);
    }

    #[test]
    fn a_manifest_of_the_future_is_refused() {
        let json = opened()
            .to_json()
            .expect("json")
            .replace("\"format\": 1", "\"format\": 2");
        assert!(matches!(
            Manifest::from_json(json.as_bytes()),
            Err(ManifestError::Format { found: 2 })
        ));
    }
}
