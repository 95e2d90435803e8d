//! Errors of the platform and how they become a gRPC status, once, at the last step.

use super::db;
use fafnir_proto::client::REASON_KEY;
use std::borrow::Cow;
use tonic::{Code, Status};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A request that is refused and changes nothing: a status code, a machine code, a sentence that names the field and
/// the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    /// Machine code in capitals, e.g. `PRICE_OFF_TICK`.
    pub reason: Cow<'static, str>,
    /// One sentence for a person.
    pub message: String,
}

impl Refusal {
    pub fn new(code: Code, reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), message: message.into() }
    }
    pub fn invalid(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, reason, message)
    }
    pub fn not_found(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, reason, message)
    }
    pub fn precondition(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, reason, message)
    }
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(Code::PermissionDenied, "PERMISSION_DENIED", message)
    }
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(Code::Unauthenticated, "UNAUTHENTICATED", message)
    }
    pub fn exists(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(Code::AlreadyExists, reason, message)
    }
    pub fn exhausted(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(Code::ResourceExhausted, reason, message)
    }
}

/// What can go wrong inside a service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller asked for something that is refused.
    #[error("{}", .0.message)]
    Refused(Refusal),
    #[error(transparent)]
    Db(#[from] db::Error),
    /// Another service answered with a status.
    #[error("{}: {}", .0.code(), .0.message())]
    Remote(Box<Status>),
    /// The bus or the cache does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// A stated invariant does not hold; the sentence is for the log.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    pub fn internal(message: impl Into<String>) -> Self {
        Self::Internal(message.into())
    }
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::Unavailable(message.into())
    }
    /// Whether trying again later can help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Db(e) => e.is_transient(),
            Self::Unavailable(_) => true,
            Self::Remote(s) => {
                matches!(
                    s.code(),
                    Code::Unavailable
                        | Code::DeadlineExceeded
                        | Code::Aborted
                        | Code::Cancelled
                        | Code::Unknown
                )
            }
            Self::Refused(_) | Self::Internal(_) => false,
        }
    }
    /// The refusal, also one that another service made.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused(r) => Some(r.clone()),
            Self::Remote(s) => refusal_of(s),
            _ => None,
        }
    }
}

impl From<Refusal> for Error {
    fn from(r: Refusal) -> Self {
        Self::Refused(r)
    }
}

impl From<Status> for Error {
    fn from(s: Status) -> Self {
        Self::Remote(Box::new(s))
    }
}

impl From<Refusal> for Status {
    fn from(r: Refusal) -> Self {
        let mut status = Status::new(r.code, r.message);
        if let Ok(reason) = r.reason.parse() {
            status.metadata_mut().insert(REASON_KEY, reason);
        }
        status
    }
}

/// The refusal that a status carries; `None` for faults (UNAVAILABLE, INTERNAL, …).
pub fn refusal_of(status: &Status) -> Option<Refusal> {
    match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::ResourceExhausted
        | Code::Unauthenticated
        | Code::OutOfRange => {
            let reason = status.metadata().get(REASON_KEY).and_then(|v| v.to_str().ok()).unwrap_or("REFUSED");
            Some(Refusal::new(status.code(), reason.to_owned(), status.message()))
        }
        _ => None,
    }
}

impl From<Error> for Status {
    /// Refusals travel as they are; faults are logged here and leave as a clean sentence without internals.
    fn from(e: Error) -> Self {
        match e {
            Error::Refused(r) => r.into(),
            Error::Remote(s) if refusal_of(&s).is_some() => *s,
            e if e.is_transient() => {
                tracing::warn!(error = %e, "request failed, can be tried again");
                Status::unavailable("the service cannot answer just now; try again")
            }
            e => {
                tracing::error!(error = %e, "request failed");
                Status::internal("the service failed; the log has the cause")
            }
        }
    }
}
