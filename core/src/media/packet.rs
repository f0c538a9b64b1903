//! What a take is made of once its container is taken away: tracks, packets and the accidents of
//! the byte stream. Plain data, the same for every container; it knows nothing of files or muxers.

use bytes::Bytes;

/// Matroska name of Opus.
pub const CODEC_OPUS: &str = "A_OPUS";
/// Matroska name of AAC.
pub const CODEC_AAC: &str = "A_AAC";
/// Matroska name of VP8.
pub const CODEC_VP8: &str = "V_VP8";
/// Matroska name of VP9.
pub const CODEC_VP9: &str = "V_VP9";
/// Matroska name of AV1.
pub const CODEC_AV1: &str = "V_AV1";
/// Matroska name of H.264 with out-of-band parameter sets.
pub const CODEC_H264: &str = "V_MPEG4/ISO/AVC";
/// Matroska name of HEVC with out-of-band parameter sets.
pub const CODEC_HEVC: &str = "V_MPEGH/ISO/HEVC";
/// Prefix of the made-up names of MP4 sound that has no name here; no Matroska file can hold it.
pub const CODEC_MP4_AUDIO: &str = "A_MP4/";
/// Prefix of the made-up names of MP4 picture that has no name here; no Matroska file can hold it.
pub const CODEC_MP4_VIDEO: &str = "V_MP4/";

/// What a track carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackKind {
    /// Sound.
    Audio {
        /// Number of channels as declared.
        channels: u32,
        /// Sample rate as declared, Hz.
        sample_rate: u32,
    },
    /// Picture.
    Video {
        /// Coded width, pixels.
        width: u32,
        /// Coded height, pixels.
        height: u32,
    },
    /// Anything else (subtitles, metadata): known so that its blocks are passed over.
    Other,
}

/// One track of a take, as its container header declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// Number that [`Packet::track`] refers to; unique within the take only.
    pub number: u64,
    /// Kind with its parameters.
    pub kind: TrackKind,
    /// Codec as a Matroska `CodecID`, whatever the container.
    pub codec_id: String,
    /// Codec configuration as Matroska stores it (`OpusHead`, `avcC`, `AudioSpecificConfig`).
    pub codec_private: Bytes,
    /// Built-in delay of the codec, nanoseconds.
    pub codec_delay_ns: u64,
    /// Media that must be decoded before a seek target, nanoseconds.
    pub seek_pre_roll_ns: u64,
    /// The container's own description, for an output of the same container.
    pub entry: Entry,
}

/// A track's description as its container wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// The container has none that could be used again.
    None,
    /// Payload of the Matroska `TrackEntry`, verbatim.
    Matroska(Bytes),
    /// The MP4 `stsd` box.
    Mp4(Bytes),
}

impl Track {
    /// Whether this is sound.
    #[must_use]
    pub const fn is_audio(&self) -> bool {
        matches!(self.kind, TrackKind::Audio { .. })
    }

    /// Whether this is picture.
    #[must_use]
    pub const fn is_video(&self) -> bool {
        matches!(self.kind, TrackKind::Video { .. })
    }

    /// Whether every browser expects this codec in WebM.
    #[must_use]
    pub fn is_webm_codec(&self) -> bool {
        const WEBM: [&str; 5] = [CODEC_OPUS, "A_VORBIS", CODEC_VP8, CODEC_VP9, CODEC_AV1];
        WEBM.contains(&self.codec_id.as_str())
    }

    /// Whether the codec has a name in Matroska.
    #[must_use]
    pub fn is_matroska_codec(&self) -> bool {
        let foreign = [CODEC_MP4_AUDIO, CODEC_MP4_VIDEO];
        !foreign
            .iter()
            .any(|prefix| self.codec_id.starts_with(prefix))
    }

    /// Whether this is Opus sound, the one codec whose silence can be made up.
    #[must_use]
    pub fn is_opus(&self) -> bool {
        self.is_audio() && self.codec_id == CODEC_OPUS
    }
}

/// One coded packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Number of the track within the take.
    pub track: u64,
    /// When it is shown or heard, on the take's own clock, nanoseconds.
    pub ts_ns: i64,
    /// How much later that is than its place in decoding order, nanoseconds; 0 unless an MP4
    /// reorders its pictures.
    pub composition_ns: i64,
    /// Length, nanoseconds; for Opus from the packet itself, otherwise what the container says.
    pub duration_ns: Option<u64>,
    /// Whether decoding can start here. True for every audio packet.
    pub keyframe: bool,
    /// The low four bits of a Matroska block's flags (invisible, lacing, discardable); else 0.
    pub block_flags: u8,
    /// The coded bytes, unchanged.
    pub payload: Bytes,
    /// The other children of the Matroska `BlockGroup` this packet came in, verbatim.
    pub group: Option<Bytes>,
}

impl Packet {
    /// Its place in decoding order, on the take's own clock, nanoseconds.
    #[must_use]
    pub const fn decode_ns(&self) -> i64 {
        self.ts_ns.saturating_sub(self.composition_ns)
    }
}

/// What a take's byte stream turned out to contain, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The tracks of what follows. Always before the first packet.
    Tracks(Vec<Track>),
    /// One packet of a known track.
    Packet(Packet),
    /// A cluster, fragment or page begins at this byte of the take.
    ClusterStart {
        /// Byte offset in the take, holes included.
        at: u64,
    },
    /// Bytes that could not be understood, or a known hole. What follows is good again.
    Lost {
        /// First byte lost, as an offset in the take.
        at: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// A second container header inside the take: the encoder was restarted. Its tracks and clock
    /// begin anew; [`Event::Tracks`] follows.
    NestedHeader {
        /// Byte offset in the take.
        at: u64,
    },
    /// Media that cannot be read at all. Nothing follows.
    Failed(DemuxError),
}

/// Why a take cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DemuxError {
    /// The file has its sample tables apart from the media and cannot be read while it arrives.
    #[error("the MP4 is not fragmented")]
    NotFragmented,
    /// The container is sound, but no track in it has a codec this crate knows.
    #[error("no supported codec in the {container} header (found {found})")]
    NoSupportedCodec {
        /// The container's usual extension.
        container: &'static str,
        /// What the header named instead.
        found: String,
    },
}
