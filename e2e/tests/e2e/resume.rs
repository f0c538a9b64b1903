//! A show that loses its connection, or its whole server, is one recording with every byte.

use aircheck_e2e::{
    capture::Capture,
    cluster::Cluster,
    oracle::{archived_exactly, archived_takes, download},
    probe::decodes_clean,
    services::UP,
};
use serde_json::json;

#[tokio::test]
async fn a_show_whose_connection_is_reset_twice_is_one_recording_with_every_byte() {
    let cluster = Cluster::up(&[]).await;
    let capture = Capture::load("opus250");
    let mut show = cluster.broadcaster("7", &capture).await;
    for third in 1..=2 {
        show.send_to(capture.len() * third / 3)
            .await
            .expect("still connected");
        show.reset();
        let ready = show.resume().await;
        assert_eq!(ready["resumed"], true, "{ready}");
    }
    show.send_all().await.expect("still connected");
    let told = show.stop().await.expect("still connected");

    let recording = archived_exactly(&cluster, "7", &capture).await;
    for field in ["id", "status", "object_key", "bytes", "version"] {
        assert_eq!(
            told[field], recording[field],
            "what the broadcaster hears is what is kept: {field}"
        );
    }
    assert_eq!(
        (show.epoch, &recording["reconnects"]),
        (3, &json!(2)),
        "{recording}"
    );
    assert_eq!(recording["end_reason"], "stop");
    let media = decodes_clean(&download(&cluster, &recording).await).await;
    assert!(
        media.format.contains("webm") && media.codec == "opus",
        "{media:?}"
    );
    assert!((media.decoded_s - 30.0).abs() < 0.5, "{media:?}");
}

#[tokio::test]
async fn kill_9_of_everything_in_the_middle_of_a_show_loses_no_byte() {
    let mut cluster = Cluster::up(&[]).await;
    let capture = Capture::load("opus250");
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_to(capture.len() / 2)
        .await
        .expect("still connected");
    show.acked_to(capture.len() / 3)
        .await
        .expect("still connected");
    cluster.process(UP).kill_and_restart().await;
    show.reset();
    let ready = show.resume().await;
    assert_eq!(ready["resumed"], true, "{ready}");
    show.send_all().await.expect("still connected");
    show.stop().await.expect("still connected");

    let recording = archived_exactly(&cluster, "7", &capture).await;
    assert_eq!(recording["end_reason"], "stop");
    let media = decodes_clean(&download(&cluster, &recording).await).await;
    assert!((media.decoded_s - 30.0).abs() < 0.5, "{media:?}");
}

#[tokio::test]
async fn kill_9_between_the_last_byte_and_the_archive_is_healed_by_the_restart_alone() {
    let mut cluster = Cluster::up(&[("AIRCHECK_CLAIM_LEASE", "2s")]).await;
    let capture = Capture::load("sweepA");
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_all().await.expect("still connected");
    show.seal().await;
    cluster.process(UP).kill_and_restart().await;
    let recording = archived_exactly(&cluster, "7", &capture).await;
    assert_eq!(recording["end_reason"], "stop");
}

#[tokio::test]
async fn a_second_run_of_the_encoder_is_a_second_take_of_the_same_recording() {
    let cluster = Cluster::up(&[]).await;
    let (first, second) = (Capture::load("ff_webm"), Capture::load("ff_ogg"));
    let mut show = cluster.broadcaster("7", &first).await;
    let session = show.session.clone();
    show.send_all().await.expect("still connected");
    let ready = show
        .begin_take("other-microphone", second.clone())
        .await
        .expect("still connected");
    assert_eq!(ready["session"], json!(session), "{ready}");
    show.send_to(second.len() / 2)
        .await
        .expect("still connected");
    show.reset();
    show.resume().await;
    show.send_all().await.expect("still connected");
    show.stop().await.expect("still connected");
    archived_takes(&cluster, "7", &[&first, &second], &[]).await;
}
