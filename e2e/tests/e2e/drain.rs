//! Orderly departures.

use aircheck_e2e::{
    capture::Capture,
    cluster::Cluster,
    oracle::archived_exactly,
    services::{GATEWAY, INGEST, UP},
};

#[tokio::test]
async fn sigterm_sends_the_broadcaster_away_and_the_restart_takes_him_back() {
    let mut cluster = Cluster::up(&[]).await;
    let capture = Capture::load("opus250");
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_to(capture.len() / 2)
        .await
        .expect("still connected");
    let (status, ended) = tokio::join!(cluster.terminate(UP), show.acked_to(usize::MAX));
    assert!(status.success(), "an orderly end is no failure: {status}");
    let ended = ended.expect_err("sent away");
    assert_eq!(ended.codes(), (1001, "AC_DRAINING"), "{ended:?}");
    cluster.process(UP).start().await;
    let ready = show.resume().await;
    assert_eq!(ready["resumed"], true, "{ready}");
    show.send_all().await.expect("still connected");
    show.stop().await.expect("still connected");
    archived_exactly(&cluster, "7", &capture).await;
}

#[tokio::test]
async fn gateway_and_ingest_are_restarted_in_turn_under_a_running_show() {
    let mut cluster = Cluster::split(&[]).await;
    let capture = Capture::load("opus250");
    let mut show = cluster.broadcaster("7", &capture).await;
    for (nth, name) in [GATEWAY, INGEST].into_iter().enumerate() {
        show.send_to(capture.len() * (nth + 1) / 3)
            .await
            .expect("still connected");
        let (status, ended) = tokio::join!(cluster.terminate(name), show.acked_to(usize::MAX));
        assert!(status.success(), "{name}: {status}");
        let ended = ended.expect_err("sent away");
        assert_eq!(ended.codes(), (1001, "AC_DRAINING"), "{name}: {ended:?}");
        cluster.process(name).start().await;
        let ready = show.resume().await;
        assert_eq!(ready["resumed"], true, "{name}: {ready}");
    }
    show.send_all().await.expect("still connected");
    show.stop().await.expect("still connected");
    archived_exactly(&cluster, "7", &capture).await;
}

#[tokio::test]
async fn sigterm_without_a_show_is_over_at_once() {
    let mut cluster = Cluster::up(&[]).await;
    assert!(cluster.terminate(UP).await.success());
}
