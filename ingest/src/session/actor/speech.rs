//! What a session says of itself: to its broadcaster, and to whoever asks.
//!
//! Owns the messages. Must never wait for a reader: one that does not keep up is let go.

use super::{super::connection::Connection, Actor};
use aircheck_core::{code::Code, id::Epoch, recording::Status, session::Snapshot, wire::MAX_FRAME};
use aircheck_proto::{
    Fault,
    ingest::{self, Alarm, publish_response::Response},
};
use std::time::Duration;
use tokio::time::Instant;

/// Least time between two states that tell of changes that may wait.
const STATE_LEAST: Duration = Duration::from_millis(250);

impl Actor {
    /// Says how far the take is, if that is due.
    pub(super) fn ack_if_due(&mut self) {
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
    pub(super) fn ack_now(&mut self) {
        if let Some(connection) = &mut self.connection
            && let Some(cursor) = connection.acked_take().and_then(|t| self.session.cursor(t))
        {
            connection.ack(cursor, Instant::now());
        }
    }

    /// The answer to a connection, or to a new take of it.
    pub(super) fn ready(
        &self,
        epoch: Epoch,
        take: String,
        offset: u64,
        resumed: bool,
        previous: Option<ingest::Previous>,
    ) -> ingest::Ready {
        let manifest = self.session.facts();
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

    /// Tells the broadcaster of a change that may wait: hundreds of listeners who come at once are
    /// one message.
    pub(super) fn say_state_soon(&mut self) {
        self.state_due
            .get_or_insert(self.state_said_at + STATE_LEAST);
        self.say_state_if_due();
    }

    pub(super) fn say_state_if_due(&mut self) {
        if self.state_due.is_some_and(|due| due <= Instant::now()) {
            self.say_state();
        }
    }

    /// Tells the broadcaster how both branches stand, at once.
    pub(super) fn say_state(&mut self) {
        (self.state_due, self.state_said_at) = (None, Instant::now());
        self.listeners_said = self.live.listeners();
        let state = ingest::State {
            live: self.session.is_open(),
            recording_error: self.session.facts().recording_error.clone(),
            listeners: self.listeners_said as u64,
            sinks: self.sinks.status(),
            alarms: self.alarms(),
        };
        self.say(Response::State(state));
    }

    /// Says something that must not be left out; who does not read it is let go.
    pub(super) fn say(&mut self, response: Response) {
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

    /// How the session stands, for whoever watches.
    pub(super) fn status(&self) -> ingest::SessionStatus {
        let snapshot = self.session.snapshot(self.now());
        let manifest = self.session.facts();
        let state = state(&snapshot);
        ingest::SessionStatus {
            session: manifest.session.to_string(),
            show_id: manifest.show_id.to_string(),
            epoch: snapshot.epoch.0,
            user: manifest.user.clone(),
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
            rehearsal: manifest.rehearsal,
            alarms: self.alarms(),
        }
    }

    fn alarms(&self) -> Vec<i32> {
        let silent = self.connection.as_ref().is_some_and(Connection::is_silent);
        let silent = silent.then_some(Alarm::NoData).into_iter();
        silent.chain(self.sinks.alarms()).map(i32::from).collect()
    }

    /// Tells everybody of a sink, or of the sound.
    pub(super) fn sinks_changed(&mut self) {
        self.registry.changed(|| self.status());
        self.say_state_soon();
    }

    /// Tells everybody of an alarm, or of its end.
    pub(super) fn alarms_changed(&mut self) {
        self.registry.changed(|| self.status());
        self.say_state();
    }

    /// Looks whether the broadcaster sends nothing. That is said, and never acted upon.
    pub(super) fn watch_data(&mut self) {
        let patience = self.registry.watch_no_data();
        if self.session.is_open()
            && let Some(connection) = &mut self.connection
            && connection.falls_silent(Instant::now(), patience)
        {
            tracing::warn!(?patience, "the broadcaster is connected and sends nothing");
            metrics::counter!("aircheck_alarms_total", "alarm" => "no_data").increment(1);
            self.alarms_changed();
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
