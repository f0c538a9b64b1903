//! The bytes of a take that may have to be sent again.
//!
//! Owns what is kept and what may be forgotten. Must never forget a byte that is not durable.

use bytes::Bytes;
use std::collections::VecDeque;

/// Most bytes kept that are durable but not archived, so that a show survives the loss of the
/// ingest's disk, too.
const KEEP_MAX: u64 = 8 << 20;
/// Most bytes kept that are not durable. A browser has no such limit; whoever reads a file can wait.
const PENDING_MAX: u64 = 64 << 20;

/// Bytes of one take, from the first that can still be sent.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    /// With the offset of each one's first byte; without holes.
    pieces: VecDeque<(u64, Bytes)>,
    next: u64,
    durable: u64,
}

impl Buffer {
    /// Adds recorded bytes.
    pub(super) fn push(&mut self, data: Bytes) {
        if !data.is_empty() {
            let at = self.next;
            self.next += data.len() as u64;
            self.pieces.push_back((at, data));
        }
    }

    /// Lowest offset that can still be sent.
    pub(super) fn first(&self) -> u64 {
        self.pieces.front().map_or(self.next, |(at, _)| *at)
    }

    /// Bytes recorded so far.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Below this, everything is on the ingest's disk.
    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    /// Whether more may be recorded before something is acknowledged.
    pub(super) fn has_room(&self) -> bool {
        self.next - self.durable < PENDING_MAX
    }

    /// Takes note of an ack. Acks come in any order after a reconnect; none takes back another one.
    pub(super) fn confirm(&mut self, durable: u64, archived: u64) {
        self.durable = self.durable.max(durable.min(self.next));
        while let Some((at, data)) = self.pieces.front() {
            let end = at + data.len() as u64;
            let spare = end <= archived || self.next - at > KEEP_MAX;
            if end > self.durable || !spare {
                break;
            }
            self.pieces.pop_front();
        }
    }

    /// The bytes at `offset`, at most `max`; `None` if there are none (yet, or any more).
    pub(super) fn at(&self, offset: u64, max: usize) -> Option<Bytes> {
        let index = self
            .pieces
            .partition_point(|(at, _)| *at <= offset)
            .checked_sub(1)?;
        let (at, data) = self.pieces.get(index)?;
        let skip = usize::try_from(offset - at)
            .ok()
            .filter(|skip| *skip < data.len())?;
        Some(data.slice(skip..data.len().min(skip.saturating_add(max))))
    }

    /// Makes a new take of `header` and all that is not durable.
    pub(super) fn restart(&mut self, header: Bytes) {
        let mut fresh = Self::default();
        fresh.push(header);
        for (at, data) in self.pieces.drain(..) {
            let done = self.durable.saturating_sub(at).min(data.len() as u64);
            let done = usize::try_from(done).unwrap_or(data.len());
            fresh.push(data.slice(done..));
        }
        *self = fresh;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(pieces: &[&'static str]) -> Buffer {
        let mut buffer = Buffer::default();
        for piece in pieces {
            buffer.push(Bytes::from_static(piece.as_bytes()));
        }
        buffer
    }

    fn rest(buffer: &Buffer, mut offset: u64) -> String {
        let mut all = Vec::new();
        while let Some(data) = buffer.at(offset, 2) {
            offset += data.len() as u64;
            all.extend_from_slice(&data);
        }
        String::from_utf8(all).expect("ascii")
    }

    #[test]
    fn any_kept_byte_can_be_sent_again_in_frames_of_any_size() {
        let buffer = filled(&["abc", "", "defgh"]);
        for offset in 0..=8u64 {
            let expected = &"abcdefgh"[usize::try_from(offset).expect("small")..];
            assert_eq!(rest(&buffer, offset), expected);
        }
        assert_eq!(buffer.at(8, 10), None);
        assert_eq!(buffer.at(99, 10), None);
        assert_eq!(buffer.at(0, 100).as_deref(), Some(b"abc".as_slice()));
    }

    #[test]
    fn only_what_is_archived_is_forgotten_while_little_is_kept() {
        let mut buffer = filled(&["abc", "def", "ghi"]);
        buffer.confirm(9, 0);
        assert_eq!((buffer.first(), buffer.durable(), buffer.next()), (0, 9, 9));
        buffer.confirm(9, 5);
        assert_eq!(buffer.first(), 3, "whole pieces only");
        buffer.confirm(9, 9);
        assert_eq!((buffer.first(), buffer.next()), (9, 9));
    }

    #[test]
    fn much_that_is_durable_is_forgotten_but_nothing_that_is_not() {
        let mut buffer = Buffer::default();
        for _ in 0..20 {
            buffer.push(Bytes::from(vec![0; 1 << 20]));
        }
        buffer.confirm(0, 0);
        assert_eq!(buffer.first(), 0);
        buffer.confirm(5 << 20, 0);
        assert_eq!(buffer.first(), 5 << 20);
        buffer.confirm(20 << 20, 0);
        assert_eq!(buffer.next() - buffer.first(), KEEP_MAX);
    }

    #[test]
    fn an_old_or_wild_ack_changes_nothing() {
        let mut buffer = filled(&["abc", "def"]);
        buffer.confirm(3, 3);
        buffer.confirm(0, 0);
        assert_eq!((buffer.first(), buffer.durable()), (3, 3));
        buffer.confirm(1000, 0);
        assert_eq!(buffer.durable(), 6);
    }

    #[test]
    fn there_is_room_until_too_much_waits_for_an_ack() {
        let mut buffer = Buffer::default();
        while buffer.has_room() {
            buffer.push(Bytes::from(vec![0; 1 << 20]));
        }
        assert_eq!(buffer.next(), PENDING_MAX);
        buffer.confirm(1, 0);
        assert!(buffer.has_room());
    }

    #[test]
    fn a_new_take_has_the_header_and_exactly_what_was_not_durable() {
        let mut buffer = filled(&["HDRab", "cde", "fg"]);
        buffer.confirm(6, 0);
        buffer.restart(Bytes::from_static(b"HDR"));
        assert_eq!(rest(&buffer, 0), "HDRdefg");
        assert_eq!((buffer.first(), buffer.durable(), buffer.next()), (0, 0, 7));
    }
}
