//! How media gets from the live branch to a sink.
//!
//! Owns the bounded queue between them. Its writing end must never wait: what finds no room is lost,
//! in whole clusters, and the sink goes on with one that a decoder can begin with.

use super::report::Board;
use bytes::Bytes;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::mpsc;

/// Clusters that may wait for one sink. A broadcaster who returns after a long drop sends all of it
/// at once, faster than anybody encodes.
const QUEUE_CLUSTERS: usize = 512;
/// Bytes that may wait for one sink: four minutes of sound.
const QUEUE_BYTES: usize = 4 << 20;

/// One whole cluster.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) bytes: Bytes,
    /// A decoder can begin here.
    pub(crate) start: bool,
}

#[derive(Debug)]
enum Piece {
    Init(Bytes),
    Cluster(Cluster),
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    BeforeInit,
    WaitsForStart,
    Flows,
}

/// The writing end, held by the live branch; the sink ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Feed {
    queue: mpsc::Sender<Piece>,
    waiting_bytes: Arc<AtomicUsize>,
    stage: Stage,
    board: Arc<Board>,
}

/// The reading end, held by the sink.
#[derive(Debug)]
pub(crate) struct Media {
    queue: mpsc::Receiver<Piece>,
    waiting_bytes: Arc<AtomicUsize>,
    init: Option<Bytes>,
    board: Arc<Board>,
}

/// Both ends; `board` counts what is lost between them.
pub(crate) fn channel(board: Arc<Board>) -> (Feed, Media) {
    let (sender, receiver) = mpsc::channel(QUEUE_CLUSTERS);
    let waiting_bytes = Arc::new(AtomicUsize::new(0));
    let feed = Feed {
        queue: sender,
        waiting_bytes: Arc::clone(&waiting_bytes),
        stage: Stage::BeforeInit,
        board: Arc::clone(&board),
    };
    let media = Media {
        queue: receiver,
        waiting_bytes,
        init: None,
        board,
    };
    (feed, media)
}

impl Feed {
    /// Hands over a cluster of the stream that begins with `init`, if there is room.
    pub(crate) fn push(&mut self, init: &Bytes, bytes: &Bytes, start: bool) {
        if self.stage == Stage::BeforeInit {
            // The queue is empty until now, so that this is never lost.
            if self.queue.try_send(Piece::Init(init.clone())).is_err() {
                return;
            }
            self.stage = Stage::WaitsForStart;
        }
        let cluster = Cluster {
            bytes: bytes.clone(),
            start,
        };
        let joins = start || self.stage == Stage::Flows;
        if joins && self.offer(cluster) {
            self.stage = Stage::Flows;
        } else {
            self.stage = Stage::WaitsForStart;
            self.board.lost(1);
        }
    }
}

impl Feed {
    fn offer(&self, cluster: Cluster) -> bool {
        let len = cluster.bytes.len();
        let waiting = self.waiting_bytes.fetch_add(len, Ordering::Relaxed);
        // One that is larger than the whole queue still gets through when nothing else waits.
        let fits = waiting == 0 || waiting + len <= QUEUE_BYTES;
        let offered = fits && self.queue.try_send(Piece::Cluster(cluster)).is_ok();
        if !offered {
            self.waiting_bytes.fetch_sub(len, Ordering::Relaxed);
        }
        offered
    }
}

impl Media {
    /// The next cluster; `None` when the show is over.
    pub(crate) async fn next(&mut self) -> Option<Cluster> {
        loop {
            match self.queue.recv().await? {
                Piece::Init(init) => self.init = Some(init),
                Piece::Cluster(cluster) => {
                    let len = cluster.bytes.len();
                    self.waiting_bytes.fetch_sub(len, Ordering::Relaxed);
                    return Some(cluster);
                }
            }
        }
    }

    /// What a decoder begins with: the init segment and the next cluster it can start at. Clusters
    /// before it are lost. `None` when the show is over.
    pub(crate) async fn beginning(&mut self) -> Option<(Bytes, Cluster)> {
        loop {
            let cluster = self.next().await?;
            match &self.init {
                Some(init) if cluster.start => return Some((init.clone(), cluster)),
                _ => self.board.lost(1),
            }
        }
    }

    /// Loses whatever comes, until the show is over.
    pub(crate) async fn discard(&mut self) {
        while self.next().await.is_some() {
            self.board.lost(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Notify;

    fn ends() -> (Feed, Media, Arc<Board>) {
        let board = Arc::new(Board::new(String::new(), "rtmp", Arc::new(Notify::new())));
        let (feed, media) = channel(Arc::clone(&board));
        (feed, media, board)
    }

    fn push(feed: &mut Feed, name: &'static [u8], start: bool) {
        feed.push(
            &Bytes::from_static(b"init"),
            &Bytes::from_static(name),
            start,
        );
    }

    #[tokio::test]
    async fn a_full_queue_loses_whole_clusters_and_goes_on_at_a_start() {
        let (mut feed, mut media, board) = ends();
        for _ in 0..QUEUE_CLUSTERS + 4 {
            push(&mut feed, b"old", true);
        }
        assert_eq!(board.status().lost_clusters, 5, "the init took one place");
        let (init, first) = media.beginning().await.expect("media");
        assert_eq!((&init[..], &first.bytes[..]), (&b"init"[..], &b"old"[..]));
        push(&mut feed, b"middle", false);
        push(&mut feed, b"new", true);
        assert_eq!(board.status().lost_clusters, 6, "no start, no use");
        drop(feed);
        let mut last = None;
        while let Some(cluster) = media.next().await {
            last = Some(cluster.bytes);
        }
        assert_eq!(last.as_deref(), Some(&b"new"[..]));
    }

    #[tokio::test]
    async fn bytes_are_bounded_too_and_room_comes_back() {
        let (mut feed, mut media, board) = ends();
        let big = Bytes::from(vec![0; QUEUE_BYTES / 2]);
        for _ in 0..3 {
            feed.push(&Bytes::new(), &big, true);
        }
        assert_eq!(board.status().lost_clusters, 1);
        assert!(media.next().await.is_some());
        feed.push(&Bytes::new(), &big, true);
        assert_eq!(board.status().lost_clusters, 1);
    }

    #[tokio::test]
    async fn every_beginning_has_the_init_segment_again() {
        let (mut feed, mut media, board) = ends();
        push(&mut feed, b"a", true);
        push(&mut feed, b"b", false);
        push(&mut feed, b"c", true);
        let (_, first) = media.beginning().await.expect("media");
        assert_eq!(&first.bytes[..], b"a");
        let (init, second) = media.beginning().await.expect("media");
        assert_eq!((&init[..], &second.bytes[..]), (&b"init"[..], &b"c"[..]));
        assert_eq!(board.status().lost_clusters, 1);
        drop(feed);
        assert!(media.beginning().await.is_none());
    }
}
