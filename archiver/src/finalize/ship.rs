//! Parts of stitched files on their way into the store.
//!
//! Owns what the row says of them: an upload is named there before its first part is sent, and a
//! part once the store has it. Must never send again what the row says is there with the same bytes.

use super::{
    cut::Part,
    halt::{self, Halt, Stop},
    job::Context,
    stitch::{Recipe, Stitcher},
    upload::Upload,
};
use crate::{
    db::{Claim, FileWork, SentPart, Work},
    keys::{Folder, Label, Place, archive_extension},
    store::{Crc64, ObjectMeta, PartTag, UploadRef},
};
use aircheck_runtime::failpoint::Failpoint;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

/// Parts that are sent at one time, at the end of a session.
const AT_ONCE: usize = 2;

/// What came of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// The store has it.
    All,
    /// The upload is gone, and all parts of the file have to be sent anew.
    Gone,
}

/// Sends parts under a claim.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shipper<'a> {
    pub(super) context: &'a Context,
    pub(super) stop: &'a Stop,
    pub(super) claim: &'a Claim,
    pub(super) folder: &'a Folder,
    /// Where files go, unless somebody else's object is there.
    pub(super) place: Place,
}

impl Work {
    /// Work that has not begun, by the rules of this program.
    pub(super) fn fresh(part_bytes: u64) -> Self {
        let (mux_version, reserved_bytes) = Recipe::rules();
        Self {
            mux_version,
            reserved_bytes,
            part_bytes,
            files: Vec::new(),
            facts: None,
        }
    }

    /// Whether parts made by this program fit to those that are there, and none has to be larger
    /// than they are.
    pub(super) fn fits(&self, least_part_bytes: u64) -> bool {
        let rules = (self.mux_version, self.reserved_bytes);
        rules == Recipe::rules() && self.part_bytes >= least_part_bytes
    }
}

impl FileWork {
    /// The upload under way.
    pub(crate) fn upload(&self) -> Option<UploadRef> {
        Some(UploadRef {
            key: self.key.clone()?,
            id: self.upload_id.clone()?,
        })
    }

    fn has(&self, number: i32, body: &Bytes, crc: Crc64) -> bool {
        self.part(number).is_some_and(|part| {
            part.bytes == body.len() as u64 && part.crc64nvme == crc.to_base64()
        })
    }
}

impl Shipper<'_> {
    /// Key of a file of this Content-Type, unless it has one already.
    pub(super) fn key(&self, work: &mut Work, file: usize, content_type: &str) -> String {
        let regular = || {
            let extension = archive_extension(content_type);
            self.folder.media(label(file), extension, self.place)
        };
        work.file(file).key.get_or_insert_with(regular).clone()
    }

    /// What is kept beside a file.
    pub(super) fn meta(&self, file: usize, content_type: &str, crc: Option<Crc64>) -> ObjectMeta {
        let extension = archive_extension(content_type);
        ObjectMeta {
            content_type: content_type.to_owned(),
            disposition: self.folder.disposition(label(file), extension),
            session: self.claim.id.clone(),
            epoch: self.claim.epoch,
            crc,
        }
    }

    /// Goes where nobody else's object is.
    pub(super) fn step_aside(
        &self,
        work: &mut Work,
        file: usize,
        content_type: &str,
    ) -> Result<(), Halt> {
        let key = self.key(work, file, content_type);
        let beside = self
            .folder
            .media(label(file), archive_extension(content_type), Place::Beside);
        // A raw take of the recording may have stepped aside already.
        if key == beside || self.place == Place::Repaired {
            return Err(Halt::Conflict { key });
        }
        tracing::error!(key, "somebody else's object has our key; it is left alone");
        let file = work.file(file);
        file.forget_upload();
        file.key = Some(beside);
        Ok(())
    }

    /// Sends the parts that are closed, oldest first.
    pub(super) async fn closed(
        &self,
        work: &mut Work,
        stitcher: &mut Stitcher,
    ) -> Result<Sent, Halt> {
        while let Some((file, part)) = stitcher.part() {
            let part = part.clone();
            let content_type = stitcher.content_type(file);
            if self.parts(work, file, content_type, [part]).await? == Sent::Gone {
                return Ok(Sent::Gone);
            }
            stitcher.drop_part(file);
        }
        Ok(Sent::All)
    }

    /// Sends parts of one file, but for those that the store has.
    pub(super) async fn parts(
        &self,
        work: &mut Work,
        file: usize,
        content_type: &'static str,
        parts: impl IntoIterator<Item = Part>,
    ) -> Result<Sent, Halt> {
        let parts = parts.into_iter();
        let missing: Vec<_> = parts
            .filter(|part| !work.file(file).has(part.number, &part.body, part.crc))
            .collect();
        if missing.is_empty() {
            return Ok(Sent::All);
        }
        let begun = self.begun(work, file, content_type).await?;
        let meta = self.meta(file, content_type, None);
        let upload = self.upload(&begun.key, &meta);
        let (upload, begun) = (&upload, &begun);
        let sent: Vec<Option<SentPart>> = stream::iter(missing)
            .map(|part| async move {
                let bytes = part.body.len() as u64;
                let tag = upload.part(begun, part.number, part.body, part.crc).await?;
                Failpoint::PartSent.pass();
                Ok::<_, Halt>(tag.map(|tag| sent_part(tag, bytes)))
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let file = work.file(file);
        let mut outcome = Sent::All;
        for part in sent {
            match part {
                Some(part) => file.record(part),
                None => outcome = Sent::Gone,
            }
        }
        if outcome == Sent::Gone {
            file.forget_upload();
        }
        self.note(work).await?;
        Failpoint::PartsNoted.pass();
        Ok(outcome)
    }

    /// The upload of a file, begun and named in the row if there is none.
    pub(super) async fn begun(
        &self,
        work: &mut Work,
        file: usize,
        content_type: &'static str,
    ) -> Result<UploadRef, Halt> {
        if let Some(upload) = work.file(file).upload() {
            return Ok(upload);
        }
        let meta = self.meta(file, content_type, None);
        loop {
            let key = self.key(work, file, content_type);
            let upload = self.upload(&key, &meta);
            if !upload.is_ours_or_free().await? {
                self.step_aside(work, file, content_type)?;
                continue;
            }
            let begun = upload.begin().await?;
            Failpoint::UploadCreated.pass();
            let entry = work.file(file);
            entry.parts.clear();
            entry.upload_id = Some(begun.id.clone());
            let noted = self.note(work).await;
            if noted.is_err() {
                // No row names it, so nobody else would ever drop it. Should one do so after all, because
                // only the answer was lost, it finds the upload gone and begins another.
                upload.abort(&begun).await;
            }
            Failpoint::UploadNoted.pass();
            return noted.map(|()| begun);
        }
    }

    /// Drops all uploads under way: the archive will be made another way.
    pub(super) async fn abandon(&self, work: &mut Work) -> Result<(), Halt> {
        let begun: Vec<_> = work.files.iter().filter_map(FileWork::upload).collect();
        let was = std::mem::take(&mut work.files);
        work.facts = None;
        if was.is_empty() {
            return Ok(());
        }
        for upload in begun {
            if let Err(error) = self.context.store.abort(&upload).await {
                let error = halt::chain(&error);
                tracing::info!(error, "an upload could not be aborted");
            }
        }
        self.note(work).await
    }

    /// Writes the work into the row.
    pub(super) async fn note(&self, work: &Work) -> Result<(), Halt> {
        let db = &self.context.db;
        let held = self
            .stop
            .persist("note the parts", || db.note(self.claim, work))
            .await?;
        if held { Ok(()) } else { Err(Halt::ClaimLost) }
    }

    /// The calls that make one file.
    pub(super) fn upload<'b>(&'b self, key: &'b str, meta: &'b ObjectMeta) -> Upload<'b> {
        Upload {
            store: &*self.context.store,
            stop: self.stop,
            key,
            meta,
        }
    }
}

/// How a file is called.
pub(super) fn label(file: usize) -> Label {
    Label::of(file, None)
}

fn sent_part(tag: PartTag, bytes: u64) -> SentPart {
    SentPart {
        number: tag.number,
        etag: tag.etag,
        crc64nvme: tag.crc.to_base64(),
        bytes,
    }
}
