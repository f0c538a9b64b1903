//! One fragment: where in the take each of its samples is, and when. Arithmetic on a `moof`; it
//! holds no media.

use bytes::Bytes;
use mp4_atom::{Moof, Traf, Trun, TrunEntry};

use super::init::{Defaults, Mp4Track};
use crate::media::limits::{NS_PER_S, TIMESTAMP_MAX_NS};
use crate::media::opus;
use crate::media::packet::Packet;

/// Most samples of one fragment that are believed.
const SAMPLES_MAX: usize = 65_536;
const FLAG_NOT_SYNC: u32 = 0x0001_0000;

/// The `moof` contradicts itself or the `moov`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// A sample of a fragment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Index of the track.
    track: usize,
    /// Offset in the take, bytes.
    at: u64,
    size: u32,
    /// Decode time, nanoseconds; the order to write in.
    decode_ns: i64,
    ts_ns: i64,
    duration_ns: u64,
    is_sync: bool,
}

/// The samples of a fragment, in decode order.
#[derive(Debug)]
pub(super) struct Plan {
    samples: Vec<Sample>,
}

impl Plan {
    /// Reads the `moof` that stands at `moof_at` in the take.
    pub(super) fn read(
        moof: &Moof,
        moof_at: u64,
        tracks: &mut [Mp4Track],
    ) -> Result<Self, Malformed> {
        let mut samples = Vec::new();
        let mut end_of_last = moof_at;
        for traf in &moof.traf {
            let index = tracks
                .iter()
                .position(|track| track.id == traf.tfhd.track_id);
            let base = match traf.tfhd.base_data_offset {
                Some(base) => base,
                None if traf.tfhd.default_base_is_moof => moof_at,
                None => end_of_last,
            };
            let Some(index) = index else { continue };
            end_of_last = run(traf, base, index, &mut tracks[index], &mut samples)?;
        }
        samples.sort_by_key(|sample| sample.decode_ns);
        Ok(Self { samples })
    }

    /// The packets whose bytes are all in `media`, which stands at `media_at` in the take.
    pub(super) fn packets<'a>(
        &'a self,
        media: &'a Bytes,
        media_at: u64,
        tracks: &'a [Mp4Track],
    ) -> impl Iterator<Item = Packet> + 'a {
        self.samples.iter().filter_map(move |sample| {
            let from = usize::try_from(sample.at.checked_sub(media_at)?).ok()?;
            let to = from.checked_add(usize::try_from(sample.size).ok()?)?;
            if to > media.len() || from == to {
                return None;
            }
            let track = &tracks.get(sample.track)?.track;
            let payload = media.slice(from..to);
            let own_length = if track.is_opus() {
                opus::duration_ns(&payload)
            } else {
                None
            };
            Some(Packet {
                track: track.number,
                ts_ns: sample.ts_ns,
                composition_ns: sample.ts_ns - sample.decode_ns,
                duration_ns: own_length.or(Some(sample.duration_ns)),
                keyframe: track.is_audio() || sample.is_sync,
                block_flags: 0,
                payload,
                group: None,
            })
        })
    }
}

/// Adds the samples of one track; returns where its data ends in the take.
fn run(
    traf: &Traf,
    base: u64,
    index: usize,
    track: &mut Mp4Track,
    samples: &mut Vec<Sample>,
) -> Result<u64, Malformed> {
    let defaults = Defaults {
        duration: traf
            .tfhd
            .default_sample_duration
            .unwrap_or(track.defaults.duration),
        size: traf.tfhd.default_sample_size.unwrap_or(track.defaults.size),
        flags: traf
            .tfhd
            .default_sample_flags
            .unwrap_or(track.defaults.flags),
    };
    let mut ticks = match &traf.tfdt {
        Some(start) => start.base_media_decode_time,
        None => track.next_ticks,
    };
    let mut at = base;
    for trun in &traf.trun {
        at = start_of(trun, base, at)?;
        if trun.samples.len() > SAMPLES_MAX - samples.len().min(SAMPLES_MAX) {
            return Err(Malformed);
        }
        for entry in &trun.samples {
            let sample = sample(
                entry,
                defaults,
                Place {
                    index,
                    at,
                    ticks,
                    run_in: track.run_in,
                },
                track.timescale,
            )?;
            at = at.checked_add(u64::from(sample.size)).ok_or(Malformed)?;
            let duration = u64::from(entry.duration.unwrap_or(defaults.duration));
            ticks = ticks.checked_add(duration).ok_or(Malformed)?;
            samples.push(sample);
        }
    }
    track.next_ticks = ticks;
    Ok(at)
}

fn start_of(trun: &Trun, base: u64, end_of_last: u64) -> Result<u64, Malformed> {
    match trun.data_offset {
        Some(offset) => base.checked_add_signed(i64::from(offset)).ok_or(Malformed),
        None => Ok(end_of_last),
    }
}

#[derive(Debug, Clone, Copy)]
struct Place {
    index: usize,
    at: u64,
    ticks: u64,
    run_in: i64,
}

fn sample(
    entry: TrunEntry,
    defaults: Defaults,
    place: Place,
    timescale: u32,
) -> Result<Sample, Malformed> {
    let flags = entry.flags.unwrap_or(defaults.flags);
    let decode_ticks = i64::try_from(place.ticks).map_err(|_| Malformed)? - place.run_in;
    let shown_ticks = decode_ticks
        .checked_add(entry.cts.unwrap_or(0))
        .ok_or(Malformed)?;
    let duration = i64::from(entry.duration.unwrap_or(defaults.duration));
    Ok(Sample {
        track: place.index,
        at: place.at,
        size: entry.size.unwrap_or(defaults.size),
        decode_ns: to_ns(decode_ticks, timescale)?,
        ts_ns: to_ns(shown_ticks, timescale)?,
        duration_ns: to_ns(duration, timescale)?.unsigned_abs(),
        is_sync: flags & FLAG_NOT_SYNC == 0,
    })
}

fn to_ns(ticks: i64, timescale: u32) -> Result<i64, Malformed> {
    let ns = i128::from(ticks) * i128::from(NS_PER_S) / i128::from(timescale.max(1));
    i64::try_from(ns)
        .ok()
        .filter(|ns| ns.abs() <= TIMESTAMP_MAX_NS)
        .ok_or(Malformed)
}
