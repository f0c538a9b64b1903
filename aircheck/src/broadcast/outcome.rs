//! What a broadcast is wished to be, how far it is, and how it ended.
//!
//! Owns these words; must never act.

use super::recorder::SourceError;
use aircheck_core::recording::Recording;
use aircheck_proto::Fault;
use std::time::Duration;
use thiserror::Error;

/// What the user wants beyond the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wishes {
    /// Take over from another broadcaster.
    pub(crate) force: bool,
    /// Rehearse instead of going on air.
    pub(crate) rehearse: bool,
    /// End the session after the last byte.
    pub(crate) stop: bool,
    /// Tear the connection this often.
    pub(crate) drop_every: Option<Duration>,
    /// Give up after so long without the server.
    pub(crate) retry_for: Duration,
}

/// How far a broadcast is, in bytes of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Highest byte that was sent.
    pub(crate) sent: u64,
    /// Below this, all is on the ingest's disk.
    pub(crate) durable: u64,
    /// Below this, all is in S3.
    pub(crate) archived: u64,
    /// Connections after the first.
    pub(crate) reconnects: u32,
    /// What happens right now.
    pub(crate) phase: Phase,
}

/// What happens right now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not connected for the first time yet.
    #[default]
    Connecting,
    /// On air.
    Live,
    /// The connection is gone, because of this.
    Lost(String),
    /// On air, but the recording has this fault.
    Faulty(String),
    /// Stopped; the archive is being made.
    Finalizing,
}

/// How a broadcast ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// With its recording.
    Ended(Box<Recording>),
    /// With this status; nobody could be asked for the recording.
    Known {
        session: String,
        status: &'static str,
    },
    /// Without a stop, as was wished; everything is durable.
    Left { session: String },
}

/// Why a broadcast failed.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// The file.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The server.
    #[error("the server refuses: {0}")]
    Refused(Fault),
    /// Nobody there, for too long.
    #[error("the server could not be reached for {} s: {last}", after.as_secs())]
    GaveUp {
        /// How long.
        after: Duration,
        /// What was seen last.
        last: String,
    },
    /// The session ended without us, and the file's header is not known.
    #[error("the session has ended, and the file has no header to begin a new one with")]
    NoHeader,
}
