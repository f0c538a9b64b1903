//! `aircheck s3-dev`.
//!
//! Owns its listener and where its keys come from.

use super::service::{bind, run_alone};
use crate::{
    lock::DirLock,
    output,
    s3::{DEV_ACCESS_KEY_ID, DEV_SECRET_ACCESS_KEY, DevS3},
};
use anyhow::Context as _;
use clap::Args;
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Flags of `aircheck s3-dev`.
#[derive(Args, Debug)]
#[command(after_help = "\
For development and tests: one process, one directory, no replication, no lifecycle rules. Objects
are synced before they are confirmed. Any Host is accepted, with the bucket in the path.

Example:
  aircheck s3-dev --listen 127.0.0.1:9000 --data-dir ./objects --bucket aircheck")]
pub(crate) struct S3Dev {
    /// Address to listen on
    #[arg(long, env = "AIRCHECK_LISTEN", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// Directory of the buckets
    #[arg(long, env = "AIRCHECK_DATA_DIR")]
    data_dir: PathBuf,
    /// Bucket that is made if need be
    #[arg(long, env = "AIRCHECK_BUCKET", default_value = "aircheck")]
    bucket: String,
    /// Access key id
    #[arg(long, env = "AIRCHECK_S3_ACCESS_KEY_ID", default_value = DEV_ACCESS_KEY_ID)]
    s3_access_key_id: String,
    /// File that holds the access key id
    #[arg(long, env = "AIRCHECK_S3_ACCESS_KEY_ID_FILE")]
    s3_access_key_id_file: Option<PathBuf>,
    /// Secret access key
    #[arg(
        long,
        env = "AIRCHECK_S3_SECRET_ACCESS_KEY",
        hide_env_values = true,
        default_value = DEV_SECRET_ACCESS_KEY
    )]
    s3_secret_access_key: aircheck_archiver::Secret,
    /// File that holds the secret access key
    #[arg(long, env = "AIRCHECK_S3_SECRET_ACCESS_KEY_FILE")]
    s3_secret_access_key_file: Option<PathBuf>,
}

/// Serves until a signal.
///
/// # Errors
/// If the address or the directory is taken.
pub(crate) async fn run(flags: S3Dev) -> anyhow::Result<ExitCode> {
    let id = key(
        flags.s3_access_key_id_file.as_deref(),
        &flags.s3_access_key_id,
    )?;
    let secret = key(
        flags.s3_secret_access_key_file.as_deref(),
        flags.s3_secret_access_key.expose(),
    )?;
    let _lock = DirLock::take(&flags.data_dir)?;
    let server = DevS3::open(&flags.data_dir, &flags.bucket, &id, &secret)?;
    let listener = bind(flags.listen).await?;
    let address = listener.local_addr().context("ask for the port")?;
    output::print(&format!(
        "s3-dev on http://{address}, bucket {}\nready",
        flags.bucket
    ))?;
    run_alone("s3-dev", None, |stop, health| async move {
        health.ready();
        server.serve(listener, stop).await;
        Ok::<(), anyhow::Error>(())
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}

/// The file wins: the other one has a default.
fn key(file: Option<&Path>, text: &str) -> anyhow::Result<String> {
    let Some(path) = file else {
        return Ok(text.to_owned());
    };
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_wins_and_its_newline_is_no_part_of_the_key() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("key");
        fs::write(&path, "from-file\n").expect("write");
        assert_eq!(key(Some(&path), "default").expect("read"), "from-file");
        assert_eq!(key(None, "default").expect("no file"), "default");
        assert!(key(Some(&dir.path().join("none")), "default").is_err());
    }
}
