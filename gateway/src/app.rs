//! What every request of the gateway shares.
//!
//! Owns references only; must never hold the state of a single connection.

use crate::{
    config::Config,
    error::Error,
    upstream::{archive::Archive, ingests::Ingests, shows::ShowSettings},
};
use aircheck_runtime::shutdown::Shutdown;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// The gateway's shared parts.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) ingests: Ingests,
    pub(crate) archive: Archive,
    pub(crate) shows: ShowSettings,
    /// Triggered when broadcasters and listeners have to leave.
    pub(crate) shutdown: Shutdown,
    /// One permit a broadcaster.
    pub(crate) broadcasters: Arc<Semaphore>,
    /// Every broadcaster's task, so that draining can wait for them.
    pub(crate) tasks: TaskTracker,
}

impl App {
    pub(crate) fn new(config: Config, shutdown: Shutdown) -> Result<Arc<Self>, Error> {
        config.check()?;
        let broadcasters = config.max_connections.min(Semaphore::MAX_PERMITS);
        let archive = Archive::new(&config.archiver)?;
        Ok(Arc::new(Self {
            ingests: Ingests::new(&config.ingest)?,
            shows: ShowSettings::new(archive.clone(), config.grace),
            archive,
            shutdown,
            broadcasters: Arc::new(Semaphore::new(broadcasters)),
            tasks: TaskTracker::new(),
            config,
        }))
    }
}
