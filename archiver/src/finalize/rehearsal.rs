//! The end of a rehearsal: its archive is listened to, and judged.
//!
//! Owns what the ffmpeg that decodes it is told. Must never keep a rehearsal from becoming final: what
//! can't be measured is said not to have been.

use super::job::Context;
use crate::{
    db::{Finish, StoredObject},
    store::StoreError,
};
use aircheck_core::{
    sheet::{Findings, Level, Sheet},
    spool::Manifest,
};
use aircheck_runtime::{
    levels::{self, Reading, Span},
    program::{Pipes, Program, lines},
};
use std::{ffi::OsString, io, time::Duration};
use tempfile::NamedTempFile;
use thiserror::Error;
use tokio::{fs::File, time::timeout};

/// Longest time for reading and decoding.
const DEADLINE: Duration = Duration::from_secs(60);
/// How much is listened to, in seconds.
const LISTEN_S: &str = "1800";
/// What digital silence is said to be, in dBFS: less than 16 bits can tell, and a number in JSON.
const FLOOR_DBFS: f64 = -91.0;

/// Why there is no level.
#[derive(Debug, Error)]
enum LevelError {
    #[error("a temporary file")]
    File(#[source] io::Error),
    #[error("read the archive")]
    Store(#[from] StoreError),
    #[error("the archive is gone")]
    Gone,
    #[error("run ffmpeg")]
    Run(#[source] io::Error),
    #[error("it took too long")]
    Timeout,
    #[error("ffmpeg told no level: {0}")]
    Untold(String),
}

/// What a rehearsal was worth.
pub(super) async fn sheet(context: &Context, session: &Manifest, finish: &Finish) -> Sheet {
    let level = match finish.objects.first() {
        Some(object) => match timeout(DEADLINE, level(context, object))
            .await
            .unwrap_or(Err(LevelError::Timeout))
        {
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
    // A file, since the tables of an MP4 are at its end. The store's public address is for browsers:
    // ffmpeg may not reach it.
    let archive = NamedTempFile::with_prefix("aircheck-rehearsal-").map_err(LevelError::File)?;
    let mut file = File::create(&archive).await.map_err(LevelError::File)?;
    let fetched = context.store.fetch(&object.key, &mut file).await?;
    fetched.ok_or(LevelError::Gone)?;
    let mut url = OsString::from("file:");
    url.push(archive.path());
    let filters = Span::SoFar.filters();
    let input = ["-hide_banner", "-nostats", "-nostdin", "-loglevel", "error"]
        .into_iter()
        .chain(["-protocol_whitelist", "file", "-i"]);
    let output = [
        "-t", LISTEN_S, "-map", "0:a:0", "-af", &filters, "-f", "null", "-",
    ];
    let arguments = input.map(OsString::from).chain([url]);
    let arguments = arguments.chain(output.map(OsString::from));
    let started = Program::start(&context.ffmpeg, arguments).map_err(LevelError::Run)?;
    let (mut program, Pipes { stdin, stdout }) = started;
    drop(stdin);
    let (mut reading, mut last) = (Reading::default(), None);
    let told = lines(stdout, |line| last = reading.line(line).or(last)).await;
    program.ended().await;
    let end = program.finish().await;
    told.map_err(LevelError::Run)?;
    // What was told of a part is not the level of the whole.
    let is_whole = end.status.is_some_and(|status| status.success());
    let level = last.filter(|_| is_whole);
    level.map(shown).ok_or(LevelError::Untold(end.words))
}

/// As a sheet has it: to a tenth of a decibel.
fn shown(level: levels::Level) -> Level {
    let dbfs = |db: f32| ((f64::from(db) * 10.0).round() / 10.0).max(FLOOR_DBFS);
    Level {
        rms_dbfs: dbfs(level.rms_db),
        peak_dbfs: dbfs(level.peak_db),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_numbers_also_of_silence() {
        let level = |peak_db, rms_db| shown(levels::Level { peak_db, rms_db });
        let loud = Level {
            rms_dbfs: -17.4,
            peak_dbfs: -0.5,
        };
        assert_eq!(level(-0.52, -17.38), loud);
        let silence = Level {
            rms_dbfs: FLOOR_DBFS,
            peak_dbfs: FLOOR_DBFS,
        };
        assert_eq!(level(f32::NEG_INFINITY, f32::NEG_INFINITY), silence);
        assert_eq!(level(f32::NAN, f32::NAN), silence);
    }
}
