//! The command line: subcommands and what their help says.
//!
//! Owns the words; must never act on them.

use crate::cmd;
use aircheck_runtime::telemetry::LogFormat;
use clap::{Parser, Subcommand};

/// A live show is never lost: broadcasts are recorded, resumed and archived, whatever fails.
#[derive(Debug, Parser)]
#[command(name = "aircheck", version, propagate_version = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// How log lines are written to standard error; `RUST_LOG` says which
    #[arg(
        long,
        global = true,
        env = "AIRCHECK_LOG_FORMAT",
        value_enum,
        default_value_t
    )]
    pub(crate) log_format: LogFormat,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

const EXAMPLES: &str = "\
Without a command, `up` runs. Every flag is also an environment variable: --data-dir is
AIRCHECK_DATA_DIR. Durations are written 30s, sizes 5MiB.

Examples:
  aircheck                                      everything in one process, data in ./data
  aircheck up --listen 0.0.0.0:8080 --grace 2m
  aircheck push show.webm --show 7              broadcast a file like a browser
  aircheck recordings list --show 7
  aircheck recordings download 01JD... -o show.webm";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything in one process: gateway, ingest, archiver, database and S3
    Up(Box<cmd::up::Up>),
    /// Run the gateway: WebSocket, HTTP API and studio page
    Gateway(cmd::gateway::Gateway),
    /// Run an ingest: live sessions and their spool
    Ingest(cmd::ingest::Ingest),
    /// Run an archiver: database and S3
    Archiver(Box<cmd::archiver::Archiver>),
    /// Run the S3 server of the default set-up on its own, for development
    S3Dev(cmd::s3_dev::S3Dev),
    /// Broadcast a file like a browser and print its recording as JSON
    Push(Box<cmd::push::Push>),
    /// Measure how many broadcasters an installation carries
    Bench(Box<cmd::bench::Bench>),
    /// List, show and download recordings
    Recordings(cmd::recordings::Recordings),
    /// Bring the database's schema up to date; safe to repeat
    Migrate(cmd::migrate::Migrate),
    /// Try out what the configured store and database really guarantee
    Doctor(Box<cmd::doctor::Doctor>),
    /// Exit with 0 if a URL answers 200 within 3 s
    Healthcheck(cmd::healthcheck::Healthcheck),
}

impl Command {
    /// Whether it serves, and so logs from the beginning.
    pub(crate) fn is_service(&self) -> bool {
        match self {
            Self::Up(_)
            | Self::Gateway(_)
            | Self::Ingest(_)
            | Self::Archiver(_)
            | Self::S3Dev(_) => true,
            Self::Push(_)
            | Self::Bench(_)
            | Self::Recordings(_)
            | Self::Migrate(_)
            | Self::Doctor(_)
            | Self::Healthcheck(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_with_a_value_is_an_environment_variable_too() {
        let cli = Cli::command();
        for command in cli
            .get_subcommands()
            .filter(|c| c.get_name() != "recordings")
        {
            for arg in command
                .get_arguments()
                .filter(|arg| arg.get_long().is_some())
            {
                let long = arg.get_long().expect("filtered");
                let Some(env) = arg.get_env() else { continue };
                let expected = format!("AIRCHECK_{}", long.to_uppercase().replace('-', "_"));
                assert_eq!(
                    env.to_str(),
                    Some(expected.as_str()),
                    "{}",
                    command.get_name()
                );
            }
        }
    }

    #[test]
    fn nothing_at_all_and_the_documented_lines_are_understood() {
        assert!(parse("aircheck").expect("valid").command.is_none());
        for line in [
            "aircheck up --data-dir ./d --listen 127.0.0.1:0 --grace 30s",
            "aircheck up --database-url postgres://u:p@h/d --s3-endpoint http://s3:9000 --s3-bucket b",
            "aircheck gateway --listen 0.0.0.0:8080 --ingest http://a:1,http://b:1 --archiver http://c:1",
            "aircheck ingest --listen 0.0.0.0:7001 --advertise http://i:7001 --spool-dir s --archiver http://c:1",
            "aircheck archiver --listen 0.0.0.0:7002 --database-url sqlite://x --s3-endpoint http://s3 --s3-bucket b",
            "aircheck s3-dev --listen 127.0.0.1:9000 --data-dir d --bucket b",
            "aircheck push f --show 7 --to ws://127.0.0.1:8080 --speed 0 --drop-every 10s --chunk-ms 100 --force",
            "aircheck bench --broadcasters 1000 --duration 30s --bitrate 128k --chunk 250ms --json",
            "aircheck bench --to wss://h --pid 7 --ca-file ca.pem",
            "aircheck recordings list --show 7 --status archived --limit 5 --json",
            "aircheck recordings show 01JD",
            "aircheck recordings download 01JD -o f --resume --to http://h:1",
            "aircheck healthcheck http://127.0.0.1:8080/healthz",
            "aircheck migrate --database-url sqlite://x",
            "aircheck doctor --database-url sqlite://x --s3-bucket b --log-format json",
        ] {
            assert!(
                parse(line).is_ok(),
                "{line}: {}",
                parse(line).expect_err("refused")
            );
        }
    }

    #[test]
    fn bad_flags_exit_with_2() {
        for line in [
            "aircheck nonsense",
            "aircheck up --grace soon",
            "aircheck push f",
        ] {
            assert_eq!(parse(line).expect_err("refused").exit_code(), 2, "{line}");
        }
    }
}
