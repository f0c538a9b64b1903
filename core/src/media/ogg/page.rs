//! One Ogg page: finding it, checking its checksum, cutting it into packet pieces. Holds no state
//! from one page to the next.

use bytes::Bytes;

pub(super) const MAGIC: [u8; 4] = *b"OggS";
const HEAD_LEN: usize = 27;
const CHECKSUM_AT: usize = 22;
const FLAG_CONTINUED: u8 = 0x01;
const FLAG_FIRST: u8 = 0x02;

/// What stands at the front of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// More bytes are needed.
    Short,
    /// No sound page starts here.
    No,
    /// A page of so many bytes.
    Page { len: usize },
}

/// Looks for a page at the very front; its checksum must be right.
pub(super) fn find(bytes: &[u8]) -> Found {
    let known = bytes.len().min(MAGIC.len());
    if bytes[..known] != MAGIC[..known] || bytes.get(4).is_some_and(|version| *version != 0) {
        return Found::No;
    }
    let Some(segments) = bytes.get(HEAD_LEN - 1) else {
        return Found::Short;
    };
    let table_end = HEAD_LEN + usize::from(*segments);
    let Some(table) = bytes.get(HEAD_LEN..table_end) else {
        return Found::Short;
    };
    let len = table_end + table.iter().map(|lace| usize::from(*lace)).sum::<usize>();
    match bytes.get(..len) {
        Some(page) if checksum_is_right(page) => Found::Page { len },
        Some(_) => Found::No,
        None => Found::Short,
    }
}

/// A page whose checksum was right.
#[derive(Debug, Clone)]
pub(super) struct Page {
    bytes: Bytes,
}

/// A piece of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    /// Whether the packet ends with it.
    pub(super) is_last: bool,
}

impl Page {
    /// Wraps the bytes of a page that [`find`] found.
    pub(super) const fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    /// Whether its first piece continues a packet of the page before.
    pub(super) fn is_continued(&self) -> bool {
        self.bytes[5] & FLAG_CONTINUED != 0
    }

    /// Whether a logical stream begins here.
    pub(super) fn is_first(&self) -> bool {
        self.bytes[5] & FLAG_FIRST != 0
    }

    /// End of the last packet that ends here, samples; `None` if none does.
    pub(super) fn granule(&self) -> Option<i64> {
        let mut digits = [0; 8];
        digits.copy_from_slice(&self.bytes[6..14]);
        let granule = i64::from_le_bytes(digits);
        (granule >= 0).then_some(granule)
    }

    /// Number of the logical stream.
    pub(super) fn serial(&self) -> u32 {
        self.number(14)
    }

    /// Number of the page in its logical stream.
    pub(super) fn sequence(&self) -> u32 {
        self.number(18)
    }

    fn number(&self, at: usize) -> u32 {
        let mut digits = [0; 4];
        digits.copy_from_slice(&self.bytes[at..at + 4]);
        u32::from_le_bytes(digits)
    }

    /// The pieces of packets in it.
    pub(super) fn pieces(&self) -> Vec<Piece> {
        let table_end = HEAD_LEN + usize::from(self.bytes[HEAD_LEN - 1]);
        let (mut from, mut to) = (table_end, table_end);
        let mut pieces = Vec::new();
        for lace in &self.bytes[HEAD_LEN..table_end] {
            to += usize::from(*lace);
            if *lace < u8::MAX {
                pieces.push(Piece {
                    bytes: self.bytes.slice(from..to),
                    is_last: true,
                });
                from = to;
            }
        }
        let ends_open = self.bytes[HEAD_LEN..table_end].last() == Some(&u8::MAX);
        if ends_open {
            pieces.push(Piece {
                bytes: self.bytes.slice(from..to),
                is_last: false,
            });
        }
        pieces
    }
}

fn checksum_is_right(page: &[u8]) -> bool {
    let (head, rest) = page.split_at(CHECKSUM_AT);
    let (stored, payload) = rest.split_at(4);
    let computed = update(update(update(0, head), &[0; 4]), payload);
    computed.to_le_bytes() == *stored
}

/// Ogg's own CRC-32: polynomial 04C11DB7, most significant bit first, no inversion.
fn update(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, byte| {
        let [high, ..] = crc.to_be_bytes();
        crc << 8 ^ CRC_TABLE[usize::from(high ^ byte)]
    })
}

const CRC_TABLE: [u32; 256] = crc_table();

const fn crc_table() -> [u32; 256] {
    let mut table = [0u32; 256];
    let mut index = 0;
    let mut start = 0u32;
    while index < 256 {
        let mut crc = start;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000_0000 == 0 {
                crc << 1
            } else {
                crc << 1 ^ 0x04C1_1DB7
            };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
        start = start.wrapping_add(1 << 24);
    }
    table
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A page with the given packets, all complete and shorter than 255 bytes.
    pub(in crate::media::ogg) fn page(
        flags: u8,
        granule: i64,
        serial: u32,
        sequence: u32,
        packets: &[&[u8]],
    ) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(b"OggS\0");
        out.push(flags);
        out.extend_from_slice(&granule.to_le_bytes());
        out.extend_from_slice(&serial.to_le_bytes());
        out.extend_from_slice(&sequence.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.push(u8::try_from(packets.len()).expect("few packets"));
        out.extend(
            packets
                .iter()
                .map(|p| u8::try_from(p.len()).expect("short packets")),
        );
        out.extend(packets.iter().flat_map(|p| p.iter()));
        let crc = update(0, &out).to_le_bytes();
        out[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&crc);
        out
    }

    #[test]
    fn a_page_is_found_once_all_of_it_is_there() {
        let bytes = page(2, 0, 7, 0, &[b"abc", b"", b"de"]);
        for len in 0..bytes.len() {
            assert_eq!(find(&bytes[..len]), Found::Short, "{len}");
        }
        assert_eq!(find(&bytes), Found::Page { len: bytes.len() });
        let page = Page::new(bytes.into());
        let packets: Vec<_> = page.pieces().into_iter().map(|piece| piece.bytes).collect();
        assert_eq!(packets, [&b"abc"[..], b"", b"de"]);
        assert!(page.is_first() && !page.is_continued());
        assert_eq!(
            (page.granule(), page.serial(), page.sequence()),
            (Some(0), 7, 0)
        );
    }

    #[test]
    fn one_wrong_bit_anywhere_makes_it_no_page() {
        let bytes = page(0, 960, 7, 3, &[b"payload"]);
        for at in 27..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            assert_ne!(find(&damaged), Found::Page { len: bytes.len() }, "bit {at}");
        }
    }
}
