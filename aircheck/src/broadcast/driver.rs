//! One broadcast from the first byte to the archive, across any number of connections.
//!
//! Owns the order of things: hello, ready, bytes, stop, end; and when to connect again. Must never
//! say stop before everything was sent, and never begin a new session where one was stopped.

use super::{
    buffer::Buffer,
    line::{Dialer, Heard, Hello, Line, Loss, Ready, Say, Settled},
    outcome::{Error, Outcome, Phase, Tally, Wishes},
    recorder::{Recorder, Recording as Source, SourceError},
};
use aircheck_core::wire::{MAX_FRAME, Take};
use aircheck_runtime::{backoff::Backoff, shutdown::Shutdown};
use bytes::Bytes;
use std::time::Duration;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

/// Longest wait for the answer to hello or take.
const READY_TIMEOUT: Duration = Duration::from_secs(15);
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How often is asked how a session ended whose connection is gone.
const SETTLE_INTERVAL: Duration = Duration::from_millis(500);

/// What comes out of a connection.
enum Course {
    Done(Outcome),
    Lost(Loss),
    Failed(Error),
}

impl From<Loss> for Course {
    fn from(loss: Loss) -> Self {
        Self::Lost(loss)
    }
}

/// What happens while connected.
enum Event {
    Heard(Option<Result<Heard, Loss>>),
    /// There is place for what is due.
    Place,
    /// There never will be.
    Gone,
    Recorded(Option<Result<Bytes, SourceError>>),
    /// The user wants to stop early.
    Halt,
    /// The connection is to be torn.
    Tear,
}

/// How far the take is with its stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// More may be recorded.
    Recording,
    /// Everything is recorded.
    Recorded,
    /// And the server was told.
    Stopped,
}

/// A broadcast.
#[derive(Debug)]
pub(crate) struct Driver {
    dialer: Dialer,
    wishes: Wishes,
    source: Source,
    header: Option<Bytes>,
    mime: String,
    buffer: Buffer,
    stage: Stage,
    session: Option<String>,
    takes: u32,
    /// Bytes of the file before the current take, and of the header that was put before it.
    before: (u64, u64),
    tally: watch::Sender<Tally>,
    halt: Shutdown,
    prefix: String,
}

impl Driver {
    /// Begins to record. `halt` ends the recording early, in good order.
    pub(crate) fn new(
        recorder: Recorder,
        dialer: Dialer,
        wishes: Wishes,
        halt: Shutdown,
    ) -> (Self, watch::Receiver<Tally>) {
        let (tally, watching) = watch::channel(Tally::default());
        let driver = Self {
            dialer,
            wishes,
            header: recorder.header.clone(),
            mime: recorder.mime.clone(),
            source: recorder.start(),
            buffer: Buffer::default(),
            stage: Stage::Recording,
            session: None,
            takes: 0,
            before: (0, 0),
            tally,
            halt,
            prefix: format!("push-{}", ulid::Ulid::new()),
        };
        (driver, watching)
    }

    /// Broadcasts to the end.
    ///
    /// # Errors
    /// If the file can't be read, or the server can't or won't take it.
    pub(crate) async fn run(mut self) -> Result<Outcome, Error> {
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_MAX);
        let mut lost_at = Instant::now();
        loop {
            let connected = self.connect().await;
            if connected.is_ok() {
                backoff.reset();
            }
            let course = match connected {
                Ok((line, cursor, frame)) => {
                    let course = self.converse(line, cursor, frame).await;
                    lost_at = Instant::now();
                    course
                }
                Err(course) => course,
            };
            let (why, after) = match course {
                Course::Done(outcome) => return Ok(outcome),
                Course::Failed(error) => return Err(error),
                Course::Lost(Loss::Refused(fault)) => return Err(Error::Refused(fault)),
                Course::Lost(Loss::Retry { why, after }) => (why, after),
            };
            if lost_at.elapsed() > self.wishes.retry_for {
                return Err(Error::GaveUp {
                    after: self.wishes.retry_for,
                    last: why,
                });
            }
            self.show(|tally| tally.phase = Phase::Lost(why));
            self.wait(after.unwrap_or_else(|| backoff.delay())).await?;
            if self.stage == Stage::Stopped
                && let Some(outcome) = self.settle(lost_at).await?
            {
                return Ok(outcome);
            }
        }
    }

    /// Connects and agrees on a take: gives the line, where to send from, and the largest frame.
    async fn connect(&mut self) -> Result<(Line, u64, usize), Course> {
        let hello = Hello {
            session: self.session.clone(),
            take: self.take(),
            // A reconnect must not throw out who has taken over meanwhile.
            force: self.wishes.force && self.session.is_none(),
            rehearse: self.wishes.rehearse,
        };
        let mut line = self.dialer.dial(hello).await?;
        let ready = self.agreed(&mut line).await?;
        let first = self.session.is_none();
        let over = self
            .session
            .as_ref()
            .is_some_and(|session| *session != ready.session);
        self.session = Some(ready.session);
        self.show(|tally| {
            tally.phase = Phase::Live;
            tally.reconnects += u32::from(!first);
        });
        let frame = ready.max_frame.clamp(1, MAX_FRAME);
        if !over || self.buffer.durable() == 0 {
            return Ok((line, ready.offset, frame));
        }
        let previous = ready
            .previous
            .map(|previous| previous.status)
            .unwrap_or_default();
        tracing::warn!(previous, "the session is over; a new one goes on");
        let ready = self.begin_anew(&mut line).await?;
        Ok((line, ready.offset, frame))
    }

    /// Makes what is not durable a take of its own, in the session the line is in.
    async fn begin_anew(&mut self, line: &mut Line) -> Result<Ready, Course> {
        let Some(header) = self.header.clone() else {
            return Err(Course::Failed(Error::NoHeader));
        };
        self.before = (self.in_file(self.buffer.durable()), header.len() as u64);
        self.buffer.restart(header);
        self.takes += 1;
        let gone = || Course::Lost(Loss::retry("the connection is gone"));
        line.say
            .send(Say::Take(self.take()))
            .await
            .map_err(|_| gone())?;
        Ok(self.agreed(line).await?)
    }

    /// Waits for the ready of the current take. Meanwhile, recording goes on.
    async fn agreed(&mut self, line: &mut Line) -> Result<Ready, Loss> {
        let name = self.take().id;
        let waiting = async {
            loop {
                match line.heard.recv().await {
                    Some(Ok(Heard::Ready(ready))) if ready.take == name => return Ok(ready),
                    Some(Ok(_)) => {}
                    Some(Err(loss)) => return Err(loss),
                    None => return Err(Loss::retry("the connection is gone")),
                }
            }
        };
        timeout(READY_TIMEOUT, waiting)
            .await
            .map_err(|_| Loss::retry("no ready in time"))?
    }

    fn take(&self) -> Take {
        Take {
            id: format!("{}-{}", self.prefix, self.takes),
            mime: self.mime.clone(),
            first: self.buffer.first(),
            next: self.buffer.next(),
        }
    }

    /// Sends, listens and records until the connection or the session ends.
    async fn converse(&mut self, mut line: Line, mut cursor: u64, frame: usize) -> Course {
        // Whoever was lost behind a stop says it again, after the rest.
        if self.stage == Stage::Stopped {
            self.stage = Stage::Recorded;
        }
        let tear_at = self.wishes.drop_every.map(|every| Instant::now() + every);
        loop {
            if self.may_leave() {
                line.leave().await;
                let session = self.session.clone().unwrap_or_default();
                return Course::Done(Outcome::Left { session });
            }
            let due = self.due(cursor, frame);
            match self.next(&mut line, due.is_some(), tear_at).await {
                Event::Heard(heard) => match self.hear(heard) {
                    Some(Course::Done(outcome)) => {
                        line.leave().await;
                        return Course::Done(outcome);
                    }
                    Some(course) => return course,
                    None => {}
                },
                Event::Place => cursor = self.speak(&line, due, cursor),
                Event::Recorded(chunk) => {
                    if let Err(error) = self.record(chunk) {
                        return Course::Failed(error);
                    }
                }
                Event::Halt => self.source.chunks.close(),
                Event::Tear => {
                    line.cut.cancel();
                    return match self.last_words(&mut line).await {
                        Course::Lost(_) => Course::Lost(Loss::torn()),
                        ended => ended,
                    };
                }
                Event::Gone => return self.last_words(&mut line).await,
            }
        }
    }

    /// Whether everything is safe and the session is to be left open.
    fn may_leave(&self) -> bool {
        self.stage != Stage::Recording
            && !self.wishes.stop
            && self.buffer.durable() == self.buffer.next()
    }

    async fn next(&mut self, line: &mut Line, due: bool, tear_at: Option<Instant>) -> Event {
        let (records, stage) = (self.records(), self.stage);
        let closed = self.source.chunks.is_closed();
        tokio::select! {
            heard = line.heard.recv() => Event::Heard(heard),
            place = line.say.reserve(), if due => match place {
                Ok(_) => Event::Place,
                Err(_) => Event::Gone,
            },
            chunk = self.source.chunks.recv(), if records => Event::Recorded(chunk),
            () = self.halt.triggered(), if stage == Stage::Recording && !closed => Event::Halt,
            () = sleep_until(tear_at.unwrap_or_else(Instant::now)),
                if tear_at.is_some() && stage != Stage::Stopped => Event::Tear,
        }
    }

    /// What is to be said next, if anything.
    fn due(&self, cursor: u64, frame: usize) -> Option<Say> {
        if self.stage == Stage::Stopped {
            return None;
        }
        if let Some(data) = self.buffer.at(cursor, frame) {
            return Some(Say::Chunk {
                offset: cursor,
                data,
            });
        }
        let stop = self.stage == Stage::Recorded && self.wishes.stop;
        (stop && cursor >= self.buffer.next()).then_some(Say::Stop)
    }

    /// Says it; there is place, and nobody else takes it.
    fn speak(&mut self, line: &Line, due: Option<Say>, cursor: u64) -> u64 {
        let Some(say) = due else { return cursor };
        let next = match &say {
            Say::Chunk { offset, data } => offset + data.len() as u64,
            Say::Stop => {
                self.stage = Stage::Stopped;
                self.show(|tally| tally.phase = Phase::Finalizing);
                cursor
            }
            Say::Take(_) => cursor,
        };
        if line.say.try_send(say).is_err() {
            // How the line ended is heard next; what was not said is said on the next one.
            return cursor;
        }
        let sent = self.in_file(next);
        self.show(|tally| tally.sent = tally.sent.max(sent));
        next
    }

    /// Whether a chunk is welcome.
    fn records(&self) -> bool {
        self.stage == Stage::Recording && self.buffer.has_room()
    }

    fn record(&mut self, chunk: Option<Result<Bytes, SourceError>>) -> Result<(), Error> {
        match chunk {
            Some(chunk) => self.buffer.push(chunk?),
            None => self.stage = Stage::Recorded,
        }
        Ok(())
    }

    fn hear(&mut self, heard: Option<Result<Heard, Loss>>) -> Option<Course> {
        match heard {
            Some(Ok(Heard::Ack {
                take,
                durable,
                archived,
            })) => {
                if take == self.take().id {
                    self.buffer.confirm(durable, archived);
                    let (durable, archived) = (self.in_file(durable), self.in_file(archived));
                    self.show(|tally| {
                        tally.durable = tally.durable.max(durable);
                        tally.archived = tally.archived.max(archived);
                    });
                }
            }
            Some(Ok(Heard::State { error })) => {
                let phase = error.map_or(Phase::Live, Phase::Faulty);
                if self.stage != Stage::Stopped {
                    self.show(|tally| tally.phase = phase);
                }
            }
            Some(Ok(Heard::Finalizing { archived })) => {
                self.stage = Stage::Stopped;
                self.show(|tally| {
                    tally.phase = Phase::Finalizing;
                    tally.archived = tally.archived.max(archived);
                });
            }
            Some(Ok(Heard::End(recording))) => {
                return Some(Course::Done(Outcome::Ended(recording)));
            }
            Some(Ok(Heard::Ready(_))) => {}
            Some(Err(loss)) => return Some(loss.into()),
            None => return Some(Loss::retry("the connection is gone").into()),
        }
        None
    }

    /// Whatever a line that ends has still to tell.
    async fn last_words(&mut self, line: &mut Line) -> Course {
        loop {
            let heard = line.heard.recv().await;
            if let Some(course) = self.hear(heard) {
                return course;
            }
        }
    }

    /// Records on without a connection.
    async fn wait(&mut self, delay: Duration) -> Result<(), Error> {
        let until = Instant::now() + delay;
        loop {
            tokio::select! {
                () = sleep_until(until) => return Ok(()),
                chunk = self.source.chunks.recv(), if self.records() => self.record(chunk)?,
                () = self.halt.triggered(), if !self.source.chunks.is_closed() => {
                    self.source.chunks.close();
                }
            }
        }
    }

    /// Finds out how the session ended that was told to stop. `None`: it does not know yet.
    async fn settle(&mut self, lost_at: Instant) -> Result<Option<Outcome>, Error> {
        let Some(session) = self.session.clone() else {
            return Ok(None);
        };
        let mut reached = lost_at;
        loop {
            match self.dialer.settle(&session).await {
                Ok(Settled::Live) => return Ok(None),
                Ok(Settled::Ended(recording)) => return Ok(Some(Outcome::Ended(recording))),
                Ok(Settled::Known(status)) => return Ok(Some(Outcome::Known { session, status })),
                Ok(Settled::Pending) => {
                    reached = Instant::now();
                    self.show(|tally| tally.phase = Phase::Finalizing);
                }
                Err(Loss::Refused(fault)) => return Err(Error::Refused(fault)),
                Err(Loss::Retry { why, .. }) => {
                    if reached.elapsed() > self.wishes.retry_for {
                        return Err(Error::GaveUp {
                            after: self.wishes.retry_for,
                            last: why,
                        });
                    }
                    self.show(|tally| tally.phase = Phase::Lost(why));
                }
            }
            tokio::time::sleep(SETTLE_INTERVAL).await;
        }
    }

    /// An offset of the current take, as one of the file.
    fn in_file(&self, offset: u64) -> u64 {
        let (before, header) = self.before;
        before + offset.saturating_sub(header)
    }

    fn show(&self, change: impl FnOnce(&mut Tally)) {
        self.tally.send_if_modified(|tally| {
            let before = tally.clone();
            change(tally);
            *tally != before
        });
    }
}

#[cfg(test)]
mod tests;
