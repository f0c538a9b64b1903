//! Death at every named place of every service: whatever it leaves, restarts alone make one archive of it.
//!
//! The list of places is the product's own; each must kill, so that none is dead or forgotten.

use aircheck_e2e::{
    broadcaster::Broadcaster,
    capture::Capture,
    cluster::Cluster,
    oracle::{archived_exactly, is_archive_of, is_only_recording, recording_becomes},
    probe::noise,
    process::Process,
    services::{ARCHIVER, GATEWAY, INGEST},
    wait::{HEALED, eventually},
};
use aircheck_runtime::failpoint::Failpoint;
use futures::future::join_all;
use rustix::process::Signal;
use std::{os::unix::process::ExitStatusExt as _, time::Duration};

const KILLED: i32 = 9;
/// A dead archiver's claims must run out within a test, and a large show fill several segments.
const SETTINGS: &[(&str, &str)] = &[
    ("AIRCHECK_CLAIM_LEASE", "1s"),
    ("AIRCHECK_SEGMENT_SIZE", "1MiB"),
];
/// Clusters of one test; deaths of one are no other's matter.
const LANES: usize = 2;
/// Each less than a segment.
const PIECES: usize = 8;
/// More than one part of 5 MiB.
const LARGE_SECONDS: u32 = 180;

/// What happens around a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Script {
    /// A short show, from hello to its end.
    Short,
    /// A show of two parts that ends before any is uploaded.
    Large,
    /// The same, on air until the process has died.
    OnAir,
    /// The same, and the process is asked to leave while it is on air.
    Leaving,
    /// A restart in the middle of a short show.
    Restart,
    /// A short show that stays on air while a large one after it is recorded and archived.
    Outlasting,
}

use Script::{Large, Leaving, OnAir, Outlasting, Restart, Short};

/// Which process dies at a place, and in what scripts. A new place does not compile without.
fn scripts(place: Failpoint) -> (&'static str, &'static [Script]) {
    use Failpoint as At;
    match place {
        At::GatewayAccepted
        | At::GatewayHello
        | At::GatewayPublished
        | At::GatewayForwarded
        | At::GatewayAnswered => (GATEWAY, &[Short]),
        At::PublishOpened
        | At::SessionOpened
        | At::SessionConnected
        | At::ChunkAccepted
        | At::ChunkAppended
        | At::SegmentCreated
        | At::BatchWritten
        | At::BatchSynced
        | At::BatchPublished
        | At::AckSent
        | At::StopHeard
        | At::SessionSealed
        | At::SealDurable
        | At::FinalizeSent
        | At::FinalizeAnswered
        | At::EndSaid
        | At::DoneDurable
        | At::SessionForgotten
        | At::SegmentsRemoved
        | At::SpoolRead => (INGEST, &[Short]),
        At::KeptCopied | At::KeptMoved => (INGEST, &[Outlasting]),
        At::RecoveryBegun | At::RecoveryDone => (INGEST, &[Restart]),
        At::RowBegun
        | At::RowSealed
        | At::Claimed
        | At::PutSending
        | At::PutAnswered
        | At::ManifestPut
        | At::RowFinal => (ARCHIVER, &[Short]),
        At::LiveClaimed => (ARCHIVER, &[OnAir]),
        At::LiveReleased => (ARCHIVER, &[Leaving]),
        At::UploadCreated | At::UploadNoted | At::PartSent | At::PartsNoted => {
            (ARCHIVER, &[OnAir, Large])
        }
        At::Planned | At::ObjectProved | At::CompleteSending | At::CompleteAnswered => {
            (ARCHIVER, &[Large])
        }
    }
}

/// Places that are passed again and again in one show.
const FREQUENT: &[Failpoint] = &[
    Failpoint::GatewayForwarded,
    Failpoint::GatewayAnswered,
    Failpoint::ChunkAccepted,
    Failpoint::ChunkAppended,
    Failpoint::BatchWritten,
    Failpoint::BatchSynced,
    Failpoint::BatchPublished,
    Failpoint::AckSent,
];

/// Between chunks of a show that has to pass a place several times.
const LATER_PACE: Duration = Duration::from_millis(25);

/// One death.
#[derive(Clone, Copy, Debug)]
struct Death {
    process: &'static str,
    place: Failpoint,
    script: Script,
    nth: u32,
}

/// All deaths of a process at the first pass of each place.
fn deaths(process: &str) -> Vec<Death> {
    let mut deaths = Vec::new();
    for &place in Failpoint::ALL {
        let (owner, scripts) = scripts(place);
        let of = |&script| Death {
            process: owner,
            place,
            script,
            nth: 1,
        };
        if owner == process {
            deaths.extend(scripts.iter().map(of));
        }
    }
    // Last, because they leave something.
    deaths.sort_by_key(|death| leaves_an_upload(death.place));
    deaths
}

/// Whether an upload stays open that no row names, until the archiver sweeps it or the bucket's rule does.
fn leaves_an_upload(place: Failpoint) -> bool {
    place == Failpoint::UploadCreated
}

/// The captures of a sweep.
struct Captures {
    short: Capture,
    large: Capture,
}

impl Captures {
    async fn for_all(deaths: &[Death]) -> Self {
        let short = Capture::load("opus250").prefix(60_000);
        let needs_large = |death: &Death| !matches!(death.script, Short | Restart);
        let large = if deaths.iter().any(needs_large) {
            noise(LARGE_SECONDS).await
        } else {
            short.clone()
        };
        Self { short, large }
    }

    fn of(&self, script: Script) -> &Capture {
        match script {
            Short | Restart | Outlasting => &self.short,
            Large | OnAir | Leaving => &self.large,
        }
    }
}

/// Goes through `deaths`, in several clusters at once.
async fn sweep(deaths: Vec<Death>) {
    let captures = Captures::for_all(&deaths).await;
    let mut lanes = vec![Vec::new(); LANES];
    for (nth, death) in deaths.into_iter().enumerate() {
        lanes[nth % LANES].push(death);
    }
    join_all(lanes.into_iter().map(|lane| async {
        let mut cluster = Cluster::split(SETTINGS).await;
        for (nth, death) in lane.into_iter().enumerate() {
            let show = format!("{nth}-{}", death.place.name());
            die_in(&mut cluster, death, &show, &captures).await;
            is_healed(&cluster, death, &show, captures.of(death.script)).await;
        }
    }))
    .await;
}

/// A show during which the process dies at the place, is started again, and nothing else is done.
async fn die_in(cluster: &mut Cluster, death: Death, name: &str, captures: &Captures) {
    let capture = captures.of(death.script);
    let mut show = Broadcaster::new(cluster.web, name, capture.clone());
    match death.script {
        Short | Large => {
            if death.script == Large {
                show.pace = Duration::ZERO;
            } else if death.nth > 1 {
                // Acks keep a distance of 250 ms, and a show may be over before the third of them.
                show.pace = LATER_PACE;
            }
            let process = armed(cluster, death).await;
            process.ready().await;
            tokio::join!(rise_again(process, death), show.survive());
        }
        Restart => {
            show.resume().await;
            let half = capture.len() / 2;
            show.send_to(half).await.expect("still connected");
            rise_again(armed(cluster, death).await, death).await;
            show.survive().await;
        }
        OnAir | Leaving => {
            show.pace = Duration::ZERO;
            let bucket = cluster.bucket();
            let process = armed(cluster, death).await;
            process.ready().await;
            show.resume().await;
            show.send_all().await.expect("archivers die unheard");
            if death.script == Leaving {
                eventually(HEALED, "an upload is under way", || async {
                    let begun = !bucket.open_uploads().is_empty();
                    begun.then_some(()).ok_or("there is none")
                })
                .await;
                process.signal(Signal::TERM);
            }
            rise_again(process, death).await;
            show.survive().await;
        }
        Outlasting => outlast(cluster, death, show, &captures.large).await,
    }
}

/// The beginning of a show is needed when all that came after it is not any more: it is moved.
async fn outlast(cluster: &mut Cluster, death: Death, mut show: Broadcaster, large: &Capture) {
    armed(cluster, death).await.ready().await;
    show.resume().await;
    let half = show.capture().len() / 2;
    show.send_to(half).await.expect("still connected");
    show.acked_to(half).await.expect("still connected");
    let after = format!("after-{}", death.place.name());
    let mut other = Broadcaster::new(cluster.web, &after, large.clone());
    other.pace = Duration::ZERO;
    other.resume().await;
    // A batch never spans segments: what is acknowledged piece by piece fills several.
    for piece in 1..=PIECES {
        let end = large.len() * piece / PIECES;
        other.send_to(end).await.expect("still connected");
        other.acked_to(end).await.expect("still connected");
    }
    let process = cluster.process(death.process);
    tokio::join!(rise_again(process, death), other.survive());
    archived_exactly(cluster, &after, large).await;
    show.survive().await;
}

/// The process, started again to die.
async fn armed(cluster: &mut Cluster, death: Death) -> &mut Process {
    let process = cluster.process(death.process);
    process.once(
        "AIRCHECK_FAILPOINT",
        &format!("{}:{}", death.place.name(), death.nth),
    );
    process.kill().await;
    process.spawn();
    process
}

/// Waits for the death, and starts the process again.
async fn rise_again(process: &mut Process, death: Death) {
    let status = process.gone(HEALED).await;
    assert_eq!(status.signal(), Some(KILLED), "{death:?}: {status}");
    process.start().await;
}

async fn is_healed(cluster: &Cluster, death: Death, show: &str, capture: &Capture) {
    if leaves_an_upload(death.place) {
        let recording = recording_becomes(cluster, show, "archived").await;
        is_only_recording(cluster, show, &recording).await;
        is_archive_of(cluster, &recording, &[capture], &[]).await;
        return;
    }
    archived_exactly(cluster, show, capture).await;
}

#[tokio::test]
async fn a_gateway_that_dies_anywhere_costs_a_show_nothing() {
    sweep(deaths(GATEWAY)).await;
}

#[tokio::test]
async fn an_ingest_that_dies_anywhere_leaves_one_whole_archive() {
    sweep(deaths(INGEST)).await;
}

#[tokio::test]
async fn an_archiver_that_dies_anywhere_leaves_one_whole_archive() {
    sweep(deaths(ARCHIVER)).await;
}

#[tokio::test]
async fn what_is_passed_again_and_again_may_kill_at_a_later_time_as_well() {
    let later = FREQUENT.iter().map(|&place| Death {
        process: scripts(place).0,
        place,
        script: Short,
        nth: 3,
    });
    sweep(later.collect()).await;
}
