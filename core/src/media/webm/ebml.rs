//! Reading EBML: variable-length numbers, element heads and the children of a buffered element.
//! It never allocates and never reads past the slice it is given.

/// Longest element ID, bytes.
const ID_LEN_MAX: usize = 4;
/// Longest element size field, bytes.
const SIZE_LEN_MAX: usize = 8;

/// Something read from the front of a byte slice that may be too short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read<T> {
    /// More bytes are needed.
    Short,
    /// No valid value starts like this.
    Bad,
    /// The value.
    Done(T),
}

/// Size field of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// So many bytes.
    Known(u64),
    /// Until something that cannot be a child.
    Unknown,
}

/// ID and size of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The element's ID, marker bits included.
    pub id: u32,
    /// Size of its payload.
    pub size: Size,
    /// Length of the head itself, bytes.
    pub len: usize,
}

/// The bytes are not well-formed EBML.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed EBML element")]
pub struct Malformed;

/// Reads an element head.
#[must_use]
pub fn head(bytes: &[u8]) -> Read<Head> {
    let (id, id_len) = match id(bytes) {
        Read::Done(found) => found,
        Read::Short => return Read::Short,
        Read::Bad => return Read::Bad,
    };
    match size(&bytes[id_len..]) {
        Read::Done((size, size_len)) => Read::Done(Head {
            id,
            size,
            len: id_len + size_len,
        }),
        Read::Short => Read::Short,
        Read::Bad => Read::Bad,
    }
}

/// Reads an element ID and its length in bytes.
#[must_use]
pub fn id(bytes: &[u8]) -> Read<(u32, usize)> {
    let Some(&first) = bytes.first() else {
        return Read::Short;
    };
    let len = first.leading_zeros() as usize + 1;
    if len > ID_LEN_MAX {
        return Read::Bad;
    }
    match bytes.get(..len) {
        Some(whole) => Read::Done((
            whole.iter().fold(0, |id, byte| id << 8 | u32::from(*byte)),
            len,
        )),
        None => Read::Short,
    }
}

/// Reads an element size and the length of the field in bytes.
#[must_use]
pub fn size(bytes: &[u8]) -> Read<(Size, usize)> {
    match vint(bytes) {
        Read::Done((value, len)) if value == vint_max(len) => Read::Done((Size::Unknown, len)),
        Read::Done((value, len)) => Read::Done((Size::Known(value), len)),
        Read::Short => Read::Short,
        Read::Bad => Read::Bad,
    }
}

/// Reads a variable-length number (marker bit removed) and its length in bytes.
#[must_use]
pub fn vint(bytes: &[u8]) -> Read<(u64, usize)> {
    let Some(&first) = bytes.first() else {
        return Read::Short;
    };
    let len = first.leading_zeros() as usize + 1;
    if len > SIZE_LEN_MAX {
        return Read::Bad;
    }
    let Some(whole) = bytes.get(..len) else {
        return Read::Short;
    };
    let raw = whole
        .iter()
        .fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    Read::Done((raw & vint_max(len), len))
}

/// The largest number a vint of `len` bytes holds; as a size it means "unknown".
#[must_use]
pub const fn vint_max(len: usize) -> u64 {
    (1 << (7 * len)) - 1
}

/// Reads an unsigned integer payload of at most eight bytes.
///
/// # Errors
/// [`Malformed`] if the payload is longer.
pub fn uint(payload: &[u8]) -> Result<u64, Malformed> {
    if payload.len() > 8 {
        return Err(Malformed);
    }
    Ok(payload
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// Reads a float payload of zero, four or eight bytes.
///
/// # Errors
/// [`Malformed`] if it has another length.
pub fn float(payload: &[u8]) -> Result<f64, Malformed> {
    match payload.len() {
        0 => Ok(0.0),
        4 => payload
            .try_into()
            .map(f32::from_be_bytes)
            .map(f64::from)
            .map_err(|_| Malformed),
        8 => payload
            .try_into()
            .map(f64::from_be_bytes)
            .map_err(|_| Malformed),
        _ => Err(Malformed),
    }
}

/// One child of a buffered element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Child<'a> {
    /// Its ID.
    pub id: u32,
    /// Its payload.
    pub payload: &'a [u8],
    /// Where the payload starts in the parent's payload.
    pub at: usize,
    /// The whole element, head included.
    pub raw: &'a [u8],
}

/// Walks the children of a buffered element; stops after the first malformed one.
#[derive(Debug, Clone)]
pub struct Children<'a> {
    parent: &'a [u8],
    at: usize,
}

impl<'a> Children<'a> {
    /// Walks the children in `parent`, an element's payload.
    #[must_use]
    pub const fn new(parent: &'a [u8]) -> Self {
        Self { parent, at: 0 }
    }

    fn read(&self) -> Result<Child<'a>, Malformed> {
        let rest = &self.parent[self.at..];
        let Read::Done(Head {
            id,
            size: Size::Known(size),
            len,
        }) = head(rest)
        else {
            return Err(Malformed);
        };
        let size = usize::try_from(size).map_err(|_| Malformed)?;
        let end = len.checked_add(size).ok_or(Malformed)?;
        let raw = rest.get(..end).ok_or(Malformed)?;
        Ok(Child {
            id,
            payload: &raw[len..],
            at: self.at + len,
            raw,
        })
    }
}

impl<'a> Iterator for Children<'a> {
    type Item = Result<Child<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.parent.len() {
            return None;
        }
        let child = self.read();
        self.at = match &child {
            Ok(child) => self.at + child.raw.len(),
            Err(Malformed) => self.parent.len(),
        };
        Some(child)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_needs_every_byte_of_its_id_and_size() {
        let bytes = [
            0x1F, 0x43, 0xB6, 0x75, 0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
        ];
        for len in 0..bytes.len() {
            assert_eq!(head(&bytes[..len]), Read::Short, "{len}");
        }
        let whole = Head {
            id: 0x1F43_B675,
            size: Size::Unknown,
            len: 12,
        };
        assert_eq!(head(&bytes), Read::Done(whole));
    }

    #[test]
    fn sizes_of_every_width_are_read() {
        assert_eq!(size(&[0x81]), Read::Done((Size::Known(1), 1)));
        assert_eq!(size(&[0x40, 0x01]), Read::Done((Size::Known(1), 2)));
        assert_eq!(size(&[0xFF]), Read::Done((Size::Unknown, 1)));
        assert_eq!(
            size(&[0x01, 0, 0, 0, 0, 0, 0, 9]),
            Read::Done((Size::Known(9), 8))
        );
        assert_eq!(size(&[0x00]), Read::Bad);
    }

    #[test]
    fn children_stop_at_the_first_one_that_does_not_fit() {
        let parent = [0xD7, 0x81, 0x02, 0x83, 0x84, 0x00];
        let seen: Vec<_> = Children::new(&parent).collect();
        assert_eq!(seen.len(), 2);
        assert_eq!(
            seen[0].map(|child| (child.id, child.payload)),
            Ok((0xD7, &[0x02][..]))
        );
        assert_eq!(seen[1], Err(Malformed));
    }

    #[test]
    fn numbers_longer_than_eight_bytes_are_refused() {
        assert_eq!(uint(&[1; 9]), Err(Malformed));
        assert_eq!(uint(&[]), Ok(0));
        assert_eq!(float(&[0; 3]), Err(Malformed));
        assert_eq!(float(&48_000f32.to_be_bytes()), Ok(48_000.0));
    }
}
