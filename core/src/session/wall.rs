//! The wall clock of one session: even, whatever the machine's does.
//!
//! Owns the times that are written into a session's events. Takes are placed in the archive by them, so
//! a clock that is set back or forward in the middle of a show must not tear or stretch it.

use super::Now;
use crate::spool::Manifest;

/// Right when the session began or was recovered; from then on it goes with the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wall(Now);

impl Wall {
    /// Begins at `now`, but never before what the session has written already.
    pub(super) fn new(manifest: &Manifest, now: Now) -> Self {
        let unix_ms = now.unix_ms.max(manifest.latest_unix_ms());
        Self(Now { unix_ms, ..now })
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub(super) fn unix_ms(self, now: Now) -> u64 {
        let Self(began) = self;
        let since_ms = now.mono_ms.saturating_sub(began.mono_ms);
        began.unix_ms.saturating_add(since_ms)
    }
}
