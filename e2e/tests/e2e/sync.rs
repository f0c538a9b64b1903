//! Syncs that fail or take their time.

use aircheck_e2e::{
    capture::Capture,
    cluster::Cluster,
    faults::{is_root, skipped},
    listener::Listener,
    oracle::archived_exactly,
    probe::decodes_clean,
    services::INGEST,
    syscalls::Injection,
};

#[tokio::test]
async fn a_sync_that_fails_once_costs_a_segment_and_nothing_else() {
    if !is_root() {
        return skipped("injecting faults into another process needs root");
    }
    let mut cluster = Cluster::split(&[]).await;
    cluster.expect_errors(&["spool write failed"]);
    let capture = Capture::load("opus250");
    let mut show = cluster.broadcaster("7", &capture).await;
    let third = capture.len() / 3;
    show.send_to(third).await.expect("still connected");
    show.acked_to(third).await.expect("acknowledged");
    let ingest = cluster.process(INGEST).id();
    let injection = Injection::attach(ingest, "fdatasync", "error=EIO:when=1");
    show.send_to(2 * third).await.expect("still connected");
    show.acked_to(2 * third)
        .await
        .expect("acknowledged all the same");
    drop(injection);
    let log = cluster.process(INGEST).log();
    assert!(
        log.contains("its segment is given up"),
        "the fault was met: {log}"
    );
    assert_eq!(
        cluster.status("7").await["recording_failed"],
        serde_json::Value::Null
    );
    // What went to the new segment is there after a crash, and so is what the old one held.
    cluster.process(INGEST).kill_and_restart().await;
    show.reset();
    show.resume().await;
    show.send_all().await.expect("still connected");
    show.stop().await.expect("still connected");
    archived_exactly(&cluster, "7", &capture).await;
}

#[tokio::test]
async fn a_sync_that_takes_seconds_delays_acks_and_no_listener() {
    if !is_root() {
        return skipped("injecting faults into another process needs root");
    }
    let mut cluster = Cluster::split(&[]).await;
    let capture = Capture::load("opus250");
    let mut show = cluster.broadcaster("7", &capture).await;
    let quarter = capture.len() / 4;
    show.send_to(quarter).await.expect("still connected");
    show.acked_to(quarter).await.expect("acknowledged");
    let listener = Listener::tune_in(cluster.web, "7")
        .await
        .expect("the show is live");
    let ingest = cluster.process(INGEST).id();
    let injection = Injection::attach(ingest, "fdatasync", "delay_enter=2000000");
    let before = show.acked;
    show.pace = std::time::Duration::from_millis(5);
    show.send_to(3 * quarter).await.expect("still connected");
    listener.has_heard(quarter).await;
    assert!(
        show.acked < 3 * quarter as u64,
        "acks wait for the sync: {before} then {}",
        show.acked
    );
    drop(injection);
    show.acked_to(3 * quarter)
        .await
        .expect("acknowledged in the end");
    show.send_all().await.expect("still connected");
    show.stop().await.expect("still connected");
    archived_exactly(&cluster, "7", &capture).await;
    decodes_clean(&listener.to_the_end().await).await;
}
