//! From stop to archived: a show whose parts went up while it was live, beside one that was only
//! finalized, and beside `ffmpeg -c copy` with an upload of its whole output, in one run.
//!
//! All bytes are durable at the ingest before the clock starts. The store is an S3 server in this
//! process, so what the network would cost is told by the bytes sent after stop. This store copies all
//! parts to complete an upload, as the last column says, and keeps no checksum of the whole, so that
//! the archive is read back; a store that does neither spares most of the time. Run it with
//! `cargo bench -p aircheck-archiver --bench stop [-- MEGABYTES...]`; it needs ffmpeg in PATH.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "../tests/support/mod.rs"]
mod support;

use aircheck_core::spool::{Manifest, Stage};
use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
    primitives::ByteStream,
};
use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};
use support::{
    archiver::Archiver,
    ingest::IngestServer,
    s3::{BUCKET, KEY_ID, Op, S3Server, SECRET},
    session::{sealed, show_of, stitched_with},
};

/// 128 kb/s in packets of 20 ms.
const PACKET_BYTES: usize = 320;
const PART_BYTES: usize = 5 << 20;
/// What the ingest reads from its disk at once.
const PAGE_BYTES: usize = 1 << 20;
/// Five minutes and three hours of it.
const MEGABYTES: [usize; 2] = [5, 175];

#[tokio::main]
async fn main() {
    let args = std::env::args().skip(1);
    let asked: Vec<usize> = args.filter_map(|arg| arg.parse().ok()).collect();
    let sizes = if asked.is_empty() {
        &MEGABYTES
    } else {
        asked.as_slice()
    };
    println!(
        "{:>6} {:>8}  {:<34} {:>9} {:>13} {:>19}",
        "MB", "minutes", "way", "ms", "MB after stop", "Complete of it, ms"
    );
    for &megabytes in sizes {
        let show = Show::new(megabytes * 1_000_000);
        show.uploaded_while_live().await;
        show.only_finalized().await;
        show.remuxed().await;
    }
}

struct Show {
    take: Vec<u8>,
    manifest: Manifest,
    archive_bytes: usize,
    duration_ms: u64,
}

impl Show {
    fn new(bytes: usize) -> Self {
        let take = show_of(1, bytes, PACKET_BYTES);
        let manifest = sealed(1, &[take.len() as u64]);
        let (archive, end) = stitched_with(&manifest, &[&take]);
        Self {
            take,
            manifest,
            archive_bytes: archive.len(),
            duration_ms: end.duration_ms,
        }
    }

    async fn bench(&self) -> Bench {
        let folder = tempfile::tempdir().expect("make a folder");
        let database = folder.path().join("aircheck.db");
        let url = format!("sqlite://{}?mode=rwc", database.display());
        let (s3, ingest) = (S3Server::start().await, IngestServer::start().await);
        let id = self.manifest.session.to_string();
        for (page, bytes) in self.take.chunks(PAGE_BYTES).enumerate() {
            ingest.grow(&id, 0, (page * PAGE_BYTES) as u64, bytes);
        }
        let archiver = Archiver::start(&url, &s3).await;
        Bench {
            s3,
            ingest,
            archiver,
            _folder: folder,
        }
    }

    async fn uploaded_while_live(&self) {
        let bench = self.bench().await;
        let live = Manifest {
            stage: Stage::Live,
            ..self.manifest.clone()
        };
        bench.archiver.advance(&live, &bench.ingest).await;
        // The last cluster is open, so the last part may not be full yet.
        let full = self.archive_bytes.saturating_sub(PACKET_BYTES * 250) / PART_BYTES;
        bench
            .s3
            .until(Op::UploadPart, |parts| parts.len() >= full)
            .await;
        bench.stop(self, "uploaded while live").await;
    }

    async fn only_finalized(&self) {
        self.bench().await.stop(self, "everything at stop").await;
    }

    /// What a server does that keeps a file and remuxes it at the end.
    async fn remuxed(&self) {
        let bench = self.bench().await;
        let folder = tempfile::tempdir().expect("make a folder");
        let (raw, out) = (
            folder.path().join("raw.webm"),
            folder.path().join("out.webm"),
        );
        std::fs::write(&raw, &self.take).expect("write the take");
        let client = client(&bench.s3);
        let begun = Instant::now();
        remux(&raw, &out);
        let remuxed = begun.elapsed();
        let body = ByteStream::from_path(&out).await.expect("open the output");
        let put = client
            .put_object()
            .bucket(BUCKET)
            .key("remuxed.webm")
            .body(body);
        put.send().await.expect("put the output");
        let sent = std::fs::metadata(&out).expect("an output").len();
        let way = format!("ffmpeg -c copy ({} ms) + PUT", remuxed.as_millis());
        self.say(&way, begun.elapsed(), sent, Duration::ZERO);
    }

    fn say(&self, way: &str, took: Duration, sent: u64, complete: Duration) {
        println!(
            "{:>6} {:>8.1}  {way:<34} {:>9.1} {:>13.2} {:>19.1}",
            self.take.len() / 1_000_000,
            self.duration_ms as f64 / 60_000.0,
            took.as_secs_f64() * 1000.0,
            sent as f64 / 1_000_000.0,
            complete.as_secs_f64() * 1000.0
        );
    }
}

struct Bench {
    s3: S3Server,
    ingest: IngestServer,
    archiver: Archiver,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn sent(&self) -> u64 {
        let calls = [Op::Put, Op::UploadPart].map(|op| self.s3.seen(op));
        calls.iter().flatten().map(|call| call.bytes).sum()
    }

    async fn stop(&self, show: &Show, way: &str) {
        let (before, begun) = (self.sent(), Instant::now());
        let recording = self.archiver.finalize(&show.manifest, &self.ingest).await;
        let recording = recording.expect("a recording");
        assert_eq!(recording.bytes, show.archive_bytes as u64);
        let (took, sent) = (begun.elapsed(), self.sent() - before);
        show.say(way, took, sent, self.s3.took(Op::Complete));
    }
}

fn remux(raw: &Path, out: &Path) {
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(raw)
        .args(["-c", "copy"])
        .arg(out)
        .status()
        .expect("ffmpeg is needed");
    assert!(status.success());
}

fn client(s3: &S3Server) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(KEY_ID, SECRET, None, None, "bench"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(&s3.endpoint)
        .force_path_style(true)
        .build();
    Client::from_conf(config)
}
