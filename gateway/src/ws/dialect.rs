//! What the two dialects have in common.
//!
//! Owns the seam between a socket's messages and the ingest's; must never touch either.

use super::{outbox::Outbox, wire::Incoming};
use aircheck_proto::{
    Fault,
    ingest::{publish_request::Request, publish_response::Response},
};

/// Whether a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    On,
    /// Everything was said: close 1000.
    Done,
}

/// One connection's side of a dialect, from ready on.
pub(crate) trait Dialect {
    /// What a client's message asks of the ingest, if anything.
    ///
    /// # Errors
    /// The fault that closes the connection.
    fn heard(&mut self, message: Incoming) -> Result<Option<Request>, Fault>;

    /// Tells the client what the ingest said.
    fn answered(&mut self, response: Response, outbox: &mut Outbox) -> Course;

    /// Tells the client why it is about to be closed.
    fn farewell(&self, fault: &Fault, outbox: &mut Outbox);
}
