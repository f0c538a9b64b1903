//! What happens to a session beside its bytes, as it stands in the journal.
//!
//! Owns the vocabulary; must never change the meaning of a variant once written, since spools outlive
//! programs. New variants are additions; a reader refuses one it does not know.

use super::Manifest;
use crate::{
    id::Epoch,
    recording::{EndReason, Gap, Marker},
    sheet::Link,
};
use serde::{Deserialize, Serialize};

/// One change of a session. Times are Unix milliseconds by the ingest's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The session exists from now on.
    Opened {
        /// Its first state.
        manifest: Box<Manifest>,
    },
    /// A connection took the session.
    Connected {
        /// Its fencing token.
        epoch: Epoch,
        /// Who.
        user: String,
        /// When.
        at_unix_ms: u64,
    },
    /// The connection is gone; grace runs.
    Disconnected {
        /// The connection that is gone.
        epoch: Epoch,
        /// When.
        at_unix_ms: u64,
    },
    /// An encoder run begins; its index is the number of takes before.
    TakeOpened {
        /// The client's own name.
        id: String,
        /// Content type as the browser names it.
        mime: String,
        /// When its first byte is due.
        at_unix_ms: u64,
    },
    /// Bytes that will never come.
    Gap {
        /// Which.
        gap: Gap,
    },
    /// A point in the timeline.
    Marked {
        /// Which.
        marker: Marker,
    },
    /// What was measured of the broadcaster's connection in a rehearsal.
    Rehearsed {
        /// What.
        link: Link,
    },
    /// The recording branch gave up; from now on the recording is known to be incomplete.
    RecordingFailed {
        /// Why.
        reason: String,
    },
    /// No more bytes; finalize is due.
    Sealed {
        /// Why.
        reason: EndReason,
        /// When.
        at_unix_ms: u64,
    },
    /// The archiver has proved the archive; local bytes are not needed any more.
    Done,
}
