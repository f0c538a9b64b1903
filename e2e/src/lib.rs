//! The rig of the end-to-end tests: real processes, clients of the tests' own, faults and the oracle.
//!
//! Owns everything that the tests start. Must never use code of the product but its gRPC messages:
//! what the contract says is written here a second time, by hand, on purpose. A rig panics with what
//! it saw instead of returning errors, because its callers are tests.

pub mod authority;
pub mod broadcaster;
pub mod browser;
pub mod capture;
pub mod clock;
pub mod cluster;
pub mod faults;
pub mod grpc;
pub mod http;
pub mod listener;
pub mod namespace;
pub mod oracle;
pub mod plain;
pub mod postgres;
pub mod power;
pub mod probe;
pub mod process;
pub mod s3;
pub mod servers;
pub mod services;
pub mod socket;
pub mod syscalls;
pub mod wait;
