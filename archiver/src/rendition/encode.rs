//! The ffmpeg that makes a rendition.
//!
//! Owns what it is told and when it has to end. It reads and writes files of one folder, and can open
//! nothing else.

use super::Failure;
use crate::finalize::Stop;
use aircheck_core::rendition::Format;
use aircheck_runtime::program::Program;
use std::{ffi::OsString, path::Path, time::Duration};

const INPUT: &[&str] = &[
    "-hide_banner",
    "-nostats",
    "-nostdin",
    "-loglevel",
    "warning",
    "-protocol_whitelist",
    "file",
    "-i",
];
/// Sound only, and the same bytes each time: an attempt that is repeated makes the same object.
const SOUND: &[&str] = &[
    "-map",
    "0:a:0",
    "-fflags",
    "+bitexact",
    "-flags:a",
    "+bitexact",
];

/// Encodes the sound of `input` as `output`.
///
/// # Errors
/// If it can't be run, does not succeed or does not end by the deadline, or `stop` says so; then it is
/// killed.
pub(super) async fn encode(
    program: &Path,
    (format, bitrate): (Format, u32),
    (input, output): (&Path, &Path),
    deadline: Duration,
    stop: &Stop,
) -> Result<(), Failure> {
    let arguments = arguments(format, bitrate, input, output);
    let (mut program, pipes) = Program::start(program, arguments).map_err(Failure::Start)?;
    drop(pipes);
    program.stand_back();
    let cut = tokio::select! {
        () = program.ended() => None,
        halt = stop.stopped() => Some(Failure::Halt(halt)),
        () = tokio::time::sleep(deadline) => Some(Failure::Timeout),
    };
    let end = program.finish().await;
    if let Some(cut) = cut {
        return Err(cut);
    }
    match end.status {
        Some(status) if status.success() => Ok(()),
        status => {
            let folder = input.parent().map(Path::to_string_lossy);
            let words = match folder {
                Some(folder) => end.words.replace(&*folder, ""),
                None => end.words,
            };
            Err(Failure::Ffmpeg { status, words })
        }
    }
}

fn arguments(format: Format, bitrate: u32, input: &Path, output: &Path) -> Vec<OsString> {
    let codec: &[&str] = match format {
        Format::Mp3 => &["-c:a", "libmp3lame", "-f", "mp3"],
        Format::Opus => &["-c:a", "libopus", "-f", "ogg"],
        Format::Aac => &["-c:a", "aac", "-movflags", "+faststart", "-f", "mp4"],
    };
    let bitrate = bitrate.to_string();
    let file = |path: &Path| {
        let mut url = OsString::from("file:");
        url.push(path);
        url
    };
    let told = INPUT.iter().map(OsString::from).chain([file(input)]);
    let made = SOUND.iter().chain(codec).map(OsString::from);
    let rate = ["-b:a", &bitrate].map(OsString::from);
    told.chain(made).chain(rate).chain([file(output)]).collect()
}
