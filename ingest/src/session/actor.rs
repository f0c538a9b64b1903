//! The task of a session.
//!
//! Owns the lifecycle, the writing end of the spool, the live branch and the connection, and carries
//! out what the lifecycle decides. Must never wait for disk, archiver or client: each of them sends a
//! message when there is news.

mod connect;
mod ending;
mod intake;
mod speech;

use super::{Command, connection::Connection};
use crate::{
    archiver::Announcements,
    clock::Clock,
    live::{LiveBranch, Subscription},
    registry::Registry,
    sink::Sinks,
    spool::{Marks, SessionSpool},
};
use aircheck_core::{
    code::Code,
    session::{Now, Output, Refusal, Session, StopBy},
    spool::Manifest,
};
use aircheck_proto::{
    Fault,
    ingest::{self, publish_response::Response},
};
use aircheck_runtime::failpoint::Failpoint;
use ending::Ending;
use std::sync::Arc;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tracing::Instrument as _;

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
    /// The run that the spool takes bytes of, and the one that was asked for.
    run: u32,
    wanted_run: u32,
    /// What the archiver is told, whenever it changes.
    announced: Announcements,
    /// When the broadcaster hears of changes that may wait.
    state_due: Option<Instant>,
    state_said_at: Instant,
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
            run: 0,
            wanted_run: 0,
            announced,
            state_due: None,
            state_said_at: Instant::now(),
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
                    () = self.sinks.changed() => self.sinks_changed(),
                    () = self.live.left() => self.listeners_changed(),
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
        let patience = self.registry.watch_no_data();
        let silence = self.connection.as_ref().filter(|_| self.session.is_open());
        let silence = silence.and_then(|connection| connection.silent_at(patience));
        let timers = timer.into_iter().chain(ack);
        timers.chain(self.state_due).chain(silence).min()
    }

    fn handle_due(&mut self) {
        self.session.handle_timeout(self.now());
        self.carry_out();
        self.ack_if_due();
        self.say_state_if_due();
        self.watch_data();
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
            Command::Link { epoch, link } => self.session.handle_link(epoch, link),
            Command::StopBy { epoch } => self.stop_by(epoch),
            Command::Disconnect { epoch } => self.disconnect(epoch),
            Command::Stop { reply } => {
                let stopped = self.session.handle_stop(StopBy::Operator, self.now());
                self.carry_out();
                answer(Some(reply), stopped.unwrap_or(false));
            }
            Command::Listen { reply } => {
                let subscription = self.listen();
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
            Command::Beginning { take, known } => self.rejoined(take, &known),
            Command::Finalized { recording } => self.finalized(*recording),
            Command::Drain => self.drain(),
        }
        self.carry_out();
    }

    fn listen(&mut self) -> Result<Subscription, Fault> {
        if !self.session.is_open() {
            return Err(Fault::new(Code::NotLive, "the show is not live"));
        }
        let full = || Fault::new(Code::TooMany, "the show has too many listeners");
        let subscription = self.live.listen().ok_or_else(full)?;
        self.say_state_soon();
        Ok(subscription)
    }

    /// Listeners have left.
    fn listeners_changed(&mut self) {
        self.live.let_go();
        if self.live.listeners() != self.listeners_said {
            self.say_state_soon();
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
                    self.registry.changed(|| self.status());
                    self.say_state();
                }
                Output::Finalize => {
                    Failpoint::SessionSealed.pass();
                    tracing::info!("session sealed");
                    std::mem::replace(&mut self.live, LiveBranch::new(0)).finish();
                    self.sinks = Sinks::default();
                    self.registry
                        .sealed(&self.session.seat(), self.session.id());
                    self.ending = Ending::Sealing;
                }
            }
        }
        // The sync that settles a sealed session may be over already.
        if self.ending == Ending::Sealing && self.marks.borrow().failed.is_some() {
            self.marks.mark_changed();
        }
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
