//! `aircheck healthcheck`: for containers without curl.
//!
//! Owns one request; must never retry.

use crate::http::Http;
use anyhow::Context as _;
use clap::Args;
use http::StatusCode;
use std::{process::ExitCode, time::Duration};

/// Longest wait for the answer.
const DEADLINE: Duration = Duration::from_secs(3);

/// Flags of `aircheck healthcheck`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  aircheck healthcheck http://127.0.0.1:8080/readyz")]
pub(crate) struct Healthcheck {
    /// What to ask
    url: String,
}

/// Asks once.
///
/// # Errors
/// If the answer is not 200, or does not come in time.
pub(crate) async fn run(check: Healthcheck) -> anyhow::Result<ExitCode> {
    let url = check
        .url
        .parse()
        .with_context(|| format!("{} is no URL", check.url))?;
    let http = Http::new();
    let answer = tokio::time::timeout(DEADLINE, http.open(&url, None)).await;
    let answer = answer.with_context(|| format!("{url} did not answer within 3 s"))??;
    anyhow::ensure!(
        answer.status() == StatusCode::OK,
        "{url} answered {}",
        answer.status()
    );
    Ok(ExitCode::SUCCESS)
}
