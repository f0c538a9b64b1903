//! Finalize: turns a sealed session into its one archive, exactly once, whatever fails on the way.
//!
//! 1. [`jobs`] lets calls for one session share one job.
//! 2. [`job`] seals the row and claims it, so that one archiver works while the others follow.
//! 3. [`assemble`] decides which objects the takes become, and under which names.
//! 4. [`upload`] makes one object; [`prove`] and [`verdict`] tell what a lost answer meant.
//! 5. [`job`] writes the manifest beside them and makes the row final, guarded by its claim.
//!
//! A job that dies anywhere costs a replay: the row names what was being made before it came into
//! being, and what is there already is proved instead of made again.

mod assemble;
mod halt;
mod job;
mod jobs;
mod prove;
mod source;
mod upload;
mod verdict;

pub(crate) use halt::chain;
pub(crate) use job::Context;
pub(crate) use jobs::{JobState, Jobs, Progress};
pub(crate) use source::Ingest;
