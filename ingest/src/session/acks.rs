//! When acks are due.
//!
//! Owns the cadence of the contract: at most every 250 ms, at least every second while bytes are
//! pending. Must never look at a clock.

use std::time::Duration;
use tokio::time::Instant;

const LEAST: Duration = Duration::from_millis(250);
const MOST: Duration = Duration::from_secs(1);

/// The schedule of one connection's acks.
#[derive(Debug)]
pub(super) struct Cadence {
    begun: Instant,
    last: Option<Instant>,
    sent: (u64, u64),
}

impl Cadence {
    pub(super) fn new(begun: Instant) -> Self {
        Self {
            begun,
            last: None,
            sent: (0, 0),
        }
    }

    /// Another take: what was sent of the one before says nothing about it.
    pub(super) fn restart(&mut self, durable: u64, archived: u64) {
        self.sent = (durable, archived);
    }

    /// When the next ack has to go, given what is to be said; `None` when there is nothing to say.
    pub(super) fn due(&self, durable: u64, archived: u64, pending: bool) -> Option<Instant> {
        let news = self.sent != (durable, archived);
        match (news, pending, self.last) {
            (true, _, None) => Some(self.begun),
            (true, _, Some(last)) => Some(last + LEAST),
            (false, true, Some(last)) => Some(last + MOST),
            (false, true, None) | (false, false, _) => None,
        }
    }

    pub(super) fn sent(&mut self, durable: u64, archived: u64, at: Instant) {
        self.last = Some(at);
        self.sent = (durable, archived);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_keep_between_a_quarter_second_and_a_second() {
        let start = Instant::now();
        let mut cadence = Cadence::new(start);
        assert_eq!(cadence.due(0, 0, true), None, "nothing is durable yet");
        assert_eq!(
            cadence.due(10, 0, true),
            Some(start),
            "the first goes at once"
        );
        cadence.sent(10, 0, start);
        assert_eq!(cadence.due(20, 0, true), Some(start + LEAST));
        assert_eq!(
            cadence.due(10, 0, true),
            Some(start + MOST),
            "still pending: say so again"
        );
        assert_eq!(cadence.due(10, 0, false), None, "all is said");
        assert_eq!(
            cadence.due(10, 5, false),
            Some(start + LEAST),
            "archived counts too"
        );
    }
}
