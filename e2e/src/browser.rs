//! A real browser on the studio page.
//!
//! Owns running the browser driver of the studio; the driver owns the browser.

use crate::wait::within;
use serde_json::Value;
use std::{net::SocketAddr, path::PathBuf, time::Duration};
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
    let packages = folder().join("node_modules");
    assert!(
        packages.exists(),
        "{} is missing: run `npm ci` there first",
        packages.display()
    );
    let mut command = Command::new("node");
    command
        .arg("live.mjs")
        .args([format!("http://{server}"), show.to_owned()])
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
