//! `aircheck recordings rebuild`.
//!
//! Owns its flags and what it prints; what counts as proof is the archiver's.

use crate::output;
use aircheck_archiver::Found;
use aircheck_core::id::ShowId;
use anyhow::Context as _;
use clap::Args;
use std::process::ExitCode;

/// Flags of `aircheck recordings rebuild`.
#[derive(Args, Debug)]
#[command(after_help = "\
Reads every manifest below --s3-prefix, proves the objects that it names, and inserts the rows that are
missing. Rows that are there, and objects, stay as they are. Archivers may run meanwhile.

Example:
  aircheck recordings rebuild --show 7 --database-url postgres://aircheck@db/aircheck \\
      --s3-endpoint http://s3:9000 --s3-bucket shows")]
pub(super) struct Rebuild {
    /// Of this show only
    #[arg(long)]
    show: Option<ShowId>,
    #[command(flatten)]
    config: aircheck_archiver::Config,
}

/// Prints a line for each row that was made and each manifest that proves nothing, then the sums.
///
/// # Errors
/// If the configuration can't work, or database or store can't be read.
pub(super) async fn run(flags: Rebuild) -> anyhow::Result<ExitCode> {
    let (mut restored, mut present, mut lines) = (0_u64, 0_u64, Vec::new());
    let tell = |key: &str, found: Found| match found {
        Found::Restored => {
            restored += 1;
            lines.push(format!("restored  {key}"));
        }
        Found::Present => present += 1,
        Found::Refused(why) => lines.push(format!("refused   {key}: {why}")),
    };
    aircheck_archiver::rebuild(&flags.config, flags.show.as_ref(), tell)
        .await
        .context("rebuild")?;
    let refused = lines.len() as u64 - restored;
    lines.push(format!(
        "{restored} restored, {present} were there, {refused} refused"
    ));
    output::print(&lines.join("\n"))?;
    Ok(if refused == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
