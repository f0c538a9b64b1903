//! Rehearsals: sessions of their own beside a show's, which nobody hears.

use crate::support::{Broadcaster, CAPTURE, Ingest};
use aircheck_core::{code::Code, sheet};
use aircheck_proto::{
    Fault,
    ingest::{
        Link, ListSessionsRequest, ListenRequest, SessionStatus, StopSessionRequest, Times,
        publish_request::Request,
    },
};

/// A server that never answers: a sink that was started would be in the status.
const SINK: [&str; 2] = ["--live-sink", "icecast://u:p@127.0.0.1:1/{show_id}.webm"];

async fn all(ingest: &Ingest) -> Vec<SessionStatus> {
    let request = ListSessionsRequest {
        rehearsals: true,
        ..Default::default()
    };
    let listed = ingest.client().list_sessions(request).await;
    listed.expect("listed").into_inner().sessions
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_is_a_session_beside_its_show_that_nobody_hears() {
    let spool = tempfile::tempdir().expect("tempdir");
    let ingest = Ingest::with_flags(spool, &SINK).await;
    let mut rehearsal = Broadcaster::rehearse(&ingest, "7", "r1")
        .await
        .expect("admitted");
    let rehearsed = rehearsal.ready().await.session;
    rehearsal.send(0, CAPTURE).await;
    rehearsal.acked(CAPTURE.len() as u64).await;

    let mut client = ingest.client();
    let (show_id, show) = ("7".to_owned(), Some("7".to_owned()));
    let request = ListenRequest {
        show_id: show_id.clone(),
    };
    let refused = client.listen(request).await.expect_err("not on air");
    assert_eq!(Fault::from_status(&refused).code, Code::NotFound);
    let request = StopSessionRequest { show_id };
    let stopped = client.stop_session(request).await.expect("answered");
    assert!(!stopped.into_inner().stopped, "there is no show");
    let request = ListSessionsRequest {
        show_id: show,
        rehearsals: false,
    };
    let listed = client.list_sessions(request).await.expect("listed");
    assert!(listed.into_inner().sessions.is_empty());

    // The show itself, by somebody else: there is nobody to take over from.
    let mut host = Broadcaster::connect(&ingest, "7", "bob", "t1", 0)
        .await
        .expect("admitted");
    let session = host.ready().await.session;
    assert_ne!(session, rehearsed);
    let sinks = all(&ingest).await.into_iter();
    let mut sinks: Vec<_> = sinks.map(|s| (s.rehearsal, s.sinks.len())).collect();
    sinks.sort_unstable();
    assert_eq!(sinks, [(false, 1), (true, 0)]);

    let link = Link {
        round_trip: Some(Times {
            p50_us: 1,
            p99_us: 2,
        }),
        ack: None,
    };
    // On air nothing of the kind is kept.
    host.say(Request::Link(link)).await;
    host.stop().await;
    assert_eq!(host.end().await.id, session);
    let goes_on = all(&ingest).await.iter().any(|status| status.rehearsal);
    assert!(goes_on, "the rehearsal goes on");
    rehearsal.say(Request::Link(link)).await;
    rehearsal.stop().await;
    assert_eq!(rehearsal.end().await.id, rehearsed);
    let manifests = ingest.archiver.finalized();
    let kept = manifests.iter().map(|m| (m.rehearsal, m.link));
    let expected = [(false, None), (true, Some(sheet::Link::from(link)))];
    assert_eq!(kept.collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_is_one_after_a_restart_too() {
    let ingest = Ingest::start().await;
    let mut rehearsal = Broadcaster::rehearse(&ingest, "7", "r1")
        .await
        .expect("admitted");
    let session = rehearsal.ready().await.session;
    rehearsal.send(0, CAPTURE).await;
    rehearsal.acked(CAPTURE.len() as u64).await;
    let spool = ingest.stop().await;
    let ingest = Ingest::on(spool, "30s").await;
    let mut again = Broadcaster::rehearse(&ingest, "7", "r1")
        .await
        .expect("resumed");
    assert_eq!(again.ready().await.session, session);
    let mut host = Broadcaster::connect(&ingest, "7", "ann", "t1", 0)
        .await
        .expect("admitted");
    assert_ne!(host.ready().await.session, session);
}
