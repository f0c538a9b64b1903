//! On-disk formats of the spool: journal records, session events and the manifest they add up to.
//!
//! Owns bytes and meaning; must never open a file. Whoever has the disk is `aircheck-ingest`.

mod event;
mod manifest;
pub mod record;

pub use event::Event;
pub use manifest::{FORMAT, GapPolicy, Manifest, ManifestError, Stage, TakeRecord};
