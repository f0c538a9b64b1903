//! Values as people write them on a command line: durations as `30s`, sizes as `5MiB`.
//!
//! Owns their syntax; must never guess a unit that was not given.

use std::time::Duration;
use thiserror::Error;

/// Text that is no duration or size.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ArgError {
    /// No number in front.
    #[error("expected a number and a unit, as in 30s or 5MiB")]
    Number,
    /// A unit nobody knows, or none at all.
    #[error("unknown unit {0:?}; use one of {1}")]
    Unit(String, &'static str),
    /// More than can be counted.
    #[error("too large")]
    Overflow,
}

fn split(text: &str) -> Result<(u64, &str), ArgError> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number = text[..end].parse().map_err(|_| ArgError::Number)?;
    Ok((number, text[end..].trim()))
}

/// Reads `250ms`, `30s`, `10m`, `2h`, or a plain `0`.
///
/// # Errors
/// If it is none of these.
pub fn duration(text: &str) -> Result<Duration, ArgError> {
    let (number, unit) = split(text.trim())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" if number == 0 => 0,
        other => return Err(ArgError::Unit(other.to_owned(), "ms, s, m, h")),
    };
    number
        .checked_mul(unit_ms)
        .map(Duration::from_millis)
        .ok_or(ArgError::Overflow)
}

/// Reads a size in bytes: `65536`, `64KiB`, `5MiB`, `1GiB`, or decimal `5MB`.
///
/// # Errors
/// If it is none of these.
pub fn size(text: &str) -> Result<u64, ArgError> {
    let (number, unit) = split(text.trim())?;
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        other => {
            return Err(ArgError::Unit(
                other.to_owned(),
                "B, KiB, MiB, GiB, TiB, kB, MB, GB",
            ));
        }
    };
    number.checked_mul(factor).ok_or(ArgError::Overflow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for bad in ["", "s", "30", "30x", "-1s", "99999999999999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(duration("18446744073709551615h"), Err(ArgError::Overflow));
    }

    #[test]
    fn sizes_are_binary_or_decimal() {
        assert_eq!(size("5MiB"), Ok(5 << 20));
        assert_eq!(size("5MB"), Ok(5_000_000));
        assert_eq!(size("17"), Ok(17));
        for bad in ["", "MiB", "5M", "5 parsecs"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
