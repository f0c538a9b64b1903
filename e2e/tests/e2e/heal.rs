//! A disk that fails for a while: the same session records on when it is well.

use crate::disk::{everybody_is_told, what_was_durable_is_archived};
use aircheck_e2e::{
    broadcaster::Broadcaster,
    capture::Capture,
    cluster::Cluster,
    faults::{FewFiles, SmallDisk, is_root, skipped},
    oracle::recording_becomes,
    plain::Plain,
    probe::noise,
    services::UP,
    syscalls::Injection,
    wait::{HEALED, eventually},
};
use serde_json::{Value, json};
use std::{ops::Range, time::Duration};

/// The spool is on a disk of 8 MiB, in small segments.
async fn small_cluster() -> Option<(Cluster, SmallDisk)> {
    if !is_root() {
        skipped("mounting a small disk needs root");
        return None;
    }
    let mut cluster = Cluster::up_unstarted(&[("AIRCHECK_SEGMENT_SIZE", "1MiB")]);
    let disk = SmallDisk::mount(&cluster.folder().join("data/spool"), 8 << 20)?;
    cluster.expect_errors(&[
        "recording failed",
        "spool can't write",
        "spool write failed",
    ]);
    cluster.process(UP).start().await;
    Some((cluster, disk))
}

/// After the disk is well: the client is asked for what it has not heard an ack of, and nothing lacks.
async fn records_on(cluster: &mut Cluster, mut show: Broadcaster) {
    let ended = show.sent_away(HEALED).await;
    assert_eq!(ended.close, 4503, "{ended:?}");
    let error = ended.error.expect("the reason is said");
    assert_eq!(
        (&error["code"], &error["retry_ms"]),
        (&json!("AC_UNAVAILABLE"), &json!(0)),
        "{error}"
    );
    let ready = show.resume().await;
    assert_eq!(ready["resumed"], true, "the same session: {ready}");
    show.send_all().await.expect("still connected");
    let all = show.capture().len();
    show.acked_to(all).await.expect("acknowledged in the end");
    let capture = show.capture().clone();
    let recording = show.stop().await.expect("still connected");
    assert_eq!(recording["gaps"], json!([]), "{recording}");
    // It is known to have failed, and statuses never go back; but all of it is there.
    what_was_durable_is_archived(cluster, &recording, &capture, all).await;
    cluster
        .process(UP)
        .logs(&["WARN", "recording goes on"])
        .await;
}

#[tokio::test]
async fn a_session_whose_disk_was_full_for_a_while_records_on_and_lacks_nothing() {
    let Some((mut cluster, disk)) = small_cluster().await else {
        return;
    };
    let capture = noise(100).await;
    let third = capture.len() / 3;
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_to(third).await.expect("still connected");
    show.acked_to(third).await.expect("acknowledged");
    disk.fill();
    show.pace = Duration::from_millis(20);
    show.send_all().await.expect("the live show goes on");
    everybody_is_told(&mut cluster, &mut show).await;
    let mut other = Broadcaster::new(cluster.web, "8", capture);
    let refused = other.connect().await.expect_err("no other show begins now");
    assert_eq!(refused.close, 4503, "{refused:?}");
    disk.free();
    records_on(&mut cluster, show).await;
    other.resume().await;
}

#[tokio::test]
async fn a_disk_that_refuses_for_a_while_costs_nothing_but_the_status() {
    if !is_root() {
        return skipped("injecting faults into another process needs root");
    }
    for (call, what) in [("fdatasync", "error=EIO"), ("pwrite64", "error=EROFS")] {
        let mut cluster = Cluster::up(&[]).await;
        cluster.expect_errors(&[
            "recording failed",
            "spool can't write",
            "spool write failed",
        ]);
        let capture = Capture::load("opus250");
        let third = capture.len() / 3;
        let mut show = cluster.broadcaster("7", &capture).await;
        show.send_to(third).await.expect("still connected");
        show.acked_to(third).await.expect("acknowledged");
        let injection = Injection::attach(cluster.process(UP).id(), call, what);
        show.send_to(2 * third)
            .await
            .expect("the live show goes on");
        everybody_is_told(&mut cluster, &mut show).await;
        drop(injection);
        records_on(&mut cluster, show).await;
    }
}

#[tokio::test]
async fn a_process_without_file_descriptors_records_on_when_it_has_some() {
    if !is_root() {
        return skipped("changing another process's limits needs root");
    }
    let mut cluster = Cluster::up(&[("AIRCHECK_SEGMENT_SIZE", "1MiB")]).await;
    cluster.expect_errors(&[
        "recording failed",
        "spool can't write",
        "spool write failed",
        "Too many open files",
    ]);
    let capture = noise(100).await;
    let third = capture.len() / 3;
    let mut show = cluster.broadcaster("7", &capture).await;
    show.send_to(third).await.expect("still connected");
    show.acked_to(third).await.expect("acknowledged");
    let limit = FewFiles::limit(cluster.process(UP).id());
    show.pace = Duration::from_millis(20);
    show.send_all().await.expect("the live show goes on");
    told_by_message(&mut show).await;
    drop(limit);
    records_on(&mut cluster, show).await;
}

/// The process can't accept a connection to be asked anything, but says it over the one there is.
async fn told_by_message(show: &mut Broadcaster) {
    let failed = |said: &Value| said["type"] == "state" && said["recording"] == "failed";
    while !show.heard.iter().any(failed) {
        show.next().await.expect("still connected");
    }
}

async fn send(show: &mut Plain, capture: &Capture, range: Range<usize>) {
    let mut position = range.start;
    while position < range.end {
        let chunk = capture.chunk_at(position).expect("within the capture");
        position += chunk.len();
        show.0.binary(chunk).await;
    }
}

async fn status_is(cluster: &Cluster, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    eventually(HEALED, what, || async {
        let status = cluster.status("7").await;
        if is_so(&status) {
            Ok(status)
        } else {
            Err(status)
        }
    })
    .await
}

#[tokio::test]
async fn a_plain_client_lacks_what_it_sent_while_the_disk_was_full_and_no_more() {
    let Some((mut cluster, disk)) = small_cluster().await else {
        return;
    };
    let capture = noise(100).await;
    let (third, most) = (capture.len() / 3, capture.len() * 5 / 6);
    let mut show = Plain::connect(cluster.web, "?show_id=7")
        .await
        .expect("let in");
    send(&mut show, &capture, 0..third).await;
    let third = third as u64;
    status_is(&cluster, "a third is durable", |s| {
        s["durable"].as_u64() >= Some(third)
    })
    .await;
    disk.fill();
    let third = usize::try_from(third).expect("fits");
    send(&mut show, &capture, sent_from(&capture, third)..most).await;
    let failed = |s: &Value| s["recording_failed"].is_string();
    status_is(&cluster, "the recording has failed", failed).await;
    disk.free();
    cluster
        .process(UP)
        .logs(&["WARN", "recording goes on"])
        .await;
    send(
        &mut show,
        &capture,
        sent_from(&capture, most)..capture.len(),
    )
    .await;
    show.stop().await;
    let recording = recording_becomes(&cluster, "7", "failed").await;
    let gaps = recording["gaps"].as_array().expect("gaps");
    assert_eq!(gaps.len(), 1, "{recording}");
    let cause = gaps[0]["cause"].as_str().expect("a cause");
    assert!(cause.contains("No space left"), "{recording}");
    assert!(
        gaps[0]["from"].as_u64() >= Some(third as u64),
        "{recording}"
    );
    assert!(gaps[0]["to"].as_u64() >= Some(most as u64), "{recording}");
    assert!(recording["object_key"].is_string(), "{recording}");
}

/// The chunk boundary at or after `offset`.
fn sent_from(capture: &Capture, offset: usize) -> usize {
    let mut position = 0;
    while position < offset {
        position += capture
            .chunk_at(position)
            .map_or(offset, |chunk| chunk.len());
    }
    position
}
