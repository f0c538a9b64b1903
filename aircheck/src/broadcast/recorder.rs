//! A file that is recorded: its bytes come when a recorder would have had them.
//!
//! Owns reading and pace; must never know whether anybody is connected, as a recorder does not.

use super::{
    header,
    plan::{Plan, PlanError, log_path},
};
use aircheck_core::media::{Container, Probe, probe};
use bytes::{Bytes, BytesMut};
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use thiserror::Error;
use tokio::{
    fs::{self, File},
    io::AsyncReadExt as _,
    sync::mpsc,
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

/// Recorded chunks that nobody has taken yet.
const QUEUE: usize = 4;
/// How far into a file its header is looked for, in bytes.
const HEADER_MAX: u64 = 1 << 20;

/// How a file is recorded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Times real time; 0: as fast as possible.
    pub(crate) speed: f64,
    /// Bytes a second at speed 1, where no log says how it was.
    pub(crate) bytes_per_s: u64,
    /// Length of a chunk, likewise.
    pub(crate) chunk: Duration,
}

/// A file that can't be broadcast.
#[derive(Debug, Error)]
pub(crate) enum SourceError {
    /// It can't be read.
    #[error("can't read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It holds something else.
    #[error("{0} is no WebM, fragmented MP4 or Ogg file")]
    Unsupported(PathBuf),
    /// The description of its chunks is of no use.
    #[error("can't use {path}")]
    Log {
        /// The description.
        path: PathBuf,
        /// Why.
        #[source]
        source: PlanError,
    },
}

/// A file, ready to be recorded.
#[derive(Debug)]
pub(crate) struct Recorder {
    file: File,
    path: PathBuf,
    plan: Plan,
    speed: f64,
    /// Content type as a browser would name it.
    pub(crate) mime: String,
    /// Size of the file when it was opened, in bytes.
    pub(crate) bytes: u64,
    /// What a new take has to begin with, where it was found.
    pub(super) header: Option<Bytes>,
}

/// A recording under way.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) chunks: mpsc::Receiver<Result<Bytes, SourceError>>,
    _task: AbortOnDropHandle<()>,
}

impl Recorder {
    /// Opens a file and finds out how it is to be recorded. `mime` wins over what is found.
    ///
    /// # Errors
    /// If it can't be read, or is none that can be broadcast.
    pub(crate) async fn open(
        path: &Path,
        mime: Option<String>,
        pace: Pace,
    ) -> Result<Self, SourceError> {
        let failed = |source| SourceError::Read {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).await.map_err(failed)?;
        let bytes = file.metadata().await.map_err(failed)?.len();
        let mut head = Vec::new();
        let begin = File::open(path).await.map_err(failed)?;
        begin
            .take(HEADER_MAX)
            .read_to_end(&mut head)
            .await
            .map_err(failed)?;
        let Probe::Found(container) = probe(&head) else {
            return Err(SourceError::Unsupported(path.to_owned()));
        };
        let header = header::length(container, &head);
        head.truncate(header.unwrap_or_default());
        let (plan, logged) = plan(path, pace).await?;
        let found = logged.filter(|mime| !mime.is_empty());
        Ok(Self {
            file,
            path: path.to_owned(),
            plan,
            speed: pace.speed,
            mime: mime
                .or(found)
                .unwrap_or_else(|| usual_mime(container).to_owned()),
            bytes,
            header: header.map(|_| head.into()),
        })
    }

    /// Begins to record.
    pub(super) fn start(self) -> Recording {
        let (sender, chunks) = mpsc::channel(QUEUE);
        let task = tokio::spawn(async move {
            let path = self.path.clone();
            if let Err(source) = self.record(&sender).await {
                let failed = SourceError::Read { path, source };
                if sender.send(Err(failed)).await.is_err() {
                    tracing::debug!("nobody records any more");
                }
            }
        });
        Recording {
            chunks,
            _task: AbortOnDropHandle::new(task),
        }
    }

    async fn record(mut self, chunks: &mpsc::Sender<Result<Bytes, SourceError>>) -> io::Result<()> {
        let begun = Instant::now();
        for index in 0.. {
            // Whatever follows a recorder's last chunk comes at once.
            let piece = self.plan.piece(index);
            let bytes = piece.map_or(1 << 20, |piece| piece.bytes);
            if let Some(piece) = piece.filter(|_| self.speed > 0.0) {
                tokio::time::sleep_until(begun + piece.at.div_f64(self.speed)).await;
            }
            let mut data = BytesMut::with_capacity(bytes);
            let mut rest = (&mut self.file).take(bytes as u64);
            while rest.read_buf(&mut data).await? > 0 {}
            let ended = data.len() < bytes;
            if chunks.send(Ok(data.freeze())).await.is_err() || ended {
                break;
            }
        }
        Ok(())
    }
}

async fn plan(path: &Path, pace: Pace) -> Result<(Plan, Option<String>), SourceError> {
    let log = log_path(path);
    match fs::read(&log).await {
        Ok(text) => {
            let read = Plan::recorded(&text);
            let (plan, mime) = read.map_err(|source| SourceError::Log { path: log, source })?;
            Ok((plan, Some(mime)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((
            Plan::even(pace.bytes_per_s, pace.chunk, pace.speed > 0.0),
            None,
        )),
        Err(source) => Err(SourceError::Read { path: log, source }),
    }
}

/// What browsers name it when they record sound.
fn usual_mime(container: Container) -> &'static str {
    match container {
        Container::WebM => "audio/webm;codecs=opus",
        Container::Mp4 => "audio/mp4",
        Container::Ogg => "audio/ogg;codecs=opus",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Pace = Pace {
        speed: 0.0,
        bytes_per_s: 1000,
        chunk: Duration::from_millis(100),
    };
    const WEBM: &[u8] = &[
        0x1a, 0x45, 0xdf, 0xa3, 1, 2, 3, 0x1f, 0x43, 0xb6, 0x75, 5, 6, 7, 8, 9, 10,
    ];

    async fn all(recorder: Recorder) -> Vec<Bytes> {
        let mut recording = recorder.start();
        let mut chunks = Vec::new();
        while let Some(chunk) = recording.chunks.recv().await {
            chunks.push(chunk.expect("readable"));
        }
        chunks
    }

    #[tokio::test]
    async fn a_file_is_recorded_whole_in_the_chunks_of_its_log() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("show.bin");
        std::fs::write(&path, WEBM).expect("write");
        let log = r#"{"mimeType":"video/webm","chunks":[{"t_ms":1,"size":5,"off":0},{"t_ms":2,"size":4,"off":5}]}"#;
        std::fs::write(dir.path().join("show.chunks.json"), log).expect("write");
        let recorder = Recorder::open(&path, None, FAST).await.expect("opens");
        assert_eq!(recorder.mime, "video/webm");
        assert_eq!(recorder.header.as_deref(), Some(&WEBM[..7]));
        let chunks = all(recorder).await;
        assert_eq!(chunks.iter().map(Bytes::len).collect::<Vec<_>>(), [5, 4, 8]);
        assert_eq!(chunks.concat(), WEBM);
    }

    #[tokio::test]
    async fn a_file_without_a_log_is_probed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("show.webm");
        std::fs::write(&path, WEBM).expect("write");
        let recorder = Recorder::open(&path, None, FAST).await.expect("opens");
        assert_eq!(recorder.mime, "audio/webm;codecs=opus");
        assert_eq!(all(recorder).await.concat(), WEBM);
        std::fs::write(&path, "no media at all").expect("write");
        let refused = Recorder::open(&path, None, FAST).await;
        assert!(matches!(refused, Err(SourceError::Unsupported(_))));
    }
}
