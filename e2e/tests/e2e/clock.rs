//! Wall clocks that jump in the middle of a show.

use aircheck_e2e::{
    capture::Capture,
    clock::WallClock,
    cluster::Cluster,
    oracle::{archived_takes, recording_becomes},
    services::{ARCHIVER, INGEST},
};

/// The longest that two takes of two captures of 30 s at most may last together, with what lies
/// between: far less than the hour of the jump.
const DURATION_MAX_MS: u64 = 300_000;

/// Grace, leases and the timeline of the archive go by clocks that nobody sets.
async fn a_jump_disturbs_nothing(by: &str) {
    let (ingest, archiver) = (WallClock::default(), WallClock::default());
    let mut cluster = Cluster::split_with(&[], |process| match process.name() {
        INGEST => ingest.rule(process),
        ARCHIVER => archiver.rule(process),
        _ => process,
    })
    .await;
    // The store says what is wrong, the archiver corrects it and tries again.
    cluster.expect_errors(&["RequestTimeTooSkewed"]);
    let (first, second) = (Capture::load("opus250"), Capture::load("sweepA"));
    let mut show = cluster.broadcaster("7", &first).await;
    show.send_to(first.len() / 2)
        .await
        .expect("still connected");
    ingest.jump(by);
    archiver.jump(by);
    // Whoever drops now is within grace, however late it seems to be.
    show.reset();
    let ready = show.resume().await;
    assert_eq!(ready["resumed"], true, "{ready}");
    show.send_all().await.expect("still connected");
    show.acked_to(first.len()).await.expect("still connected");
    show.begin_take("second", second.clone())
        .await
        .expect("still connected");
    show.send_all().await.expect("still connected");
    show.stop().await.expect("still connected");
    recording_becomes(&cluster, "7", "archived").await;
    // A link that is signed at a wrong time is refused: the store says so, and nothing else can help.
    ingest.jump("+0");
    archiver.jump("+0");
    let recording = archived_takes(&cluster, "7", &[&first, &second], &[]).await;
    let duration = recording["duration_ms"].as_u64();
    assert!(
        duration.is_some_and(|duration| duration < DURATION_MAX_MS),
        "the hour is no part of the show: {recording}"
    );
    // What began before the jump is found again by what starts after it.
    cluster.process(INGEST).kill_and_restart().await;
    cluster.process(ARCHIVER).kill_and_restart().await;
    assert_eq!(cluster.recordings("7").await, [recording]);
}

#[tokio::test]
async fn a_clock_that_is_set_forward_by_an_hour_disturbs_no_show() {
    a_jump_disturbs_nothing("+3600").await;
}

#[tokio::test]
async fn a_clock_that_is_set_back_by_an_hour_disturbs_no_show() {
    a_jump_disturbs_nothing("-3600").await;
}
