//! Orders: what a request must be, what it needs, what becomes of it. No I/O, no clock, no float.

pub mod lifecycle;
pub mod new_order;
pub mod pricing;
#[cfg(test)]
mod tests;

use fafnir_proto::v1::{Order, OrderState};

/// Why a request is refused; it changes nothing. Reason codes are part of the contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: Kind,
    /// Machine code in capitals.
    pub reason: &'static str,
    /// One sentence that names the field and the limit.
    pub message: String,
}

/// What sort of refusal it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Invalid,
    NotFound,
    /// The request is fine, the state of things is not.
    Precondition,
    Exists,
    Exhausted,
}

impl Error {
    pub fn invalid(reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind: Kind::Invalid, reason, message: message.into() }
    }
    pub fn not_found(reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind: Kind::NotFound, reason, message: message.into() }
    }
    pub fn precondition(reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind: Kind::Precondition, reason, message: message.into() }
    }
    pub fn exists(reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind: Kind::Exists, reason, message: message.into() }
    }
    pub fn exhausted(reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind: Kind::Exhausted, reason, message: message.into() }
    }
}

/// An order with what only this service knows of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub order: Order,
    /// The worst price that it may trade at: what its cash hold is computed from. A LIMIT's limit, else the collar.
    pub cap_price_e4: i64,
    /// The hold stands and the engine's command is written.
    pub accepted: bool,
    pub agent: bool,
}

/// Whether an order has ended.
pub fn is_terminal(state: OrderState) -> bool {
    matches!(state, OrderState::Filled | OrderState::Canceled | OrderState::Expired | OrderState::Rejected)
}

/// The state in words for a sentence.
pub fn state_name(state: OrderState) -> &'static str {
    match state {
        OrderState::Unspecified => "unknown",
        OrderState::PendingNew => "PENDING_NEW",
        OrderState::Held => "HELD",
        OrderState::New => "NEW",
        OrderState::PartiallyFilled => "PARTIALLY_FILLED",
        OrderState::Filled => "FILLED",
        OrderState::Canceled => "CANCELED",
        OrderState::Expired => "EXPIRED",
        OrderState::Rejected => "REJECTED",
    }
}
