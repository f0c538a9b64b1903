//! Writing EBML: elements, fixed-width numbers and padding of an exact length. Appends to a buffer
//! of the caller; it never looks back and never seeks.

/// Smallest padding that [`void`] can write, bytes.
pub const VOID_MIN: usize = 9;
/// Length of an eight-byte size field.
const SIZE_LEN_MAX: usize = 8;
/// The eight-byte "unknown size".
pub const SIZE_UNKNOWN: [u8; 8] = [0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];

/// Appends an element ID.
pub fn id(out: &mut Vec<u8>, id: u32) {
    let bytes = id.to_be_bytes();
    let from = (id.leading_zeros() / 8) as usize;
    out.extend_from_slice(&bytes[from.min(3)..]);
}

/// How many bytes the shortest size field for `value` has.
#[must_use]
pub const fn size_len(value: u64) -> usize {
    let mut len = 1;
    // The all-ones value of each width means "unknown" and is not available.
    while len < SIZE_LEN_MAX && value >= (1 << (7 * len)) - 1 {
        len += 1;
    }
    len
}

/// Appends a size field (or any other vint) of the shortest form.
pub fn size(out: &mut Vec<u8>, value: u64) {
    size_fixed(out, value, size_len(value));
}

/// Appends a size field of exactly `len` bytes (1 to 8). `value` must fit.
pub fn size_fixed(out: &mut Vec<u8>, value: u64, len: usize) {
    debug_assert!((1..=SIZE_LEN_MAX).contains(&len) && value < 1 << (7 * len));
    let marked = value | 1 << (7 * len);
    out.extend_from_slice(&marked.to_be_bytes()[8 - len..]);
}

/// Appends an element with a payload of bytes.
pub fn binary(out: &mut Vec<u8>, element: u32, payload: &[u8]) {
    id(out, element);
    size(out, payload.len() as u64);
    out.extend_from_slice(payload);
}

/// Appends an unsigned integer element of the shortest form.
pub fn uint(out: &mut Vec<u8>, element: u32, value: u64) {
    let from = (value.leading_zeros() / 8) as usize;
    binary(out, element, &value.to_be_bytes()[from.min(7)..]);
}

/// Appends an unsigned integer element of eight bytes, whatever the value.
pub fn uint_fixed(out: &mut Vec<u8>, element: u32, value: u64) {
    binary(out, element, &value.to_be_bytes());
}

/// Appends a float element of eight bytes.
pub fn float(out: &mut Vec<u8>, element: u32, value: f64) {
    binary(out, element, &value.to_be_bytes());
}

/// Appends an element whose payload `fill` writes.
pub fn master(out: &mut Vec<u8>, element: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut payload = Vec::new();
    fill(&mut payload);
    binary(out, element, &payload);
}

/// Appends padding of exactly `total` bytes, head included; at least [`VOID_MIN`].
pub fn void(out: &mut Vec<u8>, total: usize) {
    debug_assert!(total >= VOID_MIN);
    let payload = total.saturating_sub(VOID_MIN);
    id(out, super::ids::VOID);
    size_fixed(out, payload as u64, SIZE_LEN_MAX);
    out.resize(out.len() + payload, 0);
}

#[cfg(test)]
mod tests {
    use super::super::ebml::{self, Head, Read, Size};
    use super::*;

    #[test]
    fn sizes_read_back_at_every_width() {
        for value in [
            0,
            1,
            126,
            127,
            128,
            16_382,
            16_383,
            1 << 20,
            1 << 34,
            (1 << 56) - 2,
        ] {
            for len in size_len(value)..=8 {
                let mut out = Vec::new();
                size_fixed(&mut out, value, len);
                assert_eq!(ebml::size(&out), Read::Done((Size::Known(value), len)));
            }
        }
    }

    #[test]
    fn integers_take_the_fewest_bytes() {
        let mut out = Vec::new();
        uint(&mut out, 0xD7, 0);
        uint(&mut out, 0xD7, 256);
        assert_eq!(out, [0xD7, 0x81, 0x00, 0xD7, 0x82, 0x01, 0x00]);
    }

    #[test]
    fn padding_has_the_length_asked_for() {
        for total in [VOID_MIN, 10, 200, 65_536] {
            let mut out = Vec::new();
            void(&mut out, total);
            assert_eq!(out.len(), total);
            let size = Size::Known((total - VOID_MIN) as u64);
            assert_eq!(
                ebml::head(&out),
                Read::Done(Head {
                    id: 0xEC,
                    size,
                    len: 9
                })
            );
        }
    }
}
