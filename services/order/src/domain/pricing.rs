//! What the instrument and the market say to an order, as the rules have it.

use super::{Error, new_order::NewOrder};
use fafnir_proto::v1::Instrument;
use fafnir_rules::{
    check::{self, Field, Listing, Order, Priced, Terms, Violation},
    order::{Side, TradingState},
};

fn listing(instrument: &Instrument) -> Listing {
    Listing {
        tick_e4: instrument.tick_e4,
        lot_e4: instrument.lot_e4,
        state: instrument.trading_state().known().unwrap_or(TradingState::Closed),
    }
}

fn refuse<T>(checked: Result<T, Violation>, instrument: &Instrument) -> Result<T, Error> {
    checked.map_err(|violation| super::refusal(violation, &instrument.symbol))
}

/// Checks an order against its instrument, then against the band around the reference price (last trade, else previous
/// close; `None` when there is neither).
pub fn price(order: &NewOrder, instrument: &Instrument, reference: Option<i64>) -> Result<Priced, Error> {
    let order = Order {
        side: order.side,
        terms: order.terms,
        time_in_force: order.time_in_force,
        quantity_e4: order.quantity_e4,
        display_e4: order.display_e4,
    };
    refuse(check::order(&order, &listing(instrument), reference), instrument)
}

/// Whether orders for the instrument are taken.
pub fn open(instrument: &Instrument) -> Result<(), Error> {
    refuse(check::open(listing(instrument).state), instrument)
}

/// Checks the quantity that a replace gives an order of which `filled_e4` has traded.
pub fn quantity(
    quantity_e4: i64,
    filled_e4: i64,
    display_e4: i64,
    instrument: &Instrument,
) -> Result<(), Error> {
    let checked = check::quantity(quantity_e4)
        .and_then(|()| check::lots(Field::Quantity, quantity_e4, instrument.lot_e4))
        .and_then(|()| check::parts(quantity_e4 - filled_e4, display_e4));
    refuse(checked, instrument)
}

/// Checks the prices of the terms and answers cap and stop.
pub fn terms(
    side: Side,
    terms: Terms,
    instrument: &Instrument,
    reference: Option<i64>,
) -> Result<Priced, Error> {
    let checked = check::ticks(terms, instrument.tick_e4)
        .and_then(|()| check::priced(side, terms, instrument.tick_e4, reference));
    refuse(checked, instrument)
}

/// Checks that price × quantity is an amount of money.
pub fn size(price_e4: i64, quantity_e4: i64, instrument: &Instrument) -> Result<(), Error> {
    refuse(check::size(price_e4, quantity_e4), instrument)
}
