//! Whether a broadcaster is still there.
//!
//! Owns when to ping and when to give up; must never sleep or send.

use std::time::Duration;
use tokio::time::Instant;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    /// Nothing yet.
    Fine,
    /// Ask the client for a sign of life.
    Ping,
    /// It has been silent for too long.
    Silent,
}

/// The schedule of one connection.
#[derive(Debug)]
pub(crate) struct Pulse {
    ping_every: Duration,
    silence_max: Duration,
    pinged: Instant,
}

impl Pulse {
    pub(crate) fn new(ping_every: Duration, silence_max: Duration, now: Instant) -> Self {
        Self {
            ping_every,
            silence_max,
            pinged: now,
        }
    }

    /// When to look again, given when the client was heard last.
    pub(crate) fn due(&self, heard: Instant) -> Instant {
        let ping = heard.max(self.pinged) + self.ping_every;
        ping.min(heard + self.silence_max)
    }

    /// Looks at `now`; a ping that is due counts as sent.
    pub(crate) fn beat(&mut self, now: Instant, heard: Instant) -> Beat {
        if now >= heard + self.silence_max {
            return Beat::Silent;
        }
        if now < heard.max(self.pinged) + self.ping_every {
            return Beat::Fine;
        }
        self.pinged = now;
        Beat::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: Duration = Duration::from_secs(10);
    const SILENCE: Duration = Duration::from_secs(30);

    #[test]
    fn a_silent_client_is_pinged_every_ten_seconds_and_given_up_after_thirty() {
        let start = Instant::now();
        let mut pulse = Pulse::new(PING, SILENCE, start);
        let mut beats = Vec::new();
        let mut now = start;
        for _ in 0..3 {
            now = pulse.due(start);
            beats.push(((now - start).as_secs(), pulse.beat(now, start)));
        }
        assert_eq!(
            beats,
            [(10, Beat::Ping), (20, Beat::Ping), (30, Beat::Silent)]
        );
        assert_eq!(now - start, SILENCE);
    }

    #[test]
    fn traffic_makes_pings_needless() {
        let start = Instant::now();
        let mut pulse = Pulse::new(PING, SILENCE, start);
        let heard = start + Duration::from_secs(9);
        assert_eq!(pulse.beat(start + PING, heard), Beat::Fine);
        assert_eq!(pulse.due(heard), heard + PING);
    }
}
