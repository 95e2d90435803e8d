//! Orders: what a request must be, what it needs, what becomes of it. No I/O, no clock, no float.

pub mod lifecycle;
pub mod new_order;
pub mod pricing;
#[cfg(test)]
mod tests;

use fafnir_proto::v1::Order;
use fafnir_rules::check::{Field, Violation};

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

impl Error {
    /// The refusal of an order in `symbol` that breaks a rule.
    pub fn of(violation: Violation, symbol: &str) -> Self {
        use Violation::*;
        let reason = match violation {
            QuantityNotPositive => "QUANTITY_NOT_POSITIVE",
            QuantityTooLarge { .. } => "QUANTITY_TOO_LARGE",
            TimeNotAllowed { .. } => "TIME_IN_FORCE_NOT_ALLOWED",
            ExpiryMissing => "EXPIRY_MISSING",
            ExpiryInThePast => "EXPIRY_IN_THE_PAST",
            ExpiryTooFar => "EXPIRY_TOO_FAR",
            TrailMissing => "TRAIL_MISSING",
            TrailAmountNotPositive | TrailPercentOutOfRange | TrailTooWide { .. } => "TRAIL_OUT_OF_RANGE",
            DisplayOutOfRange { .. } => "DISPLAY_QUANTITY_OUT_OF_RANGE",
            TooManyParts { .. } => "DISPLAY_QUANTITY_TOO_SMALL",
            ClientOrderIdTooLong => "CLIENT_ORDER_ID_TOO_LONG",
            ClientOrderIdMalformed => "CLIENT_ORDER_ID_MALFORMED",
            Halted => "SYMBOL_HALTED",
            Closed => "SYMBOL_CLOSED",
            InCall => "SYMBOL_IN_AUCTION",
            OffLot { field: Field::DisplayQuantity, .. } => "DISPLAY_QUANTITY_OFF_LOT",
            OffLot { .. } => "QUANTITY_OFF_LOT",
            OffTick { field: Field::StopPrice, .. } => "STOP_PRICE_OFF_TICK",
            OffTick { field: Field::TrailAmount, .. } => "TRAIL_OFF_TICK",
            OffTick { .. } => "PRICE_OFF_TICK",
            PriceTooLarge { .. } => "PRICE_TOO_LARGE",
            OutOfBand { field: Field::StopPrice, .. } => "STOP_PRICE_OUT_OF_BAND",
            OutOfBand { .. } => "PRICE_OUT_OF_BAND",
            NoReferencePrice { .. } => "NO_REFERENCE_PRICE",
            OrderTooLarge => "ORDER_TOO_LARGE",
        };
        let message = violation.sentence(symbol);
        match violation {
            Halted | Closed | InCall | NoReferencePrice { .. } => Self::precondition(reason, message),
            _ => Self::invalid(reason, message),
        }
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
