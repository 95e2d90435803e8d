//! What the instrument and the market say to an order: lots, ticks, the price band, collars, the price of its hold.

use super::{
    Error,
    new_order::{NewOrder, Terms, Trail},
};
use fafnir_proto::{
    money::{format_e4, notional_micros},
    v1::{Instrument, Side, TimeInForce, TradingState},
};

/// A collar is at least this many ticks wide.
const COLLAR_TICKS_MIN: i64 = 10;
/// A collar is at least 2.5 % of the price wide.
const COLLAR_PER_MILLE: i64 = 25;
/// Highest number of ticks in a price: what the book can hold.
const TICKS_MAX: i64 = 4_294_967_294;

/// What an order needs beside its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Priced {
    /// The worst price that it may trade at; its cash hold is quantity × this.
    pub cap_e4: i64,
    /// The stop price that it starts with; 0 for none.
    pub stop_e4: i64,
}

/// Checks an order against its instrument, then against the band around the reference price (last trade, else previous
/// close; `None` when there is neither).
pub fn price(order: &NewOrder, instrument: &Instrument, reference: Option<i64>) -> Result<Priced, Error> {
    open(instrument)?;
    gathers(order, instrument)?;
    lots("quantity", order.quantity_e4, instrument)?;
    if order.display_e4 != 0 {
        lots("display_quantity", order.display_e4, instrument)?;
    }
    terms_on_tick(order.terms, instrument)?;
    let priced = within_band(order.side, order.terms, instrument, reference)?;
    if notional_micros(priced.cap_e4, order.quantity_e4).is_none() {
        return Err(Error::invalid(
            "ORDER_TOO_LARGE",
            "price times quantity must be at most 9,223,372,036,854 in the listing's currency",
        ));
    }
    Ok(priced)
}

/// Whether orders for the instrument are taken.
pub fn open(instrument: &Instrument) -> Result<(), Error> {
    let symbol = &instrument.symbol;
    match instrument.trading_state() {
        TradingState::Open | TradingState::PreOpen | TradingState::Auction => Ok(()),
        TradingState::Halted => {
            Err(Error::precondition("SYMBOL_HALTED", format!("trading in symbol {symbol} is halted")))
        }
        TradingState::Closed | TradingState::Unspecified => {
            Err(Error::precondition("SYMBOL_CLOSED", format!("symbol {symbol} is closed for trading")))
        }
    }
}

/// In a call only what can wait for the auction is taken.
fn gathers(order: &NewOrder, instrument: &Instrument) -> Result<(), Error> {
    let in_call = matches!(instrument.trading_state(), TradingState::PreOpen | TradingState::Auction);
    let waits =
        order.terms != Terms::Market && !matches!(order.time_in_force, TimeInForce::Ioc | TimeInForce::Fok);
    if in_call && !waits {
        return Err(Error::precondition(
            "SYMBOL_IN_AUCTION",
            format!(
                "symbol {} gathers orders for an auction: MARKET orders and time in force IOC or FOK are not taken",
                instrument.symbol
            ),
        ));
    }
    Ok(())
}

/// Checks that a quantity is a whole number of lots.
pub fn lots(field: &'static str, quantity_e4: i64, instrument: &Instrument) -> Result<(), Error> {
    if instrument.lot_e4 <= 0 || quantity_e4 % instrument.lot_e4 != 0 {
        let reason = if field == "quantity" { "QUANTITY_OFF_LOT" } else { "DISPLAY_QUANTITY_OFF_LOT" };
        return Err(Error::invalid(
            reason,
            format!(
                "{field} {} must be a multiple of the lot {} of {}",
                format_e4(quantity_e4),
                format_e4(instrument.lot_e4),
                instrument.symbol
            ),
        ));
    }
    Ok(())
}

fn on_tick(field: &str, reason: &'static str, price_e4: i64, instrument: &Instrument) -> Result<(), Error> {
    if instrument.tick_e4 <= 0 || price_e4 % instrument.tick_e4 != 0 {
        return Err(Error::invalid(
            reason,
            format!(
                "{field} {} must be a multiple of the tick {} of {}",
                format_e4(price_e4),
                format_e4(instrument.tick_e4),
                instrument.symbol
            ),
        ));
    }
    if price_e4 / instrument.tick_e4 > TICKS_MAX {
        let most = format_e4(TICKS_MAX.saturating_mul(instrument.tick_e4));
        return Err(Error::invalid("PRICE_TOO_LARGE", format!("{field} must be at most {most}")));
    }
    Ok(())
}

/// Checks that the prices of the terms are on the tick.
pub fn terms_on_tick(terms: Terms, instrument: &Instrument) -> Result<(), Error> {
    if terms.price_e4() != 0 {
        on_tick("price", "PRICE_OFF_TICK", terms.price_e4(), instrument)?;
    }
    if terms.stop_e4() != 0 {
        on_tick("stop_price", "STOP_PRICE_OFF_TICK", terms.stop_e4(), instrument)?;
    }
    if let Terms::TrailingStop { trail: Trail::AmountE4(amount) } = terms {
        on_tick("trail_amount", "TRAIL_OFF_TICK", amount, instrument)?;
    }
    Ok(())
}

/// Checks the prices of the terms against ± 50 % of the reference and answers cap and stop.
pub fn within_band(
    side: Side,
    terms: Terms,
    instrument: &Instrument,
    reference: Option<i64>,
) -> Result<Priced, Error> {
    let reference = reference.filter(|r| *r > 0);
    if let Some(reference) = reference {
        if terms.price_e4() != 0 {
            band("price", "PRICE_OUT_OF_BAND", terms.price_e4(), reference)?;
        }
        if terms.stop_e4() != 0 {
            band("stop_price", "STOP_PRICE_OUT_OF_BAND", terms.stop_e4(), reference)?;
        }
    }
    let needed = |order_type: &str| {
        reference.ok_or_else(|| {
            Error::precondition(
                "NO_REFERENCE_PRICE",
                format!(
                    "{} has no reference price (no trade, no previous close): a {order_type} order needs one",
                    instrument.symbol
                ),
            )
        })
    };
    Ok(match terms {
        Terms::Limit { price_e4 } => Priced { cap_e4: price_e4, stop_e4: 0 },
        Terms::StopLimit { price_e4, stop_e4 } => Priced { cap_e4: price_e4, stop_e4 },
        Terms::Market => Priced { cap_e4: collar(side, needed("MARKET")?, instrument.tick_e4), stop_e4: 0 },
        Terms::Stop { stop_e4 } => Priced { cap_e4: collar(side, stop_e4, instrument.tick_e4), stop_e4 },
        Terms::TrailingStop { trail } => {
            let reference = needed("TRAILING_STOP")?;
            let stop_e4 = trailing_start(side, trail, reference, instrument)?;
            Priced { cap_e4: collar(side, stop_e4, instrument.tick_e4), stop_e4 }
        }
    })
}

fn band(field: &str, reason: &'static str, price_e4: i64, reference_e4: i64) -> Result<(), Error> {
    let (price, reference) = (i128::from(price_e4), i128::from(reference_e4));
    if 2 * price < reference || 2 * price > 3 * reference {
        return Err(Error::invalid(
            reason,
            format!(
                "{field} {} must be within 50 % of the reference price {}",
                format_e4(price_e4),
                format_e4(reference_e4)
            ),
        ));
    }
    Ok(())
}

/// The worst price that an order may trade at: the price ± max(10 ticks, 2.5 %), on the tick at the inner side, at least
/// one tick.
pub fn collar(side: Side, price_e4: i64, tick_e4: i64) -> i64 {
    let distance = COLLAR_TICKS_MIN
        .saturating_mul(tick_e4)
        .max(price_e4.saturating_mul(COLLAR_PER_MILLE).div_euclid(1000));
    match side {
        Side::Sell => up(price_e4.saturating_sub(distance), tick_e4).max(tick_e4),
        Side::Buy | Side::Unspecified => down(price_e4.saturating_add(distance), tick_e4),
    }
}

fn down(price_e4: i64, tick_e4: i64) -> i64 {
    price_e4.div_euclid(tick_e4.max(1)).saturating_mul(tick_e4)
}

fn up(price_e4: i64, tick_e4: i64) -> i64 {
    down(price_e4.saturating_add(tick_e4 - 1), tick_e4)
}

/// Where a trailing stop starts: the trail behind the reference, on the tick at the far side.
fn trailing_start(side: Side, trail: Trail, reference: i64, instrument: &Instrument) -> Result<i64, Error> {
    let distance = match trail {
        Trail::AmountE4(amount) => amount,
        Trail::PercentE4(percent) => {
            let product = i128::from(reference) * i128::from(percent);
            i64::try_from(product / 1_000_000).unwrap_or(i64::MAX)
        }
    };
    if i128::from(distance) * 2 > i128::from(reference) {
        return Err(Error::invalid(
            "TRAIL_OUT_OF_RANGE",
            format!("the trail must be at most 50 % of the reference price {}", format_e4(reference)),
        ));
    }
    let tick = instrument.tick_e4;
    Ok(match side {
        Side::Sell => down(reference - distance, tick).max(tick),
        Side::Buy | Side::Unspecified => up(reference.saturating_add(distance), tick),
    })
}
