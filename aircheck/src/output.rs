//! What people read: standard output and standard error.
//!
//! Owns both streams; must never be used by a service at work, which logs.

use std::io::{self, IsTerminal as _, Write as _};

/// Writes a result to standard output. A reader that has left, as `head` does, is no error.
///
/// # Errors
/// If the output can't be written for any other reason.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Says something on the way on standard error. Nothing depends on whether anybody reads it.
pub(crate) fn note(text: &str) {
    if writeln!(io::stderr().lock(), "aircheck: {text}").is_err() {
        tracing::debug!("nobody reads standard error");
    }
}

/// Says on one line why the command failed.
pub(crate) fn complain(error: &anyhow::Error) {
    note(&format!("{error:#}"));
}

/// Whether somebody watches standard error.
pub(crate) fn watched() -> bool {
    io::stderr().is_terminal()
}
