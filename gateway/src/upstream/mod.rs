//! The services behind the gateway.
//!
//! Owns deadlines and what a failed call means to a client; must never let the words of a transport
//! error, which name inner addresses, reach one.

pub(crate) mod archive;
pub(crate) mod ingests;
pub(crate) mod publish;
pub(crate) mod shows;

use aircheck_core::code::Code;
use aircheck_proto::Fault;
use std::{fmt, future::Future, time::Duration};
use tonic::{Response, Status};

/// Longest unary call.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// When a client should come back after a service was away, in milliseconds.
const RETRY_MS: u64 = 1000;

/// Which service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Ingest,
    Archiver,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingest => "ingest",
            Self::Archiver => "archiver",
        })
    }
}

impl Peer {
    /// What a client is told while the service is away.
    pub(crate) fn away(self) -> Fault {
        Fault::retry(
            Code::Unavailable,
            format!("The {self} can't be reached; try again."),
            RETRY_MS,
        )
    }

    /// What a failed call means. A service's own refusals carry details and pass as they are; what
    /// the transport made up says only that the service is away.
    pub(crate) fn fault(self, status: &Status) -> Fault {
        let transport = matches!(
            status.code(),
            tonic::Code::Unavailable
                | tonic::Code::Unknown
                | tonic::Code::Internal
                | tonic::Code::Cancelled
                | tonic::Code::DeadlineExceeded
                | tonic::Code::Aborted
        );
        if transport && status.details().is_empty() {
            tracing::debug!(peer = %self, %status, "call failed");
            return self.away();
        }
        Fault::from_status(status)
    }

    /// A unary call with a deadline.
    pub(crate) async fn call<T>(
        self,
        deadline: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Fault> {
        match tokio::time::timeout(deadline, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.fault(&status)),
            Err(_elapsed) => Err(self.away()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transport_errors_never_show_inner_addresses() {
        let fault = Peer::Ingest.fault(&Status::unavailable("tcp connect error: 10.0.0.3:7001"));
        assert_eq!(fault, Peer::Ingest.away());
    }

    #[test]
    fn a_refusal_passes_as_the_service_made_it() {
        let refusal = Fault::retry(Code::Unavailable, "disk is full", 9000);
        assert_eq!(Peer::Ingest.fault(&Status::from(refusal.clone())), refusal);
    }
}
