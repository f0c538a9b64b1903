//! What the three services share: arguments, telemetry, health, shutdown, backoff, gRPC set-up,
//! helper programs and the levels that one of them tells.
//!
//! Owns the plumbing around a service; must never know what a show, a session or a recording is.

pub mod args;
pub mod backoff;
pub mod clock;
pub mod failpoint;
pub mod grpc;
pub mod health;
pub mod levels;
pub mod ops;
pub mod program;
pub mod shutdown;
pub mod telemetry;
