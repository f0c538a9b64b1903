//! Flags of the ingest service.
//!
//! Owns their names, defaults and limits.

use crate::sink::{Encoding, LiveSink, LiveSinkParser, Watch};
use aircheck_core::{session::Limits, wire::GRACE_MAX_S};
use aircheck_runtime::args;
use clap::Args;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Flags of `aircheck ingest`.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// Address of the gRPC service
    #[arg(long, env = "AIRCHECK_LISTEN", default_value = "127.0.0.1:7001")]
    pub listen: SocketAddr,
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, env = "AIRCHECK_HTTP_LISTEN", default_value = "127.0.0.1:7101")]
    pub http_listen: SocketAddr,
    #[command(flatten)]
    /// What both `ingest` and `up` need
    pub options: Options,
    /// How the archiver reaches this ingest, as http://host:port
    #[arg(
        long,
        env = "AIRCHECK_ADVERTISE",
        default_value = "http://127.0.0.1:7001"
    )]
    pub advertise: String,
    /// Directory of the spool; it must survive restarts
    #[arg(long, env = "AIRCHECK_SPOOL_DIR")]
    pub spool_dir: PathBuf,
    /// Address of the archiver, as http://host:port
    #[arg(
        long,
        env = "AIRCHECK_ARCHIVER",
        default_value = "http://127.0.0.1:7002"
    )]
    pub archiver: String,
}

/// Flags that say how sessions are treated.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// How long a session waits for its broadcaster, where the show does not say: 0s to 30m
    #[arg(long, env = "AIRCHECK_GRACE", value_parser = grace, default_value = "30s")]
    pub grace: Duration,
    /// Most sessions that may be open at once
    #[arg(long, env = "AIRCHECK_SESSIONS_MAX", default_value_t = 20_000)]
    pub sessions_max: usize,
    /// Most bytes of one session
    #[arg(long, env = "AIRCHECK_SESSION_BYTES_MAX", value_parser = args::size, default_value = "48GiB")]
    pub session_bytes_max: u64,
    /// Longest session
    #[arg(long, env = "AIRCHECK_SESSION_DURATION_MAX", value_parser = args::duration, default_value = "24h")]
    pub session_duration_max: Duration,
    /// Bytes preallocated per segment of the spool's journal
    #[arg(long, env = "AIRCHECK_SEGMENT_SIZE", value_parser = segment, default_value = "64MiB")]
    pub segment_size: u64,
    /// Most listeners of one show
    #[arg(long, env = "AIRCHECK_LISTENERS_MAX", default_value_t = 1000)]
    pub listeners_max: usize,
    /// How long a connected broadcaster may send nothing before an alarm says so
    #[arg(long, env = "AIRCHECK_WATCH_NO_DATA", value_parser = patience, default_value = "10s")]
    pub watch_no_data: Duration,
    /// How long a show may be silent before an alarm says so; an ffmpeg per show decodes it
    #[arg(long, env = "AIRCHECK_WATCH_SILENCE", value_parser = patience)]
    pub watch_silence: Option<Duration>,
    /// Raise an alarm when a show's sound clips; an ffmpeg per show decodes it
    #[arg(long, env = "AIRCHECK_WATCH_CLIPPING")]
    pub watch_clipping: bool,
    /// Servers that every show is carried on to
    #[arg(
        long = "live-sink",
        env = "AIRCHECK_LIVE_SINK",
        value_name = "URL",
        value_delimiter = ',',
        hide_env_values = true,
        value_parser = LiveSinkParser,
        help = LIVE_SINK
    )]
    pub live_sinks: Vec<LiveSink>,
    /// The ffmpeg that encodes for live sinks
    #[arg(
        long,
        env = "AIRCHECK_FFMPEG",
        value_name = "PROGRAM",
        default_value = "ffmpeg"
    )]
    pub ffmpeg: PathBuf,
    /// Certificates (PEM) of the authorities that rtmps servers are believed for, instead of the system's
    #[arg(
        long,
        env = "AIRCHECK_LIVE_SINK_CA_FILE",
        value_name = "FILE",
        requires = "live_sinks"
    )]
    pub live_sink_ca_file: Option<PathBuf>,
}

const LIVE_SINK: &str = "Servers that every show is carried on to, separated by commas; {show_id} \
    stands for the show: icecast://user:password@host:port/{show_id}.mp3 (or .ogg, .webm), \
    rtmp://host/app/{show_id}, rtmps://host/app/{show_id}. URLs with a password or key belong into the \
    environment: arguments can be seen by every user of the machine";

/// Longest grace, as the contract has it.
pub const GRACE_MAX: Duration = Duration::from_secs(GRACE_MAX_S);

fn grace(text: &str) -> Result<Duration, String> {
    let grace = args::duration(text).map_err(|error| error.to_string())?;
    if grace > GRACE_MAX {
        return Err("grace is at most 30m".to_owned());
    }
    Ok(grace)
}

fn patience(text: &str) -> Result<Duration, String> {
    let patience = args::duration(text).map_err(|error| error.to_string())?;
    if patience.is_zero() {
        return Err("a watch needs some patience".to_owned());
    }
    Ok(patience)
}

fn segment(text: &str) -> Result<u64, String> {
    let bytes = args::size(text).map_err(|error| error.to_string())?;
    if !((1 << 20)..=(1 << 30)).contains(&bytes) {
        return Err("a segment has 1MiB to 1GiB".to_owned());
    }
    Ok(bytes)
}

impl Options {
    /// What encodes for sinks.
    pub(crate) fn encoding(&self) -> Encoding {
        Encoding {
            ffmpeg: self.ffmpeg.clone(),
            ca_file: self.live_sink_ca_file.clone(),
        }
    }

    /// What of a show's sound is watched.
    pub(crate) fn watch(&self) -> Watch {
        Watch {
            silence: self.watch_silence,
            clipping: self.watch_clipping,
        }
    }

    /// What one session may use up.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let duration_max_ms = u64::try_from(self.session_duration_max.as_millis());
        Limits {
            bytes_max: self.session_bytes_max,
            duration_max_ms: duration_max_ms.unwrap_or(u64::MAX),
            ..Limits::default()
        }
    }
}
