//! Archives in a real browser, over HTTP ranges. The sweep's tone tells the time: 400 Hz at its
//! beginning and 100 Hz more each second.

mod support;

use aircheck_e2e::browser;
use support::{bench::Bench, session::capture};

const BEGINS_HZ: f64 = 400.0;

#[tokio::test]
async fn an_archive_of_one_take_seeks_to_its_middle_and_ends() {
    let bench = Bench::new().await;
    let sweep = capture("sweepA");
    let recording = bench.archive(&bench.session(&[(0, &sweep)])).await;
    let seconds = recording.duration_ms.expect("a duration") as f64 / 1000.0;
    let file = bench.file(&recording.objects[0]);
    let places = [(10.0, BEGINS_HZ + 1000.0), (3.0, BEGINS_HZ + 300.0)];
    browser::play(&file, "audio/webm", seconds, &places).await;
}

#[tokio::test]
async fn an_archive_of_two_takes_is_on_the_wall_clock_and_silent_between() {
    let bench = Bench::new().await;
    let sweep = capture("sweepA");
    let takes: [(u64, &[u8]); 2] = [(0, &sweep), (35_000, &sweep)];
    let recording = bench.archive(&bench.session(&takes)).await;
    let seconds = recording.duration_ms.expect("a duration") as f64 / 1000.0;
    let file = bench.file(&recording.objects[0]);
    let places = [
        (45.0, BEGINS_HZ + 1000.0),
        (27.0, 0.0),
        (12.0, BEGINS_HZ + 1200.0),
    ];
    browser::play(&file, "audio/webm", seconds, &places).await;
}
