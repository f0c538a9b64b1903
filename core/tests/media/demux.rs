//! Reading takes: every recording of every browser, whole, in its real chunks, in random pieces,
//! and with holes.

use aircheck_core::media::TrackKind;
use aircheck_core::media::demux::TakeReader;
use aircheck_core::media::packet::{Event, Packet, Track};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::support::{capture, container};

/// Every recording of a browser with its packets and its last timestamp in ms, as ffprobe counts them.
pub(crate) const CAPTURES: [(&str, usize, i64); 8] = [
    ("opus250", 500, 29_940),
    ("sweepA", 333, 19_920),
    ("vp8", 733, 19_945),
    ("pause", 133, 7_919),
    ("silence", 200, 11_939),
    ("mp4opus", 250, 14_940),
    ("ff_webm", 775, 15_486),
    ("ff_ogg", 769, 15_360),
];

/// MP4 in the shape of Safari's, made by ffmpeg: AAC, and AAC with H.264 that reorders pictures.
pub(crate) const MADE: [(&str, usize, i64); 2] =
    [("made_aac", 260, 6_013), ("made_avc", 433, 6_074)];

/// Everything there is.
pub(crate) fn all() -> Vec<(&'static str, usize, i64)> {
    CAPTURES.into_iter().chain(MADE).collect()
}

/// All events of a take that arrives in these pieces.
pub(crate) fn events<'a>(bytes: &[u8], pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Event> {
    let mut reader = TakeReader::new(container(bytes));
    let mut events = Vec::new();
    for piece in pieces {
        reader.push(piece);
        events.extend(std::iter::from_fn(|| reader.poll()));
    }
    reader.finish();
    events.extend(std::iter::from_fn(|| reader.poll()));
    events
}

/// All events of a take that arrives at once.
pub(crate) fn whole(bytes: &[u8]) -> Vec<Event> {
    events(bytes, std::iter::once(bytes))
}

/// The packets among events.
pub(crate) fn packets(events: &[Event]) -> Vec<Packet> {
    let packets = events.iter().filter_map(|event| match event {
        Event::Packet(packet) => Some(packet.clone()),
        _ => None,
    });
    packets.collect()
}

fn tracks(events: &[Event]) -> Vec<Track> {
    let tracks = events.iter().find_map(|event| match event {
        Event::Tracks(tracks) => Some(tracks.clone()),
        _ => None,
    });
    tracks.expect("a take has tracks")
}

fn lost_bytes(events: &[Event]) -> u64 {
    let lost = events.iter().map(|event| match event {
        Event::Lost { bytes, .. } => *bytes,
        _ => 0,
    });
    lost.sum()
}

/// Whether a packet is one of the recorder's own. On its last page Ogg may say an end that is
/// earlier than that of the packets, and after a hole nothing else tells their time.
fn is_one_of(packet: &Packet, all: &[Packet]) -> bool {
    all.iter().any(|own| {
        own.track == packet.track
            && own.payload == packet.payload
            && own.ts_ns.abs_diff(packet.ts_ns) < 20_000_000
    })
}

/// Cuts at the given places, in any order and repeated or not.
pub(crate) fn split<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
    at.push(bytes.len());
    at.sort_unstable();
    let mut from = 0;
    let pieces = at.into_iter().map(|to| {
        let piece = &bytes[from..to];
        from = to;
        piece
    });
    pieces.collect()
}

/// Sizes of the chunks as the browser delivered them.
fn chunk_sizes(name: &str) -> Vec<usize> {
    let path = format!(
        "{}/tests/media/{name}.chunks.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(path).expect("a list of chunks");
    let list: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let chunks = list["chunks"].as_array().expect("chunks");
    let sizes = chunks
        .iter()
        .map(|chunk| chunk["size"].as_u64().expect("a size"));
    sizes
        .map(|size| usize::try_from(size).expect("a small chunk"))
        .collect()
}

#[test]
fn every_recording_is_read_without_losing_a_byte() {
    for (name, count, last_ms) in all() {
        let events = whole(&capture(name));
        assert_eq!(lost_bytes(&events), 0, "{name}");
        let packets = packets(&events);
        let last = packets.iter().map(|packet| packet.ts_ns).max();
        assert_eq!(
            (packets.len(), last.map(|ns| ns / 1_000_000)),
            (count, Some(last_ms)),
            "{name}"
        );
        let clusters = events
            .iter()
            .filter(|event| matches!(event, Event::ClusterStart { .. }));
        assert!(clusters.count() > 10, "{name}");
    }
}

#[test]
fn the_browsers_own_chunks_give_the_same_events() {
    for (name, _, _) in CAPTURES {
        let bytes = capture(name);
        let mut rest = &bytes[..];
        let chunks: Vec<_> = chunk_sizes(name)
            .into_iter()
            .map(|size| {
                let (chunk, after) = rest.split_at(size);
                rest = after;
                chunk
            })
            .collect();
        assert!(rest.is_empty(), "{name}");
        assert_eq!(events(&bytes, chunks.into_iter()), whole(&bytes), "{name}");
    }
}

#[test]
fn single_bytes_give_the_same_events() {
    for (name, _, _) in all() {
        let bytes = capture(name);
        assert_eq!(events(&bytes, bytes.chunks(1)), whole(&bytes), "{name}");
    }
}

#[test]
fn chromium_and_firefox_describe_their_tracks() {
    let chromium = tracks(&whole(&capture("opus250")));
    assert_eq!(
        chromium[0].kind,
        TrackKind::Audio {
            channels: 2,
            sample_rate: 48_000
        }
    );
    let firefox = tracks(&whole(&capture("ff_webm")));
    assert_eq!(
        (firefox[0].number, firefox[0].codec_delay_ns),
        (2, 6_500_000)
    );
    let ogg = tracks(&whole(&capture("ff_ogg")));
    assert_eq!(ogg[0].codec_private, firefox[0].codec_private);
    let video = tracks(&whole(&capture("vp8")));
    let kinds: Vec<_> = video
        .iter()
        .map(|track| (track.number, track.codec_id.as_str()))
        .collect();
    assert_eq!(kinds, [(1, "A_OPUS"), (2, "V_VP8")]);
    assert_eq!(
        video[1].kind,
        TrackKind::Video {
            width: 640,
            height: 360
        }
    );
}

#[test]
fn every_opus_packet_knows_its_length() {
    for (name, _, _) in CAPTURES {
        let events = whole(&capture(name));
        let opus = tracks(&events)
            .into_iter()
            .find(Track::is_opus)
            .expect("every take has sound");
        let packets = packets(&events);
        let sound = packets.iter().filter(|packet| packet.track == opus.number);
        assert!(sound.clone().all(|packet| packet.keyframe), "{name}");
        let lengths: u64 = sound.filter_map(|packet| packet.duration_ns).sum();
        let last = packets
            .iter()
            .map(|packet| packet.ts_ns.unsigned_abs())
            .max()
            .unwrap_or(0);
        assert!(
            lengths.abs_diff(last) < 200_000_000,
            "{name}: {lengths} for {last}"
        );
    }
}

#[test]
fn a_second_header_inside_a_take_is_reported_where_it_stands() {
    for name in ["opus250", "ff_webm", "ff_ogg", "mp4opus"] {
        let bytes = capture(name);
        let twice = [&bytes[..], &bytes].concat();
        let events = whole(&twice);
        let nested: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::NestedHeader { at } => Some(*at),
                _ => None,
            })
            .collect();
        assert_eq!(nested, [bytes.len() as u64], "{name}");
        assert_eq!(
            packets(&events).len(),
            2 * packets(&whole(&bytes)).len(),
            "{name}"
        );
        assert_eq!(lost_bytes(&events), 0, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None,
        ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_same_events(
        which in 0..all().len(),
        cuts in prop::collection::vec(any::<Index>(), 0..200),
    ) {
        let bytes = capture(all()[which].0);
        let pieces = split(&bytes, &cuts);
        prop_assert_eq!(events(&bytes, pieces.into_iter()), whole(&bytes));
    }

    #[test]
    fn any_split_of_a_damaged_take_gives_the_same_events(
        which in 0..all().len(),
        cuts in prop::collection::vec(any::<Index>(), 0..100),
        flips in prop::collection::vec((any::<Index>(), 1..=255u8), 1..20),
        gone in (any::<Index>(), 0..20_000usize),
    ) {
        let mut bytes = capture(all()[which].0);
        for (at, mask) in flips {
            // The first bytes decide the container, not the reader.
            let at = 16 + at.index(bytes.len() - 16);
            bytes[at] ^= mask;
        }
        let from = 16 + gone.0.index(bytes.len() - 16);
        bytes.drain(from..(from + gone.1).min(bytes.len()));
        let pieces = split(&bytes, &cuts);
        prop_assert_eq!(events(&bytes, pieces.into_iter()), whole(&bytes));
    }

    #[test]
    fn a_known_hole_costs_at_most_the_bytes_around_it(
        which in 0..all().len(),
        from in any::<Index>(),
        len in 1..60_000usize,
    ) {
        let (name, count, _) = all()[which];
        let bytes = capture(name);
        let from = 1_000 + from.index(bytes.len() - 1_000);
        let to = (from + len).min(bytes.len());
        let mut reader = TakeReader::new(container(&bytes));
        reader.push(&bytes[..from]);
        let mut events: Vec<_> = std::iter::from_fn(|| reader.poll()).collect();
        reader.skip((to - from) as u64);
        events.extend(std::iter::from_fn(|| reader.poll()));
        reader.push(&bytes[to..]);
        reader.finish();
        events.extend(std::iter::from_fn(|| reader.poll()));

        let all = packets(&whole(&bytes));
        let kept = packets(&events);
        prop_assert!(kept.len() <= count);
        prop_assert!(kept.iter().all(|packet| is_one_of(packet, &all)), "a packet was made up");
        let lost = lost_bytes(&events);
        // The made ones end with an index, which nobody misses.
        prop_assert!(name.starts_with("made") || lost >= (to - from) as u64);
        // To the next cluster: at most the longest one, 1.1 s of sound or 300 ms of video.
        prop_assert!(lost <= (to - from) as u64 + 40_000, "{} for {}", lost, to - from);
    }
}
