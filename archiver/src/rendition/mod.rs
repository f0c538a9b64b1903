//! Renditions: what ffmpeg makes of a final recording for other players, in the background.
//!
//! Owns their order: one at a time, under the recording's claim, each noted before and after it comes
//! into being, so that a crash costs an attempt and never a second object. Must never change a
//! recording's status: it stays archived whatever becomes of its renditions.

mod encode;
mod send;

use crate::{
    db::{Aim, Claim, Claimed, DbError, REMOVAL, RecordingRow, Renditions, StoredRendition},
    finalize::{Context, Halt, Proof, Stop, chain, extent, prove, renew},
    metrics, removal,
    store::{Extent, StoreError},
};
use aircheck_core::rendition::Status;
use std::{io, path::Path, process::ExitStatus, sync::Arc, time::Duration};
use tempfile::TempDir;
use thiserror::Error;
use tokio::fs::File;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

/// Between two looks for what is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Recordings that are taken from one look.
const BATCH: u64 = 16;
/// Attempts before a rendition is given up.
const ATTEMPTS_MAX: u32 = 5;
/// How long ffmpeg may take for a recording of no length; the playing time comes on top.
const ENCODE_LEAST: Duration = Duration::from_secs(600);
/// Playing time of a recording that does not know its own.
const UNKNOWN_LENGTH: Duration = Duration::from_secs(86_400);

/// Why a rendition was not made.
#[derive(Debug, Error)]
enum Failure {
    /// The archiver goes down, or has the recording no more.
    #[error(transparent)]
    Halt(#[from] Halt),
    #[error("a temporary file")]
    File(#[from] io::Error),
    #[error("ffmpeg can't be run: {0}")]
    Start(#[source] io::Error),
    #[error("ffmpeg did not end in time")]
    Timeout,
    #[error("ffmpeg failed: {words}")]
    Ffmpeg {
        status: Option<ExitStatus>,
        words: String,
    },
    #[error("the object that it is made of is not what was archived")]
    Source,
    #[error("somebody else's object has its key")]
    Foreign,
}

/// Makes what is due, until shutdown. Several archivers may do so at once.
pub(crate) async fn work(context: Arc<Context>) {
    let stop = Stop::new(context.shutdown.clone());
    while stop.check().is_ok() {
        match context.db.due_renditions(BATCH).await {
            Ok(ids) => {
                for id in ids {
                    let span = tracing::info_span!("renditions", session_id = id);
                    if let Err(error) = recording(&context, &id).instrument(span).await {
                        tracing::warn!(error = chain(&error), "renditions wait");
                    }
                }
            }
            Err(error) => tracing::warn!(error = chain(&error), "look for renditions"),
        }
        if stop.sleep(LOOK_EVERY).await.is_err() {
            return;
        }
    }
}

/// Makes what is due of one recording, if nobody else does.
async fn recording(context: &Arc<Context>, id: &str) -> Result<(), DbError> {
    let stop = Stop::new(context.shutdown.clone());
    if stop.check().is_err() {
        return Ok(());
    }
    let Context {
        db, owner, lease, ..
    } = &**context;
    let Claimed::Ours(claim, mut row) = db.claim(id, owner, *lease, Aim::Render).await? else {
        return Ok(());
    };
    let renewal = renew(Arc::clone(context), claim.clone(), stop.clone());
    let renewal = AbortOnDropHandle::new(tokio::spawn(renewal));
    let renditions = row.renditions.take().unwrap_or_default();
    let mut job = Job {
        context,
        stop,
        claim,
        row: *row,
        renditions,
    };
    let ended = job.run().await;
    drop(renewal);
    match ended {
        Ok(()) => job.put_down().await,
        Err(Halt::ClaimLost) => job.clear_away().await,
        Err(halt) => {
            tracing::info!(reason = %halt, "stopped before the end");
            job.put_down().await
        }
    }
}

/// The renditions of one recording, under its claim.
struct Job<'a> {
    context: &'a Context,
    stop: Stop,
    claim: Claim,
    row: RecordingRow,
    renditions: Renditions,
}

impl Job<'_> {
    async fn run(&mut self) -> Result<(), Halt> {
        for index in 0..self.renditions.0.len() {
            let Some(before) = self.renditions.0.get(index).cloned() else {
                break;
            };
            if before.status != Status::Due {
                continue;
            }
            let attempts = before.attempts + 1;
            // Counted before it begins: one that kills the archiver must not do so for ever.
            let mut now = StoredRendition { attempts, ..before };
            self.note(index, &now).await?;
            let made = self.make(index, &mut now).await;
            match made {
                Ok(()) => {
                    metrics::rendered(true);
                    tracing::info!(key = now.key, bytes = now.bytes, "rendition made");
                    now.status = Status::Done;
                    (now.upload_id, now.error) = (None, None);
                }
                Err(Failure::Halt(halt)) => {
                    // Nobody's fault.
                    now.attempts -= 1;
                    if let Some(entry) = self.renditions.0.get_mut(index) {
                        *entry = now;
                    }
                    return Err(halt);
                }
                Err(failure) => failed(&mut now, &failure),
            }
            self.note(index, &now).await?;
        }
        Ok(())
    }

    /// Makes one, or finds that it is there.
    async fn make(&mut self, index: usize, now: &mut StoredRendition) -> Result<(), Failure> {
        let store = &*self.context.store;
        if let Some(whole) = now.extent()
            && prove(store, &self.stop, &now.key, &self.row.id, whole).await? == Proof::Proved
        {
            return Ok(());
        }
        if let Some(upload) = now.upload() {
            let abort = || store.abort(&upload);
            self.stop.persist("abort an upload", abort).await?;
            now.upload_id = None;
        }
        let folder = TempDir::with_prefix("aircheck-rendition-")?;
        let (input, output) = (folder.path().join("archive"), folder.path().join("made"));
        self.fetch(&now.source, &input).await?;
        let length = match self.row.duration_ms {
            Some(ms) => Duration::from_millis(ms.unsigned_abs()),
            None => UNKNOWN_LENGTH,
        };
        let files = (&*input, &*output);
        let wish = (now.format, now.bitrate);
        let (ffmpeg, deadline) = (&self.context.ffmpeg, ENCODE_LEAST + length);
        encode::encode(ffmpeg, wish, files, deadline, &self.stop).await?;
        self.send(index, now, &output).await
    }

    /// Brings an object of the recording into a file.
    async fn fetch(&self, key: &str, path: &Path) -> Result<(), Failure> {
        let mut objects = self.row.objects.0.iter();
        let object = objects.find(|object| object.key == key);
        let expected = object.and_then(extent).ok_or(Failure::Source)?;
        let store = &*self.context.store;
        let get = || async {
            let mut file = File::create(path).await.map_err(StoreError::reading)?;
            store.fetch(key, &mut file).await
        };
        let fetched: Option<Extent> = tokio::select! {
            fetched = self.stop.persist("get the archive", get) => fetched?,
            halt = self.stop.stopped() => return Err(halt.into()),
        };
        if fetched == Some(expected) {
            Ok(())
        } else {
            Err(Failure::Source)
        }
    }

    /// Notes where one stands.
    async fn note(&mut self, index: usize, now: &StoredRendition) -> Result<(), Halt> {
        if let Some(entry) = self.renditions.0.get_mut(index) {
            *entry = now.clone();
        }
        let db = &self.context.db;
        let note = || db.note_renditions(&self.claim, &self.renditions);
        match self.stop.persist("note a rendition", note).await? {
            true => Ok(()),
            false => Err(Halt::ClaimLost),
        }
    }

    /// Lets go of the row until the next attempt is due.
    async fn put_down(&self) -> Result<(), DbError> {
        let due = self.renditions.0.iter();
        let due = due.filter(|rendition| rendition.status == Status::Due);
        let again_in = due.map(|rendition| self.wait(rendition.attempts)).min();
        let Self {
            claim, renditions, ..
        } = self;
        let db = &self.context.db;
        db.put_down_renditions(claim, renditions, again_in).await?;
        Ok(())
    }

    fn wait(&self, attempts: u32) -> Duration {
        let doubled = attempts.checked_sub(1).map(|again| 1 << again.min(16));
        self.context.rendition_retry * doubled.unwrap_or(0)
    }

    /// After the claim was lost: removes what was sent too late for whoever removed the recording.
    async fn clear_away(&self) -> Result<(), DbError> {
        let row = self.context.db.recording(&self.row.id).await?;
        if row.is_none_or(|row| row.claim_owner.as_deref() != Some(REMOVAL)) {
            return Ok(());
        }
        for rendition in &self.renditions.0 {
            let removed = removal::remove_rendition(&*self.context.store, rendition).await;
            if let Err(error) = removed {
                tracing::warn!(
                    key = rendition.key,
                    error = chain(&error),
                    "a rendition of a removed recording may be left"
                );
            }
        }
        Ok(())
    }
}

/// Notes a failure, and gives up where another attempt would be in vain.
fn failed(now: &mut StoredRendition, failure: &Failure) {
    metrics::rendered(false);
    let error = chain(failure);
    let hopeless = matches!(failure, Failure::Foreign);
    if hopeless || now.attempts >= ATTEMPTS_MAX {
        now.status = Status::Failed;
        tracing::error!(key = now.key, error, "a rendition was given up");
    } else {
        tracing::warn!(
            key = now.key,
            error,
            attempts = now.attempts,
            "no rendition"
        );
    }
    now.error = Some(error);
}
