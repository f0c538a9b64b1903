//! Identifiers: shows, sessions, epochs and recording versions.
//!
//! Owns their syntax. An identifier that exists is valid: text is parsed once, at the edge, and never
//! again; nothing below may build a path or an object key from anything but these types.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use thiserror::Error;
use ulid::Ulid;

/// Longest show id, in characters.
pub const SHOW_ID_MAX: usize = 64;

/// A station's own name of a show: `[A-Za-z0-9][A-Za-z0-9_-]{0,63}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ShowId(String);

/// What a session occupies while it is open: a show has one on air, and one rehearsal beside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seat {
    /// The show.
    pub show: ShowId,
    /// Not for listeners.
    pub rehearsal: bool,
}

/// Text that is no show id.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ShowIdError {
    /// Nothing was given.
    #[error("show_id is missing")]
    Missing,
    /// Longer than [`SHOW_ID_MAX`].
    #[error("show_id is longer than {SHOW_ID_MAX} characters")]
    TooLong,
    /// A character outside the allowed set, or `-`/`_` in front.
    #[error(
        "show_id may hold letters, digits, '-' and '_' only, and begins with a letter or digit"
    )]
    Malformed,
}

impl ShowId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ShowId {
    type Err = ShowIdError;

    fn from_str(text: &str) -> Result<Self, ShowIdError> {
        let Some(first) = text.bytes().next() else {
            return Err(ShowIdError::Missing);
        };
        if text.len() > SHOW_ID_MAX {
            return Err(ShowIdError::TooLong);
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if !first.is_ascii_alphanumeric() || !text.bytes().all(allowed) {
            return Err(ShowIdError::Malformed);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for ShowId {
    type Error = ShowIdError;

    fn try_from(text: String) -> Result<Self, ShowIdError> {
        text.parse()
    }
}

impl From<ShowId> for String {
    fn from(id: ShowId) -> Self {
        id.0
    }
}

impl fmt::Display for ShowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One broadcast of one show; also the id of its recording. A ULID: 26 characters, sorted by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionId(pub Ulid);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SessionId {
    type Err = ulid::DecodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ulid::from_string(text).map(Self)
    }
}

/// The n-th connection of a session, from 1: a fencing token. Whatever bears a lower one is refused.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of the connection after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The version of a recording that began at `unix_ms`: UTC to the second, `2026-11-23T20-15-00Z`.
///
/// Two sessions of one show may begin within a second; whoever stores versions makes the second one
/// unique with a suffix `-2`, `-3` and so on.
#[must_use]
pub fn version_at(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (year, month, day) = civil_from_days(seconds / 86_400);
    let of_day = seconds % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}-{:02}-{:02}Z",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

/// RFC 3339 in UTC with milliseconds: `2026-11-23T20:15:00.000Z`.
#[must_use]
pub fn rfc3339(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (year, month, day) = civil_from_days(seconds / 86_400);
    let of_day = seconds % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60,
        unix_ms % 1000
    )
}

/// Gregorian date of a day count since 1970-01-01, by Howard Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>), for days from 1970 on.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_show_id_is_letters_digits_dash_and_underscore() {
        for good in ["7", "morning-show", "A_b-9", &"x".repeat(64)] {
            assert_eq!(
                good.parse::<ShowId>().map(|s| s.to_string()),
                Ok(good.to_owned())
            );
        }
        assert_eq!("".parse::<ShowId>(), Err(ShowIdError::Missing));
        assert_eq!("x".repeat(65).parse::<ShowId>(), Err(ShowIdError::TooLong));
        for bad in [
            "-a", "_a", "../x", "a/b", "a b", "ä", "a\0", "%2e%2e", "a.b",
        ] {
            assert_eq!(
                bad.parse::<ShowId>(),
                Err(ShowIdError::Malformed),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn times_are_written_in_utc_over_leap_days_and_year_ends() {
        for (unix_ms, version, text) in [
            (0, "1970-01-01T00-00-00Z", "1970-01-01T00:00:00.000Z"),
            (
                951_782_400_123,
                "2000-02-29T00-00-00Z",
                "2000-02-29T00:00:00.123Z",
            ),
            (
                1_795_464_900_000,
                "2026-11-23T20-15-00Z",
                "2026-11-23T20:15:00.000Z",
            ),
            (
                1_798_761_599_999,
                "2026-12-31T23-59-59Z",
                "2026-12-31T23:59:59.999Z",
            ),
        ] {
            assert_eq!(version_at(unix_ms), version);
            assert_eq!(rfc3339(unix_ms), text);
        }
    }
}
