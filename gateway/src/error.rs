//! Why the gateway can't run.
//!
//! Owns faults of the whole service; must never describe one client's fault, which is a `Fault`.

use crate::auth::KeyError;
use aircheck_core::wire::{GRACE_MAX_S, MAX_FRAME};
use aircheck_runtime::grpc::ChannelError;
use std::time::Duration;
use thiserror::Error;

/// Largest `--max-message`, in bytes: an ingest takes no larger chunk.
pub(crate) const MAX_MESSAGE_LIMIT: u64 = MAX_FRAME as u64;

/// Why [`crate::serve`] gave up.
#[derive(Debug, Error)]
pub enum Error {
    /// No ingest was named.
    #[error("at least one ingest is needed")]
    NoIngest,
    /// A limit that the ingest could not take.
    #[error("max_message is {0} bytes; an ingest takes at most {MAX_MESSAGE_LIMIT}")]
    MaxMessage(u64),
    /// A grace that no ingest accepts.
    #[error("grace is {0:?}; at most {GRACE_MAX_S} s are possible")]
    Grace(Duration),
    /// Pings that could not save a connection, or would be all that it does.
    #[error("ping_interval must be above zero and below idle_timeout")]
    PingInterval,
    /// An address that is none.
    #[error("the address of a service is malformed")]
    Channel(#[from] ChannelError),
    /// A key that tokens can't be verified with.
    #[error("the key for tokens can't be used")]
    Key(#[from] KeyError),
}
