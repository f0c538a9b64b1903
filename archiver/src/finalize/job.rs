//! One finalize job, from a manifest to a final row.
//!
//! Owns the order of its steps and the claim that guards them. Faults of database, store and ingest
//! that pass are waited out here; they never make a recording `failed`.

use super::{
    halt::{Halt, Stop, chain},
    jobs::{Listeners, Progress},
    live::{Ahead, Live},
    manifest::{self, Layout},
    prove::prove,
    raw::Takes,
    rebuild::Rebuilder,
    rehearsal, repair,
    ship::Shipper,
    source::Source,
    stitch::Stitcher,
    stitched::{Files, Stitched},
    verdict::Proof,
};
use crate::{
    db::{Aim, Claim, Claimed, Db, Finish, RecordingRow, StoredObject, Work},
    keys::Folder,
    metrics,
    store::{Crc64, Extent, ObjectStore},
};
use aircheck_core::{recording::Status, rendition::Wish, spool::Manifest};
use aircheck_proto::Fault;
use aircheck_runtime::failpoint::Failpoint;
use aircheck_runtime::shutdown::Shutdown;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};
use tokio_util::task::AbortOnDropHandle;

/// How often an archiver looks whether another one has finished.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);
/// How long it does so before callers are told to ask again.
const FOLLOW_MAX: Duration = Duration::from_secs(1800);
/// What a session without a single byte of media says.
pub(super) const NO_MEDIA: &str = "no media was received";

/// What all jobs share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) db: Db,
    pub(crate) store: Arc<dyn ObjectStore>,
    /// Put in front of every key.
    pub(crate) prefix: String,
    /// Bytes.
    pub(crate) part_size: u64,
    /// How long claims live.
    pub(crate) lease: Duration,
    /// This process, as claims name it.
    pub(crate) owner: String,
    /// The ffmpeg that listens to rehearsals and makes renditions.
    pub(crate) ffmpeg: PathBuf,
    /// What to make of each archive.
    pub(crate) renditions: Vec<Wish>,
    /// How long a rendition that failed waits for its second attempt.
    pub(crate) rendition_retry: Duration,
    pub(crate) shutdown: Shutdown,
    /// One permit a job at work: each may hold two parts in memory.
    pub(crate) slots: Semaphore,
}

/// One job.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) context: Arc<Context>,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) source: Source,
    /// May have begun the session's archive already.
    pub(crate) live: Live,
    pub(crate) listeners: Listeners,
    /// When the first caller asked.
    pub(crate) begun: Instant,
}

impl Job {
    /// Works until the row is final.
    ///
    /// # Errors
    /// What callers are told when it can't be, for now.
    pub(crate) async fn run(self) -> Result<RecordingRow, Fault> {
        let stop = Stop::new(self.context.shutdown.clone());
        let ended = match self.source {
            Source::Spool(_) => Box::pin(self.attempt(&stop)).await,
            Source::Takes(_) => self.repair().await,
        };
        match &ended {
            Ok(row) => {
                tracing::info!(
                    status = row.status,
                    bytes = row.bytes,
                    error = row.error,
                    "final"
                );
            }
            Err(halt) if halt.needs_attention() => {
                tracing::error!(error = %halt, "the recording can't be archived");
            }
            Err(halt) => tracing::info!(reason = %halt, "stopped before the end"),
        }
        ended.map_err(|halt| halt.fault())
    }

    async fn attempt(&self, stop: &Stop) -> Result<RecordingRow, Halt> {
        let db = &self.context.db;
        let mut ahead = self.live.recall(self.manifest.session).await;
        let row = stop.persist("seal the row", || db.seal(&self.manifest));
        let row = match row.await? {
            Some(row) => row,
            None => {
                self.recover_row(stop).await?;
                stop.persist("make the row", || db.seal_new(&self.manifest))
                    .await?
            }
        };
        Failpoint::RowSealed.pass();
        let aim = match self.missing(stop, &row).await? {
            Missing::Nothing => return Ok(row),
            Missing::Everything => Aim::Finalize,
            Missing::Objects => Aim::Repair,
        };
        let since = Instant::now();
        while since.elapsed() < FOLLOW_MAX {
            // The slot comes first: a claim must not grow old in a queue.
            let slot = self
                .context
                .slots
                .acquire()
                .await
                .map_err(|_| Halt::Draining)?;
            match self.claim(stop, aim).await? {
                Claimed::Final(row) => return Ok(*row),
                Claimed::Ours(claim, row) => match self.hold(claim, *row, ahead.take()).await {
                    Err(Halt::ClaimLost) => {}
                    ended => return ended,
                },
                Claimed::Theirs => {
                    drop(slot);
                    stop.sleep(FOLLOW_INTERVAL).await?;
                }
            }
        }
        Err(Halt::ClaimLost)
    }

    /// A session without a row may have been archived all the same: then the database lost it, and
    /// perhaps nobody has the bytes any more.
    async fn recover_row(&self, stop: &Stop) -> Result<(), Halt> {
        let Context {
            db, store, prefix, ..
        } = &*self.context;
        let rebuilder = Rebuilder {
            db,
            store: &**store,
            prefix,
            stop,
        };
        // Without it the archive is proved or made as usual, as long as somebody has the bytes.
        if let Err(error) = rebuilder.session(&self.manifest).await {
            tracing::info!(
                error = chain(&error),
                "look for the archive of a session without a row"
            );
        }
        stop.check()
    }

    pub(super) async fn claim(&self, stop: &Stop, aim: Aim) -> Result<Claimed, Halt> {
        let Context {
            db, owner, lease, ..
        } = &*self.context;
        let id = self.manifest.session.to_string();
        stop.persist("claim the row", || db.claim(&id, owner, *lease, aim))
            .await
    }

    /// Works under a claim that is renewed all the while, and lets go of it if it was in vain.
    pub(super) async fn hold(
        &self,
        claim: Claim,
        row: RecordingRow,
        ahead: Option<Box<Ahead>>,
    ) -> Result<RecordingRow, Halt> {
        Failpoint::Claimed.pass();
        let stop = Stop::new(self.context.shutdown.clone());
        let renewal = renew(Arc::clone(&self.context), claim.clone(), stop.clone());
        let renewal = AbortOnDropHandle::new(tokio::spawn(renewal));
        let ended = self.archive(&stop, &claim, row, ahead).await;
        drop(renewal);
        if let Err(halt) = &ended
            && !matches!(halt, Halt::ClaimLost)
        {
            self.let_go(&claim, halt).await;
        }
        ended
    }

    async fn archive(
        &self,
        stop: &Stop,
        claim: &Claim,
        row: RecordingRow,
        ahead: Option<Box<Ahead>>,
    ) -> Result<RecordingRow, Halt> {
        let Context { db, prefix, .. } = &*self.context;
        let session = &self.manifest;
        let folder = Folder::new(prefix, &session.seat(), &row.version, session.session);
        let shipper = Shipper {
            context: &self.context,
            stop,
            claim,
            folder: &folder,
            place: repair::place(&row),
        };
        let kept = self.kept(stop, &row).await?;
        // Nobody claimed the row in between: what the live job knows is the latest.
        let ahead = ahead.filter(|ahead| ahead.epoch + 1 == claim.epoch);
        let (work, stitcher) = match ahead.map(|ahead| *ahead) {
            Some(Ahead { stitcher, work, .. }) => (Some(work), Some(stitcher)),
            None => (row.work.clone(), None),
        };
        let stitcher = stitcher.filter(|stitcher| stitcher.agrees(session));
        let work = work.unwrap_or_else(|| Work::fresh(self.context.part_size));
        let made = self
            .objects(shipper, (row.objects.0.clone(), kept), work, stitcher)
            .await?;
        let renditions = self.renditions(&row, &made.objects);
        let planned = renditions.as_ref().or(row.renditions.as_ref());
        let (objects, layout) = (&made.objects, &made.layout);
        let manifest_key =
            manifest::write(self, shipper, &row.version, objects, planned, layout).await?;
        Failpoint::ManifestPut.pass();
        let mut finish = outcome(session, made, manifest_key);
        if session.rehearsal {
            let sheet = rehearsal::sheet(&self.context, session, &finish).await;
            finish.sheet = serde_json::to_value(sheet).ok();
        }
        finish.renditions = renditions;
        let bytes = session.bytes();
        self.listeners.tell(Progress {
            bytes,
            archived: bytes,
        });
        let finished = stop
            .persist("close the row", || db.finish(claim, &finish))
            .await?;
        let row = finished.ok_or(Halt::ClaimLost)?;
        Failpoint::RowFinal.pass();
        metrics::archived(finish.status, self.begun.elapsed());
        Ok(row)
    }

    /// Makes the objects: stitched, or raw where that can't be. Those that are `kept` stay beside
    /// stitched ones.
    async fn objects(
        &self,
        shipper: Shipper<'_>,
        (plan, kept): (Vec<StoredObject>, Vec<StoredObject>),
        mut work: Work,
        stitcher: Option<Stitcher>,
    ) -> Result<Objects, Halt> {
        let mut mux_error = None;
        if self.manifest.bytes() > 0 {
            let mut files = Files::new(self, shipper, &mut work, stitcher, &kept);
            match files.make(&plan).await? {
                Stitched::Files(mut objects, facts) => {
                    let conflict = files.conflict(&objects);
                    objects.extend(kept);
                    return Ok(Objects {
                        objects,
                        conflict,
                        layout: Layout::Stitched(facts, work),
                    });
                }
                Stitched::Unfit(unfit) if matches!(self.source, Source::Takes(_)) => {
                    let reason = unfit.to_string();
                    return Err(Halt::Unfit { reason });
                }
                Stitched::Unfit(unfit) => {
                    tracing::warn!(%unfit, "the takes are archived as they came");
                    mux_error = Some(unfit.to_string());
                }
            }
        }
        let Shipper {
            stop,
            claim,
            folder,
            ..
        } = shipper;
        let plan = plan.into_iter().filter(|object| object.take.is_some());
        let mut takes = Takes::new(self, stop, claim, folder, plan.collect());
        let objects = takes.make().await?;
        Ok(Objects {
            objects,
            conflict: takes.conflict(),
            layout: Layout::Raw(mux_error),
        })
    }

    async fn let_go(&self, claim: &Claim, halt: &Halt) {
        let db = &self.context.db;
        let mut done = Ok(true);
        if halt.needs_attention() {
            done = db.complain(claim, &halt.to_string()).await;
        }
        if let Err(error) = done.and(db.release(claim).await) {
            // The lease runs out by itself.
            tracing::warn!(%error, "release the claim");
        }
    }

    /// What a row still lacks. A final row whose objects went missing while somebody still has the
    /// bytes is repaired.
    async fn missing(&self, stop: &Stop, row: &RecordingRow) -> Result<Missing, Halt> {
        if row.deleted_at.is_some() {
            return Ok(Missing::Nothing);
        }
        if !Status::parse(&row.status).is_some_and(Status::is_final) {
            return Ok(Missing::Everything);
        }
        for object in &row.objects.0 {
            let Some(whole) = extent(object) else {
                return Ok(Missing::Objects);
            };
            let store = &*self.context.store;
            if prove(store, stop, &object.key, &row.id, whole).await? != Proof::Proved {
                tracing::error!(key = object.key, "the object of a final recording is gone");
                return Ok(Missing::Objects);
            }
        }
        Ok(Missing::Nothing)
    }
}

/// What a row lacks.
enum Missing {
    Nothing,
    Objects,
    Everything,
}

/// What an object should hold, once all its bytes have been seen.
pub(crate) fn extent(object: &StoredObject) -> Option<Extent> {
    let crc = object.crc64nvme.as_deref().and_then(Crc64::from_base64)?;
    Some(Extent {
        bytes: object.bytes,
        crc,
    })
}

/// What came of the takes.
struct Objects {
    objects: Vec<StoredObject>,
    /// What is wrong because somebody else's object stood in the way.
    conflict: Option<String>,
    layout: Layout,
}

fn outcome(manifest: &Manifest, made: Objects, manifest_key: String) -> Finish {
    let Objects {
        objects,
        conflict,
        layout,
    } = made;
    let empty = objects.is_empty().then(|| NO_MEDIA.to_owned());
    let error = manifest.recording_error.clone().or(conflict).or(empty);
    let status = if error.is_some() {
        Status::Failed
    } else {
        Status::Archived
    };
    let (duration_ms, work) = match layout {
        Layout::Stitched(facts, work) => (Some(facts.duration_ms), Some(work)),
        Layout::Raw(_) => (None, None),
    };
    Finish {
        status,
        error,
        objects,
        manifest_key,
        duration_ms,
        work,
        sheet: None,
        renditions: None,
    }
}

/// Renews a claim until it is lost or the task is aborted.
pub(crate) async fn renew(context: Arc<Context>, claim: Claim, stop: Stop) {
    loop {
        sleep(context.lease / 3).await;
        match context.db.renew(&claim, context.lease).await {
            Ok(true) => {}
            Ok(false) => return stop.claim_lost(),
            // While the database is away nobody else can claim either.
            Err(error) => tracing::warn!(%error, "renew the claim"),
        }
    }
}
