//! The live stream: small clusters at once, one clock across takes, every cluster a place to join.

use aircheck_core::media::live::{LiveCluster, LiveError, LiveMuxer};
use aircheck_core::media::packet::Event;
use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::demux::{packets, split, whole};
use crate::support::{Take, capture};

fn stream<'a>(
    live: &mut LiveMuxer,
    take: &Take,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Vec<LiveCluster> {
    live.begin_take(take.start());
    let mut clusters = Vec::new();
    for piece in pieces {
        live.push(piece).expect("a good take");
        clusters.extend(std::iter::from_fn(|| live.poll()));
    }
    live.end_take();
    clusters.extend(std::iter::from_fn(|| live.poll()));
    clusters
}

fn listened(live: &LiveMuxer, clusters: &[LiveCluster]) -> Vec<Event> {
    let init = live.init().expect("there was media");
    let bytes: Vec<u8> = std::iter::once(&init)
        .chain(clusters.iter().map(|cluster| &cluster.bytes))
        .flat_map(|bytes| bytes.iter().copied())
        .collect();
    whole(&bytes)
}

#[test]
fn sound_is_passed_on_in_clusters_of_300_ms() {
    let take = Take::of("ff_webm", 0);
    let mut live = LiveMuxer::new();
    let clusters = stream(&mut live, &take, take.bytes.chunks(1_000));
    let lengths: Vec<_> = clusters
        .windows(2)
        .map(|pair| pair[1].ts_ms - pair[0].ts_ms)
        .collect();
    assert!(
        lengths.iter().all(|ms| (260..=340).contains(ms)),
        "{lengths:?}"
    );
    assert!(clusters.iter().all(|cluster| cluster.starts_with_keyframe));
}

#[test]
fn a_cluster_is_out_as_soon_as_its_last_packet_is_in() {
    let take = Take::of("opus250", 0);
    let mut live = LiveMuxer::new();
    live.begin_take(take.start());
    let mut pushed = 0;
    let first = take.bytes.iter().find_map(|byte| {
        live.push(std::slice::from_ref(byte)).expect("a good take");
        pushed += 1;
        live.poll()
    });
    let first = first.expect("a cluster");
    // Nothing is held back: the header and the packets of the first 300 ms were all it took.
    let packets = packets(&whole(&take.bytes[..pushed]));
    assert_eq!((first.ts_ms, packets.len()), (0, 5));
}

#[test]
fn every_packet_of_the_take_reaches_the_listener() {
    for name in ["opus250", "vp8", "ff_webm", "ff_ogg", "mp4opus"] {
        let take = Take::of(name, 0);
        let mut live = LiveMuxer::new();
        let clusters = stream(&mut live, &take, take.bytes.chunks(5_000));
        let heard = packets(&listened(&live, &clusters));
        let sent = packets(&whole(&take.bytes));
        assert_eq!(heard.len(), sent.len(), "{name}");
        assert!(
            heard.iter().zip(&sent).all(|(a, b)| a.payload == b.payload),
            "{name}"
        );
    }
}

#[test]
fn picture_can_be_joined_at_its_keyframes() {
    let take = Take::of("vp8", 0);
    let mut live = LiveMuxer::new();
    let clusters = stream(&mut live, &take, take.bytes.chunks(5_000));
    let joinable: Vec<_> = clusters
        .iter()
        .filter(|cluster| cluster.starts_with_keyframe)
        .collect();
    assert_eq!(joinable.len(), 4);
    for cluster in joinable {
        let events = listened(&live, std::slice::from_ref(cluster));
        let first_picture = packets(&events)
            .into_iter()
            .find(|packet| packet.track == 2);
        assert!(first_picture.expect("picture").keyframe);
    }
}

#[test]
fn a_second_take_continues_the_clock_without_a_second_header() {
    let mut live = LiveMuxer::new();
    let first = Take::of("sweepA", 500);
    let second = Take::of("ff_ogg", 40_500);
    let mut clusters = stream(&mut live, &first, first.bytes.chunks(4_000));
    let init = live.init();
    clusters.extend(stream(&mut live, &second, second.bytes.chunks(4_000)));
    assert_eq!(live.init(), init);
    let events = listened(&live, &clusters);
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, Event::NestedHeader { .. }))
    );
    let heard = packets(&events);
    assert!(heard.windows(2).all(|pair| pair[0].ts_ns <= pair[1].ts_ns));
    assert_eq!(heard[333].ts_ns, 40_000_000_000);
}

#[test]
fn a_take_that_is_rejoined_in_its_middle_goes_on_from_there() {
    for name in ["opus250", "ff_webm", "ff_ogg", "mp4opus"] {
        let take = Take::of(name, 60_000);
        let middle = take.bytes.len() / 2;
        let known = [(0, Bytes::copy_from_slice(&take.bytes[..4_000]))];
        let mut live = LiveMuxer::new();
        live.rejoin_take(take.start(), &known, middle as u64)
            .expect("tracks");
        live.push(&take.bytes[middle..]).expect("media");
        live.end_take();
        let clusters: Vec<_> = std::iter::from_fn(|| live.poll()).collect();
        let heard = packets(&listened(&live, &clusters));
        let sent = packets(&whole(&take.bytes));
        assert!(heard.len() * 4 > sent.len(), "{name}: {}", heard.len());
        let rest = &sent[sent.len() - heard.len()..];
        assert!(
            heard.iter().zip(rest).all(|(a, b)| a.payload == b.payload),
            "{name}: what follows is there, unchanged"
        );
    }
}

#[test]
fn a_take_that_does_not_continue_the_stream_is_refused() {
    let mut live = LiveMuxer::new();
    let first = Take::of("sweepA", 0);
    stream(&mut live, &first, first.bytes.chunks(4_000));
    live.begin_take(Take::of("vp8", 30_000).start());
    let refused = live.push(&capture("vp8"));
    assert!(matches!(refused, Err(LiveError::Incompatible { codec_id }) if codec_id == "V_VP8"));
    assert_eq!(live.push(b"more"), Err(LiveError::NoTake));
    // The stream itself is still good.
    let third = Take::of("ff_webm", 60_000);
    assert!(!stream(&mut live, &third, third.bytes.chunks(4_000)).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None,
        ..ProptestConfig::default() })]

    #[test]
    fn clusters_do_not_depend_on_the_pieces(cuts in prop::collection::vec(any::<Index>(), 0..80)) {
        let take = Take::of("vp8", 0);
        let whole = stream(&mut LiveMuxer::new(), &take, std::iter::once(&take.bytes[..]));
        let pieces = split(&take.bytes, &cuts);
        let cut = stream(&mut LiveMuxer::new(), &take, pieces.into_iter());
        prop_assert_eq!(cut, whole);
    }
}
