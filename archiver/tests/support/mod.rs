//! What the archiver's tests run against: a real S3 server that can be told to fail, an
//! ingest that serves spools from memory, and the archiver itself.
//!
//! Owns starting and stopping them; must never assert anything about the archiver.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part of it"
)]

pub mod archiver;
pub mod bench;
pub mod ingest;
pub mod readers;
pub mod s3;
pub mod session;
