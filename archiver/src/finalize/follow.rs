//! One live job: follows a session's spool and sends parts as they fill.
//!
//! Owns its claim, its order of steps and its patience. Dropped between any two steps it loses
//! nothing: what was sent is named in the row or sent again.

use super::{
    cut::Part,
    halt::{self, Halt, Stop},
    job::Context,
    jobs::Listeners,
    live::Ahead,
    ship::{Sent, Shipper},
    source::{Ingest, Origin, Source, TakeReader},
    stitch::{Recipe, Stitcher, Unfit},
};
use crate::{
    db::{Aim, Claim, Claimed, RecordingRow, Work},
    keys::{Folder, Place},
    store::Crc64,
};
use aircheck_core::spool::Manifest;
use aircheck_runtime::failpoint::Failpoint;
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::sleep};
use tokio_util::task::AbortOnDropHandle;

/// How much longer than a finalize job's claim a live job's lives: nobody waits for it to run out,
/// because sealing the row lets go of it.
const LEASES: u32 = 2;
/// How long a call under way may take once the job was recalled.
const RECALL_GRACE: Duration = Duration::from_secs(3);

/// What is known of a live session, and where its bytes are.
#[derive(Clone, Debug)]
pub(super) struct News {
    pub(super) manifest: Arc<Manifest>,
    pub(super) url: String,
    pub(super) ingest: Ingest,
}

impl News {
    /// Whether this is all that `older` knows, or more.
    pub(super) fn knows(&self, older: &Self) -> bool {
        let of = |news: &Self| (news.manifest.takes.len(), news.manifest.bytes());
        let ((takes, bytes), (takes_before, bytes_before)) = (of(self), of(older));
        takes >= takes_before && bytes >= bytes_before
    }
}

/// How a job ends.
pub(super) enum Ended {
    /// Finalize goes on with what it has.
    Recalled(Box<Ahead>),
    /// There is nothing to go on with.
    Over,
}

/// Why following stops.
enum Setback {
    Halt(Halt),
    Unfit(Unfit),
    /// The upload is gone; a replay begins it anew.
    Gone,
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

/// One live job.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) context: Arc<Context>,
    pub(super) news: watch::Receiver<News>,
    pub(super) safe: watch::Sender<Vec<u64>>,
    pub(super) stop: Stop,
}

impl Follower {
    /// Works until the session is sealed, or somebody else works on it.
    pub(super) async fn run(mut self) -> Ended {
        match self.claim().await {
            Ok(Some((claim, row))) => self.hold(claim, row).await,
            Ok(None) | Err(_) => Ended::Over,
        }
    }

    async fn claim(&self) -> Result<Option<(Claim, Box<RecordingRow>)>, Halt> {
        let Context {
            db, owner, lease, ..
        } = &*self.context;
        let lease = *lease * LEASES;
        let id = self.news.borrow().manifest.session.to_string();
        loop {
            let claimed = self
                .stop
                .persist("claim the live row", || {
                    db.claim(&id, owner, lease, Aim::Live)
                })
                .await?;
            match claimed {
                Claimed::Ours(claim, row) => {
                    Failpoint::LiveClaimed.pass();
                    return Ok(Some((claim, row)));
                }
                Claimed::Final(_) => return Ok(None),
                Claimed::Theirs => self.stop.sleep(lease / LEASES).await?,
            }
        }
    }

    /// Works under a claim that is renewed all the while.
    async fn hold(&mut self, claim: Claim, row: Box<RecordingRow>) -> Ended {
        let renewal = renew(Arc::clone(&self.context), claim.clone(), self.stop.clone());
        let _renewal = AbortOnDropHandle::new(tokio::spawn(renewal));
        let context = Arc::clone(&self.context);
        let stop = self.stop.clone();
        let manifest = Arc::clone(&self.news.borrow().manifest);
        let (seat, session) = (manifest.seat(), manifest.session);
        let folder = Folder::new(&context.prefix, &seat, &row.version, session);
        let shipper = Shipper {
            context: &context,
            stop: &stop,
            claim: &claim,
            folder: &folder,
            place: Place::Regular,
        };
        let mut work = row.work.unwrap_or_else(|| Work::fresh(context.part_size));
        let (halt, stitcher) = self.upload(shipper, &manifest, &mut work).await;
        match (&halt, stitcher) {
            (Halt::Recalled, Some(stitcher)) => {
                return Ended::Recalled(Box::new(Ahead {
                    stitcher,
                    work,
                    epoch: claim.epoch,
                }));
            }
            (Halt::Recalled | Halt::ClaimLost, _) => return Ended::Over,
            (halt, _) => tracing::info!(reason = %halt, "no more parts while live"),
        }
        if let Err(error) = context.db.release(&claim).await {
            // The lease runs out by itself.
            tracing::warn!(%error, "release the claim");
        }
        Failpoint::LiveReleased.pass();
        Ended::Over
    }

    /// Uploads until it must stop; with the takes muxed so far, if they can be stitched at all.
    async fn upload(
        &mut self,
        shipper: Shipper<'_>,
        manifest: &Manifest,
        work: &mut Work,
    ) -> (Halt, Option<Stitcher>) {
        if !work.fits(0) {
            if let Err(halt) = shipper.abandon(work).await {
                return (halt, None);
            }
            *work = Work::fresh(shipper.context.part_size);
        }
        let mut backoff = halt::backoff();
        loop {
            let recipe = Recipe::new(manifest, work.part_bytes);
            let unfit = match Stitcher::new(recipe) {
                Err(unfit) => unfit,
                Ok(mut stitcher) => match self.follow(shipper, work, &mut stitcher).await {
                    Setback::Halt(halt) => return (halt, Some(stitcher)),
                    Setback::Unfit(unfit) => unfit,
                    Setback::Gone => {
                        if let Err(halt) = shipper.stop.sleep(backoff.delay()).await {
                            return (halt, None);
                        }
                        continue;
                    }
                },
            };
            tracing::info!(%unfit, "the takes will be archived as they come");
            let halt = match shipper.abandon(work).await {
                Ok(()) => shipper.stop.stopped().await,
                Err(halt) => halt,
            };
            return (halt, None);
        }
    }

    /// Follows the takes; calls under way are cut off some time after a recall.
    async fn follow(
        &mut self,
        shipper: Shipper<'_>,
        work: &mut Work,
        stitcher: &mut Stitcher,
    ) -> Setback {
        let recalled = self.stop.clone();
        let cut_off = async move {
            recalled.recalled().await;
            sleep(RECALL_GRACE).await;
        };
        tokio::select! {
            setback = self.takes(shipper, work, stitcher) => setback,
            () = cut_off => Setback::Halt(Halt::Recalled),
        }
    }

    async fn takes(
        &mut self,
        shipper: Shipper<'_>,
        work: &mut Work,
        stitcher: &mut Stitcher,
    ) -> Setback {
        loop {
            let taken = self.take(shipper, work, stitcher).await;
            if let Err(setback) = taken {
                return setback;
            }
        }
    }

    /// Reads the present take to its end, or until its bytes are somewhere else.
    async fn take(
        &mut self,
        shipper: Shipper<'_>,
        work: &mut Work,
        stitcher: &mut Stitcher,
    ) -> Result<(), Setback> {
        let News {
            mut manifest,
            url,
            ingest,
        } = self.news.borrow_and_update().clone();
        let take = stitcher.place().take;
        if take as usize >= manifest.takes.len() {
            return Ok(self.wait().await?);
        }
        stitcher.begin(&manifest);
        let origin = Origin {
            source: Source::Spool(ingest),
            stop: self.stop.clone(),
            listeners: Listeners::nobody(),
        };
        let offset = stitcher.place().offset;
        let mut reader = TakeReader::growing(origin, manifest.session, take, offset);
        loop {
            if is_over(&manifest, stitcher) {
                stitcher.end()?;
                return self.ship(shipper, work, stitcher).await;
            }
            tokio::select! {
                piece = reader.next() => match piece? {
                    Some(piece) => stitcher.add(&piece)?,
                    None => return Ok(()),
                },
                halted = self.stop.stopped() => return Err(halted.into()),
                known = self.news.changed() => {
                    known.map_err(|_| Halt::Abandoned)?;
                    let news = self.news.borrow_and_update();
                    if news.url != url {
                        return Ok(());
                    }
                    manifest = Arc::clone(&news.manifest);
                    continue;
                }
            }
            self.ship(shipper, work, stitcher).await?;
        }
    }

    async fn wait(&mut self) -> Result<(), Halt> {
        tokio::select! {
            halted = self.stop.stopped() => Err(halted),
            known = self.news.changed() => known.map_err(|_| Halt::Abandoned),
        }
    }

    /// Sends what is full, part 1 in its live form: should the spool be lost, the file plays.
    async fn ship(
        &self,
        shipper: Shipper<'_>,
        work: &mut Work,
        stitcher: &mut Stitcher,
    ) -> Result<(), Setback> {
        if shipper.closed(work, stitcher).await? == Sent::Gone {
            return Err(Setback::Gone);
        }
        for file in 0..stitcher.files() {
            if work.file(file).part(1).is_some() {
                continue;
            }
            let Some(body) = stitcher.live_first(file) else {
                continue;
            };
            let first = Part {
                number: 1,
                crc: Crc64::of(&body),
                body,
            };
            let content_type = stitcher.content_type(file);
            let sent = shipper.parts(work, file, content_type, [first]).await?;
            if sent == Sent::Gone {
                return Err(Setback::Gone);
            }
        }
        if work.file(0).part(1).is_some() {
            let bytes = stitcher.dropped_parts() * work.part_bytes + work.part_bytes;
            if let Some(place) = stitcher.safe_below(bytes) {
                self.safe.send_modify(|safe| stitcher.raise(safe, place));
            }
        }
        Ok(())
    }
}

/// Whether the take is over: a later one has begun, and all its bytes are here.
fn is_over(manifest: &Manifest, stitcher: &Stitcher) -> bool {
    let place = stitcher.place();
    let take = place.take as usize;
    let record = manifest.takes.get(take);
    take + 1 < manifest.takes.len() && record.is_some_and(|record| place.offset >= record.bytes)
}

/// Renews a claim until it is lost or the task is aborted.
async fn renew(context: Arc<Context>, claim: Claim, stop: Stop) {
    let lease = context.lease * LEASES;
    loop {
        sleep(lease / 3).await;
        match context.db.renew_live(&claim, lease).await {
            Ok(true) => {}
            Ok(false) => return stop.claim_lost(),
            // While the database is away nobody else can claim either.
            Err(error) => tracing::warn!(%error, "renew the claim"),
        }
    }
}
