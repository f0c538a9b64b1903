//! Tables as sea-orm sees them.
//!
//! Owns column names and types; must never hold a rule about what may be written when.

pub(crate) mod recording;
pub(crate) mod rendition;
pub(crate) mod show;
pub(crate) mod work;
