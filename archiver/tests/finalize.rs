//! Finalize: one object and one row for each session, whatever happens on the way.

mod support;

use aircheck_core::{
    code::Code,
    recording::{EndReason, Recording},
    spool::Manifest,
};
use aircheck_e2e::postgres::Postgres;
use aircheck_proto::archiver::{
    GetRecordingRequest, Recording as RecordingMessage, RecordingStatus,
};
use support::{
    archiver::Archiver,
    ingest::IngestServer,
    s3::{Fault, Op, S3Server},
    session::{VERSION, gap, sealed, show, stitched, webm},
};
use tempfile::TempDir;

const MIB: usize = 1 << 20;
const KEY: &str = "recordings/7/2026-11-23T20-15-00Z/recording.webm";
const MANIFEST_KEY: &str = "recordings/7/2026-11-23T20-15-00Z/manifest.json";

/// Everything a test needs, on SQLite.
struct Bench {
    s3: S3Server,
    ingest: IngestServer,
    archiver: Archiver,
    folder: TempDir,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("make a folder");
        let (s3, ingest) = (S3Server::start().await, IngestServer::start().await);
        let archiver = Archiver::start(&sqlite(&folder), &s3).await;
        Self {
            s3,
            ingest,
            archiver,
            folder,
        }
    }

    /// A session with one take of at least `len` bytes, and the archive that it makes.
    fn session(&self, nth: u64, len: usize) -> (Manifest, Vec<u8>) {
        one_take(&self.ingest, nth, show(nth, len))
    }

    /// A session with one take in which there is no packet, and that take.
    fn raw_session(&self, nth: u64, len: usize) -> (Manifest, Vec<u8>) {
        let (manifest, media) = (sealed(nth, &[len as u64]), webm(nth, len));
        let runs = vec![(0, media.clone())];
        self.ingest.spool(&manifest.session.to_string(), 0, runs);
        (manifest, media)
    }

    async fn finalize(&self, manifest: &Manifest) -> RecordingMessage {
        self.archiver
            .finalize(manifest, &self.ingest)
            .await
            .expect("a recording")
    }

    /// The archive is there, once, with these bytes, and nothing is left over.
    fn assert_archived(&self, recording: &RecordingMessage, media: &[u8]) {
        assert_eq!(
            recording.status(),
            RecordingStatus::Archived,
            "{recording:?}"
        );
        assert_eq!(recording.object_key.as_deref(), Some(KEY));
        assert_eq!(recording.bytes, media.len() as u64);
        assert!(self.s3.object(KEY) == media, "the object holds other bytes");
        assert_eq!(self.s3.keys(), [MANIFEST_KEY, KEY]);
        assert_eq!(self.s3.open_uploads(), Vec::<String>::new());
        assert_eq!(
            self.s3.pending_faults(),
            0,
            "a scripted fault did not strike"
        );
    }
}

/// A session with this take, and the archive that it makes.
fn one_take(ingest: &IngestServer, nth: u64, take: Vec<u8>) -> (Manifest, Vec<u8>) {
    let manifest = sealed(nth, &[take.len() as u64]);
    let archive = stitched(&manifest, &[&take]);
    ingest.spool(&manifest.session.to_string(), 0, vec![(0, take)]);
    (manifest, archive)
}

fn sqlite(folder: &TempDir) -> String {
    format!(
        "sqlite://{}?mode=rwc",
        folder.path().join("aircheck.db").display()
    )
}

#[tokio::test]
async fn a_small_session_becomes_one_object() {
    let bench = Bench::new().await;
    let (manifest, media) = bench.session(1, 300_000);
    let recording = bench.finalize(&manifest).await;
    bench.assert_archived(&recording, &media);
    assert_eq!(recording.id, manifest.session.to_string());
    assert_eq!(recording.version, VERSION);
    assert_eq!(
        recording.end_reason.as_deref(),
        Some(EndReason::Stop.as_str())
    );
    assert!(recording.crc64nvme.is_some() && recording.archived_at_unix_ms.is_some());
    assert_eq!(recording.objects, [KEY]);
    let json = Recording::from(recording);
    assert_eq!(json.started_at, "2026-11-23T20:15:00.000Z");

    let manifest_json: serde_json::Value =
        serde_json::from_slice(&bench.s3.object(MANIFEST_KEY)).expect("json");
    assert_eq!(manifest_json["version"], VERSION);
    assert_eq!(manifest_json["objects"][0]["key"], KEY);
    assert_eq!(manifest_json["objects"][0]["bytes"], media.len());
    assert_eq!(manifest_json["layout"], "stitched");
    assert_eq!(manifest_json["session"], manifest.session.to_string());
}

#[tokio::test]
async fn a_large_session_is_uploaded_in_parts_of_one_size() {
    let bench = Bench::new().await;
    let (manifest, media) = bench.session(1, 12 * MIB + 17);
    let responses = bench
        .archiver
        .responses(&manifest, &bench.ingest)
        .await
        .expect("responses");
    let recording = responses
        .last()
        .and_then(|last| last.recording.clone())
        .expect("the last");
    bench.assert_archived(&recording, &media);
    let sizes: Vec<_> = bench
        .s3
        .seen(Op::UploadPart)
        .iter()
        .map(|seen| seen.bytes)
        .collect();
    // Part 1 comes last but one: its header is only known at the end.
    let rest = media.len() as u64 - (10 << 20);
    let mut sorted = sizes.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [rest, 5 << 20, 5 << 20], "{sizes:?}");
    assert!(responses.len() > 1, "no progress was told");
    assert!(
        responses.is_sorted_by_key(|r| r.archived),
        "progress went back"
    );
}

#[tokio::test]
async fn asked_twice_at_once_and_again_later_there_is_one_object_and_one_recording() {
    let bench = Bench::new().await;
    let (manifest, media) = bench.session(1, 6 * MIB);
    let (one, other) = tokio::join!(bench.finalize(&manifest), bench.finalize(&manifest));
    assert_eq!(one, other);
    bench.assert_archived(&one, &media);
    bench.ingest.forget();
    assert_eq!(bench.finalize(&manifest).await, one);
    assert_eq!(bench.s3.seen(Op::Complete).len(), 1);
    bench.assert_archived(&one, &media);
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_end_the_job() {
    let bench = Bench::new().await;
    let (manifest, media) = bench.session(1, 400_000);
    let gate = bench.s3.hold(Op::Put);
    let asking = bench.archiver.responses(&manifest, &bench.ingest);
    tokio::select! {
        _ = asking => panic!("it can't be done while the gate is shut"),
        () = gate.arrived.notified() => {}
    }
    gate.open.notify_one();
    let recording = bench.finalize(&manifest).await;
    bench.assert_archived(&recording, &media);
    assert_eq!(
        bench.s3.seen(Op::Put).len(),
        2,
        "archive and manifest, once each"
    );
}

#[tokio::test]
async fn a_complete_whose_reply_is_lost_is_recognised_as_done() {
    for fault in [
        Fault::ResetAfter,
        Fault::RefuseAfter(500, "InternalError"),
        Fault::RefuseAfter(404, "NoSuchUpload"),
        Fault::RefuseAfter(412, "PreconditionFailed"),
    ] {
        for is_raw in [false, true] {
            let bench = Bench::new().await;
            let (manifest, media) = if is_raw {
                bench.raw_session(1, 6 * MIB)
            } else {
                bench.session(1, 6 * MIB)
            };
            bench.s3.fail(Op::Complete, fault.clone());
            let recording = bench.finalize(&manifest).await;
            bench.assert_archived(&recording, &media);
            assert_eq!(bench.s3.seen(Op::Complete).len(), 1, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn a_complete_that_did_not_happen_is_repeated_or_the_upload_begun_anew() {
    for (fault, uploads) in [
        (Fault::ResetBefore, 1),
        (Fault::Refuse(503, "SlowDown"), 1),
        (Fault::Refuse(200, "InternalError"), 1),
        (Fault::Refuse(404, "NoSuchUpload"), 2),
        (Fault::Refuse(409, "ConditionalRequestConflict"), 2),
        (Fault::Refuse(400, "InvalidPart"), 2),
    ] {
        let bench = Bench::new().await;
        let (manifest, media) = bench.session(1, 6 * MIB);
        bench.s3.fail(Op::Complete, fault.clone());
        let recording = bench.finalize(&manifest).await;
        bench.assert_archived(&recording, &media);
        assert_eq!(bench.s3.seen(Op::CreateUpload).len(), uploads, "{fault:?}");
    }
}

#[tokio::test]
async fn a_store_that_fails_on_every_kind_of_call_once_costs_only_time() {
    let bench = Bench::new().await;
    let (manifest, media) = bench.session(1, 11 * MIB);
    for op in [
        Op::Head,
        Op::CreateUpload,
        Op::UploadPart,
        Op::Complete,
        Op::Put,
    ] {
        bench.s3.fail(op, Fault::Refuse(500, "InternalError"));
        bench.s3.fail(op, Fault::ResetBefore);
    }
    bench.s3.fail(Op::UploadPart, Fault::ResetAfter);
    bench.s3.fail(Op::Put, Fault::ResetAfter);
    let recording = bench.finalize(&manifest).await;
    bench.assert_archived(&recording, &media);
}

#[tokio::test]
async fn an_upload_that_vanished_in_the_middle_is_begun_anew() {
    let bench = Bench::new().await;
    let (manifest, media) = bench.session(1, 11 * MIB);
    bench
        .s3
        .fail(Op::UploadPart, Fault::Refuse(404, "NoSuchUpload"));
    let recording = bench.finalize(&manifest).await;
    bench.assert_archived(&recording, &media);
    assert_eq!(bench.s3.seen(Op::CreateUpload).len(), 2);
}

#[tokio::test]
async fn somebody_elses_object_is_never_touched_and_ours_is_kept_beside_it() {
    for (len, is_raw) in [
        (300_000, false),
        (6 * MIB, false),
        (300_000, true),
        (6 * MIB, true),
    ] {
        let bench = Bench::new().await;
        bench.s3.plant(KEY, b"somebody else's");
        let (manifest, media) = if is_raw {
            bench.raw_session(1, len)
        } else {
            bench.session(1, len)
        };
        let recording = bench.finalize(&manifest).await;
        assert_eq!(recording.status(), RecordingStatus::Failed);
        let error = recording.error.clone().expect("a reason");
        assert!(error.starts_with("conflict"), "{error}");
        assert_eq!(bench.s3.object(KEY), b"somebody else's");
        let key = recording
            .object_key
            .clone()
            .expect("what could be saved is saved");
        assert!(key.contains(&manifest.session.to_string()), "{key}");
        assert!(
            bench.s3.object(&key) == media,
            "the object holds other bytes"
        );
        assert_eq!(bench.finalize(&manifest).await, recording);
        assert_eq!(bench.s3.keys().len(), 3);
    }
}

#[tokio::test]
async fn equal_bytes_without_a_token_are_the_archive() {
    let bench = Bench::new().await;
    let (manifest, media) = bench.session(1, 300_000);
    bench.s3.plant(KEY, &media);
    let recording = bench.finalize(&manifest).await;
    bench.assert_archived(&recording, &media);
}

#[tokio::test]
async fn an_archiver_that_went_down_in_the_middle_leaves_nothing_but_work_for_the_next() {
    for op in [Op::UploadPart, Op::Complete, Op::Put] {
        let Bench {
            s3,
            ingest,
            archiver,
            folder,
        } = Bench::new().await;
        let len = if op == Op::Put { MIB } else { 11 * MIB };
        let (manifest, media) = one_take(&ingest, 1, show(1, len));
        let gate = s3.hold(op);
        let asking = archiver.responses(&manifest, &ingest);
        tokio::select! {
            _ = asking => panic!("it can't be done while the gate is shut"),
            () = gate.arrived.notified() => {}
        }
        // Dropped, not stopped: as a crash, so the claim has to run out.
        drop(archiver);
        gate.open.notify_one();
        let archiver = Archiver::start(&sqlite(&folder), &s3).await;
        let bench = Bench {
            s3,
            ingest,
            archiver,
            folder,
        };
        let recording = bench.finalize(&manifest).await;
        bench.assert_archived(&recording, &media);
    }
}

#[tokio::test]
async fn draining_stops_between_two_calls_and_lets_go_of_the_claim() {
    let Bench {
        s3,
        ingest,
        archiver,
        folder,
    } = Bench::new().await;
    let (manifest, media) = one_take(&ingest, 1, show(1, 11 * MIB));
    let gate = s3.hold(Op::UploadPart);
    let asking = archiver.client.clone();
    let message = support::session::message(&manifest, &ingest.url);
    let asking = tokio::spawn(async move {
        let request = aircheck_proto::archiver::FinalizeRequest {
            manifest: Some(message),
        };
        let mut asking = asking;
        let mut stream = asking
            .finalize(request)
            .await
            .expect("a stream")
            .into_inner();
        loop {
            match stream.message().await {
                Ok(response) => assert!(response.expect("no end").recording.is_none()),
                Err(status) => break aircheck_proto::Fault::from_status(&status).code,
            }
        }
    });
    gate.arrived.notified().await;
    let stopping = tokio::spawn(archiver.stop());
    gate.open.notify_one();
    assert_eq!(asking.await.expect("an answer"), Code::Draining);
    stopping.await.expect("it drains");
    let archiver = Archiver::start(&sqlite(&folder), &s3).await;
    let bench = Bench {
        s3,
        ingest,
        archiver,
        folder,
    };
    let recording = bench.finalize(&manifest).await;
    bench.assert_archived(&recording, &media);
}

#[tokio::test]
async fn an_ingest_whose_stream_breaks_is_read_on_from_where_it_broke() {
    let bench = Bench::new().await;
    let (manifest, media) = bench.session(1, 6 * MIB);
    for bytes in [0, 700_000, 3_000_000] {
        bench.ingest.break_after(bytes);
    }
    let recording = bench.finalize(&manifest).await;
    bench.assert_archived(&recording, &media);
    let opened = bench.ingest.opened();
    assert_eq!(opened.len(), 4);
    assert!(opened.is_sorted() && opened[3] > 3_000_000, "{opened:?}");
}

#[tokio::test]
async fn declared_gaps_are_passed_over_and_undeclared_ones_are_not() {
    let bench = Bench::new().await;
    let media = webm(1, 900);
    let mut manifest = sealed(1, &[1000]);
    manifest.gaps = vec![gap(0, 300, 400), gap(0, 500, 500)];
    let id = manifest.session.to_string();
    bench.ingest.spool(
        &id,
        0,
        vec![(0, media[..300].to_vec()), (400, media[300..].to_vec())],
    );
    let recording = bench.finalize(&manifest).await;
    bench.assert_archived(&recording, &media);
    assert_eq!(recording.gaps.len(), 2);

    let silent = sealed(2, &[1000]);
    let id = silent.session.to_string();
    bench.ingest.spool(
        &id,
        0,
        vec![(0, media[..300].to_vec()), (400, media[300..].to_vec())],
    );
    let refused = bench.archiver.finalize(&silent, &bench.ingest).await;
    assert_eq!(refused.map_err(|fault| fault.code), Err(Code::Corrupt));
}

#[tokio::test]
async fn takes_that_cannot_be_stitched_are_objects_of_their_own() {
    let bench = Bench::new().await;
    let manifest = sealed(1, &[100_000, 0, 6 << 20]);
    let (first, third) = (webm(1, 100_000), webm(3, 6 * MIB));
    let id = manifest.session.to_string();
    bench.ingest.spool(&id, 0, vec![(0, first.clone())]);
    bench.ingest.spool(&id, 2, vec![(0, third.clone())]);
    let recording = bench.finalize(&manifest).await;
    let other = "recordings/7/2026-11-23T20-15-00Z/recording.take3.webm";
    assert_eq!(recording.status(), RecordingStatus::Archived);
    assert_eq!(recording.objects, [KEY, other]);
    assert_eq!(recording.object_key.as_deref(), Some(KEY));
    assert_eq!(recording.bytes, (first.len() + third.len()) as u64);
    assert_eq!(recording.takes, 3);
    assert!(bench.s3.object(KEY) == first && bench.s3.object(other) == third);
    assert_eq!(bench.s3.keys().len(), 3);
    let manifest_json: serde_json::Value =
        serde_json::from_slice(&bench.s3.object(MANIFEST_KEY)).expect("json");
    assert_eq!(manifest_json["layout"], "raw");
    assert!(manifest_json["mux_error"].is_string(), "{manifest_json}");
    assert_eq!(recording.error, None);
    assert_eq!(recording.duration_ms, None);
}

#[tokio::test]
async fn a_broken_recording_is_archived_as_far_as_it_goes_and_says_failed() {
    let bench = Bench::new().await;
    let (mut manifest, media) = bench.session(1, 50_000);
    manifest.recording_error = Some("disk full".to_owned());
    let recording = bench.finalize(&manifest).await;
    assert_eq!(recording.status(), RecordingStatus::Failed);
    assert_eq!(recording.error.as_deref(), Some("disk full"));
    assert_eq!(recording.object_key.as_deref(), Some(KEY));
    assert!(bench.s3.object(KEY) == media);
}

#[tokio::test]
async fn a_session_without_media_fails_and_leaves_its_manifest() {
    let bench = Bench::new().await;
    let recording = bench.finalize(&sealed(1, &[])).await;
    assert_eq!(recording.status(), RecordingStatus::Failed);
    assert_eq!(recording.error.as_deref(), Some("no media was received"));
    assert_eq!(recording.object_key, None);
    assert_eq!(bench.s3.keys(), [MANIFEST_KEY]);
}

#[tokio::test]
async fn a_spool_that_is_gone_is_an_error_and_never_a_final_row() {
    let bench = Bench::new().await;
    let (manifest, media) = bench.session(1, 1000);
    bench.ingest.forget();
    let refused = bench.archiver.finalize(&manifest, &bench.ingest).await;
    assert_eq!(refused.map_err(|fault| fault.code), Err(Code::Corrupt));
    let id = manifest.session.to_string();
    let mut client = bench.archiver.client.clone();
    let row = client
        .get_recording(GetRecordingRequest { id })
        .await
        .expect("a row");
    let row = row.into_inner().recording.expect("a recording");
    assert_eq!(row.status(), RecordingStatus::Finalizing);
    assert!(row.error.is_some_and(|error| error.contains("spool")));

    bench.session(1, 1000);
    let recording = bench.finalize(&manifest).await;
    bench.assert_archived(&recording, &media);
    assert_eq!(recording.error, None);
}

#[tokio::test]
async fn an_archive_that_went_missing_is_made_again_while_somebody_has_the_bytes() {
    let bench = Bench::new().await;
    let (manifest, media) = bench.session(1, 50_000);
    let before = bench.finalize(&manifest).await;
    bench.s3.lose(KEY);
    let after = bench.finalize(&manifest).await;
    bench.assert_archived(&after, &media);
    assert_eq!(after.archived_at_unix_ms, before.archived_at_unix_ms);
}

#[tokio::test]
async fn two_archivers_make_one_object() {
    let folder = tempfile::tempdir().expect("make a folder");
    let postgres = Postgres::start().await;
    for url in [sqlite(&folder), postgres.url()] {
        let (s3, ingest) = (S3Server::start().await, IngestServer::start().await);
        // Both migrate at once.
        let (one, other) = tokio::join!(Archiver::start(&url, &s3), Archiver::start(&url, &s3));
        let (manifest, media) = one_take(&ingest, 1, show(1, 6 * MIB));
        let (a, b) = tokio::join!(
            one.finalize(&manifest, &ingest),
            other.finalize(&manifest, &ingest)
        );
        let recording = a.expect("a recording");
        assert_eq!(b.expect("a recording"), recording);
        assert_eq!(s3.seen(Op::CreateUpload).len(), 1, "on {url}");
        let bench = Bench {
            s3,
            ingest,
            archiver: one,
            folder: tempfile::tempdir().expect("dir"),
        };
        bench.assert_archived(&recording, &media);
    }
}

#[tokio::test]
async fn a_database_that_crashes_in_the_middle_costs_only_time() {
    let folder = tempfile::tempdir().expect("make a folder");
    let mut postgres = Postgres::start().await;
    let (s3, ingest) = (S3Server::start().await, IngestServer::start().await);
    let archiver = Archiver::start(&postgres.url(), &s3).await;
    let (manifest, media) = one_take(&ingest, 1, show(1, 11 * MIB));
    let gate = s3.hold(Op::UploadPart);
    let bench = Bench {
        s3,
        ingest,
        archiver,
        folder,
    };
    let crash = async {
        gate.arrived.notified().await;
        postgres.stop().await;
        gate.open.notify_one();
        // The job goes on without the database until it needs it.
        let mut client = bench.archiver.client.clone();
        let id = manifest.session.to_string();
        let refused = client.get_recording(GetRecordingRequest { id }).await;
        assert_eq!(
            refused.map_err(|status| status.code()).err(),
            Some(tonic::Code::Unavailable)
        );
        postgres.restart().await;
    };
    let (recording, ()) = tokio::join!(bench.finalize(&manifest), crash);
    bench.assert_archived(&recording, &media);
}

#[tokio::test]
async fn an_archiver_starts_without_its_database_and_is_ready_once_that_answers() {
    let mut postgres = Postgres::start().await;
    postgres.stop().await;
    let s3 = S3Server::start().await;
    let ingest = IngestServer::start().await;
    let archiver = Archiver::start_unready(&postgres.url(), &s3).await;
    let refused = archiver.finalize(&sealed(1, &[]), &ingest).await;
    assert_eq!(refused.map_err(|fault| fault.code), Err(Code::Unavailable));
    assert!(!archiver.health.is_ready());
    postgres.restart().await;
    let mut phases = archiver.health.watch();
    phases
        .wait_for(|_| archiver.health.is_ready())
        .await
        .expect("ready");
    let recording = archiver
        .finalize(&sealed(1, &[]), &ingest)
        .await
        .expect("a recording");
    assert_eq!(recording.status(), RecordingStatus::Failed);
}
