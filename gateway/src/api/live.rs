//! `GET /live/{show_id}`: listen.
//!
//! Owns the headers of the live branch; must never buffer it: who reads slowly is the ingest's
//! matter, and its alone.

use super::request::ShowPath;
use crate::{app::App, refusal::Refusal, ws::draining};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use std::sync::Arc;
use tonic::Status;

/// Streams until the session or the gateway ends.
pub(super) async fn listen(
    State(app): State<Arc<App>>,
    ShowPath(show): ShowPath,
) -> Result<Response, Refusal> {
    if app.shutdown.is_triggered() {
        return Err(draining().into());
    }
    let (first, rest) = app.ingests.listen(&show).await?;
    let kind = HeaderValue::from_str(&first.content_type)
        .unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let leaving = async move {
        let _present = app.listeners.token();
        app.leave().await;
    };
    let media = stream::iter([Ok::<Bytes, Status>(first.data)])
        .chain(rest.map_ok(|message| message.data))
        .try_filter(|data| std::future::ready(!data.is_empty()))
        .take_until(leaving);
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        // A buffering proxy would turn seconds of delay into minutes.
        (
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        ),
    ];
    Ok((headers, Body::from_stream(media)).into_response())
}
