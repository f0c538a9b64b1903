//! A file that is not complete yet.
//!
//! Owns `FILE.part` until its bytes are proven; only then it gets its name. Must never give it up for
//! a mere pause.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use crc_fast::{CrcAlgorithm::Crc64Nvme, Digest};
use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};
use thiserror::Error;
use tokio::{
    fs::{self, File, OpenOptions},
    io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _},
};

/// Bytes read at a time.
const BLOCK: usize = 256 << 10;

/// What the recording says of its archive.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    pub(super) bytes: u64,
    /// Base64 as S3 writes it.
    pub(super) crc64nvme: Option<String>,
}

/// Why a download is no archive.
#[derive(Debug, Error)]
pub(super) enum PartialError {
    /// The file can't be written.
    #[error("can't write {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Too short, or too long.
    #[error("{path} has {found} bytes, and the recording {expected}")]
    Length {
        /// The incomplete file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// The recording's.
        expected: u64,
    },
    /// Other bytes.
    #[error("the checksum of {path} is {found}, and the recording's {expected}")]
    Checksum {
        /// The incomplete file.
        path: PathBuf,
        /// Its checksum.
        found: String,
        /// The recording's.
        expected: String,
    },
}

/// `FILE.part`.
#[derive(Debug)]
pub(super) struct Partial {
    file: File,
    path: PathBuf,
    wanted: PathBuf,
    bytes: u64,
    digest: Digest,
}

impl Partial {
    /// Opens it, empty unless `resume`.
    ///
    /// # Errors
    /// If it can't be written, or what is there can't be read.
    pub(super) async fn open(wanted: &Path, resume: bool) -> Result<Self, PartialError> {
        let mut name = OsString::from(wanted.as_os_str());
        name.push(".part");
        let path = PathBuf::from(name);
        let opened = read_through(&path, resume).await;
        let (file, bytes, digest) = opened.map_err(|source| PartialError::Io {
            path: path.clone(),
            source,
        })?;
        Ok(Self {
            file,
            path,
            wanted: wanted.to_owned(),
            bytes,
            digest,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How many there are.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Begins again, because the store sends everything.
    ///
    /// # Errors
    /// If the file can't be emptied.
    pub(super) async fn restart(&mut self) -> Result<(), PartialError> {
        let emptied = async {
            self.file.set_len(0).await?;
            self.file.rewind().await.map(drop)
        };
        let emptied = emptied.await;
        (self.bytes, self.digest) = (0, Digest::new(Crc64Nvme));
        emptied.map_err(|source| self.failed(source))
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// If they can't be written.
    pub(super) async fn append(&mut self, data: &[u8]) -> Result<(), PartialError> {
        let written = self.file.write_all(data).await;
        written.map_err(|source| self.failed(source))?;
        self.digest.update(data);
        self.bytes += data.len() as u64;
        Ok(())
    }

    /// Proves the bytes and gives them their name.
    ///
    /// # Errors
    /// If they are not those of the recording: then they are removed where more bytes would not help.
    #[expect(
        clippy::disallowed_methods,
        reason = "the file is synced before, its directory after"
    )]
    pub(super) async fn finish(mut self, proof: &Proof) -> Result<(), PartialError> {
        if let Err(error) = self.prove(proof) {
            if self.bytes >= proof.bytes {
                fs::remove_file(&self.path)
                    .await
                    .map_err(|source| self.failed(source))?;
            }
            return Err(error);
        }
        let named = async {
            self.file.flush().await?;
            self.file.sync_all().await?;
            fs::rename(&self.path, &self.wanted).await?;
            let dir = self
                .wanted
                .parent()
                .filter(|dir| !dir.as_os_str().is_empty());
            File::open(dir.unwrap_or_else(|| Path::new(".")))
                .await?
                .sync_all()
                .await
        };
        let named = named.await;
        named.map_err(|source| self.failed(source))
    }

    fn prove(&self, proof: &Proof) -> Result<(), PartialError> {
        let path = self.path.clone();
        if self.bytes != proof.bytes {
            return Err(PartialError::Length {
                path,
                found: self.bytes,
                expected: proof.bytes,
            });
        }
        let found = STANDARD.encode(self.digest.finalize().to_be_bytes());
        match &proof.crc64nvme {
            Some(expected) if *expected != found => Err(PartialError::Checksum {
                path,
                found,
                expected: expected.clone(),
            }),
            Some(_) | None => Ok(()),
        }
    }

    fn failed(&self, source: io::Error) -> PartialError {
        PartialError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

async fn read_through(path: &Path, resume: bool) -> io::Result<(File, u64, Digest)> {
    let mut options = OpenOptions::new();
    let options = options
        .create(true)
        .read(true)
        .write(true)
        .truncate(!resume);
    let mut file = options.open(path).await?;
    let (mut bytes, mut digest, mut block) = (0, Digest::new(Crc64Nvme), vec![0; BLOCK]);
    loop {
        match file.read(&mut block).await? {
            0 => return Ok((file, bytes, digest)),
            read => {
                digest.update(&block[..read]);
                bytes += read as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof() -> Proof {
        Proof {
            bytes: 9,
            crc64nvme: Some("rosUhgp5mIg=".to_owned()),
        }
    }

    #[tokio::test]
    async fn a_download_has_its_name_only_when_proven() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("show.webm");
        let mut partial = Partial::open(&path, false).await.expect("opens");
        partial.append(b"12345").await.expect("writes");
        partial.append(b"6789").await.expect("writes");
        assert!(!path.exists());
        partial.finish(&proof()).await.expect("proven");
        assert_eq!(std::fs::read(&path).expect("read"), b"123456789");
        assert!(!dir.path().join("show.webm.part").exists());
    }

    #[tokio::test]
    async fn what_was_left_is_resumed_and_proven_with_the_rest() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("show.webm");
        let mut partial = Partial::open(&path, false).await.expect("opens");
        partial.append(b"1234").await.expect("writes");
        let short = partial.finish(&proof()).await;
        assert!(matches!(short, Err(PartialError::Length { found: 4, .. })));
        let mut partial = Partial::open(&path, true).await.expect("opens");
        assert_eq!(partial.bytes(), 4);
        partial.append(b"56789").await.expect("writes");
        partial.finish(&proof()).await.expect("proven");
        assert_eq!(std::fs::read(&path).expect("read"), b"123456789");
    }

    #[tokio::test]
    async fn other_bytes_are_refused_and_removed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("show.webm");
        let mut partial = Partial::open(&path, false).await.expect("opens");
        partial.append(b"12345678X").await.expect("writes");
        let wrong = partial.finish(&proof()).await;
        assert!(matches!(wrong, Err(PartialError::Checksum { .. })));
        assert_eq!(std::fs::read_dir(dir.path()).expect("dir").count(), 0);
    }

    #[tokio::test]
    async fn a_store_that_ignores_ranges_restarts_the_file() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("show.webm");
        std::fs::write(dir.path().join("show.webm.part"), b"1234").expect("write");
        let mut partial = Partial::open(&path, true).await.expect("opens");
        partial.restart().await.expect("empties");
        partial.append(b"123456789").await.expect("writes");
        partial.finish(&proof()).await.expect("proven");
        assert_eq!(std::fs::read(&path).expect("read"), b"123456789");
    }
}
