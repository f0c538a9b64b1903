//! What makes the start of a cluster believable, in the stream and after damage. Decides only; it
//! consumes nothing.

use super::ebml::{self, Head, Read, Size};
use super::ids;
use crate::media::limits::{HEADER_ELEMENT_MAX, NS_PER_MS, PLAUSIBLE_JUMP_NS, TIMESTAMP_MAX_NS};

/// Largest declared size of a cluster that is believed after damage, bytes.
const CLUSTER_SIZE_MAX: u64 = 64 * 1024 * 1024;
/// The slowest stream: digital silence in Opus is 300 bytes a second, so a lost byte is worth at
/// most about 4 ms.
const SLOWEST_NS_PER_BYTE: i64 = 4 * NS_PER_MS;
/// First byte of every element that can open an EBML header.
const EBML_CHILD_FIRST_BYTE: u8 = 0x42;

/// Whether something at the front of the bytes can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Candidate {
    /// A cluster or an EBML header starts here.
    Believable,
    /// More bytes are needed to tell.
    Short,
    /// Nothing to trust starts here.
    No,
}

/// The timestamps of clusters so far, to tell a real one from four equal bytes in a payload.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct ClusterClock {
    last_ns: Option<i64>,
    /// A refused timestamp. If the next one agrees with it, the stream really jumped.
    refused_ns: Option<i64>,
}

impl ClusterClock {
    /// Takes a cluster timestamp, or refuses it as implausible. Returns it in ticks.
    pub(super) fn accept(&mut self, ticks: u64, scale_ns: u64, lost: u64) -> Option<i64> {
        let ticks = i64::try_from(ticks).ok()?;
        let ns = ticks.checked_mul(i64::try_from(scale_ns).ok()?)?;
        if ns > TIMESTAMP_MAX_NS {
            return None;
        }
        if self.is_plausible(ns, lost) {
            *self = Self {
                last_ns: Some(ns),
                refused_ns: None,
            };
            return Some(ticks);
        }
        self.refused_ns = Some(ns);
        None
    }

    fn is_plausible(&self, ns: i64, lost: u64) -> bool {
        let Some(last) = self.last_ns else {
            return true;
        };
        let lost_ns = i64::try_from(lost)
            .unwrap_or(i64::MAX)
            .saturating_mul(SLOWEST_NS_PER_BYTE);
        let latest = last
            .saturating_add(PLAUSIBLE_JUMP_NS)
            .saturating_add(lost_ns);
        if (last - PLAUSIBLE_JUMP_NS..=latest).contains(&ns) {
            return true;
        }
        self.refused_ns
            .is_some_and(|refused| (refused..=refused + PLAUSIBLE_JUMP_NS).contains(&ns))
    }
}

/// Judges the bytes at the front while the parser is lost; `lost` bytes were passed over so far.
pub(super) fn candidate(
    bytes: &[u8],
    clock: &mut ClusterClock,
    scale_ns: u64,
    lost: u64,
) -> Candidate {
    let head = match ebml::head(bytes) {
        Read::Done(head) => head,
        Read::Bad => return Candidate::No,
        Read::Short => {
            return if could_become_candidate(bytes) {
                Candidate::Short
            } else {
                Candidate::No
            };
        }
    };
    match (head.id, head.size) {
        (ids::CLUSTER, Size::Unknown) => cluster(&bytes[head.len..], clock, scale_ns, lost),
        (ids::CLUSTER, Size::Known(size)) if size <= CLUSTER_SIZE_MAX => {
            cluster(&bytes[head.len..], clock, scale_ns, lost)
        }
        (ids::EBML, Size::Known(size)) if size <= HEADER_ELEMENT_MAX as u64 => {
            match bytes.get(head.len) {
                Some(&EBML_CHILD_FIRST_BYTE) => Candidate::Believable,
                Some(_) => Candidate::No,
                None => Candidate::Short,
            }
        }
        _ => Candidate::No,
    }
}

/// A cluster must go on with its timestamp, and that must be near the last one.
fn cluster(payload: &[u8], clock: &mut ClusterClock, scale_ns: u64, lost: u64) -> Candidate {
    let (head, size) = match ebml::head(payload) {
        Read::Done(
            head @ Head {
                id: ids::TIMESTAMP,
                size: Size::Known(size @ 0..=8),
                ..
            },
        ) => (head, size),
        Read::Short
            if payload
                .first()
                .is_none_or(|first| u32::from(*first) == ids::TIMESTAMP) =>
        {
            return Candidate::Short;
        }
        Read::Short | Read::Bad | Read::Done(_) => return Candidate::No,
    };
    let Ok(size) = usize::try_from(size) else {
        return Candidate::No;
    };
    let Some(digits) = payload.get(head.len..head.len + size) else {
        return Candidate::Short;
    };
    let accepted = ebml::uint(digits)
        .ok()
        .and_then(|ticks| clock.accept(ticks, scale_ns, lost));
    if accepted.is_some() {
        Candidate::Believable
    } else {
        Candidate::No
    }
}

/// Whether a head that is cut short can still turn out to be a cluster or an EBML header.
fn could_become_candidate(bytes: &[u8]) -> bool {
    [ids::CLUSTER, ids::EBML].into_iter().any(|id| {
        let wanted = id.to_be_bytes();
        let len = bytes.len().min(wanted.len());
        bytes[..len] == wanted[..len]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn clock_at(ms: u64) -> ClusterClock {
        let mut clock = ClusterClock::default();
        assert!(clock.accept(ms, MS, 0).is_some());
        clock
    }

    #[test]
    fn four_equal_bytes_in_a_payload_are_no_cluster() {
        let mut clock = clock_at(1_000);
        let payload = [
            0x1F, 0x43, 0xB6, 0x75, 0x01, 0, 0, 0, 0, 0, 0, 9, 0xA3, 0x80,
        ];
        assert_eq!(candidate(&payload, &mut clock, MS, 0), Candidate::No);
    }

    #[test]
    fn a_cluster_hours_away_is_no_cluster_until_a_second_one_agrees() {
        let mut clock = clock_at(1_000);
        assert_eq!(clock.accept(50_000_000, MS, 0), None);
        assert_eq!(clock.accept(50_005_000, MS, 0), Some(50_005_000));
        assert_eq!(clock.accept(50_010_000, MS, 0), Some(50_010_000));
    }

    #[test]
    fn one_wild_timestamp_does_not_move_the_clock() {
        let mut clock = clock_at(1_000);
        assert_eq!(clock.accept(50_000_000, MS, 0), None);
        assert_eq!(clock.accept(6_000, MS, 0), Some(6_000));
        assert_eq!(clock.accept(u64::MAX, MS, 0), None);
    }

    #[test]
    fn a_large_hole_makes_a_large_jump_believable() {
        let mut clock = clock_at(1_000);
        assert_eq!(clock.accept(7_200_000, MS, 2_000_000), Some(7_200_000));
    }

    #[test]
    fn a_candidate_is_judged_only_when_all_of_its_timestamp_is_there() {
        let whole = [
            0x1F, 0x43, 0xB6, 0x75, 0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xE7, 0x82,
            0x04, 0x00,
        ];
        for len in 1..whole.len() {
            let mut clock = clock_at(1_000);
            assert_eq!(
                candidate(&whole[..len], &mut clock, MS, 0),
                Candidate::Short,
                "{len}"
            );
        }
        assert_eq!(
            candidate(&whole, &mut clock_at(1_000), MS, 0),
            Candidate::Believable
        );
    }
}
