//! Which bytes of a file are recorded when.
//!
//! Owns the schedule: that of a real recorder where `FILE.chunks.json` tells it, else an even one.
//! Must never read the file itself.

use serde::Deserialize;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use thiserror::Error;

/// Bytes of an even chunk when time plays no role.
const FAST_CHUNK: usize = 64 << 10;

/// One chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Bytes; the file's end may come earlier.
    pub(super) bytes: usize,
    /// When it is there, since the beginning, at speed 1.
    pub(super) at: Duration,
}

/// A schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// As it was recorded; what the file has beyond it comes with the last chunk.
    Recorded(Vec<Piece>),
    /// Chunks of one length and one size.
    Even {
        /// Bytes a chunk.
        bytes: usize,
        /// Between two chunks.
        every: Duration,
    },
}

/// A description of chunks that can't be used.
#[derive(Debug, Error)]
pub(crate) enum PlanError {
    /// Not JSON of the expected shape.
    #[error("not understood: {0}")]
    Json(#[from] serde_json::Error),
    /// A chunk that does not follow the one before.
    #[error("chunk {0} does not begin where the one before ends")]
    Offset(usize),
    /// A time that is none.
    #[error("chunk {0} has no valid time")]
    Time(usize),
    /// Nothing to send.
    #[error("no chunks")]
    Empty,
}

/// What a recorder's log says.
#[derive(Debug, Deserialize)]
struct Log {
    #[serde(rename = "mimeType", default)]
    mime: String,
    chunks: Vec<Chunk>,
}

#[derive(Debug, Deserialize)]
struct Chunk {
    t_ms: f64,
    size: usize,
    off: u64,
}

/// Where the log of `file` would be: `show.bin` has `show.chunks.json`.
pub(super) fn log_path(file: &Path) -> PathBuf {
    file.with_extension("chunks.json")
}

impl Plan {
    /// Reads a recorder's log: the schedule, and the content type it names.
    ///
    /// # Errors
    /// If it contradicts itself.
    pub(super) fn recorded(log: &[u8]) -> Result<(Self, String), PlanError> {
        let Log { mime, chunks } = serde_json::from_slice(log)?;
        let mut pieces = Vec::with_capacity(chunks.len());
        let mut offset = 0;
        for (index, chunk) in chunks.iter().enumerate() {
            if chunk.off != offset {
                return Err(PlanError::Offset(index));
            }
            offset += chunk.size as u64;
            let at = Duration::try_from_secs_f64(chunk.t_ms / 1000.0);
            let at = at.map_err(|_| PlanError::Time(index))?;
            pieces.push(Piece {
                bytes: chunk.size,
                at,
            });
        }
        if pieces.is_empty() {
            return Err(PlanError::Empty);
        }
        Ok((Self::Recorded(pieces), mime))
    }

    /// Chunks of `every`, at `bytes_per_s`; large ones where they are not `paced`.
    pub(super) fn even(bytes_per_s: u64, every: Duration, paced: bool) -> Self {
        let bytes = u128::from(bytes_per_s) * every.as_millis() / 1000;
        let bytes = usize::try_from(bytes)
            .unwrap_or(usize::MAX)
            .clamp(1, 1 << 20);
        let bytes = if paced { bytes } else { bytes.max(FAST_CHUNK) };
        Self::Even { bytes, every }
    }

    /// The chunk of that number, from 0; `None` after a recorder's last one.
    pub(super) fn piece(&self, index: u32) -> Option<Piece> {
        match self {
            Self::Recorded(pieces) => pieces.get(index as usize).copied(),
            Self::Even { bytes, every } => Some(Piece {
                bytes: *bytes,
                at: every.saturating_mul(index.saturating_add(1)),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorders_log_gives_sizes_times_and_type() {
        let log = br#"{"mimeType":"audio/webm;codecs=opus","stopAt":2,"chunks":[
            {"i":0,"t_ms":297.5,"size":218,"off":0,"head":"1a"},{"i":1,"t_ms":600,"size":0,"off":218},
            {"i":2,"t_ms":900,"size":7,"off":218}]}"#;
        let (plan, mime) = Plan::recorded(log).expect("valid");
        assert_eq!(mime, "audio/webm;codecs=opus");
        assert_eq!(
            plan.piece(0),
            Some(Piece {
                bytes: 218,
                at: Duration::from_micros(297_500)
            })
        );
        assert_eq!(
            plan.piece(2),
            Some(Piece {
                bytes: 7,
                at: Duration::from_millis(900)
            })
        );
        assert_eq!(plan.piece(3), None);
    }

    #[test]
    fn a_log_that_contradicts_itself_is_refused() {
        for bad in [
            "",
            "{}",
            r#"{"chunks":[]}"#,
            r#"{"chunks":[{"t_ms":1,"size":5,"off":1}]}"#,
            r#"{"chunks":[{"t_ms":1,"size":5,"off":0},{"t_ms":2,"size":5,"off":4}]}"#,
            r#"{"chunks":[{"t_ms":-1,"size":5,"off":0}]}"#,
        ] {
            assert!(Plan::recorded(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_even_plan_keeps_the_rate() {
        let plan = Plan::even(16 << 10, Duration::from_millis(250), true);
        assert_eq!(
            plan.piece(0),
            Some(Piece {
                bytes: 4096,
                at: Duration::from_millis(250)
            })
        );
        assert_eq!(
            plan.piece(7),
            Some(Piece {
                bytes: 4096,
                at: Duration::from_secs(2)
            })
        );
        let fast = Plan::even(16 << 10, Duration::from_millis(250), false);
        assert_eq!(fast.piece(0).map(|piece| piece.bytes), Some(FAST_CHUNK));
    }

    #[test]
    fn the_log_lies_beside_the_file() {
        assert_eq!(
            log_path(Path::new("d/opus250.bin")),
            Path::new("d/opus250.chunks.json")
        );
    }
}
