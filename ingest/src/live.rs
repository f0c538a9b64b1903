//! The live branch of a session: what listeners hear.
//!
//! Owns the muxer, the burst a new listener begins with, and the queues of all listeners. Must never
//! wait: a listener that is too slow loses whole clusters and then its connection, never anybody
//! else's time; media that can't be understood costs the live branch, never the recording.

use crate::sink::Feed;
use aircheck_core::media::{Container, LiveMuxer, TakeStart};
use bytes::Bytes;
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

/// The live branch of one session.
#[derive(Debug)]
pub struct LiveBranch {
    muxer: LiveMuxer,
    mime: String,
    take: Option<u32>,
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
            take: None,
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
        if self.take.is_none() {
            // Opus comes out as WebM, whatever it came in.
            self.mime = Container::WebM.content_type(mime).to_owned();
        }
        self.take = Some(take);
        self.muxer.begin_take(TakeStart { wall_ms, container });
        self.send_ready();
    }

    /// New bytes of a take. Bytes of a take that is not the latest are old, and not for listeners.
    pub fn push(&mut self, take: u32, bytes: &[u8]) {
        if self.take != Some(take) {
            return;
        }
        if let Err(error) = self.muxer.push(bytes) {
            tracing::warn!(%error, take, "the live branch can't use this take; it waits for the next");
            metrics::counter!("aircheck_live_refused_takes_total").increment(1);
            self.take = None;
        }
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
                for feed in &mut self.feeds {
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
mod tests {
    use super::*;

    const CAPTURE: &[u8] = include_bytes!("../../core/tests/media/opus250.bin");

    fn branch() -> LiveBranch {
        let mut branch = LiveBranch::new(100);
        branch.begin_take(0, Container::WebM, "audio/webm;codecs=opus", 0);
        branch
    }

    fn drain(subscription: &mut Subscription) -> Vec<Bytes> {
        std::iter::from_fn(|| subscription.queue.try_recv().ok()).collect()
    }

    #[test]
    fn a_listener_starts_with_the_init_segment_and_a_burst() {
        let mut branch = branch();
        branch.push(0, &CAPTURE[..200_000]);
        let mut late = branch.listen().expect("room");
        assert_eq!(late.content_type, "audio/webm");
        let opening = drain(&mut late);
        assert!(opening[0].starts_with(&[0x1a, 0x45, 0xdf, 0xa3]));
        assert!(
            opening[1].starts_with(&[0x1f, 0x43, 0xb6, 0x75]),
            "a whole cluster"
        );
        assert!(
            (10..=16).contains(&opening.len()),
            "about 4 s, got {}",
            opening.len()
        );
    }

    #[test]
    fn a_video_listener_starts_with_a_keyframe_at_once_wherever_the_show_is() {
        const VIDEO: &[u8] = include_bytes!("../../core/tests/media/vp8.bin");
        for end in [VIDEO.len() / 4, VIDEO.len() / 2, VIDEO.len() * 3 / 4] {
            let mut branch = LiveBranch::new(100);
            branch.begin_take(0, Container::WebM, "video/webm;codecs=vp8,opus", 0);
            branch.push(0, &VIDEO[..end]);
            let opening = drain(&mut branch.listen().expect("room"));
            assert!(opening.len() > 2, "at {end} it got {}", opening.len());
        }
    }

    #[test]
    fn whoever_comes_before_the_first_byte_waits_for_it() {
        let mut branch = branch();
        let mut early = branch.listen().expect("room");
        assert!(drain(&mut early).is_empty());
        branch.push(0, &CAPTURE[..20_000]);
        assert!(drain(&mut early)[0].starts_with(&[0x1a, 0x45, 0xdf, 0xa3]));
    }

    #[test]
    fn a_stuck_listener_is_let_go_and_the_others_miss_nothing() {
        let mut branch = branch();
        let _stuck = branch.listen().expect("room");
        let mut good = branch.listen().expect("room");
        let mut heard = 0;
        for chunk in CAPTURE.chunks(5000) {
            branch.push(0, chunk);
            heard += drain(&mut good).len();
        }
        assert_eq!(branch.listeners(), 1);
        assert!(heard > 90, "30 s in clusters of 300 ms, got {heard}");
    }

    #[test]
    fn a_second_take_continues_the_stream_without_a_second_header() {
        let mut branch = branch();
        let mut listener = branch.listen().expect("room");
        branch.push(0, &CAPTURE[..50_000]);
        branch.begin_take(1, Container::WebM, "audio/webm", 10_000);
        branch.push(0, &CAPTURE[50_000..60_000]);
        branch.push(1, &CAPTURE[..50_000]);
        let heard = drain(&mut listener).concat();
        let headers = heard
            .windows(4)
            .filter(|w| *w == [0x1a, 0x45, 0xdf, 0xa3])
            .count();
        assert_eq!(headers, 1);
    }

    #[test]
    fn more_listeners_than_allowed_are_refused_until_one_leaves() {
        let mut branch = LiveBranch::new(1);
        let first = branch.listen();
        assert!(first.is_some() && branch.listen().is_none());
        drop(first);
        assert!(branch.listen().is_some());
    }
}
