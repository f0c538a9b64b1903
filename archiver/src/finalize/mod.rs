//! Finalize: turns a sealed session into its one archive, exactly once, whatever fails on the way.
//!
//! 1. [`jobs`] lets calls for one session share one job.
//! 2. [`job`] seals the row and claims it, so that one archiver works while the others follow.
//! 3. [`stitch`] muxes the takes, and [`cut`] cuts the files into parts, without any I/O; [`ship`]
//!    brings parts into the store and notes them in the row.
//! 4. [`stitched`] makes the files of the parts; [`raw`] makes one object a take where they can't be
//!    stitched.
//! 5. [`upload`] makes one object; [`prove`] and [`verdict`] tell what a lost answer meant.
//! 6. [`manifest`] goes beside them, then [`job`] makes the row final, guarded by its claim.
//!
//! What was archived raw is given a second chance by [`repair`], which reads its [`objects`].
//!
//! Long before, [`live`] and [`follow`] do step 3 while the session runs; Finalize takes over what they
//! have.
//!
//! [`rebuild`] makes rows that a database lost of the manifests; [`sweep`] drops uploads that a crash left behind and nobody owns.
//!
//! A job that dies anywhere costs a replay: the row names what was being made before it came into
//! being, and what is there already is proved instead of made again.

mod cut;
#[cfg(test)]
mod explore;
mod follow;
mod halt;
mod job;
mod jobs;
mod live;
mod manifest;
mod objects;
mod prove;
mod raw;
mod rebuild;
mod rehearsal;
mod repair;
mod ship;
mod source;
mod stitch;
mod stitched;
mod sweep;
mod upload;
mod verdict;

pub(crate) use halt::{Halt, Stop, chain};
pub(crate) use job::{Context, extent, renew};
pub(crate) use jobs::{JobState, Jobs, Progress};
pub(crate) use manifest::MANIFEST_TYPE;
pub(crate) use prove::prove;
pub use rebuild::Found;
pub(crate) use rebuild::{RebuildError, Rebuilder};
pub(crate) use repair::is_raw;
pub(crate) use source::Ingest;
pub(crate) use stitched::part_bytes;
pub(crate) use sweep::Schedule;
pub(crate) use upload::{Made, Parts, Upload};
pub(crate) use verdict::Proof;
