//! Archives and live streams in the eyes of ffmpeg. It is an independent reader with strict
//! warnings: no word from it, the right length, and the very packets that went in.
//!
//! These tests need `ffmpeg` and `ffprobe` (Debian: `apt-get install ffmpeg`) and fail without.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use aircheck_core::media::archive::{Chapter, GapPolicy, Params};
use aircheck_core::media::live::LiveMuxer;

#[path = "media/support.rs"]
mod support;

use support::{Archive, Take, archive, archive_with_markers, params};

/// A directory of this process for files that ffmpeg reads; removed when dropped.
struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("aircheck-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a temporary directory");
        Self { dir }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.join(name);
        std::fs::write(&path, bytes).expect("a temporary file");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A test that failed has said why; what is left in the temporary directory does no harm.
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

fn run(program: &str, args: &[&str], file: &Path, more: &[&str]) -> Output {
    let output = Command::new(program)
        .args(args)
        .arg(file)
        .args(more)
        .output();
    let output = output.unwrap_or_else(|error| {
        panic!("{program} is needed for this test (Debian: apt-get install ffmpeg): {error}")
    });
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// What ffprobe warns of; nothing for a good file.
fn warnings(file: &Path) -> String {
    let output = run(
        "ffprobe",
        &["-v", "warning", "-count_packets", "-show_streams"],
        file,
        &[],
    );
    text(&output.stderr)
}

fn duration_s(file: &Path) -> f64 {
    let args = [
        "-v",
        "error",
        "-show_entries",
        "format=duration",
        "-of",
        "csv=p=0",
    ];
    text(&run("ffprobe", &args, file, &[]).stdout)
        .parse()
        .expect("a finite duration")
}

/// Digest of the packets of one track (`a:0`, `v:0`).
fn packets_md5(file: &Path, track: &str) -> String {
    let args = ["-v", "error", "-i"];
    let map = format!("0:{track}");
    text(
        &run(
            "ffmpeg",
            &args,
            file,
            &["-map", &map, "-c", "copy", "-f", "md5", "-"],
        )
        .stdout,
    )
}

/// Length of the decoded sound in seconds, and what the decoder complained of.
fn decoded_s(file: &Path) -> (f64, String) {
    let more = [
        "-map", "0:a:0", "-f", "s16le", "-ac", "1", "-ar", "8000", "-",
    ];
    let output = run("ffmpeg", &["-v", "warning", "-i"], file, &more);
    (output.stdout.len() as f64 / 16_000.0, text(&output.stderr))
}

fn assert_near(actual: f64, expected: f64, what: &str) {
    assert!(
        (actual - expected).abs() < 0.1,
        "{what}: {actual} instead of {expected}"
    );
}

fn assert_sound(archive: &Archive, file: &Path) {
    assert_eq!(warnings(file), "");
    let expected = archive.end.duration_ms as f64 / 1_000.0;
    assert_near(duration_s(file), expected, "ffprobe's duration");
    let (seconds, complaints) = decoded_s(file);
    assert_eq!(complaints, "");
    assert_near(seconds, expected, "decoded length");
}

#[test]
fn a_single_take_keeps_its_very_packets() {
    let scratch = Scratch::new("single");
    for (name, seconds, tracks) in [
        ("opus250", 30.0, &["a:0"][..]),
        ("vp8", 19.98, &["a:0", "v:0"]),
        ("pause", 7.98, &["a:0"]),
        ("silence", 12.0, &["a:0"]),
        ("ff_webm", 15.506, &["a:0"]),
        ("ff_ogg", 15.38, &["a:0"]),
        ("mp4opus", 15.0, &["a:0"]),
    ] {
        let take = Take::of(name, 300);
        let archive = archive(std::slice::from_ref(&take), params(), 4_096);
        let raw = scratch.file(&format!("{name}.raw"), &take.bytes);
        let file = scratch.file(&format!("{name}.webm"), &archive.bytes);
        assert_sound(&archive, &file);
        assert_near(archive.end.duration_ms as f64 / 1_000.0, seconds, name);
        for track in tracks {
            assert_eq!(
                packets_md5(&file, track),
                packets_md5(&raw, track),
                "{name} {track}"
            );
        }
    }
}

#[test]
fn takes_apart_are_one_recording_with_silence_between() {
    let scratch = Scratch::new("stitched");
    let takes = [
        Take::of("sweepA", 250),
        Take::of("sweepA", 35_250),
        Take::of("sweepA", 60_250),
    ];
    let archive = archive(&takes, params(), 5_000);
    let file = scratch.file("stitched.webm", &archive.bytes);
    assert_sound(&archive, &file);
    assert_near(duration_s(&file), 79.98, "three takes and two gaps");
}

#[test]
fn closed_gaps_make_the_recording_as_long_as_its_takes() {
    let scratch = Scratch::new("closed");
    let takes = [Take::of("sweepA", 250), Take::of("sweepA", 35_250)];
    let archive = archive(
        &takes,
        Params {
            gap_policy: GapPolicy::Close,
            ..params()
        },
        5_000,
    );
    let file = scratch.file("closed.webm", &archive.bytes);
    assert_sound(&archive, &file);
    assert_near(duration_s(&file), 39.96, "two takes");
}

#[test]
fn chromium_and_firefox_share_one_recording() {
    let scratch = Scratch::new("browsers");
    let takes = [
        Take::of("opus250", 0),
        Take::of("ff_webm", 40_000),
        Take::of("mp4opus", 60_000),
        Take::of("ff_ogg", 80_000),
    ];
    let archive = archive(&takes, params(), 7_000);
    let file = scratch.file("browsers.webm", &archive.bytes);
    assert_sound(&archive, &file);
    assert_near(duration_s(&file), 95.38, "four browsers' takes");
}

#[test]
fn picture_and_sound_are_stitched_together() {
    let scratch = Scratch::new("video");
    let takes = [Take::of("vp8", 0), Take::of("vp8", 30_000)];
    let archive = archive(&takes, params(), 9_000);
    let file = scratch.file("video.webm", &archive.bytes);
    assert_sound(&archive, &file);
    let count = ["-v", "error", "-count_packets", "-select_streams", "v:0"];
    let more = ["-show_entries", "stream=nb_read_packets", "-of", "csv=p=0"];
    assert_eq!(
        text(&run("ffprobe", &[&count[..], &more].concat(), &file, &[]).stdout),
        "800"
    );
    let decoded = run(
        "ffmpeg",
        &["-v", "warning", "-i"],
        &file,
        &["-map", "0:v", "-f", "null", "-"],
    );
    assert_eq!(text(&decoded.stderr), "");
}

#[test]
fn markers_are_chapters_at_their_place() {
    let scratch = Scratch::new("chapters");
    let takes = [Take::of("sweepA", 250), Take::of("sweepA", 35_250)];
    let markers = [
        Chapter {
            at_ms: 5_250,
            label: "First guest".to_owned(),
        },
        Chapter {
            at_ms: 40_250,
            label: "After the break \u{1F399}".to_owned(),
        },
    ];
    let archive = archive_with_markers(&takes, params(), 5_000, &markers);
    let file = scratch.file("chapters.webm", &archive.bytes);
    assert_sound(&archive, &file);
    let args = ["-v", "warning", "-show_chapters", "-of", "csv"];
    let shown = text(&run("ffprobe", &args, &file, &[]).stdout);
    let shown: Vec<_> = shown.lines().collect();
    assert!(
        shown[0].contains(",5.000000,") && shown[0].ends_with("First guest"),
        "{shown:?}"
    );
    assert!(
        shown[1].contains(",40.000000,") && shown[1].contains("After the break"),
        "{shown:?}"
    );
}

#[test]
fn the_unfinished_file_plays_with_its_live_header() {
    let scratch = Scratch::new("unfinished");
    let take = Take::of("opus250", 0);
    let mut muxer = aircheck_core::media::Muxer::new(params()).expect("sensible parameters");
    muxer.begin_take(take.start()).expect("no take before");
    muxer.push(&take.bytes).expect("a good take");
    let header = muxer.live_header().expect("there is media");
    let body = muxer.take_body();
    let file = scratch.file("live.webm", &[&header[..], &body].concat());
    assert_eq!(header.len(), params().reserved_bytes);
    assert_eq!(warnings(&file), "");
    let (seconds, complaints) = decoded_s(&file);
    assert_eq!(complaints, "");
    assert_near(seconds, 25.2, "all closed clusters");
}

#[test]
fn what_only_mp4_brings_stays_mp4() {
    let scratch = Scratch::new("mp4");
    for (name, seconds, tracks) in [
        ("made_aac", 6.0, &["a:0"][..]),
        ("made_avc", 6.0, &["a:0", "v:0"]),
    ] {
        let take = Take::of(name, 300);
        let archive = archive(std::slice::from_ref(&take), params(), 3_000);
        let raw = scratch.file(&format!("{name}.raw"), &take.bytes);
        let file = scratch.file(&format!("{name}.mp4"), &archive.bytes);
        assert!(
            archive.end.content_type.ends_with("/mp4"),
            "{}",
            archive.end.content_type
        );
        assert_sound(&archive, &file);
        assert_near(archive.end.duration_ms as f64 / 1_000.0, seconds, name);
        for track in tracks {
            assert_eq!(
                packets_md5(&file, track),
                packets_md5(&raw, track),
                "{name} {track}"
            );
        }
    }
}

#[test]
fn mp4_takes_are_stitched_and_play_while_they_grow() {
    let scratch = Scratch::new("mp4-takes");
    let takes = [Take::of("made_avc", 0), Take::of("made_avc", 20_000)];
    let archive = archive(&takes, params(), 3_000);
    let file = scratch.file("takes.mp4", &archive.bytes);
    assert_sound(&archive, &file);
    assert_near(duration_s(&file), 12.16, "a gap in AAC is closed");
    let decoded = run(
        "ffmpeg",
        &["-v", "warning", "-i"],
        &file,
        &["-map", "0:v", "-f", "null", "-"],
    );
    assert_eq!(text(&decoded.stderr), "");

    let mut muxer = aircheck_core::media::Muxer::new(params()).expect("sensible parameters");
    muxer.begin_take(takes[0].start()).expect("no take before");
    muxer.push(&takes[0].bytes).expect("a good take");
    let header = muxer.live_header().expect("there is media");
    let growing = scratch.file("growing.mp4", &[&header[..], &muxer.take_body()].concat());
    assert_eq!(header.len(), params().reserved_bytes);
    assert_eq!(warnings(&growing), "");
    let (seconds, complaints) = decoded_s(&growing);
    assert_eq!(complaints, "");
    assert_near(seconds, 4.0, "all closed fragments");
}

#[test]
fn a_listener_hears_two_takes_as_one_stream() {
    let scratch = Scratch::new("listener");
    let mut live = LiveMuxer::new();
    let mut clusters = Vec::new();
    for take in [Take::of("sweepA", 250), Take::of("ff_webm", 20_260)] {
        live.begin_take(take.start());
        for piece in take.bytes.chunks(3_000) {
            live.push(piece).expect("a good take");
            clusters.extend(std::iter::from_fn(|| live.poll()));
        }
    }
    live.end_take();
    clusters.extend(std::iter::from_fn(|| live.poll()));
    let init = live.init().expect("there was media");
    // A late listener: the header, then whatever comes from a cluster on.
    for from in [0, 20] {
        let expected = 35.506 - clusters[from].ts_ms as f64 / 1_000.0;
        let bytes: Vec<_> = std::iter::once(&init)
            .chain(clusters[from..].iter().map(|cluster| &cluster.bytes))
            .flat_map(|bytes| bytes.to_vec())
            .collect();
        let file = scratch.file("listener.webm", &bytes);
        assert_eq!(warnings(&file), "");
        let (seconds, complaints) = decoded_s(&file);
        assert_eq!(complaints, "");
        assert_near(seconds, expected, "what the listener hears");
    }
}
