//! The ffmpeg of a sink: what it is told, how it is started, and how it ends.
//!
//! Owns the process, a group of its own, and the last lines of what it says. Must never put a secret
//! into its arguments or its environment, use a shell, or let it open anything but its pipes and the
//! server it is for.
//!
//! Sound is copied where the target takes Opus, and encoded otherwise. Pictures go to RTMP only: H.264
//! is copied, anything else is encoded anew as H.264, which costs most of a processor core per show.

use super::target::{Format, Stream};
use std::{
    collections::VecDeque,
    ffi::OsString,
    io::Write as _,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinHandle,
};

/// What is kept of its last words.
const TAIL_BYTES: usize = 1500;
/// How long a killed process may take to be gone, and its last words to arrive.
const REAP: Duration = Duration::from_secs(2);

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
/// One second of sound is one frame, and one level.
const LEVELS: &[&str] = &[
    "-map",
    "0:a:0",
    "-af",
    "aresample=48000,asetnsamples=n=48000:p=0,\
     astats=metadata=1:reset=1:measure_perchannel=none:measure_overall=Peak_level+RMS_level,\
     ametadata=mode=print:direct=1:file=-",
    "-f",
    "null",
    "-",
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
        let arguments = [INPUT, LEVELS].into_iter().flatten();
        Self {
            arguments: arguments.map(OsString::from).collect(),
            secrets: None,
        }
    }

    /// A stream to an RTMP server; progress on standard output.
    ///
    /// # Errors
    /// If the file for the stream key can't be written.
    pub(crate) fn rtmp(stream: &Stream<'_>, codecs: Codecs) -> std::io::Result<Self> {
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
        let rest: [&[&str]; 1] = [&[
            "-metadata",
            &title,
            "-protocol_whitelist",
            whitelist,
            "-fpre",
        ]];
        let arguments = head.chain(rest).flatten().map(OsString::from);
        let last = [
            secrets.path().as_os_str().to_owned(),
            OsString::from(&stream.url),
        ];
        Ok(Self {
            arguments: arguments.chain(last).collect(),
            secrets: Some(secrets),
        })
    }
}

/// A running ffmpeg. Dropping it kills its group.
#[derive(Debug)]
pub(crate) struct Encoder {
    child: Child,
    words: JoinHandle<String>,
    _secrets: Option<NamedTempFile>,
}

/// The ends of its pipes.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) stdin: ChildStdin,
    pub(crate) stdout: ChildStdout,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct End {
    /// `None`: it had to be killed, or can't be asked.
    pub(crate) status: Option<ExitStatus>,
    /// Its last lines; they may hold secrets.
    pub(crate) words: String,
}

impl Encoder {
    /// Starts it. It inherits no environment but `PATH`.
    ///
    /// # Errors
    /// If the program can't be run.
    pub(crate) fn start(program: &Path, order: Order) -> std::io::Result<(Self, Pipes)> {
        let mut command = Command::new(program);
        command
            .args(order.arguments)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        };
        let words = tokio::spawn(tail(stderr));
        let encoder = Self {
            child,
            words,
            _secrets: order.secrets,
        };
        Ok((encoder, Pipes { stdin, stdout }))
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) {
        if let Err(error) = self.child.wait().await {
            tracing::warn!(%error, "wait for ffmpeg");
        }
    }

    /// Kills its group unless it has ended by itself, and collects what is left of it.
    pub(crate) async fn finish(mut self) -> End {
        let status = self.child.try_wait().ok().flatten();
        self.kill();
        if tokio::time::timeout(REAP, self.child.wait()).await.is_err() {
            tracing::warn!("ffmpeg is not gone after its kill");
        }
        let words = tokio::time::timeout(REAP, &mut self.words).await;
        let words = words.ok().and_then(Result::ok).unwrap_or_default();
        End { status, words }
    }

    fn kill(&self) {
        // No id: it is reaped, and the number may belong to somebody else.
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = id.and_then(rustix::process::Pid::from_raw)
            && let Err(error) =
                rustix::process::kill_process_group(group, rustix::process::Signal::KILL)
        {
            tracing::debug!(%error, "kill ffmpeg's group");
        }
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        self.kill();
        self.words.abort();
    }
}

/// Reads to the end and keeps the last bytes: whoever stops reading blocks the writer.
async fn tail(mut stderr: impl AsyncRead + Unpin) -> String {
    let mut kept = VecDeque::with_capacity(TAIL_BYTES);
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        kept.extend(&buffer[..read]);
        let excess = kept.len().saturating_sub(TAIL_BYTES);
        kept.drain(..excess);
    }
    let bytes = Vec::from(kept);
    String::from_utf8_lossy(&bytes)
        .trim()
        .replace(['\n', '\r'], " | ")
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
        let order = Order::rtmp(&stream, Codecs::of(b"A_OPUS V_VP8")).expect("a file");
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
        let h264 = Order::rtmp(&stream, Codecs::of(b"V_MPEG4/ISO/AVC")).expect("a file");
        assert!(joined(&h264).contains("-c:v copy"));
    }

    #[tokio::test]
    async fn the_last_words_are_kept_and_the_first_are_not() {
        let said = format!("first{}\nlast\n", "x".repeat(10_000));
        let kept = tail(said.as_bytes()).await;
        assert!(kept.ends_with("| last") && !kept.contains("first"));
        assert!(kept.len() <= TAIL_BYTES + 2);
    }
}
