//! Heads of MP4 boxes and what makes one believable after damage. Decides only.

use crate::media::limits::MP4_BOX_MAX;

/// Size of a `moof`'s first child, `mfhd`.
const MFHD_SIZE: u32 = 16;

/// Head of a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: [u8; 4],
    /// Length of the head, bytes.
    pub(super) len: usize,
    /// Length of the payload, bytes.
    pub(super) payload: u64,
}

/// What stands at the front of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// More bytes are needed.
    Short,
    /// No box of a sensible size starts here.
    No,
    Box(Head),
}

/// Reads the head of a box.
pub(super) fn head(bytes: &[u8]) -> Found {
    let Some((size, rest)) = bytes.split_first_chunk::<4>() else {
        return Found::Short;
    };
    let Some((kind, rest)) = rest.split_first_chunk::<4>() else {
        return Found::Short;
    };
    let (len, size) = match u32::from_be_bytes(*size) {
        1 => match rest.first_chunk::<8>() {
            Some(size) => (16, u64::from_be_bytes(*size)),
            None => return Found::Short,
        },
        // Zero means "to the end of the file": no recorder that is still running says so.
        size => (8, u64::from(size)),
    };
    match size.checked_sub(len as u64) {
        Some(payload) => Found::Box(Head {
            kind: *kind,
            len,
            payload,
        }),
        None => Found::No,
    }
}

/// Whether a fragment or a new file starts at the very front.
pub(super) fn is_start(bytes: &[u8]) -> Option<bool> {
    let kind = bytes.get(4..8)?;
    let size = u32::from_be_bytes(*bytes.first_chunk()?);
    match kind {
        b"moof" => {
            let child = (bytes.get(8..12)?, bytes.get(12..16)?);
            Some(child == (&MFHD_SIZE.to_be_bytes(), b"mfhd") && (size as usize) <= MP4_BOX_MAX)
        }
        b"ftyp" => Some((16..=1_024).contains(&size)),
        _ => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_size_forms_are_read_and_impossible_ones_refused() {
        let short = [0, 0, 0, 16, b'f', b'r', b'e', b'e'];
        assert_eq!(
            head(&short),
            Found::Box(Head {
                kind: *b"free",
                len: 8,
                payload: 8
            })
        );
        let mut long = vec![0, 0, 0, 1, b'm', b'd', b'a', b't'];
        long.extend(100u64.to_be_bytes());
        assert_eq!(
            head(&long),
            Found::Box(Head {
                kind: *b"mdat",
                len: 16,
                payload: 84
            })
        );
        assert_eq!(head(&long[..12]), Found::Short);
        assert_eq!(head(&[0, 0, 0, 0, b'm', b'd', b'a', b't']), Found::No);
    }

    #[test]
    fn only_a_fragment_that_goes_on_with_its_number_is_a_start() {
        let mut fragment = b"\x00\x00\x01\x00moof\x00\x00\x00\x10mfhd".to_vec();
        assert_eq!(is_start(&fragment), Some(true));
        assert_eq!(is_start(&fragment[..10]), None);
        fragment[12] = b'x';
        assert_eq!(is_start(&fragment), Some(false));
    }
}
