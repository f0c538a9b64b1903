//! The caps of every parser and muxer here, in one place. Nothing in this crate may buffer, skip or
//! fill more than what is written here, whatever the input says.

/// Largest header element (EBML, Info, Tracks, Opus tags) that is buffered, bytes.
pub const HEADER_ELEMENT_MAX: usize = 64 * 1024;
/// Largest audio packet with its block header, bytes.
pub const AUDIO_BLOCK_MAX: usize = 64 * 1024;
/// Largest video frame with its block header, bytes.
pub const VIDEO_BLOCK_MAX: usize = 8 * 1024 * 1024;
/// Largest index or tag element that is skipped unread, bytes.
pub const SKIPPED_ELEMENT_MAX: u64 = 4 * 1024 * 1024;
/// Largest `moov` or `moof` box that is buffered, bytes.
pub const MP4_BOX_MAX: usize = 1024 * 1024;
/// Largest `mdat` of one fragment, bytes.
pub const MP4_MDAT_MAX: usize = 16 * 1024 * 1024;
/// Most tracks in one take.
pub const TRACKS_MAX: usize = 16;
/// Longest codec name, bytes.
pub const CODEC_ID_MAX: usize = 64;
/// Latest timestamp that is believed, nanoseconds: 30 days.
pub const TIMESTAMP_MAX_NS: i64 = 30 * 24 * 3600 * NS_PER_S;
/// How far a cluster may jump from the one before and still be believed at once, nanoseconds: 1 h.
pub const PLAUSIBLE_JUMP_NS: i64 = 3600 * NS_PER_S;
/// Longest gap filled with silence, nanoseconds: 90 min (the longest grace of 30 min plus an hour).
/// The rest of a longer gap is closed.
pub const GAP_FILL_MAX_NS: i64 = 90 * 60 * NS_PER_S;
/// Most silence in one recording, nanoseconds: 12 h. Without it a few damaged timestamps could make
/// gigabytes of it; once it is spent, gaps are closed.
pub const SILENCE_MAX_NS: i64 = 12 * 3600 * NS_PER_S;
/// Most files that one session is cut into.
pub const VOLUMES_MAX: u32 = 64;

/// Nanoseconds in a millisecond.
pub const NS_PER_MS: i64 = 1_000_000;
/// Nanoseconds in a second.
pub const NS_PER_S: i64 = 1_000_000_000;
