//! One archive, read from the store from end to end and compared with its recording.
//!
//! Owns the verdict; must never write anything.

use super::download::follow;
use crate::http::{Http, HttpError, escaped, join, refusal};
use aircheck_core::recording::Recording;
use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use crc_fast::{CrcAlgorithm::Crc64Nvme, Digest};
use http::StatusCode;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

/// Longest wait for the next bytes.
const PIECE_DEADLINE: Duration = Duration::from_secs(60);

/// What was found, as JSON with `"ok"`.
///
/// # Errors
/// If the archive can't be read.
pub(in crate::cmd) async fn run(
    http: &Http,
    to: &str,
    recording: &Recording,
) -> anyhow::Result<Value> {
    if recording.object_key.is_none() {
        return Ok(verdict(recording, None));
    }
    let path = format!("/api/recordings/{}/download", escaped(&recording.id));
    let answer = follow(http, join(to, &path)?, 0).await?;
    if answer.status() != StatusCode::OK {
        return Err(refusal(answer).await.into());
    }
    let (mut body, mut bytes, mut checksum) = (answer.into_body(), 0, Digest::new(Crc64Nvme));
    loop {
        let frame = timeout(PIECE_DEADLINE, body.frame())
            .await
            .context("no more bytes came")?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| HttpError::Body(error.into()))?;
        if let Ok(data) = frame.into_data() {
            bytes += data.len() as u64;
            checksum.update(&data);
        }
    }
    // As S3 writes it.
    let checksum = STANDARD.encode(checksum.finalize().to_be_bytes());
    Ok(verdict(recording, Some((bytes, checksum))))
}

fn verdict(recording: &Recording, found: Option<(u64, String)>) -> Value {
    let ok = found.as_ref().is_some_and(|(bytes, crc64nvme)| {
        *bytes == recording.bytes
            && recording
                .crc64nvme
                .as_ref()
                .is_none_or(|known| known == crc64nvme)
    });
    json!({
        "id": recording.id,
        "ok": ok,
        "status": recording.status,
        "object_key": recording.object_key,
        "expected": {"bytes": recording.bytes, "crc64nvme": recording.crc64nvme},
        "found": found.map(|(bytes, crc64nvme)| json!({"bytes": bytes, "crc64nvme": crc64nvme})),
        "gaps": recording.gaps,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::tests::recording, *};

    #[test]
    fn other_bytes_or_none_at_all_are_not_ok() {
        let mut recording = recording();
        recording.bytes = 5;
        recording.crc64nvme = Some("right".to_owned());
        let found = |bytes, crc: &str| verdict(&recording, Some((bytes, crc.to_owned())));
        assert_eq!(found(5, "right")["ok"], true);
        assert_eq!(found(4, "right")["ok"], false);
        assert_eq!(found(5, "wrong")["ok"], false);
        assert_eq!(verdict(&recording, None)["ok"], false);
    }
}
