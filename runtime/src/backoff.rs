//! How long to wait before trying again: exponential, with jitter.
//!
//! Owns the schedule; must never sleep, so that callers can wait for something else meanwhile.

use rand::Rng as _;
use std::time::Duration;

/// A rising, jittered series of delays.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// Delays between a quarter of and a whole ceiling that begins at `first` and doubles up to `max`.
    #[must_use]
    pub fn new(first: Duration, max: Duration) -> Self {
        Self {
            first,
            max,
            ceiling: first,
        }
    }

    /// The next delay. Jitter spreads a crowd best
    /// (<https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>).
    pub fn delay(&mut self) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = (ceiling * 2).min(self.max);
        ceiling.mul_f64(rand::rng().random_range(0.25..=1.0))
    }

    /// Begins anew, after a success.
    pub fn reset(&mut self) {
        self.ceiling = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_rise_to_the_maximum_and_never_beyond() {
        let (first, max) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, max);
        assert!(backoff.delay() <= first);
        for _ in 0..20 {
            let delay = backoff.delay();
            assert!(delay <= max && delay >= first / 4);
        }
        backoff.reset();
        assert!(backoff.delay() <= first);
    }
}
