//! A request that is refused and changes nothing, as every layer says it: no transport is seen here.

use fafnir_proto::reason::{AnyReason, Reason};
use fafnir_rules::check::{Field, Violation};

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

    /// An order in `symbol` breaks a rule.
    pub fn of_rule(violation: Violation, symbol: &str) -> Self {
        use Violation::{
            Closed, Halted, InCall, NoClosingAuction, NoOpeningAuction, NoReferencePrice, StopNotBelowEntry,
            StopWrongSide,
        };
        let kind = match violation {
            Halted | Closed | InCall | NoOpeningAuction | NoClosingAuction => Kind::Precondition,
            NoReferencePrice { .. } | StopWrongSide { .. } | StopNotBelowEntry { .. } => Kind::Precondition,
            _ => Kind::Invalid,
        };
        Self::new(kind, rule_code(violation), violation.sentence(symbol))
    }
}

/// The code of a rule.
fn rule_code(violation: Violation) -> Reason {
    use Violation::*;
    match violation {
        QuantityNotPositive => Reason::QUANTITY_NOT_POSITIVE,
        QuantityTooLarge { .. } => Reason::QUANTITY_TOO_LARGE,
        QuantityAmbiguous => Reason::QUANTITY_AMBIGUOUS,
        NotionalNotPositive => Reason::NOTIONAL_NOT_POSITIVE,
        NotionalTooSmall { .. } => Reason::NOTIONAL_TOO_SMALL,
        NotionalNotAllowed { .. } => Reason::NOTIONAL_NOT_ALLOWED,
        TimeNotAllowed { .. } => Reason::TIME_IN_FORCE_NOT_ALLOWED,
        ExpiryMissing => Reason::EXPIRY_MISSING,
        ExpiryInThePast => Reason::EXPIRY_IN_THE_PAST,
        ExpiryTooFar => Reason::EXPIRY_TOO_FAR,
        TrailMissing => Reason::TRAIL_MISSING,
        TrailAmountNotPositive | TrailPercentOutOfRange | TrailTooWide { .. } => Reason::TRAIL_OUT_OF_RANGE,
        DisplayOutOfRange { .. } => Reason::DISPLAY_QUANTITY_OUT_OF_RANGE,
        TooManyParts { .. } => Reason::DISPLAY_QUANTITY_TOO_SMALL,
        ClientOrderIdTooLong => Reason::CLIENT_ORDER_ID_TOO_LONG,
        ClientOrderIdMalformed => Reason::CLIENT_ORDER_ID_MALFORMED,
        Halted => Reason::SYMBOL_HALTED,
        Closed => Reason::SYMBOL_CLOSED,
        InCall => Reason::SYMBOL_IN_AUCTION,
        NoOpeningAuction => Reason::NO_OPENING_AUCTION,
        NoClosingAuction => Reason::NO_CLOSING_AUCTION,
        OffLot { field: Field::DisplayQuantity, .. } => Reason::DISPLAY_QUANTITY_OFF_LOT,
        OffLot { .. } => Reason::QUANTITY_OFF_LOT,
        OffTick { field: Field::StopPrice, .. } => Reason::STOP_PRICE_OFF_TICK,
        OffTick { field: Field::TrailAmount, .. } => Reason::TRAIL_OFF_TICK,
        OffTick { .. } => Reason::PRICE_OFF_TICK,
        PriceTooLarge { .. } => Reason::PRICE_OUT_OF_RANGE,
        OutOfBand { field: Field::StopPrice, .. } => Reason::STOP_PRICE_OUT_OF_BAND,
        OutOfBand { .. } => Reason::PRICE_OUT_OF_BAND,
        NoReferencePrice { .. } => Reason::NO_REFERENCE_PRICE,
        StopWrongSide { .. } | StopNotBelowEntry { .. } => Reason::STOP_WRONG_SIDE,
        TargetNotAboveEntry { .. } => Reason::TARGET_NOT_ABOVE_ENTRY,
        OrderTooLarge => Reason::ORDER_TOO_LARGE,
    }
}
