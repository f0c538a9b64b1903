//! Where a session stands, and who it waits for.
//!
//! Owns how long each kind of waiting lasts and what its end means. Must never change a session.

use super::Now;
use crate::recording::{EndReason, Status};

/// How long a session waits for the connection that opened it, at least: a show with a grace of zero
/// would otherwise end before it begins.
const OPENED_MS: u64 = 10_000;

/// Who a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// The broadcaster who opened it, and has not connected yet.
    Opened,
    /// A broadcaster whose connection dropped.
    Dropped,
    /// A broadcaster who was cut off by our own restart.
    Recovered,
}

impl Waiting {
    /// For how long, in a show with this grace.
    fn limit_ms(self, grace_ms: u64) -> u64 {
        match self {
            Self::Opened => grace_ms.max(OPENED_MS),
            Self::Dropped | Self::Recovered => grace_ms,
        }
    }

    /// What it means when nobody comes.
    pub(super) fn end_reason(self) -> EndReason {
        match self {
            Self::Opened | Self::Dropped => EndReason::GraceExpired,
            Self::Recovered => EndReason::Recovered,
        }
    }
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Live,
    Grace {
        deadline_mono_ms: u64,
        waiting: Waiting,
    },
    Finalizing,
    Over {
        status: Status,
    },
}

impl State {
    pub(super) fn waits(waiting: Waiting, grace_ms: u64, now: Now) -> Self {
        Self::Grace {
            deadline_mono_ms: now.mono_ms.saturating_add(waiting.limit_ms(grace_ms)),
            waiting,
        }
    }
}
