//! Networks that fall apart between gateway and ingest, without a word to either.

use aircheck_e2e::{
    capture::Capture,
    cluster::Cluster,
    namespace::{Namespace, Partition},
    oracle::archived_exactly,
    wait::HEALED,
};
use std::time::Duration;

/// What only the gateway has is not durable: the client keeps it, is sent away with a word that it may
/// come back, and sends it again.
async fn a_partition_costs_nothing(partition: Partition) {
    let Some(namespace) = Namespace::create() else {
        return;
    };
    let cluster = Cluster::split_with_ingest_in(&namespace, &[]).await;
    let capture = Capture::load("opus250");
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_to(capture.len() / 4)
        .await
        .expect("still connected");
    show.acked_to(show.position).await.expect("still connected");
    namespace.part(partition, cluster.ingest.port());
    show.pace = Duration::from_millis(50);
    let ended = match show.send_to(capture.len() * 3 / 4).await {
        Ok(()) => show.sent_away(HEALED).await,
        Err(ended) => ended,
    };
    assert_eq!(ended.codes(), (4503, "AC_UNAVAILABLE"), "{ended:?}");
    namespace.heal();
    show.pace = Duration::from_millis(2);
    let ready = show.resume().await;
    assert_eq!(ready["resumed"], true, "{ready}");
    show.send_all().await.expect("still connected");
    show.stop().await.expect("still connected");
    archived_exactly(&cluster, "7", &capture).await;
}

#[tokio::test]
async fn an_ingest_that_hears_nothing_any_more_loses_no_byte() {
    a_partition_costs_nothing(Partition::Requests).await;
}

#[tokio::test]
async fn an_ingest_that_is_not_heard_any_more_loses_no_byte() {
    a_partition_costs_nothing(Partition::Answers).await;
}

#[tokio::test]
async fn an_ingest_that_is_cut_off_loses_no_byte() {
    a_partition_costs_nothing(Partition::Both).await;
}
