//! The time a session waits for its broadcaster.

use aircheck_e2e::{
    capture::Capture,
    cluster::Cluster,
    oracle::{archived_exactly, is_archive_of, recording_becomes, state_becomes},
    services::UP,
};
use serde_json::json;

const SHORT: &[(&str, &str)] = &[("AIRCHECK_GRACE", "2s")];

#[tokio::test]
async fn a_session_whose_broadcaster_stays_away_ends_after_grace_and_the_next_hello_hears_of_it() {
    let cluster = Cluster::up(SHORT).await;
    let (first, second) = (Capture::load("ff_webm"), Capture::load("sweepA"));
    let mut show = cluster.broadcaster("7", &first).await;
    let session = show.session.clone().expect("a session");
    show.send_all().await.expect("still connected");
    show.acked_to(first.len()).await.expect("still connected");
    show.reset();
    let status = state_becomes(&cluster, "7", "grace").await;
    let left = status["grace_remaining_ms"].as_u64();
    assert!(left.is_some_and(|left| left <= 2000), "{status}");
    assert_eq!(
        (&status["active"], &status["session"]),
        (&json!(true), &json!(session)),
        "{status}"
    );
    let ended = archived_exactly(&cluster, "7", &first).await;
    assert_eq!(ended["end_reason"], "grace_expired");

    let ready = show.resume().await;
    assert_ne!(ready["session"], json!(session), "{ready}");
    assert_eq!(ready["resumed"], false, "{ready}");
    assert_eq!(
        ready["previous"],
        json!({"session": session, "status": "archived"}),
        "{ready}"
    );
    show.begin_take("again", second.clone())
        .await
        .expect("still connected");
    show.send_all().await.expect("still connected");
    let recording = show.stop().await.expect("still connected");
    assert_ne!(recording["id"], json!(session));
    is_archive_of(&cluster, &recording, &[&second], &[]).await;
    assert_eq!(cluster.recordings("7").await.len(), 2);
}

#[tokio::test]
async fn a_stop_during_grace_ends_the_session_once_however_often_it_is_said() {
    let cluster = Cluster::up(&[]).await;
    let capture = Capture::load("ff_webm");
    let mut show = cluster.broadcaster("7", &capture).await;
    let session = json!(show.session);
    show.send_all().await.expect("still connected");
    show.acked_to(capture.len()).await.expect("still connected");
    show.reset();
    state_becomes(&cluster, "7", "grace").await;
    let first = cluster.post("/api/stream/stop?show_id=7", "").await.ok();
    assert_eq!(
        (&first["stopped"], &first["recording"]["id"]),
        (&json!(true), &session),
        "{first}"
    );
    let second = cluster.post("/api/stream/stop?show_id=7", "").await.ok();
    assert_eq!(
        (&second["stopped"], &second["recording"]["id"]),
        (&json!(false), &session),
        "{second}"
    );
    let third = cluster
        .post("/api/recording/stop", r#"{"show_id":"7"}"#)
        .await
        .ok();
    assert_eq!(
        (&third["stopped"], &third["recording"]["id"]),
        (&json!(false), &session),
        "{third}"
    );
    let recording = archived_exactly(&cluster, "7", &capture).await;
    assert_eq!(recording["end_reason"], "stop");
}

#[tokio::test]
async fn an_operators_stop_ends_a_live_show_and_the_broadcaster_hears_of_it() {
    let cluster = Cluster::up(&[]).await;
    let capture = Capture::load("ff_webm");
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_all().await.expect("still connected");
    show.acked_to(capture.len()).await.expect("still connected");
    let answer = cluster
        .post("/api/recording/stop", r#"{"show_id":7}"#)
        .await
        .ok();
    assert_eq!(answer["stopped"], true, "{answer}");
    let told = show.next_of("archived").await.expect("the end is said");
    assert_eq!(told["recording"]["status"], "archived", "{told}");
    assert_eq!(show.next().await.expect_err("then closed").close, 1000);
    archived_exactly(&cluster, "7", &capture).await;
}

#[tokio::test]
async fn a_session_whose_grace_ran_while_the_server_was_dead_gets_a_whole_new_one() {
    let mut cluster = Cluster::up(SHORT).await;
    let capture = Capture::load("opus250");
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_to(capture.len() / 2)
        .await
        .expect("still connected");
    cluster.process(UP).kill().await;
    show.reset();
    // The outage has to be longer than grace: only time can show that.
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    cluster.process(UP).start().await;
    let ready = show.resume().await;
    assert_eq!(
        ready["resumed"], true,
        "our outage never ends a show: {ready}"
    );
    show.send_all().await.expect("still connected");
    show.stop().await.expect("still connected");
    archived_exactly(&cluster, "7", &capture).await;
}

#[tokio::test]
async fn a_session_that_nobody_comes_back_to_after_a_crash_is_archived_all_the_same() {
    let mut cluster = Cluster::up(SHORT).await;
    let capture = Capture::load("ff_webm");
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_all().await.expect("still connected");
    show.acked_to(capture.len()).await.expect("still connected");
    cluster.process(UP).kill_and_restart().await;
    drop(show);
    let recording = archived_exactly(&cluster, "7", &capture).await;
    assert!(
        ["recovered", "grace_expired"]
            .contains(&recording["end_reason"].as_str().unwrap_or_default())
    );
}

#[tokio::test]
async fn a_show_can_have_a_grace_of_its_own_even_none() {
    let cluster = Cluster::up(&[]).await;
    let capture = Capture::load("ff_webm");
    let settings = r#"{"title":"Morning","grace_s":0,"gap_policy":"silence"}"#;
    let show = cluster.request("PUT", "/api/shows/7", settings).await.ok();
    assert_eq!(
        (&show["title"], &show["grace_s"]),
        (&json!("Morning"), &json!(0)),
        "{show}"
    );
    let mut show = cluster.broadcaster("7", &capture).await;
    let ready = show.heard.first().cloned().unwrap_or_default();
    assert_eq!(ready["grace_s"], 0, "{ready}");
    show.send_all().await.expect("still connected");
    show.acked_to(capture.len()).await.expect("still connected");
    show.reset();
    let recording = recording_becomes(&cluster, "7", "archived").await;
    assert_eq!(recording["end_reason"], "grace_expired", "{recording}");
    is_archive_of(&cluster, &recording, &[&capture], &[]).await;
}
