//! A broadcaster: what a browser does, for files.
//!
//! Owns the client's side of the contract: bytes are kept until they are acknowledged, sent again
//! from where the server says, and a lost connection is taken up again. Must never drop a byte that
//! was not acknowledged.

mod buffer;
mod cut;
mod driver;
mod grpc;
mod header;
mod line;
mod outcome;
mod plan;
mod recorder;
mod route;
mod ws;

pub(crate) use driver::Driver;
pub(crate) use line::{Credentials, Dialer, Heard, Hello, Line, Loss, Reach, Say, TargetError};
pub(crate) use outcome::{Outcome, Phase, Tally, Wishes};
pub(crate) use recorder::{Pace, Recorder};
