//! A new version on every service, one after the other, while shows are on air.

use aircheck_e2e::{
    broadcaster::Broadcaster,
    capture::Capture,
    cluster::Cluster,
    oracle::archived_exactly,
    services::{ARCHIVER, GATEWAY, INGEST},
};
use futures::future::join_all;
use std::time::Duration;

const SHOWS: usize = 20;

async fn restart_in_turn(cluster: &mut Cluster) {
    for name in [ARCHIVER, INGEST, GATEWAY] {
        let status = cluster.terminate(name).await;
        assert!(status.success(), "{name} leaves in order: {status}");
        cluster.process(name).start().await;
    }
}

#[tokio::test]
async fn every_service_is_restarted_in_turn_under_twenty_shows() {
    let mut cluster = Cluster::split(&[]).await;
    let capture = Capture::load("opus250");
    let name = |number: usize| format!("show-{number}");
    let mut shows: Vec<Broadcaster> = join_all((0..SHOWS).map(|number| {
        let capture = capture.prefix(capture.len() - number * 1000);
        let web = cluster.web;
        async move { Broadcaster::live(web, &name(number), capture).await }
    }))
    .await;
    for show in &mut shows {
        show.pace = Duration::from_millis(60);
    }
    let surviving = join_all(shows.iter_mut().map(Broadcaster::survive));
    tokio::join!(restart_in_turn(&mut cluster), surviving);
    for (number, show) in shows.iter().enumerate() {
        archived_exactly(&cluster, &name(number), show.capture()).await;
        assert!(show.connections > 1, "it was on air during the restarts");
    }
}
