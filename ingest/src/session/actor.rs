//! The task of a session.
//!
//! Owns the lifecycle, the writing end of the spool, the live branch and the connection, and carries
//! out what the lifecycle decides. Must never wait for disk, archiver or client: each of them sends a
//! message when there is news.

use super::{
    Command, Connect, ConnectError,
    connection::{Connection, Sending},
    opening::{Opening, Step},
};
use crate::{
    archiver::Announcements,
    clock::Clock,
    live::LiveBranch,
    registry::Registry,
    sink::Sinks,
    spool::{Marks, SessionSpool},
};
use aircheck_core::{
    code::Code,
    id::Epoch,
    media::Container,
    recording::Status,
    session::{Now, Output, Refusal, Session, Snapshot, StopBy, TakeStart, Tape},
    spool::Manifest,
    wire::{MAX_FRAME, Take},
};
use aircheck_proto::{
    Fault, archiver,
    ingest::{self, publish_response::Response},
};
use bytes::Bytes;
use std::sync::Arc;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tracing::Instrument as _;

/// How long a draining session waits for its last bytes to be durable.
const DRAIN_MAX: std::time::Duration = std::time::Duration::from_secs(3);

/// What a session is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) session: Session,
    pub(crate) spool: SessionSpool,
    pub(crate) live: LiveBranch,
    pub(crate) sinks: Sinks,
    pub(crate) clock: Clock,
    pub(crate) registry: Arc<Registry>,
}

/// Where the end of a session stands.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    /// Not ended.
    Open,
    /// Ended; its last events are not durable yet.
    Sealing,
    /// The archiver is at work.
    Finalizing,
    /// The archive is proved; the event that says so is not durable yet.
    Closing,
    /// Nothing is left to do.
    Over,
    /// The process ends; the session goes on after its restart.
    Draining,
}

/// See the module.
pub(crate) struct Actor {
    session: Session,
    spool: SessionSpool,
    marks: watch::Receiver<Marks>,
    live: LiveBranch,
    sinks: Sinks,
    clock: Clock,
    registry: Arc<Registry>,
    connection: Option<Connection>,
    ending: Ending,
    /// Events that were handed to the spool.
    persisted: u64,
    /// What the archiver is told, whenever it changes.
    announced: Announcements,
    listeners_said: usize,
}

impl Actor {
    /// Begins with what the session already wants: to be persisted, or to be finalized.
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            session,
            spool,
            live,
            sinks,
            clock,
            registry,
        } = parts;
        let marks = spool.marks();
        let announced = Announcements::new(session.manifest());
        let persisted = marks.borrow().events;
        let mut actor = Self {
            session,
            spool,
            marks,
            live,
            sinks,
            clock,
            registry,
            connection: None,
            ending: Ending::Open,
            persisted,
            announced,
            listeners_said: 0,
        };
        actor.carry_out();
        actor
    }

    /// What the archiver is to know of the session; ends when the session is sealed.
    pub(crate) fn announcements(&self) -> watch::Receiver<Manifest> {
        self.announced.subscribe()
    }

    /// Runs until the session is over, or drained.
    pub(crate) async fn run(mut self, mut mailbox: mpsc::Receiver<Command>) {
        let span = tracing::info_span!(
            "session", show_id = %self.session.show_id(), session_id = %self.session.id()
        );
        async {
            self.check_marks();
            while self.ending != Ending::Over && self.ending != Ending::Draining {
                let due = self.next_due();
                tokio::select! {
                    command = mailbox.recv() => match command {
                        Some(command) => self.handle(command),
                        None => break,
                    },
                    changed = self.marks.changed() => match changed {
                        Ok(()) => self.check_marks(),
                        Err(_) => break,
                    },
                    () = sleep_until(due) => self.handle_due(),
                    () = self.sinks.changed() => self.registry.changed(self.status()),
                }
            }
            if self.ending == Ending::Draining {
                self.drained().await;
            }
        }
        .instrument(span)
        .await;
    }

    fn now(&self) -> Now {
        self.clock.now()
    }

    fn next_due(&self) -> Option<Instant> {
        let timer = self
            .session
            .poll_timeout()
            .map(|(_, mono_ms)| self.clock.at(mono_ms));
        let ack = self.connection.as_ref().and_then(|connection| {
            connection.ack_due(self.session.cursor(connection.acked_take()?)?)
        });
        timer.into_iter().chain(ack).min()
    }

    fn handle_due(&mut self) {
        self.session.handle_timeout(self.now());
        self.carry_out();
        self.ack_if_due();
    }

    fn ack_if_due(&mut self) {
        let now = Instant::now();
        if let Some(connection) = &mut self.connection
            && let Some(take) = connection.acked_take()
            && let Some(cursor) = self.session.cursor(take)
            && connection.ack_due(cursor).is_some_and(|due| due <= now)
        {
            connection.ack(cursor, now);
        }
    }

    /// The last word to a connection that is about to end: what it need not send again.
    fn ack_now(&mut self) {
        if let Some(connection) = &mut self.connection
            && let Some(cursor) = connection.acked_take().and_then(|t| self.session.cursor(t))
        {
            connection.ack(cursor, Instant::now());
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Connect(connect) => self.connect(*connect),
            Command::Take { epoch, take } => self.take(epoch, &take),
            Command::Chunk {
                epoch,
                offset,
                data,
            } => self.chunk(epoch, offset, data),
            Command::Mark { label, kind, reply } => {
                let marked = self.session.handle_marker(label, kind, self.now());
                let marked = marked.map_err(fault);
                answer(reply, marked);
            }
            Command::StopBy { epoch } => self.stop_by(epoch),
            Command::Disconnect { epoch } => self.disconnect(epoch),
            Command::Stop { reply } => {
                let stopped = self.session.handle_stop(StopBy::Operator, self.now());
                self.carry_out();
                answer(Some(reply), stopped.unwrap_or(false));
            }
            Command::Listen { reply } => {
                let full = || Fault::new(Code::TooMany, "the show has too many listeners");
                let subscription = match self.session.is_open() {
                    true => self.live.listen().ok_or_else(full),
                    false => Err(Fault::new(Code::NotLive, "the show is not live")),
                };
                answer(Some(reply), subscription);
            }
            Command::Status { reply } => answer(Some(reply), self.status()),
            Command::Archived { takes } => {
                for (take, offset) in (0..).zip(takes) {
                    self.session.handle_archived(take, offset);
                }
                self.ack_if_due();
            }
            Command::Progress { bytes, archived } => {
                self.say(Response::Progress(ingest::Progress { bytes, archived }));
            }
            Command::Finalized { recording } => self.finalized(*recording),
            Command::Drain => self.drain(),
        }
        self.carry_out();
        self.say_listeners();
    }

    fn connect(&mut self, connect: Connect) {
        let Connect {
            user,
            force,
            take,
            previous,
            named,
            outbound,
            gone,
            reply,
        } = connect;
        let admitted = self.session.handle_connect(&user, force, self.now());
        // A takeover has ended the session by now: the show must be free before the caller hears it.
        self.carry_out();
        let admission = match admitted {
            Ok(admission) => admission,
            Err(Refusal::Ended) => return answer(Some(reply), Err(ConnectError::Ended)),
            Err(refusal) => {
                return answer(Some(reply), Err(ConnectError::Refused(fault(refusal))));
            }
        };
        let epoch = admission.epoch;
        tracing::info!(%epoch, resumed = admission.resumed, "broadcaster connected");
        let sending = Sending::Undecided {
            opening: Opening::at(0),
        };
        self.connection = Some(Connection::new(epoch, sending, outbound, gone));
        answer(Some(reply), Ok(epoch));
        match take {
            Some(take) if previous.is_some() && take.first > 0 => {
                self.ready_after(epoch, take, previous);
            }
            Some(take) => self.ready_for(epoch, &take, admission.resumed && named, previous),
            None => {
                let ready = self.ready(epoch, String::new(), 0, admission.resumed, previous);
                self.say(Response::Ready(ready));
            }
        }
        self.say_state();
    }

    fn take(&mut self, epoch: Epoch, take: &Take) {
        self.ready_for(epoch, take, true, None);
    }

    /// The client goes on with a take of a session that is over. It should begin a new one, so this
    /// one is not opened, which would only record a hole; unless its bytes come nevertheless.
    fn ready_after(&mut self, epoch: Epoch, take: Take, previous: Option<ingest::Previous>) {
        let ready = self.ready(epoch, take.id.clone(), take.first, false, previous);
        if let Some(connection) = &mut self.connection {
            connection.sending = Sending::Unopened { take };
        }
        self.say(Response::Ready(ready));
    }

    /// Agrees on an offset for a take and says so.
    fn ready_for(
        &mut self,
        epoch: Epoch,
        take: &Take,
        resumed: bool,
        previous: Option<ingest::Previous>,
    ) {
        let start = match self.session.handle_take(epoch, take, self.now()) {
            Ok(start) => start,
            Err(refusal) => return self.refuse(epoch, fault(refusal)),
        };
        self.begin(start, take);
        let ready = self.ready(epoch, take.id.clone(), start.offset, resumed, previous);
        self.say(Response::Ready(ready));
    }

    fn begin(&mut self, start: TakeStart, take: &Take) {
        self.carry_out();
        let cursor = self.session.cursor(start.index).unwrap_or_default();
        let fresh = cursor.received == 0;
        let opening = if fresh {
            Opening::at(start.offset)
        } else {
            Opening::Passed
        };
        if let Some(connection) = &mut self.connection {
            connection.begin(start.index, take.id.clone(), opening, cursor);
        }
    }

    fn ready(
        &self,
        epoch: Epoch,
        take: String,
        offset: u64,
        resumed: bool,
        previous: Option<ingest::Previous>,
    ) -> ingest::Ready {
        let manifest = self.session.manifest();
        ingest::Ready {
            session: manifest.session.to_string(),
            epoch: epoch.0,
            show_id: manifest.show_id.to_string(),
            take,
            offset,
            resumed,
            recording_failed: manifest.recording_error.is_some(),
            grace_ms: manifest.grace_ms,
            max_frame: MAX_FRAME as u64,
            previous,
        }
    }

    fn chunk(&mut self, epoch: Epoch, offset: u64, data: Bytes) {
        if data.is_empty() {
            return;
        }
        let Some(connection) = self.connection.as_mut().filter(|c| c.epoch == epoch) else {
            return;
        };
        match &mut connection.sending {
            Sending::Unopened { take } => {
                let take = take.clone();
                match self.session.handle_take(epoch, &take, self.clock.now()) {
                    Ok(start) => self.begin(start, &take),
                    Err(refusal) => return self.refuse(epoch, fault(refusal)),
                }
                self.chunk(epoch, offset, data);
            }
            Sending::Undecided { opening } => {
                let held = match opening {
                    Opening::Undecided { held, .. } => held.len() as u64,
                    Opening::Passed => 0,
                };
                let step = opening.push(held, data);
                self.plain_step(epoch, step);
            }
            Sending::Take {
                index,
                opening,
                plain,
                ..
            } => {
                let (index, plain) = (*index, *plain);
                let end = self
                    .session
                    .cursor(index)
                    .map_or(0, |cursor| cursor.received);
                let offset = if plain { end } else { offset };
                let step = opening.push(offset, data);
                self.step(epoch, index, step);
            }
        }
    }

    /// A resumable client's bytes.
    fn step(&mut self, epoch: Epoch, take: u32, step: Step) {
        match step {
            Step::More => {}
            Step::Pass(offset, data) => self.bytes(epoch, take, offset, &data),
            Step::Container(container, offset, data) => {
                self.begin_live(take, container);
                self.bytes(epoch, take, offset, &data);
            }
            Step::Foreign(..) => self.refuse(epoch, foreign()),
            Step::Offset { expected } => {
                self.refuse(
                    epoch,
                    fault(Refusal::Offset {
                        offset: 0,
                        expected,
                    }),
                );
            }
        }
    }

    /// A plain client's first bytes.
    fn plain_step(&mut self, epoch: Epoch, step: Step) {
        let (start, data) = match step {
            Step::More | Step::Offset { .. } => return,
            Step::Container(container, _, data) => {
                let mime = container.content_type("");
                let start = self.session.handle_plain_take(epoch, mime, self.now());
                self.carry_out();
                if let Ok(start) = &start {
                    self.begin_live(start.index, container);
                }
                (start, data)
            }
            Step::Foreign(_, data) | Step::Pass(_, data) => {
                (self.session.handle_plain_continue(epoch), data)
            }
        };
        self.carry_out();
        match start {
            Ok(start) => {
                if let Some(connection) = &mut self.connection {
                    let (index, opening) = (start.index, Opening::Passed);
                    let id = String::new();
                    connection.sending = Sending::Take {
                        index,
                        id,
                        opening,
                        plain: true,
                    };
                }
                self.bytes(epoch, start.index, start.offset, &data);
            }
            Err(Refusal::NotLive) => self.refuse(epoch, foreign()),
            Err(refusal) => self.refuse(epoch, fault(refusal)),
        }
    }

    fn begin_live(&mut self, take: u32, container: Container) {
        let manifest = self.session.manifest();
        let Some(record) = manifest.takes.get(take as usize) else {
            return;
        };
        let wall_ms = record
            .started_unix_ms
            .saturating_sub(manifest.started_unix_ms);
        self.live.begin_take(take, container, &record.mime, wall_ms);
    }

    /// The tee: each side gets what it has not had. Neither can hold up the other.
    fn bytes(&mut self, epoch: Epoch, take: u32, offset: u64, data: &Bytes) {
        let len = data.len() as u64;
        let accept = match self
            .session
            .handle_chunk(epoch, take, offset, len, self.now())
        {
            Ok(accept) => accept,
            // Somebody else ended the session while this was under way; the end is on its way back.
            Err(Refusal::Ended) => return,
            Err(refusal) => return self.refuse(epoch, fault(refusal)),
        };
        metrics::counter!("aircheck_received_bytes_total").increment(len);
        let rest =
            |skip: u64| usize::try_from(skip).map_or(Bytes::new(), |skip| data.slice(skip..));
        let live = rest(accept.live_skip);
        if let Some(skip) = accept.tape_skip.filter(|skip| *skip < len) {
            let appended = self.spool.append(take, offset + skip, rest(skip));
            if let Err(error) = appended {
                self.write_failed(error.to_string());
            }
        }
        if !live.is_empty() {
            self.live.push(take, &live);
        }
    }

    fn write_failed(&mut self, reason: String) {
        if *self.session.tape() == Tape::Running {
            tracing::error!(%reason, "recording failed; the live branch goes on");
            metrics::counter!("aircheck_recording_failures_total").increment(1);
        }
        self.session.handle_write_failed(reason);
    }

    fn stop_by(&mut self, epoch: Epoch) {
        let held = match self.connection.as_mut().filter(|c| c.epoch == epoch) {
            Some(Connection {
                sending: Sending::Undecided { opening },
                ..
            }) => opening.finish(),
            _ => None,
        };
        if let Some((_, data)) = held {
            // Too few to be a container, so they can only go on with a take.
            self.plain_step(epoch, Step::Foreign(0, data));
        }
        if let Err(refusal) = self
            .session
            .handle_stop(StopBy::Connection(epoch), self.now())
        {
            self.refuse(epoch, fault(refusal));
        }
    }

    fn disconnect(&mut self, epoch: Epoch) {
        if self
            .connection
            .as_ref()
            .is_some_and(|connection| connection.epoch == epoch)
        {
            self.connection = None;
        }
        if self.session.is_open() {
            tracing::info!(%epoch, "broadcaster disconnected");
        }
        self.session.handle_disconnect(epoch, self.now());
    }

    /// Ends the connection with a reason; the session waits for the next one.
    fn refuse(&mut self, epoch: Epoch, fault: Fault) {
        if let Some(connection) = self.connection.take_if(|c| c.epoch == epoch) {
            tracing::warn!(%epoch, %fault, "connection refused");
            connection.end(fault);
        }
        self.session.handle_disconnect(epoch, self.now());
    }

    fn check_marks(&mut self) {
        let marks = self.marks.borrow_and_update().clone();
        for (take, durable) in (0..).zip(&marks.takes) {
            self.session.handle_durable(take, *durable);
        }
        if let Some(reason) = &marks.failed {
            self.write_failed(reason.to_string());
        }
        self.carry_out();
        let durable = marks.takes.iter().sum();
        self.announced.grew(durable, || self.session.manifest());
        let settled = marks.events >= self.persisted || marks.failed.is_some();
        match self.ending {
            Ending::Sealing if settled => {
                self.ending = Ending::Finalizing;
                self.registry.finalize(self.session.manifest());
                let bytes = self.session.manifest().bytes();
                self.say(Response::Progress(ingest::Progress { bytes, archived: 0 }));
            }
            Ending::Closing if settled => self.over(),
            _ => {}
        }
        self.ack_if_due();
    }

    fn finalized(&mut self, recording: archiver::Recording) {
        let status = recording.status().to_core().unwrap_or(Status::Failed);
        if !self.session.handle_finalized(status) {
            return;
        }
        tracing::info!(
            status = status.as_str(),
            bytes = recording.bytes,
            "session over"
        );
        // Acks keep their distance from each other, and the end may come sooner: nothing is left open.
        self.ack_now();
        self.say(Response::End(Box::new(ingest::End {
            recording: Some(recording),
        })));
        if let Some(connection) = self.connection.take() {
            connection.close();
        }
        self.ending = Ending::Closing;
        self.carry_out();
        self.check_marks();
    }

    fn over(&mut self) {
        self.ending = Ending::Over;
        self.registry.over(self.session.show_id(), self.status());
    }

    fn drain(&mut self) {
        if let Some(connection) = self.connection.take() {
            let epoch = connection.epoch;
            connection.end(Fault::retry(Code::Draining, "the service restarts", 0));
            self.session.handle_disconnect(epoch, self.now());
        }
        self.ending = Ending::Draining;
    }

    /// Waits until what was received is durable: it was not acknowledged, but why send it twice.
    async fn drained(&mut self) {
        self.carry_out();
        let events = self.persisted;
        let settled = self
            .marks
            .wait_for(|marks| marks.events >= events || marks.failed.is_some());
        if tokio::time::timeout(DRAIN_MAX, settled).await.is_err() {
            tracing::warn!("the spool did not settle in time; clients resend what is missing");
        }
    }

    /// Does what the lifecycle has decided.
    fn carry_out(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Persist(event) => match self.spool.persist(&event) {
                    Ok(persisted) => self.persisted = persisted,
                    Err(error) => self.write_failed(error.to_string()),
                },
                Output::Fence(epoch) => {
                    self.ack_now();
                    if let Some(connection) = self.connection.take_if(|c| c.epoch == epoch) {
                        tracing::info!(%epoch, "connection superseded");
                        let message = "a newer connection took over";
                        connection.end(Fault::new(Code::Superseded, message));
                    }
                }
                Output::Changed => {
                    self.announced.changed(self.session.manifest());
                    self.registry.changed(self.status());
                    self.say_state();
                }
                Output::Finalize => {
                    tracing::info!("session sealed");
                    self.live = LiveBranch::new(0);
                    self.sinks = Sinks::default();
                    self.registry
                        .sealed(self.session.show_id(), self.session.id());
                    self.ending = Ending::Sealing;
                }
            }
        }
        // The sync that settles a sealed session may be over already.
        if self.ending == Ending::Sealing && self.marks.borrow().failed.is_some() {
            self.marks.mark_changed();
        }
    }

    fn say_listeners(&mut self) {
        self.live.let_go();
        if self.live.listeners() != self.listeners_said {
            self.say_state();
        }
    }

    fn say_state(&mut self) {
        self.listeners_said = self.live.listeners();
        let state = ingest::State {
            live: self.session.is_open(),
            recording_error: self.session.snapshot(self.now()).recording_error,
            listeners: self.listeners_said as u64,
        };
        self.say(Response::State(state));
    }

    fn say(&mut self, response: Response) {
        let Some(connection) = &self.connection else {
            return;
        };
        if connection.say(response) {
            return;
        }
        let epoch = connection.epoch;
        self.refuse(
            epoch,
            Fault::retry(Code::Timeout, "the client does not read", 0),
        );
    }

    fn status(&self) -> ingest::SessionStatus {
        let snapshot = self.session.snapshot(self.now());
        let manifest = self.session.manifest();
        let state = state(&snapshot);
        ingest::SessionStatus {
            session: manifest.session.to_string(),
            show_id: manifest.show_id.to_string(),
            epoch: snapshot.epoch.0,
            user: manifest.user,
            state: state.into(),
            grace_remaining_ms: snapshot.grace_remaining_ms,
            recording_failed: snapshot.recording_error,
            received: snapshot.received,
            durable: snapshot.durable,
            archived: snapshot.archived,
            listeners: self.live.listeners() as u64,
            started_at_unix_ms: manifest.started_unix_ms,
            reconnects: manifest.epoch.0.saturating_sub(1),
            sinks: self.sinks.status(),
        }
    }
}

fn state(snapshot: &Snapshot) -> ingest::SessionState {
    match (snapshot.status, snapshot.grace_remaining_ms) {
        (Status::Recording, None) => ingest::SessionState::Live,
        (Status::Recording, Some(_)) => ingest::SessionState::Grace,
        (Status::Finalizing, _) => ingest::SessionState::Finalizing,
        (Status::Archived, _) => ingest::SessionState::Archived,
        (Status::Failed, _) => ingest::SessionState::Failed,
    }
}

/// How a refusal of the lifecycle looks on the wire.
fn fault(refusal: Refusal) -> Fault {
    let code = match refusal {
        Refusal::Conflict => Code::Conflict,
        Refusal::Ended | Refusal::NotLive => Code::NotLive,
        Refusal::Stale => Code::Superseded,
        Refusal::Offset { .. } => Code::BadOffset,
        Refusal::TooMany => Code::TooMany,
    };
    Fault::new(code, refusal.to_string())
}

fn foreign() -> Fault {
    let message = "the bytes begin no supported container (WebM, MP4 or Ogg)";
    Fault::new(Code::UnsupportedMedia, message)
}

fn answer<T>(reply: Option<tokio::sync::oneshot::Sender<T>>, answer: T) {
    if let Some(reply) = reply
        && reply.send(answer).is_err()
    {
        tracing::debug!("nobody waits for the answer any more");
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
