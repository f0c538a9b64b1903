//! The matrix: every fault of store and database, on every kind of store, ends in one object and one
//! row.

mod support;

use aircheck_core::spool::Manifest;
use aircheck_e2e::postgres::Postgres;
use aircheck_proto::archiver::RecordingStatus;
use futures::future::join_all;
use std::{collections::BTreeSet, net::SocketAddr, time::Duration};
use support::{
    archiver::Archiver,
    ingest::IngestServer,
    s3::{
        Fault, Op, S3Server,
        bucket::{AWS, GARAGE, MINIO, PROFILES, Profile},
    },
    session::{sealed, show, stitched},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const MIB: usize = 1 << 20;
const KEY: &str = "recordings/7/2026-11-23T20-15-00Z/recording.webm";
const MANIFEST_KEY: &str = "recordings/7/2026-11-23T20-15-00Z/manifest.json";
/// More than enough time for the uploads of a test to look old.
const LONG_AGO: Duration = Duration::from_secs(48 * 3600);
/// Calls of one kind that one session may cost, however often the store fails.
const CALLS_MAX: usize = 12;

/// One session of one part and a bit, a store, and an archiver.
struct Bench {
    s3: S3Server,
    ingest: IngestServer,
    archiver: Archiver,
    manifest: Manifest,
    archive: Vec<u8>,
    _folder: TempDir,
}

impl Bench {
    async fn new(profile: Profile) -> Self {
        let folder = tempfile::tempdir().expect("make a folder");
        let path = folder.path().join("aircheck.db");
        let url = format!("sqlite://{}?mode=rwc", path.display());
        Self::on(&url, profile, folder).await
    }

    async fn on(url: &str, profile: Profile, folder: TempDir) -> Self {
        let (s3, ingest) = (
            S3Server::start_as(profile).await,
            IngestServer::start().await,
        );
        let archiver = Archiver::start_with(url, &s3, &["--sweep-every", "1s"]).await;
        let take = show(1, 5 * MIB + MIB / 4);
        let manifest = sealed(1, &[take.len() as u64]);
        let archive = stitched(&manifest, &[&take]);
        ingest.spool(&manifest.session.to_string(), 0, vec![(0, take)]);
        Self {
            s3,
            ingest,
            archiver,
            manifest,
            archive,
            _folder: folder,
        }
    }

    /// Finalizes it, and holds the world against what it must be.
    async fn archive(&self, case: &str) {
        let recording = self.archiver.finalize(&self.manifest, &self.ingest).await;
        let recording = recording.unwrap_or_else(|fault| panic!("{case}: {fault:?}"));
        assert_eq!(recording.status(), RecordingStatus::Archived, "{case}");
        assert_eq!(recording.object_key.as_deref(), Some(KEY), "{case}");
        assert_eq!(recording.bytes, self.archive.len() as u64, "{case}");
        // One row.
        let rows = self.archiver.recordings().await;
        assert_eq!(rows, std::slice::from_ref(&recording), "{case}");
        // One object, with our token.
        assert_eq!(self.s3.keys(), [MANIFEST_KEY, KEY], "{case}");
        assert!(self.s3.object(KEY) == self.archive, "{case}: other bytes");
        let token = self.s3.bucket.token(KEY);
        assert_eq!(token, Some(recording.id), "{case}");
        // No open upload, at last: one that began unbeknown to us is swept.
        self.s3.bucket.age(LONG_AGO);
        let s3 = &self.s3;
        s3.until(Op::ListUploads, |_| s3.open_uploads().is_empty())
            .await;
        assert_eq!(
            self.s3.pending_faults(),
            0,
            "{case}: a fault did not strike"
        );
        for op in OPS {
            let calls = self.s3.seen(op).len();
            assert!(calls <= CALLS_MAX, "{case}: {calls} times {op:?}");
        }
    }
}

const OPS: [Op; 5] = [
    Op::Head,
    Op::CreateUpload,
    Op::UploadPart,
    Op::Complete,
    Op::Put,
];

fn faults() -> [Fault; 14] {
    [
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::CutAfter,
        Fault::Refuse(500, "InternalError"),
        Fault::Refuse(503, "SlowDown"),
        Fault::Refuse(429, "TooManyRequests"),
        Fault::Refuse(403, "RequestTimeTooSkewed"),
        Fault::Refuse(403, "ExpiredToken"),
        Fault::Refuse(404, "NoSuchBucket"),
        Fault::Refuse(200, "InternalError"),
        Fault::RefuseAfter(200, "InternalError"),
        Fault::RefuseAfter(500, "InternalError"),
        Fault::RefuseAfter(503, "SlowDown"),
        Fault::RefuseAfter(403, "ExpiredToken"),
    ]
}

/// Whether an answer with this fault is a fault: where no body is read, an error in it means nothing.
fn matters(op: Op, fault: &Fault) -> bool {
    match fault {
        Fault::CutAfter | Fault::Refuse(200, _) | Fault::RefuseAfter(200, _) => {
            matches!(op, Op::CreateUpload | Op::Complete)
        }
        // HEAD answers can't tell a missing bucket from a missing object.
        Fault::Refuse(404, _) => op != Op::Head,
        _ => true,
    }
}

/// Each call of a session fails once in this way.
async fn survive(profile: Profile, fault: &Fault) {
    let bench = Bench::new(profile).await;
    for op in OPS.into_iter().filter(|&op| matters(op, fault)) {
        bench.s3.fail(op, fault.clone());
    }
    let case = format!("{} {fault:?}", profile.name);
    bench.archive(&case).await;
}

#[tokio::test]
async fn every_fault_of_every_call_ends_in_one_object_and_one_row() {
    for (fault, profile) in faults().iter().zip(PROFILES.into_iter().cycle()) {
        survive(profile, fault).await;
    }
}

#[tokio::test]
#[ignore = "nightly"]
async fn every_fault_of_every_call_on_every_kind_of_store_ends_in_one_object_and_one_row() {
    for fault in &faults() {
        join_all(PROFILES.map(|profile| survive(profile, fault))).await;
    }
}

#[tokio::test]
async fn an_upload_that_expires_before_complete_is_begun_anew_from_the_spool() {
    join_all(PROFILES.map(|profile| async move {
        let bench = Bench::new(profile).await;
        let gate = bench.s3.hold(Op::Complete);
        let expire = async {
            gate.arrived.notified().await;
            bench.s3.bucket.expire();
            gate.open.notify_one();
        };
        tokio::join!(bench.archive(profile.name), expire);
        // A store that refuses checksums is asked without them at once.
        let begun = if profile.whole_checksums { 2 } else { 3 };
        let asked = bench.s3.seen(Op::CreateUpload).len();
        assert_eq!(asked, begun, "{}", profile.name);
    }))
    .await;
}

#[tokio::test]
async fn a_flipped_bit_is_caught_on_every_kind_of_store_whoever_keeps_the_checksum() {
    join_all(PROFILES.map(|profile| async move {
        let bench = Bench::new(profile).await;
        bench.s3.bucket.flip(2);
        bench.archive(profile.name).await;
        assert_eq!(bench.s3.bucket.made(KEY), 3, "{}", profile.name);
    }))
    .await;
}

#[tokio::test]
async fn somebody_elses_object_survives_on_every_kind_of_store() {
    join_all(PROFILES.map(|profile| async move {
        let bench = Bench::new(profile).await;
        bench.s3.plant(KEY, b"somebody else's");
        let recording = bench
            .archiver
            .finalize(&bench.manifest, &bench.ingest)
            .await;
        let recording = recording.expect("a recording");
        assert_eq!(recording.status(), RecordingStatus::Failed);
        assert!(
            recording
                .error
                .is_some_and(|error| error.starts_with("conflict"))
        );
        assert_eq!(bench.s3.object(KEY), b"somebody else's", "{}", profile.name);
        let key = recording.object_key.expect("ours is beside it");
        assert!(bench.s3.object(&key) == bench.archive, "{}", profile.name);
    }))
    .await;
}

/// Garage takes a second Complete over an object that is there, so only our order of calls helps.
#[tokio::test]
async fn a_zombie_whose_complete_arrives_late_changes_nothing() {
    let postgres = Postgres::start().await;
    for profile in [AWS, MINIO, GARAGE] {
        let folder = tempfile::tempdir().expect("make a folder");
        let bench = Bench::on(&postgres.url(), profile, folder).await;
        let emptied = postgres.ask("DELETE FROM recording").await;
        emptied.expect("an answer");
        let gate = bench.s3.hold(Op::Complete);
        let zombie = tokio::spawn({
            let mut client = bench.archiver.client.clone();
            let manifest = Some(support::session::message(
                &bench.manifest,
                &bench.ingest.url,
            ));
            async move {
                let request = aircheck_proto::archiver::FinalizeRequest { manifest };
                let mut stream = client
                    .finalize(request)
                    .await
                    .expect("a stream")
                    .into_inner();
                let mut last = None;
                while let Some(response) = stream.message().await.expect("a response") {
                    last = response.recording.or(last);
                }
                last.expect("a recording")
            }
        });
        gate.arrived.notified().await;
        // Its claim is taken away as if it had run out; it does not know yet.
        let freed = postgres
            .ask("UPDATE recording SET claim_until = 0, claim_epoch = claim_epoch + 1")
            .await;
        freed.expect("an answer");
        let second = Archiver::start(&postgres.url(), &bench.s3).await;
        let recording = second.finalize(&bench.manifest, &bench.ingest).await;
        let recording = recording.expect("a recording");
        gate.open.notify_one();
        assert_eq!(zombie.await.expect("an end"), recording, "{}", profile.name);
        let made = bench.s3.bucket.made(KEY);
        assert!(
            made == 1 || profile == GARAGE,
            "{}: made {made} times",
            profile.name
        );
        bench.archive(profile.name).await;
    }
}

#[tokio::test]
async fn a_database_that_crashes_at_any_step_costs_only_time() {
    let mut postgres = Postgres::start().await;
    for op in [Op::CreateUpload, Op::UploadPart, Op::Complete, Op::Put] {
        let folder = tempfile::tempdir().expect("make a folder");
        let bench = Bench::on(&postgres.url(), GARAGE, folder).await;
        let emptied = postgres.ask("DELETE FROM recording").await;
        emptied.expect("an answer");
        let gate = bench.s3.hold(op);
        let crash = async {
            gate.arrived.notified().await;
            postgres.stop().await;
            gate.open.notify_one();
            postgres.restart().await;
        };
        let case = format!("{op:?}");
        tokio::join!(bench.archive(&case), crash);
    }
}

/// A proxy before a database that loses the answer to the first message with `needle` in it.
async fn forgetful(database: SocketAddr, needle: &'static [u8]) -> (SocketAddr, Lost) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("an address");
    let (lost, watch) = tokio::sync::watch::channel(false);
    let lost = std::sync::Arc::new(lost);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(database).await.expect("connect");
            tokio::spawn(relay(client, server, needle, std::sync::Arc::clone(&lost)));
        }
    });
    (address, watch)
}

type Lost = tokio::sync::watch::Receiver<bool>;

/// Passes on what comes, until the needle has come: then the answer is awaited, and dropped with the
/// connection.
async fn relay(
    mut client: TcpStream,
    mut server: TcpStream,
    needle: &[u8],
    lost: std::sync::Arc<tokio::sync::watch::Sender<bool>>,
) {
    let (mut asked, mut answered) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let (from_client, read) = tokio::select! {
            read = client.read(&mut asked) => (true, read),
            read = server.read(&mut answered) => (false, read),
        };
        let Some(bytes) = read.ok().filter(|&bytes| bytes > 0) else {
            return;
        };
        if !from_client {
            if client.write_all(&answered[..bytes]).await.is_err() {
                return;
            }
            continue;
        }
        if server.write_all(&asked[..bytes]).await.is_err() {
            return;
        }
        let found = asked[..bytes]
            .windows(needle.len())
            .any(|window| window == needle);
        if found && lost.send_if_modified(|lost| !std::mem::replace(lost, true)) {
            // The database answers what it has committed.
            let committed = server.read(&mut answered).await;
            assert!(committed.is_ok_and(|bytes| bytes > 0));
            return;
        }
    }
}

#[tokio::test]
async fn a_commit_whose_reply_is_lost_is_made_once() {
    let postgres = Postgres::start().await;
    // The status as a parameter: its length, then itself.
    let (address, lost) = forgetful(postgres.address, b"\0\0\0\x08archived").await;
    let url = postgres
        .url()
        .replace(&postgres.address.to_string(), &address.to_string());
    let folder = tempfile::tempdir().expect("make a folder");
    let bench = Bench::on(&url, GARAGE, folder).await;
    bench.archive("lost reply").await;
    assert!(*lost.borrow(), "no reply was lost");
    assert_eq!(bench.s3.bucket.made(KEY), 1);
    let epochs = postgres.ask("SELECT claim_epoch FROM recording").await;
    assert_eq!(
        epochs.expect("an answer").trim(),
        "1",
        "the commit was repeated, not the job"
    );
}

#[test]
fn the_profiles_differ_in_what_they_are_for() {
    let differ = |of: fn(&Profile) -> bool| {
        let kinds: BTreeSet<_> = PROFILES.iter().map(of).collect();
        assert_eq!(kinds.len(), 2);
    };
    differ(|profile| profile.honours_conditions);
    differ(|profile| profile.replays_complete);
    differ(|profile| profile.wants_equal_parts);
    differ(|profile| profile.wants_large_parts);
    differ(|profile| profile.whole_checksums);
}
