//! What listeners get, and what they may not cost.

use super::*;
use tokio::sync::mpsc::error::TryRecvError;

const CAPTURE: &[u8] = include_bytes!("../../../core/tests/media/opus250.bin");

fn branch() -> LiveBranch {
    let mut branch = LiveBranch::new(100);
    branch.begin_take(0, Container::WebM, "audio/webm;codecs=opus", 0);
    branch
}

fn drain(subscription: &mut Subscription) -> Vec<Bytes> {
    std::iter::from_fn(|| subscription.queue.try_recv().ok()).collect()
}

#[test]
fn a_listener_starts_with_the_init_segment_and_a_burst() {
    let mut branch = branch();
    branch.push(0, &CAPTURE[..200_000]);
    let mut late = branch.listen().expect("room");
    assert_eq!(late.content_type, "audio/webm");
    let opening = drain(&mut late);
    assert!(opening[0].starts_with(&[0x1a, 0x45, 0xdf, 0xa3]));
    assert!(
        opening[1].starts_with(&[0x1f, 0x43, 0xb6, 0x75]),
        "a whole cluster"
    );
    assert!(
        (10..=16).contains(&opening.len()),
        "about 4 s, got {}",
        opening.len()
    );
}

#[test]
fn a_video_listener_starts_with_a_keyframe_at_once_wherever_the_show_is() {
    const VIDEO: &[u8] = include_bytes!("../../../core/tests/media/vp8.bin");
    for end in [VIDEO.len() / 4, VIDEO.len() / 2, VIDEO.len() * 3 / 4] {
        let mut branch = LiveBranch::new(100);
        branch.begin_take(0, Container::WebM, "video/webm;codecs=vp8,opus", 0);
        branch.push(0, &VIDEO[..end]);
        let opening = drain(&mut branch.listen().expect("room"));
        assert!(opening.len() > 2, "at {end} it got {}", opening.len());
    }
}

#[test]
fn whoever_comes_before_the_first_byte_waits_for_it() {
    let mut branch = branch();
    let mut early = branch.listen().expect("room");
    assert!(drain(&mut early).is_empty());
    branch.push(0, &CAPTURE[..20_000]);
    assert!(drain(&mut early)[0].starts_with(&[0x1a, 0x45, 0xdf, 0xa3]));
}

#[test]
fn a_stuck_listener_is_let_go_and_the_others_miss_nothing() {
    let mut branch = branch();
    let _stuck = branch.listen().expect("room");
    let mut good = branch.listen().expect("room");
    let mut heard = 0;
    for chunk in CAPTURE.chunks(5000) {
        branch.push(0, chunk);
        heard += drain(&mut good).len();
    }
    assert_eq!(branch.listeners(), 1);
    assert!(heard > 90, "30 s in clusters of 300 ms, got {heard}");
}

#[test]
fn a_second_take_continues_the_stream_without_a_second_header() {
    let mut branch = branch();
    let mut listener = branch.listen().expect("room");
    branch.push(0, &CAPTURE[..50_000]);
    branch.begin_take(1, Container::WebM, "audio/webm", 10_000);
    branch.push(0, &CAPTURE[50_000..60_000]);
    branch.push(1, &CAPTURE[..50_000]);
    let heard = drain(&mut listener).concat();
    let headers = heard
        .windows(4)
        .filter(|w| *w == [0x1a, 0x45, 0xdf, 0xa3])
        .count();
    assert_eq!(headers, 1);
}

#[test]
fn more_listeners_than_allowed_are_refused_until_one_leaves() {
    let mut branch = LiveBranch::new(1);
    let first = branch.listen();
    assert!(first.is_some() && branch.listen().is_none());
    drop(first);
    assert!(branch.listen().is_some());
}

#[test]
fn a_take_whose_beginning_comes_late_is_heard_from_where_it_went_on() {
    let middle = CAPTURE.len() / 2;
    let mut branch = LiveBranch::new(100);
    let mut listener = branch.listen().expect("room");
    assert!(branch.rejoin(0, middle as u64));
    let (held, rest) = CAPTURE[middle..].split_at(50_000);
    branch.push(0, held);
    assert!(
        drain(&mut listener).is_empty(),
        "nobody knows yet what it is"
    );
    assert!(
        !branch.rejoin(0, (middle + held.len()) as u64),
        "it is asked for"
    );
    let known = [(0, Bytes::copy_from_slice(&CAPTURE[..4_000]))];
    branch.rejoined(0, Some(beginning(&known)));
    let mut heard = drain(&mut listener).len();
    assert!(heard > 5, "what was held is heard, {heard} pieces");
    for chunk in rest.chunks(5_000) {
        branch.push(0, chunk);
        heard += drain(&mut listener).len();
    }
    assert!(
        (45..=52).contains(&heard),
        "15 s in clusters of 300 ms, {heard}"
    );
}

#[test]
fn a_beginning_that_comes_after_the_next_take_has_begun_is_of_no_use() {
    let mut branch = LiveBranch::new(100);
    assert!(branch.rejoin(0, 1_000));
    branch.begin_take(1, Container::WebM, "audio/webm", 0);
    let known = [(0, Bytes::copy_from_slice(&CAPTURE[..4_000]))];
    branch.rejoined(0, Some(beginning(&known)));
    assert!(
        !branch.rejoin(0, 2_000),
        "an older take is not for listeners"
    );
    let mut listener = branch.listen().expect("room");
    branch.push(1, &CAPTURE[..50_000]);
    assert!(drain(&mut listener).len() > 5, "the new take is heard");
}

fn beginning(known: &[(u64, Bytes)]) -> Beginning<'_> {
    Beginning {
        container: Container::WebM,
        mime: "audio/webm",
        wall_ms: 60_000,
        known,
    }
}

#[test]
fn the_end_of_a_show_is_heard_to_its_last_packet() {
    let mut branch = branch();
    let mut listener = branch.listen().expect("room");
    branch.push(0, &CAPTURE[..20_000]);
    let before = drain(&mut listener).len();
    branch.finish();
    assert_eq!(
        drain(&mut listener).len(),
        1,
        "after {before} whole clusters"
    );
    assert_eq!(listener.queue.try_recv(), Err(TryRecvError::Disconnected));
}
