//! Running finalize jobs of this process, one a session.
//!
//! Owns who shares which job and how they end together. A client that hangs up changes nothing;
//! shutdown stops every job between two calls, and cuts off what is left after [`DRAIN`].

use super::{
    job::{Context, Job},
    live::Live,
    objects::TakeObjects,
    source::{Ingest, Source},
    sweep::{Schedule, Sweeper},
};
use crate::{
    db::{RecordingRow, StoredObject},
    rendition,
};
use aircheck_core::{code::Code, id::SessionId, spool::Manifest};
use aircheck_proto::Fault;
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

/// How long calls under way may go on after shutdown.
const DRAIN: Duration = Duration::from_secs(10);

/// How far a job has come, in bytes of media.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) bytes: u64,
    /// In parts or objects that the store has taken.
    pub(crate) archived: u64,
}

/// Where a job stands.
#[derive(Clone, Debug)]
pub(crate) enum JobState {
    /// At work.
    Running(Progress),
    /// Over: the final row, or why there is none.
    Ended(Result<Arc<RecordingRow>, Fault>),
}

/// Who waits for a job.
#[derive(Clone, Debug)]
pub(crate) struct Listeners(watch::Sender<JobState>);

impl Listeners {
    /// Nobody.
    pub(crate) fn nobody() -> Self {
        Self(watch::Sender::new(JobState::Running(Progress::default())))
    }

    /// Whether anybody does.
    pub(crate) fn any(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Tells them how far the job has come. A replay takes back nothing of what was told.
    pub(crate) fn tell(&self, mut progress: Progress) {
        self.0.send_modify(|state| {
            if let JobState::Running(told) = state {
                progress.archived = progress.archived.max(told.archived);
            }
            *state = JobState::Running(progress);
        });
    }

    fn end(&self, result: Result<RecordingRow, Fault>) {
        self.0.send_replace(JobState::Ended(result.map(Arc::new)));
    }
}

/// All jobs of this process.
#[derive(Clone, Debug)]
pub(crate) struct Jobs {
    context: Arc<Context>,
    running: Arc<Mutex<HashMap<SessionId, Listeners>>>,
    live: Live,
    tasks: TaskTracker,
    cut_off: CancellationToken,
}

impl Jobs {
    /// Jobs end with `cut_off`, wherever they are: it belongs to whoever serves.
    pub(crate) fn new(context: Context, cut_off: CancellationToken) -> Self {
        let (context, tasks) = (Arc::new(context), TaskTracker::new());
        Self {
            live: Live::new(Arc::clone(&context), tasks.clone(), cut_off.clone()),
            context,
            running: Arc::default(),
            tasks,
            cut_off,
        }
    }

    /// From now on looks for abandoned uploads.
    pub(crate) fn sweep(&self, schedule: Schedule) {
        let sweeper = Sweeper::new(&self.context, schedule);
        let cut_off = self.cut_off.clone();
        self.tasks
            .spawn(async move { cut_off.run_until_cancelled(sweeper.run()).await });
    }

    /// Uploads ahead what is new of a live session, whose bytes are with the ingest at `url`.
    /// Answers, for each take, the offset below which everything is in a part.
    pub(crate) fn advance(&self, manifest: Manifest, url: &str, ingest: Ingest) -> Vec<u64> {
        if lock(&self.running).contains_key(&manifest.session) {
            return vec![0; manifest.takes.len()];
        }
        self.live.advance(manifest, url, ingest)
    }

    /// The job of this session: the one that runs, or a new one.
    ///
    /// # Errors
    /// `AC_DRAINING`, when no new jobs are taken.
    pub(crate) fn join(
        &self,
        manifest: Manifest,
        ingest: Ingest,
    ) -> Result<watch::Receiver<JobState>, Fault> {
        self.begin(manifest, Source::Spool(ingest))
    }

    /// The job that stitches what was archived raw as `objects`, unless one of this session runs.
    ///
    /// # Errors
    /// As for [`Self::join`].
    pub(crate) fn repair(
        &self,
        manifest: Manifest,
        objects: &[StoredObject],
    ) -> Result<watch::Receiver<JobState>, Fault> {
        let takes = TakeObjects::new(Arc::clone(&self.context.store), objects);
        self.begin(manifest, Source::Takes(takes))
    }

    fn begin(
        &self,
        manifest: Manifest,
        source: Source,
    ) -> Result<watch::Receiver<JobState>, Fault> {
        if self.context.shutdown.is_triggered() {
            return Err(Fault::retry(
                Code::Draining,
                "the archiver is draining",
                1000,
            ));
        }
        let session = manifest.session;
        let listeners = match lock(&self.running).entry(session) {
            Entry::Occupied(running) => return Ok(running.get().0.subscribe()),
            Entry::Vacant(free) => {
                let progress = Progress {
                    bytes: manifest.bytes(),
                    archived: 0,
                };
                let started = Listeners(watch::Sender::new(JobState::Running(progress)));
                free.insert(started).clone()
            }
        };
        let states = listeners.0.subscribe();
        let span =
            tracing::info_span!("finalize", session_id = %session, show_id = %manifest.show_id);
        let job = Job {
            context: Arc::clone(&self.context),
            manifest: Arc::new(manifest),
            source,
            live: self.live.clone(),
            listeners: listeners.clone(),
            begun: Instant::now(),
        };
        let entry = Running {
            session,
            running: Arc::clone(&self.running),
        };
        let cut_off = self.cut_off.clone();
        self.tasks.spawn(
            async move {
                let ended = tokio::select! {
                    ended = job.run() => ended,
                    () = cut_off.cancelled() => {
                        Err(Fault::retry(Code::Draining, "the archiver is draining", 1000))
                    }
                };
                listeners.end(ended);
                drop(entry);
            }
            .instrument(span),
        );
        Ok(states)
    }

    /// Makes renditions from now on, one at a time, until shutdown.
    pub(crate) fn render(&self) {
        let work = rendition::work(Arc::clone(&self.context));
        let cut_off = self.cut_off.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = work => {}
                () = cut_off.cancelled() => {}
            }
        });
    }

    /// Waits until every job has ended; the shutdown that makes them end was triggered before.
    pub(crate) async fn drain(&self) {
        self.tasks.close();
        if tokio::time::timeout(DRAIN, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                jobs = self.tasks.len(),
                "cut off jobs that did not stop in time"
            );
            self.cut_off.cancel();
            self.tasks.wait().await;
        }
    }
}

/// A job's entry, which goes with its task however that ends.
struct Running {
    session: SessionId,
    running: Arc<Mutex<HashMap<SessionId, Listeners>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.running).remove(&self.session);
    }
}

pub(super) fn lock<T>(
    running: &Mutex<HashMap<SessionId, T>>,
) -> MutexGuard<'_, HashMap<SessionId, T>> {
    // Nothing that holds it can leave the map half changed.
    running.lock().unwrap_or_else(PoisonError::into_inner)
}
