//! What the exchange says to an order, in this order: shape, state of the symbol, lots, ticks, band, size
//! (exchange-rules §7). Who takes an order and who writes one ask the same functions.
//!
//! A violation is data: who refuses gives it its code, who shows it may say it shorter.

use crate::{
    limits::{
        BAND_PERCENT, CLIENT_ORDER_ID_LEN_MAX, EXPIRY_US_MAX, ICEBERG_PARTS_MAX, QUANTITY_E4_MAX, TICKS_MAX,
        TRAIL_PERCENT_E4_MAX, TRAIL_PERCENT_E4_STEP,
    },
    money::{format_e4, format_micros, notional_micros},
    order::{OrderType, Side, TimeInForce, TradingState, one_of},
    price::{Trail, collar, is_in_band, is_multiple, trailing_start},
};

/// What an order does, with the prices that its type needs and no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terms {
    Market,
    Limit { price_e4: i64 },
    Stop { stop_e4: i64 },
    StopLimit { price_e4: i64, stop_e4: i64 },
    TrailingStop { trail: Trail },
}

impl Terms {
    /// The type that has these terms.
    pub const fn order_type(self) -> OrderType {
        match self {
            Self::Market => OrderType::Market,
            Self::Limit { .. } => OrderType::Limit,
            Self::Stop { .. } => OrderType::Stop,
            Self::StopLimit { .. } => OrderType::StopLimit,
            Self::TrailingStop { .. } => OrderType::TrailingStop,
        }
    }

    /// The limit; 0 for none.
    pub const fn price_e4(self) -> i64 {
        match self {
            Self::Limit { price_e4 } | Self::StopLimit { price_e4, .. } => price_e4,
            Self::Market | Self::Stop { .. } | Self::TrailingStop { .. } => 0,
        }
    }

    /// The stop price; 0 for none.
    pub const fn stop_e4(self) -> i64 {
        match self {
            Self::Stop { stop_e4 } | Self::StopLimit { stop_e4, .. } => stop_e4,
            Self::Market | Self::Limit { .. } | Self::TrailingStop { .. } => 0,
        }
    }
}

/// What of an order its listing can judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    pub side: Side,
    pub terms: Terms,
    pub time_in_force: TimeInForce,
    pub quantity_e4: i64,
    /// 0: all of it shows.
    pub display_e4: i64,
}

/// What of a listing an order must fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listing {
    pub tick_e4: i64,
    pub lot_e4: i64,
    pub state: TradingState,
}

/// What an order needs beside its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Priced {
    /// The worst price that it may trade at; its cash hold is quantity × this.
    pub cap_e4: i64,
    /// The stop price that it starts with; 0 for none.
    pub stop_e4: i64,
}

/// A number of an order, as requests name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Quantity,
    DisplayQuantity,
    Price,
    StopPrice,
    TrailAmount,
}

impl Field {
    /// Its name in requests and sentences.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quantity => "quantity",
            Self::DisplayQuantity => "display_quantity",
            Self::Price => "price",
            Self::StopPrice => "stop_price",
            Self::TrailAmount => "trail_amount",
        }
    }
}

/// The rule that an order breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    QuantityNotPositive,
    QuantityTooLarge {
        quantity_e4: i64,
    },
    /// Both, where an order says how much in one way.
    QuantityAmbiguous,
    NotionalNotPositive,
    NotionalTooSmall {
        notional_micros: i64,
        price_e4: i64,
        lot_e4: i64,
    },
    NotionalNotAllowed {
        order_type: OrderType,
    },
    TimeNotAllowed {
        order_type: OrderType,
    },
    ExpiryMissing,
    ExpiryInThePast,
    ExpiryTooFar,
    TrailMissing,
    TrailAmountNotPositive,
    TrailPercentOutOfRange,
    DisplayOutOfRange {
        quantity_e4: i64,
    },
    TooManyParts {
        quantity_e4: i64,
        display_e4: i64,
    },
    ClientOrderIdTooLong,
    ClientOrderIdMalformed,
    Halted,
    Closed,
    InCall,
    /// OPG where no opening auction comes next.
    NoOpeningAuction,
    /// CLS where the calendar has no closing auction.
    NoClosingAuction,
    OffLot {
        field: Field,
        value_e4: i64,
        lot_e4: i64,
    },
    OffTick {
        field: Field,
        value_e4: i64,
        tick_e4: i64,
    },
    PriceTooLarge {
        field: Field,
        most_e4: i64,
    },
    OutOfBand {
        field: Field,
        price_e4: i64,
        reference_e4: i64,
    },
    NoReferencePrice {
        order_type: OrderType,
    },
    /// A stop that would be elected at once.
    StopWrongSide {
        side: Side,
        stop_e4: i64,
        last_e4: i64,
    },
    /// Of an exit that waits for its entry.
    StopNotBelowEntry {
        stop_e4: i64,
        entry_e4: i64,
    },
    /// Of an exit whose entry may rest.
    TargetNotAboveEntry {
        price_e4: i64,
        entry_e4: i64,
    },
    TrailTooWide {
        reference_e4: i64,
    },
    OrderTooLarge,
}

const TOO_LARGE: &str = "price times quantity must be at most 9,223,372,036,854 in the listing's currency";

impl Violation {
    /// One sentence that names the field and the limit, for an order in `symbol`.
    pub fn sentence(&self, symbol: &str) -> String {
        match *self {
            Self::QuantityNotPositive => "quantity must be above 0".to_owned(),
            Self::QuantityTooLarge { quantity_e4 } => format!(
                "quantity must be at most {}, not {}",
                format_e4(QUANTITY_E4_MAX),
                format_e4(quantity_e4)
            ),
            Self::QuantityAmbiguous => "only one of quantity and notional may be given".to_owned(),
            Self::NotionalNotPositive => "notional must be above 0".to_owned(),
            Self::NotionalTooSmall { notional_micros, price_e4, lot_e4 } => {
                less_than_a_lot(notional_micros, price_e4, lot_e4, symbol)
            }
            Self::NotionalNotAllowed { order_type } => {
                format!("notional must not be given: a {order_type} order has a quantity")
            }
            Self::TimeNotAllowed { order_type } => not_its_time(order_type),
            Self::ExpiryMissing => "expires_at is missing: time in force GTD needs one".to_owned(),
            Self::ExpiryInThePast => "expires_at must be in the future".to_owned(),
            Self::ExpiryTooFar => "expires_at must be within 366 days".to_owned(),
            Self::TrailMissing => {
                "trail_amount or trail_percent is missing: a TRAILING_STOP order needs one".to_owned()
            }
            Self::TrailAmountNotPositive => "trail_amount must be above 0".to_owned(),
            Self::TrailPercentOutOfRange => {
                "trail_percent must be from 0.01 to 50 with at most 2 decimals".to_owned()
            }
            Self::DisplayOutOfRange { quantity_e4 } => {
                format!(
                    "display_quantity must be above 0 and at most the quantity {}",
                    format_e4(quantity_e4)
                )
            }
            Self::TooManyParts { quantity_e4, display_e4 } => too_many_parts(quantity_e4, display_e4),
            Self::ClientOrderIdTooLong => {
                format!("client_order_id must have at most {CLIENT_ORDER_ID_LEN_MAX} characters")
            }
            Self::ClientOrderIdMalformed => "client_order_id must be printable ASCII".to_owned(),
            Self::Halted => format!("trading in symbol {symbol} is halted"),
            Self::Closed => format!("symbol {symbol} is closed for trading"),
            Self::InCall => format!(
                "symbol {symbol} gathers orders for an auction: time in force FOK, and IOC but of a MARKET order, are not \
                 taken"
            ),
            Self::NoOpeningAuction => format!(
                "symbol {symbol} is not in PRE_OPEN: time in force OPG is for the opening auction, before it begins"
            ),
            Self::NoClosingAuction => format!(
                "symbol {symbol} has no closing auction: time in force CLS needs a calendar with sessions"
            ),
            Self::OffLot { field, value_e4, lot_e4 } => off_step(field, value_e4, "lot", lot_e4, symbol),
            Self::OffTick { field, value_e4, tick_e4 } => off_step(field, value_e4, "tick", tick_e4, symbol),
            Self::PriceTooLarge { field, most_e4 } => {
                format!("{} must be at most {}", field.name(), format_e4(most_e4))
            }
            Self::OutOfBand { field, price_e4, reference_e4 } => {
                let (field, price, reference) = (field.name(), format_e4(price_e4), format_e4(reference_e4));
                format!("{field} {price} must be within {BAND_PERCENT} % of the reference price {reference}")
            }
            Self::NoReferencePrice { order_type } => format!(
                "{symbol} has no reference price (no trade, no previous close): a {order_type} order needs one"
            ),
            Self::StopWrongSide { side, stop_e4, last_e4 } => wrong_side(side, stop_e4, last_e4),
            Self::StopNotBelowEntry { stop_e4, entry_e4 } => beside("stop_price", stop_e4, "below", entry_e4),
            Self::TargetNotAboveEntry { price_e4, entry_e4 } => beside("price", price_e4, "above", entry_e4),
            Self::TrailTooWide { reference_e4 } => format!(
                "the trail must be at most {BAND_PERCENT} % of the reference price {}",
                format_e4(reference_e4)
            ),
            Self::OrderTooLarge => TOO_LARGE.to_owned(),
        }
    }
}

fn less_than_a_lot(notional_micros: i64, price_e4: i64, lot_e4: i64, symbol: &str) -> String {
    let (notional, lot, price) = (format_micros(notional_micros), format_e4(lot_e4), format_e4(price_e4));
    format!("notional {notional} is less than the lot {lot} of {symbol} is worth at {price}")
}

fn not_its_time(order_type: OrderType) -> String {
    // In the order in which everybody lists them.
    let times = TimeInForce::ALL.iter().filter(|t| order_type.times().contains(t));
    let times = one_of(times.map(|t| t.name()));
    format!("time_in_force of a {order_type} order must be {times}")
}

fn too_many_parts(quantity_e4: i64, display_e4: i64) -> String {
    let (display, quantity) = (format_e4(display_e4), format_e4(quantity_e4));
    format!(
        "display_quantity {display} must be at least a {ICEBERG_PARTS_MAX}th of the quantity {quantity}: an iceberg shows \
         at most {ICEBERG_PARTS_MAX} parts"
    )
}

fn beside(field: &str, value_e4: i64, way: &str, entry_e4: i64) -> String {
    let (value, most) = (format_e4(value_e4), format_e4(entry_e4));
    format!("{field} {value} of an exit must be {way} {most}, the most that its entry pays")
}

fn wrong_side(side: Side, stop_e4: i64, last_e4: i64) -> String {
    let way = if side == Side::Buy { "above" } else { "below" };
    let (stop, last) = (format_e4(stop_e4), format_e4(last_e4));
    format!("stop_price {stop} of a {side} order must be {way} the last price {last}")
}

fn off_step(field: Field, value_e4: i64, step: &str, step_e4: i64, symbol: &str) -> String {
    let (field, value, by) = (field.name(), format_e4(value_e4), format_e4(step_e4));
    format!("{field} {value} must be a multiple of the {step} {by} of {symbol}")
}

type Checked<T = ()> = Result<T, Violation>;

/// A micro in units of price × quantity, both e4.
const MICROS_PER_E8: i128 = 100;

/// Checks a quantity apart from its lot.
pub fn quantity(quantity_e4: i64) -> Checked {
    match quantity_e4 {
        ..=0 => Err(Violation::QuantityNotPositive),
        1..=QUANTITY_E4_MAX => Ok(()),
        _ => Err(Violation::QuantityTooLarge { quantity_e4 }),
    }
}

/// Checks that an order says how much in one way: a quantity, or (0 = none) what it is worth, which only a MARKET and a
/// LIMIT order can.
pub fn how_much(order_type: OrderType, quantity_e4: i64, notional_micros: i64) -> Checked {
    match notional_micros {
        0 => quantity(quantity_e4),
        _ if quantity_e4 != 0 => Err(Violation::QuantityAmbiguous),
        ..0 => Err(Violation::NotionalNotPositive),
        _ if matches!(order_type, OrderType::Market | OrderType::Limit) => Ok(()),
        _ => Err(Violation::NotionalNotAllowed { order_type }),
    }
}

/// The quantity of a MARKET or LIMIT order that says what it is worth, rounded down to the lot: at its limit; a MARKET
/// order to buy at the worst price that it may trade at, so that it never costs more (fees apart), one to sell at the
/// reference price.
pub fn quantity_of(
    side: Side,
    terms: Terms,
    notional_micros: i64,
    listing: &Listing,
    reference_e4: Option<i64>,
) -> Checked<i64> {
    how_much(terms.order_type(), 0, notional_micros)?;
    open(listing.state)?;
    ticks(terms, listing.tick_e4)?;
    let cap_e4 = priced(side, terms, listing.tick_e4, reference_e4)?.cap_e4;
    let price_e4 = match (terms, side, reference_e4) {
        (Terms::Market, Side::Sell, Some(reference_e4)) => reference_e4,
        _ => cap_e4,
    };
    let lot_e4 = listing.lot_e4;
    let exact_e4 = i128::from(notional_micros) * MICROS_PER_E8 / i128::from(price_e4.max(1));
    let quantity_e4 = exact_e4 / i128::from(lot_e4.max(1)) * i128::from(lot_e4);
    match i64::try_from(quantity_e4) {
        Ok(0) => Err(Violation::NotionalTooSmall { notional_micros, price_e4, lot_e4 }),
        Ok(quantity_e4) => quantity(quantity_e4).map(|()| quantity_e4),
        Err(_) => Err(Violation::OrderTooLarge),
    }
}

/// Checks what an iceberg shows; 0 shows everything.
pub fn display(quantity_e4: i64, display_e4: i64) -> Checked {
    if !(0..=quantity_e4).contains(&display_e4) {
        return Err(Violation::DisplayOutOfRange { quantity_e4 });
    }
    parts(quantity_e4, display_e4)
}

/// Checks that an iceberg does not show too many parts; a display quantity of 0 hides nothing.
pub fn parts(quantity_e4: i64, display_e4: i64) -> Checked {
    if display_e4 == 0 || quantity_e4 <= display_e4.saturating_mul(ICEBERG_PARTS_MAX) {
        return Ok(());
    }
    Err(Violation::TooManyParts { quantity_e4, display_e4 })
}

/// Checks a time in force against the type.
pub fn time_in_force(order_type: OrderType, time: TimeInForce) -> Checked {
    if order_type.times().contains(&time) { Ok(()) } else { Err(Violation::TimeNotAllowed { order_type }) }
}

/// Checks when a GTD order ends, at time `now_us`; 0 is a time that was not given.
pub fn expiry(expires_us: i64, now_us: i64) -> Checked {
    if expires_us == 0 {
        Err(Violation::ExpiryMissing)
    } else if expires_us <= now_us {
        Err(Violation::ExpiryInThePast)
    } else if expires_us.saturating_sub(now_us) > EXPIRY_US_MAX {
        Err(Violation::ExpiryTooFar)
    } else {
        Ok(())
    }
}

/// Checks a trail apart from tick and band.
pub fn trail(trail: Trail) -> Checked {
    match trail {
        Trail::AmountE4(amount) if amount <= 0 => Err(Violation::TrailAmountNotPositive),
        Trail::PercentE4(percent)
            if !(TRAIL_PERCENT_E4_STEP..=TRAIL_PERCENT_E4_MAX).contains(&percent)
                || !is_multiple(percent, TRAIL_PERCENT_E4_STEP) =>
        {
            Err(Violation::TrailPercentOutOfRange)
        }
        Trail::AmountE4(_) | Trail::PercentE4(_) => Ok(()),
    }
}

/// Checks the id that a client gives its order.
pub fn client_order_id(text: &str) -> Checked {
    if text.len() > CLIENT_ORDER_ID_LEN_MAX {
        return Err(Violation::ClientOrderIdTooLong);
    }
    if text.bytes().any(|b| !(b' '..=b'~').contains(&b)) {
        return Err(Violation::ClientOrderIdMalformed);
    }
    Ok(())
}

/// Checks an order of the right shape against its listing, then against the band around the reference price (last trade,
/// else previous close; `None` when there is neither).
pub fn order(order: &Order, listing: &Listing, reference_e4: Option<i64>) -> Checked<Priced> {
    open(listing.state)?;
    let order_type = order.terms.order_type();
    let waits = order_type.rests(order.time_in_force) || order_type.waits_in_call(order.time_in_force);
    if listing.state.is_call() && !waits {
        return Err(Violation::InCall);
    }
    if order.time_in_force == TimeInForce::Opg && listing.state != TradingState::PreOpen {
        return Err(Violation::NoOpeningAuction);
    }
    lots(Field::Quantity, order.quantity_e4, listing.lot_e4)?;
    lots(Field::DisplayQuantity, order.display_e4, listing.lot_e4)?;
    ticks(order.terms, listing.tick_e4)?;
    let priced = priced(order.side, order.terms, listing.tick_e4, reference_e4)?;
    size(priced.cap_e4, order.quantity_e4)?;
    Ok(priced)
}

/// Whether orders are taken.
pub fn open(state: TradingState) -> Checked {
    match state {
        TradingState::Open | TradingState::PreOpen | TradingState::Auction => Ok(()),
        TradingState::Halted => Err(Violation::Halted),
        TradingState::Closed => Err(Violation::Closed),
    }
}

/// Checks that a quantity is a whole number of lots; 0 is none.
pub fn lots(field: Field, value_e4: i64, lot_e4: i64) -> Checked {
    if value_e4 != 0 && !is_multiple(value_e4, lot_e4) {
        return Err(Violation::OffLot { field, value_e4, lot_e4 });
    }
    Ok(())
}

/// Checks that the prices of the terms are on the tick, and not more ticks than the book can hold.
pub fn ticks(terms: Terms, tick_e4: i64) -> Checked {
    let trail = match terms {
        Terms::TrailingStop { trail: Trail::AmountE4(amount) } => amount,
        _ => 0,
    };
    for (field, value_e4) in
        [(Field::Price, terms.price_e4()), (Field::StopPrice, terms.stop_e4()), (Field::TrailAmount, trail)]
    {
        if value_e4 == 0 {
            continue;
        }
        if !is_multiple(value_e4, tick_e4) {
            return Err(Violation::OffTick { field, value_e4, tick_e4 });
        }
        if value_e4 / tick_e4 > TICKS_MAX {
            let most_e4 = TICKS_MAX.saturating_mul(tick_e4);
            return Err(Violation::PriceTooLarge { field, most_e4 });
        }
    }
    Ok(())
}

/// Checks the prices of the terms against the band and the last price, which is the reference once there is one, and
/// answers cap and stop.
pub fn priced(side: Side, terms: Terms, tick_e4: i64, reference_e4: Option<i64>) -> Checked<Priced> {
    let reference_e4 = reference_e4.filter(|r| *r > 0);
    if let Some(reference_e4) = reference_e4 {
        for (field, price_e4) in [(Field::Price, terms.price_e4()), (Field::StopPrice, terms.stop_e4())] {
            if price_e4 != 0 && !is_in_band(price_e4, reference_e4) {
                return Err(Violation::OutOfBand { field, price_e4, reference_e4 });
            }
        }
    }
    let right_side = |stop_e4| match reference_e4 {
        Some(last_e4)
            if side == Side::Buy && stop_e4 <= last_e4 || side == Side::Sell && stop_e4 >= last_e4 =>
        {
            Err(Violation::StopWrongSide { side, stop_e4, last_e4 })
        }
        _ => Ok(()),
    };
    if terms.stop_e4() != 0 {
        right_side(terms.stop_e4())?;
    }
    let needed = || reference_e4.ok_or(Violation::NoReferencePrice { order_type: terms.order_type() });
    // A collar beyond 64 bits is a size that no amount of money has.
    let collar = |price_e4| collar(side, price_e4, tick_e4).ok_or(Violation::OrderTooLarge);
    Ok(match terms {
        Terms::Limit { price_e4 } => Priced { cap_e4: price_e4, stop_e4: 0 },
        Terms::StopLimit { price_e4, stop_e4 } => Priced { cap_e4: price_e4, stop_e4 },
        Terms::Market => Priced { cap_e4: collar(needed()?)?, stop_e4: 0 },
        Terms::Stop { stop_e4 } => Priced { cap_e4: collar(stop_e4)?, stop_e4 },
        Terms::TrailingStop { trail } => {
            let reference_e4 = needed()?;
            let stop_e4 = trailing_start(side, trail, reference_e4, tick_e4)
                .ok_or(Violation::TrailTooWide { reference_e4 })?;
            right_side(stop_e4)?;
            Priced { cap_e4: collar(stop_e4)?, stop_e4 }
        }
    })
}

/// Checks that price × quantity is an amount of money.
pub fn size(price_e4: i64, quantity_e4: i64) -> Checked {
    notional_micros(price_e4, quantity_e4).map(drop).ok_or(Violation::OrderTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: Listing = Listing { tick_e4: 100, lot_e4: 10_000, state: TradingState::Open };
    const LIMIT: Order = Order {
        side: Side::Buy,
        terms: Terms::Limit { price_e4: 2_310_000 },
        time_in_force: TimeInForce::Gtc,
        quantity_e4: 50_000,
        display_e4: 0,
    };

    #[test]
    fn a_symbol_that_does_not_trade_refuses_before_its_steps_are_looked_at() {
        let off_tick = Order { terms: Terms::Limit { price_e4: 1 }, ..LIMIT };
        let halted = Listing { state: TradingState::Halted, ..LISTING };
        assert_eq!(order(&off_tick, &halted, None), Err(Violation::Halted));
        let off_both = Order { quantity_e4: 1, ..off_tick };
        assert!(matches!(order(&off_both, &LISTING, Some(1)), Err(Violation::OffLot { .. })));
        assert!(matches!(order(&off_tick, &LISTING, Some(1)), Err(Violation::OffTick { .. })));
    }

    #[test]
    fn a_call_takes_what_can_wait() {
        for state in [TradingState::PreOpen, TradingState::Auction] {
            let call = Listing { state, ..LISTING };
            assert!(order(&LIMIT, &call, None).is_ok());
            let market = Order { terms: Terms::Market, time_in_force: TimeInForce::Ioc, ..LIMIT };
            assert!(order(&market, &call, Some(2_310_000)).is_ok(), "it waits for the auction");
            for refused in [
                Order { time_in_force: TimeInForce::Fok, ..LIMIT },
                Order { time_in_force: TimeInForce::Ioc, ..LIMIT },
                Order { time_in_force: TimeInForce::Fok, ..market },
            ] {
                assert_eq!(order(&refused, &call, Some(2_310_000)), Err(Violation::InCall));
            }
        }
    }

    #[test]
    fn a_stop_is_on_its_side_of_the_last_price() {
        let last = Some(2_000_000);
        for (side, stop_e4, is_good) in [
            (Side::Buy, 2_000_100, true),
            (Side::Buy, 2_000_000, false),
            (Side::Buy, 1_999_900, false),
            (Side::Sell, 1_999_900, true),
            (Side::Sell, 2_000_000, false),
            (Side::Sell, 2_000_100, false),
        ] {
            for terms in [Terms::Stop { stop_e4 }, Terms::StopLimit { price_e4: 2_000_000, stop_e4 }] {
                let found = priced(side, terms, 100, last);
                assert_eq!(found.is_ok(), is_good, "{side} {stop_e4}: {found:?}");
            }
            assert!(
                priced(side, Terms::Stop { stop_e4 }, 100, None).is_ok(),
                "nothing is known to be passed"
            );
        }
        let wrong = Violation::StopWrongSide { side: Side::Sell, stop_e4: 2_000_100, last_e4: 2_000_000 };
        let sentence = "stop_price 200.01 of a SELL order must be below the last price 200";
        assert_eq!(wrong.sentence("A"), sentence);
        let trail = Trail::AmountE4(100);
        let found = priced(Side::Sell, Terms::TrailingStop { trail }, 100, Some(100));
        assert!(
            matches!(found, Err(Violation::TrailTooWide { .. } | Violation::StopWrongSide { .. })),
            "{found:?}"
        );
    }

    #[test]
    fn an_expiry_is_ahead_and_within_a_leap_year() {
        let day_us = 86_400_000_000;
        assert_eq!(expiry(0, 1), Err(Violation::ExpiryMissing));
        assert_eq!(expiry(7, 7), Err(Violation::ExpiryInThePast));
        assert_eq!(expiry(7 + 366 * day_us, 7), Ok(()));
        assert_eq!(expiry(8 + 366 * day_us, 7), Err(Violation::ExpiryTooFar));
        assert_eq!(expiry(i64::MAX, i64::MIN), Err(Violation::ExpiryTooFar));
    }

    #[test]
    fn a_notional_is_rounded_down_to_the_lot_and_never_costs_more() {
        let fine = Listing { lot_e4: 1, ..LISTING };
        let reference = Some(2_310_700);
        let of =
            |side, terms, notional, listing: &Listing| quantity_of(side, terms, notional, listing, reference);
        let limit = Terms::Limit { price_e4: 2_000_000 };
        // 100 / 200 = 0.5; 1,000 / 231.07 = 4.32769…; 1,000 / 236.84 (the cap) = 4.22225…
        assert_eq!(of(Side::Buy, limit, 100_000_000, &fine), Ok(5_000));
        assert_eq!(of(Side::Sell, Terms::Market, 1_000_000_000, &fine), Ok(43_276));
        assert_eq!(of(Side::Buy, Terms::Market, 1_000_000_000, &fine), Ok(42_222));
        assert_eq!(of(Side::Buy, Terms::Market, 1_000_000_000, &LISTING), Ok(40_000));
        for notional in [1, 19_999, 200_000_000, 123_456_789] {
            if let Ok(quantity_e4) = of(Side::Buy, limit, notional, &fine) {
                assert!(notional_micros(2_000_000, quantity_e4).is_some_and(|cost| cost <= notional));
            }
        }
        let small = Violation::NotionalTooSmall { notional_micros: 19_999, price_e4: 2_000_000, lot_e4: 1 };
        assert_eq!(of(Side::Buy, limit, 19_999, &fine), Err(small));
        assert_eq!(
            small.sentence("AAPL"),
            "notional 0.019999 is less than the lot 0.0001 of AAPL is worth at 200"
        );
        assert_eq!(of(Side::Buy, limit, -1, &fine), Err(Violation::NotionalNotPositive));
        let stop = Terms::Stop { stop_e4: 2_400_000 };
        let not_allowed = Err(Violation::NotionalNotAllowed { order_type: OrderType::Stop });
        assert_eq!(of(Side::Buy, stop, 1_000_000, &fine), not_allowed);
        let tiny = Terms::Limit { price_e4: 100 };
        let penny = quantity_of(Side::Buy, tiny, i64::MAX, &fine, None);
        assert!(
            matches!(penny, Err(Violation::QuantityTooLarge { .. } | Violation::OrderTooLarge)),
            "{penny:?}"
        );
        assert_eq!(how_much(OrderType::Limit, 1, 1), Err(Violation::QuantityAmbiguous));
        assert_eq!(how_much(OrderType::Limit, 0, 0), Err(Violation::QuantityNotPositive));
    }

    #[test]
    fn the_times_of_a_type_are_told_in_one_order() {
        let sentence = |order_type| Violation::TimeNotAllowed { order_type }.sentence("A");
        assert_eq!(
            sentence(OrderType::Market),
            "time_in_force of a MARKET order must be IOC, FOK, OPG or CLS"
        );
        assert_eq!(sentence(OrderType::Stop), "time_in_force of a STOP order must be DAY, GTC or GTD");
    }
}
