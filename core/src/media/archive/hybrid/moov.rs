//! The `moov` boxes of an MP4 archive: one without samples for the growing file, one with all of
//! them for the finished one.

use mp4_atom::{
    Decode, Dinf, Dref, DrefEntry, Edts, Elst, ElstEntry, Encode, FixedPoint, FourCC, Ftyp, Hdlr,
    Mdhd, Mdia, Minf, Moov, Mvex, Mvhd, Smhd, Stbl, Stsd, Tkhd, Trak, Trex, Url, Vmhd,
};

use crate::media::archive::MuxError;
use crate::media::packet::{Entry, Track, TrackKind};

/// Ticks a second of the movie header.
const MOVIE_TIMESCALE: u32 = 1_000;
/// 1904-01-01T00:00:00Z, the MP4 epoch, s before the Unix epoch.
const EPOCH_BEFORE_UNIX_S: i64 = 2_082_844_800;

/// What a track of a `moov` is made of.
#[derive(Debug)]
pub(super) struct TrackBox<'a> {
    pub(super) track: &'a Track,
    /// Track number in the output.
    pub(super) id: u32,
    /// Ticks a second.
    pub(super) timescale: u32,
    /// Length, ticks.
    pub(super) duration: u64,
    /// Sample tables; `None` if the samples are in fragments.
    pub(super) samples: Option<super::tables::Tables>,
}

/// The first box of the file.
pub(super) fn ftyp() -> Result<Vec<u8>, MuxError> {
    encoded(&Ftyp {
        major_brand: FourCC::new(b"isom"),
        minor_version: 512,
        compatible_brands: [b"isom", b"iso6", b"mp41", b"mp42"]
            .map(FourCC::new)
            .to_vec(),
    })
}

/// The movie header with its tracks.
pub(super) fn moov(tracks: Vec<TrackBox<'_>>, created_unix_ms: i64) -> Result<Vec<u8>, MuxError> {
    let created = created_unix_ms
        .div_euclid(1_000)
        .saturating_add(EPOCH_BEFORE_UNIX_S);
    let created = u64::try_from(created).unwrap_or(0);
    let is_growing = tracks.iter().any(|track| track.samples.is_none());
    let ids: Vec<_> = tracks.iter().map(|track| track.id).collect();
    let durations = tracks
        .iter()
        .map(|of| movie_ticks(of.duration, of.timescale));
    let mvhd = Mvhd {
        creation_time: created,
        modification_time: created,
        timescale: MOVIE_TIMESCALE,
        duration: durations.max().unwrap_or(0),
        rate: FixedPoint::new(1, 0),
        volume: FixedPoint::new(1, 0),
        matrix: mp4_atom::Matrix::default(),
        next_track_id: ids.iter().max().map_or(1, |id| id + 1),
    };
    let mvex = is_growing.then(|| Mvex {
        mehd: None,
        trex: ids.iter().map(|id| trex(*id)).collect(),
    });
    let trak: Result<Vec<_>, _> = tracks
        .into_iter()
        .map(|track| trak(track, created))
        .collect();
    encoded(&Moov {
        mvhd,
        mvex,
        trak: trak?,
        ..Moov::default()
    })
}

fn movie_ticks(ticks: u64, timescale: u32) -> u64 {
    let scaled = u128::from(ticks) * u128::from(MOVIE_TIMESCALE);
    u64::try_from(scaled.div_ceil(u128::from(timescale.max(1)))).unwrap_or(u64::MAX)
}

fn trex(track_id: u32) -> Trex {
    Trex {
        track_id,
        default_sample_description_index: 1,
        ..Trex::default()
    }
}

fn trak(track: TrackBox<'_>, created: u64) -> Result<Trak, MuxError> {
    let duration = movie_ticks(track.duration, track.timescale);
    let is_audio = track.track.is_audio();
    let (width, height) = match track.track.kind {
        TrackKind::Video { width, height } => (width, height),
        TrackKind::Audio { .. } | TrackKind::Other => (0, 0),
    };
    let edts = track
        .samples
        .as_ref()
        .and_then(|tables| edits(tables, &track, duration));
    let small = |length: u32| FixedPoint::new(u16::try_from(length).unwrap_or(u16::MAX), 0);
    let tkhd = Tkhd {
        creation_time: created,
        modification_time: created,
        track_id: track.id,
        duration,
        enabled: true,
        in_movie: true,
        volume: FixedPoint::new(u8::from(is_audio), 0),
        width: small(width),
        height: small(height),
        ..Tkhd::default()
    };
    let mdhd = Mdhd {
        creation_time: created,
        modification_time: created,
        timescale: track.timescale,
        duration: track.duration - track.samples.as_ref().map_or(0, |all| all.start()),
        language: "und".to_owned(),
    };
    let (handler, name) = if is_audio {
        (b"soun", "SoundHandler")
    } else {
        (b"vide", "VideoHandler")
    };
    let hdlr = Hdlr {
        handler: FourCC::new(handler),
        name: name.to_owned(),
    };
    let stsd = sample_description(track.track)?;
    let stbl = match track.samples {
        Some(tables) => tables.into_stbl(stsd),
        None => Stbl {
            stsd,
            stco: Some(mp4_atom::Stco::default()),
            ..Stbl::default()
        },
    };
    let minf = Minf {
        vmhd: (!is_audio).then(Vmhd::default),
        smhd: is_audio.then(Smhd::default),
        dinf: Dinf {
            dref: Dref {
                entries: vec![DrefEntry::Url(Url::default())],
            },
        },
        stbl,
        ..Minf::default()
    };
    Ok(Trak {
        tkhd,
        edts,
        mdia: Mdia { mdhd, hdlr, minf },
        ..Trak::default()
    })
}

/// The edit list of a track that starts later than the file.
fn edits(tables: &super::tables::Tables, track: &TrackBox<'_>, duration: u64) -> Option<Edts> {
    let start = movie_ticks(tables.start(), track.timescale);
    let nothing = ElstEntry {
        segment_duration: start,
        media_time: None,
        media_rate: FixedPoint::new(1, 0),
    };
    let media = ElstEntry {
        segment_duration: duration.saturating_sub(start),
        media_time: Some(0),
        media_rate: FixedPoint::new(1, 0),
    };
    let elst = Elst {
        entries: vec![nothing, media],
    };
    (start > 0).then_some(Edts { elst: Some(elst) })
}

fn sample_description(track: &Track) -> Result<Stsd, MuxError> {
    let unsupported = || MuxError::Unsupported {
        codec_id: track.codec_id.clone(),
    };
    match &track.entry {
        Entry::Mp4(stsd) => Stsd::decode(&mut &stsd[..]).map_err(|_| unsupported()),
        Entry::None | Entry::Matroska(_) => Err(unsupported()),
    }
}

/// Encodes a box. What is encoded here was made here, or decoded by the same library before; its
/// refusal means that the file cannot be written in this form.
pub(super) fn encoded(of: &impl Encode) -> Result<Vec<u8>, MuxError> {
    let mut out = Vec::new();
    match of.encode(&mut out) {
        Ok(()) => Ok(out),
        Err(_) => Err(MuxError::HeaderTooLarge),
    }
}
