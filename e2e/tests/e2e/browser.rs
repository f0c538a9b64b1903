//! A real browser.

use aircheck_e2e::{
    browser,
    cluster::Cluster,
    oracle::{download, recording_becomes},
    probe::decodes_clean,
    servers::{self, SECRET},
};
use serde_json::json;

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
