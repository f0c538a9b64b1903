//! The only code of the ingest that creates, syncs, renames or removes files.
//!
//! Owns the order of system calls that makes something durable. Must never retry a sync: after a
//! failed one the kernel may have dropped the pages, and a second that succeeds proves nothing.

use super::Error;
use aircheck_core::id::SessionId;
use aircheck_runtime::failpoint::Failpoint;
use rustix::fs::{FallocateFlags, fallocate};
use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Smallest segment worth creating when the disk is nearly full.
const SEGMENT_BYTES_MIN: u64 = 128 << 10;

/// Set in the numbers of kept files, so that no record of a segment passes for one of theirs.
pub(super) const KEPT: u64 = 1 << 63;

/// An open segment file, or a kept file, which is one of a single session.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) file: File,
    pub(super) path: PathBuf,
    /// Bytes it takes up on disk, unless it is a kept file, which grows.
    pub(super) bytes: u64,
    /// Bytes of it that a session needs.
    live: AtomicU64,
}

impl Segment {
    fn new(number: u64, file: File, path: PathBuf, bytes: u64) -> Self {
        let live = AtomicU64::new(0);
        Self {
            number,
            file,
            path,
            bytes,
            live,
        }
    }

    /// Where it stands in the order of reading: kept files come before all segments.
    pub(super) fn rank(&self) -> u64 {
        if self.number & KEPT == 0 {
            self.number
        } else {
            0
        }
    }

    /// Bytes of it that a session needs.
    pub(super) fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    pub(super) fn need(&self, bytes: u64) {
        self.live.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn need_not(&self, bytes: u64) {
        self.live.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn read(&self, position: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, position)
    }

    /// Writes and syncs. Whatever the error, the segment must not be written or synced again.
    pub(super) fn append(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, position)?;
        Failpoint::BatchWritten.pass();
        self.file.sync_data()
    }
}

fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016}.segment"))
}

/// Creates a preallocated segment of `wanted_bytes`, or as much of it as the disk has room for but
/// at least `needed_bytes`, and makes its name durable.
pub(super) fn create_segment(
    dir: &Path,
    number: u64,
    needed_bytes: u64,
    wanted_bytes: u64,
) -> io::Result<Segment> {
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
    Failpoint::SegmentCreated.pass();
    sync_dir(dir)?;
    Ok(Segment::new(number, file, path, capacity))
}

/// Creates an empty kept file. Its name is durable only after [`sync_dir`].
pub(super) fn create_kept(dir: &Path, number: u64, session: SessionId) -> io::Result<Segment> {
    let path = dir.join(format!("{:016}-{session}.kept", number & !KEPT));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    Ok(Segment::new(number | KEPT, file, path, 0))
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

/// Room on the file system of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) free_bytes: u64,
    pub(super) total_bytes: u64,
}

pub(super) fn room(dir: &Path) -> io::Result<Room> {
    let found = rustix::fs::statvfs(dir)?;
    Ok(Room {
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
    })
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

/// What a journal's directory holds.
#[derive(Debug, Default)]
pub(super) struct Opened {
    /// In the order of their numbers.
    pub(super) segments: Vec<Segment>,
    /// In the order of their numbers, each with its session.
    pub(super) kept: Vec<(SessionId, Segment)>,
}

/// Opens every file of the journal, syncing each before anybody relies on what it says: its last writer
/// may have died between write and sync.
pub(super) fn open_journal(dir: &Path) -> Result<Opened, Error> {
    let failed = |source| Error::Io {
        doing: "open spool segments",
        source,
    };
    let mut opened = Opened::default();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if let Some(number) = segment_number(name) {
            opened
                .segments
                .push(open_file(number, path).map_err(failed)?);
        } else if let Some((number, session)) = kept_name(name) {
            let kept = open_file(number | KEPT, path).map_err(failed)?;
            opened.kept.push((session, kept));
        }
    }
    sync_dir(dir).map_err(failed)?;
    opened.segments.sort_by_key(|segment| segment.number);
    opened.kept.sort_by_key(|(_, kept)| kept.number);
    Ok(opened)
}

fn segment_number(name: &str) -> Option<u64> {
    name.strip_suffix(".segment")?.parse().ok()
}

fn kept_name(name: &str) -> Option<(u64, SessionId)> {
    let (number, session) = name.strip_suffix(".kept")?.split_once('-')?;
    Some((number.parse().ok()?, session.parse().ok()?))
}

fn open_file(number: u64, path: PathBuf) -> io::Result<Segment> {
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    file.sync_all()?;
    let bytes = file.metadata()?.len();
    Ok(Segment::new(number, file, path, bytes))
}

/// Removes files nobody needs, in order, and makes that durable.
pub(super) fn remove_files(dir: &Path, paths: &[PathBuf]) -> io::Result<()> {
    for path in paths {
        match std::fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Failpoint::SegmentsRemoved.pass();
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_preallocated_and_found_again_in_order() {
        let dir = tempfile::tempdir().expect("tempdir");
        for number in [2, 10, 1] {
            let segment = create_segment(dir.path(), number, 1000, 1 << 20).expect("created");
            assert_eq!(segment.bytes, 1 << 20);
            assert_eq!(segment.file.metadata().expect("metadata").len(), 1 << 20);
        }
        assert!(
            create_segment(dir.path(), 2, 1, 1).is_err(),
            "never opened twice"
        );
        let numbers: Vec<_> = open_journal(dir.path())
            .expect("opened")
            .segments
            .iter()
            .map(|s| s.number)
            .collect();
        assert_eq!(numbers, [1, 2, 10]);
    }
}
