//! The HTTP server: accepts connections, speaks HTTP/1.1, drains.
//!
//! Owns connections until they are upgraded; must never decide what a request means.

use crate::{api, app::App, config::Config, error::Error, meters, patience::Patient};
use aircheck_runtime::{health::Health, shutdown::Shutdown};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{io, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;

/// Longest wait for the head of a request.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// Longest time in which a client takes not one byte of what is written to it.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);
/// HTTP connections that are always possible: operators and orchestrators ask too.
const PLACES_MIN: usize = 64;
/// Longest head of a request, in bytes.
const HEAD_MAX: usize = 64 << 10;
/// Pause after a failed accept: the process is out of descriptors, and so it will be for a moment.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for broadcasters to leave.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait for requests under way, after that.
const FINISH_DEADLINE: Duration = Duration::from_secs(5);

/// Serves until `shutdown`, then sends everybody away and returns.
///
/// # Errors
/// If `config` can't be used.
pub async fn serve(
    config: Config,
    listener: TcpListener,
    shutdown: Shutdown,
    health: Health,
) -> Result<(), Error> {
    let places = config
        .max_connections
        .saturating_mul(2)
        .clamp(PLACES_MIN, Semaphore::MAX_PERMITS);
    let app = App::new(config, shutdown.clone())?;
    let server = Server {
        router: api::router(app.clone(), health.clone()),
        // Requests end later than broadcasters: readiness is asked for until the very end.
        closing: Shutdown::new(),
        connections: TaskTracker::new(),
        places: Arc::new(Semaphore::new(places)),
    };
    meters::describe();
    health.ready();
    let mut accepting = pin!(server.accept(&listener));
    tokio::select! {
        () = &mut accepting => {}
        () = shutdown.triggered() => {
            health.draining();
            app.tasks.close();
            tracing::info!(broadcasters = app.tasks.len(), "send broadcasters away");
            tokio::select! {
                () = &mut accepting => {}
                left = timeout(DRAIN_DEADLINE, app.tasks.wait()) => {
                    if left.is_err() {
                        tracing::warn!(broadcasters = app.tasks.len(), "broadcasters did not leave in time");
                    }
                }
            }
        }
    }
    server.closing.trigger();
    server.connections.close();
    // Ends by itself: every connection has its own deadline from here on.
    server.connections.wait().await;
    Ok(())
}

struct Server {
    router: Router,
    closing: Shutdown,
    connections: TaskTracker,
    places: Arc<Semaphore>,
}

impl Server {
    /// Accepts for ever, never more than there are places.
    async fn accept(&self, listener: &TcpListener) {
        while let Ok(place) = self.places.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let connection =
                        serve_connection(stream, self.router.clone(), self.closing.clone());
                    self.connections.spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Err(error) if is_of_one_client(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// A client that left before it was accepted.
fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

async fn serve_connection(stream: TcpStream, router: Router, closing: Shutdown) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "serve without TCP_NODELAY");
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .max_buf_size(HEAD_MAX)
        .serve_connection(
            TokioIo::new(Patient::new(stream, WRITE_PATIENCE)),
            TowerToHyperService::new(router),
        )
        .with_upgrades();
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = closing.triggered() => {
            connection.as_mut().graceful_shutdown();
            match timeout(FINISH_DEADLINE, connection).await {
                Ok(served) => served,
                Err(_elapsed) => return tracing::warn!("a request did not end in time"),
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended early");
    }
}
