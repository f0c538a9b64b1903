//! How a finalize job ends without a recording, and what makes it stop early.
//!
//! Owns the difference between what passes and what doesn't: faults that pass are retried for as
//! long as the archiver runs and never show up here.

use aircheck_core::code::Code;
use aircheck_proto::Fault;
use aircheck_runtime::{backoff::Backoff, shutdown::Shutdown};
use std::{error::Error, fmt::Write as _, time::Duration};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// When a client that is turned away should come back, ms.
const COME_BACK_MS: u64 = 1000;

/// Why a job ended without a recording. The row stays `finalizing`, local bytes stay where they are.
#[derive(Debug, Error)]
pub(crate) enum Halt {
    /// The archiver goes down; the next one carries on.
    #[error("the archiver is draining")]
    Draining,
    /// Another archiver has the recording by now.
    #[error("another archiver took the recording over")]
    ClaimLost,
    /// Finalize wants what a live job has.
    #[error("the session is finalized")]
    Recalled,
    /// The ingest says that it does not have the bytes.
    #[error("the spool of take {take} can't be read: {reason}")]
    SpoolGone { take: u32, reason: String },
    /// What is there of a take is not what the manifest says.
    #[error("the bytes of take {take} differ from the manifest at offset {at}: {reason}")]
    Corrupt {
        take: u32,
        at: u64,
        reason: &'static str,
    },
    /// The object of a take that was archived raw is not there any more.
    #[error("the object of take {take} can't be read: {reason}")]
    ObjectGone { take: u32, reason: String },
    /// What was archived raw still can't be stitched.
    #[error("the takes can't be stitched: {reason}")]
    Unfit { reason: String },
    /// Even the key that bears the session's own id holds somebody else's object.
    #[error("somebody else's object is at {key}")]
    Conflict { key: String },
    /// The ingest can't be reached and nobody waits for the result any more.
    #[error("the ingest can't be reached, and nobody waits for the recording")]
    Abandoned,
}

impl Halt {
    /// What callers are told.
    pub(crate) fn fault(&self) -> Fault {
        let message = self.to_string();
        match self {
            Self::Draining => Fault::retry(Code::Draining, message, COME_BACK_MS),
            Self::ClaimLost | Self::Recalled | Self::Abandoned => {
                Fault::retry(Code::Unavailable, message, COME_BACK_MS)
            }
            Self::SpoolGone { .. } | Self::Corrupt { .. } | Self::ObjectGone { .. } => {
                Fault::new(Code::Corrupt, message)
            }
            Self::Unfit { .. } => Fault::new(Code::UnsupportedMedia, message),
            Self::Conflict { .. } => Fault::new(Code::Internal, message),
        }
    }

    /// Whether the row should say so: it needs somebody's attention.
    pub(crate) fn needs_attention(&self) -> bool {
        match self {
            Self::Draining
            | Self::ClaimLost
            | Self::Recalled
            | Self::Abandoned
            | Self::Unfit { .. } => false,
            Self::SpoolGone { .. }
            | Self::Corrupt { .. }
            | Self::ObjectGone { .. }
            | Self::Conflict { .. } => true,
        }
    }
}

/// What makes a job stop between two calls. Calls under way are not cut off.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    shutdown: Shutdown,
    lost: CancellationToken,
    recalled: CancellationToken,
}

impl Stop {
    pub(crate) fn new(shutdown: Shutdown) -> Self {
        Self::recallable(shutdown, CancellationToken::new())
    }

    /// Of a live job, which Finalize ends with this token.
    pub(crate) fn recallable(shutdown: Shutdown, recalled: CancellationToken) -> Self {
        Self {
            shutdown,
            lost: CancellationToken::new(),
            recalled,
        }
    }

    /// Waits until the job must stop, and says why.
    pub(crate) async fn stopped(&self) -> Halt {
        tokio::select! {
            () = self.lost.cancelled() => Halt::ClaimLost,
            () = self.recalled.cancelled() => Halt::Recalled,
            () = self.shutdown.triggered() => Halt::Draining,
        }
    }

    /// Waits until Finalize has recalled the job.
    pub(crate) async fn recalled(&self) {
        self.recalled.cancelled().await;
    }

    /// From now on the job's claim is known to be lost.
    pub(crate) fn claim_lost(&self) {
        self.lost.cancel();
    }

    /// # Errors
    /// [`Halt::ClaimLost`], [`Halt::Recalled`] or [`Halt::Draining`].
    pub(crate) fn check(&self) -> Result<(), Halt> {
        if self.lost.is_cancelled() {
            return Err(Halt::ClaimLost);
        }
        if self.recalled.is_cancelled() {
            return Err(Halt::Recalled);
        }
        if self.shutdown.is_triggered() {
            return Err(Halt::Draining);
        }
        Ok(())
    }

    /// Waits, but no longer than the job may go on.
    pub(crate) async fn sleep(&self, time: Duration) -> Result<(), Halt> {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            _ = self.stopped() => {}
        }
        self.check()
    }

    /// Repeats a call until it succeeds.
    pub(crate) async fn persist<T, E, F>(
        &self,
        what: &'static str,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Halt>
    where
        E: Error,
        F: Future<Output = Result<T, E>>,
    {
        let mut backoff = backoff();
        loop {
            self.check()?;
            match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => self.pause(&mut backoff, what, &error).await?,
            }
        }
    }

    /// Says what went wrong and waits before the next attempt.
    pub(crate) fn pause<'a>(
        &'a self,
        backoff: &mut Backoff,
        what: &'static str,
        error: &dyn Error,
    ) -> impl Future<Output = Result<(), Halt>> + Send + use<'a> {
        let wait = backoff.delay();
        tracing::warn!(what, error = chain(error), retry_in = ?wait, "try again");
        self.sleep(wait)
    }
}

/// The delays of a job's retries.
pub(crate) fn backoff() -> Backoff {
    Backoff::new(RETRY_FIRST, RETRY_MAX)
}

/// An error with all its causes, for a log line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) && write!(text, ": {said}").is_err() {
            break;
        }
        cause = error.source();
    }
    text
}
