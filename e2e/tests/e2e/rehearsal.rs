//! Rehearsals: the whole way to the archive, unheard.

use aircheck_e2e::{
    capture::Capture,
    cluster::Cluster,
    oracle::archived_exactly,
    plain::Plain,
    socket::Socket,
    wait::{SOON, eventually},
};
use serde_json::{Value, json};

const QUERY: &str = "?show_id=7&test=true";

/// Rehearses the whole capture; gives everything that was said from stop to the end.
async fn rehearse(cluster: &Cluster, capture: &Capture) -> Vec<Value> {
    let mut socket = Socket::open(cluster.web, QUERY, Some("aircheck.v1"))
        .await
        .expect("let in");
    let take = json!({"id": "t", "mime": capture.mime, "first": 0, "next": 0});
    let hello = json!({"type": "hello", "session": null, "take": take});
    socket.text(hello.to_string()).await;
    let json = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    assert_eq!(json(&socket.said().await)["type"], "ready");
    for chunk in capture.chunks() {
        socket.binary(chunk).await;
    }
    while json(&socket.said().await)["offset"] != json!(capture.len()) {}
    socket.text(r#"{"type":"stop"}"#.to_owned()).await;
    let mut said = Vec::new();
    assert_eq!(socket.closed(&mut said).await, 1000, "{said:?}");
    said.iter().map(|text| json(text)).collect()
}

async fn all(cluster: &Cluster) -> Vec<Value> {
    let listed = cluster.get("/api/recordings?rehearsals=true").await.ok();
    listed["items"].as_array().expect("items").clone()
}

#[tokio::test]
async fn a_rehearsal_runs_beside_its_show_unheard_and_ends_with_a_sheet() {
    let cluster = Cluster::up(&[]).await;
    let (capture, rehearsed) = (Capture::load("opus250"), Capture::load("sweepA"));
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_to(capture.len() / 2).await.expect("on air");
    let session = cluster.status("7").await["session"].clone();

    let said = rehearse(&cluster, &rehearsed).await;
    let [.., sheet, end] = &said[..] else {
        panic!("{said:?}");
    };
    assert_eq!(
        (&sheet["type"], &end["type"]),
        (&json!("sheet"), &json!("archived"))
    );
    assert_eq!(sheet["lost_bytes"], 0, "{sheet}");
    for measured in [
        &sheet["round_trip_ms"]["p50"],
        &sheet["round_trip_ms"]["p99"],
        &sheet["ack_ms"]["p50"],
        &sheet["ack_ms"]["p99"],
    ] {
        assert!(measured.as_f64().is_some_and(|ms| ms > 0.0), "{sheet}");
    }
    let rms = sheet["level"]["rms_dbfs"].as_f64().expect("a level");
    assert!((-40.0..0.0).contains(&rms), "{sheet}");
    assert!(
        matches!(sheet["verdict"].as_str(), Some("good" | "fair")),
        "{sheet}"
    );

    let recording = &end["recording"];
    let id = recording["id"].as_str().expect("an id");
    let key = recording["object_key"].as_str().expect("a key");
    assert!(key.starts_with("rehearsals/7/"), "{key}");
    assert_eq!(recording["rehearsal"], true);
    let stored = cluster.get(&format!("/api/recordings/{id}")).await.ok();
    assert_eq!(stored["sheet"]["verdict"], sheet["verdict"]);
    assert_eq!(stored["sheet"]["level"], sheet["level"]);

    // The show has noticed nothing, and its list holds nothing else.
    let status = cluster.status("7").await;
    assert_eq!(
        (&status["session"], &status["state"]),
        (&session, &json!("live"))
    );
    show.send_all().await.expect("on air");
    show.stop().await.expect("archived");
    let recording = archived_exactly(&cluster, "7", &capture).await;
    assert_eq!(recording["rehearsal"], Value::Null);
    assert_eq!(cluster.recordings("7").await.len(), 1);
    assert_eq!(all(&cluster).await.len(), 2);
}

#[tokio::test]
async fn a_plain_rehearsal_reads_its_sheet_and_nobody_can_listen() {
    // Where browsers reach the store is not where the services do.
    let elsewhere = ("AIRCHECK_S3_PUBLIC_ENDPOINT", "http://127.0.0.1:9");
    let cluster = Cluster::up(&[elsewhere]).await;
    let mut rehearsal = Plain::connect(cluster.web, QUERY).await.expect("let in");
    rehearsal.send(&Capture::load("silence")).await;
    assert_eq!(cluster.get("/live/7").await.error().0, 404);
    assert_eq!(cluster.status("7").await["state"], "idle");
    let stopped = cluster.post("/api/stream/stop?show_id=7", "").await.ok();
    assert_eq!(stopped["stopped"], false, "there is no show to stop");
    rehearsal.0.text("stop".to_owned()).await;
    let mut said = Vec::new();
    assert_eq!(rehearsal.0.closed(&mut said).await, 1000);
    let sheet = said[0].strip_prefix("sheet: ").expect("a sheet");
    let sheet: Value = serde_json::from_str(sheet).expect("JSON");
    assert_eq!(sheet["verdict"], "bad", "it was silent: {sheet}");
    let rms = sheet["level"]["rms_dbfs"].as_f64().expect("a level");
    assert!(rms < -60.0, "{sheet}");
    assert_eq!(said.len(), 1);
}

#[tokio::test]
async fn rehearsals_go_by_themselves_and_shows_do_not() {
    let mut cluster = Cluster::up(&[]).await;
    let capture = Capture::load("silence");
    let end = rehearse(&cluster, &capture).await.pop().expect("an end");
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_all().await.expect("on air");
    show.stop().await.expect("archived");
    assert_eq!(all(&cluster).await.len(), 2);
    let key = end["recording"]["object_key"].as_str().expect("a key");
    assert!(!cluster.bucket().object(key).is_empty());

    // Whoever starts next finds what is too old.
    let name = cluster.names().pop().expect("one process");
    cluster.terminate(&name).await;
    let process = cluster.process(&name);
    process.once("AIRCHECK_REHEARSAL_RETENTION", "0");
    process.start().await;
    eventually(SOON, "the rehearsal is gone", || async {
        let left = all(&cluster).await;
        if left.len() == 1 { Ok(()) } else { Err(left) }
    })
    .await;
    assert_eq!(all(&cluster).await[0]["rehearsal"], Value::Null);
    assert!(!cluster.bucket().has(key));
    archived_exactly(&cluster, "7", &capture).await;
}
