//! A real browser, on the studio page or with an archive.
//!
//! Owns running the browser drivers of the studio; a driver owns its browser.

use crate::wait::within;
use serde_json::Value;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

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

/// The listeners' page of a show, on which play was pressed once.
#[derive(Debug)]
pub struct Player {
    driver: Child,
    wishes: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Player {
    /// Opens the page and presses play.
    ///
    /// # Panics
    /// If the driver can't run.
    #[must_use]
    pub fn open(server: SocketAddr, show: &str) -> Self {
        let mut command = driver("listen.mjs", &[format!("http://{server}"), show.to_owned()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut driver = command.spawn().expect("run node");
        let wishes = driver.stdin.take().expect("it is a pipe");
        let answers = BufReader::new(driver.stdout.take().expect("it is a pipe")).lines();
        Self {
            driver,
            wishes,
            answers,
        }
    }

    /// Waits until the page says this state; answers those that it has gone through since it was last asked.
    ///
    /// # Panics
    /// If it does not come to that.
    pub async fn becomes(&mut self, state: &str) -> Vec<String> {
        self.wish(state).await
    }

    /// Waits until a second of sound was heard from now on; answers as [`Player::becomes`].
    ///
    /// # Panics
    /// If nothing is heard.
    pub async fn plays(&mut self) -> Vec<String> {
        self.wish("plays").await
    }

    async fn wish(&mut self, wish: &str) -> Vec<String> {
        let line = format!("{wish}\n");
        let asked = self.wishes.write_all(line.as_bytes()).await;
        asked.expect("the driver reads");
        let what = format!("the listeners' page: {wish}");
        let answer = within(DEADLINE, &what, self.answers.next_line()).await;
        let answer = answer.expect("the driver writes").unwrap_or_default();
        let seen: Value = serde_json::from_str(&answer).unwrap_or_default();
        let states = seen["states"].as_array();
        assert!(seen["error"].is_null(), "{what}: {answer}");
        let states = states.unwrap_or_else(|| panic!("{what}: {answer}"));
        let words = states.iter().filter_map(Value::as_str);
        words.map(str::to_owned).collect()
    }

    /// Closes the browser.
    ///
    /// # Panics
    /// If that fails.
    pub async fn close(mut self) {
        drop(self.wishes);
        let ended = within(DEADLINE, "the browser closes", self.driver.wait()).await;
        assert!(ended.expect("wait for node").success());
    }
}

fn driver(script: &str, arguments: &[String]) -> Command {
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
    command
}

async fn drive(script: &str, arguments: &[String]) -> Value {
    let mut command = driver(script, arguments);
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
