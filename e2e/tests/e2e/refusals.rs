//! Everything wrong that a client can say, while another show goes on undisturbed.

use aircheck_e2e::{
    broadcaster::Broadcaster,
    capture::Capture,
    cluster::Cluster,
    oracle::archived_exactly,
    plain::Plain,
    socket::{SUBPROTOCOL, Socket},
    wait::within,
};
use futures::future::join_all;
use serde_json::{Value, json};
use std::time::Duration;

/// Longer than the default of any timeout that a case waits for.
const CASES_DEADLINE: Duration = Duration::from_secs(25);

/// Runs `cases` while a broadcaster streams; its show must come out whole, on its one connection.
async fn beside_a_show(cluster: &Cluster, cases: impl Future<Output = ()>) {
    let capture = Capture::load("opus250");
    let mut steady = cluster.broadcaster("steady", &capture).await;
    steady.pace = Duration::from_millis(30);
    tokio::join!(
        async { steady.send_all().await.expect("the other show goes on") },
        within(CASES_DEADLINE, "all cases are answered", cases)
    );
    steady
        .acked_to(capture.len())
        .await
        .expect("its acks go on");
    steady.stop().await.expect("still connected");
    let recording = archived_exactly(cluster, "steady", &capture).await;
    assert_eq!(recording["reconnects"], 0, "{recording}");
}

/// What a client says.
#[derive(Clone, Copy, Debug)]
enum Say {
    Text(&'static str),
    /// Text of so many letters.
    Letters(usize),
    /// A message of so many zeroes.
    Zeroes(usize),
    /// A container as a browser begins it.
    Media,
    /// A container as no browser begins it.
    Noise,
    /// A valid hello, and the wait for ready.
    Hello,
}

/// What is wrong, what is said, and the refusal.
type Case = (&'static str, &'static [Say], (u16, &'static str));

const BAD: (u16, &str) = (4400, "AC_BAD_MESSAGE");
const LARGE: (u16, &str) = (4413, "AC_TOO_LARGE");
const FOREIGN: (u16, &str) = (4415, "AC_UNSUPPORTED_MEDIA");
const HELLO: &str =
    r#"{"type":"hello","session":null,"take":{"id":"t","mime":"audio/webm","first":0,"next":0}}"#;
const NOISE: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const STOP: Say = Say::Text(r#"{"type":"stop"}"#);

#[rustfmt::skip]
const V1_CASES: &[Case] = &[
    ("nothing at all", &[], (4408, "AC_TIMEOUT")),
    ("text where JSON is due", &[Say::Text("stop")], BAD),
    ("JSON that is no message", &[Say::Text("[1,2]")], BAD),
    ("an unknown type", &[Say::Text(r#"{"type":"party"}"#)], BAD),
    ("stop before hello", &[STOP], BAD),
    ("take before hello", &[Say::Text(r#"{"type":"take","take":{"id":"t","mime":"audio/webm","first":0,"next":0}}"#)], BAD),
    ("media before hello", &[Say::Media], BAD),
    ("hello without a take", &[Say::Text(r#"{"type":"hello","session":null}"#)], BAD),
    ("a take without a name", &[Say::Text(r#"{"type":"hello","take":{"id":"","mime":"audio/webm"}}"#)], BAD),
    ("a take with a name of 65 letters", &[Say::Text(r#"{"type":"hello","take":{"id":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx","mime":"audio/webm"}}"#)], BAD),
    ("a negative offset", &[Say::Text(r#"{"type":"hello","take":{"id":"t","mime":"audio/webm","first":-1,"next":0}}"#)], BAD),
    ("first beyond next", &[Say::Text(r#"{"type":"hello","take":{"id":"t","mime":"audio/webm","first":2,"next":1}}"#)], BAD),
    ("hello twice", &[Say::Hello, Say::Text(HELLO)], BAD),
    ("text where JSON is due, live", &[Say::Hello, Say::Text("{")], BAD),
    ("a marker without a label", &[Say::Hello, Say::Text(r#"{"type":"marker","label":"","kind":"note"}"#)], BAD),
    ("a marker of no kind", &[Say::Hello, Say::Text(r#"{"type":"marker","label":"x","kind":"poem"}"#)], BAD),
    ("media after stop", &[Say::Hello, Say::Media, STOP, Say::Zeroes(1)], BAD),
    ("a message too large", &[Say::Hello, Say::Zeroes((1 << 20) + 1)], LARGE),
    ("text too large", &[Say::Hello, Say::Letters((64 << 10) + 1)], LARGE),
    ("bytes that are no media", &[Say::Hello, Say::Noise], FOREIGN),
];

const PLAIN_CASES: &[(&str, Say, u16)] = &[
    ("text that is not stop", Say::Text("hello?"), 4400),
    ("JSON", STOP, 4400),
    ("a message too large", Say::Zeroes((1 << 20) + 1), 4413),
    ("bytes that are no media", Say::Noise, 4415),
];

async fn say(socket: &mut Socket, say: Say) {
    match say {
        Say::Text(text) => socket.text(text).await,
        Say::Letters(count) => socket.text("x".repeat(count)).await,
        Say::Zeroes(count) => socket.binary(vec![0; count]).await,
        Say::Media => socket.binary(Capture::load("ff_webm").bytes).await,
        Say::Noise => socket.binary(NOISE.repeat(40)).await,
        Say::Hello => {
            socket.text(HELLO).await;
            let ready = socket.said().await;
            assert!(ready.contains(r#""type":"ready""#), "{ready}");
        }
    }
}

/// Plays one case on a show of its own.
async fn play(cluster: &Cluster, number: usize, case: Case) {
    let (what, all, (close, code)) = case;
    let query = format!("?show_id=case-{number}");
    let socket = Socket::open(cluster.web, &query, Some(SUBPROTOCOL)).await;
    let mut socket = socket.expect("the upgrade is always accepted");
    for message in all {
        say(&mut socket, *message).await;
    }
    assert_eq!(
        refusal(&mut socket).await,
        (close, code.to_owned()),
        "{what}"
    );
}

/// The close code and the code of the `error` before it.
async fn refusal(socket: &mut Socket) -> (u16, String) {
    let mut said = Vec::new();
    let close = socket.closed(&mut said).await;
    let last: Value = said
        .last()
        .and_then(|last| serde_json::from_str(last).ok())
        .unwrap_or_default();
    assert_eq!(
        last["type"], "error",
        "a refusal says why before it closes with {close}: {said:?}"
    );
    assert!(
        last["message"]
            .as_str()
            .is_some_and(|message| !message.is_empty()),
        "{last}"
    );
    (close, last["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn v1_refusals_say_why_and_close_with_the_code_of_the_contract() {
    let cluster = Cluster::up(&[]).await;
    let cases = async {
        for query in [
            "",
            "?show_id=",
            "?show_id=..%2Fx",
            "?show_id=a%20b",
            "?show_id=-a",
        ] {
            let opened = Socket::open(cluster.web, query, Some(SUBPROTOCOL)).await;
            let mut socket = opened.expect("the upgrade is always accepted");
            let refused = refusal(&mut socket).await;
            assert_eq!(refused, (4400, "AC_BAD_SHOW_ID".to_owned()), "{query}");
        }
        // All at once: the one that says nothing takes as long as the server is patient.
        let cases = V1_CASES.iter().enumerate();
        join_all(cases.map(|(number, case)| play(&cluster, number, *case))).await;
    };
    beside_a_show(&cluster, Box::pin(cases)).await;
}

#[tokio::test]
async fn plain_refusals_are_http_answers_and_error_texts() {
    let cluster = Cluster::up(&[]).await;
    let cases = async {
        for (query, code) in [
            ("", "AC_BAD_SHOW_ID"),
            ("?show_id=", "AC_BAD_SHOW_ID"),
            ("?show_id=..%2Fx", "AC_BAD_SHOW_ID"),
            ("?show=7", "AC_BAD_SHOW_ID"),
            ("?show_id=7&force=perhaps", "AC_BAD_MESSAGE"),
        ] {
            let refused = Plain::connect(cluster.web, query).await.expect_err(query);
            assert_eq!(refused, (400, code.to_owned()), "{query}");
        }
        for (number, (what, message, close)) in PLAIN_CASES.iter().enumerate() {
            let query = format!("?show_id=case-{number}");
            let mut client = Plain::connect(cluster.web, &query).await.expect("let in");
            say(&mut client.0, *message).await;
            let (error, closed) = client.refused().await;
            assert_eq!(closed, *close, "{what}: {error}");
            assert!(!error.is_empty(), "{what} is explained");
        }
    };
    beside_a_show(&cluster, Box::pin(cases)).await;
}

/// Method, path, body, and the refusal.
type Call = (
    &'static str,
    &'static str,
    &'static str,
    (u16, &'static str),
);

const BAD_CALL: (u16, &str) = (400, "AC_BAD_MESSAGE");
const BAD_SHOW: (u16, &str) = (400, "AC_BAD_SHOW_ID");
const NOT_FOUND: (u16, &str) = (404, "AC_NOT_FOUND");
const NOT_LIVE: (u16, &str) = (409, "AC_NOT_LIVE");

#[rustfmt::skip]
const CALLS: &[Call] = &[
    ("GET", "/nowhere", "", NOT_FOUND),
    ("GET", "/api/nowhere", "", NOT_FOUND),
    ("GET", "/api/recordings/01JDA0000000000000000000AB", "", NOT_FOUND),
    ("GET", "/api/recordings/not-an-id", "", NOT_FOUND),
    ("GET", "/api/recordings/01JDA0000000000000000000AB/download", "", NOT_FOUND),
    ("DELETE", "/api/recordings/01JDA0000000000000000000AB", "", NOT_FOUND),
    ("GET", "/api/recordings?status=party", "", BAD_CALL),
    ("GET", "/api/recordings?limit=0", "", BAD_CALL),
    ("GET", "/api/recordings?after=nonsense", "", BAD_CALL),
    ("GET", "/api/stream/status?show_id=..", "", BAD_SHOW),
    ("POST", "/api/stream/stop", "", BAD_SHOW),
    ("POST", "/api/stream/stop?show_id=%2e%2e%2f", "", BAD_SHOW),
    ("POST", "/api/recording/start", "", BAD_CALL),
    ("POST", "/api/recording/start", "{", BAD_CALL),
    ("POST", "/api/recording/start", "{}", BAD_CALL),
    ("POST", "/api/recording/start", r#"{"show_id":"../x"}"#, BAD_SHOW),
    ("POST", "/api/recording/start", r#"{"show_id":"7"}"#, NOT_LIVE),
    ("POST", "/api/recording/stop", "nonsense", BAD_CALL),
    ("POST", "/api/shows/7/markers", "nonsense", BAD_CALL),
    ("POST", "/api/shows/7/markers", r#"{"label":"x","kind":"poem"}"#, BAD_CALL),
    ("POST", "/api/shows/7/markers", r#"{"label":"x","kind":"note"}"#, NOT_LIVE),
    ("PUT", "/api/shows/7", "nonsense", BAD_CALL),
    ("PUT", "/api/shows/7", r#"{"grace_s":1801}"#, BAD_CALL),
    ("PUT", "/api/shows/..", "{}", BAD_SHOW),
    ("GET", "/live/idle", "", NOT_FOUND),
];

#[tokio::test]
async fn api_refusals_have_the_status_and_code_of_the_contract() {
    let cluster = Cluster::up(&[]).await;
    let cases = async {
        for (method, path, body, (status, code)) in CALLS {
            let answer = cluster.request(method, path, *body).await;
            assert_eq!(
                answer.error(),
                (*status, (*code).to_owned()),
                "{method} {path} {body}"
            );
        }
        let idle = cluster.post("/api/stream/stop?show_id=idle", "").await.ok();
        assert_eq!(idle, json!({"stopped": false, "recording": null}));
    };
    beside_a_show(&cluster, Box::pin(cases)).await;
}

#[tokio::test]
async fn a_refused_connection_can_come_back_and_the_show_is_whole() {
    let cluster = Cluster::up(&[]).await;
    let capture = Capture::load("ff_webm");
    let mut show = Broadcaster::live(cluster.web, "7", capture.clone()).await;
    show.send_to(capture.len() / 2)
        .await
        .expect("still connected");
    show.say(json!({"type": "nonsense"})).await;
    let refused = show
        .acked_to(usize::MAX)
        .await
        .expect_err("nonsense is refused");
    assert_eq!(refused.codes(), (4400, "AC_BAD_MESSAGE"));
    show.resume().await;
    show.send_all().await.expect("still connected");
    show.stop().await.expect("still connected");
    archived_exactly(&cluster, "7", &capture).await;
}
