//! The time as the lifecycle wants it.
//!
//! Owns the zero of the monotonic clock. Deadlines are computed on it, so that a wall clock that
//! jumps neither ends a show nor keeps it.

use aircheck_core::session::Now;
use aircheck_runtime::clock::unix_ms;
use std::time::Duration;
use tokio::time::Instant;

/// A clock that every session of the process shares.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    zero: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            zero: Instant::now(),
        }
    }
}

impl Clock {
    /// Both times of this instant.
    #[must_use]
    pub(crate) fn now(&self) -> Now {
        let mono_ms = u64::try_from(self.zero.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now {
            mono_ms,
            unix_ms: unix_ms(),
        }
    }

    /// When the monotonic clock shows `mono_ms`.
    #[must_use]
    pub(crate) fn at(&self, mono_ms: u64) -> Instant {
        // A century is as good as never, and does not overflow.
        self.zero + Duration::from_millis(mono_ms.min(100 * 365 * 86_400_000))
    }
}
