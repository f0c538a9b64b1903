//! An `aircheck up` of the bench's own, in a process of its own so that its use can be told apart.
//!
//! Owns process and directory; both go with it.

use anyhow::{Context as _, bail};
use std::{fs::File, path::Path, process::Stdio, time::Duration};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// Longest wait for `ready`.
const START_DEADLINE: Duration = Duration::from_secs(30);
const LOG: &str = "up.log";

/// See the module.
#[derive(Debug)]
pub(crate) struct House {
    // Killed before its directory is removed.
    child: Child,
    dir: TempDir,
    /// host:port of the gateway.
    pub(crate) gateway: String,
}

impl House {
    /// Starts it, on free ports, with its data below `parent`.
    ///
    /// # Errors
    /// If it does not serve; its log says why.
    pub(crate) async fn start(parent: &Path, broadcasters: u32) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("aircheck-bench-")
            .tempdir_in(parent);
        let dir = dir.context("make a directory for the run")?;
        let log = File::create(dir.path().join(LOG)).context("make a log")?;
        let program = std::env::current_exe().context("find this program")?;
        let mut child = Command::new(program)
            .args(["up", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.path().join("data"))
            .args(["--max-connections", &broadcasters.to_string()])
            .args(["--sessions-max", &broadcasters.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start `aircheck up`")?;
        let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        let mut gateway = None;
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                let mut words = line.split_whitespace();
                match words.next() {
                    Some("page") => gateway = words.next().and_then(address),
                    Some("ready") => return Ok(gateway),
                    _ => {}
                }
            }
            Ok::<_, std::io::Error>(None)
        };
        match timeout(START_DEADLINE, ready).await {
            Ok(Ok(Some(gateway))) => Ok(Self {
                child,
                dir,
                gateway,
            }),
            _ => {
                let log = std::fs::read_to_string(dir.path().join(LOG)).unwrap_or_default();
                let last = log.lines().last().unwrap_or("it said nothing");
                bail!("`aircheck up` does not serve: {last}")
            }
        }
    }

    /// `None` once it has ended.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// How many lines it logged as errors.
    pub(crate) fn errors(&self) -> usize {
        let log = std::fs::read_to_string(self.dir.path().join(LOG)).unwrap_or_default();
        log.lines().filter(|line| line.contains("ERROR")).count()
    }
}

fn address(url: &str) -> Option<String> {
    Some(
        url.strip_prefix("http://")?
            .trim_end_matches('/')
            .to_owned(),
    )
}
