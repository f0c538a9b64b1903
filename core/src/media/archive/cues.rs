//! The index of the archive while it grows: twelve bytes a cue, and never more than a fixed number
//! of cues. Knows times and positions, not bytes of the file.

use crate::media::webm::{ids, write};

/// Most cues kept; then every second one is dropped. 196 kB at most.
const CUES_MAX: usize = 16_384;

/// Times and cluster positions, in order.
#[derive(Debug, Default)]
pub(super) struct CueIndex {
    /// Timestamps of the clusters, ms.
    times_ms: Vec<u32>,
    /// Positions of the clusters from the start of the body, bytes.
    positions: Vec<u64>,
    /// One of this many (as a power of two) is kept.
    stride_log2: u32,
    offered: u64,
}

impl CueIndex {
    /// Offers the cluster at `position` bytes into the body.
    pub(super) fn offer(&mut self, time_ms: u64, position: u64) {
        let is_kept = self.offered.trailing_zeros() >= self.stride_log2;
        self.offered += 1;
        let Ok(time_ms) = u32::try_from(time_ms) else {
            return;
        };
        if !is_kept {
            return;
        }
        if self.times_ms.len() == CUES_MAX {
            self.thin_out();
            // The offer is a multiple of the old stride; it stays only if one of the new.
            if (self.offered - 1).trailing_zeros() < self.stride_log2 {
                return;
            }
        }
        self.times_ms.push(time_ms);
        self.positions.push(position);
    }

    /// Number of cues kept.
    pub(super) fn len(&self) -> usize {
        self.times_ms.len()
    }

    fn thin_out(&mut self) {
        let mut index = 0;
        self.times_ms.retain(|_| {
            index += 1;
            index % 2 == 1
        });
        index = 0;
        self.positions.retain(|_| {
            index += 1;
            index % 2 == 1
        });
        self.stride_log2 += 1;
    }

    /// The `Cues` element for `track` of at most `room` bytes, with as many cues as fit, evenly
    /// spread; `None` if not even one does. `body_at` is the body's distance from the segment's
    /// first byte.
    pub(super) fn element(&self, track: u8, body_at: u64, room: usize) -> Option<Encoded> {
        let mut every = 1;
        while every <= self.len() {
            let bytes = self.encode(track, body_at, every);
            if bytes.len() <= room {
                return Some(Encoded { bytes, every });
            }
            every = (every * bytes.len()).div_ceil(room.max(1)).max(every + 1);
        }
        None
    }

    fn encode(&self, track: u8, body_at: u64, every: usize) -> Vec<u8> {
        let mut points = Vec::with_capacity(self.len() / every * 20);
        let cues = self.times_ms.iter().zip(&self.positions).step_by(every);
        for (time_ms, position) in cues {
            write::master(&mut points, ids::CUE_POINT, |point| {
                write::uint(point, ids::CUE_TIME, u64::from(*time_ms));
                write::master(point, ids::CUE_TRACK_POSITIONS, |at| {
                    write::uint(at, ids::CUE_TRACK, u64::from(track));
                    write::uint(at, ids::CUE_CLUSTER_POSITION, body_at + position);
                });
            });
        }
        let mut out = Vec::with_capacity(points.len() + 12);
        write::binary(&mut out, ids::CUES, &points);
        out
    }
}

/// An encoded index.
#[derive(Debug)]
pub(super) struct Encoded {
    /// The `Cues` element.
    pub(super) bytes: Vec<u8>,
    /// One of so many known cues is in it.
    pub(super) every: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(cues: u64) -> CueIndex {
        let mut index = CueIndex::default();
        for cue in 0..cues {
            index.offer(cue * 5_000, cue * 80_000);
        }
        index
    }

    #[test]
    fn every_cue_is_written_while_there_is_room() {
        let index = index(2_143);
        let encoded = index.element(1, 65_488, 60_000).expect("three hours fit");
        assert_eq!(encoded.every, 1);
    }

    #[test]
    fn without_room_for_all_every_kth_is_written() {
        let index = index(10_000);
        let encoded = index.element(1, 65_488, 60_000).expect("some fit");
        assert!(encoded.every > 1 && encoded.bytes.len() <= 60_000);
        assert!(encoded.bytes.len() > 30_000, "room for more was left");
        assert!(index.element(1, 65_488, 8).is_none());
    }

    #[test]
    fn the_index_stays_bounded_and_evenly_spread() {
        let index = index(200_000);
        assert!(index.len() <= CUES_MAX && index.len() > CUES_MAX / 4);
        let step = index.times_ms[1] - index.times_ms[0];
        assert!(
            index
                .times_ms
                .windows(2)
                .all(|pair| pair[1] - pair[0] == step)
        );
        assert_eq!(
            index.positions[3],
            u64::from(index.times_ms[3]) / 5_000 * 80_000
        );
    }
}
