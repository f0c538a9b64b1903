//! The tracks of an MP4 file, from its `moov`. Codecs without a Matroska name are named after their
//! sample entry, not guessed at.

use bytes::Bytes;
use mp4_atom::{Atom, Audio, Codec, Encode, Moov, Stsd, Trak, Visual};

use crate::media::limits::{CODEC_ID_MAX, HEADER_ELEMENT_MAX, TRACKS_MAX};
use crate::media::opus::{self, OpusHead};
use crate::media::packet::{
    CODEC_AAC, CODEC_AV1, CODEC_H264, CODEC_HEVC, CODEC_MP4_AUDIO, CODEC_MP4_VIDEO, CODEC_OPUS,
    CODEC_VP8, CODEC_VP9, DemuxError, Entry, Track, TrackKind,
};

/// Longest run-in that is believed, s.
const RUN_IN_MAX_S: i64 = 10;

/// A track with what is needed to read its fragments.
#[derive(Debug, Clone)]
pub(super) struct Mp4Track {
    pub(super) id: u32,
    pub(super) track: Track,
    /// Ticks a second.
    pub(super) timescale: u32,
    pub(super) defaults: Defaults,
    /// Media time that is shown first, ticks: what comes before is the codec's run-in.
    pub(super) run_in: i64,
    /// Decode time after the last sample, ticks; for fragments that do not say theirs.
    pub(super) next_ticks: u64,
}

/// What a sample is when its fragment does not say.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Defaults {
    pub(super) duration: u32,
    pub(super) size: u32,
    pub(super) flags: u32,
}

/// Reads the tracks; at least one.
pub(super) fn tracks(moov: &Moov) -> Result<Vec<Mp4Track>, DemuxError> {
    let Some(extends) = &moov.mvex else {
        return Err(DemuxError::NotFragmented);
    };
    let mut found = Vec::new();
    let mut unsupported = Vec::new();
    for trak in moov.trak.iter().take(TRACKS_MAX) {
        let id = trak.tkhd.track_id;
        let codec = trak.mdia.minf.stbl.stsd.codecs.first();
        let Some(track) = codec.and_then(|codec| describe(trak, codec)) else {
            unsupported.push(codec.map_or_else(|| "nothing".to_owned(), codec_name));
            continue;
        };
        let defaults = extends.trex.iter().find(|trex| trex.track_id == id);
        let timescale = trak.mdia.mdhd.timescale;
        let repeated = found.iter().any(|other: &Mp4Track| other.id == id);
        if timescale == 0 || repeated {
            continue;
        }
        let defaults = defaults.map_or_else(Defaults::default, |trex| Defaults {
            duration: trex.default_sample_duration,
            size: trex.default_sample_size,
            flags: trex.default_sample_flags,
        });
        found.push(Mp4Track {
            id,
            track,
            timescale,
            defaults,
            run_in: run_in(trak, timescale),
            next_ticks: 0,
        });
    }
    if found.is_empty() {
        let found = unsupported.join(", ");
        return Err(DemuxError::NoSupportedCodec {
            container: "mp4",
            found,
        });
    }
    Ok(found)
}

/// Where the edit list starts to show the track, ticks.
fn run_in(trak: &Trak, timescale: u32) -> i64 {
    let edits = trak.edts.as_ref().and_then(|edts| edts.elst.as_ref());
    let shown = edits.and_then(|elst| elst.entries.iter().find_map(|edit| edit.media_time));
    let longest = i64::from(timescale) * RUN_IN_MAX_S;
    shown
        .and_then(|ticks| i64::try_from(ticks).ok())
        .filter(|t| *t <= longest)
        .unwrap_or(0)
}

/// Name of a sample entry: what follows it in a debug print are its contents.
fn codec_name(codec: &Codec) -> String {
    if let Codec::Unknown(kind, _) = codec {
        return kind.to_string();
    }
    let text = format!("{codec:?}");
    let name: String = text
        .chars()
        .take_while(char::is_ascii_alphanumeric)
        .collect();
    name.to_ascii_lowercase()
}

/// The track; `None` if it is neither sound nor picture.
fn describe(trak: &Trak, codec: &Codec) -> Option<Track> {
    let number = u64::from(trak.tkhd.track_id);
    // Track numbers of an archive fit into seven bits; recorders count from one.
    if !(1..127).contains(&number) {
        return None;
    }
    let track = |codec_id: &str, kind, codec_private| Track {
        number,
        kind,
        codec_id: codec_id.to_owned(),
        codec_private,
        codec_delay_ns: 0,
        seek_pre_roll_ns: 0,
        entry: Entry::None,
    };
    let known = match codec {
        Codec::Opus(entry) => simple_opus(entry).map(|head| Track {
            codec_delay_ns: head.delay_ns(),
            seek_pre_roll_ns: opus::SEEK_PRE_ROLL_NS,
            ..track(CODEC_OPUS, opus_kind(head), head.to_bytes())
        }),
        Codec::Mp4a(entry) => {
            let config = entry.esds.es_desc.dec_config.dec_specific.as_ref();
            let config = config.map(|config| Bytes::copy_from_slice(&config.raw));
            Some(track(
                CODEC_AAC,
                audio(&entry.audio),
                config.unwrap_or_default(),
            ))
        }
        Codec::Avc1(e) => body(&e.avcc).map(|avcc| track(CODEC_H264, video(&e.visual), avcc)),
        Codec::Hvc1(e) => body(&e.hvcc).map(|hvcc| track(CODEC_HEVC, video(&e.visual), hvcc)),
        Codec::Av01(e) => body(&e.av1c).map(|av1c| track(CODEC_AV1, video(&e.visual), av1c)),
        Codec::Vp08(e) => Some(track(CODEC_VP8, video(&e.visual), Bytes::new())),
        Codec::Vp09(e) => Some(track(CODEC_VP9, video(&e.visual), Bytes::new())),
        _ => None,
    };
    let described = known.or_else(|| {
        let (prefix, kind) = foreign(trak, codec)?;
        let codec_id = format!("{prefix}{}", codec_name(codec));
        (codec_id.len() <= CODEC_ID_MAX).then(|| track(&codec_id, kind, Bytes::new()))
    })?;
    let entry = Entry::Mp4(sample_description(codec)?);
    Some(Track { entry, ..described })
}

/// A codec without a Matroska name here. It can still be copied from MP4 to MP4.
fn foreign(trak: &Trak, codec: &Codec) -> Option<(&'static str, TrackKind)> {
    let handler: [u8; 4] = trak.mdia.hdlr.handler.into();
    match &handler {
        b"soun" => {
            let sample_rate = trak.mdia.mdhd.timescale;
            Some((
                CODEC_MP4_AUDIO,
                TrackKind::Audio {
                    channels: 0,
                    sample_rate,
                },
            ))
        }
        b"vide" => {
            let nothing = TrackKind::Video {
                width: 0,
                height: 0,
            };
            Some((CODEC_MP4_VIDEO, codec.visual().map_or(nothing, video)))
        }
        _ => None,
    }
}

/// The `OpusHead` of mono or stereo.
fn simple_opus(entry: &mp4_atom::Opus) -> Option<OpusHead> {
    let dops = &entry.dops;
    let simple = dops.channel_mapping.is_none() && (1..=2).contains(&dops.output_channel_count);
    simple.then_some(OpusHead {
        channels: dops.output_channel_count,
        pre_skip: dops.pre_skip,
        input_rate: dops.input_sample_rate,
        gain: dops.output_gain,
        mapping_family: 0,
    })
}

fn opus_kind(head: OpusHead) -> TrackKind {
    TrackKind::Audio {
        channels: u32::from(head.channels),
        sample_rate: opus::SAMPLE_RATE,
    }
}

/// The `stsd` box with this one sample entry.
fn sample_description(codec: &Codec) -> Option<Bytes> {
    let mut out = Vec::new();
    let stsd = Stsd {
        codecs: vec![codec.clone()],
    };
    stsd.encode(&mut out).ok()?;
    (out.len() <= HEADER_ELEMENT_MAX / 4).then(|| out.into())
}

fn audio(entry: &Audio) -> TrackKind {
    TrackKind::Audio {
        channels: u32::from(entry.channel_count),
        sample_rate: u32::from(entry.sample_rate.integer()),
    }
}

fn video(entry: &Visual) -> TrackKind {
    TrackKind::Video {
        width: u32::from(entry.width),
        height: u32::from(entry.height),
    }
}

/// The payload of a configuration box is what Matroska stores as codec private data.
fn body(config: &impl Atom) -> Option<Bytes> {
    let mut out = Vec::new();
    config.encode_body(&mut out).ok()?;
    Some(out.into())
}
