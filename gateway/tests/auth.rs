//! Who may do what, where tokens are asked for.

mod support;

use aircheck_core::code::Code;
use aircheck_proto::{
    Fault,
    archiver::{RecordingStatus, Show},
    ingest::{SessionState, StopSessionResponse},
};
use aircheck_runtime::{health::Health, shutdown::Shutdown};
use serde_json::{Value, json};
use std::io::Write as _;
use support::{
    Scene,
    archiver::recording,
    client::{Answer, connect, http, http_with, plain, plain_live, resumable},
    ingest::session,
    soon, token,
};
use tokio::net::TcpListener;

const ID: &str = "01JDAR0Q8ZK4N6V3T7W9X1Y2Z3";
const OTHER_ID: &str = "01JDAR0Q8ZK4N6V3T7W9X1Y2Z4";

/// Method, path, body, scope of every call that needs a token. All are about show 7.
const CALLS: [(&str, &str, &str, &str); 14] = [
    ("POST", "/api/stream/stop?show_id=7", "", "publish"),
    (
        "POST",
        "/api/recording/start",
        r#"{"show_id":"7"}"#,
        "publish",
    ),
    (
        "POST",
        "/api/recording/stop",
        r#"{"show_id":"7"}"#,
        "publish",
    ),
    (
        "POST",
        "/api/shows/7/markers",
        r#"{"label":"x"}"#,
        "publish",
    ),
    ("GET", "/api/stream/status?show_id=7", "", "read"),
    ("GET", "/api/shows/7/recordings", "", "read"),
    (
        "GET",
        "/api/recordings/01JDAR0Q8ZK4N6V3T7W9X1Y2Z3",
        "",
        "read",
    ),
    (
        "GET",
        "/api/recordings/01JDAR0Q8ZK4N6V3T7W9X1Y2Z3/download",
        "",
        "read",
    ),
    (
        "DELETE",
        "/api/recordings/01JDAR0Q8ZK4N6V3T7W9X1Y2Z3",
        "",
        "admin",
    ),
    (
        "POST",
        "/api/recordings/01JDAR0Q8ZK4N6V3T7W9X1Y2Z3/repair",
        "",
        "admin",
    ),
    ("PUT", "/api/shows/7", "{}", "admin"),
    ("GET", "/api/stream/status", "", "read"),
    ("GET", "/api/shows", "", "read"),
    ("GET", "/api/recordings", "", "read"),
];
/// Of these, the last are about every show.
const ABOUT_SHOW_7: usize = 11;

/// A gateway where show 7 is live and has a recording, as has show 8.
async fn scene() -> Scene {
    let scene = Scene::keyed().await;
    scene.ingest.script(|script| {
        script.sessions = vec![
            session("7", SessionState::Live),
            session("8", SessionState::Live),
        ];
        script.stop = StopSessionResponse {
            stopped: true,
            session: None,
        };
    });
    scene.archiver.rows(|rows| {
        rows.recordings = vec![
            recording(ID, "7", RecordingStatus::Archived),
            recording(OTHER_ID, "8", RecordingStatus::Archived),
        ];
        rows.shows = ["7", "8"].map(show).into();
    });
    scene
}

fn show(id: &str) -> Show {
    Show {
        id: id.into(),
        ..Default::default()
    }
}

async fn bearing(scene: &Scene, token: &str, method: &str, path: &str, body: &str) -> Answer {
    let header = format!("Authorization: Bearer {token}\r\n");
    http_with(scene.address, method, path, &header, body).await
}

fn claims(change: &Value) -> String {
    let mut claims = json!({"sub": "ann", "exp": token::now() + 600});
    for (name, value) in change.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    token::signed(&claims)
}

fn unauthenticated() -> (u16, String) {
    (401, "AC_UNAUTHENTICATED".to_owned())
}

fn forbidden() -> (u16, String) {
    (403, "AC_FORBIDDEN".to_owned())
}

#[tokio::test]
async fn every_call_needs_a_valid_token() {
    let scene = scene().await;
    let expired = claims(&json!({"exp": token::now() - 90}));
    for (method, path, body, _) in CALLS {
        let answer = http(scene.address, method, path, body).await;
        assert_eq!(answer.error(), unauthenticated(), "{method} {path}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        for bad in ["nonsense", &expired] {
            let answer = bearing(&scene, bad, method, path, body).await;
            assert_eq!(answer.error(), unauthenticated(), "{method} {path}");
        }
        let answer = bearing(&scene, &token::of("ann"), method, path, body).await;
        assert!(answer.status < 400, "{method} {path}: {answer:?}");
    }
}

#[tokio::test]
async fn what_was_refused_changed_nothing() {
    let scene = scene().await;
    for (method, path, body, _) in CALLS {
        http(scene.address, method, path, body).await;
        let other = claims(&json!({"shows": ["8"]}));
        bearing(&scene, &other, method, path, body).await;
    }
    scene.ingest.script(|script| {
        assert!(script.stopped.is_empty());
        assert!(script.markers.is_empty());
    });
    scene.archiver.rows(|rows| {
        assert!(rows.deleted.is_empty());
        assert_eq!(rows.shows, ["7", "8"].map(show));
    });
}

#[tokio::test]
async fn a_token_for_another_show_is_not_enough() {
    let scene = scene().await;
    let (other, own) = (
        claims(&json!({"shows": ["8"]})),
        claims(&json!({"shows": ["7"]})),
    );
    for (method, path, body, _) in &CALLS[..ABOUT_SHOW_7] {
        let answer = bearing(&scene, &other, method, path, body).await;
        assert_eq!(answer.error(), forbidden(), "{method} {path}");
        let answer = bearing(&scene, &own, method, path, body).await;
        assert!(answer.status < 400, "{method} {path}: {answer:?}");
    }
}

#[tokio::test]
async fn each_call_has_its_scope() {
    let scene = scene().await;
    for (method, path, body, needed) in CALLS {
        for scope in ["publish", "listen", "read", "admin"] {
            let token = claims(&json!({"scope": scope}));
            let answer = bearing(&scene, &token, method, path, body).await;
            if scope == needed {
                assert!(answer.status < 400, "{method} {path}: {answer:?}");
            } else {
                assert_eq!(answer.error(), forbidden(), "{method} {path} {scope}");
            }
        }
    }
}

#[tokio::test]
async fn lists_show_only_what_is_granted() {
    let scene = scene().await;
    let token = claims(&json!({"shows": ["8"]}));
    for (path, list, id) in [
        ("/api/stream/status", "streams", "show_id"),
        ("/api/shows", "items", "id"),
        ("/api/recordings", "items", "show_id"),
    ] {
        let json = bearing(&scene, &token, "GET", path, "").await.json();
        let ids: Vec<_> = json[list]
            .as_array()
            .expect("a list")
            .iter()
            .map(|i| &i[id])
            .collect();
        assert_eq!(ids, ["8"], "{path}");
    }
}

#[tokio::test]
async fn pages_probes_and_listening_are_open() {
    let scene = scene().await;
    scene.ingest.script(|script| {
        script.live = Some(("audio/webm".to_owned(), vec!["media".into()]));
    });
    for path in [
        "/",
        "/studio/studio.js",
        "/live/7",
        "/healthz",
        "/readyz",
        "/metrics",
    ] {
        let answer = http(scene.address, "GET", path, "").await;
        assert_eq!(answer.status, 200, "{path}");
    }
    let page = http(scene.address, "GET", "/listen/7", "").await;
    assert_ne!(page.status, 401);
}

#[tokio::test]
async fn only_downloads_may_carry_their_token_in_the_address() {
    let scene = scene().await;
    let token = token::of("ann");
    let path = format!("/api/recordings/{ID}/download?token={token}");
    let answer = http(scene.address, "GET", &path, "").await;
    assert_eq!(answer.status, 302);
    assert!(!answer.headers["location"].contains(&token));
    let path = format!("/api/recordings/{ID}?token={token}");
    let answer = http(scene.address, "GET", &path, "").await;
    assert_eq!(answer.error(), unauthenticated());
}

#[tokio::test]
async fn a_plain_broadcaster_is_refused_before_the_upgrade() {
    let scene = Scene::keyed().await;
    let expired = claims(&json!({"exp": token::now() - 90}));
    let others = claims(&json!({"shows": ["8"]}));
    let reader = claims(&json!({"scope": "read"}));
    for (query, refused) in [
        ("?show_id=7".to_owned(), unauthenticated()),
        ("?show_id=7&token=".to_owned(), unauthenticated()),
        ("?show_id=7&token=a.b.c".to_owned(), unauthenticated()),
        (format!("?show_id=7&token={expired}"), unauthenticated()),
        (format!("?show_id=7&token={others}"), forbidden()),
        (format!("?show_id=7&token={reader}"), forbidden()),
    ] {
        let answer = plain(scene.address, &query).await.map(|_| ());
        assert_eq!(answer, Err(refused), "{query}");
    }
    assert!(scene.broadcasts.is_empty());
}

#[tokio::test]
async fn a_browser_reads_why_it_is_refused() {
    let scene = Scene::keyed().await;
    let others = claims(&json!({"shows": ["8"]}));
    for (query, refused) in [
        ("?show_id=7".to_owned(), ("AC_UNAUTHENTICATED", 4401)),
        (
            "?show_id=7&token=a.b.c".to_owned(),
            ("AC_UNAUTHENTICATED", 4401),
        ),
        (format!("?show_id=7&token={others}"), ("AC_FORBIDDEN", 4403)),
    ] {
        let (code, close) = resumable(scene.address, &query).await.refused().await;
        assert_eq!((&*code, close), refused, "{query}");
    }
    assert!(scene.broadcasts.is_empty());
}

#[tokio::test]
async fn the_ingest_learns_who_broadcasts_and_by_force_or_not() {
    let mut scene = Scene::keyed().await;
    let (ann, bob) = (token::of("ann"), token::of("bob"));
    let query = format!("?show_id=7&token={ann}");
    let (_ann, broadcast) = plain_live(&mut scene, &query).await;
    assert_eq!(
        (&*broadcast.open.user, broadcast.open.force),
        ("ann", false)
    );
    let mut client = resumable(scene.address, &format!("?show_id=7&force=true&token={bob}")).await;
    client.hello("t1").await;
    let broadcast = scene.broadcasts.next().await;
    assert_eq!((&*broadcast.open.user, broadcast.open.force), ("bob", true));
    let bearer = format!("Bearer {bob}");
    let headers = [
        ("authorization", &*bearer),
        ("sec-websocket-protocol", "aircheck.v1"),
    ];
    let client = connect(scene.address, "?show_id=7", &headers).await;
    let mut client = client.expect("let in");
    client.hello("t1").await;
    assert_eq!(scene.broadcasts.next().await.open.user, "bob");
}

#[tokio::test]
async fn a_conflict_is_told_in_the_way_of_each_dialect() {
    let mut scene = Scene::keyed().await;
    let query = format!("?show_id=7&token={}", token::of("bob"));
    let conflict = Fault::new(Code::Conflict, "Another broadcaster is live.");
    let (refused, ()) = tokio::join!(plain(scene.address, &query), async {
        scene.broadcasts.next().await.refuse(conflict.clone()).await;
    });
    assert_eq!(refused.map(|_| ()), Err((409, "AC_CONFLICT".to_owned())));
    let mut client = resumable(scene.address, &query).await;
    client.hello("t1").await;
    scene.broadcasts.next().await.refuse(conflict).await;
    assert_eq!(client.refused().await, ("AC_CONFLICT".to_owned(), 4409));
}

/// A token whose leeway ends within two seconds.
fn ending() -> String {
    claims(&json!({"exp": token::now() - 58}))
}

#[tokio::test]
async fn a_token_that_expires_on_air_closes_the_connection_and_begins_grace() {
    let mut scene = Scene::keyed().await;
    let query = format!("?show_id=7&token={}", ending());
    let (mut client, mut broadcast) = plain_live(&mut scene, &query).await;
    client.binary("abc").await;
    assert_eq!(broadcast.chunk().await.data, "abc");
    assert_eq!(client.said().await, "error: The token has expired.");
    assert_eq!(client.closed().await, 4401);
    assert!(broadcast.ended_in_order().await, "a drop, and no stop");
}

#[tokio::test]
async fn a_browser_reads_that_its_token_expired() {
    let mut scene = Scene::keyed().await;
    let mut client = resumable(scene.address, &format!("?show_id=7&token={}", ending())).await;
    client.hello("t1").await;
    let mut broadcast = scene.broadcasts.next().await;
    broadcast.ready(0).await;
    assert_eq!(client.json().await["type"], "ready");
    assert_eq!(
        client.refused().await,
        ("AC_UNAUTHENTICATED".to_owned(), 4401)
    );
    assert!(broadcast.ended_in_order().await, "a drop, and no stop");
}

#[tokio::test]
async fn a_key_that_can_not_be_used_is_refused_at_the_start() {
    let mut config = aircheck_gateway::Config::new(vec!["http://i".into()], "http://a".into());
    let mut short = tempfile::NamedTempFile::new().expect("a file");
    short.write_all(b"too short\n").expect("write");
    for path in [short.path(), "no/such/file".as_ref()] {
        config.auth_key_file = Some(path.to_owned());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let health = Health::new();
        let served =
            aircheck_gateway::serve(config.clone(), listener, Shutdown::new(), health.clone());
        let error = soon(served).await.expect_err("refused");
        assert!(
            matches!(error, aircheck_gateway::Error::Key(_)),
            "{error:?}"
        );
        assert!(!health.is_ready());
    }
}
