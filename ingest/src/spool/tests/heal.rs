//! A disk that fails for a while: nobody loses an event, and bytes go on at the durable end.

use super::{kept::*, *};

/// Bytes that no segment has room for beside what is there, so that the next one is needed.
const MUCH: usize = 120_000;

#[expect(
    clippy::disallowed_methods,
    reason = "a fault, which nobody has to find again after a crash"
)]
fn rename(from: &Path, to: &Path) {
    std::fs::rename(from, to).expect("moved");
}

#[tokio::test]
async fn a_disk_that_failed_is_tried_again_and_sessions_go_on_at_their_durable_end() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (journal, away) = (dir.path().join("journal"), dir.path().join("away"));
    let (spool, _) = open_small(dir.path());
    let mut session = begin(&spool, 1);
    session.append(0, 0, pattern(20_000, 1)).expect("queued");
    durable(&session, 0, 20_000).await;
    // No segment can be created while its directory is not there.
    rename(&journal, &away);
    session.append(0, 20_000, pattern(MUCH, 2)).expect("queued");
    let mut marks = session.marks();
    marks
        .wait_for(|marks| marks.failed.is_some())
        .await
        .expect("the writer lives");
    assert!(spool.is_low(), "no session should begin now");
    // Queued before the session knew: dropped, or there would be a hole before it.
    session
        .append(0, 20_000 + MUCH as u64, pattern(10, 3))
        .expect("queued");
    let events = mark(&mut session, 7);
    let run = session.restart().expect("queued");
    rename(&away, &journal);
    let marks = marks
        .wait_for(|marks| marks.run == run)
        .await
        .expect("the writer lives")
        .clone();
    assert_eq!((marks.takes, marks.failed), (vec![20_000], None));
    assert_eq!(marks.events, events, "the event was held");
    session.append(0, 20_000, pattern(MUCH, 4)).expect("queued");
    durable(&session, 0, 20_000 + MUCH as u64).await;
    let found = found(copy_journal(dir.path()).path());
    let (manifest, bytes) = &found[0];
    assert!(*bytes == [pattern(20_000, 1), pattern(MUCH, 4)].concat());
    assert_eq!(manifest.markers.len(), 1);
    assert_eq!(
        (&manifest.recording_error, manifest.gaps.len()),
        (&None, 0),
        "the journal has no hole"
    );
}
