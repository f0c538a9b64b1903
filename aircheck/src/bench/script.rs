//! What a synthetic broadcaster sends: Opus in WebM as a browser records it, made and not recorded.
//!
//! Owns the bytes and their times. The payload is noise: no server of ours decodes it.

use aircheck_core::media::webm::{
    header::{DocType, ebml},
    ids,
    write::{self, SIZE_UNKNOWN},
};
use bytes::Bytes;
use std::time::Duration;

/// Length of a packet, as browsers make them.
const PACKET_MS: u64 = 20;
/// One stereo frame of 20 ms in CELT, full band (RFC 6716, section 3.1).
const TOC: u8 = 0xFC;
/// Version 1, two channels, no pre-skip, 48 kHz, no gain, mapping family 0.
const OPUS_HEAD: &[u8] = b"OpusHead\x01\x02\x00\x00\x80\xBB\x00\x00\x00\x00\x00";
/// Bytes of a block around its packet.
const BLOCK_HEAD: u64 = 7;
/// Any odd number with well-mixed bits makes noise.
const NOISE: u32 = 2_654_435_761;

/// The same show for every broadcaster.
#[derive(Debug)]
pub(crate) struct Script {
    chunks: Vec<Bytes>,
    /// Between two chunks.
    pub(crate) every: Duration,
    /// Bytes of the whole show.
    pub(crate) bytes: u64,
    /// Its playing time, in milliseconds.
    pub(crate) plays_ms: u64,
}

impl Script {
    pub(crate) const MIME: &str = "audio/webm;codecs=opus";

    /// A show of `duration` at `bits_per_s`, a chunk (and cluster) `every` so often, container
    /// included.
    pub(crate) fn new(bits_per_s: u64, every: Duration, duration: Duration) -> Self {
        let packet = packet(bits_per_s * PACKET_MS / 8000);
        let (every_ms, duration_ms) = (millis(every), millis(duration));
        let (mut chunks, mut next) = (Vec::new(), header());
        let mut at_ms = 0;
        for end_ms in (1..=duration_ms / every_ms).map(|chunk| chunk * every_ms) {
            cluster(&mut next, at_ms, end_ms, &packet);
            at_ms = end_ms / PACKET_MS * PACKET_MS;
            chunks.push(Bytes::from(std::mem::take(&mut next)));
        }
        Self {
            bytes: chunks.iter().map(|chunk| chunk.len() as u64).sum(),
            plays_ms: at_ms,
            chunks,
            every,
        }
    }

    pub(crate) fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// The largest chunk, in bytes.
    pub(crate) fn chunk_max(&self) -> usize {
        self.chunks.iter().map(Bytes::len).max().unwrap_or(0)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn packet(bytes: u64) -> Vec<u8> {
    let noise = bytes.saturating_sub(BLOCK_HEAD + 1).max(1);
    let noise = (0..u32::try_from(noise).unwrap_or(u32::MAX)).map(|at| {
        let [byte, ..] = at.wrapping_mul(NOISE).to_be_bytes();
        byte
    });
    std::iter::once(TOC).chain(noise).collect()
}

fn header() -> Vec<u8> {
    let mut out = Vec::new();
    ebml(&mut out, DocType::WebM);
    write::id(&mut out, ids::SEGMENT);
    out.extend_from_slice(&SIZE_UNKNOWN);
    write::master(&mut out, ids::TRACKS, |tracks| {
        write::master(tracks, ids::TRACK_ENTRY, |entry| {
            write::uint(entry, ids::TRACK_NUMBER, 1);
            write::uint(entry, ids::TRACK_UID, 1);
            write::uint(entry, ids::TRACK_TYPE, 2);
            write::binary(entry, ids::CODEC_ID, b"A_OPUS");
            write::binary(entry, ids::CODEC_PRIVATE, OPUS_HEAD);
            write::master(entry, ids::AUDIO, |audio| {
                write::float(audio, ids::SAMPLING_FREQUENCY, 48_000.0);
                write::uint(audio, ids::CHANNELS, 2);
            });
        });
    });
    out
}

/// The packets that end in a window of time, which begins where the last cluster ended.
fn cluster(out: &mut Vec<u8>, from_ms: u64, to_ms: u64, packet: &[u8]) {
    write::id(out, ids::CLUSTER);
    out.extend_from_slice(&SIZE_UNKNOWN);
    write::uint(out, ids::TIMESTAMP, from_ms);
    for at in 0..(to_ms - from_ms) / PACKET_MS {
        let relative = u16::try_from(at * PACKET_MS).unwrap_or(u16::MAX);
        let mut block = vec![0x81];
        block.extend_from_slice(&relative.to_be_bytes());
        block.push(0x80);
        block.extend_from_slice(packet);
        write::binary(out, ids::SIMPLE_BLOCK, &block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aircheck_core::media::{Container, Muxer, Params, Probe, TakeStart, probe};

    #[test]
    fn a_script_has_its_rate_and_becomes_an_archive_of_its_length() {
        let script = Script::new(128_000, Duration::from_millis(250), Duration::from_secs(10));
        assert_eq!(script.chunks().len(), 40);
        assert_eq!(script.plays_ms, 10_000);
        let off = script.bytes.abs_diff(160_000);
        assert!(off < 2_000, "{} bytes", script.bytes);
        assert_eq!(probe(&script.chunks()[0]), Probe::Found(Container::WebM));

        let mut muxer = Muxer::new(Params::new(0)).expect("sensible parameters");
        let start = TakeStart {
            wall_ms: 0,
            container: Container::WebM,
        };
        muxer.begin_take(start).expect("the first take");
        for chunk in script.chunks() {
            muxer.push(chunk).expect("good media");
        }
        let end = muxer.finish(&[]).expect("there is media");
        assert_eq!(end.duration_ms, script.plays_ms);
    }
}
