//! What a media object holds, by its bytes alone: enough to compare an archive with what its
//! manifest says. Pure, and as careful with foreign bytes as any reader here; it never keeps media.

use super::{
    demux::TakeReader,
    packet::{Event, Packet},
    probe::{Container, PROBE_BYTES_MAX, Probe, probe},
};
use mp4_atom::{Decode, Moov, StszSamples};

/// Largest index of a finished MP4 that is read, bytes: days of sound.
const MOOV_BYTES_MAX: usize = 64 << 20;
const NS_PER_MS: u64 = 1_000_000;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Packets of all tracks.
    pub packets: u64,
    /// End of the packet that ends last, ms from the beginning; a picture counts as a moment.
    pub end_ms: u64,
    /// Bytes that belong to nothing.
    pub lost_bytes: u64,
    /// Why the rest could not be read, if so.
    pub failure: Option<String>,
}

/// Reads one object. Feed it all bytes in any pieces.
#[derive(Debug, Default)]
pub struct Survey {
    state: State,
    packets: u64,
    end_ns: u64,
    lost_bytes: u64,
    failure: Option<String>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Begun,
    Probing(Vec<u8>),
    Take(Box<TakeReader>),
    Mp4(Box<Mp4>),
    Unknown,
}

/// An MP4 may be fragmented, or have its packets in tables at the end: both are looked for.
#[derive(Debug)]
struct Mp4 {
    fragments: TakeReader,
    boxes: Boxes,
}

impl Survey {
    /// Adds the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        let state = match std::mem::take(&mut self.state) {
            State::Begun => self.probe(bytes.to_vec()),
            State::Probing(mut prefix) => {
                prefix.extend_from_slice(bytes);
                self.probe(prefix)
            }
            State::Take(mut reader) => {
                reader.push(bytes);
                self.drain(&mut reader);
                State::Take(reader)
            }
            State::Mp4(mut mp4) => {
                mp4.fragments.push(bytes);
                mp4.boxes.push(bytes);
                self.drain(&mut mp4.fragments);
                State::Mp4(mp4)
            }
            State::Unknown => State::Unknown,
        };
        self.state = state;
    }

    /// Ends the object.
    #[must_use]
    pub fn finish(mut self) -> Contents {
        match std::mem::take(&mut self.state) {
            State::Begun | State::Probing(_) | State::Unknown => {
                self.failure = Some("no known container".to_owned());
            }
            State::Take(mut reader) => {
                reader.finish();
                self.drain(&mut reader);
            }
            State::Mp4(mp4) => self.end_mp4(*mp4),
        }
        Contents {
            packets: self.packets,
            end_ms: (self.end_ns + NS_PER_MS / 2) / NS_PER_MS,
            lost_bytes: self.lost_bytes,
            failure: self.failure,
        }
    }

    /// What is next after the first bytes.
    fn probe(&mut self, prefix: Vec<u8>) -> State {
        let container = match probe(&prefix[..prefix.len().min(PROBE_BYTES_MAX)]) {
            Probe::NeedMore => return State::Probing(prefix),
            Probe::Unsupported => return State::Unknown,
            Probe::Found(container) => container,
        };
        let mut reader = TakeReader::new(container);
        reader.push(&prefix);
        self.drain(&mut reader);
        if container != Container::Mp4 {
            return State::Take(Box::new(reader));
        }
        let mut boxes = Boxes::default();
        boxes.push(&prefix);
        State::Mp4(Box::new(Mp4 {
            fragments: reader,
            boxes,
        }))
    }

    fn drain(&mut self, reader: &mut TakeReader) {
        while let Some(event) = reader.poll() {
            match event {
                Event::Packet(packet) => {
                    self.packets += 1;
                    self.end_ns = self.end_ns.max(end_ns(&packet));
                }
                Event::Lost { bytes, .. } => self.lost_bytes += bytes,
                Event::Failed(error) => self.failure = Some(error.to_string()),
                Event::Tracks(_) | Event::ClusterStart { .. } | Event::NestedHeader { .. } => {}
            }
        }
    }

    fn end_mp4(&mut self, mp4: Mp4) {
        let Mp4 {
            mut fragments,
            boxes,
        } = mp4;
        if boxes.is_fragmented {
            fragments.finish();
            return self.drain(&mut fragments);
        }
        (self.packets, self.end_ns, self.lost_bytes) = (0, 0, 0);
        self.failure = match boxes.index() {
            Some(moov) => {
                self.count(&moov);
                None
            }
            None => Some("the MP4 has no index that can be read".to_owned()),
        };
    }

    fn count(&mut self, moov: &Moov) {
        for track in &moov.trak {
            let samples = match &track.mdia.minf.stbl.stsz.samples {
                StszSamples::Identical { count, .. } => u64::from(*count),
                StszSamples::Different { sizes } => sizes.len() as u64,
            };
            self.packets += samples;
        }
        let ticks = moov.mvhd.duration;
        let scale = u64::from(moov.mvhd.timescale).max(1);
        let ns = u128::from(ticks) * 1_000_000_000 / u128::from(scale);
        self.end_ns = u64::try_from(ns).unwrap_or(u64::MAX - NS_PER_MS);
    }
}

fn end_ns(packet: &Packet) -> u64 {
    let begins = u64::try_from(packet.ts_ns).unwrap_or(0);
    begins.saturating_add(packet.duration_ns.unwrap_or(0))
}

/// The boxes of an MP4, of which only the last `moov` is kept.
#[derive(Debug, Default)]
struct Boxes {
    head: Vec<u8>,
    /// Bytes of the present box that are still to come.
    left: u64,
    keeps: bool,
    moov: Vec<u8>,
    is_fragmented: bool,
}

impl Boxes {
    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left == 0 {
                let (first, rest) = bytes.split_at(1);
                self.head.extend_from_slice(first);
                bytes = rest;
                self.begin();
                continue;
            }
            let here = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            let (body, rest) = bytes.split_at(here);
            if self.keeps && self.moov.len() + here <= MOOV_BYTES_MAX {
                self.moov.extend_from_slice(body);
            } else if self.keeps {
                self.keeps = false;
                self.moov.clear();
            }
            self.left -= here as u64;
            bytes = rest;
        }
    }

    /// Begins the box whose head is complete.
    fn begin(&mut self) {
        let number = |at: &[u8]| at.iter().fold(0, |all, &byte| all << 8 | u64::from(byte));
        let (Some(size), Some(kind)) = (self.head.get(..4), self.head.get(4..8)) else {
            return;
        };
        let (len, head_len) = match (number(size), self.head.get(8..16)) {
            (1, None) => return,
            (1, Some(long)) => (number(long), 16),
            // To the end of the file.
            (0, _) => (u64::MAX, 8),
            (len, _) => (len, 8),
        };
        self.is_fragmented |= kind == b"moof";
        self.keeps = kind == b"moov";
        if self.keeps {
            self.moov.clone_from(&self.head);
        }
        self.left = len.saturating_sub(head_len);
        self.head.clear();
    }

    fn index(&self) -> Option<Moov> {
        Moov::decode(&mut &self.moov[..]).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::archive::{Muxer, Params, TakeStart};

    fn surveyed(bytes: &[u8], piece: usize) -> Contents {
        let mut survey = Survey::default();
        for piece in bytes.chunks(piece) {
            survey.push(piece);
        }
        survey.finish()
    }

    fn capture(name: &str) -> Vec<u8> {
        let path = format!("{}/tests/media/{name}.bin", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(path).expect("a capture")
    }

    #[test]
    fn an_archive_holds_what_its_muxer_says_in_pieces_of_any_size() {
        for name in ["opus250", "ff_webm", "vp8", "made_aac", "made_avc"] {
            let bytes = capture(name);
            let Probe::Found(container) = probe(&bytes[..16]) else {
                panic!("{name} is no take");
            };
            let mut muxer = Muxer::new(Params::new(0)).expect("usual parameters");
            for wall_ms in [0, 30_000] {
                muxer
                    .begin_take(TakeStart { wall_ms, container })
                    .expect("no error before");
                muxer.push(&bytes).expect("a good take");
            }
            muxer.end_take().expect("a good take");
            let body = muxer.take_body();
            let end = muxer.finish(&[]).expect("there is media");
            let file = [&end.header[..], &body, &end.tail].concat();
            let found = surveyed(&file, 4096);
            assert_eq!(surveyed(&file, 7), found, "{name}");
            let expected = end.stats.packets + end.stats.silence_packets;
            assert_eq!((found.packets, found.lost_bytes), (expected, 0), "{name}");
            assert_eq!(found.failure, None, "{name}");
            let off = found.end_ms.abs_diff(end.duration_ms);
            assert!(off <= 60, "{name}: {found:?} and {}", end.duration_ms);
        }
    }

    #[test]
    fn takes_as_they_came_are_counted_too() {
        for (name, packets) in [("opus250", 500), ("mp4opus", 250), ("ff_ogg", 769)] {
            let found = surveyed(&capture(name), 1000);
            assert_eq!(found.packets, packets, "{name}");
        }
    }

    #[test]
    fn damage_and_foreign_bytes_are_told() {
        let mut bytes = capture("opus250");
        let at = bytes.len() / 2;
        bytes[at..at + 3000].fill(0);
        assert!(surveyed(&bytes, 1000).lost_bytes > 0);
        assert!(surveyed(b"this is no recording", 3).failure.is_some());
        let cut = &capture("made_aac")[..20_000];
        assert_eq!(
            surveyed(cut, 1000).failure,
            None,
            "fragments before the cut"
        );
    }
}
