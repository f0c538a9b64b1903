//! Many at once.

use aircheck_e2e::{capture::Capture, cluster::Cluster, oracle::archived_exactly};
use futures::future::join_all;
use std::time::Duration;

const SHOWS: usize = 50;

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
