//! The spool: every session's bytes and events, durable, in one shared journal.
//!
//! Owns durability. A sync costs the same for one chunk as for a thousand, so all sessions append to
//! one sequence of preallocated segments, and one `fdatasync` per tick, on a thread of its own, makes
//! everybody's bytes durable (group commit). Must never interpret media, and never report an offset
//! that is not synced.
//!
//! What happens to an append, and what a crash at each step leaves:
//! 1. `SessionSpool::append` queues it. Crash: lost; nobody was told anything.
//! 2. The writer encodes the batch and writes it at the segment's end. Crash: the batch is there, in
//!    part, or not at all; recovery keeps the records whose checksum holds.
//! 3. `fdatasync`. Crash before it returns: as in 2. After: everything of the batch is there.
//! 4. `Marks` are published; sessions acknowledge. Crash: the client resends, overlap is dropped.
//!
//! A write or sync that fails poisons its segment: it is never written or synced again. The batch is
//! still in memory, so it is written once more, as a whole, to a fresh segment. If that fails too,
//! the sessions of the batch learn that their recording has failed: their bytes are dropped, their events
//! are held until the disk takes them. The writer tries it from time to time, and then tells sessions that
//! they may go on.
//!
//! Segments go oldest first. When more than half of what the closed ones hold is needed by nobody, the
//! keeper moves what is needed of the oldest to files of the sessions themselves. Crash before such a
//! file is synced: its records count as far as they are whole, and the segment has them all. After: both
//! have them, and each counts once, since kept files are read first. A session's own files go before the
//! record of its end may go.

mod batch;
mod disk;
mod health;
mod index;
mod keeper;
mod recovery;
mod writer;

pub use index::ReadError;
pub use recovery::Recovered;

use aircheck_core::{id::SessionId, spool::Event};
use bytes::Bytes;
use index::SessionIndex;
use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};
use thiserror::Error;
use tokio::sync::watch;

/// How the spool uses the disk.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it lives.
    pub dir: PathBuf,
    /// Bytes preallocated per segment.
    pub segment_bytes: u64,
    /// Bytes that may wait for the writer, over all sessions.
    pub queue_bytes_max: u64,
    /// Least time between two syncs while many sessions append; a lone one never waits.
    pub tick: Duration,
}

impl Config {
    /// 64 MiB segments, 256 MiB queue, 20 ms tick.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            segment_bytes: 64 << 20,
            queue_bytes_max: 256 << 20,
            tick: Duration::from_millis(20),
        }
    }
}

/// Why the spool can't be used.
#[derive(Debug, Error)]
pub enum Error {
    /// The disk refuses.
    #[error("{doing}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The queue is full: the disk is slower than the broadcasters.
    #[error("the disk is too slow: {queued_bytes} bytes wait to be written")]
    Overloaded {
        /// How many.
        queued_bytes: u64,
    },
    /// The writer has ended.
    #[error("the spool is closed")]
    Closed,
    /// An event that has no JSON.
    #[error("encode session event")]
    Encode(#[source] serde_json::Error),
}

/// What is durable of one session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// For each take: everything below is synced.
    pub takes: Vec<u64>,
    /// Number of events that are synced.
    pub events: u64,
    /// Why an append of this session was given up, until [`Self::run`] is the one that was asked for.
    pub failed: Option<Arc<str>>,
    /// Which of its runs the spool takes bytes of; see [`SessionSpool::restart`].
    pub run: u32,
}

/// Bytes at either end of what [`Reader::around`] reads.
const AROUND_BYTES: usize = 64 << 10;
/// Bytes that a queued command counts for, beside its payload.
const COMMAND_BYTES: u64 = 256;

enum Command {
    Bytes {
        session: Arc<Shared>,
        run: u32,
        take: u32,
        offset: u64,
        data: Bytes,
    },
    /// Bytes of this run are meant to be taken, once the disk takes any.
    Restart {
        session: Arc<Shared>,
        run: u32,
    },
    Event {
        session: Arc<Shared>,
        seq: u64,
        json: Vec<u8>,
    },
    Forget {
        session: Arc<Shared>,
    },
    /// From the keeper: a segment was emptied, or not.
    Kept {
        done: bool,
    },
    /// From the keeper: sessions have let go of their segments.
    Buried,
    Close,
}

impl Command {
    fn cost(&self) -> u64 {
        COMMAND_BYTES
            + match self {
                Self::Bytes { data, .. } => data.len() as u64,
                Self::Event { json, .. } => json.len() as u64,
                Self::Restart { .. }
                | Self::Forget { .. }
                | Self::Kept { .. }
                | Self::Buried
                | Self::Close => 0,
            }
    }
}

/// What the writer and the readers of a session share.
#[derive(Debug)]
struct Shared {
    id: SessionId,
    index: Mutex<SessionIndex>,
    marks: watch::Sender<Marks>,
    /// Bytes of earlier runs are dropped.
    run: AtomicU32,
}

impl Shared {
    fn new(id: SessionId) -> Self {
        Self {
            id,
            index: Mutex::new(SessionIndex::default()),
            marks: watch::Sender::new(Marks::default()),
            run: AtomicU32::new(0),
        }
    }

    /// A poisoned lock means that another thread died while it held the map; what the map says is
    /// still true, since each change is a single push.
    fn index(&self) -> MutexGuard<'_, SessionIndex> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Queue {
    commands: mpsc::Sender<Command>,
    queued_bytes: Arc<AtomicU64>,
    queue_bytes_max: u64,
}

impl Queue {
    fn push(&self, command: Command) -> Result<(), Error> {
        let cost = command.cost();
        let queued_bytes = self.queued_bytes.fetch_add(cost, Ordering::Relaxed);
        if queued_bytes > self.queue_bytes_max && matches!(command, Command::Bytes { .. }) {
            self.queued_bytes.fetch_sub(cost, Ordering::Relaxed);
            return Err(Error::Overloaded { queued_bytes });
        }
        self.commands.send(command).map_err(|_| Error::Closed)
    }
}

/// Every session that has not been forgotten.
type Sessions = Arc<Mutex<HashMap<SessionId, Arc<Shared>>>>;

/// The spool of one ingest. Cheap to clone.
#[derive(Clone)]
pub struct Spool {
    queue: Arc<Queue>,
    sessions: Sessions,
    low: Arc<AtomicBool>,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool").finish_non_exhaustive()
    }
}

impl Spool {
    /// Opens the spool, recovers what it holds, and starts its writer. Blocks while it reads.
    ///
    /// # Errors
    /// If the directory can't be created, read or synced.
    pub fn open(config: Config) -> Result<(Self, Vec<Recovered>), Error> {
        let journal = config.dir.join("journal");
        disk::create_dir(&journal)?;
        let recovery = recovery::recover(&journal)?;
        let (commands, receiver) = mpsc::channel();
        let queued_bytes = Arc::new(AtomicU64::new(0));
        let queue = Arc::new(Queue {
            commands,
            queued_bytes: Arc::clone(&queued_bytes),
            queue_bytes_max: config.queue_bytes_max,
        });
        let (mut sessions, mut recovered) = (HashMap::new(), Vec::new());
        for (shared, found) in recovery.sessions {
            sessions.insert(shared.id, Arc::clone(&shared));
            let spool = SessionSpool {
                shared,
                queue: Arc::clone(&queue),
                events: found.events,
                run: 0,
            };
            recovered.push(Recovered {
                spool,
                manifest: found.manifest,
            });
        }
        let sessions = Arc::new(Mutex::new(sessions));
        let failed = |source| Error::Io {
            doing: "start spool threads",
            source,
        };
        let keeper = keeper::Keeper::new(
            journal.clone(),
            Arc::clone(&sessions),
            Arc::downgrade(&queue),
            config.segment_bytes,
            recovery.next_kept,
        );
        let keeper = keeper.start().map_err(failed)?;
        let writer = writer::Writer::new(
            config,
            journal,
            (recovery.segments, recovery.last_bytes),
            receiver,
            queued_bytes,
            keeper,
        );
        let low = writer.low();
        let writer = std::thread::Builder::new()
            .name("spool-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(failed)?;
        let spool = Self {
            queue,
            sessions,
            low,
            writer: Arc::new(Mutex::new(Some(writer))),
        };
        Ok((spool, recovered))
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Shared>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to keep a session. Its first event must be `Opened`.
    #[must_use]
    pub fn session(&self, id: SessionId) -> SessionSpool {
        let shared = Arc::new(Shared::new(id));
        self.sessions().insert(id, Arc::clone(&shared));
        SessionSpool {
            shared,
            queue: Arc::clone(&self.queue),
            events: 0,
            run: 0,
        }
    }

    /// Whether there is too little room, or none, for sessions that have not begun.
    #[must_use]
    pub fn is_low(&self) -> bool {
        self.low.load(Ordering::Relaxed)
    }

    /// Gives up a session's bytes, whose archive is proved.
    ///
    /// # Errors
    /// If the writer has ended; the session is then found again at the next start.
    pub fn forget(&self, id: SessionId) -> Result<(), Error> {
        match self.sessions().remove(&id) {
            Some(session) => self.queue.push(Command::Forget { session }),
            None => Ok(()),
        }
    }

    /// A reader of what is durable of a session.
    #[must_use]
    pub fn reader(&self, id: SessionId) -> Option<Reader> {
        self.sessions().get(&id).map(|shared| Reader {
            shared: Arc::clone(shared),
        })
    }

    /// Writes what is queued and ends the writer. Blocks until that is done.
    pub fn close(&self) {
        let closing = self.queue.push(Command::Close);
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if closing.is_ok()
            && let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("the spool writer panicked");
        }
    }
}

/// The writing end of one session. One task owns it.
pub struct SessionSpool {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    events: u64,
    run: u32,
}

impl std::fmt::Debug for SessionSpool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionSpool")
            .field("session", &self.shared.id)
            .finish_non_exhaustive()
    }
}

impl SessionSpool {
    /// Queues media bytes; they are durable once [`Marks::takes`] has passed their end.
    ///
    /// # Errors
    /// [`Error::Overloaded`] or [`Error::Closed`]; the bytes are not queued.
    pub fn append(&self, take: u32, offset: u64, data: Bytes) -> Result<(), Error> {
        let session = Arc::clone(&self.shared);
        self.queue.push(Command::Bytes {
            session,
            run: self.run,
            take,
            offset,
            data,
        })
    }

    /// After an append was refused or given up: asks to be told, by [`Marks::run`], when bytes are taken
    /// again, and returns the number it will be. Until then nothing must be appended; then each take
    /// goes on at its durable end, and nothing from before is written any more.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn restart(&mut self) -> Result<u32, Error> {
        self.run += 1;
        let session = Arc::clone(&self.shared);
        let run = self.run;
        self.queue.push(Command::Restart { session, run })?;
        Ok(run)
    }

    /// Queues an event; it is durable once [`Marks::events`] has reached the returned number.
    ///
    /// # Errors
    /// [`Error::Encode`] or [`Error::Closed`].
    pub fn persist(&mut self, event: &Event) -> Result<u64, Error> {
        let json = serde_json::to_vec(event).map_err(Error::Encode)?;
        let session = Arc::clone(&self.shared);
        self.queue.push(Command::Event {
            session,
            seq: self.events,
            json,
        })?;
        self.events += 1;
        Ok(self.events)
    }

    /// What is durable, and every change of it.
    #[must_use]
    pub fn marks(&self) -> watch::Receiver<Marks> {
        self.shared.marks.subscribe()
    }
}

/// Reads what is durable of one session.
#[derive(Clone, Debug)]
pub struct Reader {
    shared: Arc<Shared>,
}

impl Reader {
    /// Chunks of a take from `offset` on, up to about `max_bytes`, each with its offset, checked
    /// against its checksum. A hole shows as a jump in the offsets. Empty at the durable end. Blocks.
    ///
    /// # Errors
    /// If the disk refuses, or returns other bytes than were written.
    pub fn read(
        &self,
        take: u32,
        offset: u64,
        max_bytes: usize,
    ) -> Result<Vec<(u64, Bytes)>, ReadError> {
        let extents = self.shared.index().from(take, offset, max_bytes);
        index::read(self.shared.id, take, offset, &extents)
    }

    /// What a reader needs that comes to a take in its middle: the durable bytes at its beginning, and
    /// those just before `offset`, 64 KiB each. Blocks.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub fn around(&self, take: u32, offset: u64) -> Result<Vec<(u64, Bytes)>, ReadError> {
        let mut pieces = self.read(take, 0, AROUND_BYTES)?;
        let head = pieces.last().map_or(0, |(at, data)| at + data.len() as u64);
        let tail = head.max(offset.saturating_sub(AROUND_BYTES as u64));
        if tail < offset {
            pieces.extend(self.read(take, tail, AROUND_BYTES)?);
        }
        pieces.retain_mut(|(at, data)| {
            let wanted = usize::try_from(offset.saturating_sub(*at)).unwrap_or(usize::MAX);
            data.truncate(wanted);
            !data.is_empty()
        });
        Ok(pieces)
    }

    /// What is durable, and every change of it.
    #[must_use]
    pub fn marks(&self) -> watch::Receiver<Marks> {
        self.shared.marks.subscribe()
    }
}

#[cfg(test)]
mod tests;
