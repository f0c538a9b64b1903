//! Live sinks: a show's live branch, carried on to Icecast and RTMP servers.
//!
//! Owns one task per session and sink, from the session's first media to its end. Must never make
//! anything wait: media reaches a sink through a bounded queue that loses whole clusters, and whatever
//! a sink's server or encoder does costs that sink alone.
//!
//! A sink outlives reconnects and takes. While a show waits for its broadcaster its sinks get nothing,
//! and go on without a restart if the server's own patience (10 s by default for Icecast's
//! `source-timeout`) lasts longer than the silence; otherwise the server hangs up, and the sink
//! connects again with the first media after the return.

mod encoder;
mod feed;
mod flow;
mod icecast;
mod report;
mod supervisor;
mod target;

pub use target::{LiveSink, LiveSinkError, LiveSinkParser};

pub(crate) use feed::Feed;

use aircheck_core::id::ShowId;
use aircheck_proto::ingest;
use report::Board;
use std::{path::PathBuf, sync::Arc};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

/// The sinks of one session. They end when their feeds do.
#[derive(Debug, Default)]
pub(crate) struct Sinks {
    boards: Vec<Arc<Board>>,
    news: Arc<Notify>,
}

impl Sinks {
    /// Starts every sink as a task of `tasks`; what it is to carry goes into its feed.
    pub(crate) fn start(
        sinks: &[LiveSink],
        ffmpeg: &std::path::Path,
        show_id: &ShowId,
        tasks: &TaskTracker,
    ) -> (Self, Vec<Feed>) {
        let news = Arc::new(Notify::new());
        let mut feeds = Vec::with_capacity(sinks.len());
        let start = |sink: &LiveSink| {
            let target = sink.for_show(show_id);
            let board = Arc::new(Board::new(target.name(), target.kind(), Arc::clone(&news)));
            let (feed, media) = feed::channel(Arc::clone(&board));
            feeds.push(feed);
            let supervisor = supervisor::Supervisor::new(
                target,
                PathBuf::from(ffmpeg),
                media,
                Arc::clone(&board),
            );
            tasks.spawn(supervisor.run());
            board
        };
        let boards = sinks.iter().map(start).collect();
        (Self { boards, news }, feeds)
    }

    /// Waits until a sink's state has changed.
    pub(crate) async fn changed(&self) {
        self.news.notified().await;
    }

    /// How every sink stands.
    pub(crate) fn status(&self) -> Vec<ingest::SinkStatus> {
        self.boards.iter().map(|board| board.status()).collect()
    }
}
