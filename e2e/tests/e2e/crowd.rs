//! Many at once.

use aircheck_e2e::{
    capture::Capture,
    cluster::Cluster,
    listener::Listener,
    oracle::archived_exactly,
    probe::{decodes_clean, packets},
    wait::{SOON, eventually},
};
use futures::future::join_all;
use futures::{StreamExt as _, stream};
use std::time::Duration;

const SHOWS: usize = 50;
const LISTENERS: usize = 500;
/// Connections that are opened at a time.
const DOORS: usize = 50;
const EBML: [u8; 4] = [0x1A, 0x45, 0xDF, 0xA3];

#[tokio::test]
async fn fifty_broadcasters_at_once_each_get_their_own_bytes_back() {
    let cluster = Cluster::up(&[]).await;
    let sources = [
        "opus250", "ff_webm", "ff_ogg", "mp4opus", "sweepA", "vp8", "pause",
    ]
    .map(Capture::load);
    let captures: Vec<Capture> = (0..SHOWS)
        .map(|number| {
            let source = &sources[number % sources.len()];
            // Different lengths: a byte of another show could not hide.
            source.prefix(source.len() * (SHOWS - number / sources.len()) / SHOWS)
        })
        .collect();
    let shows = captures.iter().enumerate().map(|(number, capture)| {
        let cluster = &cluster;
        async move {
            let mut show = cluster
                .broadcaster(&format!("show-{number}"), capture)
                .await;
            show.pace = Duration::from_millis(20);
            show.send_to(capture.len() / 2)
                .await
                .expect("still connected");
            if number % 5 == 0 {
                show.reset();
                show.resume().await;
            }
            show.send_all().await.expect("still connected");
            show.stop().await.expect("still connected");
        }
    });
    join_all(shows).await;
    for (number, capture) in captures.iter().enumerate() {
        archived_exactly(&cluster, &format!("show-{number}"), capture).await;
    }
}

#[tokio::test]
async fn five_hundred_listeners_of_one_show_and_one_of_each_of_fifty_hear_it_whole() {
    let cluster = Cluster::up(&[]).await;
    let source = Capture::load("opus250");
    // Less than what waits for a slow listener: on a busy machine nobody may lose anything.
    let capture = source.prefix(source.ends[30]);
    let name = |number: usize| format!("show-{number}");
    let shows = (0..SHOWS).map(|number| {
        let (cluster, capture) = (&cluster, &capture);
        async move {
            let mut show = cluster.broadcaster(&name(number), capture).await;
            show.send_to(1).await.expect("still connected");
            show
        }
    });
    let shows = join_all(shows).await;
    let places = (0..LISTENERS).map(|_| 0).chain(1..SHOWS);
    let listeners: Vec<Listener> = stream::iter(places)
        .map(|number| {
            let web = cluster.web;
            async move { Listener::tune_in(web, &name(number)).await.expect("live") }
        })
        .buffered(DOORS)
        .collect()
        .await;
    eventually(SOON, "all are counted", || async {
        let status = cluster.status(&name(0)).await;
        if status["listeners"] == LISTENERS {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
    let ends = shows.into_iter().map(|mut show| async move {
        show.pace = Duration::from_millis(20);
        show.send_all().await.expect("still connected");
        show.stop().await.expect("still connected");
    });
    join_all(ends).await;
    let heard = join_all(listeners.into_iter().map(Listener::to_the_end)).await;
    let heads = heard[0]
        .windows(EBML.len())
        .filter(|at| *at == EBML)
        .count();
    assert_eq!(heads, 1, "the init segment comes once");
    decodes_clean(&heard[0]).await;
    let sent = packets(&capture.bytes).await.remove(&0).expect("audio");
    let got = packets(&heard[0]).await.remove(&0).expect("audio");
    // The capture is cut off: what it has of the last cluster need not be whole.
    let whole = got.len() + 1 >= sent.len() && got.iter().zip(&sent).all(|(a, b)| a == b);
    assert!(whole, "{} of {} packets", got.len(), sent.len());
    let alike = heard.iter().filter(|other| **other == heard[0]).count();
    assert_eq!(alike, heard.len(), "everybody hears the same");
}
