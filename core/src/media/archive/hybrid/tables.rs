//! The sample tables of one track while the file grows: run lengths where they help, four bytes a
//! sample for the sizes. Knows no bytes of media.

use mp4_atom::{
    Co64, Ctts, CttsEntry, Stbl, Stsc, StscEntry, Stsd, Stss, Stsz, StszSamples, Stts, SttsEntry,
};

/// Most samples of one track: 99 hours of AAC, 33 MB of sizes.
const SAMPLES_MAX: usize = 1 << 23;

/// A sample that was written into a fragment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Decode time, ticks.
    pub(super) decode: u64,
    /// Own length, ticks.
    pub(super) duration: u32,
    /// How much later it is shown, ticks.
    pub(super) composition: i32,
    /// Length, bytes.
    pub(super) size: u32,
    pub(super) is_sync: bool,
}

/// The tables of a track.
#[derive(Debug, Default)]
pub(super) struct Tables {
    durations: Vec<SttsEntry>,
    compositions: Vec<CttsEntry>,
    sizes: Vec<u32>,
    /// Numbers of the samples that decoding can start at.
    syncs: Vec<u32>,
    chunks: Vec<u64>,
    runs: Vec<StscEntry>,
    first: Option<u64>,
    last: Option<Sample>,
}

impl Tables {
    /// Whether there is no room for another fragment.
    pub(super) const fn is_full(&self) -> bool {
        self.sizes.len() >= SAMPLES_MAX
    }

    /// Number of samples.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.sizes.len()).unwrap_or(u32::MAX)
    }

    /// Decode time of the first sample, ticks: the sample tables themselves begin at zero.
    pub(super) fn start(&self) -> u64 {
        self.first.unwrap_or(0)
    }

    /// Length of the track, its start included, ticks.
    pub(super) fn duration(&self) -> u64 {
        self.last
            .map_or(0, |last| last.decode + u64::from(last.duration))
    }

    /// Adds samples that stand together at `position` in the file.
    pub(super) fn chunk(&mut self, position: u64, samples: &[Sample]) {
        self.chunks.push(position);
        let chunk = u32::try_from(self.chunks.len()).unwrap_or(u32::MAX);
        let count = u32::try_from(samples.len()).unwrap_or(u32::MAX);
        if self
            .runs
            .last()
            .is_none_or(|run| run.samples_per_chunk != count)
        {
            self.runs.push(StscEntry {
                first_chunk: chunk,
                samples_per_chunk: count,
                sample_description_index: 1,
            });
        }
        for sample in samples {
            self.sample(*sample);
        }
    }

    fn sample(&mut self, sample: Sample) {
        self.first.get_or_insert(sample.decode);
        // A sample lasts until the next one.
        let since = self.last.map_or(0, |last| last.decode);
        let delta = u32::try_from(sample.decode.saturating_sub(since)).unwrap_or(u32::MAX);
        if self.last.is_some() {
            self.duration_run(delta);
        }
        let offset = i64::from(sample.composition);
        match self.compositions.last_mut() {
            Some(run) if run.sample_offset == offset => run.sample_count += 1,
            Some(_) | None => {
                self.compositions.push(CttsEntry {
                    sample_count: 1,
                    sample_offset: offset,
                });
            }
        }
        self.sizes.push(sample.size);
        if sample.is_sync {
            self.syncs.push(self.count());
        }
        self.last = Some(sample);
    }

    fn duration_run(&mut self, delta: u32) {
        match self.durations.last_mut() {
            Some(run) if run.sample_delta == delta => run.sample_count += 1,
            Some(_) | None => {
                self.durations.push(SttsEntry {
                    sample_count: 1,
                    sample_delta: delta,
                });
            }
        }
    }

    /// The finished sample table.
    pub(super) fn into_stbl(mut self, stsd: Stsd) -> Stbl {
        if let Some(last) = self.last {
            self.duration_run(last.duration);
        }
        let all_sync = self.syncs.len() == self.sizes.len();
        let reorders = self.compositions.iter().any(|run| run.sample_offset != 0);
        Stbl {
            stsd,
            stts: Stts {
                entries: self.durations,
            },
            ctts: reorders.then_some(Ctts {
                entries: self.compositions,
            }),
            stss: (!all_sync).then_some(Stss {
                entries: self.syncs,
            }),
            stsc: Stsc { entries: self.runs },
            stsz: Stsz {
                samples: StszSamples::Different { sizes: self.sizes },
            },
            co64: Some(Co64 {
                entries: self.chunks,
            }),
            ..Stbl::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(decode: u64, is_sync: bool) -> Sample {
        Sample {
            decode,
            duration: 1_024,
            composition: 0,
            size: 300,
            is_sync,
        }
    }

    #[test]
    fn a_sample_lasts_until_the_next_one_even_over_a_gap() {
        let mut tables = Tables::default();
        tables.chunk(1_000, &[sample(0, true), sample(1_024, true)]);
        tables.chunk(5_000, &[sample(10_000, true)]);
        assert_eq!((tables.count(), tables.duration()), (3, 11_024));
        let stbl = tables.into_stbl(Stsd::default());
        let deltas: Vec<_> = stbl
            .stts
            .entries
            .iter()
            .map(|run| (run.sample_count, run.sample_delta))
            .collect();
        assert_eq!(deltas, [(1, 1_024), (1, 8_976), (1, 1_024)]);
        assert_eq!(stbl.co64.map(|co64| co64.entries), Some(vec![1_000, 5_000]));
        assert_eq!((stbl.stss, stbl.ctts), (None, None));
    }

    #[test]
    fn only_keyframes_are_sync_samples() {
        let mut tables = Tables::default();
        tables.chunk(0, &[sample(0, true), sample(1, false), sample(2, true)]);
        let stbl = tables.into_stbl(Stsd::default());
        assert_eq!(stbl.stss.map(|stss| stss.entries), Some(vec![1, 3]));
        assert_eq!(stbl.stsc.entries.len(), 1);
    }
}
