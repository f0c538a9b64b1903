//! A connection to the server, whatever it runs over: what is said, what is heard, how it is lost.
//!
//! Owns the words shared by both transports; must never decide when to connect again.

use super::{grpc, ws};
use crate::{
    http::Http,
    tls::{CaError, Trust},
};
use aircheck_core::{
    code::Code,
    recording::Recording,
    wire::{Previous, Take},
};
use aircheck_proto::Fault;
use std::{path::Path, time::Duration};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Messages under way to the transport.
pub(super) const OUT: usize = 8;
/// Messages under way from it.
pub(super) const IN: usize = 64;
/// Longest wait for a TCP connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a goodbye to be taken.
const GOODBYE: Duration = Duration::from_secs(2);

/// How a connection begins.
#[derive(Clone, Debug)]
pub(crate) struct Hello {
    /// The session we believe in.
    pub(crate) session: Option<String>,
    pub(crate) take: Take,
    /// Take over from another broadcaster.
    pub(crate) force: bool,
    /// Not on air.
    pub(crate) rehearse: bool,
}

/// What we say.
#[derive(Debug)]
pub(crate) enum Say {
    Take(Take),
    Chunk { offset: u64, data: bytes::Bytes },
    Stop,
}

/// What the server agrees to.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(super) session: String,
    pub(super) take: String,
    /// Send from here on.
    pub(super) offset: u64,
    /// Largest chunk, in bytes.
    pub(super) max_frame: usize,
    pub(super) previous: Option<Previous>,
}

/// What the server says.
#[derive(Debug)]
pub(crate) enum Heard {
    Ready(Ready),
    Ack {
        take: String,
        durable: u64,
        archived: u64,
    },
    /// The recording branch's fault, if it has one.
    State {
        error: Option<String>,
    },
    Finalizing {
        archived: u64,
    },
    End(Box<Recording>),
}

/// How a connection ends.
#[derive(Clone, Debug, Error)]
pub(crate) enum Loss {
    /// It may be taken up again.
    #[error("{why}")]
    Retry {
        /// What was seen.
        why: String,
        /// When the server wants us back.
        after: Option<Duration>,
    },
    /// The server will not have us.
    #[error("{0}")]
    Refused(Fault),
}

impl Loss {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "it is what `map_err` hands over"
    )]
    pub(crate) fn retry(why: impl ToString) -> Self {
        Self::Retry {
            why: why.to_string(),
            after: None,
        }
    }

    /// By ourselves: we come back at once.
    pub(super) fn torn() -> Self {
        Self::Retry {
            why: "torn on purpose".to_owned(),
            after: Some(Duration::ZERO),
        }
    }
}

impl From<Fault> for Loss {
    fn from(fault: Fault) -> Self {
        let passes = match fault.code {
            Code::Timeout | Code::TooMany | Code::Unavailable | Code::Draining | Code::Internal => {
                true
            }
            _ => fault.retry_ms.is_some(),
        };
        if !passes {
            return Self::Refused(fault);
        }
        Self::Retry {
            after: fault.retry_ms.map(Duration::from_millis),
            why: fault.to_string(),
        }
    }
}

/// A connection. Dropping it is a drop, as the server sees it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) say: mpsc::Sender<Say>,
    /// Ends after the first `Err`.
    pub(crate) heard: mpsc::Receiver<Result<Heard, Loss>>,
    /// Resets the TCP connection.
    pub(super) cut: CancellationToken,
    pub(super) pump: AbortOnDropHandle<()>,
}

impl Line {
    /// Leaves in good order.
    pub(crate) async fn leave(self) {
        let Self {
            say, heard, pump, ..
        } = self;
        drop((say, heard));
        if tokio::time::timeout(GOODBYE, pump).await.is_err() {
            tracing::debug!("the server did not say goodbye");
        }
    }
}

/// Where a session stands after its connection was lost behind `stop`.
#[derive(Debug)]
pub(super) enum Settled {
    /// It did not hear the stop.
    Live,
    /// Its archive is being made.
    Pending,
    /// It has ended.
    Ended(Box<Recording>),
    /// It has ended, and only that is known.
    Known(&'static str),
}

/// Knows how to reach the server.
#[derive(Debug)]
pub(crate) enum Dialer {
    /// A gateway.
    Ws(ws::Dialer),
    /// An ingest.
    Grpc(grpc::Dialer),
}

/// An address that is none.
#[derive(Debug, Error)]
pub(crate) enum TargetError {
    /// Not understood.
    #[error(
        "{0} is neither ws://host:port or wss:// of a gateway nor http://host:port or https:// of an \
         ingest"
    )]
    Malformed(String),
    /// A header can't hold the token.
    #[error("the token holds characters that no header can hold")]
    Token,
}

/// What every connection of this process shares: whom it believes, and a client for HTTP.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    pub(super) trust: Trust,
    pub(super) http: Http,
}

impl Reach {
    /// Believes the authorities of this machine and those in `ca_file`.
    ///
    /// # Errors
    /// If the file is of no use.
    pub(crate) fn new(ca_file: Option<&Path>) -> Result<Self, CaError> {
        let trust = Trust::with_file(ca_file)?;
        Ok(Self {
            http: Http::with(&trust),
            trust,
        })
    }
}

/// Who broadcasts what.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    /// The show.
    pub(crate) show: String,
    /// Who we are, towards an ingest.
    pub(crate) user: String,
    /// Who we are, towards a gateway that asks.
    pub(crate) token: Option<String>,
}

impl Dialer {
    /// Reads where to broadcast to.
    ///
    /// # Errors
    /// If it is no address that can be used.
    pub(crate) fn new(
        target: &str,
        credentials: Credentials,
        reach: &Reach,
    ) -> Result<Self, TargetError> {
        // As some write it.
        let target = &target.replacen("grpc", "http", usize::from(target.starts_with("grpc")));
        match target.split_once("://").map(|(scheme, _)| scheme) {
            Some("ws" | "wss") => ws::Dialer::new(target, credentials, reach).map(Self::Ws),
            Some("http" | "https") => grpc::Dialer::new(target, credentials, reach).map(Self::Grpc),
            _ => Err(TargetError::Malformed(target.to_owned())),
        }
    }

    /// Connects. The answer to `hello` comes through the line.
    ///
    /// # Errors
    /// If there is no connection.
    pub(crate) async fn dial(&self, hello: Hello) -> Result<Line, Loss> {
        match self {
            Self::Ws(dialer) => dialer.dial(hello).await,
            Self::Grpc(dialer) => dialer.dial(hello).await,
        }
    }

    /// Asks what became of a session that was told to stop.
    ///
    /// # Errors
    /// If nobody can be asked.
    pub(super) async fn settle(&self, session: &str) -> Result<Settled, Loss> {
        match self {
            Self::Ws(dialer) => dialer.settle(session).await,
            Self::Grpc(dialer) => dialer.settle(session).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_that_pass_are_retried_and_others_are_not() {
        for code in [
            Code::Unavailable,
            Code::Draining,
            Code::TooMany,
            Code::Timeout,
        ] {
            assert!(
                matches!(Fault::new(code, "x").into(), Loss::Retry { .. }),
                "{code}"
            );
        }
        for code in [
            Code::Conflict,
            Code::Superseded,
            Code::Unauthenticated,
            Code::BadOffset,
        ] {
            assert!(
                matches!(Fault::new(code, "x").into(), Loss::Refused(_)),
                "{code}"
            );
        }
        let told = Loss::from(Fault::retry(Code::Unavailable, "x", 1500));
        assert!(
            matches!(told, Loss::Retry { after: Some(after), .. } if after.as_millis() == 1500)
        );
    }

    #[test]
    fn targets_are_gateways_or_ingests_with_or_without_tls() {
        let reach = Reach::new(None).expect("no file");
        let to = |target| {
            let show = Credentials {
                show: "7".into(),
                user: "u".into(),
                token: None,
            };
            Dialer::new(target, show, &reach)
        };
        assert!(matches!(to("ws://127.0.0.1:8080"), Ok(Dialer::Ws(_))));
        assert!(matches!(to("ws://localhost/radio/"), Ok(Dialer::Ws(_))));
        assert!(matches!(to("http://127.0.0.1:7001"), Ok(Dialer::Grpc(_))));
        assert!(matches!(to("wss://h/radio"), Ok(Dialer::Ws(_))));
        assert!(matches!(to("https://[::1]:7001"), Ok(Dialer::Grpc(_))));
        assert!(matches!(to("grpcs://h"), Ok(Dialer::Grpc(_))));
        for bad in ["", "h:1", "ftp://h", "ws://", "http://"] {
            assert!(matches!(to(bad), Err(TargetError::Malformed(_))), "{bad}");
        }
    }
}
