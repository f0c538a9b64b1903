//! Random deaths, from a seed that is printed and can be given again in `AIRCHECK_E2E_SEED`.

use aircheck_e2e::{
    broadcaster::Broadcaster, capture::Capture, cluster::Cluster, oracle::archived_exactly,
};
use futures::future::join_all;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::time::Duration;

const KILLS: usize = 20;
const STORM_KILLS: usize = 200;
const STORM_SHOWS: usize = 10;

#[expect(
    clippy::print_stderr,
    reason = "a failed run can be repeated only with its seed"
)]
fn random() -> StdRng {
    let seed = std::env::var("AIRCHECK_E2E_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    eprintln!("AIRCHECK_E2E_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

async fn kill_at_random(cluster: &mut Cluster, kills: usize, mut random: StdRng) {
    let names = cluster.names();
    for _ in 0..kills {
        tokio::time::sleep(Duration::from_millis(random.random_range(100..900))).await;
        let victim = &names[random.random_range(0..names.len())];
        cluster.process(victim).kill_and_restart().await;
    }
}

#[tokio::test]
async fn one_show_under_twenty_random_kills_is_exactly_one_object_and_one_row() {
    let mut cluster = Cluster::split(&[("AIRCHECK_CLAIM_LEASE", "2s")]).await;
    let capture = Capture::load("opus250");
    let mut show = Broadcaster::live(cluster.web, "7", capture.clone()).await;
    // A show about as long as the killing.
    show.pace = Duration::from_millis(120);
    tokio::join!(
        kill_at_random(&mut cluster, KILLS, random()),
        show.survive()
    );
    archived_exactly(&cluster, "7", &capture).await;
}

#[tokio::test]
#[ignore = "nightly: minutes of kills"]
async fn ten_shows_under_two_hundred_random_kills_are_ten_whole_archives() {
    let mut cluster = Cluster::split(&[("AIRCHECK_CLAIM_LEASE", "2s")]).await;
    let capture = Capture::load("opus250");
    let web = cluster.web;
    let showing = (0..STORM_SHOWS).map(|number| {
        let mut show = Broadcaster::new(web, &number.to_string(), capture.clone());
        show.pace = Duration::from_millis(1000);
        async move { show.survive().await }
    });
    let killing = kill_at_random(&mut cluster, STORM_KILLS, random());
    tokio::join!(killing, join_all(showing));
    for number in 0..STORM_SHOWS {
        archived_exactly(&cluster, &number.to_string(), &capture).await;
    }
}
