//! A service as a task of this process: its stop, its health, its end.
//!
//! Owns the task; must never restart it: what ends by itself ends the process, and whoever started
//! that decides.

use aircheck_runtime::{health::Health, ops, shutdown::Shutdown};
use anyhow::{Context as _, anyhow};
use std::net::SocketAddr;
use tokio::{net::TcpListener, task::JoinHandle};

/// Binds, or says which address is taken.
///
/// # Errors
/// If the address can't be listened on.
pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("can't listen on {address}"))
}

/// A running service.
#[derive(Debug)]
pub(crate) struct Service {
    name: &'static str,
    stop: Shutdown,
    pub(crate) health: Health,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Service {
    /// Starts it. `ended` is triggered when it ends, for whatever reason.
    pub(crate) fn spawn<F, E>(
        name: &'static str,
        ended: &Shutdown,
        serve: impl FnOnce(Shutdown, Health) -> F,
    ) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<anyhow::Error> + 'static,
    {
        let (stop, health) = (Shutdown::new(), Health::new());
        let serving = serve(stop.clone(), health.clone());
        let ended = ended.clone();
        let task = tokio::spawn(async move {
            // Triggered by a panic, too.
            let _ended = Trigger(ended);
            serving.await.map_err(Into::into)
        });
        Self {
            name,
            stop,
            health,
            task,
        }
    }

    /// Waits until it serves.
    pub(crate) async fn ready(&self) {
        let mut phases = self.health.watch();
        // The sender lives as long as `self`.
        while !self.health.is_ready() && phases.changed().await.is_ok() {}
    }

    /// Drains it. `wished` says whether its end was.
    ///
    /// # Errors
    /// What it failed with, or that it ended though nobody wished it to.
    pub(crate) async fn end(self, wished: bool) -> anyhow::Result<()> {
        let by_itself = !wished && self.task.is_finished();
        self.stop.trigger();
        let name = self.name;
        match self.task.await {
            Ok(Ok(())) if by_itself => Err(anyhow!("{name} ended by itself")),
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.context(name)),
            Err(panic) => Err(anyhow!("{name} panicked: {panic}")),
        }
    }
}

struct Trigger(Shutdown);

impl Drop for Trigger {
    fn drop(&mut self) {
        self.0.trigger();
    }
}

/// Runs one service until a signal, with its health and metrics on a listener of their own, if any.
///
/// # Errors
/// What the service failed with.
pub(crate) async fn run_alone<F, E>(
    name: &'static str,
    http: Option<TcpListener>,
    serve: impl FnOnce(Shutdown, Health) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<anyhow::Error> + 'static,
{
    let wish = Shutdown::on_signals().context("listen to signals")?;
    let ended = Shutdown::new();
    let service = Service::spawn(name, &ended, serve);
    let health = service.health.clone();
    let answering =
        http.map(|http| Service::spawn("ops", &ended, |stop, _| ops::serve(http, health, stop)));
    tokio::select! { () = wish.triggered() => {}, () = ended.triggered() => {} }
    let drained = service.end(wish.is_triggered()).await;
    if let Some(answering) = answering {
        answering.end(true).await?;
    }
    drained
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[tokio::test]
    async fn an_end_nobody_wished_is_an_error() {
        let ended = Shutdown::new();
        let service = Service::spawn("x", &ended, |_, _| async { Ok::<_, io::Error>(()) });
        ended.triggered().await;
        while !service.task.is_finished() {
            tokio::task::yield_now().await;
        }
        let error = service.end(false).await.expect_err("by itself");
        assert_eq!(error.to_string(), "x ended by itself");
    }

    #[tokio::test]
    async fn a_drained_service_ends_well_and_a_failed_one_says_who_it_was() {
        let ended = Shutdown::new();
        let service = Service::spawn("x", &ended, |stop, health| async move {
            health.ready();
            stop.triggered().await;
            Ok::<_, io::Error>(())
        });
        service.ready().await;
        assert!(!ended.is_triggered());
        assert!(service.end(true).await.is_ok());
        let service = Service::spawn("x", &ended, |_, _| async { Err(io::Error::other("why")) });
        let error = service.end(false).await.expect_err("failed");
        assert_eq!(format!("{error:#}"), "x: why");
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_named() {
        let first = bind(([127, 0, 0, 1], 0).into()).await.expect("free");
        let address = first.local_addr().expect("bound");
        let error = bind(address).await.expect_err("taken");
        assert!(error.to_string().contains(&address.to_string()));
    }
}
