//! `aircheck bench`: what an installation carries.
//!
//! Owns flags, phases and exit code; broadcasters and figures are the bench's.

use super::{access::Access, recordings::verify};
use crate::{
    bench::{Crowd, Figures, House, Load, Report, Run, Script, Server, Usage, allow_files},
    broadcast::Reach,
    http::web,
    output,
};
use aircheck_core::{recording::Recording, wire::MAX_FRAME};
use aircheck_runtime::{args, shutdown::Shutdown};
use anyhow::{Context as _, bail};
use clap::Args;
use futures::{StreamExt as _, stream};
use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};
use tokio::time::{Instant, interval, sleep_until};

/// Exit status where something was lost.
const LOST: u8 = 3;
/// Archives that are read back at a time.
const READERS: usize = 8;
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Longest show: its bytes are made before.
const DURATION_MAX: Duration = Duration::from_secs(3600);

/// Flags of `aircheck bench`.
#[derive(Args, Debug)]
#[command(after_help = "\
Without --to, it starts an `aircheck up` of its own, in a process and a directory of their own, so that
the server's CPU and memory are told apart from the broadcasters'. All begin together once all are
live, spread over one chunk's length, and stop together. An ack is counted from when its chunk was due.
Every archive of a gateway is read back and compared with its recording; a token must grant every show. Exit code: 0 if every show is
whole, 3 if not, 1 any other error.

Examples:
  aircheck bench
  aircheck bench --broadcasters 5000 --duration 1m --json
  aircheck bench --to ws://127.0.0.1:8080 --pid $(pgrep -f 'aircheck gateway')")]
pub(crate) struct Bench {
    /// How many at a time
    #[arg(long, env = "AIRCHECK_BROADCASTERS", default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    broadcasters: u32,
    /// Length of each show: at most 1h
    #[arg(long, env = "AIRCHECK_DURATION", value_parser = args::duration, default_value = "30s")]
    duration: Duration,
    /// Bits a second of each: 16k to 8M
    #[arg(long, env = "AIRCHECK_BITRATE", value_parser = bitrate, default_value = "128k")]
    bitrate: u64,
    /// Length of a chunk: 20ms to 10s
    #[arg(long, env = "AIRCHECK_CHUNK", value_parser = args::duration, default_value = "250ms")]
    chunk: Duration,
    /// ws:// or wss:// of a gateway, http:// or https:// of an ingest; by default, a server of its own
    #[arg(long, env = "AIRCHECK_TO")]
    to: Option<String>,
    /// Process of the server at --to whose CPU and memory are told
    #[arg(long, env = "AIRCHECK_PID", requires = "to")]
    pid: Option<u32>,
    #[command(flatten)]
    access: Access,
    /// Longest wait for the archives after the end
    #[arg(long, env = "AIRCHECK_ARCHIVE_WAIT", value_parser = args::duration, default_value = "5m")]
    archive_wait: Duration,
    /// Where the server of its own keeps its data while it runs: the disk that is measured. By default
    /// the directory for temporary files
    #[arg(long, env = "AIRCHECK_BENCH_DIR", conflicts_with = "to")]
    bench_dir: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long, env = "AIRCHECK_JSON")]
    json: bool,
}

fn bitrate(text: &str) -> Result<u64, String> {
    let (number, factor) = match text.strip_suffix(['k', 'M']) {
        Some(number) if text.ends_with('k') => (number, 1000),
        Some(number) => (number, 1_000_000),
        None => (text, 1),
    };
    let bits = number
        .parse()
        .ok()
        .and_then(|number: u64| number.checked_mul(factor));
    match bits {
        Some(bits) if (16_000..=8_000_000).contains(&bits) => Ok(bits),
        _ => Err("expected 16k to 8M".to_owned()),
    }
}

impl Bench {
    fn script(&self) -> anyhow::Result<Script> {
        let chunks = Duration::from_millis(20)..=Duration::from_secs(10);
        if !chunks.contains(&self.chunk) {
            bail!("--chunk must be 20ms to 10s");
        }
        if self.duration < self.chunk || self.duration > DURATION_MAX {
            bail!("--duration must be one chunk to 1h");
        }
        let script = Script::new(self.bitrate, self.chunk, self.duration);
        if script.chunk_max() > MAX_FRAME {
            bail!(
                "a chunk would have {} bytes; at most {MAX_FRAME} are taken",
                script.chunk_max()
            );
        }
        Ok(script)
    }

    fn load(&self, to: String) -> Load {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Load {
            broadcasters: self.broadcasters,
            bits_per_s: self.bitrate,
            chunk_ms: ms(self.chunk),
            duration_ms: ms(self.duration),
            to,
        }
    }
}

/// Runs the load and prints what was found.
///
/// # Errors
/// If the server can't be started, or the target or a flag is of no use.
pub(crate) async fn run(bench: Bench) -> anyhow::Result<ExitCode> {
    let halt = Shutdown::on_signals().context("listen to signals")?;
    let script = Arc::new(bench.script()?);
    allow_files(bench.broadcasters)?;
    let house = match &bench.to {
        Some(_) => None,
        None => {
            let dir = bench.bench_dir.clone().unwrap_or_else(std::env::temp_dir);
            Some(House::start(&dir, bench.broadcasters).await?)
        }
    };
    let measured = Box::pin(measure(&bench, house.as_ref(), script));
    let report = tokio::select! {
        report = measured => report?,
        () = halt.triggered() => bail!("interrupted"),
    };
    output::print(&match bench.json {
        true => serde_json::to_string_pretty(&report)?,
        false => report.table().trim_end().to_owned(),
    })?;
    Ok(match report.is_good() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(LOST),
    })
}

async fn measure(
    bench: &Bench,
    house: Option<&House>,
    script: Arc<Script>,
) -> anyhow::Result<Report> {
    let target = match (house, &bench.to) {
        (Some(house), _) => format!("ws://{}", house.gateway),
        (None, Some(to)) => to.clone(),
        (None, None) => bail!("nowhere to broadcast to"),
    };
    let pid = bench.pid.or_else(|| house.and_then(House::pid));
    let usage = || pid.map(Usage::of).transpose();
    let (figures, all) = (Arc::new(Figures::default()), bench.broadcasters);
    let idle = usage()?;
    let mut crowd = Crowd::gather(Run {
        target: target.clone(),
        reach: Reach::new(bench.access.ca_file())?,
        token: bench.access.token()?,
        broadcasters: all,
        script: Arc::clone(&script),
        figures: Arc::clone(&figures),
        patience: bench.archive_wait,
    })?;
    let gathered = || figures.read(|counts| counts.live + counts.refused) >= all;
    progress(&figures, gathered).await;
    crowd.start();
    let (begun, begin) = (Instant::now(), usage()?);
    let live_until = begun + bench.duration;
    progress(&figures, || Instant::now() + PROGRESS_INTERVAL > live_until).await;
    sleep_until(live_until).await;
    let (elapsed, end) = (begun.elapsed(), usage()?);
    progress(&figures, || figures.read(|counts| counts.ended()) >= all).await;
    crowd.through().await.context("a broadcaster failed")?;

    let counts = figures.now();
    let verified = match target.starts_with("ws") {
        true => Some(verify_all(bench, &target, &counts.recordings).await?),
        false => None,
    };
    let (live, archived) = (counts.live, counts.complete(script.bytes, script.plays_ms));
    let mut report = Report::new(bench.load(target), counts, archived);
    report.verified = verified;
    report.server = match (idle, begin, end) {
        (Some(idle), Some(begin), Some(end)) => {
            Some(Server::between(idle, begin, end, elapsed, live))
        }
        _ => None,
    };
    report.server_errors = house.map(House::errors);
    Ok(report)
}

/// Says how far it is, a line a second, until `done`.
async fn progress(figures: &Figures, done: impl Fn() -> bool) {
    let mut ticks = interval(PROGRESS_INTERVAL);
    loop {
        ticks.tick().await;
        if done() {
            return;
        }
        let line = figures.read(|counts| {
            format!(
                "{} live, {} lost, {:.1} MB durable, {} archived",
                counts.live,
                counts.refused + counts.lost,
                counts.durable_bytes as f64 / 1e6,
                counts.recordings.len()
            )
        });
        output::note(&line);
    }
}

/// Reads archives back; gives how many have the length and checksum of their recording.
async fn verify_all(bench: &Bench, target: &str, recordings: &[Recording]) -> anyhow::Result<u32> {
    let base = web(target);
    let http = bench.access.http(&base)?;
    let verdicts = stream::iter(recordings)
        .map(|recording| verify::run(&http, &base, recording))
        .buffer_unordered(READERS);
    let right = verdicts.filter(|verdict| {
        let right = match verdict {
            Ok(verdict) => verdict.ok,
            Err(error) => {
                output::note(&format!("read an archive back: {error:#}"));
                false
            }
        };
        std::future::ready(right)
    });
    Ok(u32::try_from(right.count().await).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitrates_are_written_as_people_say_them() {
        assert_eq!(bitrate("128k"), Ok(128_000));
        assert_eq!(bitrate("1M"), Ok(1_000_000));
        assert_eq!(bitrate("64000"), Ok(64_000));
        for bad in ["", "k", "15k", "9M", "128KiB", "-1k"] {
            assert!(bitrate(bad).is_err(), "{bad}");
        }
    }
}
