//! Any bytes as a take, in two different splits, with and without a hole: nothing panics, hangs or
//! grows, and the archive does not depend on the split.
//!
//! Start it with real recordings: `cargo +nightly fuzz run take tests/media -- -max_len=65536`.

#![no_main]

use aircheck_core::media::archive::{Params, TakeStart, Volumes};
use aircheck_core::media::live::LiveMuxer;
use aircheck_core::media::probe::{Container, Probe, probe};
use libfuzzer_sys::fuzz_target;

/// Silence is at most 12 h in packets of 60 ms; nothing else is made up.
const MADE_UP_MAX: usize = 12 * 3600 * 1000 / 60 * 20;

fuzz_target!(|bytes: &[u8]| {
    let Probe::Found(container) = probe(&bytes[..bytes.len().min(16)]) else {
        return;
    };
    let whole = archive(container, bytes, bytes.len().max(1));
    let pieces = archive(container, bytes, 97);
    assert!(whole == pieces, "the archive depends on the pieces");
    let made: usize = whole.iter().map(Vec::len).sum();
    assert!(
        made <= 2 * bytes.len() + MADE_UP_MAX + 65 * 65_536,
        "{made} bytes were made"
    );
    live(container, bytes);
});

/// The files that a take makes.
fn archive(container: Container, bytes: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let mut volumes = Volumes::new(Params::new(0)).expect("the usual parameters");
    let mut files = Vec::new();
    volumes
        .begin_take(TakeStart {
            wall_ms: 0,
            container,
        })
        .expect("no take before");
    for piece in bytes.chunks(piece) {
        if volumes.push(piece).is_err() {
            break;
        }
    }
    // A take that was refused before leaves nothing to end.
    volumes.end_take().ok();
    while let Some(mut full) = volumes.take_full() {
        let body = full.take_body();
        files.extend(
            full.finish(&[])
                .ok()
                .map(|end| [&end.header[..], &body, &end.tail].concat()),
        );
    }
    let mut last = volumes.into_last();
    let body = last.take_body();
    files.extend(
        last.finish(&[])
            .ok()
            .map(|end| [&end.header[..], &body, &end.tail].concat()),
    );
    files
}

fn live(container: Container, bytes: &[u8]) {
    let mut live = LiveMuxer::new();
    live.begin_take(TakeStart {
        wall_ms: 0,
        container,
    });
    let (before, after) = bytes.split_at(bytes.len() / 2);
    if live.push(before).is_ok() && live.hole(1_000).is_ok() {
        live.push(after).ok();
    }
    live.end_take();
    while let Some(cluster) = live.poll() {
        assert!(!cluster.bytes.is_empty());
    }
}
