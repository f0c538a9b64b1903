//! System calls that fail or take their time, in a process that knows nothing of it.
//!
//! Owns a `strace` that is attached to a running process. Must be dropped before that process is
//! expected to be well again.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

/// An injection that lasts as long as this value.
#[derive(Debug)]
pub struct Injection(Child);

impl Injection {
    /// From now on calls of `call` in the process and all its threads suffer `what`, in strace's words:
    /// `error=EIO:when=1`, `delay_enter=2000000` (microseconds).
    ///
    /// # Panics
    /// If strace is missing (apt: strace) or may not attach.
    #[must_use]
    pub fn attach(process: u32, call: &str, what: &str) -> Self {
        let mut strace = Command::new("strace")
            .args(["-f", "-p", &process.to_string(), "-o", "/dev/null"])
            .args([
                "-e",
                &format!("trace={call}"),
                "-e",
                &format!("inject={call}:{what}"),
            ])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run strace (apt: strace)");
        let said = BufReader::new(strace.stderr.take().expect("piped"));
        let first = said.lines().next().and_then(Result::ok).unwrap_or_default();
        assert!(first.contains("attached"), "strace: {first}");
        Self(strace)
    }
}

impl Drop for Injection {
    #[expect(
        clippy::print_stderr,
        reason = "a test that fails must say what it left behind"
    )]
    fn drop(&mut self) {
        // SIGTERM lets strace detach; killed, it would take the process with it.
        let detached = Command::new("kill").arg(self.0.id().to_string()).status();
        if detached.is_err() || self.0.wait().is_err() {
            eprintln!("strace did not detach");
        }
    }
}
