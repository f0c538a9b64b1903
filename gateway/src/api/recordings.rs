//! Recordings: listing, download, repair, deletion.
//!
//! Owns the JSON of a page; must never open the store or the database, which are the archiver's.

use super::request::{Caller, Parameters, RecordingPath, ShowPath};
use crate::{app::App, auth::Grant, query::flag, refusal::Refusal};
use aircheck_core::{
    code::Code,
    recording::{Recording, Status},
};
use aircheck_proto::{
    Fault,
    archiver::{ListRecordingsRequest, RecordingStatus, RepairOutcome},
};
use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Longest page.
const LIMIT_MAX: u32 = 200;

/// `?status=&after=&limit=&rehearsals=`; what is empty counts as absent.
#[derive(Debug, Default, Deserialize)]
pub(super) struct PageQuery {
    #[serde(default)]
    status: String,
    #[serde(default)]
    after: String,
    #[serde(default)]
    limit: String,
    #[serde(default)]
    rehearsals: String,
}

/// `?object=`; what is empty counts as absent.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ObjectQuery {
    #[serde(default)]
    object: String,
}

/// One page, newest first.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    items: Vec<Recording>,
    next: Option<String>,
}

impl PageQuery {
    fn request(self, show_id: Option<String>) -> Result<ListRecordingsRequest, Fault> {
        let status = match self.status.as_str() {
            "" => RecordingStatus::Unspecified,
            name => Status::parse(name).map(Into::into).ok_or_else(|| {
                let message = "status must be recording, finalizing, archived or failed";
                Fault::new(Code::BadMessage, message)
            })?,
        };
        let limit = match self.limit.as_str() {
            "" => 0,
            text => text
                .parse()
                .ok()
                .filter(|limit| (1..=LIMIT_MAX).contains(limit))
                .ok_or_else(|| {
                    let message = format!("limit must be 1 to {LIMIT_MAX}");
                    Fault::new(Code::BadMessage, message)
                })?,
        };
        let rehearsals = flag("rehearsals", Some(&self.rehearsals))?;
        let after = Some(self.after).filter(|cursor| !cursor.is_empty());
        Ok(ListRecordingsRequest {
            show_id,
            status: status.into(),
            after,
            limit,
            rehearsals,
        })
    }
}

/// `GET /api/recordings`
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(grant): Caller,
    Parameters(query): Parameters<PageQuery>,
) -> Result<Json<Page>, Refusal> {
    page(&app, &grant, query.request(None)?).await
}

/// `GET /api/shows/{id}/recordings`
pub(super) async fn list_of_show(
    State(app): State<Arc<App>>,
    Extension(grant): Caller,
    ShowPath(show): ShowPath,
    Parameters(query): Parameters<PageQuery>,
) -> Result<Json<Page>, Refusal> {
    grant.covers(&show)?;
    page(&app, &grant, query.request(Some(show.into()))?).await
}

/// A page holds fewer than it could where the caller may not see some.
async fn page(
    app: &App,
    grant: &Grant,
    request: ListRecordingsRequest,
) -> Result<Json<Page>, Refusal> {
    let answer = app.archive.list(request).await?;
    let items = answer.items.into_iter();
    let items = items.filter(|recording| grant.covers_named(&recording.show_id));
    let items = items.map(Into::into).collect();
    Ok(Json(Page {
        items,
        next: answer.next.filter(|cursor| !cursor.is_empty()),
    }))
}

/// Refuses a caller that may do nothing with this recording's show.
async fn covers(app: &App, grant: &Grant, id: &str) -> Result<(), Refusal> {
    if grant.covers_all() {
        return Ok(());
    }
    let recording = app.archive.recording(id.to_owned()).await?;
    covers_recording(grant, &recording)
}

fn covers_recording(grant: &Grant, recording: &Recording) -> Result<(), Refusal> {
    if grant.covers_named(&recording.show_id) {
        return Ok(());
    }
    Err(Refusal::new(
        Code::Forbidden,
        "The token does not grant the recording's show.",
    ))
}

/// `GET /api/recordings/{id}`
pub(super) async fn one(
    State(app): State<Arc<App>>,
    Extension(grant): Caller,
    RecordingPath(id): RecordingPath,
) -> Result<Json<Recording>, Refusal> {
    let recording = app.archive.recording(id).await?;
    covers_recording(&grant, &recording)?;
    Ok(Json(recording))
}

/// `GET /api/recordings/{id}/download`
pub(super) async fn download(
    State(app): State<Arc<App>>,
    Extension(grant): Caller,
    RecordingPath(id): RecordingPath,
    Parameters(query): Parameters<ObjectQuery>,
) -> Result<Response, Refusal> {
    covers(&app, &grant, &id).await?;
    let object = Some(query.object).filter(|name| !name.is_empty());
    let url = app.archive.presign(id, object).await?;
    let location = HeaderValue::from_str(&url).map_err(|_| {
        Refusal::new(
            Code::Internal,
            "The store's address can't be written in a header.",
        )
    })?;
    Ok((StatusCode::FOUND, [(header::LOCATION, location)]).into_response())
}

/// `DELETE /api/recordings/{id}`
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Extension(grant): Caller,
    RecordingPath(id): RecordingPath,
) -> Result<StatusCode, Refusal> {
    covers(&app, &grant, &id).await?;
    app.archive.delete(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What came of a repair so far.
#[derive(Debug, Serialize)]
pub(super) struct Repair {
    /// `running`, `repaired` or `nothing_to_repair`.
    outcome: &'static str,
    recording: Option<Recording>,
}

/// `POST /api/recordings/{id}/repair`
pub(super) async fn repair(
    State(app): State<Arc<App>>,
    Extension(grant): Caller,
    RecordingPath(id): RecordingPath,
) -> Result<(StatusCode, Json<Repair>), Refusal> {
    covers(&app, &grant, &id).await?;
    let answer = app.archive.repair(id).await?;
    let (status, outcome) = match answer.outcome() {
        RepairOutcome::Repaired => (StatusCode::OK, "repaired"),
        RepairOutcome::NothingToRepair => (StatusCode::OK, "nothing_to_repair"),
        RepairOutcome::Running | RepairOutcome::Unspecified => (StatusCode::ACCEPTED, "running"),
    };
    let recording = answer.recording.map(Into::into);
    Ok((status, Json(Repair { outcome, recording })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(status: &str, limit: &str) -> Result<ListRecordingsRequest, Code> {
        let query = PageQuery {
            status: status.to_owned(),
            after: String::new(),
            limit: limit.to_owned(),
            rehearsals: String::new(),
        };
        query.request(None).map_err(|fault| fault.code)
    }

    #[test]
    fn an_empty_query_asks_for_everything() {
        assert_eq!(query("", ""), Ok(ListRecordingsRequest::default()));
    }

    #[test]
    fn nonsense_is_refused_before_the_archiver_sees_it() {
        for (status, limit) in [
            ("done", ""),
            ("", "0"),
            ("", "201"),
            ("", "-1"),
            ("", "ten"),
        ] {
            assert_eq!(
                query(status, limit),
                Err(Code::BadMessage),
                "{status:?} {limit:?}"
            );
        }
    }
}
