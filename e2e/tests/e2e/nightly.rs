//! What takes minutes: graces at full length, death at the n-th system call, crowds that come back.

use aircheck_e2e::{
    broadcaster::Broadcaster,
    capture::Capture,
    cluster::Cluster,
    faults::{is_root, skipped},
    oracle::{archived_exactly, is_archive_of, nothing_is_left},
    services::{ARCHIVER, GATEWAY, INGEST},
    syscalls::Injection,
    wait::{HEALED, eventually},
};
use futures::future::join_all;
use std::{fs, time::Duration};

const GRACE: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

/// Calls by which the services change what is outside of them.
const CALLS: &[&str] = &[
    "pwrite64",
    "fdatasync",
    "fsync",
    "unlink",
    "sendto",
    "writev",
    "connect",
    "fallocate",
];
const NTH: &[u32] = &[1, 2, 3, 5, 8, 13];

const CROWD: usize = 500;
const CHURN_ROUNDS: usize = 300;
const CHURN_AT_ONCE: usize = 50;
/// Descriptors that may come and go by themselves: connections between the services.
const SLACK: usize = 20;

#[tokio::test]
#[ignore = "nightly: two graces of 30 s"]
async fn a_drop_of_29_seconds_resumes_and_one_of_31_ends_the_session() {
    let cluster = Cluster::up(&[]).await;
    let capture = Capture::load("opus250");
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_to(capture.len() / 2).await.expect("connected");
    show.reset();
    tokio::time::sleep(GRACE - SECOND).await;
    let ready = show.resume().await;
    assert_eq!(ready["resumed"], true, "{ready}");
    show.send_all().await.expect("connected");
    show.acked_to(capture.len()).await.expect("connected");
    show.reset();
    tokio::time::sleep(GRACE + SECOND).await;
    let recording = archived_exactly(&cluster, "7", &capture).await;
    assert_eq!(recording["end_reason"], "grace_expired", "{recording}");
}

#[tokio::test]
#[ignore = "nightly: a hundred deaths"]
async fn death_at_the_nth_system_call_leaves_one_whole_archive() {
    if !is_root() {
        return skipped("killing at a system call needs root");
    }
    let capture = Capture::load("opus250").prefix(100_000);
    let mut cluster = Cluster::split(&[("AIRCHECK_CLAIM_LEASE", "1s")]).await;
    let mut deaths = 0;
    for process in [INGEST, ARCHIVER, GATEWAY] {
        for call in CALLS {
            for nth in NTH {
                let name = format!("{process}-{call}-{nth}");
                deaths +=
                    usize::from(dies_at(&mut cluster, process, call, *nth, &name, &capture).await);
                archived_exactly(&cluster, &name, &capture).await;
            }
        }
    }
    assert!(deaths > CALLS.len(), "only {deaths} deaths");
}

/// A show during which the process dies at its nth such call; whether it came to that.
async fn dies_at(
    cluster: &mut Cluster,
    process: &str,
    call: &str,
    nth: u32,
    show: &str,
    capture: &Capture,
) -> bool {
    let mut show = Broadcaster::new(cluster.web, show, capture.clone());
    let process = cluster.process(process);
    let injection = Injection::attach(process.id(), call, &format!("signal=KILL:when={nth}"));
    let (over, ended) = tokio::sync::oneshot::channel::<()>();
    let showing = async {
        show.survive().await;
        drop(over);
    };
    let healing = async {
        tokio::select! {
            _ = process.gone(10 * HEALED) => {}
            _ = ended => {}
        }
        drop(injection);
        // It may have died of the very last call of the show.
        let died = !process.is_running();
        if died {
            process.rest().await;
            process.start().await;
        }
        died
    };
    tokio::join!(showing, healing).1
}

#[tokio::test]
#[ignore = "nightly: five hundred broadcasters"]
async fn five_hundred_broadcasters_come_back_at_once_after_the_death_of_their_gateway() {
    let mut cluster = Cluster::split(&[]).await;
    let capture = Capture::load("opus250").prefix(60_000);
    let web = cluster.web;
    let mut shows = join_all((0..CROWD).map(|number| {
        let capture = capture.clone();
        async move { Broadcaster::live(web, &number.to_string(), capture).await }
    }))
    .await;
    cluster.process(GATEWAY).kill_and_restart().await;
    join_all(shows.iter_mut().map(|show| async {
        show.reset();
        let ready = show.resume().await;
        assert_eq!(ready["resumed"], true, "{ready}");
        show.survive().await;
    }))
    .await;
    for number in (0..CROWD).step_by(50) {
        archived_exactly(&cluster, &number.to_string(), &capture).await;
    }
    for number in 0..CROWD {
        nothing_is_left(&cluster, &number.to_string()).await;
    }
}

#[tokio::test]
#[ignore = "nightly: fifteen thousand connections"]
async fn connections_that_come_and_go_leave_no_descriptor_behind() {
    // Guests' sessions hold connections of the archiver until they end.
    let mut cluster = Cluster::split(&[("AIRCHECK_GRACE", "1s")]).await;
    let capture = Capture::load("pause").prefix(20_000);
    let steady = Capture::load("opus250");
    let mut show = cluster.broadcaster("steady", &steady).await;
    let ids = [GATEWAY, INGEST].map(|name| cluster.process(name).id());
    let before = ids.map(descriptors);
    let web = cluster.web;
    for round in 0..CHURN_ROUNDS {
        let steadily = steady.len() * round / CHURN_ROUNDS;
        show.send_to(steadily).await.expect("nobody disturbed it");
        join_all((0..CHURN_AT_ONCE).map(|number| {
            let mut guest = Broadcaster::new(web, &format!("guest-{number}"), capture.clone());
            async move {
                if guest.connect().await.is_ok() {
                    guest.reset();
                }
            }
        }))
        .await;
    }
    eventually(HEALED, "all descriptors are closed", || async {
        let now = ids.map(descriptors);
        let fine = (0..ids.len()).all(|nth| now[nth] <= before[nth] + SLACK);
        fine.then_some(()).ok_or((before, now))
    })
    .await;
    show.send_all().await.expect("nobody disturbed it");
    let recording = show.stop().await.expect("nobody disturbed it");
    is_archive_of(&cluster, &recording, &[&steady], &[]).await;
}

fn descriptors(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count)
}
