//! `aircheck ingest`.
//!
//! Owns its listeners and the lock on its spool; everything else is the ingest's.

use super::service::{bind, run_alone};
use crate::lock::DirLock;
use clap::Args;
use std::process::ExitCode;

/// Flags of `aircheck ingest`.
#[derive(Args, Debug)]
#[command(after_help = "\
The spool is the only copy of a show until it is archived: keep --spool-dir on a disk of its own
that survives restarts.

Example:
  aircheck ingest --listen 0.0.0.0:7001 --advertise http://ingest-0:7001 \\
      --spool-dir /var/lib/aircheck/spool --archiver http://archiver:7002")]
pub(crate) struct Ingest {
    #[command(flatten)]
    config: aircheck_ingest::Config,
}

/// Serves until a signal.
///
/// # Errors
/// If an address or the spool is taken, or the service fails.
pub(crate) async fn run(Ingest { config }: Ingest) -> anyhow::Result<ExitCode> {
    let _lock = DirLock::take(&config.spool_dir)?;
    let listener = bind(config.listen).await?;
    let http = bind(config.http_listen).await?;
    run_alone("ingest", Some(http), |stop, health| {
        aircheck_ingest::serve(config, listener, stop, health)
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}
