//! The gateway: WebSocket and HTTP for browsers on one side, gRPC to ingest and archiver on the other.
//!
//! Owns the edge: dialects, limits, close codes, authentication, the HTTP API and the studio page. Must never hold a
//! byte of a show that it can't afford to lose: everything durable lives behind the ingest.

mod api;
mod app;
mod auth;
mod config;
mod error;
mod meters;
mod patience;
mod query;
mod refusal;
mod server;
mod studio;
mod upstream;
mod ws;

pub use auth::KeyError;
pub use config::Config;
pub use error::Error;
pub use server::serve;
