//! Renditions: what is made of an archive for players that do not take it as it is.
//!
//! Owns their names, in JSON and on the command line. Must never bear on whether a recording is archived.

use serde::{Deserialize, Serialize};
use std::str::FromStr;
use thiserror::Error;

/// Lowest bit rate, bits a second.
const BITRATE_MIN: u32 = 8_000;

/// How the sound is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// MPEG-1 layer III.
    Mp3,
    /// Opus in Ogg.
    Opus,
    /// AAC-LC in MP4.
    Aac,
}

impl Format {
    /// As in JSON and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mp3 => "mp3",
            Self::Opus => "opus",
            Self::Aac => "aac",
        }
    }

    /// The format by that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Mp3, Self::Opus, Self::Aac]
            .into_iter()
            .find(|format| format.as_str() == name)
    }

    /// Of its files. No archive has any of these.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Mp3 => "mp3",
            Self::Opus => "opus",
            Self::Aac => "m4a",
        }
    }

    /// Highest bit rate, bits a second.
    fn bitrate_max(self) -> u32 {
        match self {
            Self::Mp3 => 320_000,
            Self::Opus | Self::Aac => 512_000,
        }
    }

    /// Content-Type of its objects.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Mp3 => "audio/mpeg",
            Self::Opus => "audio/ogg",
            Self::Aac => "audio/mp4",
        }
    }
}

/// What an operator wants made of each archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wish {
    /// How it is encoded.
    pub format: Format,
    /// Bits a second.
    pub bitrate: u32,
}

/// Text that is no [`Wish`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum WishError {
    /// No format, or one nobody knows.
    #[error("expected mp3, opus or aac and a bit rate, as in mp3:192k")]
    Format,
    /// Not a bit rate.
    #[error("the bit rate is 8k to 512k, of mp3 to 320k")]
    Bitrate,
}

impl FromStr for Wish {
    type Err = WishError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (format, rate) = text.split_once(':').ok_or(WishError::Format)?;
        let format = Format::parse(format).ok_or(WishError::Format)?;
        let (number, unit) = match rate.strip_suffix('k') {
            Some(number) => (number, 1000),
            None => (rate, 1),
        };
        let bitrate = number.parse().ok().and_then(|n: u32| n.checked_mul(unit));
        let bitrate =
            bitrate.filter(|bitrate| (BITRATE_MIN..=format.bitrate_max()).contains(bitrate));
        Ok(Self {
            format,
            bitrate: bitrate.ok_or(WishError::Bitrate)?,
        })
    }
}

/// Where a rendition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Not made yet.
    Due,
    /// Its object is there, proved like an archive.
    Done,
    /// Given up.
    Failed,
}

impl Status {
    /// As in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// The status by that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Due, Self::Done, Self::Failed]
            .into_iter()
            .find(|status| status.as_str() == name)
    }
}

/// A rendition of one of a recording's media objects, as every client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendition {
    /// How it is encoded.
    pub format: Format,
    /// Bits a second.
    pub bitrate: u32,
    /// Where it stands.
    pub status: Status,
    /// Of its object, once it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Length of its object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Base64 as S3 writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc64nvme: Option<String>,
    /// Why it failed, or what went wrong the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_a_format_and_a_bit_rate() {
        let wish = |format, bitrate| Ok(Wish { format, bitrate });
        assert_eq!("mp3:192k".parse(), wish(Format::Mp3, 192_000));
        assert_eq!("aac:64000".parse(), wish(Format::Aac, 64_000));
        for bad in ["mp3", "wav:192k", ":192k"] {
            assert_eq!(bad.parse::<Wish>(), Err(WishError::Format), "{bad}");
        }
        for bad in [
            "opus:",
            "opus:1k",
            "opus:4294968k",
            "opus:96M",
            "opus:-96k",
            "mp3:321k",
        ] {
            assert_eq!(bad.parse::<Wish>(), Err(WishError::Bitrate), "{bad}");
        }
    }
}
