//! What a client is told when something is refused or fails: a clean sentence, `extensions.code`, `extensions.reason`.

use async_graphql::{Error, ErrorExtensions as _, ServerError};
use fafnir_platform::error::refusal_of;
use tonic::{Code, Status};

/// Longest message of a parser or validation error; they quote the query.
const MESSAGE_LEN_MAX: usize = 200;
pub const PARSE_FAILED: &str = "GRAPHQL_PARSE_FAILED";
pub const VALIDATION_FAILED: &str = "GRAPHQL_VALIDATION_FAILED";

/// The standard name of a gRPC code.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// An error with a code and a machine code of the cause.
pub fn new(code: Code, reason: &str, message: impl Into<String>) -> Error {
    Error::new(message).extend_with(|_, e| {
        e.set("code", code_name(code));
        if !reason.is_empty() {
            e.set("reason", reason);
        }
    })
}

/// A refused argument.
pub fn invalid(reason: &str, message: impl Into<String>) -> Error {
    new(Code::InvalidArgument, reason, message)
}

/// The error that a service's answer becomes: refusals as they are, faults without internals.
#[expect(clippy::needless_pass_by_value, reason = "used with map_err")]
pub fn of(status: Status) -> Error {
    if let Some(refusal) = refusal_of(&status) {
        return new(refusal.code, &refusal.reason, refusal.message);
    }
    match status.code() {
        Code::Unavailable => new(Code::Unavailable, "", "the service cannot answer just now; try again"),
        Code::DeadlineExceeded | Code::Cancelled => {
            new(Code::DeadlineExceeded, "", "the service did not answer in time; look before trying again")
        }
        code => {
            tracing::error!(?code, cause = status.message(), "resolver failed");
            new(Code::Internal, "", "the service failed; the log has the cause")
        }
    }
}

/// Splits an answer into what travels in the payload and what is an error: a refusal becomes its code, a fault an error.
pub fn outcome<T>(result: Result<T, Status>) -> Result<(Option<T>, String), Error> {
    match result {
        Ok(value) => Ok((Some(value), code_name(Code::Ok).to_owned())),
        Err(status) => match refusal_of(&status) {
            Some(refusal) if refusal.code != Code::Unauthenticated => {
                Ok((None, code_name(refusal.code).to_owned()))
            }
            _ => Err(of(status)),
        },
    }
}

/// Gives the errors that the library made itself their code, and cuts what they quote.
pub fn finish(error: &mut ServerError, was_executed: bool) {
    let has_code = error.extensions.as_ref().is_some_and(|e| e.get("code").is_some());
    if has_code {
        return;
    }
    truncate(&mut error.message);
    let code = if was_executed { code_name(Code::InvalidArgument) } else { VALIDATION_FAILED };
    error.extensions.get_or_insert_default().set("code", code);
}

/// Cuts a message that quotes what the client sent.
pub fn truncate(message: &mut String) {
    if message.chars().count() > MESSAGE_LEN_MAX {
        *message = message.chars().take(MESSAGE_LEN_MAX).chain(['…']).collect();
    }
}
