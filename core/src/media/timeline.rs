//! Where each packet of each take stands on the one clock of the show. Pure arithmetic: it sees
//! timestamps and lengths, never payloads or containers.
//!
//! Every take is moved as a whole to `max(end so far, its wall time)`, in steps of 20 ms, so that
//! time never runs backwards. A hole is filled, closed or kept, as the [`Gaps`] say.

use super::limits::{GAP_FILL_MAX_NS, NS_PER_MS, SILENCE_MAX_NS};
use super::packet::Packet;

/// Takes are placed in steps of one Opus frame.
const STEP_NS: i64 = 20 * NS_PER_MS;
/// Timestamps of live sound jitter by some 10 ms; only a larger hole inside a take is a hole.
const HOLE_NS: i64 = 100 * NS_PER_MS;
/// The first take keeps its own timestamps if they begin this early.
const FIRST_TS_MAX_NS: i64 = 100 * NS_PER_MS;
/// A jump back of more than this is a restarted clock, not jitter.
const BACKWARD_NS: i64 = 1_000 * NS_PER_MS;
/// Longest length guessed for a frame whose container gives none.
const FRAME_GUESS_MAX_NS: i64 = 1_000 * NS_PER_MS;
/// Most places kept for [`Timeline::media_ns`]; later takes share the last.
const ANCHORS_MAX: usize = 1_024;

/// What becomes of time for which there is no media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gaps {
    /// The caller fills sound with what [`Placed::fill`] asks for.
    Fill,
    /// Later media moves up.
    Close,
    /// Nothing: timestamps jump.
    Keep,
}

/// What the timeline must know of a track of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LaneKind {
    /// Sound whose silence can be made up.
    Opus,
    /// Other sound.
    Audio,
    /// Picture.
    Video,
}

/// A packet's place on the show's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Its place in decoding order, nanoseconds.
    pub(crate) ts_ns: i64,
    /// Silence to write first.
    pub(crate) fill: Option<Fill>,
}

/// A stretch to fill with silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fill {
    /// Start, nanoseconds.
    pub(crate) from_ns: i64,
    /// Length, nanoseconds: a multiple of 20 ms.
    pub(crate) len_ns: i64,
}

/// The clock of one output.
#[derive(Debug)]
pub(crate) struct Timeline {
    gaps: Gaps,
    lanes: Vec<Lane>,
    /// End of the latest packet, nanoseconds.
    end_ns: i64,
    /// Wall time that is zero here, ms since session start.
    origin_ms: Option<u64>,
    phase: Phase,
    /// Added to a take's timestamps, nanoseconds.
    offset_ns: i64,
    /// How much more silence may be asked for, nanoseconds.
    silence_left_ns: i64,
    anchors: Vec<Anchor>,
}

#[derive(Debug)]
struct Lane {
    kind: LaneKind,
    last_ns: Option<i64>,
    end_ns: i64,
    is_new_in_take: bool,
    /// Picture of a take is worth nothing before its first keyframe.
    awaits_keyframe: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The next packet fixes the offset of a take. `None`: right after what came before.
    TakeStart {
        wall_ms: Option<u64>,
    },
    /// The next packet shows how long a hole was.
    AfterHole,
    Running,
}

/// From this wall time on (until the next anchor), media time runs beside it.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    wall_ns: i64,
    media_ns: i64,
}

impl Timeline {
    pub(crate) fn new(gaps: Gaps, kinds: impl Iterator<Item = LaneKind>) -> Self {
        let lanes: Vec<_> = kinds
            .map(|kind| Lane {
                kind,
                last_ns: None,
                end_ns: 0,
                is_new_in_take: true,
                awaits_keyframe: false,
            })
            .collect();
        // Only Opus silence can be made up: with other sound a gap can but be closed.
        let gaps = match gaps {
            Gaps::Fill if lanes.iter().any(|lane| lane.kind == LaneKind::Audio) => Gaps::Close,
            gaps => gaps,
        };
        Self {
            gaps,
            lanes,
            end_ns: 0,
            origin_ms: None,
            phase: Phase::TakeStart { wall_ms: None },
            offset_ns: 0,
            silence_left_ns: SILENCE_MAX_NS,
            anchors: Vec::new(),
        }
    }

    /// A take begins that arrived at `wall_ms` after the session's start; `None` if it follows
    /// the one before without a break.
    pub(crate) fn begin_take(&mut self, wall_ms: Option<u64>) {
        self.phase = Phase::TakeStart { wall_ms };
        for lane in &mut self.lanes {
            lane.is_new_in_take = true;
            lane.awaits_keyframe = lane.kind == LaneKind::Video;
        }
    }

    /// Bytes of the take are missing here.
    pub(crate) fn hole(&mut self) {
        if self.phase == Phase::Running {
            self.phase = Phase::AfterHole;
        }
    }

    /// Places the next packet of a lane; `None` if it cannot be used.
    pub(crate) fn place(&mut self, lane: usize, packet: &Packet) -> Option<Placed> {
        let is_sound = {
            let lane = self.lanes.get_mut(lane)?;
            if lane.awaits_keyframe && !packet.keyframe {
                return None;
            }
            lane.awaits_keyframe = false;
            lane.kind != LaneKind::Video
        };
        match self.phase {
            Phase::TakeStart { wall_ms } => self.start_take(wall_ms, packet.decode_ns()),
            Phase::AfterHole => self.bridge(packet.decode_ns(), self.end_ns, HOLE_NS),
            // Sound and picture may begin a little apart; only nonsense is corrected.
            Phase::Running if is_sound && self.lanes[lane].is_new_in_take => {
                self.bridge(packet.decode_ns(), self.end_ns, GAP_FILL_MAX_NS);
            }
            Phase::Running if is_sound => {
                self.bridge(packet.decode_ns(), self.lanes[lane].end_ns, HOLE_NS);
            }
            Phase::Running => {}
        }
        self.phase = Phase::Running;
        Some(self.put(lane, packet))
    }

    /// End of the latest packet, nanoseconds.
    pub(crate) const fn end_ns(&self) -> i64 {
        self.end_ns
    }

    /// Wall time of the start of this output, ms since session start.
    pub(crate) fn origin_ms(&self) -> u64 {
        self.origin_ms.unwrap_or(0)
    }

    /// Media time of a moment of the session, nanoseconds, never beyond the end.
    pub(crate) fn media_ns(&self, wall_ms: u64) -> i64 {
        let wall_ns = self.since_origin_ns(wall_ms);
        let after = self
            .anchors
            .partition_point(|anchor| anchor.wall_ns <= wall_ns);
        let limit = self
            .anchors
            .get(after)
            .map_or(self.end_ns, |next| next.media_ns);
        let media = match after.checked_sub(1).and_then(|at| self.anchors.get(at)) {
            Some(anchor) => anchor.media_ns.saturating_add(wall_ns - anchor.wall_ns),
            None => 0,
        };
        media.clamp(0, limit.max(0))
    }

    fn since_origin_ns(&self, wall_ms: u64) -> i64 {
        let ms = wall_ms.saturating_sub(self.origin_ms());
        i64::try_from(ms)
            .unwrap_or(i64::MAX)
            .saturating_mul(NS_PER_MS)
    }

    fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.last_ns.is_none())
    }

    fn start_take(&mut self, wall_ms: Option<u64>, first_ns: i64) {
        if self.is_empty() {
            self.origin_ms = wall_ms.or(self.origin_ms);
            let keeps_its_own = (0..=FIRST_TS_MAX_NS).contains(&first_ns);
            self.offset_ns = if keeps_its_own { 0 } else { -first_ns };
            self.anchor(0, 0);
            return;
        }
        let wall_ns = wall_ms.map_or(self.end_ns, |ms| self.since_origin_ns(ms));
        let gap = wall_ns.saturating_sub(self.end_ns).max(0);
        let gap = self.kept(gap);
        let start = self.end_ns + (gap + STEP_NS / 2) / STEP_NS * STEP_NS;
        self.offset_ns = start - first_ns;
        if wall_ms.is_some() {
            self.anchor(wall_ns, start);
        }
    }

    fn anchor(&mut self, wall_ns: i64, media_ns: i64) {
        let is_later = self
            .anchors
            .last()
            .is_none_or(|last| last.wall_ns < wall_ns && last.media_ns <= media_ns);
        if is_later && self.anchors.len() < ANCHORS_MAX {
            self.anchors.push(Anchor { wall_ns, media_ns });
        }
    }

    /// How much of a gap stays a gap.
    fn kept(&self, gap_ns: i64) -> i64 {
        match self.gaps {
            Gaps::Fill => gap_ns.min(GAP_FILL_MAX_NS).min(self.silence_left_ns),
            Gaps::Keep => gap_ns.min(GAP_FILL_MAX_NS),
            Gaps::Close => 0,
        }
    }

    /// Corrects the offset where the take's own clock jumps away from `end_ns`, backward or by
    /// more than `hole_ns` forward.
    fn bridge(&mut self, ts_ns: i64, end_ns: i64, hole_ns: i64) {
        let gap = (ts_ns + self.offset_ns) - end_ns;
        if gap < -BACKWARD_NS {
            self.offset_ns -= gap;
            return;
        }
        if gap > hole_ns {
            self.offset_ns -= gap - self.kept(gap);
        }
    }

    fn put(&mut self, index: usize, packet: &Packet) -> Placed {
        let can_fill = self.gaps == Gaps::Fill;
        let lane = &mut self.lanes[index];
        let earliest = lane.last_ns.unwrap_or(0);
        let ts_ns = (packet.decode_ns() + self.offset_ns).max(earliest);
        let fill = match lane.last_ns {
            Some(_) if can_fill && lane.kind == LaneKind::Opus => {
                let gap = (ts_ns - lane.end_ns).min(self.silence_left_ns);
                let smallest = if lane.is_new_in_take {
                    STEP_NS
                } else {
                    HOLE_NS
                };
                let len_ns = gap / STEP_NS * STEP_NS;
                (gap >= smallest).then_some(Fill {
                    from_ns: lane.end_ns,
                    len_ns,
                })
            }
            Some(_) | None => None,
        };
        self.silence_left_ns -= fill.map_or(0, |fill| fill.len_ns);
        let len = match packet.duration_ns {
            Some(ns) => i64::try_from(ns)
                .unwrap_or(FRAME_GUESS_MAX_NS)
                .min(FRAME_GUESS_MAX_NS),
            None => lane
                .last_ns
                .map_or(0, |last| (ts_ns - last).min(FRAME_GUESS_MAX_NS)),
        };
        lane.last_ns = Some(ts_ns);
        lane.end_ns = ts_ns + len;
        lane.is_new_in_take = false;
        self.end_ns = self.end_ns.max(lane.end_ns);
        Placed { ts_ns, fill }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const MS: i64 = NS_PER_MS;

    fn packet(ts_ms: i64, keyframe: bool, duration_ms: Option<u64>) -> Packet {
        Packet {
            track: 1,
            ts_ns: ts_ms * MS,
            composition_ns: 0,
            duration_ns: duration_ms.map(|ms| ms * 1_000_000),
            keyframe,
            block_flags: 0,
            payload: Bytes::new(),
            group: None,
        }
    }

    fn sound(ts_ms: i64) -> Packet {
        packet(ts_ms, true, Some(60))
    }

    fn opus(gaps: Gaps) -> Timeline {
        let mut timeline = Timeline::new(gaps, [LaneKind::Opus].into_iter());
        timeline.begin_take(Some(250));
        for ts in [0, 60, 120] {
            assert_eq!(place_ms(&mut timeline, ts), (ts, None));
        }
        timeline
    }

    /// Timestamp and filled stretch in ms.
    fn place_ms(timeline: &mut Timeline, ts_ms: i64) -> (i64, Option<(i64, i64)>) {
        let placed = timeline
            .place(0, &sound(ts_ms))
            .expect("sound is always placed");
        let fill = placed
            .fill
            .map(|fill| (fill.from_ns / MS, fill.len_ns / MS));
        (placed.ts_ns / MS, fill)
    }

    #[test]
    fn a_later_take_stands_at_its_wall_time_in_steps_of_twenty_ms() {
        let mut timeline = opus(Gaps::Fill);
        timeline.begin_take(Some(250 + 15_005));
        assert_eq!(place_ms(&mut timeline, 0), (15_000, Some((180, 14_820))));
        assert_eq!(place_ms(&mut timeline, 60), (15_060, None));
    }

    #[test]
    fn time_never_runs_backwards_when_a_take_arrives_early() {
        let mut timeline = opus(Gaps::Fill);
        timeline.begin_take(Some(100));
        assert_eq!(place_ms(&mut timeline, 6), (180, None));
    }

    #[test]
    fn closing_a_gap_moves_the_take_up_to_the_end() {
        let mut timeline = opus(Gaps::Close);
        timeline.begin_take(Some(60_000));
        assert_eq!(place_ms(&mut timeline, 0), (180, None));
        assert_eq!(timeline.media_ns(60_000), 180 * MS);
        assert_eq!(timeline.media_ns(30_000), 180 * MS);
        assert_eq!(timeline.media_ns(60_010), 190 * MS);
    }

    #[test]
    fn a_hole_inside_a_take_is_filled_and_jitter_is_not() {
        let mut timeline = opus(Gaps::Fill);
        assert_eq!(place_ms(&mut timeline, 189), (189, None));
        timeline.hole();
        assert_eq!(place_ms(&mut timeline, 1_000), (1_000, Some((249, 740))));
        assert_eq!(
            place_ms(&mut timeline, 3_060),
            (3_060, Some((1_060, 2_000)))
        );
    }

    #[test]
    fn a_hole_inside_a_take_is_closed_by_the_other_policy() {
        let mut timeline = opus(Gaps::Close);
        timeline.hole();
        assert_eq!(place_ms(&mut timeline, 5_000), (180, None));
        assert_eq!(place_ms(&mut timeline, 5_060), (240, None));
    }

    #[test]
    fn a_gap_beyond_the_cap_is_filled_up_to_it_and_closed_beyond() {
        let mut timeline = opus(Gaps::Fill);
        timeline.begin_take(Some(1_000_000_000));
        let cap = GAP_FILL_MAX_NS / MS;
        assert_eq!(place_ms(&mut timeline, 0), (180 + cap, Some((180, cap))));
    }

    #[test]
    fn silence_runs_out_however_wild_the_timestamps_are() {
        let mut timeline = opus(Gaps::Fill);
        let hour = 3_600_000;
        let filled: i64 = (1..100)
            .filter_map(|jump| place_ms(&mut timeline, jump * hour).1)
            .map(|(_, len_ms)| len_ms)
            .sum();
        let most = SILENCE_MAX_NS / MS;
        assert!(filled <= most && filled > most - hour, "{filled}");
        assert!(timeline.end_ns() < (most + hour) * MS);
    }

    #[test]
    fn a_clock_that_starts_over_goes_on_at_the_end() {
        let mut timeline = opus(Gaps::Fill);
        assert_eq!(place_ms(&mut timeline, 2_000).0, 2_000);
        assert_eq!(place_ms(&mut timeline, 0).0, 2_060);
    }

    #[test]
    fn a_take_that_begins_late_on_its_own_clock_begins_at_zero() {
        let mut timeline = Timeline::new(Gaps::Fill, [LaneKind::Opus].into_iter());
        timeline.begin_take(Some(0));
        assert_eq!(place_ms(&mut timeline, 3_600_000), (0, None));
    }

    #[test]
    fn picture_of_a_take_begins_at_its_first_keyframe() {
        let mut timeline = Timeline::new(Gaps::Fill, [LaneKind::Video].into_iter());
        timeline.begin_take(Some(0));
        assert_eq!(timeline.place(0, &packet(0, false, None)), None);
        assert!(timeline.place(0, &packet(40, true, None)).is_some());
        assert!(timeline.place(0, &packet(80, false, None)).is_some());
        assert_eq!(timeline.end_ns(), 120 * MS);
    }

    #[test]
    fn sound_that_cannot_be_made_up_closes_its_gaps() {
        let mut timeline = Timeline::new(Gaps::Fill, [LaneKind::Audio].into_iter());
        timeline.begin_take(Some(0));
        assert_eq!(place_ms(&mut timeline, 0), (0, None));
        timeline.begin_take(Some(30_000));
        assert_eq!(place_ms(&mut timeline, 0), (60, None));
    }

    #[test]
    fn moments_of_the_session_map_to_media_time() {
        let mut timeline = opus(Gaps::Fill);
        timeline.begin_take(Some(250 + 10_000));
        assert_eq!(place_ms(&mut timeline, 0).0, 10_000);
        assert_eq!(timeline.media_ns(0), 0);
        assert_eq!(timeline.media_ns(5_250), 5_000 * MS);
        assert_eq!(timeline.media_ns(10_260), 10_010 * MS);
        assert_eq!(timeline.media_ns(99_000), 10_060 * MS);
    }
}
