//! The writer: one thread that makes batches durable.
//!
//! Owns the open segment. Must never wait for anything but its queue and the disk, and never touch a
//! segment again whose write or sync failed.

use super::{
    Command, Config,
    batch::{fail, publish, record_bytes, restart},
    disk::{self, Segment},
    health::{self, Health, Pauses},
    keeper,
};
use aircheck_core::spool::record::{self, Kind};
use aircheck_runtime::failpoint::Failpoint;
use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

/// A batch is written when it has this many bytes, however young it is.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// From this many appends in a batch on, batches are spaced by the tick: below, syncing at once costs
/// little and keeps acks fast.
const BUSY_APPENDS: usize = 8;

/// Closed segments that may lie about, however little of them is needed.
const SPARED_SEGMENTS: usize = 4;
/// How long the keeper is left alone after it failed.
const KEEP_RETRY: Duration = Duration::from_secs(60);

struct Open {
    segment: Arc<Segment>,
    /// Where the next record goes.
    position: u64,
    /// Everything below is synced.
    synced: u64,
}

/// Whether the keeper is moving something.
enum Keeping {
    No,
    Busy,
    /// It failed.
    Paused {
        until: Instant,
    },
}

pub(super) struct Writer {
    config: Config,
    journal: PathBuf,
    /// Segments that are not open any more, oldest first.
    closed: VecDeque<Arc<Segment>>,
    open: Option<Open>,
    next_number: u64,
    /// Number and synced length of the segment before, for the next header.
    previous: (u64, u64),
    commands: Receiver<Command>,
    queued_bytes: Arc<AtomicU64>,
    /// `None` while the writer ends.
    keeper: Option<keeper::Handle>,
    keeping: Keeping,
    health: Health,
    pauses: Pauses,
    low: Arc<AtomicBool>,
    /// When room was last looked at.
    looked: Option<Instant>,
    buffer: Vec<u8>,
}

/// Why and whether the loop goes on.
enum Next {
    Batch(Vec<Command>),
    Last(Vec<Command>),
}

impl Writer {
    pub(super) fn new(
        config: Config,
        journal: PathBuf,
        recovered: (Vec<Arc<Segment>>, u64),
        commands: Receiver<Command>,
        queued_bytes: Arc<AtomicU64>,
        keeper: keeper::Handle,
    ) -> Self {
        let (closed, recovered_bytes) = recovered;
        let last = closed.last().map_or(0, |segment| segment.number);
        Self {
            config,
            journal,
            closed: closed.into(),
            open: None,
            next_number: last + 1,
            previous: (last, recovered_bytes),
            commands,
            queued_bytes,
            keeper: Some(keeper),
            keeping: Keeping::No,
            health: Health::Well,
            pauses: Pauses::default(),
            low: Arc::default(),
            looked: None,
            buffer: Vec::new(),
        }
    }

    /// Set while there is too little room for sessions that have not begun.
    pub(super) fn low(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.low)
    }

    pub(super) fn run(mut self) {
        self.sweep();
        self.look();
        let mut busy_since = None;
        loop {
            let (mut batch, last) = match self.gather(busy_since) {
                Next::Batch(batch) => (batch, false),
                Next::Last(batch) => (batch, true),
            };
            let started = Instant::now();
            busy_since = (batch.len() >= BUSY_APPENDS).then_some(started);
            batch.retain(|command| self.is_due(command));
            self.commit(&batch);
            self.tidy(batch);
            if last {
                return self.end();
            }
            self.try_again();
            self.look();
        }
    }

    /// Waits for a command, then takes what else is there, or, while many sessions append, what
    /// arrives until the tick has passed since the last batch.
    fn gather(&self, busy_since: Option<Instant>) -> Next {
        let first = match self.patience() {
            None => self
                .commands
                .recv()
                .map_err(|_| RecvTimeoutError::Disconnected),
            Some(patience) => self.commands.recv_timeout(patience),
        };
        let first = match first {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => return Next::Batch(Vec::new()),
            Err(RecvTimeoutError::Disconnected) => return Next::Last(Vec::new()),
        };
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let mut command = first;
        loop {
            if matches!(command, Command::Close) {
                return Next::Last(batch);
            }
            if let Command::Bytes { data, .. } = &command {
                bytes += data.len();
            }
            batch.push(command);
            if bytes >= BATCH_BYTES_MAX {
                return Next::Batch(batch);
            }
            let left = busy_since
                .map(|since| self.config.tick.saturating_sub(since.elapsed()))
                .unwrap_or_default();
            command = match self.commands.recv_timeout(left) {
                Ok(command) => command,
                Err(RecvTimeoutError::Timeout) => return Next::Batch(batch),
                Err(RecvTimeoutError::Disconnected) => return Next::Last(batch),
            };
        }
    }

    /// Whether a command is carried out: bytes of a run that was given up are not.
    fn is_due(&self, command: &Command) -> bool {
        let due = match command {
            Command::Bytes { session, run, .. } => *run >= session.run.load(Ordering::Relaxed),
            _ => true,
        };
        if !due {
            self.spent(command);
        }
        due
    }

    /// A command does not wait any more.
    fn spent(&self, command: &Command) {
        self.queued_bytes
            .fetch_sub(command.cost(), Ordering::Relaxed);
    }

    /// What a batch says beside bytes and events.
    fn tidy(&mut self, batch: Vec<Command>) {
        let mut sweep = false;
        for command in batch {
            if let Health::Failing { held, .. } = &mut self.health
                && matches!(command, Command::Event { .. } | Command::Restart { .. })
            {
                held.push(command);
                continue;
            }
            self.spent(&command);
            match command {
                Command::Restart { session, run } => restart(&session, run),
                Command::Forget { session } => {
                    if let Some(keeper) = &self.keeper {
                        keeper.bury(session);
                    }
                }
                Command::Kept { done: true } => {
                    self.keeping = Keeping::No;
                    sweep = true;
                }
                Command::Kept { done: false } => {
                    let until = Instant::now() + KEEP_RETRY;
                    self.keeping = Keeping::Paused { until };
                }
                Command::Buried => sweep = true,
                Command::Bytes { .. } | Command::Event { .. } | Command::Close => {}
            }
        }
        if sweep {
            self.sweep();
        }
    }

    fn end(mut self) {
        if let Health::Failing { next, .. } = &mut self.health {
            *next = Instant::now();
            self.try_again();
        }
        if let Some(keeper) = self.keeper.take() {
            keeper.close();
        }
        self.sweep();
    }

    fn commit(&mut self, batch: &[Command]) {
        if !batch
            .iter()
            .any(|c| matches!(c, Command::Bytes { .. } | Command::Event { .. }))
        {
            return;
        }
        if let Health::Failing { reason, .. } = &self.health {
            return fail(batch, reason);
        }
        let started = Instant::now();
        let written = self.write(batch).or_else(|error| {
            tracing::error!(%error, "spool write failed; its segment is given up, the batch goes to a new one");
            metrics::counter!("aircheck_spool_poisoned_segments_total").increment(1);
            self.close();
            self.write(batch)
        });
        match written {
            Ok((segment, placed)) => {
                Failpoint::BatchSynced.pass();
                publish(batch, &segment, &placed);
                Failpoint::BatchPublished.pass();
            }
            Err(error) => {
                tracing::error!(%error, appends = batch.len(), "spool can't write; recordings fail");
                self.close();
                let reason = format!("spool write failed: {error}");
                // First: whoever hears of the failure must not begin a session.
                self.low.store(true, Ordering::Relaxed);
                metrics::gauge!("aircheck_spool_low").set(1.0);
                fail(batch, &reason);
                self.health = Health::Failing {
                    reason,
                    held: Vec::new(),
                    next: self.pauses.next(Instant::now()),
                };
            }
        }
        metrics::histogram!("aircheck_spool_commit_seconds").record(started.elapsed());
    }

    /// How long to wait for commands.
    fn patience(&self) -> Option<Duration> {
        match &self.health {
            Health::Failing { next, .. } => Some(next.saturating_duration_since(Instant::now())),
            Health::Well => self.low.load(Ordering::Relaxed).then_some(health::LOOK),
        }
    }

    /// Writes what is held to a disk that failed, when it is time. If it takes that, and there is some
    /// room, recordings go on.
    fn try_again(&mut self) {
        let now = Instant::now();
        let Health::Failing { held, next, .. } = &mut self.health else {
            return;
        };
        if *next > now {
            return;
        }
        let held = std::mem::take(held);
        let tried = self.check_room().and_then(|()| self.write(&held));
        let error = match tried {
            Ok((segment, placed)) => {
                tracing::warn!("spool can write again; recordings go on");
                self.health = Health::Well;
                publish(&held, &segment, &placed);
                self.looked = None;
                return self.tidy(held);
            }
            Err(error) => error,
        };
        tracing::debug!(%error, "spool still can't write");
        self.close();
        let due = self.pauses.next(now);
        if let Health::Failing {
            held: waiting,
            next,
            ..
        } = &mut self.health
        {
            (*waiting, *next) = (held, due);
        }
    }

    /// A disk that was full and has room for a moment only would fail again at once.
    fn check_room(&self) -> io::Result<()> {
        let room = disk::room(&self.journal)?;
        if health::is_low(room, self.config.segment_bytes) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    /// Looks how much room there is, now and then.
    fn look(&mut self) {
        if matches!(self.health, Health::Failing { .. })
            || self.looked.is_some_and(|at| at.elapsed() < health::LOOK)
        {
            return;
        }
        self.looked = Some(Instant::now());
        let mut room = match disk::room(&self.journal) {
            Ok(room) => room,
            Err(error) => return tracing::debug!(%error, "look for room"),
        };
        metrics::gauge!("aircheck_spool_free_bytes").set(as_f64(room.free_bytes));
        let open = self.open.as_ref();
        room.free_bytes += open.map_or(0, |open| open.segment.bytes - open.position);
        let low = health::is_low(room, self.config.segment_bytes);
        if low != self.low.swap(low, Ordering::Relaxed) {
            let free_bytes = room.free_bytes;
            match low {
                true => tracing::warn!(free_bytes, "spool is low; new sessions are refused"),
                false => tracing::info!(free_bytes, "spool has room again"),
            }
        }
        metrics::gauge!("aircheck_spool_low").set(if low { 1.0 } else { 0.0 });
    }

    /// Writes and syncs a batch; returns the segment and the position of each command's record.
    fn write(&mut self, batch: &[Command]) -> io::Result<(Arc<Segment>, Vec<u64>)> {
        let needed =
            batch.iter().map(record_bytes).sum::<usize>() as u64 + record::total_bytes(0) as u64;
        self.open_for(needed)?;
        let Some(open) = &mut self.open else {
            return Err(io::Error::other("no open segment"));
        };
        self.buffer.clear();
        let number = open.segment.number;
        let commit = Kind::Commit {
            synced: open.synced,
        };
        record::write(&mut self.buffer, number, &commit, &[]);
        let mut placed = Vec::with_capacity(batch.len());
        for command in batch {
            placed.push(open.position + self.buffer.len() as u64);
            match command {
                Command::Bytes {
                    session,
                    take,
                    offset,
                    data,
                    ..
                } => {
                    let kind = Kind::Bytes {
                        session: session.id,
                        take: *take,
                        offset: *offset,
                    };
                    record::write(&mut self.buffer, number, &kind, data);
                }
                Command::Event { session, seq, json } => {
                    let kind = Kind::Event {
                        session: session.id,
                        seq: *seq,
                    };
                    record::write(&mut self.buffer, number, &kind, json);
                }
                _ => {}
            }
        }
        open.segment.append(open.position, &self.buffer)?;
        open.position += self.buffer.len() as u64;
        open.synced = open.position;
        metrics::counter!("aircheck_spool_written_bytes_total").increment(self.buffer.len() as u64);
        Ok((Arc::clone(&open.segment), placed))
    }

    /// Makes sure that the open segment has room.
    fn open_for(&mut self, needed: u64) -> io::Result<()> {
        if let Some(open) = &self.open
            && open.segment.bytes - open.position >= needed
        {
            return Ok(());
        }
        self.close();
        let number = self.next_number;
        self.next_number += 1;
        let (previous, previous_synced) = self.previous;
        let mut header = Vec::new();
        record::write(
            &mut header,
            number,
            &Kind::Header {
                previous,
                previous_synced,
            },
            &[],
        );
        let position = header.len() as u64;
        let segment = disk::create_segment(
            &self.journal,
            number,
            needed + position,
            self.config.segment_bytes,
        )?;
        let segment = Arc::new(segment);
        // Closed already in case the header can't be written, so that the sweep removes the file.
        if let Err(error) = segment.append(0, &header) {
            self.closed.push_back(segment);
            return Err(error);
        }
        self.open = Some(Open {
            segment,
            position,
            synced: position,
        });
        Ok(())
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.previous = (open.segment.number, open.synced);
            self.closed.push_back(open.segment);
        }
        self.sweep();
    }

    /// Removes segments that nobody needs: only ever the oldest, so that the record of a session's
    /// end outlives those of its beginning.
    fn sweep(&mut self) {
        if self.closed.iter().all(unneeded)
            && self
                .open
                .as_ref()
                .is_some_and(|open| unneeded(&open.segment))
            && let Some(open) = self.open.take()
        {
            self.previous = (open.segment.number, open.synced);
            self.closed.push_back(open.segment);
        }
        self.remove_unneeded();
        self.empty_oldest();
    }

    fn remove_unneeded(&mut self) {
        let count = self
            .closed
            .iter()
            .take_while(|segment| unneeded(segment))
            .count();
        if count == 0 {
            return;
        }
        let paths: Vec<_> = self
            .closed
            .iter()
            .take(count)
            .map(|s| s.path.clone())
            .collect();
        match disk::remove_files(&self.journal, &paths) {
            Ok(()) => {
                drop(self.closed.drain(..count));
                // It may have been room that was wanting.
                if let Health::Failing { next, .. } = &mut self.health {
                    *next = Instant::now();
                }
            }
            Err(error) => tracing::warn!(%error, "remove spool segments; trying again later"),
        }
    }

    /// When most of what the closed segments hold is needed by nobody, has the oldest emptied, so that
    /// it and what lies behind it can go. So each byte is moved at most once.
    fn empty_oldest(&mut self) {
        match self.keeping {
            Keeping::No => {}
            Keeping::Busy => return,
            Keeping::Paused { until } if Instant::now() < until => return,
            Keeping::Paused { .. } => self.keeping = Keeping::No,
        }
        let held: u64 = self.closed.iter().map(|segment| segment.bytes).sum();
        let live: u64 = self.closed.iter().map(|segment| segment.live()).sum();
        if self.closed.len() > SPARED_SEGMENTS
            && live < held / 2
            && let Some(oldest) = self.closed.front()
            && let Some(keeper) = &self.keeper
            && keeper.keep(oldest)
        {
            self.keeping = Keeping::Busy;
        }
    }
}

fn unneeded(segment: &Arc<Segment>) -> bool {
    Arc::strong_count(segment) == 1
}

#[expect(clippy::cast_precision_loss, reason = "a metric")]
fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}
