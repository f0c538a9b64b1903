//! What every request of the gateway shares.
//!
//! Owns references only; must never hold the state of a single connection.

use crate::{
    auth::Auth,
    config::Config,
    error::Error,
    upstream::{archive::Archive, ingests::Ingests, shows::ShowSettings},
};
use aircheck_runtime::shutdown::Shutdown;
use std::{sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::sleep};
use tokio_util::task::TaskTracker;

/// Up to this many connections may come back all at once.
const RUSH_MAX: usize = 100;
/// Beyond it, they are sent away over this time, in random order.
const SPREAD: Duration = Duration::from_secs(3);

/// The gateway's shared parts.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) auth: Auth,
    pub(crate) ingests: Ingests,
    pub(crate) archive: Archive,
    pub(crate) shows: ShowSettings,
    /// Triggered when broadcasters and listeners have to leave.
    pub(crate) shutdown: Shutdown,
    /// One permit a broadcaster.
    pub(crate) broadcasters: Arc<Semaphore>,
    /// Every broadcaster's task, so that draining can wait for them.
    pub(crate) tasks: TaskTracker,
    /// A token a listener.
    pub(crate) listeners: TaskTracker,
}

impl App {
    pub(crate) fn new(config: Config, shutdown: Shutdown) -> Result<Arc<Self>, Error> {
        config.check()?;
        let broadcasters = config.max_connections.min(Semaphore::MAX_PERMITS);
        let archive = Archive::new(&config.archiver)?;
        Ok(Arc::new(Self {
            auth: Auth::new(&config)?,
            ingests: Ingests::new(&config.ingest)?,
            shows: ShowSettings::new(archive.clone(), config.grace),
            archive,
            shutdown,
            broadcasters: Arc::new(Semaphore::new(broadcasters)),
            tasks: TaskTracker::new(),
            listeners: TaskTracker::new(),
            config,
        }))
    }

    /// Returns when one connection has to leave, because the gateway goes down. Many leave one by
    /// one: they all come back at once, and to the same few others.
    pub(crate) async fn leave(&self) {
        self.shutdown.triggered().await;
        let connections = self.tasks.len() + self.listeners.len();
        sleep(turn(connections, rand::random())).await;
    }
}

/// How long one of so many connections waits for its turn, given a draw from 0 to 1.
fn turn(connections: usize, draw: f64) -> Duration {
    if connections <= RUSH_MAX {
        return Duration::ZERO;
    }
    SPREAD.mul_f64(draw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_leave_at_once_and_many_one_by_one() {
        assert_eq!(turn(RUSH_MAX, 0.9), Duration::ZERO);
        assert_eq!(turn(RUSH_MAX + 1, 0.0), Duration::ZERO);
        assert_eq!(turn(RUSH_MAX + 1, 0.5), SPREAD / 2);
        assert!(turn(10_000, 0.999) < SPREAD);
    }
}
