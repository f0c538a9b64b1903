//! The upload protocol, explored: two archivers, one recording, a store and a database over a network
//! that loses, delays, doubles and reorders, and processes that die at any step.
//!
//! Owns a small model of what [`ship`](super::ship), [`stitched`](super::stitched) and
//! [`job`](super::job) do, in their order, deciding by the same table ([`verdict`](super::verdict)).
//! Must never know more than they do: what an archiver sees are replies. Each schedule is random, from
//! a seed that is in the failure text; `AIRCHECK_EXPLORE_SEED` runs that one alone and prints its steps.

mod archiver;
mod world;

use archiver::Archiver;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use world::{Fate, Profile, World};

const SCHEDULES: u64 = 100_000;
/// Steps with faults; then everything heals.
const STEPS: usize = 60;
/// More steps than any job needs without faults, replays included.
const HEALING_STEPS: usize = 400;
/// Steps that one archiver makes before it is the other's turn.
const TURN_STEPS: usize = 40;

/// One schedule.
struct Schedule {
    random: StdRng,
    world: World,
    archivers: [Archiver; 2],
    /// Its steps, if it is to be told.
    trace: Option<String>,
}

impl Schedule {
    fn new(seed: u64, trace: Option<String>) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let profile = Profile {
            honours_preconditions: random.random_bool(0.5),
            completes_twice: random.random_bool(0.5),
        };
        let mut world = World::new(profile);
        if random.random_bool(0.1) {
            world.plant_foreign();
        }
        Self {
            random,
            world,
            archivers: [Archiver::new(0), Archiver::new(1)],
            trace,
        }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            self.step();
            self.world.check();
        }
        self.heal();
    }

    fn step(&mut self) {
        let who = usize::from(self.random.random_bool(0.5));
        match self.random.random_range(0..100) {
            0..70 => {
                let fate = self.fate();
                self.note(|archivers| format!("{who} {:?}: {fate:?}", archivers[who].at));
                self.archivers[who].step(&mut self.world, fate);
            }
            70..80 => {
                let late = self.world.deliver_late(&mut self.random);
                self.note(|_| format!("late: {late:?}"));
            }
            80..87 => {
                self.note(|_| format!("{who} is killed"));
                self.archivers[who] = Archiver::new(who);
            }
            87..93 => {
                self.note(|_| "the lease runs out".to_owned());
                self.world.row.leased = false;
            }
            93..95 => {
                self.note(|_| "uploads expire".to_owned());
                self.world.expire_uploads();
            }
            95..96 => {
                self.note(|_| "a bit flips".to_owned());
                self.world.flip_a_bit(true);
            }
            _ => {
                self.note(|_| "sweep".to_owned());
                self.world.sweep();
            }
        }
    }

    fn fate(&mut self) -> Fate {
        match self.random.random_range(0..20) {
            0..14 => Fate::Answered,
            14..16 => Fate::RequestLost,
            16..18 => Fate::ReplyLost,
            18..19 => Fate::Late,
            _ => Fate::Doubled,
        }
    }

    /// Nothing fails any more: one archive comes of it, and nothing else is left.
    fn heal(&mut self) {
        self.world.flip_a_bit(false);
        while self.world.deliver_late(&mut self.random).is_some() {
            self.world.check();
        }
        for step in 0..HEALING_STEPS {
            if self.archivers.iter().any(|archiver| archiver.is_done()) {
                break;
            }
            let who = step / TURN_STEPS % 2;
            if step % TURN_STEPS == 0 {
                // Whoever holds the claim may be the one that is not asked: leases run out.
                self.world.row.leased = false;
            }
            self.note(|archivers| format!("healing: {who} {:?}", archivers[who].at));
            self.archivers[who].step(&mut self.world, Fate::Answered);
            self.world.check();
        }
        self.world.sweep();
        self.world.check_final();
    }

    fn note(&mut self, what: impl FnOnce(&[Archiver; 2]) -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push_str(&what(&self.archivers));
            trace.push('\n');
        }
    }
}

/// Runs one schedule; a second time, to be told, if it fails.
fn explore(seed: u64) {
    let mut schedule = Schedule::new(seed, None);
    if holds(&mut schedule) {
        return;
    }
    let mut schedule = Schedule::new(seed, Some(String::new()));
    holds(&mut schedule);
    let trace = schedule.trace.unwrap_or_default();
    panic!("AIRCHECK_EXPLORE_SEED={seed}\n{trace}{:#?}", schedule.world);
}

fn holds(schedule: &mut Schedule) -> bool {
    let run = std::panic::AssertUnwindSafe(|| schedule.run());
    std::panic::catch_unwind(run).is_ok()
}

#[test]
fn no_schedule_of_faults_makes_two_archives_or_none_or_leaves_an_upload_behind() {
    let only = std::env::var("AIRCHECK_EXPLORE_SEED").ok();
    let only = only.and_then(|seed| seed.parse().ok());
    let first: u64 = only.unwrap_or_else(rand::random);
    let count = if only.is_some() { 1 } else { SCHEDULES };
    for nth in 0..count {
        explore(first.wrapping_add(nth));
    }
}
