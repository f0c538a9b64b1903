//! The two forms an archive can have, behind one face: a header of fixed length, an append-only
//! body, a tail. The codecs of the first take decide which.

use bytes::Bytes;

use super::body::{self, Body, Content};

use super::header::{End, Layout};
use super::hybrid::{self, Fragments};
use super::{Chapter, MuxError};
use crate::media::limits::NS_PER_MS;
use crate::media::packet::{Entry, Packet, Track};
use crate::media::stitch::Lane;
use crate::media::webm::cluster::{BlockAt, whole_ms};
use crate::media::webm::header::DocType;

/// The file that is written.
#[derive(Debug)]
pub(super) enum Output {
    /// WebM or Matroska.
    WebM(Body),
    /// MP4.
    Mp4(Fragments),
}

/// Where a packet goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Index of the track.
    pub(super) lane: usize,
    pub(super) ts_ns: i64,
    pub(super) decode_ns: i64,
}

/// What is known at the end besides the body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    /// Length of the recording, nanoseconds.
    pub(super) end_ns: i64,
    /// Chapters on the media clock, in order.
    pub(super) chapters: &'a [Chapter],
}

/// The end of the file.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) header: Vec<u8>,
    /// Behind everything that was taken before.
    pub(super) tail: Bytes,
    pub(super) chapters: usize,
    pub(super) cue_every: usize,
}

impl Output {
    /// The form that suits these tracks.
    pub(super) fn suiting(lanes: &[Lane], reserved: usize) -> Self {
        let from_mp4 = |lane: &Lane| matches!(lane.track.entry, Entry::Mp4(_));
        let is_webm = lanes
            .iter()
            .all(|lane| lane.track.is_webm_codec() || !from_mp4(lane));
        if is_webm {
            Self::WebM(Body::default())
        } else {
            let tracks = lanes.iter().map(|lane| (lane.number, &lane.track));
            Self::Mp4(Fragments::new(tracks, reserved))
        }
    }

    /// Whether a header for these tracks has room.
    pub(super) fn check(&self, layout: &Layout<'_>) -> Result<(), MuxError> {
        match self {
            Self::WebM(_) => layout.check(),
            Self::Mp4(_) => self.live_header(layout).map(drop),
        }
    }

    /// Appends a packet.
    pub(super) fn write(
        &mut self,
        lanes: &[Lane],
        place: Place,
        packet: &Packet,
    ) -> Result<(), MuxError> {
        let Some(lane) = lanes.get(place.lane) else {
            return Ok(());
        };
        let is_video = lane.track.is_video();
        let has_video = lanes.iter().any(|lane| lane.track.is_video());
        match self {
            Self::WebM(body) => {
                let at = BlockAt {
                    track: lane.number,
                    ts_ms: whole_ms(place.ts_ns),
                };
                let content = if has_video {
                    Content::Picture
                } else {
                    Content::Sound
                };
                body.write(
                    body::Target {
                        at,
                        is_video,
                        content,
                    },
                    packet,
                );
                Ok(())
            }
            Self::Mp4(fragments) => {
                let Place {
                    lane, decode_ns, ..
                } = place;
                let target = hybrid::Target {
                    lane,
                    decode_ns,
                    is_video,
                    has_video,
                };
                fragments.write(target, packet)
            }
        }
    }

    /// Takes what was closed since the last call.
    pub(super) fn take(&mut self) -> Bytes {
        match self {
            Self::WebM(body) => body.take(),
            Self::Mp4(fragments) => fragments.take(),
        }
    }

    /// Length of everything closed, bytes.
    pub(super) const fn len(&self) -> u64 {
        match self {
            Self::WebM(body) => body.len(),
            Self::Mp4(fragments) => fragments.len(),
        }
    }

    /// The header of the growing file.
    pub(super) fn live_header(&self, layout: &Layout<'_>) -> Result<Vec<u8>, MuxError> {
        match self {
            Self::WebM(_) => layout.live(),
            Self::Mp4(fragments) => fragments.live_header(layout.tracks, layout.date_unix_ms),
        }
    }

    /// Ends the file.
    pub(super) fn finish(
        &mut self,
        layout: &Layout<'_>,
        facts: Facts<'_>,
        cue_track: u8,
    ) -> Result<Ending, MuxError> {
        match self {
            Self::WebM(body) => {
                body.close();
                let end = End {
                    #[expect(clippy::cast_precision_loss, reason = "30 days of ns, to a us")]
                    duration_ms: facts.end_ns as f64 / NS_PER_MS as f64,
                    body_len: body.len(),
                    cues: body.cues(),
                    cue_track,
                    chapters: facts.chapters,
                };
                let written = layout.finished(&end)?;
                Ok(Ending {
                    header: written.bytes,
                    tail: body.take(),
                    chapters: written.chapters,
                    cue_every: written.cue_every,
                })
            }
            Self::Mp4(fragments) => {
                let (header, moov) = fragments.finish(layout.tracks, layout.date_unix_ms)?;
                let tail = [&fragments.take()[..], &moov].concat().into();
                Ok(Ending {
                    header,
                    tail,
                    chapters: 0,
                    cue_every: 1,
                })
            }
        }
    }

    /// Content-Type of the file.
    pub(super) fn content_type(&self, tracks: &[&Track]) -> &'static str {
        let has_video = tracks.iter().any(|track| track.is_video());
        match (self, DocType::of(tracks.iter().copied()), has_video) {
            (Self::Mp4(_), _, false) => "audio/mp4",
            (Self::Mp4(_), _, true) => "video/mp4",
            (Self::WebM(_), DocType::WebM, false) => "audio/webm",
            (Self::WebM(_), DocType::WebM, true) => "video/webm",
            (Self::WebM(_), DocType::Matroska, false) => "audio/x-matroska",
            (Self::WebM(_), DocType::Matroska, true) => "video/x-matroska",
        }
    }
}
