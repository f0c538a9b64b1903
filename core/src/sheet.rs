//! The sheet of a rehearsal: what was measured of a broadcaster's way to the archive, and what that
//! is worth on air.
//!
//! Owns names, thresholds and the verdict. Must never measure anything itself.

use crate::recording::Status;
use serde::{Deserialize, Serialize};

/// From here on a round trip is worth a remark, in milliseconds.
const ROUND_TRIP_FAIR_MS: f64 = 300.0;
const ROUND_TRIP_BAD_MS: f64 = 1500.0;
/// From here on an acknowledgement is worth a remark, in milliseconds. The server itself holds them
/// back by up to a quarter of a second.
const ACK_FAIR_MS: f64 = 1500.0;
const ACK_BAD_MS: f64 = 5000.0;
/// Below, nobody hears a thing, in dBFS.
const SILENT_DBFS: f64 = -60.0;
const QUIET_DBFS: f64 = -40.0;
/// From here on peaks are cut off, in dBFS.
const CLIPPED_DBFS: f64 = -0.1;

/// Typical and worst times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// Median, in microseconds.
    pub p50_us: u64,
    /// 99th percentile, in microseconds.
    pub p99_us: u64,
}

impl Times {
    /// Of these, in microseconds; `None` where there are none.
    #[must_use]
    pub fn of(mut all_us: Vec<u64>) -> Option<Self> {
        all_us.sort_unstable();
        let at = |percent: usize| {
            let rank = (all_us.len() * percent).div_ceil(100);
            all_us.get(rank.saturating_sub(1)).copied()
        };
        Some(Self {
            p50_us: at(50)?,
            p99_us: at(99)?,
        })
    }
}

/// The broadcaster's connection, as the gateway saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// From a ping to its answer.
    pub round_trip: Option<Times>,
    /// From a chunk's arrival to its acknowledgement.
    pub ack: Option<Times>,
}

/// How loud it was.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Level {
    /// Root mean square, in dBFS.
    pub rms_dbfs: f64,
    /// Highest sample, in dBFS.
    pub peak_dbfs: f64,
}

/// What a rehearsal is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Go on air.
    Good,
    /// Go on air, and know what it may cost.
    Fair,
    /// Mend it first.
    Bad,
}

/// Typical and worst times as clients see them, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
}

impl From<Times> for Span {
    fn from(times: Times) -> Self {
        let ms = |us: u64| us as f64 / 1000.0;
        Self {
            p50: ms(times.p50_us),
            p99: ms(times.p99_us),
        }
    }
}

/// All that is known when a rehearsal is over.
#[derive(Clone, Copy, Debug)]
pub struct Findings<'a> {
    /// Of the connection that said stop.
    pub link: Link,
    /// Bytes that never came.
    pub lost_bytes: u64,
    /// Holes, of known length or not.
    pub gaps: usize,
    /// Connections after the first.
    pub reconnects: u64,
    /// `None`: not measured.
    pub level: Option<Level>,
    /// How the recording ended.
    pub status: Status,
    /// What is wrong with it.
    pub error: Option<&'a str>,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sheet {
    /// From a ping to its answer.
    pub round_trip_ms: Option<Span>,
    /// From a chunk's arrival to its acknowledgement.
    pub ack_ms: Option<Span>,
    /// Bytes that never came.
    pub lost_bytes: u64,
    /// Connections after the first.
    pub reconnects: u64,
    /// `None`: not measured.
    pub level: Option<Level>,
    /// The worst that any reason says.
    pub verdict: Verdict,
    /// Why it is not `good`, for people.
    pub reasons: Vec<String>,
}

impl Sheet {
    /// Judges.
    #[must_use]
    pub fn of(found: Findings<'_>) -> Self {
        let Link { round_trip, ack } = found.link;
        let (round_trip_ms, ack_ms) = (round_trip.map(Span::from), ack.map(Span::from));
        let mut sheet = Self {
            round_trip_ms,
            ack_ms,
            lost_bytes: found.lost_bytes,
            reconnects: found.reconnects,
            level: found.level,
            verdict: Verdict::Good,
            reasons: Vec::new(),
        };
        if found.status != Status::Archived {
            let why = found.error.unwrap_or("the recording failed");
            sheet.remark(Verdict::Bad, why.to_owned());
        }
        if found.gaps > 0 {
            let lost = format!("{} gaps, {} bytes were lost", found.gaps, found.lost_bytes);
            sheet.remark(Verdict::Bad, lost);
        }
        if found.reconnects > 0 {
            let drops = format!("the connection was lost {} times", found.reconnects);
            sheet.remark(Verdict::Fair, drops);
        }
        sheet.time(
            "round trips take",
            round_trip_ms,
            ROUND_TRIP_FAIR_MS,
            ROUND_TRIP_BAD_MS,
        );
        sheet.time("acknowledgements take", ack_ms, ACK_FAIR_MS, ACK_BAD_MS);
        sheet.loudness(found.level);
        sheet
    }

    fn remark(&mut self, verdict: Verdict, why: String) {
        self.verdict = self.verdict.max(verdict);
        self.reasons.push(why);
    }

    fn time(&mut self, what: &str, span: Option<Span>, fair_ms: f64, bad_ms: f64) {
        let Some(Span { p99, .. }) = span.filter(|span| span.p99 >= fair_ms) else {
            return;
        };
        let verdict = if p99 >= bad_ms {
            Verdict::Bad
        } else {
            Verdict::Fair
        };
        self.remark(verdict, format!("{what} up to {p99:.0} ms"));
    }

    fn loudness(&mut self, level: Option<Level>) {
        let Some(Level {
            rms_dbfs,
            peak_dbfs,
        }) = level
        else {
            return self.remark(Verdict::Fair, "the level was not measured".to_owned());
        };
        if rms_dbfs < SILENT_DBFS {
            self.remark(Verdict::Bad, format!("silence: {rms_dbfs:.1} dBFS"));
        } else if rms_dbfs < QUIET_DBFS {
            self.remark(Verdict::Fair, format!("very quiet: {rms_dbfs:.1} dBFS"));
        }
        if peak_dbfs >= CLIPPED_DBFS {
            self.remark(Verdict::Fair, format!("peaks clip: {peak_dbfs:.1} dBFS"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fine() -> Findings<'static> {
        let times = |p50_us, p99_us| Some(Times { p50_us, p99_us });
        Findings {
            link: Link {
                round_trip: times(20_000, 40_000),
                ack: times(100_000, 260_000),
            },
            lost_bytes: 0,
            gaps: 0,
            reconnects: 0,
            level: Some(Level {
                rms_dbfs: -18.0,
                peak_dbfs: -3.0,
            }),
            status: Status::Archived,
            error: None,
        }
    }

    fn level(rms_dbfs: f64, peak_dbfs: f64) -> Findings<'static> {
        let level = Some(Level {
            rms_dbfs,
            peak_dbfs,
        });
        Findings { level, ..fine() }
    }

    #[test]
    fn a_verdict_is_the_worst_of_its_reasons() {
        let good = Sheet::of(fine());
        assert_eq!((good.verdict, good.reasons.len()), (Verdict::Good, 0));
        let slow = Times {
            p50_us: 400_000,
            p99_us: 400_000,
        };
        let link = Link {
            round_trip: Some(slow),
            ..fine().link
        };
        for (found, verdict) in [
            (level(-70.0, -50.0), Verdict::Bad),
            (level(-50.0, -30.0), Verdict::Fair),
            (level(-12.0, 0.0), Verdict::Fair),
            (
                Findings {
                    level: None,
                    ..fine()
                },
                Verdict::Fair,
            ),
            (
                Findings {
                    reconnects: 2,
                    ..fine()
                },
                Verdict::Fair,
            ),
            (Findings { link, ..fine() }, Verdict::Fair),
            (
                Findings {
                    gaps: 1,
                    reconnects: 1,
                    ..fine()
                },
                Verdict::Bad,
            ),
            (
                Findings {
                    status: Status::Failed,
                    ..fine()
                },
                Verdict::Bad,
            ),
        ] {
            let sheet = Sheet::of(found);
            assert_eq!(sheet.verdict, verdict, "{sheet:?}");
            assert!(!sheet.reasons.is_empty(), "{sheet:?}");
        }
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        assert_eq!(Times::of(Vec::new()), None);
        let times = Times::of((1..=200).rev().collect());
        let expected = Times {
            p50_us: 100,
            p99_us: 198,
        };
        assert_eq!(times, Some(expected));
    }
}
