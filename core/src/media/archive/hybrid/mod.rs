//! The MP4 form of the archive, for codecs that do not belong into WebM (AAC, H.264, HEVC).
//!
//! ```text
//! while it grows:  ftyp | moov (no samples) | free ..R | moof mdat | moof mdat | ...
//! finished:        ftyp | free ..R-16 | mdat over everything | moov with all sample tables
//! ```
//!
//! Growing, it is a fragmented MP4. Finished, it is a plain one whose single `mdat` hides the
//! fragments' heads. As in the WebM form only the reserved header is written anew, and a tail is
//! added. Memory grows by four bytes a frame, for the sample sizes.

mod fragments;
mod moov;
mod tables;

pub(super) use fragments::{Fragments, Target};
