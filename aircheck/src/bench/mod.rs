//! Load: many synthetic broadcasters at once, and what it costs the server.
//!
//! Owns the broadcasters and the figures. Must never count anything as good that the server did not
//! say, and must never reconnect: a lost connection is a figure of its own.

mod crowd;
mod figures;
mod histogram;
mod house;
mod report;
mod script;
mod usage;

pub(crate) use crowd::{Crowd, Run};
pub(crate) use figures::Figures;
pub(crate) use house::House;
pub(crate) use report::{Load, Report, Server};
pub(crate) use script::Script;
pub(crate) use usage::{Usage, allow_files};
