//! The gRPC contract of Aircheck, generated from the `.proto` files of this folder, with the
//! conversions between its messages and the types of [`aircheck_core`].
//!
//! Owns the shape of what travels between services; must never hold behaviour.

mod convert;
mod fault;

pub use fault::Fault;

/// Descriptors of all packages, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/aircheck.bin"));

// Nested as the packages are, because generated code refers to its siblings by path.
mod aircheck {
    pub mod ingest {
        pub mod v1 {
            tonic::include_proto!("aircheck.ingest.v1");
        }
    }
    pub mod archiver {
        pub mod v1 {
            tonic::include_proto!("aircheck.archiver.v1");
        }
    }
}

/// Package `aircheck.archiver.v1`.
pub use aircheck::archiver::v1 as archiver;
/// Package `aircheck.ingest.v1`.
pub use aircheck::ingest::v1 as ingest;
