//! Processes that stand still, as under a debugger or on a machine that is moved, and go on as if
//! nothing had happened.

use aircheck_e2e::{
    capture::Capture,
    cluster::Cluster,
    oracle::{archived_exactly, state_becomes},
    services::{ARCHIVER, INGEST},
};
use rustix::process::Signal;
use std::time::Duration;

const SETTINGS: &[(&str, &str)] = &[("AIRCHECK_GRACE", "2s"), ("AIRCHECK_CLAIM_LEASE", "2s")];
/// Longer than grace and lease: only time can show that.
const STANDSTILL: Duration = Duration::from_secs(4);

async fn stand_still(cluster: &mut Cluster, name: &str) {
    let process = cluster.process(name);
    process.signal(Signal::STOP);
    tokio::time::sleep(STANDSTILL).await;
    process.signal(Signal::CONT);
}

#[tokio::test]
async fn an_ingest_that_stands_still_for_longer_than_grace_goes_on_with_the_show() {
    let mut cluster = Cluster::split(SETTINGS).await;
    let capture = Capture::load("opus250");
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_to(capture.len() / 3)
        .await
        .expect("still connected");
    stand_still(&mut cluster, INGEST).await;
    show.send_to(capture.len() / 2)
        .await
        .expect("nobody has left");
    show.reset();
    let ready = show.resume().await;
    assert_eq!(ready["resumed"], true, "{ready}");
    show.survive().await;
    archived_exactly(&cluster, "7", &capture).await;
}

#[tokio::test]
async fn a_grace_that_ran_out_at_a_standstill_makes_one_archive() {
    let mut cluster = Cluster::split(SETTINGS).await;
    let capture = Capture::load("ff_webm");
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_all().await.expect("still connected");
    show.acked_to(capture.len()).await.expect("still connected");
    show.reset();
    state_becomes(&cluster, "7", "grace").await;
    stand_still(&mut cluster, INGEST).await;
    archived_exactly(&cluster, "7", &capture).await;
}

#[tokio::test]
async fn an_archiver_that_stands_still_for_longer_than_its_lease_makes_one_archive() {
    let mut cluster = Cluster::split(SETTINGS).await;
    let capture = Capture::load("opus250");
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_all().await.expect("still connected");
    show.seal().await;
    stand_still(&mut cluster, ARCHIVER).await;
    archived_exactly(&cluster, "7", &capture).await;
}
