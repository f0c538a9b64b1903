//! `aircheck migrate`.
//!
//! Owns nothing but the flag; the migrations are the archiver's.

use crate::output;
use aircheck_archiver::Secret;
use anyhow::Context as _;
use clap::Args;
use std::process::ExitCode;

/// Flags of `aircheck migrate`.
#[derive(Args, Debug)]
#[command(after_help = "\
Archivers do this at start, too. Several processes may do so at once.

Example:
  aircheck migrate --database-url postgres://aircheck@db/aircheck")]
pub(crate) struct Migrate {
    #[arg(
        long,
        env = "AIRCHECK_DATABASE_URL",
        hide_env_values = true,
        help = "Database: sqlite://path?mode=rwc or postgres://user:password@host/name"
    )]
    database_url: Secret,
}

/// Brings the schema up to date.
///
/// # Errors
/// If the database can't be reached or a migration fails; then nothing has changed.
pub(crate) async fn run(migrate: Migrate) -> anyhow::Result<ExitCode> {
    aircheck_archiver::migrate(&migrate.database_url)
        .await
        .context("migrate")?;
    output::print("the schema is up to date")?;
    Ok(ExitCode::SUCCESS)
}
