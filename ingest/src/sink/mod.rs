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
mod levels;
mod report;
mod supervisor;
mod target;

pub use target::{LiveSink, LiveSinkError, LiveSinkParser};

pub(crate) use encoder::Encoding;
pub(crate) use feed::Feed;
pub(crate) use levels::Watch;

use aircheck_core::id::ShowId;
use aircheck_proto::ingest::{self, Alarm};
use levels::Ears;
use report::Board;
use std::sync::Arc;
use supervisor::{Goal, Supervisor};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

/// The sinks of one session. They end when their feeds do.
#[derive(Debug, Default)]
pub(crate) struct Sinks {
    boards: Vec<Arc<Board>>,
    /// What hears the show, where its sound is watched.
    ears: Option<Arc<Ears>>,
    news: Arc<Notify>,
}

impl Sinks {
    /// Starts every sink as a task of `tasks`; what it is to carry goes into its feed. The watch over
    /// the sound is one more, without a server.
    pub(crate) fn start(
        sinks: &[LiveSink],
        watch: Watch,
        encoding: &Encoding,
        show_id: &ShowId,
        tasks: &TaskTracker,
    ) -> (Self, Vec<Feed>) {
        let news = Arc::new(Notify::new());
        let mut feeds = Vec::with_capacity(sinks.len());
        let mut start = |goal: Goal, name: String, kind: &'static str| {
            let board = Arc::new(Board::new(name, kind, Arc::clone(&news)));
            let (feed, media) = feed::channel(Arc::clone(&board));
            feeds.push(feed);
            let (show_id, encoding) = (show_id.to_string(), encoding.clone());
            let supervisor = Supervisor::new(show_id, goal, encoding, media, Arc::clone(&board));
            tasks.spawn(supervisor.run());
            board
        };
        let carry = |sink: &LiveSink| {
            let target = sink.for_show(show_id);
            let (name, kind) = (target.name(), target.kind());
            start(Goal::Server(target), name, kind)
        };
        let boards = sinks.iter().map(carry).collect();
        let ears = watch.is_wanted().then(|| {
            let ears = Arc::new(Ears::new(watch, Arc::clone(&news)));
            start(
                Goal::Levels(Arc::clone(&ears)),
                "levels".to_owned(),
                "levels",
            );
            ears
        });
        (Self { boards, ears, news }, feeds)
    }

    /// What is amiss with the sound.
    pub(crate) fn alarms(&self) -> Vec<Alarm> {
        self.ears.as_ref().map_or(Vec::new(), |ears| ears.alarms())
    }

    /// Waits until a sink's state or an alarm has changed.
    pub(crate) async fn changed(&self) {
        self.news.notified().await;
    }

    /// How every sink stands.
    pub(crate) fn status(&self) -> Vec<ingest::SinkStatus> {
        self.boards.iter().map(|board| board.status()).collect()
    }
}
