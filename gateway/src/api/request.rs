//! Arguments of requests: paths, queries and JSON bodies.
//!
//! Owns their limits and refusals; what leaves this file is valid.

use crate::{auth::Grant, refusal::Refusal};
use aircheck_core::{
    code::Code,
    id::{SessionId, ShowId},
};
use axum::{
    Extension,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::request::Parts,
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::{Deserialize, de::DeserializeOwned};
use std::{error::Error, sync::Arc, time::Duration};
use tokio::time::timeout;

/// Largest body, in bytes.
const BODY_MAX: usize = 64 << 10;
/// Longest wait for a body.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// What the caller may do, as the guard of the route found it. A route without one answers 500.
pub(super) type Caller = Extension<Arc<Grant>>;

/// A show named in the path.
#[derive(Debug)]
pub(super) struct ShowPath(pub(super) ShowId);

impl<S: Send + Sync> FromRequestParts<S> for ShowPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path(id) = Path::<String>::from_request_parts(parts, state).await?;
        show_id(&id).map(Self)
    }
}

/// A recording named in the path.
#[derive(Debug)]
pub(super) struct RecordingPath(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for RecordingPath {
    type Rejection = Refusal;

    /// What is no id names no recording.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path(id) = Path::<String>::from_request_parts(parts, state).await?;
        match id.parse::<SessionId>() {
            Ok(id) => Ok(Self(id.to_string())),
            Err(_) => Err(Refusal::new(Code::NotFound, "There is no such recording.")),
        }
    }
}

/// A query.
#[derive(Debug)]
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Query(parameters) = Query::<T>::from_request_parts(parts, state).await?;
        Ok(Self(parameters))
    }
}

/// A JSON body, whatever its content type says.
#[derive(Debug)]
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let body = Limited::new(request.into_body(), BODY_MAX);
        let bytes = match timeout(BODY_DEADLINE, body.collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) => return Err(unreadable(&*error)),
            Err(_elapsed) => return Err(Refusal::new(Code::Timeout, "The body took too long.")),
        };
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            Refusal::new(
                Code::BadMessage,
                format!("The body is not what this call takes: {error}"),
            )
        })
    }
}

fn unreadable(error: &(dyn Error + Send + Sync + 'static)) -> Refusal {
    if error.is::<LengthLimitError>() {
        let message = format!("A body may have at most {BODY_MAX} bytes.");
        return Refusal::new(Code::TooLarge, message);
    }
    Refusal::new(Code::BadMessage, "The body can't be read.")
}

/// A show's name as text.
pub(super) fn show_id(text: &str) -> Result<ShowId, Refusal> {
    text.parse()
        .map_err(|error: aircheck_core::id::ShowIdError| {
            Refusal::new(Code::BadShowId, error.to_string())
        })
}

/// `?show_id=`
#[derive(Debug, Default, Deserialize)]
pub(super) struct ShowQuery {
    pub(super) show_id: Option<String>,
}

/// `{"show_id"}`, which old clients write as a number.
#[derive(Debug, Deserialize)]
pub(super) struct ShowBody {
    show_id: Name,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Name {
    Text(String),
    Number(u64),
}

impl ShowBody {
    /// The show it names.
    pub(super) fn show(&self) -> Result<ShowId, Refusal> {
        match &self.show_id {
            Name::Text(text) => show_id(text),
            Name::Number(number) => show_id(&number.to_string()),
        }
    }
}
