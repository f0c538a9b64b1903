//! A fault on its way through gRPC: code, message and when to come back.
//!
//! Owns how a [`Code`] travels inside a [`Status`]; must never decide what a fault means.

use crate::ingest::ErrorDetail;
use aircheck_core::code::Code;
use prost::Message as _;
use std::fmt;
use tonic::Status;

/// Metadata key that names the code in plain text, for clients without our types.
const CODE_KEY: &str = "aircheck-code";

/// A refusal or failure that a caller is told about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which.
    pub code: Code,
    /// For people; complete sentences without secrets.
    pub message: String,
    /// When a retry makes sense: after how long, in milliseconds.
    pub retry_ms: Option<u64>,
}

impl Fault {
    /// A fault that a retry would not change.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_ms: None,
        }
    }

    /// A fault that may be gone after `retry_ms` milliseconds.
    #[must_use]
    pub fn retry(code: Code, message: impl Into<String>, retry_ms: u64) -> Self {
        Self {
            code,
            message: message.into(),
            retry_ms: Some(retry_ms),
        }
    }

    /// What a status says; statuses of foreign making become the nearest code.
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        if let Ok(detail) = ErrorDetail::decode(status.details())
            && let Some(code) = Code::parse(&detail.code)
        {
            return Self {
                code,
                message: detail.message,
                retry_ms: detail.retry_ms,
            };
        }
        let code = match status.code() {
            tonic::Code::InvalidArgument | tonic::Code::OutOfRange => Code::BadMessage,
            tonic::Code::NotFound => Code::NotFound,
            tonic::Code::Unauthenticated => Code::Unauthenticated,
            tonic::Code::PermissionDenied => Code::Forbidden,
            tonic::Code::ResourceExhausted => Code::TooMany,
            tonic::Code::DeadlineExceeded => Code::Timeout,
            tonic::Code::Unavailable | tonic::Code::Cancelled => Code::Unavailable,
            _ => Code::Internal,
        };
        Self::new(code, status.message())
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        let detail = ErrorDetail {
            code: fault.code.as_str().to_owned(),
            message: fault.message.clone(),
            retry_ms: fault.retry_ms,
        };
        let mut status = Self::with_details(
            tonic::Code::from_i32(fault.code.grpc_code()),
            fault.message,
            detail.encode_to_vec().into(),
        );
        let name = tonic::metadata::MetadataValue::from_static(fault.code.as_str());
        status.metadata_mut().insert(CODE_KEY, name);
        status
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_survives_the_way_through_a_status() {
        for code in Code::ALL {
            let fault = Fault::retry(code, "because", 1500);
            assert_eq!(Fault::from_status(&Status::from(fault.clone())), fault);
        }
    }

    #[test]
    fn a_foreign_status_becomes_the_nearest_code() {
        let fault = Fault::from_status(&Status::unavailable("connection refused"));
        assert_eq!(fault, Fault::new(Code::Unavailable, "connection refused"));
    }
}
