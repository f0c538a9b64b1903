//! Errors of the service, and the faults callers see.
//!
//! Owns which fault stands for which error; each is logged here, once.

use crate::{config::ConfigError, db::DbError, finalize::chain, store::StoreError};
use aircheck_core::code::Code;
use aircheck_proto::Fault;
use thiserror::Error;

/// When a caller should come back while the database or the store is away, ms.
const COME_BACK_MS: u64 = 1000;

/// Why the service ended other than by wish.
#[derive(Debug, Error)]
pub enum Error {
    /// A configuration that can't work.
    #[error("configuration")]
    Config(#[from] ConfigError),
    /// The listener or the server on it failed.
    #[error("serve gRPC")]
    Serve(#[from] tonic::transport::Error),
    /// The database can't be reached, or its schema can't be brought up to date.
    #[error("migrate the database")]
    Migrate(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Rows can't be rebuilt, because database or store can't be read.
    #[error("rebuild rows")]
    Rebuild(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<DbError> for Fault {
    fn from(error: DbError) -> Self {
        tracing::warn!(error = chain(&error), "ask the database");
        Self::retry(
            Code::Unavailable,
            "the database can't be reached",
            COME_BACK_MS,
        )
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        tracing::warn!(error = chain(&error), "ask the store");
        Self::retry(
            Code::Unavailable,
            "the store can't be reached",
            COME_BACK_MS,
        )
    }
}

/// A fault of ours that should not be possible.
pub(crate) fn internal(error: &dyn std::error::Error) -> Fault {
    tracing::error!(error = chain(error), "internal error");
    Fault::new(Code::Internal, "internal error")
}
