//! What the broadcasters of a run have seen so far.
//!
//! Owns the counts; shared by all of them, held for an addition only.

use super::histogram::Histogram;
use aircheck_core::recording::{Recording, Status};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Different reasons that are remembered.
const REASONS_MAX: usize = 20;

/// Everything that is counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Broadcasters that went live.
    pub(crate) live: u32,
    /// Those that did not.
    pub(crate) refused: u32,
    /// Those that lost their connection or got no answer.
    pub(crate) lost: u32,
    pub(crate) sent_bytes: u64,
    pub(crate) durable_bytes: u64,
    /// From when a chunk was due to its acknowledgement.
    pub(crate) acks: Histogram,
    /// From stop to the final recording.
    pub(crate) archives: Histogram,
    pub(crate) recordings: Vec<Recording>,
    /// Why broadcasters were refused or lost, with how many.
    pub(crate) reasons: BTreeMap<String, u32>,
}

impl Counts {
    /// Recordings that hold the whole show.
    pub(crate) fn complete(&self, bytes: u64, plays_ms: u64) -> u32 {
        let whole = |recording: &&Recording| {
            recording.status == Status::Archived
                && recording.gaps.is_empty()
                && recording.duration_ms == Some(plays_ms)
                // Clusters get sizes and cues: the payload is the same, the frame around it is not.
                && recording.bytes > bytes / 2
        };
        u32::try_from(self.recordings.iter().filter(whole).count()).unwrap_or(u32::MAX)
    }

    /// Broadcasters that are through, in whatever way.
    pub(crate) fn ended(&self) -> u32 {
        let ended = u32::try_from(self.recordings.len()).unwrap_or(u32::MAX);
        ended + self.refused + self.lost
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Figures(Mutex<Counts>);

impl Figures {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of it, as it is now.
    pub(crate) fn now(&self) -> Counts {
        self.counts().clone()
    }

    /// One of the counts, without a copy of the rest.
    pub(crate) fn read<T>(&self, of: impl FnOnce(&Counts) -> T) -> T {
        of(&self.counts())
    }

    pub(super) fn live(&self) {
        self.counts().live += 1;
    }

    pub(super) fn refused(&self, why: String) {
        let mut counts = self.counts();
        counts.refused += 1;
        remember(&mut counts, why);
    }

    pub(super) fn lost(&self, why: String) {
        let mut counts = self.counts();
        counts.lost += 1;
        remember(&mut counts, why);
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.counts().sent_bytes += bytes;
    }

    pub(super) fn durable(&self, bytes: u64, latencies: impl IntoIterator<Item = Duration>) {
        let mut counts = self.counts();
        counts.durable_bytes += bytes;
        for latency in latencies {
            counts.acks.add(latency);
        }
    }

    pub(super) fn ended(&self, recording: Recording, after: Duration) {
        let mut counts = self.counts();
        counts.archives.add(after);
        counts.recordings.push(recording);
    }
}

fn remember(counts: &mut Counts, why: String) {
    if counts.reasons.len() < REASONS_MAX || counts.reasons.contains_key(&why) {
        *counts.reasons.entry(why).or_default() += 1;
    }
}
