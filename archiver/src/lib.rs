//! The archiver service: the only one that opens the database and S3. It turns sealed sessions into
//! archives and answers for recordings and shows.
//!
//! Owns rows, objects and the proof that they belong together. Must never hold a session's bytes
//! beyond what is under way: until the proof, they stay with the ingest.

mod config;
mod convert;
mod db;
mod error;
mod finalize;
mod keys;
mod metrics;
mod removal;
mod rendition;
mod service;
mod store;

pub use config::{Config, ConfigError, Secret};
pub use error::Error;
pub use finalize::Found;

use crate::{
    db::{Db, DbError},
    finalize::{Context, Jobs, RebuildError, Rebuilder, Schedule, Stop, chain},
    service::{Ingests, Ready, Service},
    store::{ObjectStore, S3Store},
};
use aircheck_core::id::ShowId;
use aircheck_proto::archiver::archiver_service_server::ArchiverServiceServer;
use aircheck_runtime::{backoff::Backoff, grpc, health::Health, shutdown::Shutdown};
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{service::Routes, transport::server::TcpIncoming};
use ulid::Ulid;

/// Manifests grow with reconnects and markers; a day of trouble stays far below.
const MESSAGE_MAX: usize = 16 << 20;
/// Jobs at work at one time; others wait. Each may hold two parts in memory.
const JOBS_MAX: usize = 16;
const OPEN_RETRY_FIRST: Duration = Duration::from_millis(200);
const OPEN_RETRY_MAX: Duration = Duration::from_secs(5);
/// How long connections may linger after shutdown, beyond the jobs they wait for.
const LINGER: Duration = Duration::from_secs(15);

/// Serves until `shutdown`, then stops its jobs between two calls and releases their claims.
///
/// While the database has not answered yet, calls are refused with `AC_UNAVAILABLE` and `health`
/// stays as it is; from then on it is ready.
///
/// # Errors
/// If the configuration can't work, or the listener fails.
pub async fn serve(
    config: Config,
    listener: TcpListener,
    shutdown: Shutdown,
    health: Health,
) -> Result<(), Error> {
    config.validate()?;
    let store: Arc<dyn ObjectStore> = Arc::new(S3Store::new(&config)?);
    let ready = Arc::new(OnceLock::new());
    let service = Service {
        ready: Arc::clone(&ready),
        store: Arc::clone(&store),
        ingests: Ingests::default(),
        prefix: config.s3_prefix.clone(),
        presign_ttl: config.presign_ttl,
    };
    let routes =
        Routes::new(ArchiverServiceServer::new(service).max_decoding_message_size(MESSAGE_MAX));
    let routes = grpc::with_health_and_reflection(routes, &health);
    let cut_off = CancellationToken::new();
    let opener = Opener {
        config,
        store,
        shutdown: shutdown.clone(),
        cut_off: cut_off.clone(),
        ready: Arc::clone(&ready),
    };
    // No job outlives this call, even if it is dropped.
    let _cut_off = cut_off.drop_guard();
    let opening = AbortOnDropHandle::new(tokio::spawn(open(opener, health.clone())));
    let server = grpc::server()
        .add_routes(routes)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            wish(shutdown.clone()),
        );
    let drained = async {
        shutdown.triggered().await;
        health.draining();
        drop(opening);
        if let Some(ready) = ready.get() {
            ready.jobs.drain().await;
        }
        tokio::time::sleep(LINGER).await;
    };
    tokio::pin!(server);
    tokio::select! {
        served = &mut server => served?,
        () = drained => tracing::warn!("connections lingered and were cut off"),
    }
    if let Some(ready) = ready.get() {
        ready.jobs.drain().await;
    }
    Ok(())
}

/// Brings a database's schema up to date, as [`serve`] does at its start. Safe at any time, also while
/// others do the same.
///
/// # Errors
/// If the database can't be reached, or a migration fails; then nothing has changed.
pub async fn migrate(database_url: &Secret) -> Result<(), Error> {
    let opened = Db::open(database_url.expose()).await;
    opened
        .map(drop)
        .map_err(|error| Error::Migrate(error.into()))
}

/// Makes the rows that a database lost of the manifests in the bucket, those of one show or all. Tells
/// of each manifest by its key. Rows that are there, and objects, are left as they are; safe at any
/// time. Waits for as long as a store is away.
///
/// # Errors
/// If the configuration can't work, or database or store can't be read.
pub async fn rebuild(
    config: &Config,
    show: Option<&ShowId>,
    tell: impl FnMut(&str, Found),
) -> Result<(), Error> {
    config.validate()?;
    let store = S3Store::new(config)?;
    let failed = |error: RebuildError| Error::Rebuild(error.into());
    let db = Db::open(config.database_url.expose()).await;
    let db = db.map_err(|error| failed(error.into()))?;
    let rebuilder = Rebuilder {
        db: &db,
        store: &store,
        prefix: &config.s3_prefix,
        stop: &Stop::new(Shutdown::new()),
    };
    rebuilder.all(show, tell).await.map_err(failed)
}

async fn wish(shutdown: Shutdown) {
    shutdown.triggered().await;
}

/// What is needed to begin once the database answers.
struct Opener {
    config: Config,
    store: Arc<dyn ObjectStore>,
    shutdown: Shutdown,
    cut_off: CancellationToken,
    ready: Arc<OnceLock<Ready>>,
}

async fn opened(config: &Config) -> Result<Db, DbError> {
    let db = Db::open(config.database_url.expose()).await?;
    if config.is_alone {
        db.void_claims().await?;
    }
    Ok(db)
}

/// Opens the database, however long that takes, and keeps it clean from then on.
async fn open(opener: Opener, health: Health) {
    let Opener {
        config,
        store,
        shutdown,
        cut_off,
        ready,
    } = opener;
    let mut backoff = Backoff::new(OPEN_RETRY_FIRST, OPEN_RETRY_MAX);
    let db = loop {
        match opened(&config).await {
            Ok(db) => break db,
            Err(error) => tracing::warn!(error = chain(&error), "open the database"),
        }
        tokio::time::sleep(backoff.delay()).await;
    };
    let context = Context {
        db: db.clone(),
        store: Arc::clone(&store),
        prefix: config.s3_prefix,
        part_size: config.part_size,
        lease: config.claim_lease,
        owner: format!("archiver-{}", Ulid::new()),
        ffmpeg: config.ffmpeg,
        renditions: config.rendition,
        rendition_retry: config.rendition_retry,
        shutdown: shutdown.clone(),
        slots: Semaphore::new(JOBS_MAX),
    };
    let jobs = Jobs::new(context, cut_off);
    jobs.sweep(Schedule {
        every: config.sweep_every,
        age: config.sweep_age,
    });
    jobs.render();
    let ours = Ready {
        db: db.clone(),
        jobs,
    };
    if ready.set(ours).is_ok() {
        health.ready();
    }
    removal::of_rehearsals(db, &*store, config.rehearsal_retention, shutdown).await;
}
