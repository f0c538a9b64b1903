//! The archive: the packets that went in come out, in a file that another reader understands and
//! that does not depend on how the bytes arrived.

use std::io::Cursor;

use aircheck_core::media::archive::{
    Chapter, GapPolicy, MuxError, Muxer, Params, TakeStart, Volumes,
};
use aircheck_core::media::packet::Event;
use aircheck_core::media::probe::Container;
use matroska_demuxer::{Frame, MatroskaFile};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::demux::{CAPTURES, MADE, packets, split, whole};
use crate::support::{Archive, Take, archive, archive_with_markers, capture, params};

/// A frame as the independent reader sees it: track, ms, payload.
type Seen = (u64, u64, Vec<u8>);

fn open(archive: &Archive) -> MatroskaFile<Cursor<&[u8]>> {
    MatroskaFile::open(Cursor::new(&archive.bytes[..])).expect("a Matroska file")
}

fn frames(archive: &Archive) -> Vec<Seen> {
    let mut file = open(archive);
    let mut frame = Frame::default();
    let mut seen = Vec::new();
    while file.next_frame(&mut frame).expect("a sound file") {
        seen.push((frame.track, frame.timestamp, frame.data.clone()));
    }
    seen
}

fn of_takes(names: &[(&str, u64)]) -> Vec<Take> {
    names
        .iter()
        .map(|(name, wall_ms)| Take::of(name, *wall_ms))
        .collect()
}

#[test]
fn one_take_comes_out_as_it_went_in() {
    for (name, _, _) in CAPTURES {
        let archive = archive(&of_takes(&[(name, 300)]), params(), 4_096);
        let packets = packets(&whole(&capture(name)));
        let expected: Vec<Seen> = packets
            .iter()
            .map(|packet| {
                let ms = u64::try_from(packet.ts_ns / 1_000_000).expect("after zero");
                (packet.track, ms, packet.payload.to_vec())
            })
            .collect();
        assert_eq!(frames(&archive), expected, "{name}");
        assert_eq!(archive.end.stats.packets, packets.len() as u64, "{name}");
        assert_eq!(archive.end.stats.silence_ms, 0, "{name}");
        let duration = open(&archive).info().duration().expect("a duration");
        assert!(
            (duration - archive.end.duration_ms as f64).abs() <= 0.5,
            "{name}: {duration}"
        );
    }
}

#[test]
fn own_archives_read_back_as_a_take_of_the_same_packets() {
    for (name, count, _) in CAPTURES {
        let archive = archive(&of_takes(&[(name, 0)]), params(), 4_096);
        let events = whole(&archive.bytes);
        assert_eq!(packets(&events).len(), count, "{name}");
        assert!(
            !events
                .iter()
                .any(|event| matches!(event, Event::Lost { .. })),
            "{name}"
        );
    }
}

#[test]
fn the_index_leads_to_clusters_that_begin_with_its_time() {
    for (name, points) in [("opus250", 6), ("vp8", 4), ("ff_webm", 4)] {
        let archive = archive(&of_takes(&[(name, 0)]), params(), 4_096);
        assert_eq!(archive.end.stats.cue_every, 1);
        let starts: Vec<_> = whole(&archive.bytes)
            .into_iter()
            .filter_map(|event| match event {
                Event::ClusterStart { at } => Some(at),
                _ => None,
            })
            .collect();
        assert_eq!(starts.len(), points, "{name}");
        assert_eq!(starts[0], params().reserved_bytes as u64, "{name}");
        let mut file = open(&archive);
        let mut frame = Frame::default();
        for second in [3, 7, 11, 14] {
            file.seek(second * 1_000).expect("an index");
            assert!(file.next_frame(&mut frame).expect("a frame"), "{name}");
            let distance = (second * 1_000).abs_diff(frame.timestamp);
            assert!(
                distance <= 5_100,
                "{name}: {} for {second} s",
                frame.timestamp
            );
        }
    }
}

#[test]
fn a_gap_between_takes_is_filled_to_the_wall_clock() {
    let takes = of_takes(&[("sweepA", 250), ("sweepA", 35_250)]);
    let archive = archive(&takes, params(), 5_000);
    assert_eq!(archive.end.duration_ms, 54_980);
    assert_eq!(archive.end.stats.silence_ms, 15_020);
    let frames = frames(&archive);
    let second: Vec<_> = frames.iter().filter(|(_, ms, _)| *ms >= 35_000).collect();
    assert_eq!((second.len(), second[0].1), (333, 35_000));
    // No hole is left anywhere: each frame begins where the one before ends, but for jitter.
    let largest = frames.windows(2).map(|pair| pair[1].1 - pair[0].1).max();
    assert!(largest <= Some(70), "{largest:?}");
}

#[test]
fn a_closed_gap_leaves_no_trace() {
    let takes = of_takes(&[("sweepA", 250), ("sweepA", 35_250), ("sweepA", 90_000)]);
    let archive = archive(
        &takes,
        Params {
            gap_policy: GapPolicy::Close,
            ..params()
        },
        5_000,
    );
    assert_eq!(archive.end.duration_ms, 3 * 19_980);
    assert_eq!(archive.end.stats.silence_ms, 0);
    assert_eq!(frames(&archive).len(), 999);
}

#[test]
fn a_hole_inside_a_take_is_filled() {
    let bytes = capture("opus250");
    let mut muxer = Muxer::new(params()).expect("sensible parameters");
    muxer
        .begin_take(Take::of("opus250", 0).start())
        .expect("no take before");
    muxer.push(&bytes[..100_000]).expect("a good take");
    muxer.hole(80_000).expect("a hole is no error");
    muxer.push(&bytes[180_000..]).expect("a good take");
    let header_len = params().reserved_bytes as u64;
    let body = muxer.take_body();
    let end = muxer.finish(&[]).expect("there is media");
    assert_eq!(end.duration_ms, 30_000);
    assert!(
        (4_500..6_000).contains(&end.stats.silence_ms),
        "{:?}",
        end.stats
    );
    assert!(
        end.stats.lost_bytes >= 80_000 && end.stats.resyncs == 1,
        "{:?}",
        end.stats
    );
    let tail_len = end.tail.len() as u64;
    assert_eq!(end.total_bytes, header_len + body.len() as u64 + tail_len);
}

#[test]
fn browsers_can_follow_each_other_in_one_file() {
    let takes = of_takes(&[
        ("opus250", 0),
        ("ff_webm", 40_000),
        ("ff_ogg", 60_000),
        ("mp4opus", 80_000),
    ]);
    let archive = archive(&takes, params(), 3_000);
    let frames = frames(&archive);
    assert!(frames.iter().all(|(track, _, _)| *track == 1));
    assert!(frames.windows(2).all(|pair| pair[0].1 <= pair[1].1));
    for (name, from) in [
        ("opus250", 0),
        ("ff_webm", 40_000),
        ("ff_ogg", 60_000),
        ("mp4opus", 80_000),
    ] {
        let payloads: Vec<_> = packets(&whole(&capture(name)));
        let first = frames
            .iter()
            .position(|(_, ms, _)| *ms >= from)
            .expect("the take");
        let same = frames[first..]
            .iter()
            .zip(&payloads)
            .all(|(frame, packet)| frame.2 == packet.payload);
        assert!(same, "{name}");
    }
}

#[test]
fn a_restarted_encoder_inside_a_take_goes_on_where_it_stopped() {
    let sweep = capture("sweepA");
    let take = Take {
        wall_ms: 0,
        bytes: [&sweep[..], &sweep].concat(),
    };
    let archive = archive(&[take], params(), 10_000);
    assert_eq!(archive.end.duration_ms, 2 * 19_980);
    assert_eq!(frames(&archive).len(), 666);
}

#[test]
fn markers_become_chapters_on_the_media_clock() {
    let takes = of_takes(&[("sweepA", 250), ("sweepA", 35_250)]);
    let markers = [
        Chapter {
            at_ms: 45_250,
            label: "second".to_owned(),
        },
        Chapter {
            at_ms: 5_250,
            label: "first".to_owned(),
        },
    ];
    let closed = Params {
        gap_policy: GapPolicy::Close,
        ..params()
    };
    for (params, expected) in [(params(), [5_000, 45_000]), (closed, [5_000, 29_980])] {
        let archive = archive_with_markers(&takes, params, 5_000, &markers);
        assert_eq!(archive.end.chapters, 2);
        let file = open(&archive);
        let atoms = file.chapters().expect("chapters")[0].chapter_atoms();
        let shown: Vec<_> = atoms
            .iter()
            .map(|atom| (atom.time_start() / 1_000_000, atom.displays()[0].string()))
            .collect();
        assert_eq!(shown, [(expected[0], "first"), (expected[1], "second")]);
    }
}

#[test]
fn the_title_and_date_are_the_sessions() {
    let with_title = Params {
        title: Some("Morning show".to_owned()),
        ..params()
    };
    let archive = archive(&of_takes(&[("silence", 0)]), with_title, 5_000);
    let file = open(&archive);
    assert_eq!(file.info().title(), Some("Morning show"));
    // 2026-11-23T20:15:00Z in ns since 2001.
    assert_eq!(file.info().date_utc(), Some(817_157_700_000_000_000));
    assert_eq!(file.ebml_header().doc_type(), "webm");
}

#[test]
fn a_take_with_other_codecs_begins_the_next_volume() {
    let mut volumes = Volumes::new(params()).expect("sensible parameters");
    let takes = of_takes(&[("opus250", 0), ("vp8", 40_000), ("vp8", 70_000)]);
    for take in &takes {
        volumes
            .begin_take(take.start())
            .expect("the take before was good");
        for piece in take.bytes.chunks(4_000) {
            volumes.push(piece).expect("a good take");
        }
    }
    volumes.end_take().expect("a good take");
    let first = volumes.take_full().expect("the first volume is full");
    assert!(volumes.take_full().is_none());
    assert_eq!(
        (volumes.index(), volumes.current().origin_ms()),
        (1, 40_000)
    );
    assert_eq!(
        first.finish(&[]).expect("there is media").duration_ms,
        30_000
    );
    let second = volumes.into_last().finish(&[]).expect("there is media");
    assert_eq!(second.content_type, "video/webm");
    assert!(
        second.duration_ms.abs_diff(49_980) < 50,
        "{}",
        second.duration_ms
    );
    let alone = archive(&takes[1..], params(), 9_000);
    assert_eq!(
        second.header, alone.end.header,
        "a volume is what its takes alone would be"
    );
}

#[test]
fn sound_alone_may_follow_sound_and_picture() {
    let takes = of_takes(&[("vp8", 0), ("ff_webm", 25_000)]);
    let archive = archive(&takes, params(), 5_000);
    assert!(
        archive.end.duration_ms.abs_diff(40_500) < 50,
        "{}",
        archive.end.duration_ms
    );
    assert_eq!(archive.end.content_type, "video/webm");
}

#[test]
fn what_cannot_be_archived_is_refused_with_a_reason() {
    assert!(matches!(
        Muxer::new(Params {
            reserved_bytes: 100,
            ..params()
        }),
        Err(MuxError::ReservedBytes { bytes: 100 })
    ));
    let mut muxer = Muxer::new(params()).expect("sensible parameters");
    assert_eq!(muxer.push(b"x"), Err(MuxError::NoTake));
    assert!(muxer.live_header().is_none());
    muxer
        .begin_take(TakeStart {
            wall_ms: 0,
            container: Container::WebM,
        })
        .expect("no take before");
    muxer
        .push(b"nothing of the kind")
        .expect("waits for something it knows");
    assert_eq!(muxer.finish(&[]), Err(MuxError::NoMedia));
}

#[test]
fn the_header_has_its_length_whatever_is_in_it() {
    let long = "x".repeat(300);
    let many: Vec<_> = (0..3_000)
        .map(|at| Chapter {
            at_ms: at * 7,
            label: long.clone(),
        })
        .collect();
    for reserved_bytes in [4_096, 5_000, 65_536] {
        let params = Params {
            reserved_bytes,
            title: Some(long.clone()),
            ..params()
        };
        let archive = archive_with_markers(&of_takes(&[("opus250", 0)]), params, 5_000, &many);
        assert_eq!(archive.end.header.len(), reserved_bytes);
        assert_eq!(frames(&archive).len(), 500);
        assert!(archive.end.chapters < many.len());
    }
}

/// Total of the samples that the tables of a finished MP4 list, read by another library.
fn listed_samples(archive: &Archive) -> usize {
    let moov_at = archive
        .bytes
        .windows(4)
        .rposition(|window| window == b"moov")
        .expect("a moov");
    let mut bytes = &archive.bytes[moov_at - 4..];
    let moov = <mp4_atom::Moov as mp4_atom::Decode>::decode(&mut bytes).expect("a sound moov");
    assert!(bytes.is_empty(), "the moov is the end of the file");
    assert!(moov.mvex.is_none(), "a finished file has no fragments");
    let samples = moov
        .trak
        .iter()
        .map(|trak| match &trak.mdia.minf.stbl.stsz.samples {
            mp4_atom::StszSamples::Identical { count, .. } => *count as usize,
            mp4_atom::StszSamples::Different { sizes } => sizes.len(),
        });
    samples.sum()
}

#[test]
fn what_only_mp4_brings_is_archived_as_mp4_with_every_sample() {
    for (name, count, _) in MADE {
        let takes = of_takes(&[(name, 0), (name, 60_000)]);
        let archive = archive(&takes, params(), 3_000);
        assert_eq!(listed_samples(&archive), 2 * count, "{name}");
        assert_eq!(archive.bytes[4..8], *b"ftyp");
        let mdat = params().reserved_bytes - 12;
        assert_eq!(archive.bytes[mdat..mdat + 4], *b"mdat");
    }
}

#[test]
fn a_growing_mp4_reads_back_as_the_take_it_holds() {
    for (name, _, _) in MADE {
        let take = Take::of(name, 0);
        let mut muxer = Muxer::new(params()).expect("sensible parameters");
        muxer.begin_take(take.start()).expect("no take before");
        muxer.push(&take.bytes).expect("a good take");
        let header = muxer.live_header().expect("there is media");
        assert_eq!(header.len(), params().reserved_bytes);
        let growing = [&header[..], &muxer.take_body()].concat();
        let kept = packets(&whole(&growing));
        let sent = packets(&whole(&take.bytes));
        assert!(kept.len() > sent.len() / 2, "{name}: {}", kept.len());
        for track in [1, 2] {
            let of = |all: &[aircheck_core::media::Packet]| -> Vec<_> {
                let own = all.iter().filter(|packet| packet.track == track);
                own.map(|packet| packet.payload.clone()).collect()
            };
            let (kept, sent) = (of(&kept), of(&sent));
            assert_eq!(kept[..], sent[..kept.len()], "{name} track {track}");
        }
    }
}

#[test]
fn aac_after_opus_begins_the_next_volume_as_mp4() {
    let mut volumes = Volumes::new(params()).expect("sensible parameters");
    for take in of_takes(&[("opus250", 0), ("made_aac", 40_000)]) {
        volumes
            .begin_take(take.start())
            .expect("the take before was good");
        volumes.push(&take.bytes).expect("a good take");
    }
    volumes.end_take().expect("a good take");
    let first = volumes.take_full().expect("the first volume is full");
    assert_eq!(first.finish(&[]).expect("media").content_type, "audio/webm");
    assert_eq!(
        volumes.into_last().finish(&[]).expect("media").content_type,
        "audio/mp4"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None,
        ..ProptestConfig::default() })]

    #[test]
    fn the_bytes_of_an_archive_do_not_depend_on_the_pieces(
        order in prop::collection::vec((0..CAPTURES.len(), 0..60_000u64), 1..4),
        cuts in prop::collection::vec(any::<Index>(), 0..60),
        drained in any::<bool>(),
    ) {
        // Takes with picture go into volumes of their own; here all go into one file.
        let takes: Vec<_> = order
            .iter()
            .map(|(which, wall_ms)| (CAPTURES[*which].0, *wall_ms))
            .filter(|(name, _)| *name != "vp8")
            .collect();
        prop_assume!(!takes.is_empty());
        let takes = of_takes(&takes);
        let expected = archive(&takes, params(), usize::MAX);
        let mut muxer = Muxer::new(params()).expect("sensible parameters");
        let mut body = Vec::new();
        for take in &takes {
            muxer.begin_take(take.start()).expect("a good take");
            for piece in split(&take.bytes, &cuts) {
                muxer.push(piece).expect("a good take");
                if drained {
                    body.extend_from_slice(&muxer.take_body());
                }
            }
        }
        let end = muxer.finish(&[]).expect("there is media");
        prop_assert_eq!(&end.header, &expected.end.header);
        let bytes = [&end.header[..], &body, &end.tail].concat();
        prop_assert!(bytes == expected.bytes);
    }

    #[test]
    fn the_bytes_of_an_mp4_do_not_depend_on_the_pieces(
        which in 0..MADE.len(),
        cuts in prop::collection::vec(any::<Index>(), 0..60),
    ) {
        let take = Take::of(MADE[which].0, 0);
        let expected = archive(std::slice::from_ref(&take), params(), usize::MAX);
        let mut muxer = Muxer::new(params()).expect("sensible parameters");
        let mut body = Vec::new();
        muxer.begin_take(take.start()).expect("no take before");
        for piece in split(&take.bytes, &cuts) {
            muxer.push(piece).expect("a good take");
            body.extend_from_slice(&muxer.take_body());
        }
        let end = muxer.finish(&[]).expect("there is media");
        let bytes = [&end.header[..], &body, &end.tail].concat();
        prop_assert!(bytes == expected.bytes);
    }
}
