//! Whether the disk takes what it is given, and how much room it has.
//!
//! Owns the rules: when room is low, when a disk that failed is tried again, and when it counts as well.
//! Must never touch a file.

use super::{Command, disk::Room};
use std::time::{Duration, Instant};

/// First pause before a failed disk is tried again; it doubles with each failure.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// A disk that was well for so long starts anew with the pauses.
const WELL_FOR: Duration = Duration::from_secs(60);
/// How often room is looked at.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// Room is low below this share of the disk, or below so many segments, whichever is less.
const LOW_SHARE: u64 = 16;
const LOW_SEGMENTS: u64 = 4;

/// Whether the disk takes what it is given.
pub(super) enum Health {
    /// As far as is known.
    Well,
    /// It does not.
    Failing {
        /// What it said.
        reason: String,
        /// Events and restarts that wait for it, in order.
        held: Vec<Command>,
        /// When it is tried again.
        next: Instant,
    },
}

/// How long to wait before a failed disk is tried again.
#[derive(Default)]
pub(super) struct Pauses {
    last: Option<(Instant, Duration)>,
}

impl Pauses {
    /// It has failed, again or for the first time.
    pub(super) fn next(&mut self, now: Instant) -> Instant {
        let pause = match self.last {
            Some((at, pause)) if now.saturating_duration_since(at) < pause + WELL_FOR => {
                (pause * 2).min(PAUSE_MAX)
            }
            Some(_) | None => PAUSE_MIN,
        };
        self.last = Some((now, pause));
        now + pause
    }
}

/// Whether there is so little room that no session should begin, and a disk that was full is not well yet.
pub(super) fn is_low(room: Room, segment_bytes: u64) -> bool {
    let reserve = (room.total_bytes / LOW_SHARE).min(LOW_SEGMENTS * segment_bytes);
    room.free_bytes < reserve
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_low_by_the_size_of_the_disk_or_of_segments() {
        let low = |free_bytes, total_bytes| {
            let room = Room {
                free_bytes,
                total_bytes,
            };
            is_low(room, 64 << 20)
        };
        assert!(low((128 << 10) - 1, 2 << 20), "a sixteenth of a small disk");
        assert!(!low(128 << 10, 2 << 20));
        assert!(
            low((256 << 20) - 1, 1 << 40),
            "four segments of a large one"
        );
        assert!(!low(256 << 20, 1 << 40));
        assert!(!low(0, 0), "a file system that does not tell");
    }

    #[test]
    fn pauses_grow_while_the_disk_fails_and_begin_anew_when_it_was_well() {
        let begun = Instant::now();
        let mut pauses = Pauses::default();
        let first = pauses.next(begun);
        assert_eq!(first - begun, PAUSE_MIN);
        let second = pauses.next(first);
        assert_eq!(second - first, 2 * PAUSE_MIN);
        let mut now = second;
        for _ in 0..10 {
            now = pauses.next(now);
        }
        assert_eq!(pauses.next(now) - now, PAUSE_MAX);
        let later = now + PAUSE_MAX + WELL_FOR;
        assert_eq!(pauses.next(later) - later, PAUSE_MIN);
    }
}
