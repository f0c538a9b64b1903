//! Two connections want one show.

use aircheck_e2e::{
    broadcaster::Broadcaster,
    capture::Capture,
    cluster::Cluster,
    faults::{Proxy, Weather},
    grpc::Publisher,
    oracle::{archived_exactly, is_archive_of},
    plain::Plain,
    wait::{SOON, eventually},
};
use aircheck_proto::ingest::publish_response::Response;
use serde_json::json;
use tonic::Status;

fn code(status: &Status) -> (tonic::Code, String) {
    let code = status
        .metadata()
        .get("aircheck-code")
        .and_then(|code| code.to_str().ok());
    (status.code(), code.unwrap_or_default().to_owned())
}

#[tokio::test]
async fn the_same_broadcaster_wins_over_its_own_old_connection() {
    let cluster = Cluster::up(&[("AIRCHECK_GRACE", "1s")]).await;
    let capture = Capture::load("opus250");
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_to(capture.len() / 3)
        .await
        .expect("still connected");
    let mut old = show.abandon();
    let ready = show.resume().await;
    assert_eq!(
        (&ready["epoch"], &ready["resumed"]),
        (&json!(2), &json!(true)),
        "{ready}"
    );
    let mut said = Vec::new();
    assert_eq!(old.closed(&mut said).await, 4410);
    assert!(
        said.last()
            .is_some_and(|last| last.contains("AC_SUPERSEDED")),
        "{said:?}"
    );
    drop(old);
    // The old connection's teardown is over, and a whole grace with it: nothing of it counts.
    show.pace = std::time::Duration::from_millis(25);
    show.send_all()
        .await
        .expect("the new connection is the show");
    let status = cluster.status("7").await;
    assert_eq!(
        (&status["state"], &status["epoch"]),
        (&json!("live"), &json!(2)),
        "{status}"
    );
    show.stop().await.expect("still connected");
    archived_exactly(&cluster, "7", &capture).await;
}

#[tokio::test]
async fn a_half_open_connection_is_fenced_and_its_late_bytes_change_nothing() {
    let cluster = Cluster::up(&[]).await;
    let capture = Capture::load("opus250");
    let proxy = Proxy::before(cluster.web).await;
    let mut show = Broadcaster::live(proxy.address, "7", capture.clone()).await;
    show.send_to(capture.len() / 3)
        .await
        .expect("still connected");
    show.acked_to(capture.len() / 4)
        .await
        .expect("still connected");
    proxy.set(Weather::Stalled);
    show.send_to(capture.len() / 2)
        .await
        .expect("a half-open connection takes bytes");
    let mut old = show.abandon();
    show.server = cluster.web;
    show.resume().await;
    proxy.set(Weather::Fine);
    show.send_all().await.expect("still connected");
    assert_eq!(old.closed(&mut Vec::new()).await, 4410);
    show.stop().await.expect("still connected");
    archived_exactly(&cluster, "7", &capture).await;
}

#[tokio::test]
async fn another_broadcaster_is_refused_and_with_force_takes_the_show_over() {
    let cluster = Cluster::up(&[]).await;
    let (first, second) = (Capture::load("ff_webm"), Capture::load("sweepA"));
    let mut alice = Publisher::open(cluster.ingest, "7", "alice", false)
        .await
        .expect("let in");
    for chunk in first.chunks() {
        alice.send(chunk).await;
    }
    alice.acked().await;

    let refused = Publisher::open(cluster.ingest, "7", "bob", false)
        .await
        .expect_err("alice is live");
    assert_eq!(
        code(&refused),
        (tonic::Code::AlreadyExists, "AC_CONFLICT".to_owned())
    );
    let refused = Plain::connect(cluster.web, "?show_id=7")
        .await
        .expect_err("alice is live");
    assert_eq!(refused, (409, "AC_CONFLICT".to_owned()));
    let mut browser = Broadcaster::new(cluster.web, "7", second.clone());
    let refused = browser.connect().await.expect_err("alice is live");
    assert_eq!(refused.codes(), (4409, "AC_CONFLICT"));

    let mut bob = Publisher::open(cluster.ingest, "7", "bob", true)
        .await
        .expect("force");
    assert_ne!(
        bob.ready.session, alice.ready.session,
        "a takeover is a session of its own"
    );
    let superseded = alice.next().await.expect_err("alice is told");
    assert_eq!(code(&superseded).1, "AC_SUPERSEDED");
    for chunk in second.chunks() {
        bob.send(chunk).await;
    }
    bob.stop().await;
    match bob.next().await.expect("a clean end") {
        Some(Response::End(end)) => assert!(end.recording.is_some()),
        other => panic!("expected the end, not {other:?}"),
    }

    let recordings = eventually(SOON, "both shows are archived", || async {
        let recordings = cluster.recordings("7").await;
        let archived = recordings
            .iter()
            .filter(|recording| recording["status"] == "archived")
            .count();
        if archived == 2 {
            Ok(recordings)
        } else {
            Err(recordings)
        }
    })
    .await;
    assert_eq!(recordings.len(), 2, "{recordings:#?}");
    let of = |session: &str| {
        let found = recordings
            .iter()
            .find(|recording| recording["id"] == session);
        found.unwrap_or_else(|| panic!("{session} in {recordings:#?}"))
    };
    let (hers, his) = (of(&alice.ready.session), of(&bob.ready.session));
    assert_eq!(
        (&hers["end_reason"], &his["end_reason"]),
        (&json!("superseded"), &json!("stop"))
    );
    is_archive_of(&cluster, hers, &[&first], &[]).await;
    is_archive_of(&cluster, his, &[&second], &[]).await;
}
