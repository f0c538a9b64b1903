//! The endless stream for listeners: one header, then small clusters on one clock, across takes.
//!
//! A listener may join at any cluster that starts with a keyframe. Gaps between takes are not
//! filled (a listener would only fall behind by them); timestamps jump to the wall clock instead.

use std::collections::VecDeque;

use bytes::Bytes;

use super::limits::{NS_PER_MS, TIMESTAMP_MAX_NS};
use super::packet::{DemuxError, Event, Packet, Track};
use super::stitch::{OpenTake, Stitch, Stitched, TakeStart};
use super::timeline::Gaps;
use super::webm::cluster::{BlockAt, Cluster, whole_ms};
use super::webm::header::{self, DocType, Info};

/// Length of a cluster, ms: what a listener waits for beyond the recorder's own delay.
const CLUSTER_MS: u64 = 300;
/// Size at which a cluster is cut whatever its length, bytes.
const CLUSTER_BYTES: usize = 1024 * 1024;

/// Why a take cannot join the live stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LiveError {
    /// No take was begun, or the last one was refused.
    #[error("no take is open")]
    NoTake,
    /// The take's codec or picture size differs from what listeners were told.
    #[error("the take's {codec_id} track does not continue the stream")]
    Incompatible {
        /// Codec of the first track that does not fit.
        codec_id: String,
    },
    /// The live stream cannot hold the codec.
    #[error("{codec_id} cannot be sent live")]
    Unsupported {
        /// Name of the codec.
        codec_id: String,
    },
    /// The take cannot be read.
    #[error(transparent)]
    Demux(#[from] DemuxError),
    /// The stream is longer than a clock in a `WebM` should run.
    #[error("the live stream is longer than 30 days")]
    TooLong,
}

/// A piece of the stream that can be sent as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveCluster {
    /// One whole cluster.
    pub bytes: Bytes,
    /// Its timestamp, ms since the stream's start.
    pub ts_ms: u64,
    /// Whether a listener can start here.
    pub starts_with_keyframe: bool,
}

/// Makes the live stream of a session.
#[derive(Debug)]
pub struct LiveMuxer {
    stitch: Stitch,
    take: Option<OpenTake>,
    init: Option<Bytes>,
    open: Option<OpenCluster>,
    ready: VecDeque<LiveCluster>,
}

#[derive(Debug)]
struct OpenCluster {
    cluster: Cluster,
    starts_with_keyframe: bool,
}

impl Default for LiveMuxer {
    fn default() -> Self {
        Self::new()
    }
}

impl LiveMuxer {
    /// A stream without media yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            stitch: Stitch::new(Gaps::Keep),
            take: None,
            init: None,
            open: None,
            ready: VecDeque::new(),
        }
    }

    /// Begins a take; one that is still open ends first.
    pub fn begin_take(&mut self, start: TakeStart) {
        self.end_take();
        self.stitch.begin_take(start);
        self.take = Some(OpenTake::new(start));
    }

    /// Goes on with a take in its middle. `known` are pieces of it with their offsets, in order, the
    /// first bytes among them: they say what it is, and their media is over. What is pushed next
    /// stands at `offset`.
    ///
    /// # Errors
    /// As for [`Self::push`].
    pub fn rejoin_take(
        &mut self,
        start: TakeStart,
        known: &[(u64, Bytes)],
        offset: u64,
    ) -> Result<(), LiveError> {
        self.begin_take(start);
        let mut at = 0;
        for (from, bytes) in known {
            self.learn(from.saturating_sub(at), bytes)?;
            at = from + bytes.len() as u64;
        }
        self.learn(offset.saturating_sub(at), &[])
    }

    /// Reads for the tracks alone, behind a hole of `lost_bytes`.
    fn learn(&mut self, lost_bytes: u64, bytes: &[u8]) -> Result<(), LiveError> {
        let take = self.take.as_mut().ok_or(LiveError::NoTake)?;
        if lost_bytes > 0 {
            take.reader.skip(lost_bytes);
        }
        take.reader.push(bytes);
        while let Some(event) = self.take.as_mut().and_then(|take| take.reader.poll()) {
            if matches!(event, Event::Packet(_)) {
                continue;
            }
            if let Err(error) = self.handle(&event) {
                self.end_take();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Adds the next bytes of the take. Call [`Self::poll`] until `None` afterwards.
    ///
    /// # Errors
    /// [`LiveError`] when the take cannot be part of the stream; it is closed then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), LiveError> {
        self.take
            .as_mut()
            .ok_or(LiveError::NoTake)?
            .reader
            .push(bytes);
        self.drain()
    }

    /// Passes over `lost_bytes` of the take that will never come.
    ///
    /// # Errors
    /// As for [`Self::push`].
    pub fn hole(&mut self, lost_bytes: u64) -> Result<(), LiveError> {
        self.take
            .as_mut()
            .ok_or(LiveError::NoTake)?
            .reader
            .skip(lost_bytes);
        self.stitch.hole();
        self.drain()
    }

    /// Ends the take; what it left is made a cluster at once. The stream can go on.
    pub fn end_take(&mut self) {
        self.cut();
        self.take = None;
    }

    /// The head of the stream, for every listener once; `None` before the first media.
    #[must_use]
    pub fn init(&self) -> Option<Bytes> {
        self.init.clone()
    }

    /// The next finished cluster.
    pub fn poll(&mut self) -> Option<LiveCluster> {
        self.ready.pop_front()
    }

    fn drain(&mut self) -> Result<(), LiveError> {
        while let Some(event) = self.take.as_mut().and_then(|take| take.reader.poll()) {
            if let Err(error) = self.handle(&event) {
                self.end_take();
                return Err(error);
            }
        }
        Ok(())
    }

    fn handle(&mut self, event: &Event) -> Result<(), LiveError> {
        match event {
            Event::Tracks(tracks) => self.tracks(tracks),
            Event::Packet(packet) => self.packet(packet),
            Event::Lost { .. } => {
                self.stitch.hole();
                Ok(())
            }
            Event::NestedHeader { .. } => {
                self.stitch.restart();
                Ok(())
            }
            Event::Failed(error) => Err(LiveError::Demux(error.clone())),
            Event::ClusterStart { .. } => Ok(()),
        }
    }

    fn tracks(&mut self, tracks: &[Track]) -> Result<(), LiveError> {
        if let Some(foreign) = tracks.iter().find(|track| !track.is_matroska_codec()) {
            let codec_id = foreign.codec_id.clone();
            return Err(LiveError::Unsupported { codec_id });
        }
        let refused = self.stitch.tracks(tracks);
        refused.map_err(|refused| LiveError::Incompatible {
            codec_id: refused.codec_id,
        })
    }

    fn packet(&mut self, packet: &Packet) -> Result<(), LiveError> {
        let Some(placed) = self.stitch.packet(packet) else {
            return Ok(());
        };
        if placed.ts_ns > TIMESTAMP_MAX_NS {
            return Err(LiveError::TooLong);
        }
        if self.init.is_none() {
            self.init = Some(self.head());
        }
        self.write(&placed, packet);
        Ok(())
    }

    fn head(&self) -> Bytes {
        let tracks = || self.stitch.lanes().iter().map(|lane| &lane.track);
        let mut out = Vec::with_capacity(512);
        header::ebml(&mut out, DocType::of(tracks()));
        header::segment(&mut out, None);
        header::info(&mut out, &Info::default());
        header::track_list(&mut out, tracks());
        out.into()
    }

    fn write(&mut self, placed: &Stitched, packet: &Packet) {
        let ts_ms = whole_ms(placed.ts_ns);
        let lane = &self.stitch.lanes()[placed.lane];
        let at = BlockAt {
            track: lane.number,
            ts_ms,
        };
        let opens = lane.track.is_video() && packet.keyframe;
        let joinable = opens || !self.stitch.has_video();
        let fits = self.open.as_ref().is_some_and(|open| {
            !opens && open.cluster.reaches(ts_ms) && ts_ms < open.cluster.start_ms() + CLUSTER_MS
        });
        if !fits {
            self.cut();
        }
        let open = self.open.get_or_insert_with(|| OpenCluster {
            cluster: Cluster::open(ts_ms),
            starts_with_keyframe: joinable,
        });
        let written = open.cluster.append(at, packet);
        debug_assert!(written, "the cluster was cut for what it does not reach");
        // With sound alone the cluster is complete when its media is: no need to wait for more.
        let end_ns = placed
            .ts_ns
            .saturating_add_unsigned(packet.duration_ns.unwrap_or(0));
        let is_full = whole_ms(end_ns + NS_PER_MS / 2) >= open.cluster.start_ms() + CLUSTER_MS;
        if (is_full && !self.stitch.has_video()) || open.cluster.len() >= CLUSTER_BYTES {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let Some(mut open) = self.open.take() else {
            return;
        };
        if open.cluster.is_empty() {
            return;
        }
        let ts_ms = open.cluster.start_ms();
        let mut bytes = Vec::new();
        open.cluster.close(&mut bytes);
        let starts_with_keyframe = open.starts_with_keyframe;
        self.ready.push_back(LiveCluster {
            bytes: bytes.into(),
            ts_ms,
            starts_with_keyframe,
        });
    }
}
