//! One process per directory.
//!
//! Owns the lock file. The kernel releases the lock with the process, however that ends, so a lock
//! file that is left behind means nothing. Must never be held by anything but a living process.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// Name of the lock file within the directory.
const NAME: &str = ".lock";

/// Why a directory is not ours.
#[derive(Debug, Error)]
pub(crate) enum LockError {
    /// Somebody else works there.
    #[error("another aircheck process uses {0}")]
    Taken(PathBuf),
    /// It can't be made or written.
    #[error("can't write to {dir}")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A directory that is ours until this is dropped.
#[derive(Debug)]
pub(crate) struct DirLock(#[expect(dead_code, reason = "dropping the file is its use")] File);

impl DirLock {
    /// Makes the directory if need be, and takes it.
    ///
    /// # Errors
    /// If another process has it, or it can't be written to.
    pub(crate) fn take(dir: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io {
            dir: dir.to_owned(),
            source,
        };
        fs::create_dir_all(dir).map_err(failed)?;
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(dir.join(NAME))
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(LockError::Taken(dir.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let dir = tempfile::tempdir().expect("tempdir");
        let dir = dir.path().join("new");
        let first = DirLock::take(&dir).expect("free");
        assert!(matches!(DirLock::take(&dir), Err(LockError::Taken(_))));
        drop(first);
        assert!(DirLock::take(&dir).is_ok());
    }

    #[test]
    fn a_path_that_is_a_file_is_told_as_such() {
        let file = tempfile::NamedTempFile::new().expect("tempfile");
        assert!(matches!(
            DirLock::take(file.path()),
            Err(LockError::Io { .. })
        ));
    }
}
