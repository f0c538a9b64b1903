//! How a sink stands, for whoever asks: status, metrics.
//!
//! Owns the counters and the last state. Must never hold its lock across an await, nor show a secret.

use aircheck_proto::ingest;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// Where a sink stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Waits for media, or for its server to take it.
    Starting,
    /// Its server takes media.
    Up { since: Instant },
    /// Failed; it tries again.
    Down { error: String, retry_in: Duration },
}

/// The public side of a sink.
#[derive(Debug)]
pub(crate) struct Board {
    name: String,
    kind: &'static str,
    state: Mutex<State>,
    lost_clusters: AtomicU64,
    restarts: AtomicU64,
    news: Arc<Notify>,
}

impl Board {
    /// A sink that starts. `name` holds no credentials; `news` is told of every new state.
    pub(crate) fn new(name: String, kind: &'static str, news: Arc<Notify>) -> Self {
        Self {
            name,
            kind,
            state: Mutex::new(State::Starting),
            lost_clusters: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            news,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn state(&self) -> State {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.clone()
    }

    /// Sets the state; answers the one before.
    pub(crate) fn set(&self, state: State) -> State {
        let gauge = metrics::gauge!("aircheck_sink_up", "kind" => self.kind);
        let is_up = matches!(state, State::Up { .. });
        let before = {
            let mut held = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *held, state)
        };
        match (matches!(before, State::Up { .. }), is_up) {
            (false, true) => gauge.increment(1),
            (true, false) => gauge.decrement(1),
            _ => {}
        }
        self.news.notify_one();
        before
    }

    /// Whole clusters that the sink did not carry.
    pub(crate) fn lost(&self, clusters: u64) {
        self.lost_clusters.fetch_add(clusters, Ordering::Relaxed);
        metrics::counter!("aircheck_sink_lost_clusters_total").increment(clusters);
    }

    /// The sink begins anew after a failure.
    pub(crate) fn restarted(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("aircheck_sink_restarts_total", "kind" => self.kind).increment(1);
    }

    pub(crate) fn status(&self) -> ingest::SinkStatus {
        let (state, error) = match self.state() {
            State::Starting => (ingest::SinkState::Starting, None),
            State::Up { .. } => (ingest::SinkState::Up, None),
            State::Down { error, .. } => (ingest::SinkState::Down, Some(error)),
        };
        ingest::SinkStatus {
            name: self.name.clone(),
            state: state.into(),
            error,
            lost_clusters: self.lost_clusters.load(Ordering::Relaxed),
            restarts: self.restarts.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if matches!(state, State::Up { .. }) {
            metrics::gauge!("aircheck_sink_up", "kind" => self.kind).decrement(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_the_last_error_and_what_was_lost() {
        let news = Arc::new(Notify::new());
        let board = Board::new("rtmp://host/app".to_owned(), "rtmp", news);
        assert_eq!(board.status().state(), ingest::SinkState::Starting);
        board.lost(3);
        board.restarted();
        let (error, retry_in) = ("no".to_owned(), Duration::from_secs(1));
        board.set(State::Down { error, retry_in });
        let status = board.status();
        assert_eq!(status.state(), ingest::SinkState::Down);
        assert_eq!(status.error.as_deref(), Some("no"));
        assert_eq!((status.lost_clusters, status.restarts), (3, 1));
        board.set(State::Up {
            since: Instant::now(),
        });
        assert_eq!(board.status().error, None);
    }
}
