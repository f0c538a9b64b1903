//! End-to-end tests: shows, faults, and what is left of both.
//!
//! One binary, so that all tests share the machine's cores and none waits for another file's.

mod api;
mod browser;
mod chaos;
mod clock;
mod config;
mod crowd;
mod disk;
mod drain;
mod grace;
mod heal;
mod isolation;
mod live;
mod network;
mod nightly;
mod partition;
mod pause;
mod plain;
mod power;
mod refusals;
mod rehearsal;
mod resume;
mod rolling;
mod split;
mod sweep;
mod sync;
mod takeover;
mod tools;
