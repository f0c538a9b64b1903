//! What an ack costs: the shared journal beside one file per session, in one run.
//!
//! Each session appends 4 KiB every 250 ms (128 kb/s). For each way and number of sessions it prints the
//! latency from append to synced, and the CPU time in percent of one core. Run it with
//! `cargo bench -p aircheck-ingest --bench spool [-- SECONDS [SESSIONS...]]`, on the disk that matters:
//! it works in a temporary folder under TMPDIR.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use aircheck_core::{
    id::SessionId,
    spool::{Event, Manifest},
};
use aircheck_ingest::spool::{Config, SessionSpool, Spool};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    fs::File,
    io::Write as _,
    path::Path,
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

const CHUNK_BYTES: usize = 4096;
const INTERVAL: Duration = Duration::from_millis(250);
/// Threads that sync files of their own; more than cores, since they mostly wait.
const FILE_THREADS: usize = 16;

fn main() {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|arg| arg.parse().ok())
        .collect();
    let seconds = numbers.first().copied().unwrap_or(5);
    let counts = numbers.get(1..).filter(|counts| !counts.is_empty());
    println!(
        "{:>9}  {:<28} {:>9} {:>9} {:>9} {:>7}",
        "sessions", "way", "p50 ms", "p99 ms", "max ms", "CPU %"
    );
    for sessions in counts.unwrap_or(&[1, 100, 1000, 5000]) {
        let run = Run {
            sessions: *sessions,
            length: Duration::from_secs(seconds),
        };
        run.report("shared journal", journal);
        run.report("file per session, fdatasync", files);
    }
}

#[derive(Clone, Copy)]
struct Run {
    sessions: u64,
    length: Duration,
}

impl Run {
    fn report(self, way: &str, measure: impl Fn(Self, &Path) -> Vec<Duration>) {
        let dir = tempfile::tempdir().expect("tempdir");
        let (cpu, begun) = (cpu_time(), Instant::now());
        let mut latencies = measure(self, dir.path());
        let cpu = (cpu_time() - cpu).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
        latencies.sort_unstable();
        let ms = |share: usize| {
            let at = (latencies.len() * share / 100).min(latencies.len().saturating_sub(1));
            latencies
                .get(at)
                .map_or(f64::NAN, |latency| latency.as_secs_f64() * 1000.0)
        };
        let Self { sessions, .. } = self;
        println!(
            "{sessions:>9}  {way:<28} {:>9.2} {:>9.2} {:>9.2} {cpu:>7.1}",
            ms(50),
            ms(99),
            ms(100)
        );
    }

    /// Calls `append` for every session every interval, spread evenly over it.
    fn pace(self, mut append: impl FnMut(u64, u64)) {
        let begun = Instant::now();
        let step = INTERVAL / u32::try_from(self.sessions).expect("a sane number");
        let mut nth = 0u32;
        while begun.elapsed() < self.length {
            let due = begun + step * nth;
            let ahead = due.saturating_duration_since(Instant::now());
            if ahead > Duration::from_micros(200) {
                std::thread::sleep(ahead);
            }
            append(
                u64::from(nth) % self.sessions,
                u64::from(nth) / self.sessions,
            );
            nth += 1;
        }
    }
}

/// Ours. One task a session waits for its marks, as the service does.
fn journal(run: Run, dir: &Path) -> Vec<Duration> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .expect("runtime");
    let (spool, _) = Spool::open(Config::new(dir.to_owned())).expect("spool");
    let latencies = Arc::new(Mutex::new(Vec::new()));
    let chunk = Bytes::from(vec![7; CHUNK_BYTES]);
    let mut sessions = Vec::new();
    for n in 0..run.sessions {
        let id = SessionId((u128::from(n) + 1).into());
        let mut session = spool.session(id);
        let manifest = Manifest::new(id, "bench".parse().expect("id"), 0, 0);
        session
            .persist(&Event::Opened {
                manifest: Box::new(manifest),
            })
            .expect("queued");
        let sent = Arc::new(Mutex::new(VecDeque::new()));
        runtime.spawn(watch(&session, Arc::clone(&sent), Arc::clone(&latencies)));
        sessions.push((session, sent));
    }
    run.pace(|session, round| {
        let (session, sent) = &sessions[usize::try_from(session).expect("an index")];
        let offset = round * CHUNK_BYTES as u64;
        sent.lock()
            .expect("lock")
            .push_back((offset + CHUNK_BYTES as u64, Instant::now()));
        session.append(0, offset, chunk.clone()).expect("queued");
    });
    spool.close();
    runtime.shutdown_timeout(Duration::from_secs(5));
    std::mem::take(&mut latencies.lock().expect("lock"))
}

type Sent = Arc<Mutex<VecDeque<(u64, Instant)>>>;

fn watch(
    session: &SessionSpool,
    sent: Sent,
    latencies: Arc<Mutex<Vec<Duration>>>,
) -> impl Future<Output = ()> + use<> {
    let mut marks = session.marks();
    async move {
        while marks.changed().await.is_ok() {
            let durable = marks
                .borrow_and_update()
                .takes
                .first()
                .copied()
                .unwrap_or(0);
            let mut sent = sent.lock().expect("lock");
            while sent.front().is_some_and(|(end, _)| *end <= durable) {
                let Some((_, at)) = sent.pop_front() else {
                    break;
                };
                latencies.lock().expect("lock").push(at.elapsed());
            }
        }
    }
}

/// The obvious way: every session has a file, every append is synced.
fn files(run: Run, dir: &Path) -> Vec<Duration> {
    let threads: Vec<_> = (0..FILE_THREADS)
        .map(|_| {
            let (jobs, queue) = mpsc::channel::<(Arc<Mutex<File>>, Instant)>();
            let worker = std::thread::spawn(move || {
                let chunk = [7; CHUNK_BYTES];
                let append = |(file, at): (Arc<Mutex<File>>, Instant)| {
                    let mut file = file.lock().expect("lock");
                    file.write_all(&chunk).expect("written");
                    file.sync_data().expect("synced");
                    at.elapsed()
                };
                queue.into_iter().map(append).collect::<Vec<_>>()
            });
            (jobs, worker)
        })
        .collect();
    let files: Vec<_> = (0..run.sessions)
        .map(|n| {
            Arc::new(Mutex::new(
                File::create(dir.join(n.to_string())).expect("created"),
            ))
        })
        .collect();
    run.pace(|session, _| {
        let session = usize::try_from(session).expect("an index");
        let (jobs, _) = &threads[session % FILE_THREADS];
        jobs.send((Arc::clone(&files[session]), Instant::now()))
            .expect("the worker lives");
    });
    threads
        .into_iter()
        .flat_map(|(jobs, worker)| {
            drop(jobs);
            worker.join().expect("worker")
        })
        .collect()
}

/// CPU time of this process so far, user and system, in ticks of 10 ms.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields = stat.rsplit(')').next().expect("after the name");
    let ticks = |nth: usize| -> u64 {
        fields
            .split_whitespace()
            .nth(nth)
            .and_then(|field| field.parse().ok())
            .expect("a number")
    };
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}
