//! The head of a `WebM` file: EBML header, segment, `Info` and `Tracks`, for the archive and the
//! live stream alike. Deterministic: nothing in it comes from a clock or a random number.

use super::write::{self, SIZE_UNKNOWN};
use super::{ids, tracks};
use crate::media::packet::Track;

/// Named in every file as muxer and writer, with the version of the muxing rules.
const APP: &str = "Aircheck mux 1";
/// 2001-01-01T00:00:00Z, the Matroska epoch, ms since the Unix epoch.
const MATROSKA_EPOCH_UNIX_MS: i64 = 978_307_200_000;

/// The document type that a set of codecs makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocType {
    /// Only codecs that every browser expects in `WebM`.
    WebM,
    /// Something else too, such as H.264 from Chromium.
    Matroska,
}

impl DocType {
    /// The document type for these tracks.
    pub fn of<'a>(tracks: impl IntoIterator<Item = &'a Track>) -> Self {
        let all = tracks.into_iter().all(Track::is_webm_codec);
        if all { Self::WebM } else { Self::Matroska }
    }

    const fn name(self) -> &'static [u8] {
        match self {
            Self::WebM => b"webm",
            Self::Matroska => b"matroska",
        }
    }
}

/// What `Info` says of a recording. Fields that are `None` are left out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Info<'a> {
    /// Length, ms.
    pub duration_ms: Option<f64>,
    /// Start of the recording, ms since the Unix epoch.
    pub date_unix_ms: Option<i64>,
    /// Title of the show.
    pub title: Option<&'a str>,
}

/// Appends the EBML header.
pub fn ebml(out: &mut Vec<u8>, doc_type: DocType) {
    write::master(out, ids::EBML, |ebml| {
        write::uint(ebml, ids::EBML_VERSION, 1);
        write::uint(ebml, ids::EBML_READ_VERSION, 1);
        write::uint(ebml, ids::EBML_MAX_ID_LENGTH, 4);
        write::uint(ebml, ids::EBML_MAX_SIZE_LENGTH, 8);
        write::binary(ebml, ids::DOC_TYPE, doc_type.name());
        write::uint(ebml, ids::DOC_TYPE_VERSION, 4);
        write::uint(ebml, ids::DOC_TYPE_READ_VERSION, 2);
    });
}

/// Appends the head of the segment; `None` for a stream without end.
pub fn segment(out: &mut Vec<u8>, size: Option<u64>) {
    write::id(out, ids::SEGMENT);
    match size {
        Some(size) => write::size_fixed(out, size, SIZE_UNKNOWN.len()),
        None => out.extend_from_slice(&SIZE_UNKNOWN),
    }
}

/// Appends `Info`, with ticks of 1 ms.
pub fn info(out: &mut Vec<u8>, info: &Info<'_>) {
    write::master(out, ids::INFO, |element| {
        write::uint(element, ids::TIMESTAMP_SCALE, tracks::SCALE_DEFAULT_NS);
        if let Some(duration_ms) = info.duration_ms {
            write::float(element, ids::DURATION, duration_ms);
        }
        if let Some(unix_ms) = info.date_unix_ms {
            let ns = unix_ms
                .saturating_sub(MATROSKA_EPOCH_UNIX_MS)
                .saturating_mul(1_000_000);
            write::binary(element, ids::DATE_UTC, &ns.to_be_bytes());
        }
        write::binary(element, ids::MUXING_APP, APP.as_bytes());
        write::binary(element, ids::WRITING_APP, APP.as_bytes());
        if let Some(title) = info.title {
            write::binary(element, ids::TITLE, title.as_bytes());
        }
    });
}

/// Appends `Tracks`.
pub fn track_list<'a>(out: &mut Vec<u8>, list: impl IntoIterator<Item = &'a Track>) {
    write::master(out, ids::TRACKS, |element| {
        for track in list {
            write::binary(element, ids::TRACK_ENTRY, &tracks::entry_payload(track));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ebml_header_is_the_same_36_bytes_for_every_webm() {
        let mut out = Vec::new();
        ebml(&mut out, DocType::WebM);
        assert_eq!(out.len(), 36);
        assert_eq!(out[..8], [0x1A, 0x45, 0xDF, 0xA3, 0x9F, 0x42, 0x86, 0x81]);
    }

    #[test]
    fn dates_count_from_2001() {
        let mut out = Vec::new();
        let date_unix_ms = Some(MATROSKA_EPOCH_UNIX_MS + 1);
        info(
            &mut out,
            &Info {
                date_unix_ms,
                ..Info::default()
            },
        );
        let date = [0x44, 0x61, 0x88, 0, 0, 0, 0, 0, 0x0F, 0x42, 0x40];
        assert!(out.windows(date.len()).any(|window| window == date));
    }
}
