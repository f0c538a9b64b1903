//! A recording that can't be written, and a live show that doesn't care.

use aircheck_e2e::{
    broadcaster::Broadcaster,
    capture::Capture,
    cluster::Cluster,
    faults::{SmallDisk, is_root, skipped},
    listener::Listener,
    oracle::{folder_of, is_archive_of},
    probe::{decodes_clean, noise, packets},
    services::UP,
    wait::{HEALED, within},
};
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn a_full_disk_fails_the_recording_loudly_and_leaves_the_listeners_alone() {
    if !is_root() {
        return skipped("mounting a small disk needs root");
    }
    let mut cluster = Cluster::up_unstarted(&[]);
    let Some(_disk) = SmallDisk::mount(&cluster.folder().join("data/spool"), 2 << 20) else {
        return;
    };
    cluster.expect_errors(&["recording failed", "No space left"]);
    cluster.process(UP).start().await;

    let capture = noise(100).await;
    assert!(
        capture.len() > 3 << 20,
        "more than the disk holds: {}",
        capture.len()
    );
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_to(1).await.expect("still connected");
    let listener = Listener::tune_in(cluster.web, "7")
        .await
        .expect("the show is live");
    // Far faster than life, but not so fast that a listener could fall behind.
    show.pace = Duration::from_millis(20);
    show.send_all().await.expect("the live show goes on");

    everybody_is_told(&mut cluster, &mut show).await;
    let durable = usize::try_from(show.acked).expect("fits");
    show.say(json!({"type": "stop"})).await;
    let end = show.next_of("failed").await.expect("the end is said");
    let heard = listener.to_the_end().await;
    let media = decodes_clean(&heard).await;
    assert!(
        (media.decoded_s - 100.0).abs() < 1.5,
        "listeners hear all of it: {media:?}"
    );

    what_was_durable_is_archived(&cluster, &end["recording"], &capture, durable).await;
    assert!(
        durable > 0,
        "something was acknowledged before the disk was full"
    );
    the_next_show_is_recorded(&cluster).await;
}

/// Client, status, log and metrics say that the recording failed.
pub(crate) async fn everybody_is_told(cluster: &mut Cluster, show: &mut Broadcaster) {
    // A segment is preallocated first, which takes its time on a disk that others use as well.
    let said = within(HEALED, "the client is told", async {
        loop {
            if let Some(failed) = show
                .heard
                .iter()
                .find(|said| said["type"] == "state" && said["recording"] == "failed")
            {
                break failed.clone();
            }
            show.next().await.expect("still connected");
        }
    })
    .await;
    assert_eq!(said["live"], true, "{said}");
    assert!(
        said["error"]
            .as_str()
            .is_some_and(|error| !error.is_empty()),
        "{said}"
    );
    let status = cluster.status("7").await;
    assert!(status["recording_failed"].is_string(), "{status}");
    assert_eq!(
        (&status["recording"], &status["state"]),
        (&json!(false), &json!("live")),
        "{status}"
    );
    cluster
        .process(UP)
        .logs(&["ERROR", "recording failed"])
        .await;
    let metrics = cluster.get("/metrics").await;
    assert!(String::from_utf8_lossy(&metrics.body).contains("aircheck_recording_failures_total 1"));
}

pub(crate) async fn what_was_durable_is_archived(
    cluster: &Cluster,
    recording: &Value,
    sent: &Capture,
    durable: usize,
) {
    assert_eq!(recording["status"], "failed", "{recording}");
    assert!(
        recording["error"]
            .as_str()
            .is_some_and(|error| !error.is_empty()),
        "{recording}"
    );
    let key = recording["object_key"]
        .as_str()
        .unwrap_or_else(|| panic!("what could be saved is saved: {recording}"));
    assert!(key.starts_with(&folder_of(recording)), "{recording}");
    let stored = cluster.bucket().object(key);
    let archived = packets(&stored).await.remove(&0).expect("audio");
    let sent = packets(&sent.bytes[..durable])
        .await
        .remove(&0)
        .expect("audio");
    let whole = sent.len() - 1;
    assert!(
        archived.iter().take(whole).eq(sent.iter().take(whole)),
        "{durable} bytes were acknowledged, in {whole} whole packets; {} are archived",
        archived.len()
    );
    assert_eq!(cluster.bucket().media_keys("7").len(), 1);
}

async fn the_next_show_is_recorded(cluster: &Cluster) {
    let capture = Capture::load("ff_webm");
    let mut show = Broadcaster::new(cluster.web, "7", capture.clone());
    // Refused as long as the room is not back.
    let ready = show.resume().await;
    assert_eq!(ready["recording"], "recording", "{ready}");
    show.send_all().await.expect("still connected");
    let recording = show.stop().await.expect("still connected");
    is_archive_of(cluster, &recording, &[&capture], &[]).await;
}
