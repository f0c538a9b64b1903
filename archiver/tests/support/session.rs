//! Sessions as an ingest would have sealed them.

use aircheck_core::{
    id::{Epoch, SessionId},
    recording::{EndReason, Gap},
    spool::{Manifest, Stage, TakeRecord},
};
use aircheck_proto::archiver::SessionManifest;
use ulid::Ulid;

/// 2026-11-23T20:15:00Z
pub const STARTED: u64 = 1_795_464_900_000;
/// The version that follows from it.
pub const VERSION: &str = "2026-11-23T20-15-00Z";

/// A sealed session of show 7 with one take for each length.
pub fn sealed(nth: u64, lengths: &[u64]) -> Manifest {
    let id = SessionId(Ulid::from_parts(STARTED + nth, u128::from(nth)));
    let mut manifest = Manifest::new(id, "7".parse().expect("a show id"), STARTED, 30_000);
    manifest.epoch = Epoch(1);
    manifest.user = "ann".to_owned();
    manifest.takes = (0..)
        .zip(lengths)
        .map(|(index, &bytes)| TakeRecord {
            id: format!("take-{index}"),
            mime: "audio/webm;codecs=opus".to_owned(),
            started_unix_ms: STARTED,
            bytes,
        })
        .collect();
    manifest.stage = Stage::Sealed {
        reason: EndReason::Stop,
        ended_unix_ms: STARTED + 3_600_000,
    };
    manifest
}

pub fn gap(take: u32, from: u64, to: u64) -> Gap {
    Gap {
        take,
        from,
        to,
        cause: "client".to_owned(),
    }
}

pub fn message(manifest: &Manifest, ingest_url: &str) -> SessionManifest {
    let json = manifest.to_json().expect("json");
    SessionManifest {
        json,
        ingest_url: ingest_url.to_owned(),
    }
}

/// So many bytes that begin like `WebM` and repeat nowhere near a part's length.
pub fn webm(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0x1A, 0x45, 0xDF, 0xA3];
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
