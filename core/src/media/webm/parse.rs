//! Incremental parser of a `WebM` byte stream: any split of the bytes gives the same events.
//!
//! Segment and cluster are entered and their size is ignored; every other element is either
//! buffered whole, under a cap, or skipped by counting. Whatever does not fit makes the parser
//! *lost*: it scans for the next believable cluster or EBML header and reports what it passed over.
//! It never panics, never trusts a size beyond its cap and never buffers more than one element.

use bytes::Bytes;

use super::ebml::{self, Children, Head, Malformed, Read, Size};
use super::{ids, tracks};
use crate::media::input::Window;
use crate::media::limits::{
    AUDIO_BLOCK_MAX, HEADER_ELEMENT_MAX, NS_PER_S, SKIPPED_ELEMENT_MAX, VIDEO_BLOCK_MAX,
};
use crate::media::opus;
use crate::media::packet::{Event, Packet, Track};
use crate::media::webm::resync::{Candidate, ClusterClock, candidate};

/// Track, two bytes of relative timestamp, flags.
const BLOCK_HEADER_LEN: usize = 4;
/// Longest padding inside a cluster that is skipped, bytes; no browser writes any.
const CLUSTER_VOID_MAX: u64 = 256;
/// A block that is further from the one before of its track must be followed by another element.
const BLOCK_JUMP_NS: i64 = NS_PER_S;
/// A larger block must be followed by another element too, bytes: a wrong size would hide seconds.
const BLOCK_SMALL: usize = 256 * 1024;
/// A block that is further back in its cluster belongs to another one, whose head vanished.
const BLOCK_JUMP_BACK_NS: i64 = NS_PER_S / 2;
const FLAG_KEYFRAME: u8 = 0x80;
const FLAGS_KEPT: u8 = 0x0F;

/// A push parser of one take.
#[derive(Debug)]
pub struct Parser {
    input: Window,
    state: State,
    scale_ns: u64,
    /// What the parser must know of each track to bound and read its blocks.
    lanes: Vec<Lane>,
    clock: ClusterClock,
    ended: bool,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// At the start of an element.
    Element(Place),
    /// Inside an element that is not read.
    Skipping { left: u64, place: Place },
    /// Looking for something believable.
    Lost { since: u64 },
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// Between the top-level elements.
    Top,
    /// In a cluster whose timestamp is still to come.
    NewCluster { at: u64 },
    /// In a cluster; its timestamp in ticks.
    Cluster { ticks: i64 },
}

#[derive(Debug, Clone, Copy)]
struct Lane {
    number: u64,
    is_audio: bool,
    is_opus: bool,
    /// Timestamp of its last block in the present cluster, nanoseconds.
    last_ns: Option<i64>,
}

impl Lane {
    const fn block_max(self) -> usize {
        if self.is_audio {
            AUDIO_BLOCK_MAX
        } else {
            VIDEO_BLOCK_MAX
        }
    }
}

enum Step {
    Emit(Event),
    Again,
    Starved,
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

impl Parser {
    /// A parser at the first byte of a take.
    #[must_use]
    pub fn new() -> Self {
        Self {
            input: Window::default(),
            state: State::Element(Place::Top),
            scale_ns: tracks::SCALE_DEFAULT_NS,
            lanes: Vec::new(),
            clock: ClusterClock::default(),
            ended: false,
        }
    }

    /// Adds the next bytes of the take. Call [`Self::poll`] until `None` before the next push:
    /// what is pending then is less than one element.
    pub fn push(&mut self, bytes: &[u8]) {
        self.input.push(bytes);
    }

    /// Passes over `bytes` of the take that are known never to come.
    pub fn skip(&mut self, bytes: u64) {
        match &mut self.state {
            State::Skipping { left, .. } if bytes <= *left && self.input.pending().is_empty() => {
                *left -= bytes;
            }
            State::Lost { .. } => {}
            state => {
                *state = State::Lost {
                    since: self.input.at(),
                }
            }
        }
        self.input.jump(bytes);
    }

    /// Declares that the take has no more bytes; [`Self::poll`] then reports an incomplete rest.
    pub fn finish(&mut self) {
        self.ended = true;
    }

    /// Bytes that wait for the rest of theirs.
    pub(crate) fn held_bytes(&self) -> usize {
        self.input.pending().len()
    }

    /// The next event; `None` if more bytes are needed.
    pub fn poll(&mut self) -> Option<Event> {
        loop {
            match self.step() {
                Step::Emit(event) => return Some(event),
                Step::Again => {}
                Step::Starved if !self.ended => return None,
                // Nothing completes what is pending. If its size was wrong, whole clusters may
                // be hidden in it.
                Step::Starved if self.input.pending().len() > 1 => match self.state {
                    State::Lost { .. } => self.input.advance(1),
                    State::Element(_) | State::Skipping { .. } => {
                        self.lose();
                    }
                },
                Step::Starved => return self.rest(),
            }
        }
    }

    /// What the end of the take left incomplete.
    fn rest(&mut self) -> Option<Event> {
        let since = match self.state {
            State::Lost { since } => since,
            State::Element(_) | State::Skipping { .. } => self.input.at(),
        };
        self.input.advance(self.input.pending().len());
        self.state = State::Element(Place::Top);
        let bytes = self.input.at() - since;
        (bytes > 0).then_some(Event::Lost { at: since, bytes })
    }

    fn step(&mut self) -> Step {
        match self.state {
            State::Element(place) => match ebml::head(self.input.pending()) {
                Read::Done(head) => self.element(head, place),
                Read::Short => Step::Starved,
                Read::Bad => self.lose(),
            },
            State::Skipping { left, place } => self.pass(left, place),
            State::Lost { since } => self.resync(since),
        }
    }

    fn pass(&mut self, left: u64, place: Place) -> Step {
        let pending = self.input.pending().len();
        let len = usize::try_from(left).map_or(pending, |left| left.min(pending));
        self.input.advance(len);
        let left = left - len as u64;
        if left > 0 {
            self.state = State::Skipping { left, place };
            return Step::Starved;
        }
        self.state = State::Element(place);
        Step::Again
    }

    fn element(&mut self, head: Head, place: Place) -> Step {
        match (head.id, place) {
            (ids::SEGMENT, _) => self.enter(head, Place::Top),
            (ids::CLUSTER, _) => {
                let at = self.input.at();
                self.enter(head, Place::NewCluster { at })
            }
            (ids::EBML, _) => {
                let at = self.input.at();
                self.whole(head, HEADER_ELEMENT_MAX, |parser, _| Ok(parser.ebml(at)))
            }
            (ids::INFO, _) => self.whole(head, HEADER_ELEMENT_MAX, |parser, payload| {
                parser.info(&payload)
            }),
            (ids::TRACKS, _) => self.whole(head, HEADER_ELEMENT_MAX, |parser, payload| {
                parser.tracks(&payload)
            }),
            (ids::TIMESTAMP, Place::NewCluster { at }) => {
                self.whole(head, 8, |parser, payload| parser.timestamp(at, &payload))
            }
            (ids::SIMPLE_BLOCK, Place::Cluster { ticks }) => self.simple_block(head, ticks),
            (ids::BLOCK_GROUP, Place::Cluster { ticks }) => {
                let max = self
                    .lanes
                    .iter()
                    .map(|lane| lane.block_max())
                    .max()
                    .unwrap_or(0);
                self.whole(head, max, |parser, payload| {
                    parser.block_group(ticks, &payload)
                })
            }
            // One-byte IDs are easily met in damaged bytes: a small cap keeps that cheap.
            (ids::CRC_32 | ids::POSITION | ids::PREV_SIZE, _) => self.unread(head, place, 8),
            (ids::VOID, Place::Cluster { .. } | Place::NewCluster { .. }) => {
                self.unread(head, place, CLUSTER_VOID_MAX)
            }
            (
                ids::VOID
                | ids::SEEK_HEAD
                | ids::CUES
                | ids::TAGS
                | ids::CHAPTERS
                | ids::ATTACHMENTS,
                _,
            ) => self.unread(head, place, SKIPPED_ELEMENT_MAX),
            _ => self.lose(),
        }
    }

    fn enter(&mut self, head: Head, place: Place) -> Step {
        self.input.advance(head.len);
        self.state = State::Element(place);
        Step::Again
    }

    fn unread(&mut self, head: Head, place: Place, max: u64) -> Step {
        match head.size {
            Size::Known(left) if left <= max => {
                self.input.advance(head.len);
                self.state = State::Skipping { left, place };
                Step::Again
            }
            Size::Known(_) | Size::Unknown => self.lose(),
        }
    }

    /// Hands the payload of an element to `read` once all of it is here.
    fn whole(
        &mut self,
        head: Head,
        max: usize,
        read: impl FnOnce(&mut Self, Bytes) -> Result<Option<Event>, Malformed>,
    ) -> Step {
        let Size::Known(size) = head.size else {
            return self.lose();
        };
        let Some(size) = usize::try_from(size).ok().filter(|size| *size <= max) else {
            return self.lose();
        };
        if self.input.pending().len() < head.len + size {
            return Step::Starved;
        }
        let at = self.input.at();
        self.input.advance(head.len);
        let payload = self.input.take(size);
        match read(self, payload) {
            Ok(Some(event)) => Step::Emit(event),
            Ok(None) => Step::Again,
            Err(Malformed) => {
                self.state = State::Lost { since: at };
                Step::Again
            }
        }
    }

    /// An EBML header at `at`: the take's own, or that of a restarted encoder.
    fn ebml(&mut self, at: u64) -> Option<Event> {
        self.state = State::Element(Place::Top);
        if self.lanes.is_empty() {
            return None;
        }
        self.scale_ns = tracks::SCALE_DEFAULT_NS;
        self.lanes.clear();
        self.clock = ClusterClock::default();
        Some(Event::NestedHeader { at })
    }

    fn info(&mut self, payload: &[u8]) -> Result<Option<Event>, Malformed> {
        self.scale_ns = tracks::timestamp_scale(payload)?;
        self.state = State::Element(Place::Top);
        Ok(None)
    }

    fn tracks(&mut self, payload: &Bytes) -> Result<Option<Event>, Malformed> {
        let found = tracks::parse(payload)?;
        self.state = State::Element(Place::Top);
        if !self.lanes.is_empty() {
            // A repeated list of the same recording; blocks keep meaning what they meant.
            return Ok(None);
        }
        self.lanes = found.iter().map(lane).collect();
        Ok(Some(Event::Tracks(found)))
    }

    fn timestamp(&mut self, at: u64, payload: &[u8]) -> Result<Option<Event>, Malformed> {
        let ticks = ebml::uint(payload)?;
        let ticks = self
            .clock
            .accept(ticks, self.scale_ns, 0)
            .ok_or(Malformed)?;
        self.state = State::Element(Place::Cluster { ticks });
        for lane in &mut self.lanes {
            lane.last_ns = None;
        }
        Ok(Some(Event::ClusterStart { at }))
    }

    fn simple_block(&mut self, head: Head, ticks: i64) -> Step {
        // Which track it is decides how large it may be, before it is buffered.
        let Some(number) = self.input.pending().get(head.len) else {
            return Step::Starved;
        };
        let Some(lane) = self.lane(*number) else {
            return self.lose();
        };
        match self.credit(head, ticks, lane) {
            Candidate::Believable => {}
            Candidate::Short if self.ended => return self.lose(),
            Candidate::Short => return Step::Starved,
            Candidate::No => return self.lose(),
        }
        self.whole(head, lane.block_max(), |parser, payload| {
            let keyframe = lane.is_audio || payload.get(3).is_some_and(|f| f & FLAG_KEYFRAME != 0);
            parser.packet(ticks, &payload, keyframe, None).map(Some)
        })
    }

    /// Whether a block can be believed. Where bytes vanished without notice, payload is read as a
    /// timestamp or size; such a block is not followed by an element, so one that jumps ahead or is
    /// very large has to be.
    fn credit(&self, head: Head, ticks: i64, lane: Lane) -> Candidate {
        let bytes = self.input.pending();
        let Some(relative) = bytes.get(head.len + 1..head.len + 3) else {
            return Candidate::Short;
        };
        let scale_ns = i64::try_from(self.scale_ns).unwrap_or(i64::MAX);
        let cluster_ns = ticks.saturating_mul(scale_ns);
        let relative = i64::from(i16::from_be_bytes([relative[0], relative[1]]));
        let ts_ns = cluster_ns.saturating_add(relative.saturating_mul(scale_ns));
        let jump_ns = ts_ns.saturating_sub(lane.last_ns.unwrap_or(cluster_ns));
        if jump_ns < -BLOCK_JUMP_BACK_NS {
            return Candidate::No;
        }
        let size = match head.size {
            Size::Known(size) => usize::try_from(size).ok(),
            Size::Unknown => None,
        };
        let Some(size) = size.filter(|size| *size <= lane.block_max()) else {
            return Candidate::No;
        };
        if jump_ns <= BLOCK_JUMP_NS && size <= BLOCK_SMALL {
            return Candidate::Believable;
        }
        let Some(next) = bytes.get(head.len + size..) else {
            return Candidate::Short;
        };
        match ebml::head(next) {
            Read::Short => Candidate::Short,
            Read::Done(Head {
                id: ids::SIMPLE_BLOCK,
                len,
                ..
            }) => match next.get(len) {
                Some(number) if self.lane(*number).is_some() => Candidate::Believable,
                Some(_) => Candidate::No,
                None => Candidate::Short,
            },
            Read::Done(Head {
                id: ids::BLOCK_GROUP | ids::CLUSTER | ids::CUES,
                ..
            }) => Candidate::Believable,
            Read::Done(_) | Read::Bad => Candidate::No,
        }
    }

    fn block_group(&mut self, ticks: i64, group: &Bytes) -> Result<Option<Event>, Malformed> {
        let (mut block, mut rest, mut keyframe) = (None, Vec::new(), true);
        for child in Children::new(group) {
            let child = child?;
            match child.id {
                ids::BLOCK if block.is_none() => block = Some(group.slice_ref(child.payload)),
                ids::BLOCK => return Err(Malformed),
                // A length in foreign ticks would be wrong in the output; it is not needed there.
                ids::BLOCK_DURATION if self.scale_ns != tracks::SCALE_DEFAULT_NS => {}
                id => {
                    keyframe &= id != ids::REFERENCE_BLOCK;
                    rest.extend_from_slice(child.raw);
                }
            }
        }
        let block = block.ok_or(Malformed)?;
        let group = (!rest.is_empty()).then(|| Bytes::from(rest));
        self.packet(ticks, &block, keyframe, group).map(Some)
    }

    /// Reads a block: `track | i16 relative ticks | flags | data`.
    fn packet(
        &mut self,
        ticks: i64,
        block: &Bytes,
        keyframe: bool,
        group: Option<Bytes>,
    ) -> Result<Event, Malformed> {
        if block.len() <= BLOCK_HEADER_LEN {
            return Err(Malformed);
        }
        let lane = self.lane(block[0]).ok_or(Malformed)?;
        let relative = i64::from(i16::from_be_bytes([block[1], block[2]]));
        let ts_ns = i64::try_from(self.scale_ns)
            .ok()
            .and_then(|scale| (ticks + relative).checked_mul(scale))
            .ok_or(Malformed)?;
        if let Some(lane) = self
            .lanes
            .iter_mut()
            .find(|known| known.number == lane.number)
        {
            lane.last_ns = Some(ts_ns);
        }
        let payload = block.slice(BLOCK_HEADER_LEN..);
        let duration_ns = if lane.is_opus {
            opus::duration_ns(&payload)
        } else {
            None
        };
        Ok(Event::Packet(Packet {
            track: lane.number,
            ts_ns,
            composition_ns: 0,
            duration_ns,
            keyframe: keyframe || lane.is_audio,
            block_flags: block[3] & FLAGS_KEPT,
            payload,
            group,
        }))
    }

    /// The track that a block's first byte names.
    fn lane(&self, number: u8) -> Option<Lane> {
        let number = u64::from(number.checked_sub(0x80)?);
        self.lanes
            .iter()
            .copied()
            .find(|lane| lane.number == number)
    }

    /// Gives up on the element at the front. Its first byte is passed over so that the scan
    /// cannot find the very same thing again.
    fn lose(&mut self) -> Step {
        let since = self.input.at();
        self.input.advance(1);
        self.state = State::Lost { since };
        Step::Again
    }

    fn resync(&mut self, since: u64) -> Step {
        loop {
            let pending = self.input.pending();
            let Some(ahead) = pending.iter().position(|byte| matches!(byte, 0x1A | 0x1F)) else {
                self.input.advance(pending.len());
                return Step::Starved;
            };
            self.input.advance(ahead);
            let lost = self.input.at() - since;
            match candidate(self.input.pending(), &mut self.clock, self.scale_ns, lost) {
                Candidate::Believable => {
                    self.state = State::Element(Place::Top);
                    return Step::Emit(Event::Lost {
                        at: since,
                        bytes: lost,
                    });
                }
                Candidate::Short => return Step::Starved,
                Candidate::No => self.input.advance(1),
            }
        }
    }
}

fn lane(track: &Track) -> Lane {
    Lane {
        number: track.number,
        is_audio: track.is_audio(),
        is_opus: track.is_opus(),
        last_ns: None,
    }
}
