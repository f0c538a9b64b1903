//! The plain dialect over a real socket.

mod support;

use aircheck_core::code::Code;
use aircheck_proto::{
    Fault,
    ingest::{Ack, Dialect, Progress, Stop, publish_request::Request, publish_response::Response},
};
use support::{
    Scene,
    client::{Broadcaster, connect, plain, plain_live},
    ingest::Broadcast,
    nowhere,
};

/// A plain broadcaster that is live, on both sides.
async fn live(scene: &mut Scene) -> (Broadcaster, Broadcast) {
    plain_live(scene, "?show_id=7").await
}

/// What a client reads when the ingest refuses it.
async fn refusal(fault: Fault) -> (u16, String) {
    let mut scene = Scene::new().await;
    let (client, ()) = tokio::join!(plain(scene.address, "?show_id=7"), async {
        scene.broadcasts.next().await.refuse(fault).await;
    });
    client.map(|_| ()).expect_err("refused")
}

#[tokio::test]
async fn bytes_reach_the_ingest_in_order_with_offsets_that_count_on() {
    let mut scene = Scene::new().await;
    let (mut client, mut broadcast) = live(&mut scene).await;
    assert_eq!(broadcast.open.show_id, "7");
    assert_eq!(broadcast.open.dialect(), Dialect::Plain);
    assert_eq!(broadcast.open.user, "anonymous");
    assert_eq!(broadcast.open.grace_ms, Some(30_000));
    assert!(!broadcast.open.force && broadcast.open.take.is_none());
    for (data, offset) in [("abc", 0), ("de", 3), ("f", 5)] {
        client.binary(data).await;
        let chunk = broadcast.chunk().await;
        assert_eq!((chunk.offset, &chunk.data[..]), (offset, data.as_bytes()));
    }
}

#[tokio::test]
async fn stop_closes_normally_once_the_spool_is_sealed() {
    let mut scene = Scene::new().await;
    let (mut client, mut broadcast) = live(&mut scene).await;
    client.binary("abc").await;
    client.text("stop").await;
    assert_eq!(broadcast.chunk().await.data, "abc");
    assert_eq!(broadcast.next().await, Some(Request::Stop(Stop {})));
    broadcast.answer(Response::Ack(Ack::default())).await;
    broadcast
        .answer(Response::Progress(Progress::default()))
        .await;
    assert_eq!(client.closed().await, 1000);
}

#[tokio::test]
async fn a_show_that_was_stopped_elsewhere_closes_normally() {
    let mut scene = Scene::new().await;
    let (mut client, broadcast) = live(&mut scene).await;
    broadcast
        .answer(Response::Progress(Progress::default()))
        .await;
    assert_eq!(client.closed().await, 1000);
}

#[tokio::test]
async fn other_text_is_refused_and_begins_grace() {
    let mut scene = Scene::new().await;
    let (mut client, mut broadcast) = live(&mut scene).await;
    client.text("{\"type\":\"hello\"}").await;
    assert!(client.said().await.starts_with("error: "));
    assert_eq!(client.closed().await, 4400);
    assert!(broadcast.ended_in_order().await);
}

#[tokio::test]
async fn a_lost_socket_ends_the_request_stream_without_a_stop() {
    let mut scene = Scene::new().await;
    let (mut client, mut broadcast) = live(&mut scene).await;
    client.binary("last words").await;
    drop(client);
    assert_eq!(broadcast.chunk().await.data, "last words");
    assert!(
        broadcast.ended_in_order().await,
        "a drop is no reset: reset streams lose bytes"
    );
}

#[tokio::test]
async fn a_fault_of_the_ingest_closes_with_its_code() {
    for (code, close) in [
        (Code::Superseded, 4410),
        (Code::TooLarge, 4413),
        (Code::UnsupportedMedia, 4415),
        (Code::TooMany, 4429),
        (Code::Unavailable, 4503),
        (Code::Draining, 1001),
        (Code::Internal, 1011),
    ] {
        let mut scene = Scene::new().await;
        let (mut client, broadcast) = live(&mut scene).await;
        broadcast.refuse(Fault::new(code, "because of this")).await;
        assert_eq!(client.said().await, "error: because of this");
        assert_eq!(client.closed().await, close, "{code}");
    }
}

#[tokio::test]
async fn an_ingest_that_dies_closes_with_4503() {
    let mut scene = Scene::new().await;
    let (mut client, _broadcast) = live(&mut scene).await;
    scene.ingest.die();
    let said = client.said().await;
    assert!(
        said.starts_with("error: ") && !said.contains("127.0.0.1"),
        "{said}"
    );
    assert_eq!(client.closed().await, 4503);
}

#[tokio::test]
async fn refusals_come_before_the_upgrade() {
    let scene = Scene::new().await;
    let refused = |status, code: Code| Err((status, code.as_str().to_owned()));
    for query in ["", "?show_id=", "?show_id=a%2Fb", "?show_id=-x"] {
        let answer = plain(scene.address, query).await.map(|_| ());
        assert_eq!(answer, refused(400, Code::BadShowId), "{query}");
    }
    let answer = plain(scene.address, "?show_id=7&force=maybe")
        .await
        .map(|_| ());
    assert_eq!(answer, refused(400, Code::BadMessage));
    let strange = [("sec-websocket-protocol", "chat")];
    let answer = connect(scene.address, "?show_id=7", &strange)
        .await
        .map(|_| ());
    assert_eq!(answer, refused(400, Code::BadMessage));
    assert!(
        scene.broadcasts.is_empty(),
        "nothing of this concerns the ingest"
    );
}

#[tokio::test]
async fn what_the_ingest_refuses_is_an_http_status() {
    for (code, status) in [
        (Code::Conflict, 409),
        (Code::TooMany, 429),
        (Code::Unavailable, 503),
        (Code::Draining, 503),
        (Code::Forbidden, 403),
        (Code::Unauthenticated, 401),
    ] {
        let refused = refusal(Fault::new(code, "no")).await;
        assert_eq!(refused, (status, code.as_str().to_owned()));
    }
}

#[tokio::test]
async fn without_an_ingest_the_answer_is_503() {
    let nowhere = nowhere().await;
    let scene = Scene::with(|config| config.ingest = vec![nowhere]).await;
    let refused = plain(scene.address, "?show_id=7").await.map(|_| ());
    assert_eq!(refused, Err((503, "AC_UNAVAILABLE".to_owned())));
}

#[tokio::test]
async fn force_is_passed_on() {
    let mut scene = Scene::new().await;
    let (client, ()) = tokio::join!(plain(scene.address, "?show_id=7&force=true"), async {
        let broadcast = scene.broadcasts.next().await;
        assert!(broadcast.open.force);
        broadcast.ready(0).await;
    });
    assert!(client.is_ok());
}

#[tokio::test]
async fn a_foreign_origin_is_refused_where_there_is_a_list() {
    let scene = Scene::with(|config| {
        config.allowed_origins = vec!["https://radio.example".to_owned()];
    })
    .await;
    let evil = [("origin", "https://evil.example")];
    let refused = connect(scene.address, "?show_id=7", &evil)
        .await
        .map(|_| ());
    assert_eq!(refused, Err((403, "AC_FORBIDDEN".to_owned())));
}

#[tokio::test]
async fn beyond_the_limit_of_broadcasters_the_answer_is_429() {
    let mut scene = Scene::with(|config| config.max_connections = 1).await;
    let (_client, _broadcast) = live(&mut scene).await;
    let refused = plain(scene.address, "?show_id=8").await.map(|_| ());
    assert_eq!(refused, Err((429, "AC_TOO_MANY".to_owned())));
}

#[tokio::test]
async fn draining_sends_broadcasters_away_and_returns() {
    let mut scene = Scene::new().await;
    let (mut client, mut broadcast) = live(&mut scene).await;
    scene.shutdown.trigger();
    assert!(client.said().await.starts_with("error: "));
    assert_eq!(client.closed().await, 1001);
    assert!(broadcast.ended_in_order().await, "grace begins at once");
    drop(broadcast);
    support::soon(scene.served)
        .await
        .expect("no panic")
        .expect("no fault");
}
