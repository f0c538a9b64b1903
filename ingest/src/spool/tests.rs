//! The spool on a real disk: durability marks, recovery, damage, and running out of room.

use super::*;
use aircheck_core::{
    id::Epoch,
    recording::EndReason,
    spool::{Manifest, Stage},
};
use std::path::Path;

mod damage;
mod heal;
mod kept;

fn id(n: u128) -> SessionId {
    SessionId(n.into())
}

fn opened(session: SessionId) -> Event {
    let manifest = Manifest::new(session, "7".parse().expect("show"), 1000, 30_000);
    Event::Opened {
        manifest: Box::new(manifest),
    }
}

fn take_opened() -> Event {
    Event::TakeOpened {
        id: "t".into(),
        mime: "audio/webm".into(),
        at_unix_ms: 1001,
    }
}

fn open(dir: &Path) -> (Spool, Vec<Recovered>) {
    let config = Config {
        segment_bytes: 1 << 20,
        ..Config::new(dir.to_owned())
    };
    Spool::open(config).expect("opened")
}

async fn durable(session: &SessionSpool, take: usize, end: u64) {
    let mut marks = session.marks();
    marks
        .wait_for(|marks| marks.takes.get(take).is_some_and(|durable| *durable >= end))
        .await
        .expect("the writer lives");
}

async fn persisted(session: &SessionSpool, events: u64) {
    session
        .marks()
        .wait_for(|marks| marks.events >= events)
        .await
        .expect("the writer lives");
}

fn begin(spool: &Spool, n: u128) -> SessionSpool {
    let mut session = spool.session(id(n));
    session.persist(&opened(id(n))).expect("queued");
    session.persist(&take_opened()).expect("queued");
    session
}

fn contents(spool: &Spool, n: u128) -> Vec<u8> {
    let reader = spool.reader(id(n)).expect("held");
    let (mut offset, mut all) = (0, Vec::new());
    loop {
        let chunks = reader.read(0, offset, 10_000).expect("readable");
        if chunks.is_empty() {
            return all;
        }
        for (at, chunk) in chunks {
            assert_eq!(at, offset);
            offset += chunk.len() as u64;
            all.extend_from_slice(&chunk);
        }
    }
}

fn pattern(len: usize, seed: u8) -> Bytes {
    (0..=250)
        .cycle()
        .map(|byte: u8| byte ^ seed)
        .take(len)
        .collect()
}

#[tokio::test]
async fn what_was_durable_is_there_after_a_restart_of_many_sessions_over_many_segments() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (spool, found) = open(dir.path());
    assert!(found.is_empty());
    let sessions: Vec<_> = (1..=5).map(|n| begin(&spool, n)).collect();
    for round in 0..40u8 {
        for (n, session) in (1u8..).zip(&sessions) {
            let offset = u64::from(round) * 20_000;
            session
                .append(0, offset, pattern(20_000, n ^ round))
                .expect("queued");
        }
    }
    for session in &sessions {
        durable(session, 0, 800_000).await;
    }
    // No close: the process is as good as killed.
    let (spool, found) = open(dir.path());
    assert_eq!(found.len(), 5);
    for (n, recovered) in (1u8..).zip(&found) {
        assert_eq!(recovered.manifest.takes[0].bytes, 800_000);
        let expected: Vec<u8> = (0..40u8)
            .flat_map(|round| pattern(20_000, n ^ round))
            .collect();
        assert!(contents(&spool, u128::from(n)) == expected);
    }
}

#[tokio::test]
async fn segments_go_when_their_sessions_are_done_and_not_before() {
    let dir = tempfile::tempdir().expect("tempdir");
    let journal = dir.path().join("journal");
    let count = || std::fs::read_dir(&journal).expect("list").count();
    let (spool, _) = open(dir.path());
    let (mut a, mut b) = (begin(&spool, 1), begin(&spool, 2));
    for round in 0..30 {
        a.append(0, round * 100_000, pattern(100_000, 1))
            .expect("queued");
        b.append(0, round * 100_000, pattern(100_000, 2))
            .expect("queued");
    }
    durable(&b, 0, 3_000_000).await;
    let held = count();
    assert!(held >= 6);
    let mut done = 0;
    for (session, other) in [(&mut a, 1), (&mut b, 2)] {
        let sealed = Event::Sealed {
            reason: EndReason::Stop,
            at_unix_ms: 5,
        };
        session.persist(&sealed).expect("queued");
        let events = session.persist(&Event::Done).expect("queued");
        persisted(session, events).await;
        spool.forget(id(other)).expect("queued");
        done += 1;
        if done == 1 {
            // Queued behind the forgetting; once durable, that has been carried out.
            let mut probe = spool.session(id(99));
            let events = probe.persist(&opened(id(99))).expect("queued");
            persisted(&probe, events).await;
            assert!(
                count() >= held,
                "the other session still needs every segment"
            );
            spool.forget(id(99)).expect("queued");
        }
    }
    spool.close();
    assert_eq!(count(), 0);
    let (_, found) = open(dir.path());
    assert!(found.is_empty());
}

/// Cuts the journal's only segment at every position of its last record and just before.
#[tokio::test]
async fn a_torn_tail_costs_nothing_that_was_acknowledged_before_it() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (spool, _) = open(dir.path());
    let session = begin(&spool, 1);
    session.append(0, 0, pattern(1000, 1)).expect("queued");
    durable(&session, 0, 1000).await;
    let path = dir.path().join("journal/0000000000000001.segment");
    let acknowledged = std::fs::read(&path).expect("read");
    session.append(0, 1000, pattern(1000, 2)).expect("queued");
    durable(&session, 0, 2000).await;
    spool.close();
    let whole = std::fs::read(&path).expect("read");
    let end = acknowledged.iter().rposition(|b| *b != 0).expect("written") + 1;
    let last = whole.iter().rposition(|b| *b != 0).expect("written") + 1;
    for cut in (end.next_multiple_of(8)..last).step_by(7) {
        let torn = tempfile::tempdir().expect("tempdir");
        let journal = torn.path().join("journal");
        std::fs::create_dir(&journal).expect("created");
        let mut content = whole.clone();
        content[cut..].fill(if cut % 2 == 0 { 0 } else { 0xff });
        std::fs::write(journal.join("0000000000000001.segment"), content).expect("written");
        let (spool, found) = open(torn.path());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].manifest.takes[0].bytes, 1000, "cut at {cut}");
        assert_eq!(found[0].manifest.recording_error, None);
        assert!(contents(&spool, 1) == pattern(1000, 1));
        // Recording goes on from there.
        found[0]
            .spool
            .append(0, 1000, pattern(500, 3))
            .expect("queued");
        durable(&found[0].spool, 0, 1500).await;
    }
}

#[tokio::test]
async fn a_flipped_bit_in_acknowledged_bytes_is_found_and_reported() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (spool, _) = open(dir.path());
    let session = begin(&spool, 1);
    for round in 0..3 {
        session
            .append(0, round * 1000, pattern(1000, 1))
            .expect("queued");
        durable(&session, 0, (round + 1) * 1000).await;
    }
    let path = dir.path().join("journal/0000000000000001.segment");
    let mut content = std::fs::read(&path).expect("read");
    let needle = pattern(1000, 1);
    let at = content
        .windows(1000)
        .position(|window| window == needle)
        .expect("first chunk");
    content[at + 500] ^= 4;
    std::fs::write(&path, &content).expect("written");
    let reader = spool.reader(id(1)).expect("held");
    assert!(matches!(
        reader.read(0, 0, 10),
        Err(ReadError::Corrupt { .. })
    ));
    let (_, found) = open(dir.path());
    let manifest = &found[0].manifest;
    assert!(
        manifest
            .recording_error
            .as_deref()
            .is_some_and(|e| e.contains("damaged"))
    );
    assert_eq!(
        manifest.gaps.len(),
        1,
        "the hole is declared: {:?}",
        manifest.gaps
    );
    assert_eq!((manifest.gaps[0].from, manifest.gaps[0].to), (0, 1000));
    assert_eq!(manifest.takes[0].bytes, 3000, "what follows is kept");
}

#[tokio::test]
async fn a_session_goes_on_where_the_last_process_left_it() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (spool, _) = open(dir.path());
    let mut session = begin(&spool, 1);
    let connected = Event::Connected {
        epoch: Epoch(1),
        user: "ann".into(),
        at_unix_ms: 1,
    };
    let events = session.persist(&connected).expect("queued");
    persisted(&session, events).await;
    let (_, mut found) = open(dir.path());
    let mut recovered = found.pop().expect("one");
    assert_eq!(recovered.manifest.stage, Stage::Live);
    let sealed = Event::Sealed {
        reason: EndReason::Stop,
        at_unix_ms: 5,
    };
    let events = recovered.spool.persist(&sealed).expect("queued");
    persisted(&recovered.spool, events).await;
    let (_, found) = open(dir.path());
    assert!(matches!(found[0].manifest.stage, Stage::Sealed { .. }));
}

#[tokio::test]
async fn a_full_queue_refuses_bytes_and_says_why() {
    let dir = tempfile::tempdir().expect("tempdir");
    let config = Config {
        queue_bytes_max: 0,
        ..Config::new(dir.path().to_owned())
    };
    let (spool, _) = Spool::open(config).expect("opened");
    let queue = &spool.queue.queued_bytes;
    queue.fetch_add(1, Ordering::Relaxed);
    let session = spool.session(id(1));
    let refused = session.append(0, 0, pattern(10, 1));
    assert!(matches!(
        refused,
        Err(Error::Overloaded { queued_bytes: 1 })
    ));
}
