//! The bytes of a take that have arrived but are not understood yet, and where in the take they
//! stand. It never interprets them.

use bytes::{Buf, Bytes, BytesMut};

/// A growing window on a take: appended at the end, consumed at the front.
#[derive(Debug, Default)]
pub(crate) struct Window {
    bytes: BytesMut,
    /// Offset in the take of the first pending byte.
    at: u64,
}

impl Window {
    /// Appends what arrived.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The pending bytes.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.bytes
    }

    /// Offset in the take of the first pending byte.
    pub(crate) const fn at(&self) -> u64 {
        self.at
    }

    /// Passes over `len` pending bytes (at most all of them).
    pub(crate) fn advance(&mut self, len: usize) {
        let len = len.min(self.bytes.len());
        self.bytes.advance(len);
        self.at += len as u64;
    }

    /// Takes `len` pending bytes out without copying (at most all of them).
    pub(crate) fn take(&mut self, len: usize) -> Bytes {
        let len = len.min(self.bytes.len());
        self.at += len as u64;
        self.bytes.split_to(len).freeze()
    }

    /// Drops everything pending and moves on over `hole` bytes that never arrived.
    pub(crate) fn jump(&mut self, hole: u64) {
        self.advance(self.bytes.len());
        self.at = self.at.saturating_add(hole);
    }
}
