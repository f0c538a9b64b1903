//! CRC-64/NVME of archive bytes: the one checksum every store of note can keep for a whole object.
//!
//! Owns its arithmetic and its spelling; must never decide what a difference means.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use crc_fast::CrcAlgorithm::Crc64Nvme;

/// A CRC-64/NVME. Linear: that of two runs of bytes follows from those of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Crc64(u64);

impl Crc64 {
    /// Of no bytes at all.
    pub(crate) const EMPTY: Self = Self(0);

    /// Of these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(crc_fast::checksum(Crc64Nvme, bytes))
    }

    /// Of the bytes of `self` followed by `next_bytes` more whose own checksum is `next`.
    pub(crate) fn then(self, next: Self, next_bytes: u64) -> Self {
        Self(crc_fast::checksum_combine(
            Crc64Nvme, self.0, next.0, next_bytes,
        ))
    }

    /// As S3 writes it: base64 of the big-endian bytes.
    pub(crate) fn to_base64(self) -> String {
        STANDARD.encode(self.0.to_be_bytes())
    }

    /// Reads what [`Self::to_base64`] writes. Composite checksums, which are no checksums of the
    /// object's bytes, end in `-N` and read as `None`.
    pub(crate) fn from_base64(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text).ok()?;
        Some(Self(u64::from_be_bytes(bytes.try_into().ok()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_the_standard_check_string_is_the_published_one() {
        assert_eq!(Crc64::of(b"123456789"), Crc64(0xae8b_1486_0a79_9888));
        assert_eq!(Crc64::of(b"123456789").to_base64(), "rosUhgp5mIg=");
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let (head, tail) = (b"a live show ".as_slice(), b"is never lost".as_slice());
        let whole = Crc64::EMPTY
            .then(Crc64::of(head), head.len() as u64)
            .then(Crc64::of(tail), tail.len() as u64);
        assert_eq!(whole, Crc64::of(b"a live show is never lost"));
    }

    #[test]
    fn only_a_checksum_of_the_whole_object_reads_back() {
        let crc = Crc64::of(b"x");
        assert_eq!(Crc64::from_base64(&crc.to_base64()), Some(crc));
        assert_eq!(Crc64::from_base64("rosUhgp5mIg=-3"), None);
        assert_eq!(Crc64::from_base64("AAAA"), None);
    }
}
