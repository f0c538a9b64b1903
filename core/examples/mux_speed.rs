//! How fast an archive grows and how little is left to do when the show stops, for a synthetic
//! show of three hours (or of the seconds given as the first argument). With a second argument the
//! raw take and the archive are written into that directory, to be compared with other tools:
//!
//! ```sh
//! cargo run --release -p aircheck-core --example mux_speed -- 10800 /tmp/speed
//! time ffmpeg -v error -i /tmp/speed/take.webm -c copy /tmp/speed/ffmpeg.webm
//! ```

#![expect(clippy::print_stdout, reason = "an example speaks to its user")]

use std::error::Error;
use std::io::Write;
use std::time::Instant;

use aircheck_core::media::archive::{Muxer, Params, TakeStart};
use aircheck_core::media::probe::Container;

/// Bytes of one WebSocket message of the recorder, about 300 ms.
const PIECE: usize = 4_900;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let seconds: u32 = args.next().map_or(Ok(10_800), |text| text.parse())?;
    let dir = args.next();
    let take = take(seconds);
    let mib = take.len() as f64 / (1024.0 * 1024.0);
    println!("take: {seconds} s, {mib:.1} MiB");

    let start = Instant::now();
    let mut muxer = Muxer::new(Params::new(0))?;
    muxer.begin_take(TakeStart {
        wall_ms: 0,
        container: Container::WebM,
    })?;
    // A session uploads the body as it grows; only for a comparison is it kept.
    let mut body = Vec::new();
    for piece in take.chunks(PIECE) {
        muxer.push(piece)?;
        let closed = muxer.take_body();
        if !closed.is_empty() {
            body.push(closed);
        }
        if dir.is_none() {
            body.clear();
        }
    }
    let live = start.elapsed();
    let start = Instant::now();
    let end = muxer.finish(&[])?;
    let finish = start.elapsed();
    println!(
        "live:   {live:?} in all, {:.0} MiB/s",
        mib / live.as_secs_f64()
    );
    println!(
        "finish: {finish:?}, {} bytes beside the body",
        end.header.len() + end.tail.len()
    );
    println!("file:   {} bytes, {} ms", end.total_bytes, end.duration_ms);

    if let Some(dir) = dir {
        std::fs::create_dir_all(&dir)?;
        std::fs::write(format!("{dir}/take.webm"), &take)?;
        let mut file = std::fs::File::create(format!("{dir}/archive.webm"))?;
        file.write_all(&end.header)?;
        for part in &body {
            file.write_all(part)?;
        }
        file.write_all(&end.tail)?;
    }
    Ok(())
}

/// A take as Chromium records it: clusters of unknown size, five packets of 60 ms in each.
fn take(seconds: u32) -> Vec<u8> {
    let mut out = vec![0x1A, 0x45, 0xDF, 0xA3, 0x87, 0x42, 0x82, 0x84];
    out.extend_from_slice(b"webm");
    out.extend_from_slice(&[0x18, 0x53, 0x80, 0x67]);
    out.extend_from_slice(&[0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);
    let head = b"OpusHead\x01\x02\x00\x00\x80\xBB\x00\x00\x00\x00\x00";
    let mut entry = vec![
        0xD7, 0x81, 1, 0x73, 0xC5, 0x81, 1, 0x83, 0x81, 2, 0x86, 0x86,
    ];
    entry.extend_from_slice(b"A_OPUS");
    entry.extend_from_slice(&[0x63, 0xA2, 0x80 | 19]);
    entry.extend_from_slice(head);
    entry.extend_from_slice(&[0xE1, 0x8D, 0xB5, 0x88]);
    entry.extend_from_slice(&48_000f64.to_be_bytes());
    entry.extend_from_slice(&[0x9F, 0x81, 2]);
    let [.., entry_len] = entry.len().to_be_bytes();
    out.extend_from_slice(&[0x16, 0x54, 0xAE, 0x6B, 0x80 | (entry_len + 2)]);
    out.extend_from_slice(&[0xAE, 0x80 | entry_len]);
    out.extend_from_slice(&entry);
    // A sound packet of 60 ms at 128 kbit/s: a valid first byte, then noise of no meaning.
    let mut packet = vec![0xFF, 0x03];
    packet.extend((0..969u32).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]));
    let [.., high, low] = (packet.len() + 4).to_be_bytes();
    for cluster in 0..seconds * 10 / 3 {
        out.extend_from_slice(&[0x1F, 0x43, 0xB6, 0x75]);
        out.extend_from_slice(&[0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xE7, 0x84]);
        out.extend_from_slice(&(cluster * 300).to_be_bytes());
        for block in 0..5u16 {
            out.extend_from_slice(&[0xA3, 0x40 | high, low, 0x81]);
            out.extend_from_slice(&(block * 60).to_be_bytes());
            out.push(0x80);
            out.extend_from_slice(&packet);
        }
    }
    out
}
