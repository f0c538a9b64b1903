//! What a broadcaster, a listener and an operator see of the ingest.

use crate::support::{Broadcaster, CAPTURE, Ingest};
use aircheck_core::code::Code;
use aircheck_proto::{
    Fault,
    ingest::{
        Alarm, Dialect, ListSessionsRequest, ListenRequest, ReadSpoolRequest, SessionState, State,
        StopSessionRequest, publish_response::Response,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_show_is_acknowledged_read_back_and_finalized_once() {
    let ingest = Ingest::start().await;
    let mut host = Broadcaster::connect(&ingest, "7", "ann", "t1", 0)
        .await
        .expect("admitted");
    let ready = host.ready().await;
    assert_eq!((ready.epoch, ready.offset, ready.resumed), (1, 0, false));
    host.send(0, CAPTURE).await;
    host.acked(CAPTURE.len() as u64).await;
    let mut client = ingest.client();
    let request = ReadSpoolRequest {
        session: ready.session.clone(),
        ..Default::default()
    };
    let mut read = client.read_spool(request).await.expect("held").into_inner();
    let mut bytes = Vec::new();
    while let Some(chunk) = read.message().await.expect("read") {
        assert_eq!(chunk.offset, bytes.len() as u64);
        bytes.extend_from_slice(&chunk.data);
    }
    assert!(bytes == CAPTURE);
    host.stop().await;
    let recording = host.end().await;
    assert_eq!(recording.id, ready.session);
    let manifests = ingest.archiver.finalized();
    assert_eq!(manifests.len(), 1);
    assert_eq!(manifests[0].takes[0].bytes, CAPTURE.len() as u64);
    ingest.spool_empties().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_is_resumed_at_the_durable_offset_and_overlap_is_dropped() {
    let ingest = Ingest::start().await;
    let mut host = Broadcaster::connect(&ingest, "7", "ann", "t1", 0)
        .await
        .expect("admitted");
    let first = host.ready().await;
    host.send(0, &CAPTURE[..50_000]).await;
    host.acked(50_000).await;
    drop(host);
    ingest
        .until("7", |status| status.state() == SessionState::Grace)
        .await;
    let mut host = Broadcaster::connect(&ingest, "7", "ann", "t1", 20_000)
        .await
        .expect("resumed");
    let ready = host.ready().await;
    assert_eq!((ready.session, ready.epoch), (first.session, 2));
    assert_eq!(
        (ready.offset, ready.resumed),
        (50_000, false),
        "the hello named no session"
    );
    host.send(20_000, &CAPTURE[20_000..]).await;
    host.acked(CAPTURE.len() as u64).await;
    host.stop().await;
    host.end().await;
    let manifest = ingest.archiver.finalized().remove(0);
    assert_eq!((manifest.reconnects(), manifest.gaps.len()), (1, 0));
    assert_eq!(manifest.takes[0].bytes, CAPTURE.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_user_takes_over_at_once_and_another_one_needs_force() {
    let ingest = Ingest::start().await;
    let mut old = Broadcaster::connect(&ingest, "7", "ann", "t1", 0)
        .await
        .expect("admitted");
    let first = old.ready().await;
    let mut new = Broadcaster::connect(&ingest, "7", "ann", "t2", 0)
        .await
        .expect("always wins");
    assert_eq!(new.ready().await.epoch, 2);
    assert_eq!(old.fault().await.code, Code::Superseded);
    drop(old);
    let refused = Broadcaster::connect(&ingest, "7", "bob", "t3", 0).await;
    assert_eq!(refused.expect_err("another user").code, Code::Conflict);
    assert_eq!(ingest.status("7").await.state(), SessionState::Live);
    let mut bob = Broadcaster::force(&ingest, "7", "bob", "t3")
        .await
        .expect("with force");
    assert_ne!(bob.ready().await.session, first.session);
    assert_eq!(new.fault().await.code, Code::Superseded);
    let reason = ingest.archiver.next_finalized().await.stage;
    let superseded = aircheck_core::recording::EndReason::Superseded;
    assert!(
        matches!(reason, aircheck_core::spool::Stage::Sealed { reason, .. } if reason == superseded)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_bytes_are_refused_and_other_shows_do_not_notice() {
    let ingest = Ingest::start().await;
    let mut good = Broadcaster::connect(&ingest, "8", "ann", "t1", 0)
        .await
        .expect("admitted");
    let mut bad = Broadcaster::connect(&ingest, "7", "ann", "t1", 0)
        .await
        .expect("admitted");
    bad.ready().await;
    bad.send(0, b"GIF89a, which is no show at all").await;
    assert_eq!(bad.fault().await.code, Code::UnsupportedMedia);
    let mut forged = Broadcaster::connect(&ingest, "9", "ann", "t1", 0)
        .await
        .expect("admitted");
    forged.ready().await;
    forged.send(0, &CAPTURE[..1000]).await;
    forged.send(u64::MAX - 5, &CAPTURE[..1000]).await;
    assert_eq!(forged.fault().await.code, Code::BadOffset);
    for id in ["", "../x", "a b"] {
        let refused = Broadcaster::connect(&ingest, id, "ann", "t1", 0).await;
        assert_eq!(refused.expect_err("bad id").code, Code::BadShowId);
    }
    good.ready().await;
    good.send(0, CAPTURE).await;
    good.acked(CAPTURE.len() as u64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grace_expires_and_the_next_hello_learns_how_the_old_session_stands() {
    let ingest = Ingest::with_grace("300ms").await;
    let mut host = Broadcaster::connect(&ingest, "7", "ann", "t1", 0)
        .await
        .expect("admitted");
    let old = host.ready().await.session;
    host.send(0, &CAPTURE[..50_000]).await;
    host.acked(50_000).await;
    drop(host);
    let manifest = ingest.archiver.next_finalized().await;
    assert_eq!(manifest.session.to_string(), old);
    let mut host = Broadcaster::naming(&ingest, "7", "ann", "t1", 50_000, &old)
        .await
        .expect("anew");
    let ready = host.ready().await;
    assert_ne!(ready.session, old);
    let previous = ready.previous.expect("told");
    assert_eq!(previous.session, old);
    assert!(["finalizing", "archived"].contains(&previous.status.as_str()));
    host.stop().await;
    host.end().await;
    let manifest = ingest.archiver.next_finalized().await;
    assert!(
        manifest.takes.is_empty() && manifest.gaps.is_empty(),
        "no false gap: {manifest:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_client_is_recorded_and_a_second_header_opens_a_second_take() {
    let ingest = Ingest::start().await;
    for part in [
        &CAPTURE[..30_000],
        &CAPTURE[30_000..60_000],
        &CAPTURE[..10_000],
    ] {
        let mut host = Broadcaster::plain(&ingest, "7").await.expect("admitted");
        host.ready().await;
        host.send(0, part).await;
        let received = part.len() as u64;
        ingest
            .until("7", |status| {
                status.durable % 10_000 == 0 && status.received >= received
            })
            .await;
        let durable = ingest.status("7").await;
        assert_eq!(durable.state(), SessionState::Live);
        drop(host);
        ingest
            .until("7", |status| status.state() == SessionState::Grace)
            .await;
    }
    let mut client = ingest.client();
    let request = StopSessionRequest {
        show_id: "7".to_owned(),
    };
    let stopped = client
        .stop_session(request.clone())
        .await
        .expect("stop")
        .into_inner();
    assert!(stopped.stopped);
    let again = client
        .stop_session(request)
        .await
        .expect("idempotent")
        .into_inner();
    assert!(!again.stopped && again.session.is_some());
    let manifest = ingest.archiver.next_finalized().await;
    let lengths: Vec<_> = manifest.takes.iter().map(|take| take.bytes).collect();
    assert_eq!(lengths, [60_000, 10_000]);
    assert_eq!(
        manifest.gaps.len(),
        1,
        "what was sent while disconnected is lost, and said to be"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archiver_that_is_away_or_breaks_is_asked_again_until_it_answers() {
    let ingest = Ingest::start().await;
    ingest.archiver.fail_next(3);
    let mut host = Broadcaster::connect(&ingest, "7", "ann", "t1", 0)
        .await
        .expect("admitted");
    host.ready().await;
    host.send(0, CAPTURE).await;
    host.stop().await;
    host.end().await;
    assert_eq!(ingest.archiver.finalized().len(), 1);
    ingest.spool_empties().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_every_session_and_tells_clients_to_come_back() {
    let ingest = Ingest::start().await;
    let mut host = Broadcaster::connect(&ingest, "7", "ann", "t1", 0)
        .await
        .expect("admitted");
    let session = host.ready().await.session;
    host.send(0, &CAPTURE[..100_000]).await;
    host.acked(100_000).await;
    let spool = ingest.stop().await;
    let fault = host.fault().await;
    assert_eq!(fault.code, Code::Draining);
    let ingest = Ingest::on(spool, "30s").await;
    let mut host = Broadcaster::connect(&ingest, "7", "ann", "t1", 0)
        .await
        .expect("resumed");
    let ready = host.ready().await;
    assert_eq!((ready.session, ready.offset), (session, 100_000));
    host.send(100_000, &CAPTURE[100_000..]).await;
    host.stop().await;
    host.end().await;
    let manifest = ingest.archiver.next_finalized().await;
    assert_eq!(manifest.takes[0].bytes, CAPTURE.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_hear_a_live_show_and_an_idle_one_is_not_found() {
    let ingest = Ingest::start().await;
    let mut client = ingest.client();
    let request = ListenRequest {
        show_id: "7".to_owned(),
    };
    let idle = client.listen(request.clone()).await.expect_err("idle");
    assert_eq!(Fault::from_status(&idle).code, Code::NotFound);
    let mut host = Broadcaster::connect(&ingest, "7", "ann", "t1", 0)
        .await
        .expect("admitted");
    host.ready().await;
    let mut listener = client.listen(request).await.expect("live").into_inner();
    host.send(0, &CAPTURE[..100_000]).await;
    let first = listener.message().await.expect("open").expect("media");
    assert_eq!(first.content_type, "audio/webm");
    let first = listener.message().await.expect("open").expect("media");
    assert!(first.data.starts_with(&[0x1a, 0x45, 0xdf, 0xa3]));
    assert_eq!(ingest.status("7").await.listeners, 1);
    let told = host.next_matching(
        |response| matches!(response, Response::State(state) if state.listeners == 1),
    );
    told.await;
    host.stop().await;
    while listener.message().await.expect("until the end").is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_listed_and_limited() {
    let ingest = Ingest::start().await;
    let mut hosts = Vec::new();
    for show in ["a", "b", "c"] {
        let host = Broadcaster::open(&ingest, show, Dialect::Plain)
            .await
            .expect("admitted");
        hosts.push(host);
    }
    let listed = ingest
        .client()
        .list_sessions(ListSessionsRequest::default())
        .await;
    assert_eq!(listed.expect("list").into_inner().sessions.len(), 3);
    let refused = Broadcaster::open(&ingest, "d", Dialect::Plain)
        .await
        .expect_err("limit of 3");
    assert_eq!(refused.code, Code::TooMany);
}

#[tokio::test]
async fn a_broadcaster_who_is_connected_and_sends_nothing_raises_an_alarm_until_he_sends() {
    let dir = tempfile::tempdir().expect("tempdir");
    let ingest = Ingest::with_flags(dir, &["--watch-no-data", "200ms"]).await;
    let mut host = Broadcaster::connect(&ingest, "7", "ann", "t1", 0)
        .await
        .expect("admitted");
    let alarmed =
        |state: &State, wanted: bool| state.alarms().any(|a| a == Alarm::NoData) == wanted;
    host.next_matching(|said| matches!(said, Response::State(state) if alarmed(state, true)))
        .await;
    let status = ingest.status("7").await;
    assert_eq!(status.alarms, [i32::from(Alarm::NoData)]);
    assert_eq!(
        status.state(),
        SessionState::Live,
        "nothing is done about it"
    );
    host.send(0, CAPTURE).await;
    host.next_matching(|said| matches!(said, Response::State(state) if alarmed(state, false)))
        .await;
    host.stop().await;
    host.end().await;
    assert_eq!(
        ingest.archiver.next_finalized().await.takes[0].bytes,
        CAPTURE.len() as u64
    );
}
