//! The lifecycle, input by input. Random schedules are in `tests/lifecycle.rs`.

use super::*;

fn at(ms: u64) -> Now {
    Now {
        mono_ms: ms,
        unix_ms: 1_000_000 + ms,
    }
}

fn session() -> Session {
    let show = "7".parse().expect("a show id");
    let manifest = Manifest::new(
        SessionId(ulid::Ulid::from(7u128)),
        show,
        at(0).unix_ms,
        30_000,
    );
    Session::open(manifest, Limits::default(), at(0))
}

fn live() -> (Session, Epoch) {
    let mut session = session();
    let admission = session
        .handle_connect("ann", false, at(0))
        .expect("admitted");
    (session, admission.epoch)
}

fn take(id: &str, first: u64, next: u64) -> Take {
    Take {
        id: id.to_owned(),
        mime: "audio/webm".to_owned(),
        first,
        next,
    }
}

fn starts(session: &Session) -> Vec<u64> {
    let takes = session.manifest().takes.into_iter();
    takes.map(|take| take.started_unix_ms).collect()
}

#[test]
fn a_wall_clock_that_jumps_moves_nothing() {
    let (mut session, epoch) = live();
    for (mono_ms, unix_ms) in [(10, 1_000_010), (20, 4_600_000), (30, 7)] {
        let now = Now { mono_ms, unix_ms };
        session
            .handle_take(epoch, &take(&mono_ms.to_string(), 0, 0), now)
            .expect("a take");
    }
    assert_eq!(starts(&session), [1_000_010, 1_000_020, 1_000_030]);
}

#[test]
fn a_wall_clock_that_went_back_over_a_restart_never_takes_time_back() {
    let (mut session, epoch) = live();
    session
        .handle_take(epoch, &take("a", 0, 0), at(5000))
        .expect("a take");
    let now = Now {
        mono_ms: 0,
        unix_ms: 500,
    };
    let mut session = Session::recover(session.manifest(), Limits::default(), now);
    let epoch = session
        .handle_connect("ann", false, now)
        .expect("admitted")
        .epoch;
    let later = Now { mono_ms: 9, ..now };
    session
        .handle_take(epoch, &take("b", 0, 0), later)
        .expect("a take");
    assert_eq!(starts(&session), [1_005_000, 1_005_009]);
}

fn finalizes(session: &mut Session) -> usize {
    std::iter::from_fn(|| session.poll_output())
        .filter(|o| *o == Output::Finalize)
        .count()
}

#[test]
fn stop_during_grace_finalizes_once() {
    let (mut session, epoch) = live();
    session.handle_disconnect(epoch, at(10));
    assert_eq!(session.handle_stop(StopBy::Operator, at(20)), Ok(true));
    assert_eq!(session.handle_stop(StopBy::Operator, at(21)), Ok(false));
    session.handle_timeout(at(40_000));
    assert_eq!(finalizes(&mut session), 1);
}

#[test]
fn grace_ends_at_its_deadline_and_not_before() {
    let (mut session, epoch) = live();
    session.handle_disconnect(epoch, at(10));
    assert_eq!(session.poll_timeout(), Some((Timer::Grace, 30_010)));
    session.handle_timeout(at(30_009));
    assert!(session.is_open());
    session.handle_timeout(at(30_010));
    assert!(!session.is_open());
    let Stage::Sealed { reason, .. } = session.manifest().stage else {
        panic!("not sealed")
    };
    assert_eq!(reason, EndReason::GraceExpired);
}

#[test]
fn a_reconnect_at_the_instant_of_expiry_comes_too_late() {
    let (mut session, epoch) = live();
    session.handle_disconnect(epoch, at(0));
    assert_eq!(
        session.handle_connect("ann", false, at(30_000)),
        Err(Refusal::Ended)
    );
    assert_eq!(finalizes(&mut session), 1);
}

#[test]
fn a_reconnect_one_millisecond_before_expiry_resumes() {
    let (mut session, epoch) = live();
    session.handle_disconnect(epoch, at(0));
    let admission = session
        .handle_connect("ann", false, at(29_999))
        .expect("in time");
    assert_eq!(
        admission,
        Admission {
            epoch: Epoch(2),
            resumed: true
        }
    );
    session.handle_timeout(at(30_000));
    assert!(session.is_open());
    assert_eq!(finalizes(&mut session), 0);
}

#[test]
fn the_same_user_fences_the_old_connection_and_its_teardown_changes_nothing() {
    let (mut session, old) = live();
    let new = session
        .handle_connect("ann", false, at(5))
        .expect("always wins")
        .epoch;
    assert!(std::iter::from_fn(|| session.poll_output()).any(|o| o == Output::Fence(old)));
    session.handle_disconnect(old, at(6));
    assert_eq!(session.snapshot(at(6)).grace_remaining_ms, None);
    assert_eq!(
        session.handle_stop(StopBy::Connection(old), at(7)),
        Err(Refusal::Stale)
    );
    assert_eq!(
        session.handle_take(old, &take("t", 0, 0), at(7)),
        Err(Refusal::Stale)
    );
    assert_eq!(
        session.handle_stop(StopBy::Connection(new), at(8)),
        Ok(true)
    );
}

#[test]
fn another_user_is_refused_or_with_force_ends_the_session() {
    let (mut session, old) = live();
    assert_eq!(
        session.handle_connect("bob", false, at(1)),
        Err(Refusal::Conflict)
    );
    assert!(session.is_open());
    assert_eq!(
        session.handle_connect("bob", true, at(2)),
        Err(Refusal::Ended)
    );
    let outputs: Vec<_> = std::iter::from_fn(|| session.poll_output()).collect();
    assert!(outputs.contains(&Output::Fence(old)) && outputs.contains(&Output::Finalize));
    let Stage::Sealed { reason, .. } = session.manifest().stage else {
        panic!("not sealed")
    };
    assert_eq!(reason, EndReason::Superseded);
}

#[test]
fn overlap_is_dropped_and_a_hole_is_refused() {
    let (mut session, epoch) = live();
    let start = session
        .handle_take(epoch, &take("t", 0, 0), at(1))
        .expect("new");
    assert_eq!(
        start,
        TakeStart {
            index: 0,
            offset: 0,
            hole: None
        }
    );
    session
        .handle_chunk(epoch, 0, 0, 100, at(2))
        .expect("in order");
    let accept = session
        .handle_chunk(epoch, 0, 60, 100, at(3))
        .expect("overlap");
    assert_eq!(
        accept,
        Accept {
            tape_skip: Some(40),
            live_skip: 40
        }
    );
    let refused = session.handle_chunk(epoch, 0, 161, 1, at(4));
    assert_eq!(
        refused,
        Err(Refusal::Offset {
            offset: 161,
            expected: 160
        })
    );
    let forged = session.handle_chunk(epoch, 0, u64::MAX, 2, at(4));
    assert!(matches!(forged, Err(Refusal::Offset { .. })));
}

#[test]
fn resuming_asks_for_everything_that_is_not_durable() {
    let (mut session, epoch) = live();
    session
        .handle_take(epoch, &take("t", 0, 0), at(1))
        .expect("new");
    session
        .handle_chunk(epoch, 0, 0, 100, at(2))
        .expect("in order");
    session.handle_durable(0, 70);
    session.handle_disconnect(epoch, at(3));
    let epoch = session
        .handle_connect("ann", false, at(4))
        .expect("resumed")
        .epoch;
    let start = session
        .handle_take(epoch, &take("t", 70, 130), at(5))
        .expect("known");
    assert_eq!(
        start,
        TakeStart {
            index: 0,
            offset: 70,
            hole: None
        }
    );
    let accept = session
        .handle_chunk(epoch, 0, 70, 60, at(6))
        .expect("resent");
    assert_eq!(
        accept,
        Accept {
            tape_skip: Some(30),
            live_skip: 30
        }
    );
}

#[test]
fn what_the_client_lost_becomes_a_gap_with_its_cause() {
    let (mut session, epoch) = live();
    session
        .handle_take(epoch, &take("t", 0, 0), at(1))
        .expect("new");
    session
        .handle_chunk(epoch, 0, 0, 100, at(2))
        .expect("in order");
    session.handle_durable(0, 100);
    let start = session
        .handle_take(epoch, &take("t", 150, 200), at(3))
        .expect("with a hole");
    assert_eq!(
        start,
        TakeStart {
            index: 0,
            offset: 150,
            hole: Some((100, 150))
        }
    );
    let gap = Gap {
        take: 0,
        from: 100,
        to: 150,
        cause: "client".to_owned(),
    };
    assert_eq!(session.manifest().gaps, [gap]);
    session
        .handle_chunk(epoch, 0, 150, 50, at(4))
        .expect("from there on");
    session.handle_durable(0, 200);
    assert_eq!(session.manifest().bytes(), 150);
}

#[test]
fn a_client_that_knows_less_than_is_durable_is_told_the_durable_offset() {
    let (mut session, epoch) = live();
    session
        .handle_take(epoch, &take("t", 0, 0), at(1))
        .expect("new");
    session
        .handle_chunk(epoch, 0, 0, 100, at(2))
        .expect("in order");
    session.handle_durable(0, 100);
    // A tab that crashed may have sent more than it kept a note of.
    let start = session
        .handle_take(epoch, &take("t", 0, 99), at(3))
        .expect("known");
    assert_eq!(
        start,
        TakeStart {
            index: 0,
            offset: 100,
            hole: None
        }
    );
}

#[test]
fn a_failed_tape_leaves_the_live_branch_alone() {
    let (mut session, epoch) = live();
    session
        .handle_take(epoch, &take("t", 0, 0), at(1))
        .expect("new");
    session
        .handle_chunk(epoch, 0, 0, 100, at(2))
        .expect("taped");
    session.handle_durable(0, 100);
    session.handle_write_failed("disk full".to_owned());
    let accept = session
        .handle_chunk(epoch, 0, 100, 50, at(3))
        .expect("still on air");
    assert_eq!(
        accept,
        Accept {
            tape_skip: None,
            live_skip: 0
        }
    );
    let snapshot = session.snapshot(at(4));
    assert_eq!(snapshot.recording_error.as_deref(), Some("disk full"));
    assert_eq!((snapshot.received, snapshot.durable), (150, 100));
    assert_eq!(session.manifest().takes[0].bytes, 100);
}

#[test]
fn what_the_disk_dropped_before_a_declared_gap_is_declared_with_it() {
    let (mut session, epoch) = live();
    session
        .handle_take(epoch, &take("t", 0, 0), at(1))
        .expect("new");
    session
        .handle_chunk(epoch, 0, 0, 50, at(2))
        .expect("taped, and not yet synced");
    session
        .handle_take(epoch, &take("t", 80, 200), at(3))
        .expect("a hole");
    session.handle_write_failed("disk full".to_owned());
    assert!(session.handle_tape_healed());
    let gaps = session.manifest().gaps;
    let gaps: Vec<_> = gaps
        .iter()
        .map(|gap| (gap.from, gap.to, gap.cause.as_str()))
        .collect();
    assert_eq!(gaps, [(50, 80, "client"), (0, 50, "disk full")]);
    assert_eq!(session.cursor(0).map(|at| at.taped), Some(80));
}

#[test]
fn what_was_never_taped_changes_nothing_once_the_session_has_ended() {
    let (mut session, epoch) = live();
    session
        .handle_take(epoch, &take("t", 0, 0), at(1))
        .expect("new");
    session.handle_write_failed("disk full".to_owned());
    session
        .handle_chunk(epoch, 0, 0, 50, at(2))
        .expect("still on air");
    assert!(session.handle_tape_healed() && session.has_untaped(0));
    assert_eq!(session.handle_stop(StopBy::Operator, at(3)), Ok(true));
    let sealed = session.manifest();
    session.handle_untaped_lost(0);
    assert!(!session.has_untaped(0));
    assert_eq!(session.manifest(), sealed);
}

#[test]
fn a_recovered_session_waits_a_whole_new_grace_and_says_why_it_ended() {
    let (mut first, epoch) = live();
    first
        .handle_take(epoch, &take("t", 0, 0), at(1))
        .expect("new");
    let mut session = Session::recover(first.manifest(), Limits::default(), at(500_000));
    session.handle_timeout(at(529_999));
    assert!(session.is_open());
    session.handle_timeout(at(530_000));
    let Stage::Sealed { reason, .. } = session.manifest().stage else {
        panic!("not sealed")
    };
    assert_eq!(reason, EndReason::Recovered);
}

#[test]
fn a_session_found_sealed_is_finalized_again_until_it_is_done() {
    let (mut first, epoch) = live();
    first
        .handle_stop(StopBy::Connection(epoch), at(1))
        .expect("stopped");
    let mut session = Session::recover(first.manifest(), Limits::default(), at(2));
    assert_eq!(finalizes(&mut session), 1);
    assert!(session.handle_finalized(Status::Archived));
    assert!(!session.handle_finalized(Status::Archived));
    assert_eq!(session.snapshot(at(3)).status, Status::Archived);
    assert_eq!(finalizes(&mut session), 0);
}

#[test]
fn limits_of_duration_and_bytes_end_the_session() {
    let (mut session, _) = live();
    assert_eq!(
        session.poll_timeout(),
        Some((Timer::Duration, 24 * 3_600_000))
    );
    session.handle_timeout(at(24 * 3_600_000));
    assert!(!session.is_open());

    let (mut session, epoch) = live();
    session.limits.bytes_max = 99;
    session
        .handle_take(epoch, &take("t", 0, 0), at(1))
        .expect("new");
    session
        .handle_chunk(epoch, 0, 0, 100, at(2))
        .expect("the last one");
    assert_eq!(
        session.handle_chunk(epoch, 0, 100, 1, at(3)),
        Err(Refusal::Ended)
    );
    assert_eq!(finalizes(&mut session), 1);
}

#[test]
fn a_plain_client_continues_the_last_take_and_the_loss_is_reported() {
    let (mut session, epoch) = live();
    assert_eq!(session.handle_plain_continue(epoch), Err(Refusal::NotLive));
    session
        .handle_plain_take(epoch, "audio/webm", at(1))
        .expect("a header");
    session
        .handle_chunk(epoch, 0, 0, 100, at(2))
        .expect("taped");
    session.handle_disconnect(epoch, at(3));
    let epoch = session
        .handle_connect("ann", false, at(4))
        .expect("resumed")
        .epoch;
    let start = session.handle_plain_continue(epoch).expect("at its end");
    assert_eq!(
        start,
        TakeStart {
            index: 0,
            offset: 100,
            hole: None
        }
    );
    assert_eq!(session.manifest().gaps.len(), 1);
    session
        .handle_plain_take(epoch, "audio/webm", at(5))
        .expect("a second take");
    assert_eq!(session.manifest().takes.len(), 2);
}

#[test]
fn a_show_without_grace_goes_live_and_ends_with_its_connection() {
    let show = "7".parse().expect("a show id");
    let manifest = Manifest::new(SessionId(ulid::Ulid::from(7u128)), show, at(0).unix_ms, 0);
    let mut session = Session::open(manifest, Limits::default(), at(0));
    let epoch = session
        .handle_connect("ann", false, at(1))
        .expect("admitted")
        .epoch;
    session.handle_disconnect(epoch, at(2));
    session.handle_timeout(at(2));
    assert!(!session.is_open());
}
