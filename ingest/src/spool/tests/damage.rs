//! One bit flips, in each record in turn: what is not in that record is never lost.

use super::{kept::*, *};
use aircheck_core::{
    recording::Gap,
    spool::record::{self, Kind},
};
use std::fs;

/// As far apart as ids are: a flipped bit of one never makes another.
const LONG: u128 = 0x0192_aa00_1111_2222_3333_4444_5555_6666;
const SEALED: u128 = 0x0192_aa01_7777_8888_9999_aaaa_bbbb_cccc;
const OVER: u128 = 0x0192_aa02_dddd_eeee_ffff_0123_4567_89ab;
const WITNESS: u128 = 0x0192_aa03_cdef_fedc_ba98_7654_3210_0f1e;

/// A record of a journal, and where it lies.
struct Lying {
    name: String,
    position: usize,
    kind: Kind,
    payload_bytes: usize,
}

/// What recovery finds: of each session its manifest, and the bytes of each take by their offsets.
type Held = Vec<(Manifest, Vec<Vec<(u64, Bytes)>>)>;

fn held(dir: &Path) -> Held {
    let recovery = recovery::recover(&dir.join("journal")).expect("recovered");
    let sessions = recovery.sessions.into_iter();
    sessions
        .map(|(shared, found)| {
            let reader = Reader { shared };
            let takes = (0..2).map(|take| reader.read(take, 0, usize::MAX).expect("readable"));
            (found.manifest, takes.collect())
        })
        .collect()
}

fn records(dir: &Path) -> Vec<Lying> {
    let mut all = Vec::new();
    for name in files(dir).into_keys() {
        let content = fs::read(dir.join("journal").join(&name)).expect("read");
        let number: u64 = name[..16].parse().expect("a number");
        let number = match name.ends_with(".kept") {
            true => number | disk::KEPT,
            false => number,
        };
        let mut position = 0;
        while let Ok(found) = record::decode(number, &content[position..]) {
            all.push(Lying {
                name: name.clone(),
                position,
                kind: found.kind,
                payload_bytes: found.payload.len(),
            });
            position += found.total_bytes;
        }
    }
    all
}

async fn append(session: &SessionSpool, take: u32, offset: u64, seed: u8) {
    session
        .append(take, offset, pattern(1000, seed))
        .expect("queued");
    durable(session, take as usize, offset + 1000).await;
}

async fn say(session: &mut SessionSpool, event: Event) {
    let events = session.persist(&event).expect("queued");
    persisted(session, events).await;
}

/// Every kind of record and event, in two segments; the last batch holds a marker alone.
async fn journal() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/dev/shm").expect("tempdir");
    let (spool, _) = open_small(dir.path());
    let [mut long, mut sealed, mut over, mut witness] =
        [LONG, SEALED, OVER, WITNESS].map(|n| begin(&spool, n));
    let connected = Event::Connected {
        epoch: Epoch(1),
        user: "ann".into(),
        at_unix_ms: 1,
    };
    say(&mut long, connected).await;
    for round in 0..3u8 {
        for (n, session) in (0..).zip([&long, &sealed, &over, &witness]) {
            append(session, 0, u64::from(round) * 1000, n ^ round).await;
        }
    }
    finish(&mut over).await;
    let gap = Gap {
        take: 0,
        from: 3000,
        to: 3500,
        cause: "client".into(),
    };
    say(&mut long, Event::Gap { gap }).await;
    append(&long, 0, 3500, 9).await;
    say(&mut long, take_opened()).await;
    append(&long, 1, 0, 10).await;
    let reason = EndReason::Stop;
    let at_unix_ms = 5;
    say(&mut sealed, Event::Sealed { reason, at_unix_ms }).await;
    // The rest is in another segment.
    for part in 0..6 {
        let offset = 1000 + part * 20_000;
        let data = pattern(20_000, 11);
        long.append(1, offset, data).expect("queued");
    }
    durable(&long, 1, 121_000).await;
    append(&witness, 0, 3000, 12).await;
    let events = mark(&mut witness, 7);
    persisted(&witness, events).await;
    let crashed = copy_journal(dir.path());
    spool.close();
    crashed
}

/// Positions in a record of bits to flip: each field of its head, and its payload's ends and middle.
fn bits(lying: &Lying) -> Vec<(usize, u8)> {
    let payload = lying.payload_bytes;
    let mut at = vec![0, 4, 6, 8, 12, 17, 31, 32];
    if payload > 0 {
        at.extend([0, 5, payload / 2, payload - 1].map(|at| record::HEAD_BYTES + at));
    }
    at.into_iter().map(|at| (at, 1 << (at % 8))).collect()
}

/// All bytes of a take that are not in a damaged record.
fn without(pieces: &[(u64, Bytes)], from: u64, bytes: usize) -> Vec<(u64, Bytes)> {
    let outside = |(at, data): &&(u64, Bytes)| *at != from || data.len() != bytes;
    pieces.iter().filter(outside).cloned().collect()
}

fn check(lying: &Lying, bit: (usize, u8), expected: &Held, damaged: &Held) {
    let context = format!("{:?} in {}, bit {bit:?}", lying.kind, lying.name);
    let Kind::Bytes {
        session,
        take,
        offset,
    } = lying.kind
    else {
        let found: Vec<_> = damaged.iter().map(|(manifest, _)| manifest).collect();
        assert!(damaged == expected, "{context}: {found:?}");
        return;
    };
    assert_eq!(damaged.len(), expected.len(), "{context}: no session less");
    let mut found = false;
    for ((manifest, takes), (due, due_takes)) in damaged.iter().zip(expected) {
        assert_eq!(manifest.session, due.session, "{context}");
        let mut due_takes = due_takes.clone();
        if due.session == session {
            found = true;
            let pieces = &mut due_takes[take as usize];
            *pieces = without(pieces, offset, lying.payload_bytes);
            assert!(manifest.recording_error.is_some(), "{context}: it is said");
        } else {
            // Whoever sends nothing afterwards can't be told from the one that is concerned.
            let doubted = manifest.recording_error.is_some();
            assert!(!doubted || (16..32).contains(&bit.0), "{context}: {due:?}");
            assert_eq!(manifest.takes, due.takes, "{context}");
        }
        assert_eq!(manifest.stage, due.stage, "{context}");
        assert!(*takes == due_takes, "{context}: bytes of {}", due.session);
    }
    assert!(found || session == id(OVER), "{context}");
}

fn flip_each(dir: &Path) {
    let expected = held(dir);
    assert_eq!(expected.len(), 3);
    let records = records(dir);
    for lying in &records {
        let path = dir.join("journal").join(&lying.name);
        let whole = fs::read(&path).expect("read");
        for bit in bits(lying) {
            let mut content = whole.clone();
            content[lying.position + bit.0] ^= bit.1;
            fs::write(&path, content).expect("written");
            check(lying, bit, &expected, &held(dir));
        }
        fs::write(&path, whole).expect("written");
    }
    let events = records
        .iter()
        .filter(|l| matches!(l.kind, Kind::Event { .. }));
    assert!(events.count() >= 2 * 10, "each event is there twice");
}

#[tokio::test]
async fn a_bit_that_flips_anywhere_costs_no_session_and_no_byte_of_another_record() {
    let dir = journal().await;
    flip_each(dir.path());
}

#[tokio::test]
async fn a_bit_that_flips_in_what_was_moved_costs_no_session_and_no_byte_of_another_record() {
    let dir = journal().await;
    let recovery = recovery::recover(&dir.path().join("journal")).expect("recovered");
    let oldest = &recovery.segments[0];
    keeper(dir.path(), &recovery).keep(oldest).expect("moved");
    fs::remove_file(&oldest.path).expect("removed");
    assert_eq!(kept_files(dir.path()).len(), 3);
    flip_each(dir.path());
}

/// The last batch of a process that was killed: nothing but the restart can vouch for it.
#[tokio::test]
async fn what_one_restart_has_found_is_damage_at_the_next_and_no_torn_tail() {
    let dir = journal().await;
    let last = records(dir.path()).pop().expect("a record");
    let (spool, mut recovered) = open_small(dir.path());
    let witness = recovered.pop().expect("three").spool;
    append(&witness, 0, 4000, 13).await;
    let lying = records(dir.path());
    let before = lying.iter().rposition(|l| l.name == last.name);
    let path = dir.path().join("journal").join(&last.name);
    let mut content = fs::read(&path).expect("read");
    let newest = &lying[before.expect("still there") - 1..];
    for copy in &newest[..2] {
        content[copy.position + record::HEAD_BYTES + 20] ^= 1;
    }
    fs::write(&path, content).expect("written");
    let crashed = copy_journal(dir.path());
    spool.close();
    let (manifest, takes) = &held(crashed.path())[2];
    assert_eq!(manifest.session, id(WITNESS));
    assert_eq!(takes[0].last().map(|(at, _)| *at), Some(4000));
    assert!(manifest.markers.is_empty(), "both copies are damaged");
    assert!(manifest.recording_error.is_some(), "and that is said");
}
