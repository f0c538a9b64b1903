//! The keeper: a thread that moves what living sessions still need out of the oldest segment, so that it
//! can go, and lets go of what ended sessions have left.
//!
//! Owns kept files: each belongs to one session and goes with it. A record is durable in its new place
//! before the index points there, and only then may its old place go. Must never change a segment, and
//! never hold the writer up: it copies in small pieces and rests in between.

use super::{
    Command, Queue, Sessions, Shared,
    disk::{self, Segment},
    index::{Place, ReadError, read_record},
};
use aircheck_core::{
    id::SessionId,
    spool::record::{self, Kind},
};
use aircheck_runtime::failpoint::Failpoint;
use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{
        Arc, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use thiserror::Error;

/// Bytes copied and synced at a time.
const PIECE_BYTES: usize = 1 << 20;
/// Longest rest after a piece; it rests for as long as the piece took, so as to leave the disk to acks.
const REST_MAX: Duration = Duration::from_millis(200);
/// When files that could not be removed are tried again.
const RETRY: Duration = Duration::from_secs(30);

enum Errand {
    Keep(Arc<Segment>),
    Bury(Arc<Shared>),
}

/// Why nothing was moved.
#[derive(Debug, Error)]
pub(super) enum KeepError {
    /// The disk refuses.
    #[error("copy what sessions need")]
    Io(#[from] io::Error),
    /// What is to be moved can't be read.
    #[error("read what sessions need")]
    Read(#[from] ReadError),
    /// It was broken off.
    #[error("the spool is closing")]
    Closing,
}

/// What the writer has of the keeper. Its errands are at most one segment, and each session once.
pub(super) struct Handle {
    errands: mpsc::Sender<Errand>,
    closing: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Handle {
    /// Moves what sessions need of the oldest segment; [`Command::Kept`] is the answer.
    pub(super) fn keep(&self, segment: &Arc<Segment>) -> bool {
        self.errands.send(Errand::Keep(Arc::clone(segment))).is_ok()
    }

    /// Lets go of everything of a session that is over; [`Command::Buried`] is the answer.
    pub(super) fn bury(&self, session: Arc<Shared>) {
        if self.errands.send(Errand::Bury(session)).is_err() {
            tracing::error!("the spool keeper has ended; space comes back after a restart");
        }
    }

    /// Buries who is to be buried, breaks off what is being moved, and waits for the end of that.
    pub(super) fn close(self) {
        self.closing.store(true, Ordering::Relaxed);
        drop(self.errands);
        if self.thread.join().is_err() {
            tracing::error!("the spool keeper panicked");
        }
    }
}

/// A kept file that more can be appended to.
struct Growing {
    file: Arc<Segment>,
    /// Everything below is synced.
    position: u64,
}

pub(super) struct Keeper {
    journal: PathBuf,
    sessions: Sessions,
    /// Weak, since the writer behind it waits for the keeper.
    queue: Weak<Queue>,
    file_bytes_max: u64,
    next_number: u64,
    growing: HashMap<SessionId, Growing>,
    /// Sessions whose files could not be removed yet.
    unburied: Vec<Arc<Shared>>,
    closing: Arc<AtomicBool>,
}

impl Keeper {
    pub(super) fn new(
        journal: PathBuf,
        sessions: Sessions,
        queue: Weak<Queue>,
        file_bytes_max: u64,
        next_number: u64,
    ) -> Self {
        Self {
            journal,
            sessions,
            queue,
            file_bytes_max,
            next_number,
            growing: HashMap::new(),
            unburied: Vec::new(),
            closing: Arc::default(),
        }
    }

    pub(super) fn start(self) -> io::Result<Handle> {
        let (errands, receiver) = mpsc::channel();
        let closing = Arc::clone(&self.closing);
        let thread = std::thread::Builder::new()
            .name("spool-keeper".to_owned())
            .spawn(move || self.run(&receiver))?;
        Ok(Handle {
            errands,
            closing,
            thread,
        })
    }

    fn run(mut self, errands: &Receiver<Errand>) {
        loop {
            let errand = if self.unburied.is_empty() {
                errands.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                errands.recv_timeout(RETRY)
            };
            match errand {
                Ok(Errand::Keep(segment)) => {
                    let done = self.keep_or_say(&segment);
                    // Ours is one of the references that hold the segment.
                    drop(segment);
                    self.tell(Command::Kept { done });
                }
                Ok(Errand::Bury(session)) => {
                    self.unburied.push(session);
                    self.bury();
                }
                Err(RecvTimeoutError::Timeout) => self.bury(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn tell(&self, command: Command) {
        let told = self.queue.upgrade().map(|queue| queue.push(command));
        if !matches!(told, Some(Ok(()))) {
            tracing::debug!("the spool writer has ended");
        }
    }

    /// Removes the files of sessions that are over, and only then lets go of the segments that say so.
    fn bury(&mut self) {
        let before = self.unburied.len();
        for session in std::mem::take(&mut self.unburied) {
            self.growing.remove(&session.id);
            let kept = session.index().kept().to_vec();
            let paths: Vec<_> = kept.iter().map(|kept| kept.path.clone()).collect();
            let removed = match paths.is_empty() {
                true => Ok(()),
                false => disk::remove_files(&self.journal, &paths),
            };
            match removed {
                Ok(()) => {
                    session.index().clear();
                    Failpoint::SessionForgotten.pass();
                }
                Err(error) => {
                    tracing::warn!(%error, session_id = %session.id, "remove kept files; trying again later");
                    self.unburied.push(session);
                }
            }
        }
        if self.unburied.len() < before {
            self.tell(Command::Buried);
        }
    }

    fn keep_or_say(&mut self, segment: &Arc<Segment>) -> bool {
        let number = segment.number;
        match self.keep(segment) {
            Ok(bytes) => {
                tracing::debug!(segment = number, bytes, "moved what sessions need");
                metrics::counter!("aircheck_spool_kept_bytes_total").increment(bytes);
                true
            }
            Err(KeepError::Closing) => false,
            Err(error @ KeepError::Read(ReadError::Corrupt { .. })) => {
                let error = &error as &(dyn std::error::Error + 'static);
                tracing::error!(
                    error,
                    segment = number,
                    "spool is damaged; its segment stays"
                );
                false
            }
            Err(error) => {
                let error = &error as &(dyn std::error::Error + 'static);
                tracing::warn!(
                    error,
                    segment = number,
                    "empty a spool segment; trying again later"
                );
                false
            }
        }
    }

    /// Moves everything that a session needs of the segment; returns the number of bytes.
    pub(super) fn keep(&mut self, segment: &Arc<Segment>) -> Result<u64, KeepError> {
        let sessions: Vec<_> = {
            let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            sessions.values().cloned().collect()
        };
        let (mut moved, mut bytes) = (Vec::new(), 0);
        for session in sessions {
            let places = session.index().within(segment);
            if !places.is_empty() {
                bytes += places.iter().map(Place::total_bytes).sum::<u64>();
                let copied = self.copy(&session, &places)?;
                moved.push((session, copied));
            }
        }
        Failpoint::KeptCopied.pass();
        if let Err(error) = disk::sync_dir(&self.journal) {
            self.growing.clear();
            return Err(error.into());
        }
        for (session, copied) in moved {
            session.index().moved(segment, &copied);
        }
        Failpoint::KeptMoved.pass();
        Ok(bytes)
    }

    /// Copies records into the session's own file; returns their old positions and new places. They are
    /// durable, but for the name of a new file.
    fn copy(
        &mut self,
        session: &Arc<Shared>,
        places: &[Place],
    ) -> Result<Vec<(u64, Place)>, KeepError> {
        // Taken out: after an error it must not be appended to.
        let known = self.growing.remove(&session.id);
        let mut growing = match known.filter(|known| known.position < self.file_bytes_max) {
            Some(known) => known,
            None => self.create(session)?,
        };
        let fresh = growing.position == 0;
        let copied = self.append(&mut growing, places);
        match copied {
            Ok(copied) => {
                self.growing.insert(session.id, growing);
                Ok(copied)
            }
            Err(error) => {
                if fresh {
                    self.discard(session, &growing.file);
                }
                Err(error)
            }
        }
    }

    fn create(&mut self, session: &Shared) -> io::Result<Growing> {
        let file = disk::create_kept(&self.journal, self.next_number, session.id)?;
        self.next_number += 1;
        let file = Arc::new(file);
        session.index().add_kept(Arc::clone(&file));
        Ok(Growing { file, position: 0 })
    }

    /// A file that came to nothing. One that can't be removed now goes with its session.
    fn discard(&self, session: &Shared, file: &Arc<Segment>) {
        match disk::remove_files(&self.journal, std::slice::from_ref(&file.path)) {
            Ok(()) => session.index().drop_kept(file),
            Err(error) => tracing::warn!(%error, "remove an unfinished kept file"),
        }
    }

    fn append(
        &self,
        growing: &mut Growing,
        places: &[Place],
    ) -> Result<Vec<(u64, Place)>, KeepError> {
        let file = &growing.file;
        let mut buffer = Vec::new();
        let mut copied = Vec::with_capacity(places.len());
        if growing.position == 0 {
            let header = Kind::Header {
                previous: 0,
                previous_synced: 0,
            };
            record::write(&mut buffer, file.number, &header, &[]);
        }
        for place in places {
            let (kind, read) = read_record(place)?;
            let new = Place {
                segment: Arc::clone(file),
                position: growing.position + buffer.len() as u64,
                len: place.len,
            };
            copied.push((place.position, new));
            let payload = &read[record::HEAD_BYTES..][..place.len as usize];
            record::write(&mut buffer, file.number, &kind, payload);
            if buffer.len() >= PIECE_BYTES {
                growing.position += self.flush(file, growing.position, &mut buffer)?;
            }
        }
        growing.position += self.flush(file, growing.position, &mut buffer)?;
        // Vouches for all of it, so that damage is not taken for a torn tail once the segment is gone.
        let synced = growing.position;
        record::write(&mut buffer, file.number, &Kind::Commit { synced }, &[]);
        growing.position += self.flush(file, growing.position, &mut buffer)?;
        Ok(copied)
    }

    /// Writes and syncs a piece, and rests; returns its length.
    fn flush(&self, file: &Segment, position: u64, buffer: &mut Vec<u8>) -> Result<u64, KeepError> {
        let started = Instant::now();
        file.append(position, buffer)?;
        let written = buffer.len() as u64;
        buffer.clear();
        if self.closing.load(Ordering::Relaxed) {
            return Err(KeepError::Closing);
        }
        std::thread::sleep(started.elapsed().min(REST_MAX));
        Ok(written)
    }
}
