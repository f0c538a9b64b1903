//! The `aircheck` command: all services and tools in one binary.
//!
//! Owns the runtime and the exit code; must never hold logic of a subcommand.

mod bench;
mod broadcast;
mod cli;
mod cmd;
mod http;
mod lock;
mod output;
mod s3;
mod tls;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(Box::pin(cmd::run(cli::Cli::parse()))));
    match ended {
        Ok(code) => code,
        Err(error) => {
            output::complain(&error);
            ExitCode::FAILURE
        }
    }
}
