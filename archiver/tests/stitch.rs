//! The stitched archive: what real recordings become, as other readers see it.

mod support;

use aircheck_core::{recording::Marker, spool::GapPolicy};
use support::{
    bench::{Bench, FOLDER},
    readers::{decoded, duration, packets, run},
    session::{capture, gap, sealed, show, stitched_with},
};

#[tokio::test]
async fn one_take_keeps_every_packet_and_gets_a_duration_and_an_index() {
    for (name, content_type) in [
        ("opus250", "audio/webm"),
        ("ff_webm", "audio/webm"),
        ("ff_ogg", "audio/webm"),
        ("mp4opus", "audio/webm"),
        ("vp8", "video/webm"),
    ] {
        let bench = Bench::new().await;
        let take = capture(name);
        let manifest = bench.session(&[(0, &take)]);
        let recording = bench.archive(&manifest).await;
        let key = format!("{FOLDER}/recording.webm");
        assert_eq!(
            recording.object_key.as_deref(),
            Some(key.as_str()),
            "{name}"
        );
        let (expected, end) = stitched_with(&manifest, &[&take]);
        assert!(bench.s3.object(&key) == expected, "{name}: other bytes");
        assert_eq!(recording.bytes, expected.len() as u64);
        assert_eq!(recording.duration_ms, Some(end.duration_ms));
        assert_eq!(end.content_type, content_type);
        let file = bench.file(&key);
        let (shown, told) = (duration(&file), end.duration_ms as f64 / 1000.0);
        assert!((shown - told).abs() < 0.02, "{name}: {shown} and {told}");
        assert!((decoded(&file) - told).abs() < 0.1, "{name}");
        let captured = bench.folder.path().join("capture");
        std::fs::write(&captured, &take).expect("write the capture");
        assert_eq!(packets(&file), packets(&captured), "{name}");

        let written = bench.manifest();
        assert_eq!(written["layout"], "stitched");
        assert_eq!(written["duration_ms"], end.duration_ms);
        assert_eq!(written["mux"]["version"], 1);
        assert_eq!(written["mux"]["packets"], end.stats.packets);
        assert!(written["takes"][0]["crc64nvme"].is_string());
        assert_eq!(written["objects"][0]["content_type"], content_type);
    }
}

#[tokio::test]
async fn takes_of_two_browsers_become_one_file_on_the_wall_clock() {
    let bench = Bench::new().await;
    let (chromium, firefox) = (capture("opus250"), capture("ff_webm"));
    let takes: [(u64, &[u8]); 3] = [(300, &chromium), (60_300, &firefox), (100_300, &chromium)];
    let mut manifest = bench.session(&takes);
    manifest.title = Some("Morning show".to_owned());
    for (at_ms, label, kind) in [
        (61_000, "second", "track"),
        (300, "first", "chapter"),
        (5000, "never mind", "note"),
    ] {
        manifest.markers.push(Marker {
            at_ms,
            label: label.to_owned(),
            kind: kind.to_owned(),
        });
    }
    let recording = bench.archive(&manifest).await;
    assert_eq!(recording.objects.len(), 1);
    let file = bench.file(&recording.objects[0]);
    let seconds = duration(&file);
    let third = capture_seconds("opus250");
    assert!((seconds - 100.0 - third).abs() < 0.2, "{seconds}");
    assert!((decoded(&file) - seconds).abs() < 0.2);
    let args = [
        "-v",
        "warning",
        "-show_chapters",
        "-show_format",
        "-of",
        "json",
        "FILE",
    ];
    let shown: serde_json::Value =
        serde_json::from_str(&run("ffprobe", &args, &file)).expect("json");
    let title = |chapter: usize| shown["chapters"][chapter]["tags"]["title"].as_str();
    assert_eq!(
        (title(0), title(1), title(2)),
        (Some("first"), Some("second"), None)
    );
    assert_eq!(shown["format"]["tags"]["title"], "Morning show");
    let created = shown["format"]["tags"]["creation_time"].as_str();
    assert!(
        created.is_some_and(|time| time.starts_with("2026-11-23T20:15:00")),
        "{created:?}"
    );
}

/// Length of a capture, seconds.
fn capture_seconds(name: &str) -> f64 {
    let take = capture(name);
    let (_, end) = stitched_with(&sealed(1, &[take.len() as u64]), &[&take]);
    end.duration_ms as f64 / 1000.0
}

#[tokio::test]
async fn a_show_that_closes_its_gaps_is_as_long_as_its_media() {
    let bench = Bench::new().await;
    let take = capture("opus250");
    let mut manifest = bench.session(&[(0, &take), (600_000, &take)]);
    manifest.gap_policy = GapPolicy::Close;
    let recording = bench.archive(&manifest).await;
    let seconds = duration(&bench.file(&recording.objects[0]));
    assert!(
        (seconds - 2.0 * capture_seconds("opus250")).abs() < 0.2,
        "{seconds}"
    );
}

#[tokio::test]
async fn codecs_that_do_not_go_together_make_a_second_volume() {
    let bench = Bench::new().await;
    let (sound, picture) = (capture("opus250"), capture("vp8"));
    let mut manifest = bench.session(&[(0, &sound), (60_000, &picture)]);
    for (at_ms, label) in [(1000, "sound"), (61_000, "picture")] {
        manifest.markers.push(Marker {
            at_ms,
            label: label.to_owned(),
            kind: "track".to_owned(),
        });
    }
    let recording = bench.archive(&manifest).await;
    let keys = [
        format!("{FOLDER}/recording.webm"),
        format!("{FOLDER}/recording.vol2.webm"),
    ];
    assert_eq!(recording.objects, keys);
    assert_eq!(recording.object_key.as_ref(), Some(&keys[0]));
    let files = keys.each_ref().map(|key| bench.file(key));
    let told = recording.duration_ms.expect("a duration") as f64 / 1000.0;
    assert!((duration(&files[0]) + duration(&files[1]) - told).abs() < 0.05);
    for (file, label) in files.iter().zip(["sound", "picture"]) {
        let args = ["-v", "warning", "-show_chapters", "-of", "json", "FILE"];
        let shown: serde_json::Value =
            serde_json::from_str(&run("ffprobe", &args, file)).expect("json");
        assert_eq!(shown["chapters"].as_array().map(Vec::len), Some(1));
        assert_eq!(shown["chapters"][0]["tags"]["title"], label);
    }
    assert_eq!(bench.archive(&manifest).await, recording, "asked again");
    assert_eq!(bench.s3.keys().len(), 3);
}

#[tokio::test]
async fn a_lost_stretch_becomes_silence_and_the_rest_stays_in_time() {
    let bench = Bench::new().await;
    let take = capture("opus250");
    let len = take.len();
    let (from, to) = (len / 3 + 17, len / 2 + 5);
    let mut manifest = bench.session(&[(0, &take)]);
    manifest.gaps = vec![gap(0, from as u64, to as u64)];
    let runs = vec![(0, take[..from].to_vec()), (to as u64, take[to..].to_vec())];
    bench.ingest.spool(&manifest.session.to_string(), 0, runs);
    let recording = bench.archive(&manifest).await;
    let file = bench.file(&recording.objects[0]);
    let (seconds, whole) = (duration(&file), capture_seconds("opus250"));
    assert!((seconds - whole).abs() < 0.1, "{seconds} of {whole}");
    assert!((decoded(&file) - whole).abs() < 0.2);
    let written = bench.manifest();
    assert!(
        written["mux"]["silence_ms"].as_u64() > Some(1000),
        "{}",
        written["mux"]
    );
    assert_eq!(written["gaps"][0]["cause"], "client");
}

#[tokio::test]
async fn a_damaged_take_loses_what_is_damaged_and_no_more() {
    let bench = Bench::new().await;
    let mut take = capture("opus250");
    let at = take.len() / 2;
    take[at..at + 5000].fill(0);
    let recording = bench.archive(&bench.session(&[(0, &take)])).await;
    let file = bench.file(&recording.objects[0]);
    let (seconds, whole) = (duration(&file), capture_seconds("opus250"));
    assert!((seconds - whole).abs() < 0.1, "{seconds} of {whole}");
    assert!(bench.manifest()["mux"]["lost_bytes"].as_u64() > Some(0));
}

#[tokio::test]
async fn one_take_of_no_container_makes_the_whole_session_raw() {
    let bench = Bench::new().await;
    let (sound, text) = (capture("opus250"), b"this is no recording at all".to_vec());
    let recording = bench
        .archive(&bench.session(&[(0, &sound), (20_000, &text)]))
        .await;
    let keys = [
        format!("{FOLDER}/recording.webm"),
        format!("{FOLDER}/recording.take2.bin"),
    ];
    assert_eq!(recording.objects, keys);
    assert!(bench.s3.object(&keys[0]) == sound && bench.s3.object(&keys[1]) == text);
    let written = bench.manifest();
    assert_eq!(written["layout"], "raw");
    let reason = written["mux_error"].as_str().expect("a reason");
    assert!(reason.contains("take 1"), "{reason}");
    assert!(written["takes"][1]["crc64nvme"].is_string());
}

#[tokio::test]
async fn a_raw_session_leaves_no_upload_of_its_stitched_attempt() {
    let bench = Bench::new().await;
    let (sound, garbage) = (show(1, 11 << 20), b"no recording".repeat(9));
    let recording = bench
        .archive(&bench.session(&[(0, &sound), (900_000, &garbage)]))
        .await;
    assert_eq!(recording.objects.len(), 2);
    assert!(bench.s3.object(&recording.objects[0]) == sound);
    assert_eq!(bench.s3.open_uploads(), Vec::<String>::new());
}
