//! Shows: listing, settings, markers.
//!
//! Owns the JSON of a show; must never touch a running session but through its ingest.

use super::request::{Caller, JsonBody, ShowPath};
use crate::{app::App, refusal::Refusal};
use aircheck_core::{
    code::Code,
    recording::Marker,
    wire::{GRACE_MAX_S, TITLE_MAX, check_marker},
};
use aircheck_proto::{archiver, ingest};
use axum::{Extension, Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// A show in the contract's words.
#[derive(Debug, Serialize)]
pub(super) struct Show {
    id: String,
    title: String,
    grace_s: Option<u64>,
    gap_policy: String,
}

impl From<archiver::Show> for Show {
    fn from(show: archiver::Show) -> Self {
        Self {
            id: show.id,
            title: show.title,
            grace_s: show.grace_s,
            gap_policy: show.gap_policy,
        }
    }
}

/// What a station may set; what it leaves out is set to the default.
#[derive(Debug, Deserialize)]
pub(super) struct ShowBody {
    title: Option<String>,
    grace_s: Option<u64>,
    gap_policy: Option<String>,
}

impl ShowBody {
    fn check(&self) -> Result<(), Refusal> {
        let bad = |message: String| Err(Refusal::new(Code::BadMessage, message));
        if self
            .title
            .as_ref()
            .is_some_and(|title| title.chars().count() > TITLE_MAX)
        {
            return bad(format!("title may have at most {TITLE_MAX} characters"));
        }
        if self.grace_s.is_some_and(|grace| grace > GRACE_MAX_S) {
            return bad(format!("grace_s must be 0 to {GRACE_MAX_S}"));
        }
        if !matches!(self.gap_policy.as_deref(), None | Some("silence" | "close")) {
            return bad("gap_policy must be silence or close".to_owned());
        }
        Ok(())
    }
}

/// `GET /api/shows`
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(grant): Caller,
) -> Result<Json<Value>, Refusal> {
    let shows: Vec<Show> = app
        .archive
        .shows()
        .await?
        .into_iter()
        .filter(|show| grant.covers_named(&show.id))
        .map(Into::into)
        .collect();
    Ok(Json(json!({"items": shows})))
}

/// `PUT /api/shows/{id}`: holds from the next time the show goes live.
pub(super) async fn replace(
    State(app): State<Arc<App>>,
    Extension(grant): Caller,
    ShowPath(show): ShowPath,
    JsonBody(body): JsonBody<ShowBody>,
) -> Result<Json<Show>, Refusal> {
    grant.covers(&show)?;
    body.check()?;
    let wanted = archiver::Show {
        id: show.to_string(),
        title: body.title.unwrap_or_default(),
        grace_s: body.grace_s,
        gap_policy: body.gap_policy.unwrap_or_else(|| "silence".to_owned()),
    };
    let kept = app.archive.put_show(wanted).await?;
    app.shows.forget(&show);
    Ok(Json(kept.into()))
}

/// `{"label","kind"}`
#[derive(Debug, Deserialize)]
pub(super) struct MarkerBody {
    label: String,
    kind: Option<String>,
}

/// `POST /api/shows/{show_id}/markers`
pub(super) async fn mark(
    State(app): State<Arc<App>>,
    Extension(grant): Caller,
    ShowPath(show): ShowPath,
    JsonBody(body): JsonBody<MarkerBody>,
) -> Result<Json<Marker>, Refusal> {
    grant.covers(&show)?;
    let kind = body.kind.unwrap_or_else(|| "note".to_owned());
    check_marker(&body.label, &kind)
        .map_err(|error| Refusal::new(Code::BadMessage, error.to_string()))?;
    let marker = ingest::Marker {
        label: body.label.clone(),
        kind: kind.clone(),
    };
    let at_ms = app.ingests.mark(&show, marker).await?;
    Ok(Json(Marker {
        at_ms,
        label: body.label,
        kind,
    }))
}
