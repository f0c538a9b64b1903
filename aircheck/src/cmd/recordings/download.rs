//! One archive, from the store to a file.
//!
//! Owns the way of its bytes; a file of the wanted name exists only once they are proven. Must never
//! leave a damaged file under that name.

use super::partial::{Partial, Proof};
use crate::http::{Http, HttpError, escaped, join, refusal};
use aircheck_core::recording::Recording;
use anyhow::{Context as _, bail, ensure};
use http::{HeaderValue, Response, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use indicatif::{ProgressBar, ProgressDrawTarget};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::timeout;

/// Longest wait for the next bytes.
const PIECE_DEADLINE: Duration = Duration::from_secs(60);
/// Redirects from the gateway to the object: one is usual.
const REDIRECTS_MAX: usize = 4;

/// Downloads and gives the file's name.
///
/// # Errors
/// If there is no archive, it can't be read or written, or what came is not what the recording says.
pub(super) async fn run(
    http: &Http,
    to: &str,
    recording: &Recording,
    wanted: Option<PathBuf>,
    resume: bool,
) -> anyhow::Result<PathBuf> {
    let Some(key) = &recording.object_key else {
        bail!(
            "recording {} has no archive (status {})",
            recording.id,
            recording.status.as_str()
        );
    };
    let path = wanted.unwrap_or_else(|| usual_name(recording, key));
    let mut partial = Partial::open(&path, resume).await?;
    let url = join(
        to,
        &format!("/api/recordings/{}/download", escaped(&recording.id)),
    )?;
    let answer = follow(http, url, partial.bytes()).await?;
    let proof = Proof {
        bytes: recording.bytes,
        crc64nvme: recording.crc64nvme.clone(),
    };
    match answer.status() {
        StatusCode::OK => partial.restart().await?,
        StatusCode::PARTIAL_CONTENT => check_range(&answer, partial.bytes())?,
        // Nothing is left to fetch.
        StatusCode::RANGE_NOT_SATISFIABLE => {
            partial.finish(&proof).await?;
            return Ok(path);
        }
        _ => return Err(refusal(answer).await.into()),
    }
    receive(answer, &mut partial, recording.bytes)
        .await
        .with_context(|| {
            format!(
                "{} is incomplete; --resume goes on",
                partial.path().display()
            )
        })?;
    partial.finish(&proof).await?;
    Ok(path)
}

/// Asks for everything from `offset` on, through redirects.
pub(super) async fn follow(
    http: &Http,
    mut url: Uri,
    offset: u64,
) -> anyhow::Result<Response<Incoming>> {
    for _ in 0..REDIRECTS_MAX {
        let range = (offset > 0).then(|| HeaderValue::try_from(format!("bytes={offset}-")));
        let answer = http.open(&url, range.transpose()?).await?;
        if !answer.status().is_redirection() {
            return Ok(answer);
        }
        let location = answer
            .headers()
            .get(header::LOCATION)
            .context("a redirect to nowhere")?;
        url = location.to_str()?.parse().context("a redirect to no URL")?;
    }
    bail!("too many redirects")
}

fn check_range(answer: &Response<Incoming>, offset: u64) -> anyhow::Result<()> {
    let range = answer.headers().get(header::CONTENT_RANGE);
    let range = range
        .and_then(|range| range.to_str().ok())
        .unwrap_or_default();
    ensure!(
        range.starts_with(&format!("bytes {offset}-")),
        "the store gave the range {range:?}, not what follows byte {offset}"
    );
    Ok(())
}

async fn receive(
    answer: Response<Incoming>,
    partial: &mut Partial,
    total: u64,
) -> anyhow::Result<()> {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let mut body = answer.into_body();
    loop {
        bar.set_position(partial.bytes());
        let frame = timeout(PIECE_DEADLINE, body.frame())
            .await
            .context("no more bytes came")?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| HttpError::Body(error.into()))?;
        if let Ok(data) = frame.into_data() {
            partial.append(&data).await?;
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// 7-2026-11-23T20-15-00Z.webm
fn usual_name(recording: &Recording, key: &str) -> PathBuf {
    let extension = Path::new(key)
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or("bin");
    let safe = |text: &str| text.replace(['/', '\\'], "_");
    format!(
        "{}-{}.{extension}",
        safe(&recording.show_id),
        safe(&recording.version)
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::recording, *};

    #[test]
    fn a_file_is_named_after_its_show_and_never_leaves_the_directory() {
        let mut recording = recording();
        let name = |recording: &Recording| usual_name(recording, "a/recording.webm");
        assert_eq!(name(&recording), Path::new("7-2026-11-23T20-15-00Z.webm"));
        recording.show_id = "../x".into();
        assert_eq!(
            name(&recording),
            Path::new(".._x-2026-11-23T20-15-00Z.webm")
        );
    }
}
