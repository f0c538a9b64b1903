//! The live branch of a session: what listeners hear.
//!
//! Owns the muxer, the burst a new listener begins with, and the queues of all listeners. Must never
//! wait: a listener that is too slow loses whole clusters and then its connection, never anybody
//! else's time; media that can't be understood costs the live branch, never the recording.

use crate::sink::Feed;
use aircheck_core::media::{Container, LiveMuxer, TakeStart, live::LiveError};
use bytes::{Bytes, BytesMut};
use futures::Stream;
use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::sync::{
    Notify,
    mpsc::{self, error::TrySendError},
};

/// Clusters are about 300 ms long; a new listener gets this much at once, so that its player starts
/// with a cushion.
const BURST_MS: u64 = 4000;
/// Bytes a burst may have, whatever its length (video).
const BURST_BYTES_MAX: usize = 4 << 20;
/// Clusters that may wait for one listener: about ten seconds.
const QUEUE_CLUSTERS: usize = 32;
/// Bytes held for a take whose beginning is still being read.
const HELD_MAX: usize = 4 << 20;
/// Clusters a listener may lose in a row before it is let go.
const LOST_MAX: u32 = 32;

#[derive(Debug)]
struct Cluster {
    bytes: Bytes,
    ts_ms: u64,
    start: bool,
}

#[derive(Debug)]
struct Listener {
    queue: mpsc::Sender<Bytes>,
    /// After a loss it goes on with a cluster that begins with a keyframe.
    waits_for_start: bool,
    lost: u32,
}

/// What listeners hear at present.
#[derive(Debug)]
enum Playing {
    /// Nothing: no take yet, or one that can't be used.
    Nothing,
    /// Bytes of this take.
    Take(u32),
    /// This take, once its beginning is known. What comes meanwhile is held, from `offset` on.
    Rejoining {
        take: u32,
        offset: u64,
        held: BytesMut,
    },
}

/// The beginning of a take, for [`LiveBranch::rejoined`].
#[derive(Debug)]
pub struct Beginning<'a> {
    /// What it is.
    pub container: Container,
    /// As the recorder names it.
    pub mime: &'a str,
    /// When it goes on, in milliseconds since the session's start.
    pub wall_ms: u64,
    /// Pieces of the take, the first bytes among them, each with its offset.
    pub known: &'a [(u64, Bytes)],
}

/// The live branch of one session.
#[derive(Debug)]
pub struct LiveBranch {
    muxer: LiveMuxer,
    mime: String,
    playing: Playing,
    burst: VecDeque<Cluster>,
    burst_bytes: usize,
    listeners: Vec<Listener>,
    waiting: Vec<mpsc::Sender<Bytes>>,
    feeds: Vec<Feed>,
    listeners_max: usize,
    departures: Arc<Notify>,
}

/// What a new listener gets: a stream of the init segment first, then clusters, which ends when the
/// show does.
#[derive(Debug)]
pub struct Subscription {
    queue: mpsc::Receiver<Bytes>,
    /// Of the whole stream.
    pub content_type: String,
    /// Dropped after the queue, which is closed by then.
    _present: Present,
}

/// Tells the branch that its listener has left.
#[derive(Debug)]
struct Present(Arc<Notify>);

impl Drop for Present {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Stream for Subscription {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.queue.poll_recv(cx)
    }
}

impl LiveBranch {
    /// A branch without media yet, for at most `listeners_max` listeners.
    #[must_use]
    pub fn new(listeners_max: usize) -> Self {
        Self {
            muxer: LiveMuxer::new(),
            mime: "audio/webm".to_owned(),
            playing: Playing::Nothing,
            burst: VecDeque::new(),
            burst_bytes: 0,
            listeners: Vec::new(),
            waiting: Vec::new(),
            feeds: Vec::new(),
            listeners_max,
            departures: Arc::default(),
        }
    }

    /// Sinks that hear the whole show; they are no listeners. They end with the branch.
    #[must_use]
    pub(crate) fn with_feeds(self, feeds: Vec<Feed>) -> Self {
        Self { feeds, ..self }
    }

    /// A take begins that listeners shall hear.
    pub fn begin_take(&mut self, take: u32, container: Container, mime: &str, wall_ms: u64) {
        self.name(mime);
        self.playing = Playing::Take(take);
        self.muxer.begin_take(TakeStart { wall_ms, container });
        self.send_ready();
    }

    fn name(&mut self, mime: &str) {
        if self.muxer.init().is_none() {
            // Opus comes out as WebM, whatever it came in.
            self.mime = Container::WebM.content_type(mime).to_owned();
        }
    }

    /// A take goes on at `offset` whose beginning this branch may never have seen: our own restart.
    /// Whether it wants it, by [`Self::rejoined`]; until then it holds what comes.
    pub fn rejoin(&mut self, take: u32, offset: u64) -> bool {
        let wanted = match self.playing {
            Playing::Nothing => true,
            // What came before the latest take is old.
            Playing::Take(latest) => take > latest,
            // Asked for again: the first answer serves as well.
            Playing::Rejoining { take: latest, .. } => take > latest,
        };
        if wanted {
            self.playing = Playing::Rejoining {
                take,
                offset,
                held: BytesMut::new(),
            };
        }
        wanted
    }

    /// The beginning of a take that was asked for; `None` if there is none.
    pub fn rejoined(&mut self, take: u32, beginning: Option<Beginning<'_>>) {
        let Playing::Rejoining {
            take: wanted,
            offset,
            held,
        } = &mut self.playing
        else {
            return;
        };
        if *wanted != take {
            return;
        }
        let (offset, held) = (*offset, std::mem::take(held));
        self.playing = Playing::Nothing;
        let Some(beginning) = beginning else { return };
        self.name(beginning.mime);
        let start = TakeStart {
            wall_ms: beginning.wall_ms,
            container: beginning.container,
        };
        match self.muxer.rejoin_take(start, beginning.known, offset) {
            Ok(()) => self.playing = Playing::Take(take),
            Err(error) => self.unusable(take, &error),
        }
        self.push(take, &held);
    }

    fn unusable(&mut self, take: u32, error: &LiveError) {
        tracing::warn!(%error, take, "the live branch can't use this take; it waits for the next");
        metrics::counter!("aircheck_live_refused_takes_total").increment(1);
        self.playing = Playing::Nothing;
    }

    /// New bytes of a take. Bytes of a take that is not the latest are old, and not for listeners.
    pub fn push(&mut self, take: u32, bytes: &[u8]) {
        match &mut self.playing {
            Playing::Take(playing) if *playing == take => {
                if let Err(error) = self.muxer.push(bytes) {
                    self.unusable(take, &error);
                }
                self.send_ready();
            }
            Playing::Rejoining {
                take: wanted,
                offset,
                held,
            } if *wanted == take => {
                held.extend_from_slice(bytes);
                if held.len() > HELD_MAX {
                    // A hole for listeners is better than memory without end.
                    *offset += held.len() as u64;
                    held.clear();
                }
            }
            Playing::Nothing | Playing::Take(_) | Playing::Rejoining { .. } => {}
        }
    }

    /// The show is over: what has come so far is sent, and every listener hears the end.
    pub fn finish(mut self) {
        self.muxer.end_take();
        self.send_ready();
    }

    /// How many listen.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.listeners.len() + self.waiting.len()
    }

    /// Adds a listener, with everything it needs to start at once, or as soon as there is media.
    /// `None` when there are too many.
    pub fn listen(&mut self) -> Option<Subscription> {
        self.let_go();
        if self.listeners() >= self.listeners_max {
            return None;
        }
        let (queue, receiver) = mpsc::channel(QUEUE_CLUSTERS + self.burst.len());
        self.waiting.push(queue);
        self.start_waiting();
        Some(Subscription {
            queue: receiver,
            content_type: self.mime.clone(),
            _present: Present(Arc::clone(&self.departures)),
        })
    }

    /// Waits until a listener has left, or was let go.
    pub async fn left(&self) {
        self.departures.notified().await;
    }

    /// Forgets listeners that have left.
    pub fn let_go(&mut self) {
        self.listeners
            .retain(|listener| !listener.queue.is_closed());
        self.waiting.retain(|queue| !queue.is_closed());
    }

    /// Whoever waits for a beginning gets it: init segment and burst. Its queue has room for both.
    fn start_waiting(&mut self) {
        let Some(init) = self.muxer.init() else {
            return;
        };
        let first = self.burst.iter().position(|cluster| cluster.start);
        let Some(first) = first else { return };
        for queue in self.waiting.drain(..) {
            let opening = std::iter::once(&init)
                .chain(self.burst.iter().skip(first).map(|cluster| &cluster.bytes));
            let waits_for_start = opening
                .map(|bytes| queue.try_send(bytes.clone()))
                .any(|sent| sent.is_err());
            self.listeners.push(Listener {
                queue,
                waits_for_start,
                lost: 0,
            });
        }
    }

    fn send_ready(&mut self) {
        while let Some(cluster) = self.muxer.poll() {
            let start = cluster.starts_with_keyframe;
            let before = self.listeners.len();
            self.listeners
                .retain_mut(|listener| listener.send(&cluster.bytes, start));
            if self.listeners.len() < before {
                self.departures.notify_one();
            }
            if let Some(init) = self.muxer.init() {
                for feed in &self.feeds {
                    feed.push(&init, &cluster.bytes, start);
                }
            }
            self.remember(Cluster {
                bytes: cluster.bytes,
                ts_ms: cluster.ts_ms,
                start,
            });
            self.start_waiting();
        }
    }

    fn remember(&mut self, cluster: Cluster) {
        let newest_ms = cluster.ts_ms;
        self.burst_bytes += cluster.bytes.len();
        self.burst.push_back(cluster);
        // A listener can only start at a keyframe, and video has few: the burst begins with the
        // latest one that leaves it long enough, or with the latest of all once it is too large.
        let is_old = |cluster: &Cluster| cluster.ts_ms + BURST_MS <= newest_ms;
        let too_large = self.burst_bytes > BURST_BYTES_MAX;
        let first = self
            .burst
            .iter()
            .rposition(|cluster| cluster.start && (too_large || is_old(cluster)));
        for old in self.burst.drain(..first.unwrap_or(0)) {
            self.burst_bytes -= old.bytes.len();
        }
    }
}

impl Listener {
    /// Whether it is worth to be kept.
    fn send(&mut self, cluster: &Bytes, start: bool) -> bool {
        if self.waits_for_start && !start {
            return true;
        }
        match self.queue.try_send(cluster.clone()) {
            Ok(()) => {
                self.waits_for_start = false;
                self.lost = 0;
                true
            }
            Err(TrySendError::Full(_)) => {
                metrics::counter!("aircheck_live_lost_clusters_total").increment(1);
                self.waits_for_start = true;
                self.lost += 1;
                self.lost <= LOST_MAX
            }
            Err(TrySendError::Closed(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests;
