//! The lifecycle of a session: live, grace, finalizing, over.
//!
//! Owns every decision about who may send, what is new, when a session ends and that it is finalized
//! once. Must never act: decisions leave as [`Output`]s, the time comes in with every input, and the
//! shell (one task per session) carries out the one and brings the other.
//!
//! ```text
//!            connect                    disconnect
//!   (open) ───────────▶ Live ───────────────────────▶ Grace
//!                        │ ▲         connect            │
//!                        │ └────────────────────────────┤
//!            stop, limit,│                              │ stop, deadline,
//!              superseded▼                              ▼ superseded
//!                      Finalizing ◀─────────────────────┘
//!                        │ finalized
//!                        ▼
//!                       Over
//! ```

mod directory;
mod state;
mod takes;
mod tape;
mod wall;

pub use directory::{Admit, Directory, Full};
pub use takes::{Accept, Cursor, TakeStart};
pub use tape::Tape;

use crate::{
    id::{Epoch, Seat, SessionId, ShowId},
    recording::{EndReason, Gap, Marker, Status},
    sheet::Link,
    spool::{Event, Manifest, Stage},
    wire::Take,
};
use state::{State, Waiting};
use std::collections::VecDeque;
use takes::Takes;
use thiserror::Error;
use wall::Wall;

/// What a session may use up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes over all takes.
    pub bytes_max: u64,
    /// Duration from go-live, in milliseconds.
    pub duration_max_ms: u64,
    /// Encoder runs.
    pub takes_max: usize,
    /// Markers.
    pub markers_max: usize,
}

impl Default for Limits {
    /// 48 GiB (what 10,000 parts of 5 MiB hold), 24 h, 1,000 takes, 10,000 markers.
    fn default() -> Self {
        Self {
            bytes_max: 48 << 30,
            duration_max_ms: 24 * 3_600_000,
            takes_max: 1000,
            markers_max: 10_000,
        }
    }
}

/// The time, by two clocks: one that never jumps, for deadlines, and one that people read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a monotonic clock with an arbitrary zero.
    pub mono_ms: u64,
    /// Milliseconds since 1970-01-01 UTC.
    pub unix_ms: u64,
}

/// Every deadline a session can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Nobody came back.
    Grace,
    /// The session lasts too long.
    Duration,
}

/// What the shell has to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Append the event to the spool, before any byte that arrives later.
    Persist(Event),
    /// Tell this connection that a newer one took over, and let go of it.
    Fence(Epoch),
    /// The session ended under this connection (a stop by an operator, a limit, a takeover).
    Changed,
    /// Once everything persisted is durable, or failed for good: finalize. Comes once in a session's
    /// life, and once more after each restart until the archive is proved.
    Finalize,
}

/// Why an input was refused. The session is unchanged.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// Somebody else is live.
    #[error("another broadcaster is live")]
    Conflict,
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
    /// A connection that was superseded.
    #[error("a newer connection took over")]
    Stale,
    /// An offset nobody agreed on.
    #[error("offset {offset} does not continue the take, which is at {expected}")]
    Offset {
        /// What came.
        offset: u64,
        /// What was due.
        expected: u64,
    },
    /// More takes or markers than allowed.
    #[error("the session has too many takes or markers")]
    TooMany,
    /// The session has no connection that could do this.
    #[error("the show is not live")]
    NotLive,
}

/// A connection was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Its fencing token.
    pub epoch: Epoch,
    /// Whether the session had a connection before.
    pub resumed: bool,
}

/// Who wants the session to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopBy {
    /// Its broadcaster, over this connection.
    Connection(Epoch),
    /// Somebody with the right to, from outside.
    Operator,
}

/// What everybody may know of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// `Recording` while live or in grace.
    pub status: Status,
    /// While in grace: milliseconds left.
    pub grace_remaining_ms: Option<u64>,
    /// The latest connection.
    pub epoch: Epoch,
    /// Bytes that arrived, over all takes.
    pub received: u64,
    /// Bytes that are synced.
    pub durable: u64,
    /// Bytes that are in S3.
    pub archived: u64,
    /// Why the recording branch gave up, if it did.
    pub recording_error: Option<String>,
}

/// One broadcast of one show. See the module for its states.
#[derive(Debug)]
pub struct Session {
    manifest: Manifest,
    state: State,
    tape: Tape,
    takes: Takes,
    wall: Wall,
    limits: Limits,
    duration_deadline_mono_ms: u64,
    outputs: VecDeque<Output>,
}

impl Session {
    /// A session that begins now, and waits for the connection that opened it.
    #[must_use]
    pub fn open(manifest: Manifest, limits: Limits, now: Now) -> Self {
        let opened = Event::Opened {
            manifest: Box::new(manifest.clone()),
        };
        let mut session = Self::new(manifest, limits, now, Waiting::Opened);
        session.outputs.push_back(Output::Persist(opened));
        session
    }

    /// A session found on disk. A live or waiting one waits for a whole new grace, since our outage
    /// must never end a show; a sealed one is finalized.
    #[must_use]
    pub fn recover(manifest: Manifest, limits: Limits, now: Now) -> Self {
        let sealed = matches!(manifest.stage, Stage::Sealed { .. });
        let mut session = Self::new(manifest, limits, now, Waiting::Recovered);
        if sealed {
            session.state = State::Finalizing;
            session.outputs.push_back(Output::Finalize);
        }
        session
    }

    fn new(manifest: Manifest, limits: Limits, now: Now, waiting: Waiting) -> Self {
        let elapsed_ms = now.unix_ms.saturating_sub(manifest.started_unix_ms);
        let left_ms = limits.duration_max_ms.saturating_sub(elapsed_ms);
        Self {
            takes: Takes::recover(&manifest),
            wall: Wall::new(&manifest, now),
            state: State::waits(waiting, manifest.grace_ms, now),
            tape: Tape::Running,
            limits,
            duration_deadline_mono_ms: now.mono_ms.saturating_add(left_ms),
            outputs: VecDeque::new(),
            manifest,
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.manifest.session
    }

    /// The show.
    #[must_use]
    pub fn show_id(&self) -> &ShowId {
        &self.manifest.show_id
    }

    /// What it occupies while it is open.
    #[must_use]
    pub fn seat(&self) -> Seat {
        self.manifest.seat()
    }

    /// Health of the recording branch.
    #[must_use]
    pub fn tape(&self) -> &Tape {
        &self.tape
    }

    /// What its events add up to. The takes' lengths are no events: they are in [`Self::manifest`].
    #[must_use]
    pub fn facts(&self) -> &Manifest {
        &self.manifest
    }

    /// Its manifest, with the durable length of every take. A copy: [`Self::facts`] is cheaper.
    #[must_use]
    pub fn manifest(&self) -> Manifest {
        let mut manifest = self.manifest.clone();
        for (record, cursor) in manifest.takes.iter_mut().zip(self.takes.cursors()) {
            record.bytes = cursor.durable;
        }
        manifest
    }

    /// Offsets of a take.
    #[must_use]
    pub fn cursor(&self, take: u32) -> Option<Cursor> {
        self.takes.cursors().get(take as usize).copied()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The next deadline: which, and when by the monotonic clock.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Timer, u64)> {
        let duration = (Timer::Duration, self.duration_deadline_mono_ms);
        match self.state {
            State::Live => Some(duration),
            State::Grace {
                deadline_mono_ms, ..
            } if deadline_mono_ms <= duration.1 => Some((Timer::Grace, deadline_mono_ms)),
            State::Grace { .. } => Some(duration),
            State::Finalizing | State::Over { .. } => None,
        }
    }

    /// What everybody may know.
    #[must_use]
    pub fn snapshot(&self, now: Now) -> Snapshot {
        let (status, grace_remaining_ms) = match self.state {
            State::Live => (Status::Recording, None),
            State::Grace {
                deadline_mono_ms, ..
            } => (
                Status::Recording,
                Some(deadline_mono_ms.saturating_sub(now.mono_ms)),
            ),
            State::Finalizing => (Status::Finalizing, None),
            State::Over { status } => (status, None),
        };
        let sum = |offset: fn(&Cursor) -> u64| self.takes.cursors().iter().map(offset).sum();
        Snapshot {
            status,
            grace_remaining_ms,
            epoch: self.manifest.epoch,
            received: sum(|cursor| cursor.received),
            durable: sum(|cursor| cursor.durable),
            archived: sum(|cursor| cursor.archived),
            recording_error: self.manifest.recording_error.clone(),
        }
    }

    /// Whether somebody can still be admitted.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Live | State::Grace { .. })
    }

    /// A connection wants the session. The same user always wins, since the old socket may be half
    /// dead; another one is refused, or with `force` ends the session, so that the caller can open
    /// a new one: what two people broadcast never shares a recording.
    ///
    /// # Errors
    /// [`Refusal::Conflict`], or [`Refusal::Ended`] (also after a takeover by force).
    pub fn handle_connect(
        &mut self,
        user: &str,
        force: bool,
        now: Now,
    ) -> Result<Admission, Refusal> {
        self.handle_timeout(now);
        if !self.is_open() {
            return Err(Refusal::Ended);
        }
        let resumed = self.manifest.epoch > Epoch::default();
        if resumed && self.manifest.user != user {
            if !force {
                return Err(Refusal::Conflict);
            }
            self.fence_current();
            self.seal(EndReason::Superseded, now);
            return Err(Refusal::Ended);
        }
        self.fence_current();
        let epoch = self.manifest.epoch.next();
        let event = Event::Connected {
            epoch,
            user: user.to_owned(),
            at_unix_ms: self.wall.unix_ms(now),
        };
        self.persist(event);
        self.state = State::Live;
        self.outputs.push_back(Output::Changed);
        Ok(Admission { epoch, resumed })
    }

    /// A client is about to send a take: one it sent before, or a new one.
    ///
    /// # Errors
    /// [`Refusal::Stale`], [`Refusal::Ended`] or [`Refusal::TooMany`].
    pub fn handle_take(
        &mut self,
        epoch: Epoch,
        take: &Take,
        now: Now,
    ) -> Result<TakeStart, Refusal> {
        self.check_epoch(epoch)?;
        let index = match self
            .manifest
            .takes
            .iter()
            .position(|known| known.id == take.id)
        {
            Some(index) => index,
            None => self.open_take(take.id.clone(), take.mime.clone(), now)?,
        };
        let running = self.tape == Tape::Running;
        let untaped = self.takes.untaped(index).is_some();
        let start = self.takes.resume(index, take, running)?;
        // Without a tape no bytes follow that a gap could lie before.
        if let Some((from, to)) = start.hole.filter(|_| running) {
            let cause = if untaped {
                self.tape_cause()
            } else {
                "client".to_owned()
            };
            self.gap(start.index, from, to, cause);
        }
        Ok(start)
    }

    /// A plain client's first bytes begin a container: a new take.
    ///
    /// # Errors
    /// [`Refusal::Stale`], [`Refusal::Ended`] or [`Refusal::TooMany`].
    pub fn handle_plain_take(
        &mut self,
        epoch: Epoch,
        mime: &str,
        now: Now,
    ) -> Result<TakeStart, Refusal> {
        let id = format!("plain-{}", self.manifest.takes.len() + 1);
        let take = Take {
            id,
            mime: mime.to_owned(),
            first: 0,
            next: 0,
        };
        self.handle_take(epoch, &take, now)
    }

    /// A plain client's first bytes go on with the last take at its end; what it sent in between, if
    /// anything, is lost, and said to be.
    ///
    /// # Errors
    /// [`Refusal::Stale`], [`Refusal::Ended`], or [`Refusal::NotLive`] when there is no take yet.
    pub fn handle_plain_continue(&mut self, epoch: Epoch) -> Result<TakeStart, Refusal> {
        self.check_epoch(epoch)?;
        let (index, end) = self.takes.last().ok_or(Refusal::NotLive)?;
        if self.tape == Tape::Running {
            self.handle_untaped_lost(index);
            self.gap(index, end, end, "disconnected".to_owned());
        }
        Ok(TakeStart {
            index,
            offset: end,
            hole: None,
        })
    }

    /// Bytes of a take arrived.
    ///
    /// # Errors
    /// [`Refusal::Stale`], [`Refusal::Ended`], or [`Refusal::Offset`] beyond what was agreed.
    pub fn handle_chunk(
        &mut self,
        epoch: Epoch,
        take: u32,
        offset: u64,
        len: u64,
        now: Now,
    ) -> Result<Accept, Refusal> {
        self.check_epoch(epoch)?;
        let running = self.tape == Tape::Running;
        let accept = self.takes.receive(take, offset, len, running)?;
        if self.takes.received_total() > self.limits.bytes_max {
            self.seal(EndReason::Limit, now);
        }
        Ok(accept)
    }

    /// A point in the timeline.
    ///
    /// # Errors
    /// [`Refusal::NotLive`] when the session has ended, [`Refusal::TooMany`].
    pub fn handle_marker(&mut self, label: String, kind: String, now: Now) -> Result<u64, Refusal> {
        if !self.is_open() {
            return Err(Refusal::NotLive);
        }
        if self.manifest.markers.len() >= self.limits.markers_max {
            return Err(Refusal::TooMany);
        }
        let at_ms = self
            .wall
            .unix_ms(now)
            .saturating_sub(self.manifest.started_unix_ms);
        self.persist(Event::Marked {
            marker: Marker { at_ms, label, kind },
        });
        Ok(at_ms)
    }

    /// What the connection of a rehearsal was found to be. A show on air keeps no such thing.
    pub fn handle_link(&mut self, epoch: Epoch, link: Link) {
        if self.is_open() && self.manifest.rehearsal && epoch == self.manifest.epoch {
            self.persist(Event::Rehearsed { link });
        }
    }

    /// Everything of a take below `offset` is synced.
    pub fn handle_durable(&mut self, take: u32, offset: u64) {
        self.takes.durable(take, offset);
    }

    /// Everything of a take below `offset` is in an S3 part.
    pub fn handle_archived(&mut self, take: u32, offset: u64) {
        self.takes.archived(take, offset);
    }

    fn gap(&mut self, take: u32, from: u64, to: u64, cause: String) {
        let gap = Gap {
            take,
            from,
            to,
            cause,
        };
        self.persist(Event::Gap { gap });
    }

    /// A connection is gone. A stale one changes nothing, its own teardown included.
    pub fn handle_disconnect(&mut self, epoch: Epoch, now: Now) {
        if self.check_epoch(epoch).is_err() {
            return;
        }
        self.persist(Event::Disconnected {
            epoch,
            at_unix_ms: self.wall.unix_ms(now),
        });
        self.state = State::waits(Waiting::Dropped, self.manifest.grace_ms, now);
        self.outputs.push_back(Output::Changed);
    }

    /// Somebody ends the session. `true` if this did.
    ///
    /// # Errors
    /// [`Refusal::Stale`] from a superseded connection.
    pub fn handle_stop(&mut self, by: StopBy, now: Now) -> Result<bool, Refusal> {
        if !self.is_open() {
            return Ok(false);
        }
        if let StopBy::Connection(epoch) = by {
            self.check_epoch(epoch)?;
        }
        self.seal(EndReason::Stop, now);
        Ok(true)
    }

    /// Time has passed; whatever is due happens.
    pub fn handle_timeout(&mut self, now: Now) {
        let Some((timer, due_mono_ms)) = self.poll_timeout() else {
            return;
        };
        if due_mono_ms > now.mono_ms {
            return;
        }
        let reason = match (timer, self.state) {
            (Timer::Grace, State::Grace { waiting, .. }) => waiting.end_reason(),
            (Timer::Grace | Timer::Duration, _) => EndReason::Limit,
        };
        self.seal(reason, now);
    }

    /// The archiver has proved the archive. `true` if this ended the session.
    pub fn handle_finalized(&mut self, status: Status) -> bool {
        let due = self.state == State::Finalizing;
        if due {
            self.persist(Event::Done);
            self.state = State::Over { status };
            self.outputs.push_back(Output::Changed);
        }
        due
    }

    fn check_epoch(&self, epoch: Epoch) -> Result<(), Refusal> {
        match self.state {
            State::Live if epoch == self.manifest.epoch => Ok(()),
            State::Live | State::Grace { .. } => Err(Refusal::Stale),
            State::Finalizing | State::Over { .. } => Err(Refusal::Ended),
        }
    }

    fn open_take(&mut self, id: String, mime: String, now: Now) -> Result<usize, Refusal> {
        if self.manifest.takes.len() >= self.limits.takes_max {
            return Err(Refusal::TooMany);
        }
        self.takes.open();
        self.persist(Event::TakeOpened {
            id,
            mime,
            at_unix_ms: self.wall.unix_ms(now),
        });
        Ok(self.manifest.takes.len() - 1)
    }

    fn fence_current(&mut self) {
        if self.state == State::Live {
            self.outputs.push_back(Output::Fence(self.manifest.epoch));
        }
    }

    /// The one way to end.
    fn seal(&mut self, reason: EndReason, now: Now) {
        assert!(self.is_open(), "a session is sealed once");
        self.persist(Event::Sealed {
            reason,
            at_unix_ms: self.wall.unix_ms(now),
        });
        self.state = State::Finalizing;
        self.outputs.push_back(Output::Changed);
        self.outputs.push_back(Output::Finalize);
    }

    fn persist(&mut self, event: Event) {
        let applied = self.manifest.apply(event.clone());
        assert!(
            applied.is_ok(),
            "the lifecycle produced {event:?} out of order"
        );
        self.outputs.push_back(Output::Persist(event));
    }
}

#[cfg(test)]
mod tests;
