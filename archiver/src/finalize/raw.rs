//! The raw archive: each take an object of its own, exactly as it came.
//!
//! Owns which objects they are. For sessions that can't be stitched; nothing outside this module
//! knows that mapping.

use super::{
    halt::{self, Halt, Stop},
    job::{Job, extent},
    jobs::Progress,
    prove::prove,
    source::{Origin, TakeReader, media_bytes},
    stitched::part_bytes,
    upload::{Made, Upload},
    verdict::Proof,
};
use crate::{
    db::{Claim, StoredObject},
    keys::{Folder, Kind, Label, Place, extension},
    store::{Crc64, Extent, ObjectMeta, ObjectStore, Precondition, UploadRef},
};

/// The objects of one session while they are being made.
pub(super) struct Takes<'a> {
    job: &'a Job,
    stop: &'a Stop,
    claim: &'a Claim,
    folder: &'a Folder,
    /// What the row says is being made, or was by an earlier job.
    plan: Vec<StoredObject>,
    /// Bytes in finished objects.
    archived: u64,
    conflict: Option<String>,
}

impl<'a> Takes<'a> {
    pub(super) fn new(
        job: &'a Job,
        stop: &'a Stop,
        claim: &'a Claim,
        folder: &'a Folder,
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
    pub(super) async fn make(&mut self) -> Result<Vec<StoredObject>, Halt> {
        let manifest = &self.job.manifest;
        let takes = u32::try_from(manifest.takes.len()).unwrap_or(u32::MAX);
        let mut objects = Vec::new();
        for take in (0..takes).filter(|&take| media_bytes(manifest, take) > 0) {
            let label = if objects.is_empty() {
                Label::First
            } else {
                Label::Take(take + 1)
            };
            let object = self.take(take, label).await?;
            self.archived += object.bytes;
            self.tell(0);
            objects.push(object);
        }
        Ok(objects)
    }

    async fn take(&mut self, take: u32, label: Label) -> Result<StoredObject, Halt> {
        if let Some(object) = self.proved(take).await? {
            let regular = self
                .folder
                .media(label, extension(&object.key), Place::Regular);
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
            match self.send(take, label, place, &precondition).await? {
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
        label: Label,
        place: Place,
        precondition: &Precondition,
    ) -> Result<(Made, StoredObject), Halt> {
        let bytes = media_bytes(&self.job.manifest, take);
        let part_bytes = part_bytes(self.job.context.part_size, bytes);
        let part_bytes = usize::try_from(part_bytes).unwrap_or(usize::MAX);
        let mut reader = self.reader(take);
        let first = reader.fill(part_bytes).await?;
        let record = self.job.manifest.takes.get(take as usize);
        let kind = Kind::of(&first, record.map_or("", |record| &record.mime));
        let mut object = StoredObject {
            key: self.folder.media(label, kind.extension, place),
            take: Some(take),
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
            disposition: self.folder.disposition(label, kind.extension),
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
        let Some(object) = self
            .plan
            .iter_mut()
            .find(|object| object.take == Some(take))
        else {
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
        self.conflict.get_or_insert_with(|| conflict(key));
    }

    fn reader(&self, take: u32) -> TakeReader {
        let Job {
            manifest,
            source,
            listeners,
            ..
        } = self.job;
        let origin = Origin {
            source: source.clone(),
            stop: self.stop.clone(),
            listeners: listeners.clone(),
        };
        TakeReader::sealed(origin, manifest, take, 0)
    }

    fn store(&self) -> &'a dyn ObjectStore {
        &*self.job.context.store
    }

    fn planned(&self, take: u32) -> Option<&StoredObject> {
        self.plan.iter().find(|object| object.take == Some(take))
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

/// What a recording says whose archive is not where it should be.
pub(super) fn conflict(key: &str) -> String {
    format!("conflict: somebody else's object is at {key}; the archive is stored beside it")
}

/// Where to go when somebody else's object has the key.
pub(super) fn step_aside(place: Place, key: &str) -> Result<Place, Halt> {
    if place == Place::Beside {
        return Err(Halt::Conflict {
            key: key.to_owned(),
        });
    }
    tracing::error!(key, "somebody else's object has our key; it is left alone");
    Ok(Place::Beside)
}
