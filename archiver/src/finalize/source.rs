//! Bytes of a take, pulled from the ingest that has them.
//!
//! Owns offsets on the way: bytes arrive in order, each once, with no hole but a declared one. A
//! stream that breaks is opened again where it broke. Must never buffer more than it is asked for.

use super::{
    halt::{self, Halt, Stop},
    jobs::Listeners,
};
use aircheck_core::{id::SessionId, spool::Manifest};
use aircheck_proto::ingest::{
    ReadSpoolRequest, ReadSpoolResponse, ingest_service_client::IngestServiceClient,
};
use aircheck_runtime::backoff::Backoff;
use bytes::{Buf, Bytes, BytesMut};
use std::time::Duration;
use thiserror::Error;
use tokio::time::{Instant, timeout};
use tonic::{Code, Status, Streaming, transport::Channel};

pub(crate) type Ingest = IngestServiceClient<Channel>;

const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two messages of an open stream.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the ingest may say the same definite no before it is believed.
const REFUSALS_MAX: u32 = 5;
/// How long an ingest may be away while nobody waits for the result.
const PATIENCE: Duration = Duration::from_secs(600);

/// What can go wrong with one stream.
#[derive(Debug, Error)]
enum Broken {
    #[error("the ingest answered {0}")]
    Status(Status),
    #[error("the ingest was silent for too long")]
    Silent,
    #[error("{0}")]
    Differs(&'static str),
}

impl Broken {
    /// Whether asking again can hardly change it.
    fn is_definite(&self) -> bool {
        match self {
            Self::Status(status) => matches!(
                status.code(),
                Code::NotFound | Code::DataLoss | Code::OutOfRange | Code::Unimplemented
            ),
            Self::Differs(_) => true,
            Self::Silent => false,
        }
    }
}

/// Reads one take from its first byte to its last.
#[derive(Debug)]
pub(crate) struct TakeReader {
    ingest: Ingest,
    stop: Stop,
    listeners: Listeners,
    session: SessionId,
    take: u32,
    /// Declared holes still ahead, sorted.
    holes: Vec<(u64, u64)>,
    /// Offset in the take of the next byte to pull.
    position: u64,
    end: u64,
    stream: Option<Streaming<ReadSpoolResponse>>,
    /// Pulled, but not asked for yet.
    ahead: Bytes,
    backoff: Backoff,
    refusals: u32,
    last_byte: Instant,
}

impl TakeReader {
    /// A reader of take `take` (from 0), which the manifest has.
    pub(crate) fn new(
        ingest: Ingest,
        stop: Stop,
        listeners: Listeners,
        manifest: &Manifest,
        take: u32,
    ) -> Self {
        Self {
            ingest,
            stop,
            listeners,
            session: manifest.session,
            take,
            holes: holes(manifest, take),
            position: 0,
            end: manifest
                .takes
                .get(take as usize)
                .map_or(0, |record| record.bytes),
            stream: None,
            ahead: Bytes::new(),
            backoff: halt::backoff(),
            refusals: 0,
            last_byte: Instant::now(),
        }
    }

    /// The next `limit` bytes; fewer only at the end of the take.
    ///
    /// # Errors
    /// If the ingest does not have what the manifest promises, or the job must stop.
    pub(crate) async fn fill(&mut self, limit: usize) -> Result<Bytes, Halt> {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let mut part = BytesMut::with_capacity(limit.min(left.saturating_add(self.ahead.len())));
        while part.len() < limit {
            if self.ahead.is_empty() {
                let Some(pulled) = self.pull().await? else {
                    break;
                };
                self.ahead = pulled;
            }
            let piece = self.ahead.len().min(limit - part.len());
            part.extend_from_slice(&self.ahead.split_to(piece));
        }
        Ok(part.freeze())
    }

    async fn pull(&mut self) -> Result<Option<Bytes>, Halt> {
        loop {
            self.skip_holes();
            if self.position >= self.end {
                return Ok(None);
            }
            self.stop.check()?;
            let arrived = match self.message().await {
                Ok(message) => self.accept(message),
                Err(broken) => Err(broken),
            };
            match arrived {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => {
                    self.position += bytes.len() as u64;
                    self.backoff.reset();
                    self.refusals = 0;
                    self.last_byte = Instant::now();
                    return Ok(Some(bytes));
                }
                Err(broken) => self.recover(broken).await?,
            }
        }
    }

    fn skip_holes(&mut self) {
        while let Some(&(from, to)) = self.holes.first()
            && from <= self.position
        {
            self.position = self.position.max(to);
            self.holes.remove(0);
        }
    }

    async fn message(&mut self) -> Result<ReadSpoolResponse, Broken> {
        if self.stream.is_none() {
            let request = ReadSpoolRequest {
                session: self.session.to_string(),
                take: self.take,
                offset: self.position,
                follow: false,
            };
            let opened = timeout(OPEN_TIMEOUT, self.ingest.read_spool(request)).await;
            let opened = opened
                .map_err(|_| Broken::Silent)?
                .map_err(Broken::Status)?;
            self.stream = Some(opened.into_inner());
        }
        let Some(stream) = &mut self.stream else {
            return Err(Broken::Silent);
        };
        let message = timeout(MESSAGE_TIMEOUT, stream.message()).await;
        match message
            .map_err(|_| Broken::Silent)?
            .map_err(Broken::Status)?
        {
            Some(message) => Ok(message),
            None => Err(Broken::Differs("it ends early")),
        }
    }

    /// What is new in a message. Nothing may be missing before it or lie behind the end.
    fn accept(&self, message: ReadSpoolResponse) -> Result<Bytes, Broken> {
        let ReadSpoolResponse { offset, mut data } = message;
        if offset > self.position {
            return Err(Broken::Differs(
                "bytes are missing without a gap that says so",
            ));
        }
        let known = usize::try_from(self.position - offset).unwrap_or(usize::MAX);
        data.advance(known.min(data.len()));
        let until_hole = self
            .holes
            .first()
            .map_or(self.end, |&(from, _)| from.min(self.end));
        if data.len() as u64 > until_hole - self.position {
            return Err(Broken::Differs("it holds more bytes than it should"));
        }
        Ok(data)
    }

    async fn recover(&mut self, broken: Broken) -> Result<(), Halt> {
        self.stream = None;
        if broken.is_definite() {
            self.refusals += 1;
            if self.refusals >= REFUSALS_MAX {
                return Err(self.give_up(broken));
            }
        }
        if self.last_byte.elapsed() > PATIENCE && !self.listeners.any() {
            return Err(Halt::Abandoned);
        }
        self.stop
            .pause(&mut self.backoff, "read spool", &broken)
            .await
    }

    fn give_up(&self, broken: Broken) -> Halt {
        match broken {
            Broken::Differs(reason) => Halt::Corrupt {
                take: self.take,
                at: self.position,
                reason,
            },
            broken @ (Broken::Status(_) | Broken::Silent) => Halt::SpoolGone {
                take: self.take,
                reason: broken.to_string(),
            },
        }
    }
}

/// Declared holes of a take, sorted, in offsets.
fn holes(manifest: &Manifest, take: u32) -> Vec<(u64, u64)> {
    let mut holes: Vec<_> = manifest
        .gaps
        .iter()
        .filter(|gap| gap.take == take && gap.to > gap.from)
        .map(|gap| (gap.from, gap.to))
        .collect();
    holes.sort_unstable();
    holes
}

/// Bytes of a take that exist: its length without holes.
pub(crate) fn media_bytes(manifest: &Manifest, take: u32) -> u64 {
    let end = manifest
        .takes
        .get(take as usize)
        .map_or(0, |record| record.bytes);
    let mut at = 0;
    let mut bytes = 0;
    for (from, to) in holes(manifest, take) {
        bytes += from.min(end).saturating_sub(at);
        at = at.max(to);
    }
    bytes + end.saturating_sub(at)
}
