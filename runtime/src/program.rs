//! A program that works for a service: started without a shell, in a process group of its own, and never
//! left behind.
//!
//! Owns the process, the reading of its lines and the last of what it says. Must never know what it is
//! for, nor hand it anything of our environment but `PATH`.

use rustix::process::{Pid, Signal, kill_process_group, setpriority_process};
use std::{
    collections::VecDeque,
    ffi::OsStr,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinHandle,
};

/// What is kept of its last words.
const TAIL_BYTES: usize = 1500;
/// Most of a line that is heard.
pub const LINE_BYTES: usize = 100;
/// How long a killed process may take to be gone, and its last words to arrive.
const REAP: Duration = Duration::from_secs(2);
/// How far a program that is in no hurry stands back.
const NICE: i32 = 10;

/// A running program. Dropping it kills its group.
#[derive(Debug)]
pub struct Program {
    child: Child,
    words: JoinHandle<String>,
}

/// The ends of its pipes.
#[derive(Debug)]
pub struct Pipes {
    /// What it reads.
    pub stdin: ChildStdin,
    /// What it writes.
    pub stdout: ChildStdout,
}

/// How it ended.
#[derive(Debug)]
pub struct End {
    /// `None`: it had to be killed, or can't be asked.
    pub status: Option<ExitStatus>,
    /// Its last lines; they may hold secrets.
    pub words: String,
}

impl Program {
    /// Starts it, with pipes for its standard input and output.
    ///
    /// # Errors
    /// If the program can't be run.
    pub fn start(
        program: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> std::io::Result<(Self, Pipes)> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        };
        let words = tokio::spawn(tail(stderr));
        Ok((Self { child, words }, Pipes { stdin, stdout }))
    }

    /// Lets everything else have the processor first. Best right after the start: threads that it has
    /// already keep their priority.
    pub fn stand_back(&self) {
        if let Some(id) = self.id()
            && let Err(error) = setpriority_process(Some(id), NICE)
        {
            tracing::debug!(%error, "lower a program's priority");
        }
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) {
        if let Err(error) = self.child.wait().await {
            tracing::warn!(%error, "wait for a program");
        }
    }

    /// Kills its group unless it has ended by itself, and collects what is left of it.
    pub async fn finish(mut self) -> End {
        let status = self.child.try_wait().ok().flatten();
        self.kill();
        if tokio::time::timeout(REAP, self.child.wait()).await.is_err() {
            tracing::warn!("a program is not gone after its kill");
        }
        let words = tokio::time::timeout(REAP, &mut self.words).await;
        let words = words.ok().and_then(Result::ok).unwrap_or_default();
        End { status, words }
    }

    /// `None`: it is reaped, and the number may belong to somebody else.
    fn id(&self) -> Option<Pid> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        id.and_then(Pid::from_raw)
    }

    fn kill(&self) {
        if let Some(group) = self.id()
            && let Err(error) = kill_process_group(group, Signal::KILL)
        {
            tracing::debug!(%error, "kill a program's group");
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        self.words.abort();
    }
}

/// Hears lines until whoever writes them has ended. Of a line that is longer than [`LINE_BYTES`] the rest
/// does not matter.
///
/// # Errors
/// If they can't be read.
pub async fn lines(
    mut said: impl AsyncRead + Unpin,
    mut heard: impl FnMut(&[u8]),
) -> std::io::Result<()> {
    let (mut line, mut buffer) = (Vec::new(), [0; 1024]);
    loop {
        let read = said.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        for byte in &buffer[..read] {
            if *byte != b'\n' {
                line.extend((line.len() < LINE_BYTES).then_some(*byte));
                continue;
            }
            heard(&line);
            line.clear();
        }
    }
}

/// Reads to the end and keeps the last bytes: whoever stops reading blocks the writer.
async fn tail(mut stderr: impl AsyncRead + Unpin) -> String {
    let mut kept = VecDeque::with_capacity(TAIL_BYTES);
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        kept.extend(&buffer[..read]);
        let excess = kept.len().saturating_sub(TAIL_BYTES);
        kept.drain(..excess);
    }
    let bytes = Vec::from(kept);
    String::from_utf8_lossy(&bytes)
        .trim()
        .replace(['\n', '\r'], " | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_heard_one_by_one_and_long_ones_are_cut() {
        let said = format!("one\n{}\nthree\nunfinished", "x".repeat(5000));
        let mut heard = Vec::new();
        lines(said.as_bytes(), |line| heard.push(line.to_vec()))
            .await
            .expect("read");
        assert_eq!(heard, [&b"one"[..], &[b'x'; LINE_BYTES], b"three"]);
    }

    #[tokio::test]
    async fn the_last_words_are_kept_and_the_first_are_not() {
        let said = format!("first{}\nlast\n", "x".repeat(10_000));
        let kept = tail(said.as_bytes()).await;
        assert!(kept.ends_with("| last") && !kept.contains("first"));
        assert!(kept.len() <= TAIL_BYTES + 2);
    }
}
