//! What the exchange would say to a ticket, said while one types: shape, instrument, band, funds (exchange-rules §7).
//!
//! The exchange has the last word; this only says it earlier, in the same order and where there is one in the same
//! sentence.

use super::{Field, Refusal, Request, Ticket, expiry};
use crate::{
    model::{Model, holdings},
    text::{self, Input},
};
use fafnir_proto::{
    money,
    v1::{
        self, OrderState, OrderType, PendingAction, PlaceOrderRequest, ReplaceOrderRequest, Side,
        TradingState,
    },
};

/// Largest order quantity (exchange-rules §7), e4.
pub const QUANTITY_E4_MAX: i64 = 10_000_000 * 10_000;
/// A price may be this far from the reference, in percent (exchange-rules §7).
pub const BAND_PERCENT: i64 = 50;
/// The collar of a market order: at least this many ticks from the reference (exchange-rules §3).
pub const COLLAR_TICKS: i64 = 10;
/// The collar of a market order: at least this part of the reference, in thousandths.
pub const COLLAR_PERMILLE: i64 = 25;
/// Largest trail in percent, at scale 10⁻⁴ of a percent: the width of the price band.
pub const TRAIL_PERCENT_E4_MAX: i64 = BAND_PERCENT * 10_000;
/// A trail is a whole number of basis points.
const TRAIL_PERCENT_E4_STEP: i64 = 100;
/// Parts that an iceberg may show.
pub const PARTS_MAX: i64 = 1_000;
/// Highest number of ticks in a price: what the book can hold.
const TICKS_MAX: i64 = 4_294_967_294;

fn refuse<T>(field: Field, text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { field: Some(field), text: text.into() })
}

fn refuse_all<T>(text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { field: None, text: text.into() })
}

/// How a trailing stop follows the market.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trail {
    AmountE4(i64),
    PercentE4(i64),
}

impl Ticket {
    /// Price × quantity in micros where both can be read; of a market order at its collar.
    pub fn notional_micros(&self, model: &Model) -> Option<i64> {
        let quantity = money::parse_e4(self.quantity.text()).ok()?;
        money::notional_micros(self.worst_price_e4(model)?, quantity)
    }

    /// The stop price that a trailing stop starts with, e4; none while its trail cannot be read.
    pub fn trailing_start_e4(&self, model: &Model) -> Option<i64> {
        let trail = self.parse_trail().ok()?;
        let tick = model.tick_e4(&self.symbol);
        trailing_start_e4(self.side, trail, model.reference_e4(&self.symbol)?, tick)
    }

    /// The worst price at which the order can trade, e4.
    fn worst_price_e4(&self, model: &Model) -> Option<i64> {
        let tick = model.tick_e4(&self.symbol);
        let base = match self.kind {
            OrderType::Limit | OrderType::StopLimit | OrderType::Unspecified => {
                return money::parse_e4(self.price.text()).ok();
            }
            OrderType::Stop => money::parse_e4(self.stop.text()).ok()?,
            // The trail of an order that stands is not looked up again: only its quantity can change.
            OrderType::TrailingStop => match &self.replaces {
                Some(order) => order.stop_price_e4,
                None => self.trailing_start_e4(model)?,
            },
            OrderType::Market => model.reference_e4(&self.symbol)?,
        };
        collar_e4(base, self.side, tick)
    }

    /// Checks the ticket in the exchange's order.
    ///
    /// # Errors
    /// The first thing that the exchange would refuse.
    pub fn validate(&self, model: &Model) -> Result<Request, Refusal> {
        match &self.replaces {
            Some(order) => self.validate_replace(model, order).map(Request::Replace),
            None => self.validate_new(model).map(Request::Place),
        }
    }

    fn validate_new(&self, model: &Model) -> Result<PlaceOrderRequest, Refusal> {
        let quantity_e4 = quantity_of(&self.quantity)?;
        let price_e4 = if self.has_price() { price_of(&self.price, Field::Price, "price")? } else { 0 };
        let stop_price_e4 =
            if self.has_stop() { price_of(&self.stop, Field::Stop, "stop price")? } else { 0 };
        let trail = if self.has_trail() { Some(self.parse_trail()?) } else { None };
        let expires_us = if self.has_expiry() {
            expiry::parse(self.expires.text(), model.now_us).or_else(|text| refuse(Field::Expires, text))?
        } else {
            0
        };
        let display_e4 = self.display_of(quantity_e4)?;

        let Some(instrument) = model.instruments.get(&self.symbol) else {
            return refuse_all(format!("{} is not a listed symbol", self.symbol));
        };
        self.check_state(model)?;
        let (tick, lot) = (instrument.tick_e4.max(1), instrument.lot_e4.max(1));
        on_lot(Field::Quantity, "quantity", quantity_e4, lot)?;
        on_lot(Field::Display, "display_quantity", display_e4, lot)?;
        on_tick(Field::Price, "price", price_e4, tick)?;
        on_tick(Field::Stop, "stop price", stop_price_e4, tick)?;
        if let Some(Trail::AmountE4(amount)) = trail {
            on_tick(Field::Trail, "trail_amount", amount, tick)?;
        }
        let reference = model.reference_e4(&self.symbol);
        in_band(Field::Price, "price", price_e4, reference, tick)?;
        in_band(Field::Stop, "stop price", stop_price_e4, reference, tick)?;
        self.check_reference(trail, reference, tick)?;
        if self.worst_price_e4(model).and_then(|p| money::notional_micros(p, quantity_e4)).is_none() {
            return refuse(
                Field::Quantity,
                "price times quantity must be at most 9,223,372,036,854 in the listing's currency",
            );
        }
        self.check_funds(model, quantity_e4)?;
        let (trail_amount_e4, trail_percent_e4) = match trail {
            Some(Trail::AmountE4(amount)) => (amount, 0),
            Some(Trail::PercentE4(percent)) => (0, percent),
            None => (0, 0),
        };
        Ok(PlaceOrderRequest {
            symbol: self.symbol.clone(),
            side: self.side.into(),
            r#type: self.kind.into(),
            time_in_force: self.time_in_force.into(),
            quantity_e4,
            price_e4,
            stop_price_e4,
            trail_amount_e4,
            trail_percent_e4,
            display_quantity_e4: display_e4,
            post_only: self.post_only && self.has_post_only(),
            client_order_id: self.client_order_id.clone(),
            expires_us,
            ..Default::default()
        })
    }

    fn parse_trail(&self) -> Result<Trail, Refusal> {
        let text = self.trail.text().trim();
        let wrong = |name: &str, e: money::Error| refuse(Field::Trail, format!("{name} {e}"));
        if text.is_empty() {
            return refuse(
                Field::Trail,
                "trail_amount or trail_percent is missing: a TRAILING_STOP order needs one",
            );
        }
        let Some(percent) = text.strip_suffix('%') else {
            return match money::parse_e4(text) {
                Ok(amount) if amount > 0 => Ok(Trail::AmountE4(amount)),
                Ok(_) => refuse(Field::Trail, "trail_amount must be above 0"),
                Err(e) => wrong("trail_amount", e),
            };
        };
        match money::parse_e4(percent) {
            Ok(p)
                if (TRAIL_PERCENT_E4_STEP..=TRAIL_PERCENT_E4_MAX).contains(&p)
                    && p % TRAIL_PERCENT_E4_STEP == 0 =>
            {
                Ok(Trail::PercentE4(p))
            }
            Err(e @ money::Error::Malformed) => wrong("trail_percent", e),
            Ok(_) | Err(_) => {
                refuse(Field::Trail, "trail_percent must be from 0.01 to 50 with at most 2 decimals")
            }
        }
    }

    /// What an iceberg shows, e4; 0 shows everything.
    fn display_of(&self, quantity_e4: i64) -> Result<i64, Refusal> {
        let text = self.display.text();
        if !self.has_display() || text.is_empty() {
            return Ok(0);
        }
        let display_e4 = match money::parse_e4(text) {
            Err(e) => return refuse(Field::Display, format!("display_quantity {e}")),
            Ok(display) if display <= 0 || display > quantity_e4 => {
                let most = money::format_e4(quantity_e4);
                let text = format!("display_quantity must be above 0 and at most the quantity {most}");
                return refuse(Field::Display, text);
            }
            Ok(display) => display,
        };
        parts(Field::Display, quantity_e4, display_e4)?;
        Ok(display_e4)
    }

    /// Whether the symbol takes orders, and this sort of order.
    fn check_state(&self, model: &Model) -> Result<(), Refusal> {
        let symbol = &self.symbol;
        match model.trading_state(symbol) {
            TradingState::Halted => refuse_all(format!("trading in symbol {symbol} is halted")),
            TradingState::Closed => refuse_all(format!("symbol {symbol} is closed for trading")),
            TradingState::PreOpen | TradingState::Auction if self.replaces.is_none() && !self.rests() => {
                let field = if self.kind == OrderType::Market { Field::Type } else { Field::TimeInForce };
                refuse(
                    field,
                    format!(
                        "symbol {symbol} gathers orders for an auction: MARKET orders and time in force IOC or FOK \
                         are not taken"
                    ),
                )
            }
            _ => Ok(()),
        }
    }

    /// A market order and a trailing stop need a reference price; a trail is at most half of it.
    fn check_reference(
        &self,
        trail: Option<Trail>,
        reference: Option<i64>,
        tick: i64,
    ) -> Result<(), Refusal> {
        let Some(reference) = reference else {
            return match self.kind {
                OrderType::Market => {
                    refuse(Field::Type, "a market order needs a reference price, and there is none yet")
                }
                OrderType::TrailingStop => {
                    refuse(Field::Type, "a trailing stop needs a reference price, and there is none yet")
                }
                _ => Ok(()),
            };
        };
        match trail {
            Some(trail) if trailing_start_e4(self.side, trail, reference, tick).is_none() => refuse(
                Field::Trail,
                format!(
                    "the trail must be at most {BAND_PERCENT} % of the reference price {}",
                    text::price(reference, tick)
                ),
            ),
            _ => Ok(()),
        }
    }

    fn check_funds(&self, model: &Model, quantity_e4: i64) -> Result<(), Refusal> {
        let currency = model.currency(&self.symbol);
        let Some(account) = model.holdings.default_account(currency) else {
            return if model.holdings.accounts.is_empty() {
                Ok(())
            } else {
                refuse_all("there is no investment account to trade from")
            };
        };
        let needed = self.worst_price_e4(model).and_then(|p| money::notional_micros(p, quantity_e4));
        self.has_funds(model, account, quantity_e4, needed)
    }

    /// Compares what an order needs now with what the account has free.
    fn has_funds(
        &self,
        model: &Model,
        account: &v1::Account,
        shares_e4: i64,
        needed_micros: Option<i64>,
    ) -> Result<(), Refusal> {
        let currency = model.currency(&self.symbol);
        if self.side == Side::Sell {
            let available = model.holdings.sellable_e4(&account.id, &self.symbol);
            if shares_e4 > available {
                let have = money::format_e4(available);
                return refuse(
                    Field::Quantity,
                    format!("not enough shares: {have} {} available", self.symbol),
                );
            }
            return Ok(());
        }
        if account.currency != currency {
            return Ok(()); // the exchange converts, at a rate that it alone knows
        }
        let Some(needed) = needed_micros else {
            return refuse(Field::Quantity, "price × quantity is too large");
        };
        if needed > account.available_micros {
            let (needs, has) = (text::cents(needed), text::cents(account.available_micros));
            return refuse(
                Field::Quantity,
                format!("not enough cash: needs {needs}, available {has} {currency}"),
            );
        }
        Ok(())
    }

    fn validate_replace(&self, model: &Model, opened: &v1::Order) -> Result<ReplaceOrderRequest, Refusal> {
        let order = model.holdings.orders.get(&opened.id).unwrap_or(opened);
        let id = crate::update::short_id(&order.id);
        if !holdings::is_open(order) {
            return refuse_all(format!("order {id} has ended: {}", crate::screens::lower::state_name(order)));
        }
        match (order.state(), order.pending()) {
            (OrderState::PendingNew, _) => {
                return refuse_all(format!("order {id} is not in the book yet and cannot be replaced"));
            }
            (_, PendingAction::Cancel) => {
                return refuse_all(format!("a cancel of order {id} is already on its way"));
            }
            (_, PendingAction::Replace) => {
                return refuse_all(format!("a replace of order {id} is already on its way"));
            }
            (_, PendingAction::None) => {}
        }
        if order.version != opened.version {
            return refuse_all(format!(
                "version of order {id} is {}, not {}: close and open it again",
                order.version, opened.version
            ));
        }
        let quantity_e4 = quantity_of(&self.quantity)?;
        let price_e4 = if self.has_price() { price_of(&self.price, Field::Price, "price")? } else { 0 };
        let stop_e4 = if self.has_stop() { price_of(&self.stop, Field::Stop, "stop price")? } else { 0 };
        // What stays as it is is not sent: 0 keeps it.
        let change = |now: i64, was: i64| if now == was { 0 } else { now };
        let request = ReplaceOrderRequest {
            order_id: order.id.clone(),
            quantity_e4: change(quantity_e4, order.quantity_e4),
            price_e4: change(price_e4, order.price_e4),
            stop_price_e4: if self.has_stop() { change(stop_e4, order.stop_price_e4) } else { 0 },
            version: order.version,
            ..Default::default()
        };
        if (request.quantity_e4, request.price_e4, request.stop_price_e4) == (0, 0, 0) {
            let what = if self.has_price() { "quantity or price" } else { "quantity" };
            return refuse(Field::Quantity, format!("nothing changes yet: give another {what}"));
        }
        if request.stop_price_e4 != 0 && order.state() != OrderState::Held {
            return refuse(
                Field::Stop,
                format!("stop_price cannot be changed: the stop of order {id} was triggered"),
            );
        }
        self.check_state(model)?;
        let (tick, lot) = (model.tick_e4(&self.symbol), model.lot_e4(&self.symbol));
        on_lot(Field::Quantity, "quantity", quantity_e4, lot)?;
        parts(Field::Quantity, quantity_e4.saturating_sub(order.filled_e4), order.display_quantity_e4)?;
        if quantity_e4 <= order.filled_e4 {
            let filled = money::format_e4(order.filled_e4);
            return refuse(Field::Quantity, format!("quantity must be above the {filled} already filled"));
        }
        let reference = model.reference_e4(&self.symbol);
        on_tick(Field::Price, "price", request.price_e4, tick)?;
        in_band(Field::Price, "price", request.price_e4, reference, tick)?;
        on_tick(Field::Stop, "stop price", request.stop_price_e4, tick)?;
        in_band(Field::Stop, "stop price", request.stop_price_e4, reference, tick)?;
        self.check_extra(model, order, quantity_e4)?;
        Ok(request)
    }

    /// What a replace needs beyond what the order holds already.
    fn check_extra(&self, model: &Model, order: &v1::Order, quantity_e4: i64) -> Result<(), Refusal> {
        let Some(account) = model.holdings.accounts.get(&order.account_id) else { return Ok(()) };
        let tick = model.tick_e4(&self.symbol);
        let held_at = if order.price_e4 > 0 {
            Some(order.price_e4)
        } else {
            collar_e4(order.stop_price_e4, self.side, tick)
        };
        let open = |quantity: i64| quantity.saturating_sub(order.filled_e4);
        let cost = |price: Option<i64>, quantity: i64| {
            price.and_then(|price| money::notional_micros(price, open(quantity)))
        };
        let needed = cost(self.worst_price_e4(model), quantity_e4)
            .zip(cost(held_at, order.quantity_e4))
            .and_then(|(new, old)| new.checked_sub(old));
        let shares = quantity_e4.saturating_sub(order.quantity_e4);
        if self.side == Side::Sell && shares <= 0 {
            return Ok(());
        }
        if self.side == Side::Buy && needed.is_some_and(|extra| extra <= 0) {
            return Ok(());
        }
        self.has_funds(model, account, shares, needed)
    }
}

fn quantity_of(input: &Input) -> Result<i64, Refusal> {
    match money::parse_e4(input.text()) {
        _ if input.is_empty() => refuse(Field::Quantity, "quantity is missing"),
        Err(e) => refuse(Field::Quantity, format!("quantity {e}")),
        Ok(q) if q <= 0 => refuse(Field::Quantity, "quantity must be above 0"),
        Ok(q) if q > QUANTITY_E4_MAX => refuse(Field::Quantity, "quantity must be at most 10,000,000"),
        Ok(q) => Ok(q),
    }
}

fn price_of(input: &Input, field: Field, name: &str) -> Result<i64, Refusal> {
    match money::parse_e4(input.text()) {
        _ if input.is_empty() => refuse(field, format!("{name} is missing")),
        Err(e) => refuse(field, format!("{name} {e}")),
        Ok(p) if p <= 0 => refuse(field, format!("{name} must be above 0")),
        Ok(p) => Ok(p),
    }
}

fn on_lot(field: Field, name: &str, value_e4: i64, lot_e4: i64) -> Result<(), Refusal> {
    if value_e4 % lot_e4 != 0 {
        return refuse(field, format!("{name} must be a multiple of the lot {}", money::format_e4(lot_e4)));
    }
    Ok(())
}

fn on_tick(field: Field, name: &str, value_e4: i64, tick_e4: i64) -> Result<(), Refusal> {
    if value_e4 % tick_e4 != 0 {
        return refuse(field, format!("{name} must be a multiple of the tick {}", money::format_e4(tick_e4)));
    }
    if value_e4 / tick_e4 > TICKS_MAX {
        let most = money::format_e4(TICKS_MAX.saturating_mul(tick_e4));
        return refuse(field, format!("{name} must be at most {most}"));
    }
    Ok(())
}

fn in_band(
    field: Field,
    name: &str,
    value_e4: i64,
    reference: Option<i64>,
    tick_e4: i64,
) -> Result<(), Refusal> {
    let Some(reference) = reference.filter(|_| value_e4 != 0) else { return Ok(()) };
    if i128::from(value_e4 - reference).abs() * 100 <= i128::from(reference) * i128::from(BAND_PERCENT) {
        return Ok(());
    }
    let (low, high) = band_e4(reference, tick_e4);
    let limits = format!("{} to {}", text::price(low, tick_e4), text::price(high, tick_e4));
    refuse(field, format!("{name} must be within {BAND_PERCENT} % of the reference: {limits}"))
}

/// An iceberg does not show too many parts; a display quantity of 0 hides nothing.
fn parts(field: Field, quantity_e4: i64, display_e4: i64) -> Result<(), Refusal> {
    if display_e4 == 0 || quantity_e4 <= display_e4.saturating_mul(PARTS_MAX) {
        return Ok(());
    }
    refuse(
        field,
        format!(
            "display_quantity {} must be at least a {PARTS_MAX}th of the quantity {}: an iceberg shows at most \
             {PARTS_MAX} parts",
            money::format_e4(display_e4),
            money::format_e4(quantity_e4)
        ),
    )
}

/// Lowest and highest price on a tick inside the band, e4.
pub(super) fn band_e4(reference_e4: i64, tick_e4: i64) -> (i64, i64) {
    let (reference, tick) = (i128::from(reference_e4), i128::from(tick_e4.max(1)));
    let half = |sign: i128| reference * (100 + sign * i128::from(BAND_PERCENT));
    let low = -(-half(-1)).div_euclid(100 * tick) * tick;
    let high = half(1).div_euclid(100 * tick) * tick;
    (i64::try_from(low).unwrap_or(i64::MAX), i64::try_from(high).unwrap_or(i64::MAX))
}

/// The worst price of a market order: the base ± max(10 ticks, 2.5 %), inside that distance on the tick, e4.
pub fn collar_e4(base_e4: i64, side: Side, tick_e4: i64) -> Option<i64> {
    let part = i128::from(base_e4) * i128::from(COLLAR_PERMILLE) / 1_000;
    let distance = part.max(i128::from(tick_e4) * i128::from(COLLAR_TICKS));
    let raw =
        if side == Side::Sell { i128::from(base_e4) - distance } else { i128::from(base_e4) + distance };
    let tick = i128::from(tick_e4.max(1));
    let on_tick =
        if side == Side::Sell { -(-raw).div_euclid(tick) * tick } else { raw.div_euclid(tick) * tick };
    i64::try_from(on_tick.max(tick)).ok()
}

/// Where a trailing stop starts: the trail behind the reference, on the tick at the far side, e4; none when the trail is
/// more than half of the reference.
fn trailing_start_e4(side: Side, trail: Trail, reference_e4: i64, tick_e4: i64) -> Option<i64> {
    let (reference, tick) = (i128::from(reference_e4), i128::from(tick_e4.max(1)));
    let distance = match trail {
        Trail::AmountE4(amount) => i128::from(amount),
        Trail::PercentE4(percent) => reference * i128::from(percent) / 1_000_000,
    };
    if distance * 100 > reference * i128::from(BAND_PERCENT) {
        return None;
    }
    let start = if side == Side::Sell {
        ((reference - distance).div_euclid(tick) * tick).max(tick)
    } else {
        -(-(reference + distance)).div_euclid(tick) * tick
    };
    i64::try_from(start).ok()
}
