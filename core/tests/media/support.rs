//! What every media test needs: the recordings of real browsers and a muxer run to its end. It
//! asserts nothing about media itself.

use aircheck_core::media::archive::{Chapter, Finished, Muxer, Params, TakeStart};
use aircheck_core::media::probe::{Container, Probe, probe};

/// 2026-11-23T20:15:00Z.
pub(crate) const STARTED_UNIX_MS: i64 = 1_795_464_900_000;

/// A recording from `tests/media`, by its name without extension.
pub(crate) fn capture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/media/{name}.bin", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A take of a test show.
#[derive(Debug, Clone)]
pub(crate) struct Take {
    pub(crate) wall_ms: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Take {
    pub(crate) fn of(name: &str, wall_ms: u64) -> Self {
        Self {
            wall_ms,
            bytes: capture(name),
        }
    }

    pub(crate) fn start(&self) -> TakeStart {
        TakeStart {
            wall_ms: self.wall_ms,
            container: container(&self.bytes),
        }
    }
}

/// The container of a recording, by its first bytes.
pub(crate) fn container(bytes: &[u8]) -> Container {
    match probe(&bytes[..bytes.len().min(16)]) {
        Probe::Found(container) => container,
        other => panic!("{other:?}"),
    }
}

/// A finished archive.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Archive {
    /// The whole file.
    pub(crate) bytes: Vec<u8>,
    pub(crate) end: Finished,
}

/// Muxes takes as a live session does: bytes in pieces of `piece`, the body drained on the way.
pub(crate) fn archive(takes: &[Take], params: Params, piece: usize) -> Archive {
    archive_with_markers(takes, params, piece, &[])
}

/// [`archive`] with markers.
pub(crate) fn archive_with_markers(
    takes: &[Take],
    params: Params,
    piece: usize,
    markers: &[Chapter],
) -> Archive {
    let mut muxer = Muxer::new(params).expect("sensible parameters");
    let mut body = Vec::new();
    for take in takes {
        muxer
            .begin_take(take.start())
            .expect("the take before was good");
        for bytes in take.bytes.chunks(piece) {
            muxer.push(bytes).expect("a good take");
            body.extend_from_slice(&muxer.take_body());
        }
    }
    let end = muxer.finish(markers).expect("there is media");
    let bytes = [&end.header[..], &body, &end.tail].concat();
    assert_eq!(bytes.len() as u64, end.total_bytes);
    Archive { bytes, end }
}

/// The usual parameters.
pub(crate) fn params() -> Params {
    Params::new(STARTED_UNIX_MS)
}
