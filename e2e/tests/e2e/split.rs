//! Gateway, ingest, archiver, S3 and PostgreSQL as processes of their own, and the death of each.

use aircheck_e2e::{
    broadcaster::Broadcaster,
    capture::Capture,
    cluster::Cluster,
    http,
    oracle::archived_exactly,
    services::{ARCHIVER, GATEWAY, INGEST, S3},
};

/// A dead archiver's claims must run out within a test.
const SETTINGS: &[(&str, &str)] = &[("AIRCHECK_CLAIM_LEASE", "2s")];

#[tokio::test]
async fn separate_services_with_postgresql_keep_a_show_through_two_resets() {
    let cluster = Cluster::split(SETTINGS).await;
    let capture = Capture::load("opus250");
    let mut show = cluster.broadcaster("7", &capture).await;
    for third in 1..=2 {
        show.send_to(capture.len() * third / 3)
            .await
            .expect("still connected");
        show.reset();
        show.resume().await;
    }
    show.send_all().await.expect("still connected");
    show.stop().await.expect("still connected");
    archived_exactly(&cluster, "7", &capture).await;
    for address in &cluster.ops {
        for path in ["/healthz", "/readyz", "/metrics"] {
            let answer = http::get(*address, path)
                .await
                .expect("every service can be asked");
            assert_eq!(answer.status, 200, "{address} {path}");
        }
    }
}

#[tokio::test]
async fn each_service_in_turn_is_killed_in_the_middle_of_a_show() {
    let mut cluster = Cluster::split(SETTINGS).await;
    let capture = Capture::load("opus250");
    let mut show = cluster.broadcaster("7", &capture).await;
    for (nth, name) in [INGEST, GATEWAY, ARCHIVER, S3].into_iter().enumerate() {
        // What is lost with the connection is sent again.
        if show.send_to(capture.len() * (nth + 1) / 5).await.is_err() {
            show.resume().await;
        }
        cluster.process(name).kill_and_restart().await;
    }
    show.survive().await;
    archived_exactly(&cluster, "7", &capture).await;
}

#[tokio::test]
async fn a_show_goes_on_while_the_archiver_is_dead_and_is_archived_by_its_successor() {
    let mut cluster = Cluster::split(SETTINGS).await;
    let capture = Capture::load("opus250");
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_to(capture.len() / 3)
        .await
        .expect("still connected");
    cluster.process(ARCHIVER).kill().await;
    show.send_all()
        .await
        .expect("the archiver's death is no broadcaster's matter");
    show.acked_to(capture.len())
        .await
        .expect("nor does it keep bytes from being durable");
    show.seal().await;
    cluster.process(ARCHIVER).start().await;
    show.next_of("archived")
        .await
        .expect("the broadcaster hears the end all the same");
    archived_exactly(&cluster, "7", &capture).await;
}

#[tokio::test]
async fn an_archiver_that_is_killed_while_it_finalizes_leaves_one_object_and_one_row() {
    let mut cluster = Cluster::split(SETTINGS).await;
    let capture = Capture::load("opus250");
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_all().await.expect("still connected");
    show.seal().await;
    cluster.process(ARCHIVER).kill_and_restart().await;
    archived_exactly(&cluster, "7", &capture).await;
}

#[tokio::test]
async fn a_show_without_a_database_is_recorded_and_archived_when_the_database_is_back() {
    let mut cluster = Cluster::split(SETTINGS).await;
    let capture = Capture::load("opus250");
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_to(capture.len() / 3)
        .await
        .expect("still connected");
    cluster
        .postgres
        .as_mut()
        .expect("a PostgreSQL")
        .stop()
        .await;
    show.send_all()
        .await
        .expect("the database's death is no broadcaster's matter");
    show.acked_to(capture.len())
        .await
        .expect("nor does it keep bytes from being durable");
    show.seal().await;
    cluster
        .postgres
        .as_mut()
        .expect("a PostgreSQL")
        .restart()
        .await;
    archived_exactly(&cluster, "7", &capture).await;
}

#[tokio::test]
async fn a_show_that_begins_without_a_database_is_recorded_and_archived_later() {
    let mut cluster = Cluster::split(SETTINGS).await;
    let capture = Capture::load("sweepA");
    cluster
        .postgres
        .as_mut()
        .expect("a PostgreSQL")
        .stop()
        .await;
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_all().await.expect("still connected");
    show.acked_to(capture.len())
        .await
        .expect("durable without a database");
    cluster
        .postgres
        .as_mut()
        .expect("a PostgreSQL")
        .restart()
        .await;
    show.stop().await.expect("archived with it");
    archived_exactly(&cluster, "7", &capture).await;
}

#[tokio::test]
async fn a_store_that_is_dead_at_the_end_of_a_show_gets_its_one_object_later() {
    let mut cluster = Cluster::split(SETTINGS).await;
    let capture = Capture::load("opus250");
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_all().await.expect("still connected");
    show.acked_to(capture.len()).await.expect("still connected");
    cluster.process(S3).kill().await;
    show.seal().await;
    cluster.process(ARCHIVER).logs(&["WARN"]).await;
    cluster.process(S3).start().await;
    archived_exactly(&cluster, "7", &capture).await;
}

#[tokio::test]
async fn a_database_that_dies_at_the_beginning_in_the_middle_and_at_the_end_costs_only_time() {
    let mut cluster = Cluster::split(SETTINGS).await;
    let capture = Capture::load("opus250");
    let web = cluster.web;
    let postgres = cluster.postgres.as_mut().expect("a PostgreSQL");
    let mut show = Broadcaster::live(web, "7", capture.clone()).await;
    for step in 1..=3 {
        postgres.stop().await;
        show.send_to(capture.len() * step / 3)
            .await
            .expect("the database's death is no broadcaster's matter");
        if step == 3 {
            show.seal().await;
        }
        postgres.restart().await;
    }
    // Once more, now that the archiver is at work.
    postgres.stop().await;
    postgres.restart().await;
    show.next_of("archived").await.expect("archived in the end");
    archived_exactly(&cluster, "7", &capture).await;
}
