//! All sessions of this ingest, and which show they hold.
//!
//! Owns the table and the tasks behind it. Its lock is held for look-ups only, never across an await,
//! and never guards a session: those belong to their tasks.

use crate::{
    archiver::Archiver,
    clock::Clock,
    config::Options,
    live::LiveBranch,
    session::{Actor, Command, Handle, MAILBOX, Parts},
    sink::{Sinks, Watch},
    spool::{Recovered, Spool},
};
use aircheck_core::{
    code::Code,
    id::{Seat, SessionId, ShowId},
    session::{Admit, Directory, Session},
    spool::{GapPolicy, Manifest},
};
use aircheck_proto::{Fault, ingest};
use aircheck_runtime::failpoint::Failpoint;
use aircheck_runtime::shutdown::Shutdown;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{broadcast, mpsc};
use tokio_util::task::TaskTracker;
use ulid::Ulid;

/// Sessions remembered after their end, so that a late `stop` or `hello` gets a true answer.
const RECENT: usize = 4096;
/// Changes a watcher may lag behind before it misses some.
const CHANGES: usize = 1024;

/// When to come back to an ingest whose disk is low.
const LOW_RETRY_MS: u64 = 10_000;

/// What a show says about its sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShowSettings {
    pub(crate) title: Option<String>,
    pub(crate) grace_ms: Option<u64>,
    pub(crate) gap_policy: GapPolicy,
    /// Beside the show, not on air.
    pub(crate) rehearsal: bool,
}

#[derive(Debug)]
struct Table {
    directory: Directory,
    sessions: HashMap<SessionId, Handle>,
    /// Ended ones, oldest first.
    recent: VecDeque<(Seat, ingest::SessionStatus)>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Registry {
    table: Mutex<Table>,
    spool: Spool,
    clock: Clock,
    options: Options,
    archiver: Archiver,
    changes: broadcast::Sender<ingest::SessionStatus>,
    sessions: TaskTracker,
    errands: TaskTracker,
    sinks: TaskTracker,
    shutdown: Shutdown,
}

impl Registry {
    pub(crate) fn new(
        spool: Spool,
        options: Options,
        archiver: Archiver,
        shutdown: Shutdown,
    ) -> Arc<Self> {
        let table = Table {
            directory: Directory::new(options.sessions_max),
            sessions: HashMap::new(),
            recent: VecDeque::new(),
        };
        Arc::new(Self {
            table: Mutex::new(table),
            spool,
            clock: Clock::default(),
            options,
            archiver,
            changes: broadcast::Sender::new(CHANGES),
            sessions: TaskTracker::new(),
            errands: TaskTracker::new(),
            sinks: TaskTracker::new(),
            shutdown,
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up what a spool still held.
    pub(crate) fn recover(self: &Arc<Self>, recovered: Vec<Recovered>) {
        for Recovered { spool, manifest } in recovered {
            let (id, seat) = (manifest.session, manifest.seat());
            let show_id = &seat.show;
            tracing::info!(%show_id, session_id = %id, bytes = manifest.bytes(), "session recovered");
            let session = Session::recover(manifest, self.options.limits(), self.clock.now());
            if session.is_open() && self.table().directory.admit(&seat, id).is_err() {
                tracing::warn!(%show_id, "more sessions recovered than allowed; this one runs on");
            }
            self.start(session, spool, id, seat);
        }
    }

    /// The session of a show, or of its rehearsal, which begins now if there is none.
    pub(crate) fn admit(
        self: &Arc<Self>,
        show_id: &ShowId,
        settings: &ShowSettings,
    ) -> Result<Handle, Fault> {
        let mut table = self.table();
        let seat = Seat {
            show: show_id.clone(),
            rehearsal: settings.rehearsal,
        };
        if self.spool.is_low() && table.directory.find(&seat).is_none() {
            let message = "the disk for recordings is nearly full, or fails";
            return Err(Fault::retry(Code::Unavailable, message, LOW_RETRY_MS));
        }
        let admitted = table.directory.admit(&seat, SessionId(Ulid::new()));
        let full = |error: aircheck_core::session::Full| {
            Fault::retry(Code::TooMany, error.to_string(), 10_000)
        };
        let (Admit::Existing(id) | Admit::Opened(id)) = admitted.map_err(full)?;
        if let Some(handle) = table.sessions.get(&id) {
            return Ok(handle.clone());
        }
        drop(table);
        let now = self.clock.now();
        let default_ms = u64::try_from(self.options.grace.as_millis()).unwrap_or(u64::MAX);
        let grace_ms = settings.grace_ms.unwrap_or(default_ms);
        let mut manifest = Manifest::new(id, show_id.clone(), now.unix_ms, grace_ms);
        manifest.title.clone_from(&settings.title);
        manifest.gap_policy = settings.gap_policy;
        manifest.rehearsal = settings.rehearsal;
        let session = Session::open(manifest, self.options.limits(), now);
        Failpoint::SessionOpened.pass();
        let rehearsal = settings.rehearsal;
        tracing::info!(%show_id, session_id = %id, rehearsal, "session opened");
        Ok(self.start(session, self.spool.session(id), id, seat))
    }

    fn start(
        self: &Arc<Self>,
        session: Session,
        spool: crate::spool::SessionSpool,
        id: SessionId,
        seat: Seat,
    ) -> Handle {
        let (mailbox, receiver) = mpsc::channel(MAILBOX);
        let handle = Handle {
            id,
            seat,
            mailbox: mailbox.clone(),
        };
        self.table().sessions.insert(id, handle.clone());
        let open = session.is_open();
        let on_air = open && !handle.seat.rehearsal;
        let (wanted, watch) = if on_air {
            (&self.options.live_sinks[..], self.options.watch())
        } else {
            (&[][..], Watch::default())
        };
        let (sinks, feeds) = Sinks::start(
            wanted,
            watch,
            &self.options.encoding(),
            &handle.seat.show,
            &self.sinks,
        );
        let marks = spool.marks();
        let actor = Actor::new(Parts {
            session,
            spool,
            live: LiveBranch::new(self.options.listeners_max).with_feeds(feeds),
            sinks,
            clock: self.clock,
            registry: Arc::clone(self),
        });
        if open {
            let announcing = self
                .archiver
                .clone()
                .announce(actor.announcements(), marks, mailbox);
            self.errand(announcing);
        }
        metrics::gauge!("aircheck_sessions").increment(1);
        let registry = Arc::clone(self);
        let (task, sessions) = (actor.run(receiver), self.sessions.clone());
        self.sessions.spawn(async move {
            // A panic in one session must be seen, and must leave the others alone.
            let ended = sessions.spawn(task).await;
            if let Err(error) = ended {
                tracing::error!(%error, session_id = %id, "a session's task failed");
                registry.lost(id);
            }
            metrics::gauge!("aircheck_sessions").decrement(1);
        });
        handle
    }

    /// Something that may be given up when the process ends.
    fn errand(&self, task: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.errands.spawn(async move {
            tokio::select! {
                () = task => {}
                () = shutdown.triggered() => {}
            }
        });
    }

    /// The session of a show on air, if it is open.
    pub(crate) fn open_session(&self, show_id: &ShowId) -> Option<Handle> {
        let table = self.table();
        let seat = Seat {
            show: show_id.clone(),
            rehearsal: false,
        };
        table.sessions.get(&table.directory.find(&seat)?).cloned()
    }

    /// Every session that is not over and whose seat is wanted, the newest first.
    pub(crate) fn handles(&self, wanted: impl Fn(&Seat) -> bool) -> Vec<Handle> {
        let wanted = |handle: &&Handle| wanted(&handle.seat);
        let mut found: Vec<_> = self
            .table()
            .sessions
            .values()
            .filter(wanted)
            .cloned()
            .collect();
        found.sort_by_key(|handle| std::cmp::Reverse(handle.id));
        found
    }

    /// The last session of a show that is over, if it is remembered.
    pub(crate) fn last_over(&self, show_id: &ShowId) -> Option<ingest::SessionStatus> {
        let table = self.table();
        let mut found = table
            .recent
            .iter()
            .rev()
            .filter(|(seat, _)| seat.show == *show_id && !seat.rehearsal);
        found.next().map(|(_, status)| status.clone())
    }

    /// How a session stands that a client names but that the show no longer has.
    pub(crate) fn previous(&self, session: &str) -> Option<ingest::Previous> {
        let table = self.table();
        let found = table
            .recent
            .iter()
            .find(|(_, status)| status.session == session);
        let status = match found {
            Some((_, status)) if status.state() == ingest::SessionState::Archived => "archived",
            Some(_) => "failed",
            None => {
                let id = session.parse().ok()?;
                table.sessions.get(&id).map(|_| "finalizing")?
            }
        };
        Some(ingest::Previous {
            session: session.to_owned(),
            status: status.to_owned(),
        })
    }

    pub(crate) fn watch(&self) -> broadcast::Receiver<ingest::SessionStatus> {
        self.changes.subscribe()
    }

    /// How long a connected broadcaster may send nothing before that is said.
    pub(crate) fn watch_no_data(&self) -> Duration {
        self.options.watch_no_data
    }

    pub(crate) fn archiver(&self) -> &Archiver {
        &self.archiver
    }

    pub(crate) fn spool(&self) -> &Spool {
        &self.spool
    }

    /// A session has news, which is made only if somebody watches.
    pub(crate) fn changed(&self, status: impl FnOnce() -> ingest::SessionStatus) {
        if self.changes.receiver_count() > 0 && self.changes.send(status()).is_err() {
            tracing::trace!("the last watcher left");
        }
    }

    /// A session takes no more connections: its show is free.
    pub(crate) fn sealed(&self, seat: &Seat, id: SessionId) {
        self.table().directory.close(seat, id);
    }

    /// A sealed session's events are durable: its archive is due.
    pub(crate) fn finalize(&self, manifest: Manifest) {
        let handle = self.table().sessions.get(&manifest.session).cloned();
        if let Some(handle) = handle {
            self.errand(self.archiver.clone().finalize(manifest, handle.mailbox));
        }
    }

    /// Reads the beginning of a take, and what lies just before `offset`, for the live branch.
    pub(crate) fn recall(&self, id: SessionId, take: u32, offset: u64) {
        let handle = self.table().sessions.get(&id).cloned();
        if let (Some(handle), Some(reader)) = (handle, self.spool.reader(id)) {
            self.errand(async move {
                let reading = move || reader.around(take, offset);
                let known = tokio::task::spawn_blocking(reading).await;
                let known = match known {
                    Ok(Ok(known)) => known,
                    Ok(Err(error)) => {
                        tracing::warn!(%error, session_id = %id, take, "read a take's beginning");
                        Vec::new()
                    }
                    Err(_) => Vec::new(),
                };
                let beginning = Command::Beginning { take, known };
                if handle.mailbox.send(beginning).await.is_err() {
                    tracing::debug!(session_id = %id, "the session is gone already");
                }
            });
        }
    }

    /// A session's archive is proved, and that is durable: its bytes may go.
    pub(crate) fn over(&self, seat: Seat, status: ingest::SessionStatus) {
        let id = status.session.parse::<SessionId>();
        let mut table = self.table();
        table.recent.push_back((seat, status));
        if table.recent.len() > RECENT {
            table.recent.pop_front();
        }
        if let Ok(id) = id {
            table.sessions.remove(&id);
            drop(table);
            if let Err(error) = self.spool.forget(id) {
                tracing::warn!(%error, session_id = %id, "free the spool; it is freed after a restart");
            }
        }
    }

    /// A session's task died. What is durable stays in the spool and is recovered at the next start.
    fn lost(&self, id: SessionId) {
        let mut table = self.table();
        if let Some(handle) = table.sessions.remove(&id) {
            table.directory.close(&handle.seat, id);
        }
        metrics::counter!("aircheck_sessions_lost_total").increment(1);
    }

    /// Lets every session say goodbye, and waits for them, at most `limit`.
    pub(crate) async fn drain(&self, limit: Duration) {
        self.sessions.close();
        self.errands.close();
        self.sinks.close();
        for handle in self.handles(|_| true) {
            if handle
                .mailbox
                .send_timeout(Command::Drain, limit)
                .await
                .is_err()
            {
                tracing::debug!(session_id = %handle.id, "session is gone already");
            }
        }
        let ended = async {
            self.sessions.wait().await;
            self.errands.wait().await;
            self.sinks.wait().await;
        };
        if tokio::time::timeout(limit, ended).await.is_err() {
            tracing::warn!(
                "some sessions did not drain in time; they are recovered at the next start"
            );
        }
    }
}
