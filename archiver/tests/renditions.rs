//! Renditions by the real ffmpeg: made once, beside an archive that never waits for them.

mod support;

use aircheck_core::spool::Manifest;
use aircheck_e2e::{postgres::Postgres, probe};
use aircheck_proto::archiver::{
    DeleteRecordingRequest, PresignRecordingRequest, RecordingStatus, Rendition,
};
use support::{
    archiver::{Archiver, config_with},
    bench::{Bench, FOLDER},
    s3::{Fault, Op},
    session::capture,
};

const MP3: &[&str] = &["--rendition", "mp3:192k", "--rendition-retry", "1ms"];
/// Enough for more than one part of three minutes.
const LARGE: &[&str] = &["--rendition", "mp3:320k", "--rendition-retry", "1ms"];

/// A bench whose archiver has these flags.
async fn bench(more: &[&str]) -> Bench {
    let mut bench = Bench::new().await;
    restart(&mut bench, more).await;
    bench
}

/// Another archiver takes the place of the one that is there, which dies as in a crash.
async fn restart(bench: &mut Bench, more: &[&str]) {
    let database = bench.folder.path().join("aircheck.db");
    let url = format!("sqlite://{}?mode=rwc", database.display());
    bench.archiver = Archiver::start_with(&url, &bench.s3, more).await;
}

async fn delete(archiver: &Archiver, id: &str) {
    let request = DeleteRecordingRequest { id: id.to_owned() };
    let mut client = archiver.client.clone();
    client.delete_recording(request).await.expect("deleted");
}

/// Two takes, three minutes apart.
fn long(bench: &Bench) -> Manifest {
    let sweep = capture("sweepA");
    bench.session(&[(0, &sweep), (180_000, &sweep)])
}

fn is_done(rendition: &Rendition, key: &str) -> bool {
    (&*rendition.status, rendition.key.as_deref()) == ("done", Some(key))
}

#[tokio::test]
async fn each_rendition_is_as_long_as_the_archive_and_goes_with_it() {
    let flags = [
        "--rendition",
        "mp3:192k,opus:96k",
        "--rendition",
        "aac:128k",
    ];
    let postgres = Postgres::start().await;
    let mut bench = Bench::new().await;
    bench.archiver = Archiver::start_with(&postgres.url(), &bench.s3, &flags).await;
    let sweep = capture("sweepA");
    let archived = bench.archive(&bench.session(&[(0, &sweep)])).await;
    let recording = bench.archiver.rendered(&archived.id).await;
    assert_eq!(recording.archived_at_unix_ms, archived.archived_at_unix_ms);
    assert_eq!(recording.objects, archived.objects);
    let whole = probe::decodes_clean(&bench.s3.object(&archived.objects[0])).await;
    let made = [
        ("mp3", "mp3", 0.024),
        ("opus", "opus", 0.02),
        ("aac", "m4a", 0.022),
    ];
    for (rendition, (codec, extension, frame_s)) in recording.renditions.iter().zip(made) {
        let key = format!("{FOLDER}/recording.{extension}");
        assert!(is_done(rendition, &key), "{rendition:?}");
        let bytes = bench.s3.object(&key);
        assert_eq!(rendition.bytes, Some(bytes.len() as u64));
        let media = probe::decodes_clean(&bytes).await;
        assert_eq!(media.codec, codec);
        let apart = (media.decoded_s - whole.decoded_s).abs();
        assert!(
            apart <= frame_s,
            "{extension}: {} and {}",
            media.decoded_s,
            whole.decoded_s
        );
        let mut client = bench.archiver.client.clone();
        let request = PresignRecordingRequest {
            id: archived.id.clone(),
            object: Some(format!("recording.{extension}")),
        };
        let url = client.presign_recording(request).await.expect("a URL");
        assert!(url.into_inner().url.contains(&key));
    }
    assert_eq!(recording.renditions.len(), made.len());
    delete(&bench.archiver, &archived.id).await;
    assert_eq!(bench.s3.keys(), Vec::<String>::new());
}

#[tokio::test]
async fn an_archiver_that_dies_in_the_middle_leaves_one_rendition_made_by_the_next() {
    let mut bench = bench(LARGE).await;
    let archived = bench.archive(&long(&bench)).await;
    let gate = bench.s3.hold(Op::UploadPart);
    // The archive is small; only the rendition has parts.
    gate.arrived.notified().await;
    restart(&mut bench, LARGE).await;
    gate.open.notify_one();
    let recording = bench.archiver.rendered(&archived.id).await;
    let key = format!("{FOLDER}/recording.mp3");
    assert!(is_done(&recording.renditions[0], &key), "{recording:?}");
    assert_eq!(recording.status(), RecordingStatus::Archived);
    assert_eq!(bench.s3.open_uploads(), Vec::<String>::new());
    let sent = |op| {
        bench
            .s3
            .seen(op)
            .into_iter()
            .filter(|s| s.path.ends_with(".mp3"))
    };
    assert_eq!(sent(Op::Complete).count(), 1);
    let media = probe::decodes_clean(&bench.s3.object(&key)).await;
    let seconds = archived.duration_ms.expect("a duration") as f64 / 1000.0;
    assert!(
        (media.decoded_s - seconds).abs() < 0.05,
        "{}",
        media.decoded_s
    );
    delete(&bench.archiver, &archived.id).await;
    assert_eq!(bench.s3.keys(), Vec::<String>::new());
}

#[tokio::test]
async fn a_store_that_is_away_in_the_middle_costs_no_attempt() {
    let bench = bench(LARGE).await;
    let manifest = long(&bench);
    bench.s3.fail(Op::Get, Fault::Refuse(503, "SlowDown"));
    bench.s3.fail(Op::UploadPart, Fault::ResetBefore);
    bench.s3.fail(Op::UploadPart, Fault::ResetAfter);
    bench.s3.fail(Op::Complete, Fault::ResetAfter);
    let archived = bench.archive(&manifest).await;
    let recording = bench.archiver.rendered(&archived.id).await;
    let key = format!("{FOLDER}/recording.mp3");
    assert!(is_done(&recording.renditions[0], &key), "{recording:?}");
    assert_eq!(recording.renditions[0].error, None);
    assert_eq!(bench.s3.pending_faults(), 0);
    assert_eq!(bench.s3.seen(Op::CreateUpload).len(), 1);
}

#[tokio::test]
async fn without_ffmpeg_the_recording_stays_archived_and_the_rendition_says_why() {
    let nothing = [MP3, &["--ffmpeg", "/nonexistent/ffmpeg"]].concat();
    let refusing = [MP3, &["--ffmpeg", "false"]].concat();
    for (flags, reason) in [
        (nothing, "ffmpeg can't be run"),
        (refusing, "ffmpeg failed"),
    ] {
        let bench = bench(&flags).await;
        let sweep = capture("sweepA");
        let archived = bench.archive(&bench.session(&[(0, &sweep)])).await;
        let keys = bench.s3.keys();
        let recording = bench.archiver.rendered(&archived.id).await;
        let rendition = &recording.renditions[0];
        assert_eq!((&*rendition.status, &rendition.key), ("failed", &None));
        let error = rendition.error.as_deref().expect("a reason");
        assert!(error.contains(reason), "{error}");
        assert_eq!(recording.status(), RecordingStatus::Archived);
        assert_eq!((recording.error, bench.s3.keys()), (None, keys));
    }
}

#[tokio::test]
async fn somebody_elses_object_is_neither_overwritten_nor_deleted() {
    let bench = bench(MP3).await;
    let key = format!("{FOLDER}/recording.mp3");
    bench.s3.plant(&key, b"theirs");
    let sweep = capture("sweepA");
    let archived = bench.archive(&bench.session(&[(0, &sweep)])).await;
    let recording = bench.archiver.rendered(&archived.id).await;
    assert_eq!(recording.renditions[0].status, "failed");
    delete(&bench.archiver, &archived.id).await;
    assert_eq!(bench.s3.keys(), [&*key]);
    assert_eq!(bench.s3.object(&key), b"theirs");
}

#[tokio::test]
async fn a_rendition_on_its_way_does_not_outlive_its_recording() {
    let bench = bench(MP3).await;
    let sweep = capture("sweepA");
    let manifest = bench.session(&[(0, &sweep)]);
    // Archive and manifest are put, too.
    let mut gate = bench.s3.hold(Op::Put);
    let archiving = bench.archiver.finalize(&manifest, &bench.ingest);
    let through = async {
        gate.arrived.notified().await;
        let next = bench.s3.hold(Op::Put);
        gate.open.notify_one();
        next.arrived.notified().await;
        let last = bench.s3.hold(Op::Put);
        next.open.notify_one();
        last.arrived.notified().await;
        gate = last;
    };
    let (archived, ()) = tokio::join!(archiving, through);
    let archived = archived.expect("a recording");
    delete(&bench.archiver, &archived.id).await;
    assert_eq!(bench.s3.keys(), Vec::<String>::new());
    gate.open.notify_one();
    let name = format!("{FOLDER}/recording.mp3");
    let is_last = |seen: &[support::s3::Seen]| {
        seen.iter()
            .filter(|seen| seen.path.ends_with(&name))
            .count()
            >= 2
    };
    bench.s3.until(Op::Delete, is_last).await;
    assert_eq!(bench.s3.keys(), Vec::<String>::new());
}

#[tokio::test]
async fn a_row_that_was_lost_lists_the_renditions_that_are_there() {
    let flags = ["--rendition", "mp3:192k,opus:96k"];
    let bench = bench(&flags).await;
    let archived = bench
        .archive(&bench.session(&[(0, &capture("sweepA"))]))
        .await;
    let before = bench.archiver.rendered(&archived.id).await;
    // The renditions of another are somebody else's by now.
    let capture = capture("opus250");
    let mut other = bench.session(&[(0, &capture)]);
    other.session = "01JDA0000000000000000000ZZ".parse().expect("an id");
    other.started_unix_ms += 60_000;
    let runs = vec![(0, capture)];
    bench.ingest.spool(&other.session.to_string(), 0, runs);
    let second = bench.archive(&other).await;
    for rendition in bench.archiver.rendered(&second.id).await.renditions {
        bench
            .s3
            .plant(rendition.key.as_deref().expect("a key"), b"theirs");
    }

    let url = format!(
        "sqlite://{}?mode=rwc",
        bench.folder.path().join("new.db").display()
    );
    let config = config_with(&url, &bench.s3, &[]);
    aircheck_archiver::rebuild(&config, None, |key, found| {
        assert_eq!(found, aircheck_archiver::Found::Restored, "{key}");
    })
    .await
    .expect("a database and a store");
    let archiver = Archiver::start(&url, &bench.s3).await;
    assert_eq!(
        archiver.recording(&before.id).await.renditions,
        before.renditions
    );
    assert_eq!(archiver.recording(&second.id).await.renditions, []);
}
