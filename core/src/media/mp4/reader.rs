//! The push reader of fragmented MP4. Boxes that matter are buffered whole under a cap, others are
//! skipped by counting; after damage it goes on at the next believable fragment.

use std::collections::VecDeque;

use bytes::Bytes;
use mp4_atom::{Decode, Moof, Moov};

use super::boxes::{Found, Head, head, is_start};
use super::fragment::Plan;
use super::init::{self, Mp4Track};
use crate::media::input::Window;
use crate::media::limits::{MP4_BOX_MAX, MP4_MDAT_MAX, SKIPPED_ELEMENT_MAX};
use crate::media::packet::{DemuxError, Event};

/// A push reader of one take.
#[derive(Debug)]
pub struct Mp4Reader {
    input: Window,
    state: State,
    tracks: Vec<Mp4Track>,
    /// The fragment whose media comes next.
    plan: Option<Plan>,
    /// Events of the box that was read last.
    events: VecDeque<Event>,
    ended: bool,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// At the start of a box.
    Box,
    /// Inside a box that is not read.
    Skipping { left: u64 },
    /// Looking for the next fragment.
    Lost { since: u64 },
    /// Nothing can be read from here on.
    Failed,
}

enum Step {
    Again,
    Starved,
}

impl Default for Mp4Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl Mp4Reader {
    /// A reader at the first byte of a take.
    #[must_use]
    pub fn new() -> Self {
        Self {
            input: Window::default(),
            state: State::Box,
            tracks: Vec::new(),
            plan: None,
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
        match &mut self.state {
            State::Skipping { left } if bytes <= *left && self.input.pending().is_empty() => {
                *left -= bytes;
            }
            State::Lost { .. } | State::Failed => {}
            state => {
                *state = State::Lost {
                    since: self.input.at(),
                }
            }
        }
        self.input.jump(bytes);
    }

    /// Declares that the take has no more bytes.
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
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            match self.step() {
                Step::Again => {}
                Step::Starved if !self.ended => return None,
                // Nothing completes what is pending. If its size was wrong, whole fragments may
                // be hidden in it.
                Step::Starved if self.input.pending().len() > 1 => match self.state {
                    State::Lost { .. } => self.input.advance(1),
                    State::Box | State::Skipping { .. } | State::Failed => {
                        self.lose();
                    }
                },
                Step::Starved => return self.rest(),
            }
        }
    }

    fn rest(&mut self) -> Option<Event> {
        let since = match self.state {
            State::Lost { since } => since,
            State::Failed => return None,
            State::Box | State::Skipping { .. } => self.input.at(),
        };
        self.input.advance(self.input.pending().len());
        self.state = State::Box;
        let bytes = self.input.at() - since;
        (bytes > 0).then_some(Event::Lost { at: since, bytes })
    }

    fn step(&mut self) -> Step {
        match self.state {
            State::Box => match head(self.input.pending()) {
                Found::Box(head) => self.read(head),
                Found::Short => Step::Starved,
                Found::No => self.lose(),
            },
            State::Skipping { left } => self.pass(left),
            State::Lost { since } => self.resync(since),
            State::Failed => {
                self.input.advance(self.input.pending().len());
                Step::Starved
            }
        }
    }

    fn pass(&mut self, left: u64) -> Step {
        let pending = self.input.pending().len();
        let len = usize::try_from(left).map_or(pending, |left| left.min(pending));
        self.input.advance(len);
        let left = left - len as u64;
        if left > 0 {
            self.state = State::Skipping { left };
            return Step::Starved;
        }
        self.state = State::Box;
        Step::Again
    }

    fn read(&mut self, head: Head) -> Step {
        match &head.kind {
            b"moov" => self.whole(head, MP4_BOX_MAX, Self::moov),
            // The header was lost: nothing says what the fragments hold.
            b"moof" if self.tracks.is_empty() => self.lose(),
            b"moof" => self.whole(head, MP4_BOX_MAX, Self::moof),
            b"mdat" if self.tracks.is_empty() => self.fail(DemuxError::NotFragmented),
            b"mdat" => self.whole(head, MP4_MDAT_MAX, Self::mdat),
            b"ftyp" => {
                if !self.tracks.is_empty() {
                    let at = self.input.at();
                    self.tracks.clear();
                    self.plan = None;
                    self.events.push_back(Event::NestedHeader { at });
                }
                self.unread(head)
            }
            b"styp" | b"free" | b"skip" | b"sidx" | b"emsg" | b"prft" | b"uuid" | b"mfra"
            | b"pdin" | b"wide" | b"meta" | b"udta" => self.unread(head),
            _ => self.lose(),
        }
    }

    fn unread(&mut self, head: Head) -> Step {
        if head.payload > SKIPPED_ELEMENT_MAX {
            return self.lose();
        }
        self.input.advance(head.len);
        self.state = State::Skipping { left: head.payload };
        Step::Again
    }

    /// Hands a box to `read` once all of it is here.
    fn whole(&mut self, head: Head, max: usize, read: fn(&mut Self, &Whole) -> Step) -> Step {
        let Some(payload) = usize::try_from(head.payload).ok().filter(|len| *len <= max) else {
            return self.lose();
        };
        if self.input.pending().len() < head.len + payload {
            return Step::Starved;
        }
        let at = self.input.at();
        let bytes = self.input.take(head.len + payload);
        read(
            self,
            &Whole {
                at,
                head_len: head.len,
                bytes,
            },
        )
    }

    fn moov(&mut self, whole: &Whole) -> Step {
        if !self.tracks.is_empty() {
            return Step::Again;
        }
        let Ok(moov) = Moov::decode(&mut &whole.bytes[..]) else {
            return self.lost_at(whole.at);
        };
        match init::tracks(&moov) {
            Ok(tracks) => {
                let list = tracks.iter().map(|track| track.track.clone()).collect();
                self.events.push_back(Event::Tracks(list));
                self.tracks = tracks;
                Step::Again
            }
            Err(error) => self.fail(error),
        }
    }

    fn moof(&mut self, whole: &Whole) -> Step {
        let Ok(moof) = Moof::decode(&mut &whole.bytes[..]) else {
            return self.lost_at(whole.at);
        };
        match Plan::read(&moof, whole.at, &mut self.tracks) {
            Ok(plan) => {
                self.events.push_back(Event::ClusterStart { at: whole.at });
                self.plan = Some(plan);
                Step::Again
            }
            Err(_) => self.lost_at(whole.at),
        }
    }

    fn mdat(&mut self, whole: &Whole) -> Step {
        // Media without its fragment's head cannot be told apart.
        let Some(plan) = self.plan.take() else {
            return self.lost_at(whole.at);
        };
        let media_at = whole.at + whole.head_len as u64;
        let media = whole.bytes.slice(whole.head_len..);
        let packets = plan
            .packets(&media, media_at, &self.tracks)
            .map(Event::Packet);
        self.events.extend(packets);
        Step::Again
    }

    fn fail(&mut self, error: DemuxError) -> Step {
        self.events.push_back(Event::Failed(error));
        self.state = State::Failed;
        Step::Again
    }

    /// Gives up on the box at the front; its first byte is passed over so that the scan cannot
    /// find the very same thing again.
    fn lose(&mut self) -> Step {
        let since = self.input.at();
        self.input.advance(1);
        self.lost_at(since)
    }

    fn lost_at(&mut self, since: u64) -> Step {
        self.plan = None;
        self.state = State::Lost { since };
        Step::Again
    }

    fn resync(&mut self, since: u64) -> Step {
        loop {
            let pending = self.input.pending();
            match is_start(pending) {
                Some(true) => break,
                Some(false) => {
                    // Both boxes searched for have an `f` or `m` as fifth byte.
                    let rest = &pending[5..];
                    let ahead = rest.iter().position(|byte| matches!(byte, b'f' | b'm'));
                    let ahead = ahead.unwrap_or(rest.len());
                    self.input.advance(ahead + 1);
                }
                None => return Step::Starved,
            }
        }
        let bytes = self.input.at() - since;
        self.events.push_back(Event::Lost { at: since, bytes });
        self.state = State::Box;
        Step::Again
    }
}

/// A box with all its bytes.
struct Whole {
    /// Offset in the take.
    at: u64,
    head_len: usize,
    bytes: Bytes,
}
