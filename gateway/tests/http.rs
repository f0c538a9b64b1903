//! The HTTP API, byte by byte.

mod support;

use aircheck_core::code::Code;
use aircheck_proto::{
    Fault,
    archiver::{RecordingStatus, RepairOutcome, Show},
    ingest::{Alarm, SessionState, SessionStatus, SinkState, SinkStatus, StopSessionResponse},
};
use serde_json::{Value, json};
use support::{
    Scene,
    archiver::recording,
    client::{http, http_with, raw},
    ingest::session,
    nowhere, soon,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const ID: &str = "01JDAR0Q8ZK4N6V3T7W9X1Y2Z3";

async fn error(scene: &Scene, method: &str, path: &str, body: &str) -> (u16, String) {
    http(scene.address, method, path, body).await.error()
}

fn coded(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn an_idle_show_has_every_field() {
    let scene = Scene::new().await;
    let answer = http(scene.address, "GET", "/api/stream/status?show_id=7", "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(
        answer.json(),
        json!({"show_id": "7", "active": false, "session": null, "epoch": null, "user": null,
            "recording": false, "recording_failed": null, "state": "idle", "grace_remaining_ms": null,
            "received": 0, "durable": 0, "archived": 0, "listeners": 0, "started_at": null, "sinks": [],
            "alarms": []})
    );
}

#[tokio::test]
async fn the_status_is_what_the_ingest_says() {
    let scene = Scene::new().await;
    let grace = SessionStatus {
        grace_remaining_ms: Some(1500),
        recording_failed: Some("disk full".into()),
        ..session("8", SessionState::Grace)
    };
    let sink = SinkStatus {
        name: "icecast://radio.example/live".into(),
        state: SinkState::Down.into(),
        error: Some("refused".into()),
        lost_clusters: 4,
        restarts: 2,
    };
    let live = SessionStatus {
        sinks: vec![sink],
        alarms: vec![Alarm::NoData.into()],
        ..session("7", SessionState::Live)
    };
    let over = session("9", SessionState::Archived);
    scene
        .ingest
        .script(|s| s.sessions = vec![grace, live, over]);
    let live = http(scene.address, "GET", "/api/stream/status?show_id=7", "")
        .await
        .json();
    let expected = json!({"show_id": "7", "active": true, "session": "01JSESSION", "epoch": 2,
        "user": "anonymous", "recording": true, "recording_failed": null, "state": "live",
        "grace_remaining_ms": null, "received": 30, "durable": 20, "archived": 10, "listeners": 3,
        "started_at": "2026-11-23T20:15:00.000Z",
        "sinks": [{"name": "icecast://radio.example/live", "state": "down", "error": "refused",
            "lost_clusters": 4, "restarts": 2}],
        "alarms": ["no_data"]});
    assert_eq!(live, expected);
    let all = http(scene.address, "GET", "/api/stream/status", "")
        .await
        .json();
    let grace = &all["streams"][1];
    assert_eq!(
        all["streams"].as_array().map(Vec::len),
        Some(2),
        "what is over is not listed"
    );
    assert_eq!(all["streams"][0], expected);
    assert_eq!(
        (&grace["state"], &grace["active"]),
        (&json!("grace"), &json!(true))
    );
    assert_eq!(
        (&grace["recording"], &grace["recording_failed"]),
        (&json!(false), &json!("disk full"))
    );
    let idle = http(scene.address, "GET", "/api/stream/status?show_id=9", "")
        .await
        .json();
    assert_eq!(
        (&idle["state"], &idle["session"]),
        (&json!("idle"), &Value::Null)
    );
}

#[tokio::test]
async fn stop_answers_with_the_recording() {
    let scene = Scene::new().await;
    let stop = StopSessionResponse {
        stopped: true,
        session: Some(SessionStatus {
            session: ID.into(),
            ..session("7", SessionState::Finalizing)
        }),
    };
    scene.ingest.script(|script| script.stop = stop);
    let answer = http(scene.address, "POST", "/api/stream/stop?show_id=7", "").await;
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"stopped": true, "recording": null}))
    );
    let row = recording(ID, "7", RecordingStatus::Finalizing);
    scene.archiver.rows(|rows| rows.recordings.push(row));
    for (path, body) in [
        ("/api/stream/stop?show_id=7", ""),
        ("/api/recording/stop", r#"{"show_id":"7"}"#),
        ("/api/recording/stop", r#"{"show_id":7}"#),
    ] {
        let answer = http(scene.address, "POST", path, body).await.json();
        assert_eq!(answer["stopped"], true);
        assert_eq!(answer["recording"]["id"], ID);
        assert_eq!(answer["recording"]["status"], "finalizing");
    }
    scene
        .ingest
        .script(|script| assert_eq!(script.stopped, ["7"; 4]));
}

#[tokio::test]
async fn stopping_what_is_idle_changes_nothing() {
    let scene = Scene::new().await;
    let path = "/api/stream/stop?show_id=7";
    let answer = http(scene.address, "POST", path, "").await;
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"stopped": false, "recording": null}))
    );
    let row = recording(ID, "7", RecordingStatus::Archived);
    scene.archiver.rows(|rows| rows.recordings.push(row));
    let answer = http(scene.address, "POST", path, "").await.json();
    assert_eq!(
        (&answer["stopped"], &answer["recording"]["id"]),
        (&json!(false), &json!(ID))
    );
}

#[tokio::test]
async fn stop_works_while_the_archiver_is_away() {
    let nowhere = nowhere().await;
    let scene = Scene::with(|config| config.archiver = nowhere).await;
    let stop = StopSessionResponse {
        stopped: true,
        session: Some(session("7", SessionState::Finalizing)),
    };
    scene.ingest.script(|script| script.stop = stop);
    let answer = http(scene.address, "POST", "/api/stream/stop?show_id=7", "").await;
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"stopped": true, "recording": null}))
    );
}

#[tokio::test]
async fn what_is_away_is_503_with_a_time_to_retry() {
    let (ingest, archiver) = (nowhere().await, nowhere().await);
    let scene = Scene::with(|config| {
        config.ingest = vec![ingest];
        config.archiver = archiver;
    })
    .await;
    for (method, path) in [
        ("GET", "/api/stream/status?show_id=7"),
        ("GET", "/api/stream/status"),
        ("POST", "/api/stream/stop?show_id=7"),
        ("GET", "/live/7"),
        ("GET", "/api/shows"),
        ("GET", "/api/recordings"),
    ] {
        let answer = http(scene.address, method, path, "").await;
        assert_eq!(answer.error(), coded(503, "AC_UNAVAILABLE"), "{path}");
        assert_eq!(answer.headers["retry-after"], "1");
    }
}

#[tokio::test]
async fn starting_a_recording_finds_the_one_that_runs() {
    let scene = Scene::new().await;
    let (path, body) = ("/api/recording/start", r#"{"show_id":"7"}"#);
    assert_eq!(
        error(&scene, "POST", path, body).await,
        coded(409, "AC_NOT_LIVE")
    );
    let finalizing = session("7", SessionState::Finalizing);
    scene
        .ingest
        .script(|script| script.sessions = vec![finalizing]);
    assert_eq!(
        error(&scene, "POST", path, body).await,
        coded(409, "AC_NOT_LIVE")
    );
    let live = SessionStatus {
        session: ID.into(),
        ..session("7", SessionState::Live)
    };
    scene.ingest.script(|script| script.sessions = vec![live]);
    let answer = http(scene.address, "POST", path, body).await.json();
    assert_eq!(
        answer["recording"]["id"], ID,
        "known even before the archiver knows it"
    );
    assert_eq!(answer["recording"]["status"], "recording");
    assert_eq!(answer["recording"]["version"], "2026-11-23T20-15-00Z");
    let row = recording(ID, "7", RecordingStatus::Recording);
    scene.archiver.rows(|rows| rows.recordings.push(row));
    let answer = http(scene.address, "POST", path, body).await.json();
    assert_eq!(answer["recording"]["bytes"], 77);
}

#[tokio::test]
async fn a_marker_is_set_at_the_present_point() {
    let scene = Scene::new().await;
    let path = "/api/shows/7/markers";
    let answer = http(
        scene.address,
        "POST",
        path,
        r#"{"label":"News","kind":"chapter"}"#,
    )
    .await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({"at_ms": 1234, "label": "News", "kind": "chapter"})
    );
    for bad in [
        r#"{"label":""}"#,
        r#"{"label":"x","kind":"poem"}"#,
        "{}",
        "[]",
        "",
    ] {
        assert_eq!(
            error(&scene, "POST", path, bad).await,
            coded(400, "AC_BAD_MESSAGE"),
            "{bad}"
        );
    }
    scene.ingest.script(|script| {
        assert_eq!(script.markers.len(), 1);
        script.marker = Some(Fault::new(Code::NotLive, "The show is not live."));
    });
    let refused = error(&scene, "POST", path, r#"{"label":"News"}"#).await;
    assert_eq!(refused, coded(409, "AC_NOT_LIVE"));
}

#[tokio::test]
async fn shows_are_listed_and_set() {
    let scene = Scene::new().await;
    let body = r#"{"title":"Breakfast","grace_s":60,"gap_policy":"close"}"#;
    let answer = http(scene.address, "PUT", "/api/shows/7", body).await;
    let show = json!({"id": "7", "title": "Breakfast", "grace_s": 60, "gap_policy": "close"});
    assert_eq!((answer.status, answer.json()), (200, show.clone()));
    let listed = http(scene.address, "GET", "/api/shows", "").await.json();
    assert_eq!(listed, json!({"items": [show]}));
    for bad in [
        r#"{"grace_s":1801}"#,
        r#"{"grace_s":-1}"#,
        r#"{"gap_policy":"noise"}"#,
        "x",
    ] {
        let refused = error(&scene, "PUT", "/api/shows/7", bad).await;
        assert_eq!(refused, coded(400, "AC_BAD_MESSAGE"), "{bad}");
    }
    let refused = error(&scene, "PUT", "/api/shows/a.b", "{}").await;
    assert_eq!(refused, coded(400, "AC_BAD_SHOW_ID"));
}

#[tokio::test]
async fn new_settings_hold_from_the_next_broadcast_on() {
    let mut scene = Scene::new().await;
    for (body, grace_ms) in [(r#"{"grace_s":5}"#, 5000), (r#"{"grace_s":6}"#, 6000)] {
        assert_eq!(
            http(scene.address, "PUT", "/api/shows/7", body)
                .await
                .status,
            200
        );
        let mut client = support::client::resumable(scene.address, "?show_id=7").await;
        client.hello("t1").await;
        assert_eq!(scene.broadcasts.next().await.open.grace_ms, Some(grace_ms));
    }
}

#[tokio::test]
async fn recordings_are_listed_by_page() {
    let scene = Scene::new().await;
    scene.archiver.rows(|rows| {
        rows.shows.push(Show::default());
        rows.recordings
            .push(recording(ID, "7", RecordingStatus::Archived));
        rows.next = Some("cursor".to_owned());
    });
    let path = "/api/recordings?status=archived&after=c%2F1&limit=2";
    let page = http(scene.address, "GET", path, "").await.json();
    assert_eq!(
        (&page["items"][0]["id"], &page["next"]),
        (&json!(ID), &json!("cursor"))
    );
    let page = http(scene.address, "GET", "/api/shows/8/recordings", "")
        .await
        .json();
    assert_eq!(page["items"], json!([]));
    scene.archiver.rows(|rows| {
        let asked = &rows.listed[0];
        assert_eq!(asked.status(), RecordingStatus::Archived);
        assert_eq!((asked.after.as_deref(), asked.limit), (Some("c/1"), 2));
        assert_eq!(rows.listed[1].show_id.as_deref(), Some("8"));
    });
    for query in ["status=done", "limit=0", "limit=201", "limit=x"] {
        let refused = error(&scene, "GET", &format!("/api/recordings?{query}"), "").await;
        assert_eq!(refused, coded(400, "AC_BAD_MESSAGE"), "{query}");
    }
}

#[tokio::test]
async fn one_recording_is_found_downloaded_and_deleted() {
    let scene = Scene::new().await;
    let path = format!("/api/recordings/{ID}");
    assert_eq!(
        error(&scene, "GET", &path, "").await,
        coded(404, "AC_NOT_FOUND")
    );
    assert_eq!(
        error(&scene, "GET", "/api/recordings/1", "").await,
        coded(404, "AC_NOT_FOUND")
    );
    scene.archiver.rows(|rows| {
        rows.recordings
            .push(recording(ID, "7", RecordingStatus::Archived));
    });
    assert_eq!(
        http(scene.address, "GET", &path, "").await.json()["show_id"],
        "7"
    );
    let answer = http(scene.address, "GET", &format!("{path}/download"), "").await;
    assert_eq!(answer.status, 302);
    assert_eq!(
        answer.headers["location"],
        format!("https://store.example/{ID}?signature=abc")
    );
    assert_eq!(http(scene.address, "DELETE", &path, "").await.status, 204);
    scene.archiver.rows(|rows| {
        assert_eq!(rows.deleted, [ID]);
        rows.refusal = Some(Fault::new(Code::NotEnded, "The recording has not ended."));
    });
    assert_eq!(
        error(&scene, "DELETE", &path, "").await,
        coded(409, "AC_NOT_ENDED")
    );
}

#[tokio::test]
async fn a_repair_says_how_far_it_is_or_why_it_cannot_be() {
    let scene = Scene::new().await;
    let path = format!("/api/recordings/{ID}/repair");
    scene.archiver.rows(|rows| {
        rows.recordings
            .push(recording(ID, "7", RecordingStatus::Archived));
    });
    for (outcome, status, said) in [
        (RepairOutcome::Running, 202, "running"),
        (RepairOutcome::Repaired, 200, "repaired"),
        (RepairOutcome::NothingToRepair, 200, "nothing_to_repair"),
    ] {
        scene.archiver.rows(|rows| rows.repair = outcome);
        let answer = http(scene.address, "POST", &path, "").await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.json()["outcome"], said);
        assert_eq!(answer.json()["recording"]["id"], ID);
    }
    scene.archiver.rows(|rows| {
        let why = "the takes can't be stitched: take 1 is of no known container";
        rows.refusal = Some(Fault::new(Code::UnsupportedMedia, why));
    });
    assert_eq!(
        error(&scene, "POST", &path, "").await,
        coded(415, "AC_UNSUPPORTED_MEDIA")
    );
}

#[tokio::test]
async fn listening_streams_what_the_ingest_gives() {
    let scene = Scene::new().await;
    assert_eq!(
        error(&scene, "GET", "/live/7", "").await,
        coded(404, "AC_NOT_FOUND")
    );
    assert_eq!(
        error(&scene, "GET", "/live/a%20b", "").await,
        coded(400, "AC_BAD_SHOW_ID")
    );
    let media = vec!["init".into(), "cluster1".into(), "cluster2".into()];
    scene
        .ingest
        .script(|script| script.live = Some(("audio/webm".to_owned(), media)));
    let answer = http(scene.address, "GET", "/live/7", "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "audio/webm");
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(answer.headers["transfer-encoding"], "chunked");
    assert_eq!(answer.body, b"initcluster1cluster2");
}

#[tokio::test]
async fn draining_ends_listening_in_order() {
    let scene = Scene::new().await;
    scene.ingest.script(|script| {
        script.live = Some(("audio/webm".to_owned(), vec!["init".into()]));
        script.is_endless = true;
    });
    let mut stream = soon(TcpStream::connect(scene.address))
        .await
        .expect("connect");
    let request = b"GET /live/7 HTTP/1.1\r\nHost: x\r\n\r\n";
    soon(stream.write_all(request)).await.expect("write");
    let mut answer = Vec::new();
    while !answer.ends_with(b"init\r\n") {
        assert!(
            soon(stream.read_buf(&mut answer)).await.expect("read") > 0,
            "ended too early"
        );
    }
    scene.shutdown.trigger();
    soon(stream.read_to_end(&mut answer))
        .await
        .expect("an orderly end");
    assert!(
        answer.ends_with(b"init\r\n0\r\n\r\n"),
        "the last chunk says that this is all"
    );
    soon(scene.served)
        .await
        .expect("no panic")
        .expect("no fault");
}

#[tokio::test]
async fn what_no_route_answers_is_json_too() {
    let scene = Scene::new().await;
    for path in [
        "/nope",
        "/api",
        "/api/nope",
        "/studio/nope.js",
        "/studio/..%2fCargo.toml",
    ] {
        assert_eq!(
            error(&scene, "GET", path, "").await,
            coded(404, "AC_NOT_FOUND"),
            "{path}"
        );
    }
    let answer = http(scene.address, "DELETE", "/api/shows", "").await;
    assert_eq!(answer.error(), coded(405, "AC_BAD_MESSAGE"));
    assert!(answer.headers["allow"].contains("GET"));
    assert_eq!(
        error(&scene, "GET", "/api/stream/stop?show_id=7", "")
            .await
            .0,
        405
    );
    let refused = error(&scene, "POST", "/api/stream/stop", "").await;
    assert_eq!(refused, coded(400, "AC_BAD_SHOW_ID"));
    let refused = error(&scene, "GET", "/api/stream/status?show_id=%ff", "").await;
    assert_eq!(refused.0, 400);
}

#[tokio::test]
async fn bodies_are_limited() {
    let scene = Scene::new().await;
    let huge = format!(r#"{{"label":"{}"}}"#, "x".repeat(64 << 10));
    let refused = error(&scene, "POST", "/api/shows/7/markers", &huge).await;
    assert_eq!(refused, coded(413, "AC_TOO_LARGE"));
    for bad in ["", "{", "{}", r#"{"show_id":null}"#, r#"{"show_id":[]}"#] {
        let refused = error(&scene, "POST", "/api/recording/start", bad).await;
        assert_eq!(refused, coded(400, "AC_BAD_MESSAGE"), "{bad}");
    }
    let refused = error(
        &scene,
        "POST",
        "/api/recording/start",
        r#"{"show_id":"a b"}"#,
    )
    .await;
    assert_eq!(refused, coded(400, "AC_BAD_SHOW_ID"));
}

#[tokio::test]
async fn a_request_that_is_no_websocket_is_told_so() {
    let scene = Scene::new().await;
    assert_eq!(
        error(&scene, "GET", "/ws/stream", "").await,
        coded(400, "AC_BAD_SHOW_ID")
    );
    let answer = http(scene.address, "GET", "/ws/stream?show_id=7", "").await;
    assert_eq!(answer.error(), coded(426, "AC_BAD_MESSAGE"));
    let upgrade = |lines: &str| {
        format!(
            "GET /ws/stream?show_id=7 HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n{lines}\r\n"
        )
    };
    let old =
        upgrade("Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n");
    let answer = String::from_utf8(raw(scene.address, old.as_bytes()).await).expect("text");
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("sec-websocket-version: 13"));
    let keyless = upgrade("Sec-WebSocket-Version: 13\r\n");
    let answer = raw(scene.address, keyless.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 400"));
    assert!(scene.broadcasts.is_empty());
}

#[tokio::test]
async fn nonsense_on_the_socket_harms_nobody_else() {
    let scene = Scene::new().await;
    for nonsense in [
        b"\x16\x03\x01\x02\x00".as_slice(),
        b"\0\0\0\0",
        b"GET\r\n\r\n",
    ] {
        let mut bytes = nonsense.to_vec();
        bytes.extend_from_slice(b"\r\n\r\n");
        raw(scene.address, &bytes).await;
    }
    let long = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: {}\r\n\r\n",
        "y".repeat(200 << 10)
    );
    let answer = raw(scene.address, long.as_bytes()).await;
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert_eq!(http(scene.address, "GET", "/healthz", "").await.status, 200);
}

#[tokio::test]
async fn the_studio_is_embedded_with_headers_that_protect_it() {
    let scene = Scene::new().await;
    let page = http(scene.address, "GET", "/", "").await;
    assert_eq!(
        (page.status, &*page.headers["content-type"]),
        (200, "text/html; charset=utf-8")
    );
    assert_eq!(page.body, include_bytes!("../../studio/index.html"));
    let script = http(scene.address, "GET", "/studio/client.js", "").await;
    assert_eq!(script.status, 200);
    assert_eq!(
        script.headers["content-type"],
        "text/javascript; charset=utf-8"
    );
    assert_eq!(script.headers["x-content-type-options"], "nosniff");
    assert_eq!(script.headers["cache-control"], "no-cache");
    assert!(script.headers["content-security-policy"].starts_with("default-src 'self'"));
    assert_eq!(script.body, include_bytes!("../../studio/client.js"));
    let known = format!("If-None-Match: {}\r\n", script.headers["etag"]);
    let again = http_with(scene.address, "GET", "/studio/client.js", &known, "").await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(again.headers["etag"], script.headers["etag"]);
}

#[tokio::test]
async fn readiness_ends_with_draining() {
    let scene = Scene::new().await;
    assert_eq!(http(scene.address, "GET", "/readyz", "").await.status, 200);
    assert_eq!(http(scene.address, "GET", "/metrics", "").await.status, 200);
    scene.shutdown.trigger();
    soon(scene.served)
        .await
        .expect("no panic")
        .expect("no fault");
    assert!(!scene.health.is_ready());
}

#[tokio::test]
async fn every_show_has_a_listeners_page_if_this_build_has_one() {
    let scene = Scene::new().await;
    let file = http(scene.address, "GET", "/studio/listen.html", "").await;
    let page = http(scene.address, "GET", "/listen/7", "").await;
    assert_eq!((page.status, &page.body), (file.status, &file.body));
    match page.status {
        200 => assert!(page.headers["content-type"].starts_with("text/html")),
        _ => assert_eq!(page.error(), coded(404, "AC_NOT_FOUND")),
    }
    for bad in ["/listen/-7", "/listen/a.b", "/listen/a%20b"] {
        assert_eq!(
            error(&scene, "GET", bad, "").await,
            coded(400, "AC_BAD_SHOW_ID")
        );
    }
}
