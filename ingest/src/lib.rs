//! The ingest service: owns live sessions, writes the tee of live branch and recording.
//!
//! Owns the spool and nothing else that lasts. Must never open the database or S3, and never let one
//! side of the tee wait for the other.

mod archiver;
mod clock;
mod config;
pub mod live;
mod registry;
mod server;
mod session;
mod sink;
pub mod spool;

pub use config::{Config, GRACE_MAX, Options};
pub use sink::{LiveSink, LiveSinkError, LiveSinkParser};

use aircheck_proto::ingest::ingest_service_server::IngestServiceServer;
use aircheck_runtime::{
    failpoint::Failpoint,
    grpc::{self, ChannelError},
    health::Health,
    shutdown::Shutdown,
};
use registry::Registry;
use std::time::Duration;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

/// How long draining may take in all.
const DRAIN: Duration = Duration::from_secs(4);
/// A chunk has at most 1 MiB; the rest is room for its envelope.
const MESSAGE_BYTES_MAX: usize = (1 << 20) + (64 << 10);

/// Why the service could not run.
#[derive(Debug, Error)]
pub enum Error {
    /// The archiver's address, or the one it is given, is unusable.
    #[error(transparent)]
    Archiver(#[from] ChannelError),
    /// The spool can't be opened.
    #[error("open the spool in {dir}")]
    Spool {
        /// Where.
        dir: String,
        /// Why.
        #[source]
        source: spool::Error,
    },
    /// The server failed.
    #[error("serve gRPC")]
    Serve(#[from] tonic::transport::Error),
}

/// Serves until `shutdown`, then drains: broadcasters are told to come back at once, what they sent is
/// synced, and sessions wait on disk for the next start.
///
/// # Errors
/// If the spool can't be opened, or the server fails.
pub async fn serve(
    config: Config,
    listener: TcpListener,
    shutdown: Shutdown,
    health: Health,
) -> Result<(), Error> {
    grpc::check(&config.advertise)?;
    let archiver =
        archiver::Archiver::new(grpc::channel(&config.archiver)?, config.advertise.clone());
    let spool_config = spool::Config {
        segment_bytes: config.options.segment_size,
        ..spool::Config::new(config.spool_dir.clone())
    };
    let opening = tokio::task::spawn_blocking(move || spool::Spool::open(spool_config)).await;
    let dir = config.spool_dir.display().to_string();
    let (spool, recovered) = match opening {
        Ok(opened) => opened.map_err(|source| Error::Spool { dir, source })?,
        Err(_) => {
            return Err(Error::Spool {
                dir,
                source: spool::Error::Closed,
            });
        }
    };
    let stop = Shutdown::new();
    let registry = Registry::new(spool.clone(), config.options, archiver, stop.clone());
    registry.recover(recovered);
    Failpoint::RecoveryDone.pass();
    let service = server::Service {
        registry: registry.clone(),
        health: health.clone(),
        shutdown: stop.clone(),
        connections: TaskTracker::new(),
    };
    let service = IngestServiceServer::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let routes = grpc::with_health_and_reflection(Routes::new(service), &health);
    health.ready();
    let drained = async {
        shutdown.triggered().await;
        health.draining();
        stop.trigger();
        registry.drain(DRAIN).await;
    };
    let incoming = TcpListenerStream::new(listener);
    let serving = grpc::server()
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, drained);
    let limit = async {
        shutdown.triggered().await;
        tokio::time::sleep(2 * DRAIN).await;
    };
    tokio::select! {
        served = serving => served?,
        () = limit => tracing::warn!("connections did not end in time"),
    }
    if tokio::task::spawn_blocking(move || spool.close())
        .await
        .is_err()
    {
        tracing::error!("the spool did not close cleanly");
    }
    Ok(())
}
