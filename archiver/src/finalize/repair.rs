//! A second attempt at a recording whose takes were archived raw, from its own objects.
//!
//! Owns when there is something to repair and which objects stay. Must never remove or replace a raw
//! take: the stitched file stands beside them, and a repair that fails changes nothing.

use super::{
    halt::{Halt, Stop},
    job::{Job, extent},
    prove::prove,
    source::Source,
    verdict::Proof,
};
use crate::{
    db::{Aim, Claimed, Facts, RecordingRow, Renditions, StoredObject},
    keys::Place,
};
use aircheck_core::recording::Status;

/// Whether a recording consists of raw takes and nothing else.
pub(crate) fn is_raw(row: &RecordingRow) -> bool {
    let objects = &row.objects.0;
    is_final(row) && !objects.is_empty() && objects.iter().all(|object| object.take.is_some())
}

/// Where the files of this recording go: beside its raw takes, where it is final with some.
pub(super) fn place(row: &RecordingRow) -> Place {
    if is_final(row) && row.objects.0.iter().any(|object| object.take.is_some()) {
        Place::Repaired
    } else {
        Place::Regular
    }
}

fn is_final(row: &RecordingRow) -> bool {
    Status::parse(&row.status).is_some_and(Status::is_final)
}

/// What muxing saw of the takes is what their objects hold.
pub(super) fn agree(kept: &[StoredObject], facts: &Facts) -> Result<(), Halt> {
    for (take, object) in kept.iter().filter_map(|o| Some((o.take?, o))) {
        if facts.takes_crc64nvme.get(take as usize) != object.crc64nvme.as_ref() {
            return Err(Halt::Corrupt {
                take,
                at: 0,
                reason: "its bytes are not those of its object",
            });
        }
    }
    Ok(())
}

impl Job {
    /// Stitches what was archived raw.
    pub(super) async fn repair(&self) -> Result<RecordingRow, Halt> {
        let stop = Stop::new(self.context.shutdown.clone());
        let slots = &self.context.slots;
        let _slot = slots.acquire().await.map_err(|_| Halt::Draining)?;
        match self.claim(&stop, Aim::Repair).await? {
            Claimed::Ours(claim, row) if is_raw(&row) => self.hold(claim, *row, None).await,
            Claimed::Ours(claim, row) => {
                let db = &self.context.db;
                stop.persist("release the claim", || db.release(&claim))
                    .await?;
                Ok(*row)
            }
            Claimed::Final(row) => Ok(*row),
            Claimed::Theirs => Err(Halt::ClaimLost),
        }
    }

    /// What is to be made of these objects beside what the row has already; `None`: that stays as it is.
    pub(super) fn renditions(
        &self,
        row: &RecordingRow,
        objects: &[StoredObject],
    ) -> Option<Renditions> {
        let wishes = &self.context.renditions;
        if self.manifest.rehearsal {
            return None;
        }
        if !is_final(row) {
            return Renditions::due(wishes, objects);
        }
        // A recording that is repaired has new files.
        let is_new =
            |object: &&StoredObject| row.objects.0.iter().all(|known| known.key != object.key);
        let new: Vec<_> = objects.iter().filter(is_new).cloned().collect();
        let mut all = row.renditions.clone().unwrap_or_default();
        all.0.extend(Renditions::due(wishes, &new)?.0);
        Some(all)
    }

    /// Raw takes of a final recording, which stay its objects whatever is made beside them.
    pub(super) async fn kept(
        &self,
        stop: &Stop,
        row: &RecordingRow,
    ) -> Result<Vec<StoredObject>, Halt> {
        let mut kept = Vec::new();
        for object in row.objects.0.iter().filter(|_| is_final(row)) {
            let (Some(take), Some(whole)) = (object.take, extent(object)) else {
                continue;
            };
            let store = &*self.context.store;
            let proof = prove(store, stop, &object.key, &row.id, whole).await?;
            match (&self.source, proof) {
                (_, Proof::Proved) => kept.push(object.clone()),
                (Source::Takes(_), _) => {
                    return Err(Halt::ObjectGone {
                        take,
                        reason: format!("{} is not there as it was archived", object.key),
                    });
                }
                (Source::Spool(_), _) => {}
            }
        }
        Ok(kept)
    }
}
