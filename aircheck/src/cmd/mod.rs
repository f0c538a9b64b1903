//! The subcommands, a file each.
//!
//! Owns which one runs; must never know how.

mod access;
pub(crate) mod archiver;
pub(crate) mod bench;
pub(crate) mod doctor;
pub(crate) mod gateway;
pub(crate) mod healthcheck;
pub(crate) mod ingest;
pub(crate) mod migrate;
pub(crate) mod push;
pub(crate) mod recordings;
pub(crate) mod s3_dev;
mod service;
pub(crate) mod up;
mod up_flags;

use crate::cli::{Cli, Command};
use aircheck_runtime::telemetry;
use anyhow::Context as _;
use clap::Parser as _;
use std::process::ExitCode;

/// Runs what the command line says.
///
/// # Errors
/// Whatever made the command fail; nothing of it was printed yet.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    // As if `up` had been written, so with the environment's values.
    let default = || Cli::parse_from(["aircheck", "up"]).command;
    let command = cli.command.or_else(default).context("no command")?;
    // The tools speak for themselves; they log where somebody asks for it.
    if command.is_service() || std::env::var_os("RUST_LOG").is_some() {
        telemetry::init(cli.log_format);
    }
    match command {
        Command::Up(up) => up::run(*up).await,
        Command::Gateway(gateway) => gateway::run(gateway).await,
        Command::Ingest(ingest) => ingest::run(ingest).await,
        Command::Archiver(archiver) => archiver::run(*archiver).await,
        Command::S3Dev(s3_dev) => s3_dev::run(s3_dev).await,
        Command::Push(push) => push::run(*push).await,
        Command::Bench(bench) => bench::run(*bench).await,
        Command::Recordings(recordings) => Box::pin(recordings::run(recordings)).await,
        Command::Migrate(migrate) => migrate::run(migrate).await,
        Command::Doctor(doctor) => doctor::run(*doctor).await,
        Command::Healthcheck(healthcheck) => healthcheck::run(healthcheck).await,
    }
}
