//! Records of the journal: how bytes and events of many sessions share one file.
//!
//! Owns the layout. A record never spans segments, and its checksum covers the segment's number, so
//! that nothing left over from another file can pass for a record.
//!
//! ```text
//!  0  u32  CRC-32 (IEEE) of the segment number (u64) and of everything below, padding excluded
//!  4  u32  length of the payload in bytes
//!  8  u8   kind: 1 header, 2 bytes, 3 event, 4 commit
//!  9  3    zero
//! 12  u32  take (bytes only)
//! 16  u128 session (bytes and events)
//! 32  u64  header: number of the segment before · bytes: offset in the take · event: sequence number
//!          from 0 within the session · commit: everything of this segment below this position was
//!          synced before this record was written
//! 40  ...  payload; then zeros up to a multiple of 8
//! ```
//! Events are written twice, one right behind the other: they are few, and to lose one may mean to lose a
//! take or the whole session. All integers are little-endian. A length and checksum of zero mark the end
//! of what was written, since segments are preallocated as zeros.

use crate::id::SessionId;
use thiserror::Error;

/// Bytes in front of every payload.
pub const HEAD_BYTES: usize = 40;
/// Records begin at multiples of this.
pub const ALIGN_BYTES: usize = 8;
/// Longest payload: a chunk is at most 1 MiB, an event with a long show's manifest may be more.
pub const PAYLOAD_MAX: usize = 16 << 20;
/// Payload of a segment's first record: magic and version of this layout, and the position up to
/// which the segment before was synced.
const MAGIC: &[u8; 16] = b"aircheck spool 1";

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first record of a segment.
    Header {
        /// Number of the segment before, 0 if none.
        previous: u64,
        /// Everything of that segment below this position was synced.
        previous_synced: u64,
    },
    /// Media bytes.
    Bytes {
        /// Whose.
        session: SessionId,
        /// Index of the take.
        take: u32,
        /// Where they belong in it.
        offset: u64,
    },
    /// A session event, as JSON.
    Event {
        /// Whose.
        session: SessionId,
        /// Its number within the session.
        seq: u64,
    },
    /// A statement about this segment.
    Commit {
        /// Everything below this position was synced.
        synced: u64,
    },
}

/// A record found in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What it says.
    pub kind: Kind,
    /// Its payload; empty for headers and commits.
    pub payload: &'a [u8],
    /// Bytes it takes up, padding included.
    pub total_bytes: usize,
}

/// Why there is no record.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NoRecord {
    /// Nothing was written here.
    #[error("the end of what was written")]
    End,
    /// Something was, but not all of it, or not what is there now.
    #[error("no valid record")]
    Invalid,
}

/// Bytes that a record with this payload takes up.
#[must_use]
pub fn total_bytes(payload_bytes: usize) -> usize {
    (HEAD_BYTES + payload_bytes).next_multiple_of(ALIGN_BYTES)
}

/// Bytes that an event takes up, written as [`write()`] does.
#[must_use]
pub fn event_bytes(payload_bytes: usize) -> usize {
    2 * total_bytes(payload_bytes)
}

/// Appends what a segment has of a record to `to`: an event twice, so that it is found where one copy is
/// damaged, anything else once.
///
/// # Panics
/// If the payload is longer than [`PAYLOAD_MAX`]; callers have checked by then.
pub fn write(to: &mut Vec<u8>, segment: u64, kind: &Kind, payload: &[u8]) {
    encode(to, segment, kind, payload);
    if matches!(kind, Kind::Event { .. }) {
        encode(to, segment, kind, payload);
    }
}

fn encode(to: &mut Vec<u8>, segment: u64, kind: &Kind, payload: &[u8]) {
    let header_payload;
    let (code, take, session, number, payload) = match *kind {
        Kind::Header {
            previous,
            previous_synced,
        } => {
            header_payload = [MAGIC.as_slice(), &previous_synced.to_le_bytes()].concat();
            (1u8, 0, 0u128, previous, header_payload.as_slice())
        }
        Kind::Bytes {
            session,
            take,
            offset,
        } => (2, take, session.0.0, offset, payload),
        Kind::Event { session, seq } => (3, 0, session.0.0, seq, payload),
        Kind::Commit { synced } => (4, 0, 0, synced, [].as_slice()),
    };
    assert!(
        payload.len() <= PAYLOAD_MAX,
        "a record of {} bytes",
        payload.len()
    );
    let start = to.len();
    to.extend_from_slice(&[0; 4]);
    #[expect(clippy::cast_possible_truncation, reason = "at most PAYLOAD_MAX")]
    to.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    to.extend_from_slice(&[code, 0, 0, 0]);
    to.extend_from_slice(&take.to_le_bytes());
    to.extend_from_slice(&session.to_le_bytes());
    to.extend_from_slice(&number.to_le_bytes());
    to.extend_from_slice(payload);
    let checksum = checksum(segment, &to[start + 4..]);
    to[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
    to.resize(start + total_bytes(payload.len()), 0);
}

fn checksum(segment: u64, covered: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&segment.to_le_bytes());
    hasher.update(covered);
    hasher.finalize()
}

/// Reads the record at the beginning of `from`.
///
/// # Errors
/// [`NoRecord`].
pub fn decode(segment: u64, from: &[u8]) -> Result<Record<'_>, NoRecord> {
    let Some(head) = from.first_chunk::<HEAD_BYTES>() else {
        return Err(if from.iter().all(|b| *b == 0) {
            NoRecord::End
        } else {
            NoRecord::Invalid
        });
    };
    if head.iter().all(|b| *b == 0) {
        return Err(NoRecord::End);
    }
    let length = u32::from_le_bytes(field(head, 4)) as usize;
    if length > PAYLOAD_MAX || from.len() < HEAD_BYTES + length {
        return Err(NoRecord::Invalid);
    }
    let covered = &from[4..HEAD_BYTES + length];
    if u32::from_le_bytes(field(head, 0)) != checksum(segment, covered) {
        return Err(NoRecord::Invalid);
    }
    let payload = &from[HEAD_BYTES..HEAD_BYTES + length];
    let (kind, payload) = kind(head, payload).ok_or(NoRecord::Invalid)?;
    Ok(Record {
        kind,
        payload,
        total_bytes: total_bytes(length).min(from.len()),
    })
}

fn kind<'a>(head: &[u8; HEAD_BYTES], payload: &'a [u8]) -> Option<(Kind, &'a [u8])> {
    let session = SessionId(u128::from_le_bytes(field(head, 16)).into());
    let number = u64::from_le_bytes(field(head, 32));
    let kind = match head[8] {
        1 => {
            let synced = payload.strip_prefix(MAGIC)?.first_chunk()?;
            let previous_synced = u64::from_le_bytes(*synced);
            return Some((
                Kind::Header {
                    previous: number,
                    previous_synced,
                },
                &[],
            ));
        }
        2 => Kind::Bytes {
            session,
            take: u32::from_le_bytes(field(head, 12)),
            offset: number,
        },
        3 => Kind::Event {
            session,
            seq: number,
        },
        4 => Kind::Commit { synced: number },
        _ => return None,
    };
    Some((kind, payload))
}

/// What a damaged record was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damaged {
    /// A header or a commit, which hold nothing of a session.
    Frame,
    /// One of an event's two copies.
    Event,
    /// Bytes, or more than one record; what it says of its session may be damaged as well.
    Bytes {
        /// Whose, if that is still right.
        session: SessionId,
    },
}

/// How the payload of every event begins.
const EVENT_BEGINS: &[u8] = b"{\"event\":\"";

/// What lay at `position`, where `stretch` is all of it up to the next valid record. Right where one bit of
/// one record was flipped; where more is damaged, in doubt [`Damaged::Bytes`].
#[must_use]
pub fn damaged(position: u64, stretch: &[u8]) -> Damaged {
    let header_bytes = total_bytes(MAGIC.len() + size_of::<u64>());
    let is_header = position == 0 && stretch.len() == header_bytes;
    let Some((head, payload)) = stretch.split_first_chunk::<HEAD_BYTES>() else {
        return Damaged::Frame;
    };
    // Nobody writes events or bytes without a payload.
    if is_header || payload.is_empty() {
        return Damaged::Frame;
    }
    let length = u32::from_le_bytes(field(head, 4));
    let fits = |length: u32| total_bytes(length as usize) == stretch.len();
    let is_one = fits(length) || (0..u32::BITS).any(|bit| fits(length ^ (1 << bit)));
    let begins = payload.iter().zip(EVENT_BEGINS);
    let differing: u32 = begins.map(|(is, due)| (is ^ due).count_ones()).sum();
    if is_one && payload.len() >= EVENT_BEGINS.len() && differing <= 1 {
        return Damaged::Event;
    }
    let session = SessionId(u128::from_le_bytes(field(head, 16)).into());
    Damaged::Bytes { session }
}

fn field<const N: usize>(head: &[u8; HEAD_BYTES], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&head[at..at + N]);
    field
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn session() -> SessionId {
        SessionId(0x0123_4567_89ab_cdef_u128.into())
    }

    #[test]
    fn every_kind_reads_back() {
        let kinds = [
            (
                Kind::Header {
                    previous: 3,
                    previous_synced: 77,
                },
                &b""[..],
            ),
            (
                Kind::Bytes {
                    session: session(),
                    take: 2,
                    offset: 1 << 40,
                },
                b"media",
            ),
            (
                Kind::Event {
                    session: session(),
                    seq: 9,
                },
                b"{}",
            ),
            (Kind::Commit { synced: 4096 }, b""),
        ];
        let mut file = Vec::new();
        for (kind, payload) in &kinds {
            encode(&mut file, 5, kind, payload);
        }
        file.resize(file.len() + 100, 0);
        let mut rest = file.as_slice();
        for (kind, payload) in kinds {
            let record = decode(5, rest).expect("a record");
            assert_eq!((record.kind, record.payload), (kind, payload));
            rest = &rest[record.total_bytes..];
        }
        assert_eq!(decode(5, rest), Err(NoRecord::End));
        assert_eq!(
            decode(6, &file),
            Err(NoRecord::Invalid),
            "of another segment"
        );
    }

    #[test]
    fn a_record_cut_anywhere_is_no_record() {
        let mut file = Vec::new();
        let kind = Kind::Bytes {
            session: session(),
            take: 0,
            offset: 0,
        };
        encode(&mut file, 1, &kind, b"thirteen byte");
        for cut in 1..HEAD_BYTES + 13 {
            let mut torn = file[..cut].to_vec();
            assert_eq!(decode(1, &torn), Err(NoRecord::Invalid), "cut at {cut}");
            torn.resize(4096, 0);
            assert_eq!(
                decode(1, &torn),
                Err(NoRecord::Invalid),
                "cut at {cut}, then zeros"
            );
        }
    }

    proptest! {
        #[test]
        fn no_flipped_bit_goes_unnoticed(
            payload in proptest::collection::vec(any::<u8>(), 0..300),
            at in any::<prop::sample::Index>(),
            bit in 0..8u8,
        ) {
            let mut file = Vec::new();
            let kind = Kind::Bytes { session: session(), take: 1, offset: 12 };
            encode(&mut file, 1, &kind, &payload);
            let covered = HEAD_BYTES + payload.len();
            file[at.index(covered)] ^= 1 << bit;
            prop_assert!(decode(1, &file).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ignored = decode(1, &bytes);
        }
    }
}
