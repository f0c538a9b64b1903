//! What tests of the binary share: one `aircheck up` of their own.
//!
//! Owns the process and its directory; it ends with its [`House`].

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// A running `aircheck up`.
#[derive(Debug)]
pub(crate) struct House {
    child: Child,
    data: TempDir,
    /// http://host:port of the gateway.
    pub(crate) page: String,
    /// http://host:port of the ingest.
    pub(crate) ingest: String,
}

impl House {
    /// Starts it on free ports and waits until it serves.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// [`Self::start`], with further flags.
    pub(crate) fn start_with(flags: &[&str]) -> Self {
        let data = tempfile::tempdir().expect("tempdir");
        let mut child = Command::new(env!("CARGO_BIN_EXE_aircheck"))
            .args(["up", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data.path())
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let (mut page, mut ingest) = (String::new(), String::new());
        for line in out.lines() {
            let line = line.expect("text");
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("page"), Some(url)) => page = url.trim_end_matches('/').to_owned(),
                (Some("ingest"), Some(url)) => ingest = url.to_owned(),
                (Some("ready"), _) => break,
                _ => {}
            }
        }
        assert!(
            !page.is_empty() && !ingest.is_empty(),
            "it says where it is"
        );
        Self {
            child,
            data,
            page,
            ingest,
        }
    }

    /// Its directory, for whatever else a test has to put somewhere.
    pub(crate) fn folder(&self) -> &Path {
        self.data.path()
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.child.kill().expect("it runs to the end of the test");
        self.child.wait().expect("it was killed");
    }
}
