//! Bytes of a take, pulled from whoever has them: the ingest, or for a repair the store.
//!
//! Owns offsets on the way: bytes arrive in order, each once, with no hole but a declared one. A
//! stream that breaks is opened again where it broke. Must never buffer more than it is asked for.

use super::{
    halt::{self, Halt, Stop},
    jobs::Listeners,
    objects::TakeObjects,
};
use crate::store::StoreError;
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
    #[error(transparent)]
    Store(#[from] StoreError),
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
            Self::Store(error) => !matches!(error, StoreError::Unknown { .. }),
            Self::Differs(_) => true,
            Self::Silent => false,
        }
    }
}

/// What comes next of a take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Bytes that are there.
    Bytes(Bytes),
    /// So many bytes that will never come. More bytes follow; a hole at the end is not told.
    Hole(u64),
}

/// What is known of a take before it is read.
#[derive(Clone, Debug)]
enum Extent {
    /// It has been sealed: its end, and the declared holes still ahead, sorted and apart.
    Sealed { end: u64, holes: Vec<(u64, u64)> },
    /// It may grow. What is missing between two bytes that the ingest has is a hole: it was declared
    /// before the later byte was taken.
    Growing,
}

/// Who has the bytes of a session.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// The ingest that received them.
    Spool(Ingest),
    /// The store, since they were archived raw.
    Takes(TakeObjects),
}

/// Reads one take, in order.
#[derive(Debug)]
pub(crate) struct TakeReader {
    source: Source,
    stop: Stop,
    listeners: Listeners,
    session: SessionId,
    take: u32,
    extent: Extent,
    /// Offset in the take of the next byte to pull.
    position: u64,
    /// Bytes in holes below it.
    absent: u64,
    stream: Option<Streaming<ReadSpoolResponse>>,
    /// Passed over since the last byte.
    hole: u64,
    /// Pulled, but not asked for yet.
    ahead: Bytes,
    backoff: Backoff,
    refusals: u32,
    last_byte: Instant,
}

/// Where bytes come from, and who may end the reading.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) source: Source,
    pub(crate) stop: Stop,
    pub(crate) listeners: Listeners,
}

impl TakeReader {
    /// A reader of take `take` (from 0) of a sealed session, from offset `position` on.
    pub(crate) fn sealed(origin: Origin, manifest: &Manifest, take: u32, position: u64) -> Self {
        let end = manifest
            .takes
            .get(take as usize)
            .map_or(0, |record| record.bytes);
        let mut holes = holes(manifest, take);
        let passed = holes.iter().filter(|&&(_, to)| to <= position);
        let absent = passed.map(|(from, to)| to - from).sum();
        holes.retain(|&(_, to)| to > position);
        let extent = Extent::Sealed { end, holes };
        Self {
            absent,
            ..Self::new(origin, manifest.session, take, position, extent)
        }
    }

    /// A reader of take `take` of a session that is live: it waits for bytes that do not exist yet.
    pub(crate) fn growing(origin: Origin, session: SessionId, take: u32, position: u64) -> Self {
        Self::new(origin, session, take, position, Extent::Growing)
    }

    fn new(origin: Origin, session: SessionId, take: u32, position: u64, extent: Extent) -> Self {
        let Origin {
            source,
            stop,
            listeners,
        } = origin;
        Self {
            source,
            stop,
            listeners,
            session,
            take,
            extent,
            position,
            absent: 0,
            stream: None,
            hole: 0,
            ahead: Bytes::new(),
            backoff: halt::backoff(),
            refusals: 0,
            last_byte: Instant::now(),
        }
    }

    /// The next `limit` bytes, holes passed over; fewer only at the end of the take.
    ///
    /// # Errors
    /// As for [`Self::next`].
    pub(crate) async fn fill(&mut self, limit: usize) -> Result<Bytes, Halt> {
        let mut part = BytesMut::new();
        while part.len() < limit {
            if self.ahead.is_empty() {
                match self.next().await? {
                    None => break,
                    Some(Piece::Hole(_)) => continue,
                    Some(Piece::Bytes(bytes)) => self.ahead = bytes,
                }
            }
            let piece = self.ahead.len().min(limit - part.len());
            part.extend_from_slice(&self.ahead.split_to(piece));
        }
        Ok(part.freeze())
    }

    /// What comes next; `None` at the end of a sealed take. Loses nothing when dropped in between.
    ///
    /// # Errors
    /// If the ingest does not have what the manifest promises, or the job must stop.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>, Halt> {
        if self.ahead.is_empty() {
            let Some(pulled) = self.pull().await? else {
                return Ok(None);
            };
            self.ahead = pulled;
        }
        Ok(Some(match std::mem::take(&mut self.hole) {
            0 => Piece::Bytes(std::mem::take(&mut self.ahead)),
            lost => Piece::Hole(lost),
        }))
    }

    async fn pull(&mut self) -> Result<Option<Bytes>, Halt> {
        loop {
            self.skip_holes();
            if let Extent::Sealed { end, .. } = self.extent
                && self.position >= end
            {
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
        let Extent::Sealed { holes, .. } = &mut self.extent else {
            return;
        };
        while let Some(&(from, to)) = holes.first()
            && from <= self.position
        {
            let beyond = self.position.max(to);
            self.hole += beyond - self.position;
            self.absent += beyond - self.position;
            self.position = beyond;
            holes.remove(0);
        }
    }

    async fn message(&mut self) -> Result<ReadSpoolResponse, Broken> {
        let until = self.until();
        let ingest = match &mut self.source {
            Source::Spool(ingest) => ingest,
            Source::Takes(takes) => {
                let (at, limit) = (self.position - self.absent, until - self.position);
                let read = takes.read(self.take, at, limit).await?;
                let data = read.ok_or(Broken::Differs("its object ends early"))?;
                return Ok(ReadSpoolResponse {
                    offset: self.position,
                    data,
                });
            }
        };
        if self.stream.is_none() {
            let request = ReadSpoolRequest {
                session: self.session.to_string(),
                take: self.take,
                offset: self.position,
                follow: matches!(self.extent, Extent::Growing),
            };
            let opened = timeout(OPEN_TIMEOUT, ingest.read_spool(request)).await;
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
            // The ingest ends a stream that follows when it goes down.
            None if matches!(self.extent, Extent::Growing) => Err(Broken::Silent),
            None => Err(Broken::Differs("it ends early")),
        }
    }

    /// What is new in a message. Nothing may be missing before it or lie behind the end.
    fn accept(&mut self, message: ReadSpoolResponse) -> Result<Bytes, Broken> {
        let ReadSpoolResponse { offset, mut data } = message;
        match &self.extent {
            Extent::Sealed { .. } if offset > self.position => {
                return Err(Broken::Differs(
                    "bytes are missing without a gap that says so",
                ));
            }
            Extent::Growing if data.is_empty() => {}
            Extent::Growing => {
                let beyond = self.position.max(offset);
                self.hole += beyond - self.position;
                self.position = beyond;
            }
            Extent::Sealed { .. } => {}
        }
        let known = usize::try_from(self.position.saturating_sub(offset)).unwrap_or(usize::MAX);
        data.advance(known.min(data.len()));
        if data.len() as u64 > self.until() - self.position {
            return Err(Broken::Differs("it holds more bytes than it should"));
        }
        Ok(data)
    }

    /// Offset of the next declared hole, or of the end.
    fn until(&self) -> u64 {
        match &self.extent {
            Extent::Sealed { end, holes } => {
                holes.first().map_or(*end, |&(from, _)| from.min(*end))
            }
            Extent::Growing => u64::MAX,
        }
    }

    async fn recover(&mut self, broken: Broken) -> Result<(), Halt> {
        self.stream = None;
        if matches!((&self.extent, &broken), (Extent::Growing, Broken::Silent))
            && self.last_byte.elapsed() <= PATIENCE
        {
            // A broadcaster in grace sends nothing either.
            return self.stop.sleep(self.backoff.delay()).await;
        }
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
            broken @ Broken::Store(_) => Halt::ObjectGone {
                take: self.take,
                reason: halt::chain(&broken),
            },
            broken @ (Broken::Status(_) | Broken::Silent) => Halt::SpoolGone {
                take: self.take,
                reason: broken.to_string(),
            },
        }
    }
}

/// Declared holes of a take, in offsets: sorted, and with bytes between them.
pub(crate) fn holes(manifest: &Manifest, take: u32) -> Vec<(u64, u64)> {
    let mut declared: Vec<_> = manifest
        .gaps
        .iter()
        .filter(|gap| gap.take == take && gap.to > gap.from)
        .map(|gap| (gap.from, gap.to))
        .collect();
    declared.sort_unstable();
    let mut holes: Vec<(u64, u64)> = Vec::with_capacity(declared.len());
    for (from, to) in declared {
        match holes.last_mut() {
            Some((_, end)) if *end >= from => *end = to.max(*end),
            _ => holes.push((from, to)),
        }
    }
    holes
}

/// Bytes of a take that exist: its length without holes.
pub(crate) fn media_bytes(manifest: &Manifest, take: u32) -> u64 {
    let end = manifest
        .takes
        .get(take as usize)
        .map_or(0, |record| record.bytes);
    let missing: u64 = holes(manifest, take)
        .into_iter()
        .map(|(from, to)| to.min(end).saturating_sub(from.min(end)))
        .sum();
    end.saturating_sub(missing)
}
