//! What the gateway counts.
//!
//! Owns names and descriptions; must never label by show, session or address, of which there is no end.

use axum::response::Response;
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

const CONNECTIONS: &str = "aircheck_ws_connections";
const RECEIVED: &str = "aircheck_ws_received_bytes_total";
const CLOSES: &str = "aircheck_ws_closes_total";
const RESPONSES: &str = "aircheck_http_responses_total";

/// Tells the recorder what the names mean.
pub(crate) fn describe() {
    describe_gauge!(CONNECTIONS, "Broadcasters' WebSockets that are open");
    describe_counter!(RECEIVED, "Bytes of media received from broadcasters");
    describe_counter!(CLOSES, "Broadcasters' WebSockets that ended, by close code");
    describe_counter!(RESPONSES, "HTTP responses, by status");
}

/// A WebSocket that counts as open until this is dropped, whatever ends it.
#[derive(Debug)]
pub(crate) struct Connected(Gauge);

impl Connected {
    pub(crate) fn new() -> Self {
        let connections = gauge!(CONNECTIONS);
        connections.increment(1);
        Self(connections)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

/// The counter of received bytes, looked up once a connection.
pub(crate) fn received() -> Counter {
    counter!(RECEIVED)
}

/// Counts the end of a WebSocket; 1006 stands for one that was lost.
pub(crate) fn closed(code: u16) {
    counter!(CLOSES, "code" => code.to_string()).increment(1);
}

/// Counts a response on its way out.
pub(crate) async fn responded(response: Response) -> Response {
    counter!(RESPONSES, "status" => response.status().as_str().to_owned()).increment(1);
    response
}
