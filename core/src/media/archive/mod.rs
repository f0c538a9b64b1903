//! The stitching muxer: takes of a show in, one seekable file out, while the show is running.
//!
//! The file is a header of fixed length followed by clusters that are never touched again, so the
//! body can be uploaded as it grows and only the header is written anew at the end. The output is
//! a pure function of the parameters and the takes with their bytes: no clock, no random number,
//! no influence of how the bytes were cut. Memory is bounded by one open cluster and the index.

mod body;
mod chapters;
mod cues;
mod header;
mod hybrid;
mod muxer;
mod output;
mod volumes;

pub use muxer::Muxer;
pub use volumes::Volumes;

use bytes::Bytes;

use super::packet::DemuxError;
pub use super::stitch::{OpenTake, TakeStart};

/// Version of the muxing rules. A session begun under another version must be muxed from its
/// start: parts of two versions do not fit together.
pub const MUX_VERSION: u32 = 1;
/// The usual length of the reserved header, bytes: an index for three hours and more.
pub const RESERVED_BYTES: usize = 64 * 1024;
/// Shortest reserved header, bytes.
pub const RESERVED_BYTES_MIN: usize = 4 * 1024;
/// Longest reserved header, bytes.
pub const RESERVED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What becomes of the time between takes and of holes inside one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GapPolicy {
    /// Sound is filled with silence (Opus only, at most
    /// [`GAP_FILL_MAX_NS`](super::limits::GAP_FILL_MAX_NS)); the last picture stands still.
    #[default]
    Silence,
    /// Later media moves up; the recording is shorter than the show.
    Close,
}

/// Everything besides the takes that decides the bytes of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// Start of the session, ms since the Unix epoch.
    pub session_started_unix_ms: i64,
    /// Title of the show; at most 256 bytes of it are kept.
    pub title: Option<String>,
    /// What becomes of gaps.
    pub gap_policy: GapPolicy,
    /// Length of the header, bytes; [`RESERVED_BYTES`] unless there is a reason.
    pub reserved_bytes: usize,
}

impl Params {
    /// The usual parameters for a session started at this time (ms since the Unix epoch).
    #[must_use]
    pub const fn new(session_started_unix_ms: i64) -> Self {
        Self {
            session_started_unix_ms,
            title: None,
            gap_policy: GapPolicy::Silence,
            reserved_bytes: RESERVED_BYTES,
        }
    }
}

/// A point in the show with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chapter {
    /// When, ms since the session's start.
    pub at_ms: u64,
    /// What is shown; at most 256 bytes of it are kept.
    pub label: String,
}

/// The end of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Exactly the reserved bytes; they go before the body.
    pub header: Bytes,
    /// What of the body was not taken yet; it goes behind what was.
    pub tail: Bytes,
    /// Length of the file, bytes: header and whole body.
    pub total_bytes: u64,
    /// Length of the recording, ms, right to a packet.
    pub duration_ms: u64,
    /// Content-Type of the file.
    pub content_type: &'static str,
    /// How many chapters had room in the header.
    pub chapters: usize,
    /// What happened on the way.
    pub stats: Stats,
}

/// What a muxer saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Takes begun.
    pub takes: u64,
    /// Packets written, silence not counted.
    pub packets: u64,
    /// Packets that could not be used (picture before its first keyframe, unknown tracks).
    pub dropped_packets: u64,
    /// Silence written, ms.
    pub silence_ms: u64,
    /// Packets of silence written.
    pub silence_packets: u64,
    /// Bytes of the takes that were not understood or never came.
    pub lost_bytes: u64,
    /// How often reading found its way again after lost bytes.
    pub resyncs: u64,
    /// One of so many clusters is in the index; 0 before the end or without index.
    pub cue_every: usize,
}

/// Why a take cannot be archived in this file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MuxError {
    /// The reserved header is too short or too long.
    #[error("{bytes} bytes are no sensible header length")]
    ReservedBytes {
        /// What was asked for.
        bytes: usize,
    },
    /// No take was begun, or the last one was refused.
    #[error("no take is open")]
    NoTake,
    /// The codec cannot be described in the archive's container. The caller archives the raw take.
    #[error("{codec_id} cannot be archived here")]
    Unsupported {
        /// Name of the codec.
        codec_id: String,
    },
    /// The take does not continue this file: it needs a new one, which begins with it. See
    /// [`Muxer::detach_take`].
    #[error("the take's {codec_id} track does not continue this file")]
    Incompatible {
        /// Codec of the first track that does not fit.
        codec_id: String,
    },
    /// The take cannot be read at all. The caller archives the raw take.
    #[error(transparent)]
    Demux(#[from] DemuxError),
    /// The codec configuration leaves no room for an index in the reserved header.
    #[error("the tracks do not fit into the reserved header")]
    HeaderTooLarge,
    /// The recording is longer than 30 days.
    #[error("the recording is longer than 30 days")]
    TooLong,
    /// The session was cut into [`VOLUMES_MAX`](super::limits::VOLUMES_MAX) files and needs more.
    #[error("the codecs change too often")]
    TooManyVolumes,
    /// No take held a single packet.
    #[error("there is no media")]
    NoMedia,
}

impl MuxError {
    /// Whether a new file could hold the take.
    #[must_use]
    pub const fn needs_new_volume(&self) -> bool {
        matches!(self, Self::Incompatible { .. })
    }
}
