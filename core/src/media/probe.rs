//! Which container a take is, told by its first bytes. It never looks further than
//! [`PROBE_BYTES_MAX`] bytes and never trusts a declared MIME type over the bytes themselves.

use serde::{Deserialize, Serialize};

/// The most bytes [`probe`] needs to decide.
pub const PROBE_BYTES_MAX: usize = 16;

const EBML_MAGIC: [u8; 4] = [0x1A, 0x45, 0xDF, 0xA3];
const OGG_MAGIC: [u8; 4] = *b"OggS";
const MP4_BRAND_BOX: [u8; 4] = *b"ftyp";
/// Position of the box type in an MP4 file; the four bytes before it are the box size.
const MP4_BRAND_AT: usize = 4;
/// Position of the header-type byte in an Ogg page, right after the magic and the version.
const OGG_HEADER_TYPE_AT: usize = 5;
const OGG_FLAG_FIRST_PAGE: u8 = 0x02;

/// A container format that a browser's recorder produces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Container {
    /// `WebM` or Matroska (EBML).
    WebM,
    /// Fragmented MP4 (ISO base media).
    Mp4,
    /// Ogg, holding Opus.
    Ogg,
}

impl Container {
    /// File name extension, without the dot.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::WebM => "webm",
            Self::Mp4 => "mp4",
            Self::Ogg => "ogg",
        }
    }

    /// The Content-Type of a file of this container. `recorder_mime` is what the browser declared;
    /// it only decides between `audio/` and `video/`, the container comes from the bytes.
    #[must_use]
    pub fn content_type(self, recorder_mime: &str) -> &'static str {
        let is_video = recorder_mime
            .trim_start()
            .get(..6)
            .is_some_and(|kind| kind.eq_ignore_ascii_case("video/"));
        match (self, is_video) {
            (Self::WebM, false) => "audio/webm",
            (Self::WebM, true) => "video/webm",
            (Self::Mp4, false) => "audio/mp4",
            (Self::Mp4, true) => "video/mp4",
            (Self::Ogg, false) => "audio/ogg",
            (Self::Ogg, true) => "video/ogg",
        }
    }
}

/// What the first bytes of a take say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// The bytes so far fit a known container but do not decide yet; call again with a longer
    /// prefix (never more than [`PROBE_BYTES_MAX`] bytes are needed).
    NeedMore,
    /// The take is this container.
    Found(Container),
    /// No supported container starts like this.
    Unsupported,
}

/// Tells the container of a take from its first bytes.
#[must_use]
pub fn probe(prefix: &[u8]) -> Probe {
    match probe_ebml(prefix) {
        Probe::Unsupported => {}
        decided => return decided,
    }
    match probe_ogg(prefix) {
        Probe::Unsupported => {}
        decided => return decided,
    }
    probe_mp4(prefix)
}

fn probe_ebml(prefix: &[u8]) -> Probe {
    match matches_at(prefix, 0, &EBML_MAGIC) {
        Some(true) => Probe::Found(Container::WebM),
        Some(false) => Probe::Unsupported,
        None => Probe::NeedMore,
    }
}

fn probe_ogg(prefix: &[u8]) -> Probe {
    match (
        matches_at(prefix, 0, &OGG_MAGIC),
        prefix.get(OGG_HEADER_TYPE_AT),
    ) {
        (Some(false), _) => Probe::Unsupported,
        (Some(true), Some(flags)) if flags & OGG_FLAG_FIRST_PAGE != 0 => {
            Probe::Found(Container::Ogg)
        }
        (Some(true), Some(_)) => Probe::Unsupported,
        (None, _) | (Some(true), None) => Probe::NeedMore,
    }
}

fn probe_mp4(prefix: &[u8]) -> Probe {
    match matches_at(prefix, MP4_BRAND_AT, &MP4_BRAND_BOX) {
        Some(true) => Probe::Found(Container::Mp4),
        Some(false) => Probe::Unsupported,
        None => Probe::NeedMore,
    }
}

/// Whether `wanted` stands at `at`; `None` when the bytes there fit but some have not arrived.
fn matches_at(prefix: &[u8], at: usize, wanted: &[u8]) -> Option<bool> {
    let present = prefix.get(at..).unwrap_or(&[]);
    let compared = present.len().min(wanted.len());
    if present[..compared] != wanted[..compared] {
        return Some(false);
    }
    (compared == wanted.len()).then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OGG_FIRST: &[u8] = b"OggS\x00\x02\x00\x00";
    const MP4_FIRST: &[u8] = b"\x00\x00\x00\x20ftypiso5";
    const EBML_FIRST: &[u8] = b"\x1A\x45\xDF\xA3\x9F\x42\x86";

    #[test]
    fn each_container_is_found_by_its_magic() {
        assert_eq!(probe(EBML_FIRST), Probe::Found(Container::WebM));
        assert_eq!(probe(OGG_FIRST), Probe::Found(Container::Ogg));
        assert_eq!(probe(MP4_FIRST), Probe::Found(Container::Mp4));
    }

    #[test]
    fn every_shorter_prefix_asks_for_more_until_it_decides() {
        for (whole, found) in [
            (EBML_FIRST, Container::WebM),
            (OGG_FIRST, Container::Ogg),
            (MP4_FIRST, Container::Mp4),
        ] {
            let mut decided = false;
            for len in 0..=whole.len() {
                match probe(&whole[..len]) {
                    Probe::NeedMore => assert!(!decided, "undecided again at {len}"),
                    Probe::Found(container) => {
                        assert_eq!(container, found);
                        decided = true;
                    }
                    Probe::Unsupported => panic!("{found:?} refused at {len}"),
                }
            }
            assert!(decided);
        }
    }

    #[test]
    fn sixteen_bytes_always_decide() {
        for first in 0..=255u8 {
            assert_ne!(probe(&[first; PROBE_BYTES_MAX]), Probe::NeedMore);
        }
    }

    #[test]
    fn an_ogg_page_in_the_middle_of_a_stream_is_refused() {
        assert_eq!(probe(b"OggS\x00\x00\x00\x00"), Probe::Unsupported);
    }

    #[test]
    fn text_and_other_media_are_refused() {
        assert_eq!(probe(b"<!DOCTYPE html><"), Probe::Unsupported);
        assert_eq!(probe(b"RIFF\x24\x00\x00\x00WAVEfmt "), Probe::Unsupported);
    }

    #[test]
    fn the_container_is_a_lower_case_word_on_the_wire() {
        for (container, word) in [
            (Container::WebM, "\"webm\""),
            (Container::Mp4, "\"mp4\""),
            (Container::Ogg, "\"ogg\""),
        ] {
            assert_eq!(serde_json::to_string(&container).unwrap(), word);
            assert_eq!(serde_json::from_str::<Container>(word).unwrap(), container);
            assert_eq!(format!("\"{}\"", container.extension()), word);
        }
    }

    #[test]
    fn the_declared_mime_only_chooses_between_audio_and_video() {
        assert_eq!(
            Container::WebM.content_type("audio/webm;codecs=opus"),
            "audio/webm"
        );
        assert_eq!(
            Container::WebM.content_type("VIDEO/x-matroska;codecs=avc1"),
            "video/webm"
        );
        assert_eq!(Container::Mp4.content_type(""), "audio/mp4");
        assert_eq!(Container::Ogg.content_type("video/mp4"), "video/ogg");
    }
}
