//! The objects of a recording, as its manifest lists them, and their bytes.
//!
//! Owns how they are asked for; must never take a name for one that the recording does not have.

use crate::http::{Http, HttpError, escaped, join, refusal};
use aircheck_core::recording::Recording;
use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;
use tokio::time::timeout;

/// Longest wait for the next bytes.
const PIECE_DEADLINE: Duration = Duration::from_secs(60);
/// Redirects from the gateway to the object: one is usual.
const REDIRECTS_MAX: usize = 4;
/// Largest manifest, bytes: ten thousands of markers.
const MANIFEST_MAX: usize = 16 << 20;

/// What a manifest says of the archive, as far as it is checked against the objects.
#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    pub(super) session: String,
    pub(super) layout: String,
    pub(super) objects: Vec<Object>,
    pub(super) takes: Vec<Take>,
    #[serde(default)]
    pub(super) gaps: Value,
    #[serde(default)]
    pub(super) markers: Value,
    #[serde(default)]
    pub(super) mux: Mux,
    pub(super) duration_ms: Option<u64>,
}

/// A media object.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Object {
    pub(super) key: String,
    pub(super) bytes: u64,
    /// Base64 as S3 writes it.
    pub(super) crc64nvme: Option<String>,
    /// Index, where the object is one take as it came.
    pub(super) take: Option<usize>,
}

/// A take.
#[derive(Debug, Deserialize)]
pub(super) struct Take {
    pub(super) crc64nvme: Option<String>,
}

/// How the archive was muxed.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Mux {
    pub(super) version: Option<u32>,
    pub(super) packets: Option<u64>,
    /// Absent in older manifests.
    pub(super) silence_packets: Option<u64>,
}

impl Manifest {
    /// The objects that are the archive: without the raw takes, where these were stitched later.
    pub(super) fn archive(&self) -> impl Iterator<Item = &Object> {
        let is_stitched = self.layout == "stitched";
        let objects = self.objects.iter();
        objects.filter(move |object| !is_stitched || object.take.is_none())
    }
}

impl Object {
    /// What follows the last slash of its key.
    pub(super) fn name(&self) -> &str {
        self.key
            .rsplit_once('/')
            .map_or(&*self.key, |(_, name)| name)
    }
}

/// Where one asks for objects of one recording.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub(super) http: &'a Http,
    /// The gateway.
    pub(super) to: &'a str,
    pub(super) id: &'a str,
}

impl Source<'_> {
    /// Reads `manifest.json`.
    ///
    /// # Errors
    /// If it can't be had or understood.
    pub(super) async fn manifest(self) -> anyhow::Result<Manifest> {
        let answer = self.open("manifest.json", 0).await?;
        if answer.status() != StatusCode::OK {
            return Err(refusal(answer).await.into());
        }
        let (mut body, mut text) = (answer.into_body(), Vec::new());
        while let Some(piece) = next_piece(&mut body).await? {
            ensure!(
                text.len() + piece.len() <= MANIFEST_MAX,
                "the manifest is too long"
            );
            text.extend_from_slice(&piece);
        }
        serde_json::from_slice(&text).context("the manifest is not understood")
    }

    /// All media objects in order. One that is alone is as the row says, so that a lost manifest
    /// keeps nobody from it.
    ///
    /// # Errors
    /// If there are none, or the manifest is needed and can't be had.
    pub(super) async fn objects(self, recording: &Recording) -> anyhow::Result<Vec<Object>> {
        let Some(key) = &recording.object_key else {
            bail!(
                "recording {} has no archive (status {})",
                recording.id,
                recording.status.as_str()
            );
        };
        if recording.objects.len() > 1 {
            return Ok(self.manifest().await?.objects);
        }
        Ok(vec![Object {
            key: key.clone(),
            bytes: recording.bytes,
            crc64nvme: recording.crc64nvme.clone(),
            take: None,
        }])
    }

    /// Asks for everything of an object from `offset` on, through redirects.
    ///
    /// # Errors
    /// If there is no answer.
    pub(super) async fn open(self, name: &str, offset: u64) -> anyhow::Result<Response<Incoming>> {
        let (id, name) = (escaped(self.id), escaped(name));
        let path = format!("/api/recordings/{id}/download?object={name}");
        let mut url: Uri = join(self.to, &path)?;
        for _ in 0..REDIRECTS_MAX {
            let range = (offset > 0).then(|| HeaderValue::try_from(format!("bytes={offset}-")));
            let answer = self.http.open(&url, range.transpose()?).await?;
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
}

/// What comes next of an answer; `None` at its end.
///
/// # Errors
/// If it breaks off, or nothing comes in time.
pub(super) async fn next_piece(body: &mut Incoming) -> anyhow::Result<Option<Bytes>> {
    loop {
        let frame = timeout(PIECE_DEADLINE, body.frame())
            .await
            .context("no more bytes came")?;
        let Some(frame) = frame else { return Ok(None) };
        let frame = frame.map_err(|error| HttpError::Body(error.into()))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
}
