//! A real browser.

use aircheck_e2e::{
    broadcaster::Broadcaster,
    browser::{self, Player},
    capture::Capture,
    cluster::Cluster,
    grpc,
    oracle::{archived_exactly, download, recording_becomes},
    probe::decodes_clean,
    servers::{self, SECRET},
    services::{GATEWAY, INGEST},
    wait::{SOON, eventually},
};
use aircheck_proto::ingest::ListSessionsRequest;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn chromium_rehearses_goes_live_reloads_resumes_stops_and_plays_its_archive() {
    let icecast = servers::icecast().await;
    let sinks = [icecast.port, 1]
        .map(|port| format!("icecast://source:{SECRET}@127.0.0.1:{port}/{{show_id}}.webm"));
    let cluster = Cluster::up(&[("AIRCHECK_LIVE_SINK", &sinks.join(","))]).await;
    let seen = browser::live(cluster.web, "7").await;
    assert_eq!(
        (&seen["sameSession"], &seen["listed"]),
        (&true.into(), &true.into()),
        "{seen}"
    );
    // Chromium's false microphone beeps, well above silence; nobody was on air meanwhile.
    assert!(
        matches!(seen["verdict"].as_str(), Some("good" | "fair")),
        "{seen}"
    );
    assert_eq!(seen["stateWhileTesting"], "idle", "{seen}");
    let well = format!("icecast://127.0.0.1:{}/7.webmup", icecast.port);
    assert_eq!(seen["up"], json!([well]), "{seen}");
    let lost = seen["down"][0].as_str().expect("one is down");
    assert!(
        lost.starts_with("icecast://127.0.0.1:1/7.webmdown"),
        "{seen}"
    );
    assert_eq!(
        seen["watch"], "icecast://127.0.0.1:1/7.webm does not get the show.",
        "{seen}"
    );
    assert!(!seen.to_string().contains(SECRET), "{seen}");
    let recording = recording_becomes(&cluster, "7", "archived").await;
    assert_eq!(recording["id"], seen["recordingId"], "{recording}");
    assert_eq!(
        recording["takes"], 2,
        "a reload is another run of the encoder: {recording}"
    );
    assert_eq!(cluster.recordings("7").await.len(), 1);
    let media = decodes_clean(&download(&cluster, &recording).await).await;
    assert_eq!(media.codec, "opus", "{media:?}");
}

/// Waits until the ingest counts so many listeners, asked past the gateway, which may be dead.
async fn listeners_are(cluster: &Cluster, wanted: u64) {
    let what = format!("{wanted} listeners");
    eventually(SOON * 2, &what, || async {
        let mut ingest = grpc::ingest(cluster.ingest).await;
        let answer = ingest.list_sessions(ListSessionsRequest::default()).await;
        let sessions = answer.expect("the ingest answers").into_inner().sessions;
        if sessions.iter().any(|session| session.listeners == wanted) {
            Ok(())
        } else {
            Err(sessions)
        }
    })
    .await;
}

/// Sends `chunks` more, while which the page must play.
async fn heard(show: &mut Broadcaster, page: &mut Player, chunks: usize) -> Vec<String> {
    let ends = &show.capture().ends;
    let sent = ends.iter().filter(|end| **end <= show.position).count();
    let to = ends[sent + chunks];
    let (states, sent) = tokio::join!(page.plays(), show.send_to(to));
    sent.expect("still connected");
    states
}

#[tokio::test]
async fn a_listeners_page_plays_on_by_itself_after_ingest_and_gateway_were_killed() {
    let mut cluster = Cluster::split(&[]).await;
    let capture = Capture::load("opus250");
    let mut page = Player::open(cluster.web, "7");
    page.becomes("offline").await;

    let mut show = cluster.broadcaster("7", &capture).await;
    show.pace = Duration::from_millis(150);
    show.send_to(capture.ends[4])
        .await
        .expect("still connected");
    listeners_are(&cluster, 1).await;
    heard(&mut show, &mut page, 25).await;
    page.becomes("live").await;

    cluster.process(INGEST).kill_and_restart().await;
    show.reset();
    show.resume().await;
    listeners_are(&cluster, 1).await;
    let mut states = heard(&mut show, &mut page, 25).await;

    cluster.process(GATEWAY).kill().await;
    listeners_are(&cluster, 0).await;
    cluster.process(GATEWAY).start().await;
    show.reset();
    show.resume().await;
    listeners_are(&cluster, 1).await;
    states.extend(heard(&mut show, &mut page, 25).await);
    let wrong = |state: &&String| ["offline", "ended", "stopped"].contains(&state.as_str());
    assert_eq!(states.iter().find(wrong), None, "{states:?}");

    show.send_all().await.expect("still connected");
    show.stop().await.expect("still connected");
    page.becomes("ended").await;
    page.close().await;
    archived_exactly(&cluster, "7", &capture).await;
}
