//! The order ticket: its fields, its checks while one types, and the lock that makes one ticket one order.
//!
//! A ticket has one `client_order_id`. While its order is on the way nothing else can be sent; when the answer is not
//! known, only the very same order can be asked for again.

use super::Model;
use crate::text::Input;
use fafnir_proto::{
    money,
    v1::{OrderType, PlaceOrderRequest, Side, TimeInForce},
};
use std::collections::BTreeSet;

/// Largest order quantity (exchange-rules §7), e4.
pub const QUANTITY_E4_MAX: i64 = 10_000_000 * 10_000;
/// A price may be this far from the reference, in percent (exchange-rules §7).
pub const BAND_PERCENT: i64 = 50;
/// The collar of a market order: at least this many ticks from the reference (exchange-rules §3).
pub const COLLAR_TICKS: i64 = 10;
/// The collar of a market order: at least this part of the reference, in thousandths.
pub const COLLAR_PERMILLE: i64 = 25;

/// A field of the ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Side,
    Type,
    Quantity,
    Price,
    Stop,
    TimeInForce,
    PostOnly,
}

/// Where the ticket's order is.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    Editing,
    /// Sent; nothing else goes until the answer.
    InFlight(PlaceOrderRequest),
    /// Sent, and whether it arrived is not known. Only the same order can be sent again.
    Unknown(PlaceOrderRequest),
}

/// One order that is being written or is on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Ticket {
    pub symbol: String,
    pub side: Side,
    pub kind: OrderType,
    pub time_in_force: TimeInForce,
    pub post_only: bool,
    pub quantity: Input,
    pub price: Input,
    pub stop: Input,
    pub field: Field,
    /// Stable for this order; a new one only after a definite refusal.
    pub client_order_id: String,
    pub state: State,
    /// Sent by one key while armed: shows no box unless something goes wrong.
    pub quick: bool,
    /// What the exchange said to the last attempt.
    pub refused: Option<String>,
}

/// Why a ticket cannot be sent: the field and one sentence with the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub field: Option<Field>,
    pub text: String,
}

fn refuse<T>(field: Field, text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { field: Some(field), text: text.into() })
}

impl Ticket {
    pub fn has_price(&self) -> bool {
        matches!(self.kind, OrderType::Limit | OrderType::StopLimit)
    }

    pub fn has_stop(&self) -> bool {
        matches!(self.kind, OrderType::Stop | OrderType::StopLimit)
    }

    pub fn is_in_flight(&self) -> bool {
        matches!(self.state, State::InFlight(_))
    }

    pub fn is_editing(&self) -> bool {
        self.state == State::Editing
    }

    /// The fields that this type of order has, in order.
    pub fn fields(&self) -> Vec<Field> {
        let mut fields = vec![Field::Side, Field::Type, Field::Quantity];
        if self.has_price() {
            fields.push(Field::Price);
        }
        if self.has_stop() {
            fields.push(Field::Stop);
        }
        if self.kind != OrderType::Market {
            fields.push(Field::TimeInForce);
        }
        if self.has_price() {
            fields.push(Field::PostOnly);
        }
        fields
    }

    pub fn input(&mut self, field: Field) -> Option<&mut Input> {
        match field {
            Field::Quantity => Some(&mut self.quantity),
            Field::Price => Some(&mut self.price),
            Field::Stop => Some(&mut self.stop),
            _ => None,
        }
    }

    /// Moves to another field.
    pub fn move_field(&mut self, forward: bool) {
        let fields = self.fields();
        let at = fields.iter().position(|f| *f == self.field).unwrap_or(0);
        let next = if forward { at + 1 } else { at + fields.len() - 1 };
        self.field = fields[next % fields.len()];
    }

    /// Steps through the choices of a field, or a number by one tick or lot.
    pub fn step(&mut self, forward: bool, tick_e4: i64, lot_e4: i64) {
        let cycle = |len: usize, at: usize| if forward { (at + 1) % len } else { (at + len - 1) % len };
        match self.field {
            Field::Side => self.side = if self.side == Side::Buy { Side::Sell } else { Side::Buy },
            Field::Type => {
                let at = KINDS.iter().position(|k| *k == self.kind).unwrap_or(0);
                self.kind = KINDS[cycle(KINDS.len(), at)];
                if self.kind == OrderType::Market {
                    self.time_in_force = TimeInForce::Ioc;
                } else if self.time_in_force == TimeInForce::Ioc {
                    self.time_in_force = TimeInForce::Gtc;
                }
                self.post_only &= self.has_price();
            }
            Field::TimeInForce => {
                let at = TIMES.iter().position(|t| *t == self.time_in_force).unwrap_or(0);
                self.time_in_force = TIMES[cycle(TIMES.len(), at)];
            }
            Field::PostOnly => self.post_only = !self.post_only,
            Field::Quantity => step_input(&mut self.quantity, if forward { lot_e4 } else { -lot_e4 }),
            Field::Price => step_input(&mut self.price, if forward { tick_e4 } else { -tick_e4 }),
            Field::Stop => step_input(&mut self.stop, if forward { tick_e4 } else { -tick_e4 }),
        }
    }

    /// Price × quantity in micros where both can be read; of a market order at its collar.
    pub fn notional_micros(&self, model: &Model) -> Option<i64> {
        let quantity = money::parse_e4(self.quantity.text()).ok()?;
        money::notional_micros(self.worst_price_e4(model)?, quantity)
    }

    /// The worst price at which the order can trade, e4.
    fn worst_price_e4(&self, model: &Model) -> Option<i64> {
        if self.has_price() {
            return money::parse_e4(self.price.text()).ok();
        }
        let base = if self.kind == OrderType::Stop {
            money::parse_e4(self.stop.text()).ok()?
        } else {
            model.reference_e4(&self.symbol)?
        };
        collar_e4(base, self.side, model.tick_e4(&self.symbol))
    }

    /// Checks the ticket in the exchange's order: shape, instrument, band, funds (exchange-rules §7). The exchange has
    /// the last word; this only says earlier what it would say.
    pub fn validate(&self, model: &Model) -> Result<PlaceOrderRequest, Refusal> {
        let quantity_e4 = match money::parse_e4(self.quantity.text()) {
            _ if self.quantity.is_empty() => return refuse(Field::Quantity, "quantity is missing"),
            Err(e) => return refuse(Field::Quantity, format!("quantity {e}")),
            Ok(q) if q <= 0 => return refuse(Field::Quantity, "quantity must be above 0"),
            Ok(q) if q > QUANTITY_E4_MAX => {
                return refuse(Field::Quantity, "quantity must be at most 10,000,000");
            }
            Ok(q) => q,
        };
        let price_of = |input: &Input, field: Field, name: &str| match money::parse_e4(input.text()) {
            _ if input.is_empty() => refuse(field, format!("{name} is missing")),
            Err(e) => refuse(field, format!("{name} {e}")),
            Ok(p) if p <= 0 => refuse(field, format!("{name} must be above 0")),
            Ok(p) => Ok(p),
        };
        let price_e4 = if self.has_price() { price_of(&self.price, Field::Price, "price")? } else { 0 };
        let stop_price_e4 =
            if self.has_stop() { price_of(&self.stop, Field::Stop, "stop price")? } else { 0 };

        let Some(instrument) = model.instruments.get(&self.symbol) else {
            return Err(Refusal { field: None, text: format!("{} is not a listed symbol", self.symbol) });
        };
        match instrument.trading_state() {
            fafnir_proto::v1::TradingState::Halted => {
                return Err(Refusal { field: None, text: format!("{} is halted", self.symbol) });
            }
            fafnir_proto::v1::TradingState::Closed => {
                return Err(Refusal { field: None, text: format!("{} is closed", self.symbol) });
            }
            _ => {}
        }
        let (tick, lot) = (instrument.tick_e4.max(1), instrument.lot_e4.max(1));
        if quantity_e4 % lot != 0 {
            return refuse(
                Field::Quantity,
                format!("quantity must be a multiple of the lot {}", money::format_e4(lot)),
            );
        }
        let reference = model.reference_e4(&self.symbol);
        for (value, field, name) in
            [(price_e4, Field::Price, "price"), (stop_price_e4, Field::Stop, "stop price")]
        {
            if value % tick != 0 {
                return refuse(
                    field,
                    format!("{name} must be a multiple of the tick {}", money::format_e4(tick)),
                );
            }
            if let Some(reference) = reference.filter(|_| value != 0)
                && i128::from(value - reference).abs() * 100
                    > i128::from(reference) * i128::from(BAND_PERCENT)
            {
                let (low, high) = band_e4(reference, tick);
                let limits =
                    format!("{} to {}", crate::text::price(low, tick), crate::text::price(high, tick));
                return refuse(
                    field,
                    format!("{name} must be within {BAND_PERCENT} % of the reference: {limits}"),
                );
            }
        }
        if reference.is_none() && self.kind == OrderType::Market {
            return refuse(Field::Type, "a market order needs a reference price, and there is none yet");
        }
        self.check_funds(model, quantity_e4)?;
        let time_in_force =
            if self.kind == OrderType::Market { TimeInForce::Ioc } else { self.time_in_force };
        Ok(PlaceOrderRequest {
            symbol: self.symbol.clone(),
            side: self.side.into(),
            r#type: self.kind.into(),
            time_in_force: time_in_force.into(),
            quantity_e4,
            price_e4,
            stop_price_e4,
            post_only: self.post_only,
            client_order_id: self.client_order_id.clone(),
            ..Default::default()
        })
    }

    fn check_funds(&self, model: &Model, quantity_e4: i64) -> Result<(), Refusal> {
        let currency = model.currency(&self.symbol);
        let Some(account) = model.holdings.default_account(currency) else {
            let text = "there is no investment account to trade from".to_owned();
            return if model.holdings.accounts.is_empty() {
                Ok(())
            } else {
                Err(Refusal { field: None, text })
            };
        };
        if self.side == Side::Sell {
            let available = model.holdings.sellable_e4(&account.id, &self.symbol);
            if quantity_e4 > available {
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
        let needed = self.worst_price_e4(model).and_then(|p| money::notional_micros(p, quantity_e4));
        let Some(needed) = needed else {
            return refuse(Field::Quantity, "price × quantity is too large");
        };
        if needed > account.available_micros {
            let (needs, has) = (crate::text::cents(needed), crate::text::cents(account.available_micros));
            return refuse(
                Field::Quantity,
                format!("not enough cash: needs {needs}, available {has} {currency}"),
            );
        }
        Ok(())
    }
}

/// Types that the ticket offers.
pub const KINDS: [OrderType; 4] =
    [OrderType::Limit, OrderType::Market, OrderType::Stop, OrderType::StopLimit];
/// Times in force that the ticket offers.
pub const TIMES: [TimeInForce; 4] = [TimeInForce::Gtc, TimeInForce::Day, TimeInForce::Ioc, TimeInForce::Fok];

fn step_input(input: &mut Input, by_e4: i64) {
    if let Ok(value) = money::parse_e4(input.text())
        && let Some(next) = value.checked_add(by_e4).filter(|v| *v > 0)
    {
        *input = Input::new(money::format_e4(next));
    }
}

/// Lowest and highest price on a tick inside the band, e4.
fn band_e4(reference_e4: i64, tick_e4: i64) -> (i64, i64) {
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

pub fn kind_name(kind: OrderType) -> &'static str {
    match kind {
        OrderType::Limit | OrderType::Unspecified => "LMT",
        OrderType::Market => "MKT",
        OrderType::Stop => "STP",
        OrderType::StopLimit => "STP LMT",
        OrderType::TrailingStop => "TRAIL",
    }
}

pub fn time_name(time: TimeInForce) -> &'static str {
    match time {
        TimeInForce::Gtc | TimeInForce::Unspecified => "GTC",
        TimeInForce::Day => "DAY",
        TimeInForce::Ioc => "IOC",
        TimeInForce::Fok => "FOK",
        TimeInForce::Gtd => "GTD",
    }
}

pub fn side_name(side: Side) -> &'static str {
    match side {
        Side::Buy => "BUY",
        Side::Sell => "SELL",
        Side::Unspecified => "-",
    }
}

/// How far a flatten has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flatten {
    pub symbol: String,
    pub step: FlattenStep,
    /// When it gives up, microseconds.
    pub deadline_us: i64,
}

/// First nothing is open any more, then the shares go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlattenStep {
    /// The answer to the cancel of everything is out.
    Asked,
    /// The orders end, their holds go.
    Cancelling,
    /// Client order ids of the sales whose answer is out.
    Selling(BTreeSet<String>),
}

/// A flatten that has not come to its end by then gives up and says so (microseconds).
pub const FLATTEN_US: i64 = 6_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_collar_is_ten_ticks_or_two_and_a_half_percent_inside_the_tick() {
        assert_eq!(collar_e4(1_000_000, Side::Buy, 100), Some(1_025_000));
        assert_eq!(collar_e4(1_000_000, Side::Sell, 100), Some(975_000));
        assert_eq!(collar_e4(10_000, Side::Buy, 100), Some(11_000));
        assert_eq!(collar_e4(2_310_700, Side::Buy, 100), Some(2_368_400));
        assert_eq!(collar_e4(2_310_700, Side::Sell, 100), Some(2_253_000));
        assert_eq!(collar_e4(500, Side::Sell, 100), Some(100));
    }

    #[test]
    fn the_band_is_half_the_reference_either_way() {
        assert_eq!(band_e4(2_000_000, 100), (1_000_000, 3_000_000));
        assert_eq!(band_e4(2_310_500, 100), (1_155_300, 3_465_700));
        assert_eq!(band_e4(3, 1), (2, 4));
    }
}
