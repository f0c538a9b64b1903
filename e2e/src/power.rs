//! A disk that loses power: what was not synced is gone, as after pulling the plug.
//!
//! Owns an ext4 image on a loop device. `kill -9` can't show a missing sync, since the page cache
//! survives it; this can. Must never touch any other mount.

use crate::{faults::is_root, faults::skipped};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

/// A mounted image.
#[derive(Debug)]
pub struct PowerDisk {
    image: PathBuf,
    at: PathBuf,
}

impl PowerDisk {
    /// Makes an image of `bytes` and mounts it at a new folder; `None`, with a message, where that is
    /// not possible.
    ///
    /// # Panics
    /// If the programs for it are missing (apt: xfsprogs, e2fsprogs).
    #[must_use]
    pub fn mount(image: &Path, at: &Path, bytes: u64) -> Option<Self> {
        if !is_root() {
            skipped("cutting the power of a disk needs root");
            return None;
        }
        fs::create_dir_all(at).expect("a folder to mount on");
        let file = File::create(image).expect("a new image");
        file.set_len(bytes).expect("a sparse image");
        run("mkfs.ext4", &["-q", "-F", text(image)]);
        let disk = Self {
            image: image.to_owned(),
            at: at.to_owned(),
        };
        if !disk.attach() {
            skipped("this machine mounts no loop devices");
            return None;
        }
        Some(disk)
    }

    fn attach(&self) -> bool {
        let mount = ["-o", "loop", text(&self.image), text(&self.at)];
        let status = Command::new("mount").args(mount).status();
        status.expect("run mount").success()
    }

    /// Cuts the power: from now on nothing reaches the disk, and what was not synced never will.
    pub fn cut(&self) {
        run("xfs_io", &["-x", "-c", "shutdown", text(&self.at)]);
    }

    /// From now on the disk can only be read, as ext4 decides when it finds a fault in itself.
    ///
    /// # Panics
    /// If the kernel can't be made to find one.
    pub fn go_read_only(&self) {
        run(
            "mount",
            &["-o", "remount,errors=remount-ro", text(&self.at)],
        );
        let device = run("findmnt", &["-n", "-o", "SOURCE", text(&self.at)]);
        let device = device.trim().trim_start_matches("/dev/").to_owned();
        let fault = format!("/sys/fs/ext4/{device}/trigger_fs_error");
        fs::write(fault, "a test wants a disk that can't be written").expect("a fault");
    }

    /// Comes back after [`Self::cut`], once every process that had files open there is gone.
    ///
    /// # Panics
    /// If it can't be mounted again.
    pub fn restore(&self) {
        run("umount", &[text(&self.at)]);
        assert!(self.attach(), "the disk comes back");
    }
}

impl Drop for PowerDisk {
    #[expect(
        clippy::print_stderr,
        reason = "a test that fails must say what it left behind"
    )]
    fn drop(&mut self) {
        // Lazily: a failing test may have processes there that are killed a moment later.
        if let Err(error) = Command::new("umount").args(["-l", text(&self.at)]).status() {
            eprintln!("unmount {}: {error}", self.at.display());
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| {
        panic!("run {program} (apt: xfsprogs, e2fsprogs): {error}");
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
