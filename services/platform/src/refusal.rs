//! A request that is refused and changes nothing, as every layer says it: no transport is seen here.

use fafnir_proto::reason::{AnyReason, Reason};

/// What sort of refusal it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is wrong whatever the state of things.
    Invalid,
    /// The request names what lies beyond the end of something.
    OutOfRange,
    /// What it names is not there, or not for this caller.
    NotFound,
    /// What it would make is there already, otherwise.
    Exists,
    /// The caller may not do this.
    Denied,
    /// Nobody knows who the caller is.
    Unauthenticated,
    /// The request is fine, the state of things is not.
    Precondition,
    /// Too much of it, for now or for this caller.
    Exhausted,
    /// Nothing is wrong with it, but it cannot be served just now.
    Unavailable,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub kind: Kind,
    /// The rule that was broken.
    pub reason: AnyReason,
    /// One sentence for a person, which names the field and the limit.
    pub message: String,
}

impl Refusal {
    pub fn new(kind: Kind, reason: Reason, message: impl Into<String>) -> Self {
        Self { kind, reason: reason.into(), message: message.into() }
    }
    pub fn invalid(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, reason, message)
    }
    pub fn out_of_range(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Kind::OutOfRange, reason, message)
    }
    pub fn not_found(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, reason, message)
    }
    pub fn exists(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Kind::Exists, reason, message)
    }
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(Kind::Denied, Reason::PERMISSION_DENIED, message)
    }
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(Kind::Unauthenticated, Reason::UNAUTHENTICATED, message)
    }
    pub fn precondition(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Kind::Precondition, reason, message)
    }
    pub fn exhausted(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Kind::Exhausted, reason, message)
    }
    pub fn unavailable(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, reason, message)
    }
}
