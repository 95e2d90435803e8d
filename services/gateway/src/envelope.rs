//! The envelope of every REST failure and of a 401 on `/graphql`: `{"error": {"code", "message", "details"}}`.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use tonic::Code;

/// A failure of the HTTP surface, before any GraphQL is executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub status: StatusCode,
    /// One of the codes of public-api.md §3.
    pub code: &'static str,
    /// One sentence for a person.
    pub message: String,
    /// Machine code of the cause, or empty.
    pub details: String,
    /// Seconds after which trying again can help.
    pub retry_after_s: Option<u64>,
}

impl Failure {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let code = match status {
            StatusCode::UNAUTHORIZED => "UNAUTHORIZED",
            StatusCode::FORBIDDEN => "FORBIDDEN",
            StatusCode::NOT_FOUND => "NOT_FOUND",
            StatusCode::CONFLICT => "CONFLICT",
            StatusCode::TOO_MANY_REQUESTS => "RATE_LIMITED",
            s if s.is_client_error() => "INVALID_INPUT",
            _ => "INTERNAL_ERROR",
        };
        Self { status, code, message: message.into(), details: String::new(), retry_after_s: None }
    }

    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, message)
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

impl From<tonic::Status> for Failure {
    /// What signing in can answer: not signed in, or nobody to ask.
    fn from(status: tonic::Status) -> Self {
        match status.code() {
            Code::Unauthenticated => Self::unauthorized(status.message()),
            Code::PermissionDenied => Self::new(StatusCode::FORBIDDEN, status.message()),
            _ => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "your session cannot be checked just now; try again",
            ),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = serde_json::json!({
            "error": {"code": self.code, "message": self.message, "details": self.details}
        });
        let mut response = (self.status, axum::Json(body)).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
