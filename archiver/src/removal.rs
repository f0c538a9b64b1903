//! Recordings that go: because somebody asked, or because they were rehearsals.
//!
//! Owns the order: objects first, then the row, so that nothing is left that no row names. Must never
//! touch a recording that has not ended.

use crate::{
    db::{Db, DbError, FileWork, RecordingRow, StoredObject, StoredRendition},
    finalize::chain,
    store::{ObjectStore, StoreError},
};
use aircheck_runtime::{clock::unix_ms, shutdown::Shutdown};
use std::time::Duration;
use thiserror::Error;
use tokio::time::sleep;

/// Between two looks for old rehearsals.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));
/// Rehearsals that go at a time.
const BATCH: u64 = 100;

/// Why a recording is still there, in part or as a whole. To try again does no harm.
#[derive(Debug, Error)]
pub(crate) enum RemovalError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Removes what a final recording has in the store, then what its row says of it.
///
/// # Errors
/// If store or database do not answer; then it can be tried again.
pub(crate) async fn remove(
    db: &Db,
    store: &dyn ObjectStore,
    row: &RecordingRow,
) -> Result<(), RemovalError> {
    let withdrawn = match &row.renditions {
        Some(_) => db.withdraw_renditions(&row.id).await?,
        None => None,
    };
    let row = withdrawn.as_ref().unwrap_or(row);
    for rendition in row.renditions.iter().flat_map(|renditions| &renditions.0) {
        remove_rendition(store, rendition).await?;
    }
    let objects = row.objects.0.iter().map(|object| object.key.as_str());
    for key in objects.chain(row.manifest_key.as_deref()) {
        store.delete(key).await?;
    }
    for file in row.work.iter().flat_map(|work| &work.files) {
        let is_known = |object: &StoredObject| Some(&object.key) == file.key.as_ref();
        if !row.objects.0.iter().any(is_known) {
            abandoned(store, &row.id, file).await?;
        }
    }
    db.bury(&row.id).await?;
    tracing::info!(
        recording_id = row.id,
        show_id = row.show_id,
        rehearsal = row.rehearsal,
        "deleted"
    );
    Ok(())
}

/// Removes what a repair that never came to its end has made of a file.
async fn abandoned(store: &dyn ObjectStore, id: &str, file: &FileWork) -> Result<(), StoreError> {
    if let Some(upload) = file.upload()
        && let Err(error) = store.abort(&upload).await
    {
        // Stores differ in what they say of one that was completed.
        tracing::info!(error = chain(&error), "an upload could not be aborted");
    }
    let Some(key) = &file.key else { return Ok(()) };
    // No row ever said that it is there, so it must say itself that it is ours.
    match store.head(key).await? {
        Some(head) if head.session.as_deref() == Some(id) => store.delete(key).await,
        Some(_) | None => Ok(()),
    }
}

/// Removes what there may be of a rendition.
///
/// # Errors
/// If the store does not answer; then it can be tried again.
pub(crate) async fn remove_rendition(
    store: &dyn ObjectStore,
    rendition: &StoredRendition,
) -> Result<(), StoreError> {
    if let Some(upload) = rendition.upload() {
        store.abort(&upload).await?;
    }
    // Before its length was noted nothing was sent: what is there is somebody else's.
    if rendition.bytes.is_some() {
        store.delete(&rendition.key).await?;
    }
    Ok(())
}

/// Removes rehearsals that are over for `retention`, until `shutdown`. Several archivers may do so at
/// once.
pub(crate) async fn of_rehearsals(
    db: Db,
    store: &dyn ObjectStore,
    retention: Duration,
    shutdown: Shutdown,
) {
    let every = (retention / 10).clamp(LOOK_EVERY.0, LOOK_EVERY.1);
    loop {
        if let Err(error) = sweep(&db, store, retention).await {
            tracing::warn!(error = chain(&error), "remove old rehearsals; trying again");
        }
        tokio::select! {
            () = sleep(every) => {}
            () = shutdown.triggered() => return,
        }
    }
}

async fn sweep(db: &Db, store: &dyn ObjectStore, retention: Duration) -> Result<(), RemovalError> {
    let retention_ms = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
    let ended_before = unix_ms().saturating_sub(retention_ms);
    for row in db.old_rehearsals(ended_before, BATCH).await? {
        remove(db, store, &row).await?;
    }
    Ok(())
}
