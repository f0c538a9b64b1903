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
use serde_json::{Value, json};
use std::time::Duration;

const SHORT_HELLO: &[(&str, &str)] = &[("AIRCHECK_HELLO_TIMEOUT", "1s")];

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
    steady.acked_to(capture.len()).await.expect("its acks go on");
    steady.stop().await.expect("still connected");
    let recording = archived_exactly(cluster, "steady", &capture).await;
    assert_eq!(recording["reconnects"], 0, "{recording}");
}

/// What a client of `aircheck.v1` says after the upgrade.
#[derive(Clone, Debug)]
enum Say {
    Text(String),
    Binary(Vec<u8>),
    /// A valid hello, and the wait for ready.
    Hello,
}

fn text(message: impl ToString) -> Say {
    Say::Text(message.to_string())
}

fn hello_with(take: &Value) -> Say {
    text(json!({"type": "hello", "session": null, "take": take}))
}

/// What is said, and the refusal.
type Case = (&'static str, Vec<Say>, (u16, &'static str));

fn v1_cases() -> Vec<Case> {
    let bad = (4400, "AC_BAD_MESSAGE");
    let large = (4413, "AC_TOO_LARGE");
    let take = |id: &str, first: i64, next: i64| json!({"id": id, "mime": "audio/webm", "first": first, "next": next});
    let (media, noise) = (Capture::load("ff_webm").bytes.to_vec(), b"this is no container at all".repeat(40));
    vec![
        ("nothing at all", vec![], (4408, "AC_TIMEOUT")),
        ("text where JSON is due", vec![text("stop")], bad),
        ("JSON that is no message", vec![text("[1,2]")], bad),
        ("an unknown type", vec![text(json!({"type": "party"}))], bad),
        ("stop before hello", vec![text(json!({"type": "stop"}))], bad),
        ("take before hello", vec![text(json!({"type": "take", "take": take("t", 0, 0)}))], bad),
        ("media before hello", vec![Say::Binary(media.clone())], bad),
        ("hello without a take", vec![text(json!({"type": "hello", "session": null}))], bad),
        ("a take without a name", vec![hello_with(&take("", 0, 0))], bad),
        ("a take with a name too long", vec![hello_with(&take(&"x".repeat(65), 0, 0))], bad),
        ("a negative offset", vec![hello_with(&take("t", -1, 0))], bad),
        ("first beyond next", vec![hello_with(&take("t", 2, 1))], bad),
        ("hello twice", vec![Say::Hello, hello_with(&take("t", 0, 0))], bad),
        ("text where JSON is due, live", vec![Say::Hello, text("{")], bad),
        ("a marker without a label", vec![Say::Hello, text(json!({"type": "marker", "label": "", "kind": "note"}))], bad),
        ("a marker of no kind", vec![Say::Hello, text(json!({"type": "marker", "label": "x", "kind": "poem"}))], bad),
        ("media after stop", vec![Say::Hello, Say::Binary(media), text(json!({"type": "stop"})), Say::Binary(vec![1])], bad),
        ("a message too large", vec![Say::Hello, Say::Binary(vec![0; (1 << 20) + 1])], large),
        ("text too large", vec![Say::Hello, text("x".repeat((64 << 10) + 1))], large),
        ("bytes that are no media", vec![Say::Hello, Say::Binary(noise)], (4415, "AC_UNSUPPORTED_MEDIA")),
    ]
}

/// Plays one case on a show of its own; answers the refusal.
async fn play(cluster: &Cluster, show: &str, say: &[Say]) -> (u16, String) {
    let query = format!("?show_id={show}");
    let mut socket = Socket::open(cluster.web, &query, Some(SUBPROTOCOL)).await.expect("always accepted");
    for message in say {
        match message {
            Say::Text(text) => socket.text(text.clone()).await,
            Say::Binary(data) => socket.binary(data.clone()).await,
            Say::Hello => {
                let take = json!({"id": "t", "mime": "audio/webm", "first": 0, "next": 0});
                socket.text(json!({"type": "hello", "session": null, "take": take}).to_string()).await;
                let ready = socket.said().await;
                assert!(ready.contains(r#""type":"ready""#), "{ready}");
            }
        }
    }
    refusal(&mut socket).await
}

/// The close code and the code of the `error` before it.
async fn refusal(socket: &mut Socket) -> (u16, String) {
    let mut said = Vec::new();
    let close = socket.closed(&mut said).await;
    let last: Value = said.last().and_then(|last| serde_json::from_str(last).ok()).unwrap_or_default();
    assert_eq!(last["type"], "error", "a refusal says why before it closes with {close}: {said:?}");
    assert!(last["message"].as_str().is_some_and(|message| !message.is_empty()), "{last}");
    (close, last["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn v1_refusals_say_why_and_close_with_the_code_of_the_contract() {
    let cluster = Cluster::up(SHORT_HELLO).await;
    beside_a_show(&cluster, async {
        for query in ["", "?show_id=", "?show_id=..%2Fx", "?show_id=a%20b", "?show_id=-a", "?show_id=%00"] {
            let opened = Socket::open(cluster.web, query, Some(SUBPROTOCOL)).await;
            let mut socket = opened.expect("the upgrade is always accepted");
            assert_eq!(refusal(&mut socket).await, (4400, "AC_BAD_SHOW_ID".to_owned()), "{query}");
        }
        for (number, (what, say, (close, code))) in v1_cases().into_iter().enumerate() {
            // A message after stop may find the connection cleanly closed already.
            let refused = play(&cluster, &format!("case-{number}"), &say).await;
            assert_eq!(refused, (close, code.to_owned()), "{what}");
        }
    })
    .await;
}

#[tokio::test]
async fn plain_refusals_are_http_answers_and_error_texts() {
    let cluster = Cluster::up(&[]).await;
    beside_a_show(&cluster, async {
        for query in ["", "?show_id=", "?show_id=..%2Fx", "?show=7"] {
            let refused = Plain::connect(cluster.web, query).await.expect_err(query);
            assert_eq!(refused, (400, "AC_BAD_SHOW_ID".to_owned()), "{query}");
        }
        let refused = Plain::connect(cluster.web, "?show_id=7&force=perhaps").await.expect_err("no such force");
        assert_eq!(refused, (400, "AC_BAD_MESSAGE".to_owned()));

        let cases: [(&str, Say, u16); 4] = [
            ("text that is not stop", text("hello?"), 4400),
            ("JSON", text(json!({"type": "stop"})), 4400),
            ("a message too large", Say::Binary(vec![0; (1 << 20) + 1]), 4413),
            ("bytes that are no media", Say::Binary(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(9)), 4415),
        ];
        for (number, (what, say, close)) in cases.into_iter().enumerate() {
            let query = format!("?show_id=case-{number}");
            let mut client = Plain::connect(cluster.web, &query).await.expect("let in");
            match say {
                Say::Text(text) => client.0.text(text).await,
                Say::Binary(data) => client.0.binary(data).await,
                Say::Hello => panic!("there is no hello in the plain dialect"),
            }
            let (error, closed) = client.refused().await;
            assert_eq!(closed, close, "{what}: {error}");
            assert!(!error.is_empty(), "{what} is explained");
        }
    })
    .await;
}

#[tokio::test]
async fn api_refusals_have_the_status_and_code_of_the_contract() {
    let cluster = Cluster::up(&[]).await;
    let unknown = "01JDA0000000000000000000AB";
    let cases: Vec<(&str, String, &str, (u16, &str))> = vec![
        ("GET", "/nowhere".into(), "", (404, "AC_NOT_FOUND")),
        ("GET", "/api/nowhere".into(), "", (404, "AC_NOT_FOUND")),
        ("GET", format!("/api/recordings/{unknown}"), "", (404, "AC_NOT_FOUND")),
        ("GET", "/api/recordings/not-an-id".into(), "", (404, "AC_NOT_FOUND")),
        ("GET", format!("/api/recordings/{unknown}/download"), "", (404, "AC_NOT_FOUND")),
        ("DELETE", format!("/api/recordings/{unknown}"), "", (404, "AC_NOT_FOUND")),
        ("GET", "/api/recordings?status=party".into(), "", (400, "AC_BAD_MESSAGE")),
        ("GET", "/api/recordings?limit=0".into(), "", (400, "AC_BAD_MESSAGE")),
        ("GET", "/api/recordings?after=nonsense".into(), "", (400, "AC_BAD_MESSAGE")),
        ("GET", "/api/stream/status?show_id=..".into(), "", (400, "AC_BAD_SHOW_ID")),
        ("POST", "/api/stream/stop".into(), "", (400, "AC_BAD_SHOW_ID")),
        ("POST", "/api/stream/stop?show_id=%2e%2e%2f".into(), "", (400, "AC_BAD_SHOW_ID")),
        ("POST", "/api/recording/start".into(), "", (400, "AC_BAD_MESSAGE")),
        ("POST", "/api/recording/start".into(), "{", (400, "AC_BAD_MESSAGE")),
        ("POST", "/api/recording/start".into(), "{}", (400, "AC_BAD_MESSAGE")),
        ("POST", "/api/recording/start".into(), r#"{"show_id":"../x"}"#, (400, "AC_BAD_SHOW_ID")),
        ("POST", "/api/recording/start".into(), r#"{"show_id":"7"}"#, (409, "AC_NOT_LIVE")),
        ("POST", "/api/recording/stop".into(), "nonsense", (400, "AC_BAD_MESSAGE")),
        ("POST", "/api/shows/7/markers".into(), "nonsense", (400, "AC_BAD_MESSAGE")),
        ("POST", "/api/shows/7/markers".into(), r#"{"label":"x","kind":"poem"}"#, (400, "AC_BAD_MESSAGE")),
        ("POST", "/api/shows/7/markers".into(), r#"{"label":"x","kind":"note"}"#, (409, "AC_NOT_LIVE")),
        ("PUT", "/api/shows/7".into(), "nonsense", (400, "AC_BAD_MESSAGE")),
        ("PUT", "/api/shows/7".into(), r#"{"grace_s":1801}"#, (400, "AC_BAD_MESSAGE")),
        ("PUT", "/api/shows/..".into(), "{}", (400, "AC_BAD_SHOW_ID")),
        ("GET", "/live/idle".into(), "", (404, "AC_NOT_FOUND")),
    ];
    beside_a_show(&cluster, async {
        for (method, path, body, (status, code)) in cases {
            let answer = cluster.request(method, &path, body).await;
            assert_eq!(answer.error(), (status, code.to_owned()), "{method} {path} {body}");
        }
        let idle = cluster.post("/api/stream/stop?show_id=idle", "").await.ok();
        assert_eq!(idle, json!({"stopped": false, "recording": null}));
    })
    .await;
}

#[tokio::test]
async fn a_refused_connection_can_come_back_and_the_show_is_whole() {
    let cluster = Cluster::up(&[]).await;
    let capture = Capture::load("ff_webm");
    let mut show = Broadcaster::live(cluster.web, "7", capture.clone()).await;
    show.send_to(capture.len() / 2).await.expect("still connected");
    show.say(json!({"type": "nonsense"})).await;
    let refused = show.acked_to(usize::MAX).await.expect_err("nonsense is refused");
    assert_eq!(refused.codes(), (4400, "AC_BAD_MESSAGE"));
    show.resume().await;
    show.send_all().await.expect("still connected");
    show.stop().await.expect("still connected");
    archived_exactly(&cluster, "7", &capture).await;
}
