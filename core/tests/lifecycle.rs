//! Random schedules against the lifecycle: connections, drops, stops, bytes, syncs, failures, time and
//! crashes in any order. After every step the rules that must hold always are checked; the failing
//! schedule is in the failure text, shrunk.

use aircheck_core::{
    id::{Epoch, Seat, SessionId, ShowId},
    recording::Status,
    session::{Accept, Admit, Directory, Limits, Now, Output, Refusal, Session, StopBy, Tape},
    spool::{Event, Manifest, Stage},
    wire::Take,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

const GRACE_MS: u64 = 30_000;

#[derive(Clone, Debug)]
enum Step {
    Connect {
        user: u8,
        force: bool,
    },
    Take {
        stale: bool,
        id: u8,
        lost: u16,
    },
    Chunk {
        stale: bool,
        back: u8,
        len: u8,
    },
    Sync,
    Archive,
    WriteFails,
    /// The spool takes bytes again; a plain client can't resend.
    Heals {
        plain: bool,
    },
    Mark,
    Drop {
        stale: bool,
    },
    Stop {
        operator: bool,
        stale: bool,
    },
    Pass {
        ms: u16,
    },
    PassToDeadline {
        early: bool,
    },
    Finalized,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..2u8, any::<bool>()).prop_map(|(user, force)| Step::Connect { user, force }),
        3 => (prop::bool::weighted(0.2), 0..3u8, 0..4u16)
            .prop_map(|(stale, id, lost)| Step::Take { stale, id, lost }),
        6 => (prop::bool::weighted(0.2), 0..20u8, 1..50u8)
            .prop_map(|(stale, back, len)| Step::Chunk { stale, back, len }),
        4 => Just(Step::Sync),
        2 => Just(Step::Archive),
        1 => Just(Step::WriteFails),
        2 => any::<bool>().prop_map(|plain| Step::Heals { plain }),
        1 => Just(Step::Mark),
        3 => prop::bool::weighted(0.3).prop_map(|stale| Step::Drop { stale }),
        1 => (any::<bool>(), prop::bool::weighted(0.3))
            .prop_map(|(operator, stale)| Step::Stop { operator, stale }),
        3 => (0..20_000u16).prop_map(|ms| Step::Pass { ms }),
        2 => any::<bool>().prop_map(|early| Step::PassToDeadline { early }),
        2 => Just(Step::Finalized),
        1 => Just(Step::Crash),
    ]
}

fn takes(session: &Session) -> std::ops::Range<u32> {
    0..u32::try_from(session.manifest().takes.len()).expect("a few takes")
}

fn position(session: &Session, id: u8) -> Option<u32> {
    let manifest = session.manifest();
    takes(session).find(|index| manifest.takes[*index as usize].id == id.to_string())
}

/// A client comes with a take, of which it has lost the first bytes after the durable ones.
fn begin_take(session: &mut Session, epoch: Epoch, id: u8, lost: u16, now: Now) -> Option<u32> {
    let at = position(session, id)
        .and_then(|index| session.cursor(index))
        .unwrap_or_default();
    let first = at.durable + u64::from(lost) * 10;
    let (id, mime) = (id.to_string(), "audio/webm".to_owned());
    let take = Take {
        id,
        mime,
        first,
        next: first.max(at.received) + 100,
    };
    let start = session.handle_take(epoch, &take, now).ok()?;
    assert!(
        start.offset >= at.durable,
        "asked for bytes that are durable"
    );
    Some(start.index)
}

/// The spool takes bytes again.
fn heal(session: &mut Session, plain: bool) {
    let failed = *session.tape() != Tape::Running;
    assert_eq!(session.handle_tape_healed(), failed && session.is_open());
    for take in takes(session).filter(|_| plain) {
        session.handle_untaped_lost(take);
        assert!(!session.has_untaped(take));
    }
}

/// A chunk at the end of what the take has, or before it. `true` if it was taken.
fn send(
    session: &mut Session,
    epoch: Epoch,
    take: u32,
    back: u8,
    len: u8,
    now: Now,
    taped: &mut Taped,
) -> bool {
    let at = session.cursor(take).expect("a take that began");
    let offset = at.taped.min(at.received).saturating_sub(u64::from(back));
    let end = offset + u64::from(len);
    let taken = session.handle_chunk(epoch, take, offset, u64::from(len), now);
    if let Ok(Accept {
        tape_skip: Some(skip),
        ..
    }) = taken
        && offset + skip < end
    {
        let taped = taped.entry((session.id(), take)).or_default();
        taped.push((offset + skip, end));
    }
    taken.is_ok()
}

/// Everything that was handed to the spool is durable now.
fn sync(session: &mut Session, taped: &Taped, acknowledged: &mut BTreeMap<(SessionId, u32), u64>) {
    for take in takes(session) {
        let key = (session.id(), take);
        let end = taped.get(&key).and_then(|taped| taped.last());
        let end = end.map_or(0, |(_, to)| *to);
        session.handle_durable(take, end);
        acknowledged.insert(key, end);
    }
}

/// Loses what is not durable, but for as many pieces of each take as are `synced` all the same.
fn drop_unsynced(session: &Session, taped: &mut Taped, synced: &BTreeMap<(SessionId, u32), usize>) {
    for take in takes(session) {
        let key = (session.id(), take);
        let durable = session.cursor(take).expect("a take").durable;
        let synced = synced.get(&key).copied().unwrap_or(0);
        if let Some(taped) = taped.get_mut(&key) {
            let acknowledged = taped.iter().take_while(|(_, to)| *to <= durable).count();
            taped.truncate(acknowledged.max(synced));
        }
    }
}

/// What is taped of a take has no hole that is not declared.
fn check_holes(session: &Session, taped: &Taped) {
    for take in takes(session) {
        let mut end = 0;
        for &(from, to) in taped.get(&(session.id(), take)).into_iter().flatten() {
            // Declared gaps may touch each other.
            let mut gaps: Vec<_> = session
                .facts()
                .gaps
                .iter()
                .filter(|gap| gap.take == take)
                .collect();
            gaps.sort_by_key(|gap| gap.from);
            for gap in gaps {
                if gap.from <= end && gap.to > end {
                    end = gap.to;
                }
            }
            assert!(
                from <= end,
                "take {take}: taped {from}..{to} after {end} without a gap"
            );
            end = end.max(to);
        }
    }
}

/// What was handed to the spool and not dropped by it, in order.
type Taped = BTreeMap<(SessionId, u32), Vec<(u64, u64)>>;

/// One show, its sessions, and a disk that keeps what was synced.
struct World {
    directory: Directory,
    session: Option<Session>,
    now: Now,
    next_id: u128,
    epoch: Epoch,
    take: Option<u32>,
    /// Events handed to the spool; all of them count as synced, so a crash folds them again.
    journal: Vec<Event>,
    /// How many of the taped pieces of each take were handed over before the last of the events: as the
    /// journal is in order, they are synced with it.
    before_events: BTreeMap<(SessionId, u32), usize>,
    finalizes: BTreeMap<SessionId, u32>,
    crashes: u32,
    acknowledged: BTreeMap<(SessionId, u32), u64>,
    taped: Taped,
}

fn show() -> ShowId {
    "7".parse().expect("a show id")
}

fn seat() -> Seat {
    Seat {
        show: show(),
        rehearsal: false,
    }
}

impl World {
    fn new() -> Self {
        Self {
            directory: Directory::new(10),
            session: None,
            now: Now {
                mono_ms: 0,
                unix_ms: 1_000_000,
            },
            next_id: 1,
            epoch: Epoch::default(),
            take: None,
            journal: Vec::new(),
            before_events: BTreeMap::new(),
            finalizes: BTreeMap::new(),
            crashes: 0,
            acknowledged: BTreeMap::new(),
            taped: BTreeMap::new(),
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.unix_ms += ms;
        if let Some(session) = &mut self.session {
            session.handle_timeout(self.now);
        }
    }

    /// The epoch a client uses: its own, or one that was superseded.
    fn epoch(&self, stale: bool) -> Epoch {
        if stale {
            Epoch(self.epoch.0.saturating_sub(1))
        } else {
            self.epoch
        }
    }

    fn carry_out(&mut self) {
        let Some(session) = &mut self.session else {
            return;
        };
        while let Some(output) = session.poll_output() {
            match output {
                Output::Persist(event) => {
                    self.journal.push(event);
                    let counts = self.taped.iter().map(|(take, taped)| (*take, taped.len()));
                    self.before_events = counts.collect();
                }
                Output::Finalize => {
                    *self.finalizes.entry(session.id()).or_default() += 1;
                    self.directory.close(&seat(), session.id());
                }
                Output::Fence(_) | Output::Changed => {}
            }
        }
    }

    fn connect(&mut self, user: u8, force: bool) {
        let user = format!("user-{user}");
        for _ in 0..3 {
            let fresh = SessionId(self.next_id.into());
            match self.directory.admit(&seat(), fresh).expect("room") {
                Admit::Existing(id) => {
                    assert_eq!(self.session.as_ref().map(Session::id), Some(id));
                }
                Admit::Opened(id) => {
                    self.next_id += 1;
                    self.journal.clear();
                    self.take = None;
                    let manifest = Manifest::new(id, show(), self.now.unix_ms, GRACE_MS);
                    self.session = Some(Session::open(manifest, Limits::default(), self.now));
                    self.crashes = 0;
                }
            }
            let session = self.session.as_mut().expect("just admitted");
            let admitted = session.handle_connect(&user, force, self.now);
            self.carry_out();
            match admitted {
                Ok(admission) => {
                    self.epoch = admission.epoch;
                    self.take = None;
                    return;
                }
                Err(Refusal::Conflict) => return assert!(!force),
                Err(Refusal::Ended) => {}
                Err(other) => panic!("{other}"),
            }
        }
        panic!("nobody was admitted");
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Connect { user, force } => self.connect(*user, *force),
            Step::Pass { ms } => self.pass(u64::from(*ms)),
            Step::PassToDeadline { early } => {
                let due = self.session.as_ref().and_then(Session::poll_timeout);
                let Some((_, due)) = due else { return };
                let left = due.saturating_sub(self.now.mono_ms);
                // A whole day's limit would end every schedule.
                if left <= GRACE_MS {
                    self.pass(left.saturating_sub(u64::from(*early)));
                }
            }
            Step::Crash => self.crash(),
            input => self.input(input),
        }
    }

    fn input(&mut self, input: &Step) {
        let epochs = (self.epoch(false), self.epoch(true));
        let (now, take) = (self.now, self.take);
        let Some(session) = &mut self.session else {
            return;
        };
        let pick = |stale: bool| if stale { epochs.1 } else { epochs.0 };
        match *input {
            Step::Take { stale, id, lost } => {
                let started = begin_take(session, pick(stale), id, lost, now);
                assert!(started.is_none() || !stale, "a stale epoch began a take");
                self.take = started.or(self.take);
            }
            Step::Chunk { stale, back, len } => {
                let Some(take) = take else { return };
                let taken = send(session, pick(stale), take, back, len, now, &mut self.taped);
                assert!(!taken || !stale, "a stale epoch sent bytes");
            }
            Step::Sync => sync(session, &self.taped, &mut self.acknowledged),
            Step::Archive => {
                let cursor = session.cursor(0).unwrap_or_default();
                session.handle_archived(0, cursor.durable);
            }
            Step::WriteFails => {
                session.handle_write_failed("disk full".to_owned());
                drop_unsynced(session, &mut self.taped, &BTreeMap::new());
            }
            Step::Heals { plain } => heal(session, plain),
            Step::Mark => {
                let open = session.is_open();
                let marked = session.handle_marker("x".into(), "note".into(), now);
                assert_eq!(marked.is_ok(), open);
            }
            Step::Drop { stale } => {
                let before = session.snapshot(now);
                session.handle_disconnect(pick(stale), now);
                assert!(
                    !stale || session.snapshot(now) == before,
                    "a stale epoch dropped"
                );
            }
            Step::Stop { operator, stale } => {
                let by = if operator {
                    StopBy::Operator
                } else {
                    StopBy::Connection(pick(stale))
                };
                let stopped = session.handle_stop(by, now);
                assert!(
                    operator || !stale || stopped != Ok(true),
                    "a stale epoch stopped"
                );
            }
            Step::Finalized => {
                if session.handle_finalized(Status::Archived) {
                    assert!(matches!(session.manifest().stage, Stage::Done { .. }));
                }
            }
            Step::Connect { .. }
            | Step::Pass { .. }
            | Step::PassToDeadline { .. }
            | Step::Crash => {}
        }
    }

    /// The process dies; the next one finds what was synced.
    fn crash(&mut self) {
        let Some(session) = &self.session else { return };
        let id = session.id();
        drop_unsynced(session, &mut self.taped, &self.before_events);
        let mut events = self.journal.iter().cloned();
        let Some(Event::Opened { manifest }) = events.next() else {
            panic!("not opened first")
        };
        let mut manifest = *manifest;
        for event in events {
            manifest.apply(event).expect("the journal is in order");
        }
        for (take, record) in (0..).zip(&mut manifest.takes) {
            let last = self.taped.get(&(id, take)).and_then(|taped| taped.last());
            record.bytes = last.map_or(0, |(_, to)| *to);
        }
        self.crashes += 1;
        self.directory = Directory::new(10);
        self.take = None;
        if matches!(manifest.stage, Stage::Done { .. }) {
            self.session = None;
            return;
        }
        let recovered = Session::recover(manifest, Limits::default(), self.now);
        if recovered.is_open() {
            self.directory.admit(&seat(), id).expect("room");
        }
        self.session = Some(recovered);
    }

    fn check(&mut self) {
        self.carry_out();
        for (id, count) in &self.finalizes {
            let current = self.session.as_ref().map(Session::id) == Some(*id);
            let allowed = 1 + if current { self.crashes } else { 10 };
            assert!(*count <= allowed, "{id} was finalized {count} times");
        }
        let Some(session) = &self.session else { return };
        check_holes(session, &self.taped);
        assert_eq!(
            session.is_open(),
            self.directory.find(&seat()) == Some(session.id()),
            "the show is held by its open session and by nobody else"
        );
        let finalized = self.finalizes.get(&session.id()).copied().unwrap_or(0);
        assert_eq!(
            finalized > 0,
            !session.is_open(),
            "a session that ends is finalized"
        );
        for take in takes(session) {
            let cursor = session.cursor(take).expect("a take");
            let acknowledged = self.acknowledged.get(&(session.id(), take));
            assert!(
                cursor.durable >= acknowledged.copied().unwrap_or(0),
                "durable went back"
            );
        }
    }
}

fn obeys_the_rules(steps: &[Step]) {
    let mut world = World::new();
    for step in steps {
        world.step(step);
        world.check();
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_schedule_breaks_the_rules(steps in steps()) {
        obeys_the_rules(&steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100_000, ..ProptestConfig::default() })]

    #[test]
    #[ignore = "nightly: a hundred thousand schedules"]
    fn no_schedule_of_very_many_breaks_the_rules(steps in steps()) {
        obeys_the_rules(&steps);
    }
}
