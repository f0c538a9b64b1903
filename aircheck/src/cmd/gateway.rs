//! `aircheck gateway`.
//!
//! Owns its listener; everything else is the gateway's.

use super::service::{bind, run_alone};
use clap::Args;
use std::{net::SocketAddr, process::ExitCode};

/// Flags of `aircheck gateway`.
#[derive(Args, Debug)]
#[command(after_help = "\
/healthz, /readyz and /metrics are on the same port.

Example:
  aircheck gateway --listen 0.0.0.0:8080 --ingest http://ingest-0:7001,http://ingest-1:7001 \\
      --archiver http://archiver:7002")]
pub(crate) struct Gateway {
    /// Address of WebSocket, HTTP API and page
    #[arg(long, env = "AIRCHECK_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    #[command(flatten)]
    config: aircheck_gateway::Config,
}

/// Serves until a signal.
///
/// # Errors
/// If the address is taken or the configuration can't work.
pub(crate) async fn run(gateway: Gateway) -> anyhow::Result<ExitCode> {
    let listener = bind(gateway.listen).await?;
    run_alone("gateway", None, |stop, health| {
        aircheck_gateway::serve(gateway.config, listener, stop, health)
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}
