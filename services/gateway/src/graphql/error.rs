//! What a client is told when something is refused or fails: a clean sentence, `extensions.code`, `extensions.reason`.

use async_graphql::{Error, ErrorExtensions as _, ServerError, SimpleObject};
use fafnir_platform::{
    error::{refusal_of, unavailable_of},
    refusal::{Kind, Refusal},
};
pub use fafnir_proto::reason::code_name;
use fafnir_proto::{client, reason::Reason};
use tonic::{Code, Status};

/// Longest message of a parser or validation error; they quote the query.
const MESSAGE_LEN_MAX: usize = 200;
pub const PARSE_FAILED: &str = "GRAPHQL_PARSE_FAILED";
pub const VALIDATION_FAILED: &str = "GRAPHQL_VALIDATION_FAILED";

fn error(code: Code, message: impl Into<String>) -> Error {
    Error::new(message).extend_with(|_, e| e.set("code", code_name(code)))
}

/// A sentence of a service, whose fields' names are the contract's, in the names that this API has for them:
/// `account_id` is `accountId` here, `price_e4` is `price`. What stands in quotes is the client's own and stays.
fn in_our_words(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    let mut is_quoted = false;
    for word in message.split_inclusive(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
        let end = word.trim_end_matches(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let rest = &word[end.len()..];
        let is_name = end.contains('_')
            && end.starts_with(|c: char| c.is_ascii_lowercase())
            && !end.bytes().any(|b| b.is_ascii_uppercase());
        if is_name && !is_quoted {
            let mut parts = end.split('_').filter(|p| !matches!(*p, "" | "e4" | "micros" | "us"));
            out.push_str(parts.next().unwrap_or_default());
            for part in parts {
                let (head, tail) = part.split_at(1);
                out.push_str(&head.to_ascii_uppercase());
                out.push_str(tail);
            }
        } else {
            out.push_str(end);
        }
        is_quoted ^= rest.contains('"');
        out.push_str(rest);
    }
    out
}

/// The error that a refusal becomes: its code and its reason beside the sentence.
pub fn refused(refusal: Refusal) -> Error {
    let reason = String::from(refusal.reason);
    error(refusal.kind.into(), in_our_words(&refusal.message))
        .extend_with(|_, e| e.set("reason", reason.as_str()))
}

/// A refused argument.
pub fn invalid(reason: Reason, message: impl Into<String>) -> Error {
    refused(Refusal::invalid(reason, message))
}

/// The error that a service's answer becomes: refusals as they are, faults without internals.
#[expect(clippy::needless_pass_by_value, reason = "used with map_err")]
pub fn of(status: Status) -> Error {
    if let Some(refusal) = refusal_of(&status).or_else(|| unavailable_of(&status)) {
        return refused(refusal);
    }
    match status.code() {
        Code::Unavailable => error(Code::Unavailable, "the service cannot answer just now; try again"),
        Code::DeadlineExceeded | Code::Cancelled => {
            error(Code::DeadlineExceeded, "the service did not answer in time; look before trying again")
        }
        code => {
            tracing::error!(trace = client::trace_id(), ?code, cause = status.message(), "resolver failed");
            error(Code::Internal, "the service failed; the log has the cause")
        }
    }
}

/// What became of a request, as every payload says it.
#[derive(SimpleObject, Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// A standard gRPC code name; go on only at OK.
    pub code: String,
    /// The machine code of a refusal.
    pub reason: Option<String>,
    /// The sentence of a refusal: what was refused, and the limit.
    pub message: Option<String>,
}

impl Outcome {
    pub fn ok() -> Self {
        Self { code: code_name(Code::Ok).to_owned(), reason: None, message: None }
    }

    pub fn refused(refusal: Refusal) -> Self {
        Self {
            code: code_name(refusal.kind.into()).to_owned(),
            reason: Some(refusal.reason.into()),
            message: Some(in_our_words(&refusal.message)),
        }
    }
}

/// Splits an answer into what travels in the payload and what is an error: a refusal becomes an outcome, a fault an
/// error.
pub fn outcome<T>(result: Result<T, Status>) -> Result<(Option<T>, Outcome), Error> {
    match result {
        Ok(value) => Ok((Some(value), Outcome::ok())),
        Err(status) => match refusal_of(&status) {
            Some(refusal) if refusal.kind != Kind::Unauthenticated => Ok((None, Outcome::refused(refusal))),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_names_the_fields_as_this_api_has_them() {
        for (theirs, ours) in [
            ("account_id must be a UUID", "accountId must be a UUID"),
            ("price_e4 must be a multiple of tick_size, 0.01", "price must be a multiple of tickSize, 0.01"),
            ("from_us: to_us is before it", "from: to is before it"),
            (
                r#"no order has the client_order_id "my_own_id""#,
                r#"no order has the clientOrderId "my_own_id""#,
            ),
            ("STOP_LIMIT needs stop_price", "STOP_LIMIT needs stopPrice"),
            ("é_x, _ and __ stay text", "é_x, _ and __ stay text"),
        ] {
            assert_eq!(in_our_words(theirs), ours);
        }
    }
}
