//! The life of an order: the state machine of exchange-rules §3 as a table, and what each outcome does to an order.

use super::Entry;
use fafnir_proto::{
    reason::Reason,
    v1::{OrderState, PendingAction},
};
use fafnir_rules::money::notional_micros;

/// What the engine (or the gate) said, as far as the state is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    AcceptedOpen,
    AcceptedHeld,
    Rejected,
    Triggered,
    FilledPart,
    FilledWhole,
    Canceled,
    Expired,
    Replaced,
    /// The order stays what it is: a replace or cancel was refused, quantity was taken off.
    Kept,
}

/// From, signal, to. What is not here cannot happen to an open order.
pub const TABLE: &[(OrderState, Signal, OrderState)] = {
    use OrderState::{Canceled, Expired, Filled, Held, New, PartiallyFilled, PendingNew, Rejected};
    &[
        (PendingNew, Signal::Rejected, Rejected),
        (PendingNew, Signal::AcceptedOpen, New),
        (PendingNew, Signal::AcceptedHeld, Held),
        (PendingNew, Signal::Kept, PendingNew),
        (Held, Signal::Triggered, New),
        (Held, Signal::Canceled, Canceled),
        (Held, Signal::Expired, Expired),
        (Held, Signal::Replaced, Held),
        (Held, Signal::Kept, Held),
        (New, Signal::FilledPart, PartiallyFilled),
        (New, Signal::FilledWhole, Filled),
        (New, Signal::Canceled, Canceled),
        (New, Signal::Expired, Expired),
        (New, Signal::Replaced, New),
        (New, Signal::Kept, New),
        (PartiallyFilled, Signal::FilledPart, PartiallyFilled),
        (PartiallyFilled, Signal::FilledWhole, Filled),
        (PartiallyFilled, Signal::Canceled, Canceled),
        (PartiallyFilled, Signal::Expired, Expired),
        (PartiallyFilled, Signal::Replaced, PartiallyFilled),
        (PartiallyFilled, Signal::Kept, PartiallyFilled),
    ]
};

/// The state after a signal. `None`: it cannot happen, which is an alarm; a terminal state is left by nothing, but a
/// fill there is an alarm too.
pub fn next(state: OrderState, signal: Signal) -> Option<OrderState> {
    if state.has_ended() {
        return (!matches!(signal, Signal::FilledPart | Signal::FilledWhole)).then_some(state);
    }
    TABLE.iter().find(|(from, on, _)| *from == state && *on == signal).map(|(_, _, to)| *to)
}

/// One outcome of the engine for one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Accepted {
        held: bool,
        stop_e4: i64,
    },
    Rejected {
        code: String,
    },
    Triggered,
    Filled {
        price_e4: i64,
        quantity_e4: i64,
        open_e4: i64,
    },
    Canceled {
        code: String,
    },
    Expired {
        code: String,
    },
    /// `cap_e4` is the cap that was asked for with this version, where it is known.
    Replaced {
        version: u32,
        total_e4: i64,
        open_e4: i64,
        price_e4: i64,
        stop_e4: i64,
        cap_e4: Option<i64>,
    },
    ReplaceRejected,
    CancelRejected,
    Decremented {
        quantity_e4: i64,
        open_e4: i64,
    },
}

impl Event {
    fn signal(&self) -> Signal {
        match self {
            Self::Accepted { held: false, .. } => Signal::AcceptedOpen,
            Self::Accepted { held: true, .. } => Signal::AcceptedHeld,
            Self::Rejected { .. } => Signal::Rejected,
            Self::Triggered => Signal::Triggered,
            Self::Filled { open_e4: 0, .. } => Signal::FilledWhole,
            Self::Filled { .. } => Signal::FilledPart,
            Self::Canceled { .. } => Signal::Canceled,
            Self::Expired { .. } => Signal::Expired,
            Self::Replaced { .. } => Signal::Replaced,
            Self::ReplaceRejected | Self::CancelRejected | Self::Decremented { .. } => Signal::Kept,
        }
    }
}

/// An outcome that contradicts what we know of the order: for a person to look at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("order {order}: {what}")]
pub struct Alarm {
    pub order: String,
    pub what: String,
}

/// Applies an outcome. `Ok(false)`: nothing changed. An alarm changes nothing.
pub fn apply(entry: &mut Entry, event: &Event, time_us: i64) -> Result<bool, Alarm> {
    let order = &mut entry.order;
    let alarm = |what: String| Alarm { order: order.id.clone(), what };
    let state = order.state();
    let Some(to) = next(state, event.signal()) else {
        return Err(alarm(format!("{event:?} in state {}", state.name())));
    };
    if state.has_ended() {
        return Ok(false);
    }
    match event {
        Event::Accepted { stop_e4, .. } => {
            if *stop_e4 != 0 {
                order.stop_price_e4 = *stop_e4;
            }
        }
        Event::Filled { price_e4, quantity_e4, open_e4 } => {
            let filled = order.filled_e4.checked_add(*quantity_e4).filter(|f| *f <= order.quantity_e4);
            let notional = notional_micros(*price_e4, *quantity_e4)
                .and_then(|n| order.filled_notional_micros.checked_add(n));
            let (Some(filled), Some(notional)) = (filled, notional) else {
                return Err(alarm(format!("{event:?} is more than its quantity {}", order.quantity_e4)));
            };
            order.filled_e4 = filled;
            order.filled_notional_micros = notional;
            order.open_e4 = *open_e4;
        }
        Event::Rejected { code } | Event::Canceled { code } | Event::Expired { code } => {
            order.reject_code.clone_from(code);
            order.reject_reason = sentence(to, code);
            order.open_e4 = 0;
        }
        Event::Replaced { version, total_e4, open_e4, price_e4, stop_e4, cap_e4 } => {
            if *total_e4 < order.filled_e4 {
                return Err(alarm(format!("{event:?} is less than the {} filled", order.filled_e4)));
            }
            order.version = *version;
            order.quantity_e4 = *total_e4;
            order.open_e4 = *open_e4;
            if *price_e4 != 0 {
                order.price_e4 = *price_e4;
            }
            if *stop_e4 != 0 {
                order.stop_price_e4 = *stop_e4;
            }
            if let Some(cap_e4) = cap_e4 {
                entry.cap_price_e4 = *cap_e4;
            }
            if order.display_quantity_e4 > order.quantity_e4 {
                order.display_quantity_e4 = order.quantity_e4;
            }
        }
        Event::Decremented { quantity_e4, open_e4 } => {
            // Off the total too, so that total = filled + open goes on to hold.
            let total = order.quantity_e4.checked_sub(*quantity_e4).filter(|t| *t >= order.filled_e4);
            let Some(total) = total else {
                return Err(alarm(format!("{event:?} is more than what is open of {}", order.quantity_e4)));
            };
            order.quantity_e4 = total;
            order.open_e4 = *open_e4;
        }
        Event::Triggered | Event::ReplaceRejected | Event::CancelRejected => {}
    }
    order.set_state(to);
    order.updated_us = time_us;
    match (event, order.pending()) {
        _ if to.has_ended() => order.set_pending(PendingAction::None),
        (Event::Replaced { .. } | Event::ReplaceRejected, PendingAction::Replace)
        | (Event::CancelRejected, PendingAction::Cancel) => order.set_pending(PendingAction::None),
        _ => {}
    }
    Ok(true)
}

/// The end of an order in one sentence.
pub fn sentence(state: OrderState, code: &str) -> String {
    let text = match Reason::known(code) {
        Some(Reason::USER) => "canceled at the owner's request",
        Some(Reason::SELF_TRADE) => {
            "canceled by self-trade prevention: it would have traded with another order of its owner"
        }
        Some(Reason::IOC) => "the rest was canceled: time in force IOC trades at once or not at all",
        Some(Reason::FOK) => "canceled: time in force FOK, and the whole quantity was not there",
        Some(Reason::COLLAR) => "the rest was canceled: the next price lies beyond the collar",
        Some(Reason::NO_LIQUIDITY) => "the rest was canceled: nothing is left on the other side of the book",
        Some(Reason::DAY_END) => "expired at the end of the trading day",
        Some(Reason::GTD) => "expired at its time",
        Some(Reason::POST_ONLY_WOULD_CROSS) => "refused: post-only, and its price would trade at once",
        Some(Reason::SYMBOL_HALTED) => "refused: trading in the symbol is halted",
        Some(Reason::NO_REFERENCE_PRICE) => "refused: the symbol has no reference price",
        Some(Reason::BOOK_FULL) => "refused: the book of the symbol is full",
        _ => return format!("{} by the engine: {code}", state.name().to_lowercase()),
    };
    text.to_owned()
}
