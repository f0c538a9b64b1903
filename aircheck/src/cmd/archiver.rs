//! `aircheck archiver`.
//!
//! Owns its listeners; everything else is the archiver's.

use super::service::{bind, run_alone};
use clap::Args;
use std::{net::SocketAddr, process::ExitCode};

/// Flags of `aircheck archiver`.
#[derive(Args, Debug)]
#[command(after_help = "\
Archivers hold nothing: run as many as you like on one database and one bucket. The schema is
brought up to date at start. Try the store out with `aircheck doctor`.

Example:
  aircheck archiver --listen 0.0.0.0:7002 --database-url postgres://aircheck@db/aircheck \\
      --s3-endpoint http://s3:9000 --s3-bucket shows")]
pub(crate) struct Archiver {
    /// Address of the gRPC service
    #[arg(long, env = "AIRCHECK_LISTEN", default_value = "127.0.0.1:7002")]
    listen: SocketAddr,
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, env = "AIRCHECK_HTTP_LISTEN", default_value = "127.0.0.1:7102")]
    http_listen: SocketAddr,
    #[command(flatten)]
    config: aircheck_archiver::Config,
}

/// Serves until a signal.
///
/// # Errors
/// If an address is taken, or the configuration can't work.
pub(crate) async fn run(archiver: Archiver) -> anyhow::Result<ExitCode> {
    let listener = bind(archiver.listen).await?;
    let http = bind(archiver.http_listen).await?;
    run_alone("archiver", Some(http), |stop, health| {
        aircheck_archiver::serve(archiver.config, listener, stop, health)
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}
