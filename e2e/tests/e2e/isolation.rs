//! A disk in trouble, and listeners and a real sink that must not notice.

use crate::disk::everybody_is_told;
use aircheck_e2e::{
    broadcaster::Broadcaster,
    capture::Capture,
    cluster::Cluster,
    faults::{SmallDisk, is_root, skipped},
    listener::Listener,
    oracle::archived_exactly,
    power::PowerDisk,
    probe::{Packet, noise, packets},
    servers::{self, SECRET},
    services::UP,
    syscalls::Injection,
    wait::{SOON, eventually},
};
use std::{collections::VecDeque, path::Path, time::Duration};

/// Packets that Icecast may have kept to itself when its source left.
const ICECAST_CUTS: usize = 30;

/// What happens to the spool's disk in the middle of a show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Full,
    ReadOnly,
    Eio,
    SlowSync,
}

/// The disk while the show runs; it vanishes with its value.
#[derive(Debug)]
enum Disk {
    Usual,
    Small(#[expect(dead_code, reason = "held until the test ends")] SmallDisk),
    Own(PowerDisk),
}

impl Fault {
    /// A disk that can have this fault; `None`, with a message, where that can't be had.
    fn disk(self, folder: &Path) -> Option<Disk> {
        let spool = folder.join("data/spool");
        Some(match self {
            // Smaller than the show.
            Self::Full => Disk::Small(SmallDisk::mount(&spool, 2 << 20)?),
            Self::ReadOnly => Disk::Own(PowerDisk::mount(&folder.join("image"), &spool, 64 << 20)?),
            Self::Eio | Self::SlowSync => Disk::Usual,
        })
    }

    fn strikes(self, disk: &Disk, process: u32) -> Option<Injection> {
        match (self, disk) {
            (Self::ReadOnly, Disk::Own(disk)) => disk.go_read_only(),
            (Self::Eio, _) => return Some(Injection::attach(process, "fdatasync", "error=EIO")),
            (Self::SlowSync, _) => {
                let slow = "delay_enter=2000000";
                return Some(Injection::attach(process, "fdatasync", slow));
            }
            // It comes by itself.
            (Self::Full | Self::ReadOnly, _) => {}
        }
        None
    }
}

#[tokio::test]
async fn whatever_the_disk_does_listeners_and_a_real_sink_hear_every_packet() {
    if !is_root() {
        return skipped("breaking disks needs root");
    }
    let capture = noise(100).await;
    let sent = packets(&capture.bytes).await.remove(&0).expect("audio");
    for fault in [Fault::Full, Fault::ReadOnly, Fault::Eio, Fault::SlowSync] {
        strike(fault, &capture, &sent).await;
    }
}

async fn strike(fault: Fault, capture: &Capture, sent: &VecDeque<Packet>) {
    let server = servers::icecast().await;
    let port = server.port;
    let sink = format!("icecast://source:{SECRET}@127.0.0.1:{port}/{{show_id}}.ogg");
    let settings = [
        ("AIRCHECK_LIVE_SINK", sink.as_str()),
        ("AIRCHECK_SEGMENT_SIZE", "1MiB"),
    ];
    let mut cluster = Cluster::up_unstarted(&settings);
    let Some(disk) = fault.disk(cluster.folder()) else {
        return;
    };
    if fault != Fault::SlowSync {
        cluster.expect_errors(&["recording failed", "spool"]);
    }
    cluster.process(UP).start().await;
    let mut show = cluster.broadcaster("7", capture).await;
    // Far faster than life, but not so fast that anybody could fall behind.
    show.pace = Duration::from_millis(20);
    show.send_to(1).await.expect("still connected");
    let listener = Listener::tune_in(cluster.web, "7")
        .await
        .expect("the show is live");
    show.send_to(capture.len() / 8)
        .await
        .expect("still connected");
    sink_is_up(&cluster).await;
    let radio = servers::listen(port, "/7.ogg");
    show.acked_to(capture.len() / 8).await.expect("durable");
    let process = cluster.process(UP).id();
    let injection = fault.strikes(&disk, process);
    show.send_all().await.expect("the live show goes on");
    if fault == Fault::SlowSync {
        drop(injection);
        show.stop().await.expect("still connected");
        archived_exactly(&cluster, "7", capture).await;
    } else {
        everybody_is_told(&mut cluster, &mut show).await;
        drop(injection);
        the_row_says_failed(&mut show).await;
    }
    // The stop came behind the last byte, on the same connection.
    let listener = listener.to_the_end().await;
    let from = heard_without_a_hole(fault, "a listener", sent, &listener, 1).await;
    assert_eq!(from, 0, "{fault:?}: a listener hears it from the beginning");
    let radio = radio.await.expect("heard");
    let from = heard_without_a_hole(fault, "Icecast", sent, &radio, ICECAST_CUTS).await;
    assert!(
        from <= sent.len() / 4,
        "{fault:?}: Icecast begins at {from}"
    );
}

async fn sink_is_up(cluster: &Cluster) {
    eventually(SOON, "the sink is up", || async {
        let status = cluster.status("7").await;
        if status["sinks"][0]["state"] == "up" {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
}

async fn the_row_says_failed(show: &mut Broadcaster) {
    show.say(serde_json::json!({"type": "stop"})).await;
    let end = show.next_of("failed").await.expect("the end is said");
    assert_eq!(end["recording"]["status"], "failed", "{end}");
    assert!(end["recording"]["error"].is_string(), "{end}");
}

/// From wherever it begins, which is answered, it is what was sent, packet by packet, to the end, of which so
/// many may be missing.
async fn heard_without_a_hole(
    fault: Fault,
    who: &str,
    sent: &VecDeque<Packet>,
    heard: &[u8],
    missing_max: usize,
) -> usize {
    let heard = packets(heard).await.remove(&0).expect("audio");
    let from = sent.iter().position(|packet| packet.hash == heard[0].hash);
    let from = from.unwrap_or_else(|| panic!("{fault:?}: {who} hears what nobody sent"));
    let hashes = |packets: &VecDeque<Packet>, skip| {
        let packets = packets.iter().skip(skip);
        packets
            .map(|packet| packet.hash.clone())
            .collect::<Vec<_>>()
    };
    let (wanted, heard) = (hashes(sent, from), hashes(&heard, 0));
    assert!(wanted.starts_with(&heard), "{fault:?}: {who} hears a hole");
    assert!(
        heard.len() + missing_max >= wanted.len(),
        "{fault:?}: {who} hears {} of {} packets from {from} on",
        heard.len(),
        sent.len()
    );
    from
}
