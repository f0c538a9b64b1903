//! Sessions as an ingest would have sealed them.

use aircheck_core::{
    id::{Epoch, SessionId},
    media::{
        archive::{Chapter, Finished, Muxer, Params, TakeStart},
        probe::{Probe, probe},
    },
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

/// A recording of a browser, by its name without extension.
pub fn capture(name: &str) -> Vec<u8> {
    let path = format!(
        "{}/../core/tests/media/{name}.bin",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A sound `WebM` take of at least `least` bytes: 20 ms packets of stereo Opus, clusters of a second.
/// What is in the packets repeats nowhere near a part's length.
pub fn show(seed: u64, least: usize) -> Vec<u8> {
    show_of(seed, least, 1000)
}

/// [`show`], with packets of this length: 320 bytes are 128 kb/s.
pub fn show_of(seed: u64, least: usize, packet_bytes: usize) -> Vec<u8> {
    const HEAD: &[u8] = b"OpusHead\x01\x02\x38\x01\x80\xBB\x00\x00\x00\x00\x00";
    let element = |id: &[u8], payload: &[u8]| {
        let len = u32::try_from(payload.len()).expect("small") | 0x1000_0000;
        [id, &len.to_be_bytes(), payload].concat()
    };
    let info = element(
        &[0x15, 0x49, 0xA9, 0x66],
        &element(&[0x2A, 0xD7, 0xB1], &[0x0F, 0x42, 0x40]),
    );
    let audio = [
        element(&[0xB5], &48_000_f32.to_be_bytes()),
        element(&[0x9F], &[2]),
    ];
    let track = [
        element(&[0xD7], &[1]),
        element(&[0x73, 0xC5], &[1]),
        element(&[0x83], &[2]),
        element(&[0x86], b"A_OPUS"),
        element(&[0x63, 0xA2], HEAD),
        element(&[0xE1], &audio.concat()),
    ];
    let tracks = element(
        &[0x16, 0x54, 0xAE, 0x6B],
        &element(&[0xAE], &track.concat()),
    );
    let mut bytes = [
        element(&[0x1A, 0x45, 0xDF, 0xA3], &element(&[0x42, 0x82], b"webm")),
        vec![
            0x18, 0x53, 0x80, 0x67, 0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
        ],
        info,
        tracks,
    ]
    .concat();
    let mut noise = webm(seed, packet_bytes).into_iter().skip(4);
    let mut second = 0_u64;
    while bytes.len() < least {
        let mut cluster = element(&[0xE7], &(second * 1000).to_be_bytes());
        for nth in 0..50_u16 {
            if nth == 0 {
                noise = webm(seed ^ (second << 20), 50 * packet_bytes)
                    .into_iter()
                    .skip(4);
            }
            let mut block = vec![0x81];
            block.extend_from_slice(&(nth * 20).to_be_bytes());
            block.extend_from_slice(&[0x80, 0xFC]);
            block.extend(noise.by_ref().take(packet_bytes - 5));
            cluster.extend(element(&[0xA3], &block));
        }
        bytes.extend(element(&[0x1F, 0x43, 0xB6, 0x75], &cluster));
        second += 1;
    }
    bytes
}

/// The one file that the takes of this session make, by the muxer alone.
pub fn stitched(manifest: &Manifest, takes: &[&[u8]]) -> Vec<u8> {
    let (bytes, _) = stitched_with(manifest, takes);
    bytes
}

/// [`stitched`], with what the muxer says of it.
pub fn stitched_with(manifest: &Manifest, takes: &[&[u8]]) -> (Vec<u8>, Finished) {
    let started = manifest.started_unix_ms;
    let mut params = Params::new(i64::try_from(started).expect("in our time"));
    params.title.clone_from(&manifest.title);
    let mut muxer = Muxer::new(params).expect("usual parameters");
    let begun = manifest.takes.iter().zip(takes);
    for (record, bytes) in begun.filter(|(_, bytes)| !bytes.is_empty()) {
        let Probe::Found(container) = probe(&bytes[..16]) else {
            panic!("a take of no container");
        };
        let wall_ms = record.started_unix_ms - started;
        muxer
            .begin_take(TakeStart { wall_ms, container })
            .expect("the take before was good");
        muxer.push(bytes).expect("a good take");
    }
    let chapters = manifest
        .markers
        .iter()
        .filter(|marker| marker.kind != "note");
    let chapters: Vec<_> = chapters
        .map(|marker| Chapter {
            at_ms: marker.at_ms,
            label: marker.label.clone(),
        })
        .collect();
    muxer.end_take().expect("a good take");
    let body = muxer.take_body();
    let end = muxer.finish(&chapters).expect("there is media");
    ([&end.header[..], &body, &end.tail].concat(), end)
}

/// So many bytes that begin like `WebM` and repeat nowhere near a part's length. No packet is in
/// them.
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
