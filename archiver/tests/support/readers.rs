//! Archives in the eyes of other readers.
//!
//! Owns how ffmpeg is asked; whatever it complains of is a failure.

use std::{path::Path, process::Command};

/// What a reader of the real world says; it must not complain.
pub fn run(program: &str, args: &[&str], file: &Path) -> String {
    let file = file.to_str().expect("utf-8");
    let args: Vec<_> = args
        .iter()
        .map(|arg| if *arg == "FILE" { file } else { *arg })
        .collect();
    let output = Command::new(program)
        .args(&args)
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {complaints}");
    assert_eq!(complaints, "", "{program} complains");
    String::from_utf8(output.stdout).expect("utf-8")
}

/// Seconds, as `ffprobe` tells them without reading the whole file.
pub fn duration(file: &Path) -> f64 {
    let args = [
        "-v",
        "warning",
        "-show_entries",
        "format=duration",
        "-of",
        "csv=p=0",
        "FILE",
    ];
    run("ffprobe", &args, file)
        .trim()
        .parse()
        .expect("a number")
}

/// Decodes everything and answers seconds of sound.
pub fn decoded(file: &Path) -> f64 {
    let args = [
        "-v", "error", "-i", "FILE", "-map", "0:a", "-ac", "1", "-ar", "48000", "-f", "s16le", "-",
    ];
    let file = file.to_str().expect("utf-8");
    let args: Vec<_> = args
        .iter()
        .map(|arg| if *arg == "FILE" { file } else { *arg })
        .collect();
    let output = Command::new("ffmpeg").args(&args).output().expect("ffmpeg");
    assert!(output.status.success() && output.stderr.is_empty());
    output.stdout.len() as f64 / 96_000.0
}

/// MD5 of all packets.
pub fn packets(file: &Path) -> String {
    let args = [
        "-v", "error", "-i", "FILE", "-map", "0", "-c", "copy", "-f", "md5", "-",
    ];
    run("ffmpeg", &args, file)
}
