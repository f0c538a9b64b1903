//! How media gets from the live branch to a sink.
//!
//! Owns the bounded queue between them. Its writing end must never wait: what finds no room is lost,
//! in whole clusters, the oldest first, and the sink goes on with one that a decoder can begin with.

use super::report::Board;
use bytes::Bytes;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

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

/// What waits between the ends.
#[derive(Debug, Default)]
struct Waiting {
    init: Option<Bytes>,
    clusters: VecDeque<Cluster>,
    bytes: usize,
    /// The next cluster follows the one before; otherwise it must be one to begin with.
    follows: bool,
    ended: bool,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    news: Notify,
}

impl Queue {
    /// Held for a few moves of pointers, never across an await.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Adds a cluster; answers how many were lost for it, the oldest first.
    fn push(&mut self, cluster: Cluster) -> u64 {
        if !self.follows && !cluster.start {
            return 1;
        }
        self.follows = true;
        self.bytes += cluster.bytes.len();
        self.clusters.push_back(cluster);
        let mut lost = 0;
        // One that is larger than the whole queue still gets through when nothing else waits.
        while self.clusters.len() > 1
            && (self.clusters.len() > QUEUE_CLUSTERS || self.bytes > QUEUE_BYTES)
        {
            self.pop();
            lost += 1;
            while self.clusters.front().is_some_and(|first| !first.start) {
                self.pop();
                lost += 1;
            }
        }
        self.follows = !self.clusters.is_empty();
        lost
    }

    fn pop(&mut self) -> Option<Cluster> {
        let cluster = self.clusters.pop_front()?;
        self.bytes -= cluster.bytes.len();
        Some(cluster)
    }
}

/// The writing end, held by the live branch; the sink ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Feed {
    queue: Arc<Queue>,
    board: Arc<Board>,
}

/// The reading end, held by the sink.
#[derive(Debug)]
pub(crate) struct Media {
    queue: Arc<Queue>,
    board: Arc<Board>,
}

/// Both ends; `board` counts what is lost between them.
pub(crate) fn channel(board: Arc<Board>) -> (Feed, Media) {
    let queue = Arc::new(Queue::default());
    let feed = Feed {
        queue: Arc::clone(&queue),
        board: Arc::clone(&board),
    };
    (feed, Media { queue, board })
}

impl Feed {
    /// Hands over a cluster of the stream that begins with `init`. Where there is no room, the oldest
    /// ones are lost.
    pub(crate) fn push(&self, init: &Bytes, bytes: &Bytes, start: bool) {
        let cluster = Cluster {
            bytes: bytes.clone(),
            start,
        };
        let lost = {
            let mut waiting = self.queue.waiting();
            waiting.init.get_or_insert_with(|| init.clone());
            waiting.push(cluster)
        };
        if lost > 0 {
            self.board.lost(lost);
        }
        self.queue.news.notify_one();
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.queue.waiting().ended = true;
        self.queue.news.notify_one();
    }
}

impl Media {
    /// The next cluster; `None` when the show is over.
    pub(crate) async fn next(&mut self) -> Option<Cluster> {
        loop {
            {
                let mut waiting = self.queue.waiting();
                if let Some(cluster) = waiting.pop() {
                    return Some(cluster);
                }
                if waiting.ended {
                    return None;
                }
            }
            self.queue.news.notified().await;
        }
    }

    /// What a decoder begins with: the init segment and the next cluster it can start at. Clusters
    /// before it are lost. `None` when the show is over.
    pub(crate) async fn beginning(&mut self) -> Option<(Bytes, Cluster)> {
        loop {
            let cluster = self.next().await?;
            let init = self.queue.waiting().init.clone();
            match init {
                Some(init) if cluster.start => return Some((init, cluster)),
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

    fn ends() -> (Feed, Media, Arc<Board>) {
        let board = Arc::new(Board::new(String::new(), "rtmp", Arc::new(Notify::new())));
        let (feed, media) = channel(Arc::clone(&board));
        (feed, media, board)
    }

    fn push(feed: &Feed, name: &'static [u8], start: bool) {
        feed.push(
            &Bytes::from_static(b"init"),
            &Bytes::from_static(name),
            start,
        );
    }

    #[tokio::test]
    async fn a_full_queue_loses_the_oldest_clusters_and_goes_on_at_a_start() {
        let (feed, mut media, board) = ends();
        push(&feed, b"too early", false);
        assert_eq!(board.status().lost_clusters, 1, "no start, no use");
        push(&feed, b"oldest", true);
        push(&feed, b"of the oldest", false);
        for _ in 0..QUEUE_CLUSTERS - 2 {
            push(&feed, b"old", true);
        }
        assert_eq!(board.status().lost_clusters, 1);
        push(&feed, b"new", true);
        assert_eq!(board.status().lost_clusters, 3, "up to the next start");
        let (init, first) = media.beginning().await.expect("media");
        assert_eq!((&init[..], &first.bytes[..]), (&b"init"[..], &b"old"[..]));
        drop(feed);
        let mut last = None;
        while let Some(cluster) = media.next().await {
            last = Some(cluster.bytes);
        }
        assert_eq!(last.as_deref(), Some(&b"new"[..]));
    }

    #[tokio::test]
    async fn bytes_are_bounded_too_and_room_comes_back() {
        let (feed, mut media, board) = ends();
        let big = Bytes::from(vec![0; QUEUE_BYTES / 2]);
        for _ in 0..3 {
            feed.push(&Bytes::new(), &big, true);
        }
        assert_eq!(board.status().lost_clusters, 1);
        assert!(media.next().await.is_some());
        feed.push(&Bytes::new(), &big, true);
        assert_eq!(board.status().lost_clusters, 1);
        feed.push(&Bytes::new(), &Bytes::from(vec![0; QUEUE_BYTES * 2]), true);
        assert_eq!(board.status().lost_clusters, 3);
        assert!(media.next().await.is_some(), "alone, it may be larger");
    }

    #[tokio::test]
    async fn every_beginning_has_the_init_segment_again() {
        let (feed, mut media, board) = ends();
        push(&feed, b"a", true);
        push(&feed, b"b", false);
        push(&feed, b"c", true);
        let (_, first) = media.beginning().await.expect("media");
        assert_eq!(&first.bytes[..], b"a");
        let (init, second) = media.beginning().await.expect("media");
        assert_eq!((&init[..], &second.bytes[..]), (&b"init"[..], &b"c"[..]));
        assert_eq!(board.status().lost_clusters, 1);
        drop(feed);
        assert!(media.beginning().await.is_none());
    }
}
