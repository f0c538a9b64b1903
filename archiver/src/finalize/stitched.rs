//! From a sealed session to its stitched files.
//!
//! Owns the order in which they come into being: all takes are muxed, the row learns what every file
//! will hold, then each is completed and proved. What a job before this one has brought into the
//! store stays there; the rest is a replay.

use super::{
    cut::Part,
    halt::{self, Halt},
    job::{Job, extent},
    jobs::Progress,
    prove::prove,
    raw::conflict,
    repair,
    ship::{Sent, Shipper, label},
    source::{Origin, TakeReader, media_bytes},
    stitch::{Ending, Recipe, Sealed, Stitcher, Unfit},
    upload::{Made, Parts},
    verdict::Proof,
};
use crate::{
    db::{Facts, StoredObject, Work},
    keys::archive_extension,
    store::{Crc64, Extent, PartTag, Precondition},
};
use aircheck_runtime::failpoint::Failpoint;
use std::collections::BTreeMap;

/// Room for what made-up silence may add to the bytes of a session.
const SILENCE_BYTES: u64 = 64 * MIB;
const PARTS_MAX: u64 = 10_000;
const MIB: u64 = 1 << 20;

/// Size of every part but the last: as configured, more where `total` bytes would need too many.
pub(crate) fn part_bytes(configured: u64, total: u64) -> u64 {
    let needed = total.div_ceil(PARTS_MAX).next_multiple_of(MIB);
    configured.max(needed)
}

/// What became of a session's takes.
#[derive(Debug)]
pub(super) enum Stitched {
    /// Files that are proved, in order.
    Files(Vec<StoredObject>, Facts),
    /// They don't fit into one archive.
    Unfit(Unfit),
}

/// Why the files can't be made as they are.
enum Setback {
    Halt(Halt),
    Unfit(Unfit),
    /// Something in the store is not as it was; a replay brings it there again.
    Replay,
}

impl From<Halt> for Setback {
    fn from(halt: Halt) -> Self {
        Self::Halt(halt)
    }
}

impl From<Unfit> for Setback {
    fn from(unfit: Unfit) -> Self {
        Self::Unfit(unfit)
    }
}

/// The files of one session while they are being made.
pub(super) struct Files<'a> {
    pub(super) job: &'a Job,
    pub(super) shipper: Shipper<'a>,
    pub(super) work: &'a mut Work,
    /// Takes that were muxed while the session was live.
    pub(super) ahead: Option<Stitcher>,
    /// Objects that the row names beside the files, and goes on to name.
    kept: &'a [StoredObject],
    /// Files that are proved, by index.
    made: BTreeMap<usize, StoredObject>,
    /// What must hold for a file to be made, where an attempt found something there.
    preconditions: BTreeMap<usize, Precondition>,
}

impl<'a> Files<'a> {
    pub(super) fn new(
        job: &'a Job,
        shipper: Shipper<'a>,
        work: &'a mut Work,
        ahead: Option<Stitcher>,
        kept: &'a [StoredObject],
    ) -> Self {
        Self {
            job,
            shipper,
            work,
            ahead,
            kept,
            made: BTreeMap::new(),
            preconditions: BTreeMap::new(),
        }
    }

    /// Makes all files, or proves those that are there. `plan` is what the row says is being made.
    pub(super) async fn make(&mut self, plan: &[StoredObject]) -> Result<Stitched, Halt> {
        if let Some((files, facts)) = self.proved(plan).await? {
            return Ok(Stitched::Files(files, facts));
        }
        let total = self.job.manifest.bytes().saturating_add(SILENCE_BYTES);
        // A session that began with smaller parts than are configured now goes on with them.
        if !self.work.fits(part_bytes(0, total)) {
            self.shipper.abandon(self.work).await?;
            let configured = self.shipper.context.part_size;
            *self.work = Work::fresh(part_bytes(configured, total));
            self.ahead = None;
            self.made.clear();
        }
        let mut backoff = halt::backoff();
        loop {
            match self.attempt().await {
                Ok((files, facts)) => return Ok(Stitched::Files(files, facts)),
                Err(Setback::Halt(halt)) => return Err(halt),
                Err(Setback::Unfit(unfit)) => {
                    self.shipper.abandon(self.work).await?;
                    return Ok(Stitched::Unfit(unfit));
                }
                Err(Setback::Replay) => self.shipper.stop.sleep(backoff.delay()).await?,
            }
        }
    }

    /// The files of an earlier job, if they all came into being.
    async fn proved(
        &mut self,
        plan: &[StoredObject],
    ) -> Result<Option<(Vec<StoredObject>, Facts)>, Halt> {
        let Shipper {
            context,
            stop,
            claim,
            ..
        } = self.shipper;
        let mut all = Vec::new();
        let files: Vec<_> = plan.iter().filter(|o| o.take.is_none()).collect();
        for (index, &object) in files.iter().enumerate() {
            let Some(whole) = extent(object) else {
                break;
            };
            let proof = prove(&*context.store, stop, &object.key, &claim.id, whole).await?;
            let entry = self.work.file(index);
            if proof == Proof::Proved {
                entry.upload_id = None;
                let object = StoredObject {
                    upload_id: None,
                    ..object.clone()
                };
                self.made.insert(index, object.clone());
                all.push(object);
            } else if entry.upload_id.is_none() {
                // It was there, and is gone.
                entry.parts.clear();
            }
        }
        let is_complete = !all.is_empty() && all.len() == files.len();
        Ok(self
            .work
            .facts
            .clone()
            .filter(|_| is_complete)
            .map(|facts| (all, facts)))
    }

    async fn attempt(&mut self) -> Result<(Vec<StoredObject>, Facts), Setback> {
        let stitcher = match self.ahead.take() {
            Some(stitcher) => stitcher,
            None => Stitcher::new(Recipe::new(&self.job.manifest, self.work.part_bytes))?,
        };
        let sealed = self.mux(stitcher).await?;
        let facts = facts(&sealed);
        repair::agree(self.kept, &facts)?;
        let mut objects = Vec::new();
        for ending in &sealed.files {
            objects.push(self.object(ending).await?);
        }
        self.work.facts = Some(facts.clone());
        self.plan(&objects).await?;
        Failpoint::Planned.pass();
        for (index, ending) in sealed.files.into_iter().enumerate() {
            let Some(object) = objects.get_mut(index) else {
                break;
            };
            if !self.is_made(index, object) {
                self.file(ending, object).await?;
                Failpoint::ObjectProved.pass();
                object.upload_id = None;
                self.made.insert(index, object.clone());
            }
        }
        Ok((objects, facts))
    }

    /// Muxes what was not muxed yet.
    async fn mux(&mut self, mut stitcher: Stitcher) -> Result<Sealed, Setback> {
        let manifest = &self.job.manifest;
        let takes = u32::try_from(manifest.takes.len()).unwrap_or(u32::MAX);
        let mut muxed = (0..stitcher.place().take)
            .map(|take| media_bytes(manifest, take))
            .sum::<u64>();
        while stitcher.place().take < takes {
            stitcher.begin(manifest);
            let place = stitcher.place();
            let origin = Origin {
                source: self.job.source.clone(),
                stop: self.shipper.stop.clone(),
                listeners: self.job.listeners.clone(),
            };
            let mut reader = TakeReader::sealed(origin, manifest, place.take, place.offset);
            while let Some(piece) = reader.next().await? {
                stitcher.add(&piece)?;
                if self.shipper.closed(self.work, &mut stitcher).await? == Sent::Gone {
                    return Err(Setback::Replay);
                }
                self.tell(muxed + stitcher.place().offset);
            }
            stitcher.end()?;
            muxed += media_bytes(manifest, place.take);
        }
        Ok(stitcher.finish(manifest)?)
    }

    /// A file as it will be, under the key where it will be.
    async fn object(&mut self, ending: &Ending) -> Result<StoredObject, Setback> {
        let content_type = ending.finished.content_type;
        let is_large = ending.first.len() as u64 == self.work.part_bytes;
        if is_large && !self.made.contains_key(&ending.file) {
            self.shipper
                .begun(self.work, ending.file, content_type)
                .await?;
        }
        let key = self.shipper.key(self.work, ending.file, content_type);
        let part_bytes = self.work.part_bytes;
        let entry = self.work.file(ending.file);
        // Parts of an attempt that knew other bytes.
        let last = ending.finished.total_bytes.div_ceil(part_bytes);
        entry
            .parts
            .retain(|part| u64::try_from(part.number).is_ok_and(|number| number <= last));
        let mut whole = Extent {
            bytes: ending.first.len() as u64,
            crc: Crc64::of(&ending.first),
        };
        let kept = ending.rest.front().map_or(i32::MAX, |part| part.number);
        let sent = entry
            .parts
            .iter()
            .filter(|part| (2..kept).contains(&part.number));
        for part in sent {
            let crc = Crc64::from_base64(&part.crc64nvme).ok_or(Setback::Replay)?;
            whole = whole.then(crc, part.bytes);
        }
        for part in &ending.rest {
            whole = whole.then(part.crc, part.body.len() as u64);
        }
        if whole.bytes != ending.finished.total_bytes {
            tracing::error!(key, "the recorded parts do not add up; all are sent again");
            entry.forget_upload();
            return Err(Setback::Replay);
        }
        Ok(StoredObject {
            key,
            take: None,
            bytes: whole.bytes,
            crc64nvme: Some(whole.crc.to_base64()),
            content_type: content_type.to_owned(),
            upload_id: entry.upload_id.clone(),
        })
    }

    fn is_made(&self, index: usize, object: &StoredObject) -> bool {
        let made = self.made.get(&index);
        made.is_some_and(|made| extent(made) == extent(object) && made.key == object.key)
    }

    /// Makes one file.
    async fn file(&mut self, ending: Ending, object: &StoredObject) -> Result<(), Setback> {
        let Ending {
            file,
            first,
            rest,
            finished,
        } = ending;
        let content_type = finished.content_type;
        let whole = extent(object).ok_or(Setback::Replay)?;
        let precondition = self
            .preconditions
            .get(&file)
            .cloned()
            .unwrap_or(Precondition::Absent);
        let made = if first.len() as u64 == self.work.part_bytes {
            let crc = Crc64::of(&first);
            let first = Part {
                number: 1,
                body: first,
                crc,
            };
            let parts = std::iter::once(first).chain(rest);
            let sent = self
                .shipper
                .parts(self.work, file, content_type, parts)
                .await?;
            if sent == Sent::Gone {
                return Err(Setback::Replay);
            }
            self.complete(file, content_type, whole, &precondition)
                .await?
        } else {
            let meta = self.shipper.meta(file, content_type, Some(whole.crc));
            let upload = self.shipper.upload(&object.key, &meta);
            if !upload.is_free(whole.bytes).await? {
                Made::Foreign
            } else {
                upload.small(first, &precondition).await?
            }
        };
        match made {
            Made::Proved(_) => {
                // The parts stay: while another file is replayed, this one is not sent again.
                self.work.file(file).upload_id = None;
                Ok(())
            }
            Made::StartOver(seen) => {
                self.work.file(file).forget_upload();
                self.preconditions.insert(file, seen);
                Err(Setback::Replay)
            }
            Made::Foreign => {
                self.shipper.step_aside(self.work, file, content_type)?;
                self.preconditions.remove(&file);
                Err(Setback::Replay)
            }
        }
    }

    async fn complete(
        &mut self,
        file: usize,
        content_type: &'static str,
        whole: Extent,
        precondition: &Precondition,
    ) -> Result<Made, Setback> {
        let entry = self.work.file(file);
        let Some(begun) = entry.upload() else {
            entry.parts.clear();
            return Err(Setback::Replay);
        };
        let tags = entry.parts.iter().map(|part| {
            let crc = Crc64::from_base64(&part.crc64nvme)?;
            Some(PartTag {
                number: part.number,
                etag: part.etag.clone(),
                crc,
            })
        });
        let tags: Option<Vec<_>> = tags.collect();
        let parts = Parts {
            tags: tags.ok_or(Setback::Replay)?,
            whole,
        };
        let meta = self.shipper.meta(file, content_type, None);
        let upload = self.shipper.upload(&begun.key, &meta);
        Ok(upload.complete(&begun, &parts, precondition).await?)
    }

    /// Writes into the row what every file will hold. A row that names raw takes goes on to name
    /// them, and nothing that is not there yet.
    async fn plan(&self, objects: &[StoredObject]) -> Result<(), Halt> {
        if !self.kept.is_empty() {
            return self.shipper.note(self.work).await;
        }
        let Shipper {
            context,
            stop,
            claim,
            ..
        } = self.shipper;
        let held = stop
            .persist("note the plan", || {
                context.db.plan_files(claim, objects, self.work)
            })
            .await?;
        if held { Ok(()) } else { Err(Halt::ClaimLost) }
    }

    /// `muxed`: bytes of media that were muxed.
    fn tell(&self, muxed: u64) {
        let held_back = self.work.part_bytes;
        self.job.listeners.tell(Progress {
            bytes: self.job.manifest.bytes(),
            archived: muxed.saturating_sub(held_back),
        });
    }

    /// What is wrong because somebody else's object has the key of one of these files.
    pub(super) fn conflict(&self, files: &[StoredObject]) -> Option<String> {
        files.iter().enumerate().find_map(|(index, file)| {
            let extension = archive_extension(&file.content_type);
            let Shipper { folder, place, .. } = self.shipper;
            let regular = folder.media(label(index), extension, place);
            (file.key != regular).then(|| conflict(&regular))
        })
    }
}

fn facts(sealed: &Sealed) -> Facts {
    let mut facts = Facts {
        takes_crc64nvme: sealed.takes.iter().map(|crc| crc.to_base64()).collect(),
        ..Facts::default()
    };
    for file in &sealed.files {
        let stats = &file.finished.stats;
        facts.duration_ms += file.finished.duration_ms;
        facts.packets += stats.packets;
        facts.dropped_packets += stats.dropped_packets;
        facts.silence_ms += stats.silence_ms;
        facts.silence_packets += stats.silence_packets;
        facts.lost_bytes += stats.lost_bytes;
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_grow_only_where_ten_thousand_would_not_do() {
        assert_eq!(part_bytes(5 * MIB, 100 * MIB), 5 * MIB);
        assert_eq!(part_bytes(5 * MIB, 50_000 * MIB), 5 * MIB);
        assert_eq!(part_bytes(5 * MIB, 50_000 * MIB + 1), 6 * MIB);
    }
}
