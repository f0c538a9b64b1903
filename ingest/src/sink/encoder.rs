//! The ffmpeg of a sink: what it is told.
//!
//! Owns the program and its orders. Must never put a secret into its arguments or its environment, or
//! let it open anything but its pipes and the server it is for.
//!
//! Sound is copied where the target takes Opus, and encoded otherwise. Pictures go to RTMP only: H.264
//! is copied, anything else is encoded anew as H.264, which costs most of a processor core per show.

use super::target::{Format, Stream};
use aircheck_runtime::{
    levels::Span,
    program::{End, Pipes, Program},
};
use std::{
    ffi::OsString,
    io::Write as _,
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

const INPUT: &[&str] = &[
    "-hide_banner",
    "-nostats",
    "-nostdin",
    "-loglevel",
    "warning",
    "-fflags",
    "+nobuffer",
    "-analyzeduration",
    "500000",
    "-probesize",
    "500000",
    "-protocol_whitelist",
    "pipe",
    "-f",
    "matroska",
    "-i",
    "pipe:0",
    "-map_metadata",
    "-1",
    "-sn",
    "-dn",
    "-flush_packets",
    "1",
];
const MP3: &[&str] = &[
    "-map",
    "0:a:0",
    "-c:a",
    "libmp3lame",
    "-b:a",
    "128k",
    "-ar",
    "48000",
    "-ac",
    "2",
    "-write_xing",
    "0",
    "-id3v2_version",
    "0",
    "-f",
    "mp3",
];
const OGG: &[&str] = &["-map", "0:a:0", "-f", "ogg", "-page_duration", "200000"];
const OPUS: &[&str] = &["-c:a", "libopus", "-b:a", "128k", "-ac", "2"];
const FLV: &[&str] = &[
    "-map",
    "0:a:0?",
    "-c:a",
    "aac",
    "-b:a",
    "128k",
    "-ar",
    "48000",
    "-ac",
    "2",
    "-f",
    "flv",
    "-flvflags",
    "no_duration_filesize",
];
const H264: &[&str] = &[
    "-c:v",
    "libx264",
    "-preset",
    "veryfast",
    "-tune",
    "zerolatency",
    "-pix_fmt",
    "yuv420p",
    "-g",
    "60",
    "-b:v",
    "2500k",
    "-maxrate",
    "2500k",
    "-bufsize",
    "5000k",
];

/// What encodes, and whom it believes.
#[derive(Clone, Debug)]
pub(crate) struct Encoding {
    pub(crate) ffmpeg: PathBuf,
    /// Instead of the authorities that the system knows.
    pub(crate) ca_file: Option<PathBuf>,
}

/// What the stream holds, as its init segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Codecs {
    opus: bool,
    video: bool,
    h264: bool,
}

impl Codecs {
    /// Reads it from an init segment of our own muxer.
    pub(crate) fn of(init: &[u8]) -> Self {
        let names = |name: &[u8]| init.windows(name.len()).any(|window| window == name);
        let h264 = names(b"V_MPEG4/ISO/AVC");
        Self {
            opus: names(b"A_OPUS"),
            video: h264
                || [&b"V_VP8"[..], b"V_VP9", b"V_AV1", b"V_MPEG"]
                    .iter()
                    .any(|v| names(v)),
            h264,
        }
    }

    pub(crate) fn has_video(self) -> bool {
        self.video
    }
}

/// What ffmpeg is to make.
#[derive(Debug)]
pub(crate) struct Order {
    arguments: Vec<OsString>,
    /// Holds what must not be seen in the list of processes; only its owner can read it. It is gone
    /// with the process.
    secrets: Option<NamedTempFile>,
}

impl Order {
    /// Encoded sound on standard output.
    pub(crate) fn pipe(format: Format, codecs: Codecs, show_id: &str) -> Self {
        let copy: &[&str] = &["-c:a", "copy"];
        let output: [&[&str]; 2] = match format {
            Format::Mp3 => [MP3, &[]],
            Format::Ogg => [OGG, if codecs.opus { copy } else { OPUS }],
            Format::WebM => [&["-map", "0", "-f", "webm"], &["-c", "copy"]],
        };
        let title = format!("title={show_id}");
        let rest: [&[&str]; 2] = [
            &["-metadata", &title],
            &["-protocol_whitelist", "pipe", "pipe:1"],
        ];
        let arguments = [INPUT].into_iter().chain(output).chain(rest).flatten();
        Self {
            arguments: arguments.map(OsString::from).collect(),
            secrets: None,
        }
    }

    /// The level of each second of sound, as text on standard output.
    pub(crate) fn levels() -> Self {
        let filters = Span::Second.filters();
        let levels = ["-map", "0:a:0", "-af", &filters, "-f", "null", "-"];
        let arguments = INPUT.iter().chain(&levels);
        Self {
            arguments: arguments.map(OsString::from).collect(),
            secrets: None,
        }
    }

    /// A stream to an RTMP server; progress on standard output. With TLS the server has to prove that it
    /// is the one that was named, else it would be handed the key: ffmpeg by itself asks for no proof.
    ///
    /// # Errors
    /// If the file for the stream key can't be written.
    pub(crate) fn rtmp(
        stream: &Stream<'_>,
        codecs: Codecs,
        ca_file: Option<&Path>,
    ) -> std::io::Result<Self> {
        let mut secrets = NamedTempFile::new()?;
        // An options file is the one way to hand ffmpeg a key that is not an argument.
        writeln!(secrets, "rtmp_app={}", stream.app)?;
        writeln!(secrets, "rtmp_playpath={}", stream.key)?;
        secrets.flush()?;
        let video: [&[&str]; 2] = match codecs {
            Codecs { video: false, .. } => [&["-vn"], &[]],
            Codecs { h264: true, .. } => [&["-map", "0:v:0"], &["-c:v", "copy"]],
            Codecs { .. } => [&["-map", "0:v:0"], H264],
        };
        let title = format!("title={}", stream.show_id);
        let progress: &[&str] = &["-progress", "pipe:1", "-stats_period", "1"];
        let head = [progress, INPUT, FLV].into_iter().chain(video);
        let whitelist = "rtmp,rtmps,tcp,tls";
        let rest: &[&str] = &["-metadata", &title, "-protocol_whitelist", whitelist];
        let mut arguments: Vec<OsString> =
            head.chain([rest]).flatten().map(OsString::from).collect();
        if stream.url.starts_with("rtmps:") {
            arguments.extend(["-tls_verify", "1"].map(OsString::from));
            let ca_file = ca_file.map(|file| ["-ca_file".into(), file.as_os_str().to_owned()]);
            arguments.extend(ca_file.into_iter().flatten());
        }
        arguments.extend(["-fpre".into(), secrets.path().as_os_str().to_owned()]);
        arguments.push(OsString::from(&stream.url));
        Ok(Self {
            arguments,
            secrets: Some(secrets),
        })
    }
}

/// A running ffmpeg. Dropping it kills its group.
#[derive(Debug)]
pub(crate) struct Encoder {
    program: Program,
    _secrets: Option<NamedTempFile>,
}

impl Encoder {
    /// Starts it.
    ///
    /// # Errors
    /// If the program can't be run.
    pub(crate) fn start(program: &Path, order: Order) -> std::io::Result<(Self, Pipes)> {
        let (program, pipes) = Program::start(program, order.arguments)?;
        let encoder = Self {
            program,
            _secrets: order.secrets,
        };
        Ok((encoder, pipes))
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) {
        self.program.ended().await;
    }

    /// Kills its group unless it has ended by itself, and collects what is left of it.
    pub(crate) async fn finish(self) -> End {
        self.program.finish().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(order: &Order) -> String {
        let arguments: Vec<_> = order
            .arguments
            .iter()
            .map(|a| a.to_string_lossy())
            .collect();
        arguments.join(" ")
    }

    #[test]
    fn opus_is_copied_where_the_target_takes_it() {
        let opus = Codecs::of(b"..A_OPUS..");
        let aac = Codecs::of(b"..A_AAC..");
        assert!(joined(&Order::pipe(Format::Ogg, opus, "7")).contains("-c:a copy"));
        assert!(joined(&Order::pipe(Format::Ogg, aac, "7")).contains("libopus"));
        assert!(joined(&Order::pipe(Format::Mp3, opus, "7")).contains("libmp3lame"));
    }

    #[test]
    fn a_stream_key_is_in_a_private_file_and_in_no_argument() {
        use std::os::unix::fs::PermissionsExt as _;
        let stream = Stream {
            url: "rtmp://h/app".to_owned(),
            app: "app".to_owned(),
            key: "sesame".to_owned(),
            show_id: "7",
        };
        let order = Order::rtmp(&stream, Codecs::of(b"A_OPUS V_VP8"), None).expect("a file");
        let arguments = joined(&order);
        assert!(
            !arguments.contains("sesame") && arguments.contains("libx264"),
            "{arguments}"
        );
        let file = order.secrets.as_ref().expect("a file").as_file();
        assert_eq!(
            file.metadata().expect("stat").permissions().mode() & 0o077,
            0
        );
        let h264 = Order::rtmp(&stream, Codecs::of(b"V_MPEG4/ISO/AVC"), None).expect("a file");
        assert!(joined(&h264).contains("-c:v copy"));
    }
}
