//! Wall clocks that jump, for one process and not for its tests.
//!
//! Owns a file that says by how much the clock is wrong, read by libfaketime at every look at the
//! clock. Monotonic clocks stay right, as they do when an operator or NTP sets the time.

use crate::process::Process;
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

const LIBRARIES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];

/// The wall clock of a process, with the folder of its file.
#[derive(Debug)]
pub struct WallClock(TempDir);

impl Default for WallClock {
    /// One that is right, until it [jumps](Self::jump).
    fn default() -> Self {
        let clock = Self(TempDir::new().expect("a temporary folder"));
        clock.jump("+0");
        clock
    }
}

impl WallClock {
    fn file(&self) -> PathBuf {
        self.0.path().join("clock")
    }

    /// From now on it shows the time plus or minus this much: `+3600` (seconds), `-1h`.
    ///
    /// # Panics
    /// If its file can't be written.
    #[expect(
        clippy::disallowed_methods,
        reason = "a clock's file need not survive a crash"
    )]
    pub fn jump(&self, by: &str) {
        // A reader must never see half of it.
        let new = self.0.path().join("new");
        fs::write(&new, by).expect("write a clock's file");
        fs::rename(&new, self.file()).expect("replace a clock's file");
    }

    /// The process will look at this clock.
    ///
    /// # Panics
    /// If libfaketime is missing (apt: faketime).
    #[must_use]
    pub fn rule(&self, process: Process) -> Process {
        let library = LIBRARIES.into_iter().find(|path| Path::new(path).exists());
        let library = library.expect("libfaketime (apt: faketime)");
        let file = self.file();
        let file = file.to_str().expect("a path in UTF-8");
        process.environment(&[
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ])
    }
}
