//! The connection that holds a session.
//!
//! Owns what is said to its broadcaster. Must never wait for it: a client that does not read is let
//! go, and comes back.

use super::{Outbound, acks::Cadence, opening::Opening};
use aircheck_core::{id::Epoch, session::Cursor, wire::Take};
use aircheck_proto::{
    Fault,
    ingest::{self, publish_response::Response},
};
use aircheck_runtime::failpoint::Failpoint;
use std::time::Duration;
use tokio::{sync::mpsc::error::TrySendError, time::Instant};
use tokio_util::sync::CancellationToken;

/// What the connection sends at present.
#[derive(Debug)]
pub(super) enum Sending {
    /// Plain dialect, first bytes: they decide whether a new take begins.
    Undecided { opening: Opening },
    /// A take that the client should not go on with.
    Unopened { take: Take },
    /// Bytes of this take.
    Take {
        index: u32,
        id: String,
        opening: Opening,
        plain: bool,
    },
}

/// A broadcaster's connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) epoch: Epoch,
    pub(super) sending: Sending,
    outbound: Outbound,
    gone: CancellationToken,
    cadence: Cadence,
    hearing: Hearing,
}

/// Whether bytes come.
#[derive(Clone, Copy, Debug)]
enum Hearing {
    /// They do; these were the last.
    Bytes { at: Instant },
    /// None, for so long that it was said.
    Silence,
}

impl Connection {
    pub(super) fn new(
        epoch: Epoch,
        sending: Sending,
        outbound: Outbound,
        gone: CancellationToken,
    ) -> Self {
        Self {
            epoch,
            sending,
            outbound,
            gone,
            cadence: Cadence::new(Instant::now()),
            hearing: Hearing::Bytes { at: Instant::now() },
        }
    }

    /// Bytes have come. Whether that ends a silence.
    pub(super) fn heard(&mut self, at: Instant) -> bool {
        let ends = self.is_silent();
        self.hearing = Hearing::Bytes { at };
        ends
    }

    /// Whether nothing comes, and that was said.
    pub(super) fn is_silent(&self) -> bool {
        matches!(self.hearing, Hearing::Silence)
    }

    /// When a silence would be worth saying.
    pub(super) fn silent_at(&self, patience: Duration) -> Option<Instant> {
        match self.hearing {
            Hearing::Bytes { at } => Some(at + patience),
            Hearing::Silence => None,
        }
    }

    /// Whether nothing has come for so long that it is to be said now.
    pub(super) fn falls_silent(&mut self, now: Instant, patience: Duration) -> bool {
        let falls = self.silent_at(patience).is_some_and(|at| at <= now);
        if falls {
            self.hearing = Hearing::Silence;
        }
        falls
    }

    /// Another take, or the same again, beginning at `cursor`.
    pub(super) fn begin(&mut self, index: u32, id: String, opening: Opening, cursor: Cursor) {
        self.sending = Sending::Take {
            index,
            id,
            opening,
            plain: false,
        };
        self.cadence.restart(cursor.durable, cursor.archived);
    }

    /// The take whose progress the broadcaster wants to hear of.
    pub(super) fn acked_take(&self) -> Option<u32> {
        match &self.sending {
            Sending::Take {
                index,
                plain: false,
                ..
            } => Some(*index),
            Sending::Take { .. } | Sending::Undecided { .. } | Sending::Unopened { .. } => None,
        }
    }

    /// When the next ack is due.
    pub(super) fn ack_due(&self, cursor: Cursor) -> Option<Instant> {
        let pending = cursor.taped > cursor.durable;
        self.cadence.due(cursor.durable, cursor.archived, pending)
    }

    /// Says how far the take is. A full queue is no fault: the next ack says more.
    pub(super) fn ack(&mut self, cursor: Cursor, at: Instant) {
        let Sending::Take { id, .. } = &self.sending else {
            return;
        };
        let (offset, archived) = (cursor.durable, cursor.archived);
        let ack = ingest::Ack {
            take: id.clone(),
            offset,
            archived,
        };
        if self.try_send(Response::Ack(ack)).is_ok() {
            self.cadence.sent(offset, archived, at);
            Failpoint::AckSent.pass();
        }
    }

    fn try_send(&self, response: Response) -> Result<(), TrySendError<()>> {
        let message = ingest::PublishResponse {
            response: Some(response),
        };
        self.outbound
            .try_send(Ok(message))
            .map_err(|error| match error {
                TrySendError::Full(_) => TrySendError::Full(()),
                TrySendError::Closed(_) => TrySendError::Closed(()),
            })
    }

    /// Says something that must not be left out. `false` when the client does not read: it must be
    /// let go.
    pub(super) fn say(&self, response: Response) -> bool {
        !matches!(self.try_send(response), Err(TrySendError::Full(())))
    }

    /// Says why, and lets go.
    pub(super) fn end(self, fault: Fault) {
        // A full or closed queue means that nobody listens; the end of the stream says enough.
        if self.outbound.try_send(Err(fault.into())).is_err() {
            tracing::debug!(epoch = %self.epoch, "the connection did not hear why it ended");
        }
        self.gone.cancel();
    }

    /// Lets go after all is said.
    pub(super) fn close(self) {
        self.gone.cancel();
    }
}
