//! The growing MP4: samples into fragments, fragments into the sample tables. Decides where
//! fragments end and nothing about time.

use bytes::Bytes;
use mp4_atom::{Mfhd, Moof, Tfdt, Tfhd, Traf, Trun, TrunEntry};

use super::moov::{TrackBox, encoded, ftyp, moov};
use super::tables::{Sample, Tables};
use crate::media::archive::MuxError;
use crate::media::limits::NS_PER_S;
use crate::media::packet::{Packet, Track, TrackKind};

/// Longest fragment of sound alone, nanoseconds.
const SOUND_NS: i64 = 2 * NS_PER_S;
/// Longest fragment with picture, nanoseconds; most end earlier, at a keyframe.
const VIDEO_NS: i64 = 10 * NS_PER_S;
/// Size at which a fragment is full, bytes.
const FRAGMENT_BYTES: usize = 4 * 1024 * 1024;
/// Most samples in a fragment.
const FRAGMENT_SAMPLES: usize = 16_384;
/// Ticks a second of pictures, and of sound without a sensible rate.
const VIDEO_TIMESCALE: u32 = 90_000;
const SAMPLE_DEPENDS_ON_NONE: u32 = 0x0200_0000;
const SAMPLE_IS_NOT_SYNC: u32 = 0x0101_0000;
/// Head of the final `mdat`: size 1, name, eight-byte size.
const LARGE_BOX_HEAD: usize = 16;
const BOX_HEAD: usize = 8;

/// The fragments of an archive and its sample tables.
#[derive(Debug)]
pub(in crate::media::archive) struct Fragments {
    lanes: Vec<Lane>,
    /// Length of the header before the body, bytes.
    reserved: usize,
    /// Decode time of the first sample of the open fragment.
    start_ns: Option<i64>,
    sequence: u32,
    /// Closed fragments that were not taken yet.
    closed: Vec<u8>,
    /// All closed fragments, bytes.
    len: u64,
}

#[derive(Debug)]
struct Lane {
    id: u32,
    timescale: u32,
    /// Samples of the open fragment.
    samples: Vec<Sample>,
    /// Their bytes.
    data: Vec<u8>,
    tables: Tables,
}

/// Where a sample goes.
#[derive(Debug, Clone, Copy)]
pub(in crate::media::archive) struct Target {
    /// Index of the track.
    pub(in crate::media::archive) lane: usize,
    /// Decode time, nanoseconds.
    pub(in crate::media::archive) decode_ns: i64,
    pub(in crate::media::archive) is_video: bool,
    /// Whether the file has picture.
    pub(in crate::media::archive) has_video: bool,
}

impl Fragments {
    /// A file without media. The tracks come with their numbers in the output.
    pub(in crate::media::archive) fn new<'a>(
        tracks: impl Iterator<Item = (u8, &'a Track)>,
        reserved: usize,
    ) -> Self {
        let lanes = tracks.map(|(number, track)| Lane {
            id: u32::from(number),
            timescale: timescale(track),
            samples: Vec::new(),
            data: Vec::new(),
            tables: Tables::default(),
        });
        Self {
            lanes: lanes.collect(),
            reserved,
            start_ns: None,
            sequence: 0,
            closed: Vec::new(),
            len: 0,
        }
    }

    /// Appends a packet.
    pub(in crate::media::archive) fn write(
        &mut self,
        target: Target,
        packet: &Packet,
    ) -> Result<(), MuxError> {
        if !self.fits(target, packet) {
            self.close()?;
        }
        self.start_ns.get_or_insert(target.decode_ns);
        let Some(lane) = self.lanes.get_mut(target.lane) else {
            return Ok(());
        };
        if lane.tables.is_full() {
            return Err(MuxError::TooLong);
        }
        let decode = lane.ticks(target.decode_ns);
        let shown = lane.ticks(target.decode_ns.saturating_add(packet.composition_ns));
        let composition = i64::try_from(shown).unwrap_or(0) - i64::try_from(decode).unwrap_or(0);
        let duration = i64::try_from(packet.duration_ns.unwrap_or(0)).unwrap_or(0);
        lane.samples.push(Sample {
            decode,
            duration: u32::try_from(lane.ticks(duration)).unwrap_or(0),
            composition: i32::try_from(composition).unwrap_or(0),
            size: u32::try_from(packet.payload.len()).unwrap_or(0),
            is_sync: packet.keyframe,
        });
        lane.data.extend_from_slice(&packet.payload);
        Ok(())
    }

    fn fits(&self, target: Target, packet: &Packet) -> bool {
        let Some(start_ns) = self.start_ns else {
            return true;
        };
        let longest = if target.has_video { VIDEO_NS } else { SOUND_NS };
        let bytes: usize = self.lanes.iter().map(|lane| lane.data.len()).sum();
        let samples: usize = self.lanes.iter().map(|lane| lane.samples.len()).sum();
        let has_picture = self
            .lanes
            .get(target.lane)
            .is_some_and(|lane| !lane.samples.is_empty());
        let opens = target.is_video && packet.keyframe && has_picture;
        !opens
            && target.decode_ns < start_ns.saturating_add(longest)
            && bytes + packet.payload.len() <= FRAGMENT_BYTES
            && samples < FRAGMENT_SAMPLES
    }

    /// Closes the open fragment, if there is one.
    pub(in crate::media::archive) fn close(&mut self) -> Result<(), MuxError> {
        if self.start_ns.take().is_none() {
            return Ok(());
        }
        self.sequence += 1;
        // The positions in the head depend on its length, and its length not on them.
        let head_len = encoded(&self.head(0))?.len();
        let head = encoded(&self.head(head_len + BOX_HEAD))?;
        let media_len: usize = self.lanes.iter().map(|lane| lane.data.len()).sum();
        let mdat_len = u32::try_from(BOX_HEAD + media_len).map_err(|_| MuxError::TooLong)?;
        let before = self.closed.len();
        let mut position = self.reserved as u64 + self.len + (head.len() + BOX_HEAD) as u64;
        self.closed.extend_from_slice(&head);
        self.closed.extend_from_slice(&mdat_len.to_be_bytes());
        self.closed.extend_from_slice(b"mdat");
        for lane in self
            .lanes
            .iter_mut()
            .filter(|lane| !lane.samples.is_empty())
        {
            self.closed.extend_from_slice(&lane.data);
            lane.tables.chunk(position, &lane.samples);
            position += lane.data.len() as u64;
            lane.samples.clear();
            lane.data.clear();
        }
        self.len += (self.closed.len() - before) as u64;
        Ok(())
    }

    /// The fragment's head; its media starts `media_at` bytes behind the head's first byte.
    fn head(&self, media_at: usize) -> Moof {
        let mut offset = media_at;
        let mut traf = Vec::new();
        for lane in self.lanes.iter().filter(|lane| !lane.samples.is_empty()) {
            traf.push(lane.run(i32::try_from(offset).unwrap_or(i32::MAX)));
            offset += lane.data.len();
        }
        Moof {
            mfhd: Mfhd {
                sequence_number: self.sequence,
            },
            traf,
        }
    }

    /// Takes the fragments that were closed since the last call.
    pub(in crate::media::archive) fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.closed).into()
    }

    /// Length of all closed fragments, bytes.
    pub(in crate::media::archive) const fn len(&self) -> u64 {
        self.len
    }

    /// The header of the growing file.
    pub(in crate::media::archive) fn live_header(
        &self,
        tracks: &[&Track],
        created_unix_ms: i64,
    ) -> Result<Vec<u8>, MuxError> {
        let boxes = self.lanes.iter().zip(tracks).map(|(lane, track)| TrackBox {
            track,
            id: lane.id,
            timescale: lane.timescale,
            duration: 0,
            samples: None,
        });
        let mut out = ftyp()?;
        out.extend(moov(boxes.collect(), created_unix_ms)?);
        pad(out, self.reserved)
    }

    /// The header of the finished file and the `moov` behind its body.
    pub(in crate::media::archive) fn finish(
        &mut self,
        tracks: &[&Track],
        created_unix_ms: i64,
    ) -> Result<(Vec<u8>, Vec<u8>), MuxError> {
        self.close()?;
        let mut header = pad(ftyp()?, self.reserved - LARGE_BOX_HEAD)?;
        header.extend_from_slice(&[0, 0, 0, 1]);
        header.extend_from_slice(b"mdat");
        header.extend_from_slice(&(LARGE_BOX_HEAD as u64 + self.len).to_be_bytes());
        let boxes = self
            .lanes
            .iter_mut()
            .zip(tracks)
            .map(|(lane, track)| TrackBox {
                track,
                id: lane.id,
                timescale: lane.timescale,
                duration: lane.tables.duration(),
                samples: Some(std::mem::take(&mut lane.tables)),
            });
        // A track without a single sample would only puzzle players.
        let boxes = boxes.filter(|of| of.samples.as_ref().is_some_and(|all| all.count() > 0));
        let tail = moov(boxes.collect(), created_unix_ms)?;
        Ok((header, tail))
    }
}

impl Lane {
    /// A time in ticks, rounded to the nearest: timestamps were rounded to nanoseconds before.
    fn ticks(&self, ns: i64) -> u64 {
        let scaled = i128::from(ns.max(0)) * i128::from(self.timescale);
        let rounded = (scaled + i128::from(NS_PER_S / 2)) / i128::from(NS_PER_S);
        u64::try_from(rounded).unwrap_or(0)
    }

    fn run(&self, data_offset: i32) -> Traf {
        let entries: Vec<_> = self
            .samples
            .iter()
            .enumerate()
            .map(|(index, sample)| {
                let next = self.samples.get(index + 1).map(|next| next.decode);
                let until_next = next.map(|next| next.saturating_sub(sample.decode));
                let length = until_next.and_then(|ticks| u32::try_from(ticks).ok());
                let flags = if sample.is_sync {
                    SAMPLE_DEPENDS_ON_NONE
                } else {
                    SAMPLE_IS_NOT_SYNC
                };
                TrunEntry {
                    duration: Some(length.unwrap_or(sample.duration)),
                    size: Some(sample.size),
                    flags: Some(flags),
                    cts: Some(i64::from(sample.composition)),
                }
            })
            .collect();
        let start = self.samples.first().map_or(0, |first| first.decode);
        Traf {
            tfhd: Tfhd {
                track_id: self.id,
                default_base_is_moof: true,
                ..Tfhd::default()
            },
            tfdt: Some(Tfdt {
                base_media_decode_time: start,
            }),
            trun: vec![Trun {
                data_offset: Some(data_offset),
                samples: entries.into(),
            }],
            ..Traf::default()
        }
    }
}

fn timescale(track: &Track) -> u32 {
    match track.kind {
        TrackKind::Audio {
            sample_rate: rate @ 8_000..=768_000,
            ..
        } => rate,
        TrackKind::Audio { .. } | TrackKind::Video { .. } | TrackKind::Other => VIDEO_TIMESCALE,
    }
}

/// Appends a `free` box up to a length.
fn pad(mut out: Vec<u8>, to: usize) -> Result<Vec<u8>, MuxError> {
    let rest = to.checked_sub(out.len()).filter(|rest| *rest >= BOX_HEAD);
    let rest = rest.ok_or(MuxError::HeaderTooLarge)?;
    let size = u32::try_from(rest).map_err(|_| MuxError::HeaderTooLarge)?;
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(b"free");
    out.resize(to, 0);
    Ok(out)
}
