//! One file, cut into parts of one length.
//!
//! Owns where parts end. The first is held back: its header is only known at the end.

use super::stitch::Ending;
use crate::store::Crc64;
use aircheck_core::media::archive::Finished;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// A part after the first of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// From 2.
    pub(super) number: i32,
    pub(super) body: Bytes,
    pub(super) crc: Crc64,
}

/// The body of one file on its way into parts.
#[derive(Debug)]
pub(super) struct Cut {
    part_bytes: usize,
    /// Length of the body's share of part 1, bytes.
    first_bytes: usize,
    first: BytesMut,
    open: BytesMut,
    closed: VecDeque<Part>,
    next: i32,
}

impl Cut {
    /// Without any body. The header has `reserved_bytes`, and less than a part.
    pub(super) fn new(part_bytes: u64, reserved_bytes: u64) -> Self {
        let length = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            part_bytes: length(part_bytes),
            first_bytes: length(part_bytes.saturating_sub(reserved_bytes)),
            first: BytesMut::new(),
            open: BytesMut::new(),
            closed: VecDeque::new(),
            next: 2,
        }
    }

    /// Adds the next bytes of the body.
    pub(super) fn append(&mut self, mut body: Bytes) {
        let room = self.first_bytes - self.first.len();
        self.first
            .extend_from_slice(&body.split_to(room.min(body.len())));
        while !body.is_empty() {
            let room = self.part_bytes - self.open.len();
            self.open
                .extend_from_slice(&body.split_to(room.min(body.len())));
            if self.open.len() == self.part_bytes {
                self.close();
            }
        }
    }

    /// Whether part 1 is full, so that the file needs several.
    pub(super) fn is_first_full(&self) -> bool {
        self.first.len() == self.first_bytes
    }

    /// Part 1, or the whole file, behind this header.
    pub(super) fn first_after(&self, header: &[u8]) -> Bytes {
        let mut part = BytesMut::with_capacity(header.len() + self.first.len());
        part.extend_from_slice(header);
        part.extend_from_slice(&self.first);
        part.freeze()
    }

    /// The oldest closed part.
    pub(super) fn front(&self) -> Option<&Part> {
        self.closed.front()
    }

    /// Forgets the oldest closed part.
    pub(super) fn drop_front(&mut self) {
        self.closed.pop_front();
    }

    /// How many parts after the first were forgotten.
    pub(super) fn dropped(&self) -> u64 {
        u64::try_from(self.next - 2)
            .unwrap_or(0)
            .saturating_sub(self.closed.len() as u64)
    }

    /// Ends the file.
    pub(super) fn end(mut self, file: usize, finished: Finished) -> Ending {
        self.append(finished.tail.clone());
        if !self.open.is_empty() {
            self.close();
        }
        Ending {
            file,
            first: self.first_after(&finished.header),
            rest: self.closed,
            finished,
        }
    }

    fn close(&mut self) {
        let body = self.open.split().freeze();
        self.closed.push_back(Part {
            number: self.next,
            crc: Crc64::of(&body),
            body,
        });
        self.next += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(tail: &'static [u8]) -> Finished {
        Finished {
            header: Bytes::from_static(b"hd"),
            tail: Bytes::from_static(tail),
            total_bytes: 0,
            duration_ms: 0,
            content_type: "audio/webm",
            chapters: 0,
            stats: aircheck_core::media::archive::Stats::default(),
        }
    }

    #[test]
    fn however_a_body_arrives_all_parts_but_the_last_have_one_length() {
        let body = Bytes::from_static(b"abcdefghijklmnopqrstuvwxyz");
        for step in 1..=body.len() {
            let mut cut = Cut::new(5, 2);
            for piece in body.chunks(step) {
                cut.append(Bytes::copy_from_slice(piece));
            }
            let end = cut.end(0, finished(b"!"));
            assert_eq!(&end.first[..], b"hdabc");
            let parts: Vec<_> = end
                .rest
                .iter()
                .map(|part| (part.number, &part.body[..]))
                .collect();
            let expected: [(i32, &[u8]); 5] = [
                (2, b"defgh"),
                (3, b"ijklm"),
                (4, b"nopqr"),
                (5, b"stuvw"),
                (6, b"xyz!"),
            ];
            assert_eq!(parts, expected, "in pieces of {step}");
        }
    }

    #[test]
    fn a_file_below_one_part_has_no_others() {
        let mut cut = Cut::new(8, 2);
        cut.append(Bytes::from_static(b"abc"));
        assert!(!cut.is_first_full());
        let end = cut.end(0, finished(b"de"));
        assert_eq!((&end.first[..], end.rest.len()), (&b"hdabcde"[..], 0));
    }
}
