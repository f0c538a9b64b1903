//! Markers of the show as Matroska chapters. Writes as many as its room allows, in order.

use super::Chapter;
use crate::media::webm::{ids, write};

/// Longest label that is written, bytes.
const LABEL_MAX: usize = 256;

/// The `Chapters` element of at most `room` bytes, and how many chapters are in it. Empty without
/// any. `at_ms` is media time here.
pub(super) fn element(chapters: &[Chapter], room: usize) -> (Vec<u8>, usize) {
    let mut atoms = Vec::new();
    let mut count = 0;
    for chapter in chapters {
        let before = atoms.len();
        atom(&mut atoms, count, chapter);
        // Heads of the three elements around the atoms.
        if atoms.len() + 32 > room {
            atoms.truncate(before);
            break;
        }
        count += 1;
    }
    let mut out = Vec::new();
    if count > 0 {
        write::master(&mut out, ids::CHAPTERS, |chapters| {
            write::binary(chapters, ids::EDITION_ENTRY, &atoms);
        });
    }
    (out, count)
}

fn atom(out: &mut Vec<u8>, index: usize, chapter: &Chapter) {
    write::master(out, ids::CHAPTER_ATOM, |atom| {
        write::uint(atom, ids::CHAPTER_UID, index as u64 + 1);
        write::uint(
            atom,
            ids::CHAPTER_TIME_START,
            chapter.at_ms.saturating_mul(1_000_000),
        );
        write::master(atom, ids::CHAPTER_DISPLAY, |display| {
            write::binary(display, ids::CHAP_STRING, clip(&chapter.label).as_bytes());
            write::binary(display, ids::CHAP_LANGUAGE, b"und");
        });
    });
}

/// At most [`LABEL_MAX`] bytes of a text, cut between characters.
pub(super) fn clip(text: &str) -> &str {
    let mut end = text.len().min(LABEL_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many(count: u64) -> Vec<Chapter> {
        (0..count)
            .map(|at| Chapter {
                at_ms: at * 1_000,
                label: format!("part {at}"),
            })
            .collect()
    }

    #[test]
    fn chapters_beyond_the_room_are_left_out() {
        let (bytes, count) = element(&many(1_000), 2_000);
        assert!(
            bytes.len() <= 2_000 && count > 40 && count < 1_000,
            "{count}"
        );
        assert_eq!(element(&many(3), 2_000).1, 3);
        assert_eq!(element(&[], 2_000), (Vec::new(), 0));
    }

    #[test]
    fn long_labels_are_cut_between_characters() {
        assert_eq!(clip(&"ä".repeat(200)).len(), LABEL_MAX);
        assert_eq!(clip(&format!("x{}", "ä".repeat(200))).len(), LABEL_MAX - 1);
    }
}
