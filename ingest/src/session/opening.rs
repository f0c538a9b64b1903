//! The first bytes of a take, until they say what it is.
//!
//! Owns the decision whether bytes begin a supported container. Holds at most a few bytes, which are
//! neither recorded nor acknowledged before the decision.

use aircheck_core::media::{Container, Probe, probe};
use bytes::{Bytes, BytesMut};

/// Bytes that wait for the decision, and where they begin.
#[derive(Debug)]
pub(super) enum Opening {
    /// Not known yet.
    Undecided { base: u64, held: BytesMut },
    /// Known, or not to be known: the beginning is long past.
    Passed,
}

/// What more bytes led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Still too few.
    More,
    /// A container begins; these are all bytes since the base.
    Container(Container, u64, Bytes),
    /// None begins; these are all bytes since the base.
    Foreign(u64, Bytes),
    /// Nothing to decide: the bytes as they came.
    Pass(u64, Bytes),
    /// The bytes do not follow the held ones.
    Offset { expected: u64 },
}

impl Opening {
    pub(super) fn at(base: u64) -> Self {
        Self::Undecided {
            base,
            held: BytesMut::new(),
        }
    }

    pub(super) fn push(&mut self, offset: u64, data: Bytes) -> Step {
        let Self::Undecided { base, held } = self else {
            return Step::Pass(offset, data);
        };
        let (base, expected) = (*base, *base + held.len() as u64);
        if offset != expected {
            return Step::Offset { expected };
        }
        // The usual case: the first chunk decides, and travels on uncopied.
        let all = if held.is_empty() {
            data
        } else {
            joined(held, &data)
        };
        match probe(&all) {
            Probe::NeedMore => {
                *held = BytesMut::from(all.as_ref());
                Step::More
            }
            Probe::Found(container) => {
                *self = Self::Passed;
                Step::Container(container, base, all)
            }
            Probe::Unsupported => {
                *self = Self::Passed;
                Step::Foreign(base, all)
            }
        }
    }

    /// What is held when no more will come.
    pub(super) fn finish(&mut self) -> Option<(u64, Bytes)> {
        match std::mem::replace(self, Self::Passed) {
            Self::Undecided { base, held } if !held.is_empty() => Some((base, held.freeze())),
            Self::Undecided { .. } | Self::Passed => None,
        }
    }
}

fn joined(held: &mut BytesMut, data: &Bytes) -> Bytes {
    let mut all = std::mem::take(held);
    all.extend_from_slice(data);
    all.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &[u8] = &[
        0x1a, 0x45, 0xdf, 0xa3, 0x9f, 0x42, 0x86, 0x81, 1, 2, 3, 4, 5, 6, 7, 8, 9,
    ];

    #[test]
    fn a_header_in_single_bytes_is_found_and_nothing_is_lost() {
        let mut opening = Opening::at(0);
        let mut seen = None;
        for (offset, byte) in (0..).zip(HEADER) {
            match opening.push(offset, Bytes::copy_from_slice(&[*byte])) {
                Step::More => assert!(seen.is_none()),
                Step::Container(Container::WebM, 0, all) => seen = Some(all.to_vec()),
                Step::Pass(at, byte) => {
                    let seen = seen.as_mut().expect("decided");
                    assert_eq!(at, seen.len() as u64);
                    seen.extend_from_slice(&byte);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(seen.as_deref(), Some(HEADER));
    }

    #[test]
    fn foreign_bytes_are_told_apart() {
        let mut opening = Opening::at(7);
        let data = Bytes::from_static(b"GIF89a and more than sixteen bytes");
        assert_eq!(opening.push(7, data.clone()), Step::Foreign(7, data));
    }

    #[test]
    fn bytes_that_do_not_follow_are_refused() {
        let mut opening = Opening::at(0);
        assert_eq!(opening.push(0, Bytes::from_static(&[0x1a])), Step::More);
        assert_eq!(
            opening.push(5, Bytes::from_static(&[0x45])),
            Step::Offset { expected: 1 }
        );
        assert_eq!(opening.finish(), Some((0, Bytes::from_static(&[0x1a]))));
    }
}
