//! Who owns what: recordings among several archivers, uploads that nobody owns any more, and rows that
//! the database lost.

mod support;

use aircheck_archiver::Found;
use aircheck_core::{
    recording::EndReason,
    spool::{Manifest, Stage},
};
use aircheck_e2e::postgres::Postgres;
use aircheck_proto::archiver::{Recording, RecordingStatus};
use futures::future::join_all;
use std::{collections::BTreeSet, time::Duration};
use support::{
    archiver::{Archiver, config_with},
    ingest::IngestServer,
    s3::{Op, S3Server, bucket::MINIO},
    session::{STARTED, sealed, show, stitched, webm},
};
use tempfile::TempDir;

const MIB: usize = 1 << 20;
const FOLDER: &str = "recordings/7/2026-11-23T20-15-00Z";
const OLD: Duration = Duration::from_secs(48 * 3600);
const SWEEPING: [&str; 2] = ["--sweep-every", "1s"];

fn sqlite(folder: &TempDir) -> String {
    let path = folder.path().join("aircheck.db");
    format!("sqlite://{}?mode=rwc", path.display())
}

/// A sealed session with one take of at least `len` bytes, which the ingest has.
fn session(ingest: &IngestServer, nth: u64, len: usize) -> (Manifest, Vec<u8>) {
    let take = show(nth, len);
    let manifest = sealed(nth, &[take.len() as u64]);
    let archive = stitched(&manifest, &[&take]);
    ingest.spool(&manifest.session.to_string(), 0, vec![(0, take)]);
    (manifest, archive)
}

/// Every archiver has looked at all uploads once more, from now on.
async fn sweeps(s3: &S3Server, archivers: usize) {
    let before = s3.seen(Op::ListUploads).len();
    // The one under way may have begun before; each begins with a list and ends before its next.
    let enough = before + 2 * 3 * archivers;
    s3.until(Op::ListUploads, |seen| seen.len() >= enough).await;
}

#[tokio::test]
async fn only_uploads_that_nobody_owns_are_dropped() {
    let postgres = Postgres::start().await;
    let (s3, ingest) = (S3Server::start_as(MINIO).await, IngestServer::start().await);
    let mut archivers = Vec::new();
    for _ in 0..2 {
        archivers.push(Archiver::start_with(&postgres.url(), &s3, &SWEEPING).await);
    }
    let (done, _) = session(&ingest, 1, 100_000);
    let recording = archivers[0].finalize(&done, &ingest).await.expect("final");

    // A show that is live, whose parts one of them uploads.
    let take = show(2, 12 * MIB);
    let mut live = sealed(2, &[0]);
    live.stage = Stage::Live;
    live.started_unix_ms = STARTED + 5000;
    let live_key = "recordings/7/2026-11-23T20-15-05Z/recording.webm";
    live.takes[0].started_unix_ms = live.started_unix_ms;
    live.takes[0].bytes = take.len() as u64;
    ingest.spool(&live.session.to_string(), 0, vec![(0, take.clone())]);
    archivers[0].advance(&live, &ingest).await;
    s3.until(Op::UploadPart, |parts| {
        parts.iter().any(|part| part.part == Some(2))
    })
    .await;

    s3.bucket.age(OLD);
    let key = recording.object_key.expect("a key");
    let abandoned = s3.bucket.begin(&key, OLD);
    let young = s3.bucket.begin(&key, Duration::ZERO);
    let unclear = s3.bucket.begin(live_key, OLD);
    let other_file = s3.bucket.begin(&format!("{FOLDER}/copy.webm"), OLD);
    let other_show = s3
        .bucket
        .begin("recordings/99/2026-11-23T20-15-00Z/recording.webm", OLD);
    let other_tree = s3.bucket.begin("backups/recording.webm", OLD);
    s3.until(Op::Abort, |aborted| !aborted.is_empty()).await;
    sweeps(&s3, 2).await;
    let ids = |s3: &S3Server| -> BTreeSet<_> {
        s3.bucket.uploads().into_iter().map(|(id, _)| id).collect()
    };
    let left = ids(&s3);
    assert!(!left.contains(&abandoned));
    for kept in [&young, &unclear, &other_file, &other_show, &other_tree] {
        assert!(left.contains(kept), "{kept} is gone");
    }
    assert_eq!(left.len(), 6, "the live upload was dropped: {left:?}");

    // Once the show is over, nobody can own what its row does not name.
    live.stage = Stage::Sealed {
        reason: EndReason::Stop,
        ended_unix_ms: STARTED + 3_600_000,
    };
    let recording = archivers[1].finalize(&live, &ingest).await.expect("final");
    assert_eq!(recording.status(), RecordingStatus::Archived);
    assert!(s3.object(live_key) == stitched(&live, &[&take]));
    s3.until(Op::Abort, |_| !ids(&s3).contains(&unclear)).await;
    sweeps(&s3, 2).await;
    assert_eq!(
        ids(&s3),
        BTreeSet::from([young, other_file, other_show, other_tree])
    );
}

#[tokio::test]
async fn the_upload_of_an_archiver_that_died_is_kept_for_the_next_one() {
    let postgres = Postgres::start().await;
    let (s3, ingest) = (S3Server::start().await, IngestServer::start().await);
    let dying = Archiver::start_with(&postgres.url(), &s3, &SWEEPING).await;
    let (manifest, archive) = session(&ingest, 1, 11 * MIB);
    let gate = s3.hold(Op::Complete);
    let asking = dying.responses(&manifest, &ingest);
    tokio::select! {
        _ = asking => panic!("it can't be done while the gate is shut"),
        () = gate.arrived.notified() => {}
    }
    // Dropped as a crash: its claim runs out, and nobody finalizes for a while.
    drop(dying);
    s3.bucket.age(OLD);
    let freed = postgres.ask("UPDATE recording SET claim_until = 0").await;
    freed.expect("an answer");
    let next = Archiver::start_with(&postgres.url(), &s3, &SWEEPING).await;
    sweeps(&s3, 1).await;
    assert_eq!(s3.open_uploads().len(), 1, "it was dropped");
    gate.open.notify_one();
    let recording = next.finalize(&manifest, &ingest).await.expect("final");
    assert_eq!(recording.status(), RecordingStatus::Archived);
    assert!(s3.object(&format!("{FOLDER}/recording.webm")) == archive);
    assert_eq!(s3.seen(Op::CreateUpload).len(), 1, "it was begun anew");
}

#[tokio::test]
async fn three_archivers_share_thirty_sessions_and_one_of_them_dies() {
    let postgres = Postgres::start().await;
    let (s3, ingest) = (S3Server::start().await, IngestServer::start().await);
    let mut archivers = Vec::new();
    for _ in 0..3 {
        archivers.push(Archiver::start(&postgres.url(), &s3).await);
    }
    let sessions: Vec<_> = (1..=30)
        .map(|nth| {
            let mut manifest = sealed(nth, &[50_000]);
            manifest.started_unix_ms = STARTED + nth * 1000;
            let take = webm(nth, 50_000);
            ingest.spool(&manifest.session.to_string(), 0, vec![(0, take.clone())]);
            (manifest, take)
        })
        .collect();
    // Each is asked of all three at once, as after a failover. One dies with the store in its hands.
    let gate = s3.hold(Op::Put);
    let dying = archivers.pop().expect("three");
    {
        let asked = sessions
            .iter()
            .map(|(manifest, _)| dying.responses(manifest, &ingest));
        tokio::select! {
            _ = join_all(asked) => panic!("it can't be done while the gate is shut"),
            () = gate.arrived.notified() => {}
        }
    }
    drop(dying);
    gate.open.notify_one();
    let asked = sessions.iter().flat_map(|(manifest, _)| {
        archivers
            .iter()
            .map(|archiver| archiver.finalize(manifest, &ingest))
    });
    let answers = join_all(asked).await;
    let recordings: Vec<Recording> = answers
        .into_iter()
        .map(|answer| answer.expect("a recording"))
        .collect();
    for (both, (_, take)) in recordings.chunks(2).zip(&sessions) {
        assert_eq!(both[0], both[1]);
        assert_eq!(both[0].status(), RecordingStatus::Archived);
        let key = both[0].object_key.as_deref().expect("a key");
        assert!(s3.object(key) == *take, "{key}");
        // The dead one's may have arrived after all.
        assert_eq!(s3.bucket.made(key), 1, "{key}");
    }
    assert_eq!(s3.keys().len(), 60);
    assert_eq!(archivers[0].recordings().await.len(), 30);
    assert_eq!(s3.open_uploads(), Vec::<String>::new());
    let owners = "SELECT count(DISTINCT claim_owner) FROM recording";
    let owners = postgres.ask(owners).await.expect("an answer");
    assert!(
        owners.trim().parse::<u32>().expect("a number") >= 2,
        "one did it all"
    );
}

/// What a recording is, but for when it became final.
fn timeless(recording: &Recording) -> Recording {
    Recording {
        archived_at_unix_ms: None,
        ..recording.clone()
    }
}

async fn rebuilt(url: &str, s3: &S3Server) -> Vec<(String, Found)> {
    let mut told = Vec::new();
    let config = config_with(url, s3, &[]);
    let show = "7".parse().expect("a show id");
    aircheck_archiver::rebuild(&config, Some(&show), |key, found| {
        told.push((key.to_owned(), found));
    })
    .await
    .expect("a database and a store");
    told
}

#[tokio::test]
async fn a_database_that_was_lost_is_rebuilt_from_the_bucket() {
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("make a folder"));
    let (s3, ingest) = (S3Server::start_as(MINIO).await, IngestServer::start().await);
    let archiver = Archiver::start(&sqlite(&folders[0]), &s3).await;
    // Stitched, raw, failed, without media, beside somebody else's object; two in one second.
    let mut before = Vec::new();
    for nth in 1..=6 {
        let (mut manifest, _) = session(&ingest, nth, 60_000);
        manifest.started_unix_ms = STARTED + (nth / 2) * 1000;
        match nth {
            2 => {
                manifest.takes[0].bytes = 40_000;
                let raw = vec![(0, webm(2, 40_000))];
                ingest.spool(&manifest.session.to_string(), 0, raw);
            }
            3 => manifest.recording_error = Some("disk full".to_owned()),
            4 => manifest.takes.clear(),
            6 => s3.plant(
                "recordings/7/2026-11-23T20-15-03Z/recording.webm",
                b"theirs",
            ),
            _ => {}
        }
        before.push(archiver.finalize(&manifest, &ingest).await.expect("final"));
    }
    // One whose object was damaged, and a manifest that was put where it does not belong.
    let (damaged, _) = session(&ingest, 20, 60_000);
    let damaged = Manifest {
        started_unix_ms: STARTED + 60_000,
        ..damaged
    };
    let damaged = archiver.finalize(&damaged, &ingest).await.expect("final");
    let damaged_key = damaged.object_key.expect("a key");
    s3.plant(&damaged_key, b"damaged");
    let copied = s3.object(&format!("{FOLDER}/manifest.json"));
    s3.plant("recordings/7/2020-01-01T00-00-00Z/manifest.json", &copied);
    drop(archiver);

    let url = sqlite(&folders[1]);
    let told = rebuilt(&url, &s3).await;
    let refused: Vec<_> = told
        .iter()
        .filter(|(_, found)| matches!(found, Found::Refused(_)))
        .map(|(key, _)| key.as_str())
        .collect();
    let damaged_manifest = damaged_key.replace("recording.webm", "manifest.json");
    let misplaced = "recordings/7/2020-01-01T00-00-00Z/manifest.json";
    assert_eq!(refused, [misplaced, &damaged_manifest], "{told:?}");
    let restored = told.iter().filter(|(_, found)| *found == Found::Restored);
    assert_eq!(restored.count(), before.len());
    let archiver = Archiver::start(&url, &s3).await;
    let mut after: Vec<_> = archiver.recordings().await.iter().map(timeless).collect();
    after.sort_by(|a, b| a.id.cmp(&b.id));
    let mut before: Vec<_> = before.iter().map(timeless).collect();
    before.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(after, before);
    let again = rebuilt(&url, &s3).await;
    let present = again.iter().filter(|(_, found)| *found == Found::Present);
    // The one in the wrong place tells of a recording whose row is there, too.
    assert_eq!(present.count(), before.len() + 1);
}

#[tokio::test]
async fn a_session_whose_row_was_lost_is_finalized_again_without_its_bytes() {
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("make a folder"));
    let (s3, ingest) = (S3Server::start().await, IngestServer::start().await);
    let (manifest, archive) = session(&ingest, 1, 6 * MIB);
    let archiver = Archiver::start(&sqlite(&folders[0]), &s3).await;
    let before = archiver.finalize(&manifest, &ingest).await.expect("final");
    drop(archiver);
    ingest.forget();
    let archiver = Archiver::start(&sqlite(&folders[1]), &s3).await;
    let after = archiver.finalize(&manifest, &ingest).await.expect("final");
    assert_eq!(timeless(&after), timeless(&before));
    assert!(s3.object(&format!("{FOLDER}/recording.webm")) == archive);
    assert_eq!(s3.seen(Op::CreateUpload).len(), 1);
}
