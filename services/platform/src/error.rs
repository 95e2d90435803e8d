//! Errors of the platform and how they become a gRPC status, once, at the last step.

use super::{
    db,
    refusal::{Kind, Refusal},
};
use fafnir_proto::{
    client::{self, REASON_KEY},
    reason::{AnyReason, Reason},
};
use tonic::{Code, Status};

pub type Result<T, E = Error> = std::result::Result<T, E>;

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

impl From<Kind> for Code {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Invalid => Self::InvalidArgument,
            Kind::OutOfRange => Self::OutOfRange,
            Kind::NotFound => Self::NotFound,
            Kind::Exists => Self::AlreadyExists,
            Kind::Denied => Self::PermissionDenied,
            Kind::Unauthenticated => Self::Unauthenticated,
            Kind::Precondition => Self::FailedPrecondition,
            Kind::Exhausted => Self::ResourceExhausted,
            Kind::Unavailable => Self::Unavailable,
        }
    }
}

impl From<Refusal> for Status {
    fn from(r: Refusal) -> Self {
        let mut status = Status::new(r.kind.into(), r.message);
        if let Ok(reason) = r.reason.as_str().parse() {
            status.metadata_mut().insert(REASON_KEY, reason);
        }
        status
    }
}

/// Nothing is written: the disk has no room.
pub fn disk_full() -> Refusal {
    let message = "the disk is full: nothing is written until it has room again; try later";
    Refusal::unavailable(Reason::DISK_FULL, message)
}

/// What a status says where a service cannot answer just now and says why; `None` for other faults and for refusals.
pub fn unavailable_of(status: &Status) -> Option<Refusal> {
    let reason = status.metadata().get(REASON_KEY).and_then(|v| v.to_str().ok())?;
    (status.code() == Code::Unavailable).then(|| Refusal {
        kind: Kind::Unavailable,
        reason: AnyReason::read(reason),
        message: status.message().to_owned(),
    })
}

/// The refusal that a status carries; `None` for faults (UNAVAILABLE, INTERNAL, …).
pub fn refusal_of(status: &Status) -> Option<Refusal> {
    let kind = match status.code() {
        Code::InvalidArgument => Kind::Invalid,
        Code::OutOfRange => Kind::OutOfRange,
        Code::NotFound => Kind::NotFound,
        Code::AlreadyExists => Kind::Exists,
        Code::PermissionDenied => Kind::Denied,
        Code::Unauthenticated => Kind::Unauthenticated,
        Code::FailedPrecondition => Kind::Precondition,
        Code::ResourceExhausted => Kind::Exhausted,
        _ => return None,
    };
    let reason = status.metadata().get(REASON_KEY).and_then(|v| v.to_str().ok());
    let reason = reason.map_or(Reason::REFUSED.into(), AnyReason::read);
    Some(Refusal { kind, reason, message: status.message().to_owned() })
}

impl From<Error> for Status {
    /// Refusals travel as they are; faults are logged here and leave as a clean sentence without internals.
    fn from(e: Error) -> Self {
        match e {
            Error::Refused(r) => r.into(),
            Error::Remote(s) if refusal_of(&s).is_some() => *s,
            Error::Db(db::Error::DiskFull) => disk_full().into(),
            e if e.is_transient() => {
                tracing::warn!(trace = client::trace_id(), error = %e, "request failed, can be tried again");
                Status::unavailable("the service cannot answer just now; try again")
            }
            e => {
                tracing::error!(trace = client::trace_id(), error = %e, "request failed");
                Status::internal("the service failed; the log has the cause")
            }
        }
    }
}
