//! The ingest's side of the archiver: announcing sessions and handing over sealed ones.
//!
//! Owns the retries. A recording never depends on any of this: the archiver may be away for as long as
//! the disk has room.

use crate::{session::Command, spool::Marks};
use aircheck_core::spool::{Manifest, ManifestError};
use aircheck_proto::archiver::{
    AdvanceRecordingRequest, BeginRecordingRequest, FinalizeRequest, GetRecordingRequest,
    Recording, SessionManifest, archiver_service_client::ArchiverServiceClient,
};
use aircheck_runtime::backoff::Backoff;
use aircheck_runtime::failpoint::Failpoint;
use std::{ops::ControlFlow, time::Duration};
use thiserror::Error;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tonic::{Status, transport::Channel};

/// Deadline of a call that only touches the database.
const CALL: Duration = Duration::from_secs(5);
/// A finalize stream that says nothing for this long is given up; the archiver reports every second.
const SILENCE: Duration = Duration::from_secs(15);
/// Least time between two announcements of a session.
const ANNOUNCE: Duration = Duration::from_secs(2);
/// New bytes that are worth an announcement.
const GROWN: u64 = 1 << 20;
/// How long fewer wait for one, and how long the archiver is not asked how much is archived.
const GROWN_LATE: Duration = Duration::from_secs(10);

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

/// What the archiver is to know of one session.
#[derive(Debug)]
pub(crate) struct Announcements {
    latest: watch::Sender<Manifest>,
    /// Durable bytes that are in it, holes counted.
    durable: u64,
    at: Instant,
}

impl Announcements {
    pub(crate) fn new(manifest: Manifest) -> Self {
        Self {
            latest: watch::Sender::new(manifest),
            durable: 0,
            at: Instant::now(),
        }
    }

    /// Ends when the session is sealed.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Manifest> {
        self.latest.subscribe()
    }

    /// Something besides bytes has changed.
    pub(crate) fn changed(&mut self, manifest: Manifest) {
        self.durable = manifest.takes.iter().map(|take| take.bytes).sum();
        self.at = Instant::now();
        self.latest.send_replace(manifest);
    }

    /// The takes now hold so many durable bytes. Thousands of sessions grow all the time, so that the
    /// manifest is only made where enough is new.
    pub(crate) fn grew(&mut self, durable: u64, manifest: impl FnOnce() -> Manifest) {
        let new = durable.saturating_sub(self.durable);
        if new >= GROWN || (new > 0 && self.at.elapsed() >= GROWN_LATE) {
            self.changed(manifest());
        }
    }
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

    /// Tells the archiver of a session, and of every change, until the session is sealed. Not before
    /// its beginning is durable: a session that a crash takes back would leave a row that nobody ends.
    pub(crate) async fn announce(
        self,
        mut manifests: watch::Receiver<Manifest>,
        mut marks: watch::Receiver<Marks>,
        session: mpsc::Sender<Command>,
    ) {
        let begun = marks.wait_for(|marks| marks.events > 0 || marks.failed.is_some());
        if begun.await.is_err() {
            return;
        }
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
                    if news(&mut manifests).await.is_break() {
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
        Failpoint::FinalizeSent.pass();
        let answer = tokio::time::timeout(SILENCE, client.finalize(request));
        let mut progress = answer.await.map_err(|_| Attempt::Silence)??.into_inner();
        loop {
            let next = tokio::time::timeout(SILENCE, progress.message());
            let Some(step) = next.await.map_err(|_| Attempt::Silence)?? else {
                return Err(Attempt::Unfinished);
            };
            if let Some(recording) = step.recording {
                Failpoint::FinalizeAnswered.pass();
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

/// Waits until there is something to tell the archiver, or it may have something to tell us: parts fill
/// from what it knows already, also while no more comes.
async fn news(manifests: &mut watch::Receiver<Manifest>) -> ControlFlow<()> {
    match tokio::time::timeout(GROWN_LATE, manifests.changed()).await {
        Ok(Err(_sealed)) => ControlFlow::Break(()),
        Ok(Ok(())) | Err(_) => ControlFlow::Continue(()),
    }
}

fn deadline<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL);
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use aircheck_core::{id::SessionId, spool::TakeRecord};

    fn manifest(bytes: u64) -> Manifest {
        let id: SessionId = "01JDA0000000000000000000AB".parse().expect("a session id");
        let mut manifest = Manifest::new(id, "7".parse().expect("a show id"), 1000, 30_000);
        manifest.takes.push(TakeRecord {
            id: "take".to_owned(),
            mime: "audio/webm".to_owned(),
            started_unix_ms: 1000,
            bytes,
        });
        manifest
    }

    #[tokio::test(start_paused = true)]
    async fn growth_is_told_once_it_is_a_mebibyte_or_late() {
        let mut announcements = Announcements::new(manifest(0));
        let mut told = announcements.subscribe();
        announcements.grew(GROWN - 1, || manifest(GROWN - 1));
        assert!(!told.has_changed().expect("open"));
        announcements.grew(GROWN, || manifest(GROWN));
        assert!(told.has_changed().expect("open"));
        assert_eq!(told.borrow_and_update().bytes(), GROWN);
        announcements.grew(GROWN + 1, || manifest(GROWN + 1));
        tokio::time::advance(GROWN_LATE).await;
        announcements.grew(GROWN, || manifest(GROWN));
        assert!(!told.has_changed().expect("open"), "nothing is new");
        announcements.grew(GROWN + 1, || manifest(GROWN + 1));
        assert!(told.has_changed().expect("open"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_archiver_is_asked_again_also_while_nothing_is_new() {
        let announcements = Announcements::new(manifest(0));
        let mut told = announcements.subscribe();
        let begun = Instant::now();
        assert!(news(&mut told).await.is_continue());
        assert_eq!(begun.elapsed(), GROWN_LATE);
        drop(announcements);
        assert!(news(&mut told).await.is_break());
    }
}
