//! `aircheck push`: a file, broadcast like a browser does.
//!
//! Owns flags, progress and exit code; the broadcast itself is the broadcaster's.

use super::access::Access;
use crate::{
    broadcast::{
        Credentials, Dialer, Driver, Outcome, Pace, Phase, Reach, Recorder, Tally, Wishes,
    },
    output,
};
use aircheck_core::{
    id::ShowId,
    recording::{Recording, Status},
};
use aircheck_runtime::{args, shutdown::Shutdown};
use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::{path::PathBuf, process::ExitCode, time::Duration};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Exit code of a recording that is known to be incomplete.
const FAILED: u8 = 3;

/// Flags of `aircheck push`.
#[derive(Args, Debug)]
#[command(after_help = "\
Bytes are kept until the server has them on disk; a lost connection is taken up again where it was
lost. If FILE.chunks.json lies beside FILE (show.bin: show.chunks.json), its chunk sizes and times are
used. Interrupted once, it stops in good order; twice, it aborts. Exit code: 0 archived, 3 the
recording failed, 1 any other error.

Examples:
  aircheck push show.webm --show 7
  aircheck push show.webm --show 7 --speed 0 --drop-every 10s
  aircheck push show.webm --show 7 --to http://ingest-0:7001 --user studio
  aircheck push show.webm --show 7 --to wss://radio.example --token eyJ... --ca-file ca.pem")]
pub(crate) struct Push {
    /// WebM, fragmented MP4 or Ogg, as browsers record it
    file: PathBuf,
    /// The show
    #[arg(long, env = "AIRCHECK_SHOW")]
    show: ShowId,
    /// ws://host:port or wss:// of a gateway, http://host:port or https:// of an ingest
    #[arg(long, env = "AIRCHECK_TO", default_value = "ws://127.0.0.1:8080")]
    to: String,
    /// Times real time; 0: as fast as possible
    #[arg(long, env = "AIRCHECK_SPEED", value_parser = speed, default_value = "1.0")]
    speed: f64,
    /// Reset the TCP connection this often
    #[arg(long, env = "AIRCHECK_DROP_EVERY", value_parser = period)]
    drop_every: Option<Duration>,
    /// Length of a chunk in milliseconds, where no .chunks.json tells
    #[arg(long, env = "AIRCHECK_CHUNK_MS", default_value_t = 250,
        value_parser = clap::value_parser!(u64).range(1..=60_000))]
    chunk_ms: u64,
    /// Bytes a second at speed 1, where no .chunks.json tells
    #[arg(long, env = "AIRCHECK_BITRATE", value_parser = args::size, default_value = "16KiB")]
    bitrate: u64,
    /// Content type; by default as found
    #[arg(long, env = "AIRCHECK_MIME")]
    mime: Option<String>,
    /// Who broadcasts, towards an ingest; a gateway knows by the token
    #[arg(long, env = "AIRCHECK_USER", default_value = "anonymous")]
    user: String,
    /// Take over from another broadcaster
    #[arg(long, env = "AIRCHECK_FORCE")]
    force: bool,
    /// Rehearse: beside the show and not on air. The recording, which is not kept for long, says how
    /// it went
    #[arg(long, env = "AIRCHECK_REHEARSE")]
    rehearse: bool,
    /// Leave the session open after the last byte, as if the connection were lost
    #[arg(long, env = "AIRCHECK_NO_STOP")]
    no_stop: bool,
    #[command(flatten)]
    access: Access,
    /// Give up after so long without the server
    #[arg(long, env = "AIRCHECK_RETRY_FOR", value_parser = args::duration, default_value = "5m")]
    retry_for: Duration,
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(speed) if (0.0..=1e6).contains(&speed) => Ok(speed),
        _ => Err("expected a number from 0 to 1000000".to_owned()),
    }
}

fn period(text: &str) -> Result<Duration, String> {
    match args::duration(text) {
        Ok(Duration::ZERO) => Err("must be longer than that".to_owned()),
        Ok(period) => Ok(period),
        Err(error) => Err(error.to_string()),
    }
}

/// Broadcasts to the end and prints what became of it.
///
/// # Errors
/// If the file or the server is of no use.
pub(crate) async fn run(push: Push) -> anyhow::Result<ExitCode> {
    let halt = Shutdown::on_signals().context("listen to signals")?;
    let credentials = Credentials {
        show: push.show.to_string(),
        user: push.user,
        token: push.access.token()?,
    };
    let dialer = Dialer::new(&push.to, credentials, &Reach::new(push.access.ca_file())?)?;
    let pace = Pace {
        speed: push.speed,
        bytes_per_s: push.bitrate,
        chunk: Duration::from_millis(push.chunk_ms),
    };
    let recorder = Recorder::open(&push.file, push.mime, pace).await?;
    let bytes = recorder.bytes;
    let wishes = Wishes {
        force: push.force,
        rehearse: push.rehearse,
        stop: !push.no_stop,
        drop_every: push.drop_every,
        retry_for: push.retry_for,
    };
    let (driver, tally) = Driver::new(recorder, dialer, wishes, halt);
    let progress = AbortOnDropHandle::new(tokio::spawn(show(tally.clone(), bytes)));
    let outcome = Box::pin(driver.run()).await;
    // The driver is gone, so the progress ends by itself.
    progress.await.context("show progress")?;
    let last = tally.borrow().clone();
    report(&push.show, outcome?, &last)
}

fn report(show: &ShowId, outcome: Outcome, tally: &Tally) -> anyhow::Result<ExitCode> {
    let (text, code) = match outcome {
        Outcome::Ended(recording) => (
            serde_json::to_string_pretty(&recording)?,
            exit_code(&recording),
        ),
        Outcome::Known { session, status } => {
            let known = json!({"id": session, "show_id": show, "status": status});
            let code = if status == Status::Archived.as_str() {
                0
            } else {
                FAILED
            };
            (serde_json::to_string_pretty(&known)?, code)
        }
        Outcome::Left { session } => {
            let left = json!({
                "id": session,
                "show_id": show,
                "status": Status::Recording,
                "durable": tally.durable,
                "archived": tally.archived,
            });
            (serde_json::to_string_pretty(&left)?, 0)
        }
    };
    output::print(&text)?;
    Ok(ExitCode::from(code))
}

fn exit_code(recording: &Recording) -> u8 {
    match recording.status {
        Status::Archived => 0,
        Status::Failed | Status::Recording | Status::Finalizing => FAILED,
    }
}

/// Shows how far it is: a bar for whoever watches, a line for each loss otherwise.
async fn show(mut tally: watch::Receiver<Tally>, bytes: u64) {
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
    let template = "{bar:30} {bytes}/{total_bytes}  {msg}";
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.set_style(style),
        Err(error) => tracing::debug!(%error, "show progress plainly"),
    }
    let watched = output::watched();
    let mut phase = Phase::default();
    while tally.changed().await.is_ok() {
        let now = tally.borrow_and_update().clone();
        bar.set_position(now.sent);
        bar.set_message(message(&now));
        if now.phase != phase {
            if let Some(line) = news(&now.phase).filter(|_| !watched) {
                output::note(&line);
            }
            phase = now.phase;
        }
    }
    bar.finish_and_clear();
}

fn message(tally: &Tally) -> String {
    let Tally {
        durable,
        archived,
        reconnects,
        ..
    } = tally;
    let state = news(&tally.phase).unwrap_or_else(|| match tally.phase {
        Phase::Finalizing => "finalizing".to_owned(),
        Phase::Connecting => "connecting".to_owned(),
        _ => "live".to_owned(),
    });
    format!("acked {durable}, archived {archived}, reconnects {reconnects}, {state}")
}

/// What people should hear of.
fn news(phase: &Phase) -> Option<String> {
    match phase {
        Phase::Lost(why) => Some(format!("connection lost: {why}")),
        Phase::Faulty(why) => Some(format!("not recorded: {why}")),
        Phase::Connecting | Phase::Live | Phase::Finalizing => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_and_periods_that_mean_nothing_are_refused() {
        assert_eq!(speed("0"), Ok(0.0));
        assert_eq!(speed("1.5"), Ok(1.5));
        for bad in ["-1", "NaN", "inf", "fast", ""] {
            assert!(speed(bad).is_err(), "{bad}");
        }
        assert_eq!(period("10s"), Ok(Duration::from_secs(10)));
        assert!(period("0s").is_err());
    }

    #[test]
    fn a_loss_is_news_and_progress_is_not() {
        let mut tally = Tally {
            durable: 5,
            reconnects: 2,
            ..Tally::default()
        };
        assert_eq!(
            message(&tally),
            "acked 5, archived 0, reconnects 2, connecting"
        );
        tally.phase = Phase::Lost("reset".into());
        assert!(message(&tally).ends_with("connection lost: reset"));
        assert_eq!(news(&Phase::Finalizing), None);
    }
}
