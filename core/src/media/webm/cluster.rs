//! A cluster while it is being filled. Collects blocks and writes them out with a known size; the
//! caller decides where one ends.

use super::{ids, write};
use crate::media::limits::NS_PER_MS;
use crate::media::packet::Packet;

/// Largest distance of a block from its cluster's timestamp, ms. Below `i16::MAX` for safety.
const RELATIVE_MAX_MS: i64 = 30_000;
/// Bytes of a cluster's head: ID, four-byte size, timestamp element of at most ten bytes.
const HEAD_MAX: usize = 18;
const FLAG_KEYFRAME: u8 = 0x80;

/// The open cluster.
#[derive(Debug)]
pub struct Cluster {
    start_ms: u64,
    blocks: Vec<u8>,
}

/// What is written into a block besides the packet.
#[derive(Debug, Clone, Copy)]
pub struct BlockAt {
    /// Track number in the output, below 127.
    pub track: u8,
    /// Timestamp in the output, ms.
    pub ts_ms: u64,
}

impl Cluster {
    /// An empty cluster that starts at `start_ms`.
    #[must_use]
    pub const fn open(start_ms: u64) -> Self {
        Self {
            start_ms,
            blocks: Vec::new(),
        }
    }

    /// Its timestamp, ms.
    #[must_use]
    pub const fn start_ms(&self) -> u64 {
        self.start_ms
    }

    /// Bytes of blocks so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether it has no block yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Whether a block at `ts_ms` can be expressed relative to this cluster.
    #[must_use]
    pub fn reaches(&self, ts_ms: u64) -> bool {
        self.relative(ts_ms).is_some()
    }

    fn relative(&self, ts_ms: u64) -> Option<i16> {
        let distance = i64::try_from(ts_ms).ok()? - i64::try_from(self.start_ms).ok()?;
        (-RELATIVE_MAX_MS..=RELATIVE_MAX_MS)
            .contains(&distance)
            .then(|| i16::try_from(distance).ok())
            .flatten()
    }

    /// Appends a packet; `false` (and nothing written) if the cluster does not
    /// [reach](Self::reaches) it.
    #[must_use]
    pub fn append(&mut self, at: BlockAt, packet: &Packet) -> bool {
        let Some(relative) = self.relative(at.ts_ms) else {
            return false;
        };
        let [high, low] = relative.to_be_bytes();
        let size = 4 + packet.payload.len() as u64;
        let track = 0x80 | at.track;
        let out = &mut self.blocks;
        if let Some(group) = &packet.group {
            let block_len = 1 + write::size_len(size) as u64 + size;
            write::id(out, ids::BLOCK_GROUP);
            write::size(out, block_len + group.len() as u64);
            write::id(out, ids::BLOCK);
            write::size(out, size);
            out.extend_from_slice(&[track, high, low, packet.block_flags]);
            out.extend_from_slice(&packet.payload);
            out.extend_from_slice(group);
        } else {
            let keyframe = if packet.keyframe { FLAG_KEYFRAME } else { 0 };
            write::id(out, ids::SIMPLE_BLOCK);
            write::size(out, size);
            out.extend_from_slice(&[track, high, low, packet.block_flags | keyframe]);
            out.extend_from_slice(&packet.payload);
        }
        true
    }

    /// Writes the cluster with its known size to `out` and leaves this one empty at the same time.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        out.reserve(HEAD_MAX + self.blocks.len());
        let mut timestamp = Vec::with_capacity(HEAD_MAX);
        write::uint(&mut timestamp, ids::TIMESTAMP, self.start_ms);
        write::id(out, ids::CLUSTER);
        write::size_fixed(out, (timestamp.len() + self.blocks.len()) as u64, 4);
        out.extend_from_slice(&timestamp);
        out.extend_from_slice(&self.blocks);
        self.blocks.clear();
    }
}

/// A timestamp on the output's clock in whole ms; negative ones are taken for zero.
#[must_use]
pub fn whole_ms(ns: i64) -> u64 {
    u64::try_from(ns / NS_PER_MS).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn packet(group: Option<Bytes>) -> Packet {
        Packet {
            track: 1,
            ts_ns: 0,
            composition_ns: 0,
            duration_ns: None,
            keyframe: true,
            block_flags: 0,
            payload: Bytes::from_static(&[9, 9]),
            group,
        }
    }

    #[test]
    fn a_closed_cluster_has_the_size_of_what_is_in_it() {
        let mut cluster = Cluster::open(1_000);
        assert!(cluster.append(
            BlockAt {
                track: 1,
                ts_ms: 1_060
            },
            &packet(None)
        ));
        let mut out = Vec::new();
        cluster.close(&mut out);
        let expected = [
            0x1F, 0x43, 0xB6, 0x75, 0x10, 0x00, 0x00, 0x0C, 0xE7, 0x82, 0x03, 0xE8, 0xA3, 0x86,
            0x81, 0x00, 0x3C, 0x80, 9, 9,
        ];
        assert_eq!(out, expected);
        assert!(cluster.is_empty());
    }

    #[test]
    fn a_block_group_keeps_what_came_with_the_block() {
        let mut cluster = Cluster::open(0);
        let rest = Bytes::from_static(&[0xFB, 0x81, 0x01]);
        assert!(cluster.append(BlockAt { track: 2, ts_ms: 5 }, &packet(Some(rest))));
        let expected = [
            0xA0, 0x8B, 0xA1, 0x86, 0x82, 0, 5, 0, 9, 9, 0xFB, 0x81, 0x01,
        ];
        assert_eq!(cluster.blocks, expected);
    }

    #[test]
    fn a_block_out_of_reach_is_not_written() {
        let mut cluster = Cluster::open(60_000);
        assert!(!cluster.append(
            BlockAt {
                track: 1,
                ts_ms: 95_000
            },
            &packet(None)
        ));
        assert!(!cluster.append(
            BlockAt {
                track: 1,
                ts_ms: 20_000
            },
            &packet(None)
        ));
        assert!(cluster.append(
            BlockAt {
                track: 1,
                ts_ms: 59_990
            },
            &packet(None)
        ));
        assert!(cluster.reaches(59_990) && !cluster.is_empty());
    }
}
