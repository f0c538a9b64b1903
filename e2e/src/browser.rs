//! A real browser, on the studio page or with an archive.
//!
//! Owns running the browser drivers of the studio; a driver owns its browser.

use crate::wait::within;
use serde_json::Value;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::process::Command;

/// The driver's own steps have deadlines of 30 s; a whole run takes about 15 s.
const DEADLINE: Duration = Duration::from_secs(120);

/// Where the studio's browser tests live.
#[must_use]
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../studio/test/browser")
}

/// Goes live on the page, reloads, resumes, stops and plays; answers what the driver saw.
///
/// # Panics
/// If the driver can't run, or saw something that was not as promised.
pub async fn live(server: SocketAddr, show: &str) -> Value {
    drive("live.mjs", &[format!("http://{server}"), show.to_owned()]).await
}

/// Plays an archive of so many seconds over HTTP ranges; at each place, in seconds, a tone is heard, in Hz,
/// that rises by 100 Hz a second, or silence for 0 Hz. Answers what the driver saw.
///
/// # Panics
/// If the driver can't run, or saw something that was not as promised.
pub async fn play(file: &Path, content_type: &str, seconds: f64, places: &[(f64, f64)]) -> Value {
    let file = file.to_str().expect("the tests' paths are text");
    let first = [
        file.to_owned(),
        content_type.to_owned(),
        seconds.to_string(),
    ];
    let places = places.iter().map(|(at, hz)| format!("{at}:{hz}"));
    let arguments: Vec<_> = first.into_iter().chain(places).collect();
    drive("playback.mjs", &arguments).await
}

async fn drive(script: &str, arguments: &[String]) -> Value {
    let packages = folder().join("node_modules");
    assert!(
        packages.exists(),
        "{} is missing: run `npm ci` there first",
        packages.display()
    );
    let mut command = Command::new("node");
    command
        .arg(script)
        .args(arguments)
        .current_dir(folder())
        .kill_on_drop(true);
    let output = within(DEADLINE, "the browser's run", command.output())
        .await
        .expect("run node");
    let (said, complaints) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "the browser saw: {said}\n{complaints}"
    );
    serde_json::from_str(said.trim()).unwrap_or_else(|error| panic!("{error}: {said}"))
}
