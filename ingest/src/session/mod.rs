//! Sessions as tasks: one task owns one session and everything that belongs to it.
//!
//! Owns the messages a session understands. Must never hold a lock around a session: whoever wants
//! something of it asks its task.

mod acks;
mod actor;
mod connection;
mod opening;

pub(crate) use actor::{Actor, Parts};

use crate::live::Subscription;
use aircheck_core::{
    id::{Epoch, Seat, SessionId},
    sheet::Link,
    wire::Take,
};
use aircheck_proto::{Fault, archiver, ingest};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Messages that may wait for a session: media is held back by HTTP/2's own flow control beyond it.
pub(crate) const MAILBOX: usize = 64;
/// Messages that may wait for a connection.
pub(crate) const OUTBOUND: usize = 64;

/// What goes back to a broadcaster.
pub(crate) type Outbound = mpsc::Sender<Result<ingest::PublishResponse, Status>>;

/// A connection that wants a session.
#[derive(Debug)]
pub(crate) struct Connect {
    pub(crate) user: String,
    pub(crate) force: bool,
    /// Absent in the plain dialect.
    pub(crate) take: Option<Take>,
    /// The session the client believes in, when it is over.
    pub(crate) previous: Option<ingest::Previous>,
    /// The client names this session.
    pub(crate) named: bool,
    pub(crate) outbound: Outbound,
    /// Cancelled when the session lets go of the connection.
    pub(crate) gone: CancellationToken,
    pub(crate) reply: oneshot::Sender<Result<Epoch, ConnectError>>,
}

/// Why a connection was not admitted.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// The session has ended; the show may have another.
    Ended,
    /// Anything else.
    Refused(Fault),
}

/// What a session understands.
#[derive(Debug)]
pub(crate) enum Command {
    Connect(Box<Connect>),
    Take {
        epoch: Epoch,
        take: Take,
    },
    Chunk {
        epoch: Epoch,
        offset: u64,
        data: Bytes,
    },
    Mark {
        label: String,
        kind: String,
        reply: Option<oneshot::Sender<Result<u64, Fault>>>,
    },
    Link {
        epoch: Epoch,
        link: Link,
    },
    StopBy {
        epoch: Epoch,
    },
    Disconnect {
        epoch: Epoch,
    },
    Stop {
        reply: oneshot::Sender<bool>,
    },
    Listen {
        reply: oneshot::Sender<Result<Subscription, Fault>>,
    },
    Status {
        reply: oneshot::Sender<ingest::SessionStatus>,
    },
    Archived {
        takes: Vec<u64>,
    },
    Progress {
        bytes: u64,
        archived: u64,
    },
    /// Pieces of a take from the spool, for the live branch; empty if they can't be read.
    Beginning {
        take: u32,
        known: Vec<(u64, Bytes)>,
    },
    Finalized {
        recording: Box<archiver::Recording>,
    },
    Drain,
}

/// How to reach a session.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(crate) id: SessionId,
    pub(crate) seat: Seat,
    pub(crate) mailbox: mpsc::Sender<Command>,
}

impl Handle {
    /// Asks, and waits for the answer. `None` when the session is gone.
    pub(crate) async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(question(reply)).await.ok()?;
        answer.await.ok()
    }
}
