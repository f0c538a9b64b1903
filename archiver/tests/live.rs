//! Uploading while the show is live: it saves time at the end, and never costs anything.

mod support;

use aircheck_core::{
    recording::EndReason,
    spool::{Manifest, Stage, TakeRecord},
};
use aircheck_e2e::postgres::Postgres;
use aircheck_proto::archiver::{Recording, RecordingStatus};
use support::{
    archiver::Archiver,
    ingest::IngestServer,
    s3::{Fault, Op, S3Server, Seen},
    session::{STARTED, gap, sealed, show, stitched},
};
use tempfile::TempDir;

const MIB: usize = 1 << 20;
const KEY: &str = "recordings/7/2026-11-23T20-15-00Z/recording.webm";
const PART: u64 = 5 << 20;

/// A show that is live.
struct Bench {
    s3: S3Server,
    ingest: IngestServer,
    url: String,
    manifest: Manifest,
    takes: Vec<Vec<u8>>,
    _folder: TempDir,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("make a folder");
        let url = format!(
            "sqlite://{}?mode=rwc",
            folder.path().join("aircheck.db").display()
        );
        Self::on(url, folder).await
    }

    async fn on(url: String, folder: TempDir) -> Self {
        let mut manifest = sealed(1, &[]);
        manifest.stage = Stage::Live;
        Self {
            s3: S3Server::start().await,
            ingest: IngestServer::start().await,
            url,
            manifest,
            takes: Vec::new(),
            _folder: folder,
        }
    }

    async fn archiver(&self) -> Archiver {
        Archiver::start(&self.url, &self.s3).await
    }

    /// A take begins, so many ms after the show.
    fn begin(&mut self, wall_ms: u64) {
        self.takes.push(Vec::new());
        self.manifest.takes.push(TakeRecord {
            id: format!("take-{}", self.takes.len()),
            mime: "audio/webm;codecs=opus".to_owned(),
            started_unix_ms: STARTED + wall_ms,
            bytes: 0,
        });
        self.grow(&[]);
    }

    /// Bytes of the last take become durable.
    fn grow(&mut self, bytes: &[u8]) {
        let take = self.takes.len() - 1;
        let record = &mut self.manifest.takes[take];
        let id = self.manifest.session.to_string();
        let index = u32::try_from(take).expect("few takes");
        self.ingest.grow(&id, index, record.bytes, bytes);
        record.bytes += bytes.len() as u64;
        self.takes[take].extend_from_slice(bytes);
    }

    fn seal(&mut self) {
        self.manifest.stage = Stage::Sealed {
            reason: EndReason::Stop,
            ended_unix_ms: STARTED + 3_600_000,
        };
    }

    fn expected(&self) -> Vec<u8> {
        let takes: Vec<_> = self.takes.iter().map(Vec::as_slice).collect();
        stitched(&self.manifest, &takes)
    }

    /// Seals the show and archives it; there is one object, as if nothing had happened.
    async fn archive(&mut self, archiver: &Archiver) -> Recording {
        self.seal();
        let recording = archiver.finalize(&self.manifest, &self.ingest).await;
        let recording = recording.expect("a recording");
        assert_eq!(
            recording.status(),
            RecordingStatus::Archived,
            "{recording:?}"
        );
        assert!(self.s3.object(KEY) == self.expected(), "other bytes");
        assert_eq!(self.s3.keys().len(), 2);
        assert_eq!(self.s3.open_uploads(), Vec::<String>::new());
        assert_eq!(self.s3.pending_faults(), 0);
        recording
    }

    /// Waits until the store has this part.
    async fn part(&self, number: u32) {
        self.s3
            .until(Op::UploadPart, |parts| has(parts, number))
            .await;
    }

    fn sent(&self, number: u32) -> usize {
        let parts = self.s3.seen(Op::UploadPart);
        parts
            .iter()
            .filter(|part| part.part == Some(number))
            .count()
    }
}

fn has(parts: &[Seen], number: u32) -> bool {
    parts.iter().any(|part| part.part == Some(number))
}

#[tokio::test]
async fn parts_are_uploaded_while_the_show_is_live_and_little_is_left_at_the_end() {
    let mut bench = Bench::new().await;
    let archiver = bench.archiver().await;
    let take = show(1, 17 * MIB);
    bench.begin(0);
    bench.grow(&take[..MIB]);
    assert_eq!(archiver.advance(&bench.manifest, &bench.ingest).await, [0]);
    bench.grow(&take[MIB..16 * MIB]);
    bench.part(1).await;
    bench.part(3).await;
    // The third part is noted in the row before the answer counts it.
    let archived = loop {
        let archived = archiver.advance(&bench.manifest, &bench.ingest).await[0];
        if archived > 2 * PART {
            break archived;
        }
    };
    assert!(archived < 3 * PART, "{archived}");
    assert!(
        bench.s3.keys().is_empty(),
        "nothing is complete before the end"
    );
    bench.grow(&take[16 * MIB..]);
    let before = bench.s3.seen(Op::UploadPart).len();
    bench.archive(&archiver).await;
    let parts = bench.s3.seen(Op::UploadPart);
    let after: Vec<_> = parts[before..]
        .iter()
        .filter_map(|part| part.part)
        .collect();
    assert_eq!(
        (after.len(), bench.sent(1), bench.sent(2), bench.sent(3)),
        (2, 2, 1, 1)
    );
    let full = parts.iter().filter(|part| part.bytes == PART).count();
    assert_eq!(full, 4, "all parts but the last have one size");
}

#[tokio::test]
async fn an_archiver_that_dies_while_live_is_replaced_without_sending_anything_twice() {
    let postgres = Postgres::start().await;
    let folder = || tempfile::tempdir().expect("make a folder");
    for mut bench in [
        Bench::new().await,
        Bench::on(postgres.url(), folder()).await,
    ] {
        let take = show(1, 17 * MIB);
        bench.begin(0);
        bench.grow(&take[..11 * MIB]);
        let archiver = bench.archiver().await;
        archiver.advance(&bench.manifest, &bench.ingest).await;
        bench.part(2).await;
        // As a crash: nothing is released or tidied up.
        drop(archiver);
        let archiver = bench.archiver().await;
        archiver.advance(&bench.manifest, &bench.ingest).await;
        bench.grow(&take[11 * MIB..]);
        bench.part(3).await;
        bench.archive(&archiver).await;
        assert_eq!(bench.s3.seen(Op::CreateUpload).len(), 1);
        assert_eq!(bench.s3.seen(Op::Complete).len(), 1);
        assert!(bench.sent(2) <= 2 && bench.sent(3) == 1 && bench.sent(4) == 1);
    }
}

#[tokio::test]
async fn finalize_does_not_wait_for_the_claim_of_a_live_job_elsewhere() {
    let mut bench = Bench::new().await;
    let (one, other) = (bench.archiver().await, bench.archiver().await);
    let take = show(1, 12 * MIB);
    bench.begin(0);
    bench.grow(&take[..11 * MIB]);
    one.advance(&bench.manifest, &bench.ingest).await;
    bench.part(2).await;
    bench.grow(&take[11 * MIB..]);
    bench.archive(&other).await;
    assert_eq!(
        bench.s3.seen(Op::CreateUpload).len(),
        1,
        "it goes on with the same upload"
    );
    assert!(bench.sent(2) <= 2);
}

#[tokio::test]
async fn takes_and_gaps_of_a_live_show_are_followed() {
    let mut bench = Bench::new().await;
    let archiver = bench.archiver().await;
    let (first, second) = (show(1, 7 * MIB), show(2, 7 * MIB));
    bench.begin(0);
    bench.grow(&first);
    archiver.advance(&bench.manifest, &bench.ingest).await;
    bench.part(1).await;
    bench.begin(400_000);
    bench.grow(&second);
    archiver.advance(&bench.manifest, &bench.ingest).await;
    bench.part(2).await;
    bench.begin(800_000);
    let before = bench.s3.seen(Op::UploadPart).len();
    bench.archive(&archiver).await;
    let after = bench.s3.seen(Op::UploadPart).len() - before;
    assert_eq!(after, 2, "part 1 and the last one");
    assert_eq!(bench.ingest.connections(), 1, "all calls share one");
}

#[tokio::test]
async fn a_hole_that_was_followed_live_is_the_hole_of_the_archive() {
    let bench = Bench::new().await;
    let archiver = bench.archiver().await;
    let take = show(1, 12 * MIB);
    let (from, to) = (6 * MIB, 6 * MIB + 70_000);
    let id = bench.manifest.session.to_string();
    let mut manifest = sealed(1, &[take.len() as u64]);
    manifest.gaps = vec![gap(0, from as u64, to as u64)];
    bench.ingest.grow(&id, 0, 0, &take[..from]);
    bench.ingest.grow(&id, 0, to as u64, &take[to..]);
    let live = Manifest {
        stage: Stage::Live,
        ..manifest.clone()
    };
    archiver.advance(&live, &bench.ingest).await;
    bench.part(2).await;
    let ahead = archiver
        .finalize(&manifest, &bench.ingest)
        .await
        .expect("a recording");
    assert_eq!((bench.sent(1), bench.sent(2)), (2, 1));

    let undisturbed = Bench::new().await;
    undisturbed.ingest.grow(&id, 0, 0, &take[..from]);
    undisturbed.ingest.grow(&id, 0, to as u64, &take[to..]);
    let archiver = undisturbed.archiver().await;
    let replayed = archiver
        .finalize(&manifest, &undisturbed.ingest)
        .await
        .expect("a recording");
    assert_eq!(ahead.crc64nvme, replayed.crc64nvme);
    assert_eq!(ahead.duration_ms, replayed.duration_ms);
    assert!(bench.s3.object(KEY) == undisturbed.s3.object(KEY));
}

#[tokio::test]
async fn a_store_that_is_away_while_live_costs_nothing_at_the_end() {
    let mut bench = Bench::new().await;
    let archiver = bench.archiver().await;
    for _ in 0..3 {
        bench.s3.fail(Op::CreateUpload, Fault::ResetBefore);
    }
    bench
        .s3
        .fail(Op::UploadPart, Fault::Refuse(503, "SlowDown"));
    bench.s3.fail(Op::UploadPart, Fault::ResetAfter);
    bench.begin(0);
    bench.grow(&show(1, 12 * MIB));
    archiver.advance(&bench.manifest, &bench.ingest).await;
    bench
        .s3
        .until(Op::CreateUpload, |begun| !begun.is_empty())
        .await;
    bench.archive(&archiver).await;
}

#[tokio::test]
async fn an_upload_that_vanishes_while_live_is_begun_anew() {
    let mut bench = Bench::new().await;
    let archiver = bench.archiver().await;
    let take = show(1, 17 * MIB);
    bench.begin(0);
    bench.grow(&take[..8 * MIB]);
    archiver.advance(&bench.manifest, &bench.ingest).await;
    bench.part(1).await;
    bench
        .s3
        .fail(Op::UploadPart, Fault::Refuse(404, "NoSuchUpload"));
    bench.grow(&take[8 * MIB..]);
    bench.part(3).await;
    bench.archive(&archiver).await;
    assert_eq!(bench.s3.seen(Op::CreateUpload).len(), 2);
}

#[tokio::test]
async fn a_recalled_job_is_not_waited_for_while_the_store_hangs() {
    let mut bench = Bench::new().await;
    let archiver = bench.archiver().await;
    let gate = bench.s3.hold(Op::UploadPart);
    bench.begin(0);
    bench.grow(&show(1, 12 * MIB));
    archiver.advance(&bench.manifest, &bench.ingest).await;
    gate.arrived.notified().await;
    bench.archive(&archiver).await;
    gate.open.notify_one();
}

#[tokio::test]
async fn takes_that_cannot_be_stitched_leave_no_upload_behind() {
    let mut bench = Bench::new().await;
    let archiver = bench.archiver().await;
    bench.begin(0);
    bench.grow(&show(1, 8 * MIB));
    archiver.advance(&bench.manifest, &bench.ingest).await;
    bench.part(1).await;
    bench.begin(500_000);
    bench.grow(b"this is no recording at all");
    archiver.advance(&bench.manifest, &bench.ingest).await;
    bench.s3.until(Op::Abort, |aborts| !aborts.is_empty()).await;
    bench.seal();
    let recording = archiver.finalize(&bench.manifest, &bench.ingest).await;
    let recording = recording.expect("a recording");
    assert_eq!(recording.objects.len(), 2);
    assert!(bench.s3.object(KEY) == bench.takes[0]);
    assert_eq!(bench.s3.open_uploads(), Vec::<String>::new());
}
