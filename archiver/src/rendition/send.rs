//! From a rendition's file to its object.
//!
//! Owns what is noted before which call. What an object store's answer means is decided where it is for
//! archives.

use super::{Failure, Job};
use crate::{
    db::StoredRendition,
    finalize::{Made, Parts, Upload, part_bytes},
    keys::{self, Folder},
    store::{Crc64, Extent, ObjectMeta, Precondition},
};
use aircheck_core::id::Seat;
use bytes::Bytes;
use std::{io, path::Path};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _},
};

/// Read at a time where the bytes are only looked at.
const LOOK_BYTES: usize = 1 << 20;

impl Job<'_> {
    /// Sends a file until its object is proved.
    pub(super) async fn send(
        &mut self,
        index: usize,
        now: &mut StoredRendition,
        path: &Path,
    ) -> Result<(), Failure> {
        let mut file = File::open(path).await?;
        let whole = measure(&mut file).await?;
        let stop = self.stop.clone();
        let meta = self.meta(now, whole)?;
        let key = now.key.clone();
        let upload = Upload {
            store: &*self.context.store,
            stop: &stop,
            key: &key,
            meta: &meta,
        };
        if !upload.is_free(whole.bytes).await? {
            return Err(Failure::Foreign);
        }
        now.bytes = Some(whole.bytes);
        now.crc64nvme = Some(whole.crc.to_base64());
        self.note(index, now).await?;
        let mut precondition = Precondition::Absent;
        loop {
            stop.check()?;
            let made = if whole.bytes <= self.context.part_size {
                let body = piece(&mut file, 0, self.context.part_size).await?;
                upload.small(body, &precondition).await?
            } else {
                self.large(index, now, (&upload, &precondition), (&mut file, whole))
                    .await?
            };
            match made {
                Made::Proved(_) => return Ok(()),
                Made::StartOver(seen) => precondition = seen,
                Made::Foreign => {
                    (now.bytes, now.crc64nvme) = (None, None);
                    return Err(Failure::Foreign);
                }
            }
        }
    }

    async fn large(
        &mut self,
        index: usize,
        now: &mut StoredRendition,
        (upload, precondition): (&Upload<'_>, &Precondition),
        (file, whole): (&mut File, Extent),
    ) -> Result<Made, Failure> {
        let begun = upload.begin().await?;
        now.upload_id = Some(begun.id.clone());
        self.note(index, now).await?;
        let part_bytes = part_bytes(self.context.part_size, whole.bytes);
        let mut tags = Vec::new();
        for (number, at) in (1..).zip((0..whole.bytes).step_by(to_usize(part_bytes))) {
            let part = piece(file, at, part_bytes).await?;
            let crc = Crc64::of(&part);
            match upload.part(&begun, number, part, crc).await? {
                Some(tag) => tags.push(tag),
                None => return Ok(Made::StartOver(precondition.clone())),
            }
        }
        let parts = Parts { tags, whole };
        Ok(upload.complete(&begun, &parts, precondition).await?)
    }

    fn meta(&self, now: &StoredRendition, whole: Extent) -> Result<ObjectMeta, Failure> {
        let row = &self.row;
        // Rows hold what was parsed before.
        let (Ok(show), Ok(session)) = (row.show_id.parse(), row.id.parse()) else {
            return Err(Failure::Source);
        };
        let seat = Seat {
            show,
            rehearsal: row.rehearsal,
        };
        let label = row.objects.label(&now.source).ok_or(Failure::Source)?;
        let folder = Folder::new(&self.context.prefix, &seat, &row.version, session);
        Ok(ObjectMeta {
            content_type: now.format.content_type().to_owned(),
            disposition: folder.disposition(label, keys::extension(&now.key)),
            session: row.id.clone(),
            epoch: self.claim.epoch,
            crc: Some(whole.crc),
        })
    }
}

/// Length and checksum of a file.
async fn measure(file: &mut File) -> io::Result<Extent> {
    let mut whole = Extent::NOTHING;
    let mut buffer = vec![0; LOOK_BYTES];
    loop {
        let read = file.read(&mut buffer).await?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return Ok(whole);
        };
        whole = whole.then(Crc64::of(bytes), bytes.len() as u64);
    }
}

/// At most so many bytes from there on.
async fn piece(file: &mut File, at: u64, most: u64) -> io::Result<Bytes> {
    file.seek(io::SeekFrom::Start(at)).await?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).await?;
    Ok(bytes.into())
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
