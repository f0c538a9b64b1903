//! The HTTP API over the life of shows.

use aircheck_e2e::{
    capture::Capture,
    cluster::Cluster,
    http,
    oracle::{archived_exactly, folder_of},
    services::UP,
};
use serde_json::{Value, json};

const STATUS_FIELDS: [&str; 14] = [
    "show_id",
    "active",
    "session",
    "epoch",
    "user",
    "recording",
    "recording_failed",
    "state",
    "grace_remaining_ms",
    "received",
    "durable",
    "archived",
    "listeners",
    "started_at",
];

fn has_all_fields(status: &Value) {
    for field in STATUS_FIELDS {
        assert!(status.get(field).is_some(), "{field} in {status}");
    }
}

/// Sends `capture` as a show of its own, to its end.
async fn broadcast(cluster: &Cluster, show: &str, capture: &Capture) -> Value {
    let mut broadcaster = cluster.broadcaster(show, capture).await;
    broadcaster.send_all().await.expect("still connected");
    broadcaster.stop().await.expect("still connected")
}

#[tokio::test]
async fn status_tells_idle_live_and_idle_again_with_all_fields() {
    let cluster = Cluster::up(&[]).await;
    let capture = Capture::load("ff_webm");
    let idle = cluster.status("7").await;
    has_all_fields(&idle);
    assert_eq!(
        (&idle["state"], &idle["active"], &idle["session"]),
        (&json!("idle"), &json!(false), &Value::Null)
    );

    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_all().await.expect("still connected");
    show.acked_to(capture.len()).await.expect("still connected");
    let live = cluster.status("7").await;
    has_all_fields(&live);
    let expected = json!({
        "show_id": "7", "active": true, "session": show.session, "epoch": 1, "user": "anonymous",
        "recording": true, "recording_failed": null, "state": "live", "grace_remaining_ms": null,
        "received": capture.len(), "durable": capture.len(), "listeners": 0,
    });
    for (field, value) in expected.as_object().expect("an object") {
        assert_eq!(&live[field], value, "{field} in {live}");
    }
    let streams = cluster.get("/api/stream/status").await.ok();
    assert_eq!(
        streams["streams"].as_array().map(Vec::len),
        Some(1),
        "{streams}"
    );
    assert_eq!(streams["streams"][0]["show_id"], "7", "{streams}");

    let running = cluster
        .post("/api/recording/start", r#"{"show_id":"7"}"#)
        .await
        .ok();
    assert_eq!(
        (&running["recording"]["id"], &running["recording"]["status"]),
        (&json!(show.session), &json!("recording")),
        "{running}"
    );
    show.stop().await.expect("still connected");
    archived_exactly(&cluster, "7", &capture).await;
    assert_eq!(cluster.status("7").await["active"], false);
}

#[tokio::test]
async fn markers_of_browsers_and_operators_end_up_in_the_recording_in_order() {
    let cluster = Cluster::up(&[]).await;
    let capture = Capture::load("ff_webm");
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_to(capture.len() / 2)
        .await
        .expect("still connected");
    let first = cluster
        .post(
            "/api/shows/7/markers",
            r#"{"label":"Überschrift","kind":"chapter"}"#,
        )
        .await
        .ok();
    assert!(first["at_ms"].is_u64(), "{first}");
    show.say(json!({"type": "marker", "label": "A song", "kind": "track"}))
        .await;
    show.send_all().await.expect("still connected");
    show.stop().await.expect("still connected");
    let recording = archived_exactly(&cluster, "7", &capture).await;
    let markers = recording["markers"].as_array().expect("markers");
    let kept: Vec<_> = markers
        .iter()
        .map(|marker| (&marker["label"], &marker["kind"]))
        .collect();
    let expected = [
        json!("Überschrift"),
        json!("chapter"),
        json!("A song"),
        json!("track"),
    ];
    assert_eq!(
        kept,
        [(&expected[0], &expected[1]), (&expected[2], &expected[3])]
    );
    assert!(
        markers[0]["at_ms"].as_u64() <= markers[1]["at_ms"].as_u64(),
        "{markers:?}"
    );
}

#[tokio::test]
async fn shows_are_created_by_going_live_and_settled_by_put() {
    let cluster = Cluster::up(&[]).await;
    let put = cluster
        .request(
            "PUT",
            "/api/shows/evening",
            r#"{"title":"Evening","grace_s":77}"#,
        )
        .await
        .ok();
    assert_eq!(
        (&put["id"], &put["grace_s"]),
        (&json!("evening"), &json!(77)),
        "{put}"
    );
    let show = cluster
        .broadcaster("evening", &Capture::load("ff_webm"))
        .await;
    assert_eq!(show.heard[0]["grace_s"], 77, "{:?}", show.heard);
    broadcast(&cluster, "morning", &Capture::load("ff_webm")).await;
    let shows = cluster.get("/api/shows").await.ok();
    let items = shows["items"].as_array().expect("items");
    let mut ids: Vec<_> = items
        .iter()
        .filter_map(|show| show["id"].as_str())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, ["evening", "morning"], "{shows}");
}

#[tokio::test]
async fn recordings_are_listed_newest_first_in_pages_and_by_status() {
    let cluster = Cluster::up(&[]).await;
    let capture = Capture::load("silence");
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.insert(0, broadcast(&cluster, "7", &capture).await["id"].clone());
    }
    let other = broadcast(&cluster, "8", &capture).await["id"].clone();
    let live = cluster.broadcaster("9", &capture).await;

    let of = |page: &Value| -> Vec<Value> {
        page["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|recording| recording["id"].clone())
            .collect()
    };
    let first = cluster.get("/api/shows/7/recordings?limit=2").await.ok();
    assert_eq!(of(&first), ids[..2], "{first}");
    let cursor = first["next"].as_str().expect("there is more");
    let rest = cluster
        .get(&format!("/api/shows/7/recordings?limit=2&after={cursor}"))
        .await
        .ok();
    assert_eq!(
        (of(&rest), &rest["next"]),
        (ids[2..].to_vec(), &Value::Null),
        "{rest}"
    );
    let archived = cluster.get("/api/recordings?status=archived").await.ok();
    let expected: Vec<Value> = std::iter::once(other).chain(ids).collect();
    assert_eq!(of(&archived), expected, "{archived}");
    let versions: std::collections::HashSet<_> = archived["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|recording| {
            (
                recording["show_id"].to_string(),
                recording["version"].to_string(),
            )
        })
        .collect();
    assert_eq!(
        versions.len(),
        4,
        "versions are unique within a show: {archived}"
    );
    let recording = cluster.get("/api/recordings?status=recording").await.ok();
    assert_eq!(of(&recording), [json!(live.session)], "{recording}");
}

#[tokio::test]
async fn a_download_is_a_redirect_that_serves_ranges_under_a_good_name() {
    let cluster = Cluster::up(&[]).await;
    let capture = Capture::load("opus250");
    let recording = broadcast(&cluster, "7", &capture).await;
    let id = recording["id"].as_str().expect("an id");
    let redirect = cluster.get(&format!("/api/recordings/{id}/download")).await;
    assert_eq!(redirect.status, 302, "{redirect:?}");
    let location = redirect.header("location");
    let whole = http::get_url(location, &[]).await;
    assert_eq!(whole.status, 200, "{whole:?}");
    assert_eq!(recording["bytes"], json!(whole.body.len()), "{recording}");
    assert!(
        whole.header("content-type").starts_with("audio/webm"),
        "{:?}",
        whole.headers
    );
    let version = recording["version"].as_str().expect("a version");
    let disposition = whole.header("content-disposition");
    assert!(
        disposition.contains("attachment") && disposition.contains(version),
        "{disposition}"
    );
    let part = http::get_url(location, &[("range", "bytes=1000-1999")]).await;
    assert_eq!(part.status, 206, "{part:?}");
    assert!(
        part.body == whole.body.slice(1000..2000),
        "exactly that range"
    );
    assert_eq!(
        part.header("content-range"),
        format!("bytes 1000-1999/{}", whole.body.len())
    );
}

#[tokio::test]
async fn a_recording_can_be_deleted_only_after_its_end_and_then_leaves_nothing() {
    let cluster = Cluster::up(&[]).await;
    let capture = Capture::load("ff_webm");
    let mut show = cluster.broadcaster("7", &capture).await;
    let path = format!(
        "/api/recordings/{}",
        show.session.clone().expect("a session")
    );
    show.send_all().await.expect("still connected");
    show.acked_to(capture.len()).await.expect("still connected");
    assert_eq!(
        cluster.request("DELETE", &path, "").await.error(),
        (409, "AC_NOT_ENDED".to_owned())
    );
    show.stop().await.expect("still connected");
    let recording = archived_exactly(&cluster, "7", &capture).await;
    let deleted = cluster.request("DELETE", &path, "").await;
    assert!([200, 204].contains(&deleted.status), "{deleted:?}");
    let left: Vec<String> = cluster.bucket().keys("7");
    assert!(
        !left
            .iter()
            .any(|key| key.starts_with(&folder_of(&recording)) && key.contains("recording.")),
        "{left:?}"
    );
    let download = cluster.get(&format!("{path}/download")).await;
    assert_eq!(download.status, 404, "{download:?}");
}

#[tokio::test]
async fn liveness_readiness_metrics_and_the_studio_are_served() {
    let mut cluster = Cluster::up(&[]).await;
    broadcast(&cluster, "7", &Capture::load("ff_webm")).await;
    for path in ["/healthz", "/readyz", "/"] {
        assert_eq!(cluster.get(path).await.status, 200, "{path}");
    }
    let page = cluster.get("/").await;
    assert!(
        page.header("content-type").starts_with("text/html"),
        "{:?}",
        page.headers
    );
    let metrics = cluster.get("/metrics").await;
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    for name in ["aircheck_received_bytes_total", "aircheck_ws_closes_total"] {
        assert!(text.contains(name), "{name} in {text}");
    }
    assert!(
        !text.contains(r#"show_id=""#),
        "no label may grow with the number of shows"
    );
    assert!(cluster.process(UP).is_running());
}
