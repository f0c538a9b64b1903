//! The wish to end, from a signal to every task.
//!
//! Owns how the wish spreads; must never end the process itself but for a second signal.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit status after a second signal: 128 + SIGTERM, as shells write it.
const ABORTED: i32 = 143;

/// A cheap handle; all clones share one wish.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Nobody wishes to end yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A handle that is triggered by SIGTERM or SIGINT; a second signal ends the process at once,
    /// which is safe by design: whatever was acknowledged is on disk.
    ///
    /// # Errors
    /// If the signals can't be listened to.
    pub fn on_signals() -> std::io::Result<Self> {
        let shutdown = Self::new();
        let (mut term, mut int) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let wish = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            tracing::info!("draining; a second signal ends at once");
            wish.trigger();
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            std::process::exit(ABORTED);
        });
        Ok(shutdown)
    }

    /// Wishes to end.
    pub fn trigger(&self) {
        self.0.cancel();
    }

    /// Whether somebody wished to.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits for the wish.
    pub async fn triggered(&self) {
        self.0.cancelled().await;
    }

    /// A handle that ends with this one, and can be ended before it.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }
}
