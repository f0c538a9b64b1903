//! Rows from what is in the bucket, where the database lost them.
//!
//! Owns what a manifest beside an archive is worth: its row is made only if the manifest bears its
//! session's token and stands where it should, and every object it names was proved. Must never
//! change a row that is there, nor an object.

use super::{
    halt::{Halt, Stop},
    job::extent,
    prove::prove,
    raw::conflict,
    verdict::Proof,
};
use crate::{
    db::{Db, DbError, Lost, PlannedRendition, Renditions, StoredObject, StoredRendition},
    keys::{self, Folder, Label, Place},
    store::{Extent, Listed, ObjectStore, StoreError},
};
use aircheck_core::{
    id::{ShowId, version_at},
    recording::Status,
    spool::{Manifest, Stage},
};
use serde::Deserialize;
use thiserror::Error;

/// Manifests grow with reconnects and markers; a day of trouble stays far below.
const MANIFEST_MAX: u64 = 16 << 20;

/// Why the bucket could not be read.
#[derive(Debug, Error)]
pub(crate) enum RebuildError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Halt(#[from] Halt),
}

/// What a manifest has beside the session's own.
#[derive(Debug, Deserialize)]
struct Beside {
    version: String,
    objects: Vec<StoredObject>,
    duration_ms: Option<u64>,
    #[serde(default)]
    renditions: Vec<PlannedRendition>,
}

/// What came of one manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Its row is there again.
    Restored,
    /// Its row was there.
    Present,
    /// It proves nothing, and why.
    Refused(String),
}

/// Where to look.
#[derive(Debug)]
pub(crate) struct Rebuilder<'a> {
    pub(crate) db: &'a Db,
    pub(crate) store: &'a dyn ObjectStore,
    pub(crate) prefix: &'a str,
    pub(crate) stop: &'a Stop,
}

impl Rebuilder<'_> {
    /// Looks at all manifests, or those of one show, and tells of each by its key.
    pub(crate) async fn all(
        &self,
        show: Option<&ShowId>,
        mut tell: impl FnMut(&str, Found),
    ) -> Result<(), RebuildError> {
        let folder = show.map(|show| format!("{show}/")).unwrap_or_default();
        let prefix = format!("{}recordings/{folder}", self.prefix);
        let mut after: Option<String> = None;
        loop {
            let page = self.store.list(&prefix, after.as_deref()).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some(last.key.clone());
            for listed in page.iter().filter(|listed| keys::is_manifest(&listed.key)) {
                tell(&listed.key, self.one(listed, None).await?);
            }
        }
    }

    /// Makes the row of a session that is finalized and has none, if it was archived before; `false`:
    /// there is nothing to make it of.
    pub(super) async fn session(&self, session: &Manifest) -> Result<bool, RebuildError> {
        let version = version_at(session.started_unix_ms);
        let show = &session.show_id;
        // Also the versions of those that began within the same second.
        let prefix = format!("{}recordings/{show}/{version}", self.prefix);
        let page = self.store.list(&prefix, None).await?;
        for listed in page.iter().filter(|listed| keys::is_manifest(&listed.key)) {
            if self.one(listed, Some(session)).await? == Found::Restored {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// `only`: the session it must be of.
    async fn one(&self, listed: &Listed, only: Option<&Manifest>) -> Result<Found, RebuildError> {
        let refused = |why: &str| Ok(Found::Refused(why.to_owned()));
        let Some(text) = self.store.read(&listed.key, MANIFEST_MAX).await? else {
            return refused("it is gone or too large");
        };
        let manifest = Manifest::from_json(&text).ok();
        let beside = serde_json::from_slice::<Beside>(&text).ok();
        let Some((manifest, beside)) = manifest.zip(beside) else {
            return refused("it is no manifest of ours");
        };
        let id = manifest.session.to_string();
        if only.is_some_and(|only| only.session != manifest.session) {
            return refused("it is another session's");
        }
        if self.db.recording(&id).await?.is_some() {
            return Ok(Found::Present);
        }
        let head = self.store.head(&listed.key).await?;
        let token = head.and_then(|head| head.session);
        if token.is_some_and(|token| token != id) {
            return refused("it bears another session's token");
        }
        let folder = Folder::new(
            self.prefix,
            &manifest.seat(),
            &beside.version,
            manifest.session,
        );
        let places = [Place::Regular, Place::Beside].map(|place| folder.manifest(place));
        if !places.contains(&listed.key) {
            return refused("it stands at another recording's place");
        }
        for object in &beside.objects {
            if !self.is_proved(&id, object).await? {
                return Ok(Found::Refused(format!("{} is not as it says", object.key)));
            }
        }
        let mut renditions = Vec::new();
        for planned in &beside.renditions {
            if planned.is_of(&beside.objects) {
                renditions.extend(self.rendition(&id, planned).await?);
            }
        }
        let renditions = (!renditions.is_empty()).then_some(Renditions(renditions));
        let lost = Lost {
            renditions,
            ..lost(&manifest, beside, listed, &folder)
        };
        if self.db.restore(&manifest, &lost).await? {
            tracing::warn!(
                session_id = id,
                manifest = listed.key,
                "the database had lost this recording; its row is made again"
            );
            return Ok(Found::Restored);
        }
        refused("another recording has its version")
    }

    /// One that was made: its object bears the session's token. Nobody else knows its checksum, so it is
    /// what the store says, or what is read.
    async fn rendition(
        &self,
        id: &str,
        planned: &PlannedRendition,
    ) -> Result<Option<StoredRendition>, StoreError> {
        let key = &planned.key;
        let head = self.store.head(key).await?;
        let Some(head) = head.filter(|head| head.session.as_deref() == Some(id)) else {
            return Ok(None);
        };
        let whole = match head.crc {
            Some(crc) => Some(Extent {
                bytes: head.bytes,
                crc,
            }),
            None => self.store.read_back(key).await?,
        };
        Ok(whole.map(|whole| planned.clone().found(whole)))
    }

    async fn is_proved(&self, id: &str, object: &StoredObject) -> Result<bool, Halt> {
        let Some(whole) = extent(object) else {
            return Ok(false);
        };
        let proof = prove(self.store, self.stop, &object.key, id, whole).await?;
        Ok(proof == Proof::Proved)
    }
}

/// The row as it was when it became final.
fn lost(manifest: &Manifest, beside: Beside, listed: &Listed, folder: &Folder) -> Lost {
    let ended_unix_ms = match manifest.stage {
        Stage::Sealed { ended_unix_ms, .. } | Stage::Done { ended_unix_ms, .. } => ended_unix_ms,
        Stage::Live | Stage::Grace { .. } => manifest.latest_unix_ms(),
    };
    let first = beside.objects.first().map(|object| object.key.as_str());
    let stepped_aside = first.and_then(|key| {
        let extension = keys::extension(key);
        let at = |place| folder.media(Label::First, extension, place);
        let regular = at(Place::Regular);
        (key != regular && key != at(Place::Repaired)).then(|| conflict(&regular))
    });
    let empty = first.is_none().then(|| super::job::NO_MEDIA.to_owned());
    let error = manifest.recording_error.clone().or(stepped_aside).or(empty);
    Lost {
        version: beside.version,
        status: error.as_ref().map_or(Status::Archived, |_| Status::Failed),
        error,
        ended_unix_ms,
        archived_unix_ms: listed.written_unix_ms.unwrap_or(ended_unix_ms),
        objects: beside.objects,
        manifest_key: listed.key.clone(),
        duration_ms: beside.duration_ms,
        renditions: None,
    }
}
