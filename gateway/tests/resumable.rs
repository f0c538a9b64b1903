//! The dialect `aircheck.v1` over a real socket.

mod support;

use aircheck_core::code::Code;
use aircheck_proto::{
    Fault,
    archiver::RecordingStatus,
    ingest::{
        Ack, Alarm, Dialect, End, GapPolicy, Previous, Progress, Ready, SinkState, SinkStatus,
        State, publish_request::Request, publish_response::Response,
    },
};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::time::Duration;
use support::{
    Scene,
    archiver::recording,
    client::{Broadcaster, connect, resumable},
    ingest::{Broadcast, ready},
    nowhere, soon,
};
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

/// A broadcaster that is live from `offset` on, on both sides.
async fn live(scene: &mut Scene, offset: u64) -> (Broadcaster, Broadcast) {
    let mut client = resumable(scene.address, "?show_id=7").await;
    client.hello("t1").await;
    let broadcast = scene.broadcasts.next().await;
    broadcast.ready(offset).await;
    assert_eq!(client.json().await["type"], "ready");
    (client, broadcast)
}

async fn greet(scene: &Scene, first: &str) -> (String, u16) {
    let mut client = resumable(scene.address, "?show_id=7").await;
    client.text(first).await;
    client.refused().await
}

#[tokio::test]
async fn hello_is_answered_by_ready_with_every_field_of_the_contract() {
    let mut scene = Scene::new().await;
    let mut client = resumable(scene.address, "?show_id=7").await;
    client
        .text(r#"{"type":"hello","session":"01OLD","take":{"id":"t1","mime":"audio/webm;codecs=opus","first":5,"next":90}}"#)
        .await;
    let broadcast = scene.broadcasts.next().await;
    let open = &broadcast.open;
    assert_eq!(open.dialect(), Dialect::Resumable);
    assert_eq!(open.session.as_deref(), Some("01OLD"));
    let take = open.take.clone().expect("a take");
    assert_eq!(
        (take.first, take.next, &*take.mime),
        (5, 90, "audio/webm;codecs=opus")
    );
    let previous = Previous {
        session: "01OLD".into(),
        status: "archived".into(),
    };
    let answer = Ready {
        previous: Some(previous),
        ..ready("7", "t1", 5)
    };
    broadcast.answer(Response::Ready(answer)).await;
    assert_eq!(
        client.json().await,
        json!({"type": "ready", "session": "01JSESSION", "epoch": 1, "show_id": "7", "take": "t1",
            "offset": 5, "resumed": false, "recording": "recording", "grace_s": 30,
            "max_frame": 1_048_576, "previous": {"session": "01OLD", "status": "archived"}})
    );
}

#[tokio::test]
async fn a_show_goes_from_ready_to_archived() {
    let mut scene = Scene::new().await;
    let (mut client, mut broadcast) = live(&mut scene, 1000).await;
    client.binary("abc").await;
    client.binary("defg").await;
    client
        .text(r#"{"type":"marker","label":"Song","kind":"track"}"#)
        .await;
    client.text(r#"{"type":"stop"}"#).await;
    assert_eq!(broadcast.chunk().await.offset, 1000);
    assert_eq!(broadcast.chunk().await.offset, 1003);
    assert!(matches!(broadcast.next().await, Some(Request::Marker(m)) if m.kind == "track"));
    assert!(matches!(broadcast.next().await, Some(Request::Stop(_))));
    let ack = Ack {
        take: "t1".into(),
        offset: 1007,
        archived: 4,
    };
    broadcast.answer(Response::Ack(ack)).await;
    assert_eq!(
        client.json().await,
        json!({"type": "ack", "take": "t1", "offset": 1007, "archived": 4})
    );
    let state = State {
        live: true,
        recording_error: Some("disk full".into()),
        listeners: 2,
        sinks: vec![SinkStatus {
            name: "rtmp://radio/live".into(),
            state: SinkState::Down.into(),
            error: Some("no progress".into()),
            lost_clusters: 3,
            restarts: 1,
        }],
        alarms: vec![Alarm::NoData.into()],
    };
    broadcast.answer(Response::State(state)).await;
    assert_eq!(
        client.json().await,
        json!({"type": "state", "live": true, "recording": "failed", "error": "disk full",
            "listeners": 2, "alarms": ["no_data"],
            "sinks": [{"name": "rtmp://radio/live", "state": "down", "error": "no progress",
                "lost_clusters": 3, "restarts": 1}]})
    );
    broadcast
        .answer(Response::Progress(Progress {
            bytes: 1007,
            archived: 5,
        }))
        .await;
    assert_eq!(
        client.json().await,
        json!({"type": "finalizing", "bytes": 1007, "archived": 5})
    );
    let end = End {
        recording: Some(recording("01JSESSION", "7", RecordingStatus::Archived)),
    };
    broadcast.answer(Response::End(Box::new(end))).await;
    let archived = client.json().await;
    assert_eq!(archived["type"], "archived");
    assert_eq!(archived["recording"]["version"], "2026-11-23T20-15-00Z");
    assert_eq!(client.closed().await, 1000);
}

#[tokio::test]
async fn a_rehearsal_is_measured_and_ends_with_its_sheet() {
    let mut scene = Scene::new().await;
    let mut client = resumable(scene.address, "?show_id=7&test=true").await;
    client.hello("t1").await;
    let mut broadcast = scene.broadcasts.next().await;
    assert!(broadcast.open.rehearsal);
    broadcast.ready(0).await;
    assert_eq!(client.json().await["type"], "ready");
    client.binary("abc").await;
    assert_eq!(broadcast.chunk().await.offset, 0);
    let ack = Ack {
        take: "t1".into(),
        offset: 3,
        archived: 0,
    };
    broadcast.answer(Response::Ack(ack)).await;
    // The ping comes before the ack, so its pong has been sent when the ack was read.
    assert_eq!(client.json().await["type"], "ack");
    client.text(r#"{"type":"stop"}"#).await;
    let Some(Request::Link(link)) = broadcast.next().await else {
        panic!("what was measured comes before stop");
    };
    assert!(link.round_trip.is_some_and(|times| times.p99_us > 0));
    assert!(link.ack.is_some_and(|times| times.p50_us > 0));
    assert!(matches!(broadcast.next().await, Some(Request::Stop(_))));
    let sheet = r#"{"round_trip_ms":null,"ack_ms":{"p50":1.5,"p99":2.0},"lost_bytes":0,"reconnects":0,"level":null,"verdict":"fair","reasons":["x"]}"#;
    let mut recording = recording("01JSESSION", "7", RecordingStatus::Archived);
    recording.rehearsal = true;
    recording.sheet = Some(sheet.to_owned());
    let end = End {
        recording: Some(recording),
    };
    broadcast.answer(Response::End(Box::new(end))).await;
    let said = client.json().await;
    assert_eq!(
        (&said["type"], &said["verdict"]),
        (&json!("sheet"), &json!("fair"))
    );
    assert_eq!(said["ack_ms"], json!({"p50": 1.5, "p99": 2.0}));
    let archived = client.json().await;
    assert_eq!(archived["recording"]["rehearsal"], true);
    assert_eq!(archived["recording"]["sheet"]["reasons"], json!(["x"]));
    assert_eq!(client.closed().await, 1000);
}

#[tokio::test]
async fn a_recording_that_failed_is_named_so() {
    let mut scene = Scene::new().await;
    let (mut client, broadcast) = live(&mut scene, 0).await;
    let end = End {
        recording: Some(recording("01JSESSION", "7", RecordingStatus::Failed)),
    };
    broadcast.answer(Response::End(Box::new(end))).await;
    assert_eq!(client.json().await["type"], "failed");
    assert_eq!(client.closed().await, 1000);
}

#[tokio::test]
async fn a_new_take_begins_at_its_own_ready() {
    let mut scene = Scene::new().await;
    let (mut client, mut broadcast) = live(&mut scene, 0).await;
    client.binary("abc").await;
    client
        .text(r#"{"type":"take","take":{"id":"t2","mime":"audio/mp4","first":0,"next":0}}"#)
        .await;
    assert_eq!(broadcast.chunk().await.offset, 0);
    assert!(matches!(broadcast.next().await, Some(Request::Take(take)) if take.id == "t2"));
    broadcast.answer(Response::Ready(ready("7", "t2", 0))).await;
    assert_eq!(client.json().await["take"], "t2");
    client.binary("xy").await;
    let chunk = broadcast.chunk().await;
    assert_eq!((chunk.offset, &chunk.data[..]), (0, b"xy".as_slice()));
}

#[tokio::test]
async fn media_between_take_and_its_ready_is_refused() {
    let mut scene = Scene::new().await;
    let (mut client, mut broadcast) = live(&mut scene, 0).await;
    client
        .text(r#"{"type":"take","take":{"id":"t2","mime":"audio/mp4"}}"#)
        .await;
    client.binary("too early").await;
    assert_eq!(client.refused().await, ("AC_BAD_MESSAGE".to_owned(), 4400));
    assert!(matches!(broadcast.next().await, Some(Request::Take(_))));
    assert!(broadcast.ended_in_order().await);
}

#[tokio::test]
async fn media_before_the_first_ready_is_refused() {
    let mut scene = Scene::new().await;
    let mut client = resumable(scene.address, "?show_id=7").await;
    client.hello("t1").await;
    let _broadcast = scene.broadcasts.next().await;
    client.binary("too early").await;
    assert_eq!(client.refused().await, ("AC_BAD_MESSAGE".to_owned(), 4400));
}

#[tokio::test]
async fn whatever_is_no_hello_is_refused() {
    let scene = Scene::new().await;
    for first in [
        "hello",
        "{}",
        "null",
        r#"{"type":"stop"}"#,
        r#"{"type":"take","take":{"id":"a","mime":"b"}}"#,
        r#"{"type":"hello"}"#,
        r#"{"type":"hello","take":{"id":"a","mime":"b","first":2,"next":1}}"#,
    ] {
        assert_eq!(
            greet(&scene, first).await,
            ("AC_BAD_MESSAGE".to_owned(), 4400),
            "{first}"
        );
    }
    let long = "x".repeat((64 << 10) + 1);
    assert_eq!(
        greet(&scene, &long).await,
        ("AC_TOO_LARGE".to_owned(), 4413)
    );
    assert!(scene.broadcasts.is_empty(), "none of it reached the ingest");
}

#[tokio::test]
async fn text_that_is_no_message_is_refused_later_too() {
    let mut scene = Scene::new().await;
    let (mut client, mut broadcast) = live(&mut scene, 0).await;
    client.text("stop").await;
    assert_eq!(client.refused().await, ("AC_BAD_MESSAGE".to_owned(), 4400));
    assert!(
        broadcast.ended_in_order().await,
        "nonsense is a drop, never a stop"
    );
}

#[tokio::test]
async fn without_hello_the_connection_is_closed() {
    let scene = Scene::with(|config| config.hello_timeout = Duration::from_millis(50)).await;
    let mut client = resumable(scene.address, "?show_id=7").await;
    assert_eq!(client.refused().await, ("AC_TIMEOUT".to_owned(), 4408));
}

#[tokio::test]
async fn the_reason_of_a_refusal_is_read_after_the_upgrade() {
    let scene = Scene::with(|config| {
        config.allowed_origins = vec!["https://radio.example".to_owned()];
    })
    .await;
    let mut client = resumable(scene.address, "?show_id=..").await;
    assert_eq!(client.refused().await, ("AC_BAD_SHOW_ID".to_owned(), 4400));
    let evil = [
        ("sec-websocket-protocol", "aircheck.v1"),
        ("origin", "https://evil.example"),
    ];
    let mut client = connect(scene.address, "?show_id=7", &evil)
        .await
        .expect("upgraded");
    assert_eq!(client.refused().await, ("AC_FORBIDDEN".to_owned(), 4403));
}

#[tokio::test]
async fn every_fault_of_the_ingest_arrives_as_error_and_close_code() {
    for code in Code::ALL {
        let mut scene = Scene::new().await;
        let mut client = resumable(scene.address, "?show_id=7").await;
        client.hello("t1").await;
        scene
            .broadcasts
            .next()
            .await
            .refuse(Fault::retry(code, "no", 1500))
            .await;
        let error = client.json().await;
        let expected =
            json!({"type": "error", "code": code.as_str(), "message": "no", "retry_ms": 1500});
        assert_eq!(error, expected);
        assert_eq!(client.closed().await, code.close_code());
    }
}

#[tokio::test]
async fn a_newer_connection_supersedes_this_one() {
    let mut scene = Scene::new().await;
    let (mut client, broadcast) = live(&mut scene, 0).await;
    broadcast
        .refuse(Fault::new(
            Code::Superseded,
            "A newer connection took over.",
        ))
        .await;
    assert_eq!(client.refused().await, ("AC_SUPERSEDED".to_owned(), 4410));
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_and_said_so() {
    let mut scene = Scene::new().await;
    let (mut client, mut broadcast) = live(&mut scene, 0).await;
    client.binary(vec![7; 1 << 20]).await;
    assert_eq!(broadcast.chunk().await.data.len(), 1 << 20);
    let (_, refused) = tokio::join!(
        // The server stops reading in the middle, so sending may fail or not.
        async { client.0.send(vec![7; (1 << 20) + 1].into()).await },
        broadcast.ended_in_order()
    );
    assert!(refused);
    assert_eq!(client.refused().await, ("AC_TOO_LARGE".to_owned(), 4413));
}

#[tokio::test]
async fn a_stop_survives_a_client_that_leaves_at_once() {
    let mut scene = Scene::new().await;
    let (mut client, mut broadcast) = live(&mut scene, 0).await;
    client.binary("end").await;
    client.text(r#"{"type":"stop"}"#).await;
    drop(client);
    assert_eq!(broadcast.chunk().await.data, "end");
    assert!(matches!(broadcast.next().await, Some(Request::Stop(_))));
    assert!(broadcast.ended_in_order().await);
}

#[tokio::test]
async fn a_client_that_closes_without_stop_is_a_drop() {
    let mut scene = Scene::new().await;
    let (mut client, mut broadcast) = live(&mut scene, 0).await;
    client.binary("end").await;
    soon(client.0.close(None)).await.expect("close");
    assert_eq!(broadcast.chunk().await.data, "end");
    assert!(broadcast.ended_in_order().await);
}

#[tokio::test]
async fn an_ingest_that_is_away_is_worth_a_retry() {
    let nowhere = nowhere().await;
    let scene = Scene::with(|config| config.ingest = vec![nowhere]).await;
    let mut client = resumable(scene.address, "?show_id=7").await;
    client.hello("t1").await;
    let error = client.json().await;
    assert_eq!(
        (&error["code"], &error["retry_ms"]),
        (&json!("AC_UNAVAILABLE"), &json!(1000))
    );
    assert_eq!(client.closed().await, 4503);
}

#[tokio::test]
async fn an_ingest_that_dies_is_worth_a_retry() {
    let mut scene = Scene::new().await;
    let (mut client, _broadcast) = live(&mut scene, 0).await;
    scene.ingest.die();
    let error = client.json().await;
    assert_eq!(
        (&error["code"], &error["retry_ms"]),
        (&json!("AC_UNAVAILABLE"), &json!(1000))
    );
    assert_eq!(client.closed().await, 4503);
}

#[tokio::test]
async fn draining_asks_clients_to_come_back_at_once() {
    let mut scene = Scene::new().await;
    let (mut client, mut broadcast) = live(&mut scene, 0).await;
    scene.shutdown.trigger();
    assert_eq!(client.refused().await, ("AC_DRAINING".to_owned(), 1001));
    assert!(broadcast.ended_in_order().await);
    drop(broadcast);
    soon(scene.served)
        .await
        .expect("no panic")
        .expect("no fault");
    assert!(!scene.health.is_ready());
}

#[tokio::test]
async fn a_silent_client_is_dropped_and_one_that_answers_pings_is_kept() {
    let mut scene = Scene::with(|config| {
        config.ping_interval = Duration::from_millis(100);
        config.idle_timeout = Duration::from_millis(1500);
    })
    .await;
    let (mut client, mut broadcast) = live(&mut scene, 0).await;
    // Twenty pings take longer than the silence that drops: answering them is what keeps.
    let mut pings = 0;
    while pings < 20 {
        let message = soon(client.0.next()).await;
        pings += u32::from(message.expect("still open").expect("no fault").is_ping());
    }
    client.binary("still here").await;
    assert_eq!(broadcast.chunk().await.data, "still here");
    // From here on nobody reads the client's socket, so no ping is answered.
    assert!(broadcast.ended_in_order().await);
    assert_eq!(client.refused().await, ("AC_TIMEOUT".to_owned(), 4408));
}

#[tokio::test]
async fn a_client_that_never_reads_acks_is_heard_to_the_end() {
    const CHUNKS: u64 = 2000;
    let mut scene = Scene::new().await;
    let (mut client, mut broadcast) = live(&mut scene, 0).await;
    let sending = async {
        for _ in 0..CHUNKS {
            client.binary(vec![7; 1000]).await;
        }
    };
    let recording = async {
        for n in 0..CHUNKS {
            assert_eq!(broadcast.chunk().await.offset, n * 1000);
            // Many megabytes of answers: far more than the sockets hold.
            for _ in 0..20 {
                let state = State {
                    recording_error: Some("x".repeat(1000)),
                    ..State::default()
                };
                broadcast.answer(Response::State(state)).await;
            }
            let ack = Ack {
                take: "t1".into(),
                offset: (n + 1) * 1000,
                archived: 0,
            };
            broadcast.answer(Response::Ack(ack)).await;
        }
    };
    tokio::join!(sending, recording);
    let mut last = Value::Null;
    while last["offset"] != CHUNKS * 1000 {
        last = client.json().await;
    }
}

#[tokio::test]
async fn an_ingest_that_takes_nothing_holds_the_client_up_and_loses_nothing() {
    const CHUNK: usize = 1 << 20;
    const CHUNKS: u64 = 64;
    let mut scene = Scene::new().await;
    let (client, mut broadcast) = live(&mut scene, 0).await;
    let (sent, mut progress) = tokio::sync::watch::channel(0);
    let sender = tokio::spawn(async move {
        let mut client = client;
        for n in 1..=CHUNKS {
            client.binary(vec![7; CHUNK]).await;
            sent.send_replace(n);
        }
        client
    });
    // Held up means that nothing moves any more, well before the end.
    while tokio::time::timeout(Duration::from_millis(500), progress.changed())
        .await
        .is_ok()
    {}
    assert!(
        *progress.borrow() < CHUNKS / 2,
        "{} MiB are buffered somewhere",
        *progress.borrow()
    );
    for n in 0..CHUNKS {
        assert_eq!(broadcast.chunk().await.offset, n * CHUNK as u64);
    }
    drop(soon(sender).await.expect("sent"));
}

#[tokio::test]
async fn a_show_goes_live_with_its_settings() {
    let mut scene = Scene::new().await;
    scene.archiver.rows(|rows| {
        rows.shows.push(aircheck_proto::archiver::Show {
            id: "7".into(),
            title: "Breakfast".into(),
            grace_s: Some(0),
            gap_policy: "close".into(),
        });
    });
    let (_client, broadcast) = live(&mut scene, 0).await;
    assert_eq!(broadcast.open.grace_ms, Some(0));
    assert_eq!(broadcast.open.title.as_deref(), Some("Breakfast"));
    assert_eq!(broadcast.open.gap_policy(), GapPolicy::Close);
}

#[tokio::test]
async fn a_show_goes_live_while_the_archiver_is_away_or_hangs() {
    let nowhere = nowhere().await;
    let mut scene = Scene::with(|config| config.archiver = nowhere).await;
    let (_client, broadcast) = live(&mut scene, 0).await;
    assert_eq!(broadcast.open.grace_ms, Some(30_000));
    let mut scene = Scene::new().await;
    scene.archiver.rows(|rows| rows.is_slow = true);
    let (_client, broadcast) = live(&mut scene, 0).await;
    assert_eq!(broadcast.open.grace_ms, Some(30_000));
}

#[tokio::test]
async fn a_returning_broadcaster_finds_the_ingest_that_holds_its_show() {
    let (other, mut elsewhere, url) = support::ingest::start().await;
    let mut scene = Scene::with(|config| config.ingest.push(url)).await;
    // Whichever comes first in the hash's order for a show, the holder is asked instead.
    for show in 0..8 {
        let show = show.to_string();
        let mut held = support::ingest::session(&show, aircheck_proto::ingest::SessionState::Grace);
        held.show_id.clone_from(&show);
        other.script(|script| script.sessions = vec![held]);
        let mut client = resumable(scene.address, &format!("?show_id={show}")).await;
        client.hello("t1").await;
        let broadcast = elsewhere.next().await;
        broadcast.ready(0).await;
        assert_eq!(client.json().await["show_id"], show);
        assert!(scene.broadcasts.is_empty());
    }
    other.script(|script| script.sessions.clear());
    let mut first = 0;
    for show in 0..16 {
        let mut client = resumable(scene.address, &format!("?show_id={show}")).await;
        client.hello("t1").await;
        let broadcast = tokio::select! {
            broadcast = scene.broadcasts.next() => { first += 1; broadcast }
            broadcast = elsewhere.next() => broadcast,
        };
        broadcast.ready(0).await;
        assert_eq!(client.json().await["type"], "ready");
    }
    assert!((1..16).contains(&first), "new shows spread: {first} of 16");
}

#[tokio::test]
async fn a_message_in_pieces_is_limited_as_a_whole() {
    let mut scene = Scene::new().await;
    let (mut client, mut broadcast) = live(&mut scene, 0).await;
    let piece = |first, last| {
        let kind = if first { Data::Binary } else { Data::Continue };
        Message::Frame(Frame::message(vec![7; 600 << 10], OpCode::Data(kind), last))
    };
    soon(client.0.send(piece(true, false))).await.expect("send");
    soon(client.0.send(piece(false, true))).await.expect("send");
    assert_eq!(client.refused().await, ("AC_TOO_LARGE".to_owned(), 4413));
    assert!(broadcast.ended_in_order().await);
}

#[tokio::test]
async fn what_is_not_websocket_is_refused() {
    for nonsense in [
        b"\x82\x01x".as_slice(),     // not masked
        b"\xff\x80\0\0\0\0",         // reserved bits
        b"\x81\x82\0\0\0\0\xff\xff", // text that is not UTF-8
        b"\x80\x81\0\0\0\0x",        // a continuation of nothing
    ] {
        let mut scene = Scene::new().await;
        let (mut client, mut broadcast) = live(&mut scene, 0).await;
        soon(client.0.get_mut().write_all(nonsense))
            .await
            .expect("write");
        assert_eq!(
            client.refused().await,
            ("AC_BAD_MESSAGE".to_owned(), 4400),
            "{nonsense:?}"
        );
        assert!(broadcast.ended_in_order().await);
    }
}
