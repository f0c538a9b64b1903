//! What a rehearsal's connection is worth: round trips and acknowledgements, measured.
//!
//! Owns the figures of one connection; must never send by itself or hold more than a long rehearsal
//! needs.

use aircheck_core::sheet::{Link, Times};
use aircheck_proto::ingest::{Ack, publish_request::Request};
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// Between two pings.
const EVERY: Duration = Duration::from_secs(1);
/// Figures of a kind that are kept, and chunks that wait for their acknowledgement.
const MANY: usize = 50_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Gauge {
    due: Instant,
    /// When the ping that is not answered yet was sent.
    pinged: Option<Instant>,
    round_trips_us: Vec<u64>,
    /// Where chunks end, and when they came.
    waiting: VecDeque<(u64, Instant)>,
    acks_us: Vec<u64>,
}

impl Gauge {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            due: now,
            pinged: None,
            round_trips_us: Vec::new(),
            waiting: VecDeque::new(),
            acks_us: Vec::new(),
        }
    }

    /// When to look again.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// A pong came. While a ping is not answered no other is sent, so it is that ping's.
    pub(crate) fn ponged(&mut self, at: Instant) {
        if let Some(pinged) = self.pinged.take() {
            keep(&mut self.round_trips_us, at - pinged);
        }
    }

    /// Whether a ping is to be sent now.
    pub(crate) fn measure(&mut self, now: Instant) -> bool {
        self.due = now + EVERY;
        let free = self.pinged.is_none();
        self.pinged.get_or_insert(now);
        free
    }

    /// Something goes to the ingest.
    pub(crate) fn sent(&mut self, request: &Request, now: Instant) {
        match request {
            Request::Chunk(chunk) if self.waiting.len() < MANY => {
                let end = chunk.offset + chunk.data.len() as u64;
                self.waiting.push_back((end, now));
            }
            // Offsets begin anew.
            Request::Take(_) => self.waiting.clear(),
            Request::Chunk(_)
            | Request::Open(_)
            | Request::Marker(_)
            | Request::Link(_)
            | Request::Stop(_) => {}
        }
    }

    pub(crate) fn acknowledged(&mut self, ack: &Ack, now: Instant) {
        while let Some((_, came)) = self.waiting.pop_front_if(|(end, _)| *end <= ack.offset) {
            keep(&mut self.acks_us, now - came);
        }
    }

    /// All of it.
    pub(crate) fn link(&self) -> Link {
        Link {
            round_trip: Times::of(self.round_trips_us.clone()),
            ack: Times::of(self.acks_us.clone()),
        }
    }
}

fn keep(figures: &mut Vec<u64>, time: Duration) {
    if figures.len() < MANY {
        figures.push(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aircheck_proto::ingest::{Chunk, Take};

    const MS: Duration = Duration::from_millis(1);

    fn chunk(offset: u64) -> Request {
        let data = bytes::Bytes::from_static(b"0123456789");
        Request::Chunk(Chunk { offset, data })
    }

    fn ack(offset: u64) -> Ack {
        Ack {
            offset,
            ..Ack::default()
        }
    }

    #[test]
    fn a_ping_is_measured_by_its_own_pong() {
        let start = Instant::now();
        let mut gauge = Gauge::new(start);
        assert!(gauge.measure(start), "the first ping");
        assert!(!gauge.measure(start + EVERY), "still on its way");
        gauge.ponged(start + EVERY + 500 * MS);
        // One that nobody asked for says nothing.
        gauge.ponged(start + 9 * EVERY);
        assert!(gauge.measure(start + 2 * EVERY));
        let times = gauge.link().round_trip.expect("measured");
        assert_eq!(times.p50_us, 1_500_000);
    }

    #[test]
    fn an_ack_is_measured_from_when_its_chunk_came() {
        let start = Instant::now();
        let mut gauge = Gauge::new(start);
        gauge.sent(&chunk(0), start);
        gauge.sent(&chunk(10), start + 10 * MS);
        gauge.acknowledged(&ack(19), start + 30 * MS);
        let times = gauge.link().ack.expect("one chunk");
        assert_eq!((times.p50_us, times.p99_us), (30_000, 30_000));
        gauge.acknowledged(&ack(20), start + 110 * MS);
        assert_eq!(gauge.link().ack.expect("two").p99_us, 100_000);
        // A new take counts from zero: what was not acknowledged of the old one never will be here.
        gauge.sent(&chunk(20), start);
        gauge.sent(&Request::Take(Take::default()), start);
        gauge.acknowledged(&ack(1000), start + EVERY);
        assert_eq!(gauge.link().ack.expect("two").p99_us, 100_000);
    }
}
