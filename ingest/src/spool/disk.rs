//! The only code of the ingest that creates, syncs, renames or removes files.
//!
//! Owns the order of system calls that makes something durable. Must never retry a sync: after a
//! failed one the kernel may have dropped the pages, and a second that succeeds proves nothing.

use super::Error;
use rustix::fs::{FallocateFlags, fallocate};
use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

/// Smallest segment worth creating when the disk is nearly full.
const SEGMENT_BYTES_MIN: u64 = 128 << 10;

/// An open segment file.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) file: File,
    pub(super) path: PathBuf,
}

impl Segment {
    pub(super) fn read(&self, position: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, position)
    }

    /// Writes and syncs. Whatever the error, the segment must not be written or synced again.
    pub(super) fn append(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, position)?;
        self.file.sync_data()
    }
}

fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016}.segment"))
}

/// Creates a preallocated segment of `wanted_bytes`, or as much of it as the disk has room for but
/// at least `needed_bytes`, and makes its name durable. Returns it with its capacity.
pub(super) fn create_segment(
    dir: &Path,
    number: u64,
    needed_bytes: u64,
    wanted_bytes: u64,
) -> io::Result<(Segment, u64)> {
    let path = segment_path(dir, number);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    let capacity = match preallocate(&file, needed_bytes, wanted_bytes) {
        Ok(capacity) => capacity,
        Err(error) => {
            std::fs::remove_file(&path)?;
            return Err(error);
        }
    };
    file.sync_all()?;
    sync_dir(dir)?;
    Ok((Segment { number, file, path }, capacity))
}

fn preallocate(file: &File, needed_bytes: u64, wanted_bytes: u64) -> io::Result<u64> {
    let floor = needed_bytes.max(SEGMENT_BYTES_MIN);
    let mut capacity = wanted_bytes.max(floor);
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, capacity) {
            Ok(()) => return Ok(capacity),
            Err(rustix::io::Errno::OPNOTSUPP) => {
                // A sparse file: the room is found, or not, at each append.
                file.set_len(capacity)?;
                return Ok(capacity);
            }
            Err(rustix::io::Errno::NOSPC) if capacity > floor => {
                // Some filesystems keep what they found before they ran out.
                file.set_len(0)?;
                capacity = (capacity / 2).max(floor);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates a directory and its parents, durably.
pub(super) fn create_dir(dir: &Path) -> Result<(), Error> {
    let failed = |source| Error::Io {
        doing: "create spool directory",
        source,
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    sync_dir(dir).map_err(failed)?;
    match dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_dir(parent).map_err(failed),
        None => Ok(()),
    }
}

/// Opens every segment in order, syncing each before anybody relies on what it says: its last writer
/// may have died between write and sync.
pub(super) fn open_segments(dir: &Path) -> Result<Vec<Segment>, Error> {
    let failed = |source| Error::Io {
        doing: "open spool segments",
        source,
    };
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".segment"))
            .and_then(|digits| digits.parse().ok());
        let Some(number) = number else { continue };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        file.sync_all().map_err(failed)?;
        segments.push(Segment { number, file, path });
    }
    sync_dir(dir).map_err(failed)?;
    segments.sort_by_key(|segment| segment.number);
    Ok(segments)
}

/// Removes segments nobody needs, in order, and makes that durable.
pub(super) fn remove_segments(dir: &Path, paths: &[PathBuf]) -> io::Result<()> {
    for path in paths {
        match std::fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_preallocated_and_found_again_in_order() {
        let dir = tempfile::tempdir().expect("tempdir");
        for number in [2, 10, 1] {
            let (segment, capacity) =
                create_segment(dir.path(), number, 1000, 1 << 20).expect("created");
            assert_eq!(capacity, 1 << 20);
            assert_eq!(segment.file.metadata().expect("metadata").len(), 1 << 20);
        }
        assert!(
            create_segment(dir.path(), 2, 1, 1).is_err(),
            "never opened twice"
        );
        let numbers: Vec<_> = open_segments(dir.path())
            .expect("opened")
            .iter()
            .map(|s| s.number)
            .collect();
        assert_eq!(numbers, [1, 2, 10]);
    }
}
