//! Matroska element IDs that this crate reads or writes, and nothing else.

/// EBML header.
pub const EBML: u32 = 0x1A45_DFA3;
/// EBML version.
pub const EBML_VERSION: u32 = 0x4286;
/// EBML version a reader needs.
pub const EBML_READ_VERSION: u32 = 0x42F7;
/// Longest ID in the file.
pub const EBML_MAX_ID_LENGTH: u32 = 0x42F2;
/// Longest size in the file.
pub const EBML_MAX_SIZE_LENGTH: u32 = 0x42F3;
/// `webm` or `matroska`.
pub const DOC_TYPE: u32 = 0x4282;
/// Version of the document type.
pub const DOC_TYPE_VERSION: u32 = 0x4287;
/// Version of the document type a reader needs.
pub const DOC_TYPE_READ_VERSION: u32 = 0x4285;
/// Everything after the EBML header.
pub const SEGMENT: u32 = 0x1853_8067;
/// Where the top-level elements are.
pub const SEEK_HEAD: u32 = 0x114D_9B74;
/// One entry of the seek head.
pub const SEEK: u32 = 0x4DBB;
/// ID of the element a seek entry points to.
pub const SEEK_ID: u32 = 0x53AB;
/// Its position, relative to the segment's data.
pub const SEEK_POSITION: u32 = 0x53AC;
/// General information.
pub const INFO: u32 = 0x1549_A966;
/// Nanoseconds per timestamp tick.
pub const TIMESTAMP_SCALE: u32 = 0x002A_D7B1;
/// Length of the segment in ticks, a float.
pub const DURATION: u32 = 0x4489;
/// Nanoseconds since 2001-01-01.
pub const DATE_UTC: u32 = 0x4461;
/// Muxing library.
pub const MUXING_APP: u32 = 0x4D80;
/// Writing application.
pub const WRITING_APP: u32 = 0x5741;
/// Title of the segment.
pub const TITLE: u32 = 0x7BA9;
/// List of tracks.
pub const TRACKS: u32 = 0x1654_AE6B;
/// One track.
pub const TRACK_ENTRY: u32 = 0xAE;
/// Number that blocks refer to.
pub const TRACK_NUMBER: u32 = 0xD7;
/// Unique number.
pub const TRACK_UID: u32 = 0x73C5;
/// 1 video, 2 audio.
pub const TRACK_TYPE: u32 = 0x83;
/// Whether blocks may hold several frames.
pub const FLAG_LACING: u32 = 0x9C;
/// Codec name.
pub const CODEC_ID: u32 = 0x86;
/// Codec configuration.
pub const CODEC_PRIVATE: u32 = 0x63A2;
/// Codec's built-in delay, nanoseconds.
pub const CODEC_DELAY: u32 = 0x56AA;
/// Decode this much before a seek target, nanoseconds.
pub const SEEK_PRE_ROLL: u32 = 0x56BB;
/// Video settings.
pub const VIDEO: u32 = 0xE0;
/// Coded width.
pub const PIXEL_WIDTH: u32 = 0xB0;
/// Coded height.
pub const PIXEL_HEIGHT: u32 = 0xBA;
/// Audio settings.
pub const AUDIO: u32 = 0xE1;
/// Sample rate, a float.
pub const SAMPLING_FREQUENCY: u32 = 0xB5;
/// Number of channels.
pub const CHANNELS: u32 = 0x9F;
/// Sample size, bits.
pub const BIT_DEPTH: u32 = 0x6264;
/// A run of blocks.
pub const CLUSTER: u32 = 0x1F43_B675;
/// Timestamp of the cluster, ticks.
pub const TIMESTAMP: u32 = 0xE7;
/// Position of the cluster in the segment.
pub const POSITION: u32 = 0xA7;
/// Size of the cluster before.
pub const PREV_SIZE: u32 = 0xAB;
/// A frame.
pub const SIMPLE_BLOCK: u32 = 0xA3;
/// A frame with more data.
pub const BLOCK_GROUP: u32 = 0xA0;
/// The frame in a block group.
pub const BLOCK: u32 = 0xA1;
/// Length of a frame, ticks.
pub const BLOCK_DURATION: u32 = 0x9B;
/// The frame this one depends on, ticks relative to it.
pub const REFERENCE_BLOCK: u32 = 0xFB;
/// Index.
pub const CUES: u32 = 0x1C53_BB6B;
/// One entry of the index.
pub const CUE_POINT: u32 = 0xBB;
/// Its time, ticks.
pub const CUE_TIME: u32 = 0xB3;
/// Its position for one track.
pub const CUE_TRACK_POSITIONS: u32 = 0xB7;
/// The track.
pub const CUE_TRACK: u32 = 0xF7;
/// The cluster, relative to the segment's data.
pub const CUE_CLUSTER_POSITION: u32 = 0xF1;
/// Chapter list.
pub const CHAPTERS: u32 = 0x1043_A770;
/// One set of chapters.
pub const EDITION_ENTRY: u32 = 0x45B9;
/// One chapter.
pub const CHAPTER_ATOM: u32 = 0xB6;
/// Unique number of a chapter.
pub const CHAPTER_UID: u32 = 0x73C4;
/// Start of a chapter, nanoseconds.
pub const CHAPTER_TIME_START: u32 = 0x91;
/// How a chapter is shown.
pub const CHAPTER_DISPLAY: u32 = 0x80;
/// Title of a chapter.
pub const CHAP_STRING: u32 = 0x85;
/// Language of that title.
pub const CHAP_LANGUAGE: u32 = 0x437C;
/// Metadata.
pub const TAGS: u32 = 0x1254_C367;
/// Attached files.
pub const ATTACHMENTS: u32 = 0x1941_A469;
/// Checksum of the parent element.
pub const CRC_32: u32 = 0xBF;
/// Padding.
pub const VOID: u32 = 0xEC;
