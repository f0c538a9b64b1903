//! What living sessions need is moved out of old segments, whatever happens meanwhile.

use super::*;
use aircheck_core::recording::Marker;
use proptest::prelude::*;
use std::{collections::BTreeMap, fs, time::Instant};

/// The smallest there are.
const SEGMENT_BYTES: u64 = 128 << 10;

pub(super) fn open_small(dir: &Path) -> (Spool, Vec<Recovered>) {
    let config = Config {
        segment_bytes: SEGMENT_BYTES,
        ..Config::new(dir.to_owned())
    };
    Spool::open(config).expect("opened")
}

pub(super) fn mark(session: &mut SessionSpool, at_ms: u64) -> u64 {
    let marker = Marker {
        at_ms,
        label: "a marker of some length, as people set them".into(),
        kind: "note".into(),
    };
    session.persist(&Event::Marked { marker }).expect("queued")
}

/// Ends a session, durably.
pub(super) async fn finish(session: &mut SessionSpool) {
    let reason = EndReason::Stop;
    let at_unix_ms = 5;
    session
        .persist(&Event::Sealed { reason, at_unix_ms })
        .expect("queued");
    let events = session.persist(&Event::Done).expect("queued");
    persisted(session, events).await;
}

pub(super) fn files(dir: &Path) -> BTreeMap<String, u64> {
    let listed = fs::read_dir(dir.join("journal")).expect("list");
    let file = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        // One that is removed at this moment has no length any more.
        let bytes = entry.metadata().ok()?.len();
        Some((entry.file_name().into_string().expect("text"), bytes))
    };
    listed.filter_map(file).collect()
}

pub(super) fn kept_files(dir: &Path) -> Vec<String> {
    let kept = |name: &String| name.ends_with(".kept");
    files(dir).into_keys().filter(kept).collect()
}

/// Waits for the keeper, which says nothing to anybody.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A state as a crash may leave it, whatever is under way: what goes first is copied last, and what comes
/// before something else goes is looked for after that.
pub(super) fn copy_journal(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir_in("/dev/shm").expect("tempdir");
    fs::create_dir(to.path().join("journal")).expect("created");
    let copy = |suffix: &str| {
        for name in files(from).into_keys().rev() {
            let path = |dir: &Path| dir.join("journal").join(&name);
            if name.ends_with(suffix)
                && let Err(error) = fs::copy(path(from), path(to.path()))
            {
                assert_eq!(error.kind(), io::ErrorKind::NotFound, "{name}");
            }
        }
    };
    copy(".segment");
    copy(".kept");
    to
}

/// What recovery finds: of each session its manifest and its bytes.
pub(super) type Found = Vec<(Manifest, Vec<u8>)>;

pub(super) fn found(dir: &Path) -> Found {
    let recovery = recovery::recover(&dir.join("journal")).expect("recovered");
    let sessions = recovery.sessions.into_iter();
    sessions
        .map(|(shared, found)| {
            let reader = Reader { shared };
            let chunks = reader.read(0, 0, usize::MAX).expect("readable");
            let bytes = chunks.into_iter().flat_map(|(_, chunk)| chunk).collect();
            (found.manifest, bytes)
        })
        .collect()
}

#[tokio::test]
async fn a_day_long_session_among_many_short_ones_keeps_the_disk_bounded() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (spool, _) = open_small(dir.path());
    let mut long = begin(&spool, 1);
    let mut expected = Vec::new();
    let mut written = 0;
    for round in 0..200u8 {
        let chunk = pattern(1500, round);
        long.append(0, expected.len() as u64, chunk.clone())
            .expect("queued");
        expected.extend_from_slice(&chunk);
        let events = mark(&mut long, round.into());
        let mut short = begin(&spool, 100 + u128::from(round));
        for part in 0..3 {
            short
                .append(0, part * 15_000, pattern(15_000, 7))
                .expect("queued");
        }
        finish(&mut short).await;
        spool.forget(id(100 + u128::from(round))).expect("queued");
        written += 3 * 15_000 + 1500;
        persisted(&long, events).await;
        if round % 20 == 19 {
            // At most four closed segments that may lie about, one more that is being emptied or half
            // full of what is needed, the open one, and twice what the long session has.
            let allowed = 7 * SEGMENT_BYTES + 2 * expected.len() as u64;
            until("old segments go", || {
                files(dir.path()).values().sum::<u64>() <= allowed
            });
            assert!(
                contents(&spool, 1) == expected,
                "readable wherever it lies now"
            );
        }
    }
    assert!(written > 50 * SEGMENT_BYTES);
    let manifests = found(copy_journal(dir.path()).path());
    let [(manifest, bytes)] = &manifests[..] else {
        panic!("one session is not over: {manifests:?}")
    };
    assert!(*bytes == expected);
    assert_eq!(manifest.markers.len(), 200);
    assert_eq!(
        (&manifest.recording_error, manifest.gaps.len()),
        (&None, 0),
        "nothing was lost on the way"
    );
    finish(&mut long).await;
    spool.forget(id(1)).expect("queued");
    spool.close();
    assert_eq!(files(dir.path()), BTreeMap::new());
}

/// Two long sessions among short ones that are over, as a crash leaves them: many segments, mostly dead.
async fn straggling() -> (tempfile::TempDir, Found) {
    let dir = tempfile::tempdir().expect("tempdir");
    let (spool, _) = open_small(dir.path());
    let mut long: Vec<_> = [1, 2].map(|n| begin(&spool, n)).into();
    for round in 0..20u8 {
        for (n, session) in (0..).zip(&mut long) {
            let offset = u64::from(round) * 2000;
            session
                .append(0, offset, pattern(2000, n ^ round))
                .expect("queued");
            mark(session, offset);
        }
        let mut short = begin(&spool, 100 + u128::from(round));
        short.append(0, 0, pattern(30_000, 3)).expect("queued");
        finish(&mut short).await;
    }
    for session in &long {
        durable(session, 0, 40_000).await;
        persisted(session, 22).await;
    }
    // Copied while nothing is forgotten, so that nothing has been moved.
    let crashed = copy_journal(dir.path());
    assert!(kept_files(crashed.path()).is_empty());
    spool.close();
    let found = found(crashed.path());
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].1.len(), 40_000);
    (crashed, found)
}

pub(super) fn keeper(dir: &Path, recovery: &recovery::Recovery) -> keeper::Keeper {
    let sessions = recovery.sessions.iter();
    let sessions = sessions.map(|(shared, _)| (shared.id, Arc::clone(shared)));
    keeper::Keeper::new(
        dir.join("journal"),
        Arc::new(Mutex::new(sessions.collect())),
        std::sync::Weak::new(),
        SEGMENT_BYTES,
        recovery.next_kept,
    )
}

/// Every file that is unfinished in a crash state is cut at many places; all else is as it is.
fn check_cuts(dir: &Path, before: &BTreeMap<String, u64>, expected: &Found) {
    for name in kept_files(dir) {
        let from = before.get(&name).copied().unwrap_or(0);
        let whole = files(dir)[&name];
        for cut in (from..whole).step_by(977).chain([whole]) {
            let crashed = copy_journal(dir);
            let path = crashed.path().join("journal").join(&name);
            let file = fs::OpenOptions::new().write(true).open(path);
            file.expect("opened").set_len(cut).expect("cut");
            assert!(
                found(crashed.path()) == *expected,
                "{name} cut at {cut} of {whole}"
            );
        }
    }
}

#[tokio::test]
async fn a_crash_at_any_moment_of_the_moving_changes_nothing() {
    let (dir, expected) = straggling().await;
    let recovery = recovery::recover(&dir.path().join("journal")).expect("recovered");
    let mut keeper = keeper(dir.path(), &recovery);
    for segment in &recovery.segments[..3] {
        let before = files(dir.path());
        keeper.keep(segment).expect("moved");
        assert_eq!(segment.live(), 0, "nobody needs it any more");
        // The process may die while it writes, or between that and the removal.
        check_cuts(dir.path(), &before, &expected);
        fs::remove_file(&segment.path).expect("removed");
        assert!(found(dir.path()) == expected, "what went is kept");
    }
    assert_eq!(
        kept_files(dir.path()).len(),
        2,
        "one file for each session grows"
    );
    // Whoever reads goes on.
    for ((shared, _), (_, bytes)) in recovery.sessions.iter().zip(&expected) {
        let shared = Arc::clone(shared);
        let chunks = Reader { shared }.read(0, 0, usize::MAX).expect("readable");
        let read: Vec<u8> = chunks.into_iter().flat_map(|(_, chunk)| chunk).collect();
        assert!(read == *bytes);
    }
}

#[tokio::test]
async fn the_files_of_a_session_go_before_the_record_of_its_end() {
    let (dir, _) = straggling().await;
    let (spool, mut recovered) = open_small(dir.path());
    until("something is moved", || !kept_files(dir.path()).is_empty());
    let mut session = recovered.remove(0).spool;
    finish(&mut session).await;
    // It dies before anything is removed.
    let crashed = copy_journal(dir.path());
    assert!(!kept_files(crashed.path()).is_empty());
    let left = found(crashed.path());
    assert_eq!(left.len(), 1, "a session that is over does not come back");
    assert_eq!(left[0].0.session, id(2));
    let ours = |name: &String| name.contains(&id(1).to_string());
    assert!(!kept_files(crashed.path()).iter().any(ours));
    spool.forget(id(1)).expect("queued");
    spool.close();
    assert!(!kept_files(dir.path()).iter().any(ours));
    assert_eq!(found(dir.path()).len(), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Begin,
    Append { nth: u8, bytes: u16 },
    Mark { nth: u8 },
    Finish { nth: u8 },
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Begin),
        8 => (any::<u8>(), 1..30_000u16).prop_map(|(nth, bytes)| Step::Append { nth, bytes }),
        2 => any::<u8>().prop_map(|nth| Step::Mark { nth }),
        2 => any::<u8>().prop_map(|nth| Step::Finish { nth }),
        1 => Just(Step::Crash),
    ]
}

/// Sessions that are not over, with what each must have.
#[derive(Default)]
struct Model {
    next: u128,
    sessions: Vec<(u128, SessionSpool, Vec<u8>, usize)>,
}

impl Model {
    async fn step(&mut self, dir: &Path, spool: &mut Spool, step: &Step) {
        let count = self.sessions.len();
        let pick = |nth: u8| usize::from(nth) % count.max(1);
        match *step {
            Step::Begin => {
                self.next += 1;
                let session = begin(spool, self.next);
                self.sessions.push((self.next, session, Vec::new(), 0));
            }
            Step::Append { nth, bytes } if count > 0 => {
                let (_, session, all, _) = &mut self.sessions[pick(nth)];
                let chunk = pattern(bytes.into(), nth);
                session
                    .append(0, all.len() as u64, chunk.clone())
                    .expect("queued");
                all.extend_from_slice(&chunk);
            }
            Step::Mark { nth } if count > 0 => {
                let (_, session, _, markers) = &mut self.sessions[pick(nth)];
                mark(session, *markers as u64);
                *markers += 1;
            }
            Step::Finish { nth } if count > 1 => {
                let (n, mut session, ..) = self.sessions.remove(pick(nth));
                finish(&mut session).await;
                spool.forget(id(n)).expect("queued");
            }
            Step::Crash => self.crash(dir, spool).await,
            Step::Append { .. } | Step::Mark { .. } | Step::Finish { .. } => {}
        }
    }

    async fn crash(&mut self, dir: &Path, spool: &mut Spool) {
        for (_, session, bytes, markers) in &self.sessions {
            if !bytes.is_empty() {
                durable(session, 0, bytes.len() as u64).await;
            }
            persisted(session, 2 + *markers as u64).await;
        }
        // In the middle of whatever the keeper does.
        let crashed = copy_journal(dir);
        let mut expected: Vec<_> = self.sessions.drain(..).collect();
        expected.sort_by_key(|(n, ..)| *n);
        spool.close();
        let left = found(crashed.path());
        assert_eq!(left.len(), expected.len());
        for ((manifest, bytes), (n, _, all, markers)) in left.iter().zip(&expected) {
            assert_eq!(manifest.session, id(*n));
            assert!(bytes == all, "bytes of {n}");
            assert_eq!(manifest.markers.len(), *markers);
            assert_eq!((&manifest.recording_error, manifest.gaps.len()), (&None, 0));
        }
        let (again, recovered) = open_small(dir);
        *spool = again;
        assert_eq!(recovered.len(), expected.len());
        for (recovered, (n, _, all, markers)) in recovered.into_iter().zip(expected) {
            self.sessions.push((n, recovered.spool, all, markers));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 50, ..ProptestConfig::default() })]

    #[test]
    fn no_schedule_loses_what_a_session_needs(steps in prop::collection::vec(step(), 50..250)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        // In memory, where syncs cost nothing: it is the order of things that is tried here.
        let dir = tempfile::tempdir_in("/dev/shm").expect("tempdir");
        runtime.block_on(async {
            let (mut spool, _) = open_small(dir.path());
            let mut model = Model::default();
            for step in &steps {
                model.step(dir.path(), &mut spool, step).await;
            }
            model.crash(dir.path(), &mut spool).await;
            spool.close();
        });
    }
}
