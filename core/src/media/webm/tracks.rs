//! The header elements of a take: `Info`'s timestamp scale and the `Tracks` list. Reads whole
//! buffered elements; what it cannot read is [`Malformed`], never a guess.

use bytes::Bytes;

use super::ebml::{Children, Malformed, float, uint};
use super::{ids, write};
use crate::media::limits::{CODEC_ID_MAX, TRACKS_MAX};
use crate::media::packet::{Entry, Track, TrackKind};

/// Ticks of one millisecond, what every browser writes.
pub const SCALE_DEFAULT_NS: u64 = 1_000_000;
/// One second a tick: coarser than anything real.
const SCALE_MAX_NS: u64 = 1_000_000_000;
const TYPE_VIDEO: u64 = 1;
const TYPE_AUDIO: u64 = 2;
/// Default of the `SamplingFrequency` element, Hz.
const SAMPLE_RATE_DEFAULT: u32 = 8_000;

/// Reads the timestamp scale out of an `Info` payload, nanoseconds a tick.
///
/// # Errors
/// [`Malformed`] if the element is damaged or the scale is zero or above a second.
pub fn timestamp_scale(info: &[u8]) -> Result<u64, Malformed> {
    let mut scale = SCALE_DEFAULT_NS;
    for child in Children::new(info) {
        let child = child?;
        if child.id == ids::TIMESTAMP_SCALE {
            scale = uint(child.payload)?;
        }
    }
    if (1..=SCALE_MAX_NS).contains(&scale) {
        Ok(scale)
    } else {
        Err(Malformed)
    }
}

/// Reads the tracks out of a `Tracks` payload.
///
/// # Errors
/// [`Malformed`] if the element is damaged, empty, or lists more than [`TRACKS_MAX`] tracks.
pub fn parse(tracks: &Bytes) -> Result<Vec<Track>, Malformed> {
    let mut found: Vec<Track> = Vec::new();
    for child in Children::new(tracks) {
        let child = child?;
        if child.id != ids::TRACK_ENTRY {
            continue;
        }
        let track = entry(&tracks.slice_ref(child.payload))?;
        if found.len() == TRACKS_MAX || found.iter().any(|other| other.number == track.number) {
            return Err(Malformed);
        }
        found.push(track);
    }
    if found.is_empty() {
        Err(Malformed)
    } else {
        Ok(found)
    }
}

fn entry(payload: &Bytes) -> Result<Track, Malformed> {
    let mut track = Track {
        number: 0,
        kind: TrackKind::Other,
        codec_id: String::new(),
        codec_private: Bytes::new(),
        codec_delay_ns: 0,
        seek_pre_roll_ns: 0,
        entry: Entry::Matroska(payload.clone()),
    };
    let (mut kind, mut audio, mut video) = (0, &[][..], &[][..]);
    for child in Children::new(payload) {
        let child = child?;
        match child.id {
            ids::TRACK_NUMBER => track.number = uint(child.payload)?,
            ids::TRACK_TYPE => kind = uint(child.payload)?,
            ids::CODEC_ID => track.codec_id = codec_id(child.payload)?,
            ids::CODEC_PRIVATE => track.codec_private = payload.slice_ref(child.payload),
            ids::CODEC_DELAY => track.codec_delay_ns = uint(child.payload)?,
            ids::SEEK_PRE_ROLL => track.seek_pre_roll_ns = uint(child.payload)?,
            ids::AUDIO => audio = child.payload,
            ids::VIDEO => video = child.payload,
            _ => {}
        }
    }
    // A track number is written as a vint in every block; 127 keeps that to the one byte that all
    // browsers use and makes a damaged number improbable.
    if track.number == 0 || track.number >= 127 || track.codec_id.is_empty() {
        return Err(Malformed);
    }
    track.kind = match kind {
        TYPE_AUDIO => audio_kind(audio)?,
        TYPE_VIDEO => video_kind(video)?,
        _ => TrackKind::Other,
    };
    Ok(track)
}

fn codec_id(payload: &[u8]) -> Result<String, Malformed> {
    let text = payload.split(|byte| *byte == 0).next().unwrap_or(payload);
    if text.len() > CODEC_ID_MAX || !text.iter().all(u8::is_ascii_graphic) {
        return Err(Malformed);
    }
    Ok(text.iter().map(|byte| char::from(*byte)).collect())
}

fn audio_kind(payload: &[u8]) -> Result<TrackKind, Malformed> {
    let (mut channels, mut sample_rate) = (1, SAMPLE_RATE_DEFAULT);
    for child in Children::new(payload) {
        let child = child?;
        match child.id {
            ids::CHANNELS => channels = small(child.payload)?,
            ids::SAMPLING_FREQUENCY => sample_rate = hertz(float(child.payload)?)?,
            _ => {}
        }
    }
    Ok(TrackKind::Audio {
        channels,
        sample_rate,
    })
}

fn video_kind(payload: &[u8]) -> Result<TrackKind, Malformed> {
    let (mut width, mut height) = (0, 0);
    for child in Children::new(payload) {
        let child = child?;
        match child.id {
            ids::PIXEL_WIDTH => width = small(child.payload)?,
            ids::PIXEL_HEIGHT => height = small(child.payload)?,
            _ => {}
        }
    }
    Ok(TrackKind::Video { width, height })
}

fn small(payload: &[u8]) -> Result<u32, Malformed> {
    u32::try_from(uint(payload)?).map_err(|_| Malformed)
}

fn hertz(rate: f64) -> Result<u32, Malformed> {
    if !(1.0..=768_000.0).contains(&rate) {
        return Err(Malformed);
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range was checked in the line above"
    )]
    Ok(rate.round() as u32)
}

/// The `TrackEntry` payload of a track: what the take brought, or one made from its description.
#[must_use]
pub fn entry_payload(track: &Track) -> Bytes {
    if let Entry::Matroska(verbatim) = &track.entry {
        return verbatim.clone();
    }
    let mut out = Vec::with_capacity(128);
    write::uint(&mut out, ids::TRACK_NUMBER, track.number);
    // Any unique number will do; the archive must not depend on a random one.
    write::uint(&mut out, ids::TRACK_UID, track.number);
    write::uint(
        &mut out,
        ids::TRACK_TYPE,
        if track.is_audio() {
            TYPE_AUDIO
        } else {
            TYPE_VIDEO
        },
    );
    write::uint(&mut out, ids::FLAG_LACING, 0);
    write::binary(&mut out, ids::CODEC_ID, track.codec_id.as_bytes());
    if !track.codec_private.is_empty() {
        write::binary(&mut out, ids::CODEC_PRIVATE, &track.codec_private);
    }
    if track.codec_delay_ns > 0 {
        write::uint(&mut out, ids::CODEC_DELAY, track.codec_delay_ns);
    }
    if track.seek_pre_roll_ns > 0 {
        write::uint(&mut out, ids::SEEK_PRE_ROLL, track.seek_pre_roll_ns);
    }
    match track.kind {
        TrackKind::Audio {
            channels,
            sample_rate,
        } => write::master(&mut out, ids::AUDIO, |audio| {
            write::float(audio, ids::SAMPLING_FREQUENCY, f64::from(sample_rate));
            write::uint(audio, ids::CHANNELS, u64::from(channels));
        }),
        TrackKind::Video { width, height } => write::master(&mut out, ids::VIDEO, |video| {
            write::uint(video, ids::PIXEL_WIDTH, u64::from(width));
            write::uint(video, ids::PIXEL_HEIGHT, u64::from(height));
        }),
        TrackKind::Other => {}
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::packet::{CODEC_OPUS, CODEC_VP9};

    fn made(number: u64, kind: TrackKind, codec_id: &str) -> Track {
        Track {
            number,
            kind,
            codec_id: codec_id.to_owned(),
            codec_private: Bytes::from_static(b"private"),
            codec_delay_ns: 6_500_000,
            seek_pre_roll_ns: 80_000_000,
            entry: Entry::None,
        }
    }

    fn list(tracks: &[Track]) -> Bytes {
        let mut out = Vec::new();
        for track in tracks {
            write::binary(&mut out, ids::TRACK_ENTRY, &entry_payload(track));
        }
        out.into()
    }

    #[test]
    fn a_made_up_entry_reads_back_as_the_track_it_was_made_from() {
        let tracks = [
            made(
                1,
                TrackKind::Audio {
                    channels: 2,
                    sample_rate: 48_000,
                },
                CODEC_OPUS,
            ),
            made(
                2,
                TrackKind::Video {
                    width: 640,
                    height: 480,
                },
                CODEC_VP9,
            ),
        ];
        let read = parse(&list(&tracks)).expect("own output");
        assert_eq!(read.len(), 2);
        for (read, made) in read.into_iter().zip(tracks) {
            assert!(matches!(read.entry, Entry::Matroska(_)));
            assert_eq!(
                Track {
                    entry: Entry::None,
                    ..read
                },
                made
            );
        }
    }

    #[test]
    fn two_tracks_of_one_number_are_refused() {
        let audio = made(
            1,
            TrackKind::Audio {
                channels: 2,
                sample_rate: 48_000,
            },
            CODEC_OPUS,
        );
        assert_eq!(parse(&list(&[audio.clone(), audio])), Err(Malformed));
    }

    #[test]
    fn an_absurd_timestamp_scale_is_refused() {
        let mut info = Vec::new();
        write::uint(&mut info, ids::TIMESTAMP_SCALE, 0);
        assert_eq!(timestamp_scale(&info), Err(Malformed));
        assert_eq!(timestamp_scale(&[]), Ok(SCALE_DEFAULT_NS));
    }
}
