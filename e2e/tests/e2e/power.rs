//! Power cuts: an acknowledgement must mean synced, not merely written.

use aircheck_e2e::{
    capture::Capture, cluster::Cluster, oracle::archived_exactly, power::PowerDisk, services::UP,
};

/// Power cuts during one show.
const CUTS: usize = 4;

#[tokio::test]
async fn power_cuts_of_the_spools_disk_lose_no_acknowledged_byte() {
    let mut cluster = Cluster::up_unstarted(&[("AIRCHECK_SEGMENT_SIZE", "1MiB")]);
    let (image, spool) = (
        cluster.folder().join("disk"),
        cluster.folder().join("data/spool"),
    );
    let Some(disk) = PowerDisk::mount(&image, &spool, 64 << 20) else {
        return;
    };
    // A process that outlives its disk for a moment complains, and rightly so.
    cluster.expect_errors(&[
        "spool",
        "recording failed",
        "Input/output error",
        "Read-only",
    ]);
    cluster.process(UP).start().await;
    let capture = Capture::load("sweepA");
    let mut show = cluster.broadcaster("7", &capture).await;
    for cut in 1..=CUTS {
        let end = capture.len() * cut / (CUTS + 1);
        show.send_to(end).await.expect("still connected");
        show.acked_to(end).await.expect("acknowledged");
        // More is under way, and may or may not be synced when the power goes.
        show.send_to(end + capture.len() / 20)
            .await
            .expect("still connected");
        disk.cut();
        cluster.process(UP).kill().await;
        disk.restore();
        cluster.process(UP).start().await;
        show.reset();
        // `resume` checks that nothing is asked for again that was acknowledged.
        let ready = show.resume().await;
        assert_eq!(ready["resumed"], true, "after cut {cut}: {ready}");
    }
    show.send_all().await.expect("still connected");
    show.stop().await.expect("still connected");
    archived_exactly(&cluster, "7", &capture).await;
}
