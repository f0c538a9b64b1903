//! The ingest's side of the archiver: announcing sessions and handing over sealed ones.
//!
//! Owns the retries. A recording never depends on any of this: the archiver may be away for as long as
//! the disk has room.

use crate::session::Command;
use aircheck_core::spool::{Manifest, ManifestError};
use aircheck_proto::archiver::{
    AdvanceRecordingRequest, BeginRecordingRequest, FinalizeRequest, GetRecordingRequest,
    Recording, SessionManifest, archiver_service_client::ArchiverServiceClient,
};
use aircheck_runtime::backoff::Backoff;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tonic::{Status, transport::Channel};

/// Deadline of a call that only touches the database.
const CALL: Duration = Duration::from_secs(5);
/// A finalize stream that says nothing for this long is given up; the archiver reports every second.
const SILENCE: Duration = Duration::from_secs(15);
/// Least time between two announcements of a session.
const ANNOUNCE: Duration = Duration::from_secs(1);

/// A cheap handle on the archiver.
#[derive(Clone, Debug)]
pub(crate) struct Archiver {
    client: ArchiverServiceClient<Channel>,
    /// Where the archiver finds our bytes.
    ingest_url: String,
}

#[derive(Debug, Error)]
enum Attempt {
    #[error("call archiver")]
    Call(#[from] Status),
    #[error("the archiver said nothing for {SILENCE:?}")]
    Silence,
    #[error("the archiver ended its answer without a recording")]
    Unfinished,
    #[error("write manifest")]
    Manifest(#[from] ManifestError),
}

fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(200), Duration::from_secs(30))
}

impl Archiver {
    pub(crate) fn new(channel: Channel, ingest_url: String) -> Self {
        Self {
            client: ArchiverServiceClient::new(channel),
            ingest_url,
        }
    }

    fn manifest(&self, manifest: &Manifest) -> Result<SessionManifest, ManifestError> {
        Ok(SessionManifest {
            json: manifest.to_json()?,
            ingest_url: self.ingest_url.clone(),
        })
    }

    /// Tells the archiver of a session, and of every change, until the session is sealed.
    pub(crate) async fn announce(
        self,
        mut manifests: watch::Receiver<Manifest>,
        session: mpsc::Sender<Command>,
    ) {
        let (mut begun, mut backoff) = (false, backoff());
        loop {
            let manifest = manifests.borrow_and_update().clone();
            if !matches!(
                manifest.stage,
                aircheck_core::spool::Stage::Live | aircheck_core::spool::Stage::Grace { .. }
            ) {
                return;
            }
            match self.announce_once(&manifest, begun).await {
                Ok(takes) => {
                    begun = true;
                    backoff.reset();
                    if !takes.is_empty() && session.send(Command::Archived { takes }).await.is_err()
                    {
                        return;
                    }
                    tokio::time::sleep(ANNOUNCE).await;
                    if manifests.changed().await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(
                        error = &error as &(dyn std::error::Error + 'static),
                        "announce session"
                    );
                    tokio::time::sleep(backoff.delay()).await;
                }
            }
        }
    }

    async fn announce_once(&self, manifest: &Manifest, begun: bool) -> Result<Vec<u64>, Attempt> {
        let mut client = self.client.clone();
        let manifest = Some(self.manifest(manifest)?);
        if begun {
            let request = deadline(AdvanceRecordingRequest { manifest });
            return Ok(client
                .advance_recording(request)
                .await?
                .into_inner()
                .archived);
        }
        client
            .begin_recording(deadline(BeginRecordingRequest { manifest }))
            .await?;
        Ok(Vec::new())
    }

    /// Hands a sealed session over, again and again until its archive is proved, and tells the
    /// session how far it is.
    pub(crate) async fn finalize(self, manifest: Manifest, session: mpsc::Sender<Command>) {
        let mut backoff = backoff();
        loop {
            match self.finalize_once(&manifest, &session).await {
                Ok(recording) => {
                    let recording = Box::new(recording);
                    if session
                        .send(Command::Finalized { recording })
                        .await
                        .is_err()
                    {
                        tracing::warn!(session_id = %manifest.session, "nobody waits for the archive");
                    }
                    return;
                }
                Err(error) => {
                    let delay = backoff.delay();
                    tracing::warn!(
                        error = &error as &(dyn std::error::Error + 'static),
                        session_id = %manifest.session, ?delay, "finalize; trying again"
                    );
                    metrics::counter!("aircheck_finalize_retries_total").increment(1);
                    tokio::time::sleep(delay).await;
                }
            }
        }
    }

    async fn finalize_once(
        &self,
        manifest: &Manifest,
        session: &mpsc::Sender<Command>,
    ) -> Result<Recording, Attempt> {
        let mut client = self.client.clone();
        let request = FinalizeRequest {
            manifest: Some(self.manifest(manifest)?),
        };
        let answer = tokio::time::timeout(SILENCE, client.finalize(request));
        let mut progress = answer.await.map_err(|_| Attempt::Silence)??.into_inner();
        loop {
            let next = tokio::time::timeout(SILENCE, progress.message());
            let Some(step) = next.await.map_err(|_| Attempt::Silence)?? else {
                return Err(Attempt::Unfinished);
            };
            if let Some(recording) = step.recording {
                return Ok(recording);
            }
            let (bytes, archived) = (step.bytes, step.archived);
            if session
                .try_send(Command::Progress { bytes, archived })
                .is_err()
            {
                tracing::debug!("the session is too busy for progress");
            }
        }
    }

    /// How a session ended that this ingest does not remember; `None` where the archiver does not
    /// know it, or does not say in time.
    pub(crate) async fn status_of(&self, session: &str, limit: Duration) -> Option<String> {
        let mut client = self.client.clone();
        let request = GetRecordingRequest {
            id: session.to_owned(),
        };
        let answer = tokio::time::timeout(limit, client.get_recording(request))
            .await
            .ok()?;
        let recording = answer.ok()?.into_inner().recording?;
        let status = recording.status().to_core()?;
        Some(status.as_str().to_owned())
    }
}

fn deadline<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL);
    request
}
