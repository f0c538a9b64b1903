//! The pure heart of Aircheck: identifiers, the session lifecycle, spool formats, browser messages,
//! upload planning and media.
//!
//! Owns every rule that can be stated without a machine. Must never touch a file, a socket, a task
//! or a clock: whoever calls brings bytes and the time, so that every rule can be tested by
//! schedule instead of by waiting.

pub mod code;
pub mod id;
pub mod media;
pub mod recording;
pub mod rendition;
pub mod session;
pub mod sheet;
pub mod spool;
pub mod wire;
