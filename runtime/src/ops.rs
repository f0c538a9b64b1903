//! What operators and orchestrators ask over HTTP: liveness, readiness, metrics.
//!
//! Owns these three paths; must never answer for anything but the process it runs in.

use crate::{
    health::{Health, Phase},
    shutdown::Shutdown,
    telemetry,
};
use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use std::io;
use tokio::net::TcpListener;

/// `/healthz`, `/readyz` and `/metrics`, to be merged into a service's own router.
pub fn router(health: Health) -> Router {
    Router::new()
        .route(
            "/healthz",
            get(|| async { Json(json!({"status": "alive"})) }),
        )
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health)
}

async fn ready(State(health): State<Health>) -> Response {
    let (status, word) = match health.phase() {
        Phase::Ready => (StatusCode::OK, "ready"),
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    (status, Json(json!({"status": word}))).into_response()
}

async fn metrics() -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, telemetry::render_metrics()).into_response()
}

/// Serves [`router`] on a port of its own, for services that speak gRPC on their main one.
///
/// # Errors
/// If the listener fails.
pub async fn serve(listener: TcpListener, health: Health, shutdown: Shutdown) -> io::Result<()> {
    axum::serve(listener, router(health))
        .with_graceful_shutdown(async move { shutdown.triggered().await })
        .await
}
