//! Networks with bad habits.

use aircheck_e2e::{
    broadcaster::Broadcaster,
    capture::Capture,
    cluster::Cluster,
    faults::{Proxy, Weather},
    oracle::archived_exactly,
    wait::{SOON, eventually},
};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn acks_that_are_lost_cost_neither_bytes_nor_doubles() {
    let cluster = Cluster::up(&[]).await;
    let capture = Capture::load("opus250");
    let proxy = Proxy::before(cluster.web).await;
    let mut show = Broadcaster::live(proxy.address, "7", capture.clone()).await;
    proxy.set(Weather::Mute);
    show.send_to(capture.len() / 2)
        .await
        .expect("still connected");
    eventually(SOON, "the bytes have arrived", || async {
        let status = cluster.status("7").await;
        if status["durable"] == json!(show.position) {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
    let (acked, sent) = (show.acked, show.position);
    assert!(acked < sent as u64, "no ack of the last bytes came through");
    proxy.set(Weather::Cut);
    show.reset();
    proxy.set(Weather::Fine);
    let ready = show.resume().await;
    assert_eq!(
        ready["offset"],
        json!(sent),
        "what is durable is not asked for again: {ready}"
    );
    show.send_all().await.expect("still connected");
    show.stop().await.expect("still connected");
    archived_exactly(&cluster, "7", &capture).await;
}

#[tokio::test]
async fn a_network_that_stalls_and_cuts_again_and_again_loses_nothing() {
    let cluster = Cluster::up(&[]).await;
    let capture = Capture::load("opus250");
    let proxy = Proxy::before(cluster.web).await;
    let mut show = Broadcaster::live(proxy.address, "7", capture.clone()).await;
    for step in 1..=8 {
        show.send_to(capture.len() * step / 9)
            .await
            .expect("still connected");
        proxy.set(Weather::Stalled);
        show.send_to(capture.len() * step / 9 + 20_000)
            .await
            .expect("a stalled network takes bytes");
        proxy.set(Weather::Cut);
        show.reset();
        proxy.set(Weather::Fine);
        let ready = show.resume().await;
        assert_eq!(ready["resumed"], true, "{ready}");
    }
    show.send_all().await.expect("still connected");
    show.stop().await.expect("still connected");
    let recording = archived_exactly(&cluster, "7", &capture).await;
    assert_eq!(recording["reconnects"], 8, "{recording}");
    assert_eq!(proxy.accepted(), 9);
}

#[tokio::test]
async fn a_slow_network_delays_acks_and_ends_nothing() {
    let cluster = Cluster::up(&[("AIRCHECK_GRACE", "1s")]).await;
    let capture = Capture::load("opus250").prefix(100_000);
    let proxy = Proxy::before(cluster.web).await;
    let mut show = Broadcaster::live(proxy.address, "7", capture.clone()).await;
    proxy.set(Weather::Slow);
    show.send_all().await.expect("slow, not gone");
    show.acked_to(capture.len()).await.expect("slow, not gone");
    show.stop().await.expect("slow, not gone");
    let recording = archived_exactly(&cluster, "7", &capture).await;
    assert_eq!(recording["reconnects"], 0, "{recording}");
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn chunks_may_be_cut_at_every_byte() {
    const ONE_BY_ONE: usize = 6000;
    let cluster = Cluster::up(&[]).await;
    let whole = Capture::load("opus250").prefix(60_000);
    let one_by_one = 1..=ONE_BY_ONE;
    let rest = whole.ends.iter().copied().filter(|&end| end > ONE_BY_ONE);
    let capture = Capture {
        ends: one_by_one.chain(rest).collect(),
        ..whole
    };
    let mut show = cluster.broadcaster("7", &capture).await;
    show.pace = Duration::ZERO;
    // At a byte that no chunk would end at.
    show.send_to(777).await.expect("still connected");
    show.reset();
    show.resume().await;
    show.send_all().await.expect("still connected");
    show.stop().await.expect("still connected");
    archived_exactly(&cluster, "7", &capture).await;
}
