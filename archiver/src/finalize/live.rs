//! Uploading while the show is live: one job a session, long before it is sealed.
//!
//! Owns nothing that matters: whatever fails here is brought at Finalize. A job follows the spool,
//! muxes, and sends each part as it fills; Finalize recalls it and goes on where it is. Must never
//! complete an upload.

use super::{
    follow::{Ended, Follower, News},
    halt::Stop,
    job::Context,
    jobs::lock,
    source::Ingest,
    stitch::Stitcher,
};
use crate::db::Work;
use aircheck_core::{id::SessionId, spool::Manifest};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

/// Most jobs at one time; each may hold two parts in memory. Sessions beyond are uploaded at
/// Finalize.
const LIVE_MAX: usize = 256;

/// What a job leaves to Finalize.
#[derive(Debug)]
pub(crate) struct Ahead {
    pub(super) stitcher: Stitcher,
    /// At least as fresh as the row's, as long as nobody claimed the row since.
    pub(super) work: Work,
    /// Of the claim under which it was made.
    pub(super) epoch: i64,
}

/// A job that runs.
#[derive(Debug)]
struct Entry {
    /// Tells jobs of one session apart.
    number: u64,
    news: watch::Sender<News>,
    /// For each take, the offset below which everything is in a part.
    safe: watch::Receiver<Vec<u64>>,
    recall: CancellationToken,
    task: JoinHandle<Option<Box<Ahead>>>,
}

type Running = Arc<Mutex<HashMap<SessionId, Entry>>>;

/// All such jobs of this process.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    context: Arc<Context>,
    running: Running,
    numbers: Arc<AtomicU64>,
    tasks: TaskTracker,
    cut_off: CancellationToken,
}

impl Live {
    pub(super) fn new(
        context: Arc<Context>,
        tasks: TaskTracker,
        cut_off: CancellationToken,
    ) -> Self {
        Self {
            context,
            running: Arc::default(),
            numbers: Arc::default(),
            tasks,
            cut_off,
        }
    }

    /// Tells the session's job what is new, and starts one if there is none. Answers, for each take,
    /// the offset below which everything is in a part.
    pub(super) fn advance(&self, manifest: Manifest, url: &str, ingest: Ingest) -> Vec<u64> {
        let lengths: Vec<_> = manifest.takes.iter().map(|take| take.bytes).collect();
        let news = News {
            manifest: Arc::new(manifest),
            url: url.to_owned(),
            ingest,
        };
        let mut running = lock(&self.running);
        let session = news.manifest.session;
        if let Some(entry) = running.get(&session) {
            let safe = entry.safe.borrow().clone();
            // Calls overtake one another: one that knows less is older.
            entry.news.send_if_modified(|known| {
                let is_newer = news.knows(known);
                if is_newer {
                    *known = news;
                }
                is_newer
            });
            let safe = safe.into_iter().chain(std::iter::repeat(0));
            return lengths
                .iter()
                .zip(safe)
                .map(|(&len, safe)| safe.min(len))
                .collect();
        }
        if running.len() < LIVE_MAX && !self.context.shutdown.is_triggered() {
            running.insert(session, self.start(news));
        }
        vec![0; lengths.len()]
    }

    /// Ends the session's job, if there is one, and takes over what it has.
    pub(super) async fn recall(&self, session: SessionId) -> Option<Box<Ahead>> {
        let entry = lock(&self.running).remove(&session)?;
        entry.recall.cancel();
        // A job that panicked leaves nothing but a replay.
        entry.task.await.unwrap_or_default()
    }

    fn start(&self, news: News) -> Entry {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let session = news.manifest.session;
        let span =
            tracing::info_span!("live", session_id = %session, show_id = %news.manifest.show_id);
        let (news, latest) = watch::channel(news);
        let (told, safe) = watch::channel(Vec::new());
        let recall = CancellationToken::new();
        let follower = Follower {
            context: Arc::clone(&self.context),
            news: latest,
            safe: told,
            stop: Stop::recallable(self.context.shutdown.clone(), recall.clone()),
        };
        let leaving = Leaving {
            session,
            number,
            running: Arc::clone(&self.running),
        };
        let cut_off = self.cut_off.clone();
        let job = async move {
            let ended = tokio::select! {
                ended = follower.run() => ended,
                () = cut_off.cancelled() => Ended::Over,
            };
            drop(leaving);
            match ended {
                Ended::Recalled(ahead) => Some(ahead),
                Ended::Over => None,
            }
        };
        let task = self.tasks.spawn(job.instrument(span));
        Entry {
            number,
            news,
            safe,
            recall,
            task,
        }
    }
}

/// A job's entry, which goes with its task however that ends.
struct Leaving {
    session: SessionId,
    number: u64,
    running: Running,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let mut running = lock(&self.running);
        if running
            .get(&self.session)
            .is_some_and(|entry| entry.number == self.number)
        {
            running.remove(&self.session);
        }
    }
}
