//! The end of a rehearsal: its archive is listened to, and judged.
//!
//! Owns the ffmpeg that decodes it. Must never keep a rehearsal from becoming final: what can't be
//! measured is said not to have been.

use super::job::Context;
use crate::db::{Finish, StoredObject};
use aircheck_core::{
    sheet::{Findings, Level, Sheet},
    spool::Manifest,
};
use std::{process::Stdio, time::Duration};
use thiserror::Error;
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

/// Longest time for reading and decoding.
const DEADLINE: Duration = Duration::from_secs(60);
/// How much is listened to, in seconds.
const LISTEN_S: &str = "1800";
/// What ffmpeg may open: what is told by standard input, over HTTP.
const PROTOCOLS: &str = "pipe,http,https,tcp,tls,crypto";

/// Why there is no level.
#[derive(Debug, Error)]
enum LevelError {
    #[error("run ffmpeg")]
    Run(#[from] std::io::Error),
    #[error("ffmpeg did not end in time")]
    Timeout,
    #[error("ffmpeg told no level")]
    Untold,
    #[error("presign")]
    Presign(#[from] crate::store::StoreError),
}

/// What a rehearsal was worth.
pub(super) async fn sheet(context: &Context, session: &Manifest, finish: &Finish) -> Sheet {
    let level = match finish.objects.first() {
        Some(object) => match level(context, object).await {
            Ok(level) => Some(level),
            Err(error) => {
                tracing::warn!(error = super::halt::chain(&error), "measure the level");
                None
            }
        },
        None => None,
    };
    Sheet::of(Findings {
        link: session.link.unwrap_or_default(),
        lost_bytes: session.gaps.iter().map(|gap| gap.to - gap.from).sum(),
        gaps: session.gaps.len(),
        reconnects: session.reconnects(),
        level,
        status: finish.status,
        error: finish.error.as_deref(),
    })
}

async fn level(context: &Context, object: &StoredObject) -> Result<Level, LevelError> {
    let key = &object.key;
    let url = context
        .store
        .presign(key, "inline", &object.content_type, DEADLINE * 2)
        .await?;
    let mut child = Command::new(&context.ffmpeg)
        .args(["-hide_banner", "-nostats", "-f", "concat", "-safe", "0"])
        .args(["-protocol_whitelist", PROTOCOLS, "-i", "pipe:0"])
        .args(["-t", LISTEN_S, "-map", "0:a:0", "-af", "volumedetect"])
        .args(["-f", "null", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    // Not an argument: the process table is open to everybody, and the URL lets its reader in.
    let list = format!("ffconcat version 1.0\nfile '{url}'\n");
    let listening = async {
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(list.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let output = timeout(DEADLINE, listening)
        .await
        .map_err(|_| LevelError::Timeout)??;
    told(&String::from_utf8_lossy(&output.stderr)).ok_or(LevelError::Untold)
}

/// What `volumedetect` says.
fn told(log: &str) -> Option<Level> {
    let value = |name: &str| {
        let (_, after) = log.rsplit_once(name)?;
        after.split_whitespace().next()?.parse::<f64>().ok()
    };
    Some(Level {
        rms_dbfs: value("mean_volume: ")?,
        peak_dbfs: value("max_volume: ")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_read_where_ffmpeg_tells_it() {
        let log = "[Parsed_volumedetect_0 @ 0x5] n_samples: 2880000\n\
                   [Parsed_volumedetect_0 @ 0x5] mean_volume: -17.4 dB\n\
                   [Parsed_volumedetect_0 @ 0x5] max_volume: -0.5 dB\n";
        let level = Level {
            rms_dbfs: -17.4,
            peak_dbfs: -0.5,
        };
        assert_eq!(told(log), Some(level));
        assert_eq!(told("no audio stream"), None);
    }
}
