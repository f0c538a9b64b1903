//! What ffmpeg makes of a file.
//!
//! Owns calls of `ffmpeg` and `ffprobe`; judges files, never changes them.

use crate::{capture::Capture, wait::within};
use bytes::Bytes;
use serde_json::Value;
use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    io::Write as _,
    path::Path,
    time::Duration,
};
use tempfile::NamedTempFile;
use tokio::process::Command;

/// ffmpeg decodes minutes of audio in well under a second, on a machine that does nothing else.
const DEADLINE: Duration = Duration::from_secs(60);
const NOISE_CHUNK: usize = 16 << 10;

/// What is in a media file.
#[derive(Clone, Debug)]
pub struct Media {
    /// As ffprobe names the container.
    pub format: String,
    /// As ffprobe names the first stream's codec.
    pub codec: String,
    /// Time decoded, in seconds.
    pub decoded_s: f64,
}

/// Decodes all of it.
///
/// # Panics
/// If ffmpeg finds any fault.
pub async fn decodes_clean(bytes: &[u8]) -> Media {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("write a temporary file");
    decode(file.path()).await
}

/// A packet of a media file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its length.
    pub bytes: usize,
    /// Hash of its payload.
    pub hash: String,
}

/// The packets of every stream, in order, as they lie in the file.
///
/// # Panics
/// If ffmpeg can't read it at all.
pub async fn packets(bytes: &[u8]) -> BTreeMap<usize, VecDeque<Packet>> {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("write a temporary file");
    let path = file.path().to_str().expect("the tests' paths are text");
    let read = ["-v", "fatal", "-i", path, "-map", "0", "-c", "copy"];
    let list = ["-f", "framehash", "-hash", "md5", "-"];
    let listed = run("ffmpeg", &[&read[..], &list[..]].concat()).await;
    let mut streams: BTreeMap<usize, VecDeque<Packet>> = BTreeMap::new();
    for line in listed.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let number = |nth: usize| fields[nth].parse().expect("a number");
        let packet = Packet {
            bytes: number(4),
            hash: fields[5].to_owned(),
        };
        streams.entry(number(0)).or_default().push_back(packet);
    }
    streams
}

async fn decode(path: &Path) -> Media {
    let path = path.to_str().expect("the tests' paths are text");
    let probe = ["-show_format", "-show_streams", "-of", "json", path];
    let probed = run("ffprobe", &[&["-v", "fatal"], &probe[..]].concat()).await;
    let probed: Value = serde_json::from_str(&probed).expect("ffprobe writes JSON");
    let strict = ["-v", "error", "-xerror"];
    let decode = ["-i", path, "-progress", "-", "-f", "null", "-"];
    let progress = run("ffmpeg", &[&strict[..], &decode[..]].concat()).await;
    let microseconds = progress
        .lines()
        .filter_map(|line| line.strip_prefix("out_time_us="))
        .next_back();
    let microseconds: f64 = microseconds
        .and_then(|text| text.parse().ok())
        .unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Media {
        format: text(&probed["format"]["format_name"]),
        codec: text(&probed["streams"][0]["codec_name"]),
        decoded_s: microseconds / 1e6,
    }
}

/// A live WebM of noise at 256 kbit/s, in chunks of 16 KiB: for when the captures are too short.
///
/// # Panics
/// If ffmpeg can't make it.
pub async fn noise(seconds: u32) -> Capture {
    let file = NamedTempFile::new().expect("a temporary file");
    let path = file.path().to_str().expect("the tests' paths are text");
    let source = format!("anoisesrc=d={seconds}:c=white:a=0.5:seed=7");
    let make = [
        "-v", "error", "-y", "-f", "lavfi", "-i", &source, "-ac", "2", "-c:a", "libopus",
    ];
    let shape = [
        "-b:a",
        "256k",
        "-vbr",
        "off",
        "-f",
        "webm",
        "-live",
        "1",
        "-cluster_time_limit",
        "1000",
        path,
    ];
    run("ffmpeg", &[&make[..], &shape[..]].concat()).await;
    let bytes = Bytes::from(fs::read(path).expect("what ffmpeg wrote"));
    let ends = (1..=bytes.len().div_ceil(NOISE_CHUNK)).map(|n| (n * NOISE_CHUNK).min(bytes.len()));
    Capture {
        ends: ends.collect(),
        bytes,
        mime: "audio/webm;codecs=opus".to_owned(),
    }
}

/// Standard output of a tool that must succeed and have nothing to say on standard error.
async fn run(tool: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(tool);
    command.args(arguments).kill_on_drop(true);
    let output = within(DEADLINE, tool, command.output()).await;
    let output = output.unwrap_or_else(|error| panic!("run {tool}: {error}"));
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && complaints.is_empty(),
        "{tool} {arguments:?}: {complaints}"
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
