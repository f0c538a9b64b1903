//! Multipart uploads that nobody will ever complete.
//!
//! Owns the proof that nobody owns one. An upload is dropped only while this process holds the claim
//! of the recording whose key it has, and only if the recording is final or its row names another
//! upload: then whoever began it, before this claim, can't name it in the row any more. Uploads at
//! keys of no recording of ours are never touched.

use super::{
    halt::{self, Halt, Stop},
    job::Context,
};
use crate::{
    db::{Aim, Claim, Claimed, Db, DbError, RecordingRow},
    keys, metrics,
    store::{ObjectStore, OpenUpload, StoreError, UploadRef},
};
use aircheck_core::{recording::Status, rendition::Status as RenditionStatus};
use aircheck_runtime::clock::unix_ms;
use std::{sync::Arc, time::Duration};
use thiserror::Error;
use ulid::Ulid;

/// When uploads are looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// Between two looks.
    pub(crate) every: Duration,
    /// Younger ones are left alone, whatever the row says.
    pub(crate) age: Duration,
}

/// Why an upload was not judged. The next look will.
#[derive(Debug, Error)]
enum Trouble {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nobody owned it; it is gone.
    Dropped,
    /// Somebody works on its recording, or its row names it.
    Owned,
    /// Its key belongs to no recording that we know.
    Unknown,
}

/// Looks for such uploads.
#[derive(Debug)]
pub(super) struct Sweeper {
    db: Db,
    store: Arc<dyn ObjectStore>,
    prefix: String,
    lease: Duration,
    /// Another name than that of the jobs: a claim of this process keeps it out like any other.
    owner: String,
    stop: Stop,
    schedule: Schedule,
}

impl Sweeper {
    pub(super) fn new(context: &Context, schedule: Schedule) -> Self {
        Self {
            db: context.db.clone(),
            store: Arc::clone(&context.store),
            prefix: context.prefix.clone(),
            lease: context.lease,
            owner: format!("sweeper-{}", Ulid::new()),
            stop: Stop::new(context.shutdown.clone()),
            schedule,
        }
    }

    /// Looks now and again, until the archiver goes down.
    pub(super) async fn run(self) {
        while let Ok(()) = self.sweep().await {
            if self.stop.sleep(self.schedule.every).await.is_err() {
                break;
            }
        }
    }

    /// Looks at all uploads below our prefix, once.
    async fn sweep(&self) -> Result<(), Halt> {
        let mut open = Vec::new();
        for kind in keys::KINDS {
            let prefix = format!("{}{kind}", self.prefix);
            match self.store.list_uploads(&prefix).await {
                Ok(found) => open.extend(found),
                Err(error) => note("list uploads under way", &error),
            }
        }
        let before = unix_ms().saturating_sub(millis(self.schedule.age));
        let is_old = |open: &OpenUpload| open.begun_unix_ms.is_none_or(|begun| begun <= before);
        let (mut dropped, mut unknown) = (0_u64, 0_u64);
        for open in open.into_iter().filter(is_old) {
            self.stop.check()?;
            match self.judge(&open.upload).await {
                Ok(Verdict::Dropped) => dropped += 1,
                Ok(Verdict::Owned) => {}
                Ok(Verdict::Unknown) => unknown += 1,
                Err(trouble) => note("look at an upload", &trouble),
            }
        }
        if dropped + unknown > 0 {
            tracing::info!(dropped, unknown, "looked for abandoned uploads");
        }
        Ok(())
    }

    async fn judge(&self, upload: &UploadRef) -> Result<Verdict, Trouble> {
        let Some((show, version)) = keys::recording_of(&self.prefix, &upload.key) else {
            return Ok(Verdict::Unknown);
        };
        let Some(row) = self.db.recording_at(&show, &version).await? else {
            return Ok(Verdict::Unknown);
        };
        if row.deleted_at.is_some() {
            // Nobody can claim it any more.
            return self.drop_upload(upload, &row).await;
        }
        let aim = match Status::parse(&row.status) {
            Some(Status::Recording) => Aim::Live,
            Some(Status::Finalizing) => Aim::Finalize,
            Some(Status::Archived | Status::Failed) => Aim::Repair,
            None => return Ok(Verdict::Owned),
        };
        if !is_dead(&row, upload) {
            return Ok(Verdict::Owned);
        }
        match self.db.claim(&row.id, &self.owner, self.lease, aim).await? {
            Claimed::Ours(claim, row) => self.judge_claimed(&claim, &row, upload).await,
            Claimed::Theirs | Claimed::Final(_) => Ok(Verdict::Owned),
        }
    }

    /// Nobody else works on the recording: what the row does not name now, nobody will name.
    async fn judge_claimed(
        &self,
        claim: &Claim,
        row: &RecordingRow,
        upload: &UploadRef,
    ) -> Result<Verdict, Trouble> {
        let verdict = if is_dead(row, upload) {
            self.drop_upload(upload, row).await
        } else {
            Ok(Verdict::Owned)
        };
        // If that fails, the lease runs out by itself.
        self.db.release(claim).await?;
        verdict
    }

    async fn drop_upload(
        &self,
        upload: &UploadRef,
        row: &RecordingRow,
    ) -> Result<Verdict, Trouble> {
        self.store.abort(upload).await?;
        metrics::upload_swept();
        tracing::warn!(
            session_id = row.id,
            status = row.status,
            key = upload.key,
            upload_id = upload.id,
            "dropped an upload that nobody owns"
        );
        Ok(Verdict::Dropped)
    }
}

/// Whether nobody needs the upload, as far as this row is concerned.
fn is_dead(row: &RecordingRow, upload: &UploadRef) -> bool {
    if row.deleted_at.is_some() {
        return true;
    }
    let id = Some(&upload.id);
    let renditions = row.renditions.iter().flat_map(|renditions| &renditions.0);
    let mut due = renditions.filter(|rendition| rendition.status == RenditionStatus::Due);
    if due.any(|rendition| rendition.upload_id.as_ref() == id) {
        return false;
    }
    if Status::parse(&row.status).is_some_and(Status::is_final) {
        return true;
    }
    let files = row.work.iter().flat_map(|work| &work.files);
    let named_by_work = files.map(|file| &file.upload_id);
    let named_by_plan = row.objects.0.iter().map(|object| &object.upload_id);
    !named_by_work
        .chain(named_by_plan)
        .any(|named| named.as_ref() == id)
}

fn note(what: &'static str, error: &(dyn std::error::Error + 'static)) {
    tracing::info!(what, error = halt::chain(error), "the next look will tell");
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
