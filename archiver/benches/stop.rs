//! From stop to archived: a show whose parts went up while it was live, beside one that was only
//! finalized, and beside `ffmpeg -c copy` with an upload of its whole output, in one run.
//!
//! All bytes are durable at the ingest before the clock starts. Archiver and store (`aircheck s3-dev`)
//! are processes of their own, so that the archiver's memory can be told; what the network would cost
//! is told by the bytes sent after stop. Run it with `cargo bench -p aircheck-archiver --bench stop
//! [-- MEGABYTES...]`, after `cargo build --release`; it needs ffmpeg in PATH.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "../tests/support/mod.rs"]
mod support;

use aircheck_core::spool::{Manifest, Stage};
use aircheck_e2e::{
    cluster::free_address,
    process::{Process, Readiness, aircheck},
};
use aircheck_proto::archiver::{
    AdvanceRecordingRequest, FinalizeRequest, Recording,
    archiver_service_client::ArchiverServiceClient,
};
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
    ingest::IngestServer,
    s3::{BUCKET, KEY_ID, SECRET},
    session::{message, sealed, show_of, stitched_with},
};
use tonic::transport::Channel;

/// 128 kb/s in packets of 20 ms.
const PACKET_BYTES: usize = 320;
const PART_BYTES: u64 = 5 << 20;
/// What the ingest reads from its disk at once.
const PAGE_BYTES: usize = 1 << 20;
/// Five minutes and three hours of it, and a gigabyte.
const MEGABYTES: [usize; 3] = [5, 175, 1000];
/// Between two questions how far an upload is.
const GLANCE: Duration = Duration::from_millis(200);

#[tokio::main]
async fn main() {
    let args = std::env::args().skip(1);
    let asked: Vec<usize> = args.filter_map(|arg| arg.parse().ok()).collect();
    let sizes = if asked.is_empty() {
        &MEGABYTES[..]
    } else {
        asked.as_slice()
    };
    println!(
        "{:>6} {:>8}  {:<34} {:>9} {:>13} {:>17}",
        "MB", "minutes", "way", "ms", "MB after stop", "archiver's RSS, MB"
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
    archive_bytes: u64,
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
            archive_bytes: archive.len() as u64,
            duration_ms: end.duration_ms,
        }
    }

    async fn uploaded_while_live(&self) {
        let mut bench = Bench::new(self).await;
        let sent_ahead = bench.upload_ahead(self).await;
        bench.stop(self, "uploaded while live", sent_ahead).await;
    }

    async fn only_finalized(&self) {
        let mut bench = Bench::new(self).await;
        bench.stop(self, "everything at stop", 0).await;
    }

    /// What a server does that keeps a file and remuxes it at the end.
    async fn remuxed(&self) {
        let bench = Bench::new(self).await;
        let folder = tempfile::tempdir().expect("make a folder");
        let (raw, out) = (
            folder.path().join("raw.webm"),
            folder.path().join("out.webm"),
        );
        std::fs::write(&raw, &self.take).expect("write the take");
        let begun = Instant::now();
        remux(&raw, &out);
        let remuxed = begun.elapsed();
        let body = ByteStream::from_path(&out).await.expect("open the output");
        let put = client(&bench.endpoint)
            .put_object()
            .bucket(BUCKET)
            .key("remuxed.webm")
            .body(body);
        put.send().await.expect("put the output");
        let sent = std::fs::metadata(&out).expect("an output").len();
        let way = format!("ffmpeg -c copy ({} ms) + PUT", remuxed.as_millis());
        self.say(&way, begun.elapsed(), sent, "-");
    }

    fn say(&self, way: &str, took: Duration, sent: u64, memory: &str) {
        println!(
            "{:>6} {:>8.1}  {way:<34} {:>9.1} {:>13.2} {memory:>17}",
            self.take.len() / 1_000_000,
            self.duration_ms as f64 / 60_000.0,
            took.as_secs_f64() * 1000.0,
            sent as f64 / 1_000_000.0,
        );
    }
}

struct Bench {
    endpoint: String,
    ingest: IngestServer,
    archiver: Process,
    client: ArchiverServiceClient<Channel>,
    _s3: Process,
    _folder: tempfile::TempDir,
}

impl Bench {
    /// Everything is there, and the ingest has the whole show.
    async fn new(show: &Show) -> Self {
        let folder = tempfile::tempdir().expect("make a folder");
        let (s3, archiver) = (free_address(), free_address());
        let (ops, endpoint) = (free_address(), format!("http://{s3}"));
        let keys = [
            ("AIRCHECK_S3_ACCESS_KEY_ID", KEY_ID),
            ("AIRCHECK_S3_SECRET_ACCESS_KEY", SECRET),
        ];
        let mut s3 = Process::new("s3-dev", aircheck(), Readiness::Accepts(s3), folder.path())
            .arguments(["s3-dev"])
            .flag("--listen", s3.to_string())
            .flag("--bucket", BUCKET)
            .flag("--data-dir", folder.path().join("objects"))
            .environment(&keys);
        s3.start().await;
        let database = folder.path().join("aircheck.db");
        let database = format!("sqlite://{}?mode=rwc", database.display());
        let mut process = Process::new(
            "archiver",
            aircheck(),
            Readiness::Readyz(ops),
            folder.path(),
        )
        .arguments(["archiver"])
        .flag("--listen", archiver.to_string())
        .flag("--http-listen", ops.to_string())
        .flag("--database-url", database)
        .flag("--s3-endpoint", &endpoint)
        .flag("--s3-bucket", BUCKET)
        .environment(&keys);
        process.start().await;
        let ingest = IngestServer::start().await;
        let id = show.manifest.session.to_string();
        for (page, bytes) in show.take.chunks(PAGE_BYTES).enumerate() {
            ingest.grow(&id, 0, (page * PAGE_BYTES) as u64, bytes);
        }
        let channel = aircheck_runtime::grpc::channel(&format!("http://{archiver}"));
        Self {
            endpoint,
            ingest,
            archiver: process,
            client: ArchiverServiceClient::new(channel.expect("an address")),
            _s3: s3,
            _folder: folder,
        }
    }

    /// Waits until all parts that can be are uploaded; answers how many bytes they have.
    async fn upload_ahead(&mut self, show: &Show) -> u64 {
        let live = Manifest {
            stage: Stage::Live,
            ..show.manifest.clone()
        };
        // The last cluster is open, so the last part may not be full yet; part 1 is sent again.
        let open = (PACKET_BYTES * 250) as u64;
        let full = show.archive_bytes.saturating_sub(open) / PART_BYTES;
        let enough = full.saturating_sub(1) * PART_BYTES;
        loop {
            let manifest = Some(message(&live, &self.ingest.url));
            let answer = self
                .client
                .advance_recording(AdvanceRecordingRequest { manifest });
            let archived = answer.await.expect("an answer").into_inner().archived;
            if archived.first().copied().unwrap_or(0) >= enough {
                return enough;
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    async fn stop(&mut self, show: &Show, way: &str, sent_ahead: u64) {
        let begun = Instant::now();
        let recording = self.finalize(&show.manifest).await;
        let took = begun.elapsed();
        assert_eq!(recording.bytes, show.archive_bytes);
        let memory = format!("{}", peak_memory(self.archiver.id()) / 1_000_000);
        show.say(way, took, show.archive_bytes - sent_ahead, &memory);
    }

    async fn finalize(&mut self, manifest: &Manifest) -> Recording {
        let manifest = Some(message(manifest, &self.ingest.url));
        let answer = self.client.finalize(FinalizeRequest { manifest }).await;
        let mut responses = answer.expect("a stream").into_inner();
        while let Some(response) = responses.message().await.expect("an answer") {
            if let Some(recording) = response.recording {
                return recording;
            }
        }
        panic!("the archiver ended without a recording");
    }
}

/// Most memory that a process has had, bytes.
fn peak_memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.expect("a figure") * 1024
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

fn client(endpoint: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(KEY_ID, SECRET, None, None, "bench"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(endpoint)
        .force_path_style(true)
        .build();
    Client::from_conf(config)
}
