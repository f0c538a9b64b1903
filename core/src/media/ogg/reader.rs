//! Pages to packets, granules to timestamps. Pages whose checksum is wrong do not exist; what they
//! held is reported as lost.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::page::{Found, MAGIC, Page, find};
use crate::media::input::Window;
use crate::media::limits::{
    AUDIO_BLOCK_MAX, HEADER_ELEMENT_MAX, NS_PER_S, SKIPPED_ELEMENT_MAX, TIMESTAMP_MAX_NS,
};
use crate::media::opus::{self, OpusHead};
use crate::media::packet::{CODEC_OPUS, DemuxError, Entry, Event, Packet, Track, TrackKind};

/// The one track of an Ogg take.
const TRACK: u64 = 1;

/// A push reader of one take.
#[derive(Debug)]
pub struct OggReader {
    input: Window,
    sync: Sync,
    stream: Stream,
    /// Events of the page that was read last.
    events: VecDeque<Event>,
    ended: bool,
}

#[derive(Debug, Clone, Copy)]
enum Sync {
    Locked,
    Lost { since: u64 },
}

#[derive(Debug)]
enum Stream {
    /// No Opus stream has begun.
    Unknown,
    /// The comment packet comes next; it is passed over.
    Tags { serial: u32, len: u64 },
    /// Sound.
    Packets(Opus),
    /// Nothing can be read from here on.
    Failed,
}

#[derive(Debug)]
struct Opus {
    serial: u32,
    next_page: u32,
    /// End of the last packet, samples.
    position: i64,
    /// Start of a packet that goes on on the next page.
    partial: Option<BytesMut>,
}

impl Default for OggReader {
    fn default() -> Self {
        Self::new()
    }
}

impl OggReader {
    /// A reader at the first byte of a take.
    #[must_use]
    pub fn new() -> Self {
        Self {
            input: Window::default(),
            sync: Sync::Locked,
            stream: Stream::Unknown,
            events: VecDeque::new(),
            ended: false,
        }
    }

    /// Adds the next bytes of the take.
    pub fn push(&mut self, bytes: &[u8]) {
        self.input.push(bytes);
    }

    /// Passes over `bytes` of the take that are known never to come.
    pub fn skip(&mut self, bytes: u64) {
        if let Sync::Locked = self.sync {
            self.sync = Sync::Lost {
                since: self.input.at(),
            };
        }
        self.input.jump(bytes);
    }

    /// Declares that the take has no more bytes.
    pub fn finish(&mut self) {
        self.ended = true;
    }

    /// Bytes that wait for the rest of theirs, the start of a packet included.
    pub(crate) fn held_bytes(&self) -> usize {
        let partial = match &self.stream {
            Stream::Packets(Opus {
                partial: Some(partial),
                ..
            }) => partial.len(),
            _ => 0,
        };
        self.input.pending().len() + partial
    }

    /// The next event; `None` if more bytes are needed.
    pub fn poll(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if let Stream::Failed = self.stream {
                self.input.advance(self.input.pending().len());
                return None;
            }
            match find(self.input.pending()) {
                Found::Page { len } => self.read(len),
                Found::No => self.scan(),
                Found::Short if !self.ended => return None,
                // Nothing completes what is pending; whole pages may be hidden in it.
                Found::Short if self.input.pending().len() > 1 => self.scan(),
                Found::Short => return self.rest(),
            }
        }
    }

    /// Moves on to the next byte where a page could begin.
    fn scan(&mut self) {
        if let Sync::Locked = self.sync {
            self.sync = Sync::Lost {
                since: self.input.at(),
            };
        }
        let pending = self.input.pending();
        let ahead = pending.iter().skip(1).position(|byte| *byte == MAGIC[0]);
        self.input
            .advance(ahead.map_or(pending.len(), |ahead| ahead + 1));
    }

    fn rest(&mut self) -> Option<Event> {
        let since = match self.sync {
            Sync::Lost { since } => since,
            Sync::Locked => self.input.at(),
        };
        self.input.advance(self.input.pending().len());
        self.sync = Sync::Locked;
        let bytes = self.input.at() - since;
        (bytes > 0).then_some(Event::Lost { at: since, bytes })
    }

    fn read(&mut self, len: usize) {
        let at = self.input.at();
        if let Sync::Lost { since } = self.sync {
            self.events.push_back(Event::Lost {
                at: since,
                bytes: at - since,
            });
            self.sync = Sync::Locked;
        }
        let page = Page::new(self.input.take(len));
        if page.is_first() {
            self.begin(at, &page);
            return;
        }
        match &mut self.stream {
            Stream::Tags { serial, len } if *serial == page.serial() => {
                self.stream = match after_tags(&page, *len) {
                    Tags::More { len } => Stream::Tags {
                        serial: page.serial(),
                        len,
                    },
                    Tags::Done => Stream::Packets(Opus::after(&page)),
                    Tags::TooLong => Stream::Unknown,
                };
            }
            Stream::Packets(opus) if opus.serial == page.serial() => {
                opus.read(at, &page, &mut self.events);
            }
            Stream::Tags { .. } | Stream::Packets(_) | Stream::Unknown | Stream::Failed => {}
        }
    }

    /// A logical stream begins: the take's, one beside it, or that of a restarted encoder.
    fn begin(&mut self, at: u64, page: &Page) {
        let packet = page
            .pieces()
            .into_iter()
            .next()
            .map(|piece| piece.bytes)
            .unwrap_or_default();
        let Some(head) = OpusHead::parse(&packet) else {
            if let Stream::Unknown = self.stream {
                self.fail(&packet);
            }
            return;
        };
        if let Stream::Packets(_) = self.stream {
            self.events.push_back(Event::NestedHeader { at });
        }
        self.events
            .push_back(Event::Tracks(vec![track(head, packet)]));
        self.stream = Stream::Tags {
            serial: page.serial(),
            len: 0,
        };
    }

    fn fail(&mut self, packet: &[u8]) {
        let name: String = packet
            .iter()
            .take(8)
            .filter(|b| b.is_ascii_graphic())
            .map(|b| char::from(*b))
            .collect();
        let error = DemuxError::NoSupportedCodec {
            container: "ogg",
            found: name,
        };
        self.events.push_back(Event::Failed(error));
        self.stream = Stream::Failed;
    }
}

fn track(head: OpusHead, codec_private: Bytes) -> Track {
    Track {
        number: TRACK,
        kind: TrackKind::Audio {
            channels: u32::from(head.channels),
            sample_rate: opus::SAMPLE_RATE,
        },
        codec_id: CODEC_OPUS.to_owned(),
        codec_private,
        codec_delay_ns: head.delay_ns(),
        seek_pre_roll_ns: opus::SEEK_PRE_ROLL_NS,
        entry: Entry::None,
    }
}

enum Tags {
    More { len: u64 },
    Done,
    TooLong,
}

/// Passes over the pieces of the comment packet, which ends its page.
fn after_tags(page: &Page, len: u64) -> Tags {
    let Some(piece) = page.pieces().into_iter().next() else {
        return Tags::More { len };
    };
    let len = len + piece.bytes.len() as u64;
    match piece.is_last {
        true => Tags::Done,
        false if len > SKIPPED_ELEMENT_MAX.max(HEADER_ELEMENT_MAX as u64) => Tags::TooLong,
        false => Tags::More { len },
    }
}

impl Opus {
    fn after(page: &Page) -> Self {
        Self {
            serial: page.serial(),
            next_page: page.sequence().wrapping_add(1),
            position: 0,
            partial: None,
        }
    }

    fn read(&mut self, at: u64, page: &Page, events: &mut VecDeque<Event>) {
        let packets = self.packets(page);
        if packets.is_empty() {
            return;
        }
        events.push_back(Event::ClusterStart { at });
        let lengths: Vec<_> = packets.iter().map(|packet| samples(packet)).collect();
        // The granule is the end of the page; where the page began follows from the packets. On
        // the last page it may be cut short, so it only ever moves the position forward.
        let start = page.granule().map(|end| end - lengths.iter().sum::<i64>());
        if let Some(start) = start.filter(|start| *start > self.position) {
            self.position = start;
        }
        for (payload, samples) in packets.into_iter().zip(lengths) {
            let ts_ns = to_ns(self.position);
            self.position = self.position.saturating_add(samples);
            if ts_ns > TIMESTAMP_MAX_NS || payload.is_empty() {
                continue;
            }
            events.push_back(Event::Packet(Packet {
                track: TRACK,
                ts_ns,
                composition_ns: 0,
                duration_ns: opus::duration_ns(&payload),
                keyframe: true,
                block_flags: 0,
                payload,
                group: None,
            }));
        }
    }

    /// The packets that end on this page.
    fn packets(&mut self, page: &Page) -> Vec<Bytes> {
        let follows = page.sequence() == self.next_page;
        self.next_page = page.sequence().wrapping_add(1);
        let mut partial = self
            .partial
            .take()
            .filter(|_| follows && page.is_continued());
        // The end of a packet whose start is missing is worth nothing.
        let orphan = page.is_continued() && partial.is_none();
        let mut packets = Vec::new();
        for (index, piece) in page.pieces().into_iter().enumerate() {
            if orphan && index == 0 {
                continue;
            }
            match (partial.take(), piece.is_last) {
                (None, true) => packets.push(piece.bytes),
                (None, false) => partial = Some(BytesMut::from(&piece.bytes[..])),
                (Some(mut start), is_last) => {
                    start.extend_from_slice(&piece.bytes);
                    if start.len() > AUDIO_BLOCK_MAX {
                        continue;
                    }
                    if is_last {
                        packets.push(start.freeze());
                    } else {
                        partial = Some(start);
                    }
                }
            }
        }
        self.partial = partial;
        packets
    }
}

fn samples(packet: &[u8]) -> i64 {
    let ns = opus::duration_ns(packet)
        .and_then(|ns| i64::try_from(ns).ok())
        .unwrap_or(0);
    ns * i64::from(opus::SAMPLE_RATE) / NS_PER_S
}

fn to_ns(samples: i64) -> i64 {
    let rate = i64::from(opus::SAMPLE_RATE);
    // Split so that no stream length overflows.
    (samples / rate)
        .saturating_mul(NS_PER_S)
        .saturating_add(samples % rate * NS_PER_S / rate)
}

#[cfg(test)]
mod tests {
    use super::super::page::tests::page;
    use super::*;

    const P20: &[u8] = &[0xFC, 1, 2, 3];

    fn head() -> Bytes {
        OpusHead {
            channels: 2,
            pre_skip: 312,
            input_rate: 48_000,
            gain: 0,
            mapping_family: 0,
        }
        .to_bytes()
    }

    fn take(serial: u32) -> Vec<u8> {
        let mut out = page(2, 0, serial, 0, &[&head()]);
        out.extend(page(0, 0, serial, 1, &[b"OpusTags"]));
        out.extend(page(0, 1_920, serial, 2, &[P20, P20]));
        out
    }

    fn events(bytes: &[u8]) -> Vec<Event> {
        let mut reader = OggReader::new();
        reader.push(bytes);
        reader.finish();
        std::iter::from_fn(|| reader.poll()).collect()
    }

    fn times_ms(events: &[Event]) -> Vec<i64> {
        let packets = events.iter().filter_map(|event| match event {
            Event::Packet(packet) => Some(packet.ts_ns / 1_000_000),
            _ => None,
        });
        packets.collect()
    }

    #[test]
    fn packets_are_timed_by_granule_and_length() {
        let mut bytes = take(1);
        bytes.extend(page(0, 1_920 + 960, 1, 3, &[P20]));
        bytes.extend(page(0, 48_000, 1, 9, &[P20]));
        let events = events(&bytes);
        assert!(
            matches!(&events[0], Event::Tracks(tracks) if tracks[0].codec_delay_ns == 6_500_000)
        );
        assert_eq!(times_ms(&events), [0, 20, 40, 980]);
    }

    #[test]
    fn a_shortened_last_page_does_not_turn_time_back() {
        let mut bytes = take(1);
        bytes.extend(page(4, 1_920 + 100, 1, 3, &[P20]));
        assert_eq!(times_ms(&events(&bytes)), [0, 20, 40]);
    }

    #[test]
    fn a_damaged_page_is_lost_and_the_next_one_is_read() {
        let mut bytes = take(1);
        let damaged_at = bytes.len();
        let mut damaged = page(0, 2_880, 1, 3, &[P20]);
        damaged[30] ^= 1;
        let damaged_len = damaged.len();
        bytes.extend(damaged);
        bytes.extend(page(0, 3_840, 1, 4, &[P20]));
        let events = events(&bytes);
        let lost = Event::Lost {
            at: damaged_at as u64,
            bytes: damaged_len as u64,
        };
        assert!(events.contains(&lost));
        assert_eq!(times_ms(&events), [0, 20, 60]);
    }

    #[test]
    fn a_restarted_encoder_is_a_nested_header() {
        let mut bytes = take(1);
        let at = bytes.len() as u64;
        bytes.extend(take(2));
        let events = events(&bytes);
        assert!(events.contains(&Event::NestedHeader { at }));
        assert_eq!(times_ms(&events), [0, 20, 0, 20]);
    }

    #[test]
    fn another_codec_is_refused_by_name() {
        let events = events(&page(2, 0, 1, 0, &[b"fishead\0more"]));
        let found = "fishead".to_owned();
        let error = DemuxError::NoSupportedCodec {
            container: "ogg",
            found,
        };
        assert_eq!(events, [Event::Failed(error)]);
    }
}
