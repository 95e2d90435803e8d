//! The envelope of every failure over HTTP, REST's and a 401 on `/graphql` (public-api.md §3):
//! `{"error": {"code", "message", "details"}}`.

use super::{
    db,
    error::{Error, disk_full, refusal_of, unavailable_of},
    refusal::{Kind, Refusal},
};
use axum::response::{IntoResponse, Response};
use fafnir_proto::client;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use tonic::{Code, Status};
use utoipa::ToSchema;

/// Seconds after which a refusal for too much can be tried again, where nobody knows better.
const RETRY_AFTER_S: u64 = 1;

/// What a failure's body is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Envelope {
    error: Told,
}

/// Why a request failed.
#[derive(Debug, Serialize, ToSchema)]
struct Told {
    /// INVALID_INPUT, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFLICT, RATE_LIMITED or INTERNAL_ERROR.
    code: &'static str,
    /// Machine code of the cause, or empty.
    details: String,
    /// One sentence for a person, which names the field and the limit.
    message: String,
}

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
    /// As a gRPC client is told: a refusal, also one that another service made, as it is; a fault without internals.
    fn from(e: Error) -> Self {
        let refusal = match &e {
            // Another service does not believe this one: nothing that the caller could mend.
            Error::Remote(status) if status.code() == Code::Unauthenticated => None,
            Error::Remote(status) => refusal_of(status).or_else(|| unavailable_of(status)),
            Error::Db(db::Error::DiskFull) => Some(disk_full()),
            e => e.refusal(),
        };
        if let Some(refusal) = refusal {
            return refusal.into();
        }
        if e.is_transient() {
            tracing::warn!(trace = client::trace_id(), error = %e, "request failed, can be tried again");
            let text = "the service cannot answer just now; try again";
            return Self {
                retry_after_s: Some(RETRY_AFTER_S),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, text)
            };
        }
        tracing::error!(trace = client::trace_id(), error = %e, "request failed");
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
        let body =
            Envelope { error: Told { code: self.code(), details: self.details, message: self.message } };
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

    #[test]
    fn what_another_service_says_keeps_its_status() {
        let remote = |status: Status| Failure::from(Error::from(status));
        let exists = Refusal::exists(Reason::EMAIL_TAKEN, "taken");
        assert_eq!(remote(exists.clone().into()), exists.into());
        for (refusal, status) in [
            (Refusal::precondition(Reason::LAST_ADMIN, "m"), 400),
            (Refusal::denied("m"), 403),
            (Refusal::exhausted(Reason::RATE_LIMITED, "m"), 429),
            (Refusal::unavailable(Reason::DISK_FULL, "m"), 503),
        ] {
            assert_eq!(remote(refusal.into()).status, status);
        }
        // What is no word for the client.
        for (status, told, retry) in [
            (Status::unavailable("connection refused"), 503, Some(RETRY_AFTER_S)),
            (Status::deadline_exceeded("late"), 503, Some(RETRY_AFTER_S)),
            (Status::unauthenticated("the service token is wrong"), 500, None),
            (Status::internal("a stack trace"), 500, None),
        ] {
            let failure = remote(status);
            assert_eq!((failure.status.as_u16(), failure.retry_after_s), (told, retry));
            assert!(failure.message.starts_with("the service "), "{}", failure.message);
        }
    }

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
