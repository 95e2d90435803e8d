//! Orders: what a request must be, what it needs, what becomes of it. No I/O, no clock, no float.

pub mod lifecycle;
pub mod new_order;
pub mod pricing;
#[cfg(test)]
mod tests;

pub use fafnir_platform::Refusal as Error;
use fafnir_proto::{reason::Reason, v1::Order};
use fafnir_rules::check::{Field, Violation};

/// The refusal of an order in `symbol` that breaks a rule.
pub fn refusal(violation: Violation, symbol: &str) -> Error {
    use Violation::*;
    let reason = match violation {
        QuantityNotPositive => Reason::QUANTITY_NOT_POSITIVE,
        QuantityTooLarge { .. } => Reason::QUANTITY_TOO_LARGE,
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
        OffLot { field: Field::DisplayQuantity, .. } => Reason::DISPLAY_QUANTITY_OFF_LOT,
        OffLot { .. } => Reason::QUANTITY_OFF_LOT,
        OffTick { field: Field::StopPrice, .. } => Reason::STOP_PRICE_OFF_TICK,
        OffTick { field: Field::TrailAmount, .. } => Reason::TRAIL_OFF_TICK,
        OffTick { .. } => Reason::PRICE_OFF_TICK,
        PriceTooLarge { .. } => Reason::PRICE_OUT_OF_RANGE,
        OutOfBand { field: Field::StopPrice, .. } => Reason::STOP_PRICE_OUT_OF_BAND,
        OutOfBand { .. } => Reason::PRICE_OUT_OF_BAND,
        NoReferencePrice { .. } => Reason::NO_REFERENCE_PRICE,
        OrderTooLarge => Reason::ORDER_TOO_LARGE,
    };
    let message = violation.sentence(symbol);
    match violation {
        Halted | Closed | InCall | NoReferencePrice { .. } => Error::precondition(reason, message),
        _ => Error::invalid(reason, message),
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
