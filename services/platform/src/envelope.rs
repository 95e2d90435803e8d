//! The envelope of every failure over HTTP, REST's and a 401 on `/graphql` (public-api.md §3):
//! `{"error": {"code", "message", "details"}}`.

use super::{
    error::Error,
    refusal::{Kind, Refusal},
};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use tonic::{Code, Status};

/// Seconds after which a refusal for too much can be tried again, where nobody knows better.
const RETRY_AFTER_S: u64 = 1;

/// A request that failed, as an HTTP client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub status: StatusCode,
    /// One sentence for a person.
    pub message: String,
    /// Machine code of the cause, or empty.
    pub details: String,
    /// Seconds after which trying again can help.
    pub retry_after_s: Option<u64>,
}

impl Failure {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), details: String::new(), retry_after_s: None }
    }

    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, message)
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// One of the codes of public-api.md §3.
    pub fn code(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "UNAUTHORIZED",
            StatusCode::FORBIDDEN => "FORBIDDEN",
            StatusCode::NOT_FOUND => "NOT_FOUND",
            StatusCode::CONFLICT => "CONFLICT",
            StatusCode::TOO_MANY_REQUESTS => "RATE_LIMITED",
            s if s.is_client_error() => "INVALID_INPUT",
            _ => "INTERNAL_ERROR",
        }
    }
}

impl From<Kind> for StatusCode {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Unauthenticated => Self::UNAUTHORIZED,
            Kind::Denied => Self::FORBIDDEN,
            Kind::NotFound => Self::NOT_FOUND,
            Kind::Exists => Self::CONFLICT,
            Kind::Exhausted => Self::TOO_MANY_REQUESTS,
            Kind::Invalid | Kind::OutOfRange | Kind::Precondition => Self::BAD_REQUEST,
            Kind::Unavailable => Self::SERVICE_UNAVAILABLE,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(r: Refusal) -> Self {
        let retry_after_s = matches!(r.kind, Kind::Exhausted | Kind::Unavailable).then_some(RETRY_AFTER_S);
        Self { status: r.kind.into(), message: r.message, details: r.reason.into(), retry_after_s }
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        // Only our own refusals are for the client: what another service refused us is our fault.
        if let Error::Refused(refusal) = e {
            return refusal.into();
        }
        tracing::error!(error = %e, "request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the service failed; try again")
    }
}

impl From<Status> for Failure {
    /// What looking for a session can answer: not signed in, or nobody to ask.
    fn from(status: Status) -> Self {
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
            "error": {"code": self.code(), "message": self.message, "details": self.details}
        });
        let mut response = (self.status, axum::Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fafnir_proto::reason::Reason;

    #[tokio::test]
    async fn a_refusal_becomes_an_envelope() {
        for (refusal, status, code, retry) in [
            (Refusal::invalid(Reason::TEXT_MISSING, "m"), 400, "INVALID_INPUT", None),
            (Refusal::unauthenticated("m"), 401, "UNAUTHORIZED", None),
            (Refusal::denied("m"), 403, "FORBIDDEN", None),
            (Refusal::not_found(Reason::USER_NOT_FOUND, "m"), 404, "NOT_FOUND", None),
            (Refusal::exists(Reason::EMAIL_TAKEN, "m"), 409, "CONFLICT", None),
            (Refusal::exhausted(Reason::SIGN_IN_BUSY, "m"), 429, "RATE_LIMITED", Some("1")),
            (Refusal::unavailable(Reason::BUS_ENDED, "m"), 503, "INTERNAL_ERROR", Some("1")),
        ] {
            let details = refusal.reason.clone();
            let response = Failure::from(refusal).into_response();
            assert_eq!(response.status(), status);
            assert_eq!(response.headers().contains_key(header::WWW_AUTHENTICATE), status == 401);
            let after = response.headers().get(header::RETRY_AFTER).map(|v| v.to_str().unwrap().to_owned());
            assert_eq!(after.as_deref(), retry);
            let body = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
            let expected = format!(r#"{{"error":{{"code":"{code}","details":"{details}","message":"m"}}}}"#);
            assert_eq!(body, expected);
        }
    }
}
