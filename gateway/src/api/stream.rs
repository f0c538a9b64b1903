//! What is on air: status and stop, and the two calls of old clients that come to the same.
//!
//! Owns the JSON of a session's status; must never remember one.

use super::request::{Caller, JsonBody, Parameters, ShowBody, ShowQuery, show_id};
use crate::{app::App, auth::Grant, refusal::Refusal};
use aircheck_core::{
    code::Code,
    id::{ShowId, rfc3339, version_at},
    recording::{Recording, Status},
    wire::Sink,
};
use aircheck_proto::ingest::{Alarm, SessionState, SessionStatus};
use axum::{Extension, Json, extract::State};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// A session's status in the contract's words. All fields are always present.
#[derive(Clone, Debug, Default, Serialize)]
struct StreamStatus {
    show_id: String,
    active: bool,
    session: Option<String>,
    epoch: Option<u64>,
    user: Option<String>,
    recording: bool,
    recording_failed: Option<String>,
    state: &'static str,
    grace_remaining_ms: Option<u64>,
    received: u64,
    durable: u64,
    archived: u64,
    listeners: u64,
    started_at: Option<String>,
    sinks: Vec<Sink>,
    alarms: Vec<String>,
}

impl StreamStatus {
    fn idle(show: &ShowId) -> Self {
        Self {
            show_id: show.to_string(),
            state: "idle",
            ..Self::default()
        }
    }

    fn of(session: SessionStatus) -> Self {
        let active = is_active(&session);
        let state = match session.state() {
            SessionState::Live => "live",
            SessionState::Grace => "grace",
            SessionState::Finalizing => "finalizing",
            SessionState::Unspecified | SessionState::Archived | SessionState::Failed => "idle",
        };
        Self {
            alarms: Alarm::words(session.alarms()),
            show_id: session.show_id,
            active,
            session: Some(session.session),
            epoch: Some(session.epoch),
            user: Some(session.user),
            recording: active && session.recording_failed.is_none(),
            recording_failed: session.recording_failed,
            state,
            grace_remaining_ms: session.grace_remaining_ms,
            received: session.received,
            durable: session.durable,
            archived: session.archived,
            listeners: session.listeners,
            started_at: Some(rfc3339(session.started_at_unix_ms)),
            sinks: session.sinks.into_iter().map(Into::into).collect(),
        }
    }
}

fn is_active(session: &SessionStatus) -> bool {
    matches!(session.state(), SessionState::Live | SessionState::Grace)
}

/// `GET /api/stream/status`
pub(super) async fn status(
    State(app): State<Arc<App>>,
    Extension(grant): Caller,
    Parameters(query): Parameters<ShowQuery>,
) -> Result<Json<Value>, Refusal> {
    let Some(id) = query.show_id else {
        let sessions = app.ingests.sessions().await?;
        let seen = sessions
            .into_iter()
            .filter(|session| grant.covers_named(&session.show_id));
        let streams: Vec<_> = seen.map(StreamStatus::of).collect();
        return Ok(Json(json!({"streams": streams})));
    };
    let show = show_id(&id)?;
    grant.covers(&show)?;
    let session = app.ingests.session(&show).await?;
    let status = session.map_or_else(|| StreamStatus::idle(&show), StreamStatus::of);
    Ok(Json(json!(status)))
}

/// `POST /api/stream/stop`
pub(super) async fn stop(
    State(app): State<Arc<App>>,
    Extension(grant): Caller,
    Parameters(query): Parameters<ShowQuery>,
) -> Result<Json<Value>, Refusal> {
    let show = show_id(query.show_id.as_deref().unwrap_or_default())?;
    end(&app, &grant, &show).await
}

/// `POST /api/recording/stop`
pub(super) async fn stop_recording(
    State(app): State<Arc<App>>,
    Extension(grant): Caller,
    JsonBody(body): JsonBody<ShowBody>,
) -> Result<Json<Value>, Refusal> {
    end(&app, &grant, &body.show()?).await
}

/// Ends a show. The answer does not wait for the recording: its row may be written a moment later.
async fn end(app: &App, grant: &Grant, show: &ShowId) -> Result<Json<Value>, Refusal> {
    grant.covers(show)?;
    let answer = app.ingests.stop(show).await?;
    let recording = match answer.session {
        Some(session) => app.archive.glance(session.session).await,
        None => app.archive.latest(show.to_string()).await,
    };
    Ok(Json(
        json!({"stopped": answer.stopped, "recording": recording}),
    ))
}

/// `POST /api/recording/start`: recording began when the show went live.
pub(super) async fn start_recording(
    State(app): State<Arc<App>>,
    Extension(grant): Caller,
    JsonBody(body): JsonBody<ShowBody>,
) -> Result<Json<Value>, Refusal> {
    let show = body.show()?;
    grant.covers(&show)?;
    let session = app.ingests.session(&show).await?.filter(is_active);
    let Some(session) = session else {
        return Err(Refusal::new(Code::NotLive, "The show is not live."));
    };
    let recording = app.archive.glance(session.session.clone()).await;
    let recording = recording.unwrap_or_else(|| running(session));
    Ok(Json(json!({"recording": recording})))
}

/// What the ingest alone knows of a recording, for when the archiver is away.
fn running(session: SessionStatus) -> Recording {
    Recording {
        id: session.session,
        show_id: session.show_id,
        version: version_at(session.started_at_unix_ms),
        status: Status::Recording,
        error: session.recording_failed,
        started_at: rfc3339(session.started_at_unix_ms),
        ended_at: None,
        archived_at: None,
        end_reason: None,
        mime: String::new(),
        bytes: session.durable,
        duration_ms: None,
        takes: 0,
        reconnects: u32::try_from(session.reconnects).unwrap_or(u32::MAX),
        gaps: Vec::new(),
        object_key: None,
        sha256: None,
        crc64nvme: None,
        markers: Vec::new(),
        rehearsal: session.rehearsal,
        sheet: None,
        objects: Vec::new(),
        renditions: Vec::new(),
    }
}
