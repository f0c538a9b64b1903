//! The system under test, in one process or in many.
//!
//! Owns folders, ports and processes of one test. When it is dropped, every process is dead and every
//! ERROR line that the test has not announced fails the test.

use crate::{
    broadcaster::Broadcaster,
    capture::Capture,
    grpc,
    http::{self, Answer},
    namespace::Namespace,
    postgres::Postgres,
    process::Process,
    s3::{Bucket, files_below},
    services::{Addresses, INGEST, Plan, UP},
    wait::SOON,
};
use aircheck_proto::ingest::ListSessionsRequest;
use bytes::Bytes;
use rand::Rng as _;
use serde_json::Value;
use std::{
    collections::HashSet,
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{LazyLock, Mutex},
    thread,
};
use tempfile::TempDir;

/// Below the range from which kernels take ports for outgoing connections: a port of ours is still
/// free when its process comes back.
const PORTS: std::ops::Range<u16> = 15_000..32_000;
/// Lines of each log that a failed test shows.
const LOG_TAIL: usize = 60;

static TAKEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// A loopback address that nobody uses, nor will.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn free_address() -> SocketAddr {
    let mut taken = TAKEN.lock().expect("nobody panics with it");
    for _ in 0..1000 {
        let port = rand::rng().random_range(PORTS);
        if !taken.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            taken.insert(port);
            return SocketAddr::from(([127, 0, 0, 1], port));
        }
    }
    panic!("no free port in {PORTS:?}");
}

/// Processes that serve shows.
#[derive(Debug)]
pub struct Cluster {
    processes: Vec<Process>,
    /// PostgreSQL, where the test asked for it.
    pub postgres: Option<Postgres>,
    /// HTTP and WebSocket.
    pub web: SocketAddr,
    /// gRPC of the ingest.
    pub ingest: SocketAddr,
    /// Readiness and metrics of every service; in one process, of everything.
    pub ops: Vec<SocketAddr>,
    bucket: PathBuf,
    spool: PathBuf,
    announced: Vec<String>,
    // Last: the processes must be dead before their files go.
    folder: TempDir,
}

impl Cluster {
    /// `aircheck up`, with variables such as `("AIRCHECK_GRACE", "2s")`.
    pub async fn up(settings: &[(&str, &str)]) -> Self {
        let mut cluster = Self::up_unstarted(settings);
        cluster.process(UP).start().await;
        cluster
    }

    /// As [`Cluster::up`], to be started by the test.
    #[must_use]
    pub fn up_unstarted(settings: &[(&str, &str)]) -> Self {
        let (folder, at) = (folder(), addresses());
        let plan = Plan {
            folder: folder.path(),
            at,
            settings,
        };
        let mut cluster = Self::of(vec![plan.up()], at, None, folder);
        cluster.bucket = cluster.folder.path().join("data/objects");
        cluster.spool = cluster.folder.path().join("data/spool");
        cluster
    }

    /// Gateway, ingest, archiver and S3 as processes of their own, and a real PostgreSQL.
    pub async fn split(settings: &[(&str, &str)]) -> Self {
        Self::split_with(settings, |process| process).await
    }

    /// As [`Cluster::split`], with processes that the test has changed before they start.
    pub async fn split_with(
        settings: &[(&str, &str)],
        changed: impl FnMut(Process) -> Process,
    ) -> Self {
        Self::split_at(addresses(), settings, changed).await
    }

    /// As [`Cluster::split`], with the ingest in a network of its own.
    pub async fn split_with_ingest_in(namespace: &Namespace, settings: &[(&str, &str)]) -> Self {
        let mut at = addresses();
        at.ingest.set_ip(namespace.inside.into());
        at.ingest_ops.set_ip(namespace.inside.into());
        at.archiver.set_ip(namespace.outside.into());
        Self::split_at(at, settings, |process| match process.name() {
            INGEST => namespace.hold(process),
            _ => process,
        })
        .await
    }

    async fn split_at(
        at: Addresses,
        settings: &[(&str, &str)],
        changed: impl FnMut(Process) -> Process,
    ) -> Self {
        let folder = folder();
        let postgres = Postgres::start().await;
        let plan = Plan {
            folder: folder.path(),
            at,
            settings,
        };
        let processes = plan.split(&postgres.url()).into_iter().map(changed);
        let mut cluster = Self::of(processes.collect(), at, Some(postgres), folder);
        cluster.ops.extend([at.ingest_ops, at.archiver_ops]);
        for process in &mut cluster.processes {
            process.start().await;
        }
        cluster
    }

    fn of(
        processes: Vec<Process>,
        at: Addresses,
        postgres: Option<Postgres>,
        folder: TempDir,
    ) -> Self {
        Self {
            processes,
            postgres,
            web: at.web,
            ingest: at.ingest,
            ops: vec![at.web],
            bucket: folder.path().join("objects"),
            spool: folder.path().join("spool"),
            announced: Vec::new(),
            folder,
        }
    }

    /// The process of that name.
    ///
    /// # Panics
    /// If there is none.
    pub fn process(&mut self, name: &str) -> &mut Process {
        let found = self
            .processes
            .iter_mut()
            .find(|process| process.name() == name);
        found.unwrap_or_else(|| panic!("no process {name}"))
    }

    /// Names of all processes.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.processes
            .iter()
            .map(|process| process.name().to_owned())
            .collect()
    }

    /// The folder of everything.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What is in S3.
    #[must_use]
    pub fn bucket(&self) -> Bucket {
        Bucket::at(self.bucket.clone())
    }

    /// Files of the ingest's spool that hold bytes of sessions.
    #[must_use]
    pub fn spooled(&self) -> Vec<PathBuf> {
        let files = files_below(&self.spool).into_iter();
        files
            .filter(|path| {
                path.extension()
                    .is_some_and(|kind| kind == "segment" || kind == "kept")
            })
            .collect()
    }

    /// Announces that ERROR lines with these words are no fault: the test provokes them.
    pub fn expect_errors(&mut self, words: &[&str]) {
        self.announced
            .extend(words.iter().map(|words| (*words).to_owned()));
    }

    /// `GET`.
    ///
    /// # Panics
    /// If there is no answer.
    pub async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, "").await
    }

    /// `POST`.
    ///
    /// # Panics
    /// If there is no answer.
    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.request("POST", path, body).await
    }

    /// Any request.
    ///
    /// # Panics
    /// If there is no answer.
    pub async fn request(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Answer {
        let answer = http::request(self.web, method, path, &[], body).await;
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Status of a show.
    pub async fn status(&self, show: &str) -> Value {
        self.get(&format!("/api/stream/status?show_id={show}"))
            .await
            .ok()
    }

    /// Recordings of a show, newest first.
    ///
    /// # Panics
    /// If the answer has another shape.
    pub async fn recordings(&self, show: &str) -> Vec<Value> {
        let page = self
            .get(&format!("/api/shows/{show}/recordings"))
            .await
            .ok();
        page["items"]
            .as_array()
            .unwrap_or_else(|| panic!("items in {page}"))
            .clone()
    }

    /// Shows whose sessions the ingest still holds.
    pub async fn sessions(&self) -> Vec<String> {
        let mut ingest = grpc::ingest(self.ingest).await;
        let request = ListSessionsRequest::default();
        let answer = ingest.list_sessions(request).await;
        let sessions = answer.expect("the ingest answers").into_inner().sessions;
        sessions
            .into_iter()
            .map(|session| session.show_id)
            .collect()
    }

    /// A broadcaster that is live with `capture`.
    pub async fn broadcaster(&self, show: &str, capture: &Capture) -> Broadcaster {
        Broadcaster::live(self.web, show, capture.clone()).await
    }

    /// SIGTERM to `name`; it must end within 10 s.
    pub async fn terminate(&mut self, name: &str) -> ExitStatus {
        self.process(name).terminate(SOON).await
    }

    fn unannounced(&self) -> Vec<String> {
        let is_announced = |line: &str| {
            self.announced
                .iter()
                .any(|words| line.contains(words.as_str()))
        };
        let lines = self.processes.iter().flat_map(|process| {
            let of = |line: &str| format!("{}: {line}", process.name());
            process
                .log()
                .lines()
                .filter(|line| is_error(line))
                .map(of)
                .collect::<Vec<_>>()
        });
        lines.filter(|line| !is_announced(line)).collect()
    }

    #[expect(
        clippy::print_stderr,
        reason = "logs belong into the output of a failed test"
    )]
    fn show_logs(&self) {
        for process in &self.processes {
            let log = process.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n");
            eprintln!(
                "--- log of {} ({} lines)\n{tail}",
                process.name(),
                lines.len()
            );
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            self.show_logs();
            return;
        }
        let unannounced = self.unannounced();
        if !unannounced.is_empty() {
            self.show_logs();
            panic!(
                "errors in the logs that nobody announced:\n{}",
                unannounced.join("\n")
            );
        }
    }
}

fn is_error(line: &str) -> bool {
    line.contains(r#""level":"ERROR""#) || line.contains(" ERROR ") || line.contains("panicked at")
}

fn addresses() -> Addresses {
    Addresses {
        web: free_address(),
        ingest: free_address(),
        ingest_ops: free_address(),
        archiver: free_address(),
        archiver_ops: free_address(),
        s3: free_address(),
    }
}

fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("aircheck-e2e-").tempdir();
    let folder = folder.expect("a temporary folder");
    fs::create_dir_all(folder.path()).expect("the folder exists");
    folder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_found_in_both_formats_and_in_panics() {
        for line in [
            r#"{"timestamp":"t","level":"ERROR","message":"x"}"#,
            "2026-11-24T06:00:00Z ERROR aircheck: x",
            "thread 'main' panicked at src/main.rs:1:1:",
        ] {
            assert!(is_error(line), "{line}");
        }
        assert!(!is_error(r#"{"level":"INFO","message":"error_count=0"}"#));
    }

    #[test]
    fn addresses_are_given_to_one_owner_only() {
        let addresses: HashSet<SocketAddr> =
            std::iter::repeat_with(free_address).take(50).collect();
        assert_eq!(addresses.len(), 50);
    }
}
