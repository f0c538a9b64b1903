//! Whether a service takes new work.
//!
//! Owns readiness; must never stand for liveness, which is that anybody answers at all.

use tokio::sync::watch;

/// Where a service stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not serving yet.
    Starting,
    /// Serving.
    Ready,
    /// Finishing what it has; takes nothing new.
    Draining,
}

/// A shared, watchable [`Phase`].
#[derive(Clone, Debug)]
pub struct Health(watch::Sender<Phase>);

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Begins as [`Phase::Starting`].
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(Phase::Starting))
    }

    /// From now on the service serves; without effect once draining.
    pub fn ready(&self) {
        self.0.send_if_modified(|phase| {
            let starting = *phase == Phase::Starting;
            if starting {
                *phase = Phase::Ready;
            }
            starting
        });
    }

    /// From now on it takes nothing new. There is no way back.
    pub fn draining(&self) {
        self.0.send_replace(Phase::Draining);
    }

    /// Whether it serves.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.0.borrow() == Phase::Ready
    }

    /// Where it stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Every change, beginning with the present phase.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draining_is_final() {
        let health = Health::new();
        assert!(!health.is_ready());
        health.ready();
        assert!(health.is_ready());
        health.draining();
        health.ready();
        assert_eq!(health.phase(), Phase::Draining);
    }
}
