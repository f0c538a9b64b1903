//! Settings of shows, remembered for a moment.
//!
//! Owns what a show goes live with when the archiver is away: what it said last, else the defaults.
//! Must never hold up a show for longer than [`DEADLINE`].

use super::archive::Archive;
use aircheck_core::{code::Code, id::ShowId, wire::GRACE_MAX_S};
use aircheck_proto::{archiver, ingest::GapPolicy};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Longest wait for the archiver on going live.
const DEADLINE: Duration = Duration::from_millis(300);
/// How long an answer counts as fresh.
const FRESH: Duration = Duration::from_secs(10);
/// Shows remembered; beyond it stale ones are forgotten first, then all.
const REMEMBERED_MAX: usize = 10_000;

/// What a show goes live with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) grace_ms: u64,
    pub(crate) title: Option<String>,
    pub(crate) gap_policy: GapPolicy,
}

/// The remembered settings.
#[derive(Debug)]
pub(crate) struct ShowSettings {
    archive: Archive,
    grace_ms: u64,
    remembered: Mutex<HashMap<ShowId, (Instant, Settings)>>,
}

impl ShowSettings {
    pub(crate) fn new(archive: Archive, grace: Duration) -> Self {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        Self {
            archive,
            grace_ms,
            remembered: Mutex::default(),
        }
    }

    /// What `show` goes live with now.
    pub(crate) async fn of(&self, show: &ShowId) -> Settings {
        let remembered = self.lock().get(show).cloned();
        if let Some((since, settings)) = &remembered
            && since.elapsed() < FRESH
        {
            return settings.clone();
        }
        let settings = match self.archive.show(show.to_string(), DEADLINE).await {
            Ok(answer) => self.settings(answer),
            Err(fault) if fault.code == Code::NotFound => self.settings(None),
            Err(fault) => {
                tracing::warn!(show_id = %show, %fault, "go live without asking for the show's settings");
                return remembered.map_or_else(|| self.settings(None), |(_, settings)| settings);
            }
        };
        self.remember(show.clone(), settings.clone(), Instant::now());
        settings
    }

    /// Asks anew next time.
    pub(crate) fn forget(&self, show: &ShowId) {
        self.lock().remove(show);
    }

    fn settings(&self, show: Option<archiver::Show>) -> Settings {
        let show = show.unwrap_or_default();
        Settings {
            grace_ms: show
                .grace_s
                .map_or(self.grace_ms, |s| s.min(GRACE_MAX_S) * 1000),
            title: Some(show.title).filter(|title| !title.is_empty()),
            gap_policy: match show.gap_policy.as_str() {
                "silence" => GapPolicy::Silence,
                "close" => GapPolicy::Close,
                _ => GapPolicy::Unspecified,
            },
        }
    }

    fn remember(&self, show: ShowId, settings: Settings, now: Instant) {
        let mut remembered = self.lock();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, (since, _)| since.elapsed() < FRESH);
        }
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(show, (now, settings));
    }

    /// A panic elsewhere can't leave the map half-changed, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, HashMap<ShowId, (Instant, Settings)>> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Settings whose archiver is at an address where nobody can listen.
    fn alone() -> ShowSettings {
        let archive = Archive::new("http://127.0.0.1:0").expect("address");
        ShowSettings::new(archive, Duration::from_secs(30))
    }

    #[tokio::test]
    async fn while_the_archiver_is_away_its_last_word_holds() {
        let (shows, show) = (alone(), "7".parse::<ShowId>().expect("id"));
        let known = Settings {
            grace_ms: 5000,
            title: None,
            gap_policy: GapPolicy::Close,
        };
        let stale = Instant::now() - FRESH * 2;
        shows.remember(show.clone(), known.clone(), stale);
        assert_eq!(shows.of(&show).await, known);
        shows.forget(&show);
        assert_eq!(shows.of(&show).await.grace_ms, 30_000);
    }

    #[tokio::test]
    async fn the_memory_is_bounded() {
        let shows = alone();
        let settings = shows.settings(None);
        let now = Instant::now();
        for show in 0..=REMEMBERED_MAX {
            shows.remember(show.to_string().parse().expect("id"), settings.clone(), now);
        }
        assert!(shows.lock().len() <= REMEMBERED_MAX);
    }
}
