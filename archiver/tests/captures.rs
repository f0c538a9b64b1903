//! Recordings of real browsers through the archiver: what went in comes out, in the eyes of readers
//! that know nothing of this project.

mod support;

use aircheck_e2e::{
    faults::skipped,
    probe::{Packet, packets},
};
use aircheck_proto::archiver::Recording;
use matroska_demuxer::{Frame, MatroskaFile};
use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    path::{Path, PathBuf},
};
use support::{
    bench::Bench,
    readers::{decoded, duration},
    session::capture,
};

/// A folder with more captures, which are too large to be kept here.
const MORE: &str = "AIRCHECK_CAPTURES";
const WEBM: [&str; 8] = [
    "opus250", "sweepA", "pause", "silence", "vp8", "ff_webm", "ff_ogg", "mp4opus",
];
const MP4: [&str; 2] = ["made_aac", "made_avc"];
/// Between the beginnings of takes, ms: more than any capture lasts.
const APART_MS: u64 = 40_000;
/// An Opus packet of silence has 8 bytes, however long it lasts.
const SILENCE_BYTES_MAX: usize = 8;
/// The longest packet that a browser makes, seconds.
const PACKET_S: f64 = 0.061;

type Streams = BTreeMap<usize, VecDeque<Packet>>;

/// One archive as its readers need it.
struct Archived {
    bench: Bench,
    recording: Recording,
    file: PathBuf,
}

impl Archived {
    async fn of(takes: &[&[u8]]) -> Self {
        let bench = Bench::new().await;
        let walls = (0..).map(|nth| nth * APART_MS);
        let takes: Vec<_> = walls.zip(takes.iter().copied()).collect();
        let recording = bench.archive(&bench.session(&takes)).await;
        assert_eq!(recording.objects.len(), 1, "one file");
        let file = bench.file(&recording.objects[0]);
        Self {
            bench,
            recording,
            file,
        }
    }

    async fn streams(&self) -> Streams {
        packets(&self.bench.s3.object(&self.recording.objects[0])).await
    }

    /// Nobody complains, and everybody finds the same length.
    fn is_sound(&self, takes: usize, what: &str) {
        let told = self.recording.duration_ms.expect("a duration") as f64 / 1000.0;
        let shown = duration(&self.file);
        assert!(
            (shown - told).abs() < PACKET_S,
            "{what}: {shown} s and {told} s"
        );
        let heard = decoded(&self.file);
        // Sound may be shorter than its picture, by a packet each take.
        let slack = 0.1 + PACKET_S * (takes - 1) as f64;
        assert!((heard - told).abs() < slack, "{what}: {heard} of {told} s");
    }

    /// The demuxer of another project finds the packets that ffmpeg finds.
    fn is_read_alike(&self, streams: &Streams, what: &str) {
        let sizes = |stream: &VecDeque<Packet>| stream.iter().map(|packet| packet.bytes).collect();
        let of_ffmpeg: Vec<Vec<usize>> = streams.values().map(sizes).collect();
        assert_eq!(frame_sizes(&self.file), of_ffmpeg, "{what}");
    }
}

/// Lengths of all frames, by track.
fn frame_sizes(file: &Path) -> Vec<Vec<usize>> {
    let file = File::open(file).expect("the archive");
    let mut reader = MatroskaFile::open(file).expect("a Matroska file");
    let mut tracks: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    let mut frame = Frame::default();
    while reader.next_frame(&mut frame).expect("a sound file") {
        let track = tracks.entry(frame.track).or_default();
        track.push(frame.data.len());
    }
    tracks.into_values().collect()
}

/// Takes from the front of `found` what a take sent; only silence may lie between. `least` of its
/// packets have to be there, and none after the first that is missing.
fn take_out(found: &mut Streams, sent: &Streams, least: impl Fn(usize) -> usize, what: &str) {
    for (stream, sent) in sent {
        let archived = found.entry(*stream).or_default();
        let mut seen = 0;
        for packet in sent {
            let silent = |found: &&Packet| *found != packet && found.bytes <= SILENCE_BYTES_MAX;
            let between = archived.iter().take_while(silent).count();
            if archived.get(between) != Some(packet) {
                break;
            }
            archived.drain(..=between);
            seen += 1;
        }
        let least = least(sent.len());
        assert!(
            seen >= least,
            "{what}, stream {stream}: packet {seen} of {} is not there",
            sent.len()
        );
    }
}

/// What is left is silence at most: of a silent take it can't be told which packets were made up.
fn is_used_up(found: &Streams, what: &str) {
    let left = found.values().flatten();
    let left: Vec<_> = left
        .filter(|packet| packet.bytes > SILENCE_BYTES_MAX)
        .collect();
    assert!(left.is_empty(), "{what}: nobody sent {left:?}");
}

async fn is_whole(archived: &Archived, takes: &[&Streams], what: &str) {
    archived.is_sound(takes.len(), what);
    let mut found = archived.streams().await;
    if archived.recording.objects[0].ends_with(".webm") {
        archived.is_read_alike(&found, what);
    }
    for (nth, take) in takes.iter().enumerate() {
        take_out(&mut found, take, |all| all, &format!("{what}, take {nth}"));
    }
    is_used_up(&found, what);
}

/// Captures that only some machines have.
fn more_captures() -> Vec<(String, Vec<u8>)> {
    let Some(folder) = std::env::var_os(MORE) else {
        skipped(&format!("{MORE} names no folder with more captures"));
        return Vec::new();
    };
    let entries = std::fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let recordings = paths.filter(|path| path.extension().is_some_and(|name| name == "bin"));
    recordings
        .map(|path| {
            let bytes = std::fs::read(&path).expect("a capture");
            (path.display().to_string(), bytes)
        })
        .collect()
}

#[tokio::test]
async fn each_capture_is_whole_as_one_two_and_three_takes() {
    let known = WEBM.iter().chain(&MP4);
    let known = known.map(|name| ((*name).to_owned(), capture(name)));
    for (name, bytes) in known.chain(more_captures()) {
        let sent = packets(&bytes).await;
        for takes in 1..=3 {
            let archived = Archived::of(&vec![&bytes[..]; takes]).await;
            let what = format!("{takes} of {name}");
            is_whole(&archived, &vec![&sent; takes], &what).await;
        }
    }
}

#[tokio::test]
async fn takes_of_all_browsers_go_into_one_file() {
    let names = ["opus250", "ff_webm", "mp4opus", "ff_ogg", "sweepA"];
    let takes = names.map(capture);
    let mut sent = Vec::new();
    for take in &takes {
        sent.push(packets(take).await);
    }
    let archived = Archived::of(&takes.each_ref().map(Vec::as_slice)).await;
    let sent: Vec<_> = sent.iter().collect();
    is_whole(&archived, &sent, "a session of five takes").await;
}

#[tokio::test]
async fn sound_and_picture_that_only_mp4_holds_stay_mp4() {
    for (name, content_type) in [("made_aac", "audio/mp4"), ("made_avc", "video/mp4")] {
        let archived = Archived::of(&[&capture(name)]).await;
        let key = &archived.recording.objects[0];
        assert!(key.ends_with("/recording.mp4"), "{key}");
        let written = archived.bench.manifest();
        assert_eq!(written["objects"][0]["content_type"], content_type);
        assert_eq!(written["layout"], "stitched");
    }
}

/// Takes that break off anywhere, as when a tab dies: all whole packets before stay.
#[tokio::test]
async fn takes_that_end_at_any_byte_keep_what_was_whole() {
    let mut state = 20_261_123_u64;
    for name in WEBM {
        let bytes = capture(name);
        let sent = packets(&bytes).await;
        state = state.wrapping_mul(6_364_136_223_846_793_005) | 1;
        let at = 2000 + usize::try_from(state >> 33).expect("31 bits") % (bytes.len() - 2000);
        let archived = Archived::of(&[&bytes[..at], &bytes]).await;
        let what = format!("{name} cut at {at} of {}", bytes.len());
        archived.is_sound(2, &what);
        let mut found = archived.streams().await;
        archived.is_read_alike(&found, &what);
        // Packets are of about one size; what is lost at most is the last fragment.
        let least = |all: usize| (all * at / bytes.len()).saturating_sub(60);
        take_out(&mut found, &sent, least, &what);
        take_out(&mut found, &sent, |all| all, &what);
        is_used_up(&found, &what);
    }
}
