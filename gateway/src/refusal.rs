//! A fault as an HTTP response.
//!
//! Owns the JSON of errors: `{"error":{"code","message"}}`; must never choose a status by itself.

use aircheck_core::code::Code;
use aircheck_proto::Fault;
use axum::{
    Json,
    extract::rejection::{PathRejection, QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

/// A [`Fault`] on its way to an HTTP client.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) Fault);

impl Refusal {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Fault::new(code, message))
    }

    /// With a status that says more than the code's own.
    pub(crate) fn with_status(self, status: StatusCode) -> Response {
        let Fault {
            code,
            message,
            retry_ms,
        } = self.0;
        let body = json!({"error": {"code": code.as_str(), "message": message}});
        let mut response = (status, Json(body)).into_response();
        if code == Code::Unauthenticated {
            let bearer = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, bearer);
        }
        if let Some(ms) = retry_ms {
            let seconds = HeaderValue::from(ms.div_ceil(1000));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self(fault)
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(Code::BadMessage, rejection.body_text())
    }
}

impl From<PathRejection> for Refusal {
    fn from(rejection: PathRejection) -> Self {
        Self::new(Code::BadMessage, rejection.body_text())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.code.http_status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        self.with_status(status)
    }
}
