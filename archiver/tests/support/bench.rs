//! A bench of archiver, ingest and store for whole sessions.
//!
//! Owns the way of takes to an archive; must never judge the archive's media.

use super::{
    archiver::Archiver,
    ingest::IngestServer,
    s3::S3Server,
    session::{STARTED, sealed},
};
use aircheck_core::spool::Manifest;
use aircheck_proto::archiver::{Recording, RecordingStatus};
use tempfile::TempDir;

/// Where everything of show 7 goes.
pub const FOLDER: &str = "recordings/7/2026-11-23T20-15-00Z";

/// Everything a test needs, on SQLite.
pub struct Bench {
    pub s3: S3Server,
    pub ingest: IngestServer,
    pub archiver: Archiver,
    pub folder: TempDir,
}

impl Bench {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().expect("make a folder");
        let (s3, ingest) = (S3Server::start().await, IngestServer::start().await);
        let database = folder.path().join("aircheck.db");
        let url = format!("sqlite://{}?mode=rwc", database.display());
        let archiver = Archiver::start(&url, &s3).await;
        Self {
            s3,
            ingest,
            archiver,
            folder,
        }
    }

    /// A session of these takes, each beginning so many ms after it.
    pub fn session(&self, takes: &[(u64, &[u8])]) -> Manifest {
        let lengths: Vec<_> = takes.iter().map(|(_, bytes)| bytes.len() as u64).collect();
        let mut manifest = sealed(1, &lengths);
        for (index, (record, (wall_ms, bytes))) in (0..).zip(manifest.takes.iter_mut().zip(takes)) {
            record.started_unix_ms = STARTED + wall_ms;
            let runs = vec![(0, bytes.to_vec())];
            self.ingest
                .spool(&manifest.session.to_string(), index, runs);
        }
        manifest
    }

    pub async fn archive(&self, manifest: &Manifest) -> Recording {
        let recording = self.archiver.finalize(manifest, &self.ingest).await;
        let recording = recording.expect("a recording");
        assert_eq!(recording.status(), RecordingStatus::Archived);
        assert_eq!(recording.error, None);
        recording
    }

    /// The archive as a file for other readers.
    pub fn file(&self, key: &str) -> std::path::PathBuf {
        let name = key.rsplit('/').next().expect("a name");
        let path = self.folder.path().join(name);
        std::fs::write(&path, self.s3.object(key)).expect("write the archive");
        path
    }

    pub fn manifest(&self) -> serde_json::Value {
        let bytes = self.s3.object(&format!("{FOLDER}/manifest.json"));
        serde_json::from_slice(&bytes).expect("json")
    }
}
