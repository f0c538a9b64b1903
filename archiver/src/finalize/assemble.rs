//! From takes to objects.
//!
//! Owns which objects a session becomes: for now one a take, each exactly as it came, and the
//! manifest beside them. Nothing outside this module knows that mapping.

use super::{
    halt::{self, Halt, Stop},
    job::{Job, extent},
    jobs::Progress,
    prove::prove,
    source::{TakeReader, media_bytes},
    upload::{Made, Upload},
    verdict::Proof,
};
use crate::{
    db::{Claim, StoredObject},
    keys::{Folder, Kind, Place, extension},
    store::{Crc64, Extent, ObjectMeta, ObjectStore, Precondition, UploadRef},
};
use bytes::Bytes;
use serde_json::{Value, json};

/// Who wrote a manifest.
const SOFTWARE: &str = concat!("aircheck/", env!("CARGO_PKG_VERSION"));
const MANIFEST_TYPE: &str = "application/json";
const PARTS_MAX: u64 = 10_000;
const MIB: u64 = 1 << 20;

/// The archive of one session while it is being made.
pub(super) struct Archive<'a> {
    job: &'a Job,
    stop: &'a Stop,
    claim: &'a Claim,
    folder: Folder,
    /// What the row says is being made, or was by an earlier job.
    plan: Vec<StoredObject>,
    /// Bytes in finished objects.
    archived: u64,
    conflict: Option<String>,
}

impl<'a> Archive<'a> {
    pub(super) fn new(
        job: &'a Job,
        stop: &'a Stop,
        claim: &'a Claim,
        folder: Folder,
        plan: Vec<StoredObject>,
    ) -> Self {
        Self {
            job,
            stop,
            claim,
            folder,
            plan,
            archived: 0,
            conflict: None,
        }
    }

    /// What is wrong with the archive because somebody else's object stood in the way.
    pub(super) fn conflict(&self) -> Option<String> {
        self.conflict.clone()
    }

    /// Makes the object of every take that has bytes, or proves the one that is there.
    pub(super) async fn takes(&mut self) -> Result<Vec<StoredObject>, Halt> {
        let manifest = &self.job.manifest;
        let takes = u32::try_from(manifest.takes.len()).unwrap_or(u32::MAX);
        let mut objects = Vec::new();
        for take in (0..takes).filter(|&take| media_bytes(manifest, take) > 0) {
            let nth = (!objects.is_empty()).then(|| take + 1);
            let object = self.take(take, nth).await?;
            self.archived += object.bytes;
            self.tell(0);
            objects.push(object);
        }
        Ok(objects)
    }

    async fn take(&mut self, take: u32, nth: Option<u32>) -> Result<StoredObject, Halt> {
        if let Some(object) = self.proved(take).await? {
            let regular = self
                .folder
                .media(nth, extension(&object.key), Place::Regular);
            if object.key != regular {
                self.blame(&regular);
            }
            return Ok(object);
        }
        let mut precondition = Precondition::Absent;
        let mut place = Place::Regular;
        let mut backoff = halt::backoff();
        loop {
            self.abort_stale(take).await;
            match self.send(take, nth, place, &precondition).await? {
                (Made::Proved(whole), mut object) => {
                    object.crc64nvme = Some(whole.crc.to_base64());
                    object.upload_id = None;
                    self.record(object.clone()).await?;
                    return Ok(object);
                }
                (Made::StartOver(seen), _) => {
                    precondition = seen;
                    self.stop.sleep(backoff.delay()).await?;
                }
                (Made::Foreign, object) => {
                    place = step_aside(place, &object.key)?;
                    self.blame(&object.key);
                    precondition = Precondition::Absent;
                }
            }
        }
    }

    /// The object of an earlier job, if it came into being.
    async fn proved(&self, take: u32) -> Result<Option<StoredObject>, Halt> {
        let Some(object) = self.planned(take) else {
            return Ok(None);
        };
        let Some(whole) = extent(object) else {
            return Ok(None);
        };
        if whole.bytes != media_bytes(&self.job.manifest, take) {
            return Ok(None);
        }
        let proof = prove(self.store(), self.stop, &object.key, &self.claim.id, whole).await?;
        let object = StoredObject {
            upload_id: None,
            ..object.clone()
        };
        Ok((proof == Proof::Proved).then_some(object))
    }

    /// Sends one take under one key.
    async fn send(
        &mut self,
        take: u32,
        nth: Option<u32>,
        place: Place,
        precondition: &Precondition,
    ) -> Result<(Made, StoredObject), Halt> {
        let bytes = media_bytes(&self.job.manifest, take);
        let part_bytes = part_bytes(self.job.context.part_size, bytes);
        let mut reader = self.reader(take);
        let first = reader.fill(part_bytes).await?;
        let record = self.job.manifest.takes.get(take as usize);
        let kind = Kind::of(&first, record.map_or("", |record| &record.mime));
        let mut object = StoredObject {
            key: self.folder.media(nth, kind.extension, place),
            take,
            bytes,
            crc64nvme: None,
            content_type: kind.content_type.to_owned(),
            upload_id: None,
        };
        let whole = Extent {
            bytes,
            crc: Crc64::of(&first),
        };
        let is_small = first.len() as u64 == bytes;
        let meta = ObjectMeta {
            content_type: kind.content_type.to_owned(),
            disposition: self.folder.disposition(nth, kind.extension),
            session: self.claim.id.clone(),
            epoch: self.claim.epoch,
            crc: is_small.then_some(whole.crc),
        };
        let upload = Upload {
            store: self.store(),
            stop: self.stop,
            key: &object.key,
            meta: &meta,
        };
        if !upload.is_free(bytes).await? {
            return Ok((Made::Foreign, object));
        }
        if is_small {
            let planned = StoredObject {
                crc64nvme: Some(whole.crc.to_base64()),
                ..object.clone()
            };
            self.record(planned).await?;
            let made = upload.small(first, precondition).await?;
            return Ok((made, object));
        }
        let begun = upload.begin().await?;
        object.upload_id = Some(begun.id.clone());
        self.record(object.clone()).await?;
        let parts = upload
            .parts(&begun, &mut reader, first, part_bytes, |sent| {
                self.tell(sent);
            })
            .await?;
        let Some(parts) = parts else {
            return Ok((Made::StartOver(precondition.clone()), object));
        };
        // From here on the object may exist at any moment: the row must know its checksum before.
        object.crc64nvme = Some(parts.whole.crc.to_base64());
        self.record(object.clone()).await?;
        let made = upload.complete(&begun, &parts, precondition).await?;
        Ok((made, object))
    }

    /// Aborts the upload of an earlier attempt: this one begins its own.
    async fn abort_stale(&mut self, take: u32) {
        let Some(object) = self.plan.iter_mut().find(|object| object.take == take) else {
            return;
        };
        let Some(id) = object.upload_id.take() else {
            return;
        };
        let upload = UploadRef {
            key: object.key.clone(),
            id,
        };
        if let Err(error) = self.job.context.store.abort(&upload).await {
            tracing::info!(
                error = halt::chain(&error),
                "an old upload could not be aborted"
            );
        }
    }

    /// Notes for the row that somebody else's object has the archive's own key.
    fn blame(&mut self, key: &str) {
        self.conflict.get_or_insert_with(|| {
            format!("conflict: somebody else's object is at {key}; the archive is stored beside it")
        });
    }

    /// Writes the manifest beside the objects and answers its key.
    pub(super) async fn manifest(
        &mut self,
        version: &str,
        objects: &[StoredObject],
    ) -> Result<String, Halt> {
        let body = Bytes::from(self.manifest_json(version, objects));
        let meta = ObjectMeta {
            content_type: MANIFEST_TYPE.to_owned(),
            disposition: "inline".to_owned(),
            session: self.claim.id.clone(),
            epoch: self.claim.epoch,
            crc: Some(Crc64::of(&body)),
        };
        let mut precondition = Precondition::Absent;
        let mut place = Place::Regular;
        let mut backoff = halt::backoff();
        loop {
            let key = self.folder.manifest(place);
            let upload = Upload {
                store: self.store(),
                stop: self.stop,
                key: &key,
                meta: &meta,
            };
            match upload.small(body.clone(), &precondition).await? {
                Made::Proved(_) => return Ok(key),
                Made::StartOver(seen) => {
                    precondition = seen;
                    self.stop.sleep(backoff.delay()).await?;
                }
                Made::Foreign => {
                    place = step_aside(place, &key)?;
                    precondition = Precondition::Absent;
                }
            }
        }
    }

    fn manifest_json(&self, version: &str, objects: &[StoredObject]) -> String {
        let mut manifest = serde_json::to_value(&*self.job.manifest).unwrap_or_default();
        let objects: Vec<Value> = objects
            .iter()
            .map(|object| {
                json!({
                    "key": object.key,
                    "take": object.take,
                    "bytes": object.bytes,
                    "crc64nvme": object.crc64nvme,
                    "content_type": object.content_type,
                })
            })
            .collect();
        if let Some(fields) = manifest.as_object_mut() {
            fields.insert("version".to_owned(), json!(version));
            fields.insert("objects".to_owned(), json!(objects));
            fields.insert("software".to_owned(), json!(SOFTWARE));
        }
        format!("{manifest:#}\n")
    }

    fn reader(&self, take: u32) -> TakeReader {
        let Job {
            manifest,
            ingest,
            listeners,
            ..
        } = self.job;
        TakeReader::new(
            ingest.clone(),
            self.stop.clone(),
            listeners.clone(),
            manifest,
            take,
        )
    }

    fn store(&self) -> &'a dyn ObjectStore {
        &*self.job.context.store
    }

    fn planned(&self, take: u32) -> Option<&StoredObject> {
        self.plan.iter().find(|object| object.take == take)
    }

    /// Writes what is being made into the row, before it comes into being.
    async fn record(&mut self, object: StoredObject) -> Result<(), Halt> {
        match self
            .plan
            .iter_mut()
            .find(|planned| planned.take == object.take)
        {
            Some(planned) => *planned = object,
            None => self.plan.push(object),
        }
        let db = &self.job.context.db;
        let held = self
            .stop
            .persist("note the plan", || db.plan(self.claim, &self.plan))
            .await?;
        if held { Ok(()) } else { Err(Halt::ClaimLost) }
    }

    /// `sent`: bytes of the present object that the store has taken.
    fn tell(&self, sent: u64) {
        let archived = self.archived + sent;
        self.job.listeners.tell(Progress {
            bytes: self.job.manifest.bytes(),
            archived,
        });
    }
}

/// Where to go when somebody else's object has the key.
fn step_aside(place: Place, key: &str) -> Result<Place, Halt> {
    if place == Place::Beside {
        return Err(Halt::Conflict {
            key: key.to_owned(),
        });
    }
    tracing::error!(key, "somebody else's object has our key; it is left alone");
    Ok(Place::Beside)
}

/// Size of every part but the last: as configured, more where a take would need too many.
fn part_bytes(configured: u64, total: u64) -> usize {
    let needed = total.div_ceil(PARTS_MAX).next_multiple_of(MIB);
    usize::try_from(configured.max(needed)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_grow_only_where_ten_thousand_would_not_do() {
        assert_eq!(part_bytes(5 * MIB, 100 * MIB), 5 << 20);
        assert_eq!(part_bytes(5 * MIB, 50_000 * MIB), 5 << 20);
        assert_eq!(part_bytes(5 * MIB, 50_000 * MIB + 1), 6 << 20);
    }
}
