//! Damage of every kind: no input makes the media code panic, hang or grow, and what was whole
//! comes through.

use aircheck_core::media::archive::{MuxError, Muxer, Volumes};
use aircheck_core::media::demux::TakeReader;
use aircheck_core::media::limits::MP4_MDAT_MAX;
use aircheck_core::media::live::LiveMuxer;
use aircheck_core::media::packet::{Event, Packet};
use aircheck_core::media::probe::Container;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::demux::{all, packets, whole};
use crate::support::{Take, archive, capture, container, params};

/// Silence is at most 12 h in packets of 60 ms; nothing else is made up.
const MADE_UP_MAX: u64 = 12 * 3600 * 1000 / 60 * 20;

/// A small generator of reproducible damage (splitmix64).
struct Damage(u64);

impl Damage {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// Flips, writes, inserts, removes or repeats a few bytes.
    fn apply(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(6) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.byte(),
                2 => bytes.insert(at, self.byte()),
                3 => {
                    let to = (at + 1 + self.below(64)).min(bytes.len() - 1);
                    bytes.drain(at.min(to)..to);
                }
                4 => {
                    let to = (at + 1 + self.below(2_000)).min(bytes.len());
                    let piece = bytes[at..to].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ => {
                    let to = (at + 8).min(bytes.len());
                    bytes[at..to].fill([0x00, 0xFF, 0x01, 0x7F][self.below(4)]);
                }
            }
        }
    }
}

/// Runs a take through everything at once.
fn survive(take: &Take) {
    let mut volumes = Volumes::new(params()).expect("sensible parameters");
    let mut live = LiveMuxer::new();
    volumes.begin_take(take.start()).expect("no take before");
    live.begin_take(take.start());
    let half = take.bytes.len() / 2;
    let mut produced = 0;
    for piece in [&take.bytes[..half], &take.bytes[half..]] {
        let refused = volumes.push(piece).is_err();
        if live.push(piece).is_err() || refused {
            break;
        }
        while live.poll().is_some() {}
        while let Some(full) = volumes.take_full() {
            produced += finish(full);
        }
    }
    if let Err(MuxError::Incompatible { codec_id }) = volumes.end_take() {
        panic!("{codec_id} was not moved to a new volume");
    }
    while let Some(full) = volumes.take_full() {
        produced += finish(full);
    }
    produced += finish(volumes.into_last());
    let most = 2 * take.bytes.len() as u64 + MADE_UP_MAX;
    assert!(
        produced <= most,
        "{produced} bytes from {}",
        take.bytes.len()
    );
}

/// Bytes of the body of a finished volume.
fn finish(muxer: Muxer) -> u64 {
    match muxer.finish(&[]) {
        Ok(end) => end.total_bytes - end.header.len() as u64,
        Err(_) => 0,
    }
}

#[test]
fn a_hundred_thousand_damaged_takes_are_survived() {
    let mut damage = Damage(20_261_123);
    for (name, _, _) in all() {
        let mut whole = capture(name);
        // The beginning holds every kind of element; short takes make many tries.
        whole.truncate(6_000);
        for _ in 0..100_000 / all().len() {
            let mut bytes = whole.clone();
            damage.apply(&mut bytes);
            // A take that starts like nothing known never gets here.
            bytes[..8].copy_from_slice(&whole[..8]);
            survive(&Take { wall_ms: 0, bytes });
        }
    }
}

/// The largest of all caps, with the pieces that bytes come in.
const HELD_MAX: usize = MP4_MDAT_MAX + PIECE_BYTES;
const PIECE_BYTES: usize = 64 << 10;

#[test]
fn no_reader_holds_more_than_its_cap_whatever_an_element_claims_to_be() {
    let mut damage = Damage(4711);
    let mut claims = vec![claim_of_a_picture()];
    for (name, _, _) in all() {
        let mut head = capture(name);
        head.truncate(6_000);
        for _ in 0..4 {
            let mut bytes = head.clone();
            damage.apply(&mut bytes);
            bytes[..8].copy_from_slice(&head[..8]);
            // An element that is begun here may claim any length.
            bytes.truncate(200 + damage.below(bytes.len() - 200));
            claims.push(bytes);
        }
    }
    let mut most = 0;
    for (round, bytes) in claims.iter().enumerate() {
        let mut reader = TakeReader::new(container(bytes));
        reader.push(bytes);
        let filler = vec![[0x00, 0xA3, 0xFF, damage.byte()][round % 4]; PIECE_BYTES];
        for _ in 0..2 * HELD_MAX / PIECE_BYTES {
            while reader.poll().is_some() {}
            most = most.max(reader.held_bytes());
            assert!(reader.held_bytes() <= HELD_MAX, "round {round}");
            reader.push(&filler);
        }
    }
    assert!(most > 8_000_000, "the claim was believed: {most}");
}

/// A take whose first block says that it has nearly as many bytes as a picture may have.
fn claim_of_a_picture() -> Vec<u8> {
    let mut bytes = capture("vp8");
    let is_cluster = |at: &[u8]| at == [0x1F, 0x43, 0xB6, 0x75];
    let cluster = bytes.windows(4).position(is_cluster);
    bytes.truncate(cluster.expect("a cluster"));
    // A cluster of unknown length, its time, and a block of track 2.
    bytes.extend([0x1F, 0x43, 0xB6, 0x75, 0x01]);
    bytes.extend([0xFF; 7]);
    bytes.extend([0xE7, 0x81, 0x00, 0xA3, 0x10, 0x7F, 0xFF, 0xF0, 0x82]);
    bytes
}

#[test]
fn a_truncated_take_keeps_everything_before_the_cut() {
    for (name, _, _) in all() {
        let bytes = capture(name);
        let all = packets(&whole(&bytes));
        for percent in [10, 50, 90, 99] {
            let cut = &bytes[..bytes.len() * percent / 100];
            let kept = packets(&whole(cut));
            assert_eq!(kept[..], all[..kept.len()], "{name} at {percent} %");
            let expected = all.len() * percent / 100;
            assert!(
                kept.len() + 60 > expected,
                "{name}: {} of {expected}",
                kept.len()
            );
        }
    }
}

#[test]
fn a_take_without_its_header_is_no_media() {
    let bytes = capture("opus250");
    let mut muxer = Muxer::new(params()).expect("sensible parameters");
    muxer
        .begin_take(Take::of("opus250", 0).start())
        .expect("no take before");
    muxer.push(&bytes[4_000..]).expect("waits for a header");
    assert_eq!(muxer.finish(&[]), Err(MuxError::NoMedia));
}

#[test]
fn a_take_after_an_unreadable_one_is_archived() {
    let mut muxer = Muxer::new(params()).expect("sensible parameters");
    let good = Take::of("sweepA", 10_000);
    muxer
        .begin_take(Take::of("opus250", 0).start())
        .expect("no take before");
    muxer
        .push(&capture("opus250")[4_000..90_000])
        .expect("waits for a header");
    muxer.begin_take(good.start()).expect("no error is left");
    muxer.push(&good.bytes).expect("a good take");
    let end = muxer.finish(&[]).expect("there is media");
    assert_eq!((end.duration_ms, end.stats.packets), (19_980, 333));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None,
        ..ProptestConfig::default() })]

    #[test]
    fn bytes_that_vanish_unnoticed_cost_little_more_than_themselves(
        which in 0..all().len(),
        from in any::<Index>(),
        len in 1..30_000usize,
    ) {
        let (name, _, _) = all()[which];
        let mut bytes = capture(name);
        let all = packets(&whole(&bytes));
        let from = 1_000 + from.index(bytes.len() - 1_000);
        let to = (from + len).min(bytes.len());
        bytes.drain(from..to);
        let events = whole(&bytes);
        let kept = packets(&events);
        // One packet may have swallowed the seam; all others are the recorder's own. MP4 alone has
        // no marks between the packets of a fragment (at most 600 ms of sound and picture here).
        let is_mp4 = container(&bytes) == Container::Mp4;
        let most = if is_mp4 { 50 } else { 1 };
        // Where a cluster's head vanished, time may be wrong; the media never is.
        let is_own = |packet: &Packet| all.iter().any(|own| own.payload == packet.payload);
        let foreign = kept.iter().filter(|packet| !is_own(packet)).count();
        prop_assert!(foreign <= most, "{} packets were made up", foreign);
        let lost: u64 = events
            .iter()
            .map(|event| match event {
                Event::Lost { bytes, .. } => *bytes,
                _ => 0,
            })
            .sum();
        prop_assert!(lost <= 120_000, "{}", lost);
    }

    #[test]
    fn a_damaged_take_never_shortens_the_show(
        from in any::<Index>(),
        len in 1..60_000usize,
    ) {
        let mut bytes = capture("sweepA");
        let from = 1_000 + from.index(bytes.len() - 100_000);
        bytes.drain(from..from + len);
        let take = Take { wall_ms: 0, bytes };
        let archive = archive(&[take], params(), 4_000);
        prop_assert_eq!(archive.end.duration_ms, 19_980);
    }
}
