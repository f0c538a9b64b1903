//! temp
use clap::Args;
use std::process::ExitCode;
#[derive(Args, Debug)]
pub(crate) struct Doctor {}
pub(crate) async fn run(_m: Doctor) -> anyhow::Result<ExitCode> {
    anyhow::bail!("x")
}
