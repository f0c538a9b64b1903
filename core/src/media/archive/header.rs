//! The reserved front of the archive: always exactly the same number of bytes, written once in a
//! live form and once more, in place, when the show is over.

use super::chapters;
use super::cues::CueIndex;
use super::{Chapter, MuxError};
use crate::media::packet::Track;
use crate::media::webm::header::{self, DocType, Info};
use crate::media::webm::{ids, write};

/// One entry of the seek head: IDs, sizes, a four-byte ID and an eight-byte position.
const SEEK_LEN: usize = 21;
/// Smallest room for the index below which a header counts as full, bytes.
const CUES_ROOM_MIN: usize = 1_024;

/// What is known of the archive when its header is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout<'a> {
    pub(super) tracks: &'a [&'a Track],
    pub(super) title: Option<&'a str>,
    pub(super) date_unix_ms: i64,
    /// Length of the whole header, bytes.
    pub(super) reserved: usize,
}

/// What is known only at the end.
#[derive(Debug, Clone, Copy)]
pub(super) struct End<'a> {
    pub(super) duration_ms: f64,
    pub(super) body_len: u64,
    pub(super) cues: &'a CueIndex,
    /// Track that the index is for.
    pub(super) cue_track: u8,
    /// Chapters with their media times in ms, in order.
    pub(super) chapters: &'a [Chapter],
}

/// A finished header.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) bytes: Vec<u8>,
    /// How many chapters had room.
    pub(super) chapters: usize,
    /// One of so many clusters is in the index; 0 if there is none.
    pub(super) cue_every: usize,
}

impl Layout<'_> {
    /// The header of a file whose end is unknown: playable, not seekable.
    pub(super) fn live(&self) -> Result<Vec<u8>, MuxError> {
        let mut out = self.start(None);
        let data_at = out.len();
        let info = self.info(None);
        let tracks = self.tracks();
        seek_head(
            &mut out,
            data_at,
            &[(ids::INFO, &info), (ids::TRACKS, &tracks)],
        );
        self.pad(&mut out)?;
        Ok(out)
    }

    /// The header of the complete file.
    pub(super) fn finished(&self, end: &End<'_>) -> Result<Written, MuxError> {
        let head_len = self.start(Some(0)).len();
        let segment_len = self.reserved as u64 - head_len as u64 + end.body_len;
        let mut out = self.start(Some(segment_len));
        let body_at = self.reserved as u64 - head_len as u64;
        let info = self.info(Some(end.duration_ms));
        let tracks = self.tracks();
        let fixed = head_len + 5 + 4 * SEEK_LEN + info.len() + tracks.len() + write::VOID_MIN;
        let room = self
            .reserved
            .checked_sub(fixed)
            .ok_or(MuxError::HeaderTooLarge)?;
        let (chapters, chapter_count) = chapters::element(end.chapters, room / 4);
        let cues = end
            .cues
            .element(end.cue_track, body_at, room - chapters.len());
        let cue_every = cues.as_ref().map_or(0, |cues| cues.every);
        let cues = cues.map(|cues| cues.bytes).unwrap_or_default();
        let parts: Vec<_> = [
            (ids::INFO, &info),
            (ids::TRACKS, &tracks),
            (ids::CHAPTERS, &chapters),
            (ids::CUES, &cues),
        ]
        .into_iter()
        .filter(|(_, bytes)| !bytes.is_empty())
        .collect();
        seek_head(&mut out, head_len, &parts);
        self.pad(&mut out)?;
        Ok(Written {
            bytes: out,
            chapters: chapter_count,
            cue_every,
        })
    }

    fn start(&self, segment_len: Option<u64>) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.reserved);
        header::ebml(&mut out, DocType::of(self.tracks.iter().copied()));
        header::segment(&mut out, segment_len);
        out
    }

    fn info(&self, duration_ms: Option<f64>) -> Vec<u8> {
        let mut out = Vec::new();
        let date_unix_ms = Some(self.date_unix_ms);
        header::info(
            &mut out,
            &Info {
                duration_ms,
                date_unix_ms,
                title: self.title,
            },
        );
        out
    }

    fn tracks(&self) -> Vec<u8> {
        let mut out = Vec::new();
        header::track_list(&mut out, self.tracks.iter().copied());
        out
    }

    fn pad(&self, out: &mut Vec<u8>) -> Result<(), MuxError> {
        match self.reserved.checked_sub(out.len()) {
            Some(rest) if rest >= write::VOID_MIN => {
                write::void(out, rest);
                Ok(())
            }
            Some(_) | None => Err(MuxError::HeaderTooLarge),
        }
    }

    /// Whether the finished header will have room for an index.
    pub(super) fn check(&self) -> Result<(), MuxError> {
        let used = self.start(None).len() + self.info(Some(0.0)).len() + self.tracks().len();
        let needed = used + 5 + 4 * SEEK_LEN + CUES_ROOM_MIN;
        if needed > self.reserved {
            Err(MuxError::HeaderTooLarge)
        } else {
            Ok(())
        }
    }
}

/// Appends the seek head for `parts` and the parts themselves behind it.
fn seek_head(out: &mut Vec<u8>, data_at: usize, parts: &[(u32, &Vec<u8>)]) {
    let payload_len = parts.len() * SEEK_LEN;
    let head_len = 4 + write::size_len(payload_len as u64);
    let mut position = (out.len() - data_at + head_len + payload_len) as u64;
    write::master(out, ids::SEEK_HEAD, |seek_head| {
        for (id, bytes) in parts {
            write::master(seek_head, ids::SEEK, |seek| {
                write::binary(seek, ids::SEEK_ID, &id.to_be_bytes());
                write::uint_fixed(seek, ids::SEEK_POSITION, position);
            });
            position += bytes.len() as u64;
        }
    });
    for (_, bytes) in parts {
        out.extend_from_slice(bytes);
    }
}
