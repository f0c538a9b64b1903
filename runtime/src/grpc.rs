//! gRPC set-up that every service and client shares: windows, keep-alive, health, reflection.
//!
//! Owns these settings in one place. Must never retry: only callers know what may be repeated.

use crate::health::{Health, Phase};
use std::time::Duration;
use thiserror::Error;
use tonic::{
    service::Routes,
    transport::{Channel, Endpoint, Server},
};
use tonic_health::{ServingStatus, server::HealthReporter};

/// A pod that was deleted answers nothing at all, so connecting must give up by itself.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Per stream: what a broadcaster may have under way. Many streams share a connection.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// Per connection: the default of 64 KiB would let one slow stream hold up a thousand.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// One connection carries a gateway's broadcasters; HTTP/2's usual limit is about 200.
const STREAMS_MAX: u32 = 100_000;

/// An address that can't be used.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// It is no URL at all.
    #[error("{url:?} is no address of a gRPC service; expected http://host:port")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        #[source]
        source: tonic::transport::Error,
    },
    /// It names no scheme, or one that services don't speak to each other.
    #[error("{url:?} is no address of a gRPC service; expected http://host:port")]
    Scheme {
        /// As given.
        url: String,
    },
}

/// Checks the address of a service, without connecting.
///
/// # Errors
/// If it is not `http://host:port`.
pub fn check(url: &str) -> Result<(), ChannelError> {
    endpoint(url).map(drop)
}

fn endpoint(url: &str) -> Result<Endpoint, ChannelError> {
    let named = || url.to_owned();
    let endpoint = Endpoint::from_shared(named()).map_err(|source| ChannelError::Url {
        url: named(),
        source,
    })?;
    match endpoint.uri().scheme_str() {
        Some("http") => Ok(endpoint),
        _ => Err(ChannelError::Scheme { url: named() }),
    }
}

/// A channel that connects when first used and again whenever it has to.
///
/// # Errors
/// If `url` is none of a service. An address where nobody listens is no error yet.
pub fn channel(url: &str) -> Result<Channel, ChannelError> {
    Ok(endpoint(url)?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .tcp_nodelay(true)
        .connect_lazy())
}

/// A server with the same settings.
#[must_use]
pub fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .tcp_nodelay(true)
}

/// Adds `grpc.health.v1` and reflection. The health service answers for the empty name, `liveness`
/// (always serving) and `readiness` (as `health` says).
#[must_use]
pub fn with_health_and_reflection(mut routes: Routes, health: &Health) -> Routes {
    let (reporter, service) = tonic_health::server::health_reporter();
    tokio::spawn(report(reporter, health.clone()));
    routes = routes.add_service(service);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(aircheck_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    match reflection {
        Ok(service) => routes.add_service(service),
        Err(error) => {
            tracing::error!(%error, "serve without reflection");
            routes
        }
    }
}

/// Mirrors the phase for as long as the service lives; ends with its last [`Health`] handle.
async fn report(reporter: HealthReporter, health: Health) {
    let mut phases = health.watch();
    drop(health);
    reporter
        .set_service_status("liveness", ServingStatus::Serving)
        .await;
    loop {
        let status = match *phases.borrow_and_update() {
            Phase::Ready => ServingStatus::Serving,
            Phase::Starting | Phase::Draining => ServingStatus::NotServing,
        };
        reporter.set_service_status("readiness", status).await;
        reporter.set_service_status("", status).await;
        if phases.changed().await.is_err() {
            return;
        }
    }
}
