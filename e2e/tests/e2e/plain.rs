//! The plain dialect.

use aircheck_e2e::{
    capture::Capture,
    cluster::Cluster,
    oracle::{archived_exactly, archived_takes},
    plain::Plain,
    wait::{SOON, eventually},
};
use serde_json::json;

/// A plain client is told nothing: what has arrived is asked for.
async fn received(cluster: &Cluster, show: &str, bytes: usize) {
    eventually(SOON, "all bytes are received", || async {
        let status = cluster.status(show).await;
        if status["received"] == json!(bytes) {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
}

#[tokio::test]
async fn bytes_and_stop_make_a_recording() {
    let cluster = Cluster::up(&[]).await;
    let capture = Capture::load("mp4opus");
    let mut show = Plain::connect(cluster.web, "?show_id=7")
        .await
        .expect("let in");
    show.send(&capture).await;
    show.stop().await;
    let recording = archived_exactly(&cluster, "7", &capture).await;
    let key = recording["object_key"].as_str().expect("a key");
    // Opus is Opus: it comes out as WebM, whatever it came in.
    assert!(key.ends_with("/recording.webm"), "{key}");
}

#[tokio::test]
async fn a_reconnect_goes_on_with_the_take_and_a_new_header_opens_another() {
    let cluster = Cluster::up(&[]).await;
    let (first, second) = (Capture::load("ff_webm"), Capture::load("ff_ogg"));
    let half = first.prefix(first.len() / 2);
    let mut show = Plain::connect(cluster.web, "?show_id=7")
        .await
        .expect("let in");
    show.send(&half).await;
    received(&cluster, "7", half.len()).await;
    show.0.reset();

    let mut show = Plain::connect(cluster.web, "?show_id=7")
        .await
        .expect("the same show goes on");
    show.0.binary(first.bytes.slice(half.len()..)).await;
    received(&cluster, "7", first.len()).await;
    assert!(show.is_quiet(), "the plain dialect has no acks");
    show.0.reset();

    let mut show = Plain::connect(cluster.web, "?show_id=7")
        .await
        .expect("the same show goes on");
    show.send(&second).await;
    show.stop().await;
    // Nobody knows what a plain client could not send: its first reconnect is an admitted gap.
    let gaps = [(0, half.len(), half.len())];
    let recording = archived_takes(&cluster, "7", &[&first, &second], &gaps).await;
    assert_eq!(recording["reconnects"], 2, "{recording}");
}
