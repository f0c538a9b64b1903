//! One process of the system under test.
//!
//! Owns its life and its log; it never outlives its [`Process`].

use crate::{
    http,
    wait::{SOON, eventually, within},
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    env,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

/// How long a process may take to be ready: recovery included, on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// The kernel takes a few milliseconds.
const DEATH_DEADLINE: Duration = Duration::from_secs(5);

/// How it shows that it serves.
#[derive(Clone, Copy, Debug)]
pub enum Readiness {
    /// `/readyz` answers 200 here.
    Readyz(SocketAddr),
    /// Connections are accepted here.
    Accepts(SocketAddr),
}

/// A process that can be started again with the same arguments.
#[derive(Debug)]
pub struct Process {
    name: String,
    program: PathBuf,
    /// A program and its arguments that start this one.
    launcher: Vec<String>,
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
    /// Of its next life only.
    once: Vec<(String, String)>,
    readiness: Readiness,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Describes a process; its log goes to `folder/NAME.log`.
    #[must_use]
    pub fn new(name: &str, program: PathBuf, readiness: Readiness, folder: &Path) -> Self {
        Self {
            name: name.to_owned(),
            program,
            launcher: Vec::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            once: Vec::new(),
            readiness,
            log: folder.join(format!("{name}.log")),
            child: None,
        }
    }

    /// Has it started by another program, which must become it (`exec`).
    #[must_use]
    pub fn under(mut self, launcher: &[&str]) -> Self {
        self.launcher = launcher.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds a flag with its value.
    #[must_use]
    pub fn flag(self, name: &str, value: impl Into<OsString>) -> Self {
        self.arguments([name.into(), value.into()])
    }

    /// Adds variables to an environment that is empty but for `PATH` and `HOME`.
    #[must_use]
    pub fn environment(mut self, variables: &[(&str, &str)]) -> Self {
        let owned = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.environment.extend(owned);
        self
    }

    /// Adds a variable for its next life, and no later one.
    pub fn once(&mut self, name: &str, value: &str) {
        self.once.push((name.to_owned(), value.to_owned()));
    }

    /// What it is called in the tests.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Everything it has written, over all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// Starts it and waits until it serves.
    ///
    /// # Panics
    /// If it runs already, exits, or is not ready in time.
    pub async fn start(&mut self) {
        self.spawn();
        self.ready().await;
    }

    /// Starts it and waits for nothing.
    ///
    /// # Panics
    /// If it runs already, or there is no such program.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = self.append_log();
        let mut command = self.command();
        command
            .args(&self.arguments)
            .env_clear()
            .envs(
                ["PATH", "HOME"]
                    .iter()
                    .filter_map(|name| Some((name, env::var_os(name)?))),
            )
            .env("RUST_BACKTRACE", "1")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .envs(self.once.drain(..))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .kill_on_drop(true);
        let child = command.spawn();
        self.child = Some(child.unwrap_or_else(|error| {
            panic!("start {} ({}): {error}", self.name, self.program.display())
        }));
    }

    /// Where a shell tool can do it, the kernel kills the process when the test dies by a signal.
    fn command(&self) -> Command {
        let setpriv = Path::new("/usr/bin/setpriv");
        let mut words: Vec<OsString> = self.launcher.iter().map(OsString::from).collect();
        if setpriv.exists() {
            words.push(setpriv.into());
            words.extend(["--pdeathsig", "KILL", "--"].map(OsString::from));
        }
        words.push(self.program.clone().into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    fn append_log(&self) -> File {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .unwrap_or_else(|error| panic!("open {}: {error}", self.log.display()))
    }

    /// Waits until it serves.
    ///
    /// # Panics
    /// If it exits first, or takes too long.
    pub async fn ready(&mut self) {
        let readiness = self.readiness;
        let what = format!("{} is ready", self.name);
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if is_ready(readiness).await {
                return;
            }
            if let Some(status) = self.exited() {
                panic!(
                    "{} ended with {status} instead of being ready:\n{}",
                    self.name,
                    self.log()
                );
            }
            let late = Instant::now() > deadline;
            assert!(
                !late,
                "waited {START_DEADLINE:?} in vain: {what}\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Its status if it has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child
            .as_mut()?
            .try_wait()
            .expect("ask for a child's status")
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.is_some() && self.exited().is_none()
    }

    /// Its process id.
    ///
    /// # Panics
    /// If it doesn't run.
    #[must_use]
    pub fn id(&self) -> u32 {
        let id = self.child.as_ref().and_then(Child::id);
        id.unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If it doesn't run.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a process id");
        kill_process(pid, signal).unwrap_or_else(|error| panic!("signal {}: {error}", self.name));
    }

    /// `kill -9`, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.gone(SOON).await;
    }

    /// `kill -9` and a start with the same arguments.
    pub async fn kill_and_restart(&mut self) {
        self.kill().await;
        self.start().await;
    }

    /// SIGTERM; answers how it ended, which must be within `limit`.
    pub async fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.gone(limit).await
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// If it doesn't run or doesn't end within `limit`.
    pub async fn gone(&mut self, limit: Duration) -> ExitStatus {
        let child = self
            .child
            .as_mut()
            .unwrap_or_else(|| panic!("{} does not run", self.name));
        let what = format!("{} ends", self.name);
        let status = within(limit, &what, child.wait())
            .await
            .expect("wait for a child");
        self.child = None;
        status
    }

    /// Buries it, if it has ended already and nobody waited for that.
    pub async fn rest(&mut self) {
        if self.child.is_some() {
            self.gone(SOON).await;
        }
    }

    /// Waits until its log has a line with all of these words.
    pub async fn logs(&self, words: &[&str]) {
        let what = format!("{} logs {words:?}", self.name);
        eventually(SOON, &what, || async {
            let log = self.log();
            let found = log
                .lines()
                .any(|line| words.iter().all(|word| line.contains(word)));
            if found { Ok(()) } else { Err("no such line") }
        })
        .await;
    }
}

impl Drop for Process {
    /// Waits for the end: files of a process that still runs can't be removed for good.
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        if child.start_kill().is_err() {
            return;
        }
        let deadline = Instant::now() + DEATH_DEADLINE;
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

async fn is_ready(readiness: Readiness) -> bool {
    match readiness {
        Readiness::Readyz(address) => http::get(address, "/readyz")
            .await
            .is_ok_and(|answer| answer.status == 200),
        Readiness::Accepts(address) => TcpStream::connect(address).await.is_ok(),
    }
}

/// The binary under test, beside the tests themselves.
///
/// # Panics
/// If it has not been built.
#[must_use]
pub fn aircheck() -> PathBuf {
    let test = env::current_exe().expect("a test has a path");
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("tests are built into PROFILE/deps");
    let binary = profile.join("aircheck");
    assert!(
        binary.exists(),
        "{} is missing: these tests need `cargo build -p aircheck` first",
        binary.display()
    );
    binary
}
