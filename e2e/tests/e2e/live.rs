//! Listeners.

use aircheck_e2e::{
    capture::Capture,
    cluster::Cluster,
    listener::Listener,
    oracle::archived_exactly,
    probe::decodes_clean,
    services::INGEST,
    wait::{SOON, eventually},
};
use serde_json::json;

const EBML: [u8; 4] = [0x1A, 0x45, 0xDF, 0xA3];

#[tokio::test]
async fn a_listener_who_tunes_in_late_hears_a_stream_that_decodes() {
    let cluster = Cluster::up(&[]).await;
    let capture = Capture::load("opus250");
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_to(capture.len() / 2)
        .await
        .expect("still connected");
    let early = Listener::tune_in(cluster.web, "7")
        .await
        .expect("the show is live");
    early.has_heard(1).await;
    let counted = eventually(SOON, "the listener is counted", || async {
        let status = cluster.status("7").await;
        if status["listeners"] == 1 {
            Ok(status)
        } else {
            Err(status)
        }
    })
    .await;
    assert_eq!(counted["state"], "live");
    show.send_all().await.expect("still connected");
    show.stop().await.expect("still connected");
    let heard = early.to_the_end().await;
    assert_eq!(heard[..4], EBML, "a stream begins with the init segment");
    let media = decodes_clean(&heard).await;
    assert!(media.codec == "opus" && media.decoded_s > 10.0, "{media:?}");
    archived_exactly(&cluster, "7", &capture).await;
    let gone = Listener::tune_in(cluster.web, "7")
        .await
        .map(|_| ())
        .expect_err("the show is over");
    assert_eq!(gone.0, 404, "{gone:?}");
}

#[tokio::test]
async fn a_listener_from_the_start_hears_the_whole_show_through_a_reconnect() {
    let cluster = Cluster::up(&[]).await;
    let capture = Capture::load("opus250");
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_to(capture.ends[4])
        .await
        .expect("still connected");
    let listener = Listener::tune_in(cluster.web, "7")
        .await
        .expect("the show is live");
    assert!(
        listener.content_type.contains("webm"),
        "{}",
        listener.content_type
    );
    show.send_to(capture.len() / 2)
        .await
        .expect("still connected");
    show.reset();
    show.resume().await;
    show.send_all().await.expect("still connected");
    show.stop().await.expect("still connected");
    let media = decodes_clean(&listener.to_the_end().await).await;
    assert!(
        (media.decoded_s - 30.0).abs() < 1.5,
        "nothing is heard twice or not at all: {media:?}"
    );
}

#[tokio::test]
async fn a_listener_who_reads_nothing_disturbs_nobody() {
    let cluster = Cluster::up(&[]).await;
    let capture = Capture::load("opus250");
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_to(capture.len() / 4)
        .await
        .expect("still connected");
    let mut deaf = tokio::net::TcpStream::connect(cluster.web)
        .await
        .expect("connect");
    let request = b"GET /live/7 HTTP/1.1\r\nHost: radio\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut deaf, request)
        .await
        .expect("ask");
    let listener = Listener::tune_in(cluster.web, "7")
        .await
        .expect("the show is live");
    show.send_all().await.expect("still connected");
    show.acked_to(capture.len()).await.expect("acks go on");
    show.stop().await.expect("still connected");
    let heard = listener.to_the_end().await;
    assert_eq!(heard[..4], EBML);
    let recording = archived_exactly(&cluster, "7", &capture).await;
    assert_eq!(recording["gaps"], json!([]));
    drop(deaf);
}

#[tokio::test]
async fn a_listener_may_tune_in_before_there_is_anything_to_hear() {
    let cluster = Cluster::up(&[]).await;
    let capture = Capture::load("vp8");
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_to(capture.ends[2])
        .await
        .expect("still connected");
    let (listener, ()) = tokio::join!(Listener::tune_in(cluster.web, "7"), async {
        // Another listener's request has been answered, so this one's has arrived.
        eventually(SOON, "the listener waits", || async {
            let status = cluster.status("7").await;
            if status["listeners"] == 1 {
                Ok(())
            } else {
                Err(status)
            }
        })
        .await;
        show.send_all().await.expect("still connected");
    });
    let listener = listener.expect("the show is live");
    show.stop().await.expect("still connected");
    let media = decodes_clean(&listener.to_the_end().await).await;
    assert!((media.decoded_s - 20.0).abs() < 1.5, "{media:?}");
}

#[tokio::test]
async fn a_take_that_goes_on_after_the_ingest_was_killed_is_heard_again() {
    for name in ["opus250", "mp4opus"] {
        let mut cluster = Cluster::split(&[]).await;
        let capture = Capture::load(name);
        let mut show = cluster.broadcaster("7", &capture).await;
        let half = capture.len() / 2;
        show.send_to(half).await.expect("still connected");
        show.acked_to(half).await.expect("acknowledged");
        let before = show.heard.len();
        cluster.process(INGEST).kill_and_restart().await;
        show.reset();
        show.resume().await;
        let listener = Listener::tune_in(cluster.web, "7")
            .await
            .expect("the show is live");
        show.send_all().await.expect("still connected");
        show.stop().await.expect("still connected");
        let media = decodes_clean(&listener.to_the_end().await).await;
        let all = decodes_clean(&capture.bytes).await.decoded_s;
        assert!(
            media.decoded_s > all / 4.0,
            "{name}: the rest of the same take is heard: {media:?} of {all} s, {:?}",
            &show.heard[before..]
        );
        archived_exactly(&cluster, "7", &capture).await;
    }
}

#[tokio::test]
async fn a_listener_of_a_video_show_begins_at_a_key_frame() {
    let cluster = Cluster::up(&[]).await;
    let capture = Capture::load("vp8");
    let mut show = cluster.broadcaster("7", &capture).await;
    // In the second of four groups of pictures; the first is complete.
    show.send_to(capture.len() * 2 / 5)
        .await
        .expect("still connected");
    show.acked_to(capture.len() * 2 / 5)
        .await
        .expect("still connected");
    let listener = Listener::tune_in(cluster.web, "7")
        .await
        .expect("the show is live");
    show.send_all().await.expect("still connected");
    show.stop().await.expect("still connected");
    let media = decodes_clean(&listener.to_the_end().await).await;
    assert!(media.codec == "vp8" || media.codec == "opus", "{media:?}");
    assert!(
        media.decoded_s > 9.0,
        "at least from the third key frame on: {media:?}"
    );
}
