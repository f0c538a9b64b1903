//! The one table of error codes: what each is called and how it looks on every wire.
//!
//! Owns the mapping from reason to HTTP status, WebSocket close code and gRPC status. No other file
//! may choose one of these numbers for a fault.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why something was refused or ended. The wire name is `AC_` and the reason in capitals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Code {
    /// A message or argument that can't be understood.
    BadMessage,
    /// A show id that is missing or malformed.
    BadShowId,
    /// Bytes at an offset that nobody agreed on.
    BadOffset,
    /// No valid credentials.
    Unauthenticated,
    /// Valid credentials, but not for this show.
    Forbidden,
    /// No `hello` in time, or silence for too long.
    Timeout,
    /// Another broadcaster is live.
    Conflict,
    /// A newer connection of the session took over.
    Superseded,
    /// A message beyond the limit.
    TooLarge,
    /// Bytes that begin no supported container.
    UnsupportedMedia,
    /// The limit of sessions, listeners or messages is reached.
    TooMany,
    /// A service that is needed can't be reached.
    Unavailable,
    /// The service is going down; come back at once.
    Draining,
    /// The show is not live.
    NotLive,
    /// Nothing by that name.
    NotFound,
    /// The recording has not ended yet.
    NotEnded,
    /// The recording has no archive to give.
    NoArchive,
    /// The spool holds other bytes than it once wrote.
    Corrupt,
    /// A fault of ours.
    Internal,
}

/// One row of the table.
struct Row {
    name: &'static str,
    http: u16,
    close: u16,
    grpc: i32,
}

impl Code {
    /// Every code, in the order of the documentation.
    pub const ALL: [Self; 19] = [
        Self::BadMessage,
        Self::BadShowId,
        Self::BadOffset,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::Timeout,
        Self::Conflict,
        Self::Superseded,
        Self::TooLarge,
        Self::UnsupportedMedia,
        Self::TooMany,
        Self::Unavailable,
        Self::Draining,
        Self::NotLive,
        Self::NotFound,
        Self::NotEnded,
        Self::NoArchive,
        Self::Corrupt,
        Self::Internal,
    ];

    /// gRPC numbers are those of `google.rpc.Code`.
    fn row(self) -> Row {
        let (name, http, close, grpc) = match self {
            Self::BadMessage => ("AC_BAD_MESSAGE", 400, 4400, 3),
            Self::BadShowId => ("AC_BAD_SHOW_ID", 400, 4400, 3),
            Self::BadOffset => ("AC_BAD_OFFSET", 400, 4400, 11),
            Self::Unauthenticated => ("AC_UNAUTHENTICATED", 401, 4401, 16),
            Self::Forbidden => ("AC_FORBIDDEN", 403, 4403, 7),
            Self::Timeout => ("AC_TIMEOUT", 408, 4408, 4),
            Self::Conflict => ("AC_CONFLICT", 409, 4409, 6),
            Self::Superseded => ("AC_SUPERSEDED", 409, 4410, 10),
            Self::TooLarge => ("AC_TOO_LARGE", 413, 4413, 3),
            Self::UnsupportedMedia => ("AC_UNSUPPORTED_MEDIA", 415, 4415, 3),
            Self::TooMany => ("AC_TOO_MANY", 429, 4429, 8),
            Self::Unavailable => ("AC_UNAVAILABLE", 503, 4503, 14),
            Self::Draining => ("AC_DRAINING", 503, 1001, 14),
            Self::NotLive => ("AC_NOT_LIVE", 409, 4400, 9),
            Self::NotFound => ("AC_NOT_FOUND", 404, 4400, 5),
            Self::NotEnded => ("AC_NOT_ENDED", 409, 4400, 9),
            Self::NoArchive => ("AC_NO_ARCHIVE", 404, 4400, 5),
            Self::Corrupt => ("AC_CORRUPT", 500, 1011, 15),
            Self::Internal => ("AC_INTERNAL", 500, 1011, 13),
        };
        Row {
            name,
            http,
            close,
            grpc,
        }
    }

    /// The wire name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().name
    }

    /// The code by that wire name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == name)
    }

    /// HTTP status.
    #[must_use]
    pub fn http_status(self) -> u16 {
        self.row().http
    }

    /// WebSocket close code.
    #[must_use]
    pub fn close_code(self) -> u16 {
        self.row().close
    }

    /// gRPC status number.
    #[must_use]
    pub fn grpc_code(self) -> i32 {
        self.row().grpc
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_code_has_its_own_name_and_is_found_by_it() {
        let names: HashSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert_eq!(Code::parse(code.as_str()), Some(code));
            assert!(code.as_str().starts_with("AC_"));
        }
        assert_eq!(Code::parse("AC_NONSENSE"), None);
    }

    #[test]
    fn close_codes_are_the_ones_of_the_contract() {
        let table = [
            (Code::Draining, 1001),
            (Code::BadMessage, 4400),
            (Code::Unauthenticated, 4401),
            (Code::Forbidden, 4403),
            (Code::Timeout, 4408),
            (Code::Conflict, 4409),
            (Code::Superseded, 4410),
            (Code::TooLarge, 4413),
            (Code::UnsupportedMedia, 4415),
            (Code::TooMany, 4429),
            (Code::Unavailable, 4503),
        ];
        for (code, close) in table {
            assert_eq!(code.close_code(), close, "{code}");
        }
    }
}
