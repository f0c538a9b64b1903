//! Latencies of millions of chunks in a few kilobytes.
//!
//! Owns the buckets: exact below 64, within 1.6 % above. Must never lose the extremes.

use serde::Serialize;
use std::time::Duration;

/// Buckets for each power of two.
const SUB: usize = 64;
const SUB_BITS: u32 = SUB.ilog2();
const BUCKETS: usize = SUB * (u64::BITS - SUB_BITS + 1) as usize;

/// Durations, in microseconds.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

/// What people ask of a histogram, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: vec![0; BUCKETS],
            count: 0,
            max: 0,
        }
    }
}

impl Histogram {
    pub(crate) fn add(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(micros)] += 1;
        self.count += 1;
        self.max = self.max.max(micros);
    }

    /// `None` where nothing was added.
    pub(crate) fn quantiles(&self) -> Option<Quantiles> {
        (self.count > 0).then(|| Quantiles {
            p50_ms: self.at(500),
            p99_ms: self.at(990),
            p999_ms: self.at(999),
            max_ms: ms(self.max),
        })
    }

    /// The value that `permille` of all are not beyond.
    fn at(&self, permille: u64) -> f64 {
        let rank = (self.count * permille).div_ceil(1000).max(1);
        let mut seen = 0;
        let index = self.buckets.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        ms(index.map_or(self.max, |index| highest(index).min(self.max)))
    }
}

fn bucket(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(SUB_BITS + 1);
    let within = usize::try_from(value >> shift).expect("below 2 * SUB");
    shift as usize * SUB + within
}

/// The highest value that falls into a bucket.
fn highest(index: usize) -> u64 {
    let shift = (index / SUB).saturating_sub(1);
    let within = (index - shift * SUB) as u64;
    (within << shift) + ((1 << shift) - 1)
}

fn ms(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_falls_into_a_bucket_that_is_close_to_it() {
        for value in (0..5000).chain([1 << 20, (1 << 20) + 12_345, u64::MAX >> 1]) {
            let highest = highest(bucket(value));
            assert!(highest >= value, "{value}: {highest}");
            assert!(highest - value <= value / 60, "{value}: {highest}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantiles(), None);
        for ms in 1..=1000 {
            histogram.add(Duration::from_millis(ms));
        }
        let found = histogram.quantiles().expect("values");
        assert!((500.0..509.0).contains(&found.p50_ms), "{found:?}");
        assert!((990.0..1000.1).contains(&found.p99_ms), "{found:?}");
        assert!((found.max_ms - 1000.0).abs() < f64::EPSILON, "{found:?}");
    }
}
